//! One by one what operators, other programs and other nodes do to the store, with a ledger that runs as
//! in the server.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use control::testing::{Setup, id, reservation, source};
use control::{
    Answer, Class, EndCause, EndedLease, LedgerOp, Outcome, Policy, Reservation, Timestamp, Unit,
};
use tokio::sync::oneshot;

use super::server::Server;
use crate::ledger::connection::Store;
use crate::ledger::{Ledger, LedgerPlace, News, OnStoreLoss, StoreAddress};

/// Generous: the machine may be busy. What is promised is measured by the end-to-end tests.
const PATIENCE: Duration = Duration::from_secs(30);

const SETUP: Setup = Setup { unit: Unit::Viewer, per_user: None };

/// A node of the cluster, its clock ahead of the others'.
struct Node {
    ledger: Ledger<oneshot::Sender<Outcome>>,
    ended: Arc<Mutex<Vec<EndedLease>>>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Node {
    fn new(address: StoreAddress, on_loss: OnStoreLoss, ahead: Duration) -> Self {
        let began = Instant::now();
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let clock: Arc<dyn Fn() -> Timestamp + Send + Sync> =
            Arc::new(move || Timestamp::ZERO + wall + ahead + began.elapsed());
        let ended = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&ended);
        let tell = move |news: News<oneshot::Sender<Outcome>>| match news {
            News::Outcome(ticket, outcome) => {
                heard.lock().unwrap().extend(outcome.ended.clone());
                let _ = ticket.send(outcome);
            }
            News::Ended(ended) => heard.lock().unwrap().extend(ended),
        };
        let store = Store::new(address, String::new());
        let place = LedgerPlace::Store { store, on_loss };
        let (quota, policy) = (SETUP.quota(), Policy::default());
        let ledger = Ledger::start(place, quota, policy, Arc::clone(&clock), Box::new(tell));
        Self { ledger, ended, clock }
    }

    async fn ask(&mut self, op: LedgerOp) -> Answer {
        let (ticket, outcome) = oneshot::channel();
        let now = (self.clock)();
        assert!(self.ledger.apply(ticket, op, now, ToString::to_string).is_none());
        outcome.await.unwrap().answer
    }

    async fn reserve(&mut self, viewer: u32) -> Answer {
        self.ask(LedgerOp::Reserve(reservation(viewer, 0))).await
    }

    async fn hears_of_an_end(&self) -> EndedLease {
        let began = Instant::now();
        loop {
            if let Some(ended) = self.ended.lock().unwrap().pop() {
                return ended;
            }
            assert!(began.elapsed() < PATIENCE, "nobody told of the end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn store_is(&self, there: bool) {
        let began = Instant::now();
        while self.ledger.status().health().away.is_none() != there {
            assert!(began.elapsed() < PATIENCE, "{:?}", self.ledger.status().health());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn node(server: &Server) -> Node {
    Node::new(server.address(), OnStoreLoss::Keep, Duration::ZERO)
}

async fn shows(server: &Server, key: &str, value: &str) {
    let began = Instant::now();
    loop {
        let seen = server.cli(&["GET", key]);
        if seen == value {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{key} is {seen}, not {value}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_is_deleted_ends_and_the_others_stay() {
    let server = Server::start();
    let mut node = node(&server);
    for viewer in 0..3 {
        assert!(matches!(node.reserve(viewer).await, Answer::Reserved { .. }));
    }
    server.cli(&["DEL", &format!("stream:reservation:{}", id(1))]);
    let EndedLease { lease, cause } = node.hears_of_an_end().await;
    assert_eq!((lease.id(), cause), (&id(1), EndCause::Deleted));
    shows(&server, "stream:count:METRO", "2").await;
    assert!(node.ended.lock().unwrap().is_empty(), "nobody else ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_outlive_a_store_that_is_killed() {
    let mut server = Server::start();
    let mut node = node(&server);
    assert!(matches!(node.reserve(1).await, Answer::Reserved { .. }));
    server.kill();
    assert!(matches!(node.reserve(2).await, Answer::Reserved { .. }), "by the node's own view");
    assert!(matches!(node.reserve(3).await, Answer::Reserved { .. }));
    assert!(matches!(node.reserve(4).await, Answer::QuotaExceeded(_)), "within the quota");
    assert!(matches!(node.ask(LedgerOp::Release(id(1))).await, Answer::Released { .. }));
    server.start_again();
    node.store_is(true).await;
    shows(&server, "stream:count:METRO", "2").await;
    assert!(matches!(node.ask(LedgerOp::Release(id(2))).await, Answer::Released { .. }));
    assert!(node.ended.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refuses_grants_nothing_while_the_store_is_away() {
    let mut server = Server::start();
    let mut node = Node::new(server.address(), OnStoreLoss::Refuse, Duration::ZERO);
    assert!(matches!(node.reserve(1).await, Answer::Reserved { .. }));
    server.kill();
    assert_eq!(node.reserve(2).await, Answer::Unavailable);
    let seen = LedgerOp::MediaSeen { id: id(1), at: (node.clock)() };
    assert!(matches!(node.ask(seen).await, Answer::Renewed { .. }), "who watches keeps watching");
    server.start_again();
    node.store_is(true).await;
    assert!(matches!(node.reserve(2).await, Answer::Reserved { .. }));
    shows(&server, "stream:count:METRO", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_clocks_ten_minutes_apart_share_one_account() {
    let server = Server::start();
    let mut here = node(&server);
    let ahead = Duration::from_secs(600);
    let mut there = Node::new(server.address(), OnStoreLoss::Keep, ahead);
    let granted = there.reserve(1).await;
    let Answer::Reserved { lease, .. } = granted else { panic!("{granted:?}") };
    let life = lease.expires_at.saturating_since((there.clock)());
    assert!(life > Duration::from_secs(20) && life < Duration::from_secs(31), "{life:?}");
    assert!(matches!(here.reserve(2).await, Answer::Reserved { .. }));
    assert!(matches!(here.reserve(3).await, Answer::Reserved { .. }));
    let refused = there.reserve(4).await;
    assert!(matches!(&refused, Answer::QuotaExceeded(full) if full.usage.current == 3));

    // One of a higher class takes the place of the other node's, which hears of it.
    let class = Class::HIGHEST;
    let urgent = Reservation { class, ..reservation(5, 0) };
    assert!(matches!(here.ask(LedgerOp::Reserve(urgent)).await, Answer::Reserved { .. }));
    let EndedLease { lease, cause } = there.hears_of_an_end().await;
    assert_eq!((lease.id(), cause), (&id(1), EndCause::Preempted { by: id(5) }));
    assert_eq!(there.ask(LedgerOp::Release(id(1))).await, Answer::NotFound, "released twice");
    assert!(here.ended.lock().unwrap().is_empty());

    assert!(matches!(there.ask(LedgerOp::Release(id(2))).await, Answer::Released { .. }));
    let EndedLease { lease, cause } = here.hears_of_an_end().await;
    assert_eq!((lease.id(), cause), (&id(2), EndCause::ReleasedElsewhere));
}

/// The processes that the store has heard of.
fn heard(server: &Server) -> Vec<String> {
    let told = server.cli(&["ZRANGE", "stream:heard", "0", "-1"]);
    told.lines().map(ToOwned::to_owned).collect()
}

/// A number that the store answers with.
fn number(server: &Server, words: &[&str]) -> u64 {
    let told = server.cli(words);
    let whole = told.split_whitespace().next().and_then(|text| text.parse().ok());
    whole.unwrap_or_else(|| panic!("{words:?}: {told}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_died_leaves_no_lease_until_its_time_is_over() {
    let server = Server::start();
    let mut here = node(&server);
    assert!(matches!(here.reserve(1).await, Answer::Reserved { .. }));
    let before = heard(&server);
    let mut dead = node(&server);
    assert!(matches!(dead.reserve(2).await, Answer::Reserved { .. }));
    shows(&server, "stream:count:METRO", "2").await;
    dead.ledger.close(SETUP.quota()).await;
    let process = heard(&server).into_iter().find(|process| !before.contains(process)).unwrap();
    let ends = number(&server, &["ZSCORE", "stream:leases", id(2).as_ref()]);

    // It took its last census long ago.
    server.cli(&["ZADD", "stream:heard", "1", &process]);
    shows(&server, "stream:count:METRO", "1").await;

    let now = number(&server, &["TIME"]) * 1000;
    assert!(now < ends, "it ended by its time");
    assert_eq!(server.cli(&["ZRANGE", "stream:leases", "0", "-1"]), id(1).to_string());
    assert_eq!(heard(&server), before);
    assert!(here.ended.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_store_stood_still_nobody_died() {
    let server = Server::start();
    let [mut here, mut there] = [node(&server), node(&server)];
    assert!(matches!(here.reserve(1).await, Answer::Reserved { .. }));
    assert!(matches!(there.reserve(2).await, Answer::Reserved { .. }));
    let processes = heard(&server);
    assert_eq!(processes.len(), 2);

    let [one, other] = [&processes[0], &processes[1]];
    server.cli(&["ZADD", "stream:heard", "1", one, "1", other]);
    let began = Instant::now();
    while processes.iter().any(|one| number(&server, &["ZSCORE", "stream:heard", one]) == 1) {
        assert!(began.elapsed() < PATIENCE, "no census is taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    shows(&server, "stream:count:METRO", "2").await;
    for node in [here, there] {
        assert!(node.ended.lock().unwrap().is_empty());
        let repairs = node.ledger.status().health().repairs;
        assert!(repairs.iter().all(|count| *count == 0), "{repairs:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_none_leaves_the_last_good_one() {
    let server = Server::start();
    let mut node = node(&server);
    server.cli(&["SET", "stream:limit:METRO", "1"]);
    assert!(matches!(node.reserve(1).await, Answer::Reserved { usage, .. } if usage.limit == 1));
    assert!(matches!(node.reserve(2).await, Answer::QuotaExceeded(_)), "it holds at once");
    let heard = || server.cli(&["HGET", "stream:limits", "METRO"]) == "1";
    while !heard() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for wrong in ["-5", "many", "", "1e3", "4294967296"] {
        server.cli(&["SET", "stream:limit:METRO", wrong]);
        let refused = node.reserve(2).await;
        assert!(
            matches!(&refused, Answer::QuotaExceeded(full) if full.usage.limit == 1),
            "{wrong}"
        );
    }
    let count = node.ask(LedgerOp::SetLimit { source: source(0), limit: Some(2) }).await;
    assert!(matches!(count, Answer::Counted(usage) if usage.limit == 2));
    assert_eq!(server.cli(&["GET", "stream:limit:METRO"]), "2");
    assert!(matches!(node.reserve(2).await, Answer::Reserved { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_of_the_store_brings_no_lease_back() {
    let server = Server::start();
    let mut node = node(&server);
    assert!(matches!(node.reserve(1).await, Answer::Reserved { .. }));
    // As a backup has it that is read back after the release.
    let kept = ["stream:leases", "stream:records", "stream:index"];
    for key in kept {
        server.cli(&["COPY", key, &format!("{key}:kept")]);
    }
    assert!(matches!(node.ask(LedgerOp::Release(id(1))).await, Answer::Released { .. }));
    for key in kept {
        server.cli(&["COPY", &format!("{key}:kept"), key, "REPLACE"]);
    }
    shows(&server, "stream:count:METRO", "0").await;
    let began = Instant::now();
    while server.cli(&["ZCARD", "stream:leases"]) != "0" {
        assert!(began.elapsed() < PATIENCE, "the ghost stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_keep_in_the_store_is_left_alone_or_put_aside() {
    let server = Server::start();
    for number in 0..50 {
        server.cli(&["SET", &format!("session:{number}"), "of a shop"]);
    }
    let ours = ["leases", "records", "index", "ended", "epoch", "mirrors", "limits", "heard"];
    for name in ours {
        server.cli(&["SADD", &format!("stream:{name}"), "of somebody else"]);
    }
    server.cli(&["HSET", "stream:count:METRO", "of", "somebody else"]);

    let mut node = node(&server);
    assert!(matches!(node.reserve(1).await, Answer::Reserved { .. }));

    shows(&server, "stream:count:METRO", "1").await;
    for name in ours {
        let aside = server.cli(&["--scan", "--pattern", &format!("stream:{name}:foreign:*")]);
        assert_eq!(server.cli(&["SMEMBERS", &aside]), "of somebody else", "{name}");
    }
    assert_eq!(server.cli(&["GET", "session:49"]), "of a shop");
    assert!(matches!(node.ask(LedgerOp::Release(id(1))).await, Answer::Released { .. }));
    shows(&server, "stream:count:METRO", "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_keys_are_of_another_type_lives_and_gets_them_back() {
    let server = Server::start();
    let mut node = node(&server);
    assert!(matches!(node.reserve(1).await, Answer::Reserved { .. }));
    let keys =
        ["reservation", "metadata", "heartbeat"].map(|kind| format!("stream:{kind}:{}", id(1)));
    for key in &keys {
        server.cli(&["DEL", key]);
        server.cli(&["SADD", key, "x"]);
    }

    let seen = LedgerOp::MediaSeen { id: id(1), at: (node.clock)() + Duration::from_secs(1) };
    assert!(matches!(node.ask(seen).await, Answer::Renewed { usage, .. } if usage.current == 1));
    let beat = LedgerOp::Heartbeat { id: id(1), extend: None };
    assert!(matches!(node.ask(beat).await, Answer::Renewed { .. }));
    assert_eq!(server.cli(&["HGET", &keys[0], "source"]), "METRO");
    assert_eq!(server.cli(&["TYPE", &keys[2]]), "string");

    server.cli(&["DEL", &keys[1]]);
    server.cli(&["SADD", &keys[1], "x"]);
    assert!(matches!(node.ask(LedgerOp::Release(id(1))).await, Answer::Released { .. }));
    assert_eq!(server.cli(&["EXISTS", &keys[0], &keys[1], &keys[2]]), "0");
    assert!(node.ended.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_lease_is_neither_released_nor_renewed() {
    let server = Server::start();
    let mut node = node(&server);
    let never = id(9);
    assert!(matches!(node.reserve(1).await, Answer::Reserved { .. }));
    assert!(matches!(node.reserve(2).await, Answer::Reserved { .. }));
    assert!(matches!(node.ask(LedgerOp::Release(id(1))).await, Answer::Released { .. }));
    // Somebody puts back what people read of it: that makes no lease.
    let key = format!("stream:reservation:{}", id(1));
    server.cli(&["HSET", &key, "source", "METRO", "camera_id", "cam-0"]);

    for gone in [id(1), never] {
        assert_eq!(node.ask(LedgerOp::Release(gone.clone())).await, Answer::NotFound);
        let beat = LedgerOp::Heartbeat { id: gone.clone(), extend: None };
        assert_eq!(node.ask(beat).await, Answer::NotFound);
        let seen = LedgerOp::MediaSeen { id: gone, at: (node.clock)() };
        assert_eq!(node.ask(seen).await, Answer::NotFound);
    }

    let count = node.ask(LedgerOp::Count(source(0))).await;
    assert!(matches!(count, Answer::Counted(usage) if usage.current == 1), "{count:?}");
    shows(&server, "stream:count:METRO", "1").await;
    assert_eq!(server.cli(&["ZCARD", "stream:leases"]), "1");
}

//! Leases on cameras as the store keeps them: taken one by one, and renewed all at once.
//!
//! Whoever keeps a lease asks for the next turn; at each turn one call of the store renews all that were asked
//! for. So what a node costs the store does not grow with its cameras.

use std::sync::{PoisonError, Weak};
use std::time::Duration;

use redis::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::origin::{LOOK_INTERVAL, ORIGIN_LEASE, node_of};
use super::registry::text;
use super::{Cluster, Inner};
use crate::ledger::connection::{Call, StoreError};

/// How often leases are renewed: three times may get lost.
pub(super) const RENEWAL_INTERVAL: Duration = Duration::from_millis(500);

/// Leases in one call. It takes the store a millisecond, during which nobody else is answered.
const LEASES_A_CALL: usize = 1_000;

/// Whose a camera is.
pub(super) enum Claim {
    /// Ours, until then if nothing is said before.
    Ours(Instant),
    /// That node's.
    Of(String),
}

/// A lease that is to be renewed at the next turn, and who waits for it. A camera has one at most that
/// anybody waits for; those that nobody does leave with the turn.
pub(super) struct Wanted {
    key: String,
    told: oneshot::Sender<Claimed>,
}

/// What became of one lease.
type Claimed = Result<Claim, StoreError>;

/// Renews what is asked for as long as anybody has the cluster.
pub(super) async fn take_turns(cluster: Weak<Inner>) {
    let mut pause = RENEWAL_INTERVAL;
    loop {
        sleep(pause).await;
        let Some(inner) = cluster.upgrade() else { return };
        pause = match Cluster(inner).renew_wanted().await {
            Turn::Done => RENEWAL_INTERVAL,
            Turn::InVain => LOOK_INTERVAL,
        };
    }
}

/// How a turn went.
enum Turn {
    Done,
    /// The store did not answer, and is asked again sooner.
    InVain,
}

impl Cluster {
    /// Takes the lease, or renews it.
    pub(super) async fn claim(&self, key: &str) -> Claimed {
        let mut claims = self.claim_all(&[key.to_owned()]).await?;
        claims.pop().ok_or_else(|| self.0.settings.store.garbled("no lease at all"))?
    }

    /// Renews the lease at the next turn, with all others of this node.
    pub(super) async fn renew(&self, key: &str) -> Claimed {
        let (told, answer) = oneshot::channel();
        let wanted = Wanted { key: key.to_owned(), told };
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner).push(wanted);
        match answer.await {
            Ok(claim) => claim,
            // Turns end with the program.
            Err(_) => std::future::pending().await,
        }
    }

    async fn renew_wanted(&self) -> Turn {
        let wanted =
            std::mem::take(&mut *self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        // Whose lease was given back meanwhile does not wait any more, and is not to have it again.
        let mut wanted: Vec<Wanted> =
            wanted.into_iter().filter(|wanted| !wanted.told.is_closed()).collect();
        let mut turn = Turn::Done;
        while !wanted.is_empty() {
            let rest = wanted.split_off(wanted.len().min(LEASES_A_CALL));
            let (keys, told): (Vec<String>, Vec<_>) =
                wanted.into_iter().map(|Wanted { key, told }| (key, told)).unzip();
            // Who does not wait any more needs no answer.
            match self.claim_all(&keys).await {
                Ok(claims) => told.into_iter().zip(claims).for_each(|(told, claim)| {
                    let _ = told.send(claim);
                }),
                Err(error) => {
                    turn = Turn::InVain;
                    told.into_iter().for_each(|told| {
                        let _ = told.send(Err(error.clone()));
                    });
                }
            }
            wanted = rest;
        }
        turn
    }

    /// In the order of `keys`, each of which has the prefix with a hash tag where the store is a cluster.
    async fn claim_all(&self, keys: &[String]) -> Result<Vec<Claimed>, StoreError> {
        let inner = &self.0;
        let store = &inner.settings.store;
        // The store counts from when it hears of it, which is later.
        let until = Instant::now() + ORIGIN_LEASE;
        let lease = ORIGIN_LEASE.as_millis().to_string();
        let args = vec![inner.owner.clone().into_bytes(), lease.into_bytes()];
        let answer = store.eval(&inner.scripts.claim, keys.to_vec(), args).await?;
        let Value::Array(owners) = answer else { return Err(store.garbled("no list of leases")) };
        if owners.len() != keys.len() {
            return Err(store.garbled("a list of other leases"));
        }
        let claim = |owner: &Value| match (text(owner), owner) {
            (Some(owner), _) => Ok(Claim::Of(node_of(&owner))),
            (None, Value::Array(reasons)) => {
                let reason = reasons.iter().find_map(text).unwrap_or_default();
                Err(StoreError::Foreign { store: store.place(), reason })
            }
            (None, _) => Ok(Claim::Ours(until)),
        };
        Ok(owners.iter().map(claim).collect())
    }

    /// Gives back all of these, as far as they are this node's.
    pub(super) async fn release_all(&self, keys: impl Iterator<Item = String>) {
        let inner = &self.0;
        let call = |key| Call {
            script: &inner.scripts.release,
            keys: [key].iter().collect(),
            args: [&inner.owner].into_iter().collect(),
        };
        let calls: Vec<Call<'_>> = keys.map(call).collect();
        for calls in calls.chunks(LEASES_A_CALL) {
            // What is not given back expires.
            let _ = inner.settings.store.eval_all(calls).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Settings;
    use crate::ledger::connection::Store;
    use crate::ledger::tests::server::Server;

    fn node(name: &str, server: &Server) -> Cluster {
        Cluster::start(Settings {
            node: name.to_owned(),
            url: "http://10.0.0.1:8080".parse().unwrap(),
            store: Store::new(server.address(), String::new()),
            ca: None,
            tls: None,
        })
    }

    /// Whose a lease is; in other words than a node's name: nobody's.
    fn told(claimed: Claimed) -> String {
        match claimed {
            Ok(Claim::Ours(_)) => "ours".to_owned(),
            Ok(Claim::Of(node)) => node,
            Err(error) => error.to_string(),
        }
    }

    /// Scripts that the store was asked to run.
    fn calls(server: &Server) -> u32 {
        let stats = server.cli(&["INFO", "commandstats"]);
        let of_scripts = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_eval"));
        let calls = of_scripts
            .filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u32>().ok());
        calls.sum()
    }

    #[tokio::test]
    async fn all_leases_of_a_node_are_renewed_in_one_call() {
        let server = Server::start();
        let node = node("n1", &server);
        let keys: Vec<String> = (0..LEASES_A_CALL + 200).map(|n| format!("camera-{n}")).collect();
        let before = calls(&server);

        let renewed = keys.iter().map(|key| node.renew(key));
        let renewed = futures::future::join_all(renewed).await;

        assert!(renewed.into_iter().all(|claimed| told(claimed) == "ours"));
        // Two, and those by which the node says each second that it is there.
        let made = calls(&server) - before;
        assert!(made < 200, "{made} calls for {} leases", keys.len());
        node.release_all(keys.iter().cloned()).await;
        for key in [&keys[0], &keys[LEASES_A_CALL + 199]] {
            assert_eq!(server.cli(&["EXISTS", key]), "0");
        }
    }

    #[tokio::test]
    async fn one_lease_that_is_not_to_be_had_leaves_the_others_as_they_are() {
        let server = Server::start();
        let node = node("n2", &server);
        server.cli(&["SET", "taken", "n1 another process"]);
        server.cli(&["RPUSH", "foreign", "x"]);

        let (taken, foreign, free) =
            tokio::join!(node.renew("taken"), node.renew("foreign"), node.renew("free"));

        assert_eq!([told(taken), told(free)], ["n1", "ours"]);
        let foreign = told(foreign);
        assert!(foreign.contains("something of another type: WRONGTYPE"), "{foreign}");
        assert_eq!(server.cli(&["LLEN", "foreign"]), "1", "what others keep stays");
        node.release_all(["taken", "free"].map(str::to_owned).into_iter()).await;
        assert_eq!(server.cli(&["EXISTS", "taken"]), "1", "another node's is left to it");
    }

    #[tokio::test]
    async fn who_does_not_wait_any_more_gets_no_lease() {
        let server = Server::start();
        let node = node("n1", &server);
        {
            let mut left = std::pin::pin!(node.renew("left"));
            assert!(futures::poll!(&mut left).is_pending());
        }
        assert_eq!(told(node.renew("kept").await), "ours");
        assert_eq!(server.cli(&["EXISTS", "left"]), "0");
    }
}

//! The task that speaks with the store: operations in their order, a census every second, and this
//! node's own view for as long as the store is away.

use std::collections::HashMap;
use std::time::Duration;

use control::{Answer, EndedLease, LedgerOp, MemoryLedger, Outcome, ReservationId, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::OnStoreLoss;
use super::book::{Asked, Book, Own};
use super::connection::StoreError;

/// How often counts, limits and deletions are looked at. Operators are promised 5 s.
const CENSUS_INTERVAL: Duration = Duration::from_secs(1);

/// Between two attempts to reach a store that is away.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Operations that are sent in one go. They take the store some 30 µs each, so that the last of them is
/// answered within 10 ms.
const BATCH: usize = 256;

/// What the store's task tells who asked.
#[derive(Debug)]
pub(crate) enum News<T> {
    /// Of an operation, in the order in which the ledger made them.
    Outcome(T, Outcome),
    /// Leases of this node that ended without an operation of its own.
    Ended(Vec<EndedLease>),
}

/// Takes the news, where they are made.
pub(crate) type Tell<T> = Box<dyn Fn(News<T>) + Send + Sync>;

pub(super) struct Keeper<T> {
    book: Book,
    on_loss: OnStoreLoss,
    tell: Tell<T>,
    census: Interval,
}

/// What stands in for the store: the leases of this node.
struct View {
    ledger: MemoryLedger,
    /// Cameras' names, for people who look into the store.
    names: HashMap<ReservationId, String>,
}

/// An attempt to reach the store.
type Attempt = JoinHandle<Result<(), StoreError>>;

impl<T: Send + Sync + 'static> Keeper<T> {
    pub(super) fn new(book: Book, on_loss: OnStoreLoss, tell: Tell<T>) -> Self {
        let mut census = interval(CENSUS_INTERVAL);
        census.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { book, on_loss, tell, census }
    }

    /// Runs until nobody can ask any more, and all that was asked is answered.
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Asked<T>>) {
        // What is asked before the first answer of the store waits for it.
        let mut lost = self.take_census().await.err();
        loop {
            match lost.take() {
                None => match self.while_there(&mut inbox).await {
                    Some((error, left)) => {
                        self.note_loss(&error);
                        if !self.while_away(&mut inbox, left).await {
                            return;
                        }
                    }
                    None => return,
                },
                Some(error) => {
                    self.note_loss(&error);
                    if !self.while_away(&mut inbox, Vec::new()).await {
                        return;
                    }
                }
            }
        }
    }

    /// Until the store is lost: why, and what it did not answer. `None`: nobody asks any more.
    async fn while_there(
        &mut self,
        inbox: &mut mpsc::UnboundedReceiver<Asked<T>>,
    ) -> Option<(StoreError, Vec<Asked<T>>)> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let is_census = tokio::select! {
                biased;
                _ = self.census.tick() => true,
                count = inbox.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return None;
                    }
                    false
                }
            };
            if is_census || self.book.wants_census {
                if let Err(error) = self.take_census().await {
                    return Some((error, batch));
                }
            }
            if batch.is_empty() {
                continue;
            }
            let executed = self.book.execute(std::mem::take(&mut batch)).await;
            self.tell_ended();
            for (ticket, outcome) in executed.done {
                (self.tell)(News::Outcome(ticket, outcome));
            }
            if let Some(error) = executed.error {
                return Some((error, executed.left));
            }
        }
    }

    /// Until the store is back. False: nobody asks any more.
    async fn while_away(
        &mut self,
        inbox: &mut mpsc::UnboundedReceiver<Asked<T>>,
        left: Vec<Asked<T>>,
    ) -> bool {
        let mut view = self.view();
        for asked in left {
            self.answer_by(&mut view, asked);
        }
        let mut attempt = self.attempt();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                count = inbox.recv_many(&mut batch, BATCH) => {
                    for asked in batch.drain(..) {
                        self.answer_by(&mut view, asked);
                    }
                    if count == 0 {
                        attempt.abort();
                        return false;
                    }
                }
                result = &mut attempt => {
                    let error = match result {
                        Ok(Ok(())) => {
                            self.take_over(&mut view);
                            match self.take_census().await {
                                Ok(()) => break,
                                Err(error) => Some(error),
                            }
                        }
                        Ok(Err(error)) => Some(error),
                        // It was cut off with the runtime.
                        Err(_) => None,
                    };
                    if let Some(error) = error {
                        self.note_loss(&error);
                    }
                    view = self.view();
                    attempt = self.attempt();
                }
            }
        }
        if let Some(away) = self.book.status.back() {
            let away_ms = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
            info!(
                away_ms,
                leases = self.book.own.len(),
                "the store is back, leases are counted in it again"
            );
        }
        true
    }

    async fn take_census(&mut self) -> Result<(), StoreError> {
        let result = self.book.take_census().await;
        self.tell_ended();
        result
    }

    fn tell_ended(&mut self) {
        let ended = std::mem::take(&mut self.book.ended);
        if !ended.is_empty() {
            (self.tell)(News::Ended(ended));
        }
    }

    fn note_loss(&self, error: &StoreError) {
        if self.book.status.lost(error.to_string()) {
            warn!(reason = %error, on_store_loss = self.on_loss.as_str(), "the store is away; who watches keeps watching");
        }
    }

    fn attempt(&self) -> Attempt {
        let store = self.book.store.clone();
        tokio::spawn(async move {
            tokio::time::sleep(RETRY_INTERVAL).await;
            store.ping().await
        })
    }

    /// What this node knows, as a ledger.
    fn view(&self) -> View {
        let now = self.now();
        let mut ledger = MemoryLedger::new(self.book.quota.clone(), self.book.policy);
        for (source, limit) in &self.book.limits {
            let op = LedgerOp::SetLimit { source: source.clone(), limit: Some(*limit) };
            ledger.apply(op, now);
        }
        for own in self.book.own.values() {
            ledger.restore(own.lease.clone());
        }
        let own = self.book.own.iter();
        let names = own.map(|(id, own)| (id.clone(), own.name.clone())).collect();
        View { ledger, names }
    }

    fn answer_by(&mut self, view: &mut View, asked: Asked<T>) {
        let Asked { ticket, op, name } = asked;
        let is_refused = match &op {
            LedgerOp::Reserve(_) => self.on_loss == OnStoreLoss::Refuse,
            // A limit is kept by the store.
            LedgerOp::SetLimit { .. } => true,
            LedgerOp::Release(_)
            | LedgerOp::Heartbeat { .. }
            | LedgerOp::MediaSeen { .. }
            | LedgerOp::Expire
            | LedgerOp::Count(_)
            | LedgerOp::Snapshot => false,
        };
        let mut outcome =
            view.ledger.apply(if is_refused { LedgerOp::Expire } else { op }, self.now());
        if is_refused {
            outcome.answer = Answer::Unavailable;
        }
        if let Answer::Reserved { lease, .. } = &outcome.answer {
            view.names.insert(lease.id().clone(), name);
        }
        // What the node knows follows at once, so that a failure at the return loses nothing.
        self.follow(&outcome, &view.names);
        (self.tell)(News::Outcome(ticket, outcome));
    }

    fn follow(&mut self, outcome: &Outcome, names: &HashMap<ReservationId, String>) {
        for ended in &outcome.ended {
            self.book.own.remove(ended.lease.id());
        }
        match &outcome.answer {
            Answer::Reserved { lease, .. } | Answer::Renewed { lease, .. } => {
                let name = names.get(lease.id()).cloned().unwrap_or_default();
                self.book.own.insert(lease.id().clone(), Own { lease: lease.clone(), name });
            }
            Answer::Released { lease, .. } => {
                self.book.own.remove(lease.id());
            }
            Answer::QuotaExceeded(_)
            | Answer::IdTaken
            | Answer::NotFound
            | Answer::Swept
            | Answer::Counted(_)
            | Answer::Snapshot(_)
            | Answer::Unavailable => {}
        }
    }

    /// Ends what ran out meanwhile, so that it is not put back.
    fn take_over(&mut self, view: &mut View) {
        let outcome = view.ledger.apply(LedgerOp::Expire, self.now());
        self.follow(&outcome, &view.names);
        self.book.ended.extend(outcome.ended);
    }

    fn now(&self) -> Timestamp {
        (self.book.clock)()
    }
}

//! What this node counts of its part in the cluster.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Cluster;

/// Counters, since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Other nodes are pulled at present; the one that falls.
    pub(super) feeds_taken: AtomicU64,
    pub(super) origins_taken: AtomicU64,
    pub(super) origins_lost: AtomicU64,
    pub(super) alone: AtomicU64,
    pub(super) rehomings: AtomicU64,
    pub(super) registrations_lost: AtomicU64,
    records_learned: AtomicU64,
    records_refused: AtomicU64,
    questions_answered: AtomicU64,
    questions_failed: AtomicU64,
    questions_micros: AtomicU64,
    questions_taken: AtomicU64,
}

/// This node's part in the cluster at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClusterFigures {
    /// Other nodes that have said lately that they are there.
    pub(crate) nodes: u64,
    /// Leases on streams that this node has.
    pub(crate) origins: u64,
    /// Streams that it pulls from other nodes.
    pub(crate) feeds_taken: u64,
    /// Leases on streams that it took since the start.
    pub(crate) origins_taken: u64,
    /// Of these, those that it lost to another node.
    pub(crate) origins_lost: u64,
    /// Times that it pulled a stream without a lease, since no node saw the store.
    pub(crate) alone: u64,
    /// Times that the node was lost that it pulled a stream from, so that another one was looked for.
    pub(crate) rehomings: u64,
    /// Times that it was among the others and could not say so any more.
    pub(crate) registrations_lost: u64,
    /// Cameras and layouts that became what another node had written.
    pub(crate) records_learned: u64,
    /// Those that another node had written later and that could not be had from it.
    pub(crate) records_refused: u64,
    /// Questions that other nodes answered.
    pub(crate) questions_answered: u64,
    /// Questions to nodes that were there and did not answer.
    pub(crate) questions_failed: u64,
    /// How long was waited for both of them, all together.
    pub(crate) questions_time: Duration,
    /// Questions of other nodes that this one answered.
    pub(crate) questions_taken: u64,
}

/// One stream that is pulled from another node, as long as this is kept.
pub(super) struct Taken<'a>(&'a Cluster);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.0.counters.feeds_taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cluster {
    /// This node's part at this instant.
    pub(crate) fn figures(&self) -> ClusterFigures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner).len();
        let nodes = self.peers(|peers| peers.by_name.len());
        let counters = &self.0.counters;
        ClusterFigures {
            nodes: u64::try_from(nodes).unwrap_or(u64::MAX),
            origins: u64::try_from(held).unwrap_or(u64::MAX),
            feeds_taken: of(&counters.feeds_taken),
            origins_taken: of(&counters.origins_taken),
            origins_lost: of(&counters.origins_lost),
            alone: of(&counters.alone),
            rehomings: of(&counters.rehomings),
            registrations_lost: of(&counters.registrations_lost),
            records_learned: of(&counters.records_learned),
            records_refused: of(&counters.records_refused),
            questions_answered: of(&counters.questions_answered),
            questions_failed: of(&counters.questions_failed),
            questions_time: Duration::from_micros(of(&counters.questions_micros)),
            questions_taken: of(&counters.questions_taken),
        }
    }

    /// Counts what another node had to tell.
    pub(crate) fn count_records(&self, learned: usize, refused: usize) {
        let add = |counter: &AtomicU64, count: usize| {
            counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        add(&self.0.counters.records_learned, learned);
        add(&self.0.counters.records_refused, refused);
    }

    /// Counts a question of another node that this one answers.
    pub(crate) fn count_question_taken(&self) {
        self.count(|counters| &counters.questions_taken);
    }

    /// Counts what came of a question to another node, and how long that took.
    pub(super) fn count_question<T, E>(&self, answer: &Result<T, E>, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.counters.questions_micros.fetch_add(micros, Ordering::Relaxed);
        match answer {
            Ok(_) => self.count(|counters| &counters.questions_answered),
            Err(_) => self.count(|counters| &counters.questions_failed),
        }
    }

    /// Counts another node as pulled.
    pub(super) fn takes_feed(&self) -> Taken<'_> {
        self.0.counters.feeds_taken.fetch_add(1, Ordering::Relaxed);
        Taken(self)
    }

    pub(super) fn count(&self, counter: impl FnOnce(&Counters) -> &AtomicU64) {
        counter(&self.0.counters).fetch_add(1, Ordering::Relaxed);
    }
}

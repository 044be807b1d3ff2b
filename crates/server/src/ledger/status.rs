//! How the store is, for `/health` and metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Something that was put right, or left aside, in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repair {
    /// A count for people was wrong.
    Count,
    /// Leases and their index differed.
    Index,
    /// A lease would have lived too long.
    Expiry,
    /// A key of ours held another type.
    Foreign,
    /// A lease that the store had lost was put back.
    Restored,
    /// A lease was ended that nobody holds.
    Ghost,
    /// Leases were ended of a process that took no census any more.
    Orphaned,
    /// A lease was ended because somebody deleted its reservation.
    Deleted,
    /// A limit was not obeyed, for it is none.
    Limit,
}

impl Repair {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Count,
        Self::Index,
        Self::Expiry,
        Self::Foreign,
        Self::Restored,
        Self::Ghost,
        Self::Orphaned,
        Self::Deleted,
        Self::Limit,
    ];

    /// As metrics and log name it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Index => "index",
            Self::Expiry => "expiry",
            Self::Foreign => "foreign",
            Self::Restored => "restored",
            Self::Ghost => "ghost",
            Self::Orphaned => "orphaned",
            Self::Deleted => "deleted",
            Self::Limit => "limit",
        }
    }
}

/// How the store is at the moment.
#[derive(Debug, Clone)]
pub(crate) struct StoreHealth {
    /// Where it is, without password; `memory` where leases are kept in this process.
    pub(crate) place: String,
    /// Why it is away and for how long; `None` while it answers.
    pub(crate) away: Option<(String, Duration)>,
    /// How often it was lost since the start.
    pub(crate) losses: u64,
    /// What was repaired since the start, in the order of [`Repair::ALL`].
    pub(crate) repairs: [u64; Repair::ALL.len()],
}

/// Written by the task that speaks with the store, read by everybody.
#[derive(Debug)]
pub(crate) struct StoreStatus {
    place: String,
    away: Mutex<Option<(String, Instant)>>,
    losses: AtomicU64,
    repairs: [AtomicU64; Repair::ALL.len()],
}

impl StoreStatus {
    /// It answers, and nothing was repaired.
    pub(crate) fn new(place: String) -> Self {
        Self {
            place,
            away: Mutex::new(None),
            losses: AtomicU64::new(0),
            repairs: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// At this moment.
    pub(crate) fn health(&self) -> StoreHealth {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner).clone();
        StoreHealth {
            place: self.place.clone(),
            away: away.map(|(reason, since)| (reason, since.elapsed())),
            losses: self.losses.load(Ordering::Relaxed),
            repairs: std::array::from_fn(|place| {
                self.repairs.get(place).map_or(0, |count| count.load(Ordering::Relaxed))
            }),
        }
    }

    pub(super) fn repaired(&self, repair: Repair, count: usize) {
        let place = Repair::ALL.iter().position(|other| *other == repair);
        if let Some(counter) = place.and_then(|place| self.repairs.get(place)) {
            counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// It is away, for this reason. Whether that is news.
    pub(super) fn lost(&self, reason: String) -> bool {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *away {
            Some((known, _)) if *known == reason => false,
            Some((known, _)) => {
                *known = reason;
                true
            }
            None => {
                *away = Some((reason, Instant::now()));
                self.losses.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
    }

    /// It answers; for how long it did not.
    pub(super) fn back(&self) -> Option<Duration> {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.take().map(|(_, since)| since.elapsed())
    }
}

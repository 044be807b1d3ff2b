//! The ledger: the set of leases, and the only place that grants, renews and ends them.
//!
//! A ledger takes one [`LedgerOp`] at a time, whole, and answers with an [`Outcome`].
//! [`MemoryLedger`] is the reference implementation: whatever else stores leases must answer every
//! sequence of operations as it does.
//!
//! **Invariant:** there is no counter that is kept beside the leases. Indices are written by
//! `insert`, `renew` and `remove` alone, and [`MemoryLedger::check`] derives them anew.
//!
//! A reservation is judged by three limits in this order: its user's, its source's, and that of all
//! together. Where it would go beyond one, a lease of a lower class may give way; see `limits`.
//!
//! Expiry is exact: a lease lives in every millisecond before its `expires_at` and in none from it
//! on. Every operation first ends what is due and reports it in [`Outcome::ended`], so that no
//! operation sees a lease that has run out, whether or not a timer fired in between.

mod limits;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::ids::{ReservationId, SourceId};
use crate::policy::Policy;
use crate::quota::{Exceeded, Quota, Usage};
use crate::reservation::{Basis, Lease, Reservation};
use crate::time::Timestamp;

use limits::{Admission, Holding, watched};

/// Most leases at once. A lease takes under 1 KB with its indices, so that all of them stay within
/// 100 MB; the target is 1,000 viewers, and 65,535 ports bound what one address can serve at all.
pub const MAX_LEASES: u32 = 100_000;

/// One operation on a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerOp {
    /// Grant a lease, if the quota allows it.
    Reserve(Reservation),
    /// End a lease.
    Release(ReservationId),
    /// The client is there, though its media may not flow.
    Heartbeat {
        /// Whose.
        id: ReservationId,
        /// How long the lease shall live at most; the policy's time when absent.
        extend: Option<Duration>,
    },
    /// An authenticated packet came from the viewer.
    MediaSeen {
        /// Whose.
        id: ReservationId,
        /// When it came, at the latest now. It counts if the lease lived then, even when it is told
        /// later.
        at: Timestamp,
    },
    /// End what is due, nothing else.
    Expire,
    /// How far a source's quota is used.
    Count(SourceId),
    /// From now on this is the source's limit; `None`: the configured one again. Leases beyond it live on.
    SetLimit {
        /// Whose.
        source: SourceId,
        /// In the quota's unit.
        limit: Option<u32>,
    },
    /// All leases and counts, at one instant.
    Snapshot,
}

/// What an operation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The answer to the operation itself.
    pub answer: Answer,
    /// Leases that ended by this operation without having been named in it: those that ran out, in the
    /// order of their expiry, then those that gave way. Each is reported once.
    pub ended: Vec<EndedLease>,
    /// When the next lease runs out unless it is renewed; `None` without leases.
    pub next_expiry: Option<Timestamp>,
}

/// A lease that ended though nobody released it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedLease {
    /// As it was.
    pub lease: Lease,
    /// Why it ended.
    pub cause: EndCause,
}

/// Why a lease ended though nobody released it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndCause {
    /// Its time was over.
    Expired,
    /// A reservation of a higher class took its place.
    Preempted {
        /// Which.
        by: ReservationId,
    },
    /// Somebody deleted it in the store.
    Deleted,
}

/// The answer to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To `Reserve`: granted. `usage` is the source's, the new lease included.
    Reserved {
        /// The new lease.
        lease: Lease,
        /// Its source's quota.
        usage: Usage,
    },
    /// To `Reserve`: the quota is used up.
    QuotaExceeded(Exceeded),
    /// To `Reserve`: a lease with this id lives. Nothing changed.
    IdTaken,
    /// To `Release`: ended. `usage` is the source's afterwards.
    Released {
        /// The lease as it was.
        lease: Lease,
        /// Its source's quota.
        usage: Usage,
    },
    /// To `Heartbeat` and `MediaSeen`: the lease as it is now.
    Renewed {
        /// The lease, with its new expiry.
        lease: Lease,
        /// Its source's quota.
        usage: Usage,
    },
    /// To `Release`, `Heartbeat` and `MediaSeen`: no such lease lives. Nothing changed.
    NotFound,
    /// To `Expire`.
    Swept,
    /// To `Count` and `SetLimit`.
    Counted(Usage),
    /// To `Snapshot`.
    Snapshot(Snapshot),
    /// To all of them: the store cannot be asked, and nothing changed. Why is told once in the log.
    Unavailable,
}

/// All leases and counts at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Every live lease, in the order of expiry.
    pub leases: Vec<Lease>,
    /// Every source that has a limit or a lease, in the order of ids.
    pub sources: Vec<SourceUsage>,
    /// All sources together.
    pub total: Usage,
}

/// One source in a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceUsage {
    /// The source.
    pub source: SourceId,
    /// Its quota.
    pub usage: Usage,
    /// How many of its cameras are being watched.
    pub active_cameras: u32,
}

/// The ledger in this process's memory. Operations take O(log n); snapshots, and reservations that
/// meet a limit, O(n).
#[derive(Debug)]
pub struct MemoryLedger {
    quota: Quota,
    policy: Policy,
    /// The truth.
    leases: HashMap<ReservationId, Lease>,
    /// Derived: the leases in the order of their expiry.
    by_expiry: BTreeSet<(Timestamp, ReservationId)>,
    /// Derived: sources with at least one lease.
    by_source: HashMap<SourceId, Holding>,
    /// Derived: users with at least one lease.
    by_user: HashMap<String, Holding>,
    /// Derived: cameras with at least one lease, counted once for each source.
    watched_cameras: u32,
}

impl MemoryLedger {
    /// An empty ledger.
    pub fn new(quota: Quota, policy: Policy) -> Self {
        Self {
            quota,
            policy,
            leases: HashMap::new(),
            by_expiry: BTreeSet::new(),
            by_source: HashMap::new(),
            by_user: HashMap::new(),
            watched_cameras: 0,
        }
    }

    /// Executes one operation at `now`.
    pub fn apply(&mut self, op: LedgerOp, now: Timestamp) -> Outcome {
        // A packet that came while the lease lived counts, however late it is told; everything else
        // is judged at `now`.
        if let LedgerOp::MediaSeen { id, at } = &op {
            self.media_seen(id, (*at).min(now));
        }
        let mut ended = self.expire(now);
        let answer = match op {
            LedgerOp::Reserve(reservation) => self.reserve(reservation, now, &mut ended),
            LedgerOp::Release(id) => self.release(&id),
            LedgerOp::Heartbeat { id, extend } => self.heartbeat(&id, extend, now),
            LedgerOp::MediaSeen { id, .. } => self.renewed(&id),
            LedgerOp::Expire => Answer::Swept,
            LedgerOp::Count(source) => Answer::Counted(self.usage(&source)),
            LedgerOp::SetLimit { source, limit } => {
                self.quota.set_limit(source.clone(), limit);
                Answer::Counted(self.usage(&source))
            }
            LedgerOp::Snapshot => Answer::Snapshot(self.snapshot()),
        };
        let next_expiry = self.by_expiry.first().map(|(expires_at, _)| *expires_at);
        Outcome { answer, ended, next_expiry }
    }

    /// Puts in a lease that was granted elsewhere, whatever the quota says, in the place of one with the
    /// same id.
    pub fn restore(&mut self, lease: Lease) {
        self.remove(lease.id());
        self.insert(lease);
    }

    /// How many leases there are, those included that are due but not yet ended.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there is no lease.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Derives every index anew from the leases and compares. `Err` says what differs.
    pub fn check(&self) -> Result<(), String> {
        let mut derived = Self::new(self.quota.clone(), self.policy);
        for lease in self.leases.values() {
            derived.insert(lease.clone());
        }
        if derived.by_expiry != self.by_expiry {
            return Err("the order of expiry differs from the leases".to_owned());
        }
        if derived.by_source != self.by_source {
            return Err("the counts of the sources differ from the leases".to_owned());
        }
        if derived.by_user != self.by_user {
            return Err("the counts of the users differ from the leases".to_owned());
        }
        if derived.watched_cameras != self.watched_cameras {
            return Err("the count of watched cameras differs from the leases".to_owned());
        }
        if self.leases.len() > MAX_LEASES as usize {
            return Err("there are more leases than there may be".to_owned());
        }
        Ok(())
    }

    fn reserve(
        &mut self,
        reservation: Reservation,
        now: Timestamp,
        ended: &mut Vec<EndedLease>,
    ) -> Answer {
        if self.leases.contains_key(&reservation.id) {
            return Answer::IdTaken;
        }
        match self.admit(&reservation) {
            Admission::Fits => {}
            Admission::InPlaceOf(victim) => {
                let cause = EndCause::Preempted { by: reservation.id.clone() };
                ended.extend(self.remove(&victim).map(|lease| EndedLease { lease, cause }));
            }
            Admission::Refused(exceeded) => return Answer::QuotaExceeded(exceeded),
        }
        let expires_at = self.policy.first_expiry(now);
        let lease = Lease { reservation, created_at: now, expires_at, basis: Basis::Heartbeat };
        self.insert(lease.clone());
        let usage = self.usage(&lease.reservation.source);
        Answer::Reserved { lease, usage }
    }

    fn release(&mut self, id: &ReservationId) -> Answer {
        let Some(lease) = self.remove(id) else {
            return Answer::NotFound;
        };
        let usage = self.usage(&lease.reservation.source);
        Answer::Released { lease, usage }
    }

    fn heartbeat(
        &mut self,
        id: &ReservationId,
        extend: Option<Duration>,
        now: Timestamp,
    ) -> Answer {
        if let Some(lease) = self.leases.get(id) {
            let expires_at = self.policy.expiry_after_heartbeat(lease, now, extend);
            let basis = lease.basis;
            self.renew(id, expires_at, basis);
        }
        self.renewed(id)
    }

    fn media_seen(&mut self, id: &ReservationId, at: Timestamp) {
        if let Some(lease) = self.leases.get(id).filter(|lease| lease.is_live(at)) {
            let (expires_at, last_packet) = self.policy.expiry_after_media(lease, at);
            self.renew(id, expires_at, Basis::Media { last_packet });
        }
    }

    fn renewed(&self, id: &ReservationId) -> Answer {
        let Some(lease) = self.leases.get(id) else {
            return Answer::NotFound;
        };
        Answer::Renewed { lease: lease.clone(), usage: self.usage(&lease.reservation.source) }
    }

    /// Ends what is due at `now`.
    fn expire(&mut self, now: Timestamp) -> Vec<EndedLease> {
        let mut ended = Vec::new();
        while let Some((expires_at, id)) = self.by_expiry.first() {
            if *expires_at > now {
                break;
            }
            let id = id.clone();
            let lease = self.remove(&id);
            ended.extend(lease.map(|lease| EndedLease { lease, cause: EndCause::Expired }));
        }
        ended
    }

    fn snapshot(&self) -> Snapshot {
        let in_order = self.by_expiry.iter().filter_map(|(_, id)| self.leases.get(id));
        let with_lease = self.by_source.keys();
        let ids: BTreeSet<_> = self.quota.sources().chain(with_lease).collect();
        let sources = ids.into_iter().map(|source| SourceUsage {
            source: source.clone(),
            usage: self.usage(source),
            active_cameras: self.by_source.get(source).map_or(0, Holding::cameras),
        });
        Snapshot {
            leases: in_order.cloned().collect(),
            sources: sources.collect(),
            total: self.total_usage(),
        }
    }

    fn insert(&mut self, lease: Lease) {
        let id = lease.id().clone();
        let Reservation { source, user, .. } = &lease.reservation;
        let watched = watched(&lease.reservation);
        if self.by_source.entry(source.clone()).or_default().add(watched.clone()) {
            self.watched_cameras += 1;
        }
        self.by_user.entry(user.clone()).or_default().add(watched);
        self.by_expiry.insert((lease.expires_at, id.clone()));
        self.leases.insert(id, lease);
    }

    fn renew(&mut self, id: &ReservationId, expires_at: Timestamp, basis: Basis) {
        let Some(lease) = self.leases.get_mut(id) else {
            return;
        };
        if lease.expires_at != expires_at {
            self.by_expiry.remove(&(lease.expires_at, id.clone()));
            self.by_expiry.insert((expires_at, id.clone()));
        }
        lease.expires_at = expires_at;
        lease.basis = basis;
    }

    fn remove(&mut self, id: &ReservationId) -> Option<Lease> {
        let lease = self.leases.remove(id)?;
        self.by_expiry.remove(&(lease.expires_at, id.clone()));
        let Reservation { source, user, .. } = &lease.reservation;
        let watched = watched(&lease.reservation);
        if let Some(holding) = self.by_source.get_mut(source) {
            if holding.take(&watched) {
                self.watched_cameras -= 1;
            }
            if holding.is_empty() {
                self.by_source.remove(source);
            }
        }
        if let Some(holding) = self.by_user.get_mut(user) {
            holding.take(&watched);
            if holding.is_empty() {
                self.by_user.remove(user);
            }
        }
        Some(lease)
    }
}

/// A number of leases as the quota counts them; [`MAX_LEASES`] keeps it far below the type's end.
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

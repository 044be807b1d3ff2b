//! Whether one more lease fits, who gives way to it, and when there is room by itself.
//!
//! The rules:
//! 1. A newcomer is judged by its user's limit, its source's and the total, in this order. It is
//!    beyond a limit if it costs a unit there and the limit is used up. By camera it costs nothing where
//!    its camera counts already: for its user if he watches that camera, for source and total if
//!    anybody does.
//! 2. If it is beyond a limit, the lease without which it would fit everywhere gives way to it: of
//!    those of a lower class the one that was used longest ago, and of several such the one with the
//!    smallest id. One alone gives way, never two.
//! 3. If there is none, the newcomer is refused by the first limit that it is beyond.
//!
//! So a lease of the lowest class takes nobody's place, and classes matter only where a limit is met.

use std::collections::HashMap;

use super::{MAX_LEASES, MemoryLedger, count};
use crate::ids::{CameraId, ReservationId, SourceId};
use crate::quota::{Exceeded, Scope, Unit, Usage};
use crate::reservation::{Class, Lease, Reservation};
use crate::time::Timestamp;

/// A camera as it is counted.
pub(super) type Watched = (SourceId, CameraId);

/// What a reservation counts as, by camera.
pub(super) fn watched(reservation: &Reservation) -> Watched {
    (reservation.source.clone(), reservation.camera.clone())
}

/// The leases of one source or of one user, counted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Holding {
    leases: u32,
    /// Leases by camera, never 0.
    cameras: HashMap<Watched, u32>,
}

impl Holding {
    /// One more lease. Whether it is the first of its camera.
    pub(super) fn add(&mut self, watched: Watched) -> bool {
        self.leases += 1;
        let leases = self.cameras.entry(watched).or_insert(0);
        *leases += 1;
        *leases == 1
    }

    /// One lease less, of those that were added. Whether it was the last of its camera.
    pub(super) fn take(&mut self, watched: &Watched) -> bool {
        self.leases -= 1;
        let Some(leases) = self.cameras.get_mut(watched) else {
            return false;
        };
        *leases -= 1;
        let is_last = *leases == 0;
        if is_last {
            self.cameras.remove(watched);
        }
        is_last
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leases == 0
    }

    pub(super) fn cameras(&self) -> u32 {
        count(self.cameras.len())
    }

    fn units(&self, unit: Unit) -> u32 {
        match unit {
            Unit::Viewer => self.leases,
            Unit::Camera => self.cameras(),
        }
    }

    fn of_camera(&self, watched: &Watched) -> u32 {
        self.cameras.get(watched).copied().unwrap_or(0)
    }
}

/// What becomes of a newcomer.
pub(super) enum Admission {
    /// There is room.
    Fits,
    /// There is once this lease is ended.
    InPlaceOf(ReservationId),
    /// There is none.
    Refused(Exceeded),
}

/// A limit and how far it is used.
struct Full {
    scope: Scope,
    usage: Usage,
}

impl MemoryLedger {
    pub(super) fn admit(&self, newcomer: &Reservation) -> Admission {
        let leases = count(self.leases.len());
        if leases >= MAX_LEASES {
            let usage = Usage { current: leases, limit: MAX_LEASES };
            return Admission::Refused(self.exceeded(&Full { scope: Scope::Total, usage }));
        }
        let full = self.full_for(newcomer);
        let Some(first) = full.first() else {
            return Admission::Fits;
        };
        match self.victim(&full, newcomer.class) {
            Some(victim) => Admission::InPlaceOf(victim.clone()),
            None => Admission::Refused(self.exceeded(first)),
        }
    }

    pub(super) fn usage(&self, source: &SourceId) -> Usage {
        let units = |held: &Holding| held.units(self.quota.unit());
        let current = self.by_source.get(source).map_or(0, units);
        Usage { current, limit: self.quota.limit(source) }
    }

    pub(super) fn total_usage(&self) -> Usage {
        let current = match self.quota.unit() {
            Unit::Viewer => count(self.leases.len()),
            Unit::Camera => self.watched_cameras,
        };
        Usage { current, limit: self.quota.total() }
    }

    /// The limits that a newcomer would go beyond, in the order in which they are named.
    fn full_for(&self, newcomer: &Reservation) -> Vec<Full> {
        let user = Scope::User(newcomer.user.clone());
        let source = Scope::Source(newcomer.source.clone());
        let watched = watched(newcomer);
        let limits = [user, source, Scope::Total].into_iter();
        let used = limits.filter_map(|scope| Some(Full { usage: self.used(&scope)?, scope }));
        used.filter(|limit| limit.usage.current >= limit.usage.limit)
            .filter(|limit| match self.quota.unit() {
                Unit::Viewer => true,
                Unit::Camera => self.of_camera(&limit.scope, &watched) == 0,
            })
            .collect()
    }

    /// How far a limit is used; `None` where there is no such limit.
    fn used(&self, scope: &Scope) -> Option<Usage> {
        match scope {
            Scope::Source(source) => Some(self.usage(source)),
            Scope::Total => Some(self.total_usage()),
            Scope::User(user) => {
                let limit = self.quota.user_limit()?;
                let units = |held: &Holding| held.units(self.quota.unit());
                Some(Usage { current: self.by_user.get(user).map_or(0, units), limit })
            }
        }
    }

    /// How many leases of a camera count against a limit.
    fn of_camera(&self, scope: &Scope, watched: &Watched) -> u32 {
        let held = match scope {
            Scope::Source(_) | Scope::Total => self.by_source.get(&watched.0),
            Scope::User(user) => self.by_user.get(user),
        };
        held.map_or(0, |held| held.of_camera(watched))
    }

    /// The lease that gives way to a newcomer of this class, which is beyond the `full` limits.
    fn victim(&self, full: &[Full], class: Class) -> Option<&ReservationId> {
        // Beyond a limit that was lowered, one unit less is not enough.
        let is_one_enough = full.iter().all(|limit| limit.usage.current == limit.usage.limit);
        if class == Class::LOWEST || !is_one_enough {
            return None;
        }
        let lower = self.leases.values().filter(|lease| lease.reservation.class < class);
        let freeing =
            lower.filter(|lease| full.iter().all(|limit| self.frees(lease, &limit.scope)));
        freeing.map(|lease| (lease.last_used(), lease.id())).min().map(|(_, id)| id)
    }

    /// Whether one unit of a limit is free once this lease is ended.
    fn frees(&self, lease: &Lease, scope: &Scope) -> bool {
        counts_against(lease, scope)
            && match self.quota.unit() {
                Unit::Viewer => true,
                Unit::Camera => self.of_camera(scope, &watched(&lease.reservation)) == 1,
            }
    }

    fn exceeded(&self, full: &Full) -> Exceeded {
        let Full { scope, usage } = full;
        Exceeded { scope: scope.clone(), usage: *usage, free_at: self.free_at(scope, *usage) }
    }

    /// See [`Exceeded::free_at`].
    fn free_at(&self, scope: &Scope, usage: Usage) -> Option<Timestamp> {
        if usage.limit == 0 {
            return None;
        }
        let later = usage.current.saturating_sub(usage.limit) as usize;
        let in_order = self.by_expiry.iter().filter_map(|(_, id)| self.leases.get(id));
        let mut counted = in_order.filter(|lease| counts_against(lease, scope));
        match self.quota.unit() {
            Unit::Viewer => counted.nth(later).map(|lease| lease.expires_at),
            Unit::Camera => {
                // The last lease of a camera frees its unit.
                let ends: HashMap<_, _> =
                    counted.map(|lease| (watched(&lease.reservation), lease.expires_at)).collect();
                let mut ends: Vec<_> = ends.into_values().collect();
                ends.sort_unstable();
                ends.get(later).copied()
            }
        }
    }
}

fn counts_against(lease: &Lease, scope: &Scope) -> bool {
    match scope {
        Scope::Source(source) => lease.reservation.source == *source,
        Scope::Total => true,
        Scope::User(user) => lease.reservation.user == *user,
    }
}

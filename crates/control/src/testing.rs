//! What every ledger must answer: random sequences of operations, and a model that is written to be
//! read.
//!
//! A ledger conforms if it answers each operation of each [`Sequence`] as a [`Model`] of the same
//! [`Setup`] does, with the whole [`Outcome`] equal. This module does *not* know any ledger, and does
//! no IO: whoever has a ledger walks through the operations himself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use crate::ledger::{Snapshot, SourceUsage};
use crate::{
    Answer, Basis, CameraId, Class, EndCause, EndedLease, Exceeded, Lease, LedgerOp, Outcome,
    Policy, Quality, Quota, Reservation, ReservationId, Scope, Source, SourceId, Timestamp, Unit,
    Usage,
};

/// When sequences begin.
pub const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// The configured limit of each source.
pub const SOURCE_LIMIT: u32 = 3;

/// Fewer than the sources allow together, so that the total is met as well.
pub const TOTAL: u32 = 5;

/// Who and what there is. Few, so that operations meet; more than the limits, so that those are met.
const VIEWERS: u32 = 10;
const CAMERAS: u32 = 10;
const USERS: u32 = 4;

/// How a ledger of a sequence is set up; its policy is [`Policy::default`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// What is counted.
    pub unit: Unit,
    /// What one user may use.
    pub per_user: Option<u32>,
}

impl Setup {
    /// Its limits.
    pub fn quota(self) -> Quota {
        Quota::new(self.unit, TOTAL, &sources()).per_user(self.per_user)
    }
}

/// Operations on one ledger.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// How the ledger is set up.
    pub setup: Setup,
    steps: Vec<(Step, Duration)>,
}

impl Sequence {
    /// The operations, each with the time at which it is applied. Times never step back.
    pub fn ops(&self) -> impl Iterator<Item = (LedgerOp, Timestamp)> {
        self.steps.iter().scan(START, |now, (step, pause)| {
            *now = *now + *pause;
            Some((step.op(*now), *now))
        })
    }
}

/// All units, with and without a limit of users, of up to `max_steps` operations.
pub fn sequences(max_steps: usize) -> impl Strategy<Value = Sequence> {
    let unit = prop_oneof![Just(Unit::Viewer), Just(Unit::Camera)];
    let per_user = prop_oneof![2 => Just(None), 1 => (0u32..4).prop_map(Some)];
    let setup = (unit, per_user);
    let setup = setup.prop_map(|(unit, per_user)| Setup { unit, per_user });
    let pause = (0u64..3_000).prop_map(Duration::from_millis);
    (setup, prop::collection::vec((step(), pause), 1..=max_steps))
        .prop_map(|(setup, steps)| Sequence { setup, steps })
}

/// The sources that every setup has, in the order of ids.
pub fn sources() -> [Source; 2] {
    [0, 1].map(|index| Source {
        id: source(index),
        name: String::new(),
        name_ar: String::new(),
        limit: SOURCE_LIMIT,
    })
}

/// The source with this number. 0 and 1 are configured, 2 is a stranger.
pub fn source(index: u32) -> SourceId {
    let name = ["METRO", "TAXI"].get(index as usize).unwrap_or(&"UNKNOWN");
    SourceId::parse(name).expect("well formed")
}

/// The id of the reservation with this number.
pub fn id(viewer: u32) -> ReservationId {
    ReservationId::parse(&format!("67e55044-10b1-426f-9247-{viewer:012x}")).expect("well formed")
}

/// A reservation of the lowest class. Cameras with an even number belong to source 0, the others to
/// source 1.
pub fn reservation(viewer: u32, camera: u32) -> Reservation {
    Reservation {
        id: id(viewer),
        camera: CameraId::parse(&format!("cam-{camera}")).expect("well formed"),
        source: source(camera % 2),
        user: "operator".to_owned(),
        quality: Quality::Auto,
        class: Class::LOWEST,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Reserve { viewer: u32, camera: u32, user: u32, class: u8 },
    Release { viewer: u32 },
    Heartbeat { viewer: u32, extend_ms: Option<u64> },
    MediaSeen { viewer: u32, told_late_ms: u64 },
    Expire,
    Count { source: u32 },
    SetLimit { source: u32, limit: Option<u32> },
    Snapshot,
}

impl Step {
    fn op(&self, now: Timestamp) -> LedgerOp {
        match *self {
            Self::Reserve { viewer, camera, user, class } => LedgerOp::Reserve(Reservation {
                user: format!("user {user}"),
                class: Class::new(class).unwrap_or_default(),
                ..reservation(viewer, camera)
            }),
            Self::Release { viewer } => LedgerOp::Release(id(viewer)),
            Self::Heartbeat { viewer, extend_ms } => {
                LedgerOp::Heartbeat { id: id(viewer), extend: extend_ms.map(Duration::from_millis) }
            }
            Self::MediaSeen { viewer, told_late_ms } => LedgerOp::MediaSeen {
                id: id(viewer),
                at: Timestamp::from_millis(now.as_millis() - told_late_ms),
            },
            Self::Expire => LedgerOp::Expire,
            Self::Count { source: index } => LedgerOp::Count(source(index)),
            Self::SetLimit { source: index, limit } => {
                LedgerOp::SetLimit { source: source(index), limit }
            }
            Self::Snapshot => LedgerOp::Snapshot,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let viewer = 0..VIEWERS;
    let class = prop_oneof![3 => Just(0u8), 1 => 0u8..4, 1 => Just(9)];
    prop_oneof![
        8 => (viewer.clone(), 0..CAMERAS, 0..USERS, class).prop_map(
            |(viewer, camera, user, class)| Step::Reserve { viewer, camera, user, class }
        ),
        2 => viewer.clone().prop_map(|viewer| Step::Release { viewer }),
        2 => (viewer.clone(), prop::option::of(0u64..60_000))
            .prop_map(|(viewer, extend_ms)| Step::Heartbeat { viewer, extend_ms }),
        3 => (viewer, 0u64..5_000)
            .prop_map(|(viewer, told_late_ms)| Step::MediaSeen { viewer, told_late_ms }),
        1 => Just(Step::Expire),
        1 => (0u32..3).prop_map(|source| Step::Count { source }),
        1 => (0u32..3, prop::option::of(0u32..6))
            .prop_map(|(source, limit)| Step::SetLimit { source, limit }),
        1 => Just(Step::Snapshot),
    ]
}

/// The rules again: one list, looked through from end to end.
#[derive(Debug, Clone)]
pub struct Model {
    setup: Setup,
    leases: Vec<Lease>,
    changed_limits: BTreeMap<SourceId, u32>,
}

impl Model {
    /// Without leases.
    pub fn new(setup: Setup) -> Self {
        Self { setup, leases: Vec::new(), changed_limits: BTreeMap::new() }
    }

    /// What a ledger must answer to an operation at `now`.
    pub fn apply(&mut self, op: LedgerOp, now: Timestamp) -> Outcome {
        if let LedgerOp::MediaSeen { id, at } = &op {
            self.media_seen(id, (*at).min(now));
        }
        let (mut expired, live): (Vec<_>, Vec<_>) =
            self.leases.drain(..).partition(|lease| lease.expires_at <= now);
        expired.sort_by_key(|lease| (lease.expires_at, lease.id().clone()));
        self.leases = live;
        let ended = expired.into_iter().map(|lease| EndedLease { lease, cause: EndCause::Expired });
        let mut ended: Vec<_> = ended.collect();
        let answer = self.answer(op, now, &mut ended);
        let next_expiry = self.leases.iter().map(|lease| lease.expires_at).min();
        Outcome { answer, ended, next_expiry }
    }

    fn answer(&mut self, op: LedgerOp, now: Timestamp, ended: &mut Vec<EndedLease>) -> Answer {
        match op {
            LedgerOp::Reserve(reservation) => self.reserve(reservation, now, ended),
            LedgerOp::Release(id) => {
                let Some(index) = self.leases.iter().position(|lease| *lease.id() == id) else {
                    return Answer::NotFound;
                };
                let lease = self.leases.remove(index);
                Answer::Released { usage: self.usage(&lease.reservation.source), lease }
            }
            LedgerOp::Heartbeat { id, extend } => {
                if let Some(lease) = self.leases.iter_mut().find(|lease| *lease.id() == id)
                    && lease.basis == Basis::Heartbeat
                {
                    let longest = Policy::default().heartbeat;
                    let extend = extend.unwrap_or(longest).min(longest);
                    lease.expires_at = lease.expires_at.max(now + extend);
                }
                self.renewed(&id)
            }
            LedgerOp::MediaSeen { id, .. } => self.renewed(&id),
            LedgerOp::Expire => Answer::Swept,
            LedgerOp::Count(source) => Answer::Counted(self.usage(&source)),
            LedgerOp::SetLimit { source, limit } => {
                self.changed_limits.remove(&source);
                if let Some(limit) = limit {
                    self.changed_limits.insert(source.clone(), limit);
                }
                Answer::Counted(self.usage(&source))
            }
            LedgerOp::Snapshot => Answer::Snapshot(self.snapshot()),
        }
    }

    fn reserve(
        &mut self,
        newcomer: Reservation,
        now: Timestamp,
        ended: &mut Vec<EndedLease>,
    ) -> Answer {
        if self.leases.iter().any(|lease| *lease.id() == newcomer.id) {
            return Answer::IdTaken;
        }
        if let Some(exceeded) = self.exceeded(&self.leases, &newcomer) {
            let Some(victim) = self.victim(&newcomer) else {
                return Answer::QuotaExceeded(exceeded);
            };
            self.leases.retain(|lease| lease.id() != victim.id());
            let cause = EndCause::Preempted { by: newcomer.id.clone() };
            ended.push(EndedLease { lease: victim, cause });
        }
        let expires_at = now + Policy::default().initial;
        let lease =
            Lease { reservation: newcomer, created_at: now, expires_at, basis: Basis::Heartbeat };
        self.leases.push(lease.clone());
        Answer::Reserved { usage: self.usage(&lease.reservation.source), lease }
    }

    /// The first lease of a lower class without which the newcomer fits.
    fn victim(&self, newcomer: &Reservation) -> Option<Lease> {
        let is_lower = |lease: &&Lease| lease.reservation.class < newcomer.class;
        let mut lower: Vec<_> = self.leases.iter().filter(is_lower).collect();
        lower.sort_by_key(|lease| (lease.last_used(), lease.id().clone()));
        let fits_without = |victim: &&Lease| {
            let others: Vec<_> =
                self.leases.iter().filter(|lease| lease != victim).cloned().collect();
            self.exceeded(&others, newcomer).is_none()
        };
        lower.into_iter().find(fits_without).cloned()
    }

    /// The first limit that these leases and the newcomer use more of than there is, because of him.
    fn exceeded(&self, leases: &[Lease], newcomer: &Reservation) -> Option<Exceeded> {
        let user = Scope::User(newcomer.user.clone());
        let source = Scope::Source(newcomer.source.clone());
        [user, source, Scope::Total].into_iter().find_map(|scope| {
            let limit = self.limit(&scope)?;
            let counted: Vec<_> =
                leases.iter().filter(|lease| counts(&lease.reservation, &scope)).collect();
            let before = self.units(counted.iter().map(|lease| &lease.reservation));
            let with = counted.iter().map(|lease| &lease.reservation).chain([newcomer]);
            let after = self.units(with);
            (after > before && after > limit).then(|| Exceeded {
                scope,
                usage: Usage { current: before, limit },
                free_at: self.free_at(counted, limit),
            })
        })
    }

    /// When fewer than `limit` units are in use, if the leases end as they stand.
    fn free_at(&self, mut counted: Vec<&Lease>, limit: u32) -> Option<Timestamp> {
        let mut ends: Vec<_> = counted.iter().map(|lease| lease.expires_at).collect();
        ends.sort_unstable();
        ends.into_iter().find(|end| {
            counted.retain(|lease| lease.expires_at > *end);
            self.units(counted.iter().map(|lease| &lease.reservation)) < limit
        })
    }

    fn limit(&self, scope: &Scope) -> Option<u32> {
        match scope {
            Scope::User(_) => self.setup.per_user,
            Scope::Source(id) => Some(self.source_limit(id)),
            Scope::Total => Some(TOTAL),
        }
    }

    fn source_limit(&self, id: &SourceId) -> u32 {
        let sources = sources();
        let configured = sources.iter().find(|source| source.id == *id);
        configured.map_or(0, |source| *self.changed_limits.get(id).unwrap_or(&source.limit))
    }

    fn media_seen(&mut self, id: &ReservationId, at: Timestamp) {
        let Some(lease) = self.leases.iter_mut().find(|lease| lease.id() == id) else {
            return;
        };
        if at >= lease.expires_at {
            return;
        }
        let last_packet = match lease.basis {
            Basis::Heartbeat => at,
            Basis::Media { last_packet } => last_packet.max(at),
        };
        lease.basis = Basis::Media { last_packet };
        lease.expires_at = last_packet + Policy::default().media_silence;
    }

    fn renewed(&self, id: &ReservationId) -> Answer {
        match self.leases.iter().find(|lease| lease.id() == id) {
            Some(lease) => Answer::Renewed {
                lease: lease.clone(),
                usage: self.usage(&lease.reservation.source),
            },
            None => Answer::NotFound,
        }
    }

    fn units<'a>(&self, reservations: impl Iterator<Item = &'a Reservation>) -> u32 {
        let units = match self.setup.unit {
            Unit::Viewer => reservations.count(),
            Unit::Camera => reservations.map(|one| &one.camera).collect::<BTreeSet<_>>().len(),
        };
        u32::try_from(units).expect("few leases")
    }

    fn counted(&self, scope: &Scope) -> impl Iterator<Item = &Reservation> {
        let all = self.leases.iter().map(|lease| &lease.reservation);
        all.filter(move |reservation| counts(reservation, scope))
    }

    fn usage(&self, id: &SourceId) -> Usage {
        let current = self.units(self.counted(&Scope::Source(id.clone())));
        Usage { current, limit: self.source_limit(id) }
    }

    fn snapshot(&self) -> Snapshot {
        let mut leases = self.leases.clone();
        leases.sort_by_key(|lease| (lease.expires_at, lease.id().clone()));
        let sources = sources().into_iter().map(|Source { id, .. }| {
            let scope = Scope::Source(id.clone());
            let cameras: BTreeSet<_> = self.counted(&scope).map(|one| &one.camera).collect();
            let active_cameras = u32::try_from(cameras.len()).expect("few leases");
            SourceUsage { usage: self.usage(&id), source: id, active_cameras }
        });
        let total = Usage { current: self.units(self.counted(&Scope::Total)), limit: TOTAL };
        Snapshot { leases, sources: sources.collect(), total }
    }
}

fn counts(reservation: &Reservation, scope: &Scope) -> bool {
    match scope {
        Scope::Source(source) => reservation.source == *source,
        Scope::Total => true,
        Scope::User(user) => reservation.user == *user,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryLedger;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn the_ledger_in_memory_answers_as_the_model_does(sequence in sequences(160)) {
            let Setup { unit, .. } = sequence.setup;
            let mut ledger = MemoryLedger::new(sequence.setup.quota(), Policy::default());
            let mut model = Model::new(sequence.setup);
            let mut limits_stand = true;
            let mut last = START;
            for (op, now) in sequence.ops() {
                last = now;
                limits_stand &= !matches!(op, LedgerOp::SetLimit { .. });
                let outcome = ledger.apply(op.clone(), now);
                prop_assert_eq!(&outcome, &model.apply(op, now));
                prop_assert_eq!(ledger.check(), Ok(()));
                let counted = snapshot(&mut ledger, now);
                prop_assert!(counted.total.current <= counted.total.limit);
                for source in &counted.sources {
                    prop_assert!(!limits_stand || source.usage.current <= source.usage.limit);
                    if unit == Unit::Viewer {
                        let of_source = |lease: &&Lease| lease.reservation.source == source.source;
                        let leases = counted.leases.iter().filter(of_source).count();
                        prop_assert_eq!(source.usage.current as usize, leases);
                    }
                }
            }
            ledger.apply(LedgerOp::Expire, last + Duration::from_secs(30));
            prop_assert!(ledger.is_empty(), "leases outlive the longest time that the policy knows");
            prop_assert_eq!(ledger.check(), Ok(()));
        }
    }

    /// The sequences are worth what they meet: every kind of end and of refusal comes in many of them.
    #[test]
    fn sequences_meet_every_limit_and_every_end() {
        use proptest::strategy::ValueTree as _;
        use proptest::test_runner::TestRunner;

        let mut runner = TestRunner::deterministic();
        let (mut user, mut source, mut total, mut gave_way, mut expired) = (0, 0, 0, 0, 0);
        for _ in 0..100 {
            let sequence = sequences(160).new_tree(&mut runner).expect("a sequence").current();
            let mut model = Model::new(sequence.setup);
            for (op, now) in sequence.ops() {
                let Outcome { answer, ended, .. } = model.apply(op, now);
                for EndedLease { cause, .. } in ended {
                    match cause {
                        EndCause::Expired => expired += 1,
                        EndCause::Preempted { .. } => gave_way += 1,
                        EndCause::Deleted | EndCause::ReleasedElsewhere => {
                            panic!("there is no store and no other node here")
                        }
                    }
                }
                if let Answer::QuotaExceeded(exceeded) = answer {
                    match exceeded.scope {
                        Scope::User(_) => user += 1,
                        Scope::Source(_) => source += 1,
                        Scope::Total => total += 1,
                    }
                }
            }
        }
        let met = [user, source, total, gave_way, expired];
        assert!(met.iter().all(|count| *count > 30), "{met:?}");
    }

    fn snapshot(ledger: &mut MemoryLedger, now: Timestamp) -> Snapshot {
        let answer = ledger.apply(LedgerOp::Snapshot, now).answer;
        let Answer::Snapshot(snapshot) = answer else {
            panic!("a snapshot was answered with {answer:?}");
        };
        snapshot
    }
}

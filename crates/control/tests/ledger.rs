//! The ledger against its rules, one by one, and against a naive model under random operations.

use std::collections::BTreeSet;
use std::time::Duration;

use control::ledger::{Snapshot, SourceUsage};
use control::{
    Answer, Basis, CameraId, Class, EndCause, EndedLease, Exceeded, Lease, LedgerOp, MemoryLedger,
    Outcome, Policy, Quality, Quota, Reservation, ReservationId, Scope, Source, SourceId,
    Timestamp, Unit, Usage,
};
use proptest::prelude::*;

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

#[test]
fn a_lease_lives_to_the_last_millisecond_and_not_one_longer() {
    let mut ledger = ledger(Unit::Viewer);
    let reserved = ledger.apply(reserve(1, 0), START);
    assert_eq!(reserved.next_expiry, Some(after(30_000)));

    assert_eq!(ledger.apply(LedgerOp::Expire, after(29_999)).ended, []);
    let swept = ledger.apply(LedgerOp::Expire, after(30_000));
    assert_eq!(expired_ids(&swept), [id(1)]);
    assert_eq!(swept.next_expiry, None);
    assert_eq!(ledger.apply(LedgerOp::Expire, after(40_000)).ended, [], "reported once");
}

#[test]
fn no_operation_sees_a_lease_that_has_run_out() {
    let mut ledger = ledger(Unit::Viewer);
    ledger.apply(reserve(1, 0), START);
    let heartbeat = ledger.apply(heartbeat(1, None), after(30_000));
    assert_eq!(heartbeat.answer, Answer::NotFound);
    assert_eq!(expired_ids(&heartbeat), [id(1)]);
}

#[test]
fn heartbeats_prolong_a_lease_until_media_flows() {
    let mut ledger = ledger(Unit::Viewer);
    ledger.apply(reserve(1, 0), START);
    assert_eq!(expiry(&ledger.apply(heartbeat(1, None), after(20_000))), after(50_000));

    let seen = ledger.apply(media_seen(1, after(21_000)), after(21_000));
    assert_eq!(expiry(&seen), after(35_000));
    assert_eq!(expiry(&ledger.apply(heartbeat(1, None), after(34_000))), after(35_000));
    assert_eq!(expired_ids(&ledger.apply(LedgerOp::Expire, after(35_000))), [id(1)]);
}

#[test]
fn a_heartbeat_never_shortens_and_never_exceeds_the_policy() {
    let mut ledger = ledger(Unit::Viewer);
    ledger.apply(reserve(1, 0), START);
    let short = heartbeat(1, Some(Duration::from_secs(1)));
    assert_eq!(expiry(&ledger.apply(short, after(1_000))), after(30_000));
    let long = heartbeat(1, Some(Duration::MAX));
    assert_eq!(expiry(&ledger.apply(long, after(2_000))), after(32_000));
}

#[test]
fn a_packet_counts_if_the_lease_lived_when_it_came_even_when_told_late() {
    let mut ledger = ledger(Unit::Viewer);
    ledger.apply(reserve(1, 0), START);
    let told_late = ledger.apply(media_seen(1, after(29_000)), after(31_000));
    assert_eq!(expiry(&told_late), after(43_000));
    assert_eq!(told_late.ended, []);

    let after_the_end = ledger.apply(media_seen(1, after(43_000)), after(43_000));
    assert_eq!(after_the_end.answer, Answer::NotFound);
}

#[test]
fn packets_told_out_of_order_or_from_the_future_gain_nothing() {
    let mut ledger = ledger(Unit::Viewer);
    ledger.apply(reserve(1, 0), START);
    ledger.apply(media_seen(1, after(5_000)), after(5_000));
    assert_eq!(expiry(&ledger.apply(media_seen(1, after(4_000)), after(5_000))), after(19_000));
    assert_eq!(expiry(&ledger.apply(media_seen(1, after(90_000)), after(6_000))), after(20_000));
}

#[test]
fn releasing_twice_changes_nothing() {
    let mut ledger = ledger(Unit::Viewer);
    ledger.apply(reserve(1, 0), START);
    ledger.apply(reserve(2, 0), START);
    let first = ledger.apply(LedgerOp::Release(id(1)), after(1));
    assert!(matches!(first.answer, Answer::Released { usage: Usage { current: 1, .. }, .. }));
    let before = snapshot(&mut ledger, after(2));
    assert_eq!(ledger.apply(LedgerOp::Release(id(1)), after(2)).answer, Answer::NotFound);
    assert_eq!(snapshot(&mut ledger, after(2)), before);
}

#[test]
fn the_source_is_refused_before_the_total_and_both_say_how_full_they_are() {
    let mut ledger = ledger(Unit::Viewer);
    for viewer in 0..3 {
        ledger.apply(reserve(viewer, 0), START);
    }
    let usage = Usage { current: 3, limit: 3 };
    let scope = Scope::Source(source(0));
    let refused = ledger.apply(reserve(9, 0), START).answer;
    assert_eq!(refused, Answer::QuotaExceeded(Exceeded { scope, usage }));

    ledger.apply(reserve(10, 1), START);
    ledger.apply(reserve(11, 1), START);
    let usage = Usage { current: 5, limit: 5 };
    let refused = ledger.apply(reserve(12, 1), START).answer;
    assert_eq!(refused, Answer::QuotaExceeded(Exceeded { scope: Scope::Total, usage }));
}

#[test]
fn by_camera_a_second_viewer_of_a_camera_costs_nothing() {
    let mut ledger = ledger(Unit::Camera);
    for viewer in 0..100 {
        let answer = ledger.apply(reserve(viewer, 0), START).answer;
        assert!(matches!(answer, Answer::Reserved { usage: Usage { current: 1, .. }, .. }));
    }
    for viewer in 0..99 {
        ledger.apply(LedgerOp::Release(id(viewer)), START);
    }
    let last = ledger.apply(LedgerOp::Release(id(99)), START).answer;
    assert!(matches!(last, Answer::Released { usage: Usage { current: 0, .. }, .. }));
}

#[test]
fn an_unknown_source_has_no_units() {
    let mut ledger = ledger(Unit::Viewer);
    let stranger = SourceId::parse("STRANGER").unwrap();
    let reservation = Reservation { source: stranger.clone(), ..reservation(1, 0) };
    let refused = ledger.apply(LedgerOp::Reserve(reservation), START).answer;
    let usage = Usage { current: 0, limit: 0 };
    assert_eq!(refused, Answer::QuotaExceeded(Exceeded { scope: Scope::Source(stranger), usage }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Every answer, expiry and count equals that of a model that keeps a list and looks at all of it.
    #[test]
    fn the_ledger_answers_as_the_naive_model_does(
        unit in prop_oneof![Just(Unit::Viewer), Just(Unit::Camera)],
        steps in prop::collection::vec((step(), 0u64..6_000), 1..120),
    ) {
        let mut ledger = ledger(unit);
        let mut model = Model { unit, leases: Vec::new() };
        let mut now = START;
        for (step, pause_ms) in steps {
            now = now + Duration::from_millis(pause_ms);
            let op = step.op(now);
            let outcome = ledger.apply(op.clone(), now);
            prop_assert_eq!(&outcome, &model.apply(op, now));
            prop_assert_eq!(ledger.check(), Ok(()));
            let counted = snapshot(&mut ledger, now);
            prop_assert!(counted.total.current <= counted.total.limit);
            for source in &counted.sources {
                prop_assert!(source.usage.current <= source.usage.limit);
                if unit == Unit::Viewer {
                    let of_source = |lease: &&Lease| lease.reservation.source == source.source;
                    let leases = counted.leases.iter().filter(of_source).count();
                    prop_assert_eq!(source.usage.current as usize, leases);
                }
            }
        }
        ledger.apply(LedgerOp::Expire, now + Duration::from_secs(30));
        prop_assert!(ledger.is_empty(), "leases outlive the longest time that the policy knows");
        prop_assert_eq!(ledger.check(), Ok(()));
    }
}

/// A random operation; reservations and cameras are few, so that operations meet.
#[derive(Debug, Clone)]
enum Step {
    Reserve { viewer: u32, camera: u32 },
    Release { viewer: u32 },
    Heartbeat { viewer: u32, extend_ms: Option<u64> },
    MediaSeen { viewer: u32, told_late_ms: u64 },
    Expire,
    Count { source: u32 },
    Snapshot,
}

impl Step {
    fn op(&self, now: Timestamp) -> LedgerOp {
        match *self {
            Self::Reserve { viewer, camera } => reserve(viewer, camera),
            Self::Release { viewer } => LedgerOp::Release(id(viewer)),
            Self::Heartbeat { viewer, extend_ms } => {
                heartbeat(viewer, extend_ms.map(Duration::from_millis))
            }
            Self::MediaSeen { viewer, told_late_ms } => {
                media_seen(viewer, Timestamp::from_millis(now.as_millis() - told_late_ms))
            }
            Self::Expire => LedgerOp::Expire,
            Self::Count { source: index } => LedgerOp::Count(source(index)),
            Self::Snapshot => LedgerOp::Snapshot,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let viewer = 0u32..8;
    prop_oneof![
        4 => (viewer.clone(), 0u32..4).prop_map(|(viewer, camera)| Step::Reserve { viewer, camera }),
        2 => viewer.clone().prop_map(|viewer| Step::Release { viewer }),
        2 => (viewer.clone(), prop::option::of(0u64..60_000))
            .prop_map(|(viewer, extend_ms)| Step::Heartbeat { viewer, extend_ms }),
        3 => (viewer, 0u64..5_000)
            .prop_map(|(viewer, told_late_ms)| Step::MediaSeen { viewer, told_late_ms }),
        1 => Just(Step::Expire),
        1 => (0u32..3).prop_map(|source| Step::Count { source }),
        1 => Just(Step::Snapshot),
    ]
}

/// The rules again, written to be read: one list, looked through from end to end.
struct Model {
    unit: Unit,
    leases: Vec<Lease>,
}

impl Model {
    fn apply(&mut self, op: LedgerOp, now: Timestamp) -> Outcome {
        if let LedgerOp::MediaSeen { id, at } = &op {
            self.media_seen(id, *at);
        }
        let (mut expired, live): (Vec<_>, Vec<_>) =
            self.leases.drain(..).partition(|lease| lease.expires_at <= now);
        expired.sort_by_key(|lease| (lease.expires_at, lease.id().clone()));
        self.leases = live;
        let answer = self.answer(op, now);
        let next_expiry = self.leases.iter().map(|lease| lease.expires_at).min();
        let ended = expired.into_iter().map(|lease| EndedLease { lease, cause: EndCause::Expired });
        Outcome { answer, ended: ended.collect(), next_expiry }
    }

    fn answer(&mut self, op: LedgerOp, now: Timestamp) -> Answer {
        match op {
            LedgerOp::Reserve(reservation) => self.reserve(reservation, now),
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
                    let extend = extend.unwrap_or(Duration::MAX).min(Duration::from_secs(30));
                    lease.expires_at = lease.expires_at.max(now + extend);
                }
                self.renewed(&id)
            }
            LedgerOp::MediaSeen { id, .. } => self.renewed(&id),
            LedgerOp::Expire => Answer::Swept,
            LedgerOp::Count(source) => Answer::Counted(self.usage(&source)),
            LedgerOp::Snapshot => Answer::Snapshot(self.snapshot()),
            LedgerOp::SetLimit { .. } => unreachable!("no step sets a limit yet"),
        }
    }

    fn reserve(&mut self, reservation: Reservation, now: Timestamp) -> Answer {
        if self.leases.iter().any(|lease| *lease.id() == reservation.id) {
            return Answer::IdTaken;
        }
        let costs_nothing = self.unit == Unit::Camera
            && self.leases.iter().any(|lease| lease.reservation.camera == reservation.camera);
        let usage = self.usage(&reservation.source);
        if usage.current >= usage.limit && !costs_nothing {
            let scope = Scope::Source(reservation.source);
            return Answer::QuotaExceeded(Exceeded { scope, usage });
        }
        let usage = self.total();
        if usage.current >= usage.limit && !costs_nothing {
            return Answer::QuotaExceeded(Exceeded { scope: Scope::Total, usage });
        }
        let expires_at = now + Duration::from_secs(30);
        let lease = Lease { reservation, created_at: now, expires_at, basis: Basis::Heartbeat };
        self.leases.push(lease.clone());
        Answer::Reserved { usage: self.usage(&lease.reservation.source), lease }
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
        lease.expires_at = last_packet + Duration::from_secs(14);
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

    fn units<'a>(&self, leases: impl Iterator<Item = &'a Lease>) -> u32 {
        let units = match self.unit {
            Unit::Viewer => leases.count(),
            Unit::Camera => {
                leases.map(|lease| &lease.reservation.camera).collect::<BTreeSet<_>>().len()
            }
        };
        u32::try_from(units).expect("few leases")
    }

    fn of_source(&self, source: &SourceId) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(move |lease| lease.reservation.source == *source)
    }

    fn usage(&self, id: &SourceId) -> Usage {
        let limit =
            sources().iter().find(|source| source.id == *id).map_or(0, |source| source.limit);
        Usage { current: self.units(self.of_source(id)), limit }
    }

    fn total(&self) -> Usage {
        Usage { current: self.units(self.leases.iter()), limit: TOTAL }
    }

    fn snapshot(&self) -> Snapshot {
        let mut leases = self.leases.clone();
        leases.sort_by_key(|lease| (lease.expires_at, lease.id().clone()));
        let sources = sources().into_iter().map(|source| {
            let cameras = self.of_source(&source.id).map(|lease| &lease.reservation.camera);
            let active_cameras =
                u32::try_from(cameras.collect::<BTreeSet<_>>().len()).expect("few leases");
            let usage = self.usage(&source.id);
            SourceUsage { source: source.id, usage, active_cameras }
        });
        Snapshot { leases, sources: sources.collect(), total: self.total() }
    }
}

/// Fewer than the sources allow together, so that the total is met as well.
const TOTAL: u32 = 5;

fn sources() -> [Source; 2] {
    [0, 1].map(|index| Source {
        id: source(index),
        name: String::new(),
        name_ar: String::new(),
        limit: 3,
    })
}

fn ledger(unit: Unit) -> MemoryLedger {
    MemoryLedger::new(Quota::new(unit, TOTAL, &sources()), Policy::default())
}

/// Cameras with an even number belong to source 0, the others to source 1.
fn reservation(viewer: u32, camera: u32) -> Reservation {
    Reservation {
        id: id(viewer),
        camera: CameraId::parse(&format!("cam-{camera}")).expect("well formed"),
        source: source(camera % 2),
        user: "operator".to_owned(),
        quality: Quality::Auto,
        class: Class::LOWEST,
    }
}

fn reserve(viewer: u32, camera: u32) -> LedgerOp {
    LedgerOp::Reserve(reservation(viewer, camera))
}

fn heartbeat(viewer: u32, extend: Option<Duration>) -> LedgerOp {
    LedgerOp::Heartbeat { id: id(viewer), extend }
}

fn media_seen(viewer: u32, at: Timestamp) -> LedgerOp {
    LedgerOp::MediaSeen { id: id(viewer), at }
}

fn id(viewer: u32) -> ReservationId {
    ReservationId::parse(&format!("67e55044-10b1-426f-9247-{viewer:012x}")).expect("well formed")
}

fn source(index: u32) -> SourceId {
    SourceId::parse(["METRO", "TAXI", "STRANGER"][index as usize]).expect("well formed")
}

fn after(ms: u64) -> Timestamp {
    START + Duration::from_millis(ms)
}

fn snapshot(ledger: &mut MemoryLedger, now: Timestamp) -> Snapshot {
    let answer = ledger.apply(LedgerOp::Snapshot, now).answer;
    let Answer::Snapshot(snapshot) = answer else {
        panic!("a snapshot was answered with {answer:?}");
    };
    snapshot
}

fn expiry(outcome: &Outcome) -> Timestamp {
    let Answer::Renewed { lease, .. } = &outcome.answer else {
        panic!("no lease was renewed: {outcome:?}");
    };
    lease.expires_at
}

fn expired_ids(outcome: &Outcome) -> Vec<ReservationId> {
    outcome.ended.iter().map(|ended| ended.lease.id().clone()).collect()
}

//! The ledger against its rules, one by one. `control::testing` has it against a model.

use std::time::Duration;

use control::ledger::Snapshot;
use control::{
    Answer, CameraId, Class, EndCause, EndedLease, Exceeded, LedgerOp, MemoryLedger, Outcome,
    Policy, Quality, Quota, Reservation, ReservationId, Scope, Source, SourceId, Timestamp, Unit,
    Usage,
};
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
    assert_eq!(refused, exceeded(scope, usage, Some(after(30_000))));

    ledger.apply(reserve(10, 1), START);
    ledger.apply(reserve(11, 1), START);
    let usage = Usage { current: 5, limit: 5 };
    let refused = ledger.apply(reserve(12, 1), START).answer;
    assert_eq!(refused, exceeded(Scope::Total, usage, Some(after(30_000))));
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
    assert_eq!(refused, exceeded(Scope::Source(stranger), usage, None));
}

#[test]
fn a_user_is_refused_by_his_own_limit_before_the_sources() {
    let mut ledger = ledger_of_users(Unit::Viewer, 2);
    ledger.apply(reserve(1, 0), START);
    ledger.apply(reserve(2, 1), after(5_000));
    let usage = Usage { current: 2, limit: 2 };
    let refused = ledger.apply(reserve(3, 2), after(6_000)).answer;
    let scope = Scope::User("operator".to_owned());
    assert_eq!(refused, exceeded(scope, usage, Some(after(30_000))));

    let another = Reservation { user: "another".to_owned(), ..reservation(3, 2) };
    assert_granted(&ledger.apply(LedgerOp::Reserve(another), after(6_000)));
}

#[test]
fn by_camera_a_user_watches_one_camera_as_often_as_he_likes() {
    let mut ledger = ledger_of_users(Unit::Camera, 1);
    assert_granted(&ledger.apply(reserve(1, 0), START));
    assert_granted(&ledger.apply(reserve(2, 0), START));
    let refused = ledger.apply(reserve(3, 2), START).answer;
    assert!(matches!(refused, Answer::QuotaExceeded(Exceeded { scope: Scope::User(_), .. })));
}

#[test]
fn the_one_used_longest_ago_of_a_lower_class_gives_way() {
    let mut ledger = ledger(Unit::Viewer);
    for viewer in 1..=3 {
        ledger.apply(reserve(viewer, 0), after(u64::from(viewer)));
    }
    // The first is the oldest and is watched; a heartbeat without a picture is no use.
    ledger.apply(media_seen(1, after(9_000)), after(9_000));
    ledger.apply(heartbeat(2, None), after(9_500));

    let outcome = ledger.apply(reserve_as(9, 0, 1), after(10_000));
    assert_granted(&outcome);
    assert_eq!(gave_way(&outcome), [(id(2), id(9))]);
    assert_eq!(ledger.check(), Ok(()));
}

#[test]
fn nobody_gives_way_to_his_own_class_nor_to_a_lower_one() {
    let mut ledger = ledger(Unit::Viewer);
    for viewer in 1..=3 {
        ledger.apply(reserve_as(viewer, 0, 5), START);
    }
    for class in [0, 4, 5] {
        let refused = ledger.apply(reserve_as(9, 0, class), START);
        assert!(matches!(refused.answer, Answer::QuotaExceeded(_)), "class {class}");
        assert_eq!(refused.ended, [], "class {class}");
    }
    assert_eq!(gave_way(&ledger.apply(reserve_as(9, 0, 6), START)), [(id(1), id(9))]);
}

#[test]
fn where_source_and_total_are_full_one_of_the_source_gives_way() {
    let mut ledger = ledger(Unit::Viewer);
    for viewer in 1..=2 {
        ledger.apply(reserve(viewer, 1), START);
    }
    for viewer in 3..=5 {
        ledger.apply(reserve(viewer, 0), after(1));
    }
    let outcome = ledger.apply(reserve_as(9, 0, 1), after(2));
    assert_eq!(gave_way(&outcome), [(id(3), id(9))], "of the source, though others are older");
    let outcome = ledger.apply(reserve_as(10, 1, 1), after(2));
    assert_eq!(gave_way(&outcome), [(id(1), id(10))], "the total alone is full: the oldest of all");
}

#[test]
fn by_camera_only_the_last_viewer_of_a_camera_frees_a_unit() {
    let mut ledger = ledger(Unit::Camera);
    for (viewer, camera) in [(1, 0), (2, 0), (3, 2), (4, 2)] {
        ledger.apply(reserve(viewer, camera), START);
    }
    ledger.apply(reserve(5, 4), after(1));
    let outcome = ledger.apply(reserve_as(9, 6, 1), after(2));
    assert_eq!(gave_way(&outcome), [(id(5), id(9))], "the others share their cameras");
    let refused = ledger.apply(reserve_as(10, 8, 1), after(2));
    assert!(matches!(refused.answer, Answer::QuotaExceeded(_)), "{refused:?}");
}

#[test]
fn a_lowered_limit_ends_nobody_and_lets_nobody_in_until_there_is_room() {
    let mut ledger = ledger(Unit::Viewer);
    for viewer in 1..=3 {
        ledger.apply(reserve(viewer, 0), after(u64::from(viewer)));
    }
    let lowered = ledger.apply(set_limit(0, Some(2)), after(10));
    assert_eq!(lowered.answer, Answer::Counted(Usage { current: 3, limit: 2 }));
    assert_eq!(lowered.ended, []);

    // Neither would one end give room, and so nobody gives way.
    let refused = ledger.apply(reserve_as(9, 0, 9), after(10));
    let scope = Scope::Source(source(0));
    let usage = Usage { current: 3, limit: 2 };
    assert_eq!(refused.answer, exceeded(scope, usage, Some(after(30_002))));
    assert_eq!(refused.ended, []);

    ledger.apply(set_limit(0, None), after(11));
    ledger.apply(LedgerOp::Release(id(1)), after(11));
    assert_granted(&ledger.apply(reserve(9, 0), after(11)));
}

#[test]
fn a_source_that_is_not_configured_gets_no_limit() {
    let mut ledger = ledger(Unit::Viewer);
    let set = ledger.apply(set_limit(2, Some(9)), START);
    assert_eq!(set.answer, Answer::Counted(Usage { current: 0, limit: 0 }));
}

#[test]
fn by_camera_a_unit_is_free_when_the_last_viewer_of_a_camera_goes() {
    let mut ledger = ledger(Unit::Camera);
    ledger.apply(reserve(1, 0), START);
    ledger.apply(reserve(2, 2), after(1_000));
    ledger.apply(reserve(3, 4), after(2_000));
    ledger.apply(reserve(4, 0), after(3_000));
    let refused = ledger.apply(reserve(9, 6), after(3_000)).answer;
    let usage = Usage { current: 3, limit: 3 };
    assert_eq!(refused, exceeded(Scope::Source(source(0)), usage, Some(after(31_000))));
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

fn ledger_of_users(unit: Unit, per_user: u32) -> MemoryLedger {
    let quota = Quota::new(unit, TOTAL, &sources()).per_user(Some(per_user));
    MemoryLedger::new(quota, Policy::default())
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

fn reserve_as(viewer: u32, camera: u32, class: u8) -> LedgerOp {
    let class = Class::new(class).expect("a class");
    LedgerOp::Reserve(Reservation { class, ..reservation(viewer, camera) })
}

fn set_limit(index: u32, limit: Option<u32>) -> LedgerOp {
    LedgerOp::SetLimit { source: source(index), limit }
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
    SourceId::parse(["METRO", "TAXI", "UNKNOWN"][index as usize]).expect("well formed")
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

fn exceeded(scope: Scope, usage: Usage, free_at: Option<Timestamp>) -> Answer {
    Answer::QuotaExceeded(Exceeded { scope, usage, free_at })
}

fn assert_granted(outcome: &Outcome) {
    assert!(matches!(outcome.answer, Answer::Reserved { .. }), "{outcome:?}");
}

/// Who gave way, and to whom.
fn gave_way(outcome: &Outcome) -> Vec<(ReservationId, ReservationId)> {
    let pairs = outcome.ended.iter().map(|EndedLease { lease, cause }| match cause {
        EndCause::Preempted { by } => (lease.id().clone(), by.clone()),
        EndCause::Expired | EndCause::Deleted | EndCause::ReleasedElsewhere => {
            panic!("{} ended otherwise", lease.id())
        }
    });
    pairs.collect()
}

//! Places that are taken away, limits that change, and a ledger that cannot be asked.

use std::time::Duration;

use crate::support::*;
use control::{Class, Quality, Usage};
use engine::{
    CloseCause, EndReason, Grant, LeaseRefusal, Note, Reply, Request, ReserveRefusal, SessionState,
};

const SECOND: Duration = Duration::from_secs(1);

fn reserve_as(world: &mut World, viewer: u32, camera: u32, class: u8) -> Reply {
    let mut request = reserve(viewer, camera, Quality::Auto);
    let Request::Reserve { class: asked, .. } = &mut request else { panic!("not a reservation") };
    *asked = Class::new(class).expect("a class");
    world.call(request)
}

fn heartbeat(viewer: u32) -> Request {
    Request::Heartbeat { reservation: reservation_id(viewer), extend: None, quality: None }
}

#[test]
fn who_gives_way_is_told_why_and_his_stream_goes_with_him() {
    let mut world = World::with_limit(1, 2, 1);
    world.reserved(1, 0);
    let peer = world.watch(1, 0);
    world.live(0);

    let granted = reserve_as(&mut world, 2, 1, 1);
    assert!(matches!(granted, Reply::Reserve(Ok(_))), "{granted:?}");
    let cause = CloseCause::Ended(EndReason::Preempted);
    assert_eq!(world.closed, [(peer, cause)]);
    assert_eq!(cause.as_str(), "a reservation of a higher class took its place");
    let ended = (reservation_id(1), Note::Ended(EndReason::Preempted));
    assert!(world.notes.contains(&ended), "{:?}", world.notes);
    assert_eq!(world.call(heartbeat(1)), Reply::Heartbeat(Err(LeaseRefusal::NotFound)));

    world.release(2);
    world.pass(10 * SECOND);
    world.assert_nothing_is_left();
}

#[test]
fn one_stream_changes_hands_without_a_new_start() {
    let mut world = World::with_limit(1, 1, 1);
    world.reserved(1, 0);
    world.watch(1, 0);
    world.live(0);
    assert!(matches!(reserve_as(&mut world, 2, 0, 1), Reply::Reserve(Ok(_))));
    world.watch(2, 0);
    assert_eq!(world.starts.len(), 1, "the camera is called once");
    assert_eq!(world.word(0), "live");
}

#[test]
fn a_limit_changes_for_who_comes_and_not_for_who_is_there() {
    let mut world = World::with_limit(1, 1, 2);
    world.reserved(1, 0);
    let set = Request::SetLimit { source: source_id(), limit: Some(0) };
    assert_eq!(world.call(set), Reply::SetLimit(Some(Usage { current: 1, limit: 0 })));
    let refused = world.reserve(2, 0);
    assert!(matches!(refused, Reply::Reserve(Err(ReserveRefusal::Quota(_)))), "{refused:?}");
    assert_eq!(world.ledger.len(), 1);

    world.call(Request::SetLimit { source: source_id(), limit: None });
    world.reserved(2, 0);
}

#[test]
fn while_the_ledger_cannot_be_asked_who_watches_goes_on_watching() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    let peer = world.watch(1, 0);
    world.reserved(2, 0);

    world.ledger_is_lost = true;
    assert_eq!(world.reserve(3, 0), Reply::Reserve(Err(ReserveRefusal::Unavailable)));
    assert_eq!(world.call(heartbeat(2)), Reply::Heartbeat(Err(LeaseRefusal::Unavailable)));
    let release = Request::Release { reservation: reservation_id(2) };
    assert_eq!(world.call(release), Reply::Release(Err(LeaseRefusal::Unavailable)));
    assert_eq!(world.call(Request::Snapshot), Reply::Snapshot(None));
    let set = Request::SetLimit { source: source_id(), limit: Some(1) };
    assert_eq!(world.call(set), Reply::SetLimit(None));
    for _ in 0..60 {
        world.pass(SECOND);
        world.alive(peer);
    }
    assert_eq!(world.engine.sessions().count(), 2, "nobody is judged without the ledger");
    let state = world.engine.session(&reservation_id(1)).map(|session| session.state);
    assert_eq!(state, Some(SessionState::Connected));
}

#[test]
fn what_is_due_is_judged_within_a_second_of_the_ledgers_return() {
    let mut world = World::new(1, 1);
    let Grant { lease, .. } = world.reserved(1, 0);
    world.ledger_is_lost = true;
    world.pass(lease.expires_at.saturating_since(world.now) + 20 * SECOND);
    assert_eq!(world.engine.sessions().count(), 1);

    world.ledger_is_lost = false;
    world.pass(SECOND);
    assert_eq!(world.engine.sessions().count(), 0);
    world.pass(5 * SECOND);
    world.assert_nothing_is_left();
}

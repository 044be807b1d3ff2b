//! A reservation's peer comes, changes and goes; the lease goes with it.

use std::time::Duration;

use crate::support::*;
use control::{Quality, Timestamp};
use engine::{Reply, Request, ReserveRefusal, SessionState, ViewerEvent, WatchRefusal};
use media::ViewerId;
use media::peers::CloseReason;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_peer_that_closes_ends_its_lease_at_once() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    let peer = world.watch(1, 0);
    assert_eq!(state(&world, 1), Some(SessionState::Connected));
    world.peer_closes(peer, CloseReason::Peer);
    assert!(world.ledger.is_empty());
    assert_eq!(state(&world, 1), None);
}

#[test]
fn a_delete_ends_peer_and_lease_and_a_second_one_finds_nothing() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    let viewer = world.watch(1, 0);
    assert_eq!(world.call(Request::EndWatch { viewer }), Reply::EndWatch(true));
    assert!(world.ledger.is_empty() && world.peers.is_empty());
    assert_eq!(world.call(Request::EndWatch { viewer }), Reply::EndWatch(false));
}

#[test]
fn releasing_closes_the_peer_and_releasing_again_changes_nothing() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    world.reserved(2, 0);
    world.watch(1, 0);
    let reservation = reservation_id(1);
    let Reply::Release(Ok(released)) = world.call(Request::Release { reservation }) else {
        panic!("the lease was there");
    };
    assert_eq!((released.source, released.new_count), (source_id(), 1));
    assert!(world.peers.is_empty());
    assert!(!world.release(1));
    assert_eq!(world.ledger.len(), 1);
}

#[test]
fn a_viewer_that_vanished_is_gone_fourteen_seconds_after_its_last_packet() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    let peer = world.watch(1, 0);
    for _ in 0..60 {
        world.pass(SECOND);
        world.alive(peer);
    }
    for _ in 0..13 {
        world.pass(SECOND);
        let reservation = reservation_id(1);
        world.call(Request::Heartbeat { reservation, extend: None, quality: None });
    }
    world.pass(Duration::from_millis(999));
    assert!(world.peers.contains_key(&peer));
    world.pass(Duration::from_millis(1));
    assert!(world.peers.is_empty() && world.ledger.is_empty());
}

#[test]
fn a_reservation_that_nobody_uses_lapses_after_thirty_seconds() {
    let mut world = World::new(1, 1);
    let grant = world.reserved(1, 0);
    assert_eq!(grant.lease.expires_at, world.now + 30 * SECOND);
    world.pass(Duration::from_millis(29_999));
    assert_eq!(world.ledger.len(), 1);
    world.pass(Duration::from_millis(1));
    assert!(world.ledger.is_empty());
    world.pass(5 * SECOND);
    world.assert_nothing_is_left();
}

#[test]
fn checks_of_a_peer_that_does_not_connect_keep_no_lease_alive() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    world.offer(1, 0);
    world.answer(ViewerId(0));
    for _ in 0..29 {
        world.pass(SECOND);
        world.alive(ViewerId(0));
    }
    assert_eq!(world.ledger.len(), 1);
    world.pass(SECOND);
    assert!(world.ledger.is_empty() && world.peers.is_empty());
}

#[test]
fn a_connection_that_does_not_come_about_leaves_the_lease_to_a_second_try() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    for reason in [CloseReason::Handshake, CloseReason::NeverConnected] {
        world.offer(1, 0);
        let peer = *world.offers.keys().next().expect("an offer is under way");
        world.answer(peer);
        world.peer_closes(peer, reason);
        assert_eq!(state(&world, 1), Some(SessionState::Reserved));
    }
    world.watch(1, 0);
    assert_eq!(state(&world, 1), Some(SessionState::Connected));
}

#[test]
fn a_second_offer_takes_the_place_of_the_first_once_it_is_answered() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    let first = world.watch(1, 0);
    world.offer(1, 0);
    assert!(world.peers.contains_key(&first), "an offer may be bad: the first plays on");

    let second = *world.offers.keys().next().expect("an offer is under way");
    world.answer(second);
    assert!(!world.peers.contains_key(&first) && world.peers.contains_key(&second));
    assert_eq!((state(&world, 1), world.ledger.len()), (Some(SessionState::Negotiated), 1));
    assert_eq!(world.call(Request::EndWatch { viewer: first }), Reply::EndWatch(false));
}

#[test]
fn a_bad_offer_changes_nothing() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    let peer = world.watch(1, 0);
    let request = world.offer(1, 0);
    let (refused, _) = world.offers.pop_first().expect("an offer is under way");
    world.viewer(refused, ViewerEvent::Refused);
    assert_eq!(world.replies.remove(&request), Some(Reply::Watch(Err(WatchRefusal::Offer))));
    assert!(world.peers.contains_key(&peer));
    assert_eq!(state(&world, 1), Some(SessionState::Connected));
}

#[test]
fn only_a_live_reservation_of_the_same_camera_lets_a_viewer_in() {
    let mut world = World::new(1, 2);
    world.reserved(1, 0);
    let mut refusal = |viewer, camera| {
        let request = world.offer(viewer, camera);
        world.replies.remove(&request)
    };
    let refused = |refusal| Some(Reply::Watch(Err(refusal)));
    assert_eq!(refusal(1, 1), refused(WatchRefusal::ReservationEnded));
    assert_eq!(refusal(2, 0), refused(WatchRefusal::ReservationEnded));
    assert_eq!(refusal(1, 9), refused(WatchRefusal::UnknownCamera));
}

#[test]
fn a_reservation_that_ends_while_its_offer_is_answered_lets_nobody_in() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    let request = world.offer(1, 0);
    world.release(1);
    world.answer(ViewerId(0));
    let refused = Reply::Watch(Err(WatchRefusal::ReservationEnded));
    assert_eq!(world.replies.remove(&request), Some(refused));
    assert!(world.peers.is_empty());
    world.pass(5 * SECOND);
    world.assert_nothing_is_left();
}

#[test]
fn one_hundred_joins_of_one_user_are_one_hundred_sessions() {
    let mut world = World::new(1, 1);
    for viewer in 0..100 {
        world.reserved(viewer, 0);
        world.watch(viewer, 0);
    }
    assert_eq!((world.peers.len(), world.ledger.len(), world.starts.len()), (100, 100, 1));
}

#[test]
fn a_shutdown_ends_everything_and_lets_nothing_begin() {
    let mut world = World::new(1, 3);
    for viewer in 0..9 {
        world.reserved(viewer, viewer % 3);
        if viewer % 2 == 0 {
            world.watch(viewer, viewer % 3);
        }
    }
    world.live(1);
    world.fail(2, lost());
    let under_way = world.offer(1, 1);
    world.engine.handle_shutdown(world.now);
    world.settle();
    world.assert_nothing_is_left();
    let shutting_down = Reply::Watch(Err(WatchRefusal::ShuttingDown));
    assert_eq!(world.replies.remove(&under_way), Some(shutting_down));

    let refused = Reply::Reserve(Err(ReserveRefusal::ShuttingDown));
    assert_eq!(world.reserve(20, 0), refused);
    world.set_cameras(vec![engine::CameraSpec { on_demand: false, ..spec(0) }]);
    world.assert_nothing_is_left();
}

#[test]
fn a_shutdown_while_the_ledger_is_slow_leaves_no_lease() {
    let mut world = World::new(1, 1);
    world.ledger_is_slow = true;
    let request = world.ask(reserve(1, 0, Quality::Auto));
    world.engine.handle_shutdown(world.now);
    world.ledger_is_slow = false;
    world.settle();
    let refused = Reply::Reserve(Err(ReserveRefusal::ShuttingDown));
    assert_eq!(world.replies.remove(&request), Some(refused));
    world.assert_nothing_is_left();
}

#[test]
fn a_packet_that_came_in_time_counts_though_it_is_told_late() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    let peer = world.watch(1, 0);
    let came_at: Timestamp = world.now + 13 * SECOND;
    // The process was held up for 15 s; the packet is told before the timeout is handled.
    world.now = world.now + 15 * SECOND;
    world.viewer(peer, ViewerEvent::Alive { at: came_at });
    world.engine.handle_timeout(world.now);
    world.settle();
    assert!(world.peers.contains_key(&peer));
}

fn state(world: &World, viewer: u32) -> Option<SessionState> {
    world.engine.session(&reservation_id(viewer)).map(|session| session.state)
}

//! Viewers that take frames inside the process.

use std::time::Duration;

use crate::support::*;
use engine::{Reader, Reply, Request, SessionState, ViewerEvent, WatchRefusal};
use media::peers::CloseReason;

const SECOND: Duration = Duration::from_secs(1);

fn read(world: &mut World, viewer: u32, camera: u32) -> Result<Reader, WatchRefusal> {
    let reservation = reservation_id(viewer);
    let reply = world.call(Request::Read { reservation, camera: camera_id(camera) });
    let Reply::Read(reader) = reply else { panic!("not the reply to a read") };
    if let Ok(reader) = reader {
        world.peers.insert(reader.viewer, reader.stream);
    }
    reader
}

#[test]
fn a_reader_is_connected_at_once_and_lives_by_being_alive() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    world.live(0);
    let reader = read(&mut world, 1, 0).unwrap();
    let state = world.engine.session(&reservation_id(1)).map(|session| session.state);
    assert_eq!(state, Some(SessionState::Connected));
    for _ in 0..20 {
        world.pass(4 * SECOND);
        world.alive(reader.viewer);
    }
    assert_eq!(world.ledger.len(), 1);
    world.pass(16 * SECOND);
    assert!(world.ledger.is_empty() && world.peers.is_empty(), "it vanished");
}

#[test]
fn the_lease_ends_with_the_reader() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    world.live(0);
    let reader = read(&mut world, 1, 0).unwrap();
    world.peer_closes(reader.viewer, CloseReason::Peer);
    assert!(world.ledger.is_empty());
    assert_eq!(read(&mut world, 1, 0), Err(WatchRefusal::ReservationEnded));
    world.pass(5 * SECOND);
    world.assert_nothing_is_left();
}

#[test]
fn a_reader_and_a_browser_share_one_source() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    world.live(0);
    world.watch(1, 0);
    world.reserved(2, 0);
    let reader = read(&mut world, 2, 0).unwrap();
    assert_eq!(world.starts.len(), 1);
    world.release(2);
    assert!(!world.peers.contains_key(&reader.viewer), "it is told to end");
    world.viewer(reader.viewer, ViewerEvent::Closed(CloseReason::Peer));
    assert_eq!(world.ledger.len(), 1);
}

#[test]
fn one_reservation_serves_one_peer_the_newest() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    world.live(0);
    let browser = world.watch(1, 0);
    let first = read(&mut world, 1, 0).unwrap();
    assert!(!world.peers.contains_key(&browser));
    let second = read(&mut world, 1, 0).unwrap();
    assert!(!world.peers.contains_key(&first.viewer));
    assert!(world.peers.contains_key(&second.viewer) && world.ledger.len() == 1);
}

#[test]
fn a_reservation_opens_its_own_camera_only() {
    let mut world = World::new(1, 2);
    world.reserved(1, 0);
    assert_eq!(read(&mut world, 1, 1), Err(WatchRefusal::ReservationEnded));
    assert_eq!(read(&mut world, 1, 7), Err(WatchRefusal::UnknownCamera));
}

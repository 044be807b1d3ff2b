//! A stream is held for another node, which passes its picture on.

use std::time::Duration;

use crate::support::*;
use engine::{HOLD_TIME_MAX, HoldId, HoldRefusal, MAX_FEEDS, MAX_HOLDS, Rendition, Reply, Request};

fn held(world: &mut World, request: Request) -> Result<HoldId, HoldRefusal> {
    let Reply::Hold(held) = world.call(request) else { panic!("not the reply to a feed") };
    held.map(|(hold, _)| hold)
}

fn feed(world: &mut World, camera: u32) -> Result<HoldId, HoldRefusal> {
    held(world, Request::Feed { camera: camera_id(camera), rendition: Rendition::Main })
}

fn hold(world: &mut World, camera: u32) -> Result<HoldId, HoldRefusal> {
    held(world, Request::Hold { camera: camera_id(camera), rendition: Rendition::Main })
}

fn let_go(world: &mut World, hold: HoldId) {
    world.engine.handle_let_go(hold, world.now);
    world.settle();
}

#[test]
fn a_feed_keeps_the_source_as_long_as_it_lasts_and_takes_no_lease() {
    let mut world = World::new(1, 1);
    let fed = feed(&mut world, 0).unwrap();
    world.live(0);
    world.pass(4 * HOLD_TIME_MAX);
    assert_eq!((world.word(0), world.starts.len()), ("live", 1));
    assert!(world.ledger.is_empty() && world.holds_ended.is_empty());
    let_go(&mut world, fed);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.word(0), "idle");
    world.assert_nothing_is_left();
}

#[test]
fn a_feed_ends_with_its_source() {
    let mut world = World::new(1, 1);
    let fed = feed(&mut world, 0).unwrap();
    world.live(0);
    world.fail(0, unreachable());
    assert_eq!(world.holds_ended, [(fed, Some(unreachable()))]);
    assert_eq!(feed(&mut world, 0), Err(HoldRefusal::CameraOffline(unreachable())));
}

#[test]
fn feeds_and_holds_take_no_room_from_each_other() {
    let mut world = World::new(1, 1);
    let feeds: Vec<_> = (0..MAX_FEEDS).map(|_| feed(&mut world, 0).unwrap()).collect();
    assert_eq!(feed(&mut world, 0), Err(HoldRefusal::TooMany));
    let holds: Vec<_> = (0..MAX_HOLDS).map(|_| hold(&mut world, 0).unwrap()).collect();
    assert_eq!(hold(&mut world, 0), Err(HoldRefusal::TooMany));
    let_go(&mut world, holds[0]);
    assert_eq!(feed(&mut world, 0), Err(HoldRefusal::TooMany));
    let_go(&mut world, feeds[0]);
    assert!(feed(&mut world, 0).is_ok() && hold(&mut world, 0).is_ok());
}

#[test]
fn the_end_of_the_server_ends_feeds() {
    let mut world = World::new(1, 1);
    let fed = feed(&mut world, 0).unwrap();
    world.engine.handle_shutdown(world.now);
    world.settle();
    assert_eq!(world.holds_ended, [(fed, None)]);
    assert_eq!(feed(&mut world, 0), Err(HoldRefusal::ShuttingDown));
    world.assert_nothing_is_left();
}

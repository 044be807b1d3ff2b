//! A stream is held for a moment without anybody watching.

use std::time::Duration;

use crate::support::*;
use engine::{HOLD_TIME_MAX, HoldId, HoldRefusal, MAX_HOLDS, Rendition, Reply, Request};

const SECOND: Duration = Duration::from_secs(1);

fn hold(world: &mut World, camera: u32) -> Result<HoldId, HoldRefusal> {
    let request = Request::Hold { camera: camera_id(camera), rendition: Rendition::Main };
    let Reply::Hold(held) = world.call(request) else { panic!("not the reply to a hold") };
    held.map(|(hold, _)| hold)
}

fn let_go(world: &mut World, hold: HoldId) {
    world.engine.handle_let_go(hold, world.now);
    world.settle();
}

#[test]
fn a_hold_starts_the_source_and_takes_no_lease() {
    let mut world = World::new(1, 1);
    let held = hold(&mut world, 0).unwrap();
    assert!(world.puller(0).is_some() && world.ledger.is_empty());
    world.live(0);
    let_go(&mut world, held);
    assert_eq!(world.word(0), "closing");
    world.pass(5 * SECOND);
    assert_eq!((world.word(0), world.removed.len()), ("idle", 1));
    world.assert_nothing_is_left();
}

#[test]
fn a_hold_keeps_what_the_last_viewer_leaves_and_the_other_way_round() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    world.live(0);
    let held = hold(&mut world, 0).unwrap();
    world.release(1);
    assert_eq!(world.word(0), "live");
    world.reserved(2, 0);
    let_go(&mut world, held);
    assert_eq!((world.word(0), world.starts.len()), ("live", 1));
    world.release(2);
    world.pass(5 * SECOND);
    world.assert_nothing_is_left();
}

#[test]
fn a_source_that_fails_ends_its_holds_with_the_reason_and_is_not_tried_again_for_them() {
    let mut world = World::new(1, 1);
    let held = hold(&mut world, 0).unwrap();
    world.fail(0, unreachable());
    assert_eq!(world.holds_ended, [(held, Some(unreachable()))]);
    world.pass(60 * SECOND);
    assert_eq!(world.starts.len(), 1);
    assert_eq!(hold(&mut world, 0), Err(HoldRefusal::CameraOffline(unreachable())));
    assert_eq!(world.starts.len(), 2, "who asks after the wait makes it be tried");
    world.live(0);
    assert!(hold(&mut world, 0).is_ok());
}

#[test]
fn a_hold_that_is_never_let_go_ends_by_itself() {
    let mut world = World::new(1, 1);
    let held = hold(&mut world, 0).unwrap();
    world.live(0);
    world.pass(HOLD_TIME_MAX - Duration::from_millis(1));
    assert_eq!(world.word(0), "live");
    world.pass(Duration::from_millis(1));
    assert_eq!(world.holds_ended, [(held, None)]);
    let_go(&mut world, held);
    world.pass(5 * SECOND);
    world.assert_nothing_is_left();
}

#[test]
fn holds_are_bounded() {
    let mut world = World::new(1, 1);
    let holds: Vec<_> = (0..MAX_HOLDS).map(|_| hold(&mut world, 0).unwrap()).collect();
    assert_eq!(hold(&mut world, 0), Err(HoldRefusal::TooMany));
    let_go(&mut world, holds[0]);
    assert!(hold(&mut world, 0).is_ok());
}

#[test]
fn what_is_not_there_is_not_held() {
    let mut world = World::new(1, 1);
    assert_eq!(hold(&mut world, 9), Err(HoldRefusal::UnknownCamera));
    let mut spec = spec(0);
    spec.camera.has_sub = false;
    world.set_cameras(vec![spec]);
    let request = Request::Hold { camera: camera_id(0), rendition: Rendition::Sub };
    assert_eq!(world.call(request), Reply::Hold(Err(HoldRefusal::NoSub)));
}

#[test]
fn removing_the_camera_and_the_end_of_the_server_end_holds() {
    let mut world = World::new(1, 2);
    let first = hold(&mut world, 0).unwrap();
    let second = hold(&mut world, 1).unwrap();
    world.set_cameras(vec![spec(1)]);
    assert_eq!(world.holds_ended, [(first, None)]);
    world.engine.handle_shutdown(world.now);
    world.settle();
    assert_eq!(world.holds_ended, [(first, None), (second, None)]);
    assert_eq!(hold(&mut world, 1), Err(HoldRefusal::ShuttingDown));
    world.assert_nothing_is_left();
}

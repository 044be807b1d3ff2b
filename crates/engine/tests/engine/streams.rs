//! When a camera's source runs, waits and is let go.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::*;
use control::Quality;
use engine::{
    KEYFRAME_INTERVAL_MIN, Rendition, Reply, Request, ReserveRefusal, STOPPED, SourceFailure,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn two_hundred_first_viewers_in_one_instant_start_one_puller() {
    let mut world = World::new(1, 3);
    world.ledger_is_slow = true;
    let requests: Vec<_> =
        (0..200).map(|viewer| world.ask(reserve(viewer, 1, Quality::Auto))).collect();
    world.ledger_is_slow = false;
    world.settle();
    for request in requests {
        assert!(matches!(world.replies.get(&request), Some(Reply::Reserve(Ok(_)))));
    }
    assert_eq!(world.starts.len(), 1);
    assert_eq!(world.engine.residue().sessions, 200);
}

#[test]
fn a_stream_is_let_go_five_seconds_after_its_last_viewer() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    world.reserved(2, 0);
    world.live(0);
    assert!(world.release(1));
    world.pass(8 * SECOND);
    assert_eq!(world.word(0), "live", "one still watches");

    assert!(world.release(2));
    assert_eq!(world.word(0), "closing");
    world.pass(Duration::from_millis(4_999));
    assert!(world.puller(0).is_some());
    world.pass(Duration::from_millis(1));
    assert_eq!((world.word(0), world.removed.len()), ("idle", 1));
    world.assert_nothing_is_left();
}

#[test]
fn a_new_viewer_takes_over_a_stream_that_is_closing() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    world.live(0);
    world.release(1);
    world.pass(4 * SECOND);
    world.reserved(2, 0);
    assert_eq!(world.word(0), "live");
    world.pass(20 * SECOND);
    assert_eq!((world.starts.len(), world.word(0)), (1, "live"));
}

#[test]
fn a_failing_camera_is_tried_again_with_growing_waits_while_somebody_wants_it() {
    let mut world = World::new(5, 1);
    world.reserved(1, 0);
    for longest in [1, 2, 4, 8, 16, 30, 30] {
        world.fail(0, unreachable());
        assert_eq!(world.word(0), "unreachable");
        let failed_at = world.now;
        while world.puller(0).is_none() {
            world.pass(Duration::from_millis(100));
            let request =
                Request::Heartbeat { reservation: reservation_id(1), extend: None, quality: None };
            assert!(matches!(world.call(request), Reply::Heartbeat(Ok(_))));
        }
        let wait = world.starts.last().expect("it was started").0.saturating_since(failed_at);
        let longest = longest * SECOND;
        assert!(longest / 2 <= wait && wait <= longest, "{wait:?} of {longest:?}");
        assert_eq!(world.word(0), "unreachable", "the reason stays while it is tried again");
    }
}

#[test]
fn a_restarted_camera_comes_back_to_those_who_are_connected() {
    let mut world = World::new(5, 1);
    world.reserved(1, 0);
    let peer = world.watch(1, 0);
    world.live(0);
    for _ in 0..11 {
        world.pass(SECOND);
        world.alive(peer);
    }
    world.fail(0, lost());
    assert_eq!(world.interrupted.len(), 1, "the old picture is dropped");
    world.pass(SECOND);
    assert!(world.puller(0).is_some(), "the first try is within a second");
    world.live(0);
    assert_eq!(world.word(0), "live");
    assert!(world.peers.contains_key(&peer));
    assert_eq!(world.removed, []);
}

#[test]
fn a_reservation_of_a_broken_camera_is_refused_with_the_cameras_reason() {
    let mut world = World::new(5, 1);
    world.reserved(1, 0);
    world.fail(0, SourceFailure::Unauthorized);
    let refused = Reply::Reserve(Err(ReserveRefusal::CameraOffline(SourceFailure::Unauthorized)));
    assert_eq!(world.reserve(2, 0), refused);
    assert!(world.ledger.len() == 1 && world.puller(0).is_none());
}

#[test]
fn who_is_refused_for_an_old_failure_has_the_camera_tried_again() {
    let mut world = World::new(5, 1);
    world.reserved(1, 0);
    world.fail(0, unreachable());
    world.release(1);
    world.assert_nothing_is_left();
    assert_eq!(world.word(0), "unreachable");

    assert!(matches!(world.reserve(2, 0), Reply::Reserve(Err(_))));
    assert!(world.puller(0).is_none(), "not before its wait is over");
    world.pass(SECOND);
    assert!(matches!(world.reserve(3, 0), Reply::Reserve(Err(_))));
    assert!(world.puller(0).is_some(), "the wait is over");
    assert!(matches!(world.reserve(4, 0), Reply::Reserve(Err(_))), "not known to be repaired");
    assert_eq!(world.starts.len(), 2, "one attempt, however many ask");

    world.live(0);
    world.reserved(5, 0);
    assert_eq!((world.word(0), world.starts.len()), ("live", 2));
}

#[test]
fn a_probe_that_succeeds_for_nobody_is_let_go() {
    let mut world = World::new(5, 1);
    world.reserved(1, 0);
    world.fail(0, unreachable());
    world.release(1);
    world.pass(SECOND);
    world.reserve(2, 0);
    world.live(0);
    assert_eq!(world.word(0), "closing");
    world.pass(5 * SECOND);
    assert_eq!(world.word(0), "idle");
    world.assert_nothing_is_left();
}

#[test]
fn an_idle_camera_is_never_refused() {
    let mut world = World::new(5, 1);
    world.reserved(1, 0);
    world.live(0);
    world.release(1);
    world.pass(5 * SECOND);
    assert_eq!(world.word(0), "idle");
    world.reserved(2, 0);
}

#[test]
fn a_camera_that_goes_down_while_nobody_watches_is_not_tried_in_vain() {
    let mut world = World::new(5, 1);
    world.reserved(1, 0);
    world.live(0);
    world.release(1);
    world.fail(0, lost());
    world.pass(120 * SECOND);
    assert_eq!((world.starts.len(), world.word(0)), (1, "lost"));
    world.assert_nothing_is_left();
}

#[test]
fn a_warm_camera_runs_without_viewers_and_is_tried_for_ever() {
    let mut world = World::new(5, 0);
    world.set_cameras(vec![engine::CameraSpec { on_demand: false, ..spec(0) }]);
    assert_eq!(world.starts.len(), 1, "the sub stream is on demand all the same");
    world.live(0);
    world.reserved(1, 0);
    world.release(1);
    world.pass(60 * SECOND);
    assert_eq!((world.word(0), world.starts.len()), ("live", 1));

    world.fail(0, lost());
    world.pass(SECOND);
    assert_eq!(world.starts.len(), 2);

    world.set_cameras(vec![spec(0)]);
    assert_eq!(world.word(0), "lost");
    world.assert_nothing_is_left();
}

#[test]
fn one_broken_camera_delays_no_other() {
    let start_of_the_good_one = |broken: u32| {
        let mut world = World::new(9, broken + 1);
        for camera in 1..=broken {
            world.reserved(camera, camera);
            world.fail(camera, unreachable());
        }
        let asked_at = world.now;
        world.reserved(0, 0);
        assert_eq!(world.starts.last(), Some(&(asked_at, camera_id(0))));
        world.live(0);
        world.word(0)
    };
    assert_eq!(start_of_the_good_one(0), start_of_the_good_one(200));
}

#[test]
fn cameras_that_fail_together_do_not_come_back_in_step() {
    let mut world = World::new(9, 40);
    for camera in 0..40 {
        world.reserved(camera, camera);
        world.fail(camera, unreachable());
    }
    world.pass(SECOND);
    let retries: BTreeSet<_> = world.starts[40..].iter().map(|(at, _)| *at).collect();
    assert_eq!(world.starts.len(), 80);
    assert!(retries.len() > 30, "{retries:?}");
}

#[test]
fn low_quality_is_served_from_the_sub_stream_by_a_puller_of_its_own() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    assert!(matches!(world.call(reserve(2, 0, Quality::Low)), Reply::Reserve(Ok(_))));
    let renditions: Vec<_> = world.pullers.values().map(|puller| puller.rendition).collect();
    assert_eq!(renditions, [Rendition::Main, Rendition::Sub]);
    let view = world.engine.camera(&camera_id(0)).expect("the camera is there");
    assert_eq!(view.streams().map(|stream| stream.reservations).sum::<usize>(), 2);
}

#[test]
fn low_quality_of_a_camera_without_a_sub_stream_is_its_main_stream() {
    let mut world = World::new(1, 0);
    let mut only_main = spec(0);
    only_main.camera.has_sub = false;
    world.set_cameras(vec![only_main]);
    assert!(matches!(world.call(reserve(2, 0, Quality::Low)), Reply::Reserve(Ok(_))));
    assert!(world.puller(0).is_some());
}

#[test]
fn a_stopped_source_returns_for_who_stays_and_at_once_with_the_next_viewer() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    let peer = world.watch(1, 0);
    world.live(0);
    assert_eq!(world.call(Request::StopSource { camera: camera_id(0) }), Reply::StopSource(true));
    assert_eq!((world.word(0), world.interrupted.len()), ("idle", 1));
    world.pass(STOPPED - MILLISECOND);
    assert!(world.pullers.is_empty() && world.peers.contains_key(&peer));
    world.pass(MILLISECOND);
    assert!(world.puller(0).is_some(), "for who still watches");
    world.live(0);

    assert_eq!(world.call(Request::StopSource { camera: camera_id(0) }), Reply::StopSource(true));
    world.alive(peer);
    world.reserved(2, 0);
    assert!(world.puller(0).is_some(), "at once");
    world.live(0);

    assert_eq!(world.call(Request::StopSource { camera: camera_id(0) }), Reply::StopSource(true));
    world.release(1);
    world.release(2);
    world.pass(2 * STOPPED);
    assert!(world.pullers.is_empty(), "for nobody");
    world.assert_nothing_is_left();
    let unknown = Request::StopSource { camera: camera_id(7) };
    assert_eq!(world.call(unknown), Reply::StopSource(false));
}

#[test]
fn a_reset_ends_viewers_and_pullers_of_its_camera_in_one_step_and_no_others() {
    let mut world = World::new(1, 2);
    for (viewer, camera) in [(1, 0), (2, 0), (3, 1)] {
        world.reserved(viewer, camera);
    }
    let (peer, other) = (world.watch(1, 0), world.watch(3, 1));
    world.live(0);
    world.live(1);
    let camera = Some(camera_id(0));
    // The ledger knows of one on another node, too.
    let elsewhere = reservation_id(9);
    let request = Request::Reset { camera, leases: vec![reservation_id(1), elsewhere.clone()] };

    let Reply::Reset(done) = world.call(request) else { panic!("not the reply to a reset") };
    assert_eq!(done.reservations, [reservation_id(1), reservation_id(2), elsewhere]);
    assert_eq!(done.cameras, [camera_id(0)]);
    assert_eq!(world.word(0), "idle");
    assert!(!world.peers.contains_key(&peer) && world.peers.contains_key(&other));
    assert!(world.puller(0).is_none() && world.puller(1).is_some());

    // Who comes after it is served.
    world.reserved(4, 0);
    assert!(world.puller(0).is_some());
    let Reply::Reset(all) = world.call(Request::Reset { camera: None, leases: Vec::new() }) else {
        panic!("not the reply to a reset")
    };
    assert_eq!(all.reservations, [reservation_id(3), reservation_id(4)]);
    assert_eq!(all.cameras, [camera_id(0), camera_id(1)]);
    assert!(world.peers.is_empty() && world.pullers.is_empty());
}

#[test]
fn what_an_ended_attempt_tells_late_is_ignored() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    let (stream, old) = world.puller(0).expect("a puller runs");
    world.fail(0, lost());
    world.pass(SECOND);
    let late = engine::SourceEvent::Failed(SourceFailure::BFrames);
    world.engine.handle_source(stream, old.attempt, late, world.now);
    world.settle();
    assert_eq!(world.word(0), "lost");
    assert!(world.puller(0).is_some());
}

#[test]
fn keyframes_are_asked_for_only_from_a_live_source_and_not_too_often() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    let (stream, _) = world.puller(0).expect("a puller runs");
    let wanted_after = |world: &mut World, pause: Duration| {
        world.pass(pause);
        world.engine.handle_keyframe_wanted(stream, world.now);
        world.settle();
        world.keyframe_requests.len()
    };
    assert_eq!(wanted_after(&mut world, Duration::ZERO), 0);
    world.live(0);
    assert_eq!(wanted_after(&mut world, Duration::ZERO), 1);
    assert_eq!(wanted_after(&mut world, KEYFRAME_INTERVAL_MIN - Duration::from_millis(1)), 1);
    assert_eq!(wanted_after(&mut world, Duration::from_millis(1)), 2);
}

#[test]
fn a_camera_that_goes_takes_its_viewers_and_one_that_changes_keeps_them() {
    let mut world = World::new(1, 2);
    world.reserved(1, 0);
    world.reserved(2, 1);
    let peer = world.watch(2, 1);
    world.live(1);
    world.set_cameras(vec![engine::CameraSpec { revision: 1, ..spec(1) }]);
    assert_eq!(world.engine.residue().sessions, 1);
    assert!(world.peers.contains_key(&peer), "its viewers stay");
    assert_eq!((world.word(1), world.starts.len()), ("connecting", 3));
    assert_eq!(world.reserve(3, 0), Reply::Reserve(Err(ReserveRefusal::UnknownCamera)));

    world.set_cameras(Vec::new());
    world.assert_nothing_is_left();
}

#[test]
fn a_warm_camera_that_goes_is_freed_in_the_media_plane() {
    let mut world = World::new(1, 0);
    world.set_cameras(vec![engine::CameraSpec { on_demand: false, ..spec(0) }]);
    world.live(0);
    world.set_cameras(Vec::new());
    assert_eq!((world.removed.len(), world.interrupted.len()), (1, 0));
    world.assert_nothing_is_left();
}

#[test]
fn a_warm_camera_that_goes_between_two_attempts_is_freed_too() {
    let mut world = World::new(1, 0);
    world.set_cameras(vec![engine::CameraSpec { on_demand: false, ..spec(0) }]);
    world.live(0);
    world.fail(0, lost());
    world.set_cameras(Vec::new());
    assert_eq!((world.removed.len(), world.interrupted.len()), (1, 1));
    world.assert_nothing_is_left();
}

#[test]
fn a_publisher_that_comes_is_taken_at_once_by_who_waits() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    world.fail(0, SourceFailure::NoPublisher);
    world.pass(SECOND);
    assert_eq!((world.word(0), world.starts.len()), ("no_publisher", 1), "nothing is tried");

    world.engine.handle_publisher(&camera_id(0), Rendition::Main, world.now);
    world.settle();
    assert_eq!(world.starts.len(), 2);
    world.live(0);
    assert_eq!(world.word(0), "live");

    world.engine.handle_publisher(&camera_id(0), Rendition::Main, world.now);
    world.engine.handle_publisher(&camera_id(0), Rendition::Sub, world.now);
    world.settle();
    assert_eq!(world.starts.len(), 2, "a second one changes nothing, nor does one for no stream");
}

#[test]
fn a_publisher_that_comes_while_nobody_watches_opens_the_camera_again() {
    let mut world = World::new(1, 1);
    world.reserved(1, 0);
    world.fail(0, SourceFailure::NoPublisher);
    assert!(world.release(1));
    assert!(matches!(world.reserve(2, 0), Reply::Reserve(Err(ReserveRefusal::CameraOffline(_)))));

    world.engine.handle_publisher(&camera_id(0), Rendition::Main, world.now);
    world.settle();
    world.live(0);

    world.reserved(2, 0);
    assert_eq!(world.word(0), "live");
}

#[test]
fn states_have_the_words_and_statuses_of_the_api() {
    let failures = [
        (unreachable(), "unreachable", "OFFLINE"),
        (lost(), "lost", "OFFLINE"),
        (SourceFailure::NoPublisher, "no_publisher", "OFFLINE"),
        (SourceFailure::Unauthorized, "unauthorized", "ERROR"),
        (SourceFailure::NotFound { path: "/x".to_owned() }, "not_found", "ERROR"),
        (SourceFailure::NoKeyframe { waited_s: 15 }, "no_keyframe", "ERROR"),
        (SourceFailure::BFrames, "b_frames", "ERROR"),
        (
            SourceFailure::UnsupportedCodec { codec: "H.265".to_owned() },
            "unsupported_codec",
            "ERROR",
        ),
        (SourceFailure::Protocol { detail: "no SDP".to_owned() }, "protocol", "ERROR"),
    ];
    for (failure, word, status) in failures {
        let mut world = World::new(1, 1);
        world.reserved(1, 0);
        world.fail(0, failure.clone());
        let view = world.engine.camera(&camera_id(0)).expect("the camera is there").leading();
        assert_eq!((view.condition.word(), view.condition.status()), (word, status));
        let retry_in = view.retry_at.expect("it is tried again").saturating_since(world.now);
        assert!(retry_in <= Duration::from_secs(66), "{failure}: {retry_in:?}");
    }
}

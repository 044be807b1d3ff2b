//! Which of a camera's streams a session watches, and how it gets to the other one.

use std::time::Duration;

use crate::support::*;
use control::Quality;
use engine::{
    CodecMismatch, Rendition, Reply, Request, SessionState, SourceEvent, SourceFailure,
    SwitchReason, ViewerEvent, WatchRefusal,
};
use media::estimate::LineState;
use media::peers::CloseReason;
use media::{Codec, StreamId, ViewerId};

const SECOND: Duration = Duration::from_secs(1);

/// A world with one camera of two streams.
fn world() -> World {
    World::new(3, 1)
}

/// Reserves in a quality and connects.
fn watch(world: &mut World, viewer: u32, quality: Quality) -> ViewerId {
    let reply = world.call(reserve(viewer, 0, quality));
    assert!(matches!(reply, Reply::Reserve(Ok(_))), "{reply:?}");
    world.watch(viewer, 0)
}

/// The same by a viewer that takes H.264 alone.
fn offer_h264(world: &mut World, viewer: u32) -> Reply {
    let request = world.offer(viewer, 0);
    let peer = *world.offers.keys().next_back().expect("an offer is under way");
    let stream = world.offers.remove(&peer).expect("it is there");
    world.peers.insert(peer, stream);
    world.viewer(peer, ViewerEvent::Accepted { codecs: [Codec::H264].into_iter().collect() });
    if world.peers.contains_key(&peer) {
        world.viewer(peer, ViewerEvent::Connected { handshake_ms: 20 });
    }
    world.replies.remove(&request).expect("it is answered")
}

fn streams(world: &World) -> (StreamId, StreamId) {
    let view = world.engine.camera(&camera_id(0)).expect("the camera is there");
    (view.main.id, view.sub.expect("it has two").id)
}

fn live(world: &mut World, rendition: Rendition, codec: Codec) {
    source(world, rendition, SourceEvent::Live { codec });
}

fn fail(world: &mut World, rendition: Rendition, failure: SourceFailure) {
    source(world, rendition, SourceEvent::Failed(failure));
}

fn source(world: &mut World, rendition: Rendition, event: SourceEvent) {
    let found = world.pullers.iter().find(|(_, puller)| puller.rendition == rendition);
    let (stream, puller) = found.map(|(id, puller)| (*id, puller.clone())).expect("it is pulled");
    if matches!(event, SourceEvent::Failed(_)) {
        world.pullers.remove(&stream);
    }
    world.engine.handle_source(stream, puller.attempt, event, world.now);
    world.settle();
}

fn pulled(world: &World) -> Vec<Rendition> {
    world.pullers.values().map(|puller| puller.rendition).collect()
}

/// The media plane does what it was last told.
fn arrive(world: &mut World) -> (ViewerId, StreamId) {
    let (viewer, stream) = *world.switches.last().expect("somebody is to be switched");
    world.switches.clear();
    world.viewer(viewer, ViewerEvent::Switched { stream });
    (viewer, stream)
}

fn ask_for(world: &mut World, viewer: u32, quality: Quality) -> engine::Watching {
    let reservation = reservation_id(viewer);
    let request = Request::Heartbeat { reservation, extend: None, quality: Some(quality) };
    let Reply::Heartbeat(Ok(grant)) = world.call(request) else { panic!("the lease lives") };
    grant.watching
}

fn seen(world: &World, viewer: u32) -> Rendition {
    let session = world.engine.session(&reservation_id(viewer)).expect("the session is there");
    if session.stream == streams(world).0 { Rendition::Main } else { Rendition::Sub }
}

/// A second passes, in which the viewer reports this of its line.
fn report(world: &mut World, peer: ViewerId, loss: f32) {
    world.pass(SECOND);
    let line = LineState { loss, ..LineState::default() };
    let session = world.engine.sessions().find(|session| session.viewer == Some(peer));
    let stream = session.expect("it is there").stream;
    world.viewer(peer, ViewerEvent::Line { line, stream });
    world.alive(peer);
}

/// How often viewers went somewhere for a reason, and how often not.
fn counted(world: &World, to: Rendition, reason: SwitchReason) -> (u64, u64) {
    let mut rows = world.engine.switches().rows();
    let row = rows.find(|row| (row.0, row.1) == (to, reason)).expect("all combinations are there");
    (row.2, row.3)
}

#[test]
fn every_quality_begins_with_its_stream() {
    for (quality, first) in [
        (Quality::Low, Rendition::Sub),
        (Quality::Medium, Rendition::Sub),
        (Quality::High, Rendition::Main),
        (Quality::Auto, Rendition::Main),
    ] {
        let mut world = world();
        watch(&mut world, 1, quality);
        assert_eq!((pulled(&world), seen(&world, 1)), (vec![first], first), "{quality:?}");
        assert_eq!(world.switches, []);
    }
}

#[test]
fn another_quality_switches_and_both_streams_are_held_meanwhile() {
    let mut world = world();
    let peer = watch(&mut world, 1, Quality::Auto);
    live(&mut world, Rendition::Main, Codec::H264);
    let (_, sub) = streams(&world);
    let watching = ask_for(&mut world, 1, Quality::Low);
    assert_eq!((watching.quality, watching.rendition), (Quality::Low, Rendition::Main));
    assert_eq!(world.switches, [(peer, sub)]);
    assert_eq!(pulled(&world), [Rendition::Main, Rendition::Sub]);
    assert_eq!(world.ledger.len(), 1, "one lease all the time");
    let view = world.engine.camera(&camera_id(0)).expect("the camera is there");
    assert_eq!(view.streams().map(|stream| stream.reservations).sum::<usize>(), 1);

    arrive(&mut world);
    assert_eq!(pulled(&world), [Rendition::Main, Rendition::Sub], "kept for a moment");
    world.pass(5 * SECOND);
    assert_eq!((pulled(&world), seen(&world, 1)), (vec![Rendition::Sub], Rendition::Sub));
    assert_eq!(counted(&world, Rendition::Sub, SwitchReason::Quality), (1, 0));
    let watching = ask_for(&mut world, 1, Quality::High);
    assert_eq!(watching.switches, 1);
}

#[test]
fn a_quality_that_is_asked_for_before_the_peer_is_there_needs_no_switch() {
    let mut world = world();
    world.reserved(1, 0);
    ask_for(&mut world, 1, Quality::Low);
    assert_eq!((seen(&world, 1), world.switches.len()), (Rendition::Sub, 0));
    world.pass(5 * SECOND);
    assert_eq!(pulled(&world), [Rendition::Sub]);
}

#[test]
fn a_quality_that_is_asked_for_while_the_peer_connects_switches_when_it_has() {
    let mut world = world();
    world.reserved(1, 0);
    world.offer(1, 0);
    let peer = *world.offers.keys().next().expect("an offer is under way");
    world.answer(peer);
    ask_for(&mut world, 1, Quality::Low);
    assert_eq!(world.switches, []);
    world.viewer(peer, ViewerEvent::Connected { handshake_ms: 20 });
    assert_eq!(world.switches, [(peer, streams(&world).1)]);
}

#[test]
fn a_wish_that_is_taken_back_on_the_way_is_told_to_the_media_plane() {
    let mut world = world();
    let peer = watch(&mut world, 1, Quality::High);
    live(&mut world, Rendition::Main, Codec::H264);
    let (main, sub) = streams(&world);
    ask_for(&mut world, 1, Quality::Low);
    ask_for(&mut world, 1, Quality::High);
    assert_eq!(world.switches, [(peer, sub), (peer, main)]);
    // It had got there before it heard of it.
    world.viewer(peer, ViewerEvent::Switched { stream: sub });
    assert_eq!(seen(&world, 1), Rendition::Sub);
    world.viewer(peer, ViewerEvent::Switched { stream: main });
    assert_eq!(seen(&world, 1), Rendition::Main);
    world.pass(6 * SECOND);
    assert_eq!(pulled(&world), [Rendition::Main]);
}

#[test]
fn a_stream_that_brings_nothing_is_given_up_and_tried_again_after_growing_waits() {
    let mut world = world();
    let peer = watch(&mut world, 1, Quality::High);
    live(&mut world, Rendition::Main, Codec::H264);
    let (_, sub) = streams(&world);
    ask_for(&mut world, 1, Quality::Low);
    for wait_s in [10, 20, 40, 80] {
        assert_eq!(world.switches, [(peer, sub)]);
        world.switches.clear();
        world.viewer(peer, ViewerEvent::SwitchFailed { stream: sub });
        assert_eq!(seen(&world, 1), Rendition::Main, "it plays on");
        for _ in 0..wait_s - 1 {
            world.pass(SECOND);
            world.alive(peer);
        }
        assert_eq!(world.switches, []);
        world.pass(SECOND);
        world.alive(peer);
    }
    assert_eq!(counted(&world, Rendition::Sub, SwitchReason::Quality), (0, 4));
    arrive(&mut world);
    assert_eq!(seen(&world, 1), Rendition::Sub);
}

#[test]
fn a_source_that_fails_on_the_way_ends_the_switch_and_its_return_begins_it_anew() {
    let mut world = world();
    let peer = watch(&mut world, 1, Quality::High);
    live(&mut world, Rendition::Main, Codec::H264);
    let (main, sub) = streams(&world);
    ask_for(&mut world, 1, Quality::Low);
    fail(&mut world, Rendition::Sub, unreachable());
    assert_eq!(world.switches, [(peer, sub), (peer, main)]);
    world.switches.clear();
    world.viewer(peer, ViewerEvent::Switched { stream: main });
    assert_eq!(counted(&world, Rendition::Sub, SwitchReason::Quality), (0, 1));

    for _ in 0..12 {
        world.pass(SECOND);
        world.alive(peer);
    }
    assert_eq!(world.switches, [], "it is known to be down");
    assert!(pulled(&world).contains(&Rendition::Sub), "and is tried again for who waits");
    live(&mut world, Rendition::Sub, Codec::H264);
    assert_eq!(arrive(&mut world), (peer, sub));
}

#[test]
fn a_bad_line_gets_the_sub_stream_and_a_good_one_the_main_stream_again() {
    let mut world = world();
    let peer = watch(&mut world, 1, Quality::Auto);
    live(&mut world, Rendition::Main, Codec::H264);
    let (main, sub) = streams(&world);
    for _ in 0..3 {
        assert_eq!(world.switches, []);
        report(&mut world, peer, 0.3);
    }
    assert_eq!(arrive(&mut world), (peer, sub));
    assert_eq!(counted(&world, Rendition::Sub, SwitchReason::Line), (1, 0));
    for _ in 0..11 {
        assert_eq!(world.switches, []);
        report(&mut world, peer, 0.0);
    }
    assert_eq!(arrive(&mut world), (peer, main));
    assert_eq!(counted(&world, Rendition::Main, SwitchReason::Line), (1, 0));
    // What is told late of the stream before counts no more.
    for _ in 0..5 {
        world.pass(SECOND);
        let line = LineState { loss: 0.5, ..LineState::default() };
        world.viewer(peer, ViewerEvent::Line { line, stream: sub });
        world.alive(peer);
    }
    assert_eq!(world.switches, []);
}

#[test]
fn high_and_low_stay_on_the_worst_line() {
    for quality in [Quality::High, Quality::Low] {
        let mut world = world();
        let peer = watch(&mut world, 1, quality);
        for _ in 0..30 {
            report(&mut world, peer, 0.6);
        }
        assert_eq!(world.switches, [], "{quality:?}");
    }
}

#[test]
fn a_main_stream_that_cannot_be_played_gives_way_in_every_quality() {
    for quality in [Quality::High, Quality::Auto] {
        let mut world = world();
        let peer = watch(&mut world, 1, quality);
        fail(&mut world, Rendition::Main, SourceFailure::BFrames);
        let (main, sub) = streams(&world);
        assert_eq!(arrive(&mut world), (peer, sub), "{quality:?}");
        assert_eq!(world.word(0), "b_frames", "the camera still says what is wrong");
        assert_eq!(counted(&world, Rendition::Sub, SwitchReason::Source), (1, 0));

        let grant = world.reserved(2, 0);
        assert_eq!(grant.watching.rendition, Rendition::Sub, "who comes later begins there");

        for _ in 0..31 {
            world.pass(SECOND);
            world.alive(peer);
        }
        assert!(pulled(&world).contains(&Rendition::Main), "it is tried again meanwhile");
        live(&mut world, Rendition::Main, Codec::H264);
        assert_eq!(arrive(&mut world), (peer, main), "somebody has repaired it");
        assert_eq!(counted(&world, Rendition::Main, SwitchReason::Source), (1, 0));
        assert_eq!(world.word(0), "live");
    }
}

#[test]
fn a_camera_that_is_away_is_not_asked_for_its_sub_stream_too() {
    for failure in [unreachable(), lost(), SourceFailure::Unauthorized] {
        let mut world = world();
        watch(&mut world, 1, Quality::Auto);
        fail(&mut world, Rendition::Main, failure);
        assert_eq!((world.switches.len(), pulled(&world)), (0, vec![]));
    }
}

#[test]
fn without_a_sub_stream_viewers_wait_as_ever() {
    let mut world = world();
    let mut only_main = spec(0);
    only_main.camera.has_sub = false;
    world.set_cameras(vec![only_main]);
    watch(&mut world, 1, Quality::Auto);
    fail(&mut world, Rendition::Main, SourceFailure::BFrames);
    assert_eq!(world.switches, []);
    ask_for(&mut world, 1, Quality::Low);
    assert_eq!((world.switches.len(), world.ledger.len()), (0, 1));
}

#[test]
fn a_codec_that_the_viewer_does_not_take_gives_way_to_the_sub_stream() {
    let mut world = world();
    world.reserved(1, 0);
    assert!(matches!(offer_h264(&mut world, 1), Reply::Watch(Ok(_))));
    let (_, sub) = streams(&world);
    live(&mut world, Rendition::Main, Codec::H265);
    let (peer, to) = arrive(&mut world);
    assert_eq!((to, seen(&world, 1)), (sub, Rendition::Sub));
    live(&mut world, Rendition::Sub, Codec::H264);
    assert!(world.peers.contains_key(&peer));
    world.pass(6 * SECOND);
    assert_eq!(pulled(&world), [Rendition::Sub], "nobody needs the other one");
    // Somebody who takes it gets it.
    watch(&mut world, 2, Quality::Auto);
    live(&mut world, Rendition::Main, Codec::H265);
    assert_eq!((seen(&world, 1), seen(&world, 2)), (Rendition::Sub, Rendition::Main));
}

#[test]
fn a_viewer_that_takes_neither_stream_is_closed_and_its_next_offer_refused_with_a_sentence() {
    let mut world = world();
    world.reserved(1, 0);
    assert!(matches!(offer_h264(&mut world, 1), Reply::Watch(Ok(_))));
    live(&mut world, Rendition::Main, Codec::H265);
    arrive(&mut world);
    live(&mut world, Rendition::Sub, Codec::Av1);
    assert!(world.peers.is_empty());
    let session = world.engine.session(&reservation_id(1)).expect("the lease stays");
    assert_eq!(session.state, SessionState::Reserved);
    let Reply::Watch(Err(WatchRefusal::Codec(mismatch))) = offer_h264(&mut world, 1) else {
        panic!("it was known");
    };
    assert_eq!(
        mismatch.to_string(),
        "the camera sends H265 and AV1, and this viewer takes neither; set one of its streams to \
         H.264"
    );
}

#[test]
fn an_offer_is_refused_at_once_when_the_codec_is_known() {
    let mut world = world();
    let mut only_main = spec(0);
    only_main.camera.has_sub = false;
    world.set_cameras(vec![only_main]);
    watch(&mut world, 1, Quality::Auto);
    live(&mut world, Rendition::Main, Codec::H265);
    world.reserved(2, 0);
    let mismatch = CodecMismatch { codec: Codec::H265, other: None, has_sub: false };
    let refused = Reply::Watch(Err(WatchRefusal::Codec(mismatch)));
    assert_eq!(offer_h264(&mut world, 2), refused);
    assert_eq!(
        mismatch.to_string(),
        "the camera sends H265, which this viewer does not take; set the camera to H.264, or give \
         it a sub_url in H.264"
    );
    assert_eq!((world.peers.len(), world.ledger.len()), (1, 2), "the other one plays on");
    // Set to H.264, it is let in.
    live(&mut world, Rendition::Main, Codec::H264);
    assert!(matches!(offer_h264(&mut world, 2), Reply::Watch(Ok(_))));
}

#[test]
fn a_viewer_whose_only_hope_brings_nothing_is_closed() {
    let mut world = world();
    world.reserved(1, 0);
    offer_h264(&mut world, 1);
    live(&mut world, Rendition::Main, Codec::H265);
    let (peer, sub) = *world.switches.last().expect("it is to go to the sub stream");
    world.viewer(peer, ViewerEvent::SwitchFailed { stream: sub });
    assert!(world.peers.is_empty());
    let Reply::Watch(Err(WatchRefusal::Codec(mismatch))) = offer_h264(&mut world, 1) else {
        panic!("it was tried just before");
    };
    assert!(mismatch.to_string().ends_with("; set one of its streams to H.264"));
}

#[test]
fn whoever_goes_in_the_middle_of_a_switch_leaves_nothing() {
    for reason in [CloseReason::Peer, CloseReason::Handshake] {
        let mut world = world();
        let peer = watch(&mut world, 1, Quality::High);
        live(&mut world, Rendition::Main, Codec::H264);
        ask_for(&mut world, 1, Quality::Low);
        world.peer_closes(peer, reason);
        world.release(1);
        world.pass(6 * SECOND);
        world.assert_nothing_is_left();
        world.viewer(peer, ViewerEvent::Switched { stream: streams(&world).1 });
        world.assert_nothing_is_left();
    }
}

#[test]
fn a_second_connection_begins_where_its_offer_was_answered() {
    let mut world = world();
    let first = watch(&mut world, 1, Quality::High);
    live(&mut world, Rendition::Main, Codec::H264);
    let (main, sub) = streams(&world);
    world.offer(1, 0);
    ask_for(&mut world, 1, Quality::Low);
    world.viewer(first, ViewerEvent::Switched { stream: sub });
    assert_eq!(seen(&world, 1), Rendition::Sub);
    let second = *world.offers.keys().next().expect("an offer is under way");
    assert_eq!(world.offers[&second], main);
    world.switches.clear();
    world.answer(second);
    assert_eq!(seen(&world, 1), Rendition::Main);
    world.viewer(second, ViewerEvent::Connected { handshake_ms: 20 });
    assert_eq!(arrive(&mut world), (second, sub));
    assert_eq!(seen(&world, 1), Rendition::Sub);
}

#[test]
fn a_sub_stream_that_is_taken_away_calls_back_who_is_on_the_way() {
    let mut world = world();
    let peer = watch(&mut world, 1, Quality::High);
    live(&mut world, Rendition::Main, Codec::H264);
    let (main, sub) = streams(&world);
    ask_for(&mut world, 1, Quality::Low);
    let mut only_main = spec(0);
    only_main.camera.has_sub = false;
    world.set_cameras(vec![only_main]);
    assert_eq!(world.switches, [(peer, sub), (peer, main)]);
    world.viewer(peer, ViewerEvent::Switched { stream: main });
    assert!(world.peers.contains_key(&peer) && world.ledger.len() == 1);
}

#[test]
fn a_reader_stays_on_the_stream_that_it_asked_for() {
    let mut world = world();
    world.reserved(1, 0);
    let reservation = reservation_id(1);
    let Reply::Read(Ok(reader)) = world.call(Request::Read { reservation, camera: camera_id(0) })
    else {
        panic!("it is let in");
    };
    fail(&mut world, Rendition::Main, SourceFailure::BFrames);
    ask_for(&mut world, 1, Quality::Low);
    world.alive(reader.viewer);
    assert_eq!((world.switches.len(), seen(&world, 1)), (0, Rendition::Main));
}

#[test]
fn who_reads_instead_of_watching_is_expected_nowhere() {
    for is_broken in [false, true] {
        let mut world = world();
        watch(&mut world, 1, Quality::High);
        live(&mut world, Rendition::Main, Codec::H264);
        ask_for(&mut world, 1, Quality::Low);
        if is_broken {
            fail(&mut world, Rendition::Sub, SourceFailure::BFrames);
        }
        let expected = |world: &World| {
            let view = world.engine.camera(&camera_id(0)).expect("the camera is there");
            view.sub.expect("it has two").expected
        };
        assert_eq!(expected(&world), 1);
        let reservation = reservation_id(1);
        let reply = world.call(Request::Read { reservation, camera: camera_id(0) });
        assert!(matches!(reply, Reply::Read(Ok(_))), "{reply:?}");
        assert_eq!(expected(&world), 0);
        assert_eq!(world.engine.check(), Ok(()));
    }
}

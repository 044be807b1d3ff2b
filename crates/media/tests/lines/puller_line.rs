//! One server pulls another's stream: our own fan-out at one end, a puller at the other, a wire that
//! may lose packets between them, in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::batch::Route;
use media::fanout::{Fanout, FanoutEvent};
use media::h264::{AccessUnit, Normaliser, split_annex_b};
use media::packetise::packetise;
use media::peer::puller::{Puller, PullerFactory, PullerOutput};
use media::peer::{IceCredentials, PeerFactory};
use media::peers::{CloseReason, PeerTable, PeersOutput};
use media::publish::{Published, TrackOutput};
use media::{Codec, Frame, MediaKind, NtpTime, StreamId, ViewerId};

use crate::wire::{self, World as _, sent, tell_place};

const VIEWER: ViewerId = ViewerId(7);
const STREAM: StreamId = StreamId(3);
const PULLER: ([u8; 4], u16) = ([10, 0, 0, 2], 4_000);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 8_555);
/// Pictures of a group.
const GROUP: u64 = 5;
/// Bytes that a picture is made longer by.
const FILLING: usize = 3_000;

#[test]
fn picture_and_sound_arrive_as_they_were_published() {
    let mut world = World::new();
    for index in 0..3 {
        world.publish(index);
    }
    world.run_until("the cached group", |world| world.pictures().len() == 3);
    for index in 3..12 {
        world.publish(index);
        world.publish_sound(index);
    }
    world.run_until("all", |world| world.pictures().len() == 12 && world.sounds() == 9);

    let pictures = world.pictures();
    assert!(pictures[0].keyframe && !pictures[1].keyframe && pictures[5].keyframe);
    for (index, picture) in pictures.iter().enumerate() {
        assert_eq!(picture.codec, Codec::H264);
        let slice = picture.units.last().unwrap();
        assert_eq!(slice[slice.len() - FILLING..], [0x80 | index as u8; FILLING], "{index}");
    }
    assert_eq!(pictures[0].units[0][0] & 31, 7, "a keyframe begins with its parameter sets");
    // Packets bring the newest report of their track along.
    for _ in 0..1_500 {
        world.step();
    }
    world.publish(12);
    world.publish_sound(12);
    world.run_until("more", |world| world.pictures().len() == 13 && world.sounds() == 10);
    assert!(world.reports() >= 2, "sender reports tie both tracks to the origin's clock");
}

#[test]
fn lost_packets_are_asked_for_and_no_picture_is_missing() {
    let mut world = World::new();
    world.publish(0);
    world.run_until("connected", |world| world.pictures().len() == 1);
    world.loses_every = Some(7);
    for index in 1..60 {
        world.publish(index);
        for _ in 0..66 {
            world.step();
        }
    }
    world.run_until("all", |world| world.pictures().len() == 60);
    assert!(world.lost > 10, "the line lost {}", world.lost);
}

#[test]
fn a_keyframe_is_asked_for_at_most_twice_a_second() {
    let mut world = World::new();
    world.publish(0);
    world.run_until("connected", |world| world.pictures().len() == 1);
    let before = world.fanout.figures().keyframe_requests;
    for _ in 0..2_000 {
        world.puller.want_keyframe();
        world.step();
    }
    let asked = world.fanout.figures().keyframe_requests - before;
    assert!((3..=5).contains(&asked), "asked {asked} times in 2 s");
}

#[test]
fn a_goodbye_is_heard_at_the_other_end() {
    let mut world = World::new();
    world.publish(0);
    world.run_until("connected", |world| world.pictures().len() == 1);
    world.puller.close();
    world.run_until("closed", |world| world.closed.is_some());
    assert_eq!(world.closed, Some(CloseReason::Peer));

    let mut world = World::new();
    world.publish(0);
    world.run_until("connected", |world| world.pictures().len() == 1);
    world.table.handle_close(VIEWER, CloseReason::Asked, world.now);
    world.run_until("told", |world| world.told_closed);
}

#[test]
fn an_answer_that_is_none_is_refused_in_one_line() {
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    let now = Instant::now();
    let factory = PullerFactory::new().unwrap();
    let many = "a=candidate\r\n".repeat(5_000);
    for garbage in ["", "v=0", "<html>", "v=0\r\nm=video", &many] {
        let (mut puller, _) = factory.offer(PULLER.into(), now).unwrap();
        let error = puller.handle_answer(garbage).unwrap_err().to_string();
        assert!(error.starts_with("the answer cannot be used") && !error.contains('\n'), "{error}");
    }
}

struct World {
    now: Instant,
    start: Instant,
    group: Vec<AccessUnit>,
    table: PeerTable,
    fanout: Fanout,
    puller: Puller,
    sent: Vec<Vec<u8>>,
    outputs: Vec<TrackOutput>,
    told_closed: bool,
    closed: Option<CloseReason>,
    /// Of the packets with media, one in so many.
    loses_every: Option<u32>,
    passed: u32,
    lost: u32,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn new() -> Self {
        let now = Instant::now();
        let mut table = PeerTable::new(PeerFactory::new(vec![SERVER.into()]).unwrap());
        let (mut puller, offer) = PullerFactory::new().unwrap().offer(PULLER.into(), now).unwrap();
        let credentials = IceCredentials {
            ufrag: "Aabcdefgh".to_owned(),
            password: "abcdefghijklmnopqrstuvwxyz012345".to_owned(),
        };
        let answer = table.handle_offer(VIEWER, STREAM, &offer, &credentials, now).unwrap();
        puller.handle_answer(&answer.sdp).unwrap();
        Self {
            now,
            start: now,
            group: group(),
            table,
            fanout: Fanout::new(),
            puller,
            sent: Vec::new(),
            outputs: Vec::new(),
            told_closed: false,
            closed: None,
            loses_every: None,
            passed: 0,
            lost: 0,
        }
    }

    fn pictures(&self) -> Vec<&Published> {
        self.frames(MediaKind::Video)
    }

    fn sounds(&self) -> usize {
        self.frames(MediaKind::Audio).len()
    }

    fn frames(&self, kind: MediaKind) -> Vec<&Published> {
        let frames = self.outputs.iter().filter_map(|output| match output {
            TrackOutput::Frame(frame) if frame.codec.kind() == kind => Some(frame),
            TrackOutput::Frame(_)
            | TrackOutput::Report { .. }
            | TrackOutput::Lost(_)
            | TrackOutput::KeyframeWanted => None,
        });
        frames.collect()
    }

    fn reports(&self) -> usize {
        self.outputs.iter().filter(|output| matches!(output, TrackOutput::Report { .. })).count()
    }

    /// Picture `index` of a 15 fps camera.
    fn publish(&mut self, index: u64) {
        let AccessUnit { keyframe, mut units, .. } = self.group[(index % GROUP) as usize].clone();
        // Long enough for several packets. No byte below 128, so that no start code comes about.
        let mut slice = units.pop().unwrap().to_vec();
        slice.extend([0x80 | index as u8; FILLING]);
        units.push(slice.into());
        self.put(Codec::H264, 1_000_000 + index * 6_000, keyframe, units);
    }

    fn publish_sound(&mut self, index: u64) {
        let packet = Bytes::from(vec![index as u8; 160]);
        self.put(Codec::Opus, 48_000 + index * 960, true, vec![packet]);
    }

    fn put(&mut self, codec: Codec, ticks: u64, keyframe: bool, units: Vec<Bytes>) {
        let elapsed = (self.now - self.start).as_micros() as u64;
        let captured = NtpTime::from_unix_micros(1_700_000_000_000_000 + elapsed);
        let discontinuity = false;
        let frame =
            Frame { forwarded: None, codec, ticks, captured, keyframe, discontinuity, units };
        self.fanout.handle_frame(STREAM, Arc::new(packetise(&frame)), self.now);
        self.step();
    }

    fn poll_puller(&mut self) {
        loop {
            match self.puller.poll_output(self.now) {
                PullerOutput::Transmit { contents, .. } => self.sent.push(contents),
                PullerOutput::Track(output) => self.outputs.push(output),
                PullerOutput::Connected => {}
                PullerOutput::Closed => {
                    self.told_closed = true;
                    return;
                }
                PullerOutput::Timeout(_) => return,
            }
        }
    }

    fn drain_table(&mut self) {
        while let Some(output) = self.table.poll_output() {
            match output {
                PeersOutput::Transmit { contents, .. } => self.deliver(&contents),
                PeersOutput::Attach(attach) => {
                    self.fanout.handle_attach(*attach, 0xfedc_ba98_7654, self.now);
                }
                PeersOutput::Closed { viewer, reason } => {
                    self.fanout.handle_detach(viewer, None);
                    self.closed = Some(reason);
                }
                place @ (PeersOutput::PathProven { .. }
                | PeersOutput::PathForgotten { .. }
                | PeersOutput::Moved { .. }
                | PeersOutput::Alive { .. }) => tell_place(&mut self.fanout, place, self.now),
            }
        }
    }

    fn drain_fanout(&mut self) {
        for (_, datagram) in sent(&mut self.fanout) {
            self.passed += 1;
            if self.loses_every.is_some_and(|every| self.passed.is_multiple_of(every)) {
                self.lost += 1;
            } else {
                self.deliver(&datagram);
            }
        }
        // Whatever it has to tell, so that nothing piles up.
        let _: Vec<FanoutEvent> = std::iter::from_fn(|| self.fanout.poll_event()).collect();
    }

    fn deliver(&mut self, packet: &[u8]) {
        self.puller.handle_datagram(SERVER.into(), packet, self.now);
        self.poll_puller();
    }
}

impl wire::World for World {
    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        self.puller.handle_timeout(self.now);
        self.poll_puller();
        for mut packet in std::mem::take(&mut self.sent) {
            if (128..=191).contains(&packet[0]) {
                let route = Route::new(SERVER.into(), SocketAddr::from(PULLER));
                self.fanout.handle_rtcp(route, &mut packet, self.now);
            } else {
                let source = SocketAddr::from(PULLER);
                self.table.handle_datagram(source, SERVER.into(), &packet, self.now);
            }
        }
        self.table.handle_timeout(self.now);
        self.drain_table();
        self.fanout.handle_timeout(self.now);
        self.drain_fanout();
    }
}

/// A group of x264's pictures, see `h264_streams.rs`.
fn group() -> Vec<AccessUnit> {
    let stream = Bytes::from_static(include_bytes!("data/high-no-b-frames.h264"));
    let mut pictures: Vec<Vec<Bytes>> = Vec::new();
    for unit in split_annex_b(&stream) {
        // 9: the delimiter that begins each picture.
        if unit[0] & 31 == 9 {
            pictures.push(Vec::new());
        }
        pictures.last_mut().unwrap().push(unit);
    }
    let mut normaliser = Normaliser::default();
    let units =
        pictures.into_iter().filter_map(|units| normaliser.handle_access_unit(units).unwrap());
    units.take(GROUP as usize).collect()
}

//! A viewer goes from a camera's main stream to its sub stream and back, as a browser sees it: whole
//! pictures in order, no gap in sequence numbers, and time that goes on.
//!
//! The other end is str0m's client side, so that all that we send is received by other code.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::batch::Route;
use media::fanout::{Fanout, FanoutEvent, SWITCH_TIMEOUT};
use media::packetise::packetise;
use media::peer::client::{Client, ClientFactory, ClientOutput};
use media::peer::{IceCredentials, PeerFactory};
use media::peers::{PeerTable, PeersOutput};
use media::{Codec, Frame, MediaKind, NtpTime, StreamId, ViewerId};

use crate::wire::{self, World as _, sent};

const VIEWER: ViewerId = ViewerId(7);
const MAIN: StreamId = StreamId(3);
const SUB: StreamId = StreamId(4);
const TICK: Duration = Duration::from_millis(1);
/// Both streams bring a picture every so many milliseconds, the sub stream in between.
const FRAME_MS: u64 = 50;

#[test]
fn main_to_sub_and_back_without_a_gap() {
    let mut world = World::new();
    world.join(MAIN);
    world.play(3_030);
    world.switch(SUB);
    world.play(5_000);
    world.switch(MAIN);
    world.play(5_000);

    world.assert_switched_to(&[SUB, MAIN]);
    let seen = world.streams_seen();
    assert_eq!(seen, [MAIN, SUB, MAIN], "it goes over once, and never back in between");
    world.assert_no_gap();
}

#[test]
fn what_was_lost_right_before_a_switch_comes_after_it() {
    let mut world = World::new();
    world.join(MAIN);
    // The sub stream began a moment ago: all of it is younger than what is lost.
    world.silence(SUB);
    world.play(2_000);
    world.is_losing = true;
    world.play(3 * FRAME_MS);
    world.is_losing = false;
    world.next.insert(SUB, 40_000);
    world.switch(SUB);
    world.play(3_000);

    world.assert_switched_to(&[SUB]);
    let main = world.viewer.pictures.iter().filter(|picture| picture.stream == MAIN);
    let indices: Vec<u64> = main.map(|picture| picture.index).collect();
    assert!(indices.windows(2).all(|pair| pair[1] == pair[0] + 1), "{indices:?}");
    let figures = world.fanout.figures();
    assert!(figures.repairs >= 10, "{figures:?}");
    assert_eq!(figures.repairs_missed, 0, "{figures:?}");
}

#[test]
fn a_hundred_switches_at_any_moment_leave_no_gap() {
    let mut world = World::new();
    world.join(MAIN);
    world.play(2_000);
    for round in 0..100 {
        world.switch(if round % 2 == 0 { SUB } else { MAIN });
        world.play(137 + round * 71 % 900);
    }
    world.play(3_000);
    world.assert_no_gap();
    assert!(world.streams_seen().len() > 20, "{:?}", world.streams_seen());
}

#[test]
fn the_cached_group_is_given_at_once_unless_the_next_keyframe_is_near() {
    let mut world = World::new();
    world.join(MAIN);
    // Keyframes come every 2 s; the group of half a second is no trifle.
    world.play(6_500);
    let asked_at = world.now;
    world.switch(SUB);
    world.run_until("the group", |world| world.streams_seen().last() == Some(&SUB));
    assert!(world.now - asked_at < Duration::from_millis(50), "{:?}", world.now - asked_at);
    world.play(900);

    // 0.6 s before the main stream's next keyframe.
    let asked_at = world.now;
    world.switch(MAIN);
    world.play(500);
    assert_eq!(world.streams_seen(), [MAIN, SUB], "it has a picture while it waits");
    world.play(200);
    assert_eq!(world.streams_seen(), [MAIN, SUB, MAIN]);
    let first = world.viewer.pictures.iter().rev().find(|picture| picture.keyframe).unwrap();
    assert!(first.published_at > asked_at, "it begins with the next keyframe");
    world.assert_no_gap();
}

#[test]
fn who_has_no_picture_gets_the_group_however_near_the_next_keyframe_is() {
    let mut world = World::new();
    world.join(MAIN);
    world.play(7_400);
    world.silence(MAIN);
    world.fanout.handle_interruption(MAIN);
    world.switch(SUB);
    world.play(50);
    assert_eq!(world.streams_seen(), [MAIN, SUB]);
    world.assert_no_gap();
}

#[test]
fn a_keyframe_that_is_late_is_not_waited_for() {
    let mut world = World::new();
    world.join(MAIN);
    world.keyframe_every.insert(SUB, 40);
    world.play(3_500);
    world.keyframe_every.insert(SUB, 1_000_000);
    world.switch(SUB);
    world.play(400);
    assert_eq!(world.streams_seen(), [MAIN], "it is expected within a second");
    world.play(1_200);
    assert_eq!(world.streams_seen(), [MAIN, SUB]);
    world.assert_no_gap();
}

#[test]
fn a_stream_that_brings_nothing_is_given_up_and_the_old_one_plays_on() {
    let mut world = World::new();
    world.silence(SUB);
    world.join(MAIN);
    world.play(1_000);
    world.switch(SUB);
    assert!(world.events.contains(&FanoutEvent::KeyframeWanted { stream: SUB }));
    world.play(SWITCH_TIMEOUT.as_millis() as u64 - 10);
    assert_eq!(world.switch_events(), []);
    world.play(20);
    let failed = FanoutEvent::SwitchFailed { viewer: VIEWER, stream: SUB };
    assert_eq!(world.switch_events(), [failed]);
    world.play(500);
    assert_eq!(world.streams_seen(), [MAIN]);
    world.assert_no_gap();
    world.leave();
}

#[test]
fn a_switch_can_be_taken_back() {
    let mut world = World::new();
    world.silence(SUB);
    world.join(MAIN);
    world.play(500);
    world.switch(SUB);
    world.switch(MAIN);
    world.assert_switched_to(&[MAIN]);
    world.play(11_000);
    world.assert_switched_to(&[MAIN]);
    world.assert_no_gap();
}

#[test]
fn who_leaves_on_the_way_leaves_nothing_behind() {
    let mut world = World::new();
    world.silence(SUB);
    world.join(MAIN);
    world.play(500);
    world.switch(SUB);
    world.leave();
    assert_eq!(world.fanout.next_timeout().filter(|at| *at > world.now + TICK * 100), None);
}

#[test]
fn large_pictures_are_finished_before_the_new_stream_begins() {
    let mut world = World::new();
    world.bytes.insert(MAIN, 150_000);
    world.join(MAIN);
    world.play(2_000);
    // Each picture of the main stream takes 10 ms to be paced out.
    for round in 0..8 {
        world.play_to(3 + round % 4);
        world.switch(SUB);
        world.play(400);
        world.switch(MAIN);
        world.play(2_300 + 50 * round);
    }
    world.assert_no_gap();
    assert!(world.streams_seen().len() > 8, "{:?}", world.streams_seen());
}

/// A picture that arrived whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Picture {
    stream: StreamId,
    index: u64,
    keyframe: bool,
    ticks: u64,
    published_at: Instant,
}

/// A client, and what it got.
struct Viewer {
    client: Client,
    offer: String,
    address: SocketAddr,
    pictures: Vec<Picture>,
    /// Sequence number of each RTP packet, by SSRC, in the order of arrival.
    packets: BTreeMap<u32, Vec<u16>>,
    sound_ssrc: Option<u32>,
    /// Timestamp of the newest picture of which a packet came, and whether its last one is missing.
    open_picture: (u32, bool),
    /// Timestamp of each packet of sound, and when it came.
    sounds: Vec<(u32, Instant)>,
    /// Datagrams on their way to the server.
    sent: Vec<Vec<u8>>,
}

impl Viewer {
    fn new(now: Instant) -> Self {
        let address = SocketAddr::from(([10, 0, 0, 2], 4_000));
        let (client, offer) = ClientFactory::new().unwrap().offer(address, now).unwrap();
        let (pictures, packets) = (Vec::new(), BTreeMap::new());
        let (sounds, sent) = (Vec::new(), Vec::new());
        let sound_ssrc = None;
        let open_picture = (0, false);
        Self { client, offer, address, pictures, packets, sound_ssrc, open_picture, sounds, sent }
    }

    fn poll(&mut self, published: &BTreeMap<(StreamId, u64), Instant>) {
        loop {
            match self.client.poll_output() {
                ClientOutput::Transmit { contents, .. } => self.sent.push(contents),
                ClientOutput::Media { kind: MediaKind::Video, data, ticks } => {
                    let (stream, index) = read_mark(&data);
                    let keyframe = data[4] & 31 == 7;
                    let published_at = published[&(stream, index)];
                    let picture = Picture { stream, index, keyframe, ticks, published_at };
                    self.pictures.push(picture);
                }
                ClientOutput::Media { kind: MediaKind::Audio, .. } | ClientOutput::Connected => {}
                ClientOutput::Closed | ClientOutput::Timeout(_) => return,
            }
        }
    }
}

/// The last slice of a picture says of which stream it is and which one. No byte is zero, so that
/// there is no start code in it.
fn mark(kind: u8, stream: StreamId, index: u64, bytes: usize) -> Bytes {
    let mut slice = vec![kind, 128 + stream.0 as u8];
    slice.extend((0..4).map(|digit| 1 + (index >> (6 * digit) & 63) as u8));
    slice.resize(bytes, 0x55);
    slice.into()
}

fn read_mark(annex_b: &[u8]) -> (StreamId, u64) {
    let slice = annex_b.windows(4).rposition(|window| window == [0, 0, 0, 1]).unwrap() + 4;
    let digits = annex_b[slice + 2..slice + 6].iter().rev();
    let index = digits.fold(0, |index, digit| index << 6 | u64::from(digit - 1));
    (StreamId(u32::from(annex_b[slice + 1] - 128)), index)
}

/// The media plane, one viewer, a camera with two streams, and a wire without loss or delay.
struct World {
    now: Instant,
    start: Instant,
    server: SocketAddr,
    table: PeerTable,
    fanout: Fanout,
    viewer: Viewer,
    events: Vec<FanoutEvent>,
    published: BTreeMap<(StreamId, u64), Instant>,
    /// The next picture of each stream that sends.
    next: BTreeMap<StreamId, u64>,
    keyframe_every: BTreeMap<StreamId, u64>,
    bytes: BTreeMap<StreamId, usize>,
    /// What is sent of pictures does not arrive.
    is_losing: bool,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn new() -> Self {
        let now = Instant::now();
        let server = SocketAddr::from(([10, 0, 0, 1], 8555));
        Self {
            now,
            start: now,
            server,
            table: PeerTable::new(PeerFactory::new(vec![server]).unwrap()),
            fanout: Fanout::new(),
            viewer: Viewer::new(now),
            events: Vec::new(),
            published: BTreeMap::new(),
            next: BTreeMap::from([(MAIN, 0), (SUB, 0)]),
            keyframe_every: BTreeMap::from([(MAIN, 40), (SUB, 40)]),
            bytes: BTreeMap::from([(MAIN, 8_000), (SUB, 7_000)]),
            is_losing: false,
        }
    }

    fn silence(&mut self, stream: StreamId) {
        self.next.remove(&stream);
    }

    fn switch(&mut self, stream: StreamId) {
        self.fanout.handle_switch(VIEWER, stream, self.now);
        self.drain_fanout();
    }

    fn leave(&mut self) {
        self.fanout.handle_detach(VIEWER, None);
        self.fanout.handle_stream_removed(MAIN);
        self.fanout.handle_stream_removed(SUB);
        self.drain_fanout();
        assert!(self.fanout.is_empty());
    }

    fn switch_events(&self) -> Vec<FanoutEvent> {
        let is_of_a_switch = |event: &&FanoutEvent| {
            matches!(event, FanoutEvent::Switched { .. } | FanoutEvent::SwitchFailed { .. })
        };
        self.events.iter().filter(is_of_a_switch).copied().collect()
    }

    fn assert_switched_to(&self, streams: &[StreamId]) {
        let to = |stream: &StreamId| FanoutEvent::Switched { viewer: VIEWER, stream: *stream };
        assert_eq!(self.switch_events(), streams.iter().map(to).collect::<Vec<_>>());
    }

    /// The streams in the order in which the viewer saw them.
    fn streams_seen(&self) -> Vec<StreamId> {
        let mut seen: Vec<_> = self.viewer.pictures.iter().map(|picture| picture.stream).collect();
        seen.dedup();
        seen
    }

    fn assert_no_gap(&self) {
        let pictures = &self.viewer.pictures;
        assert!(pictures[0].keyframe);
        for pair in pictures.windows(2) {
            let [before, after] = pair else { continue };
            assert!(after.ticks > before.ticks, "time runs back: {pair:?}");
            let follows = after.stream == before.stream && after.index == before.index + 1;
            let begins = after.stream != before.stream && after.keyframe;
            assert!(follows || begins, "a decoder cannot go on: {pair:?}");
        }
        for packets in self.viewer.packets.values() {
            for pair in packets.windows(2) {
                assert_eq!(pair[0].wrapping_add(1), pair[1], "a gap in sequence numbers");
            }
        }
        assert_eq!(self.viewer.packets.len(), 2, "picture and sound keep their SSRCs");
        assert_eq!(self.fanout.figures().seal_errors, 0);
        self.assert_time_goes_on();
        self.assert_sound_goes_on();
    }

    /// Sound is sent every 20 ms, and that is how far apart it is heard, but for the moment of a switch.
    fn assert_sound_goes_on(&self) {
        let sounds = &self.viewer.sounds;
        for pair in sounds.windows(2) {
            let [(before, at), (after, later)] = pair else { continue };
            let step = after.wrapping_sub(*before).cast_signed();
            let passed = (*later - *at).as_millis() as i32 * 48;
            assert!(step > 0 && (step - passed).abs() <= 48, "{step} ticks, {passed} passed");
        }
    }

    /// What a viewer sees live is shown at the distance at which it was sent, whatever it saw between.
    fn assert_time_goes_on(&self) {
        let last = self.viewer.pictures.last().unwrap();
        let is_live = |picture: &&Picture| picture.published_at >= self.start + TICK * 1_500;
        let Some(first) = self.viewer.pictures.iter().find(is_live) else { return };
        let passed = (last.published_at - first.published_at).as_millis() as i64;
        let shown = (last.ticks - first.ticks) as i64 / 90;
        assert!((passed - shown).abs() <= 100, "{shown} ms are shown, {passed} passed");
    }

    /// Picture `index` of a stream.
    fn publish(&mut self, stream: StreamId, index: u64) {
        let keyframe = index.is_multiple_of(self.keyframe_every[&stream]);
        let bytes = self.bytes[&stream];
        let units = if keyframe {
            let sets = [&[0x67, 66, 0xe0, 31, 1][..], &[0x68, 1, 2]];
            let sets = sets.map(Bytes::from_static).into_iter();
            sets.chain([mark(0x65, stream, index, 2 * bytes)]).collect()
        } else {
            vec![mark(0x41, stream, index, bytes)]
        };
        let elapsed = (self.now - self.start).as_micros() as u64;
        let frame = Frame {
            forwarded: None,
            codec: Codec::H264,
            // Two clocks that have nothing to do with each other.
            ticks: u64::from(stream.0) * 7_000_000_000 + index * FRAME_MS * 90,
            captured: NtpTime::from_unix_micros(1_700_000_000_000_000 + elapsed),
            keyframe,
            discontinuity: index == 0,
            units,
        };
        self.published.insert((stream, index), self.now);
        self.fanout.handle_frame(stream, Arc::new(packetise(&frame)), self.now);
        self.drain_fanout();
    }

    /// A packet of sound of each stream that sends.
    fn publish_sound(&mut self) {
        let elapsed = (self.now - self.start).as_micros() as u64;
        for stream in self.next.keys().copied().collect::<Vec<_>>() {
            let frame = Frame {
                forwarded: None,
                codec: Codec::Opus,
                ticks: u64::from(stream.0) * 5_000_000_000 + elapsed * 48 / 1_000,
                captured: NtpTime::from_unix_micros(1_700_000_000_000_000 + elapsed),
                keyframe: true,
                discontinuity: elapsed < 20_000,
                units: vec![Bytes::from_static(&[0xf8, 0xff, 0xfe])],
            };
            self.fanout.handle_frame(stream, Arc::new(packetise(&frame)), self.now);
            self.drain_fanout();
        }
    }

    fn join(&mut self, stream: StreamId) {
        self.step();
        let credentials = IceCredentials {
            ufrag: "Aabcdefgh".to_owned(),
            password: "abcdefghijklmnopqrstuvwxyz012345".to_owned(),
        };
        let offer = self.viewer.offer.clone();
        let answer = self.table.handle_offer(VIEWER, stream, &offer, &credentials, self.now);
        let answer = answer.unwrap();
        self.viewer.sound_ssrc = answer.negotiated.audio.map(|track| track.ssrc);
        self.viewer.client.handle_answer(&answer.sdp).unwrap();
        self.run_until("the first picture", |world| !world.viewer.pictures.is_empty());
    }

    fn play(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }

    /// Plays to a moment so many milliseconds behind a picture of the main stream.
    fn play_to(&mut self, ms: u64) {
        while (self.now - self.start).as_millis() as u64 % FRAME_MS != 1 + ms {
            self.step();
        }
    }

    fn drain_fanout(&mut self) {
        for (_, datagram) in sent(&mut self.fanout) {
            self.note_rtp(&datagram);
            let is_rtcp = (192..=223).contains(&datagram[1]);
            if is_rtcp || !self.is_losing {
                self.deliver(&datagram);
            }
        }
        self.events.extend(std::iter::from_fn(|| self.fanout.poll_event()));
    }

    /// An RTP header is in the clear (RFC 3711 §3.1).
    fn note_rtp(&mut self, datagram: &[u8]) {
        let is_rtcp = (192..=223).contains(&datagram[1]);
        if !is_rtcp {
            let word = |at: usize| u32::from_be_bytes(datagram[at..at + 4].try_into().unwrap());
            let sequence = u16::from_be_bytes([datagram[2], datagram[3]]);
            self.viewer.packets.entry(word(8)).or_default().push(sequence);
            if self.viewer.sound_ssrc != Some(word(8)) {
                let ends = datagram[1] & 128 != 0;
                let (begun, is_open) = self.viewer.open_picture;
                assert!(!is_open || begun == word(4), "half a picture was left behind");
                self.viewer.open_picture = (word(4), !ends);
            }
            if self.viewer.sound_ssrc == Some(word(8)) {
                self.viewer.sounds.push((word(4), self.now));
            }
        }
    }

    fn deliver(&mut self, packet: &[u8]) {
        self.viewer.client.handle_datagram(self.server, packet, self.now);
        self.viewer.poll(&self.published);
    }
}

impl wire::World for World {
    fn step(&mut self) {
        self.now += TICK;
        let ms = (self.now - self.start).as_millis() as u64;
        for (stream, offset) in [(MAIN, 1), (SUB, FRAME_MS / 2)] {
            if ms % FRAME_MS == offset
                && let Some(index) = self.next.get_mut(&stream)
            {
                *index += 1;
                let index = *index - 1;
                self.publish(stream, index);
            }
        }
        if ms.is_multiple_of(20) {
            self.publish_sound();
        }
        self.viewer.client.handle_timeout(self.now);
        self.viewer.poll(&self.published);
        for mut packet in std::mem::take(&mut self.viewer.sent) {
            let source = self.viewer.address;
            if (128..=191).contains(&packet[0]) {
                let route = Route::new(self.server, source);
                self.fanout.handle_rtcp(route, &mut packet, self.now);
            } else {
                self.table.handle_datagram(source, self.server, &packet, self.now);
            }
        }
        self.table.handle_timeout(self.now);
        while let Some(output) = self.table.poll_output() {
            match output {
                PeersOutput::Transmit { contents, .. } => self.deliver(&contents),
                PeersOutput::Attach(attach) => {
                    self.fanout.handle_attach(*attach, 0xfedc_ba98_7654, self.now);
                }
                PeersOutput::Closed { .. } => panic!("nobody closes it"),
                PeersOutput::PathProven { .. } | PeersOutput::PathForgotten { .. } => {}
                PeersOutput::Moved { .. } | PeersOutput::Alive { .. } => {}
            }
        }
        self.fanout.handle_timeout(self.now);
        self.drain_fanout();
    }
}

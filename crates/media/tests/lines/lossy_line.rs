//! A viewer behind a bad line in virtual time: what is lost is sent again, and a thin line is kept
//! to. The viewer is a complete WebRTC client on str0m, which asks, tells and reassembles by itself.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::batch::Route;
use media::fanout::Fanout;
use media::packetise::packetise;
use media::peer::client::{Client, ClientFactory, ClientOutput};
use media::peer::{IceCredentials, PeerFactory};
use media::peers::{PeerTable, PeersOutput};
use media::{Codec, Frame, MediaKind, NtpTime, StreamId, ViewerId};

use crate::wire::sent;

const VIEWER: ViewerId = ViewerId(7);
const STREAM: StreamId = StreamId(3);
const TICK: Duration = Duration::from_millis(1);
const FRAME_MS: u64 = 40;
/// Frames of a group.
const GROUP: u64 = 25;

#[test]
fn what_is_lost_comes_again_by_retransmission() {
    let mut world = World::new(|offer| offer);
    assert!(world.answer.contains("apt="), "{}", world.answer);
    world.line = Line { loss_percent: 10, delay: Duration::from_millis(40), ..Line::default() };
    world.everything_arrives();
}

#[test]
fn a_thin_line_is_found_by_transport_wide_feedback_and_kept_to() {
    let mut world = World::new(|offer| offer.replace("goog-remb", "goog-other"));
    assert!(world.answer.contains("transport-cc"), "{}", world.answer);
    world.play(100, 12_000);
    let free = world.fanout.figures();
    assert_eq!((free.frames_skipped, free.viewers_limited), (0, 0), "{free:?}");

    // Of 2.4 Mbit/s.
    world.line = Line { bytes_per_ms: Some(150), ..world.line };
    world.play(200, 12_000);
    let limited = world.fanout.figures();
    assert_eq!(limited.viewers_limited, 1, "{limited:?}");
    assert!(limited.frames_skipped > 0, "{limited:?}");
    for window in 0..3 {
        let before = world.frames.len();
        world.play(100, 12_000);
        assert!(world.frames.len() > before + 10, "window {window}: {}", world.frames.len());
        let waits = world.line_free_at.saturating_duration_since(world.now);
        assert!(waits < Duration::from_secs(1), "the line's queue is drained: {waits:?}");
    }

    world.line.bytes_per_ms = None;
    let seconds = world.seconds_until_all_arrive();
    assert!(seconds <= 10, "all of them again after {seconds} s");
}

#[test]
fn a_line_that_was_hardly_there_is_taken_for_good_again_within_half_a_minute() {
    let mut world = World::new(|offer| offer.replace("goog-remb", "goog-other"));
    world.play(100, 12_000);
    world.line = Line { bytes_per_ms: Some(50), ..world.line };
    world.play(500, 12_000);
    assert_eq!(world.fanout.figures().viewers_limited, 1, "{:?}", world.fanout.figures());

    // A longer way besides, which is no queue.
    world.line = Line { delay: Duration::from_millis(40), ..Line::default() };
    let seconds = world.seconds_until_all_arrive();
    assert!(seconds <= 30, "all of them again after {seconds} s");
}

/// What packets meet on their way to the viewer; those of the viewer are lost as well.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    loss_percent: u32,
    delay: Duration,
    /// With a queue without end before it.
    bytes_per_ms: Option<u64>,
}

/// The media plane, one viewer, and the line between them.
struct World {
    now: Instant,
    start: Instant,
    server: SocketAddr,
    address: SocketAddr,
    table: PeerTable,
    fanout: Fanout,
    client: Client,
    answer: String,
    line: Line,
    line_free_at: Instant,
    /// To the viewer, with the moment of arrival.
    under_way: VecDeque<(Instant, Vec<u8>)>,
    /// From it.
    coming_back: VecDeque<(Instant, Vec<u8>)>,
    random: u32,
    published: u64,
    /// The first payload byte of each picture that arrived whole.
    frames: Vec<u8>,
}

impl World {
    /// Connected over a good line.
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn new(change_offer: impl Fn(String) -> String) -> Self {
        let now = Instant::now();
        let server = SocketAddr::from(([10, 0, 0, 1], 8555));
        let address = SocketAddr::from(([10, 0, 0, 2], 4_000));
        let (mut client, offer) = ClientFactory::new().unwrap().offer(address, now).unwrap();
        let mut table = PeerTable::new(PeerFactory::new(vec![server]).unwrap());
        let credentials = IceCredentials {
            ufrag: "Aabcdefgh".to_owned(),
            password: "abcdefghijklmnopqrstuvwxyz012345".to_owned(),
        };
        let offer = change_offer(offer);
        let answer = table.handle_offer(VIEWER, STREAM, &offer, &credentials, now).unwrap().sdp;
        client.handle_answer(&answer).unwrap();
        let mut world = Self {
            now,
            start: now,
            server,
            address,
            table,
            fanout: Fanout::new(),
            client,
            answer,
            line: Line::default(),
            line_free_at: now,
            under_way: VecDeque::new(),
            coming_back: VecDeque::new(),
            random: 1,
            published: 0,
            frames: Vec::new(),
        };
        for _ in 0..5_000 {
            world.step();
            if world.fanout.figures().viewers == 1 {
                return world;
            }
        }
        panic!("not connected within 5 s");
    }

    /// Ten seconds of pictures and some time for the last repairs.
    fn everything_arrives(&mut self) {
        self.play(250, 6_000);
        self.line = Line { delay: self.line.delay, ..Line::default() };
        self.play(5, 6_000);
        (0..2_000).for_each(|_| self.step());

        let figures = self.fanout.figures();
        let expected: Vec<u8> = (0..self.published).map(|index| index as u8).collect();
        assert_eq!(self.frames, expected, "{figures:?}");
        assert!(figures.repairs > 100, "{figures:?}");
        assert_eq!((figures.seal_errors, figures.frames_skipped), (0, 0), "{figures:?}");
        assert!(
            figures.repairs + figures.repairs_refused + figures.repairs_missed == figures.nacks
        );
    }

    /// Plays until every frame of two seconds has come and nothing is held back.
    fn seconds_until_all_arrive(&mut self) -> u32 {
        let all_arrived = |seconds: &u32| {
            let before = self.frames.len();
            self.play(50, 12_000);
            *seconds >= 120
                || self.fanout.figures().viewers_limited == 0 && self.frames.len() >= before + 49
        };
        (2..=120).step_by(2).find(all_arrived).unwrap_or(120)
    }

    /// So many frames of so many bytes at their pace.
    fn play(&mut self, frames: u64, bytes: usize) {
        for _ in 0..frames {
            self.publish(bytes);
            (0..FRAME_MS).for_each(|_| self.step());
        }
    }

    fn publish(&mut self, bytes: usize) {
        let index = self.published;
        self.published += 1;
        let keyframe = index.is_multiple_of(GROUP);
        let slice = |kind: u8| Bytes::from([vec![kind], vec![index as u8; bytes]].concat());
        let parameters: [&[u8]; 2] = [&[0x67, 66, 0xe0, 31, 1], &[0x68, 1, 2]];
        let mut units: Vec<Bytes> = Vec::new();
        if keyframe {
            units.extend(parameters.map(Bytes::from_static));
        }
        units.push(slice(if keyframe { 0x65 } else { 0x41 }));
        let elapsed = (self.now - self.start).as_micros() as u64;
        let frame = Frame {
            forwarded: None,
            codec: Codec::H264,
            ticks: 1_000_000 + index * FRAME_MS * 90,
            captured: NtpTime::from_unix_micros(1_700_000_000_000_000 + elapsed),
            keyframe,
            discontinuity: false,
            units,
        };
        self.fanout.handle_frame(STREAM, Arc::new(packetise(&frame)), self.now);
        self.drain_fanout();
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now += TICK;
        self.client.handle_timeout(self.now);
        self.poll_client();
        while self.under_way.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, packet)) = self.under_way.pop_front() else { break };
            self.client.handle_datagram(self.server, &packet, self.now);
            self.poll_client();
        }
        while self.coming_back.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, mut packet)) = self.coming_back.pop_front() else { break };
            if (128..=191).contains(&packet[0]) {
                let route = Route::new(self.server, self.address);
                self.fanout.handle_rtcp(route, &mut packet, self.now);
            } else {
                self.table.handle_datagram(self.address, self.server, &packet, self.now);
            }
        }
        self.table.handle_timeout(self.now);
        self.drain_table();
        self.fanout.handle_timeout(self.now);
        self.drain_fanout();
    }

    fn poll_client(&mut self) {
        loop {
            match self.client.poll_output() {
                ClientOutput::Transmit { contents, .. } => {
                    if !self.is_lost() {
                        self.coming_back.push_back((self.now + self.line.delay, contents));
                    }
                }
                ClientOutput::Media { kind: MediaKind::Video, data, .. } => {
                    self.frames.push(data[data.len() - 1]);
                }
                ClientOutput::Media { kind: MediaKind::Audio, .. } | ClientOutput::Connected => {}
                ClientOutput::Closed => panic!("the viewer gave up"),
                ClientOutput::Timeout(_) => return,
            }
        }
    }

    fn drain_table(&mut self) {
        while let Some(output) = self.table.poll_output() {
            match output {
                PeersOutput::Transmit { contents, .. } => self.send(contents),
                PeersOutput::Attach(attach) => {
                    // Sequence numbers wrap within the test.
                    self.fanout.handle_attach(*attach, 0x7ff0_7ff0_0000_0001, self.now);
                }
                PeersOutput::Closed { reason, .. } => panic!("closed: {reason:?}"),
                PeersOutput::PathProven { .. }
                | PeersOutput::PathForgotten { .. }
                | PeersOutput::Moved { .. }
                | PeersOutput::Alive { .. } => {}
            }
        }
    }

    fn drain_fanout(&mut self) {
        for (_, datagram) in sent(&mut self.fanout) {
            self.send(datagram);
        }
        while self.fanout.poll_event().is_some() {}
    }

    fn send(&mut self, packet: Vec<u8>) {
        assert!(packet.len() <= 1_200, "{} bytes", packet.len());
        if self.is_lost() {
            return;
        }
        let begins = self.line_free_at.max(self.now);
        let takes = self.line.bytes_per_ms.map_or(Duration::ZERO, |bytes_per_ms| {
            Duration::from_micros(packet.len() as u64 * 1_000 / bytes_per_ms)
        });
        self.line_free_at = begins + takes;
        self.under_way.push_back((self.line_free_at + self.line.delay, packet));
    }

    fn is_lost(&mut self) -> bool {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.random >> 16) % 100 < self.line.loss_percent
    }
}

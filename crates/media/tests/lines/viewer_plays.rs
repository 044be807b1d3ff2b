//! A whole viewer against the media plane in virtual time: offer, ICE, DTLS, media, goodbye.
//! The viewer is a complete WebRTC client on str0m: all that we send is received by other code.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::batch::Route;
use media::fanout::{Fanout, FanoutEvent};
use media::packetise::packetise;
use media::peer::client::{Client, ClientFactory, ClientOutput};
use media::peer::{IceCredentials, OfferError, PeerFactory};
use media::peers::{CloseReason, PeerTable, PeersOutput};
use media::{Codec, Frame, MediaKind, NtpTime, StreamId, ViewerId};

use crate::wire::{self, World as _, sent, tell_place};

const VIEWER: ViewerId = ViewerId(7);
const STREAM: StreamId = StreamId(3);
const TICK: Duration = Duration::from_millis(1);

#[test]
fn a_late_joiner_gets_the_cached_group_and_then_live_frames() {
    let mut world = World::new();
    for index in 0..5 {
        world.publish(index);
    }
    let last_cached_at = world.published_at;
    world.join();
    world.run_until("first picture", |world| world.viewer.frames.len() >= 5);
    let keyframe = &world.viewer.frames[0];
    assert_eq!(keyframe.0[4] & 31, 7, "the group starts with the parameter sets");
    world.publish(5);
    world.run_until("live frame", |world| world.viewer.frames.len() >= 6);
    let times: Vec<u64> = world.viewer.frames.iter().map(|frame| frame.1).collect();
    let steps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(steps[..4], [90; 4], "cached frames are 1 ms apart");
    let waited = world.attached_at.unwrap() - last_cached_at;
    let live_step = 6_000 - waited.as_millis() as u64 * 90;
    assert_eq!(steps[4], live_step, "live ones come at their pace, less what the group had waited");
    assert_eq!(world.fanout.figures().seal_errors, 0);
    assert!(world.events.contains(&FanoutEvent::FirstMedia { viewer: VIEWER }));
}

#[test]
fn a_goodbye_of_the_viewer_ends_its_session() {
    let mut world = World::new();
    world.publish(0);
    world.join();
    world.run_until("picture", |world| !world.viewer.frames.is_empty());
    world.viewer.client.close();
    world.run_until("closed", |world| world.closed.is_some());
    assert_eq!(world.closed, Some(CloseReason::Peer));
    assert!(world.table.is_empty());
    world.fanout.handle_stream_removed(STREAM);
    assert!(world.fanout.is_empty());
}

#[test]
fn our_goodbye_reaches_the_viewer() {
    let mut world = World::new();
    world.publish(0);
    world.join();
    world.run_until("picture", |world| !world.viewer.frames.is_empty());
    world.table.handle_close(VIEWER, CloseReason::Asked, world.now);
    world.run_until("told", |world| world.viewer.closed && world.closed.is_some());
    assert_eq!(world.closed, Some(CloseReason::Asked));
}

#[test]
fn a_picture_loss_brings_the_group_again() {
    let mut world = World::new();
    world.publish(0);
    world.publish(1);
    world.join();
    world.run_until("picture", |world| world.viewer.frames.len() >= 2);
    for _ in 0..1_500 {
        world.step();
    }
    world.viewer.client.request_keyframe();
    world.run_until("group again", |world| world.viewer.frames.len() >= 4);
    assert_eq!(world.viewer.frames[2].0[4] & 31, 7);
    assert!(world.viewer.frames[2].1 > world.viewer.frames[1].1);
    assert_eq!(world.fanout.figures().keyframe_requests, 1);
}

#[test]
fn a_group_that_does_not_help_is_given_again_and_the_source_is_asked() {
    let mut world = World::new();
    world.publish(0);
    world.publish(1);
    world.join();
    world.run_until("picture", |world| world.viewer.frames.len() >= 2);
    assert_eq!(world.lose_picture(), 0, "the group may help");
    assert_eq!(world.viewer.frames.len(), 4);
    assert_eq!(world.lose_picture(), 1, "it did not");
    assert_eq!(
        world.viewer.frames.len(),
        6,
        "while the source has not answered it is all there is"
    );
    assert_eq!(world.lose_picture(), 2);
    // Another group may help where that one did not.
    world.publish(5);
    world.run_until("next group", |world| world.viewer.frames.len() >= 9);
    assert_eq!(world.lose_picture(), 2);
    assert_eq!(world.lose_picture(), 3);
    assert_eq!(world.fanout.figures().keyframe_requests, 5);
}

#[test]
fn a_hello_from_an_address_without_a_check_is_ignored() {
    let mut world = World::new();
    world.offer();
    let stranger = SocketAddr::from(([10, 9, 9, 9], 999));
    let hello = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0];
    let received = world.table.handle_datagram(stranger, world.server, &hello, world.now);
    assert_eq!(received, media::peer::Received::Dropped);
    assert!(world.table.poll_output().is_none());
}

#[test]
fn forged_packets_from_the_viewers_own_address_change_nothing() {
    let mut world = World::new();
    world.publish(0);
    world.join();
    // During the handshake as well as after it.
    for round in 0..=255 {
        for packet in forged(round) {
            world.table.handle_datagram(world.viewer.address, world.server, &packet, world.now);
            world.drain_table();
        }
        world.step();
    }
    world.run_until("picture", |world| !world.viewer.frames.is_empty());
    world.publish(1);
    world.run_until("next picture", |world| world.viewer.frames.len() >= 2);
    assert_eq!(world.closed, None);
}

/// What somebody can send who knows a viewer's address and nothing else.
fn forged(round: u8) -> Vec<Vec<u8>> {
    let record = |kind: u8, epoch: u8, body: &[u8]| {
        let mut record = vec![kind, 254, 253, 0, epoch, 0, 0, 0, 0, 9, round];
        record.extend((body.len() as u16).to_be_bytes());
        record.extend(body);
        record
    };
    let mut check = vec![0, 1, 0, 44, 0x21, 0x12, 0xa4, 0x42];
    check.extend([round; 12]);
    check.extend(b"\x00\x06\x00\x10Aabcdefgh:viewer");
    check.extend([0, 8, 0, 20]);
    check.extend([round; 20]);
    vec![
        record(21, 0, &[1, 0]),
        record(21, 1, &[1, 0]),
        record(21, 1, &[2, 40, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
        record(23, 1, &[round; 60]),
        record(20, 0, &[]),
        record(22, 1, &[round; 90]),
        record(25, 0, &[round; 3]),
        vec![22; usize::from(round) + 1],
        vec![63],
        vec![0],
        check,
    ]
}

#[test]
fn a_viewer_whose_certificate_is_not_the_offered_one_gets_nothing() {
    let mut world = World::new();
    world.publish(0);
    let at = world.viewer.offer.find("a=fingerprint:sha-256 ").unwrap() + 22;
    let other = if &world.viewer.offer[at..at + 2] == "00" { "11" } else { "00" };
    let original = world.viewer.offer[at..at + 95].to_owned();
    let forged = format!("{other}{}", &original[2..]);
    world.viewer.offer = world.viewer.offer.replace(&original, &forged);
    world.join();
    world.run_until("closed", |world| world.closed.is_some());
    assert_eq!(world.closed, Some(CloseReason::Handshake));
    assert!(world.viewer.frames.is_empty() && world.events.is_empty());
    assert_eq!(world.fanout.figures().packets_sent, 0);
}

#[test]
fn offers_that_cannot_be_answered_are_refused_with_a_reason() {
    let mut world = World::new();
    let mut theora_only = world.viewer.offer.clone();
    for codec in ["H264", "H265", "VP8", "VP9", "AV1"] {
        theora_only = theora_only.replace(&format!(" {codec}/90000"), " theora/90000");
    }
    let refused = world.try_offer(&theora_only);
    assert!(
        matches!(&refused, Err(OfferError::NoCommonCodec { offered }) if offered.contains("theora")),
        "{refused:?}"
    );
    let credentials = credentials();
    for garbage in ["", "v=0", "not sdp at all", "v=0\r\nm=video"] {
        let refused = world.table.handle_offer(VIEWER, STREAM, garbage, &credentials, world.now);
        let Err(OfferError::Malformed(why)) = refused else { panic!("{garbage:?}: {refused:?}") };
        assert!(!why.is_empty() && !why.contains('\n') && !why.contains("0x"), "{why:?}");
    }
    assert!(world.table.is_empty());
}

#[test]
fn frames_of_a_codec_that_the_viewer_does_not_take_are_counted_and_the_rest_plays() {
    let mut world = World::new();
    world.viewer.offer = world.viewer.offer.replace(" PCMA/8000", " X-PCMA/8000");
    world.join();
    world.publish(0);
    world.run_until("plays", |world| !world.viewer.frames.is_empty());
    let sent = world.fanout.figures().packets_sent;

    for (codec, not_taken) in [(Codec::Pcma, 1), (Codec::Opus, 1), (Codec::Pcma, 2)] {
        let sound = Frame {
            forwarded: None,
            codec,
            ticks: 8_000,
            captured: NtpTime::from_unix_micros(1_700_000_000_000_000),
            keyframe: true,
            discontinuity: false,
            units: vec![Bytes::from(vec![0xd5; 160])],
        };
        world.fanout.handle_frame(STREAM, Arc::new(packetise(&sound)), world.now);
        world.step();
        assert_eq!(world.fanout.figures().frames_not_taken, not_taken);
    }
    assert!(world.fanout.figures().packets_sent > sent, "what it takes is sent");
    let frames = world.viewer.frames.len();
    world.publish(5);
    world.run_until("plays on", |world| world.viewer.frames.len() > frames);
}

#[test]
fn h264_is_settled_in_packetization_mode_1_alone() {
    let mut world = World::new();
    assert!(world.viewer.offer.contains("packetization-mode=0"), "{}", world.viewer.offer);

    let answer = world.offer();
    assert!(answer.contains("packetization-mode=1"), "{answer}");
    assert!(!answer.contains("packetization-mode=0"), "{answer}");

    let mut world = World::new();
    let offer = world.viewer.offer.replace("packetization-mode=1", "packetization-mode=0");
    let answer = world.try_offer(&offer).unwrap();
    assert!(!answer.contains("H264/90000") && answer.contains("VP8/90000"), "{answer}");
}

#[test]
fn whoever_never_connects_is_forgotten() {
    let mut world = World::new();
    world.offer();
    world.now += media::peers::HANDSHAKE_TIMEOUT;
    world.table.handle_timeout(world.now);
    world.drain_table();
    assert_eq!(world.closed, Some(CloseReason::NeverConnected));
    assert!(world.table.is_empty());
}

/// A client, and the pictures that it got.
struct Viewer {
    client: Client,
    offer: String,
    address: SocketAddr,
    /// Annex B and RTP time of each picture.
    frames: Vec<(Vec<u8>, u64)>,
    closed: bool,
    /// Datagrams on their way to the server.
    sent: Vec<Vec<u8>>,
}

impl Viewer {
    fn new(now: Instant) -> Self {
        let address = SocketAddr::from(([10, 0, 0, 2], 4_000));
        let (client, offer) = ClientFactory::new().unwrap().offer(address, now).unwrap();
        let (frames, sent) = (Vec::new(), Vec::new());
        Self { client, offer, address, frames, closed: false, sent }
    }

    fn poll(&mut self) {
        loop {
            match self.client.poll_output() {
                ClientOutput::Transmit { contents, .. } => self.sent.push(contents),
                ClientOutput::Media { kind: MediaKind::Video, data, ticks } => {
                    self.frames.push((data, ticks));
                }
                ClientOutput::Media { kind: MediaKind::Audio, .. } | ClientOutput::Connected => {}
                ClientOutput::Closed => {
                    self.closed = true;
                    return;
                }
                ClientOutput::Timeout(_) => return,
            }
        }
    }
}

/// The media plane, one viewer, and a wire without loss or delay between them.
struct World {
    now: Instant,
    start: Instant,
    server: SocketAddr,
    table: PeerTable,
    fanout: Fanout,
    viewer: Viewer,
    events: Vec<FanoutEvent>,
    published_at: Instant,
    attached_at: Option<Instant>,
    closed: Option<CloseReason>,
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
            published_at: now,
            attached_at: None,
            closed: None,
        }
    }

    /// Frame `index` of a 15 fps camera; every fifth is a keyframe.
    fn publish(&mut self, index: u64) {
        let keyframe = index.is_multiple_of(5);
        let slice = |kind: u8| Bytes::from([vec![kind], vec![index as u8 + 1; 3_000]].concat());
        let units = if keyframe {
            vec![
                Bytes::from_static(&[0x67, 66, 0xe0, 31, 1]),
                Bytes::from_static(&[0x68, 1, 2]),
                slice(0x65),
            ]
        } else {
            vec![slice(0x41)]
        };
        let elapsed = (self.now - self.start).as_micros() as u64;
        let frame = Frame {
            forwarded: None,
            codec: Codec::H264,
            ticks: 1_000_000 + index * 6_000,
            captured: NtpTime::from_unix_micros(1_700_000_000_000_000 + elapsed),
            keyframe,
            discontinuity: false,
            units,
        };
        self.published_at = self.now;
        self.fanout.handle_frame(STREAM, Arc::new(packetise(&frame)), self.now);
        self.step();
    }

    fn try_offer(&mut self, offer: &str) -> Result<String, OfferError> {
        let answer = self.table.handle_offer(VIEWER, STREAM, offer, &credentials(), self.now)?;
        Ok(answer.sdp)
    }

    fn offer(&mut self) -> String {
        let offer = self.viewer.offer.clone();
        self.try_offer(&offer).unwrap()
    }

    fn join(&mut self) {
        let answer = self.offer();
        assert!(answer.contains("a=setup:passive") && answer.contains("a=ice-lite"), "{answer}");
        assert!(answer.contains("a=sendonly"), "{answer}");
        let values = |name: &str| -> BTreeSet<&str> {
            answer.lines().filter_map(|line| line.split_once(name)?.1.split(' ').next()).collect()
        };
        assert_eq!(values("cname:").len(), 1, "picture and sound share a clock: {answer}");
        assert_eq!(values("msid:").len(), 1, "picture and sound are one stream: {answer}");
        self.viewer.client.handle_answer(&answer).unwrap();
    }

    /// The viewer tells that it cannot decode, when a group may be given again, and gets what it can.
    /// Returns how often the source has been asked for a keyframe.
    fn lose_picture(&mut self) -> usize {
        for _ in 0..1_500 {
            self.step();
        }
        let shown = self.viewer.frames.len();
        self.viewer.client.request_keyframe();
        self.run_until("group again", |world| world.viewer.frames.len() > shown);
        for _ in 0..100 {
            self.step();
        }
        let wanted = FanoutEvent::KeyframeWanted { stream: STREAM };
        self.events.iter().filter(|event| **event == wanted).count()
    }

    fn drain_table(&mut self) {
        while let Some(output) = self.table.poll_output() {
            match output {
                PeersOutput::Transmit { contents, .. } => self.deliver(&contents),
                PeersOutput::Attach(attach) => {
                    self.attached_at = Some(self.now);
                    self.fanout.handle_attach(*attach, 0xfedc_ba98_7654, self.now);
                }
                PeersOutput::Closed { viewer, reason } => {
                    self.fanout.handle_detach(viewer, None);
                    assert_eq!(self.closed.replace(reason), None, "closed twice");
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
            self.deliver(&datagram);
        }
        self.events.extend(std::iter::from_fn(|| self.fanout.poll_event()));
    }

    fn deliver(&mut self, packet: &[u8]) {
        self.viewer.client.handle_datagram(self.server, packet, self.now);
        self.viewer.poll();
    }
}

impl wire::World for World {
    fn step(&mut self) {
        self.now += TICK;
        self.viewer.client.handle_timeout(self.now);
        self.viewer.poll();
        for mut packet in std::mem::take(&mut self.viewer.sent) {
            if (128..=191).contains(&packet[0]) {
                let route = Route::new(self.server, self.viewer.address);
                self.fanout.handle_rtcp(route, &mut packet, self.now);
            } else {
                let source = self.viewer.address;
                self.table.handle_datagram(source, self.server, &packet, self.now);
            }
        }
        self.table.handle_timeout(self.now);
        self.drain_table();
        self.fanout.handle_timeout(self.now);
        self.drain_fanout();
    }
}

fn credentials() -> IceCredentials {
    IceCredentials {
        ufrag: "Aabcdefgh".to_owned(),
        password: "abcdefghijklmnopqrstuvwxyz012345".to_owned(),
    }
}

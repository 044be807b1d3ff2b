//! Feedback of a viewer, sealed with its own keys: whatever it says, its neighbour loses nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{START, pieces};
use crate::batch::{Batch, Route};
use crate::fanout::Fanout;
use crate::frame::{Codec, Frame, MediaKind, NtpTime, StreamId, ViewerId};
use crate::negotiated::{Negotiated, Payload, Track};
use crate::packetise::packetise;
use crate::peer::SessionKeys;
use crate::peers::Attach;
use crate::rtcp::{Feedback, MAX_FEEDBACK_ENTRIES, MAX_LOST_ENTRIES, MAX_TRANSPORT_PACKETS, parse};
use crate::srtp::{SrtpProfile, SrtpSender};
use crate::viewer::MAX_PENDING_PACKETS;

const PROFILE: SrtpProfile = SrtpProfile::AeadAes128Gcm;
const STREAM: StreamId = StreamId(1);
const ATTACKER: u8 = 2;
const NEIGHBOUR: u8 = 3;
/// The attacker's picture; inputs name it. The neighbour's is one more.
const SSRC: u32 = 0x5000_0000;

/// A piece's manner: the packet comes as it is, not sealed with the attacker's keys.
const UNSEALED: u8 = 1;

/// Compound packets. Whatever they say is bounded, and the other viewer's stream has no gap.
pub fn rtcp(data: &[u8]) {
    let mut world = World::new();
    for (manner, packet) in pieces(data) {
        check_bounds(packet);
        world.deliver(packet, manner & UNSEALED == 0);
        world.step();
    }
    world.step();
    let figures = world.fanout.figures();
    assert_eq!(figures.seal_errors, 0);
    assert!(world.fanout.longest_queue() <= MAX_PENDING_PACKETS);
    assert_eq!(world.neighbour_packets, world.pictures, "the neighbour lost a packet");
}

fn check_bounds(packet: &[u8]) {
    let Ok(entries) = parse(packet) else { return };
    assert!(entries.len() <= MAX_FEEDBACK_ENTRIES);
    let (mut lost, mut arrived) = (0, 0);
    for entry in &entries {
        if let Feedback::Nack { lost: sequences, .. } = entry {
            lost += sequences.len();
        } else if let Feedback::Transport(feedback) = entry {
            arrived += feedback.arrivals.len();
        }
    }
    assert!(lost <= MAX_LOST_ENTRIES && arrived <= MAX_TRANSPORT_PACKETS);
}

struct World {
    fanout: Fanout,
    /// What the attacker seals with.
    sender: SrtpSender,
    now: Instant,
    /// Pictures sent, each of one packet.
    pictures: u64,
    neighbour_packets: u64,
    neighbour_sequence: Option<u16>,
}

impl World {
    fn new() -> Self {
        // Client key, server key, client salt, server salt: ours is the server's half, so that the
        // same with both halves exchanged sends as the client.
        let half = PROFILE.keying_material_len() / 2;
        let (key, salt) = (16, half - 16);
        let client = [vec![1; key], vec![2; key], vec![3; salt], vec![4; salt]].concat();
        let server = [vec![2; key], vec![1; key], vec![4; salt], vec![3; salt]].concat();
        let sender = SrtpSender::from_dtls_server(PROFILE, &server).expect("the lengths are right");
        let (mut fanout, now) = (Fanout::new(), *START);
        fanout.handle_attach(attach(ATTACKER, client.clone()), 7, now);
        fanout.handle_attach(attach(NEIGHBOUR, client), 7, now);
        let mut world = Self {
            fanout,
            sender,
            now,
            pictures: 0,
            neighbour_packets: 0,
            neighbour_sequence: None,
        };
        world.step();
        world
    }

    fn deliver(&mut self, packet: &[u8], sealed: bool) {
        let mut datagram = Vec::new();
        if !sealed || self.sender.protect_rtcp(packet, &mut datagram).is_err() {
            datagram = packet.to_vec();
        }
        self.fanout.handle_rtcp(route(ATTACKER), &mut datagram, self.now);
        // The same from the neighbour's address: it has other keys.
        let mut copy = datagram.clone();
        self.fanout.handle_rtcp(route(NEIGHBOUR), &mut copy, self.now);
    }

    /// A picture, and the time to the next one.
    fn step(&mut self) {
        let frame = Arc::new(packetise(&picture(self.pictures)));
        self.pictures += 1;
        self.fanout.handle_frame(STREAM, frame, self.now);
        for _ in 0..4 {
            self.fanout.handle_timeout(self.now);
            self.drain();
            self.now += Duration::from_millis(10);
        }
        while self.fanout.poll_event().is_some() {}
    }

    fn drain(&mut self) {
        let mut batch = Batch::default();
        loop {
            batch.clear();
            self.fanout.poll_transmit(&mut batch);
            if batch.is_empty() {
                return;
            }
            for run in batch.runs() {
                let bytes = &batch.bytes()[run.start..run.start + run.len];
                for packet in bytes.chunks(run.segment) {
                    self.look_at(run.route.destination, packet);
                }
            }
        }
    }

    fn look_at(&mut self, destination: SocketAddr, packet: &[u8]) {
        assert!([address(ATTACKER), address(NEIGHBOUR)].contains(&destination));
        let is_media = packet[1] & 0x7f == PAYLOAD_TYPE;
        if destination == address(NEIGHBOUR) && is_media {
            let sequence = u16::from_be_bytes([packet[2], packet[3]]);
            let expected = self.neighbour_sequence.map(|before| before.wrapping_add(1));
            assert!(expected.is_none_or(|expected| expected == sequence), "a gap in the sequence");
            self.neighbour_sequence = Some(sequence);
            self.neighbour_packets += 1;
        }
    }
}

const PAYLOAD_TYPE: u8 = 108;

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 4000))
}

fn route(host: u8) -> Route {
    Route::new(address(1), address(host))
}

fn attach(host: u8, mut material: Vec<u8>) -> Attach {
    // Each viewer has keys of its own.
    for byte in &mut material {
        *byte ^= (host - ATTACKER) << 4;
    }
    let payload = Payload {
        codec: Codec::H264,
        payload_type: PAYLOAD_TYPE,
        rtx: None,
        profile_level_id: Some([0x42, 0xe0, 31]),
    };
    let video = Track {
        kind: MediaKind::Video,
        ssrc: SSRC + u32::from(host - ATTACKER),
        rtx_ssrc: None,
        payloads: vec![payload],
        extension: None,
        red: None,
    };
    Attach {
        viewer: ViewerId(host.into()),
        stream: STREAM,
        route: route(host),
        keys: SessionKeys { profile: PROFILE, material },
        negotiated: Negotiated { video: Some(video), audio: None, cname: "manifold".to_owned() },
        handshake: Duration::ZERO,
    }
}

/// A keyframe every tenth time.
fn picture(number: u64) -> Frame {
    let keyframe = number.is_multiple_of(10);
    let kind = if keyframe { 0x65 } else { 0x41 };
    Frame {
        forwarded: None,
        codec: Codec::H264,
        ticks: number * 3_600,
        captured: NtpTime::from_unix_micros(1_700_000_000_000_000 + number * 40_000),
        keyframe,
        discontinuity: false,
        units: vec![Bytes::from(vec![kind; 200])],
    }
}

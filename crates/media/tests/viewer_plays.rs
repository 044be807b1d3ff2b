//! A whole viewer against the media plane in virtual time: offer, ICE, DTLS, media, goodbye.
//! The viewer is str0m as a full WebRTC client, an implementation of its own of all that we send.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::batch::Batch;
use media::fanout::{Fanout, FanoutEvent};
use media::packetise::packetise;
use media::peer::{IceCredentials, OfferError, PeerFactory};
use media::peers::{CloseReason, PeerTable, PeersOutput};
use media::{Codec, Frame, NtpTime, StreamId, ViewerId};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig};

const VIEWER: ViewerId = ViewerId(7);
const STREAM: StreamId = StreamId(3);
const TICK: Duration = Duration::from_millis(1);

#[test]
fn a_late_joiner_gets_the_cached_group_and_then_live_frames() {
    let mut world = World::new(|config| config);
    for index in 0..5 {
        world.publish(index);
    }
    world.join();
    world.run_until("first picture", |world| world.client.frames.len() >= 5);
    let keyframe = &world.client.frames[0];
    assert_eq!(keyframe.0[4] & 31, 7, "the group starts with the parameter sets");
    world.publish(5);
    world.run_until("live frame", |world| world.client.frames.len() >= 6);
    let times: Vec<u64> = world.client.frames.iter().map(|frame| frame.1).collect();
    let steps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(steps[..4], [90; 4], "cached frames are 1 ms apart");
    let waited = 6_000 - steps[4];
    assert!(waited < 900, "live ones come at their pace, the few ms apart that the group waited");
    assert_eq!(world.fanout.figures().seal_errors, 0);
    assert!(world.events.contains(&FanoutEvent::FirstMedia { viewer: VIEWER }));
}

#[test]
fn a_goodbye_of_the_viewer_ends_its_session() {
    let mut world = World::new(|config| config);
    world.publish(0);
    world.join();
    world.run_until("picture", |world| !world.client.frames.is_empty());
    world.client.rtc.close().unwrap();
    world.run_until("closed", |world| world.closed.is_some());
    assert_eq!(world.closed, Some(CloseReason::Peer));
    assert!(world.table.is_empty());
    world.fanout.handle_stream_removed(STREAM);
    assert!(world.fanout.is_empty());
}

#[test]
fn our_goodbye_reaches_the_viewer() {
    let mut world = World::new(|config| config);
    world.publish(0);
    world.join();
    world.run_until("picture", |world| !world.client.frames.is_empty());
    world.table.handle_close(VIEWER, CloseReason::Asked, world.now);
    world.run_until("told", |world| world.client.closed && world.closed.is_some());
    assert_eq!(world.closed, Some(CloseReason::Asked));
}

#[test]
fn a_picture_loss_brings_the_group_again() {
    let mut world = World::new(|config| config);
    world.publish(0);
    world.publish(1);
    world.join();
    world.run_until("picture", |world| world.client.frames.len() >= 2);
    for _ in 0..1_500 {
        world.step();
    }
    world.client.request_keyframe();
    world.run_until("group again", |world| world.client.frames.len() >= 4);
    assert_eq!(world.client.frames[2].0[4] & 31, 7);
    assert!(world.client.frames[2].1 > world.client.frames[1].1);
    assert_eq!(world.fanout.figures().keyframe_requests, 1);
}

#[test]
fn a_hello_from_an_address_without_a_check_is_ignored() {
    let mut world = World::new(|config| config);
    world.offer();
    let stranger = SocketAddr::from(([10, 9, 9, 9], 999));
    let hello = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0];
    let received = world.table.handle_datagram(stranger, world.server, &hello, world.now);
    assert_eq!(received, media::peer::Received::Dropped);
    assert!(world.table.poll_output().is_none());
}

#[test]
fn offers_that_cannot_be_answered_are_refused_with_a_reason() {
    let mut world =
        World::new(|config| config.clear_codecs().enable_vp8(true).enable_opus(true, false));
    assert_eq!(
        world.try_offer(),
        Err(OfferError::NoCommonCodec { offered: "VP8, rtx".to_owned() })
    );
    let credentials = credentials();
    for garbage in ["", "v=0", "not sdp at all", "v=0\r\nm=video"] {
        let refused = world.table.handle_offer(VIEWER, STREAM, garbage, &credentials, world.now);
        assert!(matches!(refused, Err(OfferError::Malformed(_))), "{garbage:?}: {refused:?}");
    }
    assert!(world.table.is_empty());
}

#[test]
fn whoever_never_connects_is_forgotten() {
    let mut world = World::new(|config| config);
    world.offer();
    world.now += media::peers::HANDSHAKE_TIMEOUT;
    world.table.handle_timeout(world.now);
    world.drain_table();
    assert_eq!(world.closed, Some(CloseReason::NeverConnected));
    assert!(world.table.is_empty());
}

/// A viewer: a full str0m client that collects the pictures it gets.
struct Client {
    rtc: Rtc,
    video: Mid,
    pending: Option<SdpPendingOffer>,
    offer: String,
    address: SocketAddr,
    /// Annex B and RTP time of each picture.
    frames: Vec<(Vec<u8>, u64)>,
    closed: bool,
    /// Datagrams on their way to the server.
    sent: Vec<Vec<u8>>,
}

impl Client {
    fn new(now: Instant, configure: impl FnOnce(RtcConfig) -> RtcConfig) -> Self {
        let config =
            RtcConfig::new().set_crypto_provider(Arc::new(str0m_aws_lc_rs::default_provider()));
        let mut rtc = configure(config).build(now);
        let address = SocketAddr::from(([10, 0, 0, 2], 4_000));
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        let mut change = rtc.sdp_api();
        let video = change.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        change.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        let (offer, pending) = change.apply().unwrap();
        let offer = offer.to_sdp_string();
        Self {
            rtc,
            video,
            pending: Some(pending),
            offer,
            address,
            frames: Vec::new(),
            closed: false,
            sent: Vec::new(),
        }
    }

    fn answer(&mut self, answer: &str) {
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        self.rtc.sdp_api().accept_answer(self.pending.take().unwrap(), answer).unwrap();
    }

    fn request_keyframe(&mut self) {
        let video = self.video;
        self.rtc.writer(video).unwrap().request_keyframe(None, KeyframeRequestKind::Pli).unwrap();
    }

    fn poll(&mut self) {
        while self.rtc.is_alive() {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => return,
                Output::Transmit(transmit) => {
                    self.sent.push(transmit.contents.to_vec());
                }
                Output::Event(Event::MediaData(data)) => {
                    self.frames.push((data.data.to_vec(), data.time.numer()));
                }
                Output::Event(Event::Closed) => self.closed = true,
                Output::Event(Event::IceConnectionStateChange(state)) => {
                    assert_ne!(state, IceConnectionState::Disconnected);
                }
                Output::Event(_) => {}
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
    client: Client,
    events: Vec<FanoutEvent>,
    closed: Option<CloseReason>,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn new(configure: impl FnOnce(RtcConfig) -> RtcConfig) -> Self {
        let now = Instant::now();
        let server = SocketAddr::from(([10, 0, 0, 1], 8555));
        Self {
            now,
            start: now,
            server,
            table: PeerTable::new(PeerFactory::new(vec![server]).unwrap()),
            fanout: Fanout::new(),
            client: Client::new(now, configure),
            events: Vec::new(),
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
            codec: Codec::H264,
            ticks: 1_000_000 + index * 6_000,
            captured: NtpTime::from_unix_micros(1_700_000_000_000_000 + elapsed),
            keyframe,
            discontinuity: false,
            units,
        };
        self.fanout.handle_frame(STREAM, Arc::new(packetise(&frame)), self.now);
        self.step();
    }

    fn try_offer(&mut self) -> Result<String, OfferError> {
        let offer = self.client.offer.clone();
        let answer = self.table.handle_offer(VIEWER, STREAM, &offer, &credentials(), self.now)?;
        Ok(answer.sdp)
    }

    fn offer(&mut self) -> String {
        self.try_offer().unwrap()
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
        self.client.answer(&answer);
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("not reached within 10 s of virtual time: {what}");
    }

    /// One millisecond: everything that is on the wire arrives.
    fn step(&mut self) {
        self.now += TICK;
        self.client.rtc.handle_input(Input::Timeout(self.now)).unwrap();
        self.client.poll();
        for mut packet in std::mem::take(&mut self.client.sent) {
            if (128..=191).contains(&packet[0]) {
                self.fanout.handle_rtcp(self.client.address, &mut packet, self.now);
            } else {
                let source = self.client.address;
                self.table.handle_datagram(source, self.server, &packet, self.now);
            }
        }
        self.table.handle_timeout(self.now);
        self.drain_table();
        self.fanout.handle_timeout(self.now);
        self.drain_fanout();
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
                    assert_eq!(self.closed.replace(reason), None, "closed twice");
                }
                PeersOutput::Moved { .. } | PeersOutput::Alive { .. } => {}
            }
        }
    }

    fn drain_fanout(&mut self) {
        let mut batch = Batch::default();
        loop {
            batch.clear();
            self.fanout.poll_transmit(&mut batch);
            if batch.is_empty() {
                break;
            }
            for run in batch.runs() {
                let bytes = &batch.bytes()[run.start..run.start + run.len];
                for datagram in bytes.chunks(run.segment) {
                    self.deliver(datagram);
                }
            }
        }
        self.events.extend(std::iter::from_fn(|| self.fanout.poll_event()));
    }

    fn deliver(&mut self, packet: &[u8]) {
        if !self.client.rtc.is_alive() {
            return;
        }
        let receive =
            Receive::new(Protocol::Udp, self.server, self.client.address, packet).unwrap();
        self.client.rtc.handle_input(Input::Receive(self.now, receive)).unwrap();
        self.client.poll();
    }
}

fn credentials() -> IceCredentials {
    IceCredentials {
        ufrag: "Aabcdefgh".to_owned(),
        password: "abcdefghijklmnopqrstuvwxyz012345".to_owned(),
    }
}

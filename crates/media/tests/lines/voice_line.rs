//! Somebody who speaks over a line that delays, loses and overtakes: what of it is passed on.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::peer::IceCredentials;
use media::peer::publisher::{Demand, PublisherFactory, SoundWishes};
use media::peer::pusher::{Pusher, PusherFactory, PusherOutput, Redundancy};
use media::publish::{Published, TrackOutput};
use media::publishers::{
    PublisherEnd, PublisherId, PublisherTable, PublishersOutput, VOICE_SILENCE_TIMEOUT,
};
use media::{AudioLevel, Codec, Frame, NtpTime, red};

const SPEAKER: PublisherId = PublisherId(3);
const TICK: Duration = Duration::from_millis(1);
const PACKET: Duration = Duration::from_millis(20);
const LEVEL: AudioLevel = AudioLevel { below_full: 23, voice: Some(true) };

#[test]
fn every_packet_leaves_in_the_moment_of_its_coming() {
    let mut world = World::new(Redundancy::OnePacket);
    world.connect();
    world.speak_for(Duration::from_secs(2));
    let sent = world.sent;
    assert_eq!((sent, world.heard.len() as u64), (100, sent));
    for (before, after) in world.heard.iter().zip(&world.heard[1..]) {
        assert_eq!(number(after), number(before) + 1);
        assert_eq!(after.ticks - before.ticks, 960);
    }
    for (index, published) in world.heard.iter().enumerate() {
        assert_eq!((published.codec, published.level), (Codec::Opus, Some(LEVEL)));
        assert_eq!(published.units, [payload(index as u64)]);
        let whole = published.forwarded.as_ref().unwrap().red.as_ref().unwrap();
        let blocks = red::blocks(whole).unwrap();
        let older: Vec<&Bytes> = blocks.iter().rev().skip(1).map(|block| &block.data).collect();
        let expected = (index > 0).then(|| payload(index as u64 - 1));
        assert_eq!(older, expected.iter().collect::<Vec<_>>(), "what came before it");
    }
    let figures = world.table.figures().voices.sum.tracks;
    assert_eq!((figures.packets, figures.frames, figures.lost, figures.late), (sent, sent, 0, 0));
}

#[test]
fn a_sender_without_redundancy_is_passed_on_as_well() {
    let mut world = World::new(Redundancy::None);
    world.connect();
    world.speak_for(Duration::from_secs(1));
    assert_eq!(world.heard.len(), 50);
    assert!(world.heard.iter().all(|one| one.forwarded.as_ref().unwrap().red.is_none()));
}

#[test]
fn a_late_packet_keeps_its_number_and_nothing_waits_for_it() {
    let mut world = World::new(Redundancy::None);
    world.connect();
    world.delays.insert(25, Duration::from_millis(90));
    world.speak_for(Duration::from_secs(1));
    let first = number(&world.heard[0]);
    let order: Vec<u64> = world.heard.iter().map(|one| number(one) - first).collect();
    let place = order.iter().position(|index| *index == 25).unwrap();
    assert_eq!(order[place - 1], 29, "four packets came meanwhile");
    assert_eq!(order.len(), 50);
    let late = &world.heard[place];
    assert_eq!(late.units, [payload(25)]);
    assert_eq!(late.ticks, world.heard[0].ticks + 25 * 960);
}

#[test]
fn what_is_lost_is_asked_for_and_what_comes_twice_is_heard_once() {
    let mut world = World::new(Redundancy::OnePacket);
    world.connect();
    world.loss_percent = 10;
    world.twice = true;
    world.speak_for(Duration::from_secs(10));
    world.loss_percent = 0;
    world.speak_for(Duration::from_secs(3));
    let heard: HashSet<u64> = world.heard.iter().map(number).collect();
    assert_eq!(heard.len(), world.heard.len(), "once each");
    let missing = world.sent - heard.len() as u64;
    assert!(missing > 20, "{missing}");
    let figures = world.table.figures().voices.sum;
    assert_eq!(figures.tracks.lost, missing);
    assert!(figures.nacks > 20, "{figures:?}");
    for published in &world.heard {
        let index = (published.ticks - world.heard[0].ticks) / 960;
        assert_eq!(published.units, [payload(index as u64)], "numbers and sound belong together");
    }
}

#[test]
fn silence_that_is_not_sent_ends_nothing_but_silence_of_the_line_does() {
    let mut world = World::new(Redundancy::None);
    world.connect();
    world.speak_for(Duration::from_secs(1));
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.closed, None, "checks come all the time");
    let resumed = world.heard.len();
    world.speak_for(Duration::from_secs(1));
    assert_eq!(number(&world.heard[resumed]), number(&world.heard[resumed - 1]) + 1);
    world.loss_percent = 100;
    world.run_for(VOICE_SILENCE_TIMEOUT - Duration::from_secs(4));
    assert_eq!(world.closed, None);
    world.run_for(Duration::from_secs(4));
    assert_eq!(world.closed, Some(PublisherEnd::Silent));
}

#[test]
fn a_goodbye_ends_it_at_once() {
    let mut world = World::new(Redundancy::None);
    world.connect();
    world.speak_for(Duration::from_secs(1));
    world.pusher.close();
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.closed, Some(PublisherEnd::Peer));
}

fn number(published: &Published) -> u64 {
    published.forwarded.as_ref().unwrap().number
}

/// What packet `index` carries.
fn payload(index: u64) -> Bytes {
    let mut payload = vec![0x78];
    payload.extend(index.to_be_bytes());
    payload.into()
}

/// Sound, and neither STUN, DTLS (RFC 7983 §7) nor SRTCP (RFC 5761 §4).
fn is_rtp(packet: &[u8]) -> bool {
    packet[0] >= 128 && !(192..=223).contains(&packet[1])
}

fn server_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8555))
}

fn pusher_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 4000))
}

#[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

struct World {
    now: Instant,
    start: Instant,
    table: PublisherTable,
    pusher: Pusher,
    connected: bool,
    /// Datagrams on their way to the server.
    to_server: Vec<(Instant, Vec<u8>)>,
    loss_percent: u64,
    random: u64,
    /// Each datagram arrives once more.
    twice: bool,
    /// Packets of sound that were not lost.
    carried: u64,
    /// How much later some of them come, counted from 0.
    delays: HashMap<u64, Duration>,
    sent: u64,
    heard: Vec<Published>,
    closed: Option<PublisherEnd>,
}

impl World {
    fn new(redundancy: Redundancy) -> Self {
        let now = start();
        let mut table = PublisherTable::new(PublisherFactory::new(vec![server_address()]).unwrap());
        let credentials =
            IceCredentials { ufrag: "gabcd".into(), password: "0123456789".repeat(3) };
        let wishes =
            SoundWishes { sample_rate: 16_000, channels: 1, packet_time: 20, fec: true, dtx: true };
        let pushers = PusherFactory::new().unwrap();
        let (mut pusher, offer) = pushers.offer_sound(pusher_address(), redundancy, now).unwrap();
        let answer = table.handle_sound_offer(SPEAKER, &offer, &credentials, &wishes, now).unwrap();
        assert_eq!(answer.contains("red/48000/2"), redundancy == Redundancy::OnePacket, "{answer}");
        pusher.handle_answer(&answer).unwrap();
        Self {
            now,
            start: now,
            table,
            pusher,
            connected: false,
            to_server: Vec::new(),
            loss_percent: 0,
            random: 1,
            twice: false,
            carried: 0,
            delays: HashMap::new(),
            sent: 0,
            heard: Vec::new(),
            closed: None,
        }
    }

    fn connect(&mut self) {
        self.run_for(Duration::from_secs(2));
        assert!(self.connected, "connected within 2 s");
        self.table.set_demand(SPEAKER, Demand::Wanted, self.now);
        self.start = self.now;
    }

    fn speak_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.send_packet();
            self.run_for(PACKET);
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += TICK;
        self.to_server.sort_by_key(|(at, _)| *at);
        let count = self.to_server.partition_point(|(at, _)| *at <= self.now);
        for (_, packet) in self.to_server.drain(..count).collect::<Vec<_>>() {
            let before = self.heard.len();
            self.table.handle_datagram(pusher_address(), server_address(), &packet, self.now);
            self.poll_table();
            let arrived = self.heard[before..].iter().all(|one| one.arrived == self.now);
            assert!(arrived && self.heard.len() <= before + 1, "at once and one by one");
        }
        self.pusher.handle_timeout(self.now);
        self.table.handle_timeout(self.now);
        self.poll_pusher();
        self.poll_table();
    }

    fn send_packet(&mut self) {
        let elapsed = (self.now - self.start).as_millis() as u64;
        let frame = Frame {
            forwarded: None,
            codec: Codec::Opus,
            ticks: elapsed * 48,
            captured: NtpTime::from_unix_micros(0),
            keyframe: true,
            discontinuity: false,
            units: vec![payload(self.sent)],
        };
        self.pusher.handle_sound(&frame, LEVEL, self.now).unwrap();
        self.sent += 1;
        self.poll_pusher();
    }

    fn poll_pusher(&mut self) {
        loop {
            match self.pusher.poll_output() {
                PusherOutput::Transmit { contents, .. } => self.carry(contents),
                PusherOutput::Connected => self.connected = true,
                PusherOutput::KeyframeWanted => panic!("a voice has no keyframes"),
                PusherOutput::Figures(..) => {}
                PusherOutput::Closed | PusherOutput::Timeout(_) => return,
            }
        }
    }

    fn carry(&mut self, contents: Vec<u8>) {
        // A linear congruential generator (Knuth's MMIX): runs repeat.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        if (self.random >> 33) % 100 < self.loss_percent {
            return;
        }
        let mut at = self.now + TICK;
        if is_rtp(&contents) {
            at += self.delays.remove(&self.carried).unwrap_or_default();
            self.carried += 1;
        }
        if self.twice {
            self.to_server.push((at + TICK * 5, contents.clone()));
        }
        self.to_server.push((at, contents));
    }

    fn poll_table(&mut self) {
        while let Some(output) = self.table.poll_output() {
            match output {
                PublishersOutput::Transmit { contents, .. } if self.loss_percent < 100 => {
                    self.pusher.handle_datagram(server_address(), &contents, self.now);
                    self.poll_pusher();
                }
                PublishersOutput::Track(_, TrackOutput::Frame(frame)) => self.heard.push(frame),
                PublishersOutput::Track(_, TrackOutput::KeyframeWanted) => panic!("of a voice"),
                PublishersOutput::Transmit { .. }
                | PublishersOutput::Address { .. }
                | PublishersOutput::Connected(_)
                | PublishersOutput::Track(_, _) => {}
                PublishersOutput::Closed { reason, .. } => {
                    assert_eq!(self.closed.replace(reason), None, "told once");
                }
            }
        }
    }
}

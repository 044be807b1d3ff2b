//! A whole publisher over a bad line in virtual time: offer, ICE, DTLS, packets lost, delayed and out
//! of order. The publisher is a complete WebRTC endpoint on str0m that answers NACK and PLI.
//!
//! What is asserted of every run: a picture that comes out is as it went in, and a decoder has the
//! one that it builds on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::batch::Remote;
use media::h264::{AccessUnit, Normaliser, split_annex_b};
use media::peer::publisher::{Demand, PublisherFactory};
use media::peer::pusher::{Pusher, PusherFactory, PusherOutput};
use media::peer::{IceCredentials, Received};
use media::publish::{Published, TrackOutput};
use media::publishers::{PublisherEnd, PublisherId, PublisherTable, PublishersOutput};
use media::stun::BindingRequest;
use media::{Codec, Frame, MediaKind, NtpTime};

const PUBLISHER: PublisherId = PublisherId(3);
const TICK: Duration = Duration::from_millis(1);
const PICTURE: Duration = Duration::from_millis(33);

#[test]
fn over_a_clean_line_every_picture_and_sound_comes_out_in_order() {
    let mut world = World::new(Line::default());
    world.connect();
    world.run_for(Duration::from_secs(5));

    let sent = world.pictures_sent;
    assert!(world.pictures.len() as u64 >= sent - 5, "{} of {sent}", world.pictures.len());
    assert!(world.sounds > 200);
    let figures = world.table.figures().cameras.sum;
    assert_eq!((figures.tracks.lost, figures.tracks.late), (0, 0));
    assert!(world.reports > 0, "sender reports tie the tracks together");
    world.assert_decodable();
}

#[test]
fn lost_packets_are_asked_for_and_come_again() {
    let line = Line { delay: 40, jitter: 8, loss_percent: 5, ..Line::default() };
    let mut world = World::new(line);
    world.connect();
    world.run_for(Duration::from_secs(10));

    let figures = world.table.figures().cameras.sum;
    let (sent, came) = (world.pictures_sent, world.pictures.len() as u64);
    // Without repairs one picture in seven would miss a packet, and half of all would wait for a
    // keyframe behind it. str0m sends no more than 15 % again, so that some holes stay.
    assert!(came * 100 >= sent * 75, "{came} of {sent} pictures: {figures:?}");
    assert!(figures.nacks > 0, "{figures:?}");
    assert!(figures.tracks.lost * 3 < world.lost_on_the_way * 2, "{figures:?}");
    world.assert_decodable();
}

#[test]
fn a_line_that_loses_a_fifth_still_shows_whole_pictures_alone() {
    let line = Line { delay: 40, jitter: 20, loss_percent: 20, ..Line::default() };
    let mut world = World::new(line);
    world.connect();
    world.run_for(Duration::from_secs(10));

    assert!(world.pictures.len() > 30, "{} pictures", world.pictures.len());
    world.assert_decodable();
}

#[test]
fn behind_an_outage_it_goes_on_at_a_keyframe_that_was_asked_for() {
    let mut world = World::new(Line { delay: 20, ..Line::default() });
    world.group = 10_000;
    world.connect();
    world.run_for(Duration::from_secs(2));
    let (before, asked) = (world.pictures.len(), world.table.figures().cameras.sum.keyframes_asked);

    world.line.loss_percent = 100;
    world.run_for(Duration::from_millis(1_500));
    world.line.loss_percent = 0;
    world.run_for(Duration::from_secs(3));

    let figures = world.table.figures().cameras.sum;
    assert!(world.pictures.len() > before + 30, "it goes on: {figures:?}");
    assert!(figures.tracks.lost > 0 && figures.keyframes_asked > asked, "{figures:?}");
    world.assert_decodable();
}

#[test]
fn nobody_wants_it_nothing_comes_out_and_the_first_picture_for_whom_does_is_a_keyframe() {
    let mut world = World::new(Line::default());
    world.group = 10_000;
    world.demand = Demand::Unwanted;
    world.connect();
    world.run_for(Duration::from_secs(1));
    assert!(world.pictures.is_empty() && world.sounds == 0);

    world.table.set_demand(PUBLISHER, Demand::Wanted, world.now);
    world.run_for(Duration::from_millis(500));

    assert!(world.pictures[0].keyframe, "asked for: groups last minutes here");
    world.assert_decodable();
}

#[test]
fn a_publisher_that_goes_silent_is_gone_and_leaves_nothing() {
    let mut world = World::new(Line::default());
    world.connect();
    world.run_for(Duration::from_secs(1));
    assert!(world.table.is_present(PUBLISHER, world.now));

    world.line.loss_percent = 100;
    world.run_for(Duration::from_secs(3));
    assert!(!world.table.is_present(PUBLISHER, world.now), "another may take its place");
    world.run_for(Duration::from_secs(8));

    assert_eq!(world.closed, Some(PublisherEnd::Silent));
    assert!(world.table.is_empty());
    assert!(world.addresses.is_empty(), "its addresses are nobody's");
}

#[test]
fn a_goodbye_ends_it_at_once() {
    let mut world = World::new(Line::default());
    world.connect();
    world.run_for(Duration::from_secs(1));
    world.pusher.close();
    world.run_for(Duration::from_millis(500));
    assert_eq!(world.closed, Some(PublisherEnd::Peer));
    assert!(world.table.is_empty());
}

#[test]
fn packets_of_others_change_nothing() {
    let mut world = World::new(Line::default());
    world.connect();
    world.run_for(Duration::from_secs(1));
    let before = world.pictures.len();
    for length in [0, 1, 2, 11, 12, 13, 100, 1_200, 2_000] {
        for first in [0, 1, 20, 22, 63, 127, 128, 144, 191, 200, 255] {
            let mut packet = vec![0xa5; length];
            if let Some(head) = packet.first_mut() {
                *head = first;
            }
            // As if from the publisher's own address, and from a stranger's.
            world.table.handle_datagram(pusher_address(), server_address(), &packet, world.now);
            let stranger = SocketAddr::from(([10, 9, 9, 9], 9));
            world.table.handle_datagram(stranger, server_address(), &packet, world.now);
        }
    }
    world.run_for(Duration::from_secs(1));
    assert!(world.closed.is_none() && world.pictures.len() > before + 20);
    world.assert_decodable();
}

#[test]
fn an_encoder_that_waits_for_our_hello_is_connected_too() {
    // FFmpeg's offers are passive.
    let mut world = World::with(Line::default(), |offer| offer.replace("actpass", "passive"));
    world.connect();
    world.run_for(Duration::from_secs(1));
    assert!(world.pictures.len() > 20);
    world.assert_decodable();
}

#[test]
fn an_ice_restart_interrupts_nothing_and_the_new_credentials_are_good() {
    let mut world = World::new(Line::default());
    world.connect();
    world.run_for(Duration::from_secs(1));
    let ours = IceCredentials { ufrag: "gnew0".into(), password: "abcdefghij".repeat(3) };
    let theirs = IceCredentials { ufrag: "theirs".into(), password: "9876543210".repeat(3) };
    let check = check("gnew0:theirs", &ours.password);
    let elsewhere = SocketAddr::from(([10, 0, 0, 3], 5000));
    let arrive = |world: &mut World| {
        world.table.handle_datagram(elsewhere, server_address(), &check, world.now)
    };
    assert_eq!(arrive(&mut world), Received::Dropped, "before there are such credentials");

    let lines = world.table.handle_restart(PUBLISHER, &ours, theirs.clone(), world.now).unwrap();

    assert!(lines.starts_with("a=candidate:1 1 udp "), "{lines}");
    let before = world.pictures.len();
    world.run_for(Duration::from_secs(1));
    assert!(world.pictures.len() > before + 20);
    assert_eq!(arrive(&mut world), Received::Authentic);
    world.poll_table();
    assert_eq!(world.addresses.len(), 2);
    let nobody = PublisherId(9);
    assert!(world.table.handle_restart(nobody, &ours, theirs, world.now).is_none());
    world.assert_decodable();
}

#[test]
fn an_offer_with_layers_gets_one_and_the_direction_is_ours_to_choose() {
    let offer = |offer: String| {
        let layers = "a=sendrecv\r\na=rid:hi send\r\na=rid:lo send\r\na=simulcast:send hi;lo";
        offer.replace("a=sendonly", layers)
    };
    let now = start();
    let factory = PublisherFactory::new(vec![server_address()]).unwrap();
    let (_, text) = PusherFactory::new().unwrap().offer(pusher_address(), now).unwrap();
    let (_, answer) = factory.answer(&offer(text), &credentials(), now).unwrap();
    assert!(answer.contains("a=recvonly") && !answer.contains("a=send"), "{answer}");
    assert!(!answer.contains("simulcast") && !answer.contains("a=rid"), "{answer}");
    assert!(answer.contains("H264") && !answer.contains("H265"), "{answer}");
}

#[test]
fn vp9_is_taken_in_the_profile_that_every_viewer_with_vp9_plays() {
    let chromium = include_str!("../../../../e2e/sdp/chromium.sdp");
    assert!(chromium.contains("profile-id=0") && chromium.contains("profile-id=2"), "{chromium}");
    let offer = chromium.replace("a=recvonly", "a=sendonly").replace(" H264/", " H26X/");
    let factory = PublisherFactory::new(vec![server_address()]).unwrap();
    let (_, answer) = factory.answer(&offer, &credentials(), start()).unwrap();
    assert!(answer.contains("VP9/90000") && answer.contains("VP8/90000"), "{answer}");
    assert!(answer.contains("profile-id=0") && !answer.contains("profile-id=2"), "{answer}");
}

fn server_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8555))
}

fn pusher_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 4000))
}

/// An authentic check that nominates.
fn check(username: &str, password: &str) -> Vec<u8> {
    let padded = username.len().next_multiple_of(4);
    let mut packet = vec![0, 1, 0, 28 + padded as u8, 0x21, 0x12, 0xa4, 0x42];
    packet.extend([7; 12]);
    packet.extend([0, 6, 0, username.len() as u8]);
    packet.extend(username.bytes());
    packet.resize(24 + padded, 0);
    packet.extend([0, 8, 0, 20]);
    packet.extend([0; 20]);
    BindingRequest::parse(&packet).unwrap().nominated(password)
}

fn credentials() -> IceCredentials {
    IceCredentials { ufrag: "gabcd".into(), password: "0123456789".repeat(3) }
}

#[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

/// What a line does to a datagram; times in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    delay: u64,
    /// Up to so much more, by chance: datagrams overtake each other.
    jitter: u64,
    loss_percent: u64,
    random: u64,
}

impl Line {
    /// A linear congruential generator (Knuth's MMIX): runs repeat.
    fn chance(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    /// How long one datagram takes; `None` when it is lost.
    fn take(&mut self) -> Option<Duration> {
        if self.chance(100) < self.loss_percent {
            return None;
        }
        let more = self.chance(self.jitter + 1);
        Some(Duration::from_millis(self.delay + more))
    }
}

struct World {
    now: Instant,
    line: Line,
    table: PublisherTable,
    pusher: Pusher,
    demand: Demand,
    to_server: Vec<(Instant, Vec<u8>)>,
    to_pusher: Vec<(Instant, Vec<u8>)>,
    stream: Vec<AccessUnit>,
    /// Pictures from one keyframe to the next, unless one is asked for.
    group: u64,
    in_group: u64,
    keyframe_wanted: bool,
    connected: bool,
    next_picture: Instant,
    next_sound: Instant,
    pictures_sent: u64,
    sounds_sent: u64,
    /// Datagrams of the publisher, repetitions included.
    lost_on_the_way: u64,
    pictures: Vec<Published>,
    sounds: u64,
    reports: u64,
    addresses: Vec<Remote>,
    closed: Option<PublisherEnd>,
}

impl World {
    fn new(line: Line) -> Self {
        Self::with(line, |offer| offer)
    }

    fn with(line: Line, change: impl FnOnce(String) -> String) -> Self {
        let now = start();
        let factory = PublisherFactory::new(vec![server_address()]).unwrap();
        let mut table = PublisherTable::new(factory);
        let (mut pusher, offer) =
            PusherFactory::new().unwrap().offer(pusher_address(), now).unwrap();
        let offer = change(offer);
        let answer = table.handle_offer(PUBLISHER, &offer, &credentials(), now).unwrap();
        assert!(answer.contains("a=recvonly") && !answer.contains("a=send"), "{answer}");
        pusher.handle_answer(&answer).unwrap();
        Self {
            now,
            line,
            table,
            pusher,
            demand: Demand::Wanted,
            to_server: Vec::new(),
            to_pusher: Vec::new(),
            stream: pictures(),
            group: 8,
            in_group: 0,
            keyframe_wanted: false,
            connected: false,
            next_picture: now,
            next_sound: now,
            pictures_sent: 0,
            sounds_sent: 0,
            lost_on_the_way: 0,
            pictures: Vec::new(),
            sounds: 0,
            reports: 0,
            addresses: Vec::new(),
            closed: None,
        }
    }

    /// Connects over a line without losses: a handshake's own repetition takes seconds.
    fn connect(&mut self) {
        let line = std::mem::take(&mut self.line);
        for _ in 0..5_000 {
            self.step();
            if self.connected && self.addresses.len() == 1 {
                break;
            }
        }
        assert!(self.connected, "connected within 5 s");
        self.line = line;
        self.table.set_demand(PUBLISHER, self.demand, self.now);
        (self.next_picture, self.next_sound) = (self.now, self.now);
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += TICK;
        if self.connected && self.now >= self.next_picture {
            self.next_picture += PICTURE;
            self.send_picture();
        }
        if self.connected && self.now >= self.next_sound {
            self.next_sound += Duration::from_millis(20);
            self.send_sound();
        }
        for packet in due(&mut self.to_server, self.now) {
            self.table.handle_datagram(pusher_address(), server_address(), &packet, self.now);
        }
        for packet in due(&mut self.to_pusher, self.now) {
            self.pusher.handle_datagram(server_address(), &packet, self.now);
        }
        self.pusher.handle_timeout(self.now);
        self.table.handle_timeout(self.now);
        self.poll_pusher();
        self.poll_table();
    }

    fn send_picture(&mut self) {
        if std::mem::take(&mut self.keyframe_wanted) || self.in_group >= self.group {
            self.in_group = 0;
        }
        // Behind its first ones a long group repeats a picture that refers to the one before it.
        let place = if self.in_group < 8 { self.in_group } else { 1 + self.in_group % 7 };
        let mut unit = self.stream[place as usize].clone();
        unit.keyframe = self.in_group == 0;
        let last = unit.units.pop().unwrap();
        unit.units.push(signed(&last, self.pictures_sent));
        let ticks = self.pictures_sent * 2_970;
        self.send(Codec::H264, ticks, unit.keyframe, unit.units);
        self.in_group += 1;
        self.pictures_sent += 1;
    }

    fn send_sound(&mut self) {
        let ticks = self.sounds_sent * 960;
        self.send(Codec::Opus, ticks, true, vec![Bytes::from(vec![0x78; 80])]);
        self.sounds_sent += 1;
    }

    fn send(&mut self, codec: Codec, ticks: u64, keyframe: bool, units: Vec<Bytes>) {
        let captured = NtpTime::from_unix_micros(0);
        let frame = Frame {
            forwarded: None,
            codec,
            ticks,
            captured,
            keyframe,
            discontinuity: false,
            units,
        };
        self.pusher.handle_frame(&frame, self.now).unwrap();
        self.poll_pusher();
    }

    fn poll_pusher(&mut self) {
        loop {
            match self.pusher.poll_output() {
                PusherOutput::Transmit { contents, .. } => match self.line.take() {
                    Some(way) => self.to_server.push((self.now + way, contents)),
                    None => self.lost_on_the_way += 1,
                },
                PusherOutput::Connected => self.connected = true,
                PusherOutput::KeyframeWanted => self.keyframe_wanted = true,
                PusherOutput::Figures(..) => {}
                PusherOutput::Closed => {
                    self.connected = false;
                    return;
                }
                PusherOutput::Timeout(_) => return,
            }
        }
    }

    fn poll_table(&mut self) {
        while let Some(output) = self.table.poll_output() {
            match output {
                PublishersOutput::Transmit { contents, .. } => {
                    if let Some(way) = self.line.take() {
                        self.to_pusher.push((self.now + way, contents));
                    }
                }
                PublishersOutput::Address { remote, claim } => match claim {
                    media::publishers::Claim::Taken | media::publishers::Claim::Proven => {
                        self.addresses.retain(|known| *known != remote);
                        self.addresses.push(remote);
                    }
                    media::publishers::Claim::Released => {
                        self.addresses.retain(|known| *known != remote);
                    }
                },
                PublishersOutput::Connected(_) => {}
                PublishersOutput::Track(_, TrackOutput::Frame(frame)) => match frame.codec.kind() {
                    MediaKind::Video => self.pictures.push(frame),
                    MediaKind::Audio => self.sounds += 1,
                },
                PublishersOutput::Track(_, TrackOutput::Report { .. }) => self.reports += 1,
                PublishersOutput::Track(_, _) => {}
                PublishersOutput::Closed { reason, .. } => {
                    assert_eq!(self.closed.replace(reason), None, "told once");
                }
            }
        }
    }

    /// Each picture is whole, and follows the one that it refers to.
    fn assert_decodable(&self) {
        let numbers: Vec<u64> =
            self.pictures.iter().map(|picture| number_of(picture.units.last().unwrap())).collect();
        assert!(self.pictures.first().is_some_and(|first| first.keyframe));
        for (index, picture) in self.pictures.iter().enumerate().skip(1) {
            assert!(numbers[index] > numbers[index - 1], "in order");
            let follows = numbers[index] == numbers[index - 1] + 1;
            assert!(follows || picture.keyframe, "picture {} builds on a lost one", numbers[index]);
            let step = picture.ticks - self.pictures[index - 1].ticks;
            assert_eq!(step, (numbers[index] - numbers[index - 1]) as i64 * 2_970);
        }
    }
}

/// Takes out what arrives by now, in the order of arrival.
fn due(line: &mut Vec<(Instant, Vec<u8>)>, now: Instant) -> Vec<Vec<u8>> {
    line.sort_by_key(|(at, _)| *at);
    let count = line.partition_point(|(at, _)| *at <= now);
    line.drain(..count).map(|(_, packet)| packet).collect()
}

/// A group of x264's pictures, see `h264_streams.rs`.
fn pictures() -> Vec<AccessUnit> {
    let stream: &'static [u8] = include_bytes!("data/high-no-b-frames.h264");
    let mut pictures: Vec<Vec<Bytes>> = Vec::new();
    for unit in split_annex_b(&Bytes::from_static(stream)) {
        // 9: the delimiter that begins each picture.
        if unit[0] & 31 == 9 {
            pictures.push(Vec::new());
        }
        pictures.last_mut().unwrap().push(unit);
    }
    let mut normaliser = Normaliser::default();
    let units =
        pictures.into_iter().filter_map(|units| normaliser.handle_access_unit(units).unwrap());
    units.take(8).collect()
}

/// The slice made long enough for several packets, with a number and a checksum at its end. No byte
/// below 128 is added, so that no start code comes about.
fn signed(slice: &Bytes, number: u64) -> Bytes {
    let mut long = slice.to_vec();
    long.resize(long.len() + 3_000, 0x80 | (number % 128) as u8);
    long.extend((0..8).map(|index| 0x80 | (number >> (7 * index)) as u8 & 0x7f));
    long.into()
}

/// The number of [`signed`], once its filling is found whole.
fn number_of(slice: &Bytes) -> u64 {
    let (body, tail) = slice.split_at(slice.len() - 8);
    let number = tail.iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f));
    let filling = &body[body.len() - 3_000..];
    assert!(filling.iter().all(|byte| *byte == 0x80 | (number % 128) as u8), "a broken picture");
    number
}

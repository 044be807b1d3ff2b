//! Receivers of a voice against the media plane in virtual time: our offer, their answer, ICE, DTLS and
//! sound that is passed on as it came. They set their connection up with str0m and open the media with
//! the keys of the other end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::batch::Route;
use media::fanout::{Fanout, FanoutEvent};
use media::packetise::packetise;
use media::peer::tapped_client::{TappedClient, TappedClientFactory, TappedOutput};
use media::peer::{AnswerError, IceCredentials, PeerFactory};
use media::peers::{CloseReason, PeerTable, PeersOutput};
use media::srtp::ReceivedSession;
use media::{Codec, Forwarded, Frame, NtpTime, StreamId, ViewerId};

use crate::wire::{self, World as _, sent, tell_place};

use proptest::prelude::*;

const VOICE: StreamId = StreamId(9);
const OTHER_VOICE: StreamId = StreamId(10);
const FIRST: ViewerId = ViewerId(1);
const SECOND: ViewerId = ViewerId(2);
const TICK: Duration = Duration::from_millis(1);
/// Of a packet of 20 ms.
const TICKS: u64 = 960;

#[test]
fn a_receiver_hears_the_next_packet_and_all_that_follow() {
    let mut world = World::new();
    let offer = world.offer(FIRST);
    for line in [
        "a=ice-lite",
        "a=setup:actpass",
        "a=sendonly",
        "a=end-of-candidates",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        "a=rtcp-fb:111 nack",
        "a=rtpmap:63 red/48000/2",
        "a=fmtp:63 111/111",
    ] {
        assert!(offer.lines().any(|other| other == line), "{line} is missing in {offer}");
    }
    assert!(offer.contains(" 10.0.0.1 8555 typ host"), "{offer}");
    let values = |name: &str| -> BTreeSet<&str> {
        offer.lines().filter_map(|line| line.split_once(name)?.1.split(' ').next()).collect()
    };
    assert_eq!((values("cname:").len(), values("msid:").len()), (1, 1), "{offer}");

    world.answer(FIRST, |answer| answer).unwrap();
    world.run_until("connected", |world| world.attached.contains(&FIRST));
    for number in 70_000..70_003 {
        world.speak(VOICE, packet(number));
    }
    let heard = world.heard(FIRST);
    assert_eq!(
        heard.iter().map(|sound| sound.payload.clone()).collect::<Vec<_>>(),
        [payload(70_000), payload(70_001), payload(70_002)]
    );
    assert!(heard.iter().all(|sound| sound.payload_type == 111));
    assert_eq!(steps(&heard), [(1, 960), (1, 960)]);
    assert!(world.events.contains(&FanoutEvent::FirstMedia { viewer: FIRST }));
    let is_for_pictures = |event: &FanoutEvent| matches!(event, FanoutEvent::KeyframeWanted { .. });
    assert!(!world.events.iter().any(is_for_pictures));
    assert_eq!(world.fanout.figures().seal_errors, 0);
}

#[test]
fn gaps_and_order_of_the_sender_reach_everybody_as_they_are() {
    let mut world = World::listening();
    // 13 is lost on its way to us, 12 overtaken, 15 comes twice, and 11 is too late by far.
    for number in [10, 14, 12, 15, 15, 16] {
        world.speak(VOICE, packet(number));
    }
    let late_by = 128;
    world.speak(VOICE, packet(11 + late_by));
    world.speak(VOICE, packet(11));
    for viewer in [FIRST, SECOND] {
        let heard = world.heard(viewer);
        let first = &heard[0];
        let places: Vec<_> =
            heard.iter().map(|sound| sound.sequence.wrapping_sub(first.sequence)).collect();
        assert_eq!(places, [0, 4, 2, 5, 6, 129]);
        for (sound, place) in heard.iter().zip(places) {
            assert_eq!(sound.payload, payload(10 + u64::from(place)));
            let ticks = sound.timestamp.wrapping_sub(first.timestamp);
            assert_eq!(ticks, u32::from(place) * 960);
            assert_eq!(sound.marker, place == 0, "a talkspurt begins where its sender says so");
        }
    }
    for _ in 0..1_100 {
        world.step();
    }
    let figures = world.fanout.figures();
    assert_eq!(figures.packets_too_late, 2 * 2, "one that came twice, one that came too late");
    assert_eq!(figures.seal_errors, 0);
}

#[test]
fn another_sender_and_another_stream_go_on_where_the_last_one_was() {
    let mut world = World::listening();
    world.speak(VOICE, packet(500));
    world.speak(VOICE, packet(501));
    // The sender begins anew, far behind and without a relation of its clocks.
    for number in [7, 9, 8] {
        let anew =
            Frame { discontinuity: number == 7, ticks: 5 + number * TICKS, ..packet(number) };
        world.speak(VOICE, anew);
    }
    // A packet of before that comes now has no place any more.
    world.speak(VOICE, packet(6));
    world.fanout.handle_switch(FIRST, OTHER_VOICE, world.now);
    assert_eq!(world.fanout.poll_event(), Some(switched(FIRST)));
    world.speak(VOICE, packet(10));
    world.speak(OTHER_VOICE, packet(1 << 40));
    world.speak(OTHER_VOICE, packet((1 << 40) + 1));

    let heard = world.heard(FIRST);
    let sequence: Vec<u16> =
        heard.iter().map(|sound| sound.sequence.wrapping_sub(heard[0].sequence)).collect();
    assert_eq!(sequence, [0, 1, 2, 4, 3, 5, 6]);
    let contents = [500, 501, 7, 9, 8, 1 << 40, (1 << 40) + 1].map(payload);
    assert_eq!(heard.iter().map(|sound| sound.payload.clone()).collect::<Vec<_>>(), contents);
    assert!(heard.windows(2).all(|pair| {
        let ahead = pair[1].timestamp.wrapping_sub(pair[0].timestamp).cast_signed();
        ahead > 0 || ahead == -960
    }));
    assert_eq!(world.heard(SECOND).len(), 6);
    assert_eq!(world.fanout.figures().seal_errors, 0);
}

fn switched(viewer: ViewerId) -> FanoutEvent {
    FanoutEvent::Switched { viewer, stream: OTHER_VOICE }
}

#[test]
fn redundancy_goes_to_those_who_take_it_under_their_payload_types() {
    let mut world = World::new();
    world.offer(FIRST);
    world.answer(FIRST, with_redundancy).unwrap();
    world.offer(SECOND);
    // An answer may call things otherwise than the offer.
    world.answer(SECOND, |answer| with_redundancy(answer).replace("111", "120")).unwrap();
    world.run_until("connected", |world| world.attached.len() == 2);
    // The sender calls Opus 96.
    let red = Bytes::from_static(&[0x80 | 96, 0x0f, 0x00, 0x02, 96, 1, 2, 3]);
    let mut frame = packet(1);
    frame.forwarded = Some(Forwarded { number: 1, marker: true, red: Some(red) });
    world.speak(VOICE, frame);
    world.speak(VOICE, packet(2));
    let first = world.heard(FIRST);
    assert_eq!(first[0].payload_type, 63);
    assert_eq!(first[0].payload, [0x80 | 111, 0x0f, 0x00, 0x02, 111, 1, 2, 3]);
    assert_eq!((first[1].payload_type, &first[1].payload), (111, &payload(2)));
    let second = world.heard(SECOND);
    assert_eq!((second[0].payload_type, &second[0].payload), (120, &payload(1)));
}

fn with_redundancy(answer: String) -> String {
    let answer = answer.replacen("SAVPF 111", "SAVPF 111 63", 1);
    answer + "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n"
}

#[test]
fn a_packet_that_is_asked_for_again_is_the_very_same() {
    let mut world = World::new();
    world.offer(FIRST);
    world.answer(FIRST, with_redundancy).unwrap();
    world.run_until("connected", |world| !world.attached.is_empty());
    let red = Bytes::from_static(&[0x80 | 111, 0x0f, 0x00, 0x02, 111, 1, 2, 3]);
    for number in [1, 2, 4, 3, 6] {
        let mut frame = packet(number);
        frame.forwarded = Some(Forwarded {
            number,
            marker: number == 4,
            red: (number % 2 == 0).then(|| red.clone()),
        });
        world.speak(VOICE, frame);
    }
    let sealed = world.receivers[&FIRST].sealed.clone();
    let sequence = |packet: &Vec<u8>| u16::from_be_bytes([packet[2], packet[3]]);
    let first = sequence(&sealed[0]);
    // All of them and the one that never came to us.
    world.feed_back(FIRST, |ssrc| words(&[0x81cd_0003, 1, ssrc, u32::from(first) << 16 | 0x1f]));
    world.step();
    let again = &world.receivers[&FIRST].sealed[sealed.len()..];
    let expected: Vec<Vec<u8>> = [0, 1, 3, 2, 4].map(|place| sealed[place].clone()).to_vec();
    assert_eq!(again, expected, "byte for byte");
    for _ in 0..1_100 {
        world.step();
    }
    let figures = world.fanout.figures();
    assert_eq!((figures.nacks, figures.repairs, figures.repairs_missed), (6, 5, 1));
}

#[test]
fn what_comes_before_the_answer_need_not_come_again() {
    let mut world = World::new();
    world.offer(FIRST);
    let answer = world.receivers[&FIRST].answer.clone();
    // Checks and a hello arrive while the answer is on its slower way.
    for _ in 0..100 {
        world.step();
    }
    let sent = world.receivers[&FIRST].handshake_packets;
    assert!(sent > 1, "it checks and says hello");
    assert!(world.attached.is_empty());
    let at = world.now;
    world.table.handle_answer(FIRST, &answer, world.now).unwrap();
    world.run_until("connected", |world| world.attached.contains(&FIRST));
    assert!(world.now - at <= Duration::from_millis(20), "{:?}", world.now - at);
}

#[test]
fn answers_to_nothing_and_second_answers_are_refused() {
    let mut world = World::new();
    let unknown = world.table.handle_answer(SECOND, "v=0", world.now);
    assert_eq!(unknown, Err(AnswerError::Over));
    world.offer(FIRST);
    let answer = world.receivers[&FIRST].answer.clone();
    assert_eq!(world.table.handle_answer(FIRST, &answer, world.now), Ok(()));
    assert_eq!(world.table.handle_answer(FIRST, &answer, world.now), Err(AnswerError::Over));
    world.run_until("connected", |world| world.attached.contains(&FIRST));
    assert_eq!(world.table.handle_answer(FIRST, &answer, world.now), Err(AnswerError::Over));
    world.table.handle_close(FIRST, CloseReason::Asked, world.now);
    assert_eq!(world.table.handle_answer(FIRST, &answer, world.now), Err(AnswerError::Over));
}

#[test]
fn an_offer_that_nobody_answers_is_given_up() {
    let mut world = World::new();
    world.offer(FIRST);
    world.now += media::peers::HANDSHAKE_TIMEOUT;
    world.table.handle_timeout(world.now);
    world.drain_table();
    assert_eq!(world.closed.get(&FIRST), Some(&CloseReason::NeverConnected));
    assert!(world.table.is_empty());
}

#[test]
fn one_who_leaves_leaves_nothing() {
    let mut world = World::listening();
    world.speak(VOICE, packet(1));
    world.receivers.get_mut(&FIRST).unwrap().client.close();
    world.run_until("closed", |world| world.closed.contains_key(&FIRST));
    world.table.handle_close(SECOND, CloseReason::Asked, world.now);
    world.run_until("closed", |world| world.closed.contains_key(&SECOND));
    assert_eq!(world.closed[&FIRST], CloseReason::Peer);
    // A voice that nobody hears leaves nothing either.
    world.speak(VOICE, packet(2));
    world.fanout.handle_stream_removed(VOICE);
    world.speak(VOICE, packet(3));
    assert!(world.fanout.is_empty() && world.table.is_empty());
}

#[test]
fn a_receiver_whose_certificate_is_not_the_answered_one_hears_nothing() {
    let mut world = World::new();
    world.offer(FIRST);
    let forged = |answer: String| {
        let at = answer.find("a=fingerprint:sha-256 ").unwrap() + 22;
        let other = if &answer[at..at + 2] == "00" { "11" } else { "00" };
        [&answer[..at], other, &answer[at + 2..]].concat()
    };
    world.answer(FIRST, forged).unwrap();
    world.run_until("closed", |world| world.closed.contains_key(&FIRST));
    assert_eq!(world.closed[&FIRST], CloseReason::Handshake);
    world.speak(VOICE, packet(1));
    assert!(world.attached.is_empty() && world.fanout.figures().packets_sent == 0);
}

#[test]
fn answers_of_no_use_are_refused_with_a_reason_and_the_offer_still_waits() {
    let mut world = World::new();
    world.offer(FIRST);
    let good = world.receivers[&FIRST].answer.clone();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} is not in {good}");
        good.replace(from, to)
    };
    for (answer, refusal) in [
        (with("a=setup:active", "a=setup:passive"), AnswerError::Passive),
        (with("m=audio 9", "m=audio 0"), AnswerError::NoSound),
        (with("a=recvonly", "a=inactive"), AnswerError::NoSound),
        (with("a=recvonly", "a=sendonly"), AnswerError::NoSound),
        (with("opus/48000", "speex/48000"), AnswerError::NoSound),
        (with("SAVPF 111", "SAVPF 0"), AnswerError::NoSound),
        (with("m=audio", "m=video"), AnswerError::NoSound),
        ("v=0\r\n".to_owned(), AnswerError::NoSound),
    ] {
        assert_eq!(world.table.handle_answer(FIRST, &answer, world.now), Err(refusal), "{answer}");
    }
    let line = |start: &str| good.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    for answer in [
        String::new(),
        "{}".to_owned(),
        format!("v=0\r\n{}", "a=x\r\n".repeat(100_000)),
        with("a=setup:active", "a=setup:actpass"),
        with("a=setup:active", "a=x"),
        with(&line("a=ice-ufrag"), "a=ice-ufrag:abc"),
        with(&line("a=ice-pwd"), "a=ice-pwd:short"),
        with(&line("a=ice-pwd"), &format!("a=ice-pwd:{}", "x".repeat(257))),
        with(&line("a=fingerprint"), "a=fingerprint:sha-256 00:11"),
        with(&line("a=fingerprint"), "a=fingerprint:md5 00:11"),
        with("a=setup:active", "a=setup:active\r\na=ice-lite"),
        with("m=audio", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nm=audio"),
    ] {
        let refused = world.table.handle_answer(FIRST, &answer, world.now);
        let Err(AnswerError::Malformed(why)) = refused else { panic!("{answer}: {refused:?}") };
        assert!(!why.is_empty() && !why.contains('\n'), "{why:?}");
    }
    world.answer(FIRST, |answer| answer).unwrap();
    world.run_until("connected", |world| world.attached.contains(&FIRST));
}

#[test]
fn feedback_that_is_for_pictures_or_forged_changes_nothing_for_anybody() {
    let mut world = World::listening();
    world.speak(VOICE, packet(1));
    for round in 0..500_u32 {
        for said in [
            // Picture loss, full intra requests, REMB of nothing, and numbers that were never sent.
            |ssrc, _| words(&[0x81ce_0002, 1, ssrc]),
            |ssrc, round: u32| words(&[0x84ce_0004, 1, 0, ssrc, round << 24]),
            |ssrc, _| words(&[0x8fce_0005, 1, 0, 0x5245_4d42, 0x0100_0000, ssrc]),
            |ssrc, round: u32| words(&[0x81cd_0003, 1, ssrc, round << 20 | 0xffff]),
            |ssrc, _| words(&[0x81c9_0007, 1, ssrc, 0xff7f_ffff, u32::MAX, 0, 0, 0]),
            |_, _| words(&[0x81c9_ffff, 1]),
        ] {
            world.feed_back(FIRST, |ssrc| said(ssrc, round));
        }
    }
    let (heard, address) = (world.heard(FIRST).len(), world.address(FIRST));
    assert!(heard <= 9, "the one packet, repeated as often as it may be: {heard}");
    for packet in [vec![0x80, 201, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0], vec![0x80; 1_400]] {
        let route = Route::new(world.server, address);
        assert!(world.fanout.handle_rtcp(route, &mut packet.clone(), world.now));
    }
    assert_eq!(world.fanout.figures().rejected, 2);
    for number in 2..52 {
        world.speak(VOICE, packet(number));
    }
    assert_eq!(world.heard(SECOND).len(), 51, "the neighbour hears all");
    assert_eq!(world.heard(FIRST).len(), heard + 50);
    let figures = world.fanout.figures();
    assert_eq!((figures.keyframe_requests, figures.seal_errors), (0, 0));
    assert_eq!(figures.frames_skipped, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever order and gaps a sender's packets come in, nothing is sealed twice under one number, and
    /// each number carries what its sender put under it.
    #[test]
    fn no_number_is_used_twice(
        numbers in prop::collection::vec(
            prop_oneof![4 => 1_000u64..1_200, 1 => 0u64..20_000, 1 => any::<u64>()],
            1..200,
        ),
        anew in prop::collection::btree_set(0usize..200, 0..4),
    ) {
        let mut world = World::listening();
        for (at, number) in numbers.iter().enumerate() {
            world.speak(VOICE, Frame { discontinuity: anew.contains(&at), ..packet(*number) });
        }
        let mut used = BTreeMap::new();
        for sound in world.heard(FIRST) {
            let before = used.insert(sound.index, sound.payload.clone());
            prop_assert_eq!(before, None, "index {} twice", sound.index);
        }
        prop_assert_eq!(world.fanout.figures().seal_errors, 0);
    }

    #[test]
    fn damaged_answers_change_nothing_but_themselves(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), ".{0,12}"), 1..6),
    ) {
        let mut world = World::new();
        world.offer(FIRST);
        let mut answer: Vec<char> = world.receivers[&FIRST].answer.chars().collect();
        for (at, text) in cuts {
            let at = at.index(answer.len());
            let end = (at + text.chars().count()).min(answer.len());
            answer.splice(at..end, text.chars());
        }
        let answer: String = answer.into_iter().collect();
        let taken = world.table.handle_answer(FIRST, &answer, world.now);
        for _ in 0..50 {
            world.step();
        }
        if taken.is_err() {
            world.answer(FIRST, |answer| answer).unwrap();
            world.run_until("connected", |world| world.attached.contains(&FIRST));
        }
    }
}

/// Packet `number` of a voice.
fn packet(number: u64) -> Frame {
    Frame {
        codec: Codec::Opus,
        ticks: (1 << 50) + (number % (1 << 32)) * TICKS,
        captured: NtpTime::from_unix_micros(1_700_000_000_000_000),
        keyframe: true,
        discontinuity: false,
        units: vec![payload(number).into()],
        forwarded: Some(Forwarded { number, marker: number.is_multiple_of(10), red: None }),
    }
}

fn payload(number: u64) -> Vec<u8> {
    [&[0x78][..], &number.to_be_bytes()].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// From each packet to the next: sequence number, ticks.
fn steps(heard: &[Sound]) -> Vec<(u16, u32)> {
    let step = |pair: &[Sound]| {
        let [before, after] = pair else { unreachable!("pairs") };
        let ticks = after.timestamp.wrapping_sub(before.timestamp);
        (after.sequence.wrapping_sub(before.sequence), ticks)
    };
    heard.windows(2).map(step).collect()
}

/// A packet that was opened.
#[derive(Debug, Clone)]
struct Sound {
    sequence: u16,
    /// The sequence number as it does not wrap.
    index: u64,
    timestamp: u32,
    marker: bool,
    payload_type: u8,
    payload: Vec<u8>,
}

struct Receiver {
    client: TappedClient,
    address: SocketAddr,
    answer: String,
    ssrc: u32,
    session: Option<ReceivedSession>,
    /// As they came.
    sealed: Vec<Vec<u8>>,
    sounds: Vec<Sound>,
    handshake_packets: usize,
}

impl Receiver {
    fn handle_media(&mut self, packet: &[u8]) {
        let Some(session) = &mut self.session else { return };
        let mut packet = packet.to_vec();
        if (192..=223).contains(&packet[1]) {
            session.open_rtcp(&mut packet).unwrap();
            return;
        }
        self.sealed.push(packet.clone());
        let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
        let (sequence, timestamp, ssrc) = (word(0) as u16, word(4), word(8));
        let (marker, payload_type) = (packet[1] & 0x80 != 0, packet[1] & 0x7f);
        assert_eq!(ssrc, self.ssrc);
        let payload = session.open_rtp(ssrc, sequence, 12, &mut packet).unwrap().to_vec();
        let highest = self.sounds.iter().map(|sound| sound.index).max();
        let index = highest.map_or(u64::from(sequence), |highest| {
            let ahead = sequence.wrapping_sub(highest as u16).cast_signed();
            highest.wrapping_add_signed(i64::from(ahead))
        });
        self.sounds.push(Sound { sequence, index, timestamp, marker, payload_type, payload });
    }
}

/// The media plane, receivers, and a wire without loss or delay between them.
struct World {
    now: Instant,
    server: SocketAddr,
    clients: TappedClientFactory,
    table: PeerTable,
    fanout: Fanout,
    receivers: BTreeMap<ViewerId, Receiver>,
    attached: BTreeSet<ViewerId>,
    closed: BTreeMap<ViewerId, CloseReason>,
    events: Vec<FanoutEvent>,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn new() -> Self {
        let server = SocketAddr::from(([10, 0, 0, 1], 8555));
        Self {
            now: Instant::now(),
            server,
            clients: TappedClientFactory::new().unwrap(),
            table: PeerTable::new(PeerFactory::new(vec![server]).unwrap()),
            fanout: Fanout::new(),
            receivers: BTreeMap::new(),
            attached: BTreeSet::new(),
            closed: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// Both receivers are there, and nobody has spoken.
    fn listening() -> Self {
        let mut world = Self::new();
        for viewer in [FIRST, SECOND] {
            world.offer(viewer);
            world.answer(viewer, |answer| answer).unwrap();
        }
        world.run_until("connected", |world| world.attached.len() == 2);
        world
    }

    fn offer(&mut self, viewer: ViewerId) -> String {
        let host = 1 + viewer.0 as u8;
        let address = SocketAddr::from(([10, 0, 0, host], 4_000));
        let credentials = IceCredentials {
            ufrag: format!("Areceiver{host}"),
            password: "abcdefghijklmnopqrstuvwxyz012345".to_owned(),
        };
        let offer = self.table.handle_receiver(viewer, VOICE, &credentials, self.now);
        let (client, answer) = self.clients.answer(&offer, address, self.now).unwrap();
        let ssrc = offer.lines().find_map(|line| line.strip_prefix("a=ssrc:")).unwrap();
        let ssrc = ssrc.split(' ').next().unwrap().parse().unwrap();
        let receiver = Receiver {
            client,
            address,
            answer,
            ssrc,
            session: None,
            sealed: Vec::new(),
            sounds: Vec::new(),
            handshake_packets: 0,
        };
        self.receivers.insert(viewer, receiver);
        offer
    }

    fn answer(
        &mut self,
        viewer: ViewerId,
        change: impl Fn(String) -> String,
    ) -> Result<(), AnswerError> {
        let answer = change(self.receivers[&viewer].answer.clone());
        let taken = self.table.handle_answer(viewer, &answer, self.now);
        self.drain_table();
        taken
    }

    fn address(&self, viewer: ViewerId) -> SocketAddr {
        self.receivers[&viewer].address
    }

    fn heard(&self, viewer: ViewerId) -> Vec<Sound> {
        self.receivers[&viewer].sounds.clone()
    }

    /// 20 ms later somebody's packet comes.
    fn speak(&mut self, stream: StreamId, frame: Frame) {
        self.now += Duration::from_millis(19);
        self.fanout.handle_frame(stream, Arc::new(packetise(&frame)), self.now);
        self.step();
    }

    /// A compound packet under a receiver's keys.
    fn feed_back(&mut self, viewer: ViewerId, compound: impl Fn(u32) -> Vec<u8>) {
        let receiver = self.receivers.get_mut(&viewer).unwrap();
        let mut packet = Vec::new();
        let session = receiver.session.as_mut().unwrap();
        session.seal_rtcp(&compound(receiver.ssrc), &mut packet).unwrap();
        let route = Route::new(self.server, receiver.address);
        assert!(self.fanout.handle_rtcp(route, &mut packet, self.now));
        self.drain_fanout();
    }

    /// What a receiver has to send.
    fn poll_client(&mut self, viewer: ViewerId) -> Vec<Vec<u8>> {
        let receiver = self.receivers.get_mut(&viewer).unwrap();
        let mut packets = Vec::new();
        loop {
            match receiver.client.poll_output() {
                TappedOutput::Transmit { contents, .. } => packets.push(contents),
                TappedOutput::Connected { keys, role } => {
                    let session = ReceivedSession::new(keys.profile, &keys.material, role);
                    receiver.session = Some(session.unwrap());
                }
                TappedOutput::Closed | TappedOutput::Timeout(_) => break,
            }
        }
        receiver.handshake_packets += packets.len();
        packets
    }

    fn drain_table(&mut self) {
        while let Some(output) = self.table.poll_output() {
            match output {
                PeersOutput::Transmit { route, contents } => {
                    self.deliver(route.destination, &contents);
                }
                PeersOutput::Attach(attach) => {
                    self.attached.insert(attach.viewer);
                    let seed = 0xffff_ffff_ffff_ffff >> attach.viewer.0;
                    self.fanout.handle_attach(*attach, seed, self.now);
                }
                PeersOutput::Closed { viewer, reason } => {
                    self.fanout.handle_detach(viewer, None);
                    assert_eq!(self.closed.insert(viewer, reason), None, "closed twice");
                }
                place @ (PeersOutput::PathProven { .. }
                | PeersOutput::PathForgotten { .. }
                | PeersOutput::Moved { .. }
                | PeersOutput::Alive { .. }) => tell_place(&mut self.fanout, place, self.now),
            }
        }
    }

    fn drain_fanout(&mut self) {
        for (destination, datagram) in sent(&mut self.fanout) {
            let mut receivers = self.receivers.values_mut();
            let receiver = receivers.find(|receiver| receiver.address == destination);
            receiver.unwrap().handle_media(&datagram);
        }
        self.events.extend(std::iter::from_fn(|| self.fanout.poll_event()));
    }

    /// STUN and DTLS.
    fn deliver(&mut self, destination: SocketAddr, packet: &[u8]) {
        let (server, now) = (self.server, self.now);
        let receiver =
            self.receivers.values_mut().find(|receiver| receiver.address == destination).unwrap();
        receiver.client.handle_datagram(server, packet, now);
    }
}

impl wire::World for World {
    fn step(&mut self) {
        self.now += TICK;
        let viewers: Vec<ViewerId> = self.receivers.keys().copied().collect();
        for viewer in viewers {
            self.receivers.get_mut(&viewer).unwrap().client.handle_timeout(self.now);
            for packet in self.poll_client(viewer) {
                self.table.handle_datagram(self.address(viewer), self.server, &packet, self.now);
            }
        }
        self.table.handle_timeout(self.now);
        self.drain_table();
        self.fanout.handle_timeout(self.now);
        self.drain_fanout();
    }
}

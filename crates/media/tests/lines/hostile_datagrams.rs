//! Datagrams that were made to harm: by strangers, under a viewer's address, and by a viewer with keys
//! of its own. Each is counted and dropped, and the viewer beside it gets every packet.
//!
//! Handshakes that are broken from the inside are in `hostile_handshakes`, forged DTLS in `viewer_plays`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::batch::Route;
use media::fanout::{Fanout, FanoutEvent};
use media::packetise::packetise;
use media::peer::client::{Client, ClientFactory, ClientOutput};
use media::peer::{IceCredentials, PeerFactory, Received, SessionKeys};
use media::peers::{PeerTable, PeersOutput};
use media::srtp::SrtpSender;
use media::{Codec, Frame, NtpTime, StreamId, ViewerId};

use crate::wire::sent;

const STREAM: StreamId = StreamId(1);
const ATTACKER: ViewerId = ViewerId(1);
const NEIGHBOUR: ViewerId = ViewerId(2);
const PASSWORD: &str = "server-password-of-32-characters";
const FRAME: Duration = Duration::from_millis(40);

#[test]
fn checks_without_integrity_are_not_answered() {
    let mut world = World::playing();
    let check = world.overheard(ATTACKER, |packet| packet[0] == 0);
    let answers = world.answers;
    for source in [world.address(ATTACKER), stranger()] {
        for packet in forged_checks(&check) {
            assert_eq!(world.deliver(source, &packet), Received::Dropped, "{packet:02x?}");
        }
    }
    assert_eq!(world.answers, answers, "nothing was sent to anybody");
    world.assert_all_play();
}

/// The integrity cut off, of another password, with a bit flipped; for nobody; an answer, an indication.
fn forged_checks(check: &[u8]) -> Vec<Vec<u8>> {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = check.to_vec();
        change(&mut packet);
        packet
    };
    let request = media::stun::BindingRequest::parse(check).unwrap();
    let tag_at = check.windows(4).position(|four| four == [0, 8, 0, 20]).unwrap();
    vec![
        with(&|packet| {
            packet.truncate(tag_at);
            let len = (packet.len() - 20) as u16;
            packet[2..4].copy_from_slice(&len.to_be_bytes());
        }),
        request.nominated("another-password-of-32-characters"),
        with(&|packet| packet[tag_at + 4] ^= 1),
        with(&|packet| packet[8] ^= 1),
        with(&|packet| {
            let at = packet.windows(7).position(|name| name == b"Aserver").unwrap();
            packet[at] = b'B';
        }),
        with(&|packet| packet[..2].copy_from_slice(&[1, 1])),
        with(&|packet| packet[..2].copy_from_slice(&[0, 0x11])),
        with(&|packet| packet.truncate(packet.len() - 1)),
        with(&|packet| packet.extend([0; 1_600])),
    ]
}

#[test]
fn a_viewers_own_datagrams_again_change_nothing() {
    let mut world = World::playing();
    // Long enough for reports.
    for _ in 0..50 {
        world.step();
    }
    let heard = world.heard[&ATTACKER].clone();
    let reports = heard.iter().filter(|packet| is_feedback(packet)).count() as u64;
    assert!(reports > 0 && heard.iter().any(|packet| packet[0] == 22));
    for packet in &heard {
        if is_feedback(packet) {
            world.feed_back(world.address(ATTACKER), packet);
        } else {
            world.deliver(world.address(ATTACKER), packet);
        }
    }
    assert_eq!(world.fanout.figures().rejected, reports);
    world.assert_all_play();
}

#[test]
fn feedback_that_is_forged_cut_or_replayed_is_counted_and_dropped() {
    let mut world = World::playing();
    let good = world.sealed(ATTACKER, &picture_loss(world.ssrc(ATTACKER)));
    let rejected = world.fanout.figures().rejected;
    let flipped = (0..good.len()).map(|at| {
        let mut packet = good.clone();
        packet[at] ^= 0x40;
        packet
    });
    let cut = (2..good.len()).map(|len| good[..len].to_vec());
    let forged: Vec<_> = flipped.chain(cut).chain([[&good[..], &[0; 60_000]].concat()]).collect();
    // A flipped first byte makes it something else than feedback.
    let feedback: Vec<_> = forged.iter().filter(|packet| is_feedback(packet)).collect();
    for packet in &feedback {
        world.feed_back(world.address(ATTACKER), packet);
    }
    let after_forged = world.fanout.figures();
    assert_eq!(after_forged.rejected - rejected, feedback.len() as u64);
    assert_eq!(after_forged.keyframe_requests, 0, "nothing of it was believed");

    world.feed_back(world.address(ATTACKER), &good);
    assert_eq!(world.fanout.figures().keyframe_requests, 1);
    for _ in 0..10 {
        world.feed_back(world.address(ATTACKER), &good);
    }
    let replayed = world.fanout.figures();
    assert_eq!((replayed.keyframe_requests, replayed.rejected - after_forged.rejected), (1, 10));
    // Under the neighbour's address the attacker's keys are worth nothing.
    let sealed = world.sealed(ATTACKER, &picture_loss(world.ssrc(NEIGHBOUR)));
    world.feed_back(world.address(NEIGHBOUR), &sealed);
    assert_eq!(world.fanout.figures().rejected, replayed.rejected + 1);
    assert!(!world.feed_back(stranger(), &sealed), "a stranger's is nobody's");
    world.assert_all_play();
}

#[test]
fn a_flood_of_authentic_feedback_costs_its_sender_and_nobody_else() {
    let mut world = World::playing();
    let (ssrc, before) = (world.ssrc(ATTACKER), world.packets(ATTACKER));
    let nack = words(&[0x81cd_0003, 1, ssrc, 0x0000_ffff]);
    let full_intra = words(&[0x84ce_0004, 1, 0, ssrc, 0x0100_0000]);
    for second in 0..3_u8 {
        for round in 0..1_000_u16 {
            let mut nack = nack.clone();
            nack[12..14].copy_from_slice(&(round * 16).to_be_bytes());
            for compound in [&nack, &picture_loss(ssrc), &full_intra] {
                let packet = world.sealed(ATTACKER, compound);
                world.feed_back(world.address(ATTACKER), &packet);
            }
            if round % 40 == 0 {
                world.step();
            }
        }
        assert!(world.fanout.longest_queue() <= media::viewer::MAX_PENDING_PACKETS, "{second}");
    }
    // Three seconds of pictures, and the cached group at most once a second: 25 of 2 packets each.
    let sent = world.packets(ATTACKER) - before;
    assert!(sent <= 3 * (25 + 2 * 25) * 2, "{sent} packets to the one who floods");
    world.assert_neighbour_plays();
}

#[test]
fn whatever_authentic_feedback_says_the_neighbour_plays_on() {
    let mut world = World::playing();
    let ssrc = world.ssrc(ATTACKER);
    let said = [
        // REMB of 0, of all bits, and one that is cut.
        words(&[0x8fce_0005, 1, 0, 0x5245_4d42, 0x0100_0000, ssrc]),
        words(&[0x8fce_0005, 1, 0, 0x5245_4d42, 0x01ff_ffff, ssrc]),
        words(&[0x8fce_0003, 1, 0, 0x5245_4d42]),
        // Lengths beyond the end, and padding of more than there is.
        words(&[0x81c9_ffff, 1, ssrc]),
        words(&[0x9fc9_0001, 1]),
        words(&[0xa1ce_0002, 1, 0xff]),
        // A report of more lost than sent, then of fewer than nothing.
        words(&[0x81c9_0007, 1, ssrc, 0xff7f_ffff, u32::MAX, u32::MAX, u32::MAX, u32::MAX]),
        words(&[0x81c9_0007, 1, ssrc, 0xff80_0000, 0, 0, 0, 0]),
        // Transport-wide feedback on more packets than it has room for.
        words(&[0xafcd_0005, 1, ssrc, 0x0001_ffff, 0x0000_0100, 0x3fff_ffff]),
        // Of the neighbour's streams.
        picture_loss(world.ssrc(NEIGHBOUR)),
        words(&[0x81cd_0003, 1, world.ssrc(NEIGHBOUR), 0x0000_ffff]),
    ];
    for compound in &said {
        let packet = world.sealed(ATTACKER, compound);
        assert!(world.feed_back(world.address(ATTACKER), &packet));
        world.step();
    }
    assert_eq!(world.fanout.figures().rejected, 0, "all of it was authentic");
    world.assert_neighbour_plays();
    while let Some(event) = world.fanout.poll_event() {
        assert!(!matches!(event, FanoutEvent::Goodbye { .. }), "nobody said goodbye");
    }
}

#[test]
fn dtls_of_no_length_and_of_too_much_changes_nothing() {
    let mut world = World::playing();
    let fragment = |total: u8, offset: u8, body: &[u8]| {
        let mut record = vec![22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9];
        record.extend((12 + body.len() as u16).to_be_bytes());
        record.extend([1, 0, 0, total, 0, 0, 0, 0, offset, 0, 0, body.len() as u8]);
        record.extend(body);
        record
    };
    let empty = fragment(200, 0, &[]);
    let packets = [
        empty.clone(),
        fragment(0, 0, &[]),
        fragment(200, 200, &[]),
        fragment(10, 250, &[1; 20]),
        empty.repeat(50),
        vec![22; 65_000],
        vec![22, 254, 253],
    ];
    for packet in packets {
        for source in [world.address(ATTACKER), world.address(NEIGHBOUR), stranger()] {
            for _ in 0..50 {
                world.deliver(source, &packet);
            }
        }
        world.step();
    }
    world.assert_all_play();
}

#[test]
fn ten_thousand_strangers_leave_nothing_behind() {
    let mut world = World::playing();
    let check = world.overheard(ATTACKER, |packet| packet[0] == 0);
    let forged = forged_checks(&check);
    let answers = world.answers;
    for number in 0..10_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let source = SocketAddr::from(([10, 8, high, low], 1));
        world.deliver(source, &forged[number as usize % forged.len()]);
        world.deliver(source, &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert!(!world.feed_back(source, &[0x80, 201, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]));
    }
    assert_eq!((world.table.len(), world.answers), (2, answers));
    world.assert_all_play();
}

/// Two viewers of one stream, and what they got.
struct World {
    now: Instant,
    server: SocketAddr,
    table: PeerTable,
    fanout: Fanout,
    viewers: BTreeMap<ViewerId, Viewer>,
    /// What each of them sent, oldest first.
    heard: BTreeMap<ViewerId, Vec<Vec<u8>>>,
    /// STUN and DTLS that the server sent.
    answers: u64,
    pictures: u64,
}

struct Viewer {
    client: Client,
    address: SocketAddr,
    feedback: Option<SrtpSender>,
    ssrc: u32,
    /// Sequence numbers of the picture's packets, as they were sent.
    sequence: Vec<u16>,
    pictures: usize,
}

impl World {
    /// Both play.
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn playing() -> Self {
        let server = SocketAddr::from(([10, 0, 0, 1], 8555));
        let mut world = Self {
            now: Instant::now(),
            server,
            table: PeerTable::new(PeerFactory::new(vec![server]).unwrap()),
            fanout: Fanout::new(),
            viewers: BTreeMap::new(),
            heard: BTreeMap::new(),
            answers: 0,
            pictures: 0,
        };
        let clients = ClientFactory::new().unwrap();
        for (viewer, host) in [(ATTACKER, 2), (NEIGHBOUR, 3)] {
            world.join(&clients, viewer, host);
        }
        for _ in 0..25 {
            world.step();
        }
        assert!(world.viewers.values().all(|viewer| viewer.pictures > 0), "both play");
        world
    }

    fn join(&mut self, clients: &ClientFactory, viewer: ViewerId, host: u8) {
        let address = SocketAddr::from(([10, 0, 0, host], 4_000));
        let (mut client, offer) = clients.offer(address, self.now).unwrap();
        let name = if viewer == ATTACKER { "Aserver" } else { "Aneighbour" };
        let credentials = IceCredentials { ufrag: name.to_owned(), password: PASSWORD.to_owned() };
        let answer =
            self.table.handle_offer(viewer, STREAM, &offer, &credentials, self.now).unwrap();
        client.handle_answer(&answer.sdp).unwrap();
        let ssrc = answer.negotiated.video.unwrap().ssrc;
        let (feedback, sequence) = (None, Vec::new());
        let state = Viewer { client, address, feedback, ssrc, sequence, pictures: 0 };
        self.viewers.insert(viewer, state);
    }

    fn address(&self, viewer: ViewerId) -> SocketAddr {
        self.viewers[&viewer].address
    }

    fn ssrc(&self, viewer: ViewerId) -> u32 {
        self.viewers[&viewer].ssrc
    }

    fn packets(&self, viewer: ViewerId) -> usize {
        self.viewers[&viewer].sequence.len()
    }

    /// The first datagram of a viewer that is such a one.
    fn overheard(&self, viewer: ViewerId, is_wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        self.heard[&viewer].iter().find(|packet| is_wanted(packet)).unwrap().clone()
    }

    /// A compound packet under a viewer's keys. Its own client counts its indices elsewhere: another SSRC.
    fn sealed(&mut self, viewer: ViewerId, compound: &[u8]) -> Vec<u8> {
        let feedback = self.viewers.get_mut(&viewer).unwrap().feedback.as_mut().unwrap();
        let mut packet = Vec::new();
        feedback.protect_rtcp(compound, &mut packet).unwrap();
        packet
    }

    /// STUN or DTLS.
    fn deliver(&mut self, source: SocketAddr, packet: &[u8]) -> Received {
        let received = self.table.handle_datagram(source, self.server, packet, self.now);
        self.drain_table();
        received
    }

    /// SRTCP; whether it came from somebody's address.
    fn feed_back(&mut self, source: SocketAddr, packet: &[u8]) -> bool {
        self.fanout.handle_rtcp(Route::new(self.server, source), &mut packet.to_vec(), self.now)
    }

    /// A picture of two packets, and the time to the next.
    fn step(&mut self) {
        let keyframe = self.pictures.is_multiple_of(25);
        let kind = if keyframe { 0x65 } else { 0x41 };
        let mut units = vec![Bytes::from(vec![kind; 1_500])];
        if keyframe {
            units.splice(
                0..0,
                [Bytes::from_static(SPS), Bytes::from_static(&[0x68, 0xce, 0x0f, 0xc8])],
            );
        }
        let frame = Frame {
            forwarded: None,
            codec: Codec::H264,
            ticks: self.pictures * 3_600,
            captured: NtpTime::from_unix_micros(1_700_000_000_000_000 + self.pictures * 40_000),
            keyframe,
            discontinuity: false,
            units,
        };
        self.pictures += 1;
        self.fanout.handle_frame(STREAM, Arc::new(packetise(&frame)), self.now);
        let end = self.now + FRAME;
        while self.now < end {
            self.flush();
            self.run_clients();
            self.now += Duration::from_millis(5);
            self.table.handle_timeout(self.now);
            self.drain_table();
            self.fanout.handle_timeout(self.now);
        }
        self.flush();
    }

    fn run_clients(&mut self) {
        for viewer in [ATTACKER, NEIGHBOUR] {
            self.viewers.get_mut(&viewer).unwrap().client.handle_timeout(self.now);
            for packet in self.sent_by(viewer) {
                self.heard.entry(viewer).or_default().push(packet.clone());
                let source = self.address(viewer);
                if is_feedback(&packet) {
                    self.feed_back(source, &packet);
                } else {
                    self.deliver(source, &packet);
                }
            }
        }
    }

    fn sent_by(&mut self, viewer: ViewerId) -> Vec<Vec<u8>> {
        let state = self.viewers.get_mut(&viewer).unwrap();
        let mut sent = Vec::new();
        loop {
            match state.client.poll_output() {
                ClientOutput::Transmit { contents, .. } => sent.push(contents),
                ClientOutput::Media { .. } => state.pictures += 1,
                ClientOutput::Connected => {}
                ClientOutput::Timeout(_) => return sent,
                ClientOutput::Closed => panic!("{viewer:?} was let go"),
            }
        }
    }

    fn drain_table(&mut self) {
        while let Some(output) = self.table.poll_output() {
            match output {
                PeersOutput::Transmit { route, contents } => {
                    self.answers += 1;
                    self.hand_over(route.destination, &contents);
                }
                PeersOutput::Attach(attach) => {
                    let state = self.viewers.get_mut(&attach.viewer).unwrap();
                    state.feedback = Some(client_end(&attach.keys));
                    self.fanout.handle_attach(*attach, 7, self.now);
                }
                PeersOutput::PathProven { viewer, route } => self.fanout.handle_path(viewer, route),
                PeersOutput::PathForgotten { viewer, route } => {
                    self.fanout.handle_path_forgotten(viewer, route);
                }
                PeersOutput::Moved { .. } | PeersOutput::Alive { .. } => {}
                PeersOutput::Closed { viewer, reason } => panic!("{viewer:?} closed: {reason:?}"),
            }
        }
    }

    fn flush(&mut self) {
        for (destination, packet) in sent(&mut self.fanout) {
            self.hand_over(destination, &packet);
        }
    }

    fn hand_over(&mut self, destination: SocketAddr, packet: &[u8]) {
        let (server, now) = (self.server, self.now);
        let found = self.viewers.values_mut().find(|viewer| viewer.address == destination);
        let viewer = found.unwrap_or_else(|| panic!("something was sent to {destination}"));
        if packet[0] >> 6 == 2 && packet[8..12] == viewer.ssrc.to_be_bytes() && !is_feedback(packet)
        {
            viewer.sequence.push(u16::from_be_bytes([packet[2], packet[3]]));
        }
        viewer.client.handle_datagram(server, packet, now);
    }

    fn assert_all_play(&mut self) {
        self.assert_plays(ATTACKER);
        self.assert_neighbour_plays();
    }

    fn assert_neighbour_plays(&mut self) {
        self.assert_plays(NEIGHBOUR);
        assert_eq!(self.fanout.figures().seal_errors, 0);
    }

    /// Nothing was left out from the first packet on, and what is sent from here on arrives.
    fn assert_plays(&mut self, viewer: ViewerId) {
        let before = self.viewers[&viewer].pictures;
        for _ in 0..10 {
            self.step();
        }
        let state = &self.viewers[&viewer];
        let is_gap = |pair: &&[u16]| pair[1] != pair[0].wrapping_add(1);
        assert_eq!(state.sequence.windows(2).find(is_gap), None, "a gap for {viewer:?}");
        let pictures = state.pictures - before;
        assert!(pictures >= 9, "{viewer:?} got {pictures} of 10 pictures");
    }
}

const SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x16, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0xc0, 0x44, 0, 0, 3, 0, 4, 0, 0, 3, 0,
    0x7a, 0x3c, 0x58, 0xba, 0x80,
];

/// What seals as the viewer does: its keys with the two ends exchanged, since they are those of a server.
fn client_end(keys: &SessionKeys) -> SrtpSender {
    let total = keys.material.len();
    let key = match keys.profile {
        media::srtp::SrtpProfile::AeadAes256Gcm => 32,
        media::srtp::SrtpProfile::AeadAes128Gcm | media::srtp::SrtpProfile::Aes128CmSha1_80 => 16,
    };
    let (material, salts) = (&keys.material, 2 * key);
    let salt = (total - salts) / 2;
    let exchanged = [
        &material[key..salts],
        &material[..key],
        &material[salts + salt..],
        &material[salts..salts + salt],
    ];
    SrtpSender::from_dtls_server(keys.profile, &exchanged.concat()).unwrap()
}

fn stranger() -> SocketAddr {
    SocketAddr::from(([10, 9, 9, 9], 999))
}

fn is_feedback(packet: &[u8]) -> bool {
    matches!(packet, [128..=191, 192..=223, ..])
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn picture_loss(ssrc: u32) -> Vec<u8> {
    words(&[0x81ce_0002, 1, ssrc])
}

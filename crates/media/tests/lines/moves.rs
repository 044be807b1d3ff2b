//! Viewers whose address changes, and others who would like a viewer's media to come to them.
//!
//! Two viewers sit behind one NAT: same address, two ports. A stranger sees all that they send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::batch::{Remote, Route};
use media::fanout::{Fanout, FanoutEvent};
use media::packetise::packetise;
use media::peer::client::{Client, ClientFactory, ClientOutput};
use media::peer::{IceCredentials, PeerFactory};
use media::peers::{CloseReason, PeerTable, PeersOutput};
use media::{Codec, Frame, NtpTime, StreamId, ViewerId};

use crate::wire::sent;

const STREAM: StreamId = StreamId(1);
const ANN: ViewerId = ViewerId(1);
const BOB: ViewerId = ViewerId(2);
const TICK: Duration = Duration::from_millis(20);

#[test]
fn a_viewer_behind_a_new_mapping_is_followed() {
    let mut world = World::playing();
    let there = address(5_001);
    world.viewers.get_mut(&ANN).unwrap().address = there;
    world.run(Duration::from_secs(8));
    assert_eq!(world.moved, [(ANN, there)]);
    let before = world.pictures();
    world.run(Duration::from_secs(2));
    let after = world.pictures();
    assert!(after[&ANN] > before[&ANN] + 20 && after[&BOB] > before[&BOB] + 20, "{after:?}");
    assert_eq!(world.fanout.figures().moves, 1);
}

#[test]
fn whoever_repeats_all_that_a_viewer_sends_gets_nothing() {
    let mut world = World::playing();
    // So long that of the first checks it is forgotten from where they came.
    world.run(Duration::from_secs(400));
    let heard = std::mem::take(&mut world.heard);
    let checks = heard.iter().filter(|(_, packet)| packet[0] < 4).count();
    assert!(checks > 2 * 64, "{checks} checks");
    let stranger = SocketAddr::from(([10, 6, 6, 6], 666));
    for (_, packet) in &heard {
        world.arrive(stranger, &mut packet.clone());
        world.drain();
    }
    world.step();
    let answers = world.astray.get(&stranger).copied().unwrap_or_default();
    assert_eq!(answers.media, 0, "no media, only answers to checks: {answers:?}");
    let before = world.pictures();
    world.run(Duration::from_secs(2));
    assert_eq!(world.astray.get(&stranger).copied().unwrap_or_default().media, 0);
    assert!(world.pictures()[&ANN] > before[&ANN] + 20);
    assert!(world.moved.is_empty() && world.closed.is_empty());
}

#[test]
fn whoever_holds_a_viewers_checks_back_and_sends_them_himself_gets_nothing() {
    let mut world = World::playing();
    world.is_held_back = true;
    world.run(Duration::from_secs(7));
    let held_back: Vec<_> =
        world.heard.iter().filter(|(_, packet)| packet[0] < 4).cloned().collect();
    let before = world.pictures();
    let stranger = SocketAddr::from(([10, 6, 6, 6], 666));
    for (_, packet) in &held_back {
        world.arrive(stranger, &mut packet.clone());
        world.drain();
    }
    world.is_held_back = false;
    world.run(Duration::from_secs(2));
    let answers = world.astray.get(&stranger).copied().unwrap_or_default();
    assert!(answers.answers > 0, "nothing tells them from new ones: {answers:?}");
    assert_eq!(answers.media, 0);
    assert!(world.pictures()[&ANN] > before[&ANN] + 20 && world.moved.is_empty());
}

#[test]
fn a_copy_from_the_neighbours_address_puts_nobody_out_of_it() {
    let mut world = World::playing();
    world.run(Duration::from_secs(400));
    let heard = std::mem::take(&mut world.heard);
    let bobs = world.viewers[&BOB].address;
    for (_, packet) in heard.iter().filter(|(viewer, _)| *viewer == ANN) {
        world.arrive(bobs, &mut packet.clone());
        world.drain();
    }
    let rejected = world.fanout.figures().rejected;
    let before = world.pictures();
    world.run(Duration::from_secs(3));
    assert_eq!(world.fanout.figures().rejected, rejected, "both are heard");
    let after = world.pictures();
    assert!(after[&ANN] > before[&ANN] + 20 && after[&BOB] > before[&BOB] + 20, "{after:?}");
    assert!(world.moved.is_empty(), "{:?}", world.moved);

    world.viewers.get_mut(&BOB).unwrap().client.close();
    world.run(Duration::from_secs(1));
    assert_eq!(world.closed, [(BOB, CloseReason::Peer)], "his goodbye is understood as his");
}

#[test]
fn a_crowd_of_forged_checks_puts_nobody_out_of_its_address() {
    let mut world = World::new();
    let (victim, port) = (ViewerId(90), 4_090);
    let crowd: Vec<_> = (0..6).map(|number| ViewerId(10 + number)).collect();
    for id in &crowd {
        world.join(*id, 5_000 + id.0 as u16);
    }
    world.run(Duration::from_secs(2));
    world.join(victim, port);
    world.run(Duration::from_secs(2));
    let there = world.viewers[&victim].address;
    let rejected = world.fanout.figures().rejected;
    let before = world.pictures();
    // Their checks come from the victim's address, and all else from their own.
    for id in &crowd {
        world.viewers.get_mut(id).unwrap().checks_from = Some(there);
    }
    world.run(Duration::from_secs(10));
    assert_eq!(world.fanout.figures().rejected, rejected, "its reports are understood as its own");
    assert!(world.pictures()[&victim] > before[&victim] + 200);
    world.viewers.get_mut(&victim).unwrap().client.close();
    world.run(Duration::from_secs(1));
    assert_eq!(world.closed, [(victim, CloseReason::Peer)], "and its goodbye");
}

#[test]
fn a_path_that_was_forgotten_while_in_use_goes_when_it_is_left() {
    let mut world = World::playing();
    let [old, new] = [world.viewers[&ANN].address, address(5_001)];
    let [before, after] = [old, new].map(|remote| Route::new(world.server, remote));
    let is_known = |world: &mut World, route| {
        world.fanout.handle_rtcp(route, &mut [128, 201, 0, 1, 0, 0, 0, 1], world.now)
    };
    world.fanout.handle_path_forgotten(ANN, before);
    assert!(is_known(&mut world, before), "media goes there still");
    world.fanout.handle_move(ANN, after, world.now);
    assert!(is_known(&mut world, after) && !is_known(&mut world, before));
}

#[test]
fn a_handshake_goes_on_while_its_first_check_is_repeated_from_elsewhere() {
    let mut world = World::new();
    let stranger = SocketAddr::from(([10, 6, 6, 6], 666));
    let answers = world.join(ANN, 4_001);
    assert!(answers.contains("a=ice-lite"));
    for _ in 0..50 {
        let copies = std::mem::take(&mut world.heard);
        for (_, packet) in &copies {
            world.arrive(stranger, &mut packet.clone());
        }
        world.drain();
        world.step();
    }
    assert!(world.viewers[&ANN].pictures > 0);
    assert!(!world.astray.contains_key(&stranger), "{:?}", world.astray);
}

#[test]
fn a_congested_connection_costs_its_viewer_whole_frames_and_nobody_else() {
    let mut world = World::playing();
    let anns = Remote::from(world.viewers[&ANN].address);
    let before = world.pictures();
    world.fanout.handle_congestion(anns, world.now);
    world.run(Duration::from_secs(3));
    let congested = world.pictures();
    assert_eq!(congested[&ANN], before[&ANN], "nothing more is put into its queue");
    assert!(congested[&BOB] > before[&BOB] + 60);
    // The one report step that counts what viewers skipped.
    let skipped = world.fanout.figures().frames_skipped;
    assert!((25..=75).contains(&skipped), "{skipped} pictures of 75 skipped");
    assert!(world.fanout.longest_queue() < 10);

    world.fanout.handle_drained(anns, world.now);
    world.run(Duration::from_secs(3));
    let after = world.pictures();
    assert!(after[&ANN] > congested[&ANN] + 40, "it goes on at the next keyframe: {after:?}");
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 9], port))
}

/// What came to an address where nobody is.
#[derive(Debug, Clone, Copy, Default)]
struct Astray {
    answers: u64,
    media: u64,
}

struct Viewer {
    client: Client,
    /// As the server sees it.
    address: SocketAddr,
    /// What it writes as the source of its checks, if not its own address.
    checks_from: Option<SocketAddr>,
    pictures: u64,
}

struct World {
    now: Instant,
    server: SocketAddr,
    clients: ClientFactory,
    table: PeerTable,
    fanout: Fanout,
    viewers: BTreeMap<ViewerId, Viewer>,
    /// All that viewers sent, as a stranger sees it.
    heard: Vec<(ViewerId, Vec<u8>)>,
    astray: BTreeMap<SocketAddr, Astray>,
    moved: Vec<(ViewerId, SocketAddr)>,
    /// Checks do not arrive.
    is_held_back: bool,
    closed: Vec<(ViewerId, CloseReason)>,
    frames: u64,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn new() -> Self {
        let server = SocketAddr::from(([10, 0, 0, 1], 8555));
        Self {
            now: Instant::now(),
            server,
            clients: ClientFactory::new().unwrap(),
            table: PeerTable::new(PeerFactory::new(vec![server]).unwrap()),
            fanout: Fanout::new(),
            viewers: BTreeMap::new(),
            heard: Vec::new(),
            astray: BTreeMap::new(),
            moved: Vec::new(),
            is_held_back: false,
            closed: Vec::new(),
            frames: 0,
        }
    }

    fn playing() -> Self {
        let mut world = Self::new();
        world.join(ANN, 4_001);
        world.join(BOB, 4_002);
        world.run(Duration::from_secs(2));
        assert!(world.viewers.values().all(|viewer| viewer.pictures > 10));
        world
    }

    fn join(&mut self, viewer: ViewerId, port: u16) -> String {
        let address = address(port);
        let (mut client, offer) = self.clients.offer(address, self.now).unwrap();
        let credentials = IceCredentials {
            ufrag: format!("Aviewer{}", viewer.0),
            password: "server-password-of-32-characters".to_owned(),
        };
        let answer =
            self.table.handle_offer(viewer, STREAM, &offer, &credentials, self.now).unwrap();
        client.handle_answer(&answer.sdp).unwrap();
        self.viewers.insert(viewer, Viewer { client, address, checks_from: None, pictures: 0 });
        answer.sdp
    }

    fn pictures(&self) -> BTreeMap<ViewerId, u64> {
        self.viewers.iter().map(|(id, viewer)| (*id, viewer.pictures)).collect()
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// A picture every other tick, and all that is on the wire arrives.
    fn step(&mut self) {
        self.now += TICK;
        self.frames += 1;
        if self.frames.is_multiple_of(2) {
            self.publish();
        }
        let everybody: Vec<_> = self.viewers.keys().copied().collect();
        for id in everybody {
            for mut packet in self.sent_by(id) {
                self.heard.push((id, packet.clone()));
                if self.is_held_back && packet[0] < 4 {
                    continue;
                }
                let source = self.viewers[&id].source_of(&packet);
                self.arrive(source, &mut packet);
            }
        }
        self.table.handle_timeout(self.now);
        self.fanout.handle_timeout(self.now);
        self.drain();
    }

    fn publish(&mut self) {
        let number = self.frames / 2;
        let keyframe = number % 25 == 1;
        let kind = if keyframe { 0x65 } else { 0x41 };
        let slice = Bytes::from(vec![kind; 400]);
        let sets = [Bytes::from_static(&[0x67, 66, 0xe0, 31, 1]), Bytes::from_static(&[0x68, 1])];
        let units = sets.into_iter().filter(|_| keyframe).chain([slice]).collect();
        let frame = Frame {
            forwarded: None,
            codec: Codec::H264,
            ticks: number * 3_600,
            captured: NtpTime::from_unix_micros(1_700_000_000_000_000 + number * 40_000),
            keyframe,
            discontinuity: false,
            units,
        };
        self.fanout.handle_frame(STREAM, Arc::new(packetise(&frame)), self.now);
    }

    fn sent_by(&mut self, id: ViewerId) -> Vec<Vec<u8>> {
        let Some(viewer) = self.viewers.get_mut(&id) else { return Vec::new() };
        viewer.client.handle_timeout(self.now);
        viewer.poll()
    }

    fn arrive(&mut self, source: SocketAddr, packet: &mut [u8]) {
        if (128..=191).contains(&packet[0]) {
            self.fanout.handle_rtcp(Route::new(self.server, source), packet, self.now);
        } else {
            self.table.handle_datagram(source, self.server, packet, self.now);
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.table.poll_output() {
            match output {
                PeersOutput::Transmit { route, contents } => {
                    self.deliver(route.destination, &contents);
                }
                PeersOutput::Attach(attach) => {
                    self.fanout.handle_attach(*attach, 0x0123_4567, self.now);
                }
                PeersOutput::PathProven { viewer, route } => self.fanout.handle_path(viewer, route),
                PeersOutput::PathForgotten { viewer, route } => {
                    self.fanout.handle_path_forgotten(viewer, route);
                }
                PeersOutput::Moved { viewer, route } => {
                    self.moved.push((viewer, route.destination));
                    self.fanout.handle_move(viewer, route, self.now);
                }
                PeersOutput::Alive { .. } => {}
                PeersOutput::Closed { viewer, reason } => {
                    self.fanout.handle_detach(viewer, None);
                    self.closed.push((viewer, reason));
                }
            }
        }
        self.send_media();
        while let Some(event) = self.fanout.poll_event() {
            if let FanoutEvent::Moved { viewer, route } = event {
                self.moved.push((viewer, route.destination));
                self.table.handle_moved(viewer, route, self.now);
            }
        }
    }

    fn send_media(&mut self) {
        for (destination, packet) in sent(&mut self.fanout) {
            self.deliver(destination, &packet);
        }
    }

    fn deliver(&mut self, destination: SocketAddr, packet: &[u8]) {
        let there = self.viewers.iter_mut().find(|(_, viewer)| viewer.address == destination);
        let Some((id, viewer)) = there else {
            let astray = self.astray.entry(destination).or_default();
            let is_media = packet[0] >= 128;
            astray.media += u64::from(is_media);
            astray.answers += u64::from(!is_media);
            return;
        };
        viewer.client.handle_datagram(self.server, packet, self.now);
        let id = *id;
        let sent = viewer.poll();
        for mut packet in sent {
            self.heard.push((id, packet.clone()));
            let source = self.viewers[&id].source_of(&packet);
            self.arrive(source, &mut packet);
        }
    }
}

impl Viewer {
    fn source_of(&self, packet: &[u8]) -> SocketAddr {
        let is_check = packet[0] < 4;
        self.checks_from.filter(|_| is_check).unwrap_or(self.address)
    }

    fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        loop {
            match self.client.poll_output() {
                ClientOutput::Transmit { contents, .. } => sent.push(contents),
                ClientOutput::Media { .. } => self.pictures += 1,
                ClientOutput::Connected => {}
                ClientOutput::Closed | ClientOutput::Timeout(_) => return sent,
            }
        }
    }
}

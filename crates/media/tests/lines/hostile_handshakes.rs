//! A viewer with a good token that sends broken checks and handshakes of its own making: nothing
//! panics, and in the end nothing is left of it.

use std::net::SocketAddr;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use media::peer::client::{Client, ClientFactory, ClientOutput};
use media::peer::{IceCredentials, PeerFactory};
use media::peers::{PeerTable, PeersOutput};
use media::stun::BindingRequest;
use media::{StreamId, ViewerId};
use proptest::prelude::*;

/// Panics of this process, those included that are caught.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            usual(panic);
        }));
    });
}

/// What is done to a copy of a packet.
#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), 1u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        index().prop_map(Damage::Cut),
        (index(), 1u8..9).prop_map(|(at, count)| Damage::Remove(at, count)),
        (index(), prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (2u8..6).prop_map(Damage::Repeat),
    ]
}

fn damaged(packet: &[u8], damage: &Damage) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let len = packet.len();
    match damage {
        Damage::Flip(at, bits) => packet[at.index(len)] ^= bits,
        Damage::Cut(at) => packet.truncate(at.index(len) + 1),
        Damage::Remove(at, count) => {
            let at = at.index(len);
            packet.drain(at..(at + usize::from(*count)).min(len));
        }
        Damage::Insert(at, bytes) => {
            let at = at.index(len);
            packet.splice(at..at, bytes.iter().copied());
        }
        Damage::Repeat(times) => packet = packet.repeat(usize::from(*times)),
    }
    packet
}

struct World {
    now: Instant,
    server: SocketAddr,
    address: SocketAddr,
    table: PeerTable,
    client: Client,
    credentials: IceCredentials,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn new() -> Self {
        let now = Instant::now();
        let server = SocketAddr::from(([10, 0, 0, 1], 8555));
        let address = SocketAddr::from(([10, 0, 0, 2], 4000));
        let credentials = IceCredentials {
            ufrag: "Aserver".to_owned(),
            password: "server-password-of-32-characters".to_owned(),
        };
        let mut table = PeerTable::new(PeerFactory::new(vec![server]).unwrap());
        let (mut client, offer) = ClientFactory::new().unwrap().offer(address, now).unwrap();
        let answer =
            table.handle_offer(ViewerId(1), StreamId(1), &offer, &credentials, now).unwrap();
        client.handle_answer(&answer.sdp).unwrap();
        Self { now, server, address, table, client, credentials }
    }

    /// What the client wants sent.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        loop {
            match self.client.poll_output() {
                ClientOutput::Transmit { contents, .. } => sent.push(contents),
                ClientOutput::Connected | ClientOutput::Media { .. } => {}
                ClientOutput::Closed | ClientOutput::Timeout(_) => return sent,
            }
        }
    }

    /// The packet itself, and before it the copy: a check is signed again, so that it is authentic.
    fn deliver(&mut self, packet: &[u8], damage: Option<&Damage>) {
        if let Some(copy) = damage.map(|damage| damaged(packet, damage)) {
            let signed = BindingRequest::parse(&copy)
                .map(|request| request.nominated(&self.credentials.password));
            self.table.handle_datagram(
                self.address,
                self.server,
                signed.as_deref().unwrap_or(&copy),
                self.now,
            );
        }
        self.table.handle_datagram(self.address, self.server, packet, self.now);
    }

    /// Ten milliseconds. True when the viewer was handed to the fan-out.
    fn step(&mut self, damage: Option<&Damage>) -> bool {
        let mut is_attached = false;
        self.now += Duration::from_millis(10);
        self.client.handle_timeout(self.now);
        for packet in self.sent() {
            self.deliver(&packet, damage);
        }
        self.table.handle_timeout(self.now);
        while let Some(output) = self.table.poll_output() {
            if let PeersOutput::Transmit { contents, .. } = &output {
                self.client.handle_datagram(self.server, contents, self.now);
            }
            is_attached |= matches!(output, PeersOutput::Attach(_));
        }
        is_attached
    }
}

#[test]
fn what_is_broken_below_is_a_handshake_that_comes_about() {
    let mut world = World::new();
    assert!((0..15).any(|_| world.step(None)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn broken_packets_of_a_viewer_harm_nobody(
        damages in prop::collection::vec(prop::option::weighted(0.6, damage()), 40),
        spare in any::<bool>(),
    ) {
        count_panics();
        let mut world = World::new();
        for (index, damage) in damages.iter().enumerate() {
            // Some cases break the handshake, some what comes after it.
            let damage = damage.as_ref().filter(|_| !spare || index > 15);
            world.step(damage);
        }
        world.table.handle_close(ViewerId(1), media::peers::CloseReason::Asked, world.now);
        world.now += Duration::from_secs(1);
        world.table.handle_timeout(world.now);
        prop_assert!(world.table.is_empty());
        prop_assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    }
}

//! Datagrams of the media port: STUN and DTLS, from a viewer's address and from a stranger's.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::{START, pieces};
use crate::frame::{StreamId, ViewerId};
use crate::peer::{IceCredentials, PeerFactory, Received};
use crate::peers::{CloseReason, PeerTable, PeersOutput};
use crate::stun::BindingRequest;

/// Offered by the viewer whose session is attacked.
const OFFER: &str = include_str!("../../../../e2e/sdp/chromium.sdp");

const PASSWORD: &str = "server-password-of-32-characters";

/// Bits of a packet's manner: it comes from a stranger's address; a check is signed as the viewer
/// would; the rest is how long after the one before it comes, in tens of milliseconds.
const FROM_STRANGER: u8 = 1;
const SIGNED: u8 = 2;

thread_local! {
    /// One for all inputs, since a certificate takes its time: every run leaves it empty.
    static TABLE: RefCell<PeerTable> = RefCell::new(PeerTable::new(
        PeerFactory::new(vec![server()]).expect("a certificate can be made"),
    ));
}

fn server() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8555))
}

/// Checks and DTLS of anybody. Nothing is sent to an address from which no authentic check came,
/// nobody is let in, and in the end nothing is left.
pub fn demultiplexer(data: &[u8]) {
    TABLE.with_borrow_mut(|table| run(table, data));
}

fn run(table: &mut PeerTable, data: &[u8]) {
    let credentials = IceCredentials { ufrag: "Aserver".to_owned(), password: PASSWORD.to_owned() };
    let viewer = ViewerId(1);
    let mut now = *START;
    table
        .handle_offer(viewer, StreamId(1), OFFER, &credentials, now)
        .expect("the offer is a browser's");
    let mut proven = BTreeSet::new();
    for (manner, packet) in pieces(data) {
        now += Duration::from_millis(u64::from(manner >> 2) * 10);
        let host = if manner & FROM_STRANGER == 0 { 2 } else { 3 };
        let source = SocketAddr::from(([10, 0, 0, host], 4000));
        let packet = if manner & SIGNED == 0 { packet.to_vec() } else { signed(packet) };
        let authentic =
            BindingRequest::parse(&packet).is_some_and(|request| request.is_authentic(PASSWORD));
        let received = table.handle_datagram(source, server(), &packet, now);
        assert!(authentic || received != Received::Authentic, "a forged check was believed");
        if received == Received::Authentic {
            proven.insert(source);
        }
        assert!(
            received != Received::Accepted || proven.contains(&source),
            "DTLS of a stranger was read"
        );
        table.handle_timeout(now);
        drain(table, &proven);
    }
    table.handle_close(viewer, CloseReason::Asked, now);
    table.handle_timeout(now + Duration::from_secs(1));
    while table.poll_output().is_some() {}
    assert!(table.is_empty(), "something of the session was left");
}

/// As the viewer would have signed it; other packets as they are.
fn signed(packet: &[u8]) -> Vec<u8> {
    let Some(request) = BindingRequest::parse(packet) else { return packet.to_vec() };
    let signed = request.nominated(PASSWORD);
    let again = BindingRequest::parse(&signed).expect("a signed request can be read");
    assert!(again.is_authentic(PASSWORD) && again.nominates);
    assert_eq!(again.local_ufrag(), request.local_ufrag());
    signed
}

fn drain(table: &mut PeerTable, proven: &BTreeSet<SocketAddr>) {
    while let Some(output) = table.poll_output() {
        match output {
            PeersOutput::Transmit { route, contents } => {
                assert!(proven.contains(&route.destination), "a reply without integrity");
                assert!(matches!(contents.first(), Some(0..=3 | 20..=63)), "no STUN, no DTLS");
            }
            PeersOutput::Attach(_) => panic!("somebody was let in without a handshake"),
            PeersOutput::PathProven { route, .. } | PeersOutput::Moved { route, .. } => {
                assert!(proven.contains(&route.destination));
            }
            PeersOutput::PathForgotten { .. } => {}
            PeersOutput::Closed { reason, .. } => {
                assert!(reason != CloseReason::Failed, "something panicked");
            }
            PeersOutput::Alive { .. } => {}
        }
    }
}

//! A table of peers as datagrams and time reach it, without str0m's part of the handshake.

use super::entry::PATH_SILENCE;
use super::*;

const VIEWER: ViewerId = ViewerId(1);
const OFFER: &str = include_str!("../../../../e2e/sdp/chromium.sdp");

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn table() -> (PeerTable, Instant) {
    let now = Instant::now();
    let candidates = vec![address(1), address(2)];
    let mut table = PeerTable::new(PeerFactory::new(candidates).unwrap());
    table.handle_offer(VIEWER, StreamId(1), OFFER, &credentials(), now).unwrap();
    (table, now)
}

fn credentials() -> IceCredentials {
    IceCredentials {
        ufrag: "Aserver".to_owned(),
        password: "server-password-of-32-characters".to_owned(),
    }
}

fn address(number: u32) -> SocketAddr {
    SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + number), 4_000))
}

/// An authentic check that nominates; the number makes it another one.
fn check(number: u32) -> Vec<u8> {
    check_of("Aserver:viewer00", number, &credentials())
}

/// The username is padded to 16 bytes.
fn check_of(username: &str, number: u32, credentials: &IceCredentials) -> Vec<u8> {
    let mut packet = vec![0, 1, 0, 44, 0x21, 0x12, 0xa4, 0x42];
    packet.extend([7; 8]);
    packet.extend(number.to_be_bytes());
    packet.extend([0, 6, 0, username.len() as u8]);
    packet.extend(username.as_bytes());
    packet.resize(40, 0);
    packet.extend([0, 8, 0, 20]);
    packet.extend([0; 20]);
    BindingRequest::parse(&packet).unwrap().nominated(&credentials.password)
}

#[test]
fn a_viewer_that_comes_from_ever_new_addresses_takes_no_more_room() {
    let (mut table, now) = table();
    for number in 0..3_000 {
        table.handle_datagram(address(number), address(1), &check(number), now);
        while table.poll_output().is_some() {}
        assert!(table.by_remote.len() <= 16);
    }
    table.remove(VIEWER, CloseReason::Asked);
    while table.poll_output().is_some() {}
    assert!(table.is_empty());
}

/// A viewer at `address(9)`, as if its DTLS were done.
fn connected() -> (PeerTable, Instant) {
    let (mut table, now) = table();
    table.handle_datagram(address(9), address(1), &check(0), now);
    table.peers.get_mut(&VIEWER).unwrap().phase = Phase::Connected;
    while table.poll_output().is_some() {}
    (table, now)
}

fn moves(table: &mut PeerTable) -> Vec<Route> {
    let outputs = std::iter::from_fn(|| table.poll_output());
    let moved = outputs.filter_map(|output| match output {
        PeersOutput::Moved { route, .. } => Some(route),
        PeersOutput::Transmit { .. }
        | PeersOutput::Attach(_)
        | PeersOutput::PathProven { .. }
        | PeersOutput::PathForgotten { .. }
        | PeersOutput::Alive { .. }
        | PeersOutput::Closed { .. } => None,
    });
    moved.collect()
}

#[test]
fn a_check_alone_moves_media_only_from_a_path_that_is_silent() {
    let (mut table, start) = connected();
    let from_elsewhere = |table: &mut PeerTable, number, now| {
        table.handle_datagram(address(10), address(2), &check(number), now);
        moves(table)
    };
    assert_eq!(from_elsewhere(&mut table, 1, start), []);
    let later = start + PATH_SILENCE;
    table.handle_datagram(address(9), address(1), &check(2), later);
    assert_eq!(from_elsewhere(&mut table, 3, later), [], "its own path is in use");
    let silent = later + PATH_SILENCE;
    let there = Route::new(address(2), address(10));
    assert_eq!(from_elsewhere(&mut table, 4, silent), [there]);
    assert_eq!(table.peers[&VIEWER].peer.selected_route(), Some(there));
}

#[test]
fn a_viewer_that_does_not_check_any_more_is_sent_nothing_more() {
    let (mut table, start) = connected();
    let last = start + Duration::from_secs(5);
    table.handle_datagram(address(9), address(1), &check(1), last);
    let closed = |table: &mut PeerTable, now| {
        table.handle_timeout(now);
        std::iter::from_fn(|| table.poll_output()).any(|output| {
            matches!(output, PeersOutput::Closed { reason: CloseReason::ConsentExpired, .. })
        })
    };
    assert!(!closed(&mut table, last + CONSENT_TIMEOUT - Duration::from_millis(1)));
    assert!(!closed(&mut table, last + CONSENT_TIMEOUT), "it is told first");
    assert!(closed(&mut table, last + CONSENT_TIMEOUT + CLOSE_TIMEOUT));
    assert!(table.is_empty());
}

#[test]
fn copies_of_a_check_do_not_keep_media_flowing() {
    let (mut table, start) = connected();
    let last = start + Duration::from_secs(5);
    let arrive =
        |table: &mut PeerTable, now| table.handle_datagram(address(9), address(1), &check(1), now);
    assert_eq!(arrive(&mut table, last), Received::Authentic);
    while table.poll_output().is_some() {}
    let mut now = last;
    while now < last + CONSENT_TIMEOUT {
        now += Duration::from_secs(2);
        assert_eq!(arrive(&mut table, now), Received::Accepted);
        let outputs: Vec<_> = std::iter::from_fn(|| table.poll_output()).collect();
        let is_answer = |output: &PeersOutput| matches!(output, PeersOutput::Transmit { .. });
        assert!(!outputs.is_empty() && outputs.iter().all(is_answer), "{outputs:?}");
    }
    table.handle_timeout(now + Duration::from_millis(1));
    assert_eq!(table.peers[&VIEWER].phase, Phase::Closing(CloseReason::ConsentExpired));
}

#[test]
fn feedback_counts_along_every_path_that_was_checked_before_the_handshake_ended() {
    let (mut table, now) = table();
    for (number, from) in [(0, 9), (1, 10)] {
        table.handle_datagram(address(from), address(1), &check(number), now);
    }
    while table.poll_output().is_some() {}
    let profile = crate::srtp::SrtpProfile::AeadAes128Gcm;
    let keys = SessionKeys { profile, material: vec![0; profile.keying_material_len()] };
    let entry = table.peers.get_mut(&VIEWER).unwrap();
    entry.attach(VIEWER, keys, now, &mut table.outputs);
    let outputs: Vec<_> = std::iter::from_fn(|| table.poll_output()).collect();
    let [PeersOutput::Attach(attach), PeersOutput::PathProven { route, .. }] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(attach.route.destination, address(9));
    assert_eq!(route.destination, address(10));
}

#[test]
fn a_panic_ends_the_peer_that_it_happened_in_and_no_other() {
    const OTHER: ViewerId = ViewerId(2);
    let (mut table, now) = connected();
    let other = IceCredentials { ufrag: "Another".to_owned(), ..credentials() };
    table.handle_offer(OTHER, StreamId(1), OFFER, &other, now).unwrap();
    while table.poll_output().is_some() {}
    let done: Option<()> = table.with(VIEWER, |_| panic!("this panic belongs to the test"));
    assert!(done.is_none() && table.with(VIEWER, |_| ()).is_none());
    let outputs: Vec<_> = std::iter::from_fn(|| table.poll_output()).collect();
    let [PeersOutput::Closed { viewer: VIEWER, reason: CloseReason::Failed }] = outputs[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(table.viewers(), [OTHER]);
    table.remove(OTHER, CloseReason::Asked);
    while table.poll_output().is_some() {}
    assert!(table.is_empty());
}

#[test]
fn after_a_restart_the_new_user_fragment_is_good_and_the_old_one_not_for_long() {
    let (mut table, now) = connected();
    let ours = IceCredentials { ufrag: "Banew".to_owned(), password: "x".repeat(24) };
    let theirs = IceCredentials { ufrag: "viewer01".to_owned(), password: "y".repeat(24) };
    let lines = table.handle_restart(VIEWER, &ours, theirs.clone(), now).unwrap();
    assert!(lines.contains(" 10.0.0.1 4000 typ host"), "{lines}");
    let arrive = |table: &mut PeerTable, packet: &[u8]| {
        table.handle_datagram(address(9), address(1), packet, now)
    };
    assert_eq!(arrive(&mut table, &check(1)), Received::Authentic);
    assert_eq!(arrive(&mut table, &check_of("Banew:viewer01", 2, &ours)), Received::Authentic);
    assert_eq!(arrive(&mut table, &check(3)), Received::Dropped);
    assert_eq!(table.by_ufrag.len(), 1);
    assert!(table.handle_restart(ViewerId(2), &ours, theirs, now).is_none());
}

#[test]
fn what_a_viewer_uses_is_good_until_it_uses_one_of_its_restarts() {
    let (mut table, now) = connected();
    let theirs = IceCredentials { ufrag: "viewer01".to_owned(), password: "y".repeat(24) };
    let [first, second] = ["Banew", "Bnewer"]
        .map(|ufrag| IceCredentials { ufrag: ufrag.to_owned(), password: ufrag.repeat(5) });
    for ours in [&first, &second] {
        table.handle_restart(VIEWER, ours, theirs.clone(), now).unwrap();
    }
    let mut arrive = |packet: &[u8]| table.handle_datagram(address(9), address(1), packet, now);
    assert_eq!(arrive(&check(1)), Received::Authentic, "the answers may be lost");
    assert_eq!(arrive(&check_of("Banew:viewer01", 2, &first)), Received::Dropped);
    assert_eq!(arrive(&check_of("Bnewer:viewer0", 3, &second)), Received::Authentic);
    assert_eq!(arrive(&check(4)), Received::Dropped);
    assert_eq!(table.by_ufrag.len(), 1);
}

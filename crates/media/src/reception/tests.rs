use std::net::SocketAddr;

use bytes::Bytes;

use super::*;
use crate::frame::Frame;
use crate::packetise::packetise;
use crate::peer::tapped_client::{TappedClientFactory, TappedOutput};
use crate::peer::{IceCredentials, PeerFactory, PeerOutput};
use crate::route::Route;
use crate::rtcp::{Feedback, SenderInfo, parse, write_bye, write_sender_report};
use crate::srtp::{SrtcpReceiver, SrtpProfile, SrtpSender};
use crate::stun::BindingRequest;

const SSRC: u32 = 7;
const ANSWER: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 H264/90000\r\n";

#[test]
fn what_is_lost_is_counted_without_opening_it() {
    let mut session = Session::new(Depth::Sampled(10));
    session.send_keyframe();
    let opened = session.reception.figures().opened;
    assert!(session.reception.keyframe_at().is_some());

    for index in 0..100 {
        if index % 20 == 5 {
            session.index += 1;
        }
        session.send(&[0x41; 100], true);
    }

    let figures = session.reception.figures();
    assert_eq!((figures.lost, figures.not_authentic, figures.refused), (5, 0, 0));
    assert_eq!(figures.opened - opened, 10);
    assert_eq!(figures.pictures, 101);
}

#[test]
fn every_packet_is_opened_up_to_the_first_keyframe_and_one_is_asked_for() {
    let mut session = Session::new(Depth::Sampled(1000));
    for _ in 0..50 {
        session.send(&[0x41; 100], true);
    }
    assert_eq!(session.reception.figures().opened, 50);
    assert_eq!(session.reception.keyframe_at(), None);

    session.now += Duration::from_secs(2);
    let feedback = session.feedback();
    assert!(feedback.contains(&Feedback::PictureLoss { ssrc: SSRC }), "{feedback:?}");
    session.send_keyframe();
    session.now += Duration::from_secs(2);
    let feedback = session.feedback();
    assert!(!feedback.contains(&Feedback::PictureLoss { ssrc: SSRC }), "{feedback:?}");
    assert_eq!(session.reception.figures().keyframes_asked, 1);
}

#[test]
fn reports_tell_the_server_what_was_lost_and_when_it_reported() {
    let mut session = Session::new(Depth::Sampled(10));
    session.send_keyframe();
    session.index += 2;
    session.send(&[0x41; 100], true);
    session.send_report();
    session.now += Duration::from_secs(1);

    let blocks: Vec<ReportBlock> = session
        .feedback()
        .into_iter()
        .filter_map(|feedback| match feedback {
            Feedback::Report(block) => Some(block),
            Feedback::Nack { .. }
            | Feedback::PictureLoss { .. }
            | Feedback::FullIntra { .. }
            | Feedback::EstimatedBitrate { .. }
            | Feedback::Transport(_)
            | Feedback::Bye => None,
        })
        .collect();

    assert_eq!(blocks.len(), 1);
    assert_eq!((blocks[0].ssrc, blocks[0].cumulative_lost), (SSRC, 2));
    assert_eq!(blocks[0].delay_since_last, 65_536);
    assert_ne!(blocks[0].last_sender_report, 0);
}

#[test]
fn a_picture_is_as_late_as_the_senders_clock_says() {
    let mut session = Session::new(Depth::Sampled(10));
    session.send_report();
    session.send_keyframe();
    session.send_report();
    session.wall_micros += 70_000;
    session.send(&[0x41; 100], true);
    // 70 ms after the report, captured 40 ms after it.
    let delay = session.reception.newest_delay().unwrap();
    assert!(delay.abs_diff(Duration::from_millis(30)) < Duration::from_micros(5), "{delay:?}");
}

#[test]
fn forged_media_is_counted_and_strangers_streams_are_refused() {
    let mut session = Session::new(Depth::Whole);
    session.send_keyframe();
    let mut packet = session.seal(&[0x41; 100], true);
    *packet.last_mut().unwrap() ^= 1;
    session.receive(packet);
    assert_eq!(session.reception.figures().not_authentic, 1);

    let mut unknown = session.seal(&[0x41; 100], true);
    unknown[1] = 97;
    unknown[8] = 9;
    assert!(!session.receive(unknown));
    assert_eq!(session.reception.figures().refused, 1);
}

#[test]
fn the_servers_goodbye_is_heard() {
    let mut session = Session::new(Depth::Sampled(10));
    let mut compound = Vec::new();
    write_bye(&[SSRC], "done", &mut compound);
    let mut packet = Vec::new();
    session.sender.protect_rtcp(&compound, &mut packet).unwrap();
    let arrival = session.arrival();
    assert_eq!(session.reception.handle_datagram(&mut packet, arrival), Received::Goodbye);
}

/// The whole way: offer, answer, ICE, DTLS, and the same keys on both sides.
#[test]
#[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
fn a_tapped_client_gets_the_servers_keys() {
    let mut now = Instant::now();
    let server = SocketAddr::from(([10, 0, 0, 1], 8555));
    let viewer = SocketAddr::from(([10, 0, 0, 2], 4000));
    let credentials = IceCredentials { ufrag: "abcd".into(), password: "0123456789".repeat(3) };
    let (mut client, offer) = TappedClientFactory::new().unwrap().offer(viewer, now).unwrap();
    assert!(offer.contains("goog-remb") && !offer.contains("transport-cc"));
    let route = Route::new(server, viewer);
    let (mut peer, answer) =
        PeerFactory::new(vec![server]).unwrap().answer(&offer, &credentials, now).unwrap();
    client.handle_answer(&answer.sdp).unwrap();

    let (mut ours, mut theirs) = (None, None);
    for _ in 0..3_000 {
        now += Duration::from_millis(1);
        client.handle_timeout(now);
        loop {
            match client.poll_output() {
                TappedOutput::Transmit { contents, .. } => match BindingRequest::parse(&contents) {
                    Some(check) => assert!(peer.handle_check(route, &check, now).is_some()),
                    None => assert_ne!(
                        peer.handle_dtls(route, &contents, now),
                        crate::peer::Received::Dropped
                    ),
                },
                TappedOutput::Connected { keys, role } => {
                    assert_eq!(role, Role::Client);
                    ours = Some(keys);
                    continue;
                }
                TappedOutput::Closed => panic!("closed"),
                TappedOutput::Timeout(_) => break,
            };
        }
        peer.handle_timeout(now);
        loop {
            match peer.poll_output() {
                PeerOutput::Transmit { contents, .. } => {
                    client.handle_datagram(server, &contents, now);
                }
                PeerOutput::Connected(keys) => theirs = Some(keys),
                PeerOutput::Closed => panic!("closed"),
                PeerOutput::Timeout(_) => break,
            }
        }
    }

    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!((ours.profile, ours.material), (theirs.profile, theirs.material));
}

/// A server's sender and what receives from it.
struct Session {
    sender: SrtpSender,
    server: SrtcpReceiver,
    reception: Reception,
    /// Of the next packet.
    index: u64,
    timestamp: u32,
    now: Instant,
    wall_micros: u64,
}

impl Session {
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn new(depth: Depth) -> Self {
        let profile = SrtpProfile::AeadAes128Gcm;
        let material = vec![5; profile.keying_material_len()];
        let now = Instant::now();
        let sender = SrtpSender::from_dtls_server(profile, &material).unwrap();
        let server = SrtcpReceiver::from_dtls_server(profile, &material).unwrap();
        let keys = SessionKeys { profile, material };
        let reception = Reception::new(&keys, Role::Client, ANSWER, depth, (now, 3)).unwrap();
        let wall_micros = 1_795_000_000_000_000;
        Self { sender, server, reception, index: 65_500, timestamp: 0, now, wall_micros }
    }

    fn arrival(&self) -> Arrival {
        Arrival { at: self.now, wall: NtpTime::from_unix_micros(self.wall_micros) }
    }

    fn seal(&mut self, payload: &[u8], marker: bool) -> Vec<u8> {
        let [high, low] = (self.index as u16).to_be_bytes();
        let mut header = vec![0x80, u8::from(marker) << 7 | 96, high, low];
        header.extend(self.timestamp.to_be_bytes());
        header.extend(SSRC.to_be_bytes());
        let mut packet = Vec::new();
        self.sender.protect_rtp(&header, payload, self.index, &mut packet).unwrap();
        self.index += 1;
        packet
    }

    /// False: it was refused.
    fn receive(&mut self, mut packet: Vec<u8>) -> bool {
        let arrival = self.arrival();
        self.reception.handle_datagram(&mut packet, arrival) != Received::Refused
    }

    fn send(&mut self, payload: &[u8], marker: bool) {
        self.timestamp += 3_600;
        let packet = self.seal(payload, marker);
        assert!(self.receive(packet));
    }

    fn send_keyframe(&mut self) {
        let units = [vec![0x67; 20], vec![0x68; 5], vec![0x65; 9_000]];
        let frame = packetise(&Frame {
            forwarded: None,
            codec: Codec::H264,
            ticks: 0,
            captured: NtpTime(0),
            keyframe: true,
            discontinuity: false,
            units: units.into_iter().map(Bytes::from).collect(),
        });
        let count = frame.packet_count();
        for (index, payload) in frame.payloads().enumerate() {
            let packet = self.seal(payload, index + 1 == count);
            assert!(self.receive(packet));
        }
    }

    fn send_report(&mut self) {
        let (ntp, rtp_timestamp) = (NtpTime::from_unix_micros(self.wall_micros), self.timestamp);
        let info = SenderInfo { ssrc: SSRC, ntp, rtp_timestamp, packets: 1, octets: 1 };
        let mut compound = Vec::new();
        write_sender_report(&info, "cname", &mut compound);
        let mut packet = Vec::new();
        self.sender.protect_rtcp(&compound, &mut packet).unwrap();
        assert!(self.receive(packet));
    }

    fn feedback(&mut self) -> Vec<Feedback> {
        let mut sealed = self.reception.poll_feedback(self.now).unwrap();
        parse(self.server.unprotect_rtcp(&mut sealed).unwrap()).unwrap()
    }
}

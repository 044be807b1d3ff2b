use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::frame::Frame;
use crate::negotiated::{ExtensionKind, HeaderExtension, Payload, Track};
use crate::packetise::packetise;
use crate::rtcp::MAX_LOST_ENTRIES;
use crate::srtp::SrtpProfile;

const SSRC: u32 = 0x1234_5678;
const RTX_SSRC: u32 = 0x8765_4321;
const PAYLOAD_TYPE: u8 = 108;
const RTX_PAYLOAD_TYPE: u8 = 109;
const PROFILE: SrtpProfile = SrtpProfile::AeadAes128Gcm;

/// What was settled with a viewer.
#[derive(Debug, Clone, Copy)]
struct Terms {
    rtx: Option<u8>,
    extension: Option<ExtensionKind>,
}

const PLAIN: Terms = Terms { rtx: None, extension: None };

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn epoch() -> Instant {
    Instant::now()
}

fn keys() -> SessionKeys {
    SessionKeys { profile: PROFILE, material: vec![7; PROFILE.keying_material_len()] }
}

fn viewer(seed: u64, terms: Terms) -> Viewer {
    let payload = Payload {
        codec: Codec::H264,
        payload_type: PAYLOAD_TYPE,
        rtx: terms.rtx,
        profile_level_id: Some([0x42, 0xe0, 31]),
    };
    let video = Track {
        kind: MediaKind::Video,
        ssrc: SSRC,
        rtx_ssrc: terms.rtx.map(|_| RTX_SSRC),
        payloads: vec![payload],
        extension: terms.extension.map(|kind| HeaderExtension { id: 5, kind }),
        red: None,
    };
    let negotiated = Negotiated { video: Some(video), audio: None, cname: "manifold".to_owned() };
    let local = "10.0.0.1:8555".parse().unwrap();
    let remote: std::net::SocketAddr = "10.0.0.2:4000".parse().unwrap();
    let route = Route::new(local, remote);
    Viewer::new(ViewerId(1), route, &keys(), negotiated, seed).unwrap()
}

fn picture(ticks: u64, bytes: usize, keyframe: bool) -> Arc<PacketisedFrame> {
    let kind = if keyframe { 0x65 } else { 0x41 };
    let frame = Frame {
        forwarded: None,
        codec: Codec::H264,
        ticks,
        captured: NtpTime::from_unix_micros(1_700_000_000_000_000 + ticks % (1 << 32)),
        keyframe,
        discontinuity: false,
        units: vec![Bytes::from([vec![kind], vec![ticks as u8; bytes]].concat())],
    };
    Arc::new(packetise(&frame))
}

fn datagrams(batch: &Batch) -> Vec<Vec<u8>> {
    let runs = batch.runs().iter();
    let bytes = runs.map(|run| (run, &batch.bytes()[run.start..run.start + run.len]));
    bytes.flat_map(|(run, bytes)| bytes.chunks(run.segment)).map(<[u8]>::to_vec).collect()
}

fn word(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(packet[at..at + 4].try_into().unwrap())
}

/// Marker, sequence number and timestamp of each RTP packet in the batch.
fn headers(batch: &Batch) -> Vec<(bool, u16, u32)> {
    let packets = datagrams(batch);
    let rtp = packets.iter().filter(|packet| packet[1] & 0x7f == PAYLOAD_TYPE);
    rtp.map(|packet| {
        assert_eq!((packet[0], word(packet, 8)), (0x80, SSRC));
        (packet[1] & 0x80 != 0, word(packet, 0) as u16, word(packet, 4))
    })
    .collect()
}

#[test]
fn nothing_is_sent_before_a_keyframe() {
    let (mut viewer, mut batch) = (viewer(1, PLAIN), Batch::default());
    viewer.handle_frame(&picture(0, 100, false), epoch(), &mut batch).unwrap();
    assert!(batch.is_empty());
    viewer.handle_frame(&picture(6_000, 100, true), epoch(), &mut batch).unwrap();
    assert_eq!(headers(&batch).len(), 1);
    assert_eq!(viewer.take_tally(), Tally::default(), "who waits skips nothing");
}

#[test]
fn a_viewer_that_is_too_slow_goes_on_at_a_keyframe() {
    let (mut viewer, mut batch) = (viewer(1, PLAIN), Batch::default());
    let now = epoch();
    let large = MAX_PENDING_PACKETS / 10 * crate::frame::MAX_PAYLOAD;
    for index in 0..12 {
        viewer.handle_frame(&picture(index * 6_000, large, index == 0), now, &mut batch).unwrap();
    }
    assert_eq!(viewer.tally.frames_skipped, 3);
    assert!(viewer.pending_packets <= MAX_PENDING_PACKETS);
    while viewer.is_catching_up() {
        viewer.poll_pending(now, &mut batch).unwrap();
    }
    batch.clear();
    viewer.handle_frame(&picture(80_000, 100, false), now, &mut batch).unwrap();
    assert!(headers(&batch).is_empty(), "no picture that refers to a skipped one");
    viewer.handle_frame(&picture(90_000, 100, true), now, &mut batch).unwrap();
    assert_eq!(headers(&batch).len(), 1);
    assert_eq!(viewer.take_tally().frames_skipped, 4);
}

#[test]
fn an_interruption_leaves_no_picture_half_sent() {
    let now = epoch();
    let mut viewer = viewer(0, PLAIN);
    let group = [picture(0, 50_000, true), picture(6_000, 2_000, false)];
    let packets = group[0].packet_count();
    assert!(packets > BURST_PACKETS, "a part of it waits");
    viewer.handle_group(&group, Duration::ZERO, now);
    let mut batch = Batch::default();
    viewer.poll_pending(now, &mut batch).unwrap();
    viewer.handle_interruption();
    assert_eq!(
        viewer.pending_packets(),
        packets - BURST_PACKETS,
        "the rest of it, nothing behind it"
    );
    assert!(!viewer.is_playing());
    viewer.poll_pending(now + BURST_INTERVAL, &mut batch).unwrap();
    let ends: Vec<bool> = headers(&batch).iter().map(|(ends, ..)| *ends).collect();
    assert_eq!(ends, [vec![false; packets - 1], vec![true]].concat());
    assert!(!viewer.is_catching_up());

    viewer.handle_group(&group, Duration::ZERO, now);
    viewer.handle_interruption();
    assert!(!viewer.is_catching_up(), "what nobody saw a part of goes");
}

#[test]
fn a_report_ties_the_timestamp_to_the_capture_time() {
    let (mut viewer, mut batch) = (viewer(5, PLAIN), Batch::default());
    let now = epoch();
    let frame = picture(90_000, 100, true);
    viewer.handle_frame(&frame, now, &mut batch).unwrap();
    let (_, _, timestamp) = headers(&batch)[0];
    let report = viewer.video.as_mut().unwrap().report(now + Duration::from_millis(500)).unwrap();
    assert_eq!(report.rtp_timestamp, timestamp.wrapping_add(45_000));
    let later = report.ntp.unix_micros() - frame.captured.unix_micros();
    assert!((499_998..=500_000).contains(&later), "{later}");
}

#[test]
fn an_answered_report_tells_the_round_trip() {
    let (mut viewer, mut batch) = (viewer(5, PLAIN), Batch::default());
    let now = epoch();
    viewer.handle_frame(&picture(90_000, 100, true), now, &mut batch).unwrap();
    let sent: Vec<_> = (0..3)
        .map(|second| {
            viewer.video.as_mut().unwrap().report(now + Duration::from_secs(second)).unwrap()
        })
        .collect();
    let answer = |ntp| rtcp::ReportBlock {
        ssrc: SSRC,
        fraction_lost: 0,
        cumulative_lost: 0,
        highest_sequence: 0,
        jitter: 0,
        last_sender_report: ntp,
        // A quarter of a second.
        delay_since_last: 1 << 14,
    };
    let heard = now + Duration::from_millis(1_330);
    let round_trip = |ntp| viewer.video.as_ref().unwrap().round_trip(&answer(ntp), heard);
    assert_eq!(round_trip(rtcp::compact_ntp(sent[1].ntp)), Some(Duration::from_millis(80)));
    assert_eq!(round_trip(0), None);
    assert_eq!(round_trip(rtcp::compact_ntp(sent[1].ntp) + 1), None, "none of ours");
}

/// A line of so many bits a second, from the first moment on.
fn over_thin_line(bits_per_second: u64, now: Instant) -> Viewer {
    let mut viewer = viewer(3, PLAIN);
    let limit = |viewer: &mut Viewer, now| {
        viewer.estimator.handle_stream_rate(Some(bits_per_second * 2), now);
        viewer.estimator.handle_told(bits_per_second, now);
        viewer.follow_estimate(now);
    };
    limit(&mut viewer, now - Duration::from_secs(1));
    limit(&mut viewer, now);
    assert!(viewer.is_limited());
    viewer
}

/// A camera of twice the line's rate for a while: every second a keyframe of a third of it. Returns
/// the bytes that left, and the timestamps of what was sent.
fn play(viewer: &mut Viewer, start: Instant, line: u64, seconds: u64) -> (usize, Vec<u32>) {
    let mut batch = Batch::default();
    let keyframe = (line as usize / 8) * 2 / 3;
    let other = keyframe * 2 / 24;
    for millis in (0..seconds * 1_000).step_by(2) {
        let now = start + Duration::from_millis(millis);
        if millis % 40 == 0 {
            let bytes = if millis % 1_000 == 0 { keyframe } else { other };
            let frame = picture(millis * 90, bytes, millis % 1_000 == 0);
            viewer.handle_frame(&frame, now, &mut batch).unwrap();
        }
        viewer.poll_pending(now, &mut batch).unwrap();
    }
    let timestamps = headers(&batch).iter().map(|header| header.2).collect();
    (batch.bytes().len(), timestamps)
}

#[test]
fn a_thin_line_is_kept_to_and_skips_whole_frames() {
    const LINE: u64 = 1_000_000;
    let start = epoch();
    let mut viewer = over_thin_line(LINE, start);
    let (bytes, mut timestamps) = play(&mut viewer, start, LINE, 20);
    let most = LINE as usize / 8 * 20;
    assert!((most * 8 / 10..most * 101 / 100).contains(&bytes), "{bytes} of {most}");
    let skipped = viewer.take_tally().frames_skipped;
    timestamps.dedup();
    let sent = timestamps.len() as u64;
    let waiting = viewer.pending.iter().filter(|pending| pending.next_payload == 0).count() as u64;
    assert_eq!(sent + skipped + waiting, 500, "each frame is sent whole or skipped");
    assert!(sent > 100, "{sent}");
}

#[test]
fn what_waits_for_a_thin_line_is_never_later_than_a_moment() {
    const LINE: u64 = 800_000;
    let start = epoch();
    let mut viewer = over_thin_line(LINE, start);
    for second in 0..10 {
        play(&mut viewer, start + Duration::from_secs(second), LINE, 1);
        let takes = viewer.pace.time_for(viewer.pending_bytes);
        assert!(takes <= MAX_WAIT, "{takes:?}");
    }
}

#[test]
fn a_thin_line_gets_the_keyframe_of_a_group_alone() {
    let start = epoch();
    let group: Vec<_> = (0..50).map(|index| picture(index * 3_600, 20_000, index == 0)).collect();
    let mut free = viewer(3, PLAIN);
    free.handle_group(&group, Duration::ZERO, start);
    assert_eq!(free.pending.len(), 50);

    let mut thin = over_thin_line(1_000_000, start);
    thin.handle_group(&group, Duration::ZERO, start);
    assert_eq!((thin.pending.len(), thin.take_tally().frames_skipped), (1, 49));
    let mut batch = Batch::default();
    thin.handle_frame(&picture(180_000, 100, false), start, &mut batch).unwrap();
    assert_eq!(thin.pending.len(), 1, "it refers to what was skipped");
    assert!(!thin.may_restart(start + Duration::from_millis(1_500)), "the keyframe still leaves");
    thin.handle_frame(&picture(183_600, 100, true), start, &mut batch).unwrap();
    assert_eq!(thin.pending.len(), 2);
}

#[test]
fn a_line_that_gets_thinner_drops_what_would_come_too_late() {
    let start = epoch();
    let mut viewer = viewer(3, PLAIN);
    let group: Vec<_> = (0..50).map(|index| picture(index * 3_600, 20_000, index == 0)).collect();
    viewer.handle_group(&group, Duration::ZERO, start);
    for second in 0..2 {
        let now = start + Duration::from_secs(second);
        viewer.estimator.handle_stream_rate(Some(2_000_000), now);
        viewer.estimator.handle_told(1_000_000, now);
        viewer.follow_estimate(now);
    }
    assert_eq!(viewer.pending.len(), 6, "a second of 125,000 bytes");
    assert!(viewer.pending[0].frame.keyframe);
    assert_eq!(viewer.take_tally().frames_skipped, 44);
}

#[test]
fn a_group_is_not_begun_anew_while_repairs_are_under_way() {
    let start = epoch();
    let at = |millis| start + Duration::from_millis(millis);
    let (mut viewer, mut batch) = (viewer(3, PLAIN), Batch::default());
    let group = [picture(0, 20_000, true)];
    viewer.handle_group(&group, Duration::ZERO, start);
    assert!(!viewer.may_restart(at(5_000)), "it has not left");
    while viewer.is_catching_up() {
        viewer.poll_pending(start, &mut batch).unwrap();
    }
    assert!(!viewer.may_restart(at(900)) && viewer.may_restart(at(1_000)));
    let sequence = headers(&batch)[3].1;
    let find = |_| Some(&group[0]);
    for millis in (950..4_000).step_by(150) {
        let lost = [Lost { kind: MediaKind::Video, sequence: sequence + millis as u16 / 1_000 }];
        viewer.repair(&lost, find, at(millis), &mut batch).unwrap();
        assert_eq!(viewer.may_restart(at(millis + 10)), millis >= 3_000, "{millis}");
    }
}

#[test]
fn a_flood_of_nacks_gets_little_and_is_counted() {
    let (mut viewer, mut batch) = (viewer(3, PLAIN), Batch::default());
    let now = epoch();
    let frame = picture(0, 50_000, true);
    viewer.handle_frame(&frame, now, &mut batch).unwrap();
    let sent = headers(&batch);
    batch.clear();
    let lost: Vec<Lost> = (0..MAX_LOST_ENTRIES)
        .map(|index| Lost { kind: MediaKind::Video, sequence: sent[index % sent.len()].1 })
        .collect();
    for _ in 0..100 {
        viewer.repair(&lost, |_| Some(&frame), now, &mut batch).unwrap();
    }
    let tally = viewer.take_tally();
    assert_eq!(tally.repaired, sent.len() as u64, "each once within a round trip");
    assert_eq!(tally.nacked, 100 * MAX_LOST_ENTRIES as u64);
    assert_eq!(tally.refused, tally.nacked - tally.repaired);
    assert_eq!(headers(&batch), sent);
}

#[test]
fn datagrams_stay_within_1200_bytes() {
    for kind in [ExtensionKind::AbsoluteSendTime, ExtensionKind::TransportSequence] {
        let terms = Terms { rtx: Some(RTX_PAYLOAD_TYPE), extension: Some(kind) };
        let (mut viewer, mut batch) = (viewer(3, terms), Batch::default());
        let now = epoch();
        // One byte for the NAL unit's header: a payload of exactly the largest size.
        let frame = picture(0, crate::frame::MAX_PAYLOAD - 1, true);
        viewer.handle_frame(&frame, now, &mut batch).unwrap();
        let sequence = word(&datagrams(&batch)[0], 0) as u16;
        let lost = [Lost { kind: MediaKind::Video, sequence }];
        viewer.repair(&lost, |_| Some(&frame), now, &mut batch).unwrap();
        let lens: Vec<usize> = datagrams(&batch).iter().map(Vec::len).collect();
        assert_eq!(lens, [1_196, 1_198]);
    }
}

#[test]
fn the_packets_of_a_frame_are_equally_long_and_carry_the_extension() {
    for kind in [ExtensionKind::AbsoluteSendTime, ExtensionKind::TransportSequence] {
        let terms = Terms { rtx: Some(RTX_PAYLOAD_TYPE), extension: Some(kind) };
        let (mut viewer, mut batch) = (viewer(3, terms), Batch::default());
        let start = epoch();
        viewer.handle_frame(&picture(0, 10_000, true), start, &mut batch).unwrap();
        assert_eq!(batch.runs().len(), 1, "one run for segmentation offload");
        let later = start + Duration::from_micros(1_500_000);
        viewer.handle_frame(&picture(9_000, 10_000, false), later, &mut batch).unwrap();
        for (index, packet) in datagrams(&batch).iter().enumerate() {
            assert_eq!(packet[0], 0x90);
            assert_eq!(packet[12..16], [0xbe, 0xde, 0, 1]);
            let value = match kind {
                // 1.5 s in 6.18 fixed point.
                ExtensionKind::AbsoluteSendTime if index < 9 => [0x52, 0, 0, 0],
                ExtensionKind::AbsoluteSendTime => [0x52, 0x06, 0, 0],
                ExtensionKind::TransportSequence => [0x51, 0, index as u8, 0],
            };
            assert_eq!(packet[16..20], value, "{index}");
        }
    }
}

fn any_terms() -> impl Strategy<Value = Terms> {
    let extension = prop_oneof![
        Just(None),
        Just(Some(ExtensionKind::AbsoluteSendTime)),
        Just(Some(ExtensionKind::TransportSequence)),
    ];
    let rtx = prop_oneof![Just(None), Just(Some(RTX_PAYLOAD_TYPE))];
    (rtx, extension).prop_map(|(rtx, extension)| Terms { rtx, extension })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Over the wraps of the sequence number and the timestamp, wherever they start.
    #[test]
    fn sequence_numbers_count_and_timestamps_follow_the_source(
        seed: u64,
        first_ticks: u64,
        sizes in prop::collection::vec(20_000usize..60_000, 40..60),
    ) {
        let (mut viewer, mut batch) = (viewer(seed, PLAIN), Batch::default());
        let now = epoch();
        // Both are within reach of their wrap, whatever the seed.
        viewer.video.as_mut().unwrap().next_index |= 0xf000;
        viewer.video.as_mut().unwrap().start_timestamp |= 0xffff_0000;
        let mut expected = viewer.video.as_ref().unwrap().next_index as u16;
        let mut start = None;
        let mut packets = 0u64;
        for round in 0..6u64 {
            for (index, size) in sizes.iter().enumerate() {
                let step = round * sizes.len() as u64 + index as u64;
                let ticks = first_ticks.wrapping_add(step * 3_000);
                batch.clear();
                viewer.handle_frame(&picture(ticks, *size, step == 0), now, &mut batch).unwrap();
                let sent = headers(&batch);
                let start = *start.get_or_insert(sent[0].2);
                packets += sent.len() as u64;
                for (position, (marker, sequence, timestamp)) in sent.iter().enumerate() {
                    prop_assert_eq!(*marker, position + 1 == sent.len());
                    prop_assert_eq!(*sequence, expected);
                    prop_assert_eq!(*timestamp, start.wrapping_add((step * 3_000) as u32));
                    expected = expected.wrapping_add(1);
                }
            }
        }
        prop_assert!(packets > 1 << 12, "the sequence number wrapped");
    }

    /// Whatever was sent live or paced, with whichever header: a packet that the viewer names is
    /// sent again with its payload, timestamp and marker, and under RTX with its sequence number;
    /// what is not kept any more is not.
    #[test]
    fn every_packet_that_is_kept_is_repaired_and_no_other(
        seed: u64,
        terms in any_terms(),
        sizes in prop::collection::vec(1usize..90_000, 3..25),
        kept_from in any::<prop::sample::Index>(),
        losses in prop::collection::vec(any::<prop::sample::Index>(), 1..100),
    ) {
        let (mut viewer, mut batch) = (viewer(seed, terms), Batch::default());
        viewer.video.as_mut().unwrap().next_index |= 0x7fc0;
        let mut now = epoch();
        let frames: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(index, size)| picture(index as u64 * 3_000, *size, index == 0))
            .collect();
        // The packets in sending order, with the frame and the payload that each was made of.
        let mut sent = Vec::new();
        for frame in &frames {
            viewer.handle_frame(frame, now, &mut batch).unwrap();
            while viewer.is_catching_up() {
                now += BURST_INTERVAL;
                viewer.poll_pending(now, &mut batch).unwrap();
            }
            let places = (0..frame.packet_count()).map(|payload| (frame, payload));
            sent.extend(datagrams(&batch).into_iter().zip(places));
            batch.clear();
        }
        let kept_from = kept_from.get(&frames).serial();
        let find = |serial| {
            frames.iter().find(|frame| frame.serial() == serial && serial >= kept_from)
        };
        let mut reference = SrtpSender::from_dtls_server(PROFILE, &keys().material).unwrap();
        let mut repaired = std::collections::HashSet::new();
        for loss in losses {
            let (original, (frame, payload)) = loss.get(&sent);
            let sequence = word(original, 0) as u16;
            batch.clear();
            let lost = [Lost { kind: MediaKind::Video, sequence }];
            viewer.repair(&lost, find, now, &mut batch).unwrap();
            let is_kept = frame.serial() >= kept_from;
            if !is_kept || !repaired.insert(sequence) {
                prop_assert!(batch.is_empty());
                continue;
            }
            let [repeat] = &datagrams(&batch)[..] else { panic!("one packet") };
            let Some(rtx) = terms.rtx else {
                prop_assert_eq!(repeat, original);
                continue;
            };
            prop_assert_eq!(repeat[1], original[1] & 0x80 | rtx);
            prop_assert_eq!((word(repeat, 4), word(repeat, 8)), (word(original, 4), RTX_SSRC));
            let header = if terms.extension.is_some() { 20 } else { 12 };
            let parts = [&sequence.to_be_bytes()[..], frame.payload(*payload)];
            let index = u64::from(word(repeat, 0) as u16);
            let mut expected = Vec::new();
            reference.protect_rtp_parts(&repeat[..header], &parts, index, &mut expected).unwrap();
            prop_assert_eq!(repeat, &expected, "the cipher is a function of the plaintext");
        }
        let strange = sent[0].0[2..4].try_into().map(u16::from_be_bytes).unwrap().wrapping_sub(1);
        batch.clear();
        let lost = [Lost { kind: MediaKind::Video, sequence: strange }];
        viewer.repair(&lost, find, now, &mut batch).unwrap();
        prop_assert!(batch.is_empty(), "never sent");
    }
}

//! Reports and feedback as browsers send them, broken ones, and what we write read back.

use proptest::prelude::*;

use super::*;

const OURS: u32 = 0x1111_1111;
const THEIRS: u32 = 0x2222_2222;

#[test]
fn a_receiver_report_gives_its_blocks() {
    let blocks = [some_block(1), ReportBlock { cumulative_lost: -1, ..some_block(2) }];

    let packet = report(RECEIVER_REPORT, &[], &blocks);

    assert_eq!(parse(&packet), Ok(blocks.map(Feedback::Report).to_vec()));
}

#[test]
fn a_sender_report_gives_its_blocks_and_an_extension_is_passed_over() {
    let blocks = [some_block(1)];

    let mut packet = report(SENDER_REPORT, &[7; 20], &blocks);
    assert_eq!(parse(&packet), Ok(blocks.map(Feedback::Report).to_vec()));

    packet.extend_from_slice(&[9; 8]);
    packet[3] += 2;
    assert_eq!(parse(&packet), Ok(blocks.map(Feedback::Report).to_vec()));
}

#[test]
fn cumulative_loss_is_signed() {
    for (bytes, cumulative_lost) in [
        ([0, 0, 0], 0),
        ([0x7f, 0xff, 0xff], 8_388_607),
        ([0x80, 0, 0], -8_388_608),
        ([0xff, 0xff, 0xfe], -2),
    ] {
        let mut packet = report(RECEIVER_REPORT, &[], &[some_block(1)]);
        packet[13..16].copy_from_slice(&bytes);

        let expected = ReportBlock { cumulative_lost, ..some_block(1) };
        assert_eq!(parse(&packet), Ok(vec![Feedback::Report(expected)]));
    }
}

#[test]
fn a_nack_is_expanded_across_the_wrap() {
    let packet = feedback(TRANSPORT_FEEDBACK, 1, &[0xff, 0xff, 0x80, 0x05, 0x00, 0x64, 0, 0]);

    let lost = vec![65_535, 0, 2, 15, 100];
    assert_eq!(parse(&packet), Ok(vec![Feedback::Nack { ssrc: OURS, lost }]));
}

#[test]
fn a_nack_names_no_more_than_the_bound() {
    let one = feedback(TRANSPORT_FEEDBACK, 1, &[0, 1, 0xff, 0xff].repeat(50));
    let found = parse(&one.repeat(3)).expect("well-formed");

    let lens: Vec<_> = found.iter().map(lost_len).collect();
    assert_eq!(lens, [850, MAX_LOST_ENTRIES - 850], "the third is left out");
}

#[test]
fn there_are_no_more_entries_than_the_bound() {
    let picture_loss = feedback(PAYLOAD_FEEDBACK, 1, &[]);
    let found = parse(&picture_loss.repeat(MAX_FEEDBACK_ENTRIES + 10)).expect("well-formed");
    assert_eq!(found.len(), MAX_FEEDBACK_ENTRIES);
}

#[test]
fn requests_for_a_keyframe_name_their_stream() {
    let picture_loss = feedback(PAYLOAD_FEEDBACK, 1, &[]);
    assert_eq!(parse(&picture_loss), Ok(vec![Feedback::PictureLoss { ssrc: OURS }]));

    let entries = [0, 0, 0, 5, 17, 0, 0, 0, 0, 0, 0, 6, 18, 0, 0, 0];
    assert_eq!(
        parse(&feedback(PAYLOAD_FEEDBACK, 4, &entries)),
        Ok(vec![
            Feedback::FullIntra { ssrc: 5, sequence: 17 },
            Feedback::FullIntra { ssrc: 6, sequence: 18 },
        ])
    );
}

#[test]
fn an_estimated_bitrate_is_mantissa_times_power_of_two() {
    for (packed, bitrate) in [
        ([1, 0x00, 0x00, 0x00], 0),
        ([1, 0x03, 0xff, 0xff], 262_143),
        ([1, 0x0b, 0xd0, 0x90], 0x3d090 << 2),
        ([1, 0xfc, 0x00, 0x01], 1 << 63),
        ([1, 0xff, 0xff, 0xff], u64::MAX),
    ] {
        let remb = [b"REMB".as_slice(), &packed, &OURS.to_be_bytes()].concat();
        assert_eq!(
            parse(&feedback(PAYLOAD_FEEDBACK, 15, &remb)),
            Ok(vec![Feedback::EstimatedBitrate { bitrate }])
        );
    }
    assert_eq!(parse(&feedback(PAYLOAD_FEEDBACK, 15, b"LNTF")), Ok(vec![]), "not ours to read");
}

#[test]
fn a_bye_needs_somebody_who_leaves() {
    assert_eq!(parse(&[0x81, 203, 0, 1, 0, 0, 0, 1]), Ok(vec![Feedback::Bye]));
    assert_eq!(parse(&[0x80, 203, 0, 0]), Ok(vec![]));
}

#[test]
fn other_packets_are_passed_over() {
    let transport_wide = feedback(TRANSPORT_FEEDBACK, 15, &[0; 8]);
    let slice_loss = feedback(PAYLOAD_FEEDBACK, 2, &[0; 4]);
    let application = packet_of(0, 204, &[0; 8]);
    let extended_report = packet_of(0, 207, &[0; 16]);
    let unknown = packet_of(3, 250, &[]);
    let picture_loss = feedback(PAYLOAD_FEEDBACK, 1, &[]);

    let compound =
        [transport_wide, slice_loss, application, extended_report, unknown, picture_loss].concat();

    assert_eq!(parse(&compound), Ok(vec![Feedback::PictureLoss { ssrc: OURS }]));
}

#[test]
fn padding_is_left_out() {
    let mut nack = feedback(TRANSPORT_FEEDBACK, 1, &[0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8]);
    nack[0] |= 0x20;
    assert_eq!(parse(&nack), Ok(vec![Feedback::Nack { ssrc: OURS, lost: vec![9] }]));

    for wrong in [0, 24, 255] {
        *nack.last_mut().expect("not empty") = wrong;
        assert_eq!(parse(&nack), Err(RtcpError::Malformed { offset: 0 }), "{wrong} of padding");
    }
}

#[test]
fn a_malformed_packet_is_named_by_its_offset() {
    let good = feedback(PAYLOAD_FEEDBACK, 1, &[]);
    let cases: [&[u8]; 9] = [
        &[0x80, 201, 0],
        &[0x80, 201, 0, 1],
        &[0x40, 201, 0, 0],
        &[0x81, 201, 0, 1, 0, 0, 0, 1],
        &[0x80, 200, 0, 1, 0, 0, 0, 1],
        &[0x82, 203, 0, 1, 0, 0, 0, 1],
        &[0x81, 205, 0, 1, 0, 0, 0, 1],
        &[0x81, 206, 0, 0],
        &[0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B'],
    ];
    for case in cases {
        assert_eq!(parse(case), Err(RtcpError::Malformed { offset: 0 }), "{case:02x?}");
        let compound = [good.as_slice(), case].concat();
        assert_eq!(parse(&compound), Err(RtcpError::Malformed { offset: 12 }), "{case:02x?}");
    }
    assert_eq!(parse(&[]), Err(RtcpError::Malformed { offset: 0 }));
}

#[test]
fn a_sender_report_is_written_as_the_rfc_draws_it() {
    let info = SenderInfo {
        ssrc: 0x0102_0304,
        ntp: NtpTime(0x1112_1314_1516_1718),
        rtp_timestamp: 0x2122_2324,
        packets: 0x3132_3334,
        octets: 0x4142_4344,
    };
    let mut out = b"before".to_vec();

    write_sender_report(&info, "cam", &mut out);

    #[rustfmt::skip]
    let expected = [
        0x80, 200, 0, 6,
        0x01, 0x02, 0x03, 0x04,
        0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
        0x21, 0x22, 0x23, 0x24,
        0x31, 0x32, 0x33, 0x34,
        0x41, 0x42, 0x43, 0x44,
        0x81, 202, 0, 3,
        0x01, 0x02, 0x03, 0x04,
        1, 3, b'c', b'a',
        b'm', 0, 0, 0,
    ];
    assert_eq!(&out[..6], b"before");
    assert_eq!(&out[6..], expected);
    assert_eq!(compact_ntp(info.ntp), 0x1314_1516);
}

#[test]
fn a_bye_is_written_as_the_rfc_draws_it() {
    let mut out = Vec::new();

    write_bye(&[0x0102_0304, 0x0506_0708], "gone", &mut out);

    #[rustfmt::skip]
    let expected = [
        0x80, 201, 0, 1,
        0x01, 0x02, 0x03, 0x04,
        0x82, 203, 0, 4,
        0x01, 0x02, 0x03, 0x04,
        0x05, 0x06, 0x07, 0x08,
        4, b'g', b'o', b'n',
        b'e', 0, 0, 0,
    ];
    assert_eq!(out, expected);
    assert_eq!(parse(&out), Ok(vec![Feedback::Bye]));
}

#[test]
fn a_bye_without_sources_or_reason_says_no_more_than_it_must() {
    let mut out = Vec::new();
    write_bye(&[], "gone", &mut out);
    assert!(out.is_empty());

    write_bye(&[1], "", &mut out);
    assert_eq!(out, [0x80, 201, 0, 1, 0, 0, 0, 1, 0x81, 203, 0, 1, 0, 0, 0, 1]);

    out.clear();
    write_bye(&[1; 40], "", &mut out);
    assert_eq!(parse(&out), Ok(vec![Feedback::Bye; 2]), "31 sources are one packet's bound");
}

#[test]
fn arrivals_are_read_from_all_kinds_of_chunks() {
    // As in the figures of the draft, §3.1: a run, one-bit statuses, two-bit statuses.
    let entries = [
        &[0xff, 0xfe, 0, 19][..],
        &[0, 0, 1, 7],
        &[0x20, 2],
        &[0b1011_0000, 0],
        &[0b1101_1000, 0],
        &[4, 8, 4, 0, 4, 0xff, 0xfe],
        &[0; 3],
    ]
    .concat();

    let found = parse(&feedback(TRANSPORT_FEEDBACK, 15, &entries));

    let mut arrivals = vec![None; 19];
    arrivals[..4].copy_from_slice(&[Some(260), Some(268), Some(272), Some(272)]);
    arrivals[16..18].copy_from_slice(&[Some(276), Some(274)]);
    let transport = TransportFeedback { first_sequence: 0xfffe, arrivals };
    assert_eq!(found, Ok(vec![Feedback::Transport(transport)]));
}

/// As str0m wrote it, with three bytes of padding, which libwebrtc does as well.
#[test]
fn transport_feedback_may_be_padded_to_the_word() {
    let packet = [
        0xaf, 0xcd, 0, 8, 0x0c, 0x62, 0x17, 0xb2, 0x0d, 0xc7, 0x5a, 0xa0, 0, 0x17, 0, 0x0b, 0, 0,
        1, 2, 0x20, 0x0b, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3,
    ];
    let arrivals = vec![Some(0x140); 11];
    let transport = TransportFeedback { first_sequence: 0x17, arrivals };
    assert_eq!(parse(&packet), Ok(vec![Feedback::Transport(transport)]));
}

#[test]
fn a_few_bytes_that_claim_thousands_of_packets_are_cut() {
    let runs = [[0x1f, 0xff]; 8].concat();
    let entries = [&[0, 0, 0xff, 0xf8, 0, 0, 0, 0][..], &runs].concat();
    let found = parse(&feedback(TRANSPORT_FEEDBACK, 15, &entries)).unwrap();
    assert_eq!(found.iter().map(arrivals_len).sum::<usize>(), MAX_TRANSPORT_PACKETS);
}

proptest! {
    /// Against an independent writer of the format.
    #[test]
    fn arrivals_come_back(
        first in any::<u16>(),
        reference in 0u32..1 << 24,
        deltas in prop::collection::vec(prop::option::weighted(0.8, -600i32..600), 1..200),
        two_bits in any::<bool>(),
    ) {
        let mut time = reference << 8;
        let expected: Vec<Option<u32>> = deltas
            .iter()
            .map(|delta| delta.map(|delta| {
                time = time.wrapping_add_signed(delta);
                time
            }))
            .collect();
        let entries = transport_entries(first, reference, &deltas, two_bits);
        let found = parse(&feedback(TRANSPORT_FEEDBACK, 15, &entries));
        let transport = TransportFeedback { first_sequence: first, arrivals: expected };
        prop_assert_eq!(found, Ok(vec![Feedback::Transport(transport)]));
    }

    #[test]
    fn nothing_makes_the_parser_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&noise);
    }

    /// Well-formed headers, so that the bodies are reached.
    #[test]
    fn neither_does_a_wrong_body(
        packets in prop::collection::vec(
            (0u8..64, 198u8..210, prop::collection::vec(any::<u8>(), 0..80)),
            1..20,
        ),
        cut in any::<prop::sample::Index>(),
    ) {
        let compound: Vec<u8> = packets
            .iter()
            .flat_map(|(count, packet_type, body)| {
                packet_of(*count, *packet_type, &body[..body.len() / 4 * 4])
            })
            .collect();
        for bytes in [compound.as_slice(), &compound[..cut.index(compound.len())]] {
            let Ok(found) = parse(bytes) else { continue };
            prop_assert!(found.len() <= MAX_FEEDBACK_ENTRIES);
            prop_assert!(found.iter().map(lost_len).sum::<usize>() <= MAX_LOST_ENTRIES);
            prop_assert!(found.iter().map(arrivals_len).sum::<usize>() <= MAX_TRANSPORT_PACKETS);
        }
    }

    #[test]
    fn report_blocks_come_back(blocks in prop::collection::vec(any_block(), 0..31)) {
        let packet = report(RECEIVER_REPORT, &[], &blocks);
        let expected: Vec<_> = blocks.into_iter().map(Feedback::Report).collect();
        prop_assert_eq!(parse(&packet), Ok(expected));
    }

    #[test]
    fn what_we_write_is_well_formed(
        text in ".{0,300}",
        ssrcs in prop::collection::vec(any::<u32>(), 1..70),
        ntp in any::<u64>(),
    ) {
        let info = SenderInfo {
            ssrc: ssrcs[0],
            ntp: NtpTime(ntp),
            rtp_timestamp: 1,
            packets: 2,
            octets: 3,
        };
        let mut out = Vec::new();
        write_sender_report(&info, &text, &mut out);
        let (cname_len, cname) = (usize::from(out[37]), &out[38..]);
        prop_assert_eq!(out.len() % 4, 0);
        prop_assert_eq!(&cname[..cname_len], &text.as_bytes()[..cname_len]);
        prop_assert!(cname_len == text.len() || cname_len > 255 - 4);
        prop_assert!((1..=4).contains(&cname[cname_len..].len()));
        prop_assert!(cname[cname_len..].iter().all(|byte| *byte == 0));
        prop_assert_eq!(parse(&out), Ok(vec![]));

        out.clear();
        write_bye(&ssrcs, &text, &mut out);
        prop_assert_eq!(parse(&out), Ok(vec![Feedback::Bye; ssrcs.len().div_ceil(31)]));
    }
}

fn any_block() -> impl Strategy<Value = ReportBlock> {
    (any::<[u32; 5]>(), any::<u8>(), -(1i32 << 23)..1 << 23).prop_map(
        |([ssrc, highest_sequence, jitter, last, delay], fraction_lost, cumulative_lost)| {
            ReportBlock {
                ssrc,
                fraction_lost,
                cumulative_lost,
                highest_sequence,
                jitter,
                last_sender_report: last,
                delay_since_last: delay,
            }
        },
    )
}

fn some_block(ssrc: u32) -> ReportBlock {
    ReportBlock {
        ssrc,
        fraction_lost: 128,
        cumulative_lost: 1_000,
        highest_sequence: 0x0001_fffe,
        jitter: 90,
        last_sender_report: 0xaabb_ccdd,
        delay_since_last: 65_536,
    }
}

fn lost_len(entry: &Feedback) -> usize {
    match entry {
        Feedback::Nack { lost, .. } => lost.len(),
        Feedback::Report(_)
        | Feedback::PictureLoss { .. }
        | Feedback::FullIntra { .. }
        | Feedback::EstimatedBitrate { .. }
        | Feedback::Transport(_)
        | Feedback::Bye => 0,
    }
}

fn arrivals_len(entry: &Feedback) -> usize {
    match entry {
        Feedback::Transport(transport) => transport.arrivals.len(),
        Feedback::Report(_)
        | Feedback::Nack { .. }
        | Feedback::PictureLoss { .. }
        | Feedback::FullIntra { .. }
        | Feedback::EstimatedBitrate { .. }
        | Feedback::Bye => 0,
    }
}

fn report(packet_type: u8, sender_info: &[u8], blocks: &[ReportBlock]) -> Vec<u8> {
    let mut body = [THEIRS.to_be_bytes().as_slice(), sender_info].concat();
    for block in blocks {
        body.extend_from_slice(&block.ssrc.to_be_bytes());
        body.push(block.fraction_lost);
        body.extend_from_slice(&block.cumulative_lost.to_be_bytes()[1..]);
        body.extend_from_slice(&block.highest_sequence.to_be_bytes());
        body.extend_from_slice(&block.jitter.to_be_bytes());
        body.extend_from_slice(&block.last_sender_report.to_be_bytes());
        body.extend_from_slice(&block.delay_since_last.to_be_bytes());
    }
    packet_of(blocks.len() as u8, packet_type, &body)
}

fn feedback(packet_type: u8, format: u8, entries: &[u8]) -> Vec<u8> {
    let ssrcs = [THEIRS.to_be_bytes(), OURS.to_be_bytes()].concat();
    packet_of(format, packet_type, &[ssrcs.as_slice(), entries].concat())
}

/// Two-bit statuses, or runs of one.
fn transport_entries(
    first: u16,
    reference: u32,
    deltas: &[Option<i32>],
    two_bits: bool,
) -> Vec<u8> {
    let mut out = first.to_be_bytes().to_vec();
    out.extend((deltas.len() as u16).to_be_bytes());
    out.extend((reference << 8 | 1).to_be_bytes());
    let status = |delta: &Option<i32>| match delta {
        None => 0u16,
        Some(0..=255) => 1,
        Some(_) => 2,
    };
    if two_bits {
        for seven in deltas.chunks(7) {
            let bits = seven.iter().enumerate().map(|(at, delta)| status(delta) << (12 - 2 * at));
            out.extend((0xc000 | bits.sum::<u16>()).to_be_bytes());
        }
    } else {
        out.extend(deltas.iter().flat_map(|delta| (status(delta) << 13 | 1).to_be_bytes()));
    }
    for delta in deltas.iter().flatten() {
        match *delta {
            0..=255 => out.push(*delta as u8),
            large => out.extend((large as i16).to_be_bytes()),
        }
    }
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// `count` may reach into the padding bit.
fn packet_of(count: u8, packet_type: u8, body: &[u8]) -> Vec<u8> {
    assert_eq!(body.len() % 4, 0, "a packet is whole words");
    let words = ((body.len() / 4) as u16).to_be_bytes();
    [&[0x80 | count, packet_type, words[0], words[1]], body].concat()
}

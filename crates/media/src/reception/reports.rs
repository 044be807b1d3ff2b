//! RTCP as a receiver reads and writes it (RFC 3550 §6.4, RFC 4585 §6.3.1, REMB).

use crate::frame::NtpTime;
use crate::rtcp::ReportBlock;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const BYE: u8 = 203;
const PAYLOAD_FEEDBACK: u8 = 206;
const FORMAT_PICTURE_LOSS: u8 = 1;
const FORMAT_APPLICATION: u8 = 15;

/// What a sender tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Which moment a timestamp of its stream stands for.
    Time { ssrc: u32, ntp: NtpTime, rtp_timestamp: u32 },
    /// It leaves.
    Bye,
}

/// Reads a compound packet as far as it is well formed, and calls `tell` for what is of use.
pub(super) fn read(mut compound: &[u8], mut tell: impl FnMut(Told)) {
    while let Some(header) = compound.first_chunk::<4>() {
        let len = 4 * (usize::from(u16::from_be_bytes([header[2], header[3]])) + 1);
        let Some((packet, rest)) = compound.split_at_checked(len) else { return };
        match header[1] {
            SENDER_REPORT => {
                if let Some(told) = sender_time(packet) {
                    tell(told);
                }
            }
            BYE => tell(Told::Bye),
            _ => {}
        }
        compound = rest;
    }
}

fn sender_time(packet: &[u8]) -> Option<Told> {
    let word = |at: usize| packet.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word));
    let ntp = NtpTime(u64::from(word(8)?) << 32 | u64::from(word(12)?));
    Some(Told::Time { ssrc: word(4)?, ntp, rtp_timestamp: word(16)? })
}

/// Appends a receiver report from `own` (RFC 3550 §6.4.2); at most 31 blocks.
pub(super) fn write_report(own: u32, blocks: &[ReportBlock], out: &mut Vec<u8>) {
    let blocks = &blocks[..blocks.len().min(31)];
    let words = (1 + 6 * blocks.len()) as u16;
    out.extend([0x80 | blocks.len() as u8, RECEIVER_REPORT]);
    out.extend(words.to_be_bytes());
    out.extend(own.to_be_bytes());
    for block in blocks {
        out.extend(block.ssrc.to_be_bytes());
        let lost = block.cumulative_lost.clamp(-(1 << 23), (1 << 23) - 1) as u32 & 0x00ff_ffff;
        out.extend((u32::from(block.fraction_lost) << 24 | lost).to_be_bytes());
        out.extend(block.highest_sequence.to_be_bytes());
        out.extend(block.jitter.to_be_bytes());
        out.extend(block.last_sender_report.to_be_bytes());
        out.extend(block.delay_since_last.to_be_bytes());
    }
}

/// Appends REMB (draft-alvestrand-rmcat-remb §2.2) for one stream, `bitrate` in bits a second.
pub(super) fn write_estimate(own: u32, ssrc: u32, bitrate: u64, out: &mut Vec<u8>) {
    // An 18-bit mantissa: shift out what does not fit.
    let exponent = (64 - bitrate.leading_zeros()).saturating_sub(18);
    let packed = 1 << 24 | exponent << 18 | (bitrate >> exponent) as u32;
    out.extend([0x80 | FORMAT_APPLICATION, PAYLOAD_FEEDBACK, 0, 5]);
    out.extend(own.to_be_bytes());
    out.extend([0; 4]);
    out.extend(b"REMB");
    out.extend(packed.to_be_bytes());
    out.extend(ssrc.to_be_bytes());
}

/// Appends a picture loss indication (RFC 4585 §6.3.1).
pub(super) fn write_picture_loss(own: u32, ssrc: u32, out: &mut Vec<u8>) {
    out.extend([0x80 | FORMAT_PICTURE_LOSS, PAYLOAD_FEEDBACK, 0, 2]);
    out.extend(own.to_be_bytes());
    out.extend(ssrc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rtcp::{Feedback, SenderInfo, parse, write_bye, write_sender_report};

    #[test]
    fn what_is_written_the_server_reads() {
        let block = ReportBlock {
            ssrc: 7,
            fraction_lost: 3,
            cumulative_lost: -2,
            highest_sequence: 70_000,
            jitter: 12,
            last_sender_report: 0x1234_5678,
            delay_since_last: 99,
        };
        let mut out = Vec::new();
        write_report(1, &[block], &mut out);
        write_estimate(1, 7, 50_000_000, &mut out);
        write_picture_loss(1, 7, &mut out);
        let read = parse(&out).unwrap();
        assert_eq!(read[0], Feedback::Report(block));
        // The mantissa has 18 bits.
        let Feedback::EstimatedBitrate { bitrate } = read[1] else { panic!("{:?}", read[1]) };
        assert!((49_999_000..=50_000_000).contains(&bitrate), "{bitrate}");
        assert_eq!(read[2], Feedback::PictureLoss { ssrc: 7 });
    }

    #[test]
    fn what_the_server_writes_is_read() {
        let info = SenderInfo {
            ssrc: 7,
            ntp: NtpTime(0x1122_3344_5566_7788),
            rtp_timestamp: 90_000,
            packets: 1,
            octets: 2,
        };
        let mut compound = Vec::new();
        write_sender_report(&info, "cname", &mut compound);
        write_bye(&[7], "done", &mut compound);
        let mut told = Vec::new();
        read(&compound, |one| told.push(one));
        let time = Told::Time { ssrc: 7, ntp: info.ntp, rtp_timestamp: 90_000 };
        assert_eq!(told, [time, Told::Bye]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            read(&bytes, |_| {});
        }
    }
}

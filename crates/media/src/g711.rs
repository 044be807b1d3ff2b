//! G.711 in RTP (RFC 3551 §4.5.14): one packet, one payload, one byte a sample.

use crate::frame::{Frame, NtpTime, PacketisedFrame};

/// Longest sound in one packet, in samples: 60 ms. Cameras send up to 256 ms at once, which would
/// neither fit a payload nor suit a browser's jitter buffer.
const MAX_SAMPLES: usize = 480;

/// One packet, one payload; none if it is empty or larger than
/// [`MAX_PAYLOAD`](crate::frame::MAX_PAYLOAD). Sources [`split`] their sound, so it never is.
pub fn packetise(frame: &Frame) -> PacketisedFrame {
    PacketisedFrame::single(frame)
}

/// Cuts a camera's packet into frames of at most 60 ms, with their times moved on.
pub fn split(frame: &Frame) -> Vec<Frame> {
    let mut frames = Vec::new();
    for unit in &frame.units {
        for start in (0..unit.len()).step_by(MAX_SAMPLES) {
            let end = unit.len().min(start + MAX_SAMPLES);
            let offset = start as u64;
            frames.push(Frame {
                ticks: frame.ticks.wrapping_add(offset),
                captured: NtpTime(frame.captured.0.wrapping_add((offset << 32).div_ceil(8_000))),
                discontinuity: frame.discontinuity && frames.is_empty(),
                units: vec![unit.slice(start..end)],
                forwarded: None,
                ..*frame
            });
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::frame::Codec;

    #[test]
    fn a_long_packet_becomes_several_with_their_times() {
        let frame = frame(1000);
        let parts = split(&frame);

        let lengths: Vec<_> = parts.iter().map(|part| part.units[0].len()).collect();
        let ticks: Vec<_> = parts.iter().map(|part| part.ticks).collect();
        let micros: Vec<_> = parts.iter().map(|part| part.captured.unix_micros()).collect();
        assert_eq!(lengths, [480, 480, 40]);
        assert_eq!(ticks, [7, 487, 967]);
        assert_eq!(micros, [1_000_000, 1_060_000, 1_120_000]);
        assert_eq!(parts.iter().filter(|part| part.discontinuity).count(), 1);
        assert!(parts[0].discontinuity);
    }

    #[test]
    fn one_packet_is_one_payload_and_an_empty_one_none() {
        assert_eq!(packetise(&frame(160)).payload(0).len(), 160);
        assert_eq!(packetise(&frame(0)).packet_count(), 0);
        assert_eq!(packetise(&frame(1161)).packet_count(), 0);
        assert!(split(&frame(0)).is_empty());
    }

    fn frame(samples: usize) -> Frame {
        Frame {
            forwarded: None,
            codec: Codec::Pcma,
            ticks: 7,
            captured: NtpTime::from_unix_micros(1_000_000),
            keyframe: true,
            discontinuity: true,
            units: vec![Bytes::from(vec![0xd5; samples])],
        }
    }
}

//! Frames of MPEG-1 Layer III (ISO/IEC 11172-3 §2.4): where one ends and the next begins.

use bytes::{Bytes, BytesMut};

/// Samples a second and channel. Every player knows this rate.
pub(super) const SAMPLE_RATE: usize = 44_100;

/// Left and right.
pub(super) const CHANNELS: usize = 2;

/// Samples a channel that a frame holds.
pub(super) const FRAME_SAMPLES: usize = 1_152;

/// How long frame `number`, counted from 0, begins after the first.
pub(super) fn frame_time(number: u64) -> std::time::Duration {
    let nanos = u128::from(number) * FRAME_SAMPLES as u128 * 1_000_000_000 / SAMPLE_RATE as u128;
    // 64 bits of nanoseconds are 584 years.
    std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How many frames begin within `time`.
pub(super) fn frames_within(time: std::time::Duration) -> u64 {
    let frames = time.as_nanos() * SAMPLE_RATE as u128 / (FRAME_SAMPLES as u128 * 1_000_000_000);
    u64::try_from(frames).unwrap_or(u64::MAX)
}

/// Cuts what an encoder writes into whole frames.
#[derive(Debug, Default)]
pub(super) struct FrameCutter {
    /// Less than one frame between calls.
    rest: BytesMut,
}

impl FrameCutter {
    /// The frames that `written` completes. What is no frame is passed over.
    pub(super) fn cut(&mut self, written: &[u8]) -> Vec<Bytes> {
        self.rest.extend_from_slice(written);
        let mut frames = Vec::new();
        while let Some(header) = self.rest.first_chunk::<4>() {
            match frame_length(*header) {
                Some(length) if length <= self.rest.len() => {
                    frames.push(self.rest.split_to(length).freeze());
                }
                Some(_) => break,
                None => drop(self.rest.split_to(1)),
            }
        }
        frames
    }
}

/// Bytes of the frame that begins with this header, which is one of our own encoder's:
///
/// ```text
/// 11111111 1111 1 01 1  kkkk ff p -  mm------
///          sync    layer III, no CRC
/// ```
/// `k` kilobits, `f` sample rate, `p` padded by one byte, `m` channel mode (11: one channel).
fn frame_length(header: [u8; 4]) -> Option<usize> {
    const KILOBITS: [usize; 16] =
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0];
    let is_ours = header[0] == 0xff && header[1] == 0xfb && header[2] & 0b1100 == 0;
    let kilobits = KILOBITS[usize::from(header[2] >> 4)];
    let padding = usize::from(header[2] >> 1 & 1);
    (is_ours && kilobits > 0).then(|| FRAME_SAMPLES / 8 * 1000 * kilobits / SAMPLE_RATE + padding)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A frame of 128 kbit/s, padded or not.
    fn frame(padding: u8) -> Vec<u8> {
        let mut frame = vec![0; 417 + usize::from(padding)];
        frame[..4].copy_from_slice(&[0xff, 0xfb, 0x90 | padding << 1, 0x64]);
        frame
    }

    #[test]
    fn frames_are_cut_wherever_the_encoder_stops_writing() {
        let stream = [frame(0), frame(1), frame(1)].concat();
        for step in [1, 4, 416, 417, 500, stream.len()] {
            let mut cutter = FrameCutter::default();
            let frames: Vec<Bytes> =
                stream.chunks(step).flat_map(|part| cutter.cut(part)).collect();
            assert_eq!(frames, [frame(0), frame(1), frame(1)], "in steps of {step}");
            assert!(cutter.rest.is_empty());
        }
    }

    #[test]
    fn what_is_no_frame_is_passed_over() {
        let stream = [b"ID3".to_vec(), frame(0), vec![0xff, 0xfb, 0xf0], frame(1)].concat();
        assert_eq!(FrameCutter::default().cut(&stream), [frame(0), frame(1)]);
    }

    #[test]
    fn frames_keep_time_for_ever() {
        assert_eq!(frame_time(0), Duration::ZERO);
        assert_eq!(frame_time(1).as_micros(), 26_122);
        assert_eq!(frame_time(1_225), Duration::from_secs(32));
        assert_eq!(frame_time(1_225 * 1_000_000), Duration::from_secs(32_000_000));
        assert_eq!(frames_within(Duration::from_secs(32)), 1_225);
        assert_eq!(frames_within(Duration::from_millis(26)), 0);
    }
}

//! What a synthetic camera sounds like: a soft beep on every second, else silence.

use std::f32::consts::TAU;

use bytes::Bytes;

use crate::ingest::opus::{FRAME_MS, OpusEncoder, OpusError};

/// Samples a second, which is also the RTP clock of Opus.
pub(super) const SAMPLE_RATE: u32 = 48_000;
/// Samples in a packet.
pub(super) const FRAME_SAMPLES: u32 = SAMPLE_RATE * FRAME_MS / 1000;
/// Packets a second.
pub(super) const FRAME_RATE: u32 = 1000 / FRAME_MS;

const FREQUENCY: f32 = 440.0;
const BEEP_SAMPLES: u32 = SAMPLE_RATE / 10;
/// Swell and fade of the beep: 5 ms, so that it does not click.
const FADE_SAMPLES: u32 = SAMPLE_RATE / 200;
/// A fifth of full scale, -14 dB.
const AMPLITUDE: f32 = 6_500.0;

/// Makes the sound of one synthetic camera.
pub(super) struct Tone {
    encoder: OpusEncoder,
}

impl Tone {
    pub(super) fn new() -> Result<Self, OpusError> {
        Ok(Self { encoder: OpusEncoder::new(SAMPLE_RATE, 1)? })
    }

    /// The packet whose first sample is heard at `unix_micros`.
    pub(super) fn encode(&mut self, unix_micros: u64) -> Result<Bytes, OpusError> {
        let first = unix_micros % 1_000_000 * u64::from(SAMPLE_RATE) / 1_000_000;
        let samples: Vec<i16> =
            (0..FRAME_SAMPLES).map(|index| sample((first as u32 + index) % SAMPLE_RATE)).collect();
        self.encoder.encode(&samples)
    }
}

/// The sample at a place in a second.
fn sample(at: u32) -> i16 {
    if at >= BEEP_SAMPLES {
        return 0;
    }
    let fade = at.min(BEEP_SAMPLES - at).min(FADE_SAMPLES) as f32 / FADE_SAMPLES as f32;
    let phase = at as f32 / SAMPLE_RATE as f32 * FREQUENCY;
    (AMPLITUDE * fade * (TAU * phase).sin()) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beep_starts_and_ends_softly_and_is_silent_between() {
        let loudest = |range: std::ops::Range<u32>| range.map(|at| sample(at).abs()).max();
        assert!(loudest(0..20) < Some(600));
        assert!(loudest(1_000..3_000) > Some(6_000));
        assert!(loudest(4_780..4_800) < Some(600));
        assert_eq!(loudest(4_800..48_000), Some(0));
    }

    #[test]
    fn a_second_of_sound_is_small() {
        let mut tone = Tone::new().unwrap();
        let sizes: Vec<_> = (0..u64::from(FRAME_RATE))
            .map(|index| tone.encode(1_795_000_000_000_000 + index * 20_000).unwrap().len())
            .collect();
        assert!(sizes.iter().all(|size| *size > 0));
        assert!(sizes.iter().sum::<usize>() < 4_000, "{sizes:?}");
    }
}

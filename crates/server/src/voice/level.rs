//! How loud a voice is, for senders that do not say so themselves (RFC 6464): by decoding.

use media::AudioLevel;

use crate::ingest::opus::OpusDecoder;

/// Samples a second that are looked at. Speech has its power below 4 kHz, and a decoder that gives
/// less costs less.
const SAMPLE_RATE: u32 = 16_000;

/// Measures one voice, packet by packet.
#[derive(Debug)]
pub(crate) struct LevelMeter {
    /// `None`: there is no memory for one, and no levels.
    decoder: Option<OpusDecoder>,
}

impl LevelMeter {
    /// For one stream of packets.
    pub(crate) fn new() -> Self {
        Self { decoder: OpusDecoder::new(SAMPLE_RATE, 1).ok() }
    }

    /// How loud the packet is as a whole: its power below that of the loudest square wave (RFC 6464
    /// §3, RFC 6465 §3). Whether somebody speaks is not known. `None`: it is no packet of Opus.
    pub(crate) fn level(&mut self, opus_packet: &[u8]) -> Option<AudioLevel> {
        let samples = self.decoder.as_mut()?.decode(opus_packet).ok()?;
        let power: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
        let decibels = 10.0 * (power / samples.len().max(1) as f64).log10();
        // Of silence it is minus infinity.
        let loudest = f64::from(AudioLevel::SILENCE.below_full);
        Some(AudioLevel { below_full: (-decibels).round().clamp(0.0, loudest) as u8, voice: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::opus::OpusEncoder;

    /// The level of the last of some packets of a square wave, which is as loud as its amplitude.
    fn level_of(amplitude: i16) -> AudioLevel {
        let mut encoder = OpusEncoder::new(48_000, 1).unwrap();
        let mut meter = LevelMeter::new();
        let wave =
            |sample: usize| if (sample / 120).is_multiple_of(2) { amplitude } else { -amplitude };
        let levels = (0..20).map(|packet| {
            let pcm: Vec<i16> = (0..960).map(|sample| wave(packet * 960 + sample)).collect();
            meter.level(&encoder.encode(&pcm).unwrap()).unwrap()
        });
        levels.last().unwrap()
    }

    #[test]
    fn a_square_wave_is_as_loud_as_its_amplitude() {
        for (amplitude, decibels) in [(32_767, 0_u8), (3_277, 20), (328, 40)] {
            let level = level_of(amplitude);
            let is_near = level.below_full.abs_diff(decibels) <= 1;
            assert!(is_near, "{amplitude}: {level:?} and not {decibels}");
            assert_eq!(level.voice, None);
        }
    }

    #[test]
    fn silence_is_silence_and_no_packet_has_no_level() {
        assert_eq!(level_of(0), AudioLevel::SILENCE);
        assert_eq!(LevelMeter::new().level(&[]), None);
        // Two frames of unequal length (RFC 6716 §3.2.4), and then nothing.
        assert_eq!(LevelMeter::new().level(&[2]), None);
    }
}

//! AAC from a camera, re-encoded to Opus, because no browser takes AAC over RTP.
//!
//! Sound is decoded, resampled where Opus does not know the rate, cut into frames of 20 ms and
//! encoded. Timestamps stay exact: a packet's ticks are those of the AAC samples in it. All of it
//! costs about 0.2 ms of CPU for 20 ms of sound, so it runs inline in the camera's task; handing it
//! to another thread would cost more than it saves. This module reads no clock.

use bytes::Bytes;
use rubato::audioadapter_buffers::owned::InterleavedOwned;
use rubato::{Fft, FixedSync, Resampler};
use symphonia_codec_aac::AacDecoder;
use symphonia_core::codecs::audio::well_known::CODEC_ID_AAC;
use symphonia_core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia_core::packet::PacketRef;
use symphonia_core::units::{Duration, Timestamp};

use super::opus::{FRAME_MS, OpusEncoder, OpusError};

/// Ticks a second of Opus in RTP, whatever the sound's rate (RFC 7587 §4.1).
pub(super) const OPUS_CLOCK_RATE: u32 = 48_000;

/// Ticks of one Opus packet.
const PACKET_TICKS: i64 = (OPUS_CLOCK_RATE / 1000 * FRAME_MS) as i64;

/// Rates that Opus takes as they are (RFC 6716 §2).
const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// Samples a channel in a frame of AAC-LC, the only kind that is decoded.
const AAC_SAMPLES: u32 = 1024;

/// Timestamps that wander by less are the camera's jitter when no packet was lost: some cameras
/// stamp sound by their wall clock, late by a frame or two. In ticks: 60 ms.
const JITTER_MAX: i64 = 2_880;

/// A gap up to this is filled with silence, so that a viewer's playout buffer stays in step; a longer
/// one moves the timestamps. In ticks: 200 ms.
const FILL_MAX: i64 = 9_600;

/// Averaged error between timestamps and samples that is left alone. Nobody hears or sees 5 ms.
const DRIFT_MIN: i64 = 240;

/// Frames over which that error is averaged, about 0.7 s.
const DRIFT_FRAMES: i64 = 32;

/// Keeps sums of a few times far from overflow, whatever a camera sends.
const TICKS_MAX: i128 = 1 << 60;

/// Why a camera's sound cannot be passed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum AudioError {
    /// Not AAC-LC with one or two channels, or a broken configuration.
    #[error("its AAC cannot be decoded: {0}")]
    Decoder(#[from] symphonia_core::errors::Error),
    /// The decoder does not say what it decodes.
    #[error("its AAC names no sample rate or channels")]
    Unspecified,
    /// No ratio for this rate.
    #[error("its sound cannot be resampled: {0}")]
    Resampler(#[from] rubato::ResamplerConstructionError),
    /// See [`OpusError`].
    #[error(transparent)]
    Encoder(#[from] OpusError),
}

/// One packet of sound as viewers get it: Opus from here, G.711 as the camera sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SoundPacket {
    /// Time of its first sample, in ticks of its codec's RTP clock ([`OPUS_CLOCK_RATE`] for Opus); the
    /// same origin as the camera's.
    pub(super) ticks: i64,
    /// The ticks have no relation to earlier packets.
    pub(super) restarted: bool,
    /// The payload.
    pub(super) data: Bytes,
}

/// Turns one camera's AAC into Opus.
pub(super) struct AacToOpus {
    /// RTP ticks a second of the camera's track.
    clock_rate: u32,
    decoder: AacDecoder,
    resampler: Option<Fft<f32>>,
    timeline: Timeline,
    cutter: Cutter,
    /// Decoded samples of one frame, kept for their allocation.
    decoded: Vec<f32>,
}

impl AacToOpus {
    /// For a track with this AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1) and RTP clock.
    pub(super) fn new(config: &[u8], clock_rate: u32) -> Result<Self, AudioError> {
        let mut parameters = AudioCodecParameters::new();
        parameters.for_codec(CODEC_ID_AAC).with_extra_data(config.into());
        let decoder = AacDecoder::try_new(&parameters, &AudioDecoderOptions::default())?;
        let decoded = decoder.codec_params();
        let channels = decoded.channels.as_ref().map_or(0, |channels| channels.count());
        let rate = decoded.sample_rate.filter(|rate| *rate > 0).ok_or(AudioError::Unspecified)?;
        let channels = u8::try_from(channels).map_err(|_many| AudioError::Unspecified)?;

        let resampler = match OPUS_RATES.contains(&rate) {
            true => None,
            false => Some(new_resampler(rate, channels)?),
        };
        let encoder_rate = if resampler.is_some() { OPUS_CLOCK_RATE } else { rate };
        Ok(Self {
            clock_rate: clock_rate.max(1),
            decoder,
            resampler,
            timeline: Timeline::new(rate),
            cutter: Cutter::new(encoder_rate, channels)?,
            decoded: Vec::new(),
        })
    }

    /// The camera's RTP ticks in ticks of [`OPUS_CLOCK_RATE`].
    pub(super) fn ticks(&self, camera_ticks: i64) -> i64 {
        scale(camera_ticks, OPUS_CLOCK_RATE, self.clock_rate)
    }

    /// One AAC frame in, the packets that it completes out. `lost`: packets missing before it.
    pub(super) fn handle_frame(
        &mut self,
        camera_ticks: i64,
        lost: u16,
        data: &[u8],
    ) -> Vec<SoundPacket> {
        let mut packets = Vec::new();
        let ticks = self.ticks(camera_ticks);
        match self.timeline.judge(ticks, lost) {
            Continuity::Straight => {}
            Continuity::Gap(gap) => {
                let filled = self.cutter.fill(gap);
                self.timeline.shift(filled);
            }
            Continuity::Jump => {
                self.cutter.finish_packet(&mut packets);
                self.restart(ticks);
            }
            Continuity::Restart => {
                self.cutter.restarted = true;
                self.restart(ticks);
            }
        }
        // A frame that cannot be decoded is a gap before the next one.
        if self.decode(data) {
            self.timeline.advance();
            let slip = self.timeline.slip(ticks, self.cutter.ticks_per_sample());
            let slipped = self.cutter.push(&self.decoded, slip);
            self.timeline.shift(slipped);
        }
        self.cutter.cut(&mut packets);
        packets
    }

    /// Starts over with the first sample of the next frame at `ticks`.
    fn restart(&mut self, ticks: i64) {
        self.decoder.reset();
        let mut delay = 0;
        if let Some(resampler) = &mut self.resampler {
            resampler.reset();
            // What comes out first lies this much before what goes in; both are at 48 kHz here.
            delay = i64::try_from(resampler.output_delay()).unwrap_or(0);
        }
        self.timeline.restart(ticks);
        self.cutter.restart(ticks - delay);
    }

    /// Fills `decoded` with interleaved samples at the encoder's rate; false for broken data.
    fn decode(&mut self, data: &[u8]) -> bool {
        let packet =
            PacketRef::new(0, Timestamp::ZERO, Duration::from(u64::from(AAC_SAMPLES)), data);
        match self.decoder.decode_ref(&packet) {
            Ok(sound) => sound.copy_to_vec_interleaved(&mut self.decoded),
            Err(error) => {
                tracing::trace!(%error, "an AAC frame cannot be decoded");
                return false;
            }
        }
        let Some(resampler) = &mut self.resampler else { return true };
        match resample(resampler, std::mem::take(&mut self.decoded)) {
            Some(resampled) => self.decoded = resampled,
            None => return false,
        }
        true
    }
}

fn new_resampler(rate: u32, channels: u8) -> Result<Fft<f32>, AudioError> {
    let resampler = Fft::new(
        rate as usize,
        OPUS_CLOCK_RATE as usize,
        AAC_SAMPLES as usize,
        usize::from(channels),
        FixedSync::Input,
    )?;
    Ok(resampler)
}

/// One frame of interleaved samples in; what is ready at 48 kHz out, `None` if it is no whole frame.
fn resample(resampler: &mut Fft<f32>, samples: Vec<f32>) -> Option<Vec<f32>> {
    let channels = resampler.nbr_channels();
    let frame = InterleavedOwned::new_from(samples, channels, AAC_SAMPLES as usize).ok()?;
    let resampled = resampler.process(&frame, None).ok()?;
    Some(resampled.take_data())
}

/// How a frame's timestamp follows the frame before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Continuity {
    Straight,
    /// That many ticks are missing, few enough to fill.
    Gap(i64),
    /// Too much is missing to fill.
    Jump,
    /// The first frame, or time went back.
    Restart,
}

/// Compares the camera's timestamps with the samples counted.
#[derive(Debug)]
struct Timeline {
    /// Samples a second that the decoder gives.
    rate: u32,
    /// Ticks of sample 0; `None` before the first frame.
    origin: Option<i64>,
    samples: i64,
    /// Averaged timestamps minus counted samples, in ticks times [`DRIFT_FRAMES`].
    drift: i64,
}

impl Timeline {
    fn new(rate: u32) -> Self {
        Self { rate, origin: None, samples: 0, drift: 0 }
    }

    fn restart(&mut self, ticks: i64) {
        (self.origin, self.samples, self.drift) = (Some(ticks), 0, 0);
    }

    fn judge(&self, ticks: i64, lost: u16) -> Continuity {
        let Some(expected) = self.expected() else { return Continuity::Restart };
        // A lost frame shows as a gap of a whole frame; without loss it takes more to believe one.
        let half_a_frame = scale(i64::from(AAC_SAMPLES / 2), OPUS_CLOCK_RATE, self.rate);
        let gap_min = if lost > 0 { half_a_frame } else { JITTER_MAX };
        let error = ticks - expected;
        if error <= -JITTER_MAX {
            Continuity::Restart
        } else if error < gap_min {
            Continuity::Straight
        } else if error <= FILL_MAX {
            Continuity::Gap(error)
        } else {
            Continuity::Jump
        }
    }

    /// Ticks of the next sample by counting.
    fn expected(&self) -> Option<i64> {
        let counted = scale(self.samples, OPUS_CLOCK_RATE, self.rate);
        self.origin.map(|origin| origin + counted)
    }

    fn advance(&mut self) {
        self.samples += i64::from(AAC_SAMPLES);
    }

    /// Takes in the error of the frame just counted and says whether a sample is to be repeated
    /// (the camera's samples are too few for its timestamps), left out, or neither.
    fn slip(&mut self, ticks: i64, ticks_per_sample: i64) -> Slip {
        let frame = scale(i64::from(AAC_SAMPLES), OPUS_CLOCK_RATE, self.rate);
        let error = self.expected().map_or(0, |expected| ticks + frame - expected);
        self.drift += error - self.drift / DRIFT_FRAMES;
        let slack = DRIFT_MIN.max(ticks_per_sample);
        match self.drift / DRIFT_FRAMES {
            drift if drift > slack => Slip::Repeat,
            drift if drift < -slack => Slip::Omit,
            _ => Slip::None,
        }
    }

    /// Samples were added (or left out, negative) behind the counted ones.
    fn shift(&mut self, ticks: i64) {
        self.origin = self.origin.map(|origin| origin + ticks);
    }
}

/// What becomes of the last sample of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slip {
    None,
    Repeat,
    Omit,
}

/// Cuts samples into packets.
struct Cutter {
    encoder: OpusEncoder,
    rate: u32,
    channels: usize,
    /// Interleaved samples that wait for the rest of their packet: less than one packet and what
    /// one AAC frame and one filled gap add.
    samples: Vec<i16>,
    /// Ticks of the first of `samples`.
    start: i64,
    /// The next packet begins a new timeline.
    restarted: bool,
}

impl Cutter {
    fn new(rate: u32, channels: u8) -> Result<Self, OpusError> {
        let encoder = OpusEncoder::new(rate, channels)?;
        let channels = usize::from(channels);
        Ok(Self { encoder, rate, channels, samples: Vec::new(), start: 0, restarted: true })
    }

    fn ticks_per_sample(&self) -> i64 {
        i64::from(OPUS_CLOCK_RATE / self.rate)
    }

    fn restart(&mut self, ticks: i64) {
        self.samples.clear();
        self.start = ticks;
    }

    /// Appends silence; how many ticks it lasts.
    fn fill(&mut self, ticks: i64) -> i64 {
        let frames = ticks.clamp(0, FILL_MAX) / self.ticks_per_sample();
        let added = usize::try_from(frames).unwrap_or(0) * self.channels;
        self.samples.resize(self.samples.len() + added, 0);
        frames * self.ticks_per_sample()
    }

    /// Appends samples and slips the last one; how many ticks that moved.
    fn push(&mut self, samples: &[f32], slip: Slip) -> i64 {
        self.samples.extend(samples.iter().map(|sample| quantise(*sample)));
        let last = self.samples.len().saturating_sub(self.channels);
        match slip {
            Slip::None => 0,
            Slip::Repeat => {
                self.samples.extend_from_within(last..);
                self.ticks_per_sample()
            }
            Slip::Omit => {
                self.samples.truncate(last);
                -self.ticks_per_sample()
            }
        }
    }

    /// Encodes what makes whole packets.
    fn cut(&mut self, packets: &mut Vec<SoundPacket>) {
        let length = self.encoder.samples_per_frame();
        let whole = self.samples.len() - self.samples.len() % length;
        for frame in self.samples[..whole].chunks_exact(length) {
            match self.encoder.encode(frame) {
                Ok(data) => {
                    let restarted = std::mem::take(&mut self.restarted);
                    packets.push(SoundPacket { ticks: self.start, restarted, data });
                }
                Err(error) => tracing::debug!(%error, "20 ms of sound are lost"),
            }
            self.start += PACKET_TICKS;
        }
        self.samples.drain(..whole);
    }

    /// Completes a begun packet with silence.
    fn finish_packet(&mut self, packets: &mut Vec<SoundPacket>) {
        let length = self.encoder.samples_per_frame();
        self.samples.resize(self.samples.len().next_multiple_of(length), 0);
        self.cut(packets);
    }
}

fn quantise(sample: f32) -> i16 {
    // `as` saturates, and turns what is not a number into silence.
    (sample * f32::from(i16::MAX)).round() as i16
}

/// `value * to / from`, rounded down, within [`TICKS_MAX`].
fn scale(value: i64, to: u32, from: u32) -> i64 {
    let scaled = (i128::from(value) * i128::from(to)).div_euclid(i128::from(from));
    i64::try_from(scaled.clamp(-TICKS_MAX, TICKS_MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::opus::tests::{Decoder, power};
    use super::*;

    /// One second of AAC-LC: silence, and from 0.5 s on a tone of 440 Hz.
    struct Recording {
        rate: u32,
        channels: u8,
        config: Vec<u8>,
        frames: Vec<Vec<u8>>,
    }

    /// An encoder's first frame decodes to what lies before the sound.
    const PRIMING: i64 = AAC_SAMPLES as i64;

    /// What an Opus encoder looks ahead, and its decoder is late by, in ticks (6.5 ms).
    const LOOKAHEAD: i64 = 312;

    #[test]
    fn the_tone_begins_at_its_time_at_every_rate() {
        for recording in recordings() {
            let origin = 1_000_000_007;
            let mut transcoder = transcoder(&recording);
            let packets = play(&mut transcoder, &recording, origin, 0..recording.frames.len());

            let onset = onset_ticks(&recording, &packets);
            let begins = i64::from(recording.rate / 2) + PRIMING;
            let expected = transcoder.ticks(origin + begins) + LOOKAHEAD;
            assert!((onset - expected).abs() < 96, "{} Hz: {}", recording.rate, onset - expected);
        }
    }

    #[test]
    fn the_tone_stays_what_it_was() {
        for recording in recordings() {
            let mut transcoder = transcoder(&recording);
            let packets = play(&mut transcoder, &recording, 0, 0..recording.frames.len());

            let heard = decode(&recording, &packets);
            let settled = &heard[heard.len() * 3 / 5..];
            let (tone, beside) = (power(settled, 440.0, 48_000), power(settled, 1310.0, 48_000));
            assert!(tone > 1000.0 * beside, "{} Hz: {tone}, {beside}", recording.rate);
        }
    }

    #[test]
    fn packets_follow_each_other_without_a_seam() {
        for recording in recordings() {
            let mut transcoder = transcoder(&recording);
            let packets = play(&mut transcoder, &recording, 0, 0..recording.frames.len());

            assert!(packets.len() >= 48, "{} packets", packets.len());
            assert!(packets[0].restarted && packets[1..].iter().all(|packet| !packet.restarted));
            assert_eq!(steps(&packets), vec![PACKET_TICKS; packets.len() - 1]);
        }
    }

    #[test]
    fn a_lost_frame_becomes_silence_and_leaves_no_seam() {
        for recording in recordings() {
            let mut transcoder = transcoder(&recording);
            let mut packets = play(&mut transcoder, &recording, 0, 0..4);
            packets.extend(play(&mut transcoder, &recording, 0, 5..recording.frames.len()));

            assert_eq!(steps(&packets), vec![PACKET_TICKS; packets.len() - 1]);
            let onset = onset_ticks(&recording, &packets);
            let begins = i64::from(recording.rate / 2) + PRIMING;
            let expected = transcoder.ticks(begins) + LOOKAHEAD;
            assert!((onset - expected).abs() < 96, "{} Hz: {}", recording.rate, onset - expected);
        }
    }

    #[test]
    fn a_long_gap_moves_the_timestamps_but_is_no_restart() {
        let recording = recording_48();
        let mut transcoder = transcoder(&recording);
        let mut packets = play(&mut transcoder, &recording, 0, 0..4);
        packets.extend(play(&mut transcoder, &recording, 480_000, 4..40));

        assert!(packets[1..].iter().all(|packet| !packet.restarted));
        // Four frames are 4096 ticks: four packets and the begun one, completed with silence.
        assert_eq!(packets[4].ticks, 4 * PACKET_TICKS);
        assert_eq!(packets[5].ticks, 480_000 + 4 * i64::from(AAC_SAMPLES));
    }

    #[test]
    fn time_that_goes_back_is_a_restart() {
        let recording = recording_48();
        let mut transcoder = transcoder(&recording);
        let before = play(&mut transcoder, &recording, 9_000_000, 0..10);
        let after = play(&mut transcoder, &recording, 5_000, 10..20);

        assert!(before[0].restarted && after[0].restarted && !after[1].restarted);
        assert_eq!(after[0].ticks, 5_000 + 10 * i64::from(AAC_SAMPLES));
    }

    #[test]
    fn timestamps_that_drift_are_followed_without_a_seam() {
        let recording = recording_48();
        for drift_ppm in [-300, 300] {
            let mut transcoder = transcoder(&recording);
            let mut packets = Vec::new();
            let mut ticks = 0;
            for frame in 0..47 * 120_i64 {
                ticks = frame * i64::from(AAC_SAMPLES);
                ticks += ticks * drift_ppm / 1_000_000;
                packets.extend(transcoder.handle_frame(ticks, 0, &recording.frames[0]));
            }

            assert_eq!(steps(&packets), vec![PACKET_TICKS; packets.len() - 1]);
            let behind = ticks - packets[packets.len() - 1].ticks;
            assert!(behind.abs() < 1_500, "{drift_ppm} ppm: {behind} ticks after two minutes");
        }
    }

    #[test]
    fn a_broken_frame_is_a_gap() {
        let recording = recording_48();
        let mut transcoder = transcoder(&recording);
        let mut packets = play(&mut transcoder, &recording, 0, 0..4);
        packets.extend(transcoder.handle_frame(4 * i64::from(AAC_SAMPLES), 0, &[0xff; 40]));
        packets.extend(play(&mut transcoder, &recording, 0, 5..47));

        assert_eq!(steps(&packets), vec![PACKET_TICKS; packets.len() - 1]);
        assert!(packets.len() >= 46, "{} packets", packets.len());
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        // HE-AAC, 5.1 channels, nothing, a reserved rate.
        for config in [&[0x2b, 0x11, 0x88, 0x00][..], &[0x11, 0xb0], &[], &[0x16, 0x88]] {
            assert!(AacToOpus::new(config, 48_000).is_err(), "{config:x?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn jitter_leaves_no_seam(jitter in proptest::collection::vec(-1_000..1_000_i64, 47)) {
            let recording = recording_48();
            let mut transcoder = transcoder(&recording);
            let mut packets = Vec::new();
            for (index, late) in (0_i64..).zip(&jitter) {
                let ticks = index * i64::from(AAC_SAMPLES) + if index == 0 { 0 } else { *late };
                packets.extend(transcoder.handle_frame(ticks, 0, &recording.frames[0]));
            }
            prop_assert_eq!(steps(&packets), vec![PACKET_TICKS; packets.len() - 1]);
        }

        #[test]
        fn any_bytes_at_any_time_are_survived(
            frames in proptest::collection::vec(
                (any::<i32>(), any::<u16>(), proptest::collection::vec(any::<u8>(), 0..64)),
                1..20,
            ),
        ) {
            for recording in recordings() {
                let mut transcoder = transcoder(&recording);
                for (ticks, lost, data) in &frames {
                    transcoder.handle_frame(i64::from(*ticks), *lost, data);
                    transcoder.handle_frame(i64::MAX, *lost, &recording.frames[0]);
                }
            }
        }
    }

    fn transcoder(recording: &Recording) -> AacToOpus {
        AacToOpus::new(&recording.config, recording.rate).unwrap()
    }

    /// Feeds `frames` of a recording whose first sample lies at `origin`.
    fn play(
        transcoder: &mut AacToOpus,
        recording: &Recording,
        origin: i64,
        frames: std::ops::Range<usize>,
    ) -> Vec<SoundPacket> {
        let mut packets = Vec::new();
        for (place, index) in frames.enumerate() {
            let ticks = origin + index as i64 * i64::from(AAC_SAMPLES);
            let lost = u16::from(place == 0 && index > 0);
            packets.extend(transcoder.handle_frame(ticks, lost, &recording.frames[index]));
        }
        packets
    }

    fn steps(packets: &[SoundPacket]) -> Vec<i64> {
        packets.windows(2).map(|pair| pair[1].ticks - pair[0].ticks).collect()
    }

    /// What a browser hears, at 48 kHz, the first channel.
    fn decode(recording: &Recording, packets: &[SoundPacket]) -> Vec<i16> {
        let mut decoder = Decoder::new(OPUS_CLOCK_RATE, recording.channels);
        let channels = usize::from(recording.channels);
        let decoded = packets.iter().flat_map(|packet| {
            let sound = decoder.decode(&packet.data, PACKET_TICKS as usize * channels);
            sound.into_iter().step_by(channels).collect::<Vec<_>>()
        });
        decoded.collect()
    }

    fn onset_ticks(recording: &Recording, packets: &[SoundPacket]) -> i64 {
        let heard = decode(recording, packets);
        let loud = heard.iter().position(|sample| sample.abs() > 1_000).unwrap();
        packets[0].ticks + loud as i64
    }

    fn recording_48() -> Recording {
        parse_adts(include_bytes!("../../testdata/aac-48000-mono.adts"))
    }

    fn recordings() -> Vec<Recording> {
        let files: [&[u8]; 3] = [
            include_bytes!("../../testdata/aac-16000-mono.adts"),
            include_bytes!("../../testdata/aac-22050-mono.adts"),
            include_bytes!("../../testdata/aac-44100-stereo.adts"),
        ];
        files.into_iter().map(parse_adts).chain([recording_48()]).collect()
    }

    /// ADTS (ISO/IEC 13818-7 §6.2): seven bytes of header before each frame.
    fn parse_adts(mut file: &[u8]) -> Recording {
        let rates = [
            96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025,
            8_000,
        ];
        let rate_index = file[2] >> 2 & 0xf;
        let channels = (file[2] & 1) << 2 | file[3] >> 6;
        let mut frames = Vec::new();
        while !file.is_empty() {
            let length = usize::from(file[3] & 3) << 11
                | usize::from(file[4]) << 3
                | usize::from(file[5] >> 5);
            frames.push(file[7..length].to_vec());
            file = &file[length..];
        }
        let config = vec![2 << 3 | rate_index >> 1, (rate_index & 1) << 7 | channels << 3];
        Recording { rate: rates[usize::from(rate_index)], channels, config, frames }
    }
}

//! Encoding sound to Opus and decoding it: safe wrappers around `unsafe-libopus`.
//!
//! The `unsafe` that foreign encoders' interfaces demand stays in this file. Frames are encoded and packets decoded
//! one at a time, and nothing is kept back: resampling, cutting sound into frames and knowing what is
//! lost are the caller's.

use std::ptr::NonNull;

use bytes::Bytes;
use media::h264::MAX_PAYLOAD;
use unsafe_libopus::{
    OPUS_APPLICATION_AUDIO, OPUS_OK, OPUS_SET_BITRATE_REQUEST, OPUS_SET_COMPLEXITY_REQUEST,
    opus_decode_float, opus_decoder_create, opus_decoder_destroy, opus_encode, opus_encoder_create,
    opus_encoder_ctl, opus_encoder_destroy, opus_strerror,
};

/// How long the sound of one packet is, in milliseconds: what every WebRTC peer expects.
pub(crate) const FRAME_MS: u32 = 20;

/// Bits a second and channel. Speech and street noise are transparent at this rate in full band.
const BITRATE_PER_CHANNEL: i32 = 32_000;

/// Encoder effort, 0 to 10. From 5 on speech gains little, and 10 costs three times the time.
const COMPLEXITY: i32 = 5;

/// Frame lengths that Opus knows up to 60 ms, in 1/400 s (RFC 6716 §2.1.4).
const FRAME_LENGTHS: [usize; 6] = [1, 2, 4, 8, 16, 24];

/// Longest sound of one packet, in milliseconds (RFC 6716 §3.2.5).
const PACKET_MS_MAX: u32 = 120;

/// Why sound could not be encoded or decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpusError {
    /// Opus has no such mode.
    #[error(
        "Opus takes 8, 12, 16, 24 or 48 kHz and one or two channels, not {sample_rate} Hz with {channels}"
    )]
    Format { sample_rate: u32, channels: u8 },
    /// The number of samples is no frame length of Opus.
    #[error(
        "{samples} samples are no Opus frame at {sample_rate} Hz with {channels} channel(s); 20 ms are {expected}"
    )]
    FrameLength { samples: usize, sample_rate: u32, channels: u8, expected: usize },
    /// The encoder refused.
    #[error("the Opus encoder failed: {0}")]
    Encoder(&'static str),
    /// What was given to the decoder is no packet of Opus, or no length that it can make up.
    #[error("the Opus decoder failed: {0}")]
    Decoder(&'static str),
}

/// An Opus encoder for one stream of sound, interleaved 16-bit samples in, packets out.
#[derive(Debug)]
pub(crate) struct OpusEncoder {
    state: NonNull<unsafe_libopus::OpusEncoder>,
    sample_rate: u32,
    channels: u8,
}

// SAFETY: the state is one heap block that this value alone points to; the library keeps no
// thread-local or shared mutable state, so it may move to another thread.
unsafe impl Send for OpusEncoder {}

impl OpusEncoder {
    /// An encoder for `sample_rate` (8000, 12000, 16000, 24000 or 48000 Hz) and 1 or 2 `channels`.
    pub(crate) fn new(sample_rate: u32, channels: u8) -> Result<Self, OpusError> {
        let format = OpusError::Format { sample_rate, channels };
        let rate = i32::try_from(sample_rate).map_err(|_| format)?;
        let mut status = OPUS_OK;
        // SAFETY: the library checks rate and channels itself and answers null when they do not
        // suit; `status` outlives the call.
        let state = unsafe {
            opus_encoder_create(rate, i32::from(channels), OPUS_APPLICATION_AUDIO, &raw mut status)
        };
        let state = NonNull::new(state).ok_or(format)?;
        let encoder = Self { state, sample_rate, channels };
        encoder.set(OPUS_SET_BITRATE_REQUEST, BITRATE_PER_CHANNEL * i32::from(channels))?;
        encoder.set(OPUS_SET_COMPLEXITY_REQUEST, COMPLEXITY)?;
        Ok(encoder)
    }

    /// How many samples, all channels together, a frame of [`FRAME_MS`] has.
    pub(crate) const fn samples_per_frame(&self) -> usize {
        (self.sample_rate * FRAME_MS / 1000) as usize * self.channels as usize
    }

    /// Encodes one frame of 2.5, 5, 10, 20, 40 or 60 ms (channels interleaved) to one packet of at
    /// most [`MAX_PAYLOAD`] bytes.
    pub(crate) fn encode(&mut self, pcm: &[i16]) -> Result<Bytes, OpusError> {
        let per_channel = self.frame_length(pcm.len())?;
        let mut packet = [0_u8; MAX_PAYLOAD];
        // SAFETY: the state is valid until drop and borrowed mutably; `frame_length` made sure
        // that `pcm` holds `per_channel` samples for every channel; the encoder writes at most
        // `packet.len()` bytes to `packet`.
        let written = unsafe {
            opus_encode(
                self.state.as_ptr(),
                pcm.as_ptr(),
                per_channel,
                packet.as_mut_ptr(),
                packet.len() as i32,
            )
        };
        usize::try_from(written)
            .ok()
            .and_then(|length| packet.get(..length))
            .map(Bytes::copy_from_slice)
            .ok_or_else(|| OpusError::Encoder(opus_strerror(written)))
    }

    /// Samples a channel, if `samples` is a whole frame.
    fn frame_length(&self, samples: usize) -> Result<i32, OpusError> {
        let channels = usize::from(self.channels);
        let unit = self.sample_rate as usize / 400;
        FRAME_LENGTHS
            .iter()
            .map(|units| units * unit)
            .find(|per_channel| per_channel * channels == samples)
            .and_then(|per_channel| i32::try_from(per_channel).ok())
            .ok_or(OpusError::FrameLength {
                samples,
                sample_rate: self.sample_rate,
                channels: self.channels,
                expected: self.samples_per_frame(),
            })
    }

    fn set(&self, request: i32, value: i32) -> Result<(), OpusError> {
        // SAFETY: the state is valid until drop; both requests that are used take one `i32`.
        let status = unsafe { opus_encoder_ctl!(self.state.as_ptr(), request, value) };
        if status == OPUS_OK { Ok(()) } else { Err(OpusError::Encoder(opus_strerror(status))) }
    }
}

impl Drop for OpusEncoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `opus_encoder_create` and is not used after this.
        unsafe { opus_encoder_destroy(self.state.as_ptr()) }
    }
}

/// An Opus decoder for one stream of sound, packets in, interleaved samples from -1.0 to 1.0 out.
#[derive(Debug)]
pub(crate) struct OpusDecoder {
    state: NonNull<unsafe_libopus::OpusDecoder>,
    channels: u8,
    /// The sound of the last packet, with room for the longest.
    pcm: Box<[f32]>,
}

// SAFETY: as for the encoder; the samples belong to this value alone.
unsafe impl Send for OpusDecoder {}

impl OpusDecoder {
    /// A decoder to `sample_rate` (8000, 12000, 16000, 24000 or 48000 Hz) and 1 or 2 `channels`,
    /// whatever packets were encoded from: Opus converts both.
    pub(crate) fn new(sample_rate: u32, channels: u8) -> Result<Self, OpusError> {
        let format = OpusError::Format { sample_rate, channels };
        let rate = i32::try_from(sample_rate).map_err(|_| format)?;
        let mut status = OPUS_OK;
        // SAFETY: the library checks rate and channels itself and answers null when they do not
        // suit; `status` outlives the call.
        let state = unsafe { opus_decoder_create(rate, i32::from(channels), &raw mut status) };
        let state = NonNull::new(state).ok_or(format)?;
        let longest = (sample_rate / 1000 * PACKET_MS_MAX) as usize * usize::from(channels);
        Ok(Self { state, channels, pcm: vec![0.0; longest].into_boxed_slice() })
    }

    /// The sound of a packet.
    pub(crate) fn decode(&mut self, packet: &[u8]) -> Result<&[f32], OpusError> {
        if packet.is_empty() {
            // The library takes that for a loss.
            return Err(OpusError::Decoder("an empty packet"));
        }
        let longest = self.pcm.len();
        self.run(Some(packet), longest, Redundancy::Ignored)
    }

    /// Makes up what was lost right before `next`, with what `next` tells of it where its sender
    /// uses in-band FEC (RFC 6716 §2.1.7). `samples`, all channels together, must be a multiple of
    /// 2.5 ms and at most 120 ms. `next` itself is decoded after that, by [`Self::decode`].
    pub(crate) fn recover(&mut self, next: &[u8], samples: usize) -> Result<&[f32], OpusError> {
        let next = Some(next).filter(|next| !next.is_empty());
        let redundancy = if next.is_some() { Redundancy::Used } else { Redundancy::Ignored };
        self.run(next, samples, redundancy)
    }

    /// `packet`: none conceals. `samples`: room for a packet, or what is to be made up.
    fn run(
        &mut self,
        packet: Option<&[u8]>,
        samples: usize,
        redundancy: Redundancy,
    ) -> Result<&[f32], OpusError> {
        let channels = usize::from(self.channels);
        let too_long = OpusError::Decoder("more than the longest packet");
        let room = self.pcm.get_mut(..samples).ok_or(too_long)?;
        let (data, length) = packet.map_or((std::ptr::null(), 0), |packet| {
            (packet.as_ptr(), i32::try_from(packet.len()).unwrap_or(i32::MAX))
        });
        let decode_fec = match redundancy {
            Redundancy::Used => 1,
            Redundancy::Ignored => 0,
        };
        // SAFETY: the state is valid until drop and borrowed mutably; `data` is null or points to
        // `length` bytes at least; `room` holds as many samples a channel as are named, and the
        // library refuses packets of more.
        let decoded = unsafe {
            opus_decode_float(
                self.state.as_ptr(),
                data,
                length,
                room.as_mut_ptr(),
                (samples / channels) as i32,
                decode_fec,
            )
        };
        usize::try_from(decoded)
            .ok()
            .and_then(|per_channel| self.pcm.get(..per_channel * channels))
            .ok_or_else(|| OpusError::Decoder(opus_strerror(decoded)))
    }
}

/// LAME with its bit reservoir off: each frame holds all of its own sound, so that a listener may begin
/// or go on with any of them. LAME's crate has no safe name for that one setting.
#[cfg(feature = "mp3")]
pub(crate) fn without_reservoir(
    mut lame: mp3lame_encoder::Builder,
) -> Option<mp3lame_encoder::Builder> {
    // SAFETY: the builder's pointer is valid while it is borrowed; it is neither kept nor freed.
    let status = unsafe { mp3lame_encoder::ffi::lame_set_disable_reservoir(lame.as_ptr(), 1) };
    (status >= 0).then_some(lame)
}

/// What the decoder does with the copy of the packet before that a packet may carry.
#[derive(Debug, Clone, Copy)]
enum Redundancy {
    Used,
    Ignored,
}

impl Drop for OpusDecoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `opus_decoder_create` and is not used after this.
        unsafe { opus_decoder_destroy(self.state.as_ptr()) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::f64::consts::TAU;

    use super::*;

    #[test]
    fn a_tone_survives_encoding() {
        for (rate, channels) in [(8_000, 1), (16_000, 1), (48_000, 1), (48_000, 2)] {
            let mut encoder = OpusEncoder::new(rate, channels).unwrap();
            let mut decoder = Decoder::new(rate, channels);
            let frame = encoder.samples_per_frame();
            let mut heard = Vec::new();
            for index in 0..25 {
                let packet = encoder.encode(&tone(440.0, rate, channels, index, frame)).unwrap();
                assert!(!packet.is_empty() && packet.len() < 400, "{} bytes", packet.len());
                heard.extend(decoder.decode(&packet, frame));
            }

            // The first 100 ms belong to the encoder's start.
            let settled: Vec<_> =
                heard[frame * 5..].iter().step_by(usize::from(channels)).copied().collect();
            let (at_tone, beside) = (power(&settled, 440.0, rate), power(&settled, 1310.0, rate));
            assert!(at_tone > 50.0 * beside, "{rate} Hz: {at_tone} at the tone, {beside} beside");
        }
    }

    #[test]
    fn refuses_what_opus_does_not_know() {
        assert_eq!(
            OpusEncoder::new(44_100, 1).unwrap_err(),
            OpusError::Format { sample_rate: 44_100, channels: 1 }
        );
        for channels in [0, 3] {
            assert!(OpusEncoder::new(48_000, channels).is_err());
        }
        assert!(OpusEncoder::new(u32::MAX, 1).is_err());
    }

    #[test]
    fn refuses_a_broken_frame_and_goes_on() {
        let mut encoder = OpusEncoder::new(48_000, 2).unwrap();
        for samples in [0, 1, 959, 960 * 2 - 1, 961 * 2, 48_000] {
            assert!(matches!(
                encoder.encode(&vec![0; samples]),
                Err(OpusError::FrameLength { expected: 1920, .. })
            ));
        }
        for samples in [120, 240, 480, 960, 1920, 2880] {
            assert!(encoder.encode(&vec![0; samples * 2]).is_ok(), "{samples}");
        }
    }

    #[test]
    fn the_loudest_noise_fits_into_a_packet() {
        let mut encoder = OpusEncoder::new(48_000, 2).unwrap();
        let mut state = 1_u32;
        for _ in 0..20 {
            let noise: Vec<i16> = (0..2880 * 2)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if state >> 31 == 0 { i16::MIN } else { i16::MAX }
                })
                .collect();
            assert!(encoder.encode(&noise).unwrap().len() <= MAX_PAYLOAD);
        }
    }

    #[test]
    fn a_lost_packet_is_made_up_of_what_was_heard_before() {
        let mut encoder = OpusEncoder::new(48_000, 1).unwrap();
        let mut decoder = OpusDecoder::new(48_000, 2).unwrap();
        let packets: Vec<Bytes> = (0..20)
            .map(|index| encoder.encode(&tone(440.0, 48_000, 1, index, 960)).unwrap())
            .collect();
        for packet in &packets[..18] {
            assert_eq!(decoder.decode(packet).unwrap().len(), 1920);
        }

        let made_up = decoder.recover(&packets[19], 1920).unwrap();

        let left: Vec<i16> = made_up.iter().step_by(2).map(|s| (s * 32_768.0) as i16).collect();
        assert_eq!(left.len(), 960);
        let (at_tone, beside) = (power(&left, 440.0, 48_000), power(&left, 1310.0, 48_000));
        assert!(at_tone > 10.0 * beside, "{at_tone} at the tone, {beside} beside");
        assert_eq!(decoder.decode(&packets[19]).unwrap().len(), 1920);
    }

    #[test]
    fn lengths_that_opus_cannot_make_up_are_refused() {
        let mut decoder = OpusDecoder::new(48_000, 2).unwrap();
        for samples in [2, 1922, 5760 * 2 + 240, usize::MAX] {
            assert!(decoder.recover(&[], samples).is_err(), "{samples}");
        }
        assert_eq!(decoder.recover(&[], 5760 * 2).unwrap().len(), 5760 * 2);
        assert!(decoder.decode(&[]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn packets_of_anything_are_decoded_or_refused(
            packets in proptest::collection::vec(proptest::collection::vec(0_u8.., 0..80), 1..12),
        ) {
            let mut decoder = OpusDecoder::new(48_000, 2).unwrap();
            for packet in packets {
                // An error is as good as any sound.
                let _ = decoder.recover(&packet, 1920);
                let _ = decoder.decode(&packet);
            }
        }
    }

    pub(crate) fn tone(
        frequency: f64,
        rate: u32,
        channels: u8,
        index: usize,
        frame: usize,
    ) -> Vec<i16> {
        let per_channel = frame / usize::from(channels);
        (0..per_channel)
            .flat_map(|sample| {
                let time = (index * per_channel + sample) as f64 / f64::from(rate);
                let value = (8000.0 * (TAU * frequency * time).sin()) as i16;
                std::iter::repeat_n(value, usize::from(channels))
            })
            .collect()
    }

    /// Power of one frequency in the samples (Goertzel's sum, plainly).
    pub(crate) fn power(samples: &[i16], frequency: f64, rate: u32) -> f64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (index, sample) in samples.iter().enumerate() {
            let angle = TAU * frequency * index as f64 / f64::from(rate);
            re += f64::from(*sample) * angle.cos();
            im += f64::from(*sample) * angle.sin();
        }
        re.mul_add(re, im * im)
    }

    /// To 16-bit samples, of packets that are whole.
    pub(crate) struct Decoder(OpusDecoder);

    impl Decoder {
        pub(crate) fn new(rate: u32, channels: u8) -> Self {
            Self(OpusDecoder::new(rate, channels).unwrap())
        }

        pub(crate) fn decode(&mut self, packet: &[u8], samples: usize) -> Vec<i16> {
            let pcm = self.0.decode(packet).unwrap();
            assert_eq!(pcm.len(), samples);
            pcm.iter().map(|sample| (sample * 32_768.0) as i16).collect()
        }
    }
}

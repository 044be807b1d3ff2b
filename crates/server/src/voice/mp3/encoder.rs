//! The encoder: LAME where it is built in, else nothing that anybody could make.

use bytes::Bytes;

use super::frames::FrameCutter;

/// Why there is no MP3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EncoderError {
    /// The cargo feature `mp3` is off.
    #[error("this program was built without MP3; build it with the cargo feature `mp3`")]
    NotBuilt,
    /// LAME could not be set up, for lack of memory.
    #[error("the MP3 encoder could not be started; the server may be out of memory")]
    Setup,
    /// LAME refused samples.
    #[error("the MP3 encoder failed")]
    Failed,
}

/// Encodes one stream: constant rate, and each frame whole in itself.
pub(super) struct Encoder {
    lame: lame::Lame,
    cutter: FrameCutter,
}

impl Encoder {
    pub(super) fn new() -> Result<Self, EncoderError> {
        if cfg!(not(feature = "mp3")) {
            return Err(EncoderError::NotBuilt);
        }
        Ok(Self { lame: lame::Lame::new()?, cutter: FrameCutter::default() })
    }

    /// Samples of left and right in turn in; the frames that they complete out, some 50 ms later.
    pub(super) fn encode(&mut self, pcm: &[f32]) -> Result<Vec<Bytes>, EncoderError> {
        let written = self.lame.encode(pcm)?;
        Ok(self.cutter.cut(written))
    }
}

#[cfg(feature = "mp3")]
mod lame {
    use mp3lame_encoder::{
        Bitrate, Builder, InterleavedPcm, Mode, Quality, VbrMode, max_required_buffer_size,
    };

    use super::super::frames::{CHANNELS, SAMPLE_RATE};
    use super::EncoderError;
    use crate::ingest::opus::without_reservoir;

    /// 128 kbit/s: what old speakers take as well, and transparent for speech.
    const BITRATE: Bitrate = Bitrate::Kbps128;

    /// Effort. Better ones cost up to five times as much, which nobody hears in a voice.
    const QUALITY: Quality = Quality::Ok;

    pub(super) struct Lame {
        encoder: mp3lame_encoder::Encoder,
        written: Vec<u8>,
    }

    impl Lame {
        pub(super) fn new() -> Result<Self, EncoderError> {
            let encoder = Builder::new()
                .ok_or(EncoderError::Setup)
                .and_then(|builder| configured(builder).map_err(|_| EncoderError::Setup))
                .and_then(|builder| without_reservoir(builder).ok_or(EncoderError::Setup))?
                .build()
                .map_err(|_| EncoderError::Setup)?;
            Ok(Self { encoder, written: Vec::new() })
        }

        pub(super) fn encode(&mut self, pcm: &[f32]) -> Result<&[u8], EncoderError> {
            self.written.clear();
            self.written.reserve(max_required_buffer_size(pcm.len() / CHANNELS));
            self.encoder
                .encode_to_vec(InterleavedPcm(pcm), &mut self.written)
                .map_err(|_| EncoderError::Failed)?;
            Ok(&self.written)
        }
    }

    fn configured(builder: Builder) -> Result<Builder, mp3lame_encoder::BuildError> {
        builder
            .with_num_channels(CHANNELS as u8)?
            .with_sample_rate(SAMPLE_RATE as u32)?
            .with_mode(Mode::JointStereo)?
            .with_brate(BITRATE)?
            .with_vbr_mode(VbrMode::Off)?
            .with_quality(QUALITY)?
            // A frame of its own with figures of the whole file, which a stream never has.
            .with_to_write_vbr_tag(false)
    }
}

#[cfg(not(feature = "mp3"))]
mod lame {
    use super::EncoderError;

    /// Nobody can have one.
    pub(super) enum Lame {}

    impl Lame {
        pub(super) fn new() -> Result<Self, EncoderError> {
            Err(EncoderError::Setup)
        }

        pub(super) fn encode(&mut self, _pcm: &[f32]) -> Result<&[u8], EncoderError> {
            match *self {}
        }
    }
}

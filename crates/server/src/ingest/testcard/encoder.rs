//! Encoding a synthetic camera's pictures to constrained baseline H.264.

use bytes::Bytes;
use media::h264::{AccessUnit, H264Error, Normaliser, VideoFormat, split_annex_b};
use openh264::OpenH264API;
use openh264::encoder::{
    Complexity, Encoder, EncoderConfig, FrameRate, IntraFramePeriod, Profile, RateControlMode,
    UsageType, VuiConfig,
};

use super::canvas::Canvas;

/// Why a picture could not be encoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// The encoder refused.
    #[error("the H.264 encoder failed: {0}")]
    Encoder(#[from] openh264::Error),
    /// The encoder's output cannot be read.
    #[error("the H.264 encoder's output is broken: {0}")]
    Output(#[from] H264Error),
}

/// What kind of picture is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PictureKind {
    /// Decodable alone.
    Key,
    /// The change from the picture before.
    Delta,
}

/// An H.264 encoder for one camera. It makes keyframes only when asked to.
pub(super) struct VideoEncoder {
    encoder: Encoder,
    normaliser: Normaliser,
    /// A picture was encoded, so that the encoder can be asked for keyframes.
    started: bool,
}

impl VideoEncoder {
    /// An encoder for `fps` pictures a second; their size is that of the first one.
    pub(super) fn new(fps: u32) -> Result<Self, EncodeError> {
        // Without rate control every picture has the same quality (QP 26). The picture is calm
        // enough to stay far below what any link carries, and no frame is ever left out.
        let config = EncoderConfig::new()
            .max_frame_rate(FrameRate::from_hz(fps as f32))
            .rate_control_mode(RateControlMode::Off)
            .skip_frames(false)
            .usage_type(UsageType::CameraVideoRealTime)
            .profile(Profile::Baseline)
            .complexity(Complexity::Low)
            .scene_change_detect(false)
            .adaptive_quantization(false)
            .intra_frame_period(IntraFramePeriod::auto())
            .num_threads(1)
            .vui(VuiConfig::bt709());
        let encoder = Encoder::with_api_config(OpenH264API::from_source(), config)?;
        Ok(Self { encoder, normaliser: Normaliser::default(), started: false })
    }

    /// Encodes the next picture. `None` if the encoder left it out.
    pub(super) fn encode(
        &mut self,
        picture: &Canvas,
        kind: PictureKind,
    ) -> Result<Option<AccessUnit>, EncodeError> {
        // The first picture is a keyframe anyway; before it, there is no encoder to ask.
        if kind == PictureKind::Key && self.started {
            self.encoder.force_intra_frame();
        }
        let stream = Bytes::from(self.encoder.encode(picture)?.to_vec());
        self.started = true;
        Ok(self.normaliser.handle_access_unit(split_annex_b(&stream))?)
    }

    /// What is encoded; `None` before the first picture.
    pub(super) fn format(&self) -> Option<VideoFormat> {
        self.normaliser.format()
    }
}

#[cfg(test)]
mod tests {
    use openh264::decoder::Decoder;
    use openh264::formats::YUVSource;

    use super::super::card::Card;
    use super::super::strip::{self, Reading};
    use super::*;

    const START_MS: u64 = 1_795_000_000_123;

    #[test]
    fn the_strip_survives_encoding() {
        for (pattern, width, height) in [
            ("clock", 640, 360),
            ("bars", 320, 180),
            ("ball", 642, 362),
            ("grid", 1280, 720),
            ("clock", 192, 108),
        ] {
            let mut camera = Camera::new(pattern, width, height);
            let mut decoder = Decoder::new().unwrap();
            for frame in 0..60 {
                let unit = camera.next(frame, if frame == 30 { Key } else { Delta });
                assert_eq!(unit.keyframe, frame % 30 == 0, "{width}x{height} frame {frame}");
                let reading = read(&mut decoder, &unit);
                let expected = Reading { frame, unix_ms: time_of(frame) };
                assert_eq!(reading, Some(expected), "{width}x{height} frame {frame}");
            }
        }
    }

    #[test]
    fn the_stream_is_constrained_baseline_without_reordering() {
        let mut camera = Camera::new("bars", 640, 360);
        for frame in 0..5 {
            assert!(!camera.next(frame, Delta).reordered);
        }
        let format = camera.encoder.format().unwrap();
        assert_eq!((format.width, format.height), (640, 360));
        let [profile, constraints, _] = format.profile_level_id;
        // constraint_set1_flag makes baseline constrained (ITU-T H.264 §A.2.1.1).
        assert_eq!((profile, constraints & 0x40), (66, 0x40));
    }

    #[test]
    fn a_calm_picture_costs_little() {
        for pattern in ["clock", "bars", "ball", "grid"] {
            let mut camera = Camera::new(pattern, 640, 360);
            let bytes: usize = (0..150)
                .map(|frame| camera.next(frame, if frame % 30 == 0 { Key } else { Delta }))
                .flat_map(|unit| unit.units)
                .map(|nal| nal.len())
                .sum();
            let bitrate = bytes * 8 / 10;
            assert!((50_000..300_000).contains(&bitrate), "{pattern}: {bitrate} bit/s");
        }
    }

    use PictureKind::{Delta, Key};

    struct Camera {
        card: Card,
        encoder: VideoEncoder,
    }

    impl Camera {
        fn new(pattern: &str, width: usize, height: usize) -> Self {
            let encoder = VideoEncoder::new(15).unwrap();
            Self { card: Card::new(pattern, width, height), encoder }
        }

        fn next(&mut self, frame: u32, kind: PictureKind) -> AccessUnit {
            let picture = self.card.draw(frame, time_of(frame));
            self.encoder.encode(picture, kind).unwrap().unwrap()
        }
    }

    fn time_of(frame: u32) -> u64 {
        START_MS + u64::from(frame) * 1000 / 15
    }

    fn read(decoder: &mut Decoder, unit: &AccessUnit) -> Option<Reading> {
        let stream: Vec<u8> =
            unit.units.iter().flat_map(|nal| [&[0, 0, 0, 1], &nal[..]].concat()).collect();
        let picture = decoder.decode(&stream).unwrap()?;
        let (width, _) = picture.dimensions();
        strip::read(picture.y(), picture.strides().0, width)
    }
}

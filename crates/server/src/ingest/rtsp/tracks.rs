//! Which of a camera's tracks are taken, and what becomes of each.

use bytes::Bytes;
use engine::SourceFailure;
use media::depacketise::Depacketiser;
use media::frame::AccessUnit;
use media::h264::split_avcc;
use media::{Codec, PictureSize, h264, h265};
use retina::client::Stream;
use retina::codec::{ParametersRef, VideoParametersCodec};

use super::failure;
use crate::ingest::audio::AacToOpus;

/// The tracks that are taken.
pub(super) struct Tracks {
    pub(super) picture: PictureTrack,
    pub(super) sound: Option<SoundTrack>,
}

impl Tracks {
    /// The first of each kind that can be passed on, or why there is no picture.
    pub(super) fn choose(streams: &[Stream]) -> Result<Self, SourceFailure> {
        let mut picture = choose_picture(streams)?;
        let mut sound = choose_sound(streams);
        let opus = |track: &SoundTrack| matches!(track.sound, Sound::Passed(Codec::Opus));
        if sound.as_ref().is_some_and(opus) {
            // Either all tracks come as frames or all as packets, and Opus comes as packets alone.
            picture.picture = Picture::Packets(Depacketiser::new(picture.picture.codec()));
        }
        let aac = |track: &SoundTrack| matches!(track.sound, Sound::Aac(_));
        if picture.comes_as_packets() && sound.as_ref().is_some_and(aac) {
            tracing::info!("AAC beside this codec of picture is left out; picture only");
            sound = None;
        }
        Ok(Self { picture, sound })
    }
}

/// The track of pictures that was chosen.
pub(super) struct PictureTrack {
    /// Index of its stream in the session.
    pub(super) stream: usize,
    pub(super) picture: Picture,
}

impl PictureTrack {
    /// Whether the session is to be read packet by packet.
    pub(super) fn comes_as_packets(&self) -> bool {
        matches!(self.picture, Picture::Packets(_))
    }
}

/// What makes a camera's pictures fit for browsers.
pub(super) enum Picture {
    /// Access units.
    H264(h264::Normaliser),
    /// Access units.
    H265(h265::Normaliser),
    /// RTP packets, of any codec.
    Packets(Depacketiser),
}

impl Picture {
    /// What viewers get.
    pub(super) fn codec(&self) -> Codec {
        match self {
            Self::H264(_) => Codec::H264,
            Self::H265(_) => Codec::H265,
            Self::Packets(depacketiser) => depacketiser.codec(),
        }
    }

    /// A parameter set that came out of band.
    pub(super) fn handle_parameter_set(&mut self, nal: &[u8]) {
        match self {
            Self::H264(normaliser) => normaliser.handle_parameter_set(nal),
            Self::H265(normaliser) => normaliser.handle_parameter_set(nal),
            Self::Packets(depacketiser) => depacketiser.handle_parameter_set(nal),
        }
    }

    /// One access unit, each NAL unit behind its length in four bytes; why not, where it is broken.
    pub(super) fn handle_access_unit(
        &mut self,
        data: &Bytes,
    ) -> Result<Option<AccessUnit>, String> {
        let nals = split_avcc(data).map_err(|error| error.to_string())?;
        match self {
            Self::H264(normaliser) => {
                normaliser.handle_access_unit(nals).map_err(|error| error.to_string())
            }
            Self::H265(normaliser) => {
                normaliser.handle_access_unit(nals).map_err(|error| error.to_string())
            }
            // Its session is read packet by packet.
            Self::Packets(_) => Ok(None),
        }
    }

    /// Of the newest keyframe.
    pub(super) fn size(&self) -> Option<PictureSize> {
        match self {
            Self::H264(normaliser) => normaliser.format().map(|format| format.size()),
            Self::H265(normaliser) => normaliser.format().map(|format| format.size()),
            Self::Packets(depacketiser) => depacketiser.size(),
        }
    }
}

/// The track of sound that was chosen.
pub(super) struct SoundTrack {
    /// Index of its stream in the session.
    pub(super) stream: usize,
    pub(super) sound: Sound,
}

/// What becomes of a camera's sound.
pub(super) enum Sound {
    /// Opus or G.711, passed through.
    Passed(Codec),
    /// Re-encoded to Opus.
    Aac(Box<AacToOpus>),
}

impl Sound {
    /// What viewers get.
    pub(super) fn codec(&self) -> Codec {
        match self {
            Self::Passed(codec) => *codec,
            Self::Aac(_) => Codec::Opus,
        }
    }

    /// The camera's timestamps in ticks of what viewers get.
    pub(super) fn ticks(&self, camera_ticks: i64) -> i64 {
        match self {
            Self::Passed(_) => camera_ticks,
            Self::Aac(transcoder) => transcoder.ticks(camera_ticks),
        }
    }
}

/// What can be passed on, by the name in the session description, the most welcome first.
const PICTURES: [(&str, Codec); 5] = [
    ("h264", Codec::H264),
    ("h265", Codec::H265),
    ("vp8", Codec::Vp8),
    ("vp9", Codec::Vp9),
    ("av1", Codec::Av1),
];

fn choose_picture(streams: &[Stream]) -> Result<PictureTrack, SourceFailure> {
    for (name, codec) in PICTURES {
        let fits = |stream: &Stream| {
            stream.media() == "video"
                && stream.encoding_name() == name
                && stream.clock_rate_hz() == codec.clock_rate()
        };
        let Some(stream) = streams.iter().position(fits) else { continue };
        let picture = match codec {
            Codec::H264 => Picture::H264(h264::Normaliser::default()),
            Codec::H265 => Picture::H265(h265::Normaliser::default()),
            Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::Opus | Codec::Pcmu | Codec::Pcma => {
                Picture::Packets(Depacketiser::new(codec))
            }
        };
        return Ok(PictureTrack { stream, picture });
    }
    let codec = match streams.iter().find(|stream| matches!(stream.media(), "video" | "image")) {
        Some(stream) => match stream.encoding_name() {
            "jpeg" => "MJPEG".to_owned(),
            "mp4v-es" => "MPEG-4 Visual".to_owned(),
            other => failure::excerpt(&other.to_ascii_uppercase()),
        },
        None => "sound without a picture".to_owned(),
    };
    Err(SourceFailure::UnsupportedCodec { codec })
}

/// The first track of sound that viewers can be given.
fn choose_sound(streams: &[Stream]) -> Option<SoundTrack> {
    let tracks = || streams.iter().enumerate().filter(|(_, stream)| stream.media() == "audio");
    let chosen = tracks()
        .find_map(|(index, stream)| Some(SoundTrack { stream: index, sound: sound_of(stream)? }));
    if chosen.is_none()
        && let Some((_, stream)) = tracks().next()
    {
        tracing::info!(
            codec = failure::excerpt(stream.encoding_name()),
            rate = stream.clock_rate_hz(),
            "the camera's sound cannot be passed on; picture only"
        );
    }
    chosen
}

fn sound_of(stream: &Stream) -> Option<Sound> {
    let mono = stream.channels().is_none_or(|channels| channels.get() == 1);
    let passed = |codec: Codec| {
        (stream.clock_rate_hz() == codec.clock_rate()).then_some(Sound::Passed(codec))
    };
    match stream.encoding_name() {
        "opus" => passed(Codec::Opus),
        "pcmu" if mono => passed(Codec::Pcmu),
        "pcma" if mono => passed(Codec::Pcma),
        "mpeg4-generic" => {
            let Some(ParametersRef::Audio(parameters)) = stream.parameters() else { return None };
            AacToOpus::new(parameters.extra_data(), stream.clock_rate_hz())
                .inspect_err(|error| tracing::info!(%error, "the camera's sound is left out"))
                .ok()
                .map(|transcoder| Sound::Aac(Box::new(transcoder)))
        }
        _ => None,
    }
}

/// The parameter sets of the session description (RFC 6184 §8.1, RFC 7798 §7.1).
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum is not ours and will grow; what else there is has no parameter sets"
)]
pub(super) fn parameter_sets(stream: &Stream) -> Vec<&[u8]> {
    let Some(ParametersRef::Video(parameters)) = stream.parameters() else { return Vec::new() };
    match parameters.codec_params() {
        VideoParametersCodec::H264 { sps, pps } => vec![sps, pps],
        VideoParametersCodec::H265 { vps, sps, pps } => vec![vps, sps, pps],
        _ => Vec::new(),
    }
}

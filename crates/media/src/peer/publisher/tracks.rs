//! What becomes of a publisher's packets: a camera's frames, or a voice's packets.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use str0m::format::{self, CodecConfig};
use str0m::media::Pt;
use str0m::rtp::RtpPacket;

use super::sound::Resends;
use crate::frame::{AudioLevel, Codec, MediaKind};
use crate::publish::{ForwardedTrack, Incoming, SenderReport, Track, TrackFigures, TrackOutput};

/// What a publisher sends.
pub(in crate::peer) enum Tracks {
    /// Whole frames in order.
    Camera { video: Box<Track>, audio: Box<Track> },
    /// Packets as they come.
    Voice(Box<Voice>),
}

/// Somebody who speaks.
pub(in crate::peer) struct Voice {
    track: ForwardedTrack,
    resends: Resends,
    /// The source whose lost packets are asked for.
    asks: Option<u32>,
}

/// What is in a packet.
#[derive(Debug, Clone, Copy)]
pub(in crate::peer) enum Form {
    /// The codec's payload.
    Plain(Codec),
    /// The codec's payloads with this type, in a payload of RED.
    Redundant { codec: Codec, payload_type: u8 },
}

impl Tracks {
    pub(in crate::peer) fn of_camera(parameter_sets: Vec<Vec<u8>>) -> Self {
        let mut video = Box::new(Track::new(MediaKind::Video));
        video.set_parameter_sets(parameter_sets);
        Self::Camera { video, audio: Box::new(Track::new(MediaKind::Audio)) }
    }

    /// Whether lost packets of a source are to be asked for from here on; told once a source.
    pub(super) fn begins_to_ask(&mut self, ssrc: u32) -> bool {
        match self {
            Self::Camera { .. } => false,
            Self::Voice(voice) => {
                voice.resends == Resends::Settled && voice.asks.replace(ssrc) != Some(ssrc)
            }
        }
    }

    pub(in crate::peer) fn handle_packet(&mut self, packet: Incoming, now: Instant) {
        match self {
            Self::Camera { video, audio } => match packet.codec.kind() {
                MediaKind::Video => video.handle_packet(packet, now),
                MediaKind::Audio => audio.handle_packet(packet, now),
            },
            Self::Voice(voice) => voice.track.handle_packet(packet, now),
        }
    }

    pub(in crate::peer) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Camera { video, audio } => {
                video.handle_timeout(now);
                audio.handle_timeout(now);
            }
            Self::Voice(_) => {}
        }
    }

    pub(in crate::peer) fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Camera { video, audio } => {
                video.next_timeout().into_iter().chain(audio.next_timeout()).min()
            }
            Self::Voice(_) => None,
        }
    }

    pub(super) fn hold(&mut self) {
        match self {
            Self::Camera { video, .. } => video.hold(),
            Self::Voice(_) => {}
        }
    }

    pub(in crate::peer) fn poll_output(&mut self) -> Option<TrackOutput> {
        match self {
            Self::Camera { video, audio } => video.poll_output().or_else(|| audio.poll_output()),
            Self::Voice(voice) => voice.track.poll_output(),
        }
    }

    /// Of picture and sound, as far as they were heard.
    pub(in crate::peer) fn ssrcs(&self) -> [Option<u32>; 2] {
        match self {
            Self::Camera { video, audio } => [video.ssrc(), audio.ssrc()],
            Self::Voice(voice) => [None, voice.track.ssrc()],
        }
    }

    /// Sound alone is too little for a rate to matter.
    pub(super) fn are_told_rates(&self) -> bool {
        match self {
            Self::Camera { .. } => true,
            Self::Voice(_) => false,
        }
    }

    pub(in crate::peer) fn figures(&self) -> TrackFigures {
        match self {
            Self::Camera { video, audio } => video.figures() + audio.figures(),
            Self::Voice(voice) => voice.track.figures(),
        }
    }
}

impl Voice {
    pub(super) fn new(resends: Resends) -> Self {
        Self { track: ForwardedTrack::default(), resends, asks: None }
    }
}

impl Form {
    /// What a payload type stands for. `None`: nothing that is passed on.
    pub(in crate::peer) fn of(payload_type: Pt, config: &CodecConfig) -> Option<Self> {
        if let Some(payload) = config.find(|payload| payload.pt() == payload_type) {
            return our_codec(payload.spec().codec).map(Self::Plain);
        }
        let of_red = config.find(|payload| payload.red() == Some(payload_type))?;
        let codec = our_codec(of_red.spec().codec)?;
        Some(Self::Redundant { codec, payload_type: *of_red.pt() })
    }

    /// A packet as tracks take it.
    pub(in crate::peer) fn incoming(self, packet: RtpPacket) -> Incoming {
        let header = &packet.header;
        let level = header.ext_vals.audio_level.map(|level| AudioLevel {
            below_full: level.unsigned_abs().min(AudioLevel::SILENCE.below_full),
            voice: header.ext_vals.voice_activity,
        });
        let (codec, red) = match self {
            Self::Plain(codec) => (codec, None),
            Self::Redundant { codec, payload_type } => (codec, Some(payload_type)),
        };
        Incoming {
            ssrc: *header.ssrc,
            codec,
            number: *packet.seq_no,
            timestamp: header.timestamp,
            marker: header.marker,
            red,
            level,
            report: packet.last_sender_info.map(|info| SenderReport {
                ntp: ntp(info.ntp_time),
                // Extended by its own history, of which the lower half is the sender's.
                timestamp: info.rtp_time.numer() as u32,
            }),
            payload: bytes::Bytes::from_owner(packet.payload),
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "str0m's list is open, and what is not listed here is never answered"
)]
fn our_codec(codec: format::Codec) -> Option<Codec> {
    match codec {
        format::Codec::H264 => Some(Codec::H264),
        format::Codec::H265 => Some(Codec::H265),
        format::Codec::Vp8 => Some(Codec::Vp8),
        format::Codec::Vp9 => Some(Codec::Vp9),
        format::Codec::Av1 => Some(Codec::Av1),
        format::Codec::Opus => Some(Codec::Opus),
        format::Codec::PCMU => Some(Codec::Pcmu),
        format::Codec::PCMA => Some(Codec::Pcma),
        _ => None,
    }
}

/// Seconds since 1900 and fractions (RFC 3550 §4). Publishers whose clock counts from their start
/// are before 1970, which is as good: only differences matter.
fn ntp(time: SystemTime) -> u64 {
    const UNIX: i128 = 2_208_988_800_000_000;
    let micros = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_micros() as i128,
        Err(before) => -(before.duration().as_micros() as i128),
    };
    let micros = (micros + UNIX).max(0);
    // The era wraps in 2036 as the field does.
    ((micros << 32) / 1_000_000) as u64
}

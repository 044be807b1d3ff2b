//! What a camera sends, as a session description (RFC 8866, RFC 6184 §8.2, RFC 7798 §7.2).

use std::fmt::Write;
use std::net::IpAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use media::{Codec, MediaKind, PacketisedFrame};

use super::uri::TRACK;

/// Parameter sets that are told of: a sequence's and a handful of pictures'. More stand in the stream.
const PARAMETER_SETS_MAX: usize = 8;

/// What there is to set up and play.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    /// The camera's id.
    pub(crate) title: String,
    /// The picture first.
    pub(crate) tracks: Vec<TrackFormat>,
}

/// One track.
#[derive(Debug, Clone)]
pub(crate) struct TrackFormat {
    /// What it carries.
    pub(crate) codec: Codec,
    parameter_sets: Vec<Vec<u8>>,
}

impl TrackFormat {
    /// The track of a picture, whose parameter sets stand in front of each keyframe.
    pub(crate) fn of_keyframe(keyframe: &PacketisedFrame) -> Self {
        Self { codec: keyframe.codec, parameter_sets: parameter_sets(keyframe) }
    }

    /// The track of a sound.
    pub(crate) fn of_sound(codec: Codec) -> Self {
        Self { codec, parameter_sets: Vec::new() }
    }

    /// The RTP payload type: the static one where there is (RFC 3551 §6), else a dynamic one.
    pub(crate) fn payload_type(&self) -> u8 {
        match self.codec {
            Codec::Pcmu => 0,
            Codec::Pcma => 8,
            Codec::Opus => 97,
            Codec::H264 | Codec::H265 | Codec::Vp8 | Codec::Vp9 | Codec::Av1 => 96,
        }
    }

    fn write(&self, number: usize, sdp: &mut String) {
        let media = match self.codec.kind() {
            MediaKind::Video => "video",
            MediaKind::Audio => "audio",
        };
        let payload_type = self.payload_type();
        let (name, rate) = (self.codec.name(), self.codec.clock_rate());
        // RFC 7587 §7: always two channels, whatever is in it.
        let channels = if self.codec == Codec::Opus { "/2" } else { "" };
        // Writing to a string does not fail.
        let _ = write!(sdp, "m={media} 0 RTP/AVP {payload_type}\r\n");
        let _ = write!(sdp, "a=rtpmap:{payload_type} {name}/{rate}{channels}\r\n");
        if let Some(parameters) = self.parameters() {
            let _ = write!(sdp, "a=fmtp:{payload_type} {parameters}\r\n");
        }
        let _ = write!(sdp, "a=control:{TRACK}{number}\r\n");
    }

    fn parameters(&self) -> Option<String> {
        match self.codec {
            Codec::H264 => Some(self.h264_parameters()),
            Codec::H265 => Some(self.h265_parameters()).filter(|text| !text.is_empty()),
            Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::Opus | Codec::Pcmu | Codec::Pcma => None,
        }
    }

    fn h264_parameters(&self) -> String {
        let mut text = "packetization-mode=1".to_owned();
        let sps = self.parameter_sets.iter().find(|set| h264_type(set) == H264_SPS);
        if let Some([_, profile, constraints, level, ..]) = sps.map(Vec::as_slice) {
            let _ = write!(text, ";profile-level-id={profile:02X}{constraints:02X}{level:02X}");
            let sets: Vec<String> =
                self.parameter_sets.iter().map(|set| BASE64_STANDARD.encode(set)).collect();
            let _ = write!(text, ";sprop-parameter-sets={}", sets.join(","));
        }
        text
    }

    fn h265_parameters(&self) -> String {
        let of_type = |kind: u8| {
            let sets = self.parameter_sets.iter().filter(|set| h265_type(set) == kind);
            let sets: Vec<String> = sets.map(|set| BASE64_STANDARD.encode(set)).collect();
            sets.join(",")
        };
        let named = [("vps", H265_VPS), ("sps", H265_SPS), ("pps", H265_PPS)];
        let parts: Vec<String> = named
            .into_iter()
            .map(|(name, kind)| (name, of_type(kind)))
            .filter(|(_, sets)| !sets.is_empty())
            .map(|(name, sets)| format!("sprop-{name}={sets}"))
            .collect();
        parts.join(";")
    }
}

impl Description {
    /// The whole description. `session` is a number of this session, `address` our own.
    pub(crate) fn sdp(&self, session: u64, address: IpAddr) -> String {
        let family = if address.is_ipv4() { "IP4" } else { "IP6" };
        let anywhere = if address.is_ipv4() { "0.0.0.0" } else { "::" };
        let title: String = self.title.chars().filter(|c| !c.is_control()).collect();
        let mut sdp = format!(
            "v=0\r\no=- {session} 1 IN {family} {address}\r\ns={title}\r\nc=IN {family} {anywhere}\r\n\
             t=0 0\r\na=control:*\r\n"
        );
        for (number, track) in self.tracks.iter().enumerate() {
            track.write(number, &mut sdp);
        }
        sdp
    }
}

const H264_SPS: u8 = 7;
const H264_PPS: u8 = 8;
const H264_STAP_A: u8 = 24;
const H265_VPS: u8 = 32;
const H265_SPS: u8 = 33;
const H265_PPS: u8 = 34;
const H265_AGGREGATE: u8 = 48;

fn h264_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |byte| byte & 0x1f)
}

/// The type stands in bits 1 to 6 of a header of two bytes (RFC 7798 §1.1.4).
fn h265_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |byte| byte >> 1 & 0x3f)
}

/// The parameter sets of a keyframe. They are short, so that none is in fragments.
fn parameter_sets(keyframe: &PacketisedFrame) -> Vec<Vec<u8>> {
    let is_set: fn(&[u8]) -> bool = match keyframe.codec {
        Codec::H264 => |nal| matches!(h264_type(nal), H264_SPS | H264_PPS),
        Codec::H265 => |nal| matches!(h265_type(nal), H265_VPS | H265_SPS | H265_PPS),
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::Opus | Codec::Pcmu | Codec::Pcma => {
            return Vec::new();
        }
    };
    let units = keyframe.payloads().flat_map(|payload| match keyframe.codec {
        Codec::H264 if h264_type(payload) == H264_STAP_A => split_aggregate(payload.get(1..)),
        Codec::H265 if h265_type(payload) == H265_AGGREGATE => split_aggregate(payload.get(2..)),
        Codec::H264
        | Codec::H265
        | Codec::Vp8
        | Codec::Vp9
        | Codec::Av1
        | Codec::Opus
        | Codec::Pcmu
        | Codec::Pcma => vec![payload],
    });
    let mut sets: Vec<Vec<u8>> = Vec::new();
    for set in units.filter(|nal| is_set(nal)) {
        if sets.len() < PARAMETER_SETS_MAX && !sets.iter().any(|known| known == set) {
            sets.push(set.to_vec());
        }
    }
    sets
}

/// NAL units with two bytes of length in front of each (RFC 6184 §5.7.1, RFC 7798 §4.4.2).
fn split_aggregate(rest: Option<&[u8]>) -> Vec<&[u8]> {
    let mut rest = rest.unwrap_or_default();
    let mut units = Vec::new();
    while let [high, low, behind @ ..] = rest {
        let Some((unit, next)) =
            behind.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))
        else {
            break;
        };
        units.push(unit);
        rest = next;
    }
    units
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use media::packetise::packetise;
    use media::{Frame, NtpTime};

    use super::*;

    const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 0xaa];
    const PPS: &[u8] = &[0x68, 0xce, 0x3c];

    fn keyframe(units: &[&[u8]]) -> PacketisedFrame {
        packetise(&Frame {
            forwarded: None,
            codec: Codec::H264,
            ticks: 0,
            captured: NtpTime(0),
            keyframe: true,
            discontinuity: false,
            units: units.iter().map(|unit| Bytes::copy_from_slice(unit)).collect(),
        })
    }

    #[test]
    fn a_camera_with_sound_is_described() {
        let idr = vec![0x65; 5_000];
        let picture = TrackFormat::of_keyframe(&keyframe(&[SPS, PPS, &idr]));
        let sound = TrackFormat::of_sound(Codec::Opus);
        let description = Description { title: "cam-1".to_owned(), tracks: vec![picture, sound] };
        assert_eq!(
            description.sdp(7, IpAddr::from([127, 0, 0, 1])),
            "v=0\r\no=- 7 1 IN IP4 127.0.0.1\r\ns=cam-1\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n\
             a=control:*\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
             a=fmtp:96 packetization-mode=1;profile-level-id=42C01F;\
             sprop-parameter-sets=Z0LAH6o=,aM48\r\n\
             a=control:trackID=0\r\nm=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\n\
             a=control:trackID=1\r\n"
        );
    }

    #[test]
    fn static_payload_types_are_those_of_rfc_3551() {
        let types = [Codec::Pcmu, Codec::Pcma].map(|c| TrackFormat::of_sound(c).payload_type());
        assert_eq!(types, [0, 8]);
    }

    #[test]
    fn without_parameter_sets_the_stream_brings_them() {
        let track = TrackFormat::of_keyframe(&keyframe(&[&[0x65; 40]]));
        assert_eq!(track.parameters().unwrap(), "packetization-mode=1");
    }
}

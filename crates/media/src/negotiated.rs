//! What offer and answer settled for our sending: SSRCs and payload types.
//!
//! Read from the answer's own text, so that what we send is by construction what the viewer was
//! told. Reads only sections that we send in; it judges nothing else of the SDP.

use crate::codec_set::CodecSet;
use crate::frame::{Codec, MediaKind};

/// A payload type of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// What it carries.
    pub codec: Codec,
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// Payload type of its retransmissions (RFC 4588), where they were settled.
    pub rtx: Option<u8>,
    /// H.264's `profile-level-id` (RFC 6184 §8.1): profile_idc, constraint flags, level_idc.
    pub profile_level_id: Option<[u8; 3]>,
}

/// One section of the answer that we send in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Picture or sound.
    pub kind: MediaKind,
    /// Synchronization source of everything we send in it.
    pub ssrc: u32,
    /// Synchronization source of its retransmissions (RFC 4588 §4), where they were settled.
    pub rtx_ssrc: Option<u32>,
    /// Payload types in the answer's order; of H.264 only those with packetization-mode 1.
    pub payloads: Vec<Payload>,
    /// What each packet tells besides, from which the line's rate is estimated.
    pub extension: Option<HeaderExtension>,
    /// Payload type of sound with redundancy (RED, RFC 2198), where that was settled.
    pub red: Option<u8>,
}

/// A header extension of the answer (RFC 8285 §4.2, one-byte headers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderExtension {
    /// Its local identifier, 1 to 14.
    pub id: u8,
    /// What it says.
    pub kind: ExtensionKind,
}

/// What the header extensions say that we send. Each goes with its own feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtensionKind {
    /// When the packet was sent; the viewer estimates and tells the rate (REMB).
    AbsoluteSendTime,
    /// A number over all streams; the viewer tells which arrived when, and we estimate.
    TransportSequence,
}

impl ExtensionKind {
    /// The name in `a=extmap` lines.
    pub const fn uri(self) -> &'static str {
        match self {
            Self::AbsoluteSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransportSequence => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
        }
    }

    /// The feedback that goes with it, as `a=rtcp-fb` lines name it.
    pub const fn feedback(self) -> &'static str {
        match self {
            Self::AbsoluteSendTime => "goog-remb",
            Self::TransportSequence => "transport-cc",
        }
    }
}

/// Identifiers of a one-byte header: 0 is padding, 15 is reserved (RFC 8285 §4.2).
const ONE_BYTE_IDS: std::ops::RangeInclusive<u8> = 1..=14;

/// The identifier of an `a=extmap` line's value, if it is this extension's and fits a one-byte
/// header: `3 http://…` or `3/recvonly http://…`.
pub(crate) fn extension_id(extmap: &str, kind: ExtensionKind) -> Option<u8> {
    let (id, rest) = extmap.split_once(' ')?;
    let id = id.split('/').next()?.parse().ok()?;
    let uri = rest.split(' ').next()?;
    (uri == kind.uri() && ONE_BYTE_IDS.contains(&id)).then_some(id)
}

impl Track {
    /// Whether the viewer takes a codec.
    pub fn takes(&self, codec: Codec) -> bool {
        self.payload(codec).is_some()
    }

    /// The payload type for a codec, if the viewer takes it.
    ///
    /// For H.264 constrained baseline, else the first: decoders read the real profile from the
    /// parameter sets in band, and every browser offers constrained baseline.
    pub fn payload(&self, codec: Codec) -> Option<Payload> {
        let of_codec = || self.payloads.iter().filter(|payload| payload.codec == codec);
        of_codec()
            .find(|payload| payload.is_constrained_baseline())
            .or_else(|| of_codec().next())
            .copied()
    }
}

impl Payload {
    /// `42e0xx`: what every WebRTC browser decodes (RFC 7742 §6.2).
    fn is_constrained_baseline(&self) -> bool {
        matches!(self.profile_level_id, Some([0x42, 0xe0, _]))
    }
}

/// The sections of an answer that we send in, at most one a kind: the first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Negotiated {
    /// The picture.
    pub video: Option<Track>,
    /// The sound.
    pub audio: Option<Track>,
    /// `CNAME` that ties both together for lip sync (RFC 3550 §6.5.1).
    pub cname: String,
}

impl Negotiated {
    /// Reads our own answer.
    pub fn from_answer(sdp: &str) -> Self {
        let mut negotiated = Self::default();
        for section in sections(sdp) {
            if let Some(cname) = section.cname() {
                negotiated.cname = cname.to_owned();
            }
            let Some(track) = section.track() else { continue };
            let place = match track.kind {
                MediaKind::Video => &mut negotiated.video,
                MediaKind::Audio => &mut negotiated.audio,
            };
            place.get_or_insert(track);
        }
        negotiated
    }

    /// All codecs that the viewer takes, of picture and sound.
    pub fn codecs(&self) -> CodecSet {
        let tracks = self.video.iter().chain(&self.audio);
        tracks.flat_map(|track| track.payloads.iter().map(|payload| payload.codec)).collect()
    }
}

/// Payload type of Opus in our offers of sound, which is that of Chromium's.
pub(crate) const OPUS_PAYLOAD_TYPE: u8 = 111;
/// The same of Opus with redundancy. Its blocks are of [`OPUS_PAYLOAD_TYPE`].
pub(crate) const RED_PAYLOAD_TYPE: u8 = 63;

/// The sound that the answer to our offer takes, in the payload types that the answer names; it is
/// sent as `ssrc`. `None` when it takes no Opus.
///
/// Redundancy counts only with blocks of [`OPUS_PAYLOAD_TYPE`], as they are sent.
pub(crate) fn taken_sound(answer: &str, ssrc: u32) -> Option<Track> {
    let sections = sections(answer);
    let section = sections.iter().find(|section| section.head.starts_with("audio "))?;
    let mut head = section.head.split_whitespace().skip(1);
    let is_open = head.next().is_some_and(|port| port != "0");
    if !is_open || section.lines.iter().any(|line| matches!(*line, "sendonly" | "inactive")) {
        return None;
    }
    let formats: Vec<u8> = head.skip(1).filter_map(|format| format.parse().ok()).collect();
    let listed = |wanted: &str| {
        let mut maps = section.rtpmaps();
        maps.find(|(pt, name)| name.eq_ignore_ascii_case(wanted) && formats.contains(pt))
    };
    let (payload_type, _) = listed("opus").filter(|(pt, _)| *pt < 128)?;
    let red = listed("red").map(|(pt, _)| pt).filter(|pt| {
        let blocks = format!("fmtp:{pt} {OPUS_PAYLOAD_TYPE}/{OPUS_PAYLOAD_TYPE}");
        payload_type == OPUS_PAYLOAD_TYPE && *pt < 128 && section.lines.contains(&blocks.as_str())
    });
    let opus = Payload { codec: Codec::Opus, payload_type, rtx: None, profile_level_id: None };
    let (kind, payloads) = (MediaKind::Audio, vec![opus]);
    Some(Track { kind, ssrc, rtx_ssrc: None, payloads, extension: None, red })
}

/// One `m=` section: its head and its attribute lines.
struct Section<'a> {
    /// `video 9 UDP/TLS/RTP/SAVPF 102 103`
    head: &'a str,
    lines: Vec<&'a str>,
}

fn sections(sdp: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for line in sdp.lines() {
        if let Some(head) = line.strip_prefix("m=") {
            sections.push(Section { head, lines: Vec::new() });
        } else if let (Some(section), Some(attribute)) =
            (sections.last_mut(), line.strip_prefix("a="))
        {
            section.lines.push(attribute);
        }
    }
    sections
}

/// The names of the codecs that an offer has for `kind`, `audio` or `video`, for error sentences.
pub(crate) fn offered_codecs(sdp: &str, kind: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let is_of_kind = |section: &&Section<'_>| section.head.split(' ').next() == Some(kind);
    for section in sections(sdp).iter().filter(is_of_kind) {
        for (_, name) in section.rtpmaps() {
            if !names.iter().any(|known| known == name) && names.len() < 16 {
                names.push(name.chars().filter(char::is_ascii_graphic).take(32).collect());
            }
        }
    }
    names
}

/// Whether an offer has a video section that is open and wants to receive.
pub(crate) fn wants_video(sdp: &str) -> bool {
    sections(sdp).iter().any(|section| {
        let mut head = section.head.split(' ');
        head.next() == Some("video")
            && !section.lines.iter().any(|line| matches!(*line, "sendonly" | "inactive"))
    })
}

/// Whether an offer has a video section that is open and wants to send.
pub(crate) fn sends_video(sdp: &str) -> bool {
    sections(sdp).iter().any(|section| {
        let mut head = section.head.split(' ');
        head.next() == Some("video")
            && head.next() != Some("0")
            && !section.lines.iter().any(|line| matches!(*line, "recvonly" | "inactive"))
    })
}

/// The parameter sets that an offer's H.264 names out of band (RFC 6184 §8.1), as NAL units.
pub(crate) fn sprop_parameter_sets(sdp: &str) -> Vec<Vec<u8>> {
    let video = sections(sdp).into_iter().filter(|section| section.head.starts_with("video "));
    let formats = video.flat_map(|section| section.lines).filter(|line| line.starts_with("fmtp:"));
    let values = formats
        .flat_map(|line| line.split([' ', ';']))
        .filter_map(|parameter| parameter.trim().strip_prefix("sprop-parameter-sets="));
    values.flat_map(|sets| sets.split(',')).filter_map(decode_base64).take(MAX_SETS).collect()
}

/// Parameter sets that are taken from an offer, at most: a pair for each of a few profiles.
const MAX_SETS: usize = 32;

/// RFC 4648 §4, with or without padding.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

impl<'a> Section<'a> {
    fn value_of(&self, name: &str) -> Option<&'a str> {
        self.lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    /// `ssrc:1234 cname:abc`
    fn cname(&self) -> Option<&'a str> {
        let (_, attribute) = self.value_of("ssrc")?.split_once(' ')?;
        attribute.strip_prefix("cname:")
    }

    /// `rtpmap:102 H264/90000` as payload type and encoding name.
    fn rtpmaps(&self) -> impl Iterator<Item = (u8, &'a str)> + '_ {
        self.lines.iter().filter_map(|line| {
            let (pt, encoding) = line.strip_prefix("rtpmap:")?.split_once(' ')?;
            Some((pt.parse().ok()?, encoding.split('/').next()?))
        })
    }

    fn track(&self) -> Option<Track> {
        let kind = match self.head.split(' ').next()? {
            "video" => MediaKind::Video,
            "audio" => MediaKind::Audio,
            _ => return None,
        };
        let ssrc = self.value_of("ssrc")?.split(' ').next()?.parse().ok()?;
        let payloads = self.rtpmaps().filter_map(|(pt, name)| self.payload(pt, name)).collect();
        let extension = self.extension();
        Some(Track { kind, ssrc, rtx_ssrc: self.rtx_ssrc(ssrc), payloads, extension, red: None })
    }

    /// The extension that we fill, which the answer names together with its feedback.
    fn extension(&self) -> Option<HeaderExtension> {
        let maps = || self.lines.iter().filter_map(|line| line.strip_prefix("extmap:"));
        [ExtensionKind::AbsoluteSendTime, ExtensionKind::TransportSequence].into_iter().find_map(
            |kind| {
                let id = maps().find_map(|map| extension_id(map, kind))?;
                self.has_feedback(kind.feedback()).then_some(HeaderExtension { id, kind })
            },
        )
    }

    /// `rtcp-fb:96 goog-remb`, of any payload type.
    fn has_feedback(&self, name: &str) -> bool {
        self.lines
            .iter()
            .filter_map(|line| line.strip_prefix("rtcp-fb:")?.split_once(' '))
            .any(|(_, feedback)| feedback == name)
    }

    /// `None` for what we do not send: retransmissions by themselves, H.264 with packetization-mode 0.
    fn payload(&self, payload_type: u8, name: &str) -> Option<Payload> {
        let codec = Codec::from_name(name)?;
        let profile_level_id = match codec {
            Codec::H264 => Some(self.h264_profile(payload_type)?),
            Codec::H265 | Codec::Vp8 | Codec::Vp9 | Codec::Av1 => None,
            Codec::Opus | Codec::Pcmu | Codec::Pcma => None,
        };
        Some(Payload { codec, payload_type, rtx: self.rtx_of(payload_type), profile_level_id })
    }

    /// The SSRC that repeats `ssrc`: `ssrc-group:FID 88 99` (RFC 5576 §4.2).
    fn rtx_ssrc(&self, ssrc: u32) -> Option<u32> {
        self.lines.iter().find_map(|line| {
            let (first, second) = line.strip_prefix("ssrc-group:FID ")?.split_once(' ')?;
            (first.parse() == Ok(ssrc)).then(|| second.trim().parse().ok()).flatten()
        })
    }

    /// The payload type that repeats `payload_type`: `fmtp:97 apt=96` (RFC 4588 §8.1).
    fn rtx_of(&self, payload_type: u8) -> Option<u8> {
        self.rtpmaps().filter(|(_, name)| name.eq_ignore_ascii_case("rtx")).find_map(|(rtx, _)| {
            let apt = self.format_value(rtx, "apt")?;
            (apt.parse() == Ok(payload_type)).then_some(rtx)
        })
    }

    /// A parameter of the payload type's `fmtp` line.
    fn format_value(&self, payload_type: u8, name: &str) -> Option<&'a str> {
        let prefix = format!("fmtp:{payload_type} ");
        let parameters = self.lines.iter().find_map(|line| line.strip_prefix(prefix.as_str()))?;
        parameters.split(';').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
    }

    /// The profile, if the payload type has packetization-mode 1.
    fn h264_profile(&self, payload_type: u8) -> Option<[u8; 3]> {
        if self.format_value(payload_type, "packetization-mode") != Some("1") {
            return None;
        }
        let id = self.format_value(payload_type, "profile-level-id")?;
        let [_, profile, flags, level] = u32::from_str_radix(id, 16).ok()?.to_be_bytes();
        Some([profile, flags, level])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:0 PCMU/8000\r\na=ssrc:77 cname:abc\r\nm=video 9 UDP/TLS/RTP/SAVPF 102 127 125\r\na=rtpmap:102 H264/90000\r\na=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\na=rtpmap:127 H264/90000\r\na=fmtp:127 packetization-mode=0;profile-level-id=42e01f\r\na=rtpmap:125 H264/90000\r\na=fmtp:125 packetization-mode=1;profile-level-id=42e01f\r\na=rtpmap:112 H264/90000\r\na=fmtp:112 packetization-mode=1;profile-level-id=64001f\r\na=ssrc:88 cname:abc\r\n";

    #[test]
    fn the_answer_names_what_we_send() {
        let negotiated = Negotiated::from_answer(ANSWER);
        assert_eq!(negotiated.cname, "abc");
        let video = negotiated.video.unwrap();
        assert_eq!(video.ssrc, 88);
        assert_eq!(video.payload(Codec::H264).unwrap().payload_type, 125);
        let audio = negotiated.audio.unwrap();
        assert_eq!(audio.payload(Codec::Opus).unwrap().payload_type, 111);
        assert_eq!(audio.payload(Codec::Pcmu).unwrap().payload_type, 0);
        assert!(!audio.takes(Codec::Pcma));
    }

    #[test]
    fn parameter_sets_are_read_from_the_offer() {
        let offer = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0LAH9oBQBbpqA==,aM48gA==;profile-level-id=42c01f\r\na=sendonly\r\n";
        let sets = sprop_parameter_sets(offer);
        assert_eq!(sets[0], [0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe9, 0xa8]);
        assert_eq!(sets[1..], [vec![0x68, 0xce, 0x3c, 0x80]]);
        assert!(sends_video(offer) && !sends_video(&offer.replace("sendonly", "recvonly")));
        assert_eq!(sprop_parameter_sets(&offer.replace("Z0LA", "Z0L!")).len(), 1);
    }

    #[test]
    fn retransmissions_and_extensions_are_found_by_their_own_lines() {
        let answer = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtcp-fb:96 goog-remb\r\na=extmap:15 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\na=extmap:3 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\na=ssrc-group:FID 88 99\r\na=ssrc:88 cname:abc\r\na=ssrc:99 cname:abc\r\n";
        let video = Negotiated::from_answer(answer).video.unwrap();
        assert_eq!((video.ssrc, video.rtx_ssrc), (88, Some(99)));
        assert_eq!(video.payload(Codec::Vp8).unwrap().rtx, Some(97));
        let kind = ExtensionKind::AbsoluteSendTime;
        assert_eq!(video.extension, Some(HeaderExtension { id: 3, kind }), "15 needs two bytes");
        let silent = answer.replace("a=rtcp-fb:96 goog-remb\r\n", "");
        assert_eq!(Negotiated::from_answer(&silent).video.unwrap().extension, None);
    }
}

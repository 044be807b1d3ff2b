//! What offer and answer settled for our sending: SSRCs and payload types.
//!
//! Read from the answer's own text, so that what we send is by construction what the viewer was
//! told. Reads only sections that we send in; it judges nothing else of the SDP.

use crate::frame::{Codec, MediaKind};

/// An H.264 payload type and the profile that was settled for it (RFC 6184 §8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct H264Payload {
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// `profile-level-id`: profile_idc, constraint flags, level_idc.
    pub profile_level_id: [u8; 3],
}

/// One section of the answer that we send in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Picture or sound.
    pub kind: MediaKind,
    /// Synchronization source of everything we send in it.
    pub ssrc: u32,
    /// Payload types with packetization-mode 1, in the answer's order.
    pub h264: Vec<H264Payload>,
    /// Payload types of the other codecs, in the answer's order.
    pub others: Vec<(Codec, u8)>,
}

impl Track {
    /// The payload type for a codec, if the viewer takes it.
    ///
    /// For H.264 constrained baseline, else the first: decoders read the real profile from the
    /// parameter sets in band, and every browser offers constrained baseline.
    pub fn payload_type(&self, codec: Codec) -> Option<u8> {
        match codec {
            Codec::H264 => {
                self.constrained_baseline().or(self.h264.first()).map(|entry| entry.payload_type)
            }
            Codec::Opus | Codec::Pcmu | Codec::Pcma => {
                self.others.iter().find(|(other, _)| *other == codec).map(|(_, pt)| *pt)
            }
        }
    }

    /// `42e0xx`: what every WebRTC browser decodes (RFC 7742 §6.2).
    fn constrained_baseline(&self) -> Option<&H264Payload> {
        self.h264.iter().find(|entry| entry.profile_level_id[..2] == [0x42, 0xe0])
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

/// The kinds and codec names that an offer asks for, for error sentences: `video: VP8, VP9`.
pub(crate) fn offered_video_codecs(sdp: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for section in sections(sdp).iter().filter(|section| section.head.starts_with("video ")) {
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
        let mut track = Track { kind, ssrc, h264: Vec::new(), others: Vec::new() };
        for (payload_type, name) in self.rtpmaps() {
            match name.to_ascii_lowercase().as_str() {
                "h264" => track.h264.extend(self.h264_payload(payload_type)),
                "opus" => track.others.push((Codec::Opus, payload_type)),
                "pcmu" => track.others.push((Codec::Pcmu, payload_type)),
                "pcma" => track.others.push((Codec::Pcma, payload_type)),
                _ => {}
            }
        }
        Some(track)
    }

    /// The payload type with its profile, if it is packetization-mode 1.
    fn h264_payload(&self, payload_type: u8) -> Option<H264Payload> {
        let prefix = format!("fmtp:{payload_type} ");
        let parameters = self.lines.iter().find_map(|line| line.strip_prefix(prefix.as_str()))?;
        let value = |name: &str| {
            parameters.split(';').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
        };
        if value("packetization-mode") != Some("1") {
            return None;
        }
        let id = u32::from_str_radix(value("profile-level-id")?, 16).ok()?;
        let [_, profile, flags, level] = id.to_be_bytes();
        Some(H264Payload { payload_type, profile_level_id: [profile, flags, level] })
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
        assert_eq!(video.payload_type(Codec::H264), Some(125));
        let audio = negotiated.audio.unwrap();
        assert_eq!(audio.payload_type(Codec::Opus), Some(111));
        assert_eq!(audio.payload_type(Codec::Pcmu), Some(0));
        assert_eq!(audio.payload_type(Codec::Pcma), None);
    }
}

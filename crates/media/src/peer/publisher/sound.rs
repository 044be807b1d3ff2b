//! The answer to somebody who speaks: one section of sound, which is Opus, and nothing else.
//!
//! The codec lines are written here and not by str0m, which negotiates no feedback for sound and knows
//! no wishes. What stands in them is as far as the offer has it.

use str0m::RtcConfig;
use str0m::rtp::{Extension, ExtensionMap};

use super::PublishError;
use crate::negotiated::offered_codecs;
use crate::peer::OfferError;
use crate::peer::offer::sections;

/// How somebody who speaks is asked to encode (RFC 7587 §6.1). They are wishes: an encoder may do
/// otherwise, and what it sends is passed on all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoundWishes {
    /// `maxplaybackrate`: 8,000 to 48,000 Hz.
    pub sample_rate: u32,
    /// Two channels: `stereo=1`.
    pub channels: u8,
    /// `ptime` in ms (RFC 8866 §6.4): 10, 20, 40 or 60.
    pub packet_time: u8,
    /// Forward error correction in band: `useinbandfec=1`.
    pub fec: bool,
    /// Silence is not sent: `usedtx=1`.
    pub dtx: bool,
}

/// What `minptime` says, in ms, unless shorter packets are wished for: as browsers have it.
const PACKET_TIME_MIN: u8 = 10;

/// What of str0m's section is kept: the transport, and what header extensions were settled.
const KEPT: [&str; 8] = [
    "a=ice-ufrag:",
    "a=ice-pwd:",
    "a=ice-options:",
    "a=fingerprint:",
    "a=setup:",
    "a=mid:",
    "a=extmap:",
    "a=rtcp-mux",
];

/// Opus with redundancy; how loud a packet is, when it arrived, and whose it is.
pub(super) fn configured(config: RtcConfig) -> RtcConfig {
    let mut extensions = ExtensionMap::empty();
    extensions.set(1, Extension::AudioLevel);
    extensions.set(3, Extension::TransportSequenceNumber);
    extensions.set(4, Extension::RtpMid);
    config.set_extension_map(extensions).enable_opus(true, true)
}

/// The section of an offer that is answered: the first one of sound that is open and sends.
pub(super) fn voice_section(offer: &str) -> Result<usize, PublishError> {
    let is_voice = |section: &Vec<&str>| {
        let mut head = section[0].split(' ');
        head.next() == Some("m=audio")
            && head.next() != Some("0")
            && !section.iter().any(|line| matches!(*line, "a=recvonly" | "a=inactive"))
    };
    let mut sections = sections(offer).into_iter().skip(1);
    sections.position(|section| is_voice(&section)).ok_or(PublishError::NoAudio)
}

/// What one offer is answered with, and what that settles.
pub(super) struct VoiceAnswer {
    pub(super) sdp: String,
    /// Whether lost packets may be asked for again.
    pub(super) resends: Resends,
}

/// Whether lost packets may be asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resends {
    /// The answer says `nack`.
    Settled,
    /// The offer did not have it.
    Unknown,
}

/// str0m's answer with the one section that is taken, RED before Opus as libwebrtc needs it to send
/// that; every other section is rejected (RFC 3264 §6).
pub(super) fn voice_answer(
    offer: &str,
    answer: &str,
    taken: usize,
    wishes: &SoundWishes,
    candidates: &str,
) -> Result<VoiceAnswer, PublishError> {
    let (offered, answered) = (sections(offer), sections(answer));
    // What stands before the first section is the first of them.
    let theirs = offered.get(taken + 1);
    let mid = theirs.and_then(|lines| lines.iter().find(|line| line.starts_with("a=mid:")));
    // str0m leaves out sections that it does not know.
    let ours = mid.and_then(|mid| answered.iter().skip(1).find(|lines| lines.contains(mid)));
    let (Some(theirs), Some(mid), Some(ours)) = (theirs, mid, ours) else {
        return Err(OfferError::Malformed("its sections cannot be told apart".to_owned()).into());
    };
    let formats = Formats::settled(theirs, ours).ok_or_else(|| PublishError::NoOpus {
        offered: offered_codecs(offer, "audio").join(", "),
    })?;
    let mut sdp = String::with_capacity(answer.len() + candidates.len());
    let mut add = |line: &str| {
        sdp.push_str(line);
        sdp.push_str("\r\n");
    };
    for line in &answered[0] {
        match line.strip_prefix("a=group:BUNDLE") {
            // RFC 9143 §7.3.3: what is rejected is in no group.
            Some(_) => add(&format!("a=group:BUNDLE {}", &mid["a=mid:".len()..])),
            None => add(line),
        }
    }
    for (index, section) in offered.iter().skip(1).enumerate() {
        if index == taken {
            add(&formats.head(theirs[0]));
            add("c=IN IP4 0.0.0.0");
            ours.iter()
                .filter(|line| KEPT.iter().any(|kept| line.starts_with(kept)))
                .for_each(|line| add(line));
            formats.lines(wishes).iter().for_each(|line| add(line));
            candidates.lines().for_each(&mut add);
            add("a=end-of-candidates");
        } else {
            rejected(section).iter().for_each(|line| add(line));
        }
    }
    let resends = if formats.nack { Resends::Settled } else { Resends::Unknown };
    Ok(VoiceAnswer { sdp, resends })
}

/// A section that is not taken: its own head with port 0.
fn rejected(section: &[&str]) -> Vec<String> {
    let mut head: Vec<&str> = section[0].split(' ').collect();
    if let Some(port) = head.get_mut(1) {
        *port = "0";
    }
    let mid = section.iter().find(|line| line.starts_with("a=mid:"));
    let lines = [head.join(" "), "c=IN IP4 0.0.0.0".to_owned(), "a=inactive".to_owned()];
    lines.into_iter().chain(mid.map(|mid| (*mid).to_owned())).collect()
}

/// Payload types and feedback that both sides have.
struct Formats {
    opus: u8,
    red: Option<u8>,
    nack: bool,
    transport_cc: bool,
}

impl Formats {
    /// `None` without Opus.
    fn settled(theirs: &[&str], ours: &[&str]) -> Option<Self> {
        let formats: Vec<&str> = theirs[0].split_whitespace().skip(3).collect();
        // str0m goes by the rtpmap lines alone.
        let payload_type = |name: &str| {
            let mut maps =
                ours.iter().filter_map(|line| line.strip_prefix("a=rtpmap:")?.split_once(' '));
            maps.find(|(payload_type, encoding)| {
                encoding.eq_ignore_ascii_case(name) && formats.contains(payload_type)
            })
            .and_then(|(payload_type, _)| payload_type.parse().ok())
        };
        let opus: u8 = payload_type("opus/48000/2")?;
        let has_feedback = |name: &str| {
            let mut lines =
                theirs.iter().filter_map(|line| line.strip_prefix("a=rtcp-fb:")?.split_once(' '));
            lines.any(|(of, feedback)| feedback == name && (of == "*" || of.parse() == Ok(opus)))
        };
        Some(Self {
            opus,
            red: payload_type("red/48000/2"),
            nack: has_feedback("nack"),
            transport_cc: has_feedback("transport-cc"),
        })
    }

    /// The section's head, with the offer's protocol.
    fn head(&self, theirs: &str) -> String {
        let protocol = theirs.split(' ').nth(2).unwrap_or("UDP/TLS/RTP/SAVPF");
        let formats = [self.red, Some(self.opus)].into_iter().flatten();
        let formats: String = formats.map(|format| format!(" {format}")).collect();
        format!("m=audio 9 {protocol}{formats}")
    }

    fn lines(&self, wishes: &SoundWishes) -> Vec<String> {
        let Self { opus, red, nack, transport_cc } = *self;
        let mut lines = vec!["a=recvonly".to_owned()];
        if let Some(red) = red {
            lines.push(format!("a=rtpmap:{red} red/48000/2"));
            lines.push(format!("a=fmtp:{red} {opus}/{opus}"));
        }
        lines.push(format!("a=rtpmap:{opus} opus/48000/2"));
        if transport_cc {
            lines.push(format!("a=rtcp-fb:{opus} transport-cc"));
        }
        if nack {
            lines.push(format!("a=rtcp-fb:{opus} nack"));
        }
        let SoundWishes { sample_rate, channels, packet_time, fec, dtx } = *wishes;
        let (stereo, fec, dtx) = (u8::from(channels > 1), u8::from(fec), u8::from(dtx));
        let packet_time_min = packet_time.min(PACKET_TIME_MIN);
        lines.push(format!(
            "a=fmtp:{opus} minptime={packet_time_min};useinbandfec={fec};usedtx={dtx};stereo={stereo};maxplaybackrate={sample_rate}"
        ));
        lines.push(format!("a=ptime:{packet_time}"));
        lines
    }
}

//! A receiver of sound: here we offer and it answers.
//!
//! Neither text goes through str0m. The offer is one section that never changes but for a few values,
//! and of the answer only what follows is read, each with its bounds: ICE credentials, fingerprint,
//! the side that begins DTLS, and the payload types. Candidates are not: checks bring their source.
//!
//! A browser may check, and say hello, before its answer came here by the slower way of signalling. The
//! newest of both is kept and handed on with the answer, so that it need not be sent again.

use std::str::FromStr;

use str0m::IceCreds;
use str0m::crypto::Fingerprint;

use super::offer::{LONE_CR, has_lone_cr};
use super::{AnswerError, IceCredentials};
use crate::negotiated::{Negotiated, OPUS_PAYLOAD_TYPE, RED_PAYLOAD_TYPE, taken_sound};

/// Bytes of an answer, at most. Browsers' have 1.5 KB and 100 bytes more for each candidate; of those
/// a machine with fifty networks has 200.
const MAX_ANSWER_BYTES: usize = 32 * 1024;

/// Characters of a user fragment and of a password, at least and at most (RFC 8839 §5.4).
const UFRAG_CHARACTERS: std::ops::RangeInclusive<usize> = 4..=256;
const PASSWORD_CHARACTERS: std::ops::RangeInclusive<usize> = 22..=256;

/// The one hash that all endpoints have (RFC 8122 §5).
const FINGERPRINT_HASH: &str = "sha-256";
const FINGERPRINT_BYTES: usize = 32;

/// What a peer is that was made an offer and has not answered.
pub(super) struct Offered {
    ssrc: u32,
    cname: String,
    /// The newest check and the newest packet of DTLS that came before the answer.
    early_check: Option<Vec<u8>>,
    early_dtls: Option<Vec<u8>>,
}

impl Offered {
    pub(super) fn new(ssrc: u32, credentials: &IceCredentials) -> Self {
        // As fresh as the credentials, so that no two sessions share one (RFC 7022 §4.2).
        let cname = credentials.ufrag.clone();
        Self { ssrc, cname, early_check: None, early_dtls: None }
    }

    /// Keeps what came too early for str0m.
    pub(super) fn keep(&mut self, packet: &[u8]) {
        let place =
            if super::is_dtls(packet) { &mut self.early_dtls } else { &mut self.early_check };
        *place = Some(packet.to_vec());
    }

    /// What was kept, in the order in which it is understood.
    pub(super) fn early(self) -> impl Iterator<Item = Vec<u8>> {
        self.early_check.into_iter().chain(self.early_dtls)
    }

    /// The offer: sound that we send and nothing else, Opus by itself and with redundancy.
    pub(super) fn sdp(
        &self,
        credentials: &IceCredentials,
        fingerprint: &Fingerprint,
        candidates: &str,
    ) -> String {
        let Self { ssrc, cname, .. } = self;
        let IceCredentials { ufrag, password } = credentials;
        let (opus, red) = (OPUS_PAYLOAD_TYPE, RED_PAYLOAD_TYPE);
        let session = format!(
            "v=0\r\no=- {ssrc} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
             a=msid-semantic: WMS voice\r\na=ice-lite\r\n"
        );
        let transport = format!(
            "m=audio 9 UDP/TLS/RTP/SAVPF {opus} {red}\r\nc=IN IP4 0.0.0.0\r\n\
             a=rtcp:9 IN IP4 0.0.0.0\r\n{candidates}a=end-of-candidates\r\n\
             a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\na=fingerprint:{fingerprint}\r\n\
             a=setup:actpass\r\na=mid:0\r\na=sendonly\r\na=msid:voice {cname}\r\na=rtcp-mux\r\n\
             a=rtcp-rsize\r\n"
        );
        let codecs = format!(
            "a=rtpmap:{opus} opus/48000/2\r\na=rtcp-fb:{opus} nack\r\n\
             a=fmtp:{opus} minptime=10;useinbandfec=1\r\n\
             a=rtpmap:{red} red/48000/2\r\na=fmtp:{red} {opus}/{opus}\r\n\
             a=ssrc:{ssrc} cname:{cname}\r\na=ssrc:{ssrc} msid:voice {cname}\r\n"
        );
        [session, transport, codecs].concat()
    }

    /// What an answer settles.
    pub(super) fn read(&self, answer: &str) -> Result<Answered, AnswerError> {
        if answer.len() > MAX_ANSWER_BYTES {
            return Err(malformed("it is larger than any browser's"));
        }
        if has_lone_cr(answer) {
            return Err(malformed(LONE_CR));
        }
        let has_section = |kind: &str| answer.lines().any(|line| line.starts_with(kind));
        if !answer.starts_with("v=0") {
            return Err(malformed("it is no SDP; send what setLocalDescription was given"));
        }
        if has_section("m=") && answer.lines().filter(|line| line.starts_with("m=")).count() > 1 {
            return Err(malformed("it has more sections than the offer, which has one of audio"));
        }
        let track = taken_sound(answer, self.ssrc).ok_or(AnswerError::NoSound)?;
        if has_section("a=ice-lite") {
            return Err(malformed("both sides are a=ice-lite, so that nobody would check"));
        }
        match attribute(answer, "setup:") {
            Some("active") => {}
            Some("passive") => return Err(AnswerError::Passive),
            Some(_) | None => return Err(malformed("it has no a=setup:active")),
        }
        let negotiated = Negotiated { video: None, audio: Some(track), cname: self.cname.clone() };
        let (credentials, fingerprint) = (credentials(answer)?, fingerprint(answer)?);
        Ok(Answered { credentials, fingerprint, negotiated })
    }
}

/// What an answer settled.
pub(super) struct Answered {
    pub(super) credentials: IceCreds,
    pub(super) fingerprint: Fingerprint,
    pub(super) negotiated: Negotiated,
}

fn malformed(why: &str) -> AnswerError {
    AnswerError::Malformed(why.to_owned())
}

/// An attribute's value; that of the section counts before the session's (RFC 8866 §5.13).
fn attribute<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    attributes(answer, name).last()
}

fn attributes<'a>(answer: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    answer.lines().filter_map(move |line| Some(line.strip_prefix("a=")?.strip_prefix(name)?.trim()))
}

fn credentials(answer: &str) -> Result<IceCreds, AnswerError> {
    let read = |name, lengths: &std::ops::RangeInclusive<usize>| {
        let value = attribute(answer, name)?;
        // More than ice-chars (RFC 8839 §5.4): some endpoints' have others, which do no harm.
        let is_fit = value.chars().all(|c| c.is_ascii_graphic());
        (lengths.contains(&value.len()) && is_fit).then(|| value.to_owned())
    };
    match (read("ice-ufrag:", &UFRAG_CHARACTERS), read("ice-pwd:", &PASSWORD_CHARACTERS)) {
        (Some(ufrag), Some(pass)) => Ok(IceCreds { ufrag, pass }),
        (_, _) => Err(malformed("its a=ice-ufrag or a=ice-pwd is missing or unfit")),
    }
}

fn fingerprint(answer: &str) -> Result<Fingerprint, AnswerError> {
    let of_our_hash = attributes(answer, "fingerprint:").filter_map(|value| {
        let (hash, digest) = value.split_once(' ')?;
        let is_ours = hash.eq_ignore_ascii_case(FINGERPRINT_HASH);
        // str0m compares the name of the hash as well.
        is_ours.then(|| Fingerprint::from_str(&format!("{FINGERPRINT_HASH} {digest}")).ok())?
    });
    let whole = of_our_hash.filter(|fingerprint| fingerprint.bytes.len() == FINGERPRINT_BYTES);
    whole.last().ok_or_else(|| malformed("it has no a=fingerprint:sha-256"))
}

//! What is looked at in an offer before str0m reads it, and what is changed in its answer.

use super::OfferError;
use crate::negotiated::Negotiated;
use crate::negotiated::{ExtensionKind, extension_id};

/// Media sections of an offer, at most. A viewer needs two; each one costs memory and time for as
/// long as the session lives.
const MAX_OFFER_SECTIONS: usize = 16;

/// Lines of an offer, at most. Chromium's with all codecs have 200, each with a few candidates more.
const MAX_OFFER_LINES: usize = 2_000;

/// Longest explanation of what is wrong with an offer, in characters.
const MAX_REASON_CHARACTERS: usize = 160;

/// Refuses what would cost more than any browser's offer, before anything else looks at it.
pub(super) fn check_size(offer: &str) -> Result<(), OfferError> {
    let too_many =
        |most: usize, of: &str| Err(OfferError::Malformed(format!("it has more than {most} {of}")));
    if has_lone_cr(offer) {
        return Err(OfferError::Malformed(LONE_CR.to_owned()));
    }
    if offer.lines().nth(MAX_OFFER_LINES).is_some() {
        return too_many(MAX_OFFER_LINES, "lines");
    }
    if offer.lines().filter(|line| line.starts_with("m=")).nth(MAX_OFFER_SECTIONS).is_some() {
        return too_many(MAX_OFFER_SECTIONS, "media sections");
    }
    Ok(())
}

/// What is said of a description with lines that [`has_lone_cr`] finds.
pub(super) const LONE_CR: &str = "it has lines that end with CR alone; they end with CR LF";

/// Whether a line ends with CR and no LF. RFC 8866 §5 allows CR LF, and LF alone; the parser below
/// takes CR alone too, and would read other lines than we do.
pub(super) fn has_lone_cr(sdp: &str) -> bool {
    sdp.split('\r').skip(1).any(|behind| !behind.starts_with('\n'))
}

/// Whether each payload type that an answer settled stands in an `m=` line of its offer. str0m goes by
/// the `rtpmap` lines alone.
pub(super) fn offers_all(offer: &str, negotiated: &Negotiated) -> bool {
    let tracks = negotiated.video.iter().chain(&negotiated.audio);
    tracks.flat_map(|track| &track.payloads).all(|payload| {
        let payload_type = payload.payload_type.to_string();
        offer
            .lines()
            .filter(|line| line.starts_with("m="))
            .any(|line| line.split_whitespace().skip(3).any(|word| word == payload_type))
    })
}

pub(super) fn malformed(error: &impl std::fmt::Display) -> OfferError {
    OfferError::Malformed(printable(error))
}

/// What the parser says, in one line of printable characters. It quotes what it was given, and tells
/// where in this process's memory that was, which is nobody's business.
pub(super) fn printable(error: &(impl std::fmt::Display + ?Sized)) -> String {
    let text = error.to_string();
    let lines = text.lines().map(|line| line.split("Parse error at PointerOffset").next());
    let words: Vec<&str> = lines.flatten().flat_map(str::split_whitespace).collect();
    let line = words.join(" ");
    let printable = line.chars().filter(|c| c.is_ascii_graphic() || *c == ' ');
    printable.take(MAX_REASON_CHARACTERS).collect()
}

/// The answer with the feedback that we act on, each as far as the viewer offered it: str0m would
/// promise all that it knows. `nack pli` and `ccm fir` stay everywhere. Of the two ways to learn
/// what a line carries a video section has the first that is whole, with its header extension: the
/// viewer's own estimate costs us nothing a packet.
pub(super) fn with_served_feedback(offer: &str, answer: &str) -> String {
    let offered = sections(offer);
    sections(answer)
        .iter()
        .enumerate()
        .flat_map(|(index, section)| {
            // Sections of an answer stand in the offer's order (RFC 3264 §6).
            let offered = offered.get(index).map_or(&[][..], Vec::as_slice);
            let estimation = estimation(offered, section);
            section.iter().copied().filter(move |line| is_served(line, offered, estimation))
        })
        .flat_map(|line| [line, "\r\n"])
        .collect()
}

/// What stands before the first `m=` line, then each section from its `m=` line on.
pub(super) fn sections(sdp: &str) -> Vec<Vec<&str>> {
    let mut sections = vec![Vec::new()];
    for line in sdp.lines() {
        if line.starts_with("m=") {
            sections.push(Vec::new());
        }
        if let Some(section) = sections.last_mut() {
            section.push(line);
        }
    }
    sections
}

/// How the rate of this section's line is to be learnt. Sound is too little to tell.
fn estimation(offered: &[&str], answered: &[&str]) -> Option<ExtensionKind> {
    if !answered.first().is_some_and(|head| head.starts_with("m=video ")) {
        return None;
    }
    let has_extension = |lines: &[&str], kind| {
        let mut maps = lines.iter().filter_map(|line| line.strip_prefix("a=extmap:"));
        maps.any(|map| extension_id(map, kind).is_some())
    };
    let has_feedback =
        |kind: ExtensionKind| offered.iter().any(|line| feedback(line) == Some(kind.feedback()));
    [ExtensionKind::AbsoluteSendTime, ExtensionKind::TransportSequence].into_iter().find(|kind| {
        has_feedback(*kind) && has_extension(offered, *kind) && has_extension(answered, *kind)
    })
}

fn is_served(line: &str, offered: &[&str], estimation: Option<ExtensionKind>) -> bool {
    if let Some(map) = line.strip_prefix("a=extmap:") {
        return estimation.is_some_and(|kind| extension_id(map, kind).is_some());
    }
    let is_offered = || {
        let for_all = feedback(line).map(|feedback| format!("a=rtcp-fb:* {feedback}"));
        offered.iter().any(|other| *other == line || for_all.as_deref() == Some(*other))
    };
    match feedback(line) {
        Some("nack") => is_offered(),
        Some(name @ ("goog-remb" | "transport-cc")) => {
            estimation.is_some_and(|kind| kind.feedback() == name) && is_offered()
        }
        Some(_) | None => true,
    }
}

/// `a=rtcp-fb:96 nack pli` says `nack pli`.
fn feedback(line: &str) -> Option<&str> {
    Some(line.strip_prefix("a=rtcp-fb:")?.split_once(' ')?.1)
}

/// The answer with these candidate lines in the place of str0m's. They stand in the first section:
/// all of them share its transport (BUNDLE, RFC 8843 §8).
pub(super) fn with_candidates(answer: &str, lines: &str) -> String {
    let mut written = false;
    let mut replaced = String::with_capacity(answer.len() + lines.len());
    for line in answer.lines() {
        if !line.starts_with("a=candidate:") {
            replaced.push_str(line);
            replaced.push_str("\r\n");
        } else if !std::mem::replace(&mut written, true) {
            replaced.push_str(lines);
            replaced.push_str("a=end-of-candidates\r\n");
        }
    }
    replaced
}

/// The answer with one `CNAME` and one media stream for picture and sound: viewers synchronise
/// only what shares both (RFC 3550 §6.5.1, RFC 8830 §2). str0m gives each track its own.
pub(super) fn as_one_stream(answer: &str) -> String {
    let mut cname = None;
    let mut stream = None;
    answer
        .lines()
        .map(|line| {
            let line = share_value(line, "cname:", &mut cname);
            share_value(&line, "msid:", &mut stream) + "\r\n"
        })
        .collect()
}

/// Replaces the value behind `name` by the first one that was seen behind it.
fn share_value(line: &str, name: &str, first: &mut Option<String>) -> String {
    let Some((before, after)) = line.split_once(name).filter(|_| line.starts_with("a=")) else {
        return line.to_owned();
    };
    let (value, rest) = after.split_at(after.find(' ').unwrap_or(after.len()));
    let shared = first.get_or_insert_with(|| value.to_owned());
    format!("{before}{name}{shared}{rest}")
}

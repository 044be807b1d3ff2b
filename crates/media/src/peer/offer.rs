//! What is looked at in an offer before str0m reads it, and what is changed in its answer.

use super::OfferError;

/// Feedback that str0m would answer with and that the egress does not act on. A viewer that was
/// promised retransmissions waits for them; one that was not says sooner that its picture is lost.
const UNSERVED_FEEDBACK: [&str; 3] = ["nack", "goog-remb", "transport-cc"];

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
    if offer.lines().nth(MAX_OFFER_LINES).is_some() {
        return too_many(MAX_OFFER_LINES, "lines");
    }
    if offer.lines().filter(|line| line.starts_with("m=")).nth(MAX_OFFER_SECTIONS).is_some() {
        return too_many(MAX_OFFER_SECTIONS, "media sections");
    }
    Ok(())
}

/// What is wrong, in one line of printable characters. The parser quotes the offer, and tells where
/// in this process's memory it was, which is nobody's business.
pub(super) fn malformed(error: &impl std::fmt::Display) -> OfferError {
    let text = error.to_string();
    let lines = text.lines().map(|line| line.split("Parse error at PointerOffset").next());
    let words: Vec<&str> = lines.flatten().flat_map(str::split_whitespace).collect();
    let printable = words.join(" ").chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
    let printable: String = printable;
    OfferError::Malformed(printable.chars().take(MAX_REASON_CHARACTERS).collect())
}

/// The answer without [`UNSERVED_FEEDBACK`]; `nack pli` and `ccm fir` stay.
pub(super) fn without_unserved_feedback(answer: &str) -> String {
    let is_unserved = |line: &str| {
        line.strip_prefix("a=rtcp-fb:")
            .and_then(|rest| rest.split_once(' '))
            .is_some_and(|(_, feedback)| UNSERVED_FEEDBACK.contains(&feedback))
    };
    answer.lines().filter(|line| !is_unserved(line)).flat_map(|line| [line, "\r\n"]).collect()
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

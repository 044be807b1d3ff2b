//! Requests taken apart and answers written (RFC 2326 §4 to §7), as pure functions over bytes.
//!
//! What comes from a client is bounded before it is looked at, is never repeated to anybody without a
//! limit, and never makes anything here panic.

use std::fmt::Write;

/// Largest request line and headers together. A token in the URL or a header has 400 to 4,096 bytes.
pub(crate) const HEAD_LENGTH_MAX: usize = 8 * 1024;

/// Most headers of a request. Players send fewer than ten.
const HEADERS_MAX: usize = 32;

/// Largest body. What we read has none; keep-alives by SET_PARAMETER have a line or two.
pub(crate) const BODY_LENGTH_MAX: usize = 4 * 1024;

/// Most bytes that one message can have before it is refused: head and body, or an interleaved packet.
pub(crate) const MESSAGE_LENGTH_MAX: usize = {
    let interleaved = 4 + u16::MAX as usize;
    let request = HEAD_LENGTH_MAX + BODY_LENGTH_MAX;
    if interleaved > request { interleaved } else { request }
};

/// What a client can send.
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    /// A request.
    Request(Request<'a>),
    /// A packet on one of the connection's channels (RFC 2326 §10.12): reports of the receiver.
    Interleaved {
        /// RTP has even channels, RTCP odd ones.
        channel: u8,
        /// RTP or RTCP.
        packet: &'a [u8],
    },
    /// An answer to a request that we never made. Of no use.
    Answer,
}

/// A request without its body.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// What is asked for.
    pub(crate) method: Method,
    /// The request URI as it was written. It may hold a token: not for logs.
    pub(crate) uri: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

/// What a request can ask for (RFC 2326 §10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// What is possible?
    Options,
    /// What is there?
    Describe,
    /// Prepare a track.
    Setup,
    /// Begin.
    Play,
    /// Stop for a while.
    Pause,
    /// End.
    Teardown,
    /// Ask for a parameter; without one, keep alive.
    GetParameter,
    /// Set a parameter; without one, keep alive.
    SetParameter,
    /// Publish: not here.
    Announce,
    /// Publish: not here.
    Record,
    /// Any other word.
    Other,
}

impl Method {
    /// Methods are case-sensitive (RFC 2326 §6.1).
    fn from_name(name: &str) -> Self {
        match name {
            "OPTIONS" => Self::Options,
            "DESCRIBE" => Self::Describe,
            "SETUP" => Self::Setup,
            "PLAY" => Self::Play,
            "PAUSE" => Self::Pause,
            "TEARDOWN" => Self::Teardown,
            "GET_PARAMETER" => Self::GetParameter,
            "SET_PARAMETER" => Self::SetParameter,
            "ANNOUNCE" => Self::Announce,
            "RECORD" => Self::Record,
            _ => Self::Other,
        }
    }

    /// The word in the request line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Options => "OPTIONS",
            Self::Describe => "DESCRIBE",
            Self::Setup => "SETUP",
            Self::Play => "PLAY",
            Self::Pause => "PAUSE",
            Self::Teardown => "TEARDOWN",
            Self::GetParameter => "GET_PARAMETER",
            Self::SetParameter => "SET_PARAMETER",
            Self::Announce => "ANNOUNCE",
            Self::Record => "RECORD",
            Self::Other => "other",
        }
    }
}

impl<'a> Request<'a> {
    /// The first header of that name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value)
    }

    /// The number that its answer repeats (RFC 2326 §12.17).
    pub(crate) fn sequence(&self) -> Option<u32> {
        self.header("CSeq")?.parse().ok()
    }
}

/// Why bytes are no message. The connection cannot go on: nobody knows where the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    /// No empty line within [`HEAD_LENGTH_MAX`], or too many headers.
    #[error("the headers are too large")]
    HeadTooLarge,
    /// A body over [`BODY_LENGTH_MAX`].
    #[error("the body is too large")]
    BodyTooLarge,
    /// Bytes that are no text.
    #[error("the headers are not text")]
    NotText,
    /// Another protocol, or another version of this one.
    #[error("this is not a request of RTSP/1.0")]
    NotRtsp,
    /// A line without a colon, or a length that is no number.
    #[error("a header is malformed")]
    Header,
}

/// The first message in `buffer` and how many bytes it takes; `None` while it is not complete. Of a
/// buffer of [`MESSAGE_LENGTH_MAX`] bytes the answer is never `None`.
pub(crate) fn read(buffer: &[u8]) -> Result<Option<(Incoming<'_>, usize)>, MessageError> {
    match buffer {
        [] => Ok(None),
        [b'$', rest @ ..] => Ok(read_interleaved(rest)),
        // Some clients send an empty line or two between requests.
        [b'\r' | b'\n', ..] => {
            let blank = buffer.iter().take_while(|byte| b"\r\n".contains(byte)).count();
            Ok(read(&buffer[blank..])?.map(|(message, bytes)| (message, blank + bytes)))
        }
        _ => read_request(buffer),
    }
}

/// ```text
/// |  '$' = 0x24   |    channel    |            length             | packet ...
/// ```
fn read_interleaved(behind_dollar: &[u8]) -> Option<(Incoming<'_>, usize)> {
    let [channel, high, low, rest @ ..] = behind_dollar else { return None };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let packet = rest.get(..length)?;
    Some((Incoming::Interleaved { channel: *channel, packet }, 4 + length))
}

fn read_request(buffer: &[u8]) -> Result<Option<(Incoming<'_>, usize)>, MessageError> {
    let head = &buffer[..buffer.len().min(HEAD_LENGTH_MAX)];
    let Some(head_length) = head_length(head) else {
        let is_full = head.len() == HEAD_LENGTH_MAX;
        return if is_full { Err(MessageError::HeadTooLarge) } else { check_begin(head) };
    };
    let text = std::str::from_utf8(&head[..head_length]).map_err(|_| MessageError::NotText)?;
    let mut lines = text.lines();
    let begin = lines.next().unwrap_or_default();
    let headers = read_headers(lines)?;
    let body_length = body_length(&headers)?;
    let length = head_length + body_length;
    if buffer.len() < length {
        return Ok(None);
    }
    if begin.starts_with("RTSP/") {
        return Ok(Some((Incoming::Answer, length)));
    }
    let mut words = begin.split_ascii_whitespace();
    let (Some(method), Some(uri), Some("RTSP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(MessageError::NotRtsp);
    };
    let request = Request { method: Method::from_name(method), uri, headers };
    Ok(Some((Incoming::Request(request), length)))
}

/// Whether what is there can become a request: another protocol need not be waited for.
fn check_begin(head: &[u8]) -> Result<Option<(Incoming<'_>, usize)>, MessageError> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_printable = |byte: &u8| byte.is_ascii_graphic() || b" \r".contains(byte);
    if line.iter().all(is_printable) { Ok(None) } else { Err(MessageError::NotText) }
}

/// Up to and with the empty line.
fn head_length(head: &[u8]) -> Option<usize> {
    let line_ends = head.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    line_ends
        .map(|(at, _)| at + 1)
        .find(|next| {
            let rest = &head[*next..];
            rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
        })
        .map(|next| next + if head[next] == b'\n' { 1 } else { 2 })
}

fn read_headers<'a>(
    lines: impl Iterator<Item = &'a str>,
) -> Result<Vec<(&'a str, &'a str)>, MessageError> {
    let mut headers = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        if headers.len() == HEADERS_MAX {
            return Err(MessageError::HeadTooLarge);
        }
        let (name, value) = line.split_once(':').ok_or(MessageError::Header)?;
        headers.push((name.trim(), value.trim()));
    }
    Ok(headers)
}

fn body_length(headers: &[(&str, &str)]) -> Result<usize, MessageError> {
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Content-Length"));
    let length = length.map_or(Ok(0), |(_, value)| value.parse::<usize>());
    let length = length.map_err(|_| MessageError::Header)?;
    if length > BODY_LENGTH_MAX { Err(MessageError::BodyTooLarge) } else { Ok(length) }
}

/// The statuses that we answer (RFC 2326 §7.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotEnoughBandwidth,
    SessionNotFound,
    MethodNotValidInThisState,
    UnsupportedTransport,
    NotImplemented,
    ServiceUnavailable,
}

impl Status {
    const fn code_and_reason(self) -> (u16, &'static str) {
        match self {
            Self::Ok => (200, "OK"),
            Self::BadRequest => (400, "Bad Request"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "Not Found"),
            Self::MethodNotAllowed => (405, "Method Not Allowed"),
            Self::NotEnoughBandwidth => (453, "Not Enough Bandwidth"),
            Self::SessionNotFound => (454, "Session Not Found"),
            Self::MethodNotValidInThisState => (455, "Method Not Valid in This State"),
            Self::UnsupportedTransport => (461, "Unsupported Transport"),
            Self::NotImplemented => (501, "Not Implemented"),
            Self::ServiceUnavailable => (503, "Service Unavailable"),
        }
    }

    /// The number in the status line.
    pub(crate) const fn code(self) -> u16 {
        self.code_and_reason().0
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    status: Status,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    /// An answer without headers or body.
    pub(crate) fn new(status: Status) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    /// An error with a sentence for people.
    pub(crate) fn sentence(status: Status, sentence: impl Into<String>) -> Self {
        Self::new(status).with_body("text/plain; charset=utf-8", sentence.into())
    }

    /// The same with a header. Control characters would begin another header: they are left out.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let mut value: String = value.into();
        value.retain(|character| !character.is_control());
        self.headers.push((name, value));
        self
    }

    /// The same with a body.
    pub(crate) fn with_body(mut self, content: &'static str, body: String) -> Self {
        self.body = body;
        self.with("Content-Type", content)
    }

    /// What it answers.
    pub(crate) fn status(&self) -> Status {
        self.status
    }

    /// Appends it as it goes on the wire.
    pub(crate) fn write(&self, sequence: Option<u32>, out: &mut Vec<u8>) {
        let (code, reason) = self.status.code_and_reason();
        let mut text = format!("RTSP/1.0 {code} {reason}\r\n");
        // Writing to a string does not fail.
        if let Some(sequence) = sequence {
            let _ = write!(text, "CSeq: {sequence}\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        if !self.body.is_empty() {
            let _ = write!(text, "Content-Length: {}\r\n", self.body.len());
        }
        let _ = write!(text, "\r\n{}", self.body);
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rtsp_out::fuzz::rtsp_request;

    fn request(text: &str) -> Result<Option<(Method, String, usize)>, MessageError> {
        let read = read(text.as_bytes())?;
        Ok(read.map(|(message, length)| match message {
            Incoming::Request(request) => (request.method, request.uri.to_owned(), length),
            other @ (Incoming::Interleaved { .. } | Incoming::Answer) => {
                panic!("not a request: {other:?}")
            }
        }))
    }

    #[test]
    fn a_request_is_taken_apart_when_it_is_complete() {
        let text = "SETUP rtsp://h/cam/trackID=0 RTSP/1.0\r\nCSeq: 3\r\ntransport: a;b\r\n\r\n";
        for end in 0..text.len() {
            assert!(matches!(read(&text.as_bytes()[..end]), Ok(None)), "{end}");
        }
        let (message, length) = read(text.as_bytes()).unwrap().unwrap();
        let Incoming::Request(request) = message else { panic!() };
        assert_eq!((request.method, request.uri), (Method::Setup, "rtsp://h/cam/trackID=0"));
        assert_eq!((request.sequence(), request.header("Transport")), (Some(3), Some("a;b")));
        assert_eq!(length, text.len());
    }

    #[test]
    fn a_body_is_waited_for_and_passed_over() {
        let text = "SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 4\r\n\r\nabcdOPTIONS";
        assert!(matches!(read(&text.as_bytes()[..text.len() - 8]), Ok(None)));
        let length = text.len() - "OPTIONS".len();
        assert_eq!(request(text), Ok(Some((Method::SetParameter, "*".to_owned(), length))));
    }

    #[test]
    fn interleaved_packets_answers_and_blank_lines_are_passed() {
        let (message, length) = read(b"$\x01\x00\x02abc").unwrap().unwrap();
        assert!(matches!(message, Incoming::Interleaved { channel: 1, packet: b"ab" }));
        assert_eq!(length, 6);
        assert!(matches!(read(b"$\x01\x00\x02a"), Ok(None)));
        let (message, length) = read(b"\r\n\nRTSP/1.0 200 OK\nCSeq: 1\n\n").unwrap().unwrap();
        assert!(matches!(message, Incoming::Answer));
        assert_eq!(length, 28);
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_reason() {
        let large = format!("OPTIONS * RTSP/1.0\r\nA: {}", "a".repeat(HEAD_LENGTH_MAX));
        let many = format!("OPTIONS * RTSP/1.0\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
        for (text, error) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", MessageError::NotRtsp),
            ("OPTIONS * RTSP/2.0\r\n\r\n", MessageError::NotRtsp),
            ("OPTIONS *\r\n\r\n", MessageError::NotRtsp),
            ("OPTIONS * RTSP/1.0\r\nnothing\r\n\r\n", MessageError::Header),
            ("OPTIONS * RTSP/1.0\r\nContent-Length: -1\r\n\r\n", MessageError::Header),
            ("OPTIONS * RTSP/1.0\r\nContent-Length: 5000\r\n\r\n", MessageError::BodyTooLarge),
            ("\u{16}\u{3}\u{1}", MessageError::NotText),
            (&large, MessageError::HeadTooLarge),
            (&many, MessageError::HeadTooLarge),
        ] {
            assert_eq!(request(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_answer_cannot_be_split_by_what_it_repeats() {
        let mut out = Vec::new();
        let answer = Answer::sentence(Status::NotFound, "gone").with("Session", "a\r\nb: c");
        answer.write(Some(7), &mut out);
        let expected = "RTSP/1.0 404 Not Found\r\nCSeq: 7\r\n\
                        Content-Type: text/plain; charset=utf-8\r\nSession: ab: c\r\n\
                        Content-Length: 4\r\n\r\ngone";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_wait_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            rtsp_request(&bytes);
        }

        #[test]
        fn nothing_like_a_request_makes_it_panic(text in "(OPTIONS|SETUP|\\$..) [ -~]{0,40} RTSP/1.0\r\n(CSeq|Transport|Authorization|Content-Length): [ -~]{0,60}\r\n\r\n.{0,20}") {
            rtsp_request(text.as_bytes());
        }
    }
}

//! What an RTSP error means to the people who run the camera.
//!
//! `retina` tells errors apart by their text alone, except for response codes; the few texts that
//! matter are matched here, and the tests with a real server hold them to it. Every text that leaves
//! is one line without credentials.

use std::time::Duration;

use engine::SourceFailure;
use secrecy::SecretString;
use url::Url;

use crate::ingest::source_url::{authority, masked_path, scrub};

/// Longest detail, so that a camera cannot fill a log line or a page.
const DETAIL_MAX: usize = 200;

const CONNECT_FAILED: &str = "Unable to connect to RTSP server: ";
const READ_FAILED: &str = "Error reading from RTSP peer: ";
const WRITE_FAILED: &str = "Error writing to RTSP peer: ";
const UDP_FAILED: &str = "Error receiving UDP packet: ";

/// Explains the failures of one camera.
pub(super) struct Explain<'a> {
    url: &'a Url,
    password: Option<&'a SecretString>,
}

impl<'a> Explain<'a> {
    pub(super) fn new(url: &'a Url, password: Option<&'a SecretString>) -> Self {
        Self { url, password }
    }

    /// Nothing came within the limit for answers.
    pub(super) fn no_answer(&self, waited: Duration) -> SourceFailure {
        self.unreachable(format!("no answer in {} s", waited.as_secs()))
    }

    /// An error up to and including the answer to PLAY.
    pub(super) fn before_play(&self, error: &retina::Error) -> SourceFailure {
        if let Some(failure) = error.status_code().and_then(|status| self.refused(status)) {
            return failure;
        }
        let text = self.one_line(error);
        for prefix in [CONNECT_FAILED, READ_FAILED, WRITE_FAILED] {
            if let Some(detail) = text.strip_prefix(prefix) {
                return self.unreachable(detail.to_owned());
            }
        }
        SourceFailure::Protocol { detail: text }
    }

    /// An error while frames come.
    pub(super) fn after_play(&self, error: &retina::Error) -> SourceFailure {
        let text = self.one_line(error);
        for prefix in [READ_FAILED, WRITE_FAILED, UDP_FAILED] {
            if let Some(detail) = text.strip_prefix(prefix) {
                return SourceFailure::Lost { detail: detail.to_owned() };
            }
        }
        SourceFailure::Protocol { detail: text }
    }

    /// The camera hung up.
    pub(super) fn closed(&self) -> SourceFailure {
        SourceFailure::Lost { detail: "the camera closed the connection".to_owned() }
    }

    /// No picture within the limit.
    pub(super) fn silent(&self, waited: Duration) -> SourceFailure {
        SourceFailure::Lost { detail: format!("no picture came for {} s", waited.as_secs()) }
    }

    fn unreachable(&self, detail: String) -> SourceFailure {
        SourceFailure::Unreachable { address: authority(self.url), detail }
    }

    /// What a response code says by itself (RFC 2326 §7.1.1).
    fn refused(&self, status: u16) -> Option<SourceFailure> {
        match status {
            401 | 403 => Some(SourceFailure::Unauthorized),
            // Not Found, Gone, and Session Not Found, which some cameras answer for a wrong path.
            404 | 410 | 454 => Some(SourceFailure::NotFound { path: masked_path(self.url) }),
            461 => Some(SourceFailure::Protocol {
                detail:
                    "it refuses this way of sending (461 Unsupported Transport); try the other \
                         transport, tcp or udp"
                        .to_owned(),
            }),
            _ => None,
        }
    }

    /// The first line of an error: what follows are addresses and positions for packet captures.
    fn one_line(&self, error: &retina::Error) -> String {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        excerpt(&scrub(first, self.url, self.password))
    }
}

/// The beginning of something that a camera wrote, fit for a log line.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(DETAIL_MAX).collect()
}

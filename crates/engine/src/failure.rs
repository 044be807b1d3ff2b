//! Why a camera gives no picture, what people are told of it, and when it is tried again.

use std::fmt;
use std::time::Duration;

use media::Codec;

/// Why a source gives no picture. Each is a distinct state with a sentence for people.
///
/// The sentences never contain a password: what is put into the fields must be free of credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceFailure {
    /// No TCP connection, or no answer in time.
    #[error("the camera at {address} cannot be reached: {detail}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the operating system or the peer said.
        detail: String,
    },
    /// 401 after the credentials were sent, or no credentials configured.
    #[error("the camera refuses the user name or password; check the credentials in its url")]
    Unauthorized,
    /// 404 and the like.
    #[error("the camera has no stream at {path}; check the path in its url")]
    NotFound {
        /// The path that was asked for.
        path: String,
    },
    /// PLAY worked, but no keyframe came.
    #[error("the camera sends no keyframe; none came in {waited_s} s, check its I-frame interval")]
    NoKeyframe {
        /// How long was waited, in seconds.
        waited_s: u64,
    },
    /// Frames out of presentation order.
    #[error(
        "the camera sends B-frames, which browsers cannot play live; turn them off (baseline or main profile without B-frames)"
    )]
    BFrames,
    /// No codec that a browser plays.
    #[error(
        "the camera sends {codec}, which browsers do not play here; set it to H.264, or give a sub_url that is"
    )]
    UnsupportedCodec {
        /// The codec's name.
        codec: String,
    },
    /// It is published to, and nobody does.
    #[error(
        "nobody publishes to this camera; start the encoder with this server's /whip address and the camera's stream key"
    )]
    NoPublisher,
    /// Its address is of no use before somebody changes something here.
    #[error("the camera's address cannot be used: {detail}")]
    Unusable {
        /// Why not.
        detail: String,
    },
    /// It was live, and then the connection ended or packets stopped.
    #[error("the camera's stream ended: {detail}")]
    Lost {
        /// How it ended.
        detail: String,
    },
    /// It broke the protocol.
    #[error("the camera does not follow the protocol: {detail}")]
    Protocol {
        /// What was wrong.
        detail: String,
    },
}

/// When a source that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It may come back any moment: at most 1 s after the first failure, then twice as long each
    /// time up to 30 s, less up to a half by chance.
    Backoff,
    /// Somebody has to change something first: `least`, plus up to `spread` by chance.
    Steady {
        /// Shortest wait.
        least: Duration,
        /// How much longer it may be.
        spread: Duration,
    },
}

impl SourceFailure {
    /// The state's word in the API: `unreachable`, `b_frames` and so on.
    pub const fn state(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::NotFound { .. } => "not_found",
            Self::NoKeyframe { .. } => "no_keyframe",
            Self::BFrames => "b_frames",
            Self::UnsupportedCodec { .. } => "unsupported_codec",
            Self::NoPublisher => "no_publisher",
            Self::Unusable { .. } => "unusable",
            Self::Lost { .. } => "lost",
            Self::Protocol { .. } => "protocol",
        }
    }

    /// The camera is not there at all, as opposed to there and of no use.
    pub const fn is_offline(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoPublisher | Self::Lost { .. } => true,
            Self::Unauthorized
            | Self::NotFound { .. }
            | Self::NoKeyframe { .. }
            | Self::BFrames
            | Self::UnsupportedCodec { .. }
            | Self::Unusable { .. }
            | Self::Protocol { .. } => false,
        }
    }

    /// It concerns one stream of the camera: its other one may work all the same.
    pub const fn is_of_stream(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::NoKeyframe { .. }
            | Self::BFrames
            | Self::Unusable { .. }
            | Self::UnsupportedCodec { .. } => true,
            Self::Unreachable { .. }
            | Self::Unauthorized
            | Self::NoPublisher
            | Self::Lost { .. }
            | Self::Protocol { .. } => false,
        }
    }

    /// When to try again.
    ///
    /// A wrong password waits 60 s at least: many cameras lock the account for half an hour after
    /// five to seven wrong tries in a few minutes, which would shut out the person who repairs it.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::NoKeyframe { .. }
            | Self::Protocol { .. } => Retry::Backoff,
            // A publisher that comes is told at once, see `Engine::handle_publisher`.
            Self::NoPublisher
            | Self::NotFound { .. }
            | Self::UnsupportedCodec { .. }
            | Self::Unusable { .. }
            | Self::BFrames => {
                Retry::Steady { least: Duration::from_secs(25), spread: Duration::from_secs(5) }
            }
            Self::Unauthorized => {
                Retry::Steady { least: Duration::from_secs(60), spread: Duration::from_secs(6) }
            }
        }
    }
}
/// A viewer takes nothing that a camera sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecMismatch {
    /// The picture's codec in the stream that the viewer would have seen.
    pub codec: Codec,
    /// The codec of the camera's other stream, where it is known.
    pub other: Option<Codec>,
    /// The camera has a smaller picture.
    pub has_sub: bool,
}

impl fmt::Display for CodecMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codec = self.codec.name();
        match self.other {
            Some(other) if other != self.codec => {
                write!(
                    f,
                    "the camera sends {codec} and {}, and this viewer takes neither",
                    other.name()
                )?;
            }
            Some(_) | None => {
                write!(f, "the camera sends {codec}, which this viewer does not take")?;
            }
        }
        if self.has_sub {
            write!(f, "; set one of its streams to H.264")
        } else {
            write!(f, "; set the camera to H.264, or give it a sub_url in H.264")
        }
    }
}

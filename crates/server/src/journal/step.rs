//! The steps of a reservation's life, and how they are told.

use std::fmt;
use std::net::SocketAddr;

use control::{SourceId, Timestamp};
use engine::{EndReason, Rendition, SwitchReason};
use media::batch::{Route, Transport};

use crate::net::CloseReason;

/// Whose fault it is that an offer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfferFault {
    /// What was sent is no offer of a viewer.
    Form,
    /// The viewer takes nothing that the camera sends.
    Codec,
    /// The reservation, the camera or the server came to an end meanwhile.
    Late,
}

/// What happened to a reservation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// It was asked for.
    Asked,
    /// It was not granted.
    Refused(Refusal),
    /// It was granted.
    Reserved { source: SourceId, rendition: Rendition },
    /// Its viewer was given its first token.
    TokenIssued { expires: Timestamp },
    /// Its token was not accepted.
    TokenRefused { reason: String },
    /// The camera gives a picture: its first keyframe is there.
    CameraLive,
    /// The camera gives none.
    CameraFailed { reason: String },
    /// A browser sent an offer.
    Offered,
    /// Its offer was answered.
    Answered,
    /// Its offer was refused, or the viewer was closed since it takes nothing that the camera sends.
    OfferRefused { reason: String, fault: OfferFault },
    /// A reader inside this process, as the RTSP server's, takes frames. There is no handshake.
    Reading,
    /// The viewer's checks or its media come along this path (the ICE pair).
    Path(Path),
    /// DTLS is done, `handshake_ms` after the offer.
    Connected { handshake_ms: u32 },
    /// The first packet of media left.
    FirstMedia,
    /// The viewer's first report came after media was sent: packets arrive there.
    Heard,
    /// The page says that it has decoded frames.
    Decoded { frames: u64 },
    /// It went to another stream of the camera.
    Switched { to: Rendition, reason: SwitchReason },
    /// It was to go to another stream, which brought nothing.
    SwitchFailed { to: Rendition, reason: SwitchReason },
    /// Its line carries less than the stream.
    LineThin { bits_per_second: Option<u64> },
    /// Its line carries the stream again.
    LineWide { bits_per_second: Option<u64> },
    /// The connection did not come about, or broke; the reservation goes on.
    Disconnected { reason: CloseReason },
    /// A request for it came to this node, and another one has its session.
    Forwarded { what: &'static str },
    /// It is over.
    Ended(EndReason),
}

/// Why a reservation was not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A quota is used up.
    Quota(String),
    /// The camera is not known, or gives no picture.
    Camera(String),
    /// The server ends, or cannot reach its store.
    Server(String),
}

/// The two ends between which packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    /// Ours.
    pub(crate) local: SocketAddr,
    /// The viewer's, as we see it.
    pub(crate) remote: SocketAddr,
    /// `udp` or `tcp`.
    pub(crate) transport: &'static str,
}

impl From<Route> for Path {
    fn from(route: Route) -> Self {
        let transport = match route.transport {
            Transport::Udp => "udp",
            Transport::Tcp(_) => "tcp",
        };
        Self { local: route.source, remote: route.destination, transport }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.transport, self.remote, self.local)
    }
}

impl Refusal {
    /// The sentence.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Quota(reason) | Self::Camera(reason) | Self::Server(reason) => reason,
        }
    }
}

impl Step {
    /// Its name in traces and in the audit trail, for programs.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Refused(_) => "refused",
            Self::Reserved { .. } => "reserved",
            Self::TokenIssued { .. } => "token_issued",
            Self::TokenRefused { .. } => "token_refused",
            Self::CameraLive => "camera_live",
            Self::CameraFailed { .. } => "camera_failed",
            Self::Offered => "offered",
            Self::Answered => "answered",
            Self::OfferRefused { .. } => "offer_refused",
            Self::Reading => "reading",
            Self::Path(_) => "path",
            Self::Connected { .. } => "connected",
            Self::FirstMedia => "first_media",
            Self::Heard => "heard",
            Self::Decoded { .. } => "decoded",
            Self::Switched { .. } => "switched",
            Self::SwitchFailed { .. } => "switch_failed",
            Self::LineThin { .. } => "line_thin",
            Self::LineWide { .. } => "line_wide",
            Self::Disconnected { .. } => "disconnected",
            Self::Forwarded { .. } => "forwarded",
            Self::Ended(_) => "ended",
        }
    }

    /// What there is to say of it, for people.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Asked => "the reservation was asked for".to_owned(),
            Self::Refused(refusal) => refusal.reason().to_owned(),
            Self::Reserved { source, rendition } => {
                format!("granted from the quota of {source}, {} stream", rendition.as_str())
            }
            Self::TokenIssued { expires } => {
                format!("a token, good until {}", clock_time(*expires))
            }
            Self::CameraLive => {
                "the camera gives a picture, its first keyframe is there".to_owned()
            }
            Self::TokenRefused { reason }
            | Self::CameraFailed { reason }
            | Self::OfferRefused { reason, .. } => reason.clone(),
            Self::Offered => "the viewer sent its offer (WHEP)".to_owned(),
            Self::Answered => "the offer was answered".to_owned(),
            Self::Reading => "a reader without handshake takes frames".to_owned(),
            Self::Path(path) => format!("ICE pair: {path}"),
            Self::Connected { handshake_ms: 0 } => "connected".to_owned(),
            Self::Connected { handshake_ms } => {
                format!("DTLS done {handshake_ms} ms after the offer")
            }
            Self::FirstMedia => "the first packet of media left".to_owned(),
            Self::Heard => "the viewer reports that packets arrive".to_owned(),
            Self::Decoded { frames } => format!("the page has decoded {frames} frames"),
            Self::Switched { to, reason } => {
                format!("the viewer went to the {} stream ({})", to.as_str(), reason.as_str())
            }
            Self::SwitchFailed { to, reason } => {
                let (to, reason) = (to.as_str(), reason.as_str());
                format!("the {to} stream brought nothing in time ({reason})")
            }
            Self::LineThin { bits_per_second } => {
                format!("the line is too thin for the stream{}", carried(*bits_per_second))
            }
            Self::LineWide { bits_per_second } => {
                format!("the line carries the stream again{}", carried(*bits_per_second))
            }
            Self::Disconnected { reason } => closing(*reason).to_owned(),
            Self::Forwarded { what } => {
                format!("a {what} came to this node and went to the viewer's")
            }
            Self::Ended(reason) => reason.as_str().to_owned(),
        }
    }
}

fn carried(bits_per_second: Option<u64>) -> String {
    bits_per_second.map_or_else(String::new, |bps| format!(", it carries {} kbit/s", bps / 1000))
}

fn clock_time(at: Timestamp) -> String {
    let at = std::time::UNIX_EPOCH + at.saturating_since(Timestamp::ZERO);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Why a connection is gone.
const fn closing(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Peer => "the viewer closed the connection",
        CloseReason::NeverConnected => "ICE or DTLS did not finish in time",
        CloseReason::Handshake => "ICE or DTLS failed",
        CloseReason::Asked => "the connection was closed on request",
        CloseReason::ConsentExpired => "no ICE check came for 30 s",
        CloseReason::Failed => "the connection failed inside the server",
    }
}

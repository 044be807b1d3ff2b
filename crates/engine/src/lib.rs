//! Where media and control meet: sessions, streams and timers, sans-IO.

/// Why a source gives no picture. Each is a distinct state with a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceFailure {
    /// No TCP connection, or no answer in time.
    #[error("the camera at {address} cannot be reached: {detail}")]
    Unreachable { address: String, detail: String },
    /// 401 after the credentials were sent, or no credentials configured.
    #[error("the camera refuses the user name or password; check the credentials in its url")]
    Unauthorized,
    /// 404 and the like.
    #[error("the camera has no stream at {path}; check the path in its url")]
    NotFound { path: String },
    /// PLAY worked, but no keyframe came.
    #[error("the camera sends no keyframe; none came in {waited_s} s, check its I-frame interval")]
    NoKeyframe { waited_s: u64 },
    /// Frames out of presentation order.
    #[error(
        "the camera sends B-frames, which browsers cannot play live; turn them off (baseline or main profile without B-frames)"
    )]
    BFrames,
    /// No codec that a browser plays.
    #[error(
        "the camera sends {codec}, which browsers do not play here; set it to H.264, or give a sub_url that is"
    )]
    UnsupportedCodec { codec: String },
    /// It was live, and then the connection ended or packets stopped.
    #[error("the camera's stream ended: {detail}")]
    Lost { detail: String },
    /// It broke the protocol.
    #[error("the camera does not follow the protocol: {detail}")]
    Protocol { detail: String },
}

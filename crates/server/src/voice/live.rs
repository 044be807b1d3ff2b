//! The voices that are heard right now, for whoever hands them on.

use std::sync::Arc;
use std::time::Instant;

use media::StreamId;
use tokio::sync::watch;

/// A voice that can be heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveVoice {
    /// `stream_<connection id>`.
    pub(crate) id: String,
    /// Where its packets are found in the media plane.
    pub(crate) stream: StreamId,
    /// When its first packet came.
    pub(crate) began: Instant,
}

/// All of them, the newest last; changes are told.
pub(crate) type Live = watch::Receiver<Arc<[LiveVoice]>>;

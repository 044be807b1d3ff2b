//! From who speaks to those who hear: packets of one sender, handed to the media plane.

use std::time::SystemTime;

use media::{AudioLevel, StreamId};
use tokio::sync::mpsc;

use crate::net::{MediaPlane, PublisherHandle};

/// Whether levels are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LevelMode {
    /// From the packets' headers (RFC 6464), measured where they have none.
    On,
    Off,
}

/// What is told of a sender.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum SenderEvent {
    /// Its first packet came.
    Began { key: u64 },
    /// At most 10 a second.
    Level { key: u64, level: AudioLevel, at: SystemTime },
    /// Nothing follows.
    Ended { key: u64 },
}

/// Hands on what a sender says until it ends.
pub(crate) fn spawn(
    publisher: PublisherHandle,
    _stream: StreamId,
    _media: MediaPlane,
    _levels: LevelMode,
    events: mpsc::UnboundedSender<SenderEvent>,
    key: u64,
) {
    tokio::spawn(async move {
        let mut frames = publisher.attach();
        while frames.next().await.is_some() {}
        let _ = events.send(SenderEvent::Ended { key });
    });
}

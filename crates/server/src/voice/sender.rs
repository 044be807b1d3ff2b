//! From who speaks to those who hear: packets of one sender, handed to the media plane.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use media::{AudioLevel, StreamId};
use tokio::sync::mpsc;

use crate::net::{MediaPlane, PublisherHandle};

/// Whether levels are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LevelMode {
    /// There are none.
    Off,
    /// From the packets' headers (RFC 6464); senders that say nothing there have none.
    Header,
    /// From the headers, and by decoding what has none.
    HeaderElseDecode,
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
    publisher: &PublisherHandle,
    _stream: StreamId,
    _media: MediaPlane,
    _levels: LevelMode,
    events: mpsc::UnboundedSender<SenderEvent>,
    _sound_bytes: Arc<AtomicU64>,
    key: u64,
) {
    let mut frames = publisher.attach();
    tokio::spawn(async move {
        while frames.next().await.is_some() {}
        let _ = events.send(SenderEvent::Ended { key });
    });
}

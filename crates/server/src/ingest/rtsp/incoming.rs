//! What a session brings: whole frames where `retina` reads the codecs, packets where it does not.

use futures::StreamExt;
use retina::Error;
use retina::client::{Demuxed, PacketItem, Playing, Session};
use retina::codec::CodecItem;

/// A playing session.
pub(super) enum Incoming {
    /// H.264 and H.265, AAC and G.711.
    Frames(Demuxed),
    /// Everything else, Opus among it.
    Packets(Box<Session<Playing>>),
}

/// What came.
pub(super) enum Item {
    Frame(CodecItem),
    Packet(PacketItem),
}

impl Incoming {
    /// The next thing; `None` when the camera has hung up. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Result<Item, Error>> {
        match self {
            Self::Frames(frames) => Some(frames.next().await?.map(Item::Frame)),
            Self::Packets(packets) => Some(packets.next().await?.map(Item::Packet)),
        }
    }
}

//! The frames since the last keyframe, bounded in bytes and frames: the instant first picture.

use std::sync::Arc;

use crate::frame::PacketisedFrame;

/// Keeps the frames of the current group of pictures of a video track.
#[derive(Debug, Default)]
pub struct GopCache {}

impl GopCache {
    /// Takes the next frame in order. A keyframe starts the cache anew; a frame over the bounds
    /// empties it until the next keyframe (and is counted in `overflows`).
    pub fn handle_frame(&mut self, _frame: &Arc<PacketisedFrame>) {
        todo!()
    }
    /// The frames from the keyframe on, oldest first; empty when there is no complete group.
    pub fn frames(&self) -> &[Arc<PacketisedFrame>] {
        todo!()
    }
    /// Forgets everything (the source restarted).
    pub fn clear(&mut self) {
        todo!()
    }
    /// How often a group was too large to keep.
    pub fn overflows(&self) -> u64 {
        todo!()
    }
}

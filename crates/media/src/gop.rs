//! The frames since the last keyframe, bounded in bytes and frames: the instant first picture.

use std::sync::Arc;

use crate::frame::{MediaKind, PacketisedFrame};

/// Most frames that are kept: 20 s at 30 fps. Cameras are set to a keyframe every 1 to 10 s; behind
/// more frames than this a browser would decode for seconds before it shows the present.
pub const MAX_FRAMES: usize = 600;

/// Most payload bytes that are kept: 20 s at 6.7 Mbit/s, or 4 s at 32 Mbit/s. A usual camera
/// (2 Mbit/s, keyframe every 2 s) takes 0.5 MB; 500 cameras at the limit would take 8 GB.
pub const MAX_BYTES: usize = 16 << 20;

/// Keeps the frames of the current group of pictures of a video track.
#[derive(Debug, Default)]
pub struct GopCache {
    /// Empty, or a keyframe and every frame since.
    frames: Vec<Arc<PacketisedFrame>>,
    bytes: usize,
    overflows: u64,
}

impl GopCache {
    /// Takes the next frame in order. A keyframe starts the cache anew; a frame over the bounds
    /// empties it until the next keyframe (and is counted in `overflows`).
    ///
    /// A frame of a restarted source that is no keyframe empties it too. Sound is passed over.
    ///
    /// Returns the frames that it keeps no more, oldest first.
    pub fn handle_frame(&mut self, frame: &Arc<PacketisedFrame>) -> Vec<Arc<PacketisedFrame>> {
        let mut given_up = Vec::new();
        if frame.codec.kind() != MediaKind::Video {
            return given_up;
        }
        if frame.keyframe || frame.discontinuity {
            given_up = self.clear();
        }
        if self.frames.is_empty() && !frame.keyframe {
            return given_up;
        }
        let bytes = self.bytes + frame.payload_bytes();
        if bytes > MAX_BYTES || self.frames.len() == MAX_FRAMES {
            given_up.extend(self.clear());
            self.overflows += 1;
            return given_up;
        }
        self.bytes = bytes;
        self.frames.push(Arc::clone(frame));
        given_up
    }

    /// The frames from the keyframe on, oldest first; empty when there is no complete group.
    pub fn frames(&self) -> &[Arc<PacketisedFrame>] {
        &self.frames
    }

    /// Forgets everything (the source restarted), and returns what that was.
    pub fn clear(&mut self) -> Vec<Arc<PacketisedFrame>> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }

    /// How often a group was too large to keep.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Codec, Frame, NtpTime};

    #[test]
    fn keeps_what_came_since_the_keyframe() {
        let mut cache = GopCache::default();
        for (ticks, kind) in "ppkppkp".chars().enumerate() {
            cache.handle_frame(&frame(ticks as u64, kind, 10));
        }
        assert_eq!(ticks(&cache), [5, 6]);
        cache.clear();
        cache.handle_frame(&frame(7, 'p', 10));
        assert!(cache.frames().is_empty());
    }

    #[test]
    fn sound_is_not_kept() {
        let mut cache = GopCache::default();
        cache.handle_frame(&frame(0, 'k', 10));
        cache.handle_frame(&frame(1, 'a', 10));
        assert_eq!(ticks(&cache), [0]);
    }

    #[test]
    fn a_restart_without_a_keyframe_empties_it() {
        let mut cache = GopCache::default();
        cache.handle_frame(&frame(0, 'k', 10));
        cache.handle_frame(&frame(1, 'd', 10));
        cache.handle_frame(&frame(2, 'p', 10));
        assert!(cache.frames().is_empty());
    }

    #[test]
    fn too_many_frames_empty_it_until_the_next_keyframe() {
        let mut cache = GopCache::default();
        cache.handle_frame(&frame(0, 'k', 10));
        for ticks in 1..MAX_FRAMES as u64 {
            cache.handle_frame(&frame(ticks, 'p', 10));
        }
        assert_eq!((cache.frames().len(), cache.overflows()), (MAX_FRAMES, 0));
        for _ in 0..5 {
            cache.handle_frame(&frame(9000, 'p', 10));
        }
        assert_eq!((cache.frames().len(), cache.overflows()), (0, 1));
        cache.handle_frame(&frame(9001, 'k', 10));
        assert_eq!(ticks(&cache), [9001]);
    }

    #[test]
    fn too_many_bytes_empty_it() {
        let mut cache = GopCache::default();
        let chunk = MAX_BYTES / 4;
        cache.handle_frame(&frame(0, 'k', chunk));
        for at in 1..4 {
            cache.handle_frame(&frame(at, 'p', chunk));
        }
        // The headers of the fragments take the fourth over the bound.
        assert_eq!((cache.frames().len(), cache.overflows()), (0, 1));
        cache.handle_frame(&frame(5, 'k', chunk));
        assert_eq!(ticks(&cache), [5]);
    }

    fn ticks(cache: &GopCache) -> Vec<u64> {
        cache.frames().iter().map(|frame| frame.ticks).collect()
    }

    fn frame(ticks: u64, kind: char, bytes: usize) -> Arc<PacketisedFrame> {
        Arc::new(crate::packetise::packetise(&Frame {
            forwarded: None,
            codec: if kind == 'a' { Codec::Pcmu } else { Codec::H264 },
            ticks,
            captured: NtpTime(0),
            keyframe: "ka".contains(kind),
            discontinuity: kind == 'd',
            units: vec![vec![0x41; bytes].into()],
        }))
    }
}

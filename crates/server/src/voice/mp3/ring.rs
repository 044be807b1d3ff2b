//! The last frames of one stream, shared by all who listen to it. Frames are encoded once; who is too
//! slow for the ring is put back to live, and slows nobody.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

/// Frames that are kept: two seconds. A player that takes nothing for longer has stopped playing.
const KEPT_FRAMES: usize = 76;

/// Frames with which somebody new begins, and who was put back to live: 313 ms, so that a player has
/// something to play at once and something in hand.
pub(super) const BURST_FRAMES: u64 = 12;

/// Listeners that are woken a second, all together, while frames can be put together for it.
const WAKEUPS_A_SECOND: usize = 400;

/// Frames a second, rounded up.
const FRAMES_A_SECOND: usize = 39;

/// Most frames that are put together: 209 ms, well below the burst that each player has in hand.
const TOGETHER_MAX: usize = 8;

/// The writing end. Dropping it ends the ring: listeners get what is left.
#[derive(Debug)]
pub(super) struct RingWriter {
    shared: Arc<Shared>,
    /// Number of the frame after the newest that listeners were told of.
    announced: watch::Sender<u64>,
}

/// What readers are made of; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    shared: Arc<Shared>,
    announced: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Shared {
    frames: Mutex<Frames>,
    readers: AtomicUsize,
}

#[derive(Debug)]
struct Frames {
    kept: VecDeque<Bytes>,
    /// Number of the frame after the newest.
    end: u64,
}

/// A ring that begins with a burst of `silent` frames, so that the first listener has something to
/// play while the voice is on its way.
pub(super) fn ring(silent: &Bytes) -> (RingWriter, Ring) {
    let kept = (0..BURST_FRAMES).map(|_| silent.clone()).collect();
    let frames = Mutex::new(Frames { kept, end: BURST_FRAMES });
    let shared = Arc::new(Shared { frames, readers: AtomicUsize::new(0) });
    let (sender, announced) = watch::channel(BURST_FRAMES);
    (RingWriter { shared: Arc::clone(&shared), announced: sender }, Ring { shared, announced })
}

impl RingWriter {
    /// The next frame.
    pub(super) fn push(&self, frame: Bytes) {
        let end = {
            let mut frames = self.shared.frames();
            if frames.kept.len() == KEPT_FRAMES {
                frames.kept.pop_front();
            }
            frames.kept.push_back(frame);
            frames.end += 1;
            frames.end
        };
        let readers = self.shared.readers.load(Ordering::Relaxed);
        if end - *self.announced.borrow() >= frames_together(readers) {
            self.announced.send_replace(end);
        }
    }
}

/// How many frames are told of at once: each by itself for few listeners, several for many.
fn frames_together(readers: usize) -> u64 {
    (readers * FRAMES_A_SECOND / WAKEUPS_A_SECOND).clamp(1, TOGETHER_MAX) as u64
}

impl Shared {
    fn frames(&self) -> std::sync::MutexGuard<'_, Frames> {
        // Nothing in here can panic halfway.
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// Begins `back` frames before the newest, or as far as there are any.
    pub(super) fn read(&self, back: u64) -> RingReader {
        self.shared.readers.fetch_add(1, Ordering::Relaxed);
        let next = self.shared.frames().back(back);
        RingReader { ring: self.clone(), next }
    }
}

impl Frames {
    fn first(&self) -> u64 {
        self.end - self.kept.len() as u64
    }

    /// Number of the frame that is `back` before the newest.
    fn back(&self, back: u64) -> u64 {
        self.end.saturating_sub(back).max(self.first())
    }
}

/// One listener's place.
#[derive(Debug)]
pub(super) struct RingReader {
    ring: Ring,
    /// Number of the frame that comes next.
    next: u64,
}

/// Frames in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) bytes: Bytes,
    pub(super) frames: u64,
    /// The listener was too slow; these are live again.
    pub(super) is_after_drop: bool,
}

impl RingReader {
    /// Waits for frames, and takes all that there are. `None`: the stream is over. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Taken> {
        let next = self.next;
        let is_over = self.ring.announced.wait_for(|end| *end > next).await.is_err();
        // The last frames of a stream may never have been told of.
        self.take().or_else(|| {
            debug_assert!(is_over, "what was told of is there");
            None
        })
    }

    fn take(&mut self) -> Option<Taken> {
        let frames: Vec<Bytes>;
        let is_after_drop;
        {
            let ring = self.ring.shared.frames();
            is_after_drop = self.next < ring.first();
            if is_after_drop {
                self.next = ring.back(BURST_FRAMES);
            }
            let skipped = usize::try_from(self.next - ring.first()).unwrap_or(usize::MAX);
            frames = ring.kept.iter().skip(skipped).cloned().collect();
            self.next = ring.end;
        }
        let count = frames.len() as u64;
        (count > 0).then(|| Taken { bytes: joined(frames), frames: count, is_after_drop })
    }
}

impl Drop for RingReader {
    fn drop(&mut self) {
        self.ring.shared.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One piece, so that one write takes it; a single frame is not copied.
fn joined(mut frames: Vec<Bytes>) -> Bytes {
    if frames.len() == 1 {
        return frames.remove(0);
    }
    let mut bytes = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    for frame in &frames {
        bytes.extend_from_slice(frame);
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const SILENT: Bytes = Bytes::from_static(b".");

    /// What can be had without waiting; `|` where the listener was put back to live.
    fn text(reader: &mut RingReader) -> String {
        let mut text = String::new();
        while let Some(Some(taken)) = reader.next().now_or_never() {
            text.push_str(if taken.is_after_drop { "|" } else { "" });
            text.push_str(std::str::from_utf8(&taken.bytes).unwrap());
        }
        text
    }

    fn push(writer: &RingWriter, frames: &str) {
        for frame in frames.chars() {
            writer.push(Bytes::from(frame.to_string()));
        }
    }

    #[test]
    fn who_comes_late_begins_with_a_burst() {
        let (writer, ring) = ring(&SILENT);
        let mut first = ring.read(BURST_FRAMES);
        assert_eq!(text(&mut first), ".".repeat(12));
        push(&writer, "abc");
        assert_eq!(text(&mut first), "abc");
        assert_eq!(text(&mut ring.read(BURST_FRAMES)), format!("{}abc", ".".repeat(9)));
        assert_eq!(text(&mut ring.read(1)), "c");
        assert_eq!(text(&mut ring.read(0)), "");
    }

    #[test]
    fn who_is_slow_is_put_back_to_live_and_keeps_nothing_waiting() {
        let (writer, ring) = ring(&SILENT);
        let mut slow = ring.read(0);
        push(&writer, &"x".repeat(KEPT_FRAMES));
        assert_eq!(text(&mut slow), "x".repeat(KEPT_FRAMES), "just in time");
        push(&writer, &"x".repeat(KEPT_FRAMES + 1));
        push(&writer, "abcdefghijkl");
        assert_eq!(ring.shared.frames().kept.len(), KEPT_FRAMES);
        assert_eq!(text(&mut slow), "|abcdefghijkl");
    }

    #[test]
    fn the_end_is_told_after_the_last_frame() {
        let (writer, ring) = ring(&SILENT);
        let mut readers: Vec<RingReader> = (0..100).map(|_| ring.read(0)).collect();
        push(&writer, "abc");
        assert!(readers[0].next().now_or_never().is_none(), "put together for many listeners");
        drop(writer);
        assert_eq!(text(&mut readers[0]), "abc");
        assert_eq!(readers[0].next().now_or_never(), Some(None));
    }

    #[test]
    fn many_listeners_are_woken_less_often() {
        assert_eq!([0, 1, 10, 20, 50, 100, 5_000].map(frames_together), [1, 1, 1, 1, 4, 8, 8]);
        let (writer, ring) = ring(&SILENT);
        let mut readers: Vec<RingReader> = (0..100).map(|_| ring.read(0)).collect();
        push(&writer, "abcdefg");
        assert_eq!(text(&mut readers[0]), "");
        push(&writer, "h");
        assert_eq!(text(&mut readers[99]), "abcdefgh");
        readers.truncate(1);
        push(&writer, "i");
        assert_eq!(text(&mut readers[0]), "abcdefghi");
    }
}

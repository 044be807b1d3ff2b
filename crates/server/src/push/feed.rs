//! The source of a publication: pulled again and again, its frames kept only while somebody takes
//! them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use media::{Frame, MediaKind};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::{PushPlan, tell};
use crate::ingest::{self, Output, Reach, SourceFormat};

/// Frames that may wait for the publishing connection: two seconds of picture and sound. What is
/// beyond is dropped, and the picture goes on at the next keyframe.
const WAITING_FRAMES_MAX: usize = 150;
/// Between two attempts at the source.
const SOURCE_PAUSE: Duration = Duration::from_secs(3);

/// Where the source puts what it has.
pub(super) struct Feed {
    frames: mpsc::Sender<Frame>,
    /// Frames that found no room.
    dropped: AtomicU64,
    /// Packets lost between the source and us.
    lost: AtomicU64,
}

/// Where the publication takes it.
pub(super) struct FramesIn {
    frames: mpsc::Receiver<Frame>,
    /// As [`Feed`] counted when the newest frame was taken.
    dropped: u64,
    /// Pictures are of no use before the next keyframe.
    wants_keyframe: bool,
}

impl Feed {
    pub(super) fn new() -> (Self, FramesIn) {
        let (frames, frames_in) = mpsc::channel(WAITING_FRAMES_MAX);
        let feed = Self { frames, dropped: AtomicU64::new(0), lost: AtomicU64::new(0) };
        (feed, FramesIn { frames: frames_in, dropped: 0, wants_keyframe: true })
    }

    /// Frames that found no room so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Packets that were lost on the way from the source so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Output for Feed {
    fn frame(&self, frame: Frame) {
        if self.frames.try_send(frame).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn live(&self, format: SourceFormat) {
        let sound = format.audio.map_or("no sound", media::Codec::name);
        tell(&format!("the source is live: {}x{}, {sound}", format.width, format.height));
    }

    fn lost(&self, packets: u64) {
        self.lost.fetch_add(packets, Ordering::Relaxed);
    }
}

impl FramesIn {
    /// What waits is old: the next picture to be taken is a keyframe that comes from here on.
    pub(super) fn skip_to_keyframe(&mut self) {
        while self.frames.try_recv().is_ok() {}
        self.wants_keyframe = true;
    }

    /// The next frame that is of use. Pends for ever when the source is gone.
    pub(super) async fn next(&mut self, feed: &Feed) -> Frame {
        loop {
            let Some(frame) = self.frames.recv().await else { return std::future::pending().await };
            let dropped = feed.dropped();
            if dropped != self.dropped {
                self.dropped = dropped;
                self.wants_keyframe = true;
            }
            if frame.codec.kind() == MediaKind::Audio {
                return frame;
            }
            self.wants_keyframe &= !frame.keyframe;
            if !self.wants_keyframe {
                return frame;
            }
        }
    }
}

/// Pulls the source for ever.
pub(super) async fn pull(plan: &PushPlan, feed: Arc<Feed>, keyframe_wanted: Arc<Notify>) {
    loop {
        let (output, wanted) = (Arc::clone(&feed), Arc::clone(&keyframe_wanted));
        let failure =
            ingest::pull(&plan.source, Reach::Anywhere, plan.transport, output, wanted).await;
        tell(&format!("{failure}; trying the source again in {} s", SOURCE_PAUSE.as_secs()));
        sleep(SOURCE_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use media::{Codec, NtpTime};

    use super::*;

    fn frame(codec: Codec, ticks: u64, keyframe: bool) -> Frame {
        let (captured, units) = (NtpTime(0), vec![vec![0x41].into()]);
        Frame { forwarded: None, codec, ticks, captured, keyframe, discontinuity: false, units }
    }

    #[tokio::test]
    async fn after_a_drop_the_picture_goes_on_at_a_keyframe_and_sound_at_once() {
        let (feed, mut frames) = Feed::new();
        feed.frame(frame(Codec::H264, 0, false));
        feed.frame(frame(Codec::H264, 1, true));
        assert_eq!(frames.next(&feed).await.ticks, 1, "it begins with a keyframe");
        for ticks in 2..2 + WAITING_FRAMES_MAX as u64 + 1 {
            feed.frame(frame(Codec::H264, ticks, false));
        }
        assert_eq!(feed.dropped(), 1);
        frames.skip_to_keyframe();
        feed.frame(frame(Codec::H264, 500, false));
        feed.frame(frame(Codec::Opus, 501, true));
        feed.frame(frame(Codec::H264, 502, true));
        assert_eq!(frames.next(&feed).await.ticks, 501);
        assert_eq!(frames.next(&feed).await.ticks, 502);
    }
}

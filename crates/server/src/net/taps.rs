//! Taps: a stream's frames for consumers inside this process, such as RTSP readers and still pictures.
//!
//! A tap begins with the cached group and goes on live. It is bounded in frames and bytes; a consumer
//! that does not keep up loses whole frames up to the next keyframe, which are counted, and delays
//! nobody. The sending side belongs to one worker's thread: there is no lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use media::{MediaKind, PacketisedFrame, StreamId};
use tokio::sync::mpsc;

/// Frames that may wait in a tap: five seconds of a picture at 30 and sound at 50 frames a second.
const MAX_WAITING_FRAMES: usize = 400;

/// Payload bytes that may wait in a tap: four seconds at 16 Mbit/s. The cached group does not count,
/// which is bounded by the cache. One frame of any size is always taken.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// What comes out of a tap.
#[derive(Debug, Clone)]
pub(crate) enum Tapped {
    /// The frames since the last keyframe, the newest of which came `age` before. Never empty; at
    /// most once, and first.
    Group {
        /// Oldest first; pictures only.
        frames: Vec<Arc<PacketisedFrame>>,
        /// How long ago the newest one came.
        age: Duration,
    },
    /// A live frame.
    Frame(Arc<PacketisedFrame>),
}

/// The receiving end. Dropping it ends the tap.
#[derive(Debug)]
pub(crate) struct Tap {
    items: mpsc::Receiver<Tapped>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Tap {
    /// What comes next; `None` when the media plane has ended. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Tapped> {
        let item = self.items.recv().await?;
        if let Tapped::Frame(frame) = &item {
            self.waiting_bytes.fetch_sub(frame.payload_bytes(), Ordering::Relaxed);
        }
        Some(item)
    }

    /// The next keyframe of the picture: that of the cached group, if there is one.
    pub(crate) async fn keyframe(&mut self) -> Option<Arc<PacketisedFrame>> {
        loop {
            let frame = match self.next().await? {
                Tapped::Group { frames, .. } => frames.into_iter().next(),
                Tapped::Frame(frame) => Some(frame),
            };
            let is_keyframe = |frame: &Arc<PacketisedFrame>| {
                frame.keyframe && frame.codec.kind() == MediaKind::Video
            };
            if let Some(frame) = frame.filter(is_keyframe) {
                return Some(frame);
            }
        }
    }
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct TapSender {
    items: mpsc::Sender<Tapped>,
    waiting_bytes: Arc<AtomicUsize>,
    skipped: Arc<AtomicU64>,
    /// A picture is missing: what follows is of no use up to the next keyframe.
    is_broken: bool,
}

/// Both ends of a new tap. `skipped` counts what its consumer loses.
pub(super) fn channel(skipped: Arc<AtomicU64>) -> (TapSender, Tap) {
    let (sender, items) = mpsc::channel(MAX_WAITING_FRAMES);
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let tap = Tap { items, waiting_bytes: Arc::clone(&waiting_bytes) };
    (TapSender { items: sender, waiting_bytes, skipped, is_broken: true }, tap)
}

impl TapSender {
    fn begin(&mut self, group: &[Arc<PacketisedFrame>], age: Duration) {
        if !group.is_empty() {
            let group = Tapped::Group { frames: group.to_vec(), age };
            // The channel is new and has room.
            self.is_broken = self.items.try_send(group).is_err();
        }
    }

    fn send(&mut self, frame: &Arc<PacketisedFrame>) {
        let is_picture = frame.codec.kind() == MediaKind::Video;
        if is_picture && self.is_broken && !frame.keyframe {
            return self.skip();
        }
        let waiting = self.waiting_bytes.load(Ordering::Relaxed);
        let has_room = waiting == 0 || waiting + frame.payload_bytes() <= MAX_WAITING_BYTES;
        // Before it is sent: it may be received before this returns.
        self.waiting_bytes.fetch_add(frame.payload_bytes(), Ordering::Relaxed);
        let is_sent = has_room && self.items.try_send(Tapped::Frame(Arc::clone(frame))).is_ok();
        if !is_sent {
            self.waiting_bytes.fetch_sub(frame.payload_bytes(), Ordering::Relaxed);
            self.skip();
        }
        if is_picture {
            self.is_broken = !is_sent;
        }
    }

    fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }
}

/// The sending ends of one worker. Bounded by the consumers: those that went are forgotten with the
/// next frame or tap of their stream, or when it is interrupted.
#[derive(Debug, Default)]
pub(super) struct Taps(HashMap<StreamId, Vec<TapSender>>);

impl Taps {
    /// A new tap, which gets the cached group at once.
    pub(super) fn handle_tap(
        &mut self,
        stream: StreamId,
        mut tap: TapSender,
        group: &[Arc<PacketisedFrame>],
        age: Duration,
    ) {
        tap.begin(group, age);
        self.forget_gone(stream);
        self.0.entry(stream).or_default().push(tap);
    }

    /// A source's next frame.
    pub(super) fn handle_frame(&mut self, stream: StreamId, frame: &Arc<PacketisedFrame>) {
        let Some(taps) = self.0.get_mut(&stream) else { return };
        taps.retain(|tap| !tap.items.is_closed());
        for tap in taps.iter_mut() {
            tap.send(frame);
        }
        if taps.is_empty() {
            self.0.remove(&stream);
        }
    }

    /// The source is gone: what comes after it begins with a keyframe.
    pub(super) fn handle_interruption(&mut self, stream: StreamId) {
        self.forget_gone(stream);
        for tap in self.0.get_mut(&stream).into_iter().flatten() {
            tap.is_broken = true;
        }
    }

    fn forget_gone(&mut self, stream: StreamId) {
        if let Some(taps) = self.0.get_mut(&stream) {
            taps.retain(|tap| !tap.items.is_closed());
            if taps.is_empty() {
                self.0.remove(&stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use media::packetise::packetise;
    use media::{Codec, Frame, NtpTime};

    use super::*;

    const STREAM: StreamId = StreamId(7);

    fn frame(ticks: u64, kind: char, bytes: usize) -> Arc<PacketisedFrame> {
        Arc::new(packetise(&Frame {
            forwarded: None,
            codec: if kind == 'a' { Codec::Pcmu } else { Codec::H264 },
            ticks,
            captured: NtpTime(0),
            keyframe: "ka".contains(kind),
            discontinuity: false,
            units: vec![vec![0x41; bytes].into()],
        }))
    }

    struct World {
        taps: Taps,
        tap: Tap,
        skipped: Arc<AtomicU64>,
    }

    impl World {
        fn new(group: &[Arc<PacketisedFrame>]) -> Self {
            let skipped = Arc::new(AtomicU64::new(0));
            let (sender, tap) = channel(Arc::clone(&skipped));
            let mut taps = Taps::default();
            taps.handle_tap(STREAM, sender, group, Duration::from_millis(40));
            Self { taps, tap, skipped }
        }

        fn send(&mut self, frames: &str) {
            for kind in frames.chars() {
                self.taps.handle_frame(STREAM, &frame(u64::from(u32::from(kind)), kind, 10));
            }
        }

        /// What waits, a letter a frame; the group in brackets.
        fn received(&mut self) -> String {
            let mut text = String::new();
            while let Some(Some(item)) = self.tap.next().now_or_never() {
                match item {
                    Tapped::Group { frames, .. } => text.push_str(&format!("[{}]", frames.len())),
                    Tapped::Frame(frame) => text.extend(char::from_u32(frame.ticks as u32)),
                }
            }
            text
        }

        fn skipped(&self) -> u64 {
            self.skipped.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_tap_begins_with_the_cached_group_and_goes_on_live() {
        let mut world = World::new(&[frame(0, 'k', 10), frame(1, 'p', 10)]);
        world.send("papk");
        assert_eq!(world.received(), "[2]papk");
    }

    #[test]
    fn without_a_group_it_begins_at_the_next_keyframe_and_sound_comes_at_once() {
        let mut world = World::new(&[]);
        world.send("papkp");
        assert_eq!((world.received().as_str(), world.skipped()), ("akp", 2));
    }

    #[test]
    fn a_slow_consumer_loses_whole_frames_up_to_a_keyframe() {
        let mut world = World::new(&[]);
        world.send("k");
        world.send(&"p".repeat(MAX_WAITING_FRAMES + 4));
        assert_eq!((world.received().len(), world.skipped()), (MAX_WAITING_FRAMES, 5));
        world.send("ppakp");
        assert_eq!((world.received().as_str(), world.skipped()), ("akp", 7));
    }

    #[test]
    fn bytes_are_bounded_but_one_frame_of_any_size_goes() {
        let mut world = World::new(&[]);
        let large = frame(u64::from(u32::from('K')), 'k', MAX_WAITING_BYTES + 1);
        world.taps.handle_frame(STREAM, &large);
        world.send("pk");
        assert_eq!((world.received().as_str(), world.skipped()), ("K", 2));
        world.send("pkp");
        assert_eq!((world.received().as_str(), world.skipped()), ("kp", 3));
    }

    #[test]
    fn after_an_interruption_it_goes_on_at_a_keyframe() {
        let mut world = World::new(&[frame(0, 'k', 10)]);
        world.send("p");
        world.taps.handle_interruption(STREAM);
        world.send("pkp");
        assert_eq!(world.received(), "[1]pkp");
    }

    #[test]
    fn consumers_that_went_are_forgotten() {
        let World { mut taps, tap, .. } = World::new(&[]);
        drop(tap);
        taps.handle_frame(STREAM, &frame(0, 'k', 10));
        assert!(taps.0.is_empty());
    }
}

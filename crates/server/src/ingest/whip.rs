//! Cameras that are published to (WHIP, RFC 9725): a place with a key, and what a publisher sends to it.
//!
//! The session itself is the media plane's, and who may publish is decided in HTTP. Here a source
//! attempt finds out whether somebody publishes, and makes frames of what he sends.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use engine::SourceFailure;
use media::publish::{Published, TrackOutput};
use media::{Codec, Frame, MediaKind, PictureSize};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::clock::SourceClock;
use super::steps::Steps;
use super::wall_clock::WallClock;
use super::{FIRST_KEYFRAME_TIMEOUT, Output, SourceFormat};
use crate::net::{PublisherHandle, PublisherId};

/// From one picture to the next. An encoder that was killed says nothing; live ones send several
/// pictures a second, and one at least even of a still desktop.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Lengths of a stream key in characters: 80 bits of base 32 at least, so that it cannot be guessed.
pub(crate) const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 16..=128;

/// What can be published to. Knows a digest of its stream key, not the key.
pub(crate) struct PublishPoint(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` while nobody may publish.
    key: Option<KeyDigest>,
    publisher: Option<PublisherHandle>,
}

/// SHA-256 of a stream key.
#[derive(Clone, Copy)]
struct KeyDigest([u8; 32]);

impl KeyDigest {
    fn of(key: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
        Self(bytes)
    }

    /// In time that does not depend on where they differ.
    fn is(self, other: Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl PublishPoint {
    /// With the key that opens it; without one nobody may publish until [`Self::set_key`].
    pub(crate) fn new(key: Option<&str>) -> Self {
        Self(Mutex::new(State { key: key.map(KeyDigest::of), publisher: None }))
    }

    /// Whether `key` opens it.
    pub(crate) fn admits(&self, key: &str) -> bool {
        self.state(|state| state.key.is_some_and(|own| own.is(KeyDigest::of(key))))
    }

    /// With the key of which this is the digest.
    pub(crate) fn of_digest(digest: [u8; 32]) -> Self {
        Self(Mutex::new(State { key: Some(KeyDigest(digest)), publisher: None }))
    }

    /// The digest of the key that opens it, for who keeps it or tells keys apart.
    pub(crate) fn digest(&self) -> Option<[u8; 32]> {
        self.state(|state| state.key.map(|key| key.0))
    }

    /// Whether the same key opens both.
    pub(crate) fn shares_key_with(&self, other: &Self) -> bool {
        let other = other.state(|state| state.key);
        self.state(|state| state.key.zip(other).is_some_and(|(one, other)| one.is(other)))
    }

    /// From here on `key` opens it, and nothing else does.
    pub(crate) fn set_key(&self, key: &str) {
        self.state(|state| state.key = Some(KeyDigest::of(key)));
    }

    /// Who publishes.
    pub(crate) fn publisher(&self) -> Option<PublisherHandle> {
        self.state(|state| state.publisher.clone())
    }

    /// Somebody publishes from here on. Answers who did before.
    pub(crate) fn set_publisher(&self, publisher: PublisherHandle) -> Option<PublisherHandle> {
        self.state(|state| state.publisher.replace(publisher))
    }

    /// A publisher's session is over. Another one's stays.
    pub(crate) fn forget(&self, publisher: PublisherId) {
        self.state(|state| {
            state.publisher.take_if(|current| current.id() == publisher);
        });
    }

    fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Nothing of the key, not even its digest.
impl fmt::Debug for PublishPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishPoint").finish_non_exhaustive()
    }
}

/// One attempt: see [`super::pull`].
pub(super) async fn pull(
    point: &PublishPoint,
    output: Arc<dyn Output>,
    keyframe_wanted: &Notify,
) -> SourceFailure {
    match attempt(point, output, keyframe_wanted).await {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

async fn attempt(
    point: &PublishPoint,
    output: Arc<dyn Output>,
    keyframe_wanted: &Notify,
) -> Result<Infallible, SourceFailure> {
    let publisher = point.publisher().ok_or(SourceFailure::NoPublisher)?;
    let mut frames = publisher.attach();
    let clock = WallClock::start();
    let mut feed = Feed::new(output);
    let mut due = Instant::now() + FIRST_KEYFRAME_TIMEOUT;
    loop {
        let item = tokio::select! {
            item = timeout_at(due, frames.next()) => item,
            () = keyframe_wanted.notified() => {
                publisher.want_keyframe();
                continue;
            }
        };
        let item = match item {
            Ok(Some(item)) => item,
            Ok(None) => return Err(lost("the publisher ended it, or its connection broke")),
            Err(_elapsed) if feed.is_live() => {
                let silence = SILENCE_MAX.as_secs();
                return Err(lost(&format!("no picture came for {silence} s")));
            }
            Err(_elapsed) => {
                let waited_s = FIRST_KEYFRAME_TIMEOUT.as_secs();
                return Err(SourceFailure::NoKeyframe { waited_s });
            }
        };
        if matches!(&item, TrackOutput::Frame(frame) if frame.codec.kind() == MediaKind::Video) {
            due = Instant::now() + SILENCE_MAX;
        }
        feed.handle(item, |moment| clock.unix_micros_at(moment))?;
    }
}

fn lost(detail: &str) -> SourceFailure {
    SourceFailure::Lost { detail: detail.to_owned() }
}

/// One session's frames on their way to its output.
pub(super) struct Feed {
    output: Arc<dyn Output>,
    clock: SourceClock,
    /// What was last said to be live.
    live: Option<SourceFormat>,
    sound: Option<Codec>,
    video_steps: Steps,
    sound_steps: Steps,
}

impl Feed {
    /// Nothing leaves before the first keyframe.
    pub(super) fn new(output: Arc<dyn Output>) -> Self {
        Self {
            output,
            clock: SourceClock::new(Codec::H264.clock_rate(), Codec::Opus.clock_rate()),
            live: None,
            sound: None,
            video_steps: Steps::new(Codec::H264),
            sound_steps: Steps::new(Codec::Opus),
        }
    }

    /// Whether the first keyframe has come.
    pub(super) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// The next thing from the publisher; `unix_micros` tells our wall clock at a moment.
    pub(super) fn handle(
        &mut self,
        item: TrackOutput,
        unix_micros: impl Fn(std::time::Instant) -> i64,
    ) -> Result<(), SourceFailure> {
        match item {
            TrackOutput::Frame(frame) => {
                let arrival = unix_micros(frame.arrived);
                match frame.codec.kind() {
                    MediaKind::Video => return self.handle_picture(frame, arrival),
                    MediaKind::Audio => self.handle_sound(frame, arrival),
                }
            }
            TrackOutput::Report { kind, ntp, ticks } => {
                self.clock.handle_sender_report(kind, ntp, ticks);
            }
            TrackOutput::Lost(packets) => self.output.lost(packets),
            // The publisher's thread has asked for it already.
            TrackOutput::KeyframeWanted => {}
        }
        Ok(())
    }

    fn handle_picture(&mut self, frame: Published, arrival: i64) -> Result<(), SourceFailure> {
        if frame.reordered {
            return Err(SourceFailure::BFrames);
        }
        let captured = self.clock.captured(MediaKind::Video, frame.ticks, arrival);
        if frame.keyframe {
            self.announce(frame.codec, frame.size);
        }
        if self.is_live() {
            let (ticks, discontinuity) = self.video_steps.next(frame.ticks);
            let Published { codec, keyframe, units, .. } = frame;
            self.output.frame(Frame {
                forwarded: None,
                codec,
                ticks,
                captured,
                keyframe,
                discontinuity,
                units,
            });
        }
        Ok(())
    }

    fn handle_sound(&mut self, frame: Published, arrival: i64) {
        if self.sound != Some(frame.codec) {
            self.begin_sound(frame.codec);
        }
        let captured = self.clock.captured(MediaKind::Audio, frame.ticks, arrival);
        if !self.is_live() {
            return;
        }
        let (ticks, discontinuity) = self.sound_steps.next(frame.ticks);
        let Published { codec, keyframe, units, .. } = frame;
        self.output.frame(Frame {
            forwarded: None,
            codec,
            ticks,
            captured,
            keyframe,
            discontinuity,
            units,
        });
    }

    /// Which sound comes is known only when it does.
    fn begin_sound(&mut self, codec: Codec) {
        let before = self.sound.replace(codec).unwrap_or(Codec::Opus);
        if before.clock_rate() != codec.clock_rate() {
            self.clock = SourceClock::new(Codec::H264.clock_rate(), codec.clock_rate());
            self.sound_steps = Steps::new(codec);
        }
        if let Some(live) = &mut self.live {
            live.audio = Some(codec);
            self.output.live(*live);
        }
    }

    /// Says that the source is live, or that its format has changed.
    fn announce(&mut self, codec: Codec, size: Option<PictureSize>) {
        // Some AV1 keyframes do not tell their size.
        let PictureSize { width, height } = size.unwrap_or(PictureSize { width: 0, height: 0 });
        let format = SourceFormat { codec, width, height, audio: self.sound };
        if self.live != Some(format) {
            self.live = Some(format);
            self.output.live(format);
        }
    }
}

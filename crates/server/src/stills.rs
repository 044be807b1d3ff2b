//! Still pictures: a camera's last keyframe as a JPEG, made when somebody asks for it.
//!
//! A camera that nobody watches is started for a moment, without a lease. A picture is made once for a
//! keyframe, however many ask: those who come meanwhile get the same one. How many are made at once,
//! how often for a camera, and what is kept is bounded.

mod picture;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use control::CameraId;
use engine::{MAX_HOLDS, Rendition};
use media::{Codec, PacketisedFrame};
use tokio::sync::Semaphore;

use crate::app::{App, Held, HoldError};
use crate::metrics::Outlets;
use picture::PictureError;

/// Pictures that are asked for at once; others wait. The other half of the holds is for RTSP.
const WAITING_MAX: usize = MAX_HOLDS / 2;

/// Pictures that are made at once. Each takes a core for 5 ms (360p) to 100 ms (4K); media threads
/// are not to wait for them.
const DECODERS: usize = 2;

/// How long the last picture of a camera is as good as a new one. Bounds how often one is made.
const FRESH: Duration = Duration::from_secs(1);

/// How long is waited for a camera's first keyframe.
const KEYFRAME_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a camera that sent no keyframe keeps those who queued behind from waiting for one again.
const NO_KEYFRAME_TIME: Duration = Duration::from_secs(5);

/// Bytes of pictures that are kept. Pictures of 500 cameras in 720p take about 50 MB.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// Widths are rounded up to a multiple of this, so that a picture is kept in at most twelve sizes.
pub(crate) const WIDTH_STEP: u32 = 160;
/// Widths that can be asked for.
pub(crate) const WIDTHS: std::ops::RangeInclusive<u32> = 1..=1920;

/// A picture.
#[derive(Debug)]
pub(crate) struct Still {
    /// The JPEG file.
    pub(crate) jpeg: Bytes,
    /// When the camera took it.
    pub(crate) captured: SystemTime,
    /// Names these bytes, among all pictures of the camera.
    pub(crate) tag: String,
    keyframe: KeyframeId,
}

/// Tells two keyframes of a camera apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KeyframeId {
    ticks: u64,
    captured: u64,
    bytes: usize,
}

impl KeyframeId {
    fn of(keyframe: &PacketisedFrame) -> Self {
        let (ticks, captured) = (keyframe.ticks, keyframe.captured.unix_micros());
        Self { ticks, captured, bytes: keyframe.payload_bytes() }
    }
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StillError {
    /// No such camera, or it cannot be reached.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// It failed while it was waited for: the camera's own sentence.
    #[error("{0}")]
    CameraFailed(String),
    /// Nothing came.
    #[error("the camera has sent no keyframe within {} s", KEYFRAME_TIME_MAX.as_secs())]
    NoKeyframe,
    /// A codec that is forwarded and not decoded.
    #[error(
        "the camera sends {0}, of which no still picture can be made here; set it to H.264, or give \
         it a sub_url that is"
    )]
    Codec(&'static str),
    /// A keyframe that makes no picture.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A part of the server is ending.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Makes and keeps pictures; cheap to clone.
#[derive(Clone)]
pub(crate) struct Stills(Arc<Inner>);

struct Inner {
    app: App,
    outlets: Arc<Outlets>,
    waiting: Semaphore,
    decoders: Arc<Semaphore>,
    cache: Mutex<Cache>,
    /// One maker a camera at a time. Bounded by the requests under way.
    making: Mutex<HashMap<CameraId, Turn>>,
}

type Key = (CameraId, Option<u32>);

/// Held by who makes a picture; tells those behind when a keyframe was waited for in vain.
type Turn = Arc<tokio::sync::Mutex<Option<Instant>>>;

impl Stills {
    pub(crate) fn new(app: App, outlets: Arc<Outlets>) -> Self {
        Self(Arc::new(Inner {
            app,
            outlets,
            waiting: Semaphore::new(WAITING_MAX),
            decoders: Arc::new(Semaphore::new(DECODERS)),
            cache: Mutex::default(),
            making: Mutex::default(),
        }))
    }

    /// The camera's last keyframe, at most `width` pixels wide.
    pub(crate) async fn still(
        &self,
        camera: &CameraId,
        width: Option<u32>,
    ) -> Result<Arc<Still>, StillError> {
        let outlets = &self.0.outlets;
        let key = (camera.clone(), width.map(rounded));
        let result = self.0.still(&key).await;
        match &result {
            Ok((_, Origin::Cache)) => outlets.stills_cached.add(1),
            Ok((_, Origin::Made)) => outlets.stills_made.add(1),
            Err(error) => {
                outlets.stills_failed.add(1);
                tracing::debug!(camera_id = %camera, %error, "no still picture");
            }
        }
        result.map(|(still, _)| still)
    }
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Cache,
    Made,
}

/// A width that pictures are made in.
fn rounded(width: u32) -> u32 {
    width.clamp(*WIDTHS.start(), *WIDTHS.end()).next_multiple_of(WIDTH_STEP)
}

impl Inner {
    async fn still(&self, key: &Key) -> Result<(Arc<Still>, Origin), StillError> {
        if let Some(still) = self.cache().fresh(key, Instant::now()) {
            return Ok((still, Origin::Cache));
        }
        // The turn first: a camera that keeps its askers waiting takes one place among all, not all.
        let turn = self.turn(&key.0);
        let result = {
            let mut in_vain = turn.lock().await;
            self.still_unless(&mut in_vain, key).await
        };
        self.end_turn(turn);
        result
    }

    /// Those who queued behind one who waited in vain need not do so again.
    async fn still_unless(
        &self,
        in_vain: &mut Option<Instant>,
        key: &Key,
    ) -> Result<(Arc<Still>, Origin), StillError> {
        if in_vain.is_some_and(|at| at.elapsed() < NO_KEYFRAME_TIME) {
            return Err(StillError::NoKeyframe);
        }
        let _waiting = self.waiting.acquire().await.map_err(|_| StillError::ShuttingDown)?;
        let result = self.still_in_turn(key).await;
        *in_vain = matches!(result, Err(StillError::NoKeyframe)).then(Instant::now);
        result
    }

    async fn still_in_turn(&self, key: &Key) -> Result<(Arc<Still>, Origin), StillError> {
        // Somebody else may have made it meanwhile.
        if let Some(still) = self.cache().fresh(key, Instant::now()) {
            return Ok((still, Origin::Cache));
        }
        let (keyframe, held) = self.keyframe(&key.0).await?;
        let id = KeyframeId::of(&keyframe);
        if let Some(still) = self.cache().same(key, id, Instant::now()) {
            return Ok((still, Origin::Cache));
        }
        let jpeg = self.make(&keyframe, key.1).await?;
        drop(held);
        let still = Arc::new(Still {
            jpeg,
            captured: SystemTime::UNIX_EPOCH + Duration::from_micros(id.captured),
            tag: format!("{:x}-{:x}-{:x}", id.captured, id.ticks, key.1.unwrap_or(0)),
            keyframe: id,
        });
        self.cache().insert(key.clone(), Arc::clone(&still), Instant::now());
        Ok((still, Origin::Made))
    }

    /// A keyframe that can be decoded: of the smaller picture where the full one has another codec.
    async fn keyframe(
        &self,
        camera: &CameraId,
    ) -> Result<(Arc<PacketisedFrame>, Held), StillError> {
        let (main, held) = self.keyframe_of(camera, Rendition::Main).await?;
        if main.codec == Codec::H264 {
            return Ok((main, held));
        }
        let unsupported = StillError::Codec(main.codec.name());
        match self.keyframe_of(camera, Rendition::Sub).await {
            Ok((sub, held)) if sub.codec == Codec::H264 => Ok((sub, held)),
            Ok(_) | Err(StillError::Hold(HoldError::NoSub(_))) => Err(unsupported),
            Err(error) => Err(error),
        }
    }

    async fn keyframe_of(
        &self,
        camera: &CameraId,
        rendition: Rendition,
    ) -> Result<(Arc<PacketisedFrame>, Held), StillError> {
        let mut held = self.app.hold(camera.as_str(), rendition).await?;
        match tokio::time::timeout(KEYFRAME_TIME_MAX, held.keyframe()).await {
            Ok(Ok(keyframe)) => Ok((keyframe, held)),
            Ok(Err(Some(failure))) => Err(StillError::CameraFailed(failure.to_string())),
            Ok(Err(None)) => Err(StillError::CameraFailed("the camera was stopped".to_owned())),
            Err(_) => Err(StillError::NoKeyframe),
        }
    }

    async fn make(
        &self,
        keyframe: &Arc<PacketisedFrame>,
        width: Option<u32>,
    ) -> Result<Bytes, StillError> {
        let decoders = Arc::clone(&self.decoders);
        let permit = decoders.acquire_owned().await.map_err(|_| StillError::ShuttingDown)?;
        let keyframe = Arc::clone(keyframe);
        let made = tokio::task::spawn_blocking(move || {
            // Kept to the end of the work, though who asked may have hung up.
            let _permit = permit;
            picture::jpeg(&keyframe, width)
        });
        let jpeg = made.await.map_err(|_| PictureError::NoPicture)??;
        Ok(jpeg.into())
    }

    fn turn(&self, camera: &CameraId) -> Turn {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(making.entry(camera.clone()).or_default())
    }

    /// Forgets turns that nobody waits for, those of askers who hung up as well.
    fn end_turn(&self, turn: Turn) {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        drop(turn);
        making.retain(|_, turn| Arc::strong_count(turn) > 1);
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest picture of each camera and width, as many as there is room for.
#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<Key, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    still: Arc<Still>,
    /// When it was last seen to be the camera's newest.
    checked_at: Instant,
    used_at: Instant,
}

impl Cache {
    /// A picture that was the newest a moment ago.
    fn fresh(&mut self, key: &Key, now: Instant) -> Option<Arc<Still>> {
        let entry = self.entries.get_mut(key)?;
        let is_fresh = now.saturating_duration_since(entry.checked_at) < FRESH;
        entry.used_at = now;
        is_fresh.then(|| Arc::clone(&entry.still))
    }

    /// The picture of this keyframe.
    fn same(&mut self, key: &Key, keyframe: KeyframeId, now: Instant) -> Option<Arc<Still>> {
        let entry = self.entries.get_mut(key).filter(|e| e.still.keyframe == keyframe)?;
        entry.checked_at = now;
        entry.used_at = now;
        Some(Arc::clone(&entry.still))
    }

    fn insert(&mut self, key: Key, still: Arc<Still>, now: Instant) {
        self.bytes += still.jpeg.len();
        let entry = Entry { still, checked_at: now, used_at: now };
        if let Some(before) = self.entries.insert(key, entry) {
            self.bytes -= before.still.jpeg.len();
        }
        while self.bytes > CACHE_BYTES_MAX {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used_at);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
            if let Some(gone) = self.entries.remove(&key) {
                self.bytes -= gone.still.jpeg.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn still(captured: u64, bytes: usize) -> Arc<Still> {
        Arc::new(Still {
            jpeg: vec![0; bytes].into(),
            captured: SystemTime::UNIX_EPOCH,
            tag: String::new(),
            keyframe: KeyframeId { ticks: 0, captured, bytes },
        })
    }

    fn key(name: &str) -> Key {
        (CameraId::parse(name).unwrap(), None)
    }

    #[test]
    fn a_picture_is_fresh_for_a_moment_and_again_when_its_keyframe_is_still_the_newest() {
        let mut cache = Cache::default();
        let begin = Instant::now();
        let one = still(1, 10);
        cache.insert(key("a"), Arc::clone(&one), begin);
        assert!(cache.fresh(&key("a"), begin).is_some() && cache.fresh(&key("b"), begin).is_none());
        let later = begin + FRESH;
        assert!(cache.fresh(&key("a"), later).is_none());
        assert!(cache.same(&key("a"), still(2, 10).keyframe, later).is_none());
        assert!(cache.same(&key("a"), one.keyframe, later).is_some());
        assert!(cache.fresh(&key("a"), later).is_some());
    }

    #[test]
    fn bytes_are_bounded_and_the_longest_unused_goes_first() {
        let mut cache = Cache::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        for (second, name) in ["a", "b", "c"].into_iter().enumerate() {
            cache.insert(key(name), still(1, CACHE_BYTES_MAX / 3), at(second as u64));
        }
        cache.fresh(&key("a"), at(10));
        cache.insert(key("d"), still(1, CACHE_BYTES_MAX / 3), at(11));
        let mut kept: Vec<_> = cache.entries.keys().map(|(id, _)| id.to_string()).collect();
        kept.sort();
        assert_eq!((kept.join(""), cache.bytes), ("acd".to_owned(), CACHE_BYTES_MAX / 3 * 3));
        cache.insert(key("d"), still(2, 5), at(12));
        assert_eq!(cache.bytes, CACHE_BYTES_MAX / 3 * 2 + 5);
        cache.insert(key("e"), still(1, CACHE_BYTES_MAX + 1), at(13));
        assert_eq!((cache.entries.len(), cache.bytes), (0, 0), "too large to be kept at all");
    }

    #[test]
    fn widths_come_in_few_steps() {
        assert_eq!([1, 160, 161, 640, 5_000].map(rounded), [160, 160, 320, 640, 1_920]);
    }
}

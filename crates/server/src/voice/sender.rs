//! From who speaks to those who hear: each packet of a sender is put before the workers on the thread
//! that decrypted it.
//!
//! ```text
//! publisher thread: Relay --frame--> MediaPlane::publish
//!                         --Began, Level, Ended--> the relay's actor
//!                         --packets without a level--> a task that decodes them
//! ```
//! What costs time is never done on that thread: it is all voices'.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use media::publish::{Published, TrackOutput};
use media::{AudioLevel, Codec, Frame, MediaKind, NtpTime, StreamId};
use tokio::sync::mpsc;

use super::level::LevelMeter;
use crate::ingest::{SourceClock, WallClock};
use crate::net::{MediaPlane, PublisherHandle, Sink};

/// Between two levels of a voice. Meters that move ten times a second look alive.
const LEVEL_INTERVAL: Duration = Duration::from_millis(100);

/// Packets that may wait for the task that decodes them: a second of them. A level that is later than
/// that is of no use, so that what finds no room is left out.
const MAX_WAITING_PACKETS: usize = 50;

/// Where ticks begin, so that they stay above 0. The lower half is the sender's own timestamp.
const TICKS_ORIGIN: i64 = 1 << 40;

/// Where levels come from.
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
    /// Its first packet came, and is on its way.
    Began {
        /// Whose.
        key: u64,
    },
    /// The loudest packet since the last one that was told, at most ten times a second.
    Level {
        /// Whose.
        key: u64,
        /// How loud it was.
        level: AudioLevel,
        /// When the newest packet came, on this server's wall clock.
        at: SystemTime,
    },
    /// Nothing follows: its last packet is on its way.
    Ended {
        /// Whose.
        key: u64,
    },
}

/// Hands on what a sender says, as `stream`, until its session ends. `key` names it in `events`;
/// `sound_bytes` counts the sound that came.
pub(crate) fn spawn(
    publisher: &PublisherHandle,
    stream: StreamId,
    media: MediaPlane,
    levels: LevelMode,
    events: mpsc::UnboundedSender<SenderEvent>,
    sound_bytes: Arc<AtomicU64>,
    key: u64,
) {
    let news = News { key, events };
    let meter = match levels {
        LevelMode::Off | LevelMode::Header => None,
        LevelMode::HeaderElseDecode => Some(start_meter(news.clone())),
    };
    let loudest = match levels {
        LevelMode::Off => None,
        LevelMode::Header | LevelMode::HeaderElseDecode => Some(Loudest::default()),
    };
    let placement = Placement::start();
    let _end = End(news.clone());
    let progress = Progress::Waiting;
    let relay =
        Relay { progress, placement, loudest, meter, news, stream, media, sound_bytes, _end };
    publisher.attach_sink(relay);
}

/// One sender's packets, on a publisher thread.
struct Relay {
    progress: Progress,
    placement: Placement,
    /// `None`: levels are off.
    loudest: Option<Loudest>,
    /// Where packets that say no level go, if they are measured.
    meter: Option<mpsc::Sender<Unmetered>>,
    news: News,
    stream: StreamId,
    media: MediaPlane,
    sound_bytes: Arc<AtomicU64>,
    /// Dropped with the rest.
    _end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// No packet came yet.
    Waiting,
    Began,
}

impl Sink for Relay {
    fn handle(&mut self, output: TrackOutput) {
        match output {
            TrackOutput::Frame(published) => self.handle_packet(published),
            // Sound alone is placed by its arrival as well; losses are in the publisher's figures.
            TrackOutput::Report { .. } | TrackOutput::Lost(_) | TrackOutput::KeyframeWanted => {}
        }
    }
}

impl Relay {
    fn handle_packet(&mut self, published: Published) {
        let (level, arrived) = (published.level, published.arrived);
        let frame = self.placement.frame(published);
        let packet = frame.units.first().cloned().unwrap_or_default();
        self.sound_bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
        self.media.publish(self.stream, frame);
        if self.progress == Progress::Waiting {
            self.progress = Progress::Began;
            self.news.tell(|key| SenderEvent::Began { key });
        }
        let Some(loudest) = &mut self.loudest else { return };
        let at = self.placement.wall_time(arrived);
        match (level, &self.meter) {
            (Some(level), _) => {
                if let Some(level) = loudest.next(level, arrived) {
                    self.news.tell(|key| SenderEvent::Level { key, level, at });
                }
            }
            (None, Some(meter)) => {
                // No room: it is late, and levels of the past are of no use.
                let _ = meter.try_send(Unmetered { packet, arrived, at });
            }
            (None, None) => {}
        }
    }
}

/// A packet whose level is not known.
struct Unmetered {
    packet: Bytes,
    arrived: Instant,
    at: SystemTime,
}

/// Measures packets that do not say how loud they are, until nobody can send any.
fn start_meter(news: News) -> mpsc::Sender<Unmetered> {
    let (sender, mut packets) = mpsc::channel::<Unmetered>(MAX_WAITING_PACKETS);
    tokio::spawn(async move {
        // Most senders say it themselves, and a decoder takes memory.
        let mut meter = None;
        let mut loudest = Loudest::default();
        while let Some(Unmetered { packet, arrived, at }) = packets.recv().await {
            let level = meter.get_or_insert_with(LevelMeter::new).level(&packet);
            if let Some(level) = level.and_then(|level| loudest.next(level, arrived)) {
                news.tell(|key| SenderEvent::Level { key, level, at });
            }
        }
    });
    sender
}

/// Who tells of a sender.
#[derive(Clone)]
struct News {
    key: u64,
    events: mpsc::UnboundedSender<SenderEvent>,
}

impl News {
    fn tell(&self, event: impl FnOnce(u64) -> SenderEvent) {
        // Nobody listens any more only while the program ends.
        let _ = self.events.send(event(self.key));
    }
}

/// Says that a sender has ended when it is dropped, whatever ended it.
struct End(News);

impl Drop for End {
    fn drop(&mut self) {
        self.0.tell(|key| SenderEvent::Ended { key });
    }
}

/// Where packets belong on this server's wall clock.
struct Placement {
    wall: WallClock,
    clock: SourceClock,
    /// Ticks of the furthest packet, and where it is.
    furthest: Option<(i64, NtpTime)>,
}

impl Placement {
    fn start() -> Self {
        let rate = Codec::Opus.clock_rate();
        Self { wall: WallClock::start(), clock: SourceClock::new(rate, rate), furthest: None }
    }

    fn frame(&mut self, published: Published) -> Frame {
        let Published { codec, ticks, arrived, keyframe, units, forwarded, .. } = published;
        let captured = match self.furthest {
            // One that was overtaken. It says nothing of delays.
            Some((furthest, placed)) if ticks < furthest => {
                let earlier = (furthest - ticks) as u64 * 1_000_000 / u64::from(codec.clock_rate());
                NtpTime::from_unix_micros(placed.unix_micros().saturating_sub(earlier))
            }
            Some(_) | None => {
                let arrival = self.wall.unix_micros_at(arrived);
                self.clock.captured(MediaKind::Audio, ticks, arrival)
            }
        };
        let discontinuity = self.furthest.is_none();
        if self.furthest.is_none_or(|(furthest, _)| furthest <= ticks) {
            self.furthest = Some((ticks, captured));
        }
        let ticks = u64::try_from(ticks.saturating_add(TICKS_ORIGIN)).unwrap_or(0);
        Frame { codec, ticks, captured, keyframe, discontinuity, units, forwarded }
    }

    fn wall_time(&self, moment: Instant) -> SystemTime {
        let micros = u64::try_from(self.wall.unix_micros_at(moment)).unwrap_or(0);
        UNIX_EPOCH + Duration::from_micros(micros)
    }
}

/// The loudest packet of each interval.
#[derive(Debug, Default)]
struct Loudest {
    level: Option<AudioLevel>,
    told: Option<Instant>,
}

impl Loudest {
    /// A packet's level; answers what is to be told now.
    fn next(&mut self, level: AudioLevel, arrived: Instant) -> Option<AudioLevel> {
        let loudest = match self.level {
            Some(before) if before.below_full <= level.below_full => before,
            Some(_) | None => level,
        };
        self.level = Some(loudest);
        if self.told.is_some_and(|told| arrived < told + LEVEL_INTERVAL) {
            return None;
        }
        self.told = Some(arrived);
        self.level.take()
    }
}

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
                // Who says it once says it always; both ways at once would tell too often.
                self.meter = None;
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use media::peer::pusher::{Pusher, PusherFactory, PusherOutput, Redundancy};
    use media::{Forwarded, red};
    use tokio::net::UdpSocket;
    use tokio::time::{interval, sleep_until, timeout};

    use super::*;
    use crate::ingest::opus::OpusEncoder;
    use crate::net::{FIRST_VOICE, MediaConfig, MediaTcp, Priority, SoundWishes, Tapped};

    const KEY: u64 = 7;
    const PATIENCE: Duration = Duration::from_secs(20);
    const LEVEL: AudioLevel = AudioLevel { below_full: 23, voice: Some(true) };

    #[test]
    fn the_loudest_packet_of_each_tenth_of_a_second_is_told() {
        let (mut loudest, start) = (Loudest::default(), Instant::now());
        let levels = [40, 60, 20, 61, 62, 63, 30, 64];
        let told: Vec<Option<u8>> = (0..)
            .zip(levels)
            .map(|(index, below_full)| {
                let level = AudioLevel { below_full, voice: None };
                let arrived = start + Duration::from_millis(index * 20);
                loudest.next(level, arrived).map(|level| level.below_full)
            })
            .collect();
        let nothing = [None; 4];
        assert_eq!(told[0], Some(40), "the first at once");
        assert_eq!((&told[1..5], told[5]), (&nothing[..], Some(20)));
        assert_eq!(told[6..], [None, None]);
    }

    #[test]
    fn packets_are_placed_by_their_ticks_and_late_ones_before_those_that_overtook_them() {
        let (mut placement, start) = (Placement::start(), Instant::now());
        let mut place = |index: i64, after: u64| {
            let arrived = start + Duration::from_millis(after);
            placement.frame(published(index, arrived))
        };
        let frames = [place(0, 0), place(1, 20), place(4, 81), place(2, 85), place(5, 100)];
        let first = frames[0].captured.unix_micros();
        let placed = frames.each_ref().map(|frame| frame.captured.unix_micros() - first);
        for (micros, expected) in placed.into_iter().zip([0, 20_000, 80_000, 40_000, 100_000]) {
            assert!(micros.abs_diff(expected) < 2_000, "{placed:?}");
        }
        assert_eq!(frames.each_ref().map(|f| f.discontinuity), [true, false, false, false, false]);
        assert_eq!(frames[3].ticks, frames[0].ticks + 2 * 960);
        assert_eq!(frames[0].ticks as u32, published(0, start).ticks as u32, "the sender's own");
    }

    fn published(index: i64, arrived: Instant) -> Published {
        Published {
            codec: Codec::Opus,
            ticks: index * 960 - 1_000,
            arrived,
            keyframe: true,
            reordered: false,
            size: None,
            units: vec![Bytes::from_static(&[1])],
            forwarded: Some(Forwarded { number: 0, marker: false, red: None }),
            level: None,
        }
    }

    #[tokio::test]
    async fn a_voice_begins_is_as_loud_as_it_says_and_ends() {
        let (mut speaker, mut events) = Speaker::connect(LevelMode::Header).await;
        let mut tap = speaker.media.tap(FIRST_VOICE);
        let mut numbers = Vec::new();
        let mut packets = interval(Duration::from_millis(20));
        while numbers.len() < 20 {
            tokio::select! {
                _ = packets.tick() => speaker.say(Some(LEVEL)),
                () = speaker.input() => {}
                Some(tapped) = tap.next() => {
                    let Tapped::Frame(frame) = tapped else { panic!("a voice has no groups") };
                    let Forwarded { number, red, .. } = frame.forwarded.clone().unwrap();
                    let newest = red::newest(&red.unwrap()).unwrap();
                    assert!(frame.payloads().eq([&newest.data[..]]), "the newest block");
                    numbers.push(number);
                }
            }
            speaker.drain().await;
        }
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
        let bytes = speaker.sound_bytes.load(Ordering::Relaxed);
        assert!(bytes >= 20 * speaker.packet.len() as u64, "{bytes}");
        assert_eq!(next(&mut events).await, SenderEvent::Began { key: KEY });
        let SenderEvent::Level { key: KEY, level, at } = next(&mut events).await else { panic!() };
        assert_eq!(level, LEVEL);
        assert!(at.elapsed().unwrap() < PATIENCE, "{at:?}");

        speaker.pusher.close();
        speaker.drain().await;
        let ended = async { while next(&mut events).await != (SenderEvent::Ended { key: KEY }) {} };
        timeout(PATIENCE, ended).await.unwrap();
        assert!(events.recv().await.is_none(), "nothing follows");
    }

    #[tokio::test]
    async fn a_sender_that_says_no_level_is_measured() {
        let (mut speaker, mut events) = Speaker::connect(LevelMode::HeaderElseDecode).await;
        let mut packets = interval(Duration::from_millis(20));
        let level = loop {
            tokio::select! {
                _ = packets.tick() => speaker.say(None),
                () = speaker.input() => {}
                Some(event) = events.recv() => {
                    if let SenderEvent::Level { level, .. } = event { break level };
                }
            }
            speaker.drain().await;
        };
        assert_eq!(level, AudioLevel::SILENCE);
    }

    #[tokio::test]
    async fn a_session_that_is_over_ends_its_voice_at_once() {
        let (speaker, _events) = Speaker::connect(LevelMode::Off).await;
        let (events, mut told) = mpsc::unbounded_channel();
        speaker.publisher.close();
        let media = speaker.media.clone();
        spawn(&speaker.publisher, FIRST_VOICE, media, LevelMode::Off, events, Arc::default(), KEY);
        let event = timeout(PATIENCE, told.recv()).await.unwrap();
        assert_eq!(event, Some(SenderEvent::Ended { key: KEY }));
    }

    /// A client that speaks over a socket, and the media plane that hears it.
    struct Speaker {
        pusher: Pusher,
        socket: UdpSocket,
        due: Instant,
        connected: bool,
        /// One packet of silence.
        packet: Bytes,
        said: u64,
        media: MediaPlane,
        publisher: PublisherHandle,
        sound_bytes: Arc<AtomicU64>,
    }

    impl Speaker {
        async fn connect(levels: LevelMode) -> (Self, mpsc::UnboundedReceiver<SenderEvent>) {
            let udp: SocketAddr = "127.0.0.1:0".parse().unwrap();
            let config = MediaConfig {
                udp,
                tcp: MediaTcp::Off,
                advertise: Vec::new(),
                workers: Some(1),
                priority: Priority::Ordinary,
            };
            let (media_events, _) = mpsc::unbounded_channel();
            let media = MediaPlane::start(&config, media_events).unwrap();
            let socket = UdpSocket::bind(udp).await.unwrap();
            let (address, now) = (socket.local_addr().unwrap(), Instant::now());
            let factory = PusherFactory::new().unwrap();
            let (mut pusher, offer) =
                factory.offer_sound(address, Redundancy::OnePacket, now).unwrap();
            let wishes = SoundWishes {
                sample_rate: 16_000,
                channels: 1,
                packet_time: 20,
                fec: true,
                dtx: false,
            };
            let (publisher, accepted) = media.accept_sender(offer, wishes).await.unwrap();
            pusher.handle_answer(&accepted.answer_sdp).unwrap();
            pusher.handle_timeout(now);
            let (events_in, events) = mpsc::unbounded_channel();
            let sound_bytes = Arc::<AtomicU64>::default();
            let bytes = Arc::clone(&sound_bytes);
            spawn(&publisher, FIRST_VOICE, media.clone(), levels, events_in, bytes, KEY);
            let packet = OpusEncoder::new(48_000, 1).unwrap().encode(&[0; 960]).unwrap();
            let (said, connected) = (0, false);
            let mut speaker = Self {
                pusher,
                socket,
                due: now,
                connected,
                packet,
                said,
                media,
                publisher,
                sound_bytes,
            };
            let connecting = async {
                speaker.drain().await;
                while !speaker.connected {
                    speaker.input().await;
                    speaker.drain().await;
                }
            };
            timeout(PATIENCE, connecting).await.unwrap();
            (speaker, events)
        }

        fn say(&mut self, level: Option<AudioLevel>) {
            let now = Instant::now();
            let frame = Frame {
                codec: Codec::Opus,
                ticks: self.said * 960,
                captured: NtpTime(0),
                keyframe: true,
                discontinuity: false,
                units: vec![self.packet.clone()],
                forwarded: None,
            };
            self.said += 1;
            match level {
                Some(level) => self.pusher.handle_sound(&frame, level, now).unwrap(),
                None => self.pusher.handle_frame(&frame, now).unwrap(),
            }
            self.pusher.handle_timeout(now);
        }

        /// A datagram, or the time that the pusher named.
        async fn input(&mut self) {
            let mut buffer = [0; 1_500];
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    if let Ok((len, source)) = received {
                        self.pusher.handle_datagram(source, &buffer[..len], Instant::now());
                    }
                }
                () = sleep_until(self.due.into()) => self.pusher.handle_timeout(Instant::now()),
            }
        }

        async fn drain(&mut self) {
            loop {
                match self.pusher.poll_output() {
                    PusherOutput::Transmit { destination, contents } => {
                        self.socket.send_to(&contents, destination).await.unwrap();
                    }
                    PusherOutput::Connected => self.connected = true,
                    PusherOutput::KeyframeWanted | PusherOutput::Figures(..) => {}
                    PusherOutput::Closed => return,
                    PusherOutput::Timeout(at) => {
                        self.due = at;
                        return;
                    }
                }
            }
        }
    }

    async fn next(events: &mut mpsc::UnboundedReceiver<SenderEvent>) -> SenderEvent {
        timeout(PATIENCE, events.recv()).await.unwrap().expect("the sender is heard of")
    }
}

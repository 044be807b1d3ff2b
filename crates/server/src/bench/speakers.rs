//! What a voice as MP3 costs with one player and with many: real packets through the media plane, the
//! server's own encoder and HTTP answers, and players on loopback that read all they get.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use media::{Codec, Forwarded, Frame, NtpTime, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{Figure, Report};
use crate::http;
use crate::ingest::opus::OpusEncoder;
use crate::net::{FIRST_VOICE, MediaConfig, MediaPlane, MediaTcp, Priority};
use crate::voice::LiveVoice;
use crate::voice::mp3::Mp3;

/// A hundred players may cost this many times what one does.
const RATIO_MAX: f64 = 1.2;
/// Players of the second measurement, beside one of the first.
const PLAYERS: usize = 100;
/// Turns of both, one after the other, so that what else runs on the machine falls on both.
const ROUNDS: usize = 5;
/// How long a turn is measured, in seconds.
const TURN: Duration = Duration::from_secs(6);
/// Before it: connecting, and the first burst.
const SETTLING: Duration = Duration::from_secs(2);
/// The name of the players' thread, whose time does not count.
const PLAYERS_THREAD: &str = "players";
/// The one that decodes and encodes.
const ENCODER_THREAD: &str = "mp3";
const VOICE: &str = "stream_bench";

/// Measures for about a minute and a half.
pub(crate) fn run() -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> anyhow::Result<Report> {
    let studio = Studio::open().await?;
    let (mut one, mut many, mut encoder) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let single = studio.turn(1).await?;
        one.push(single.all);
        encoder.push(single.encoder);
        many.push(studio.turn(PLAYERS).await?.all);
    }
    let ratios: Vec<f64> = many.iter().zip(&one).map(|(many, one)| many / one).collect();
    let figures = vec![
        Figure::median("a voice as MP3, 1 player", "ms/s", &one),
        Figure::median(format!("a voice as MP3, {PLAYERS} players"), "ms/s", &many),
        Figure::median("the latter by the former", "", &ratios).under(RATIO_MAX),
        Figure::median("decoder and encoder alone", "ms/s", &encoder),
    ];
    let headline = vec![("mp3_ratio", super::quantile(&ratios, 0.5))];
    let title = format!(
        "CPU of one voice as MP3 with 1 and {PLAYERS} players over HTTP on loopback, the players' own \
         not counted, {ROUNDS} turns of {} s each",
        TURN.as_secs()
    );
    Ok(Report { title, headline, figures })
}

/// A voice, and the server's parts that play it.
struct Studio {
    address: SocketAddr,
    _voices: watch::Sender<Arc<[LiveVoice]>>,
    _closing: tokio_util::sync::DropGuard,
}

/// Milliseconds of CPU a second.
struct Turn {
    all: f64,
    encoder: f64,
}

impl Studio {
    async fn open() -> anyhow::Result<Self> {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (events, _) = mpsc::unbounded_channel();
        let advertise = Vec::new();
        let config = MediaConfig {
            udp: anywhere,
            tcp: MediaTcp::Off,
            advertise,
            workers: Some(1),
            priority: Priority::Ordinary,
        };
        let media = MediaPlane::start(&config, events)
            .map_err(|error| error.reason)
            .context("the media port cannot be opened")?;
        let began = Instant::now();
        let voice = LiveVoice { id: VOICE.to_owned(), stream: FIRST_VOICE, began };
        let (voices, live) = watch::channel(Arc::from([voice]));
        let mp3 = Mp3::new(media.clone(), live);
        let listeners = http::bind(&[anywhere], "a benchmark").await?;
        let address = listeners.addresses().first().copied().context("nothing is bound")?;
        let closing = CancellationToken::new();
        tokio::spawn(listeners.serve(http::speakers(mp3), Arc::default(), closing.clone()));
        tokio::spawn(talk(media, FIRST_VOICE, speech()?));
        Ok(Self { address, _voices: voices, _closing: closing.drop_guard() })
    }

    /// So many players for [`TURN`].
    async fn turn(&self, players: usize) -> anyhow::Result<Turn> {
        let room = Room::open(self.address, players)?;
        sleep(SETTLING).await;
        let (bytes, begun) = (room.bytes(), Instant::now());
        let before = CpuTime::now()?;
        sleep(TURN).await;
        let used = CpuTime::now()?;
        let (seconds, bytes) = (begun.elapsed().as_secs_f64(), room.bytes() - bytes);
        let wanted = players as f64 * seconds * 16_000.0;
        let played = bytes as f64 / wanted;
        ensure!((0.9..1.1).contains(&played), "players got {played:.2} times what they should");
        let by = |used: Duration, before: Duration| {
            used.saturating_sub(before).as_secs_f64() * 1e3 / seconds
        };
        Ok(Turn { all: by(used.all, before.all), encoder: by(used.encoder, before.encoder) })
    }
}

/// Two seconds of something like speech: a tone that rises and falls four times a second.
fn speech() -> anyhow::Result<Vec<Bytes>> {
    let mut encoder = OpusEncoder::new(48_000, 1)?;
    let sample = |index: usize| {
        let time = index as f64 / 48_000.0;
        let loudness = (time * 4.0 * std::f64::consts::TAU).sin().abs();
        let pitch = [140.0, 280.0, 700.0, 1_900.0]
            .map(|hertz: f64| (time * hertz * std::f64::consts::TAU).sin());
        (pitch.iter().sum::<f64>() * loudness * 6_000.0) as i16
    };
    let packet = |number: usize| {
        let pcm: Vec<i16> = (0..960).map(|index| sample(number * 960 + index)).collect();
        Ok(encoder.encode(&pcm)?)
    };
    (0..100).map(packet).collect()
}

/// Says it again and again, in packets of 20 ms.
async fn talk(media: MediaPlane, stream: StreamId, speech: Vec<Bytes>) {
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for (number, packet) in (0_u64..).zip(speech.iter().cycle()) {
        ticks.tick().await;
        let frame = Frame {
            codec: Codec::Opus,
            ticks: number * 960,
            captured: NtpTime(0),
            keyframe: true,
            discontinuity: false,
            units: vec![packet.clone()],
            forwarded: Some(Forwarded { number, red: None, marker: false }),
        };
        media.publish(stream, frame);
    }
}

/// Players on a thread of their own, until this is dropped.
struct Room {
    bytes: Arc<AtomicU64>,
    _closing: tokio_util::sync::DropGuard,
}

impl Room {
    fn open(address: SocketAddr, players: usize) -> anyhow::Result<Self> {
        let (bytes, closing) = (Arc::<AtomicU64>::default(), CancellationToken::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (counter, end) = (Arc::clone(&bytes), closing.clone());
        let listen = move || {
            runtime.block_on(async {
                let mut playing = JoinSet::new();
                for _ in 0..players {
                    playing.spawn(play(address, Arc::clone(&counter)));
                }
                end.cancelled().await;
            });
        };
        thread::Builder::new().name(PLAYERS_THREAD.to_owned()).spawn(listen)?;
        Ok(Self { bytes, _closing: closing.drop_guard() })
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Reads all that comes; what is missing at the end shows in the number of bytes.
async fn play(address: SocketAddr, bytes: Arc<AtomicU64>) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    let request = format!("GET /stream/{VOICE}.mp3 HTTP/1.0\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return;
    }
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// CPU time of this process's threads since they began.
struct CpuTime {
    /// All but the players'.
    all: Duration,
    encoder: Duration,
}

impl CpuTime {
    /// From the scheduler, to the nanosecond (proc(5)).
    fn now() -> anyhow::Result<Self> {
        let mut time = Self { all: Duration::ZERO, encoder: Duration::ZERO };
        for task in fs::read_dir("/proc/self/task").context("no /proc")? {
            let folder = task?.path();
            let read = |file: &str| fs::read_to_string(folder.join(file));
            // A thread may end while it is looked at.
            let (Ok(name), Ok(counted)) = (read("comm"), read("schedstat")) else { continue };
            let nanos = counted.split(' ').next().and_then(|nanos| nanos.parse().ok());
            let used = Duration::from_nanos(nanos.context("schedstat has no times")?);
            if name.trim() != PLAYERS_THREAD {
                time.all += used;
            }
            if name.trim() == ENCODER_THREAD {
                time.encoder += used;
            }
        }
        Ok(time)
    }
}

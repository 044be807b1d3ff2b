//! CPU a packet of the way from a frame to its viewers, beside the bare floor of the same run.
//!
//! The fan-out and the sending are the server's own, in one thread; keys are made up and viewers
//! are sockets that nobody reads. All contestants send in turns, since machines get faster and
//! slower while one looks; medians count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use media::batch::{Batch, Route};
use media::fanout::Fanout;
use media::negotiated::{ExtensionKind, HeaderExtension, Negotiated, Payload, Track};
use media::packetise::packetise;
use media::peer::SessionKeys;
use media::peers::Attach;
use media::srtp::{GcmBackend, SrtpProfile};
use media::{Codec, Forwarded, Frame, MediaKind, NtpTime, StreamId, ViewerId};

use super::floor::Floor;
use super::load::{AUDIO, Load, Origin, Sender, VIDEO, VOICE};
use super::sinks::Sinks;
use super::{Figure, Report, quantile};
use crate::net::{UdpPort, calibrate_gcm, thread_cpu_time};

/// CPU a video packet in microseconds.
const VIDEO_US_MAX: f64 = 1.9;
/// The same as a multiple of the floor.
const VIDEO_RATIO_MAX: f64 = 1.6;
/// CPU a sound packet in microseconds.
const AUDIO_US_MAX: f64 = 8.0;
/// From a frame's arrival until it is sent to the last viewer.
const LATENCY_P99_MS_MAX: f64 = 10.0;
/// A keyframe every second, so that the cached group stays small.
const KEYFRAME_EVERY: u64 = 25;
const STREAM: StreamId = StreamId(1);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EgressBench {
    /// Viewers of the one stream.
    pub(crate) viewers: usize,
    /// Turns that each contestant has.
    pub(crate) rounds: usize,
    /// Frames, 40 ms apart, whose way to the last viewer is timed.
    pub(crate) latency_frames: usize,
}

/// Measures for some twenty seconds.
pub(crate) fn run(bench: EgressBench) -> anyhow::Result<Report> {
    ensure!(bench.viewers > 0 && bench.rounds > 0, "there is nothing to measure");
    let sinks = Sinks::open(bench.viewers)?;
    let mut field = Field::new(&sinks)?;
    // What is done for the first time is slower, and of no interest.
    field.take_turns()?;
    for contestant in &mut field.contestants {
        contestant.us_a_packet.clear();
    }
    for _ in 0..bench.rounds {
        field.take_turns()?;
    }
    let latencies = latencies(&sinks, bench.latency_frames)?;
    let title = format!(
        "CPU a packet from frame to socket, {} viewers, {} turns each (median; 10 % .. 90 %); \
         AES-GCM by {}, load of the machine {}",
        bench.viewers,
        bench.rounds,
        field.library,
        machine_load()
    );
    Ok(Report { title, headline: field.headline(), figures: field.figures(&latencies) })
}

/// What one voice costs, from its packet in to so many listeners: beside the floor of the same turns.
pub(super) fn voice(listeners: usize, rounds: usize) -> anyhow::Result<Vec<Figure>> {
    let backend = calibrate_gcm();
    let sinks = Sinks::open(listeners)?;
    let ours = |name, profile| {
        let sender = Ours::new(&sinks, &VOICE, profile)?;
        anyhow::Ok(Contestant::new(name, &VOICE, listeners, sender).under(AUDIO_US_MAX))
    };
    let floor = Floor::new(&sinks, backend, &VOICE)?;
    let mut contestants = [
        Contestant::new("voice floor AES-128-GCM", &VOICE, listeners, floor),
        ours("voice AES-128-GCM", SrtpProfile::AeadAes128Gcm)?,
        ours("voice AES-256-GCM", SrtpProfile::AeadAes256Gcm)?,
    ];
    for round in 0..=rounds {
        for contestant in &mut contestants {
            contestant.take_turn().with_context(|| contestant.name.to_owned())?;
            if round == 0 {
                contestant.us_a_packet.clear();
            }
        }
    }
    let [floor, ours, _] = &contestants;
    let turns = ours.us_a_packet.iter().zip(&floor.us_a_packet);
    let ratios: Vec<f64> = turns.map(|(ours, floor)| ours / floor).collect();
    let ratio = Figure::median("voice AES-128-GCM over floor", "x", &ratios);
    Ok(contestants.iter().map(Contestant::figure).chain([ratio]).collect())
}

/// Everything that is measured against each other.
struct Field {
    library: String,
    contestants: Vec<Contestant>,
}

/// Names of the contestants that others are compared with.
const FLOOR: &str = "video floor AES-128-GCM";
const OURS: &str = "video AES-128-GCM";

impl Field {
    fn new(sinks: &Sinks) -> anyhow::Result<Self> {
        let backend = calibrate_gcm();
        let viewers = sinks.addresses().len();
        let ours = |name, load, profile| {
            anyhow::Ok(Contestant::new(name, load, viewers, Ours::new(sinks, load, profile)?))
        };
        let floor = |name, load| {
            anyhow::Ok(Contestant::new(name, load, viewers, Floor::new(sinks, backend, load)?))
        };
        let singly = Ours::new(sinks, &VIDEO, SrtpProfile::AeadAes128Gcm)?;
        singly.port.disable_segmentation();
        let contestants = vec![
            floor(FLOOR, &VIDEO)?,
            ours(OURS, &VIDEO, SrtpProfile::AeadAes128Gcm)?.under(VIDEO_US_MAX),
            ours("video AES-256-GCM", &VIDEO, SrtpProfile::AeadAes256Gcm)?.under(VIDEO_US_MAX),
            ours("video AES-CM-SHA1-80", &VIDEO, SrtpProfile::Aes128CmSha1_80)?,
            Contestant::new("video AES-128-GCM, no segmentation", &VIDEO, viewers, singly),
            floor("audio floor AES-128-GCM", &AUDIO)?,
            ours("audio AES-128-GCM", &AUDIO, SrtpProfile::AeadAes128Gcm)?.under(AUDIO_US_MAX),
            ours("audio AES-256-GCM", &AUDIO, SrtpProfile::AeadAes256Gcm)?.under(AUDIO_US_MAX),
        ];
        Ok(Self { library: format!("{backend:?}"), contestants })
    }

    fn take_turns(&mut self) -> anyhow::Result<()> {
        self.contestants
            .iter_mut()
            .try_for_each(|one| one.take_turn().with_context(|| one.name.to_owned()))
    }

    fn measured(&self, name: &str) -> &[f64] {
        let found = self.contestants.iter().find(|contestant| contestant.name == name);
        found.map_or(&[], |contestant| &contestant.us_a_packet)
    }

    fn headline(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("ours_us_per_packet", quantile(self.measured(OURS), 0.5)),
            ("floor_us_per_packet", quantile(self.measured(FLOOR), 0.5)),
        ]
    }

    fn figures(&self, latencies: &[Latency]) -> Vec<Figure> {
        let costs = self.contestants.iter().map(Contestant::figure);
        // Turn by turn, so that a slow moment of the machine meets both.
        let turns = self.measured(OURS).iter().zip(self.measured(FLOOR));
        let ratios: Vec<f64> = turns.map(|(ours, floor)| ours / floor).collect();
        let ratio = Figure::median("video AES-128-GCM over floor", "x", &ratios);
        let wall: Vec<f64> = latencies.iter().map(|latency| latency.wall_ms).collect();
        let own: Vec<f64> = latencies.iter().map(Latency::own_ms).collect();
        costs
            .chain([
                ratio.under(VIDEO_RATIO_MAX),
                Figure::new("frame in to last viewer out, p50", "ms", quantile(&wall, 0.5)),
                Figure::new("frame in to last viewer out, p99", "ms", quantile(&wall, 0.99))
                    .under(LATENCY_P99_MS_MAX),
                Figure::new("p99 without waiting for a core", "ms", quantile(&own, 0.99)),
            ])
            .collect()
    }
}

/// The sizes that a curve goes through.
const CURVE_VIEWERS: [usize; 4] = [10, 100, 300, 1_000];
/// Turns of each contestant at each size.
const CURVE_ROUNDS: usize = 9;
/// Packets a turn, so that few viewers are measured as exactly as many: some 25 ms of work.
const CURVE_PACKETS_A_TURN: u32 = 24_000;
/// Frames at each size whose way to the last viewer is timed: two seconds.
const CURVE_LATENCY_FRAMES: usize = 50;

/// CPU a packet and the way of a frame by the number of viewers: what grows beyond it shows here.
pub(crate) fn curve() -> anyhow::Result<Report> {
    let backend = calibrate_gcm();
    let mut points = Vec::new();
    for viewers in CURVE_VIEWERS {
        points.push(point(viewers, backend)?);
    }
    let figures = points.iter().flat_map(CurvePoint::figures).collect();
    let title = format!("CPU a packet by viewers, load of the machine {}", machine_load());
    Ok(Report { title, headline: Vec::new(), figures })
}

/// The curve at one number of viewers.
struct CurvePoint {
    viewers: usize,
    video: Contestant,
    floor: Contestant,
    sound: Contestant,
    wall_p99_ms: f64,
}

fn point(viewers: usize, backend: GcmBackend) -> anyhow::Result<CurvePoint> {
    let sinks = Sinks::open(viewers)?;
    let profile = SrtpProfile::AeadAes128Gcm;
    let one = |name, load: &'static Load, ours| {
        let contestant = match ours {
            Side::Ours => Contestant::new(name, load, viewers, Ours::new(&sinks, load, profile)?),
            Side::Floor => Contestant::new(name, load, viewers, Floor::new(&sinks, backend, load)?),
        };
        anyhow::Ok(contestant.with_packets_a_turn(CURVE_PACKETS_A_TURN))
    };
    let mut video = one("video", &VIDEO, Side::Ours)?;
    let mut floor = one("video floor", &VIDEO, Side::Floor)?;
    let mut sound = one("1 packet a frame", &AUDIO, Side::Ours)?;
    for round in 0..=CURVE_ROUNDS {
        for contestant in [&mut video, &mut floor, &mut sound] {
            contestant.take_turn()?;
            if round == 0 {
                contestant.us_a_packet.clear();
            }
        }
    }
    let wall: Vec<f64> =
        latencies(&sinks, CURVE_LATENCY_FRAMES)?.iter().map(|latency| latency.wall_ms).collect();
    Ok(CurvePoint { viewers, video, floor, sound, wall_p99_ms: quantile(&wall, 0.99) })
}

/// Whose way of sending.
#[derive(Clone, Copy)]
enum Side {
    Ours,
    Floor,
}

impl CurvePoint {
    fn figures(&self) -> Vec<Figure> {
        let of = |contestant: &Contestant| {
            let name = format!("{} viewers: {}", self.viewers, contestant.name);
            Figure::median(name, "us", &contestant.us_a_packet)
        };
        let late = format!("{} viewers: frame in to last viewer out, p99", self.viewers);
        vec![
            of(&self.video),
            of(&self.floor),
            of(&self.sound),
            Figure::new(late, "ms", self.wall_p99_ms),
        ]
    }
}

/// One way to send, measured in turns.
struct Contestant {
    name: &'static str,
    target: Option<f64>,
    sender: Box<dyn Sender>,
    frames_a_turn: u32,
    packets_a_turn: f64,
    /// One measurement a turn.
    us_a_packet: Vec<f64>,
}

impl Contestant {
    fn new(name: &'static str, load: &Load, viewers: usize, sender: impl Sender + 'static) -> Self {
        Self {
            name,
            target: None,
            sender: Box::new(sender),
            frames_a_turn: load.frames_a_turn,
            packets_a_turn: (load.frames_a_turn as usize * load.packets * viewers) as f64,
            us_a_packet: Vec::new(),
        }
    }

    fn under(self, target: f64) -> Self {
        Self { target: Some(target), ..self }
    }

    /// As many frames a turn as come to about so many packets, at least one.
    fn with_packets_a_turn(self, packets: u32) -> Self {
        let packets_a_frame = self.packets_a_turn / f64::from(self.frames_a_turn);
        let frames_a_turn = (f64::from(packets) / packets_a_frame).ceil().max(1.0) as u32;
        let packets_a_turn = f64::from(frames_a_turn) * packets_a_frame;
        Self { frames_a_turn, packets_a_turn, ..self }
    }

    fn take_turn(&mut self) -> anyhow::Result<()> {
        let before = thread_cpu_time();
        for _ in 0..self.frames_a_turn {
            self.sender.send_frame()?;
        }
        let used = thread_cpu_time() - before;
        self.us_a_packet.push(used.as_secs_f64() * 1e6 / self.packets_a_turn);
        Ok(())
    }

    fn figure(&self) -> Figure {
        let figure = Figure::median(self.name, "us", &self.us_a_packet);
        Figure { target: self.target, ..figure }
    }
}

/// The server's own way: fan-out, batches, port, as a worker drives them.
struct Ours {
    fanout: Fanout,
    port: UdpPort,
    batch: Batch,
    load: &'static Load,
    unit: Bytes,
    frames: u64,
    /// Virtual, so that reports are as frequent a frame as they are in life.
    now: Instant,
    /// RTP packets that a frame comes to.
    packets_a_frame: u64,
}

impl Ours {
    fn new(sinks: &Sinks, load: &'static Load, profile: SrtpProfile) -> anyhow::Result<Self> {
        let port = UdpPort::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let now = Instant::now();
        let mut fanout = Fanout::new();
        for (index, destination) in sinks.addresses().iter().enumerate() {
            let route = Route::new(port.local_address(), *destination);
            let attach = attach(index, route, load.origin, profile);
            // Spread like random numbers, so that the reports are spread as in life.
            let seed = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            fanout.handle_attach(attach, seed, now);
        }
        ensure!(
            fanout.figures().viewers == sinks.addresses().len() as u64,
            "the fan-out took only {} viewers",
            fanout.figures().viewers
        );
        let packets_a_frame = (load.packets * sinks.addresses().len()) as u64;
        let (batch, unit) = (Batch::default(), unit(load));
        Ok(Self { fanout, port, batch, load, unit, frames: 0, now, packets_a_frame })
    }

    fn next_frame(&mut self) -> Frame {
        let interval_ticks =
            self.load.interval.as_millis() as u64 * u64::from(self.load.codec.clock_rate()) / 1000;
        let index = self.frames;
        self.frames += 1;
        let forwarded = match self.load.origin {
            Origin::Camera => None,
            Origin::Voice => Some(Forwarded { number: index, marker: false, red: None }),
        };
        Frame {
            forwarded,
            codec: self.load.codec,
            ticks: index * interval_ticks,
            captured: NtpTime::from_unix_micros(index * self.load.interval.as_micros() as u64),
            keyframe: self.load.codec.kind() == MediaKind::Audio
                || index.is_multiple_of(KEYFRAME_EVERY),
            discontinuity: false,
            units: vec![self.unit.clone()],
        }
    }

    /// What a worker does after each input; returns how many datagrams were sent.
    fn flush(&mut self) -> anyhow::Result<u64> {
        let mut datagrams = 0;
        loop {
            self.batch.clear();
            self.fanout.poll_transmit(&mut self.batch);
            if self.batch.is_empty() {
                break;
            }
            let sent = self.port.send(&self.batch);
            ensure!(sent.refused == 0, "the kernel refused {} datagrams", sent.refused);
            datagrams += sent.datagrams;
        }
        while self.fanout.poll_event().is_some() {}
        Ok(datagrams)
    }
}

impl Sender for Ours {
    fn send_frame(&mut self) -> anyhow::Result<()> {
        let frame = Arc::new(packetise(&self.next_frame()));
        self.now += self.load.interval;
        self.fanout.handle_timeout(self.now);
        self.flush()?;
        self.fanout.handle_frame(STREAM, frame, self.now);
        let datagrams = self.flush()?;
        let wrong = self.fanout.figures().seal_errors;
        ensure!(wrong == 0, "{wrong} packets could not be sealed");
        // The first frame brings the first reports with it.
        ensure!(
            datagrams == self.packets_a_frame || self.frames == 1,
            "{datagrams} datagrams left instead of {}",
            self.packets_a_frame
        );
        Ok(())
    }
}

/// A unit that the packetiser cuts into what the load asks for.
fn unit(load: &Load) -> Bytes {
    /// Of each payload that carries a fragment (RFC 6184 §5.8).
    const FRAGMENT_HEADER: usize = 2;
    /// nal_ref_idc 3, nal_unit_type 5: a slice of a keyframe.
    const SLICE: u8 = 0x65;
    match load.codec {
        Codec::H264 | Codec::H265 | Codec::Vp8 | Codec::Vp9 | Codec::Av1 => {
            let body = load.packets * (load.payload - FRAGMENT_HEADER);
            [vec![SLICE], vec![0x5a; body]].concat().into()
        }
        Codec::Opus | Codec::Pcmu | Codec::Pcma => vec![0x5a; load.payload].into(),
    }
}

/// A viewer as it comes from its handshake.
fn attach(index: usize, route: Route, origin: Origin, profile: SrtpProfile) -> Attach {
    let material: Vec<u8> =
        (0..profile.keying_material_len()).map(|byte| (byte * 7 + index) as u8).collect();
    let audio =
        Payload { codec: Codec::Opus, payload_type: 111, rtx: None, profile_level_id: None };
    Attach {
        viewer: ViewerId(index as u64),
        stream: STREAM,
        route,
        keys: SessionKeys { profile, material },
        negotiated: Negotiated {
            video: (origin == Origin::Camera).then(video_track),
            audio: Some(Track {
                kind: MediaKind::Audio,
                ssrc: 2,
                rtx_ssrc: None,
                payloads: vec![audio],
                extension: None,
                red: None,
            }),
            cname: "bench".to_owned(),
        },
        handshake: Duration::ZERO,
    }
}

/// As it is settled with Chromium: baseline, constrained baseline and main, each with its repairs, and
/// the time of sending in each packet, from which Chromium estimates what its line carries.
fn video_track() -> Track {
    let payload = |(payload_type, profile_level_id)| Payload {
        codec: Codec::H264,
        payload_type,
        rtx: Some(payload_type + 1),
        profile_level_id: Some(profile_level_id),
    };
    let payloads = [(102, [0x42, 0, 0x1f]), (108, [0x42, 0xe0, 0x1f]), (116, [0x4d, 0, 0x1f])];
    Track {
        kind: MediaKind::Video,
        ssrc: 1,
        rtx_ssrc: Some(3),
        payloads: payloads.map(payload).to_vec(),
        extension: Some(HeaderExtension { id: 2, kind: ExtensionKind::AbsoluteSendTime }),
        red: None,
    }
}

/// Threads that ran or wanted to run in the last minute, on how many cores: where there are more of
/// them, times on the wall are not ours alone.
fn machine_load() -> String {
    let average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!("{} on {cores} cores", average.split(' ').next().unwrap_or("unknown"))
}

/// A frame's way from its arrival until it was sent to the last viewer.
struct Latency {
    wall_ms: f64,
    /// Of it, ready to run while other programs had the cores.
    waited_ms: f64,
}

impl Latency {
    fn own_ms(&self) -> f64 {
        self.wall_ms - self.waited_ms
    }
}

/// At a camera's pace, so that the thread sleeps in between as a worker does.
fn latencies(sinks: &Sinks, frames: usize) -> anyhow::Result<Vec<Latency>> {
    let mut ours = Ours::new(sinks, &VIDEO, SrtpProfile::AeadAes256Gcm)?;
    ours.send_frame()?;
    let start = Instant::now();
    (1..=frames as u32)
        .map(|index| {
            let due = start + VIDEO.interval * index;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let waited = waited_for_core_ms();
            let arrived = Instant::now();
            ours.send_frame()?;
            let wall_ms = arrived.elapsed().as_secs_f64() * 1e3;
            Ok(Latency { wall_ms, waited_ms: waited_for_core_ms() - waited })
        })
        .collect()
}

/// How long this thread was ready to run and did not; 0 where the kernel does not count it.
fn waited_for_core_ms() -> f64 {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = counted.split(' ').nth(1).and_then(|waited| waited.parse::<u64>().ok());
    nanoseconds.unwrap_or(0) as f64 / 1e6
}

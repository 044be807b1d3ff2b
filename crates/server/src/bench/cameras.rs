//! `manifold bench cameras`: one process that is many RTSP cameras, for load tests of a server.
//!
//! All cameras show one group of pictures, packetised once; they differ in phase, SSRC, sequence numbers
//! and timestamps. The server is the one of `rtsp_out`. Times in sender reports are true, the time in
//! the pictures' strip is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use media::packetise::packetise;
use media::{Codec, Frame, NtpTime, PacketisedFrame};
use tokio_util::sync::CancellationToken;

use crate::admission::{Crowd, Limits};
use crate::ingest::testcard::{ReelSettings, record};
use crate::metrics::Outlets;
use crate::net::raise_descriptor_limit;
use crate::rtsp_out::{
    Ask, CONNECTIONS_MAX, Description, Library, Played, Playing, Refusal, RtspOut, TrackFormat,
};

/// The largest phase: cameras are spread over two seconds at most, however long the group is.
const PHASES_MAX: usize = 1_000;

/// A camera that is later than this leaves frames out, as one would with a full link.
const LATE_MAX: Duration = Duration::from_secs(1);

/// What is generated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Generator {
    /// `cam-000` and so on.
    pub(crate) count: usize,
    /// Bits a second of each.
    pub(crate) bitrate: u64,
    /// Pictures a second.
    pub(crate) fps: u32,
    /// Pictures from keyframe to keyframe.
    pub(crate) group: u32,
    /// Size in pixels.
    pub(crate) size: (usize, usize),
    /// Where they are.
    pub(crate) listen: SocketAddr,
}

/// Serves until the process is interrupted. `ready` is told once they can be read: one line.
pub(crate) fn serve(generator: Generator, ready: impl FnOnce(&str)) -> anyhow::Result<()> {
    ensure!(generator.count > 0, "give at least one camera");
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the threads could not be started")?;
    let (reel, bitrate) = Reel::record(generator)?;
    runtime.block_on(async {
        let server = RtspOut::bind(generator.listen, "--listen", "the command line").await?;
        let address = server.address();
        let last = generator.count - 1;
        ready(&format!(
            "{} cameras of {:.2} Mbit/s: rtsp://{address}/cam-000 to cam-{last:03}",
            generator.count,
            bitrate as f64 / 1e6
        ));
        let park = Park { reel: Arc::new(reel), count: generator.count };
        server.serve(park, Arc::new(Outlets::default()), CancellationToken::new()).await;
        Ok(())
    })
}

/// The pictures that all cameras show, and the clock they show them by.
struct Reel {
    frames: Vec<Arc<PacketisedFrame>>,
    interval: Duration,
    fps: u32,
    began: Instant,
    began_unix: Duration,
}

impl Reel {
    /// Encodes them; their real bit rate comes with them.
    fn record(generator: Generator) -> anyhow::Result<(Self, u64)> {
        let Generator { bitrate, fps, group, size: (width, height), .. } = generator;
        let settings = ReelSettings { width, height, fps, pictures: group, bitrate };
        let reel = record(settings).context("the pictures could not be encoded")?;
        let frame = |unit: media::h264::AccessUnit| {
            Arc::new(packetise(&Frame {
                forwarded: None,
                codec: Codec::H264,
                ticks: 0,
                captured: NtpTime(0),
                keyframe: unit.keyframe,
                discontinuity: false,
                units: unit.units,
            }))
        };
        let frames: Vec<_> = reel.units.into_iter().map(frame).collect();
        ensure!(!frames.is_empty(), "the encoder made no pictures");
        let began_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let interval = Duration::from_secs(1) / fps.max(1);
        let reel_of_all = Self { frames, interval, fps, began: Instant::now(), began_unix };
        Ok((reel_of_all, reel.bitrate))
    }

    /// When a camera with this lag shows picture `number`.
    fn due(&self, number: u64, lag: Duration) -> Duration {
        let second = number / u64::from(self.fps);
        let within = u32::try_from(number % u64::from(self.fps)).unwrap_or(0);
        Duration::from_secs(second) + self.interval * within + lag
    }
}

/// All cameras.
#[derive(Clone)]
struct Park {
    reel: Arc<Reel>,
    count: usize,
}

impl Library for Park {
    // A server under load reads all of them from one address.
    const LIMITS: Limits = Limits {
        all: CONNECTIONS_MAX,
        an_address: CONNECTIONS_MAX,
        strangers: CONNECTIONS_MAX,
        strangers_an_address: CONNECTIONS_MAX,
        crowd: Crowd::Refused,
    };

    type Described = usize;
    type Playing = Camera;

    async fn admit(&self, ask: Ask<'_>) -> Result<usize, Refusal> {
        let number = ask.name().strip_prefix("cam-").and_then(|number| number.parse().ok());
        let number = number.filter(|number: &usize| *number < self.count);
        number.ok_or_else(|| {
            Refusal::not_found(format!("cameras are cam-000 to cam-{:03}", self.count - 1))
        })
    }

    async fn describe(&self, number: &mut usize) -> Result<Description, Refusal> {
        let track = TrackFormat::of_keyframe(&self.reel.frames[0]);
        Ok(Description { title: format!("cam-{number:03}"), tracks: vec![track] })
    }

    async fn play(&self, number: usize) -> Result<Camera, Refusal> {
        Ok(Camera::new(Arc::clone(&self.reel), number, Instant::now()))
    }
}

/// One camera for one reader.
struct Camera {
    reel: Arc<Reel>,
    /// How many pictures it is ahead of the others, so that keyframes are spread.
    ahead: u64,
    /// How much later than the others it shows a picture.
    lag: Duration,
    next: u64,
}

impl Camera {
    fn new(reel: Arc<Reel>, number: usize, now: Instant) -> Self {
        // Multiples of the golden section: any number of cameras is spread evenly.
        let phase = (number % PHASES_MAX) as f64 * 0.618_033_988_75 % 1.0;
        let pictures = phase * reel.frames.len() as f64;
        let lag = reel.interval.mul_f64(pictures.fract());
        let passed = now.saturating_duration_since(reel.began);
        let next = (passed.as_secs_f64() * f64::from(reel.fps)) as u64 + 1;
        Self { reel, ahead: pictures as u64, lag, next }
    }

    /// Leaves out what is too late, up to the next keyframe.
    fn catch_up(&mut self, now: Instant) {
        let due = self.reel.began + self.reel.due(self.next, self.lag);
        if now.saturating_duration_since(due) > LATE_MAX {
            let passed = now.saturating_duration_since(self.reel.began);
            let number = (passed.as_secs_f64() * f64::from(self.reel.fps)) as u64 + 1;
            let length = self.reel.frames.len() as u64;
            self.next = (number + self.ahead).next_multiple_of(length) - self.ahead;
        }
    }
}

impl Playing for Camera {
    async fn next(&mut self) -> Option<Played> {
        self.catch_up(Instant::now());
        let due = self.reel.due(self.next, self.lag);
        tokio::time::sleep_until((self.reel.began + due).into()).await;
        let length = self.reel.frames.len() as u64;
        let place = usize::try_from((self.next + self.ahead) % length).unwrap_or(0);
        let micros = u64::try_from((self.reel.began_unix + due).as_micros()).unwrap_or(u64::MAX);
        let ticks = self.next * u64::from(Codec::H264.clock_rate()) / u64::from(self.reel.fps);
        self.next += 1;
        let frame = Arc::clone(self.reel.frames.get(place)?);
        Some(Played::At { frame, ticks, captured: NtpTime::from_unix_micros(micros) })
    }

    fn alive(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reel() -> Arc<Reel> {
        let settings = Generator {
            count: 1,
            bitrate: 300_000,
            fps: 25,
            group: 10,
            size: (192, 112),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        Arc::new(Reel::record(settings).unwrap().0)
    }

    #[test]
    fn cameras_are_spread_over_the_group_and_between_pictures() {
        let reel = reel();
        let cameras: Vec<Camera> =
            (0..100).map(|number| Camera::new(Arc::clone(&reel), number, reel.began)).collect();
        for place in 0..10 {
            let there = cameras.iter().filter(|camera| camera.ahead == place).count();
            assert!((9..=11).contains(&there), "{there} of 100 begin at picture {place}");
        }
        assert!(cameras.iter().all(|camera| camera.lag < reel.interval));
    }

    #[test]
    fn a_late_camera_goes_on_with_a_keyframe() {
        let reel = reel();
        let mut camera = Camera::new(Arc::clone(&reel), 3, reel.began);
        let now = reel.began + Duration::from_secs(5);
        camera.catch_up(now);
        assert_eq!((camera.next + camera.ahead) % 10, 0);
        let due = reel.began + reel.due(camera.next, camera.lag);
        assert!(due + LATE_MAX > now && due < now + LATE_MAX);
    }
}

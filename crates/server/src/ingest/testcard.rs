//! The synthetic camera (`test://`): a test card with clock, sound and a machine-readable strip,
//! encoded in this process. It needs no camera, and it shows how late a picture is.
//!
//! Each attempt has a thread of its own, since encoding must not hold up the runtime. The thread
//! ends as soon as the attempt's future is dropped.

mod canvas;
mod card;
mod encoder;
mod font;
mod pace;
mod reel;
pub(crate) mod strip;
mod tone;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Instant, SystemTime};

use engine::SourceFailure;
use media::{Codec, Frame, NtpTime};
use tokio::sync::{Notify, oneshot};

use self::card::Card;
use self::encoder::{EncodeError, VideoEncoder};
use self::pace::{Clock, Group, Moment, Pacer};
pub(crate) use self::reel::{ReelSettings, record};
use self::tone::Tone;

use super::opus::OpusError;
use super::{Output, SourceFormat};

/// Widths that can be asked for, in pixels. Below, the strip's cells would not survive encoding;
/// above, openh264 refuses.
pub(crate) const WIDTHS: std::ops::RangeInclusive<u32> = 192..=3840;
/// Heights that can be asked for, in pixels.
pub(crate) const HEIGHTS: std::ops::RangeInclusive<u32> = 108..=2160;
/// Pictures a second that can be asked for.
pub(crate) const FRAME_RATES: std::ops::RangeInclusive<u32> = 1..=60;
/// Lengths of a group of pictures that can be asked for.
pub(crate) const GROUP_LENGTHS: std::ops::RangeInclusive<u32> = 1..=600;

/// What a synthetic camera is to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestCard {
    /// `clock`, `bars`, `ball` or `grid`; also the name that is written on it. Another name looks
    /// like `clock`.
    pub(crate) pattern: String,
    /// Width in pixels, brought into [`WIDTHS`] and made even.
    pub(crate) width: u32,
    /// Height in pixels, brought into [`HEIGHTS`] and made even.
    pub(crate) height: u32,
    /// Pictures a second, brought into [`FRAME_RATES`].
    pub(crate) fps: u32,
    /// Pictures from keyframe to keyframe, brought into [`GROUP_LENGTHS`].
    pub(crate) gop: u32,
}

/// Feeds `output` until the encoder fails, which it does not in practice. Dropping the future ends
/// the camera's thread. `keyframe_wanted` brings a keyframe, at most one a second.
pub(crate) async fn pull(
    card: TestCard,
    output: Arc<dyn Output>,
    keyframe_wanted: Arc<Notify>,
) -> SourceFailure {
    // One request waiting is as good as many.
    let (requests, receiver) = sync_channel(1);
    let (ended, mut end) = oneshot::channel();
    let spawned = thread::Builder::new().name("testcard".to_owned()).spawn(move || {
        let result = Camera::new(&card).and_then(|mut camera| camera.run(&*output, &receiver));
        // Nobody waits for the end when the attempt was given up.
        let _ = ended.send(result);
    });
    if let Err(error) = spawned {
        return lost(&format!("no thread for the synthetic camera: {error}"));
    }
    loop {
        tokio::select! {
            result = &mut end => return match result {
                Ok(Err(fault)) => lost(&fault.to_string()),
                Ok(Ok(())) | Err(_) => lost("the synthetic camera stopped"),
            },
            () = keyframe_wanted.notified() => {
                // Full means that one is on its way; closed shows itself at `end`.
                let _ = requests.try_send(());
            }
        }
    }
}

fn lost(detail: &str) -> SourceFailure {
    SourceFailure::Lost { detail: detail.to_owned() }
}

/// Why a synthetic camera ends by itself.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Picture(#[from] EncodeError),
    #[error(transparent)]
    Sound(#[from] OpusError),
}

/// A running synthetic camera.
struct Camera {
    card: Card,
    encoder: VideoEncoder,
    tone: Tone,
    fps: u32,
    clock: Clock,
    video: Pacer,
    audio: Pacer,
    group: Group,
    /// Number of the next picture, from 0.
    number: u32,
    /// A picture was handed over, so the source was declared live.
    live: bool,
    /// A packet of sound was handed over.
    heard: bool,
}

impl Camera {
    fn new(settings: &TestCard) -> Result<Self, Fault> {
        let within = |value: u32, range: std::ops::RangeInclusive<u32>| {
            value.clamp(*range.start(), *range.end())
        };
        let width = within(settings.width, WIDTHS) as usize & !1;
        // The strip takes a 24th of the width, and must leave room for a picture.
        let height =
            within(settings.height, HEIGHTS).max(settings.width.min(3840) / 8) as usize & !1;
        let fps = within(settings.fps, FRAME_RATES);
        let start = Instant::now();
        Ok(Self {
            card: Card::new(&settings.pattern, width, height),
            encoder: VideoEncoder::new(fps)?,
            tone: Tone::new()?,
            fps,
            clock: Clock::new(start, SystemTime::now()),
            video: Pacer::new(start, fps),
            audio: Pacer::new(start, tone::FRAME_RATE),
            group: Group::new(within(settings.gop, GROUP_LENGTHS)),
            number: 0,
            live: false,
            heard: false,
        })
    }

    /// Runs until the other end of `requests` is dropped.
    fn run(&mut self, output: &dyn Output, requests: &Receiver<()>) -> Result<(), Fault> {
        loop {
            let deadline = self.video.deadline().min(self.audio.deadline());
            match requests.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(()) => self.group.want_keyframe(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            let now = Instant::now();
            self.clock.follow(now, SystemTime::now());
            if let Some(moment) = self.video.take(now) {
                self.send_picture(output, moment)?;
            }
            if let Some(moment) = self.audio.take(now) {
                self.send_sound(output, moment)?;
            }
        }
    }

    fn send_picture(&mut self, output: &dyn Output, moment: Moment) -> Result<(), Fault> {
        let unix_micros = self.clock.unix_micros(moment.at);
        let picture = self.card.draw(self.number, unix_micros / 1000);
        self.number = self.number.wrapping_add(1);
        let kind = self.group.next(moment.at);
        let Some(unit) = self.encoder.encode(picture, kind)? else { return Ok(()) };
        if !self.live
            && let Some(video) = self.encoder.format()
        {
            output.live(SourceFormat {
                codec: Codec::H264,
                width: video.width,
                height: video.height,
                audio: Some(Codec::Opus),
            });
        }
        output.frame(Frame {
            forwarded: None,
            codec: Codec::H264,
            ticks: moment.index * u64::from(Codec::H264.clock_rate()) / u64::from(self.fps),
            captured: NtpTime::from_unix_micros(unix_micros),
            keyframe: unit.keyframe,
            discontinuity: !self.live,
            units: unit.units,
        });
        self.live = true;
        Ok(())
    }

    fn send_sound(&mut self, output: &dyn Output, moment: Moment) -> Result<(), Fault> {
        let unix_micros = self.clock.unix_micros(moment.at);
        let packet = self.tone.encode(unix_micros)?;
        output.frame(Frame {
            forwarded: None,
            codec: Codec::Opus,
            ticks: moment.index * u64::from(tone::FRAME_SAMPLES),
            captured: NtpTime::from_unix_micros(unix_micros),
            keyframe: true,
            discontinuity: !self.heard,
            units: vec![packet],
        });
        self.heard = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    /// Long enough for a loaded machine; reached only when a test fails.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_camera_comes_live_and_sends_picture_and_sound() {
        let output = Arc::new(Collector::default());
        let attempt = start(&output, &Arc::new(Notify::new()), 15);

        until(|| output.count(Codec::H264) >= 20 && output.count(Codec::Opus) >= 50).await;
        attempt.abort();

        let live = output.live.lock().unwrap().clone();
        assert_eq!(live.len(), 1);
        assert_eq!((live[0].width, live[0].height), (320, 180));
        let frames = output.frames.lock().unwrap();
        for (codec, step) in [(Codec::H264, 6_000), (Codec::Opus, 960)] {
            let track: Vec<_> = frames.iter().filter(|frame| frame.codec == codec).collect();
            assert!(track[0].keyframe && track[0].discontinuity);
            assert!(track[1..].iter().all(|frame| !frame.discontinuity));
            for pair in track.windows(2) {
                let (ticks, micros) = (
                    pair[1].ticks - pair[0].ticks,
                    pair[1].captured.unix_micros() - pair[0].captured.unix_micros(),
                );
                assert!(ticks > 0 && ticks % step == 0, "{codec:?}: {ticks} ticks");
                let as_micros = ticks * 1_000_000 / u64::from(codec.clock_rate());
                assert!(as_micros.abs_diff(micros) < 50, "{codec:?}: {as_micros} and {micros}");
            }
        }
        let keyframes: Vec<_> = frames
            .iter()
            .filter(|frame| frame.codec == Codec::H264)
            .enumerate()
            .filter(|(_, frame)| frame.keyframe)
            .map(|(index, _)| index)
            .collect();
        assert_eq!(keyframes[..2], [0, 15]);
    }

    #[tokio::test]
    async fn a_request_brings_a_keyframe() {
        let (output, wanted) = (Arc::new(Collector::default()), Arc::new(Notify::new()));
        let attempt = start(&output, &wanted, 600);
        until(|| output.keyframes() == 1).await;
        wanted.notify_one();
        until(|| output.keyframes() == 2).await;
        attempt.abort();
    }

    #[tokio::test]
    async fn dropping_the_attempt_ends_the_thread() {
        let output = Arc::new(Collector::default());
        let attempt = start(&output, &Arc::new(Notify::new()), 15);
        until(|| output.count(Codec::H264) > 0).await;
        attempt.abort();
        until(|| Arc::strong_count(&output) == 1).await;
    }

    #[test]
    fn absurd_settings_are_brought_into_range() {
        for value in [0, 1, u32::MAX] {
            let card = TestCard {
                pattern: String::new(),
                width: value,
                height: value,
                fps: value,
                gop: value,
            };
            assert!(Camera::new(&card).is_ok(), "{value}");
        }
    }

    #[derive(Default)]
    struct Collector {
        frames: Mutex<Vec<Frame>>,
        live: Mutex<Vec<SourceFormat>>,
    }

    impl Collector {
        fn count(&self, codec: Codec) -> usize {
            self.frames.lock().unwrap().iter().filter(|frame| frame.codec == codec).count()
        }

        fn keyframes(&self) -> usize {
            let frames = self.frames.lock().unwrap();
            frames.iter().filter(|frame| frame.codec == Codec::H264 && frame.keyframe).count()
        }
    }

    impl Output for Collector {
        fn frame(&self, frame: Frame) {
            assert_eq!(self.live.lock().unwrap().len(), 1, "a frame came before `live`");
            self.frames.lock().unwrap().push(frame);
        }

        fn live(&self, format: SourceFormat) {
            self.live.lock().unwrap().push(format);
        }

        fn lost(&self, packets: u64) {
            panic!("a synthetic camera lost {packets} packets");
        }
    }

    fn start(
        output: &Arc<Collector>,
        wanted: &Arc<Notify>,
        gop: u32,
    ) -> tokio::task::JoinHandle<SourceFailure> {
        let card = TestCard { pattern: "ball".to_owned(), width: 320, height: 180, fps: 15, gop };
        tokio::spawn(pull(card, Arc::clone(output) as Arc<dyn Output>, Arc::clone(wanted)))
    }

    async fn until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "it did not happen in {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

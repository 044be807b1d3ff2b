//! The puller against a real RTSP server: `e2e/cameras/rtsp_camera.py`.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use media::h265::NalType;
use media::{Codec, Frame, MediaKind};
use openh264::decoder::Decoder as VideoDecoder;
use openh264::formats::YUVSource;
use tokio::task::JoinHandle;

use super::*;
use crate::ingest::opus::tests::{Decoder as OpusDecoder, power};
use crate::ingest::testcard::strip;
use crate::ingest::{SourceFormat, SourceUrl};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../e2e/cameras/rtsp_camera.py");

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_arrives_and_its_clock_can_be_read() {
    let camera = Camera::start(&[]);
    let pull = Pull::start(&camera.address("/h264"));

    pull.wait(|seen| seen.pictures().len() >= 40).await;
    let seen = pull.seen();
    let format = seen.formats[0];
    assert_eq!((format.width, format.height, seen.formats[0].audio), (640, 360, None));
    assert_eq!(seen.formats.len(), 1);
    assert!(seen.frames[0].keyframe && seen.frames[0].discontinuity);
    assert!(seen.frames[1..].iter().all(|frame| !frame.discontinuity));
    assert!(seen.frames.iter().filter(|frame| frame.keyframe).count() >= 2);

    let readings = read_strips(&seen.frames);
    assert_eq!(readings.len(), seen.frames.len());
    for pair in readings.windows(2) {
        assert!(pair[1].0.frame > pair[0].0.frame);
    }
    // Two seconds are enough to correct what the first keyframe was late by.
    for (reading, frame) in &readings[30..] {
        let captured = frame.captured.unix_micros() / 1_000;
        let off = captured.abs_diff(reading.unix_ms);
        assert!(off < 150, "frame {}: {off} ms between strip and `captured`", reading.frame);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aac_is_heard_as_opus() {
    for (path, channels) in [("/h264aac", 1), ("/h264aac44", 2)] {
        let camera = Camera::start(&[]);
        let pull = Pull::start(&camera.address(path));

        pull.wait(|seen| seen.sounds().len() >= 150).await;
        let seen = pull.seen();
        assert_eq!(seen.formats[0].audio, Some(Codec::Opus));
        let sounds = seen.sounds();
        assert!(sounds[0].discontinuity);
        let mut decoder = OpusDecoder::new(48_000, channels);
        let mut heard = Vec::new();
        for (index, frame) in sounds.iter().enumerate() {
            if index > 0 {
                assert_eq!(frame.ticks - sounds[index - 1].ticks, 960, "packet {index}");
                assert!(frame.captured > sounds[index - 1].captured);
            }
            let decoded = decoder.decode(&frame.units[0], 960 * usize::from(channels));
            heard.extend(decoded.into_iter().step_by(usize::from(channels)));
        }
        let settled = &heard[48_000..];
        let (tone, beside) = (power(settled, 440.0, 48_000), power(settled, 1310.0, 48_000));
        assert!(tone > 1000.0 * beside, "{path}: {tone} at 440 Hz, {beside} beside");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn picture_and_sound_lie_on_one_clock() {
    let camera = Camera::start(&[]);
    let pull = Pull::start(&camera.address("/h264aac"));

    // GStreamer reports every five seconds; then both tracks have been reported and have settled.
    pull.wait(|seen| seen.sounds().len() >= 600).await;
    let seen = pull.seen();
    let newest = |frames: Vec<&Frame>| frames[frames.len() - 1].captured.unix_micros();
    let (picture, sound) = (newest(seen.pictures()), newest(seen.sounds()));
    let apart = picture.abs_diff(sound);
    assert!(apart < 150_000, "newest picture and newest sound are {apart} us apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn g711_is_passed_through() {
    for (path, codec) in [("/h264pcmu", Codec::Pcmu), ("/h264pcma", Codec::Pcma)] {
        let camera = Camera::start(&[]);
        let pull = Pull::start(&camera.address(path));

        pull.wait(|seen| seen.sounds().len() >= 20).await;
        let seen = pull.seen();
        assert_eq!(seen.formats[0].audio, Some(codec));
        for pair in seen.sounds().windows(2) {
            let samples = pair[0].units[0].len() as u64;
            assert_eq!(pair[1].ticks - pair[0].ticks, samples, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_password_opens_basic_and_digest() {
    for auth in ["basic", "digest"] {
        let camera = Camera::start(&["--auth", auth, "--user", "viewer", "--password", "s3 c/r@t"]);
        let pull = Pull::start(&camera.address_as("viewer", "s3%20c%2Fr%40t", "/h264"));
        pull.wait(|seen| !seen.frames.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_not_repeated() {
    for auth in ["basic", "digest"] {
        let camera = Camera::start(&["--auth", auth, "--password", "right"]);
        for address in [camera.address("/h264"), camera.address_as("admin", "canary-77", "/h264")] {
            let failure = Pull::start(&address).failure().await;
            assert_eq!(failure, SourceFailure::Unauthorized, "{auth}");
            assert!(!format!("{failure} {failure:?}").contains("canary-77"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_path_is_named() {
    let camera = Camera::start(&["--auth", "basic", "--password", "canary-77"]);
    let path = "/nowhere?token=canary-77";
    let failure = Pull::start(&camera.address_as("admin", "canary-77", path)).failure().await;
    assert_eq!(failure, SourceFailure::NotFound { path: "/nowhere?token=***".to_owned() });
}

#[tokio::test(flavor = "multi_thread")]
async fn h265_arrives_with_its_parameter_sets() {
    let camera = Camera::start(&[]);
    let pull = Pull::start(&camera.address("/h265"));

    pull.wait(|seen| seen.pictures().len() >= 40).await;
    let seen = pull.seen();
    let expected = SourceFormat { codec: Codec::H265, width: 640, height: 360, audio: None };
    assert_eq!(seen.formats, [expected]);
    let keyframes: Vec<_> = seen.frames.iter().filter(|frame| frame.keyframe).collect();
    assert!(seen.frames[0].keyframe && keyframes.len() >= 2);
    for frame in keyframes {
        let kinds = frame.units.iter().filter_map(|nal| NalType::of(nal));
        let sets = [NalType::Vps, NalType::Sps, NalType::Pps];
        assert_eq!(kinds.take(3).collect::<Vec<_>>(), sets);
    }
    assert!(seen.frames.iter().all(|frame| frame.codec == Codec::H265));
}

#[tokio::test(flavor = "multi_thread")]
async fn vp8_and_vp9_come_as_they_were_cut() {
    let camera = Camera::start(&[]);
    for (path, codec) in [("/vp8", Codec::Vp8), ("/vp9", Codec::Vp9)] {
        let pull = Pull::start(&camera.address(path));

        pull.wait(|seen| seen.pictures().len() >= 40).await;
        let seen = pull.seen();
        let expected = SourceFormat { codec, width: 640, height: 360, audio: None };
        assert_eq!(seen.formats, [expected]);
        assert!(seen.frames.iter().all(|frame| frame.codec == codec && !frame.units.is_empty()));
        let steps: Vec<_> = seen.frames.windows(2).map(|two| two[1].ticks - two[0].ticks).collect();
        assert!(steps.iter().all(|step| (1..30_000).contains(step)), "{steps:?}");
        assert!(seen.frames.iter().filter(|frame| frame.keyframe).count() >= 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opus_is_passed_through() {
    let camera = Camera::start(&[]);
    let pull = Pull::start(&camera.address("/h264opus"));

    pull.wait(|seen| seen.sounds().len() >= 100 && seen.pictures().len() >= 15).await;
    let seen = pull.seen();
    let expected =
        SourceFormat { codec: Codec::H264, width: 640, height: 360, audio: Some(Codec::Opus) };
    assert_eq!(seen.formats, [expected]);
    let mut decoder = OpusDecoder::new(48_000, 1);
    let decode = |frame: &&Frame| decoder.decode(&frame.units[0], 960);
    let heard: Vec<i16> = seen.sounds().iter().flat_map(decode).collect();
    let settled = &heard[48_000..];
    let (tone, beside) = (power(settled, 440.0, 48_000), power(settled, 1310.0, 48_000));
    assert!(tone > 1000.0 * beside, "{tone} at 440 Hz, {beside} beside");
    let pictures: Vec<Frame> = seen.pictures().into_iter().cloned().collect();
    assert_eq!(read_strips(&pictures).len(), pictures.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn b_frames_are_refused() {
    let camera = Camera::start(&[]);
    for path in ["/h264hi", "/h265hi"] {
        let failure = Pull::start(&camera.address(path)).failure().await;
        assert_eq!(failure, SourceFailure::BFrames, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_codecs_are_named() {
    let camera = Camera::start(&[]);
    let failure = Pull::start(&camera.address("/mjpeg")).failure().await;
    assert_eq!(failure, SourceFailure::UnsupportedCodec { codec: "MJPEG".to_owned() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_keyframe_is_told() {
    let camera = Camera::start(&[]);
    let limits = Limits { first_keyframe: Duration::from_secs(2), ..Limits::default() };
    let pull = Pull::start_within(&camera.address("/nokeyframe"), RtspTransport::Tcp, limits);
    assert_eq!(pull.failure().await, SourceFailure::NoKeyframe { waited_s: 2 });
}

#[tokio::test(flavor = "multi_thread")]
async fn udp_brings_picture_and_sound() {
    let camera = Camera::start(&[]);
    let address = camera.address("/h264pcmu");
    let pull = Pull::start_within(&address, RtspTransport::Udp, Limits::default());
    pull.wait(|seen| seen.pictures().len() >= 15 && seen.sounds().len() >= 15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_dies_is_lost() {
    let mut camera = Camera::start(&[]);
    let pull = Pull::start(&camera.address("/h264"));
    pull.wait(|seen| !seen.frames.is_empty()).await;
    camera.kill();

    let failure = pull.failure().await;
    assert!(matches!(failure, SourceFailure::Lost { .. }), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_stops_is_lost_though_sound_goes_on() {
    let camera = Camera::start(&["--stall-after", "1"]);
    let limits = Limits { silence: Duration::from_secs(2), ..Limits::default() };
    let pull = Pull::start_within(&camera.address("/h264pcmu"), RtspTransport::Tcp, limits);

    let failure = pull.failure().await;
    assert_eq!(failure, SourceFailure::Lost { detail: "no picture came for 2 s".to_owned() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_unreachable() {
    // Bound and dropped, so nobody listens there.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let address = listener.local_addr().expect("is bound").to_string();
    drop(listener);

    let failure = Pull::start(&format!("rtsp://admin:canary-77@{address}/x")).failure().await;
    assert!(!format!("{failure} {failure:?}").contains("canary-77"));
    let SourceFailure::Unreachable { address: named, detail } = failure else {
        panic!("{failure:?}");
    };
    assert_eq!(named, address);
    assert!(detail.contains("refused"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_never_answers_is_unreachable() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let address = listener.local_addr().expect("is bound").to_string();
    let limits = Limits { answer: Duration::from_secs(1), ..Limits::default() };

    let url = format!("rtsp://{address}/x");
    let failure = Pull::start_within(&url, RtspTransport::Tcp, limits).failure().await;
    let detail = "no answer in 1 s".to_owned();
    assert_eq!(failure, SourceFailure::Unreachable { address, detail });
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_tears_the_session_down() {
    let camera = Camera::start(&[]);
    let pull = Pull::start(&camera.address("/small"));
    pull.wait(|seen| !seen.frames.is_empty()).await;
    let format = pull.seen().formats[0];
    assert_eq!((format.width, format.height), (320, 180));
    camera.expect_line("play /small");

    drop(pull);
    camera.expect_line("teardown /small");
}

/// A camera process; it ends with this value.
struct Camera {
    child: Child,
    /// `rtsp://127.0.0.1:port`
    base: String,
    lines: Receiver<String>,
}

impl Camera {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new("/usr/bin/python3")
            .args([SCRIPT, "0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is no /usr/bin/python3; run: cargo xtask setup");
        let output = child.stdout.take().expect("its output is piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut camera = Self { child, base: String::new(), lines };
        let ready = camera.next_line().expect("the camera does not start; run: cargo xtask setup");
        camera.base = ready.split(' ').nth(1).expect("is `ready <address> ...`").to_owned();
        camera
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn address_as(&self, user: &str, password: &str, path: &str) -> String {
        self.address(path).replace("rtsp://", &format!("rtsp://{user}:{password}@"))
    }

    fn next_line(&self) -> Result<String, RecvTimeoutError> {
        self.lines.recv_timeout(PATIENCE)
    }

    /// Waits for a line, passing over others.
    fn expect_line(&self, expected: &str) {
        while self.next_line().unwrap_or_else(|_| panic!("{expected:?} was not printed"))
            != expected
        {}
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A running pull and what it brought; it ends with this value.
struct Pull {
    task: JoinHandle<SourceFailure>,
    output: Arc<Recorder>,
}

impl Pull {
    fn start(address: &str) -> Self {
        Self::start_within(address, RtspTransport::Tcp, Limits::default())
    }

    fn start_within(address: &str, transport: RtspTransport, limits: Limits) -> Self {
        let source = SourceUrl::parse(address).expect("is an address");
        let output = Arc::new(Recorder::default());
        let recorder = Arc::clone(&output);
        let task = tokio::spawn(async move {
            let SourceUrl::Rtsp { url, username, password } = &source else {
                panic!("{source:?} is not RTSP");
            };
            let (username, password) = (username.as_deref(), password.as_ref());
            pull(&Address { url, username, password }, transport, recorder, limits).await
        });
        Self { task, output }
    }

    fn seen(&self) -> Seen {
        self.output.seen.lock().expect("nobody panics with it").clone()
    }

    /// Waits until enough was seen; says why if the pull ends before.
    async fn wait(&self, enough: impl Fn(&Seen) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !enough(&self.output.lock()) {
            assert!(!self.task.is_finished(), "the pull has ended: {:?}", self.seen());
            assert!(Instant::now() < deadline, "too little came: {:?}", self.seen());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn failure(mut self) -> SourceFailure {
        let ended = timeout(PATIENCE, &mut self.task).await;
        ended.expect("the pull does not end").expect("the pull does not panic")
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Recorder {
    seen: Mutex<Seen>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    frames: Vec<Frame>,
    formats: Vec<SourceFormat>,
    lost: u64,
}

impl Seen {
    fn pictures(&self) -> Vec<&Frame> {
        self.of(MediaKind::Video)
    }

    fn sounds(&self) -> Vec<&Frame> {
        self.of(MediaKind::Audio)
    }

    fn of(&self, kind: MediaKind) -> Vec<&Frame> {
        self.frames.iter().filter(|frame| frame.codec.kind() == kind).collect()
    }
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics with it")
    }
}

impl Output for Recorder {
    fn frame(&self, frame: Frame) {
        let mut seen = self.lock();
        assert!(!seen.formats.is_empty(), "a frame came before the source was live");
        seen.frames.push(frame);
    }

    fn live(&self, format: SourceFormat) {
        self.lock().formats.push(format);
    }

    fn lost(&self, packets: u64) {
        self.lock().lost += packets;
    }
}

/// Decodes the pictures and reads their strips.
fn read_strips(frames: &[Frame]) -> Vec<(strip::Reading, &Frame)> {
    let mut decoder = VideoDecoder::new().expect("openh264 starts");
    let mut readings = Vec::new();
    for frame in frames {
        let stream: Vec<u8> =
            frame.units.iter().flat_map(|unit| [&[0, 0, 0, 1], &unit[..]].concat()).collect();
        let picture = decoder.decode(&stream).expect("can be decoded").expect("has no delay");
        let (width, stride) = (picture.dimensions().0, picture.strides().0);
        let reading = strip::read(picture.y(), stride, width).expect("has a strip");
        readings.push((reading, frame));
    }
    readings
}

//! Each camera: called for a moment as the server would call it, and looked at for what viewers will
//! meet: its codec, how long they wait for a keyframe, B-frames, sound.
//!
//! Cameras of the settings are called from here, which opens one more session at each; what others the
//! server has is told as the server knows it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::SourceFailure;
use futures::StreamExt;
use media::{Frame, MediaKind};
use serde_json::Value;
use tokio::sync::Notify;

use super::{Finding, Progress, RunningServer};
use crate::config::{Camera, Config};
use crate::ingest::{self, Output, Reach, RtspTransport, SourceFormat, SourceUrl};
use crate::remote::Ask;
use crate::why::camera_remedy;

const PART: &str = "camera";

/// Cameras that are called at once: each is a decoder's worth of traffic on the way to here.
const AT_ONCE: usize = 8;

/// How long a camera that sends is listened to for its second keyframe.
const LISTEN_TIME_MAX: Duration = Duration::from_secs(12);

/// The longest interval between keyframes with which a viewer's picture comes soon after a loss.
const INTERVAL_GOOD: Duration = Duration::from_millis(4_500);

/// Which cameras are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CameraChoice {
    All,
    None,
    /// By its id.
    One(String),
}

impl CameraChoice {
    fn takes(&self, id: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::One(one) => one == id,
        }
    }
}

pub(super) async fn check(
    config: Option<&Config>,
    server: Option<&mut RunningServer>,
    choice: &CameraChoice,
    tell: &mut dyn FnMut(Progress),
) {
    let all = config.map(|config| &config.cameras[..]).unwrap_or_default();
    let chosen: Vec<&Camera> =
        all.iter().filter(|camera| choice.takes(camera.id.as_str())).collect();
    let calls: Vec<Call> = chosen.iter().flat_map(|camera| calls_of(camera)).collect();
    if !calls.is_empty() {
        tell(Progress::Begins(format!("{} camera streams, {AT_ONCE} at a time", calls.len())));
    }
    let mut findings = futures::stream::iter(calls).map(call).buffer_unordered(AT_ONCE);
    while let Some(found) = findings.next().await {
        found.into_iter().for_each(|found| tell(Progress::Found(found)));
    }
    if let Some(server) = server {
        let called = |id: &str| {
            chosen.iter().any(|camera| camera.id.as_str() == id && !is_published(&camera.url))
        };
        for found in told_by(server, choice, called).await {
            tell(Progress::Found(found));
        }
    }
}

/// One stream of a camera.
struct Call {
    name: String,
    source: SourceUrl,
    transport: RtspTransport,
}

fn calls_of(camera: &Camera) -> Vec<Call> {
    let call = |name: String, source: &SourceUrl| Call {
        name,
        source: source.clone(),
        transport: camera.transport,
    };
    let main = call(format!("camera {}", camera.id), &camera.url);
    let sub = camera.sub_url.as_ref().map(|url| call(format!("camera {} (sub)", camera.id), url));
    std::iter::once(main).chain(sub).filter(|call| !is_published(&call.source)).collect()
}

/// Nobody can be called: an encoder comes by itself, to the server.
fn is_published(source: &SourceUrl) -> bool {
    matches!(source, SourceUrl::Whip(_))
}

async fn call(call: Call) -> Vec<Finding> {
    let Call { name, source, transport } = call;
    let look = Arc::new(Look::default());
    let output: Arc<dyn Output> = look.clone();
    let pull = ingest::pull(&source, Reach::Anywhere, transport, output, Arc::new(Notify::new()));
    let begun = Instant::now();
    let failure = tokio::select! {
        failure = pull => Some(failure),
        () = look.done() => None,
    };
    let seen = look.seen();
    match (failure, seen.format) {
        // It ended after it was seen; that is worth saying, and what was seen too.
        (Some(failure), _) => vec![failed(&name, &failure)],
        (None, Some(format)) => judge(&name, format, &seen, begun.elapsed()),
        (None, None) => Vec::new(),
    }
}

fn failed(name: &str, failure: &SourceFailure) -> Finding {
    let remedy = camera_remedy(failure.state()).unwrap_or("look at the camera's own page");
    let sentence = failure.to_string();
    let rest = sentence.strip_prefix("the camera").map(ToOwned::to_owned);
    let sentence =
        rest.map_or_else(|| format!("{name}: {sentence}"), |rest| format!("{name}{rest}"));
    Finding::trouble(PART, sentence, remedy)
}

fn judge(name: &str, format: SourceFormat, seen: &Seen, took: Duration) -> Vec<Finding> {
    let SourceFormat { codec, width, height, audio } = format;
    let sound = audio.map_or("no sound", media::Codec::name);
    let picture = format!("{} {width}x{height}, {sound}", codec.name());
    let Some((frames, interval)) = seen.group else {
        let seconds = took.as_secs();
        return vec![Finding::note(
            PART,
            format!("{name} sends {picture}, and no second keyframe came in {seconds} s"),
            "set an I-frame interval of 1 to 4 s in the camera",
        )];
    };
    let sentence = format!(
        "{name} sends {picture}, no B-frames, a keyframe every {:.1} s ({frames} frames)",
        interval.as_secs_f64()
    );
    if interval > INTERVAL_GOOD {
        let remedy = "set an I-frame interval of 1 to 4 s in the camera: a viewer waits so long after a loss";
        return vec![Finding::note(PART, sentence, remedy)];
    }
    vec![Finding::fine(PART, sentence)]
}

/// What was seen of a camera.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    format: Option<SourceFormat>,
    /// When the group's keyframe was taken, in seconds of the camera's clock, and how many frames there are.
    current: Option<(f64, u32)>,
    /// Frames and time from one keyframe to the next.
    group: Option<(u32, Duration)>,
}

/// Looks at frames as they come.
#[derive(Debug, Default)]
struct Look {
    seen: Mutex<Seen>,
    changed: Notify,
}

impl Look {
    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once a whole group was seen, or it sends for long enough.
    async fn done(&self) {
        let mut deadline = None;
        loop {
            let changed = self.changed.notified();
            let seen = self.seen();
            if seen.group.is_some() {
                return;
            }
            if seen.format.is_some() {
                deadline.get_or_insert_with(|| tokio::time::Instant::now() + LISTEN_TIME_MAX);
            }
            match deadline {
                None => changed.await,
                Some(deadline) => {
                    if tokio::time::timeout_at(deadline, changed).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// `at` is in seconds of the camera's clock.
    fn note_picture(&self, is_keyframe: bool, at: f64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut seen.current, is_keyframe) {
            (Some((since, frames)), true) => {
                let interval = Duration::try_from_secs_f64(at - *since).unwrap_or_default();
                let group = (*frames, interval);
                seen.group.get_or_insert(group);
            }
            (Some((_, frames)), false) => *frames += 1,
            (None, true) => seen.current = Some((at, 1)),
            (None, false) => {}
        }
        drop(seen);
        self.changed.notify_one();
    }
}

impl Output for Look {
    fn frame(&self, frame: Frame) {
        if frame.codec.kind() == MediaKind::Video {
            let seconds = frame.ticks as f64 / f64::from(frame.codec.clock_rate());
            self.note_picture(frame.keyframe, seconds);
        }
    }

    fn live(&self, format: SourceFormat) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).format = Some(format);
        self.changed.notify_one();
    }

    /// The way from the camera is judged by the server, which listens for longer.
    fn lost(&self, _: u64) {}
}

/// What the server says of cameras that were not called from here.
async fn told_by(
    server: &mut RunningServer,
    choice: &CameraChoice,
    called: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let Ok(url) = server.base.join("/api/v1/cameras") else { return Vec::new() };
    let ask = Ask {
        method: hyper::Method::GET,
        url: &url,
        content_type: None,
        token: server.token.as_ref(),
        body: String::new(),
    };
    let json: Value = match server.http.ask(&ask).await {
        Ok(answer) => serde_json::from_str(&answer.body).unwrap_or_default(),
        Err(error) => {
            let sentence = format!("the server does not tell its cameras: {error}");
            return vec![Finding::note(PART, sentence, "give a token with --token")];
        }
    };
    let all = json["cameras"].as_array().cloned().unwrap_or_default();
    let told = all
        .iter()
        .filter(|camera| camera["id"].as_str().is_some_and(|id| choice.takes(id) && !called(id)));
    told.map(told_camera).collect()
}

fn told_camera(camera: &Value) -> Finding {
    let text = |key: &str| camera[key].as_str().unwrap_or_default();
    let (id, state) = (text("id"), text("state"));
    match camera["reason"].as_str() {
        Some(reason) => Finding::trouble(
            PART,
            format!("camera {id}, says the server: {reason}"),
            camera_remedy(state).unwrap_or("look at the camera's own page"),
        ),
        None => Finding::fine(PART, format!("camera {id} is {state}, says the server")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[tokio::test]
    async fn a_camera_that_works_is_told_with_its_group_of_pictures() {
        let source = SourceUrl::parse("test://?width=192&height=108&fps=30&gop=10").unwrap();
        let transport = RtspTransport::Tcp;
        let found = call(Call { name: "camera c".to_owned(), source, transport }).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].level, Level::Fine, "{found:?}");
        let sentence = &found[0].sentence;
        assert!(
            sentence.starts_with("camera c sends H264 192x108, opus, no B-frames"),
            "{sentence}"
        );
        assert!(sentence.ends_with("(10 frames)"), "{sentence}");
    }

    #[tokio::test]
    async fn a_camera_that_is_not_there_is_trouble_without_its_password() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let source = SourceUrl::parse(&format!("rtsp://u:canary@{address}/a")).unwrap();
        let transport = RtspTransport::Tcp;
        let found = call(Call { name: "camera c".to_owned(), source, transport }).await;
        assert_eq!(found[0].level, Level::Trouble);
        let wanted = format!("camera c at {address} cannot be reached");
        assert!(found[0].sentence.starts_with(&wanted), "{found:?}");
        assert!(!format!("{found:?}").contains("canary"));
        assert!(found[0].remedy.is_some());
    }

    #[test]
    fn a_group_is_counted_from_keyframe_to_keyframe() {
        let look = Look::default();
        look.note_picture(false, 0.0);
        look.note_picture(true, 0.5);
        look.note_picture(false, 1.0);
        assert_eq!(look.seen().group, None);
        look.note_picture(true, 1.5);
        assert_eq!(look.seen().group, Some((2, Duration::from_secs(1))));
    }
}

//! Each camera: called for a moment as the server would call it, and looked at for what viewers will
//! meet: its codec, how long they wait for a keyframe, B-frames, sound.
//!
//! Cameras of the settings are called from here, which opens one more session at each; the server calls those
//! that it alone has (`park`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::SourceFailure;
use futures::StreamExt;
use media::Frame;
use tokio::sync::Notify;

use super::park::Park;
use super::{Finding, Progress, RunningServer};
use crate::config::{Camera, Config};
use crate::ingest::{
    self, Group, GroupMeter, Output, Reach, RtspTransport, SourceFormat, SourceUrl,
};
use crate::why::camera_remedy;

const PART: &str = "camera";

/// Cameras that are called at once: each is a decoder's worth of traffic on the way to here.
const AT_ONCE: usize = 8;

/// How long a camera that sends is listened to for its second keyframe.
pub(super) const LISTEN_TIME_MAX: Duration = Duration::from_secs(12);

/// The longest interval between keyframes with which a viewer's picture comes soon after a loss.
const INTERVAL_GOOD: Duration = Duration::from_millis(4_500);

/// What is done about keyframes that come too seldom.
pub(super) const INTERVAL_REMEDY: &str = "set an I-frame interval of 1 to 4 s in the camera";

/// Which cameras are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CameraChoice {
    All,
    None,
    /// By its id.
    One(String),
}

impl CameraChoice {
    pub(super) fn takes(&self, id: &str) -> bool {
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
    if *choice == CameraChoice::None {
        return;
    }
    let mut park = None;
    let server = match server {
        None => None,
        Some(server) => match Park::of(server).await {
            Ok(told) => {
                park = Some(told);
                Some(&*server)
            }
            Err(found) => {
                tell(Progress::Found(found));
                None
            }
        },
    };
    let all = config.map(|config| &config.cameras[..]).unwrap_or_default();
    let is_here = |id: &str| park.as_ref().is_none_or(|park| !park.has_changed(id));
    let chosen: Vec<&Camera> = all
        .iter()
        .filter(|camera| choice.takes(camera.id.as_str()) && is_here(camera.id.as_str()))
        .collect();
    let calls: Vec<Call> = chosen.iter().flat_map(|camera| calls_of(camera)).collect();
    if !calls.is_empty() {
        tell(Progress::Begins(format!("{} camera streams, {AT_ONCE} at a time", calls.len())));
    }
    let mut findings = futures::stream::iter(calls).map(call).buffer_unordered(AT_ONCE);
    while let Some(found) = findings.next().await {
        found.into_iter().for_each(|found| tell(Progress::Found(found)));
    }
    let called = |id: &str| {
        chosen.iter().any(|camera| camera.id.as_str() == id && !is_published(&camera.url))
    };
    if let (Some(server), Some(park)) = (server, &park) {
        tell(Progress::Begins("cameras that the server calls itself".to_owned()));
        let told = park.told(server, choice, called).await;
        told.into_iter().for_each(|found| tell(Progress::Found(found)));
    }
    if let CameraChoice::One(id) = choice
        && !called(id)
        && park.as_ref().is_none_or(|park| !park.has(id))
    {
        let sentence =
            format!("there is no camera {id}, neither in the settings nor at the server");
        let remedy = "`manifold top --once` lists the server's cameras";
        tell(Progress::Found(Finding::trouble(PART, sentence, remedy)));
    }
}

/// One stream of a camera.
struct Call {
    name: String,
    source: SourceUrl,
    transport: RtspTransport,
    /// What a browser without the codec is shown instead.
    instead: Instead,
}

/// Whether a camera has another picture for browsers that do not take this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instead {
    Sub,
    Nothing,
}

/// What is to be said of a picture's codec: browsers without H.265 are many.
pub(super) fn judge_codec(name: &str, codec: &str, instead: Instead) -> Option<Finding> {
    let remedy = match instead {
        _ if codec != media::Codec::H265.name() => return None,
        Instead::Sub => "nothing where the sub stream is H.264: it is shown instead by itself",
        Instead::Nothing => "set the camera to H.264, or give a sub_url that is",
    };
    let sentence =
        format!("{name} sends H.265, which Firefox and many a Chrome on Linux do not take");
    Some(Finding::note(PART, sentence, remedy))
}

fn calls_of(camera: &Camera) -> Vec<Call> {
    let call = |name: String, source: &SourceUrl, instead| Call {
        name,
        source: source.clone(),
        transport: camera.transport,
        instead,
    };
    let instead = if camera.sub_url.is_some() { Instead::Sub } else { Instead::Nothing };
    let main = call(format!("camera {}", camera.id), &camera.url, instead);
    let sub = |url| call(format!("camera {} (sub)", camera.id), url, Instead::Nothing);
    let sub = camera.sub_url.as_ref().map(sub);
    std::iter::once(main).chain(sub).filter(|call| !is_published(&call.source)).collect()
}

/// Nobody can be called: an encoder comes by itself, to the server.
fn is_published(source: &SourceUrl) -> bool {
    matches!(source, SourceUrl::Whip(_))
}

async fn call(call: Call) -> Vec<Finding> {
    let Call { name, source, transport, instead } = call;
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
        (None, Some(format)) => std::iter::once(judge(&name, format, &seen, begun.elapsed()))
            .chain(judge_codec(&name, format.codec.name(), instead))
            .collect(),
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

fn judge(name: &str, format: SourceFormat, seen: &Seen, took: Duration) -> Finding {
    let SourceFormat { codec, width, height, audio } = format;
    let sound = audio.map_or("no sound", media::Codec::name);
    let picture = format!("{} {width}x{height}, {sound}", codec.name());
    let Some(Group { pictures, interval }) = seen.groups.last() else {
        let sentence = format!("{name} sends {picture}, and {}", no_second(took));
        return Finding::note(PART, sentence, INTERVAL_REMEDY);
    };
    let sentence = format!(
        "{name} sends {picture}, no B-frames, a keyframe every {:.1} s ({pictures} frames)",
        interval.as_secs_f64()
    );
    judge_interval(sentence, interval)
}

/// What is said of a camera of which one keyframe was seen.
pub(super) fn no_second(took: Duration) -> String {
    format!("no second keyframe came in {} s", took.as_secs())
}

/// A camera that works, whose keyframes may come too seldom.
pub(super) fn judge_interval(sentence: String, interval: Duration) -> Finding {
    if interval > INTERVAL_GOOD {
        let remedy = format!("{INTERVAL_REMEDY}: a viewer waits so long after a loss");
        return Finding::note(PART, sentence, remedy);
    }
    Finding::fine(PART, sentence)
}

/// What was seen of a camera.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    format: Option<SourceFormat>,
    groups: GroupMeter,
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
            if seen.groups.last().is_some() {
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
}

impl Output for Look {
    fn frame(&self, frame: Frame) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).groups.handle_frame(&frame);
        self.changed.notify_one();
    }

    fn live(&self, format: SourceFormat) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).format = Some(format);
        self.changed.notify_one();
    }

    /// The way from the camera is judged by the server, which listens for longer.
    fn lost(&self, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[tokio::test]
    async fn a_camera_that_works_is_told_with_its_group_of_pictures() {
        let source = SourceUrl::parse("test://?width=192&height=108&fps=30&gop=10").unwrap();
        let transport = RtspTransport::Tcp;
        let found = call(Call {
            name: "camera c".to_owned(),
            source,
            transport,
            instead: Instead::Nothing,
        })
        .await;
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
        let found = call(Call {
            name: "camera c".to_owned(),
            source,
            transport,
            instead: Instead::Nothing,
        })
        .await;
        assert_eq!(found[0].level, Level::Trouble);
        let wanted = format!("camera c at {address} cannot be reached");
        assert!(found[0].sentence.starts_with(&wanted), "{found:?}");
        assert!(!format!("{found:?}").contains("canary"));
        assert!(found[0].remedy.is_some());
    }
}

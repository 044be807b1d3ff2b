//! The state of the whole cluster: what this node sees, and what the others told it a second ago.
//!
//! Leases, and so counts, are the store's and the same at all nodes. How a camera is, is known where it is
//! pulled: each node asks the others each second and remembers the answers for [`FACTS_KEPT`]. Who asks this
//! node for states waits for nobody. A node that does not answer is named as missing once what it told is
//! forgotten.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::{CameraId, ReservationId};
use media::Codec;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Http;
use super::wire::nodes::{CameraState, PictureState, RenditionState, StateAnswer, StateQuestion};
use super::wire::{ClusterAnswer, NodeAnswer};
use crate::app::{App, CameraSnapshot, NodeSnapshot, RenditionSnapshot, Snapshot};
use crate::cluster::Asked;

/// From one question to the next.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer counts: until two more could have come, each after a second of waiting at most.
const FACTS_KEPT: Duration = Duration::from_secs(4);

/// Cameras that one node is believed to have: ten times the park that a server is built for.
const CAMERAS_MAX: usize = 10_000;

/// Connected viewers that one node is believed to have, as many as a server serves at all.
const CONNECTED_MAX: usize = 20_000;

/// A camera that is published to, and nobody does.
const NO_PUBLISHER: &str = "no_publisher";

/// The words for states, see [`CameraSnapshot::state`].
const STATES: [&str; 14] = [
    "idle",
    "connecting",
    "live",
    "closing",
    "unreachable",
    "unauthorized",
    "not_found",
    NO_PUBLISHER,
    "no_keyframe",
    "b_frames",
    "unsupported_codec",
    "unusable",
    "lost",
    "protocol",
];

const STATUSES: [&str; 3] = ["ONLINE", "OFFLINE", "ERROR"];

const CODECS: [Codec; 8] = [
    Codec::H264,
    Codec::H265,
    Codec::Vp8,
    Codec::Vp9,
    Codec::Av1,
    Codec::Opus,
    Codec::Pcmu,
    Codec::Pcma,
];

/// What all nodes know together. Cheap to clone.
#[derive(Clone)]
pub(super) struct Whole(Arc<Inner>);

struct Inner {
    app: App,
    heard: Mutex<Heard>,
}

/// What other nodes said. Bounded by the nodes, and what each says by the constants above.
#[derive(Default)]
struct Heard {
    facts: BTreeMap<String, Facts>,
    /// Those that did not answer the last time, with the reason.
    silent: BTreeMap<String, String>,
    /// What those that did have otherwise than this node.
    differing: BTreeMap<String, String>,
}

/// One node's answer.
struct Facts {
    at: Instant,
    cameras: HashMap<CameraId, Known>,
    connected: HashSet<ReservationId>,
}

/// One camera at one node.
#[derive(Debug, Clone)]
struct Known {
    is_origin: bool,
    status: &'static str,
    retry_in: Option<Duration>,
    probed_at: Option<SystemTime>,
    active_since: Option<SystemTime>,
    audio: Option<&'static str>,
    pullers: u32,
    pulls_started: u64,
    picture: Picture,
    renditions: Vec<(String, u32, Picture)>,
}

#[derive(Debug, Clone)]
struct Picture {
    state: &'static str,
    reason: Option<String>,
    codec: Option<&'static str>,
    width: Option<u32>,
    height: Option<u32>,
    keyframe_interval: Option<Duration>,
}

/// Asks the other nodes each second, until the server ends. Nothing to do where it is alone.
pub(crate) async fn follow_nodes(http: Http, closing: CancellationToken) {
    if http.app().cluster().is_none() {
        return;
    }
    let mut ticks = interval(ASK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let asked = http.ask_nodes(StateQuestion {}).await;
        let told = asked.answers.iter();
        let differing: BTreeMap<String, String> = told
            .filter_map(|(node, answer)| Some((node.clone(), http.difference(answer)?)))
            .collect();
        let origins = http.whole().heard(|heard| {
            for (node, sentence) in &differing {
                if !heard.differing.contains_key(node) {
                    warn!(%node, "this node and another one are set differently: {sentence}");
                }
            }
            heard.differing = differing;
            heard.take(asked, Instant::now());
            heard.origins()
        });
        http.app().origins_elsewhere(origins).await;
    }
}

impl Whole {
    pub(super) fn new(app: App) -> Self {
        Self(Arc::new(Inner { app, heard: Mutex::default() }))
    }

    /// Everything that stats, rooms, cameras and dashboards show.
    pub(super) async fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.0.app.snapshot().await;
        let Some(cluster) = self.0.app.cluster() else { return snapshot };
        let own = |camera: &CameraSnapshot| NodeSnapshot {
            node: cluster.node().to_owned(),
            is_origin: cluster.is_origin(&camera.about.id),
            state: camera.state,
            reason: camera.reason.clone(),
        };
        for camera in &mut snapshot.cameras {
            camera.nodes = vec![own(camera)];
        }
        self.heard(|heard| {
            heard.forget(Instant::now());
            heard.add_to(&mut snapshot);
        });
        snapshot
    }

    /// What this node tells the others.
    pub(super) async fn here(&self) -> StateAnswer {
        let here = self.0.app.here().await;
        let cluster = self.0.app.cluster();
        let is_origin =
            |camera: &CameraId| cluster.is_some_and(|cluster| cluster.is_origin(camera));
        let cameras = here.cameras.iter();
        let cameras = cameras.filter(|camera| !is_at_rest(camera) || is_origin(&camera.about.id));
        StateAnswer {
            cameras: cameras.map(|camera| told(camera, is_origin(&camera.about.id))).collect(),
            connected: here.connected.iter().map(ToString::to_string).collect(),
            now_ms: None,
            signs: None,
        }
    }

    /// Who is there. `None`: this server is alone.
    pub(super) fn cluster(&self) -> Option<ClusterAnswer> {
        let node = self.0.app.cluster()?.node().to_owned();
        let (nodes, mut differing) = self.heard(|heard| {
            let there = heard.facts.keys().filter(|node| !heard.silent.contains_key(*node));
            let there = there.map(|node| (node.clone(), None));
            let silent =
                heard.silent.iter().map(|(node, reason)| (node.clone(), Some(reason.clone())));
            (there.chain(silent).collect::<BTreeMap<_, _>>(), heard.differing.clone())
        });
        let nodes = nodes.into_iter().map(|(node, reason)| NodeAnswer {
            available: reason.is_none(),
            reason,
            difference: differing.remove(&node),
            node,
        });
        Some(ClusterAnswer { node, nodes: nodes.collect() })
    }

    fn heard<T>(&self, act: impl FnOnce(&mut Heard) -> T) -> T {
        // Nothing in here can panic halfway.
        act(&mut self.0.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Heard {
    fn take(&mut self, asked: Asked<StateAnswer>, now: Instant) {
        let silent = asked.silent.into_iter();
        self.silent = silent.map(|silent| (silent.node, silent.reason.to_string())).collect();
        for (node, answer) in asked.answers {
            self.facts.insert(node, Facts::read(answer, now));
        }
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        self.facts.retain(|_, facts| now.duration_since(facts.at) < FACTS_KEPT);
    }

    /// Cameras that other nodes have.
    fn origins(&self) -> Vec<CameraId> {
        let cameras = self.facts.values().flat_map(|node| &node.cameras);
        cameras.filter(|(_, known)| known.is_origin).map(|(camera, _)| camera.clone()).collect()
    }

    fn add_to(&self, snapshot: &mut Snapshot) {
        let missing = self.silent.keys().filter(|node| !self.facts.contains_key(*node));
        snapshot.missing_nodes = missing.cloned().collect();
        let differing = self.differing.iter();
        snapshot.differing_nodes =
            differing.map(|(node, sentence)| (node.clone(), sentence.clone())).collect();
        let mut viewers: HashMap<&CameraId, u32> = HashMap::new();
        for viewer in &mut snapshot.reservations {
            viewer.connected |= self.facts.values().any(|node| node.connected.contains(&viewer.id));
            *viewers.entry(&viewer.camera).or_default() += 1;
        }
        for camera in &mut snapshot.cameras {
            camera.viewer_count = viewers.get(&camera.about.id).copied().unwrap_or_default();
            let others = self.facts.iter();
            let others = others
                .filter_map(|(node, facts)| Some((node, facts.cameras.get(&camera.about.id)?)));
            add_nodes(camera, &others.collect::<Vec<_>>());
        }
    }
}

/// What other nodes know of a camera, beside what is known here.
fn add_nodes(camera: &mut CameraSnapshot, others: &[(&String, &Known)]) {
    // Where one node has the publisher, the others' word that they have none counts for nothing.
    let is_published = camera.nodes.iter().any(|node| node.is_origin)
        || others.iter().any(|(_, known)| known.is_origin);
    let counts = |known: &Known| !is_published || known.picture.state != NO_PUBLISHER;
    let best = others.iter().filter(|(_, known)| counts(known));
    let best = best.max_by_key(|(_, known)| known.rank());
    camera.nodes.extend(others.iter().map(|(node, known)| NodeSnapshot {
        node: (*node).clone(),
        is_origin: known.is_origin,
        state: known.picture.state,
        reason: known.picture.reason.clone(),
    }));
    camera.nodes.retain(|node| node.state != "idle" || node.is_origin);
    camera.nodes.sort_by(|one, other| one.node.cmp(&other.node));
    for (_, known) in others {
        camera.pullers = camera.pullers.max(known.pullers);
        camera.pulls_started += known.pulls_started;
        camera.active_since = [camera.active_since, known.active_since].into_iter().flatten().min();
        for rendition in &mut camera.renditions {
            rendition.add(known);
        }
    }
    let here = rank(camera.state, camera.retry_in, camera.probed_at);
    // A publisher that waits for viewers at another node is there for those of this one.
    let publisher = others.iter().find(|(_, known)| known.is_origin);
    let publisher = publisher.filter(|_| camera.state == NO_PUBLISHER);
    let better = best.filter(|(_, known)| known.rank() > here).or(publisher);
    if let Some((_, known)) = better {
        camera.status = known.status;
        camera.retry_in = known.retry_in;
        camera.probed_at = known.probed_at;
        camera.audio = known.audio;
        let picture = known.picture.clone();
        (camera.state, camera.reason) = (picture.state, picture.reason);
        (camera.codec, camera.width, camera.height) =
            (picture.codec, picture.width, picture.height);
        camera.keyframe_interval = picture.keyframe_interval;
    }
}

impl RenditionSnapshot {
    fn add(&mut self, known: &Known) {
        let found = known.renditions.iter().find(|(rendition, ..)| rendition == self.rendition);
        let Some((_, viewers, picture)) = found else { return };
        self.viewer_count = self.viewer_count.saturating_add(*viewers);
        if rank(picture.state, None, None) > rank(self.state, None, None) {
            let picture = picture.clone();
            (self.state, self.reason) = (picture.state, picture.reason);
            (self.codec, self.width, self.height) = (picture.codec, picture.width, picture.height);
            self.keyframe_interval = picture.keyframe_interval;
        }
    }
}

/// Whose word on a camera counts: who shows it, then who is on the way to, then who wanted to and could not,
/// then who looked last.
fn rank(
    state: &str,
    retry_in: Option<Duration>,
    probed_at: Option<SystemTime>,
) -> (u8, Option<SystemTime>, Reverse<bool>) {
    let rank = match state {
        "live" => 4,
        "connecting" => 3,
        "closing" => 2,
        "idle" => 0,
        // A failure.
        _ => u8::from(retry_in.is_some()),
    };
    (rank, probed_at, Reverse(state == "idle"))
}

impl Known {
    fn rank(&self) -> (u8, Option<SystemTime>, Reverse<bool>) {
        rank(self.picture.state, self.retry_in, self.probed_at)
    }
}

/// Whether there is nothing to tell other nodes of it.
fn is_at_rest(camera: &CameraSnapshot) -> bool {
    camera.state == "idle" && camera.probed_at.is_none() && camera.pulls_started == 0
}

fn told(camera: &CameraSnapshot, is_origin: bool) -> CameraState {
    let text = |word: Option<&str>| word.map(ToOwned::to_owned);
    CameraState {
        id: camera.about.id.to_string(),
        is_origin,
        status: camera.status.to_owned(),
        retry_in_ms: camera.retry_in.map(millis),
        probed_at: camera.probed_at.map(unix_ms),
        active_since: camera.active_since.map(unix_ms),
        audio: text(camera.audio),
        pullers: camera.pullers,
        pulls_started: camera.pulls_started,
        picture: PictureState {
            state: camera.state.to_owned(),
            reason: camera.reason.clone(),
            codec: text(camera.codec),
            width: camera.width,
            height: camera.height,
            keyframe_interval_ms: camera.keyframe_interval.map(millis),
        },
        renditions: camera.renditions.iter().map(rendition_told).collect(),
    }
}

fn rendition_told(rendition: &RenditionSnapshot) -> RenditionState {
    RenditionState {
        rendition: rendition.rendition.to_owned(),
        viewer_count: rendition.viewer_count,
        picture: PictureState {
            state: rendition.state.to_owned(),
            reason: rendition.reason.clone(),
            codec: rendition.codec.map(ToOwned::to_owned),
            width: rendition.width,
            height: rendition.height,
            keyframe_interval_ms: rendition.keyframe_interval.map(millis),
        },
    }
}

impl Facts {
    fn read(answer: StateAnswer, at: Instant) -> Self {
        let cameras = answer.cameras.into_iter().take(CAMERAS_MAX).filter_map(|told| {
            let id = CameraId::parse(&told.id).ok()?;
            Some((id, Known::read(told)?))
        });
        let connected = answer.connected.iter().take(CONNECTED_MAX);
        Self {
            at,
            cameras: cameras.collect(),
            connected: connected.filter_map(|id| ReservationId::parse(id).ok()).collect(),
        }
    }
}

impl Known {
    /// `None`: a node of another version says what this one does not know.
    fn read(told: CameraState) -> Option<Self> {
        let renditions = told.renditions.into_iter().filter_map(|told| {
            Some((told.rendition, told.viewer_count, Picture::read(told.picture)?))
        });
        Some(Self {
            is_origin: told.is_origin,
            status: known_word(&STATUSES, &told.status)?,
            retry_in: told.retry_in_ms.map(Duration::from_millis),
            probed_at: told.probed_at.map(time_of),
            active_since: told.active_since.map(time_of),
            audio: told.audio.as_deref().and_then(codec_name),
            pullers: told.pullers,
            pulls_started: told.pulls_started,
            picture: Picture::read(told.picture)?,
            renditions: renditions.collect(),
        })
    }
}

impl Picture {
    fn read(told: PictureState) -> Option<Self> {
        Some(Self {
            state: known_word(&STATES, &told.state)?,
            reason: told.reason,
            codec: told.codec.as_deref().and_then(codec_name),
            width: told.width,
            height: told.height,
            keyframe_interval: told.keyframe_interval_ms.map(Duration::from_millis),
        })
    }
}

fn known_word(words: &[&'static str], said: &str) -> Option<&'static str> {
    words.iter().find(|word| **word == said).copied()
}

fn codec_name(said: &str) -> Option<&'static str> {
    CODECS.into_iter().map(Codec::name).find(|name| *name == said)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Nothing that another node says can be too far away to be a time.
fn time_of(unix_ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Silent, SilentReason};
    use crate::http::tests::snapshot;

    /// What a node tells that is as in the other tests' snapshot.
    fn answer(change: impl FnOnce(&mut Snapshot)) -> StateAnswer {
        let mut there = snapshot();
        change(&mut there);
        let connected = there.reservations.iter().filter(|viewer| viewer.connected);
        let answer = StateAnswer {
            cameras: there.cameras.iter().map(|camera| told(camera, camera.pullers > 0)).collect(),
            connected: connected.map(|viewer| viewer.id.to_string()).collect(),
            now_ms: None,
            signs: None,
        };
        // As it comes over the wire.
        serde_json::from_str(&serde_json::to_string(&answer).unwrap()).unwrap()
    }

    /// A node to which nobody is connected, and which pulls nothing.
    fn idle_here() -> Snapshot {
        let mut here = snapshot();
        for viewer in &mut here.reservations {
            (viewer.connected, viewer.stage) = (false, None);
        }
        for camera in &mut here.cameras {
            (camera.state, camera.status, camera.reason) = ("idle", "ONLINE", None);
            (camera.retry_in, camera.active_since) = (None, None);
            (camera.codec, camera.width, camera.height, camera.audio) = (None, None, None, None);
            camera.keyframe_interval = None;
            (camera.viewer_count, camera.pullers) = (0, 0);
            let main = &mut camera.renditions[0];
            (main.state, main.viewer_count, main.codec) = ("idle", 0, None);
            camera.nodes = vec![NodeSnapshot {
                node: "n1".to_owned(),
                is_origin: false,
                state: "idle",
                reason: None,
            }];
        }
        here
    }

    fn all(answers: Vec<(String, StateAnswer)>) -> Asked<StateAnswer> {
        Asked { answers, silent: Vec::new() }
    }

    #[test]
    fn a_node_without_viewers_shows_what_another_one_has() {
        let (mut heard, mut here) = (Heard::default(), idle_here());
        heard.take(all(vec![("n2".to_owned(), answer(|_| ()))]), Instant::now());
        heard.add_to(&mut here);

        let [watched, lost] = here.cameras.as_slice() else { panic!("{here:?}") };
        assert_eq!(
            (watched.state, watched.codec, watched.audio),
            ("live", Some("H264"), Some("opus"))
        );
        assert_eq!(watched.keyframe_interval, Some(Duration::from_millis(2_040)));
        assert_eq!((watched.viewer_count, watched.pullers), (2, 1));
        assert_eq!((watched.renditions[0].state, watched.renditions[0].viewer_count), ("live", 2));
        assert!(watched.active_since.is_some());
        let nodes: Vec<_> = watched.nodes.iter().map(|n| (n.node.as_str(), n.is_origin)).collect();
        assert_eq!(nodes, [("n2", true)]);
        assert_eq!((lost.state, lost.status), ("lost", "OFFLINE"));
        assert!(lost.reason.is_some() && lost.retry_in.is_some());
        let connected: Vec<_> = here.reservations.iter().map(|viewer| viewer.connected).collect();
        assert_eq!(connected, [true, false]);
        assert!(here.missing_nodes.is_empty());
    }

    #[test]
    fn who_shows_a_camera_is_right_against_who_cannot() {
        let (mut heard, mut here) = (Heard::default(), snapshot());
        let broken = answer(|there| {
            (there.cameras[0].state, there.cameras[0].status) = ("unreachable", "OFFLINE");
            there.cameras[0].reason = Some("no answer".to_owned());
        });
        heard.take(all(vec![("n2".to_owned(), broken)]), Instant::now());
        heard.add_to(&mut here);
        assert_eq!((here.cameras[0].state, here.cameras[0].reason.as_deref()), ("live", None));
        let there = &here.cameras[0].nodes[0];
        assert_eq!((there.state, there.reason.as_deref()), ("unreachable", Some("no answer")));
    }

    #[test]
    fn a_publisher_that_waits_here_is_right_against_nodes_that_have_none() {
        let nobody = || {
            answer(|there| {
                (there.cameras[0].state, there.cameras[0].status) = (NO_PUBLISHER, "OFFLINE");
                there.cameras[0].pullers = 0;
            })
        };
        let mut heard = Heard::default();
        let nobody = ["n2", "n3"].map(|node| (node.to_owned(), nobody()));
        heard.take(all(nobody.into()), Instant::now());
        let mut here = idle_here();
        here.cameras[0].nodes[0].is_origin = true;
        heard.add_to(&mut here);
        assert_eq!((here.cameras[0].state, here.cameras[0].status), ("idle", "ONLINE"));

        let mut here = idle_here();
        heard.add_to(&mut here);
        assert_eq!(here.cameras[0].state, NO_PUBLISHER, "where nobody has one");
    }

    #[test]
    fn a_node_that_is_silent_is_missing_once_its_word_is_too_old() {
        let mut heard = Heard::default();
        let start = Instant::now();
        heard.take(all(vec![("n2".to_owned(), answer(|_| ()))]), start);
        let silence = |since: Duration| Asked {
            answers: Vec::new(),
            silent: vec![Silent { node: "n2".to_owned(), reason: SilentReason::Gone { since } }],
        };
        heard.take(silence(FACTS_KEPT), start + FACTS_KEPT / 2);
        let mut here = idle_here();
        heard.add_to(&mut here);
        assert_eq!((here.cameras[0].state, here.missing_nodes.len()), ("live", 0));

        heard.take(silence(FACTS_KEPT), start + FACTS_KEPT);
        let mut here = idle_here();
        heard.add_to(&mut here);
        assert_eq!(here.cameras[0].state, "idle");
        assert_eq!(here.missing_nodes, ["n2"]);
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let strange = answer(|there| there.cameras[0].state = "dreaming");
        let facts = Facts::read(strange, Instant::now());
        assert_eq!(facts.cameras.len(), 1);
    }
}

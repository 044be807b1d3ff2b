//! The camera park changes while the application runs; and what is known of cameras that nobody watches.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use control::CameraId;
use engine::{CameraView, Condition, Request, SourceFailure};
use media::StreamId;
use tokio::sync::oneshot;

use super::actor::{Actor, Command, Waiting, spec};
use super::snapshot::About;
use super::{App, CameraConfig};
use crate::ingest::{Reach, SourceUrl};

/// Who says how a camera is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CameraOrigin {
    /// The settings file.
    Config,
    /// The database: it was added or changed over the API.
    Stored,
}

impl CameraOrigin {
    /// Its word in the API.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Stored => "stored",
        }
    }
}

/// A change of the park. The rest stays as it is.
#[derive(Debug, Default)]
pub(crate) struct CameraChange {
    /// Cameras that come, or become different.
    pub(crate) put: Vec<CameraConfig>,
    /// Cameras that go.
    pub(crate) gone: Vec<CameraId>,
}

/// A camera whose state is not known from a viewer.
#[derive(Debug, Clone)]
pub(crate) struct Unwatched {
    pub(crate) camera: CameraId,
    pub(crate) url: SourceUrl,
    pub(crate) reach: Reach,
    /// Changes when the camera is reached differently.
    pub(crate) revision: u64,
    /// Why there was no picture when it was last tried, by a viewer or by asking.
    pub(crate) failure: Option<SourceFailure>,
}

/// What became of asking a camera.
#[derive(Debug, Clone)]
pub(crate) struct Probed {
    pub(crate) camera: CameraId,
    /// That of [`Unwatched`]: a camera that was changed meanwhile is asked again.
    pub(crate) revision: u64,
    pub(crate) at: SystemTime,
    pub(crate) result: Result<(), SourceFailure>,
}

/// How often cameras were asked how they are, by what became of it: `answered`, or the word of a failure.
/// There are about ten.
pub(crate) type ProbeFigures = BTreeMap<&'static str, u64>;

/// What is known of cameras that nobody watches.
#[derive(Default)]
pub(super) struct Findings {
    /// At most one a camera.
    last: HashMap<CameraId, Probed>,
    pub(super) figures: ProbeFigures,
}

impl Findings {
    /// Before anybody is asked: an address that cannot be read is of no use.
    pub(super) fn at_start(cameras: &[CameraConfig], at: SystemTime) -> Self {
        let mut findings = Self::default();
        cameras.iter().for_each(|camera| findings.keep_sealed(camera, at));
        findings
    }

    pub(super) fn get(&self, camera: &CameraId) -> Option<&Probed> {
        self.last.get(camera)
    }

    fn keep_sealed(&mut self, camera: &CameraConfig, at: SystemTime) {
        let SourceUrl::Sealed { reason, .. } = &camera.main else { return };
        let result = Err(SourceFailure::Unusable { detail: reason.clone() });
        let id = camera.definition.id.clone();
        let probed = Probed { camera: id.clone(), revision: camera.revision, at, result };
        self.last.insert(id, probed);
    }

    fn count(&mut self, result: &Result<(), SourceFailure>) {
        let outcome = match result {
            Ok(()) => "answered",
            Err(failure) => Condition::Failed(failure).word(),
        };
        *self.figures.entry(outcome).or_default() += 1;
    }
}

/// A call of the methods below.
pub(super) enum ParkCommand {
    Change { change: CameraChange, reply: oneshot::Sender<()> },
    Unwatched { reply: oneshot::Sender<Vec<Unwatched>> },
    Probed { probed: Probed },
}

impl App {
    /// Changes the park at once. Viewers of a camera that is reached differently go on at its new address;
    /// those of one that goes are closed, and their leases end. False: the application has ended.
    pub(crate) async fn change_cameras(&self, change: CameraChange) -> bool {
        let make = |reply| Command::Park(ParkCommand::Change { change, reply });
        self.ask(make).await.is_some()
    }

    /// Cameras that could be asked how they are, since no puller of theirs runs.
    pub(crate) async fn unwatched(&self) -> Vec<Unwatched> {
        let make = |reply| Command::Park(ParkCommand::Unwatched { reply });
        self.ask(make).await.unwrap_or_default()
    }

    /// Keeps what was found. It is shown while nobody watches the camera.
    pub(crate) async fn keep_finding(&self, probed: Probed) {
        // Nobody listens any more only while the application ends.
        let _ = self.commands.send(Command::Park(ParkCommand::Probed { probed })).await;
    }
}

impl Actor {
    pub(super) fn handle_park_command(&mut self, command: ParkCommand) {
        match command {
            ParkCommand::Change { change, reply } => {
                self.change_cameras(change);
                // Who asked may have hung up.
                let _ = reply.send(());
            }
            ParkCommand::Unwatched { reply } => {
                let _ = reply.send(self.unwatched());
            }
            ParkCommand::Probed { probed } => self.keep_finding(probed),
        }
    }

    fn change_cameras(&mut self, change: CameraChange) {
        let CameraChange { put, gone } = change;
        let now = self.clock.system_time(self.clock.now());
        for id in &gone {
            self.cameras.remove(id);
            self.abouts.remove(id);
            self.findings.last.remove(id);
        }
        let changed: Vec<CameraId> = put.iter().map(|new| new.definition.id.clone()).collect();
        for mut new in put {
            let id = new.definition.id.clone();
            let before = self.cameras.get(&id);
            let is_same = before.is_some_and(|before| before.is_reached_like(&new));
            let revision = before.map_or(self.next_revision, |before| before.revision);
            new.revision = if is_same { revision } else { self.next_revision };
            if !is_same {
                self.next_revision += 1;
                self.findings.last.remove(&id);
                self.findings.keep_sealed(&new, now);
            }
            self.abouts.insert(id.clone(), Arc::new(About::from(&new)));
            self.cameras.insert(id, new);
        }
        let changed = changed.iter().filter_map(|id| self.cameras.get(id));
        self.publishing.change(changed, &gone);
        let specs = self.cameras.values().map(spec).collect();
        self.engine.handle_cameras(specs, self.clock.now());
    }

    fn unwatched(&self) -> Vec<Unwatched> {
        let views = self.engine.cameras().filter(is_unwatched);
        let found = views.filter_map(|view| {
            let camera = self.cameras.get(&view.camera.id)?;
            let finding = self.findings.get(&view.camera.id);
            let failure = match (view.leading().condition, finding) {
                (_, Some(finding)) => finding.result.as_ref().err(),
                (Condition::Failed(failure), None) => Some(failure),
                (_, None) => None,
            };
            Some(Unwatched {
                camera: camera.definition.id.clone(),
                url: camera.main.clone(),
                reach: camera.reach,
                revision: camera.revision,
                failure: failure.cloned(),
            })
        });
        found.collect()
    }

    /// One that was gone and answers again need not be waited for any more.
    fn keep_finding(&mut self, probed: Probed) {
        self.findings.count(&probed.result);
        let Some(camera) = self.cameras.get(&probed.camera) else { return };
        let view = self.engine.camera(&probed.camera).filter(is_unwatched);
        let Some(view) = view.filter(|_| camera.revision == probed.revision) else { return };
        let was_gone = matches!(
            view.leading().condition,
            Condition::Failed(failure) if failure.is_offline()
        );
        if was_gone && probed.result.is_ok() {
            let (reply, _) = oneshot::channel();
            let request = Request::StopSource { camera: probed.camera.clone() };
            self.ask(request, Waiting::StopSource(reply));
        }
        self.findings.last.insert(probed.camera.clone(), probed);
    }

    /// Who is pulled tells more than who was asked.
    pub(super) fn forget_finding(&mut self, stream: StreamId) {
        if let Some((camera, _)) = self.engine.place_of(stream) {
            self.findings.last.remove(&camera);
        }
    }
}

/// Whether no puller of its runs, nor will by itself.
fn is_unwatched(view: &CameraView<'_>) -> bool {
    view.streams().all(|stream| {
        let is_idle = matches!(stream.condition, Condition::Idle | Condition::Failed(_));
        let is_wanted = stream.reservations + stream.expected > 0 || stream.retry_at.is_some();
        is_idle && !stream.is_pulling && !is_wanted
    })
}

impl CameraConfig {
    /// Whether its addresses hold what is not shown.
    pub(super) fn has_credentials(&self) -> bool {
        self.main.has_credentials() || self.sub.as_ref().is_some_and(SourceUrl::has_credentials)
    }

    fn is_reached_like(&self, other: &Self) -> bool {
        let same_sub = match (&self.sub, &other.sub) {
            (Some(one), Some(other)) => one.is_same(other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_sub
            && self.main.is_same(&other.main)
            && self.transport == other.transport
            && self.reach == other.reach
    }
}

//! The task that owns the engine and the ledger: calls, events and time in, actions out.
//!
//! Here are its loop and what it does of the engine's actions. `calls` takes what [`super::App`] asks,
//! `told` what the media plane and the sources tell, `replies` puts the engine's answers into words, and
//! `peers` keeps the viewers' connections. What concerns outlets, feeds, grants, limits or the park stands
//! beside this module under those names.

mod calls;
mod command;
mod peers;
mod replies;
mod told;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use control::{CameraId, Policy, Quota, Source};
use engine::{Action, CameraSpec, Engine, Note, OpId, Rendition, Request, RequestId};
use media::{StreamId, ViewerId};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, warn};

use self::command::WaitingWatch;
pub(super) use self::command::{Command, Message, Offer, Waiting};
use self::peers::Peer;
use super::clock::Clock;
use super::endings::{Endings, QuotaFigures};
use super::feeds::Feeds;
use super::grants::Grants;
use super::joins::Joins;
use super::outlets::Outlets;
use super::pages::Pages;
use super::park::Findings;
use super::publishing::Publishing;
use super::pullers::{Pullers, Way};
use super::snapshot::About;
use super::{AppConfig, CameraConfig};
use crate::cluster::Cluster;
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::net::{MediaEvent, MediaPlane};

/// How long the media plane and the sources may take to end. The promise to operators is 5 s for
/// the whole program.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);

/// Media events that are taken in one go, so that calls and time get their turn in a storm.
const EVENT_BATCH: usize = 256;

/// Calls and messages that are taken in one turn of the loop beside the one that began it: each turn sets
/// its timer anew, which costs as much as a call does. They take a millisecond, for which sources that ended
/// wait.
const TURN_MAX: usize = 64;

/// See the module's documentation. The maps are bounded by the leases and by the calls under way.
pub(super) struct Actor {
    pub(super) engine: Engine,
    pub(super) clock: Clock,
    pub(super) media: MediaPlane,
    pub(super) pullers: Pullers,
    pub(super) publishing: Publishing,
    pub(super) joins: Joins,
    pub(super) sources: Vec<Source>,
    /// As configured.
    pub(super) quota: Quota,
    pub(super) cameras: HashMap<CameraId, CameraConfig>,
    /// Of the same cameras, what is told of them.
    pub(super) abouts: HashMap<CameraId, Arc<About>>,
    pub(super) outlets: Outlets,
    pub(super) pages: Pages,
    /// Of cameras that nobody watches.
    pub(super) findings: Findings,
    pub(super) next_revision: u64,
    pub(super) feeds: Feeds,
    pub(super) grants: Grants,
    pub(super) journal: Journal,
    pub(super) endings: Endings,
    /// What quotas forbade and took.
    pub(super) quota_figures: QuotaFigures,
    /// All leases as the ledger last told them, for when it cannot be asked.
    last_leases: Option<control::ledger::Snapshot>,
    pub(super) ledger: Ledger<OpId>,
    waiting: HashMap<RequestId, Waiting>,
    next_request: u64,
    pub(super) peers: HashMap<ViewerId, Peer>,
    resources: HashMap<String, ViewerId>,
    pub(super) messages: mpsc::UnboundedSender<Message>,
    messages_in: mpsc::UnboundedReceiver<Message>,
    /// A part of the media plane is gone for good.
    has_failed: bool,
}

impl Actor {
    pub(super) fn new(
        config: AppConfig,
        media: MediaPlane,
        publishing: Publishing,
        journal: Journal,
        cluster: Option<Cluster>,
    ) -> Self {
        let clock = Clock::start();
        let (messages, messages_in) = mpsc::unbounded_channel();
        let news = messages.clone();
        let ledger = Ledger::start(
            config.ledger,
            config.quota.clone(),
            Policy::default(),
            Arc::new(move || clock.now()),
            // Nobody listens any more only while the application ends.
            Box::new(move |told| drop(news.send(Message::Ledger(told)))),
        );
        let mut engine = Engine::new(uuid::Uuid::new_v4().as_u64_pair().0);
        engine.handle_cameras(config.cameras.iter().map(spec).collect(), clock.now());
        let by_id = |camera: CameraConfig| (camera.definition.id.clone(), camera);
        let about = |camera: &CameraConfig| (camera.definition.id.clone(), Arc::new(camera.into()));
        Self {
            engine,
            clock,
            pullers: Pullers::new(media.clone(), messages.clone(), cluster),
            media,
            publishing,
            joins: Joins::default(),
            sources: config.sources,
            quota: config.quota.clone(),
            findings: Findings::at_start(&config.cameras, clock.system_time(clock.now())),
            abouts: config.cameras.iter().map(about).collect(),
            cameras: config.cameras.into_iter().map(by_id).collect(),
            outlets: Outlets::default(),
            pages: Pages::default(),
            next_revision: 1,
            feeds: Feeds::default(),
            grants: Grants::default(),
            journal,
            endings: Endings::default(),
            quota_figures: QuotaFigures::default(),
            last_leases: None,
            ledger,
            waiting: HashMap::new(),
            next_request: 0,
            peers: HashMap::new(),
            resources: HashMap::new(),
            messages,
            messages_in,
            has_failed: false,
        }
    }

    /// Runs until all handles are dropped, or something failed that does not come back: a server
    /// that serves a part of its viewers for ever is worse than one that is started anew.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut media_events: mpsc::UnboundedReceiver<MediaEvent>,
    ) {
        let mut events = Vec::with_capacity(EVENT_BATCH);
        self.run_actions();
        while !self.has_failed {
            let parts =
                [self.engine.next_timeout(), self.grants.next_timeout(), self.pages.next_timeout()];
            let due = parts.into_iter().flatten().min();
            let wake = due.map(|due| self.clock.instant(due).into());
            // What viewers sent is heard before leases are judged, and what sources told before
            // that they ended.
            tokio::select! {
                biased;
                count = media_events.recv_many(&mut events, EVENT_BATCH), if !media_events.is_closed() || !media_events.is_empty() => {
                    if count == 0 {
                        debug!("the media plane has ended");
                    }
                    events.drain(..).for_each(|event| self.handle_media(&event));
                }
                Some(message) = self.messages_in.recv() => self.handle_message(message),
                Some(ended) = self.pullers.next_ended() => self.handle_ended(ended),
                command = commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => break,
                },
                () = sleep_until(wake) => {}
            }
            self.take_waiting(&mut commands, &media_events);
            if media_events.is_empty() {
                self.engine.handle_timeout(self.clock.now());
                self.end_left_behind();
            }
            self.end_permits();
            self.run_actions();
        }
        let (reply, _) = oneshot::channel();
        self.shut_down(reply);
    }

    /// What waits already, in the order in which the loop would take it, until the media plane tells
    /// something.
    fn take_waiting(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        media_events: &mpsc::UnboundedReceiver<MediaEvent>,
    ) {
        for _ in 0..TURN_MAX {
            // What the one before has caused is done first, as at the end of a turn.
            self.run_actions();
            if !media_events.is_empty() {
                return;
            }
            if let Ok(message) = self.messages_in.try_recv() {
                self.handle_message(message);
            } else if let Ok(command) = commands.try_recv() {
                self.handle_command(command);
            } else {
                return;
            }
        }
    }

    pub(super) fn ask(&mut self, request: Request, waiting: Waiting) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.waiting.insert(id, waiting);
        self.engine.handle_request(id, request, self.clock.now());
    }

    fn run_actions(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Ledger { op, ledger_op } => {
                    let now = self.clock.now();
                    let cameras = &self.cameras;
                    let name = |id: &CameraId| {
                        let camera = cameras.get(id);
                        camera.map(|camera| camera.definition.name.clone()).unwrap_or_default()
                    };
                    if let Some((op, outcome)) = self.ledger.apply(op, ledger_op, now, name) {
                        self.engine.handle_outcome(op, outcome, now);
                    }
                }
                Action::Reply(request, reply) => self.reply(request, reply),
                Action::StartSource { stream, camera, rendition, attempt } => {
                    self.start_source(stream, &camera, rendition, attempt);
                }
                Action::StopSource { stream } => self.pullers.stop(stream),
                Action::InterruptStream { stream } => self.media.interrupt(stream),
                Action::RemoveStream { stream } => self.media.remove_stream(stream),
                Action::AcceptViewer { request, viewer, stream } => {
                    self.accept(request, viewer, stream);
                }
                Action::SwitchViewer { viewer, stream } => self.media.switch(viewer, stream),
                Action::CloseViewer { viewer, cause } => self.close_viewer(viewer, cause),
                Action::Note { reservation, note } => {
                    if let Note::Ended(reason) = &note {
                        self.pages.ended(&reservation);
                        self.quota_figures.count_end(*reason);
                        self.endings.note(reservation.as_str(), *reason, self.clock.now());
                    }
                    self.journal.handle_note(&reservation, note);
                }
                Action::HoldEnded { hold, failure } => {
                    if !self.end_feed_of(hold) {
                        self.outlets.end_hold(hold, failure);
                    }
                }
                Action::RequestKeyframe { stream } => self.pullers.ask_for_keyframe(stream),
            }
        }
    }

    fn start_source(
        &mut self,
        stream: StreamId,
        camera: &CameraId,
        rendition: Rendition,
        attempt: u64,
    ) {
        let Some(config) = self.cameras.get(camera) else {
            error!(camera_id = %camera, "a source was to be started for a camera that is not known");
            return;
        };
        let url = match rendition {
            Rendition::Main => &config.main,
            Rendition::Sub => config.sub.as_ref().unwrap_or(&config.main),
        };
        let way = Way { reach: config.reach, transport: config.transport };
        self.pullers.start(stream, (camera.clone(), rendition), attempt, url.clone(), way);
    }

    /// Ends everything; `reply` hears of it when viewers are told and sources are gone.
    fn shut_down(&mut self, reply: oneshot::Sender<()>) {
        self.engine.handle_shutdown(self.clock.now());
        self.run_actions();
        let mut residue = self.engine.residue();
        if self.ledger.is_remote() {
            // The store hears of the end below; what it answers changes nothing any more.
            residue.ledger_ops = 0;
        }
        let farewell = self.ledger.close(self.quota.clone());
        if !residue.is_empty() {
            warn!(?residue, "something was left at the end");
        }
        let idle = Pullers::new(self.media.clone(), self.messages.clone(), None);
        let mut tasks = std::mem::replace(&mut self.pullers, idle).into_tasks();
        let media = self.media.clone();
        tokio::spawn(async move {
            let all = async {
                tokio::join!(media.shutdown(), farewell);
                while tasks.join_next().await.is_some() {}
            };
            if tokio::time::timeout(SHUTDOWN_LIMIT, all).await.is_err() {
                warn!("some viewers or cameras did not end in time and were cut off");
            }
            let _ = reply.send(());
        });
    }
}

/// The camera as the engine runs it.
pub(super) fn spec(config: &CameraConfig) -> CameraSpec {
    let has_sub = config.sub.is_some();
    CameraSpec {
        camera: control::Camera { has_sub, ..config.definition.clone() },
        on_demand: config.on_demand,
        close_after: linger(config.close_after),
        revision: config.revision,
    }
}

/// Never resolves without a time.
async fn sleep_until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// How long a stream stays without viewers, so that its puller is gone `close_after` its last one:
/// TEARDOWN takes a round trip to the camera, and who asks after that time shall find nothing.
fn linger(close_after: Duration) -> Duration {
    const TEARDOWN_ALLOWANCE: Duration = Duration::from_millis(400);
    close_after - TEARDOWN_ALLOWANCE.min(close_after / 10)
}

//! The task that owns the engine and the ledger: calls, events and time in, actions out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::{
    CameraId, Class, Exceeded, Policy, Quality, Quota, ReservationId, Scope, Source, Usage,
};
use engine::{
    Action, CameraSpec, CloseCause, EndReason, Engine, Grant, Note, OpId, Rendition, Reply,
    Request, RequestId, ReserveRefusal, SourceEvent, SourceFailure, ViewerEvent, WatchRefusal,
};
use media::estimate::LineState;
use media::{Codec, StreamId, ViewerId};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::{debug, error, info, warn};

use super::clock::Clock;
use super::endings::{Endings, QuotaFigures};
use super::feeds::{FeedAnswered, FeedCommand, Feeds, WaitingFeed};
use super::grants::{GrantCommand, Grants};
use super::joins::Joins;
use super::limits::{LimitCommand, LimitError};
use super::outlets::{OutletCommand, OutletMessage, Outlets};
use super::park::{Findings, ParkCommand};
use super::publishing::{Presence, Publishing};
use super::pullers::{Ended, Pullers, Way};
use super::reset::ResetCommand;
use super::snapshot::Snapshot;
use super::{
    AppConfig, CameraConfig, Held, HoldError, IceRestart, LeaseError, Over, ReadError, Reading,
    Released, Reservation, ReserveError, WatchError, Watching,
};
use crate::cluster::Cluster;
use crate::journal::{Journal, Refusal, Step, Wish};
use crate::ledger::{Ledger, News};
use crate::net::{
    Accepted, IceCredentials, MediaEvent, MediaPlane, OfferError, PublisherEnd, PublisherId,
    Restarted,
};

/// How long the media plane and the sources may take to end. The promise to operators is 5 s for
/// the whole program.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);

/// Media events that are taken in one go, so that calls and time get their turn in a storm.
const EVENT_BATCH: usize = 256;

/// A call of [`super::App`].
pub(super) enum Command {
    Reserve {
        camera: CameraId,
        user: String,
        quality: Quality,
        class: Class,
        reply: oneshot::Sender<Result<Reservation, ReserveError>>,
    },
    Release {
        reservation: ReservationId,
        reply: oneshot::Sender<Result<Released, LeaseError>>,
    },
    Heartbeat {
        reservation: ReservationId,
        extend: Option<Duration>,
        quality: Option<Quality>,
        reply: oneshot::Sender<Result<Reservation, LeaseError>>,
    },
    Watch {
        reservation: ReservationId,
        camera: CameraId,
        offer: Offer,
        reply: oneshot::Sender<Result<Watching, WatchError>>,
    },
    Trickle {
        resource: String,
        etag: Option<String>,
        fragment: String,
        reply: oneshot::Sender<Option<Result<(), ()>>>,
    },
    RestartIce {
        resource: String,
        theirs: IceCredentials,
        reply: oneshot::Sender<Option<IceRestart>>,
    },
    EndWatch {
        resource: String,
        reply: oneshot::Sender<bool>,
    },
    StopSource {
        ingress: CameraId,
        reply: oneshot::Sender<bool>,
    },
    /// How the reservation of a WHEP session ended.
    EndingOf {
        resource: String,
        reply: oneshot::Sender<Option<EndReason>>,
    },
    /// Another limit for a source.
    Limit(LimitCommand),
    /// Whose things are.
    Grant(GrantCommand),
    /// Of those who take frames inside this process.
    Outlet(OutletCommand),
    /// Of those who change the park.
    Park(ParkCommand),
    /// Of other nodes.
    Feed(FeedCommand),
    /// The end of all reservations and pullers of a camera, or of all.
    Reset(ResetCommand),
    Snapshot {
        reply: oneshot::Sender<Snapshot>,
    },
    Shutdown {
        reply: oneshot::Sender<()>,
    },
}

/// A viewer's offer under way.
pub(super) struct Offer {
    pub(super) sdp: String,
    /// When the WHEP POST came.
    pub(super) started: Instant,
    /// Bounds the offers under way; given back with the reply.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// What the actor's own tasks and outlets tell it. Bounded by them: one answer an offer, a source is
/// live once an attempt and a change of format, an outlet says every few seconds that it lives.
pub(super) enum Message {
    Answered {
        request: RequestId,
        viewer: ViewerId,
        result: Result<Accepted, OfferError>,
    },
    /// An ICE restart came about, or the viewer is gone.
    Restarted {
        viewer: ViewerId,
        their_ufrag: String,
        result: Option<Restarted>,
        reply: oneshot::Sender<Option<IceRestart>>,
    },
    Live {
        stream: StreamId,
        attempt: u64,
        codec: Codec,
    },
    Outlet(OutletMessage),
    Fed(FeedAnswered),
    /// Of a store of leases.
    Ledger(News<OpId>),
}

/// Who waits for which reply of the engine.
pub(super) enum Waiting {
    Reserve {
        reservation: ReservationId,
        camera: CameraId,
        reply: oneshot::Sender<Result<Reservation, ReserveError>>,
    },
    Release(ReservationId, oneshot::Sender<Result<Released, LeaseError>>),
    Heartbeat(ReservationId, oneshot::Sender<Result<Reservation, LeaseError>>),
    Limit(oneshot::Sender<Result<Usage, LimitError>>),
    Watch(WaitingWatch),
    Hold(oneshot::Sender<Result<Held, HoldError>>, CameraId),
    Feed(WaitingFeed),
    Read(oneshot::Sender<Result<Reading, ReadError>>),
    EndWatch(oneshot::Sender<bool>),
    StopSource(oneshot::Sender<bool>),
    /// For the leases, of which it is then asked to end some.
    Reset(ResetCommand),
    ResetDone(oneshot::Sender<engine::Reset>),
    Snapshot(oneshot::Sender<Snapshot>),
}

pub(super) struct WaitingWatch {
    reservation: ReservationId,
    camera: CameraId,
    offer: Offer,
    answer: Option<Result<Accepted, OfferError>>,
    reply: oneshot::Sender<Result<Watching, WatchError>>,
}

/// A viewer whose offer was answered, from the answer to its end.
pub(super) struct Peer {
    resource: String,
    /// Our ICE user fragment.
    etag: String,
    /// The viewer's.
    their_ufrag: Option<String>,
    started: Instant,
    /// An authentic ICE check came from it.
    pub(super) is_checked: bool,
    /// The first packet of media left for it.
    pub(super) has_media: bool,
    /// What it last told of its line.
    pub(super) line: Option<LineState>,
}

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
    pub(super) outlets: Outlets,
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
        Self {
            engine,
            clock,
            pullers: Pullers::new(media.clone(), messages.clone(), cluster),
            media,
            publishing,
            joins: Joins::default(),
            sources: config.sources,
            quota: config.quota.clone(),
            cameras: config.cameras.into_iter().map(by_id).collect(),
            outlets: Outlets::default(),
            findings: Findings::default(),
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
            let due = [self.engine.next_timeout(), self.grants.next_timeout()];
            let due = due.into_iter().flatten().min();
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
            if media_events.is_empty() {
                self.engine.handle_timeout(self.clock.now());
            }
            self.end_permits();
            self.run_actions();
        }
        let (reply, _) = oneshot::channel();
        self.shut_down(reply);
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Reserve { camera, user, quality, class, reply } => {
                let Some(reservation) = random_reservation() else {
                    return;
                };
                let wish = Wish { camera: camera.clone(), user: user.clone(), quality, class };
                self.journal.asked(&reservation, wish);
                let waiting = Waiting::Reserve {
                    reservation: reservation.clone(),
                    camera: camera.clone(),
                    reply,
                };
                self.ask(Request::Reserve { reservation, camera, user, quality, class }, waiting);
            }
            Command::Release { reservation, reply } => {
                let waiting = Waiting::Release(reservation.clone(), reply);
                self.ask(Request::Release { reservation }, waiting);
            }
            Command::Heartbeat { reservation, extend, quality, reply } => {
                let waiting = Waiting::Heartbeat(reservation.clone(), reply);
                self.ask(Request::Heartbeat { reservation, extend, quality }, waiting);
            }
            Command::Watch { reservation, camera, offer, reply } => {
                self.journal.step(&reservation, Step::Offered);
                let watch = WaitingWatch {
                    reservation: reservation.clone(),
                    camera: camera.clone(),
                    offer,
                    answer: None,
                    reply,
                };
                self.ask(Request::Watch { reservation, camera }, Waiting::Watch(watch));
            }
            Command::Trickle { resource, etag, fragment, reply } => {
                let _ = reply.send(self.trickle(&resource, etag.as_deref(), fragment));
            }
            Command::RestartIce { resource, theirs, reply } => {
                self.restart_ice(&resource, theirs, reply);
            }
            Command::EndWatch { resource, reply } => match self.resources.get(&resource) {
                Some(viewer) => {
                    let request = Request::EndWatch { viewer: *viewer };
                    self.ask(request, Waiting::EndWatch(reply));
                }
                None => {
                    let _ = reply.send(false);
                }
            },
            Command::StopSource { ingress, reply } => {
                let camera = self.camera_of_ingress(ingress);
                self.ask(Request::StopSource { camera }, Waiting::StopSource(reply));
            }
            Command::EndingOf { resource, reply } => {
                let _ = reply.send(self.endings.of(&resource));
            }
            Command::Limit(command) => self.handle_limit_command(command),
            Command::Grant(command) => self.handle_grant_command(command),
            Command::Outlet(command) => self.handle_outlet_command(command),
            Command::Park(command) => self.handle_park_command(command),
            Command::Feed(command) => self.handle_feed_command(command),
            Command::Reset(command) => self.handle_reset_command(command),
            Command::Snapshot { reply } => self.ask(Request::Snapshot, Waiting::Snapshot(reply)),
            Command::Shutdown { reply } => self.shut_down(reply),
        }
    }

    pub(super) fn ask(&mut self, request: Request, waiting: Waiting) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.waiting.insert(id, waiting);
        self.engine.handle_request(id, request, self.clock.now());
    }

    fn handle_media(&mut self, event: &MediaEvent) {
        let now = self.clock.now();
        if self.is_of_feed(event) {
            return;
        }
        self.journal.handle_media(event);
        let (viewer, event) = match *event {
            MediaEvent::Connected { viewer, handshake_ms, .. } => {
                (viewer, ViewerEvent::Connected { handshake_ms })
            }
            MediaEvent::Alive { viewer, at, .. } => {
                if let Some(peer) = self.peers.get_mut(&viewer) {
                    peer.is_checked = true;
                }
                (viewer, ViewerEvent::Alive { at: self.clock.timestamp(at) })
            }
            MediaEvent::Closed { viewer, reason } => {
                self.forget_peer(viewer);
                (viewer, ViewerEvent::Closed(reason))
            }
            MediaEvent::FirstMedia { viewer } => {
                self.observe_join(viewer);
                (viewer, ViewerEvent::FirstMedia)
            }
            MediaEvent::Switched { viewer, stream } => (viewer, ViewerEvent::Switched { stream }),
            MediaEvent::SwitchFailed { viewer, stream } => {
                (viewer, ViewerEvent::SwitchFailed { stream })
            }
            MediaEvent::Line { viewer, line, stream } => {
                if let Some(peer) = self.peers.get_mut(&viewer) {
                    peer.line = Some(line);
                }
                (viewer, ViewerEvent::Line { line, stream })
            }
            // They are told to the journal alone.
            MediaEvent::Reached { .. } | MediaEvent::Moved { .. } | MediaEvent::Detached { .. } => {
                return;
            }
            MediaEvent::KeyframeWanted { stream } => {
                return self.engine.handle_keyframe_wanted(stream, now);
            }
            MediaEvent::PublisherConnected { publisher } => return self.begin_publisher(publisher),
            MediaEvent::PublisherClosed { publisher, reason } => {
                return self.end_publisher(publisher, reason);
            }
            MediaEvent::Failed => {
                error!("a thread of the media plane panicked; the message is on standard error");
                self.has_failed = true;
                return;
            }
        };
        self.engine.handle_viewer(viewer, event, now);
        // A batch may hold what causes many actions; they are not let pile up.
        self.run_actions();
    }

    /// A camera that waits for its publisher is live at once.
    fn begin_publisher(&mut self, publisher: PublisherId) {
        let Some((camera_id, rendition)) = self.publishing.place_of(publisher) else { return };
        info!(%camera_id, rendition = rendition.as_str(), "a publisher is connected");
        self.engine.handle_publisher(&camera_id, rendition, self.clock.now());
    }

    fn end_publisher(&self, publisher: PublisherId, reason: PublisherEnd) {
        if let Some((camera_id, rendition)) = self.publishing.place_of(publisher) {
            let rendition = rendition.as_str();
            info!(%camera_id, rendition, ?reason, "a publisher is gone");
        }
        self.publishing.forget(publisher);
    }

    fn handle_message(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Restarted { viewer, their_ufrag, result, reply } => {
                if let (Some(peer), Some(restarted)) = (self.peers.get_mut(&viewer), &result) {
                    peer.etag.clone_from(&restarted.ice_ufrag);
                    peer.their_ufrag = Some(their_ufrag);
                }
                let _ = reply.send(result.map(IceRestart::Done));
            }
            Message::Answered { request, viewer, result } => {
                let event = match &result {
                    Ok(accepted) => ViewerEvent::Accepted { codecs: accepted.codecs },
                    Err(_) => ViewerEvent::Refused,
                };
                if let Some(Waiting::Watch(watch)) = self.waiting.get_mut(&request) {
                    watch.answer = Some(result);
                }
                self.engine.handle_viewer(viewer, event, now);
            }
            Message::Ledger(News::Outcome(op, outcome)) => {
                self.engine.handle_outcome(op, outcome, now);
            }
            Message::Ledger(News::Ended(ended)) => self.engine.handle_ended(ended, now),
            Message::Outlet(message) => self.handle_outlet_message(message),
            Message::Fed(answered) => self.handle_feed_answered(answered),
            Message::Live { stream, attempt, codec } => {
                self.forget_finding(stream);
                self.engine.handle_source(stream, attempt, SourceEvent::Live { codec }, now);
            }
        }
    }

    fn handle_ended(&mut self, ended: Option<Ended>) {
        if let Some(Ended { stream, attempt, failure }) = ended {
            self.forget_finding(stream);
            let found_nobody = failure == SourceFailure::NoPublisher;
            let event = SourceEvent::Failed(failure);
            self.engine.handle_source(stream, attempt, event, self.clock.now());
            if found_nobody {
                self.retry_if_published(stream);
            }
        }
    }

    /// Somebody may have come while an attempt found nobody.
    fn retry_if_published(&mut self, stream: StreamId) {
        let now = self.clock.now();
        let Some((camera, rendition)) = self.engine.place_of(stream) else { return };
        if self.publishing.presence(&camera, rendition) == Some(Presence::Here) {
            self.engine.handle_publisher(&camera, rendition, now);
        }
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

    fn accept(&mut self, request: RequestId, viewer: ViewerId, stream: StreamId) {
        let Some(Waiting::Watch(watch)) = self.waiting.get_mut(&request) else {
            error!(?request, "an offer was to be answered that is not there");
            return self.engine.handle_viewer(viewer, ViewerEvent::Refused, self.clock.now());
        };
        let offer = std::mem::take(&mut watch.offer.sdp);
        let (media, messages) = (self.media.clone(), self.messages.clone());
        tokio::spawn(async move {
            let result = media.accept(viewer, stream, offer).await;
            // Nobody listens any more only while the application ends.
            let _ = messages.send(Message::Answered { request, viewer, result });
        });
    }

    /// Hands a reply to who waits for it. Who hung up meanwhile does not hear it; what was begun for
    /// him ends with its lease.
    fn reply(&mut self, request: RequestId, reply: Reply) {
        let Some(waiting) = self.waiting.remove(&request) else {
            return error!(?request, "nobody waits for this reply");
        };
        match (waiting, reply) {
            (Waiting::Reserve { reservation, camera, reply }, Reply::Reserve(result)) => {
                let result = match result {
                    Ok(grant) => Ok(self.reservation(grant)),
                    Err(refusal) => Err(self.reserve_error(&camera, refusal)),
                };
                if let Err(error) = &result {
                    self.journal.refused(&reservation, refusal_of(error));
                }
                let _ = reply.send(result);
            }
            (Waiting::Release(id, reply), Reply::Release(released)) => {
                let released = released.map(|released| Released {
                    id: released.reservation,
                    source: released.source,
                    new_count: released.new_count,
                });
                let error = |refusal| self.lease_error(id.as_str(), refusal);
                let _ = reply.send(released.map_err(error));
            }
            (Waiting::Heartbeat(id, reply), Reply::Heartbeat(grant)) => {
                let error = |refusal| self.lease_error(id.as_str(), refusal);
                let _ = reply.send(grant.map(|grant| self.reservation(grant)).map_err(error));
            }
            (Waiting::Limit(reply), Reply::SetLimit(usage)) => {
                let _ = reply.send(usage.ok_or(LimitError::StoreLost));
            }
            (Waiting::Watch(watch), Reply::Watch(result)) => self.reply_watch(watch, result),
            (Waiting::Hold(reply, camera), Reply::Hold(held)) => {
                self.reply_hold(reply, &camera, held);
            }
            (Waiting::Read(reply), Reply::Read(reader)) => self.reply_read(reply, reader),
            (Waiting::Feed(waiting), Reply::Hold(held)) => self.reply_feed(waiting, held),
            (Waiting::EndWatch(reply), Reply::EndWatch(done))
            | (Waiting::StopSource(reply), Reply::StopSource(done)) => {
                let _ = reply.send(done);
            }
            (Waiting::Reset(command), Reply::Snapshot(leases)) => self.reset(command, leases),
            (Waiting::ResetDone(reply), Reply::Reset(done)) => {
                let _ = reply.send(done);
            }
            (Waiting::Snapshot(reply), Reply::Snapshot(leases)) => {
                // What was last known is nearer to the truth than nothing.
                let is_store_lost = leases.is_none();
                let known = leases.or_else(|| self.last_leases.take());
                let known = known.unwrap_or_else(|| self.no_leases());
                let snapshot = self.snapshot(&known, self.clock.now());
                let _ = reply.send(Snapshot { is_store_lost, ..snapshot });
                self.last_leases = Some(known);
            }
            (_, reply) => error!(?request, ?reply, "this reply answers another question"),
        }
    }

    fn reply_watch(&mut self, watch: WaitingWatch, result: Result<ViewerId, WatchRefusal>) {
        let WaitingWatch { reservation, camera, offer, answer, reply } = watch;
        let result = match (result, answer) {
            (Ok(viewer), Some(Ok(accepted))) => Ok(self.begin_peer(viewer, accepted, &offer)),
            (Err(WatchRefusal::UnknownCamera), _) => {
                Err(WatchError::UnknownCamera(camera.to_string()))
            }
            (Err(WatchRefusal::Offer), Some(Err(refused))) => Err(WatchError::Offer(refused)),
            (Err(WatchRefusal::Codec(mismatch)), _) => Err(WatchError::Codec(mismatch)),
            (Err(WatchRefusal::ShuttingDown), _) => Err(WatchError::ShuttingDown),
            (Err(WatchRefusal::ReservationEnded | WatchRefusal::Offer) | Ok(_), _) => {
                let over = Over(self.endings.of_reservation(&reservation));
                Err(WatchError::ReservationEnded(over))
            }
        };
        if let Err(refused) = &result {
            info!(camera_id = %camera, reservation_id = %reservation, reason = %refused, "viewer not let in");
            self.journal.step(&reservation, Step::OfferRefused { reason: refused.to_string() });
        }
        let _ = reply.send(result);
    }

    fn begin_peer(&mut self, viewer: ViewerId, accepted: Accepted, offer: &Offer) -> Watching {
        let resource = uuid::Uuid::new_v4().to_string();
        let etag = accepted.ice_ufrag;
        let peer = Peer {
            resource: resource.clone(),
            etag: etag.clone(),
            their_ufrag: accepted.their_ufrag,
            started: offer.started,
            is_checked: false,
            has_media: false,
            line: None,
        };
        self.peers.insert(viewer, peer);
        self.resources.insert(resource.clone(), viewer);
        Watching { resource, answer_sdp: accepted.answer_sdp, etag }
    }

    fn close_viewer(&mut self, viewer: ViewerId, cause: CloseCause) {
        if self.outlets.close_reader(viewer) {
            return;
        }
        if let (CloseCause::Ended(reason), Some(peer)) = (cause, self.peers.get(&viewer)) {
            self.endings.note(&peer.resource, reason, self.clock.now());
        }
        self.forget_peer(viewer);
        self.media.close(viewer, cause.as_str());
    }

    /// Before the ledger told anything.
    fn no_leases(&self) -> control::ledger::Snapshot {
        let total = Usage { current: 0, limit: self.quota.total() };
        control::ledger::Snapshot { leases: Vec::new(), sources: Vec::new(), total }
    }

    fn forget_peer(&mut self, viewer: ViewerId) {
        if let Some(peer) = self.peers.remove(&viewer) {
            self.resources.remove(&peer.resource);
        }
    }

    fn observe_join(&mut self, viewer: ViewerId) {
        if let Some(peer) = self.peers.get_mut(&viewer)
            && !std::mem::replace(&mut peer.has_media, true)
        {
            self.joins.observe(peer.started.elapsed());
        }
    }

    fn trickle(
        &self,
        resource: &str,
        etag: Option<&str>,
        fragment: String,
    ) -> Option<Result<(), ()>> {
        let viewer = self.resources.get(resource)?;
        let peer = self.peers.get(viewer)?;
        if etag.is_some_and(|etag| etag != peer.etag) {
            return Some(Err(()));
        }
        self.media.trickle(*viewer, fragment);
        Some(Ok(()))
    }

    fn restart_ice(
        &self,
        resource: &str,
        theirs: IceCredentials,
        reply: oneshot::Sender<Option<IceRestart>>,
    ) {
        let found = self.resources.get(resource);
        let Some((viewer, peer)) =
            found.and_then(|viewer| Some((*viewer, self.peers.get(viewer)?)))
        else {
            let _ = reply.send(None);
            return;
        };
        if peer.their_ufrag.as_ref() == Some(&theirs.ufrag) {
            let _ = reply.send(Some(IceRestart::Unchanged));
            return;
        }
        let (media, messages) = (self.media.clone(), self.messages.clone());
        tokio::spawn(async move {
            let their_ufrag = theirs.ufrag.clone();
            let result = media.restart_ice(viewer, theirs).await;
            // Failing means that the application has ended, and whoever asked is told so.
            let _ = messages.send(Message::Restarted { viewer, their_ufrag, result, reply });
        });
    }

    /// The camera that an operator means: by its own id, or by its pusher's name.
    fn camera_of_ingress(&self, ingress: CameraId) -> CameraId {
        if self.cameras.contains_key(&ingress) {
            return ingress;
        }
        let named = self.cameras.keys().find(|camera| camera.pusher_name() == ingress.as_str());
        named.cloned().unwrap_or(ingress)
    }

    fn reservation(&self, grant: Grant) -> Reservation {
        let Grant { lease, usage, watching } = grant;
        let camera = self.cameras.get(&lease.reservation.camera);
        Reservation {
            camera_name: camera.map(|camera| camera.definition.name.clone()).unwrap_or_default(),
            id: lease.reservation.id,
            camera: lease.reservation.camera,
            source: lease.reservation.source,
            quality: watching.quality,
            rendition: watching.rendition,
            switches: watching.switches,
            expires_at: self.clock.system_time(lease.expires_at),
            current_usage: usage.current,
            limit: usage.limit,
        }
    }

    fn reserve_error(&mut self, camera: &CameraId, refusal: ReserveRefusal) -> ReserveError {
        match refusal {
            ReserveRefusal::UnknownCamera => ReserveError::UnknownCamera(camera.to_string()),
            ReserveRefusal::CameraOffline(failure) => {
                ReserveError::CameraOffline(failure.to_string())
            }
            ReserveRefusal::Quota(exceeded) => {
                self.quota_figures.count_refusal(&exceeded.scope);
                self.quota_error(exceeded)
            }
            ReserveRefusal::Unavailable => ReserveError::StoreLost,
            // 122 random bits met twice: there is no better word for it.
            ReserveRefusal::IdTaken | ReserveRefusal::ShuttingDown => ReserveError::ShuttingDown,
        }
    }

    fn quota_error(&self, exceeded: Exceeded) -> ReserveError {
        let Exceeded { scope, usage, free_at } = exceeded;
        let (source_name, source_name_ar) = match &scope {
            Scope::Source(id) => {
                let source = self.sources.iter().find(|source| source.id == *id);
                source.map(|s| (s.name.clone(), s.name_ar.clone())).unwrap_or_default()
            }
            Scope::Total => ("all sources".to_owned(), "جميع الجهات".to_owned()),
            Scope::User(user) => (user.clone(), user.clone()),
        };
        ReserveError::QuotaExceeded {
            scope,
            source_name,
            source_name_ar,
            current: usage.current,
            limit: usage.limit,
            retry_after: free_at.map(|at| at.saturating_since(self.clock.now())),
        }
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

/// What the journal keeps of it.
fn refusal_of(error: &ReserveError) -> Refusal {
    let reason = error.to_string();
    match error {
        ReserveError::QuotaExceeded { .. } => Refusal::Quota(reason),
        ReserveError::UnknownCamera(_) | ReserveError::CameraOffline(_) => Refusal::Camera(reason),
        ReserveError::StoreLost | ReserveError::ShuttingDown => Refusal::Server(reason),
    }
}

/// Never resolves without a time.
async fn sleep_until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// A new reservation's id.
fn random_reservation() -> Option<ReservationId> {
    let text = uuid::Uuid::new_v4().hyphenated().to_string();
    ReservationId::parse(&text).ok()
}

/// How long a stream stays without viewers, so that its puller is gone `close_after` its last one:
/// TEARDOWN takes a round trip to the camera, and who asks after that time shall find nothing.
fn linger(close_after: Duration) -> Duration {
    const TEARDOWN_ALLOWANCE: Duration = Duration::from_millis(400);
    close_after - TEARDOWN_ALLOWANCE.min(close_after / 10)
}

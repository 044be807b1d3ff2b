//! The running application: drives the engine, executes what it asks for, and is what HTTP calls.
//!
//! [`App`] is a handle; behind it one task (`actor`) owns the engine and the ledger, so that every
//! call sees them between two whole steps. Frames do not pass through that task: a puller hands
//! them to the media plane itself (`pullers`). Nothing of HTTP or JSON is known here.

mod actor;
mod clock;
mod endings;
mod feeds;
mod grants;
mod joins;
mod limits;
mod outlets;
mod pages;
mod park;
mod publishing;
mod pullers;
mod reset;
mod snapshot;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use control::{CameraId, Class, ReservationId, Scope, Source};
use engine::CodecMismatch;
use secrecy::SecretString;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::audit::Audit;
use crate::cluster::{self, Cluster};
use crate::ingest::{Reach, RtspTransport, SourceUrl};
use crate::journal::Journal;
use crate::ledger::{LedgerPlace, StoreHealth, StoreStatus};
use crate::net::{IceCredentials, MediaEvent, MediaPlane, OfferError, Restarted};

use actor::{Actor, Command};

pub(crate) use control::Quality;
pub(crate) use engine::Rendition;
pub(crate) use feeds::FeedError;
#[cfg(test)]
pub(crate) use grants::RevocationFigures;
pub(crate) use grants::{Holder, KeyNumber, Permit};
pub(crate) use joins::JOIN_BUCKETS_MS;
pub(crate) use limits::{LeaseError, LimitError, Over};
pub(crate) use outlets::{Held, HoldError, ReadError, Reading};
pub(crate) use pages::PageName;
#[cfg(test)]
pub(crate) use park::ProbeFigures;
pub(crate) use park::{CameraChange, CameraOrigin, Probed, Unwatched};
pub(crate) use publishing::{Accepted, Credentials, KeyRefusal, PublishRefusal, Publishing};
pub(crate) use snapshot::{
    About, CameraSnapshot, Here, NodeSnapshot, RenditionSnapshot, ReservationSnapshot, Snapshot,
    SourceSnapshot, Stage,
};

/// Calls that wait for the actor. A call takes it microseconds; 1,024 of them are a burst of all
/// viewers of a full server at once, and those behind them wait in HTTP.
const MAX_WAITING_COMMANDS: usize = 1_024;

/// Offers that are being answered at once. Each holds its SDP of up to 256 KiB; a handshake thread
/// answers some 400 a second, so that the last of these waits 3 s.
const MAX_OFFERS: usize = 1_024;

/// How long the store may take to hear that this node leaves; other nodes wait for its leases else.
const LEAVE_TIME_MAX: Duration = Duration::from_millis(500);

/// Longest user name that is kept with a reservation, in characters. It is shown, never compared.
const MAX_USER_CHARACTERS: usize = 256;

/// What the application runs.
#[derive(Debug)]
pub(crate) struct AppConfig {
    /// The agencies, with their limits.
    pub(crate) sources: Vec<Source>,
    /// The park; each camera's source is among `sources`.
    pub(crate) cameras: Vec<CameraConfig>,
    /// The limits of the same sources and of all together.
    pub(crate) quota: control::Quota,
    /// Where leases are kept.
    pub(crate) ledger: LedgerPlace,
    /// Where it is kept who watched what.
    pub(crate) audit: Audit,
    /// Which node of which others this server is, if it is one.
    pub(crate) cluster: Option<cluster::Settings>,
}

/// A camera and how it is reached.
#[derive(Debug, Clone)]
pub(crate) struct CameraConfig {
    /// Who it is. `has_sub` is set from `sub`.
    pub(crate) definition: control::Camera,
    /// The full picture.
    pub(crate) main: SourceUrl,
    /// The smaller picture, if it has one.
    pub(crate) sub: Option<SourceUrl>,
    /// Who says that it is so.
    pub(crate) origin: CameraOrigin,
    /// Where its addresses may lead.
    pub(crate) reach: Reach,
    /// How RTP comes from it.
    pub(crate) transport: RtspTransport,
    /// `false` keeps its full picture running without viewers.
    pub(crate) on_demand: bool,
    /// How long it is kept after its last viewer.
    pub(crate) close_after: Duration,
    /// Changes when it is reached differently. The application counts; what others put here is not looked at.
    pub(crate) revision: u64,
}

/// Answer to reserve and heartbeat, without the token (HTTP signs it).
#[derive(Debug, Clone)]
pub(crate) struct Reservation {
    pub(crate) id: ReservationId,
    pub(crate) camera: CameraId,
    pub(crate) camera_name: String,
    pub(crate) source: control::SourceId,
    pub(crate) quality: Quality,
    /// Which of the camera's streams its viewer watches.
    pub(crate) rendition: Rendition,
    /// How often the viewer went from one stream to another.
    pub(crate) switches: u32,
    pub(crate) expires_at: SystemTime,
    /// Units that the source uses, this reservation included.
    pub(crate) current_usage: u32,
    pub(crate) limit: u32,
}

/// Why no reservation was made.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ReserveError {
    #[error("there is no camera {0}")]
    UnknownCamera(String),
    /// 409, with the camera's own sentence.
    #[error("{0}")]
    CameraOffline(String),
    /// 429.
    #[error("quota of {scope} is used up: {current} of {limit}")]
    QuotaExceeded {
        scope: Scope,
        source_name: String,
        source_name_ar: String,
        current: u32,
        limit: u32,
        /// When there is room if nobody leaves and nobody renews; `None`: the limit is 0.
        retry_after: Option<Duration>,
    },
    /// 503.
    #[error("{}", limits::STORE_LOST)]
    StoreLost,
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// A reservation that was ended on request.
#[derive(Debug, Clone)]
pub(crate) struct Released {
    pub(crate) id: ReservationId,
    pub(crate) source: control::SourceId,
    /// Units that the source still uses.
    pub(crate) new_count: u32,
}

/// Why a viewer was not let in.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WatchError {
    #[error("there is no camera {0}")]
    UnknownCamera(String),
    /// 410.
    #[error("{0}")]
    ReservationEnded(Over),
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// 406, with what would help.
    #[error("{0}")]
    Codec(CodecMismatch),
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// The answer to a viewer's offer.
#[derive(Debug)]
pub(crate) struct Watching {
    /// Unguessable; the last segment of the WHEP resource URL.
    pub(crate) resource: String,
    pub(crate) answer_sdp: String,
    /// The ICE user fragment, without quotes.
    pub(crate) etag: String,
}

/// What a viewer's ICE restart came to.
#[derive(Debug)]
pub(crate) enum IceRestart {
    /// The credentials are those that the viewer had: it only tells its candidates.
    Unchanged,
    /// What the viewer needs of our side.
    Done(Restarted),
}

/// Handle to the running application; cheap to clone. It ends when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct App {
    commands: mpsc::Sender<Command>,
    offers: Arc<Semaphore>,
    publishing: Publishing,
    journal: Journal,
    store: Arc<StoreStatus>,
    cluster: Option<Cluster>,
}

impl App {
    /// Starts the application on the current tokio runtime. `media_events` are those of `media`.
    pub(crate) fn start(
        config: AppConfig,
        media: MediaPlane,
        media_events: mpsc::UnboundedReceiver<MediaEvent>,
    ) -> Self {
        let (commands, inbox) = mpsc::channel(MAX_WAITING_COMMANDS);
        let journal = Journal::new(config.audit.clone());
        let cluster = config.cluster.clone().map(Cluster::start);
        let publishing = Publishing::new(config.cameras.iter(), media.clone(), cluster.clone());
        let actor = Actor::new(config, media, publishing.clone(), journal.clone(), cluster.clone());
        let store = actor.ledger.status();
        tokio::spawn(actor.run(inbox, media_events));
        let offers = Arc::new(Semaphore::new(MAX_OFFERS));
        Self { commands, offers, publishing, journal, store, cluster }
    }

    /// A handle to an application that has ended.
    #[cfg(test)]
    pub(crate) fn ended() -> Self {
        let (commands, _) = mpsc::channel(1);
        Self {
            commands,
            offers: Arc::new(Semaphore::new(1)),
            publishing: Publishing::nowhere(),
            journal: Journal::new(Audit::off()),
            store: Arc::new(StoreStatus::new("memory".to_owned())),
            cluster: None,
        }
    }

    pub(crate) async fn reserve(
        &self,
        camera: &str,
        user: &str,
        wish: (Quality, Class),
    ) -> Result<Reservation, ReserveError> {
        self.reserve_at(None, camera, user, wish).await
    }

    /// As `reserve`, for what is shown on a page that named itself: where it goes without a word, so does the
    /// reservation.
    pub(crate) async fn reserve_at(
        &self,
        page: Option<PageName>,
        camera: &str,
        user: &str,
        (quality, class): (Quality, Class),
    ) -> Result<Reservation, ReserveError> {
        let unknown = || ReserveError::UnknownCamera(shortened(camera));
        let camera = CameraId::parse(camera).map_err(|_| unknown())?;
        let user = user.chars().take(MAX_USER_CHARACTERS).collect();
        let make = |reply| Command::Reserve { camera, user, quality, class, page, reply };
        let reply = self.ask(make).await;
        reply.unwrap_or(Err(ReserveError::ShuttingDown))
    }

    /// Ends a lease.
    pub(crate) async fn release(&self, id: &str) -> Result<Released, LeaseError> {
        let over = LeaseError::Over(Over(None));
        let reservation = ReservationId::parse(id).map_err(|_| over)?;
        self.ask(|reply| Command::Release { reservation, reply }).await.unwrap_or(Err(over))
    }

    /// `extend` is clipped to what the policy allows; `quality` holds from here on, where it is given.
    pub(crate) async fn heartbeat(
        &self,
        id: &str,
        extend: Option<Duration>,
        quality: Option<Quality>,
    ) -> Result<Reservation, LeaseError> {
        let over = LeaseError::Over(Over(None));
        let reservation = ReservationId::parse(id).map_err(|_| over)?;
        let make = |reply| Command::Heartbeat { reservation, extend, quality, reply };
        self.ask(make).await.unwrap_or(Err(over))
    }

    /// How the reservation of a WHEP session ended, where the session is over and that is known.
    pub(crate) async fn ending_of(&self, resource: &str) -> Over {
        let resource = resource.to_owned();
        let ending = self.ask(|reply| Command::EndingOf { resource, reply }).await;
        Over(ending.flatten())
    }

    /// WHEP POST, after the token was verified. A second POST on one reservation replaces the first
    /// session as soon as its offer is answered. The viewer is sent away when `permit` is over.
    pub(crate) async fn watch(
        &self,
        reservation: &str,
        camera: &str,
        offer_sdp: String,
        permit: Permit,
    ) -> Result<Watching, WatchError> {
        let started = Instant::now();
        let unknown = || WatchError::UnknownCamera(shortened(camera));
        let camera = CameraId::parse(camera).map_err(|_| unknown())?;
        let reservation = ReservationId::parse(reservation)
            .map_err(|_| WatchError::ReservationEnded(Over(None)))?;
        let offers = Arc::clone(&self.offers);
        let turn = offers.acquire_owned().await.map_err(|_| WatchError::ShuttingDown)?;
        self.permit(reservation.clone(), permit).await;
        let make = |reply| Command::Watch {
            reservation,
            camera,
            offer: actor::Offer { sdp: offer_sdp, started, _permit: turn },
            reply,
        };
        self.ask(make).await.unwrap_or(Err(WatchError::ShuttingDown))
    }

    /// WHEP PATCH; `None`: no such session (404). Err: etag does not match (412).
    pub(crate) async fn trickle(
        &self,
        resource: &str,
        etag: Option<&str>,
        fragment: String,
    ) -> Option<Result<(), ()>> {
        let (resource, etag) = (resource.to_owned(), etag.map(ToOwned::to_owned));
        self.ask(|reply| Command::Trickle { resource, etag, fragment, reply }).await?
    }

    /// WHEP PATCH with new credentials of the viewer; `None`: no such session.
    pub(crate) async fn restart_ice(
        &self,
        resource: &str,
        theirs: IceCredentials,
    ) -> Option<IceRestart> {
        let resource = resource.to_owned();
        self.ask(|reply| Command::RestartIce { resource, theirs, reply }).await?
    }

    /// WHEP DELETE: the lease ends at once. False: no such session.
    pub(crate) async fn end_watch(&self, resource: &str) -> bool {
        let resource = resource.to_owned();
        self.ask(|reply| Command::EndWatch { resource, reply }).await.unwrap_or(false)
    }

    /// `DELETE /ingress/{id}`: stops a camera's puller; viewers stay, the puller returns with the
    /// next viewer, and after [`engine::STOPPED`] for them. `ingress` is the camera's id or its pusher's name. False: unknown.
    pub(crate) async fn stop_source(&self, ingress: &str) -> bool {
        let Ok(ingress) = CameraId::parse(ingress) else {
            return false;
        };
        self.ask(|reply| Command::StopSource { ingress, reply }).await.unwrap_or(false)
    }

    /// Those who publish to cameras.
    pub(crate) fn publishing(&self) -> &Publishing {
        &self.publishing
    }

    /// How the store of leases is.
    pub(crate) fn store(&self) -> StoreHealth {
        self.store.health()
    }

    /// The other nodes, if there are any.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// The lives of reservations.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The audit trail.
    pub(crate) fn audit(&self) -> &Audit {
        self.journal.audit()
    }

    /// Makes a camera a new stream key, see [`Publishing::new_key`].
    pub(crate) async fn new_stream_key(
        &self,
        camera: CameraId,
    ) -> Result<SecretString, KeyRefusal> {
        let is_known = self.snapshot().await.cameras.iter().any(|known| known.about.id == camera);
        if !is_known {
            return Err(KeyRefusal::UnknownCamera(camera.to_string()));
        }
        self.publishing.new_key(camera, Rendition::Main)
    }

    /// Everything that stats, rooms, cameras, health and metrics show, at one instant.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        let snapshot = self.ask(|reply| Command::Snapshot { reply }).await;
        snapshot.unwrap_or_else(Snapshot::of_nothing)
    }

    /// What this node knows of itself; it asks nobody.
    pub(crate) async fn here(&self) -> Here {
        self.ask(|reply| Command::Here { reply }).await.unwrap_or_default()
    }

    /// Other nodes have these cameras: those that are published to may be pulled from there now.
    pub(crate) async fn origins_elsewhere(&self, cameras: Vec<CameraId>) {
        // Not taken: the actor has ended already.
        let _ = self.commands.send(Command::OriginsElsewhere { cameras }).await;
    }

    /// Tells all viewers, ends all leases and stops all sources; returns when that is done, after
    /// 3 s at the latest.
    pub(crate) async fn shutdown(&self) {
        // No answer: the actor has ended already.
        let _ = self.ask(|reply| Command::Shutdown { reply }).await;
        // Answered when all is heard that the media plane told before.
        let _ = self.ask(|reply| Command::Snapshot { reply }).await;
        if let Some(cluster) = &self.cluster {
            cluster.leave(LEAVE_TIME_MAX).await;
        }
    }

    /// Resolves when the application has ended by itself, which it does only when a part of it failed
    /// and does not come back.
    pub(crate) async fn failed(&self) {
        self.commands.closed().await;
    }

    /// Whether it has not.
    pub(crate) fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// `None`: the application has ended.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// What a client called a camera, short enough to be repeated to it.
fn shortened(camera: &str) -> String {
    camera.chars().take(CameraId::MAX_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{MediaConfig, Priority};

    #[tokio::test]
    async fn it_ends_when_a_part_of_the_media_plane_is_gone() {
        let (events, events_in) = mpsc::unbounded_channel();
        let udp = "127.0.0.1:0".parse().unwrap();
        let tcp = crate::net::MediaTcp::Off;
        let media = MediaConfig {
            udp,
            tcp,
            advertise: Vec::new(),
            workers: Some(1),
            priority: Priority::Ordinary,
        };
        let media = MediaPlane::start(&media, events.clone()).unwrap();
        let quota = control::Quota::new(control::Unit::Viewer, 1, []);
        let config = AppConfig {
            sources: Vec::new(),
            cameras: Vec::new(),
            quota,
            ledger: LedgerPlace::Memory,
            audit: Audit::off(),
            cluster: None,
        };
        let app = App::start(config, media, events_in);
        assert!(app.is_running() && app.snapshot().await.total_limit == 1);
        events.send(MediaEvent::Failed).unwrap();
        tokio::time::timeout(Duration::from_secs(20), app.failed()).await.unwrap();
        assert!(!app.is_running());
    }
}

//! What the actor is asked and told, and who waits for which of its answers. Nothing is done here.

use std::time::{Duration, Instant};

use control::{CameraId, Class, Quality, ReservationId, Usage};
use engine::{EndReason, OpId, RequestId};
use media::{Codec, StreamId, ViewerId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::super::feeds::{FeedAnswered, FeedCommand, WaitingFeed};
use super::super::grants::GrantCommand;
use super::super::limits::{LimitCommand, LimitError};
use super::super::outlets::{OutletCommand, OutletMessage};
use super::super::pages::{PageCommand, PageName};
use super::super::park::ParkCommand;
use super::super::reset::ResetCommand;
use super::super::snapshot::{Here, Snapshot};
use super::super::{
    Held, HoldError, IceRestart, LeaseError, ReadError, Reading, Released, Reservation,
    ReserveError, WatchError, Watching,
};
use crate::ledger::News;
use crate::net::{Accepted, IceCredentials, OfferError, Restarted};

/// A call of [`crate::app::App`].
pub(in crate::app) enum Command {
    OriginsElsewhere {
        cameras: Vec<CameraId>,
    },
    Reserve {
        camera: CameraId,
        user: String,
        quality: Quality,
        class: Class,
        /// The page that shows it, where it named itself.
        page: Option<PageName>,
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
    /// Of pages that come and go.
    Page(PageCommand),
    /// Of those who change the park.
    Park(ParkCommand),
    /// Of other nodes.
    Feed(FeedCommand),
    /// The end of all reservations and pullers of a camera, or of all.
    Reset(ResetCommand),
    Snapshot {
        reply: oneshot::Sender<Snapshot>,
    },
    Here {
        reply: oneshot::Sender<Here>,
    },
    Shutdown {
        reply: oneshot::Sender<()>,
    },
}

/// A viewer's offer under way.
pub(in crate::app) struct Offer {
    pub(in crate::app) sdp: String,
    /// When the WHEP POST came.
    pub(in crate::app) started: Instant,
    /// Bounds the offers under way; given back with the reply.
    pub(in crate::app) _permit: OwnedSemaphorePermit,
}

/// What the actor's own tasks and outlets tell it. Bounded by them: one answer an offer, a source is
/// live once an attempt and a change of format, an outlet says every few seconds that it lives.
pub(in crate::app) enum Message {
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
pub(in crate::app) enum Waiting {
    Reserve {
        reservation: ReservationId,
        camera: CameraId,
        page: Option<PageName>,
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

pub(in crate::app) struct WaitingWatch {
    pub(super) reservation: ReservationId,
    pub(super) camera: CameraId,
    pub(super) offer: Offer,
    pub(super) answer: Option<Result<Accepted, OfferError>>,
    pub(super) reply: oneshot::Sender<Result<Watching, WatchError>>,
}

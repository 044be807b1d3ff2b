//! Consumers of frames inside this process: readers with a lease, and holds without one.
//!
//! An RTSP reader is a viewer: it has a reservation, which ends with its [`Reading`]. A description or
//! a still picture needs a stream for a moment only: a [`Held`] keeps its source running and takes no
//! quota. Both end when they are dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::{CameraId, ReservationId};
use engine::{
    HoldId, HoldRefusal, Reader, Rendition, Request, SourceFailure, ViewerEvent, WatchRefusal,
};
use media::viewer::TrackFigures;
use media::{PacketisedFrame, StreamId, ViewerId};
use tokio::sync::{mpsc, oneshot};

use super::actor::{Actor, Command, Message, Waiting};
use super::{App, Permit, shortened};
use crate::ingest::SourceFormat;
use crate::net::{CloseReason, Tap, Tapped};

/// Why a stream is not there for a moment.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum HoldError {
    #[error("there is no camera {0}")]
    UnknownCamera(String),
    #[error("camera {0} has no smaller picture; ask for it without /sub")]
    NoSub(String),
    /// With the camera's own sentence.
    #[error("{0}")]
    CameraOffline(String),
    #[error("too many pictures of cameras are asked for at once; ask again in a moment")]
    TooMany,
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Why a reservation cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the reservation has ended; reserve again")]
    ReservationEnded,
    /// A reservation is for one stream, as its quality says.
    #[error(
        "the reservation is for the camera's other picture; reserve with quality \"high\", or \"low\" for \
         /sub"
    )]
    OtherStream,
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// A stream whose source runs as long as this lives, 30 s at most.
#[derive(Debug)]
pub(crate) struct Held {
    tap: Tap,
    /// Which stream.
    pub(crate) stream: StreamId,
    ended: oneshot::Receiver<Option<SourceFailure>>,
    /// Tells the actor by being dropped.
    _guard: Guard,
}

impl Held {
    /// The stream's next keyframe, which is there already where it is live. `Err` when the source
    /// failed, or ended for another reason (`None`); not to be called again after that.
    pub(crate) async fn keyframe(&mut self) -> Result<Arc<PacketisedFrame>, Option<SourceFailure>> {
        tokio::select! {
            keyframe = self.tap.keyframe() => keyframe.ok_or(None),
            ended = &mut self.ended => Err(ended.ok().flatten()),
        }
    }
}

/// A viewer's reading, from its begin to its end. Its lease ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Reading {
    tap: Tap,
    viewer: ViewerId,
    /// Frames' packets that were taken, as if each had left.
    sent: TrackFigures,
    ended: oneshot::Receiver<()>,
    has_ended: bool,
    guard: Guard,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.guard.farewell = Some(OutletMessage::Gone { viewer: self.viewer, sent: self.sent });
    }
}

impl Reading {
    /// The next frames; `None` when the lease has ended, and from then on. Cancel-safe.
    pub(crate) async fn next_tapped(&mut self) -> Option<Tapped> {
        if self.has_ended {
            return None;
        }
        let tapped = tokio::select! {
            biased;
            // Either way the actor's end is gone.
            _ = &mut self.ended => None,
            tapped = self.tap.next() => tapped,
        };
        self.has_ended = tapped.is_none();
        match &tapped {
            Some(Tapped::Group { frames, .. }) => frames.iter().for_each(|frame| self.count(frame)),
            Some(Tapped::Frame(frame)) => self.count(frame),
            None => {}
        }
        tapped
    }

    fn count(&mut self, frame: &PacketisedFrame) {
        self.sent.packets += frame.packet_count() as u64;
        self.sent.octets += frame.payload_bytes() as u64;
    }

    /// The consumer is there. To be told every few seconds; the lease ends 15 s after the last time.
    pub(crate) fn alive(&self) {
        let message =
            OutletMessage::Alive { viewer: self.viewer, at: Instant::now(), sent: self.sent };
        self.guard.tell(message);
    }
}

/// Tells the actor when it is dropped.
#[derive(Debug)]
struct Guard {
    messages: mpsc::UnboundedSender<Message>,
    farewell: Option<OutletMessage>,
}

impl Guard {
    fn tell(&self, message: OutletMessage) {
        // Nobody listens any more only while the application ends.
        let _ = self.messages.send(Message::Outlet(message));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(farewell) = self.farewell.take() {
            self.tell(farewell);
        }
    }
}

/// A call of the methods below.
pub(super) enum OutletCommand {
    Hold {
        camera: CameraId,
        rendition: Rendition,
        reply: oneshot::Sender<Result<Held, HoldError>>,
    },
    Read {
        reservation: ReservationId,
        camera: CameraId,
        stream: StreamId,
        reply: oneshot::Sender<Result<Reading, ReadError>>,
    },
    Format {
        stream: StreamId,
        reply: oneshot::Sender<Option<(SourceFormat, Duration)>>,
    },
}

/// What outlets tell of themselves.
#[derive(Debug)]
pub(super) enum OutletMessage {
    LetGo(HoldId),
    Alive { viewer: ViewerId, at: Instant, sent: TrackFigures },
    Gone { viewer: ViewerId, sent: TrackFigures },
}

impl App {
    /// A stream for a moment, without a lease: its source is started where it does not run.
    pub(crate) async fn hold(&self, camera: &str, rendition: Rendition) -> Result<Held, HoldError> {
        let id =
            CameraId::parse(camera).map_err(|_| HoldError::UnknownCamera(shortened(camera)))?;
        let make = |reply| Command::Outlet(OutletCommand::Hold { camera: id, rendition, reply });
        self.ask(make).await.unwrap_or(Err(HoldError::ShuttingDown))
    }

    /// Frames of `held` on a reservation, which ends with them. A second reading, or a browser on the same
    /// reservation, takes the place of the first. It ends when `permit` is over; without one, with its lease.
    pub(crate) async fn read(
        &self,
        reservation: ReservationId,
        camera: &str,
        held: &Held,
        permit: Option<Permit>,
    ) -> Result<Reading, ReadError> {
        let camera = CameraId::parse(camera).map_err(|_| ReadError::ReservationEnded)?;
        let stream = held.stream;
        if let Some(permit) = permit {
            self.permit(reservation.clone(), permit).await;
        }
        let make =
            |reply| Command::Outlet(OutletCommand::Read { reservation, camera, stream, reply });
        self.ask(make).await.unwrap_or(Err(ReadError::ShuttingDown))
    }

    /// What a stream's source sends, and for how long; `None` before it is live.
    pub(crate) async fn format(&self, stream: StreamId) -> Option<(SourceFormat, Duration)> {
        self.ask(|reply| Command::Outlet(OutletCommand::Format { stream, reply })).await?
    }
}

/// Who is told when what he has ends. Bounded by the leases and [`engine::MAX_HOLDS`].
#[derive(Debug, Default)]
pub(super) struct Outlets {
    holds: HashMap<HoldId, oneshot::Sender<Option<SourceFailure>>>,
    readers: HashMap<ViewerId, oneshot::Sender<()>>,
}

impl Outlets {
    pub(super) fn end_hold(&mut self, hold: HoldId, failure: Option<SourceFailure>) {
        if let Some(holder) = self.holds.remove(&hold) {
            // He may just have let go.
            let _ = holder.send(failure);
        }
    }

    /// Whether there was such a reader.
    pub(super) fn close_reader(&mut self, viewer: ViewerId) -> bool {
        self.readers.remove(&viewer).is_some()
    }

    /// Readers that there are.
    pub(super) fn readers(&self) -> usize {
        self.readers.len()
    }
}

impl Actor {
    pub(super) fn handle_outlet_command(&mut self, command: OutletCommand) {
        match command {
            OutletCommand::Hold { camera, rendition, reply } => {
                let waiting = Waiting::Hold(reply, camera.clone());
                self.ask(Request::Hold { camera, rendition }, waiting);
            }
            OutletCommand::Read { reservation, camera, stream, reply } => {
                let session = self.engine.session(&reservation);
                if session.is_some_and(|session| session.stream != stream) {
                    // Who asked may have hung up.
                    let _ = reply.send(Err(ReadError::OtherStream));
                    return;
                }
                self.ask(Request::Read { reservation, camera }, Waiting::Read(reply));
            }
            OutletCommand::Format { stream, reply } => {
                // Who asked may have hung up.
                let _ = reply.send(self.pullers.live(stream));
            }
        }
    }

    pub(super) fn handle_outlet_message(&mut self, message: OutletMessage) {
        let now = self.clock.now();
        match message {
            OutletMessage::LetGo(hold) => {
                self.outlets.holds.remove(&hold);
                self.engine.handle_let_go(hold, now);
            }
            OutletMessage::Alive { viewer, at, sent } => {
                self.journal.read(viewer, sent);
                let at = self.clock.timestamp(at);
                self.engine.handle_viewer(viewer, ViewerEvent::Alive { at }, now);
            }
            OutletMessage::Gone { viewer, sent } => {
                self.journal.read_all(viewer, sent);
                self.outlets.readers.remove(&viewer);
                let closed = ViewerEvent::Closed(CloseReason::Peer);
                self.engine.handle_viewer(viewer, closed, now);
            }
        }
    }

    pub(super) fn reply_hold(
        &mut self,
        reply: oneshot::Sender<Result<Held, HoldError>>,
        camera: &CameraId,
        held: Result<(HoldId, StreamId), HoldRefusal>,
    ) {
        let held = held.map_err(|refusal| hold_error(camera, refusal)).map(|(hold, stream)| {
            let (ending, ended) = oneshot::channel();
            self.outlets.holds.insert(hold, ending);
            let _guard = self.guard(OutletMessage::LetGo(hold));
            Held { tap: self.media.tap(stream), stream, ended, _guard }
        });
        // Who asked may have hung up; the hold is then dropped and lets go.
        let _ = reply.send(held);
    }

    pub(super) fn reply_read(
        &mut self,
        reply: oneshot::Sender<Result<Reading, ReadError>>,
        reader: Result<Reader, WatchRefusal>,
    ) {
        let reading = match reader {
            Ok(Reader { viewer, stream }) => {
                let (ending, ended) = oneshot::channel();
                self.outlets.readers.insert(viewer, ending);
                let sent = TrackFigures::default();
                let guard = self.guard(OutletMessage::Gone { viewer, sent });
                let tap = self.media.tap(stream);
                Ok(Reading { tap, viewer, sent, ended, has_ended: false, guard })
            }
            Err(WatchRefusal::ShuttingDown) => Err(ReadError::ShuttingDown),
            // Without its camera, or with an offer that nobody made, there is no reservation either.
            Err(
                WatchRefusal::UnknownCamera
                | WatchRefusal::ReservationEnded
                | WatchRefusal::Offer
                | WatchRefusal::Codec(_),
            ) => Err(ReadError::ReservationEnded),
        };
        // Who asked may have hung up; the reading is then dropped and ends its lease.
        let _ = reply.send(reading);
    }

    fn guard(&self, farewell: OutletMessage) -> Guard {
        Guard { messages: self.messages.clone(), farewell: Some(farewell) }
    }
}

pub(super) fn hold_error(camera: &CameraId, refusal: HoldRefusal) -> HoldError {
    match refusal {
        HoldRefusal::UnknownCamera => HoldError::UnknownCamera(camera.to_string()),
        HoldRefusal::NoSub => HoldError::NoSub(camera.to_string()),
        HoldRefusal::CameraOffline(failure) => HoldError::CameraOffline(failure.to_string()),
        HoldRefusal::TooMany => HoldError::TooMany,
        HoldRefusal::ShuttingDown => HoldError::ShuttingDown,
    }
}

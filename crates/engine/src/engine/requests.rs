//! What clients ask for.

use control::{CameraId, Class, LedgerOp, Quality, Reservation, ReservationId, Timestamp};
use media::{StreamId, ViewerId};
use tracing::info;

use super::{Accepting, Engine, Pending};
use crate::failure::SourceFailure;
use crate::io::{Action, Grant, Reply, Request, RequestId, ReserveRefusal, WatchRefusal};
use crate::note::EndReason;
use crate::stream::{Condition, StreamEvent};

impl Engine {
    /// Takes a request; its one reply is an [`Action::Reply`] with the same id, at once or later.
    pub fn handle_request(&mut self, id: RequestId, request: Request, now: Timestamp) {
        match request {
            Request::Reserve { reservation, camera, user, quality, class } => {
                self.reserve(id, &camera, (reservation, class), user, quality, now);
            }
            Request::Release { reservation } => {
                self.apply(LedgerOp::Release(reservation), Pending::Release { request: Some(id) });
            }
            Request::SetLimit { source, limit } => {
                self.apply(LedgerOp::SetLimit { source, limit }, Pending::SetLimit { request: id });
            }
            Request::Heartbeat { reservation, extend, quality } => {
                if let Some(quality) = quality {
                    self.ask_for(&reservation, quality, now);
                }
                let pending = Pending::Heartbeat { request: id, reservation: reservation.clone() };
                self.apply(LedgerOp::Heartbeat { id: reservation, extend }, pending);
            }
            Request::Watch { reservation, camera } => self.watch(id, reservation, &camera, now),
            Request::Read { reservation, camera } => self.read(id, reservation, &camera, now),
            Request::Hold { camera, rendition } => self.hold(id, &camera, rendition, now),
            Request::Feed { camera, rendition } => self.feed(id, &camera, rendition, now),
            Request::EndWatch { viewer } => self.end_watch(id, viewer, now),
            Request::Revoke { reservation, cause } => {
                self.end_session(&reservation, EndReason::Revoked(cause), now);
                self.apply(LedgerOp::Release(reservation), Pending::Release { request: Some(id) });
            }
            Request::StopSource { camera } => self.stop_source(id, &camera, now),
            Request::Reset { camera, leases } => self.reset(id, camera.as_ref(), leases, now),
            Request::Snapshot => {
                self.apply(LedgerOp::Snapshot, Pending::Snapshot { request: id });
            }
        }
    }

    fn reserve(
        &mut self,
        request: RequestId,
        camera: &CameraId,
        (reservation, class): (ReservationId, Class),
        user: String,
        quality: Quality,
        now: Timestamp,
    ) {
        match self.may_reserve(camera, quality, now) {
            Ok(source) => {
                let camera = camera.clone();
                let pending = Pending::Reserve {
                    request,
                    camera: camera.clone(),
                    reservation: reservation.clone(),
                };
                let reservation =
                    Reservation { id: reservation, camera, source, user, quality, class };
                self.apply(LedgerOp::Reserve(reservation), pending);
            }
            Err(refusal) => {
                self.reply_reserve(request, camera, &reservation, Err(refusal));
            }
        }
    }

    pub(super) fn reply_reserve(
        &mut self,
        request: RequestId,
        camera: &CameraId,
        reservation: &ReservationId,
        result: Result<Grant, ReserveRefusal>,
    ) {
        if let Err(refusal) = &result {
            info!(camera_id = %camera, reservation_id = %reservation, ?refusal, "not reserved");
        }
        self.reply(request, Reply::Reserve(result));
    }

    /// The source whose quota a reservation would use, unless it is refused before the ledger.
    fn may_reserve(
        &mut self,
        camera: &CameraId,
        quality: Quality,
        now: Timestamp,
    ) -> Result<control::SourceId, ReserveRefusal> {
        if self.is_shutting_down {
            return Err(ReserveRefusal::ShuttingDown);
        }
        let entry = self.cameras.get(camera).ok_or(ReserveRefusal::UnknownCamera)?;
        let source = entry.spec.camera.source.clone();
        let stream = self.first_stream(entry, quality);
        match self.failure_of(stream) {
            Some(failure) => {
                self.probe(stream, now);
                Err(ReserveRefusal::CameraOffline(failure))
            }
            None => Ok(source),
        }
    }

    /// Why the last attempt at a stream failed, if none succeeded since.
    pub(super) fn failure_of(&self, stream: StreamId) -> Option<SourceFailure> {
        match self.streams.get(&stream)?.condition() {
            Condition::Failed(failure) => Some(failure.clone()),
            Condition::Idle | Condition::Connecting | Condition::Live | Condition::Closing => None,
        }
    }

    /// Tries a failed stream that nobody watches anew, if the wait after its failure is over: a
    /// repaired camera is found by the next one who asks for it.
    pub(super) fn probe(&mut self, stream: StreamId, now: Timestamp) {
        if self.streams.get(&stream).is_some_and(|stream| stream.retry_at <= now) {
            self.drive(stream, StreamEvent::Probe, now);
        }
    }

    fn watch(
        &mut self,
        request: RequestId,
        reservation: ReservationId,
        camera: &CameraId,
        now: Timestamp,
    ) {
        let stream = match self.may_watch(&reservation, camera) {
            Ok(stream) => stream,
            Err(refusal) => return self.reply(request, Reply::Watch(Err(refusal))),
        };
        let viewer = ViewerId(self.next_viewer);
        self.next_viewer += 1;
        self.accepting.insert(viewer, Accepting { request, reservation, stream });
        self.actions.push_back(Action::AcceptViewer { request, viewer, stream });
        // A source that an operator stopped returns at once with the next viewer.
        self.drive(stream, StreamEvent::Joined, now);
    }

    pub(super) fn may_watch(
        &self,
        reservation: &ReservationId,
        camera: &CameraId,
    ) -> Result<StreamId, WatchRefusal> {
        if self.is_shutting_down {
            return Err(WatchRefusal::ShuttingDown);
        }
        if !self.cameras.contains_key(camera) {
            return Err(WatchRefusal::UnknownCamera);
        }
        let session = self.sessions.get(reservation);
        let session = session.filter(|session| session.reservation.camera == *camera);
        session.map(|session| session.stream).ok_or(WatchRefusal::ReservationEnded)
    }

    fn end_watch(&mut self, request: RequestId, viewer: ViewerId, now: Timestamp) {
        let Some(reservation) = self.viewers.get(&viewer).cloned() else {
            return self.reply(request, Reply::EndWatch(false));
        };
        self.end_session(&reservation, EndReason::Ended, now);
        self.apply(LedgerOp::Release(reservation), Pending::Release { request: None });
        self.reply(request, Reply::EndWatch(true));
    }

    fn stop_source(&mut self, request: RequestId, camera: &CameraId, now: Timestamp) {
        let Some(entry) = self.cameras.get(camera) else {
            return self.reply(request, Reply::StopSource(false));
        };
        info!(camera_id = %camera, "source is stopped on request, it returns with the next viewer, and soon for those who stay");
        let streams: Vec<_> = entry.streams().collect();
        for stream in streams {
            self.stop_stream(stream, now);
        }
        self.reply(request, Reply::StopSource(true));
    }
}

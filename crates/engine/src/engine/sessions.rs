//! Sessions: a reservation's peer comes, changes and goes.

use control::{Lease, LedgerOp, ReservationId, Timestamp};
use media::estimate::LineState;
use media::peers::CloseReason;
use media::{CodecSet, StreamId, ViewerId};
use tracing::{debug, info};

use super::{Accepting, Engine, Pending};
use crate::io::{Action, CloseCause, Reply, ViewerEvent, WatchRefusal};
use crate::note::{EndReason, Note};
use crate::session::{Session, SessionEvent, SessionState};
use crate::stream::StreamEvent;

impl Engine {
    /// Takes what the media plane tells of a peer. Peers that are not known any more are ignored.
    pub fn handle_viewer(&mut self, viewer: ViewerId, event: ViewerEvent, now: Timestamp) {
        match event {
            ViewerEvent::Accepted { codecs } => self.accepted(viewer, codecs, now),
            ViewerEvent::Refused => {
                self.refuse_watch(viewer, WatchRefusal::Offer);
            }
            ViewerEvent::Connected { handshake_ms } => self.connected(viewer, handshake_ms, now),
            ViewerEvent::Alive { at } => self.alive(viewer, at, now),
            ViewerEvent::FirstMedia => self.first_media(viewer),
            ViewerEvent::Switched { stream } => self.switched(viewer, stream, now),
            ViewerEvent::SwitchFailed { stream } => self.switch_failed(viewer, stream, now),
            ViewerEvent::Line { line, stream } => {
                self.line(viewer, &line, stream, now);
            }
            ViewerEvent::Closed(closed_by) => self.closed(viewer, closed_by, now),
        }
    }

    pub(super) fn begin_session(&mut self, lease: &Lease, stream: StreamId, now: Timestamp) {
        let reservation = lease.reservation.clone();
        let Some(on) = self.streams.get_mut(&stream) else {
            return;
        };
        let (camera_id, reservation_id) = (&reservation.camera, &reservation.id);
        // A hold may have started the source a moment before its first viewer.
        if on.reservations.is_empty() && (!on.state.pulls() || on.holds > 0) {
            info!(%camera_id, %reservation_id, user = ?reservation.user, "Creating new stream resources (first viewer)");
        } else {
            info!(%camera_id, %reservation_id, user = ?reservation.user, "Reusing existing stream resources for additional viewer");
        }
        on.reservations.insert(reservation.id.clone());
        on.active_since.get_or_insert(now);
        on.last_viewer = None;
        let (rendition, is_live) = (on.rendition, on.live_since.is_some());
        self.sessions.insert(lease.id().clone(), Session::new(lease, stream));
        let reservation = Box::new(reservation);
        self.note(lease.id(), Note::Begun { reservation, rendition });
        if is_live {
            self.note(lease.id(), Note::CameraLive);
        }
        self.drive(stream, StreamEvent::Joined, now);
        self.review(lease.id(), now);
    }

    /// Ends a session: its peer is closed and its stream let go. The lease is the caller's matter.
    pub(super) fn end_session(&mut self, id: &ReservationId, reason: EndReason, now: Timestamp) {
        let Some(mut session) = self.sessions.remove(id) else {
            return;
        };
        session.state = session.state.on(SessionEvent::LeaseEnded);
        if let Some(viewer) = session.viewer {
            self.viewers.remove(&viewer);
            let cause = CloseCause::Ended(reason);
            self.actions.push_back(Action::CloseViewer { viewer, cause });
        }
        let camera_id = &session.reservation.camera;
        info!(%camera_id, reservation_id = %id, reason = reason.as_str(), "reservation ended");
        self.note(id, Note::Ended(reason));
        self.forget_expectation(&session, now);
        let Some(stream) = self.streams.get_mut(&session.stream) else {
            return;
        };
        stream.reservations.remove(id);
        if stream.reservations.is_empty() {
            stream.active_since = None;
        }
        if !stream.reservations.is_empty() || !stream.expected.is_empty() {
            info!(%camera_id, reservation_id = %id, "Viewer disconnected - stream resources kept for remaining viewers");
            return;
        }
        if stream.warm {
            info!(%camera_id, reservation_id = %id, "Last viewer disconnected - stream kept warm");
            return;
        }
        if stream.holds > 0 {
            info!(%camera_id, reservation_id = %id, "Last viewer disconnected - stream kept for a moment, its picture is asked for");
            stream.last_viewer = Some(id.clone());
            return;
        }
        info!(%camera_id, reservation_id = %id, "Last viewer disconnected - cleaning up all stream resources");
        stream.last_viewer = Some(id.clone());
        self.drive(session.stream, StreamEvent::Emptied, now);
    }

    fn accepted(&mut self, viewer: ViewerId, codecs: CodecSet, now: Timestamp) {
        let Some(Accepting { request, reservation, stream }) = self.accepting.remove(&viewer)
        else {
            self.actions.push_back(Action::CloseViewer { viewer, cause: CloseCause::NotLetIn });
            return;
        };
        if let Err(mismatch) = self.check_codecs(&reservation, codecs, now) {
            let cause = CloseCause::Codec;
            self.actions.push_back(Action::CloseViewer { viewer, cause });
            self.reply(request, Reply::Watch(Err(WatchRefusal::Codec(mismatch))));
            return;
        }
        let is_there = self.is_of(&reservation, stream);
        let session = self.sessions.get_mut(&reservation);
        let Some(session) = session.filter(|_| is_there) else {
            self.actions.push_back(Action::CloseViewer { viewer, cause: CloseCause::NotLetIn });
            self.reply(request, Reply::Watch(Err(WatchRefusal::ReservationEnded)));
            return;
        };
        session.state = session.state.on(SessionEvent::Accepted);
        let camera_id = &session.reservation.camera;
        debug!(%camera_id, reservation_id = %reservation, viewer = viewer.0, "offer answered");
        if let Some(earlier) = session.viewer.replace(viewer) {
            info!(%camera_id, reservation_id = %reservation, "a new connection takes the place of the earlier one");
            self.viewers.remove(&earlier);
            self.actions
                .push_back(Action::CloseViewer { viewer: earlier, cause: CloseCause::Replaced });
        }
        session.forget_peer();
        session.codecs = codecs;
        self.viewers.insert(viewer, reservation.clone());
        self.note(&reservation, Note::Answered { viewer });
        self.reply(request, Reply::Watch(Ok(viewer)));
        // The earlier peer may have gone to another stream meanwhile.
        self.move_to(&reservation, stream, now);
        self.review(&reservation, now);
    }

    /// Whether a stream is one of the camera that a reservation is for. It may have been, until the camera was
    /// removed.
    fn is_of(&self, reservation: &ReservationId, stream: StreamId) -> bool {
        let session = self.sessions.get(reservation);
        let entry = session.and_then(|session| self.cameras.get(&session.reservation.camera));
        entry.is_some_and(|entry| entry.streams().any(|own| own == stream))
            && self.streams.contains_key(&stream)
    }

    fn refuse_watch(&mut self, viewer: ViewerId, refusal: WatchRefusal) {
        if let Some(accepting) = self.accepting.remove(&viewer) {
            self.reply(accepting.request, Reply::Watch(Err(refusal)));
        }
    }

    pub(super) fn connected(&mut self, viewer: ViewerId, handshake_ms: u32, now: Timestamp) {
        let Some(session) = self.session_of_mut(viewer) else {
            return;
        };
        session.state = session.state.on(SessionEvent::Connected);
        let (camera_id, reservation_id) = (&session.reservation.camera, &session.reservation.id);
        info!(%camera_id, %reservation_id, handshake_ms, "viewer connected");
        let (camera_id, reservation_id) = (camera_id.clone(), reservation_id.clone());
        let stream = session.stream;
        if self.streams.get(&stream).is_some_and(|stream| stream.reservations.len() > 1) {
            info!(%camera_id, %reservation_id, "Additional viewer joined existing stream");
        }
        self.media_seen(reservation_id.clone(), now);
        self.review(&reservation_id, now);
    }

    /// Before the peer is connected, its checks say nothing of media: the lease lives by heartbeats.
    fn alive(&mut self, viewer: ViewerId, at: Timestamp, now: Timestamp) {
        let Some(session) = self.session_of_mut(viewer) else {
            return;
        };
        if session.state == SessionState::Connected {
            let reservation = session.reservation.id.clone();
            session.adaptation.handle_time(now);
            self.review(&reservation, now);
            self.media_seen(reservation, at);
        }
    }

    /// What is told of a line counts for the stream that went over it.
    fn line(&mut self, viewer: ViewerId, line: &LineState, stream: StreamId, now: Timestamp) {
        let Some(session) = self.session_of_mut(viewer) else {
            return;
        };
        if session.stream == stream {
            let reservation = session.reservation.id.clone();
            session.adaptation.handle_line(line, now);
            self.review(&reservation, now);
        }
    }

    fn media_seen(&mut self, id: ReservationId, at: Timestamp) {
        let pending = Pending::MediaSeen { reservation: id.clone() };
        self.apply(LedgerOp::MediaSeen { id, at }, pending);
    }

    fn first_media(&mut self, viewer: ViewerId) {
        if let Some(session) = self.session_of_mut(viewer) {
            let (camera_id, reservation_id) =
                (&session.reservation.camera, &session.reservation.id);
            debug!(%camera_id, %reservation_id, "first media sent");
        }
    }

    fn closed(&mut self, viewer: ViewerId, closed_by: CloseReason, now: Timestamp) {
        // Closed before it was told that its offer was answered.
        self.refuse_watch(viewer, WatchRefusal::ReservationEnded);
        let Some(reservation) = self.viewers.remove(&viewer) else {
            return;
        };
        let event = match closed_by {
            CloseReason::Peer => SessionEvent::PeerLeft,
            CloseReason::NeverConnected
            | CloseReason::Handshake
            | CloseReason::Asked
            | CloseReason::ConsentExpired
            | CloseReason::Failed => SessionEvent::PeerFailed,
        };
        let Some(session) = self.sessions.get_mut(&reservation) else {
            return;
        };
        session.viewer = None;
        session.forget_peer();
        session.state = session.state.on(event);
        if session.state == SessionState::Ended {
            self.end_session(&reservation, EndReason::PeerLeft, now);
            self.apply(LedgerOp::Release(reservation), Pending::Release { request: None });
            return;
        }
        let camera_id = &session.reservation.camera;
        info!(%camera_id, reservation_id = %reservation, cause = closing_words(closed_by), "the viewer's connection did not come about");
        self.note(&reservation, Note::PeerGone(closed_by));
        self.settle_expectation(&reservation, now);
    }

    fn session_of_mut(&mut self, viewer: ViewerId) -> Option<&mut Session> {
        let reservation = self.viewers.get(&viewer)?;
        self.sessions.get_mut(reservation)
    }
}

/// The rung that failed, for the log.
const fn closing_words(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Peer => "the peer closed it",
        CloseReason::NeverConnected => "ICE or DTLS did not finish in time",
        CloseReason::Handshake => "ICE or DTLS failed",
        CloseReason::Asked => "it was closed on request",
        CloseReason::ConsentExpired => "no ICE check came for 30 s",
        CloseReason::Failed => "it failed inside the server",
    }
}

//! Which of a camera's streams a session watches, and how it gets to another one.
//!
//! A session watches one stream: it is among that stream's reservations. While it goes to the camera's
//! other stream, or waits for that one to work, it is among those whom the other stream expects, which
//! keeps the other's source running. The media plane has the last word: a session watches another
//! stream when it has told so, not before.

use control::{Quality, ReservationId, Timestamp};
use media::{Codec, CodecSet, StreamId, ViewerId};
use tracing::{debug, info};

use super::{CameraEntry, Engine};
use crate::adapt::SwitchReason;
use crate::failure::CodecMismatch;
use crate::io::{Action, CloseCause, Watching};
use crate::note::Note;
use crate::session::{Session, SessionEvent, SessionState, Switch};
use crate::stream::{Rendition, StreamEvent};

/// How often viewers went from one stream to another, by where to and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SwitchFigures {
    done: [[u64; SwitchReason::ALL.len()]; 2],
    failed: [[u64; SwitchReason::ALL.len()]; 2],
}

impl SwitchFigures {
    /// Where to, why, how many got there and how many did not; all combinations.
    pub fn rows(&self) -> impl Iterator<Item = (Rendition, SwitchReason, u64, u64)> + '_ {
        [Rendition::Main, Rendition::Sub].into_iter().flat_map(move |to| {
            SwitchReason::ALL.into_iter().map(move |reason| {
                let (row, column) = (to as usize, reason as usize);
                (to, reason, self.done[row][column], self.failed[row][column])
            })
        })
    }

    fn count_done(&mut self, to: Rendition, reason: SwitchReason) {
        self.done[to as usize][reason as usize] += 1;
    }

    fn count_failed(&mut self, to: Rendition, reason: SwitchReason) {
        self.failed[to as usize][reason as usize] += 1;
    }
}

impl CameraEntry {
    /// The stream of a rendition; the only one, where there is no other.
    fn stream(&self, rendition: Rendition) -> StreamId {
        match rendition {
            Rendition::Main => self.main,
            Rendition::Sub => self.sub.unwrap_or(self.main),
        }
    }

    /// The camera's stream beside `stream`, if it has two.
    fn other(&self, stream: StreamId) -> Option<StreamId> {
        let sub = self.sub?;
        Some(if stream == sub { self.main } else { sub })
    }
}

impl Engine {
    /// How often viewers went from one stream to another since the start.
    pub fn switches(&self) -> &SwitchFigures {
        &self.switches
    }

    /// The stream with which a new reservation begins.
    pub(super) fn first_stream(&self, entry: &CameraEntry, quality: Quality) -> StreamId {
        let preferred = entry.stream(crate::adapt::first_rendition(quality));
        self.destination(entry, preferred, CodecSet::ALL, preferred).unwrap_or(preferred)
    }

    /// The stream that suits best: the preferred one, unless it is known that it cannot be played and
    /// the other one may. `Err`: neither can, as far as is known.
    fn destination(
        &self,
        entry: &CameraEntry,
        preferred: StreamId,
        codecs: CodecSet,
        current: StreamId,
    ) -> Result<StreamId, CodecMismatch> {
        let mismatch = self.mismatch(preferred, codecs);
        if mismatch.is_none() && !self.is_unplayable(preferred) {
            return Ok(preferred);
        }
        let other = entry.other(preferred);
        let is_usable = |other: &StreamId| {
            self.mismatch(*other, codecs).is_none()
                && !self.is_unplayable(*other)
                && (!self.has_failed(*other) || *other == current)
        };
        match (other.filter(is_usable), mismatch) {
            (Some(other), _) => Ok(other),
            (None, None) => Ok(preferred),
            (None, Some(codec)) => {
                let other = other.and_then(|other| self.mismatch(other, codecs));
                Err(CodecMismatch { codec, other, has_sub: entry.sub.is_some() })
            }
        }
    }

    /// The codec of a live stream, where a viewer that takes `codecs` does not take it.
    fn mismatch(&self, stream: StreamId, codecs: CodecSet) -> Option<Codec> {
        self.streams.get(&stream)?.codec.filter(|codec| !codecs.contains(*codec))
    }

    /// Whether the last attempt failed for what concerns this stream alone.
    fn is_unplayable(&self, stream: StreamId) -> bool {
        let failure = self.streams.get(&stream).and_then(|stream| stream.failure.as_ref());
        failure.is_some_and(|failure| failure.is_of_stream())
    }

    fn has_failed(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.failure.is_some())
    }

    fn rendition_of(&self, stream: StreamId) -> Rendition {
        self.streams.get(&stream).map_or(Rendition::Main, |stream| stream.rendition)
    }

    /// Whether a viewer that takes `codecs` can be served on a session.
    pub(super) fn check_codecs(
        &self,
        id: &ReservationId,
        codecs: CodecSet,
        now: Timestamp,
    ) -> Result<(), CodecMismatch> {
        let Some(session) = self.sessions.get(id) else { return Ok(()) };
        let Some(entry) = self.cameras.get(&session.reservation.camera) else { return Ok(()) };
        let preferred = entry.stream(session.adaptation.rendition());
        self.destination(entry, preferred, codecs, session.stream)?;
        // It could only be brought to the other stream, which was tried just before in vain.
        match self.mismatch(session.stream, codecs).filter(|_| now < session.retry_at) {
            Some(codec) => Err(CodecMismatch { codec, other: None, has_sub: entry.sub.is_some() }),
            None => Ok(()),
        }
    }

    /// Another quality is asked for on a running session.
    pub(super) fn ask_for(&mut self, id: &ReservationId, quality: Quality, now: Timestamp) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.adaptation.handle_quality(quality);
            self.review(id, now);
        }
    }

    /// What a session's viewer sees.
    pub(super) fn watching(&self, id: &ReservationId) -> Option<Watching> {
        let session = self.sessions.get(id)?;
        Some(Watching {
            quality: session.adaptation.quality(),
            rendition: self.rendition_of(session.stream),
            switches: session.switches,
        })
    }

    /// What a viewer's camera does, its line or its wish has changed, or time has passed: sees to it
    /// that the session is on its way to the stream that suits it.
    pub(super) fn review(&mut self, id: &ReservationId, now: Timestamp) {
        let Some(session) = self.sessions.get(id).filter(|session| !session.is_reader) else {
            return;
        };
        let Some(entry) = self.cameras.get(&session.reservation.camera) else { return };
        let preferred = entry.stream(session.adaptation.rendition());
        let (current, asked) = (session.stream, session.switch.map(|switch| switch.to));
        let destination = match self.destination(entry, preferred, session.codecs, current) {
            Ok(destination) => destination,
            Err(mismatch) => return self.close_mismatched(id, mismatch, now),
        };
        // Who waits for a broken stream has it tried again.
        let waits = self.has_failed(preferred)
            && (destination != preferred || current != preferred || self.is_unplayable(preferred));
        let is_down = destination != current && self.has_failed(destination);
        let may_begin = !is_down && now >= session.retry_at;
        let reason =
            match (destination != preferred || session.has_strayed, session.adaptation.reason()) {
                (true, _) => SwitchReason::Source,
                (false, reason) => reason,
            };
        if let Some(session) = self.sessions.get_mut(id) {
            session.waits = waits;
        }
        let is_asked_for_other = asked.is_some_and(|asked| asked != current);
        if is_asked_for_other && (destination == current || is_down) {
            self.take_back(id, now);
        } else if destination != current && asked != Some(destination) && may_begin {
            self.go_to(id, Switch { to: destination, reason }, now);
        }
        let has_strayed = destination != preferred;
        if let Some(session) = self.sessions.get_mut(id)
            && session.stream == destination
        {
            session.has_strayed = has_strayed;
        }
        self.settle_expectation(id, now);
    }

    /// The same for all who watch a stream or are expected there.
    pub(super) fn review_stream(&mut self, stream: StreamId, now: Timestamp) {
        let Some(on) = self.streams.get(&stream) else { return };
        let concerned: Vec<_> = on.reservations.union(&on.expected).cloned().collect();
        for reservation in concerned {
            self.review(&reservation, now);
        }
    }

    /// Begins a switch. Without a peer there is nothing to wait for; while one connects, the switch
    /// begins when it is connected.
    fn go_to(&mut self, id: &ReservationId, switch: Switch, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        match (session.state, session.viewer) {
            (SessionState::Reserved, _) => self.move_to(id, switch.to, now),
            (SessionState::Connected, Some(viewer)) => {
                session.switch = Some(switch);
                let stream = switch.to;
                debug!(camera_id = %session.reservation.camera, reservation_id = %id, stream = stream.0, reason = switch.reason.as_str(), "viewer is to be switched");
                // The source first: the viewer's time to wait begins with the switch.
                self.settle_expectation(id, now);
                self.actions.push_back(Action::SwitchViewer { viewer, stream });
            }
            (SessionState::Negotiated | SessionState::Connected | SessionState::Ended, _) => {}
        }
    }

    /// The stream to which a session is going will not do: it stays where it is.
    fn take_back(&mut self, id: &ReservationId, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let (Some(switch), Some(viewer)) = (session.switch, session.viewer) else { return };
        let stream = session.stream;
        session.note_failed_switch(now);
        session.switch = Some(Switch { to: stream, reason: switch.reason });
        self.actions.push_back(Action::SwitchViewer { viewer, stream });
        self.count_failed(id, switch);
    }

    /// The camera's other stream is no more.
    pub(super) fn stay(&mut self, id: &ReservationId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.waits = false;
        let (Some(_), Some(viewer)) = (session.switch.take(), session.viewer) else { return };
        let stream = session.stream;
        self.actions.push_back(Action::SwitchViewer { viewer, stream });
    }

    fn count_failed(&mut self, id: &ReservationId, switch: Switch) {
        let to = self.rendition_of(switch.to);
        self.switches.count_failed(to, switch.reason);
        if let Some(session) = self.sessions.get(id) {
            let camera_id = &session.reservation.camera;
            info!(%camera_id, reservation_id = %id, rendition = to.as_str(), reason = switch.reason.as_str(), "viewer not switched: the stream brought no picture in time");
            self.note(id, Note::SwitchFailed { to, reason: switch.reason });
        }
    }

    /// The media plane tells: the viewer plays `stream` from here on.
    pub(super) fn switched(&mut self, viewer: ViewerId, stream: StreamId, now: Timestamp) {
        let Some(id) = self.viewers.get(&viewer).cloned() else { return };
        // A stream that was removed meanwhile: the viewer was told to come back.
        let Some(rendition) = self.streams.get(&stream).map(|stream| stream.rendition) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let before = session.stream;
        let reason = session.switch.map_or(SwitchReason::Quality, |switch| switch.reason);
        session.switch = session.switch.filter(|switch| switch.to != stream);
        if before != stream {
            session.switches += 1;
            session.forget_failed_switches();
            session.adaptation.handle_switched(rendition, now);
            let camera_id = &session.reservation.camera;
            info!(%camera_id, reservation_id = %id, rendition = rendition.as_str(), reason = reason.as_str(), "viewer switched");
            self.switches.count_done(rendition, reason);
            self.note(&id, Note::Switched { to: rendition, reason });
            self.move_to(&id, stream, now);
        }
        self.review(&id, now);
    }

    /// The media plane tells: `stream` brought the viewer nothing in time.
    pub(super) fn switch_failed(&mut self, viewer: ViewerId, stream: StreamId, now: Timestamp) {
        let Some(id) = self.viewers.get(&viewer).cloned() else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if stream == session.stream {
            // It was told to come back and did not: where it is, there is nothing any more.
            self.actions.push_back(Action::SwitchViewer { viewer, stream });
            return;
        }
        let Some(switch) = session.switch.filter(|switch| switch.to == stream) else { return };
        session.switch = None;
        session.note_failed_switch(now);
        let (codecs, current) = (session.codecs, session.stream);
        self.count_failed(&id, switch);
        match self.mismatch(current, codecs) {
            // There was nothing to see before, and there is no other way.
            Some(codec) => {
                let mismatch = CodecMismatch { codec, other: None, has_sub: true };
                self.close_mismatched(&id, mismatch, now);
            }
            None => self.review(&id, now),
        }
    }

    /// Nothing that the camera sends can be played by this viewer. The lease stays: a client that
    /// offers more codecs may come.
    fn close_mismatched(&mut self, id: &ReservationId, mismatch: CodecMismatch, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Some(viewer) = session.viewer.take() else { return };
        session.state = session.state.on(SessionEvent::PeerFailed);
        session.forget_peer();
        let camera_id = &session.reservation.camera;
        info!(%camera_id, reservation_id = %id, reason = %mismatch, "viewer closed");
        self.note(id, Note::Mismatched(mismatch));
        self.viewers.remove(&viewer);
        self.actions.push_back(Action::CloseViewer { viewer, cause: CloseCause::Codec });
        self.settle_expectation(id, now);
    }

    /// The session watches `stream` from here on, as far as reservations and sources go.
    pub(super) fn move_to(&mut self, id: &ReservationId, stream: StreamId, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(id).filter(|session| session.stream != stream)
        else {
            return;
        };
        let Some(to) = self.streams.get_mut(&stream) else { return };
        let before = std::mem::replace(&mut session.stream, stream);
        to.reservations.insert(id.clone());
        to.expected.remove(id);
        to.active_since.get_or_insert(now);
        to.last_viewer = None;
        self.drive(stream, StreamEvent::Joined, now);
        if let Some(from) = self.streams.get_mut(&before) {
            from.reservations.remove(id);
            if from.reservations.is_empty() {
                from.active_since = None;
            }
        }
        self.settle_expectation(id, now);
        self.let_go(before, now);
    }

    /// Brings in line whether the camera's other stream expects a session.
    pub(super) fn settle_expectation(&mut self, id: &ReservationId, now: Timestamp) {
        let Some(session) = self.sessions.get(id) else { return };
        let Some(entry) = self.cameras.get(&session.reservation.camera) else { return };
        let Some(other) = entry.other(session.stream) else { return };
        let is_expected = session.expects(other);
        let Some(stream) = self.streams.get_mut(&other) else { return };
        if is_expected && stream.expected.insert(id.clone()) {
            self.drive(other, StreamEvent::Joined, now);
        } else if !is_expected && stream.expected.remove(id) {
            self.let_go(other, now);
        }
    }

    /// A session that ends is expected nowhere any more.
    pub(super) fn forget_expectation(&mut self, session: &Session, now: Timestamp) {
        let entry = self.cameras.get(&session.reservation.camera);
        let Some(other) = entry.and_then(|entry| entry.other(session.stream)) else { return };
        let stream = self.streams.get_mut(&other);
        if stream.is_some_and(|stream| stream.expected.remove(&session.reservation.id)) {
            self.let_go(other, now);
        }
    }

    /// Lets a stream go that nobody wants any more.
    fn let_go(&mut self, stream: StreamId, now: Timestamp) {
        if self.streams.get(&stream).is_some_and(|stream| !stream.is_wanted()) {
            self.drive(stream, StreamEvent::Emptied, now);
        }
    }
}

//! What the engine shows of itself: for people, and for the tests that look for residue.

use control::{Camera, CameraId, Reservation, ReservationId, Timestamp};
use media::{StreamId, ViewerId};

use super::{CameraEntry, Engine};
use crate::session::{Session, SessionState};
use crate::stream::{Condition, Rendition, Stream};
use crate::timers::Timer;

/// A camera and its streams.
#[derive(Debug, Clone, Copy)]
pub struct CameraView<'a> {
    /// Who it is.
    pub camera: &'a Camera,
    /// It runs only while somebody watches.
    pub on_demand: bool,
    /// The full picture.
    pub main: StreamView<'a>,
    /// The smaller picture, if it has one.
    pub sub: Option<StreamView<'a>>,
}

impl<'a> CameraView<'a> {
    /// The stream that speaks for the camera: the smaller picture while it alone is watched, unless
    /// that is so because the full one does not work.
    pub fn leading(&self) -> StreamView<'a> {
        let Some(sub) = self.sub else { return self.main };
        match self.main.condition {
            Condition::Idle => sub,
            Condition::Closing | Condition::Connecting | Condition::Live
                if self.main.reservations == 0 && sub.reservations > 0 =>
            {
                sub
            }
            Condition::Closing | Condition::Connecting | Condition::Live => self.main,
            Condition::Failed(_) => self.main,
        }
    }

    /// All its streams.
    pub fn streams(&self) -> impl Iterator<Item = StreamView<'a>> + use<'a> {
        std::iter::once(self.main).chain(self.sub)
    }
}

/// A stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamView<'a> {
    /// Its id in the media plane.
    pub id: StreamId,
    /// Whose.
    pub camera: &'a CameraId,
    /// Which of the camera's streams.
    pub rendition: Rendition,
    /// What people see.
    pub condition: Condition<'a>,
    /// When the next attempt comes by itself; `None` while none is waited for.
    pub retry_at: Option<Timestamp>,
    /// A puller runs.
    pub is_pulling: bool,
    /// Attempts since the start.
    pub pulls_started: u64,
    /// Attempts that failed since the start.
    pub failures: u64,
    /// Live reservations on it.
    pub reservations: usize,
    /// Reservations that are on their way to it or wait for it to work, and watch the other stream.
    pub expected: usize,
    /// Since when there is a reservation on it without a gap.
    pub active_since: Option<Timestamp>,
}

/// A session.
#[derive(Debug, Clone, Copy)]
pub struct SessionView<'a> {
    /// What was granted.
    pub reservation: &'a Reservation,
    /// Where it stands.
    pub state: SessionState,
    /// Its peer.
    pub viewer: Option<ViewerId>,
    /// What it watches.
    pub stream: StreamId,
    /// Where it is going, while it is.
    pub switching_to: Option<StreamId>,
    /// When its lease runs out, as last heard from the ledger.
    pub expires_at: Timestamp,
}

/// What is left in an engine. All zero after everything ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Residue {
    /// Sessions.
    pub sessions: usize,
    /// Peers, and peers whose offers are being answered.
    pub viewers: usize,
    /// Streams that somebody wants.
    pub wanted_streams: usize,
    /// Streams held for a moment.
    pub holds: usize,
    /// Running pullers.
    pub pullers: usize,
    /// Ledger operations under way.
    pub ledger_ops: usize,
    /// Timers that are set.
    pub timers: usize,
    /// Actions that were not polled.
    pub actions: usize,
}

impl Residue {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Engine {
    /// Which stream of which camera this is.
    pub fn place_of(&self, stream: StreamId) -> Option<(CameraId, Rendition)> {
        let stream = self.streams.get(&stream)?;
        Some((stream.camera.clone(), stream.rendition))
    }

    /// A camera, by its id.
    pub fn camera(&self, id: &CameraId) -> Option<CameraView<'_>> {
        self.camera_view(self.cameras.get(id)?)
    }

    /// All cameras in the order of their ids.
    pub fn cameras(&self) -> impl Iterator<Item = CameraView<'_>> {
        self.cameras.values().filter_map(|entry| self.camera_view(entry))
    }

    /// A session, by its reservation.
    pub fn session(&self, id: &ReservationId) -> Option<SessionView<'_>> {
        self.sessions.get(id).map(Session::view)
    }

    /// All sessions in the order of their reservations' ids.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView<'_>> {
        self.sessions.values().map(Session::view)
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// What is left of sessions, streams and timers.
    pub fn residue(&self) -> Residue {
        let count = |test: fn(&Stream) -> bool| self.streams.values().filter(|s| test(s)).count();
        Residue {
            sessions: self.sessions.len(),
            viewers: self.viewers.len() + self.accepting.len(),
            wanted_streams: count(Stream::is_wanted),
            holds: self.holds.len(),
            pullers: count(|stream| stream.state.pulls()),
            ledger_ops: self.pending.len(),
            timers: self.timers.len(),
            actions: self.actions.len(),
        }
    }

    /// Derives anew what is kept twice, and checks what each state entails. `Err` says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        for (id, session) in &self.sessions {
            let stream = self.streams.get(&session.stream);
            if !stream.is_some_and(|stream| stream.reservations.contains(id)) {
                return Err(format!("stream {:?} does not know {id}", session.stream));
            }
            if let Some(viewer) = session.viewer
                && self.viewers.get(&viewer) != Some(id)
            {
                return Err(format!("{viewer:?} does not lead to {id}"));
            }
            if (session.state == SessionState::Reserved) != session.viewer.is_none() {
                return Err(format!("{id} is {:?} with peer {:?}", session.state, session.viewer));
            }
        }
        let peers = self.sessions.values().filter(|session| session.viewer.is_some()).count();
        if peers != self.viewers.len() {
            return Err(format!("{} peers are indexed, {peers} are there", self.viewers.len()));
        }
        let joined: usize = self.streams.values().map(|stream| stream.reservations.len()).sum();
        if joined != self.sessions.len() {
            return Err(format!("{joined} are on streams, {} are there", self.sessions.len()));
        }
        for (id, stream) in &self.streams {
            for reservation in &stream.expected {
                let session = self.sessions.get(reservation);
                if !session.is_some_and(|session| session.stream != *id && session.expects(*id)) {
                    return Err(format!("{id:?} expects {reservation} in vain"));
                }
            }
            let holds = self.holds.values().filter(|held| *held == id).count();
            if holds != stream.holds {
                return Err(format!("{id:?} counts {} holds, {holds} are there", stream.holds));
            }
        }
        self.check_retries()?;
        self.streams.values().try_for_each(Stream::check)
    }

    /// Who is wanted and has no puller gets one by itself.
    fn check_retries(&self) -> Result<(), String> {
        let is_timed = |on: &Stream| self.timers.is_set(Timer::Retry(on.id)) == on.awaits_retry();
        let wrong = self.streams.values().find(|on| !is_timed(on));
        wrong.map_or(Ok(()), |on| Err(format!("its next attempt is not timed: {on:?}")))
    }

    fn camera_view<'a>(&'a self, entry: &'a CameraEntry) -> Option<CameraView<'a>> {
        let view = |id: StreamId| self.streams.get(&id).map(Stream::view);
        Some(CameraView {
            camera: &entry.spec.camera,
            on_demand: entry.spec.on_demand,
            main: view(entry.main)?,
            sub: entry.sub.and_then(view),
        })
    }
}

impl Session {
    const fn view(&self) -> SessionView<'_> {
        SessionView {
            reservation: &self.reservation,
            state: self.state,
            viewer: self.viewer,
            stream: self.stream,
            switching_to: match self.switch {
                Some(switch) => Some(switch.to),
                None => None,
            },
            expires_at: self.expires_at,
        }
    }
}

impl Stream {
    fn view(&self) -> StreamView<'_> {
        StreamView {
            id: self.id,
            camera: &self.camera,
            rendition: self.rendition,
            condition: self.condition(),
            retry_at: self.awaits_retry().then_some(self.retry_at),
            is_pulling: self.state.pulls(),
            pulls_started: self.attempts,
            failures: self.failures,
            reservations: self.reservations.len(),
            expected: self.expected.len(),
            active_since: self.active_since,
        }
    }
}

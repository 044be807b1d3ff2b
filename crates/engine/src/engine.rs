//! The engine: cameras, streams, sessions and what is under way between them.
//!
//! **Invariant:** a session exists exactly while its lease does, as far as the ledger has told; a
//! stream's reservations are the sessions that name it. [`Engine::check`] derives both anew.

mod cameras;
mod holds;
mod outcomes;
mod readers;
mod renditions;
mod requests;
mod resets;
mod sessions;
mod streams;
mod views;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use control::{CameraId, LedgerOp, ReservationId, Timestamp};
use media::{StreamId, ViewerId};

use crate::backoff::SplitMix;
use crate::io::{Action, CameraSpec, HoldId, OpId, Reply, RequestId};
use crate::note::Note;
use crate::session::Session;
use crate::stream::Stream;
use crate::timers::{Timer, Timers};

pub use holds::{HOLD_TIME_MAX, MAX_FEEDS, MAX_HOLDS};
pub use renditions::SwitchFigures;
pub use views::{CameraView, Residue, SessionView, StreamView};

/// Most cameras. Twenty times the park that the server is built for (500), so that a wrong import
/// is cut off before it takes the memory.
pub const MAX_CAMERAS: usize = 10_000;

/// Shortest time between two requests for a keyframe to one source. Viewers of a busy stream ask at
/// every loss; a keyframe is several times as large as other frames, so that answering all of them
/// would cause the next loss.
pub const KEYFRAME_INTERVAL_MIN: Duration = Duration::from_millis(500);

/// How long a source that an operator stopped stays away from those who still watch it; a new viewer calls it
/// at once. Long enough to end their reservations as well, by hand, if that is what is meant.
pub const STOPPED: Duration = Duration::from_secs(5);

/// The engine. See the crate's documentation.
///
/// Its collections are bounded: sessions and viewers by [`control::MAX_LEASES`], cameras by
/// [`MAX_CAMERAS`], streams and timers by two a camera, holds by [`MAX_HOLDS`] and [`MAX_FEEDS`]; `accepting` and `pending` by the caller's
/// requests and viewer events under way; `actions` by what one input causes, since the caller
/// drains them after each.
#[derive(Debug)]
pub struct Engine {
    random: SplitMix,
    cameras: BTreeMap<CameraId, CameraEntry>,
    streams: BTreeMap<StreamId, Stream>,
    sessions: BTreeMap<ReservationId, Session>,
    /// The session of each peer that sessions name.
    viewers: BTreeMap<ViewerId, ReservationId>,
    /// Peers whose offers are being answered.
    accepting: BTreeMap<ViewerId, Accepting>,
    /// Ledger operations under way.
    pending: BTreeMap<OpId, Pending>,
    /// Streams that are needed for a moment, or by another node.
    holds: BTreeMap<HoldId, StreamId>,
    /// Those of other nodes among the holds.
    feeds: BTreeSet<HoldId>,
    timers: Timers,
    switches: SwitchFigures,
    actions: VecDeque<Action>,
    next_op: u64,
    next_stream: u32,
    next_viewer: u64,
    next_hold: u64,
    is_shutting_down: bool,
}

/// A camera and its streams.
#[derive(Debug)]
struct CameraEntry {
    spec: CameraSpec,
    main: StreamId,
    sub: Option<StreamId>,
}

impl CameraEntry {
    fn streams(&self) -> impl Iterator<Item = StreamId> {
        std::iter::once(self.main).chain(self.sub)
    }
}

/// A peer whose offer is being answered.
#[derive(Debug)]
struct Accepting {
    request: RequestId,
    reservation: ReservationId,
    /// With which it begins.
    stream: StreamId,
}

/// What a ledger operation was sent for.
#[derive(Debug)]
enum Pending {
    Reserve { request: RequestId, camera: CameraId, reservation: ReservationId },
    Release { request: Option<RequestId> },
    Heartbeat { request: RequestId, reservation: ReservationId },
    MediaSeen { reservation: ReservationId },
    SetLimit { request: RequestId },
    Snapshot { request: RequestId },
    Expire,
}

impl Engine {
    /// An engine without cameras. `seed` decides the jitter of all retries.
    pub fn new(seed: u64) -> Self {
        Self {
            random: SplitMix::new(seed),
            cameras: BTreeMap::new(),
            streams: BTreeMap::new(),
            sessions: BTreeMap::new(),
            viewers: BTreeMap::new(),
            accepting: BTreeMap::new(),
            pending: BTreeMap::new(),
            holds: BTreeMap::new(),
            feeds: BTreeSet::new(),
            timers: Timers::default(),
            switches: SwitchFigures::default(),
            actions: VecDeque::new(),
            next_op: 0,
            next_stream: 0,
            next_viewer: 0,
            next_hold: 0,
            is_shutting_down: false,
        }
    }

    /// The next thing to do. Call it until `None` after every `handle_*`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Engine::handle_timeout`] wants to be called next.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// Does what is due at `now`. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Lease => self.apply(LedgerOp::Expire, Pending::Expire),
                Timer::Retry(stream) => self.retry_due(stream, now),
                Timer::Close(stream) => self.close_due(stream, now),
                Timer::Hold(hold) => self.end_hold(hold, None, now),
            }
        }
    }

    fn apply(&mut self, ledger_op: LedgerOp, pending: Pending) {
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.pending.insert(op, pending);
        self.actions.push_back(Action::Ledger { op, ledger_op });
    }

    fn note(&mut self, reservation: &ReservationId, note: Note) {
        self.actions.push_back(Action::Note { reservation: reservation.clone(), note });
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        self.actions.push_back(Action::Reply(request, reply));
    }
}

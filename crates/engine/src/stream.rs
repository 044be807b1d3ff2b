//! The life of a stream: when its source runs, waits and is let go.
//!
//! A stream is one rendition of one camera. It is wanted while a reservation is on it or its camera
//! is kept warm. At most one puller runs for it, in the states that [`StreamState::pulls`] names.

use std::collections::BTreeSet;
use std::time::Duration;

use control::{CameraId, ReservationId, Timestamp};
use media::{Codec, StreamId};

use crate::backoff::Backoff;
use crate::failure::SourceFailure;

/// Which of a camera's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rendition {
    /// The full picture.
    Main,
    /// The smaller picture.
    Sub,
}

impl Rendition {
    /// `main` or `sub`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Sub => "sub",
        }
    }
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum StreamState {
    /// No puller, and no failure is known. Wanted only for [`crate::STOPPED`] after an operator stopped the
    /// source.
    Idle,
    /// Wanted; the first attempt runs.
    Connecting,
    /// Wanted; frames flow.
    Live,
    /// Wanted; the last attempt failed, the next one has its time.
    Waiting,
    /// Wanted; an attempt runs after a failure.
    Reconnecting,
    /// Not wanted; the last attempt failed.
    Failed,
    /// Not wanted; an attempt runs because somebody was refused for the last failure.
    Probing,
    /// Not wanted any more while the first attempt runs; kept for a moment.
    ClosingConnecting,
    /// Not wanted any more while frames flow; kept for a moment.
    ClosingLive,
}

/// What happens to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum StreamEvent {
    /// A viewer came, or the camera is kept warm from here on.
    Joined,
    /// Nobody wants it any more.
    Emptied,
    /// The running attempt has its first keyframe, or a new format.
    Live,
    /// The running attempt ended.
    Failed,
    /// The wait after a failure is over, or that after a stop. Comes only while somebody wants it.
    RetryDue,
    /// The moment for which it was kept is over.
    CloseDue,
    /// Somebody was refused for the last failure, and the wait after it is over.
    Probe,
    /// An operator stops the source, or its camera goes.
    Stop,
}

impl StreamState {
    /// The transition table.
    pub(crate) const fn on(self, event: StreamEvent) -> Self {
        use StreamEvent as On;
        match self {
            Self::Idle => match event {
                On::Joined | On::RetryDue => Self::Connecting,
                On::Emptied | On::Live | On::Failed => self,
                On::CloseDue | On::Probe | On::Stop => self,
            },
            Self::Connecting => match event {
                On::Emptied => Self::ClosingConnecting,
                On::Live => Self::Live,
                On::Failed => Self::Waiting,
                On::Stop => Self::Idle,
                On::Joined | On::RetryDue | On::CloseDue | On::Probe => self,
            },
            Self::Live => match event {
                On::Emptied => Self::ClosingLive,
                On::Failed => Self::Waiting,
                On::Stop => Self::Idle,
                On::Joined | On::Live | On::RetryDue | On::CloseDue | On::Probe => self,
            },
            Self::Waiting => match event {
                On::Emptied => Self::Failed,
                On::RetryDue => Self::Reconnecting,
                On::Stop => Self::Idle,
                On::Joined | On::Live | On::Failed | On::CloseDue | On::Probe => self,
            },
            // There is no picture to keep for the next viewer: it ends at once when emptied.
            Self::Reconnecting => match event {
                On::Emptied => Self::Failed,
                On::Live => Self::Live,
                On::Failed => Self::Waiting,
                On::Stop => Self::Idle,
                On::Joined | On::RetryDue | On::CloseDue | On::Probe => self,
            },
            Self::Failed => match event {
                On::Joined => Self::Waiting,
                On::Probe => Self::Probing,
                On::Stop => Self::Idle,
                On::Emptied | On::Live | On::Failed | On::RetryDue | On::CloseDue => self,
            },
            Self::Probing => match event {
                On::Joined => Self::Reconnecting,
                On::Live => Self::ClosingLive,
                On::Failed => Self::Failed,
                On::Stop => Self::Idle,
                On::Emptied | On::RetryDue | On::CloseDue | On::Probe => self,
            },
            Self::ClosingConnecting => match event {
                On::Joined => Self::Connecting,
                On::Live => Self::ClosingLive,
                On::Failed => Self::Failed,
                On::CloseDue | On::Stop => Self::Idle,
                On::Emptied | On::RetryDue | On::Probe => self,
            },
            Self::ClosingLive => match event {
                On::Joined => Self::Live,
                On::Failed => Self::Failed,
                On::CloseDue | On::Stop => Self::Idle,
                On::Emptied | On::Live | On::RetryDue | On::Probe => self,
            },
        }
    }

    /// Whether a puller runs.
    pub(crate) const fn pulls(self) -> bool {
        match self {
            Self::Connecting | Self::Live | Self::Reconnecting | Self::Probing => true,
            Self::ClosingConnecting | Self::ClosingLive => true,
            Self::Idle | Self::Waiting | Self::Failed => false,
        }
    }

    /// Whether the last attempt failed and none succeeded since.
    pub(crate) const fn has_failed(self) -> bool {
        match self {
            Self::Waiting | Self::Reconnecting | Self::Failed | Self::Probing => true,
            Self::Idle | Self::Connecting | Self::Live => false,
            Self::ClosingConnecting | Self::ClosingLive => false,
        }
    }

    /// Whether it is kept for a moment without being wanted.
    pub(crate) const fn is_closing(self) -> bool {
        match self {
            Self::ClosingConnecting | Self::ClosingLive => true,
            Self::Idle | Self::Connecting | Self::Live | Self::Waiting => false,
            Self::Reconnecting | Self::Failed | Self::Probing => false,
        }
    }
}

/// A camera's or a stream's state as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition<'a> {
    /// Nobody wants it.
    Idle,
    /// The first attempt runs.
    Connecting,
    /// Frames flow.
    Live,
    /// Frames may flow, but nobody wants it any more.
    Closing,
    /// The last attempt failed, and none succeeded since.
    Failed(&'a SourceFailure),
}

impl Condition<'_> {
    /// The state's word in the API.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Closing => "closing",
            Self::Failed(failure) => failure.state(),
        }
    }

    /// `ONLINE`, `OFFLINE` (not there at all) or `ERROR` (there, and of no use).
    pub const fn status(&self) -> &'static str {
        match self {
            Self::Idle | Self::Connecting | Self::Live | Self::Closing => "ONLINE",
            Self::Failed(failure) if failure.is_offline() => "OFFLINE",
            Self::Failed(_) => "ERROR",
        }
    }
}

/// One stream, as the engine keeps it. At most two a camera.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) camera: CameraId,
    pub(crate) rendition: Rendition,
    pub(crate) state: StreamState,
    /// Kept running without viewers.
    pub(crate) warm: bool,
    /// How long it is kept after its last viewer.
    pub(crate) close_after: Duration,
    /// Who needs its picture for a moment without watching. At most [`crate::MAX_HOLDS`].
    pub(crate) holds: usize,
    /// The live reservations on it.
    pub(crate) reservations: BTreeSet<ReservationId>,
    /// The reservations that are on their way to it, or wait for it to work. They are on the camera's
    /// other stream.
    pub(crate) expected: BTreeSet<ReservationId>,
    /// The codec of its picture while frames flow.
    pub(crate) codec: Option<Codec>,
    /// Since when there is a reservation on it without a gap.
    pub(crate) active_since: Option<Timestamp>,
    /// Who left last, until everything of the stream is cleaned up.
    pub(crate) last_viewer: Option<ReservationId>,
    /// Attempts since the start. The running one has this number.
    pub(crate) attempts: u64,
    /// Attempts that failed since the start.
    pub(crate) failures: u64,
    /// Present in the states after a failure, and only there.
    pub(crate) failure: Option<SourceFailure>,
    pub(crate) backoff: Backoff,
    /// After a failure or a stop: when the next attempt is allowed.
    pub(crate) retry_at: Timestamp,
    /// Since when frames flow.
    pub(crate) live_since: Option<Timestamp>,
    /// When the source was last asked for a keyframe.
    pub(crate) keyframe_asked_at: Option<Timestamp>,
}

impl Stream {
    pub(crate) fn new(id: StreamId, camera: CameraId, rendition: Rendition) -> Self {
        Self {
            id,
            camera,
            rendition,
            state: StreamState::Idle,
            warm: false,
            close_after: Duration::ZERO,
            holds: 0,
            reservations: BTreeSet::new(),
            expected: BTreeSet::new(),
            codec: None,
            active_since: None,
            last_viewer: None,
            attempts: 0,
            failures: 0,
            failure: None,
            backoff: Backoff::default(),
            retry_at: Timestamp::ZERO,
            live_since: None,
            keyframe_asked_at: None,
        }
    }

    /// Whether somebody wants it.
    pub(crate) fn is_wanted(&self) -> bool {
        let is_empty = self.reservations.is_empty() && self.expected.is_empty();
        self.warm || self.holds > 0 || !is_empty
    }

    /// Whether the next attempt comes by itself.
    pub(crate) fn awaits_retry(&self) -> bool {
        self.state == StreamState::Waiting || (self.state == StreamState::Idle && self.is_wanted())
    }

    /// Checks what its state entails. `Err` says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_wanted = match self.state {
            StreamState::Idle => self.is_wanted(),
            StreamState::Connecting
            | StreamState::Live
            | StreamState::Waiting
            | StreamState::Reconnecting => true,
            StreamState::Failed
            | StreamState::Probing
            | StreamState::ClosingConnecting
            | StreamState::ClosingLive => false,
        };
        let agrees = is_wanted == self.is_wanted()
            && self.failure.is_some() == self.state.has_failed()
            && self.reservations.is_empty() == self.active_since.is_none()
            && self.reservations.is_disjoint(&self.expected)
            && self.codec.is_some() == self.live_since.is_some()
            && (self.live_since.is_none() || self.state.pulls());
        if agrees { Ok(()) } else { Err(format!("its state entails something else: {self:?}")) }
    }

    /// What people see.
    pub(crate) fn condition(&self) -> Condition<'_> {
        if let Some(failure) = &self.failure {
            return Condition::Failed(failure);
        }
        match self.state {
            StreamState::Idle => Condition::Idle,
            StreamState::Live => Condition::Live,
            StreamState::ClosingConnecting | StreamState::ClosingLive => Condition::Closing,
            StreamState::Connecting
            | StreamState::Reconnecting
            | StreamState::Probing
            | StreamState::Waiting
            | StreamState::Failed => Condition::Connecting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::StreamEvent as On;
    use super::StreamState as Is;

    const EVENTS: [On; 8] = [
        On::Joined,
        On::Emptied,
        On::Live,
        On::Failed,
        On::RetryDue,
        On::CloseDue,
        On::Probe,
        On::Stop,
    ];

    /// A row a state, a column an event of [`EVENTS`]; `=` means that nothing changes.
    const TABLE: &str = "
                  Joined       Emptied           Live        Failed  RetryDue     CloseDue Probe   Stop
Idle              Connecting   =                 =           =       Connecting   =        =       =
Connecting        =            ClosingConnecting Live        Waiting =            =        =       Idle
Live              =            ClosingLive       =           Waiting =            =        =       Idle
Waiting           =            Failed            =           =       Reconnecting =        =       Idle
Reconnecting      =            Failed            Live        Waiting =            =        =       Idle
Failed            Waiting      =                 =           =       =            =        Probing Idle
Probing           Reconnecting =                 ClosingLive Failed  =            =        =       Idle
ClosingConnecting Connecting   =                 ClosingLive Failed  =            Idle     =       Idle
ClosingLive       Live         =                 =           Failed  =            Idle     =       Idle
";

    #[test]
    fn every_state_answers_every_event_as_the_table_says() {
        let states = [
            Is::Idle,
            Is::Connecting,
            Is::Live,
            Is::Waiting,
            Is::Reconnecting,
            Is::Failed,
            Is::Probing,
            Is::ClosingConnecting,
            Is::ClosingLive,
        ];
        let rows: Vec<Vec<&str>> =
            TABLE.trim().lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], EVENTS.map(|event| format!("{event:?}")));
        for (state, row) in states.into_iter().zip(&rows[1..]) {
            assert_eq!(row[0], format!("{state:?}"));
            for (event, cell) in EVENTS.into_iter().zip(&row[1..]) {
                let expected = if *cell == "=" { format!("{state:?}") } else { (*cell).to_owned() };
                assert_eq!(format!("{:?}", state.on(event)), expected, "{state:?} on {event:?}");
            }
        }
        assert_eq!(rows.len(), states.len() + 1);
    }

    #[test]
    fn an_attempt_that_ended_leaves_no_puller_and_a_stop_always_ends_it() {
        for state in [Is::Connecting, Is::Live, Is::Reconnecting, Is::Probing, Is::ClosingLive] {
            assert!(state.pulls() && !state.on(On::Failed).pulls());
            assert_eq!(state.on(On::Stop), Is::Idle);
        }
    }
}

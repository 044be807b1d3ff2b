//! Where viewers write down what happens to them, for the display and for the report.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use media::reception::ReceptionFigures;

use super::histogram::Histogram;

/// Different reasons of failures that are kept; the others are counted together.
const REASONS_MAX: usize = 50;
/// Looks that are kept for the report: a day, second by second.
const LOOKS_MAX: usize = 86_400;
/// Joins whose times are kept.
const JOINS_MAX: usize = 1_000_000;

/// What a viewer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Its turn has not come, or it left.
    #[default]
    Away,
    /// Its offer is under way, or ICE and DTLS are.
    Joining,
    /// DTLS is done, no keyframe came yet.
    Connected,
    /// It has its first keyframe.
    Playing,
    /// It gave up.
    Failed,
}

/// When a viewer reached what, from its offer on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct JoinTimes {
    /// How long the reservation before the offer took.
    pub(super) reserved: Option<Duration>,
    pub(super) answered: Option<Duration>,
    pub(super) connected: Option<Duration>,
    pub(super) first_packet: Option<Duration>,
    pub(super) keyframe: Option<Duration>,
}

/// One viewer's line.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    phase: Phase,
    /// Of sessions that are over.
    before: ReceptionFigures,
    /// Of the session that runs.
    now: ReceptionFigures,
    /// Datagrams that found no room in its sockets.
    overflowed: u64,
    /// The longest pause of the picture since the last look.
    gap: Duration,
}

/// All viewers.
pub(super) struct Board {
    started: Instant,
    slots: Vec<Mutex<Slot>>,
    happened: Mutex<Happened>,
    /// From capture to arrival, by the sender's reports.
    pub(super) delays: Histogram,
    /// From capture to decoded picture, by the strip in it.
    pub(super) decoded: Histogram,
}

#[derive(Debug, Default)]
struct Happened {
    tried: u64,
    left: u64,
    failures: BTreeMap<String, u64>,
    joins: Vec<JoinTimes>,
    /// From the start to the newest first keyframe.
    last_keyframe: Option<Duration>,
    looks: Vec<Look>,
    ended: bool,
}

/// All viewers together at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// Since the start.
    pub(super) at: Duration,
    pub(super) viewers: usize,
    pub(super) joining: usize,
    pub(super) connected: usize,
    pub(super) playing: usize,
    pub(super) failed: u64,
    /// First keyframes so far.
    pub(super) joined: u64,
    pub(super) figures: ReceptionFigures,
    pub(super) overflowed: u64,
    /// The longest pause of any picture since the look before.
    pub(super) gap: Duration,
}

impl Board {
    pub(super) fn new(viewers: usize, started: Instant) -> Self {
        Self {
            started,
            slots: (0..viewers).map(|_| Mutex::default()).collect(),
            happened: Mutex::default(),
            delays: Histogram::new(),
            decoded: Histogram::new(),
        }
    }

    fn slot(&self, viewer: usize) -> MutexGuard<'_, Slot> {
        self.slots[viewer].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happened(&self) -> MutexGuard<'_, Happened> {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_phase(&self, viewer: usize, phase: Phase) {
        self.slot(viewer).phase = phase;
    }

    pub(super) fn note_try(&self, viewer: usize) {
        self.happened().tried += 1;
        self.note_phase(viewer, Phase::Joining);
    }

    /// What a viewer has received in this session, and its longest pause since it said so last.
    pub(super) fn note_figures(&self, viewer: usize, figures: ReceptionFigures, gap: Duration) {
        let mut slot = self.slot(viewer);
        slot.now = figures;
        slot.gap = slot.gap.max(gap);
    }

    pub(super) fn note_overflow(&self, viewer: usize, datagrams: u64) {
        self.slot(viewer).overflowed += datagrams;
    }

    /// A first keyframe is there.
    pub(super) fn note_join(&self, viewer: usize, times: JoinTimes) {
        let at = self.started.elapsed();
        let mut happened = self.happened();
        if happened.joins.len() < JOINS_MAX {
            happened.joins.push(times);
        }
        happened.last_keyframe = Some(at);
        drop(happened);
        self.note_phase(viewer, Phase::Playing);
    }

    /// A session is over; `reason` says why, where it failed.
    pub(super) fn note_leave(&self, viewer: usize, reason: Option<String>) {
        let mut slot = self.slot(viewer);
        slot.before = sum(slot.before, slot.now);
        slot.now = ReceptionFigures::default();
        slot.phase = if reason.is_some() { Phase::Failed } else { Phase::Away };
        drop(slot);
        let mut happened = self.happened();
        let Some(reason) = reason else {
            happened.left += 1;
            return;
        };
        let is_known = happened.failures.contains_key(&reason);
        let has_room = happened.failures.len() < REASONS_MAX;
        let reason = if is_known || has_room { reason } else { "other reasons".to_owned() };
        *happened.failures.entry(reason).or_default() += 1;
    }

    /// What comes from here on is leaving: it is no part of the timeline.
    pub(super) fn note_end(&self) {
        self.look();
        self.happened().ended = true;
    }

    /// Sums up, and begins a new pause.
    pub(super) fn look(&self) -> Look {
        let mut look =
            Look { at: self.started.elapsed(), viewers: self.slots.len(), ..Look::default() };
        for viewer in 0..self.slots.len() {
            let mut slot = self.slot(viewer);
            match slot.phase {
                Phase::Away | Phase::Failed => {}
                Phase::Joining => look.joining += 1,
                Phase::Connected => look.connected += 1,
                Phase::Playing => look.playing += 1,
            }
            look.figures = sum(look.figures, sum(slot.before, slot.now));
            look.overflowed += slot.overflowed;
            look.gap = look.gap.max(std::mem::take(&mut slot.gap));
        }
        let mut happened = self.happened();
        look.failed = happened.failures.values().sum();
        look.joined = happened.joins.len() as u64;
        if happened.looks.len() < LOOKS_MAX && !happened.ended {
            happened.looks.push(look);
        }
        look
    }

    /// Offers that were begun.
    pub(super) fn tried(&self) -> u64 {
        self.happened().tried
    }

    /// Sessions that ended as they should.
    pub(super) fn left(&self) -> u64 {
        self.happened().left
    }

    pub(super) fn failures(&self) -> BTreeMap<String, u64> {
        self.happened().failures.clone()
    }

    pub(super) fn joins(&self) -> Vec<JoinTimes> {
        self.happened().joins.clone()
    }

    pub(super) fn last_keyframe(&self) -> Option<Duration> {
        self.happened().last_keyframe
    }

    pub(super) fn looks(&self) -> Vec<Look> {
        self.happened().looks.clone()
    }
}

fn sum(a: ReceptionFigures, b: ReceptionFigures) -> ReceptionFigures {
    ReceptionFigures {
        packets: a.packets + b.packets,
        bytes: a.bytes + b.bytes,
        pictures: a.pictures + b.pictures,
        lost: a.lost + b.lost,
        reordered: a.reordered + b.reordered,
        repeated: a.repeated + b.repeated,
        restarts: a.restarts + b.restarts,
        opened: a.opened + b.opened,
        not_authentic: a.not_authentic + b.not_authentic,
        refused: a.refused + b.refused,
        reports: a.reports + b.reports,
        keyframes_asked: a.keyframes_asked + b.keyframes_asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_viewers_received_stays_in_the_sum() {
        let board = Board::new(2, Instant::now());
        let figures = ReceptionFigures { packets: 10, ..ReceptionFigures::default() };
        board.note_try(0);
        board.note_join(0, JoinTimes::default());
        board.note_figures(0, figures, Duration::from_millis(70));
        let look = board.look();
        assert_eq!((look.playing, look.figures.packets, look.gap.as_millis()), (1, 10, 70));
        board.note_leave(0, None);
        board.note_try(1);
        board.note_leave(1, Some("refused".to_owned()));
        let look = board.look();
        assert_eq!((look.playing, look.figures.packets, look.gap.as_millis()), (0, 10, 0));
        assert_eq!((look.failed, look.joined, board.left()), (1, 1, 1));
    }

    #[test]
    fn reasons_beyond_the_bound_are_counted_together() {
        let board = Board::new(1, Instant::now());
        for number in 0..REASONS_MAX + 5 {
            board.note_leave(0, Some(format!("reason {number}")));
        }
        assert_eq!(board.failures()["other reasons"], 5);
    }
}

//! Whether a line that is taken for too thin still is.
//!
//! An estimate is bounded by what was received, and some browsers tell one that is far too low for as
//! long as they are sent little. So the pace is raised above it step by step while nothing tells of
//! congestion, and lowered when something does:
//!
//! ```text
//!            no queue for a while          reaches the stream's rate
//! estimate ----------------------> raised ---------------------------> no limit
//!     ^                              |  ^                                  |
//!     +------ lowered <--------------+  +---------- lowered <--------------+
//!               a queue, or more loss than before it was raised
//! ```
//! One answer of the viewer that comes late holds the pace, two in a row lower it.
//! The probes are the stream's own frames, of which fewer are skipped. Nothing else is sent.

use std::time::{Duration, Instant};

/// Without a queue for so long, a limit is raised: the next two answers to our reports show one.
const QUIET: Duration = Duration::from_secs(3);
/// Between two steps up. A viewer answers about once a second, so one step too many is taken at most.
const STEP: Duration = Duration::from_secs(1);
/// A step up, in percent of what was sent before. From the thinnest line that is believed to 4 Mbit/s
/// it takes 19 of them.
const STEP_PERCENT: u64 = 125;
/// What is left of a pace that congests, in percent: less than before the last two steps, so that the
/// queue empties.
const BACK_PERCENT: u64 = 60;
/// So much more loss than before the first step is congestion. A packet of ten, as of a thin line some
/// ten are sent between two reports.
const MORE_LOSS: f32 = 0.10;
/// After so many steps without congestion there was room, and the next attempt follows soon.
const STEPS_OF_ROOM: u32 = 3;
/// Longest wait after attempts that found no room: each costs a moment of queue.
const MAX_WAIT: Duration = Duration::from_secs(12);

/// Whether packets wait on the way, as far as the viewer's answers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// The newest answer came in time.
    None,
    /// It came late; a busy machine does that as well.
    Perhaps,
    /// So did the one before.
    Certain,
}

/// What tells of congestion besides an estimate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs {
    /// Whether packets wait on the way.
    pub(super) queue: Queue,
    /// Share that was lost, 0.0 to 1.0.
    pub(super) loss: f32,
}

/// What the line is tried with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// What is estimated at the time.
    Estimated,
    /// So many bits a second, where the estimate is not more.
    Raised(u64),
    /// It carried the whole stream.
    Stream,
}

/// A limit that is tried, from its begin until the estimate allows the stream.
#[derive(Debug)]
pub(super) struct Probe {
    pace: Pace,
    /// Steps since it was last lowered.
    steps: u32,
    /// The loss before the first of them.
    loss: f32,
    next_step: Instant,
    lowered_at: Instant,
    wait: Duration,
}

impl Probe {
    /// A limit begins.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            pace: Pace::Estimated,
            steps: 0,
            loss: 0.0,
            next_step: now + QUIET,
            lowered_at: now,
            wait: QUIET,
        }
    }

    /// Time passed or something was heard. Returns what the stream is to be held to in bits a second,
    /// never less than `estimate`; `None` when the line carries it.
    pub(super) fn advance(
        &mut self,
        estimate: u64,
        stream: u64,
        signs: Signs,
        now: Instant,
    ) -> Option<u64> {
        let held_to = match self.pace {
            Pace::Estimated => estimate,
            Pace::Raised(pace) => pace.max(estimate),
            Pace::Stream => stream,
        };
        let loses_more = self.steps > 0 && signs.loss >= self.loss + MORE_LOSS;
        match signs.queue {
            Queue::Certain => self.lower(held_to, now),
            Queue::None | Queue::Perhaps if loses_more => self.lower(held_to, now),
            Queue::Perhaps => self.next_step = self.next_step.max(now + STEP),
            Queue::None if self.pace != Pace::Stream && now >= self.next_step => {
                self.raise(held_to, signs.loss, now);
            }
            Queue::None => {}
        }
        let pace = match self.pace {
            Pace::Estimated => estimate,
            Pace::Raised(pace) if pace >= stream => {
                self.pace = Pace::Stream;
                return None;
            }
            Pace::Raised(pace) => pace.max(estimate),
            Pace::Stream => return None,
        };
        Some(pace)
    }

    /// An estimate that was not raised falls by itself.
    fn lower(&mut self, held_to: u64, now: Instant) {
        self.next_step = self.next_step.max(now + QUIET);
        if self.pace == Pace::Estimated || now.saturating_duration_since(self.lowered_at) < STEP {
            return;
        }
        if self.steps >= STEPS_OF_ROOM {
            self.wait = QUIET;
        } else if self.steps > 0 {
            self.wait = (self.wait * 2).min(MAX_WAIT);
        }
        self.pace = Pace::Raised(held_to.saturating_mul(BACK_PERCENT) / 100);
        self.steps = 0;
        self.lowered_at = now;
        self.next_step = now + self.wait;
    }

    fn raise(&mut self, held_to: u64, loss: f32, now: Instant) {
        if self.steps == 0 {
            self.loss = loss;
        }
        self.pace = Pace::Raised(held_to.saturating_mul(STEP_PERCENT) / 100);
        self.steps = self.steps.saturating_add(1);
        self.next_step = now + STEP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: u64 = 2_000_000;
    const QUEUED: Signs = Signs { queue: Queue::Certain, loss: 0.0 };
    const CALM: Signs = Signs { queue: Queue::None, loss: 0.0 };

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn epoch() -> Instant {
        Instant::now()
    }

    /// The first second in which the stream is not limited, over a line with these signs.
    fn free_after(estimate: u64, signs: impl Fn(u64, u64) -> Signs) -> Option<u64> {
        let start = epoch();
        let mut probe = Probe::new(start);
        let mut pace = estimate;
        (1..120).find(|second| {
            let now = start + Duration::from_secs(*second);
            match probe.advance(estimate, STREAM, signs(*second, pace), now) {
                Some(limit) => pace = limit,
                None => return true,
            }
            false
        })
    }

    #[test]
    fn a_line_that_was_never_thin_is_found_out_whatever_is_told() {
        assert_eq!(free_after(64_000, |_, _| CALM), Some(18));
        assert_eq!(free_after(1_000_000, |_, _| CALM), Some(6));
        let loses = |_, _| Signs { queue: Queue::None, loss: 0.2 };
        assert_eq!(free_after(64_000, loses), Some(18), "as much as before");
    }

    #[test]
    fn a_moment_that_looks_like_a_queue_does_not_lose_all() {
        let now_and_then = |second, _| if second % 8 == 0 { QUEUED } else { CALM };
        let free = free_after(64_000, now_and_then);
        assert!(free.is_some_and(|second| second < 90), "{free:?}");
    }

    #[test]
    fn a_thin_line_is_tried_now_and_then_and_by_little() {
        let start = epoch();
        let mut probe = Probe::new(start);
        let (mut pace, mut queued) = (800_000, 0);
        for second in 1..=120 {
            let signs = if pace > 1_000_000 { QUEUED } else { CALM };
            queued += u32::from(signs.queue == Queue::Certain);
            let now = start + Duration::from_secs(second);
            pace = probe.advance(800_000, STREAM, signs, now).expect("it is thin");
            assert!((800_000..1_300_000).contains(&pace), "{pace}");
        }
        assert!((5..20).contains(&queued), "{queued}");
    }

    #[test]
    fn more_loss_than_before_is_congestion() {
        let signs = |_, pace| Signs {
            queue: Queue::None,
            loss: if pace > 1_000_000 { 0.15 } else { 0.03 },
        };
        assert_eq!(free_after(500_000, signs), None);
    }
}

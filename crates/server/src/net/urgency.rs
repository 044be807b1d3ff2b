//! Whose turn it is on a processor: the threads of the packet path ask for the kernel's real-time
//! priority, so that no packet waits for the time slice of a thread that has all the time in the world.
//! Slices last up to 4 ms, which is most of what a voice may be late.
//!
//! That is for few packets. A busy thread is better off without: it is woken for every frame instead of
//! taking several at once, and a kernel that finds ordinary threads starved by real-time ones takes those
//! off the processor for 50 ms. So one that has much to do goes back to being a thread as others are,
//! until it is calm again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::sys;

/// How often a thread looks at how busy it was.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Of its time. 300 listeners of a voice take a thread of each of two cores 3 %; 1,000 viewers of 500
/// cameras 40 %, and half as much again where each of their frames wakes it.
const BUSY_SHARE: f64 = 0.2;

/// It is calm again below this share: far enough from [`BUSY_SHARE`] that it does not go to and fro.
const CALM_SHARE: f64 = 0.1;

/// How the threads of the packet path are scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Before all ordinary threads, where the system allows it.
    RealTime,
    /// As other threads.
    Ordinary,
}

/// The calling thread's priority.
pub(super) struct Urgency {
    /// What it should have while it is calm.
    wished: Priority,
    current: Priority,
    looked: Instant,
    cpu_time: Duration,
}

impl Urgency {
    /// Takes the priority at once. A system that refuses is told of once in the log.
    pub(super) fn begin(wished: Priority, now: Instant) -> Self {
        let mut urgency = Self {
            wished,
            current: Priority::Ordinary,
            looked: now,
            cpu_time: sys::thread_cpu_time(),
        };
        urgency.go_to(wished);
        urgency
    }

    /// Call it each turn.
    pub(super) fn update(&mut self, now: Instant) {
        if self.wished == Priority::Ordinary {
            return;
        }
        let elapsed = now.saturating_duration_since(self.looked);
        if elapsed < LOOK_INTERVAL {
            return;
        }
        let cpu_time = sys::thread_cpu_time();
        let share = (cpu_time - self.cpu_time).as_secs_f64() / elapsed.as_secs_f64();
        (self.looked, self.cpu_time) = (now, cpu_time);
        self.go_to(after(self.current, share));
    }

    fn go_to(&mut self, next: Priority) {
        if next == self.current {
            return;
        }
        match sys::set_realtime(next == Priority::RealTime) {
            Ok(()) => self.current = next,
            Err(error) => {
                // It is not asked again.
                self.wished = Priority::Ordinary;
                tell_refusal(&error);
            }
        }
    }
}

/// The priority of a thread that had `current` and was busy for `share` of its time.
fn after(current: Priority, share: f64) -> Priority {
    match current {
        Priority::RealTime if share > BUSY_SHARE => Priority::Ordinary,
        Priority::Ordinary if share < CALM_SHARE => Priority::RealTime,
        Priority::RealTime | Priority::Ordinary => current,
    }
}

/// All threads meet the same.
fn tell_refusal(error: &std::io::Error) {
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if !IS_TOLD.swap(true, Ordering::Relaxed) {
        tracing::info!(
            %error,
            "media threads have ordinary priority: with the capability CAP_SYS_NICE packets would be up to \
             4 ms earlier when the machine is busy; media.realtime = false ends this message"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::Priority::{Ordinary, RealTime};
    use super::*;

    #[test]
    fn who_has_much_to_do_is_as_others_until_it_is_calm() {
        let shares = [0.1, 0.19, 0.21, 0.99, 0.2, 0.11, 0.09, 0.2];
        let mut current = RealTime;
        let went = shares.map(|share| {
            current = after(current, share);
            current
        });
        assert_eq!(
            went,
            [RealTime, RealTime, Ordinary, Ordinary, Ordinary, Ordinary, RealTime, RealTime]
        );
    }
}

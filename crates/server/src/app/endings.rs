//! How reservations ended, kept for a while: whoever asks for one that is over is told why.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use control::{ReservationId, Scope, Timestamp};
use engine::EndReason;

/// So long an end is told. A page whose tab slept comes back within minutes.
const KEPT: Duration = Duration::from_secs(600);

/// Most ends that are kept: twice the viewers that the server is built for, leaving and coming back five
/// times each. One takes some 200 bytes, so that all stay within 2 MB.
const MAX_ENDINGS: usize = 10_000;

/// The ends of reservations and of their WHEP sessions. The oldest are forgotten first.
#[derive(Debug, Default)]
pub(super) struct Endings {
    by_name: HashMap<String, EndReason>,
    in_order: VecDeque<(Timestamp, String)>,
}

/// What quotas did since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QuotaFigures {
    /// Reservations that a user's limit forbade.
    pub(crate) user: u64,
    /// The same, a source's limit.
    pub(crate) source: u64,
    /// The same, the total.
    pub(crate) total: u64,
    /// Reservations that gave way to one of a higher class.
    pub(crate) preempted: u64,
}

impl QuotaFigures {
    pub(super) fn count_refusal(&mut self, scope: &Scope) {
        match scope {
            Scope::User(_) => self.user += 1,
            Scope::Source(_) => self.source += 1,
            Scope::Total => self.total += 1,
        }
    }

    pub(super) fn count_end(&mut self, reason: EndReason) {
        self.preempted += u64::from(reason == EndReason::Preempted);
    }
}

impl Endings {
    /// Notes the end of what has this name: a reservation's id, or a WHEP session's. Names are random and
    /// end once.
    pub(super) fn note(&mut self, name: &str, reason: EndReason, now: Timestamp) {
        let is_old = |at: &Timestamp| now.saturating_since(*at) >= KEPT;
        while self.in_order.front().is_some_and(|(at, _)| is_old(at))
            || self.in_order.len() >= MAX_ENDINGS
        {
            if let Some((_, oldest)) = self.in_order.pop_front() {
                self.by_name.remove(&oldest);
            }
        }
        if self.by_name.insert(name.to_owned(), reason).is_none() {
            self.in_order.push_back((now, name.to_owned()));
        }
    }

    /// How a reservation ended, while that is known.
    pub(super) fn of_reservation(&self, id: &ReservationId) -> Option<EndReason> {
        self.of(id.as_str())
    }

    /// How the reservation of a WHEP session ended, while that is known.
    pub(super) fn of(&self, name: &str) -> Option<EndReason> {
        self.by_name.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    #[test]
    fn an_end_is_told_for_a_while_and_then_forgotten() {
        let mut endings = Endings::default();
        endings.note("one", EndReason::Preempted, START);
        endings.note("two", EndReason::Expired, START + KEPT / 2);
        assert_eq!(endings.of("one"), Some(EndReason::Preempted));

        endings.note("three", EndReason::Released, START + KEPT);
        assert_eq!(endings.of("one"), None);
        assert_eq!(endings.of("two"), Some(EndReason::Expired));
    }

    #[test]
    fn the_oldest_make_room() {
        let mut endings = Endings::default();
        for index in 0..=MAX_ENDINGS {
            endings.note(&index.to_string(), EndReason::Released, START);
        }
        assert_eq!(endings.by_name.len(), MAX_ENDINGS);
        assert_eq!(endings.in_order.len(), MAX_ENDINGS);
        assert_eq!(endings.of("0"), None);
        assert_eq!(endings.of("1"), Some(EndReason::Released));
    }
}

//! What this node had to do with reservations whose sessions other nodes have.

use std::collections::{HashMap, VecDeque};

use control::{ReservationId, Timestamp};

use super::{Moment, Step};

/// Reservations of others that are remembered, the newest. Each has some 100 bytes a step, so that all stay
/// within 1 MB whatever ids people make up.
const LIVES_MAX: usize = 1_024;

/// Steps of one: a kind of request each, and reasons for which its tokens were refused.
const STEPS_MAX: usize = 8;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    steps: HashMap<ReservationId, Vec<Moment>>,
    in_order: VecDeque<ReservationId>,
}

impl Foreign {
    /// Keeps a step, if it is the first of its kind.
    pub(super) fn note(&mut self, id: &ReservationId, at: Timestamp, step: Step) {
        if !self.steps.contains_key(id) {
            if self.in_order.len() >= LIVES_MAX
                && let Some(oldest) = self.in_order.pop_front()
            {
                self.steps.remove(&oldest);
            }
            self.in_order.push_back(id.clone());
        }
        let steps = self.steps.entry(id.clone()).or_default();
        if steps.len() < STEPS_MAX && steps.iter().all(|known| known.step != step) {
            steps.push(Moment { at, step });
        }
    }

    /// What is known of one.
    pub(super) fn steps(&self, id: &ReservationId) -> Vec<Moment> {
        self.steps.get(id).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ReservationId {
        ReservationId::parse(&format!("00000000-0000-4000-8000-{number:012}")).unwrap()
    }

    #[test]
    fn each_kind_of_step_is_kept_once_and_the_oldest_make_room() {
        let mut foreign = Foreign::default();
        let step = |what| Step::Forwarded { what };
        for (at, what) in ["heartbeat", "heartbeat", "release"].into_iter().enumerate() {
            foreign.note(&id(0), Timestamp::from_millis(at as u64), step(what));
        }
        let kept: Vec<_> = foreign.steps(&id(0)).iter().map(|one| one.at.as_millis()).collect();
        assert_eq!(kept, [0, 2]);
        for number in 0..100 {
            let reason = number.to_string();
            foreign.note(&id(0), Timestamp::ZERO, Step::TokenRefused { reason });
        }
        assert_eq!(foreign.steps(&id(0)).len(), STEPS_MAX);
        (1..=LIVES_MAX).for_each(|n| foreign.note(&id(n), Timestamp::ZERO, Step::Offered));
        assert_eq!((foreign.steps.len(), foreign.in_order.len()), (LIVES_MAX, LIVES_MAX));
        assert!(foreign.steps(&id(0)).is_empty());
    }
}

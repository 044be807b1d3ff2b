//! What must hold after every event, and at the end.

use std::collections::BTreeSet;

use control::ReservationId;
use engine::{Condition, SessionState};
use media::ViewerId;

use super::World;
use crate::clock::SimTime;

/// A viewer that vanished is gone so long after its last packet.
const VANISHED_US: u64 = 15_000_000;
/// An attempt at a camera that was asked for in vain comes to its end in this time: connecting, a
/// group without a keyframe, a silence.
const PROBE_US: u64 = 11_000_000;
/// Rounding to whole milliseconds, and a goodbye that takes its time.
const SLACK_US: u64 = 210_000;

/// A lease has to end by a time.
pub(super) struct Promise {
    reservation: ReservationId,
    due: SimTime,
}

/// A puller that nobody wants.
pub(super) struct IdlePull {
    since: SimTime,
    state: &'static str,
}

impl World {
    /// Whoever asks for a lease's end gets it at once.
    pub(super) fn promise_end(&mut self, reservation: ReservationId) {
        let due = self.now + self.plan.latency.round_us() + SLACK_US;
        self.promises.push(Promise { reservation, due });
    }

    pub(super) fn promise_end_of(&mut self, viewer: ViewerId) {
        let sessions = self.server.engine.sessions();
        let session = sessions.into_iter().find(|session| session.viewer == Some(viewer));
        if let Some(reservation) = session.map(|session| session.reservation.id.clone()) {
            self.promise_end(reservation);
        }
    }

    /// A lease ran out: its viewer must have been silent.
    pub(super) fn handle_expired(&mut self, reservation: &ReservationId) {
        let person =
            self.people.iter().position(|person| person.reservation.as_ref() == Some(reservation));
        let Some(person) = person else { return };
        let is_watching = self.people[person].peers.last().is_some_and(|peer| {
            let judge = peer.judge.as_ref();
            !peer.is_gone && judge.is_some_and(|judge| judge.is_strict() && judge.is_attached())
        });
        if is_watching {
            self.fail(format!("the lease of person {person} ran out while it watched"));
        }
    }

    /// Checks what must hold after every event.
    pub(super) fn check(&mut self) -> Result<(), String> {
        (self.checked_at, self.has_noted) = (self.now, false);
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.server.check()?;
        self.check_promises()?;
        self.check_silence()?;
        self.check_pulls()?;
        self.check_peers()?;
        let now = self.now;
        let peers = self.people.iter().flat_map(|person| &person.peers);
        for peer in peers.filter(|peer| !peer.is_gone) {
            let checked = peer.judge.as_ref().map_or(Ok(()), |judge| judge.check(now));
            checked.map_err(|error| format!("{:?}: {error}", peer.viewer))?;
        }
        Ok(())
    }

    fn check_promises(&mut self) -> Result<(), String> {
        let (engine, now) = (&self.server.engine, self.now);
        let broken = self
            .promises
            .iter()
            .find(|promise| promise.due < now && engine.session(&promise.reservation).is_some());
        if let Some(promise) = broken {
            return Err(format!("{} was ended and lives on", promise.reservation));
        }
        self.promises.retain(|promise| promise.due >= now);
        Ok(())
    }

    /// Nobody holds a lease for long after its last packet.
    fn check_silence(&self) -> Result<(), String> {
        let limit = VANISHED_US + self.plan.latency.round_us() + SLACK_US;
        for session in self.server.engine.sessions() {
            let heard = session.viewer.and_then(|viewer| self.heard.get(&viewer));
            let Some(heard) = heard.filter(|_| session.state == SessionState::Connected) else {
                continue;
            };
            if self.now.since(*heard) > limit {
                let id = &session.reservation.id;
                return Err(format!("{id} lives, and its viewer is silent for over 15 s"));
            }
        }
        Ok(())
    }

    /// No connection outlives its session by more than a goodbye.
    fn check_peers(&mut self) -> Result<(), String> {
        let used: BTreeSet<_> =
            self.server.engine.sessions().filter_map(|session| session.viewer).collect();
        let strays: BTreeSet<_> =
            self.server.peers().filter(|viewer| !used.contains(viewer)).collect();
        self.strays.retain(|viewer, _| strays.contains(viewer));
        let limit = self.plan.latency.round_us() + SLACK_US;
        for viewer in strays {
            let since = *self.strays.entry(viewer).or_insert(self.now);
            if self.now.since(since) > limit {
                return Err(format!("{viewer:?} is connected and has no session"));
            }
        }
        Ok(())
    }

    /// One puller a stream, and only where somebody wants it or just did.
    fn check_pulls(&mut self) -> Result<(), String> {
        let now = self.now;
        for camera in self.server.engine.cameras() {
            let close_after = self.cameras.iter().find(|other| other.id == camera.camera.id);
            let close_after = close_after.map_or(0, |at| at.plan.close_after.as_micros() as u64);
            for stream in camera.streams() {
                let runs = self.pulls.contains_key(&stream.id);
                if self.server.is_settled() && runs != stream.is_pulling {
                    return Err(format!("{:?}: a puller runs: {runs}", stream.id));
                }
                let is_warm = !camera.on_demand && stream.id == camera.main.id;
                if !stream.is_pulling || is_warm || stream.reservations + stream.expected > 0 {
                    self.idle_pulls.remove(&stream.id);
                    continue;
                }
                let state = stream.condition.word();
                let idle = self.idle_pulls.entry(stream.id);
                let idle = idle.or_insert(IdlePull { since: now, state });
                if idle.state != state {
                    *idle = IdlePull { since: now, state };
                }
                let is_probe = matches!(stream.condition, Condition::Failed(_));
                let limit = if is_probe { PROBE_US } else { close_after };
                if now.since(idle.since) > limit + self.plan.latency.round_us() + SLACK_US {
                    return Err(format!("{:?} is {state} and nobody wants it", stream.id));
                }
            }
        }
        Ok(())
    }

    /// A shutdown, and the removal of all cameras, leave nothing at once.
    pub(super) fn check_ended_promptly(&mut self) {
        let residue = self.server.residue();
        let left: Vec<_> = residue.iter().filter(|left| !left.contains("a timer of")).collect();
        if !left.is_empty() || !self.pulls.is_empty() {
            let pulls = self.pulls.len();
            self.fail(format!("left after the end: {left:?} and {pulls} pullers"));
        }
    }

    /// Nothing is left of anything.
    pub(super) fn check_end(&mut self) -> Result<(), String> {
        self.check()?;
        let residue = self.server.residue();
        if !residue.is_empty() {
            return Err(format!("left at the end: {}", residue.join("; ")));
        }
        if !self.pulls.is_empty() {
            return Err(format!("{} pullers are left at the end", self.pulls.len()));
        }
        if let Some((id, asked)) = self.requests.first_key_value() {
            return Err(format!("{id:?} ({asked:?}) was never replied to"));
        }
        let peers = self.people.iter().flat_map(|person| &person.peers);
        for judge in peers.filter_map(|peer| peer.judge.as_ref()) {
            self.report.pictures += judge.pictures;
            self.report.sounds += judge.sounds;
        }
        Ok(())
    }
}

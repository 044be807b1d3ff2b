//! Whose cameras and reservations are, and how long each viewer may watch.
//!
//! A viewer comes with a token, which says until when it may watch: a [`Permit`]. Heartbeats and renewals
//! make it longer. Once it is over, or the key of the token is no key any more, or somebody sent the viewer
//! away, its session ends with a reason, which `endings` keeps for who asks what became of it.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use control::{CameraId, ReservationId, SourceId, Timestamp};
use engine::{Request, Revocation};
use tokio::sync::oneshot;

use super::actor::{Actor, Command, Waiting};
use super::{App, LeaseError, Released};
use crate::ledger::Leaseholder;

/// Permits without a session that are kept beside those with one, before they are looked for. Offers
/// that are refused leave them, until their tokens run out.
const IDLE_PERMITS_MAX: usize = 1_024;

/// Names a key for signing tokens, for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeyNumber(pub(crate) u32);

/// How long a viewer may watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permit {
    /// When its token expires.
    pub(crate) until: SystemTime,
    /// What its token was signed with.
    pub(crate) key: KeyNumber,
}

/// Whose a live reservation is.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    /// Who reserved, as he was named.
    pub(crate) user: String,
    pub(crate) camera: CameraId,
    pub(crate) source: SourceId,
}

impl From<Leaseholder> for Holder {
    fn from(Leaseholder { user, camera, source }: Leaseholder) -> Self {
        Self { user, camera, source }
    }
}

/// A call of the methods below.
pub(super) enum GrantCommand {
    SourceOf { camera: CameraId, reply: oneshot::Sender<Option<SourceId>> },
    HolderOf { reservation: ReservationId, reply: oneshot::Sender<Option<Holder>> },
    Permit { reservation: ReservationId, permit: Permit },
    KeepKeys { kept: Vec<KeyNumber> },
    Remove { reservation: ReservationId, reply: oneshot::Sender<Result<Released, LeaseError>> },
}

impl App {
    /// The source of a camera; `None`: no such camera.
    pub(crate) async fn source_of(&self, camera: CameraId) -> Option<SourceId> {
        self.ask(|reply| Command::Grant(GrantCommand::SourceOf { camera, reply })).await?
    }

    /// Whose a reservation is; `None`: no such reservation lives.
    pub(crate) async fn holder_of(&self, reservation: ReservationId) -> Option<Holder> {
        self.ask(|reply| Command::Grant(GrantCommand::HolderOf { reservation, reply })).await?
    }

    /// A viewer may watch as long as `permit` says, or as an earlier one does.
    pub(crate) async fn permit(&self, reservation: ReservationId, permit: Permit) {
        self.tell(GrantCommand::Permit { reservation, permit }).await;
    }

    /// Ends all sessions whose tokens were signed with other keys than these.
    pub(crate) async fn keep_keys(&self, kept: Vec<KeyNumber>) {
        self.tell(GrantCommand::KeepKeys { kept }).await;
    }

    /// Sends a viewer away. `None`: no such reservation lives.
    pub(crate) async fn remove_viewer(&self, reservation: ReservationId) -> Option<Released> {
        let make = |reply| Command::Grant(GrantCommand::Remove { reservation, reply });
        self.ask(make).await?.ok()
    }

    async fn tell(&self, command: GrantCommand) {
        // An application that has ended has no viewers.
        let _ = self.commands.send(Command::Grant(command)).await;
    }
}

/// How many sessions ended because their viewers lost their right to watch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RevocationFigures([u64; Revocation::ALL.len()]);

impl RevocationFigures {
    /// One count a cause.
    pub(crate) fn counts(self) -> impl Iterator<Item = (Revocation, u64)> {
        Revocation::ALL.into_iter().zip(self.0)
    }

    fn note(&mut self, cause: Revocation) {
        let place = Revocation::ALL.iter().position(|known| *known == cause);
        if let Some(count) = place.and_then(|place| self.0.get_mut(place)) {
            *count += 1;
        }
    }
}

/// Who may watch how long. Bounded by twice the sessions and [`IDLE_PERMITS_MAX`].
#[derive(Debug, Default)]
pub(super) struct Grants {
    permits: HashMap<ReservationId, (Timestamp, KeyNumber)>,
    /// The same, the next to end first.
    due: BTreeSet<(Timestamp, ReservationId)>,
    pub(super) ended: RevocationFigures,
}

impl Grants {
    /// When the next permit is over.
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Until the later of `until` and what an earlier permit said; the key is the newest one's.
    fn permit(&mut self, reservation: ReservationId, until: Timestamp, key: KeyNumber) {
        let earlier = self.forget(&reservation).map_or(until, |(earlier, _)| earlier);
        let until = until.max(earlier);
        self.due.insert((until, reservation.clone()));
        self.permits.insert(reservation, (until, key));
    }

    fn forget(&mut self, reservation: &ReservationId) -> Option<(Timestamp, KeyNumber)> {
        let (until, key) = self.permits.remove(reservation)?;
        self.due.remove(&(until, reservation.clone()));
        Some((until, key))
    }

    /// Takes out one whose permit is over at `now`.
    fn pop_due(&mut self, now: Timestamp) -> Option<ReservationId> {
        let (due, _) = self.due.first()?;
        if *due > now {
            return None;
        }
        let (_, reservation) = self.due.pop_first()?;
        self.permits.remove(&reservation);
        Some(reservation)
    }

    /// Those whose key is none of `kept`.
    fn of_other_keys(&self, kept: &[KeyNumber]) -> Vec<ReservationId> {
        let others = self.permits.iter().filter(|(_, (_, key))| !kept.contains(key));
        others.map(|(reservation, _)| reservation.clone()).collect()
    }

    fn keep(&mut self, lives: impl Fn(&ReservationId) -> bool) {
        self.permits.retain(|reservation, _| lives(reservation));
        let permits = &self.permits;
        self.due.retain(|(_, reservation)| permits.contains_key(reservation));
    }
}

impl Actor {
    pub(super) fn handle_grant_command(&mut self, command: GrantCommand) {
        // Who asked may have hung up.
        match command {
            GrantCommand::SourceOf { camera, reply } => {
                let view = self.engine.camera(&camera);
                let _ = reply.send(view.map(|view| view.camera.source.clone()));
            }
            GrantCommand::HolderOf { reservation, reply } => {
                let _ = reply.send(self.holder_of(&reservation));
            }
            GrantCommand::Permit { reservation, permit } => self.permit(reservation, permit),
            GrantCommand::KeepKeys { kept } => {
                for reservation in self.grants.of_other_keys(&kept) {
                    self.revoke(reservation, Revocation::KeyRemoved);
                }
            }
            GrantCommand::Remove { reservation, reply } => {
                self.grants.forget(&reservation);
                if self.engine.session(&reservation).is_some() {
                    self.grants.ended.note(Revocation::Removed);
                }
                let waiting = Waiting::Release(reservation.clone(), reply);
                let request = Request::Revoke { reservation, cause: Revocation::Removed };
                self.ask(request, waiting);
            }
        }
    }

    fn holder_of(&self, reservation: &ReservationId) -> Option<Holder> {
        let session = self.engine.session(reservation)?;
        Some(Holder {
            user: session.reservation.user.clone(),
            camera: session.reservation.camera.clone(),
            source: session.reservation.source.clone(),
        })
    }

    pub(super) fn permit(&mut self, reservation: ReservationId, permit: Permit) {
        // What is left of it, so that a step of the wall clock since the start does not matter.
        let left = permit.until.duration_since(SystemTime::now()).unwrap_or_default();
        self.grants.permit(reservation, self.clock.now() + left, permit.key);
        let sessions = self.engine.session_count();
        if self.grants.permits.len() > 2 * sessions + IDLE_PERMITS_MAX {
            let engine = &self.engine;
            self.grants.keep(|reservation| engine.session(reservation).is_some());
        }
    }

    /// Ends the sessions whose permits are over.
    pub(super) fn end_permits(&mut self) {
        let now = self.clock.now();
        while let Some(reservation) = self.grants.pop_due(now) {
            self.revoke(reservation, Revocation::TokenExpired);
        }
    }

    fn revoke(&mut self, reservation: ReservationId, cause: Revocation) {
        self.grants.forget(&reservation);
        // It may have ended before its permit.
        if self.engine.session(&reservation).is_none() {
            return;
        }
        self.grants.ended.note(cause);
        // Nobody waits for this.
        let (reply, _) = oneshot::channel();
        let waiting = Waiting::Release(reservation.clone(), reply);
        self.ask(Request::Revoke { reservation, cause }, waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ReservationId {
        ReservationId::parse(&format!("00000000-0000-4000-8000-{number:012}")).unwrap()
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    const KEY: KeyNumber = KeyNumber(1);
    const OTHER: KeyNumber = KeyNumber(2);

    #[test]
    fn a_permit_is_made_longer_and_never_shorter() {
        let mut grants = Grants::default();
        grants.permit(id(1), at(100), KEY);
        grants.permit(id(1), at(50), KEY);
        assert_eq!(grants.pop_due(at(99)), None);
        grants.permit(id(1), at(200), KEY);
        assert_eq!((grants.pop_due(at(199)), grants.next_timeout()), (None, Some(at(200))));
        assert_eq!(grants.pop_due(at(200)), Some(id(1)));
        assert_eq!((grants.pop_due(at(999)), grants.next_timeout()), (None, None));
        assert!(grants.permits.is_empty());
    }

    #[test]
    fn a_renewal_brings_the_permit_under_the_new_key() {
        let mut grants = Grants::default();
        grants.permit(id(1), at(100), KEY);
        grants.permit(id(2), at(100), KEY);
        grants.permit(id(2), at(100), OTHER);
        assert_eq!(grants.of_other_keys(&[OTHER]), [id(1)]);
        assert!(grants.of_other_keys(&[KEY, OTHER]).is_empty());
    }

    #[test]
    fn who_left_is_forgotten_in_both_places() {
        let mut grants = Grants::default();
        (0..10).for_each(|number| grants.permit(id(number), at(number), KEY));
        grants.keep(|reservation| *reservation == id(3));
        assert_eq!((grants.permits.len(), grants.due.len()), (1, 1));
        assert_eq!(grants.pop_due(at(100)), Some(id(3)));
    }

    #[test]
    fn each_cause_is_counted_for_itself() {
        let mut figures = RevocationFigures::default();
        figures.note(Revocation::Removed);
        figures.note(Revocation::Removed);
        figures.note(Revocation::TokenExpired);
        let counts: Vec<_> = figures.counts().map(|(cause, count)| (cause.word(), count)).collect();
        assert_eq!(counts, [("expired", 1), ("key_removed", 0), ("removed", 2)]);
    }
}

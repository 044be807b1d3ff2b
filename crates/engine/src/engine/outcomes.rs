//! What the ledger answered.

use control::{
    Answer, EndedLease, Lease, LedgerOp, Outcome, Reservation, ReservationId, Timestamp, Usage,
};
use tracing::{debug, error};

use super::{Engine, Pending};
use crate::io::{Grant, OpId, Released, Reply, RequestId, ReserveRefusal, Watching};
use crate::note::EndReason;
use crate::stream::Rendition;
use crate::timers::Timer;

impl Engine {
    /// Takes the outcome of an [`crate::Action::Ledger`].
    pub fn handle_outcome(&mut self, op: OpId, outcome: Outcome, now: Timestamp) {
        let Outcome { answer, ended, next_expiry } = outcome;
        for EndedLease { lease, cause } in ended {
            self.end_session(lease.id(), EndReason::of(cause), now);
        }
        match next_expiry {
            Some(due) => self.timers.set(Timer::Lease, due),
            None => self.timers.clear(Timer::Lease),
        }
        let Some(pending) = self.pending.remove(&op) else {
            error!(?op, "the ledger answered an operation that was not under way");
            return;
        };
        match pending {
            Pending::Reserve { request, camera, reservation } => {
                let result = self.reserve_outcome(answer, now);
                self.reply_reserve(request, &camera, &reservation, result);
            }
            Pending::Release { request } => self.release_outcome(request, answer, now),
            Pending::Heartbeat { request, reservation } => {
                let grant = self.renewal_outcome(&reservation, answer, now);
                self.reply(request, Reply::Heartbeat(grant));
            }
            Pending::MediaSeen { reservation } => {
                self.renewal_outcome(&reservation, answer, now);
            }
            Pending::Snapshot { request } => {
                let snapshot =
                    if let Answer::Snapshot(snapshot) = answer { Some(snapshot) } else { None };
                self.reply(request, Reply::Snapshot(snapshot));
            }
            Pending::Expire => {}
        }
    }

    fn reserve_outcome(&mut self, answer: Answer, now: Timestamp) -> Result<Grant, ReserveRefusal> {
        match answer {
            Answer::Reserved { lease, usage } => self.reserved(lease, usage, now),
            Answer::QuotaExceeded(exceeded) => Err(ReserveRefusal::Quota(exceeded)),
            Answer::IdTaken => Err(ReserveRefusal::IdTaken),
            Answer::Released { .. }
            | Answer::Renewed { .. }
            | Answer::NotFound
            | Answer::Swept
            | Answer::Counted(_)
            | Answer::Unavailable
            | Answer::Snapshot(_) => {
                error!(?answer, "the ledger answered a reservation with something else");
                Err(ReserveRefusal::IdTaken)
            }
        }
    }

    fn reserved(
        &mut self,
        lease: Lease,
        usage: Usage,
        now: Timestamp,
    ) -> Result<Grant, ReserveRefusal> {
        let Some(stream) = self.stream_of(&lease) else {
            // The camera went, or the shutdown came, while the ledger was at it.
            let release = LedgerOp::Release(lease.id().clone());
            self.apply(release, Pending::Release { request: None });
            return Err(if self.is_shutting_down {
                ReserveRefusal::ShuttingDown
            } else {
                ReserveRefusal::UnknownCamera
            });
        };
        self.begin_session(&lease, stream, now);
        let watching = self.watching(lease.id()).unwrap_or(Watching {
            quality: lease.reservation.quality,
            rendition: Rendition::Main,
            switches: 0,
        });
        Ok(Grant { lease, usage, watching })
    }

    fn stream_of(&self, lease: &Lease) -> Option<media::StreamId> {
        let entry =
            self.cameras.get(&lease.reservation.camera).filter(|_| !self.is_shutting_down)?;
        Some(self.first_stream(entry, lease.reservation.quality))
    }

    fn release_outcome(&mut self, request: Option<RequestId>, answer: Answer, now: Timestamp) {
        let released = if let Answer::Released { lease, usage } = answer {
            self.end_session(lease.id(), EndReason::Released, now);
            let Reservation { id, source, .. } = lease.reservation;
            Some(Released { reservation: id, source, new_count: usage.current })
        } else {
            None
        };
        if let Some(request) = request {
            self.reply(request, Reply::Release(released));
        }
    }

    /// The renewed lease. A session whose lease the ledger does not know any more is ended.
    fn renewal_outcome(
        &mut self,
        reservation: &ReservationId,
        answer: Answer,
        now: Timestamp,
    ) -> Option<Grant> {
        let Answer::Renewed { lease, usage } = answer else {
            debug!(reservation_id = %reservation, "there is no such lease to renew");
            self.end_session(reservation, EndReason::Expired, now);
            return None;
        };
        if let Some(session) = self.sessions.get_mut(lease.id()) {
            session.expires_at = lease.expires_at;
        }
        let watching = self.watching(lease.id())?;
        Some(Grant { lease, usage, watching })
    }
}

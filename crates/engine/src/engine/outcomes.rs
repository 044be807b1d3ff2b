//! What the ledger answered.

use std::time::Duration;

use control::{
    Answer, EndedLease, Lease, LedgerOp, Outcome, Reservation, ReservationId, Timestamp, Usage,
};
use tracing::{debug, error};

use super::{Engine, Pending};
use crate::io::{Grant, LeaseRefusal, OpId, Released, Reply, RequestId, ReserveRefusal, Watching};
use crate::note::EndReason;
use crate::stream::Rendition;
use crate::timers::Timer;

/// While the ledger cannot be asked, what is due is tried again after this time: leases end by it within
/// a second of its return, and it is not asked in vain more often than one viewer does.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

impl Engine {
    /// Takes the outcome of an [`crate::Action::Ledger`].
    pub fn handle_outcome(&mut self, op: OpId, outcome: Outcome, now: Timestamp) {
        let Outcome { answer, ended, next_expiry } = outcome;
        self.handle_ended(ended, now);
        match next_expiry {
            Some(due) => self.timers.set(Timer::Lease, due),
            // Who is there stays, and is judged when the ledger can be asked again.
            None if answer == Answer::Unavailable => {
                self.timers.set(Timer::Lease, now + UNAVAILABLE_RETRY);
            }
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
                // Who is not there any more was ended there.
                let _ = self.renewal_outcome(&reservation, answer, now);
            }
            Pending::Snapshot { request } => {
                let snapshot =
                    if let Answer::Snapshot(snapshot) = answer { Some(snapshot) } else { None };
                self.reply(request, Reply::Snapshot(snapshot));
            }
            Pending::SetLimit { request } => {
                let usage = if let Answer::Counted(usage) = answer { Some(usage) } else { None };
                self.reply(request, Reply::SetLimit(usage));
            }
            Pending::Expire => {}
        }
    }

    /// Takes leases that ended without any operation of this engine: by another node, or by somebody in
    /// the store.
    pub fn handle_ended(&mut self, ended: Vec<EndedLease>, now: Timestamp) {
        for EndedLease { lease, cause } in ended {
            self.end_session(lease.id(), EndReason::of(cause), now);
        }
    }

    fn reserve_outcome(&mut self, answer: Answer, now: Timestamp) -> Result<Grant, ReserveRefusal> {
        match answer {
            Answer::Reserved { lease, usage } => self.reserved(lease, usage, now),
            Answer::QuotaExceeded(exceeded) => Err(ReserveRefusal::Quota(exceeded)),
            Answer::IdTaken => Err(ReserveRefusal::IdTaken),
            Answer::Unavailable => Err(ReserveRefusal::Unavailable),
            Answer::Released { .. }
            | Answer::Renewed { .. }
            | Answer::NotFound
            | Answer::Swept
            | Answer::Counted(_)
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
            Ok(Released { reservation: id, source, new_count: usage.current })
        } else {
            Err(refusal(&answer))
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
    ) -> Result<Grant, LeaseRefusal> {
        let Answer::Renewed { lease, usage } = answer else {
            let refusal = refusal(&answer);
            if refusal == LeaseRefusal::NotFound {
                debug!(reservation_id = %reservation, "there is no such lease to renew");
                self.end_session(reservation, EndReason::Expired, now);
            }
            return Err(refusal);
        };
        if let Some(session) = self.sessions.get_mut(lease.id()) {
            session.expires_at = lease.expires_at;
        }
        let watching = self.watching(lease.id()).ok_or(LeaseRefusal::NotFound)?;
        Ok(Grant { lease, usage, watching })
    }
}

/// What an answer says that is no lease.
fn refusal(answer: &Answer) -> LeaseRefusal {
    if *answer == Answer::Unavailable { LeaseRefusal::Unavailable } else { LeaseRefusal::NotFound }
}

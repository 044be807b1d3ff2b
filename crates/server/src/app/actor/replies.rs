//! What the engine and the ledger answer, as those who asked are told it: reservations, refusals with
//! their reasons, and how a watch came out.

use control::{CameraId, Exceeded, Scope, Usage};
use engine::{Grant, Reply, RequestId, ReserveRefusal, WatchRefusal};
use media::ViewerId;

use tracing::{error, info};

use super::super::limits::LimitError;
use super::super::snapshot::Snapshot;
use super::super::{Over, Released, Reservation, ReserveError, WatchError};
use super::{Actor, Waiting, WaitingWatch};
use crate::journal::{OfferFault, Refusal, Step};
use crate::net::OfferError;

impl Actor {
    /// Hands a reply to who waits for it. Who hung up meanwhile does not hear it; a place that he was granted
    /// is given back, and what else was begun for him ends with its lease.
    pub(super) fn reply(&mut self, request: RequestId, reply: Reply) {
        let Some(waiting) = self.waiting.remove(&request) else {
            return error!(?request, "nobody waits for this reply");
        };
        match (waiting, reply) {
            (Waiting::Reserve { reservation, camera, page, reply }, Reply::Reserve(result)) => {
                let result = match result {
                    Ok(grant) => Ok(self.reservation(grant)),
                    Err(refusal) => Err(self.reserve_error(&camera, refusal)),
                };
                match (&result, page) {
                    (Err(error), _) => self.journal.refused(&reservation, refusal_of(error)),
                    (Ok(_), Some(page)) => {
                        self.pages.granted(page, reservation.clone(), self.clock.now());
                    }
                    (Ok(_), None) => {}
                }
                if let Err(Ok(_)) = reply.send(result) {
                    info!(reservation_id = %reservation, "who asked for this place has hung up");
                    self.pages.figures.hung_up += 1;
                    self.release_for_nobody(reservation);
                }
            }
            (Waiting::Release(id, reply), Reply::Release(released)) => {
                let released = released.map(|released| Released {
                    id: released.reservation,
                    source: released.source,
                    new_count: released.new_count,
                });
                let error = |refusal| self.lease_error(id.as_str(), refusal);
                let _ = reply.send(released.map_err(error));
            }
            (Waiting::Heartbeat(id, reply), Reply::Heartbeat(grant)) => {
                let error = |refusal| self.lease_error(id.as_str(), refusal);
                let _ = reply.send(grant.map(|grant| self.reservation(grant)).map_err(error));
            }
            (Waiting::Limit(reply), Reply::SetLimit(usage)) => {
                let _ = reply.send(usage.ok_or(LimitError::StoreLost));
            }
            (Waiting::Watch(watch), Reply::Watch(result)) => self.reply_watch(watch, result),
            (Waiting::Hold(reply, camera), Reply::Hold(held)) => {
                self.reply_hold(reply, &camera, held);
            }
            (Waiting::Read(reply), Reply::Read(reader)) => self.reply_read(reply, reader),
            (Waiting::Feed(waiting), Reply::Hold(held)) => self.reply_feed(waiting, held),
            (Waiting::EndWatch(reply), Reply::EndWatch(done))
            | (Waiting::StopSource(reply), Reply::StopSource(done)) => {
                let _ = reply.send(done);
            }
            (Waiting::Reset(command), Reply::Snapshot(leases)) => self.reset(command, leases),
            (Waiting::ResetDone(reply), Reply::Reset(done)) => {
                let _ = reply.send(done);
            }
            (Waiting::Snapshot(reply), Reply::Snapshot(leases)) => {
                // What was last known is nearer to the truth than nothing.
                let is_store_lost = leases.is_none();
                let known = leases.or_else(|| self.last_leases.take());
                let known = known.unwrap_or_else(|| self.no_leases());
                let snapshot = self.snapshot(&known, self.clock.now());
                let _ = reply.send(Snapshot { is_store_lost, ..snapshot });
                self.last_leases = Some(known);
            }
            (_, reply) => error!(?request, ?reply, "this reply answers another question"),
        }
    }

    fn reply_watch(&mut self, watch: WaitingWatch, result: Result<ViewerId, WatchRefusal>) {
        let WaitingWatch { reservation, camera, offer, answer, reply } = watch;
        let result = match (result, answer) {
            (Ok(viewer), Some(Ok(accepted))) => Ok(self.begin_peer(viewer, accepted, &offer)),
            (Err(WatchRefusal::UnknownCamera), _) => {
                Err(WatchError::UnknownCamera(camera.to_string()))
            }
            (Err(WatchRefusal::Offer), Some(Err(refused))) => Err(WatchError::Offer(refused)),
            (Err(WatchRefusal::Codec(mismatch)), _) => Err(WatchError::Codec(mismatch)),
            (Err(WatchRefusal::ShuttingDown), _) => Err(WatchError::ShuttingDown),
            (Err(WatchRefusal::ReservationEnded | WatchRefusal::Offer) | Ok(_), _) => {
                let over = Over(self.endings.of_reservation(&reservation));
                Err(WatchError::ReservationEnded(over))
            }
        };
        if let Err(refused) = &result {
            info!(camera_id = %camera, reservation_id = %reservation, reason = %refused, "viewer not let in");
            let (reason, fault) = (refused.to_string(), fault_of(refused));
            self.journal.step(&reservation, Step::OfferRefused { reason, fault });
        }
        let _ = reply.send(result);
    }

    fn reservation(&self, grant: Grant) -> Reservation {
        let Grant { lease, usage, watching } = grant;
        let camera = self.cameras.get(&lease.reservation.camera);
        Reservation {
            camera_name: camera.map(|camera| camera.definition.name.clone()).unwrap_or_default(),
            id: lease.reservation.id,
            camera: lease.reservation.camera,
            source: lease.reservation.source,
            quality: watching.quality,
            rendition: watching.rendition,
            switches: watching.switches,
            expires_at: self.clock.system_time(lease.expires_at),
            current_usage: usage.current,
            limit: usage.limit,
        }
    }

    fn reserve_error(&mut self, camera: &CameraId, refusal: ReserveRefusal) -> ReserveError {
        match refusal {
            ReserveRefusal::UnknownCamera => ReserveError::UnknownCamera(camera.to_string()),
            ReserveRefusal::CameraOffline(failure) => {
                ReserveError::CameraOffline(failure.to_string())
            }
            ReserveRefusal::Quota(exceeded) => {
                self.quota_figures.count_refusal(&exceeded.scope);
                self.quota_error(exceeded)
            }
            ReserveRefusal::Unavailable => ReserveError::StoreLost,
            // 122 random bits met twice: there is no better word for it.
            ReserveRefusal::IdTaken | ReserveRefusal::ShuttingDown => ReserveError::ShuttingDown,
        }
    }

    fn quota_error(&self, exceeded: Exceeded) -> ReserveError {
        let Exceeded { scope, usage, free_at } = exceeded;
        let (source_name, source_name_ar) = match &scope {
            Scope::Source(id) => {
                let source = self.sources.iter().find(|source| source.id == *id);
                source.map(|s| (s.name.clone(), s.name_ar.clone())).unwrap_or_default()
            }
            Scope::Total => ("all sources".to_owned(), "جميع الجهات".to_owned()),
            Scope::User(user) => (user.clone(), user.clone()),
        };
        ReserveError::QuotaExceeded {
            scope,
            source_name,
            source_name_ar,
            current: usage.current,
            limit: usage.limit,
            retry_after: free_at.map(|at| at.saturating_since(self.clock.now())),
        }
    }

    /// Before the ledger told anything.
    fn no_leases(&self) -> control::ledger::Snapshot {
        let total = Usage { current: 0, limit: self.quota.total() };
        control::ledger::Snapshot { leases: Vec::new(), sources: Vec::new(), total }
    }
}

/// What the journal keeps of it.
fn refusal_of(error: &ReserveError) -> Refusal {
    let reason = error.to_string();
    match error {
        ReserveError::QuotaExceeded { .. } => Refusal::Quota(reason),
        ReserveError::UnknownCamera(_) | ReserveError::CameraOffline(_) => Refusal::Camera(reason),
        ReserveError::StoreLost | ReserveError::ShuttingDown => Refusal::Server(reason),
    }
}

fn fault_of(refused: &WatchError) -> OfferFault {
    match refused {
        WatchError::Offer(OfferError::Malformed(_) | OfferError::NoVideo) => OfferFault::Form,
        WatchError::Offer(OfferError::NoCommonCodec { .. }) | WatchError::Codec(_) => {
            OfferFault::Codec
        }
        WatchError::UnknownCamera(_)
        | WatchError::ReservationEnded(_)
        | WatchError::ShuttingDown => OfferFault::Late,
    }
}

//! A reset: the reservations and pullers of one camera, or of all, end in one step.

use std::collections::BTreeSet;

use control::{CameraId, LedgerOp, ReservationId, Timestamp};

use super::{Engine, Pending};
use crate::io::{Reply, RequestId, Reset};
use crate::note::EndReason;

impl Engine {
    /// `leases` are those that the ledger knows of, other nodes' too; sessions of which it has not told are
    /// ended as well.
    pub(super) fn reset(
        &mut self,
        request: RequestId,
        camera: Option<&CameraId>,
        leases: Vec<ReservationId>,
        now: Timestamp,
    ) {
        let covers = |id: &CameraId| camera.is_none_or(|camera| camera == id);
        let sessions =
            self.sessions.iter().filter(|(_, session)| covers(&session.reservation.camera));
        let reservations: BTreeSet<ReservationId> =
            sessions.map(|(id, _)| id.clone()).chain(leases).collect();
        let pulling: BTreeSet<CameraId> = self
            .streams
            .values()
            .filter(|stream| covers(&stream.camera) && stream.state.pulls())
            .map(|stream| stream.camera.clone())
            .collect();
        for reservation in &reservations {
            self.end_session(reservation, EndReason::Reset, now);
            self.apply(LedgerOp::Release(reservation.clone()), Pending::Release { request: None });
        }
        let streams = self.streams.values().filter(|stream| pulling.contains(&stream.camera));
        let streams: Vec<_> = streams.map(|stream| stream.id).collect();
        for stream in streams {
            self.stop_stream(stream, now);
        }
        let done = Reset {
            reservations: reservations.into_iter().collect(),
            cameras: pulling.into_iter().collect(),
        };
        self.reply(request, Reply::Reset(done));
    }
}

//! A reset is one step: between its beginning and its end nobody else is heard, so that who comes after it
//! stays.

use control::{CameraId, ReservationId};
use engine::{Request, Reset};
use tokio::sync::oneshot;

use super::App;
use super::actor::{Actor, Command, Waiting};

/// What is to be ended.
pub(super) struct ResetCommand {
    /// `None`: all cameras.
    camera: Option<CameraId>,
    reply: oneshot::Sender<Reset>,
}

impl App {
    /// Ends the reservations and pullers of a camera, or of all: viewers are told, cameras are let go with a
    /// TEARDOWN. Reservations of other nodes end, too; their pullers go with them. `None`: the application has
    /// ended.
    pub(crate) async fn reset(&self, camera: Option<CameraId>) -> Option<Reset> {
        self.ask(|reply| Command::Reset(ResetCommand { camera, reply })).await
    }
}

impl Actor {
    /// The ledger knows the leases of all nodes, and is asked first.
    pub(super) fn handle_reset_command(&mut self, command: ResetCommand) {
        self.ask(Request::Snapshot, Waiting::Reset(command));
    }

    /// `leases` are those that the ledger told; where it cannot be asked, this node's own are ended.
    pub(super) fn reset(
        &mut self,
        command: ResetCommand,
        leases: Option<control::ledger::Snapshot>,
    ) {
        let ResetCommand { camera, reply } = command;
        let is_meant = |id: &CameraId| camera.as_ref().is_none_or(|camera| camera == id);
        let leases: Vec<ReservationId> = leases
            .map(|told| told.leases)
            .unwrap_or_default()
            .into_iter()
            .filter(|lease| is_meant(&lease.reservation.camera))
            .map(|lease| lease.id().clone())
            .collect();
        self.ask(Request::Reset { camera, leases }, Waiting::ResetDone(reply));
    }
}

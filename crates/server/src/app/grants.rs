//! Whose cameras and reservations are: what HTTP must know before it does what it is asked.

use control::{CameraId, ReservationId, SourceId};
use tokio::sync::oneshot;

use super::App;
use super::actor::{Actor, Command};

/// Whose a live reservation is.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    /// Who reserved, as he was named.
    pub(crate) user: String,
    pub(crate) source: SourceId,
}

/// A call of the methods below.
pub(super) enum GrantCommand {
    SourceOf { camera: CameraId, reply: oneshot::Sender<Option<SourceId>> },
    HolderOf { reservation: ReservationId, reply: oneshot::Sender<Option<Holder>> },
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
                let holder = self.engine.session(&reservation).map(|session| Holder {
                    user: session.reservation.user.clone(),
                    source: session.reservation.source.clone(),
                });
                let _ = reply.send(holder);
            }
        }
    }
}

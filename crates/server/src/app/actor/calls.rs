//! The calls of [`crate::app::App`]: each becomes a question to the engine, or is answered on the spot.

use control::{CameraId, ReservationId};
use engine::Request;

use super::{Actor, Command, Waiting, WaitingWatch};
use crate::journal::{Step, Wish};

impl Actor {
    pub(super) fn handle_command(&mut self, command: Command) {
        match command {
            Command::Reserve { camera, user, quality, class, page, reply } => {
                let Some(reservation) = random_reservation() else { return };
                let wish = Wish { camera: camera.clone(), user: user.clone(), quality, class };
                self.journal.asked(&reservation, wish);
                let waiting = Waiting::Reserve {
                    reservation: reservation.clone(),
                    camera: camera.clone(),
                    page,
                    reply,
                };
                self.ask(Request::Reserve { reservation, camera, user, quality, class }, waiting);
            }
            Command::Release { reservation, reply } => {
                let waiting = Waiting::Release(reservation.clone(), reply);
                self.ask(Request::Release { reservation }, waiting);
            }
            Command::Heartbeat { reservation, extend, quality, reply } => {
                self.pages.called(&reservation, self.clock.now());
                let waiting = Waiting::Heartbeat(reservation.clone(), reply);
                self.ask(Request::Heartbeat { reservation, extend, quality }, waiting);
            }
            Command::Watch { reservation, camera, offer, reply } => {
                self.pages.called(&reservation, self.clock.now());
                self.journal.step(&reservation, Step::Offered);
                let watch = WaitingWatch {
                    reservation: reservation.clone(),
                    camera: camera.clone(),
                    offer,
                    answer: None,
                    reply,
                };
                self.ask(Request::Watch { reservation, camera }, Waiting::Watch(watch));
            }
            Command::Trickle { resource, etag, fragment, reply } => {
                let _ = reply.send(self.trickle(&resource, etag.as_deref(), fragment));
            }
            Command::RestartIce { resource, theirs, reply } => {
                self.restart_ice(&resource, theirs, reply);
            }
            Command::EndWatch { resource, reply } => match self.resources.get(&resource) {
                Some(viewer) => {
                    let request = Request::EndWatch { viewer: *viewer };
                    self.ask(request, Waiting::EndWatch(reply));
                }
                None => drop(reply.send(false)),
            },
            Command::StopSource { ingress, reply } => {
                let camera = self.camera_of_ingress(ingress);
                self.ask(Request::StopSource { camera }, Waiting::StopSource(reply));
            }
            Command::EndingOf { resource, reply } => {
                let _ = reply.send(self.endings.of(&resource));
            }
            Command::Limit(command) => self.handle_limit_command(command),
            Command::Grant(command) => self.handle_grant_command(command),
            Command::Outlet(command) => self.handle_outlet_command(command),
            Command::Page(command) => self.handle_page_command(command),
            Command::Park(command) => self.handle_park_command(command),
            Command::Feed(command) => self.handle_feed_command(command),
            Command::Reset(command) => self.handle_reset_command(command),
            Command::Snapshot { reply } => self.ask(Request::Snapshot, Waiting::Snapshot(reply)),
            Command::OriginsElsewhere { cameras } => self.handle_origins_elsewhere(&cameras),
            Command::Here { reply } => {
                // Who asked may have hung up.
                let _ = reply.send(self.here());
            }
            Command::Shutdown { reply } => self.shut_down(reply),
        }
    }

    /// The camera that an operator means: by its own id, or by its pusher's name.
    fn camera_of_ingress(&self, ingress: CameraId) -> CameraId {
        if self.cameras.contains_key(&ingress) {
            return ingress;
        }
        let named = self.cameras.keys().find(|camera| camera.pusher_name() == ingress.as_str());
        named.cloned().unwrap_or(ingress)
    }
}

/// A new reservation's id.
fn random_reservation() -> Option<ReservationId> {
    let text = uuid::Uuid::new_v4().hyphenated().to_string();
    ReservationId::parse(&text).ok()
}

//! Rooms and pullers in LiveKit's words: one room a camera that is watched or pulled.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Path, State};

use super::Http;
use super::auth::GrantError;
use super::caller::Caller;
use super::problem::Problem;
use super::wire::nodes::StopIngressQuestion;
use super::wire::{IngressAnswer, Participant, Room, RoomsAnswer};
use crate::app::{CameraSnapshot, Snapshot};
use crate::audit::Change;

/// `GET /rooms`
pub(super) async fn rooms(State(http): State<Http>, caller: Caller) -> Json<RoomsAnswer> {
    Json(rooms_answer(&caller.visible(http.whole().snapshot().await)))
}

pub(super) fn rooms_answer(snapshot: &Snapshot) -> RoomsAnswer {
    let rooms = snapshot.cameras.iter().filter(|camera| is_open(camera)).map(room_of).collect();
    RoomsAnswer { rooms }
}

/// `GET /rooms/{name}`: a list of the one room, or of none while nobody watches.
pub(super) async fn room(
    State(http): State<Http>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<RoomsAnswer>, Problem> {
    room_answer(&caller.visible(http.whole().snapshot().await), &name).map(Json)
}

pub(super) fn room_answer(snapshot: &Snapshot, name: &str) -> Result<RoomsAnswer, Problem> {
    let camera = snapshot.cameras.iter().find(|camera| camera.about.id.room_name() == name);
    let camera = camera.ok_or_else(|| {
        Problem::not_found("there is no such room; rooms are named camera_<camera_id>")
    })?;
    let participants = participants(snapshot, camera);
    let room = Room { participants: Some(participants), ..room_of(camera) };
    Ok(RoomsAnswer { rooms: is_open(camera).then_some(room).into_iter().collect() })
}

fn is_open(camera: &CameraSnapshot) -> bool {
    camera.pullers > 0 || camera.viewer_count > 0
}

fn room_of(camera: &CameraSnapshot) -> Room {
    Room {
        name: camera.about.id.room_name(),
        num_participants: camera.viewer_count + 1,
        num_publishers: 1,
        creation_time: camera.active_since.map(unix),
        ingress_id: camera.about.id.pusher_name(),
        participants: None,
    }
}

fn participants(snapshot: &Snapshot, camera: &CameraSnapshot) -> Vec<Participant> {
    let publisher = Participant {
        identity: camera.about.id.publisher_identity(),
        name: camera.about.name.clone(),
        state: if camera.state == "live" { "ACTIVE" } else { "JOINED" },
        joined_at: camera.active_since.map(unix),
        is_publisher: true,
    };
    let viewers = snapshot.reservations.iter().filter(|viewer| viewer.camera == camera.about.id);
    let viewers = viewers.map(|viewer| Participant {
        identity: viewer.id.viewer_identity(),
        name: viewer.user.clone(),
        state: if viewer.connected { "ACTIVE" } else { "JOINED" },
        joined_at: Some(unix(viewer.created_at)),
        is_publisher: false,
    });
    std::iter::once(publisher).chain(viewers).collect()
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `DELETE /ingress/{id}`
pub(super) async fn stop_ingress(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<IngressAnswer>, Problem> {
    require_ingress(&http, &caller, &id).await?;
    // Edges with viewers would pull the camera themselves, if only its origin were told.
    let asked = http.ask_nodes(StopIngressQuestion { ingress_id: id.clone() });
    let (here, others) = tokio::join!(http.app().stop_source(&id), asked);
    if here || others.answers.iter().any(|(_, stopped)| *stopped) {
        let snapshot = http.app().snapshot().await;
        let meant = snapshot.cameras.iter().find(|camera| is_ingress(camera, &id));
        http.app().audit().tell(Change {
            actor: caller.identity(),
            action: "source_stopped",
            object: meant.map_or(id.as_str(), |camera| camera.about.id.as_str()),
            source: meant.map_or("", |camera| camera.about.source.as_str()),
            detail: String::new(),
        });
        Ok(Json(IngressAnswer { ingress_id: id, stopped: true }))
    } else {
        Err(no_puller())
    }
}

fn no_puller() -> Problem {
    Problem::not_found("there is no such puller; GET /rooms shows each room's ingress_id")
}

/// By the camera's id, or by its puller's.
fn is_ingress(camera: &CameraSnapshot, ingress: &str) -> bool {
    camera.about.id.as_str() == ingress || camera.about.id.pusher_name() == ingress
}

/// Refuses to stop the puller of a camera that is not the caller's.
async fn require_ingress(http: &Http, caller: &Caller, ingress: &str) -> Result<(), Problem> {
    if caller.is_admin() {
        return Ok(());
    }
    let seen = caller.visible(http.whole().snapshot().await);
    match seen.cameras.iter().find(|camera| is_ingress(camera, ingress)) {
        None => Err(no_puller()),
        Some(camera) if caller.may_change(&camera.about.source) => Ok(()),
        Some(_) => Err(GrantError::NotAnOperator.into()),
    }
}

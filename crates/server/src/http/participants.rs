//! Viewers are sent away: in our words, and in those of LiveKit's `RoomService`.
//!
//! The session ends at once, its lease goes back, and its token opens nothing any more.

use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use control::ReservationId;

use super::Http;
use super::caller::{Caller, Wish};
use super::extract::JsonBody;
use super::problem::Problem;
use super::wire::nodes::{RemoveQuestion, RemovedViewer};
use super::wire::{RemoveParticipant, RemovedAnswer, TwirpError};
use crate::app::Holder;
use crate::audit::Change;

/// `DELETE /rooms/{name}/participants/{identity}`
pub(super) async fn remove(
    State(http): State<Http>,
    caller: Caller,
    Path((room, identity)): Path<(String, String)>,
) -> Result<Json<RemovedAnswer>, Problem> {
    let RemovedViewer { source, new_count } = send_away(&http, &caller, &room, &identity).await?;
    Ok(Json(RemovedAnswer { room, identity, removed: true, source, new_count }))
}

/// `POST /twirp/livekit.RoomService/RemoveParticipant`
pub(super) async fn remove_by_twirp(
    State(http): State<Http>,
    caller: Caller,
    JsonBody(RemoveParticipant { room, identity }): JsonBody<RemoveParticipant>,
) -> Response {
    match send_away(&http, &caller, &room, &identity).await {
        Ok(_) => Json(serde_json::json!({})).into_response(),
        Err(problem) => twirp(&problem),
    }
}

/// What LiveKit's libraries read of an error.
fn twirp(problem: &Problem) -> Response {
    let status = problem.status();
    let code = match status {
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::FORBIDDEN => "permission_denied",
        StatusCode::CONFLICT => "failed_precondition",
        _ => "internal",
    };
    (status, Json(TwirpError { code, msg: problem.detail() })).into_response()
}

/// Ends the session of a viewer for good.
async fn send_away(
    http: &Http,
    caller: &Caller,
    room: &str,
    identity: &str,
) -> Result<RemovedViewer, Problem> {
    let id = identity.strip_prefix("viewer_").and_then(|id| ReservationId::parse(id).ok());
    let Some(id) = id else {
        return Err(no_viewer(http, caller, room, identity).await);
    };
    let holder = http.find_holder(&id).await;
    let holder = holder.filter(|holder| holder.camera.room_name() == room);
    let holder = holder.ok_or_else(no_participant)?;
    if !caller.may_read(&holder.source) {
        return Err(no_participant());
    }
    caller.require_camera(http, &holder.camera, Wish::Change).await?;
    // Before the session ends, so that its page cannot come back in between.
    http.revoke(&id).await;
    if http.may_be_elsewhere(&id).await {
        http.forwarded(&id, "removal");
        let (reservation_id, by) = (id.to_string(), caller.identity().to_owned());
        let question = RemoveQuestion { reservation_id, by };
        let removed = http.act_elsewhere(id.as_str(), question).await;
        if removed.is_ok() {
            note(http, &id, &holder, caller.identity());
            return removed;
        }
        // Its node cannot be asked: what the store ends is ended there as soon as it looks.
    }
    remove_here(http, &id, &holder, caller.identity()).await
}

impl Http {
    /// The tokens of a reservation open nothing from here on, at no server of the store.
    async fn revoke(&self, id: &ReservationId) {
        self.keyring().revoke(id, SystemTime::now());
        self.keyring().revocations().save().await;
    }
}

/// Ends the session of a viewer of this node, and the lease of any.
pub(super) async fn remove_here(
    http: &Http,
    id: &ReservationId,
    holder: &Holder,
    by: &str,
) -> Result<RemovedViewer, Problem> {
    http.revoke(id).await;
    let released = http.app().remove_viewer(id.clone()).await.ok_or_else(no_participant)?;
    note(http, id, holder, by);
    Ok(RemovedViewer { source: released.source.to_string(), new_count: released.new_count })
}

/// Tells the log and the audit trail, at the node that was asked and at the one with the session.
fn note(http: &Http, id: &ReservationId, holder: &Holder, by: &str) {
    let Holder { user, camera: camera_id, source } = holder;
    tracing::info!(%camera_id, reservation_id = %id, ?by, "viewer sent away");
    http.app().audit().tell(Change {
        actor: by,
        action: "viewer_sent_away",
        object: id.as_str(),
        source: source.as_str(),
        detail: format!("{user} from camera {camera_id}; the token is revoked"),
    });
}

fn no_participant() -> Problem {
    Problem::not_found("there is no such viewer in this room; GET /rooms/{name} lists them")
}

/// Publishers are participants too, but of another kind.
async fn no_viewer(http: &Http, caller: &Caller, room: &str, identity: &str) -> Problem {
    let seen = caller.visible(http.whole().snapshot().await);
    let is_publisher = seen.cameras.iter().any(|camera| {
        camera.about.id.room_name() == room && camera.about.id.publisher_identity() == identity
    });
    if is_publisher {
        let sentence = "this is the camera's publisher; DELETE /ingress/{id} stops its puller";
        Problem::new(StatusCode::CONFLICT, sentence)
    } else {
        no_participant()
    }
}

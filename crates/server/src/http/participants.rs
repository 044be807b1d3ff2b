//! Viewers are sent away: in our words, and in those of LiveKit's `RoomService`.
//!
//! The session ends at once, its lease goes back, and its token opens nothing any more. Where the node of the
//! session cannot be asked, it reads of it in the store, and the answer says that this is still to come.

use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use control::ReservationId;

use super::Http;
use super::asking::sentences;
use super::caller::{Caller, Wish};
use super::extract::JsonBody;
use super::problem::Problem;
use super::wire::nodes::{Act, RemoveQuestion, RemovedViewer};
use super::wire::{RemoveParticipant, RemovedAnswer, TwirpError};
use crate::app::Holder;
use crate::audit::Change;
use crate::cluster::SilentReason;

/// How often the node of a viewer is asked to send him away. It is given a second each time, so that an
/// operator waits three at most.
const ASKED_MAX: usize = 3;

/// `DELETE /rooms/{name}/participants/{identity}`
pub(super) async fn remove(
    State(http): State<Http>,
    caller: Caller,
    Path((room, identity)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let answer = match send_away(&http, &caller, &room, &identity).await? {
        Removal::Done(RemovedViewer { source, new_count }) => {
            RemovedAnswer { room, identity, removed: true, source, new_count, note: None }
        }
        Removal::Pending { source, note } => {
            let new_count = count_of(&http, &source).await;
            let note = Some(note);
            RemovedAnswer { room, identity, removed: false, source, new_count, note }
        }
    };
    let status = if answer.removed { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(answer)).into_response())
}

/// What became of sending a viewer away.
enum Removal {
    /// The session is over.
    Done(RemovedViewer),
    /// The tokens are revoked, and the node of the session is still to read that.
    Pending { source: String, note: String },
}

/// The units that a source uses.
async fn count_of(http: &Http, source: &str) -> u32 {
    let snapshot = http.app().snapshot().await;
    let known = snapshot.sources.iter().find(|known| known.id.as_str() == source);
    known.map(|known| known.current).unwrap_or_default()
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
) -> Result<Removal, Problem> {
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
        return remove_elsewhere(http, &id, &holder, caller.identity()).await;
    }
    remove_here(http, &id, &holder, caller.identity()).await.map(Removal::Done)
}

/// Lets the node of a session end it, and ends a lease whose session no node has.
async fn remove_elsewhere(
    http: &Http,
    id: &ReservationId,
    holder: &Holder,
    by: &str,
) -> Result<Removal, Problem> {
    let mut silent = Vec::new();
    for _ in 0..ASKED_MAX {
        let question = RemoveQuestion { reservation_id: id.to_string(), by: by.to_owned() };
        let asked = http.ask_nodes(question).await;
        let done = asked.answers.into_iter().find_map(|(_, act)| match act {
            Act::Done(done) => Some(done),
            // It ended in between.
            Act::Refused(_) | Act::NotHere => None,
        });
        if let Some(done) = done {
            note(http, id, holder, by);
            return Ok(Removal::Done(done));
        }
        silent = asked.silent;
        // With a node that is gone its sessions are.
        silent.retain(|silent| !matches!(silent.reason, SilentReason::Gone { .. }));
        if silent.is_empty() {
            return Ok(Removal::Done(end_lease(http, id, holder, by).await));
        }
    }
    note(http, id, holder, by);
    let said = sentences(&silent).join("; ");
    let note = format!(
        "{said}; its tokens are revoked, and a node that has the viewer ends the session when it reads that \
         in the store, twice a second"
    );
    Ok(Removal::Pending { source: holder.source.to_string(), note })
}

/// Ends the lease of a session that no node has. It may have ended already: each node reads in the store what
/// is revoked, and may be quicker than the question.
async fn end_lease(http: &Http, id: &ReservationId, holder: &Holder, by: &str) -> RemovedViewer {
    let released = http.app().remove_viewer(id.clone()).await;
    note(http, id, holder, by);
    let source = holder.source.to_string();
    let new_count = match released {
        Some(released) => released.new_count,
        None => count_of(http, &source).await,
    };
    RemovedViewer { source, new_count }
}

impl Http {
    /// The tokens of a reservation open nothing from here on, at no server of the store.
    async fn revoke(&self, id: &ReservationId) {
        self.keyring().revoke(id, SystemTime::now());
        self.keyring().revocations().save().await;
    }
}

/// Ends the session of a viewer of this node.
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

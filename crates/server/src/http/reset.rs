//! `POST /api/v1/reset`: ends reservations and pullers, of one camera or of all.
//!
//! It is one step of the application: viewers are told, the account stays exact, cameras are let go with a
//! TEARDOWN. Who reserves after it stays.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use control::CameraId;
use engine::Reset;

use super::Http;
use super::api::camera_id;
use super::asking::sentences;
use super::caller::{Caller, Wish};
use super::extract::JsonBody;
use super::problem::Problem;
use super::wire::nodes::{ResetPart, ResetQuestion};
use super::wire::operations::{ResetAnswer, ResetRequest};
use crate::app::{CameraSnapshot, ReservationSnapshot, Snapshot};
use crate::audit::Change;

/// What is reset.
enum Extent {
    Camera(CameraId),
    All,
}

impl Extent {
    fn read(request: &ResetRequest) -> Result<Self, Problem> {
        match (&request.camera_id, request.all) {
            (Some(id), false) => camera_id(id).map(Self::Camera),
            (None, true) => Ok(Self::All),
            (Some(_), true) | (None, false) => {
                Err(Problem::bad_request("give either camera_id or all = true"))
            }
        }
    }

    /// `None`: all.
    fn camera(&self) -> Option<CameraId> {
        match self {
            Self::Camera(id) => Some(id.clone()),
            Self::All => None,
        }
    }

    /// As the audit trail has it.
    fn word(&self) -> &str {
        match self {
            Self::Camera(id) => id.as_str(),
            Self::All => "all",
        }
    }

    fn covers(&self, camera: &CameraId) -> bool {
        match self {
            Self::Camera(id) => id == camera,
            Self::All => true,
        }
    }

    fn reservations<'a>(
        &'a self,
        snapshot: &'a Snapshot,
    ) -> impl Iterator<Item = &'a ReservationSnapshot> {
        snapshot.reservations.iter().filter(|viewer| self.covers(&viewer.camera))
    }

    fn cameras<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a CameraSnapshot> {
        snapshot.cameras.iter().filter(|camera| self.covers(&camera.about.id))
    }
}

#[utoipa::path(
    post,
    path = "/api/v1/reset",
    tag = "operations",
    summary = "End the reservations and pullers of one camera or of all",
    request_body = ResetRequest,
    responses(
        (status = 200, description = "What was ended", body = ResetAnswer),
        (status = 400, description = "Neither or both were named"),
        (status = 404, description = "There is no such camera"),
    ),
)]
pub(super) async fn reset(
    State(http): State<Http>,
    caller: Caller,
    JsonBody(request): JsonBody<ResetRequest>,
) -> Result<Json<ResetAnswer>, Problem> {
    let extent = Extent::read(&request)?;
    match &extent {
        Extent::Camera(id) => caller.require_camera(&http, id, Wish::Change).await?,
        Extent::All => caller.require_admin()?,
    }
    let before = http.app().snapshot().await;
    if let Extent::Camera(id) = &extent
        && extent.cameras(&before).next().is_none()
    {
        return Err(Problem::not_found(format!("there is no camera {id}")));
    }
    let here = reset_here(&http, request.camera_id.as_deref()).await?;
    let asked = http.ask_nodes(ResetQuestion { camera_id: request.camera_id.clone() }).await;
    let parts = || std::iter::once(&here).chain(asked.answers.iter().map(|(_, part)| part));
    let all = |of: fn(&ResetPart) -> &Vec<String>| -> Vec<String> {
        parts().flat_map(of).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    };
    let reservations_ended = all(|part| &part.reservations);
    let pullers_stopped = all(|part| &part.cameras);
    let after = http.app().snapshot().await;
    let named =
        extent.camera().and_then(|id| before.cameras.iter().find(|found| found.about.id == id));
    let (ended, stopped) = (reservations_ended.len(), pullers_stopped.len());
    tracing::info!(camera_id = extent.word(), ended, stopped, "reset on request");
    http.app().audit().tell(Change {
        actor: caller.identity(),
        action: "reset",
        object: extent.word(),
        source: named.map_or("", |camera| camera.about.source.as_str()),
        detail: format!("reservations ended: {ended}, pullers stopped: {stopped}"),
    });
    Ok(Json(ResetAnswer {
        reservations_left: extent.reservations(&after).count(),
        pullers_left: extent.cameras(&after).map(|camera| camera.pullers).sum(),
        reservations_ended,
        pullers_stopped,
        unanswered: sentences(&asked.silent),
    }))
}

/// What one node ends: the leases that the ledger tells, and its own viewers and pullers.
pub(super) async fn reset_here(http: &Http, camera: Option<&str>) -> Result<ResetPart, Problem> {
    let camera = camera.map(camera_id).transpose()?;
    let Reset { reservations, cameras } = http.app().reset(camera).await.ok_or_else(ended)?;
    http.outlets().resets.add(1);
    Ok(ResetPart {
        reservations: reservations.iter().map(ToString::to_string).collect(),
        cameras: cameras.iter().map(ToString::to_string).collect(),
    })
}

fn ended() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down")
}

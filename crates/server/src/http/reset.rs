//! `POST /api/v1/reset`: ends reservations and pullers, of one camera or of all.
//!
//! It goes the same way as each viewer's own release and as `DELETE /ingress/{id}`: viewers are told, the
//! account stays exact, cameras are let go with a TEARDOWN. Who reserves meanwhile is not ended.

use axum::Json;
use axum::extract::State;
use control::CameraId;

use super::Http;
use super::api::camera_id;
use super::caller::{Caller, Wish};
use super::extract::JsonBody;
use super::problem::Problem;
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
        snapshot.cameras.iter().filter(|camera| self.covers(&camera.id))
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
    let mut reservations_ended = Vec::new();
    for viewer in extent.reservations(&before) {
        // It may have ended by itself meanwhile.
        if http.app().release(viewer.id.as_str()).await.is_ok() {
            reservations_ended.push(viewer.id.to_string());
        }
    }
    let mut pullers_stopped = Vec::new();
    for camera in extent.cameras(&before).filter(|camera| camera.pullers > 0) {
        if http.app().stop_source(camera.id.as_str()).await {
            pullers_stopped.push(camera.id.to_string());
        }
    }
    let after = http.app().snapshot().await;
    let camera = request.camera_id.as_deref().unwrap_or("all");
    let (reservations, pullers) = (reservations_ended.len(), pullers_stopped.len());
    tracing::info!(camera_id = camera, reservations, pullers, "reset on request");
    let named = before.cameras.iter().find(|found| found.id.as_str() == camera);
    http.app().audit().tell(Change {
        actor: caller.identity(),
        action: "reset",
        object: camera,
        source: named.map_or("", |camera| camera.source.as_str()),
        detail: format!("{reservations} reservations and {pullers} pullers were ended"),
    });
    Ok(Json(ResetAnswer {
        reservations_left: extent.reservations(&after).count(),
        pullers_left: extent.cameras(&after).map(|camera| camera.pullers).sum(),
        reservations_ended,
        pullers_stopped,
    }))
}

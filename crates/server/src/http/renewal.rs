//! Fresh tokens: for who tells by heartbeat that he is there, or shows one that still holds.
//!
//! Whoever gets one may watch as long as it says.

use std::time::SystemTime;

use axum::http::StatusCode;
use control::{CameraId, ReservationId};

use super::Http;
use super::auth::{GrantError, Pass, SignError};
use super::caller::why_no_reservation;
use super::problem::Problem;

/// A fresh token for the viewer of a reservation, who may watch as long as it is good.
pub(super) async fn sign(
    http: &Http,
    reservation: &ReservationId,
    camera: &CameraId,
    now: SystemTime,
) -> Result<Pass, Problem> {
    let pass = http.keyring().viewer_pass(reservation, camera, now);
    let pass = pass.map_err(|error| unsigned(&error))?;
    http.app().permit(reservation.clone(), pass.permit).await;
    http.app().journal().token(reservation, http.keyring().ttl());
    Ok(pass)
}

/// A fresh token for one of a viewer that still holds, while its reservation lives. Tokens of people and
/// programs are not renewed: whoever made them decides how long they are good.
pub(super) async fn renew(http: &Http, token: &str) -> Result<Pass, Problem> {
    let now = SystemTime::now();
    let grant = http.keyring().verify_token(token, now)?;
    let reservation = grant.reservation().ok_or(GrantError::NotAViewer)?;
    let Some(holder) = http.app().holder_of(reservation.clone()).await else {
        return Err(why_no_reservation(http, reservation.as_str()).await);
    };
    grant.viewer_of(&holder.camera.room_name())?;
    sign(http, &reservation, &holder.camera, now).await
}

/// 500.
pub(super) fn unsigned(error: &SignError) -> Problem {
    tracing::error!(%error, "no token for a reservation");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the token could not be signed")
}

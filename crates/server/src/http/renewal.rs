//! Fresh tokens: for who tells by heartbeat that he is there, or shows one that still holds.
//!
//! Whoever gets one may watch as long as it says.

use std::time::SystemTime;

use axum::http::StatusCode;
use control::{CameraId, ReservationId};

use super::auth::{GrantError, Pass, SignError};
use super::problem::Problem;
use super::wire::nodes::{FreshToken, RenewQuestion};
use super::{Http, rfc3339};
use crate::app::{LeaseError, Over};

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
pub(super) async fn renew(http: &Http, token: &str) -> Result<FreshToken, Problem> {
    let grant = http.keyring().verify_token(token, SystemTime::now())?;
    let reservation = grant.reservation().ok_or(GrantError::NotAViewer)?;
    let id = reservation.as_str();
    let Some(holder) = http.find_holder(&reservation).await else {
        return Err(http.why_over(id).await);
    };
    grant.viewer_of(&holder.camera.room_name())?;
    if http.may_be_elsewhere(&reservation).await {
        http.forwarded(&reservation, "renewal");
        return http.act_elsewhere(id, RenewQuestion { reservation_id: id.to_owned() }).await;
    }
    renew_here(http, id).await
}

/// A fresh token for a viewer of this node.
pub(super) async fn renew_here(http: &Http, id: &str) -> Result<FreshToken, Problem> {
    let over = LeaseError::Over(Over(None));
    let reservation = ReservationId::parse(id).map_err(|_| over)?;
    let holder = http.app().holder_of(reservation.clone()).await.ok_or(over)?;
    let pass = sign(http, &reservation, &holder.camera, SystemTime::now()).await?;
    Ok(FreshToken { token: pass.token, expires_at: rfc3339(pass.permit.until) })
}

/// 500.
pub(super) fn unsigned(error: &SignError) -> Problem {
    tracing::error!(%error, "no token for a reservation");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the token could not be signed")
}

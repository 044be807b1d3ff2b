//! `GET /api/v1/trace/{id}`: the life of a reservation, from memory or from the audit trail.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use control::{ReservationId, SourceId, Timestamp};

use super::Http;
use super::caller::{Caller, Role};
use super::problem::Problem;
use super::wire::audit::{TraceAnswer, TraceStep};
use crate::audit::{Found, Kind, Row};
use crate::database::DatabaseError;
use crate::journal::{Life, LifeState, Step, Token};

#[utoipa::path(
    get,
    path = "/api/v1/trace/{id}",
    tag = "operations",
    summary = "The life of a reservation, step by step",
    params(("id" = String, Path, description = "A reservation; it may have ended, or never been granted")),
    responses(
        (status = 200, description = "What happened, and when", body = TraceAnswer),
        (status = 404, description = "There never was such a reservation, or it is forgotten"),
        (status = 503, description = "The audit trail cannot be read"),
    ),
)]
pub(super) async fn trace(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<TraceAnswer>, Problem> {
    let id =
        ReservationId::parse(id.strip_prefix("viewer_").unwrap_or(&id)).map_err(|_| unknown())?;
    if let Some(life) = http.app().journal().life(&id) {
        let is_his = may_read(&caller, life.source.as_ref(), &id, &life.user);
        return if is_his { Ok(Json(of_life(life))) } else { Err(unknown()) };
    }
    let found = http.app().audit().life(&id).await.map_err(unreadable)?.ok_or_else(unknown)?;
    let source = SourceId::parse(&found.row.source).ok();
    let is_his = may_read(&caller, source.as_ref(), &id, &found.row.actor);
    if is_his { Ok(Json(of_row(found))) } else { Err(unknown()) }
}

/// A refused reservation is nobody's source's: it is shown to who sees everything, and to whom it was.
fn may_read(caller: &Caller, source: Option<&SourceId>, id: &ReservationId, user: &str) -> bool {
    let is_of_source =
        caller.role() >= Role::Operator && source.is_some_and(|of| caller.may_read(of));
    caller.reads_all() || is_of_source || caller.owns(id, user)
}

fn unknown() -> Problem {
    Problem::not_found(
        "there never was such a reservation, or it is forgotten; the log has each line of a reservation under \
         its reservation_id",
    )
}

pub(super) fn unreadable(error: DatabaseError) -> Problem {
    tracing::warn!(%error, "the audit trail cannot be read");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

/// RFC 3339 in UTC, to the millisecond.
pub(super) fn written(at: Timestamp) -> String {
    super::rfc3339(std::time::UNIX_EPOCH + at.saturating_since(Timestamp::ZERO))
}

fn of_life(life: Life) -> TraceAnswer {
    let state = match life.state {
        LifeState::Asked => "asked",
        LifeState::Refused => "refused",
        LifeState::Granted => "granted",
        LifeState::Ended(_) => "ended",
    };
    let last = life.newest(|step| matches!(step, Step::Ended(_) | Step::Refused(_)));
    let reason = last.map(|moment| moment.step.detail());
    let now = Timestamp::ZERO + std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    let (began, token) = (life.began, life.token);
    let steps = life.steps.iter().map(|moment| TraceStep {
        at: written(moment.at),
        after_ms: since(began, moment.at),
        step: moment.step.word().to_owned(),
        detail: moment.step.detail(),
    });
    TraceAnswer {
        reservation_id: life.id.to_string(),
        camera_id: life.camera.to_string(),
        source: life.source.as_ref().map(ToString::to_string),
        state,
        began: written(began),
        ended: life.ended.map(written),
        duration_ms: since(began, life.ended.unwrap_or(now)),
        reason,
        rendition: life.rendition.map(engine::Rendition::as_str),
        packets_sent: life.sent.packets,
        bytes_sent: life.sent.octets,
        frames_decoded: life.decoded,
        token_expires: token.map(|Token { expires, .. }| written(expires)),
        token_renewals: token.map(|Token { renewals, .. }| renewals),
        steps: steps.collect(),
        steps_omitted: life.steps_omitted.into(),
        found_in: "memory",
        user_id: life.user,
    }
}

fn of_row(found: Found) -> TraceAnswer {
    let row = found.row;
    let state = match row.kind {
        Kind::Begun => "granted",
        Kind::Refused => "refused",
        Kind::Cut => "cut",
        Kind::Ended
        | Kind::Changed
        | Kind::Started
        | Kind::Stopped
        | Kind::Lost
        | Kind::Checkpoint => "ended",
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let began = row.from.or(row.steps.first().map(|step| step.at)).unwrap_or(row.at);
    let steps = row.steps.iter().map(|step| TraceStep {
        at: written(step.at),
        after_ms: since(began, step.at),
        step: step.word.clone(),
        detail: step.detail.clone(),
    });
    let Row { ref source, ref reason, .. } = row;
    TraceAnswer {
        reservation_id: row.reservation.clone(),
        camera_id: row.camera.clone(),
        source: text(source),
        state,
        began: written(began),
        ended: row.to.map(written),
        duration_ms: since(began, row.to.unwrap_or(row.at)),
        reason: text(reason),
        rendition: None,
        packets_sent: row.packets,
        bytes_sent: row.bytes,
        frames_decoded: None,
        token_expires: None,
        token_renewals: None,
        steps: steps.collect(),
        steps_omitted: row.steps_omitted,
        found_in: "audit",
        user_id: row.actor.clone(),
    }
}

fn since(began: Timestamp, at: Timestamp) -> u64 {
    u64::try_from(at.saturating_since(began).as_millis()).unwrap_or(u64::MAX)
}

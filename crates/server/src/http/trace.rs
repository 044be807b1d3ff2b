//! `GET /api/v1/trace/{id}`: the life of a reservation, from memory or from the audit trail.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use control::{CameraId, ReservationId, SourceId, Timestamp};

use super::Http;
use super::asking::sentences;
use super::caller::{Caller, Role};
use super::problem::Problem;
use super::wire::audit::{TraceAnswer, TraceStep};
use super::wire::nodes::{TracePart, TraceQuestion};
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
    let mut here = known_here(&http, id.as_str()).await?;
    here.sign(http.node_name());
    let asked = http.ask_nodes(TraceQuestion { reservation_id: id.to_string() }).await;
    let mut parts = vec![here];
    parts.extend(asked.answers.into_iter().map(|(node, mut part)| {
        part.sign(Some(&node));
        part
    }));
    let unanswered = sentences(&asked.silent);
    let Some(mut answer) = merged(parts) else {
        return Err(no_life(&http, &caller, &id, &unanswered).await);
    };
    let source = answer.source.as_deref().and_then(|source| SourceId::parse(source).ok());
    if !may_read(&caller, source.as_ref(), &id, &answer.user_id) {
        return Err(unknown());
    }
    if let Ok(camera) = CameraId::parse(&answer.camera_id) {
        answer.origin = http.origin_of(&camera).await;
    }
    answer.unanswered = unanswered;
    Ok(Json(answer))
}

/// What this node knows of a reservation, for whoever may see it.
pub(super) async fn known_here(http: &Http, id: &str) -> Result<TracePart, Problem> {
    let id = ReservationId::parse(id).map_err(|_| unknown())?;
    let journal = http.app().journal();
    let life = match journal.life(&id) {
        Some(life) => Some(of_life(life)),
        None => http.app().audit().life(&id).await.map_err(unreadable)?.map(of_row),
    };
    let steps = journal.foreign_steps(&id).into_iter().map(|moment| TraceStep {
        at: written(moment.at),
        after_ms: 0,
        step: moment.step.word().to_owned(),
        detail: moment.step.detail(),
        node: None,
    });
    Ok(TracePart { life, steps: steps.collect() })
}

impl TracePart {
    /// Says where it happened.
    fn sign(&mut self, node: Option<&str>) {
        let node = node.map(ToOwned::to_owned);
        let steps = self.life.iter_mut().flat_map(|life| &mut life.steps).chain(&mut self.steps);
        steps.for_each(|step| step.node.clone_from(&node));
        if let Some(life) = &mut self.life {
            life.node = node;
        }
    }
}

/// One life of what each node knows, all steps in the order of time. `None`: nobody knows its life.
fn merged(parts: Vec<TracePart>) -> Option<TraceAnswer> {
    let (mut lives, mut steps) = (Vec::new(), Vec::new());
    for part in parts {
        lives.extend(part.life);
        steps.extend(part.steps);
    }
    // Where it was granted it was watched; of one that was refused there is one life.
    let place = lives.iter().position(|life| life.source.is_some()).unwrap_or_default();
    let mut answer = (!lives.is_empty()).then(|| lives.swap_remove(place))?;
    steps.extend(lives.into_iter().flat_map(|life| life.steps));
    if steps.is_empty() {
        return Some(answer);
    }
    answer.steps.extend(steps);
    // RFC 3339 of one length, in UTC: the order of texts is that of time.
    answer.steps.sort_by(|one, other| one.at.cmp(&other.at));
    let began = read(&answer.began);
    for step in &mut answer.steps {
        step.after_ms = since(began, read(&step.at));
    }
    Some(answer)
}

/// As [`written`] wrote it.
fn read(at: &str) -> Timestamp {
    let at = humantime::parse_rfc3339(at).unwrap_or(std::time::UNIX_EPOCH);
    Timestamp::ZERO + at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// Nobody who answered knows its life. It may live all the same, at a node that did not answer.
async fn no_life(
    http: &Http,
    caller: &Caller,
    id: &ReservationId,
    unanswered: &[String],
) -> Problem {
    if unanswered.is_empty() {
        return unknown();
    }
    let note = unanswered.join("; ");
    match http.find_holder(id).await {
        Some(holder) if may_read(caller, Some(&holder.source), id, &holder.user) => {
            let sentence = format!(
                "{} has a place before camera {}, at a node that does not say more; {note}",
                holder.user, holder.camera
            );
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
        }
        Some(_) | None => unknown().with_note(&note),
    }
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
        node: None,
    });
    TraceAnswer {
        reservation_id: life.id.to_string(),
        camera_id: life.camera.to_string(),
        source: life.source.as_ref().map(ToString::to_string),
        state: state.to_owned(),
        began: written(began),
        ended: life.ended.map(written),
        duration_ms: since(began, life.ended.unwrap_or(now)),
        reason,
        rendition: life.rendition.map(|rendition| rendition.as_str().to_owned()),
        packets_sent: life.sent.packets,
        bytes_sent: life.sent.octets,
        frames_decoded: life.decoded,
        token_expires: token.map(|Token { expires, .. }| written(expires)),
        token_renewals: token.map(|Token { renewals, .. }| renewals),
        steps: steps.collect(),
        steps_omitted: life.steps_omitted.into(),
        found_in: "memory".to_owned(),
        node: None,
        origin: None,
        unanswered: Vec::new(),
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
        node: None,
    });
    let Row { ref source, ref reason, .. } = row;
    TraceAnswer {
        reservation_id: row.reservation.clone(),
        camera_id: row.camera.clone(),
        source: text(source),
        state: state.to_owned(),
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
        found_in: "audit".to_owned(),
        node: None,
        origin: None,
        unanswered: Vec::new(),
        user_id: row.actor.clone(),
    }
}

fn since(began: Timestamp, at: Timestamp) -> u64 {
    u64::try_from(at.saturating_since(began).as_millis()).unwrap_or(u64::MAX)
}

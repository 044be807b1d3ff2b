//! `GET /api/v1/why/{id}`: why a viewer, a camera or the voice relay brings no picture or no sound.

use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use control::{CameraId, ReservationId};

use super::Http;
use super::caller::Caller;
use super::problem::Problem;
use super::wire::operations::{WhyAnswer, WhyRung, WhyViewer};
use crate::app::Snapshot;
use crate::voice::Voice;
use crate::why::{self, Explanation, Kind, Rung, RungState, Watcher};

/// The word that stands for the voice relay, where no camera has it for its id.
const VOICE: &str = "voice";

/// Of a reservation, a camera, or `voice`.
#[utoipa::path(
    get,
    path = "/api/v1/why/{id}",
    tag = "operations",
    summary = "Why there is no picture or no sound, in one sentence",
    params(("id" = String, Path, description = "A reservation, a camera, or `voice`")),
    responses(
        (status = 200, description = "The ladder, and what to do", body = WhyAnswer),
        (status = 404, description = "There is nothing of this name"),
    ),
)]
pub(super) async fn why(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<WhyAnswer>, Problem> {
    let snapshot = caller.visible(http.whole().snapshot().await);
    let camera = CameraId::parse(&id).ok();
    let found = camera
        .and_then(|camera| why::camera(&snapshot, &camera))
        .or_else(|| of_reservation(&http, &caller, &snapshot, &id))
        .or_else(|| (id == VOICE).then(|| of_voice(&http)));
    found.map(|found| Json(answer(id, found))).ok_or_else(|| {
        Problem::not_found(
            "there is no camera and no reservation of this name; one that ended long ago is forgotten",
        )
    })
}

/// Of the caller's own, or of his sources; also after its end.
fn of_reservation(
    http: &Http,
    caller: &Caller,
    snapshot: &Snapshot,
    id: &str,
) -> Option<Explanation> {
    let id = ReservationId::parse(viewer_of(id)).ok()?;
    let Some(life) = http.app().journal().life(&id) else {
        return why::elsewhere(snapshot, &id);
    };
    let is_his = caller.is_admin()
        || caller.owns(&id, &life.user)
        || life.source.as_ref().is_some_and(|source| caller.may_change(source));
    is_his.then(|| why::reservation(snapshot, &life, SystemTime::now()))
}

/// Tokens and rooms name a viewer `viewer_<reservation_id>`; both are taken.
fn viewer_of(id: &str) -> &str {
    id.strip_prefix("viewer_").unwrap_or(id)
}

fn of_voice(http: &Http) -> Explanation {
    let status = http.voice().map(Voice::status);
    why::voice(status.as_ref(), http.voice().is_none_or(Voice::is_running))
}

pub(super) fn answer(id: String, explanation: Explanation) -> WhyAnswer {
    let Explanation { kind, is_well, sentence, remedy, ladder, viewers } = explanation;
    let viewers = match kind {
        Kind::Camera => Some(viewers.into_iter().map(WhyViewer::from).collect()),
        Kind::Reservation | Kind::Voice => None,
    };
    let kind = match kind {
        Kind::Camera => "camera",
        Kind::Reservation => "reservation",
        Kind::Voice => "voice",
    };
    let ladder = ladder.into_iter().map(WhyRung::from).collect();
    WhyAnswer { id, kind, well: is_well, sentence, remedy, ladder, viewers }
}

impl From<Rung> for WhyRung {
    fn from(Rung { name, state, detail }: Rung) -> Self {
        let state = match state {
            RungState::Done => "done",
            RungState::Failed => "failed",
            RungState::Waiting => "waiting",
            RungState::Ahead => "ahead",
            RungState::Unseen => "unseen",
        };
        Self { rung: name, state, detail }
    }
}

impl From<Watcher> for WhyViewer {
    fn from(Watcher { reservation, user, stage }: Watcher) -> Self {
        Self { reservation_id: reservation.to_string(), user_id: user, stage }
    }
}

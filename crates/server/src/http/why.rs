//! `GET /api/v1/why/{id}`: why a viewer, a camera or the voice relay brings no picture or no sound.

use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use control::{CameraId, ReservationId, SourceId};

use super::Http;
use super::asking::sentences;
use super::caller::Caller;
use super::problem::Problem;
use super::wire::nodes::{CameraHere, CameraQuestion, WhyFound, WhyQuestion};
use super::wire::operations::{WhyAnswer, WhyNode, WhyRung, WhyViewer};
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
    let snapshot = caller.visible(http.app().snapshot().await);
    if let Ok(camera) = CameraId::parse(&id)
        && let Some(found) = why::camera(&snapshot, &camera)
    {
        let mut answer = answer(id, found);
        at_all_nodes(&http, &snapshot, &camera, &mut answer).await;
        return Ok(Json(answer));
    }
    if let Ok(reservation) = ReservationId::parse(viewer_of(&id))
        && let Some(answer) = of_reservation(&http, &caller, &snapshot, &reservation, &id).await
    {
        return Ok(Json(answer));
    }
    if id == VOICE {
        return Ok(Json(answer(id, of_voice(&http))));
    }
    Err(Problem::not_found(
        "there is no camera and no reservation of this name; one that ended long ago is forgotten",
    ))
}

/// Of the caller's own, or of his sources, whichever node it watches at; also after its end.
async fn of_reservation(
    http: &Http,
    caller: &Caller,
    snapshot: &Snapshot,
    id: &ReservationId,
    asked_for: &str,
) -> Option<WhyAnswer> {
    if let Some(life) = http.app().journal().life(id) {
        if !may_read(caller, life.source.as_ref(), id, &life.user) {
            return None;
        }
        let found = why::reservation(snapshot, &life, SystemTime::now());
        let mut answer = answer(asked_for.to_owned(), found);
        answer.node = http.node_name().map(ToOwned::to_owned);
        blame_origin(http, &life.camera, &mut answer).await;
        return Some(answer);
    }
    let asked = http.ask_nodes(WhyQuestion { reservation_id: id.to_string() }).await;
    let unanswered = sentences(&asked.silent);
    let found = asked.answers.into_iter().find_map(|(node, found)| Some((node, found?)));
    let Some((node, found)) = found else {
        let mut answer = answer(asked_for.to_owned(), why::elsewhere(snapshot, id)?);
        if !unanswered.is_empty() {
            answer.sentence = format!("{}; {}", answer.sentence, unanswered.join("; "));
        }
        answer.unanswered = unanswered;
        return Some(answer);
    };
    let source = found.source.as_deref().and_then(|source| SourceId::parse(source).ok());
    if !may_read(caller, source.as_ref(), id, &found.user_id) {
        return None;
    }
    let mut answer = found.answer;
    if let Ok(camera) = CameraId::parse(&found.camera_id) {
        mask_quota(snapshot, &camera, &mut answer);
        blame_origin(http, &camera, &mut answer).await;
    }
    answer.id = asked_for.to_owned();
    (answer.node, answer.unanswered) = (Some(node), unanswered);
    Some(answer)
}

fn may_read(caller: &Caller, source: Option<&SourceId>, id: &ReservationId, user: &str) -> bool {
    caller.is_admin()
        || caller.owns(id, user)
        || source.is_some_and(|source| caller.may_change(source))
}

/// Another node counted all sources; the caller is shown what of them is his.
fn mask_quota(snapshot: &Snapshot, camera: &CameraId, answer: &mut WhyAnswer) {
    let places = snapshot.cameras.iter().find(|known| known.about.id == *camera);
    let places = places.map(|camera| why::places(snapshot, camera)).unwrap_or_default();
    let rung = answer.ladder.iter_mut().find(|rung| rung.rung == "quota");
    if let Some(rung) = rung.filter(|rung| rung.state == "done") {
        rung.detail = places;
    }
}

/// For another node, which knows who asks: a viewer of this one.
pub(super) async fn known_here(http: &Http, id: &str) -> Option<WhyFound> {
    let id = ReservationId::parse(id).ok()?;
    let life = http.app().journal().life(&id)?;
    let snapshot = http.app().snapshot().await;
    let found = why::reservation(&snapshot, &life, SystemTime::now());
    Some(WhyFound {
        user_id: life.user.clone(),
        camera_id: life.camera.to_string(),
        source: life.source.as_ref().map(ToString::to_string),
        answer: answer(id.to_string(), found),
    })
}

/// For another node: how a camera is here.
pub(super) async fn camera_here(http: &Http, camera: &str) -> Option<CameraHere> {
    let snapshot = http.app().snapshot().await;
    let camera = snapshot.cameras.iter().find(|known| known.about.id.as_str() == camera)?;
    let viewers = snapshot.reservations.iter().filter(|viewer| viewer.camera == camera.about.id);
    let stages = viewers.filter_map(|viewer| {
        let stage = why::stage_words(Some(viewer.stage?));
        Some((viewer.id.to_string(), stage.to_owned()))
    });
    Some(CameraHere {
        state: camera.state.to_owned(),
        reason: camera.reason.clone(),
        stages: stages.collect(),
    })
}

/// What all nodes say of a camera: how it is there, and how far its viewers have come.
async fn at_all_nodes(http: &Http, snapshot: &Snapshot, camera: &CameraId, answer: &mut WhyAnswer) {
    let Some(own) = http.node_name() else { return };
    let here = snapshot.cameras.iter().find(|known| known.about.id == *camera);
    answer.nodes.extend(here.map(|here| WhyNode {
        node: own.to_owned(),
        state: here.state.to_owned(),
        reason: here.reason.clone(),
    }));
    let is_here = |id: &str| {
        let viewer = snapshot.reservations.iter().find(|viewer| viewer.id.as_str() == id);
        viewer.is_some_and(|viewer| viewer.stage.is_some())
    };
    for viewer in answer.viewers.iter_mut().flatten() {
        viewer.node = is_here(&viewer.reservation_id).then(|| own.to_owned());
    }
    let asked = http.ask_nodes(CameraQuestion { camera_id: camera.to_string() }).await;
    for (node, there) in asked.answers {
        let Some(CameraHere { state, reason, stages }) = there else { continue };
        for viewer in answer.viewers.iter_mut().flatten() {
            if let Some(stage) = stages.get(&viewer.reservation_id) {
                (viewer.stage, viewer.node) = (stage.clone(), Some(node.clone()));
            }
        }
        answer.nodes.push(WhyNode { node, state, reason });
    }
    answer.unanswered = sentences(&asked.silent);
    answer.origin = http.origin_of(camera).await;
    // Nobody watches it here; others may.
    blame(own, &["failed", "waiting", "ahead"], answer);
}

/// A viewer whose camera brings nothing is told what its origin says of it.
async fn blame_origin(http: &Http, camera: &CameraId, answer: &mut WhyAnswer) {
    let Some(own) = http.node_name() else { return };
    answer.origin = http.origin_of(camera).await;
    let Some(origin) = answer.origin.clone().filter(|_| !answer.well) else { return };
    let camera_id = camera.to_string();
    let there = if origin == own {
        camera_here(http, &camera_id).await
    } else {
        http.ask_node(&origin, CameraQuestion { camera_id }).await.ok().flatten()
    };
    if let Some(CameraHere { state, reason, .. }) = there {
        let serving = answer.node.clone().unwrap_or_default();
        let known = std::mem::take(&mut answer.nodes);
        answer.nodes = vec![WhyNode { node: origin, state, reason }];
        blame(&serving, &["failed", "waiting"], answer);
        answer.nodes = known;
    }
}

/// Where the camera's rung is in one of `states` at node `own`, and another one pulls it, that one knows why.
fn blame(own: &str, states: &[&str], answer: &mut WhyAnswer) {
    let is_meant = |rung: &&mut WhyRung| {
        matches!(rung.rung.as_str(), "camera" | "keyframe") && states.contains(&&*rung.state)
    };
    let Some(rung) = answer.ladder.iter_mut().find(is_meant) else { return };
    // The lease is given back between two attempts; then whoever has a reason is as good.
    let pulls = |node: &&WhyNode| match &answer.origin {
        Some(origin) => node.node == *origin,
        None => true,
    };
    let mut there = answer.nodes.iter().filter(|node| node.node != own).filter(pulls);
    let Some((node, reason)) = there.find_map(|node| Some((node, node.reason.as_ref()?))) else {
        return;
    };
    "failed".clone_into(&mut rung.state);
    rung.detail = format!("at node {}: {reason}", node.node);
    answer.well = false;
    answer.sentence = format!("node {} pulls the camera, and says: {reason}", node.node);
    answer.remedy = why::camera_remedy(&node.state).map(ToOwned::to_owned);
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
    WhyAnswer {
        id,
        kind: kind.to_owned(),
        well: is_well,
        sentence,
        remedy,
        ladder,
        viewers,
        node: None,
        origin: None,
        nodes: Vec::new(),
        unanswered: Vec::new(),
    }
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
        Self { rung: name.to_owned(), state: state.to_owned(), detail }
    }
}

impl From<Watcher> for WhyViewer {
    fn from(Watcher { reservation, user, stage }: Watcher) -> Self {
        let (reservation_id, stage) = (reservation.to_string(), stage.to_owned());
        Self { reservation_id, user_id: user, stage, node: None }
    }
}

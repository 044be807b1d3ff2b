//! Questions to the other nodes of the cluster, and this node's answers to theirs.
//!
//! A question is a type of `wire/nodes`, with the type of its answer. Whether a caller may know or do what he
//! wants is decided by the node that he asked; nodes answer each other whatever they ask.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use control::{CameraId, ReservationId, SourceId};

use super::Http;
use super::node::require_question;
use super::problem::Problem;
use super::wire::nodes::{HolderAnswer, HolderQuestion, NodeQuestion, Question};
use crate::app::Holder;
use crate::cluster::{Asked, Silent, SilentReason};

impl Http {
    /// Asks all other nodes at once; nobody where this server is alone.
    pub(super) async fn ask_nodes<Q: NodeQuestion>(&self, question: Q) -> Asked<Q::Answer> {
        let mut all = Asked::nobody();
        let Some(cluster) = self.app().cluster() else { return all };
        let Ok(text) = question.into().to_text() else { return all };
        let Asked { answers, silent } = cluster.ask_all(&text).await;
        all.silent = silent;
        for (node, answer) in answers {
            match serde_json::from_str(&answer) {
                Ok(answer) => all.answers.push((node, answer)),
                Err(error) => all.silent.push(garbled(node, &error)),
            }
        }
        all
    }

    /// Whose a reservation is, whichever node has its session; `None`: none that answers has it.
    pub(super) async fn find_holder(&self, id: &ReservationId) -> Option<Holder> {
        if let Some(holder) = self.app().holder_of(id.clone()).await {
            return Some(holder);
        }
        let asked = self.ask_nodes(HolderQuestion { reservation_id: id.to_string() }).await;
        asked.answers.into_iter().find_map(|(_, answer)| answer?.read())
    }
}

fn garbled(node: String, error: &serde_json::Error) -> Silent {
    Silent { node, reason: SilentReason::Garbled(error.to_string()) }
}

/// `POST /node/ask`: another node's question.
pub(super) async fn answer(
    State(http): State<Http>,
    headers: HeaderMap,
    body: String,
) -> Result<Response, Problem> {
    require_question(&http, &headers, &body)?;
    let question = serde_json::from_str(&body)
        .map_err(|error| Problem::bad_request(format!("this is no question of ours: {error}")))?;
    Ok(match question {
        Question::Holder(question) => said::<HolderQuestion>(holder(&http, question).await),
    })
}

/// An answer of the type that its question has.
fn said<Q: NodeQuestion>(answer: Q::Answer) -> Response {
    Json(answer).into_response()
}

async fn holder(http: &Http, question: HolderQuestion) -> Option<HolderAnswer> {
    let id = ReservationId::parse(&question.reservation_id).ok()?;
    let holder = http.app().holder_of(id).await?;
    Some(HolderAnswer {
        user_id: holder.user,
        camera_id: holder.camera.to_string(),
        source: holder.source.to_string(),
    })
}

impl HolderAnswer {
    /// `None`: it is none that could be.
    fn read(self) -> Option<Holder> {
        let Self { user_id, camera_id, source } = self;
        let camera = CameraId::parse(&camera_id).ok()?;
        Some(Holder { user: user_id, camera, source: SourceId::parse(&source).ok()? })
    }
}

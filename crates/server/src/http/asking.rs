//! Questions to the other nodes of the cluster, and this node's answers to theirs.
//!
//! A question is a type of `wire/nodes`, with the type of its answer. Whether a caller may know or do what he
//! wants is decided by the node that he asked; nodes answer each other whatever they ask.

use axum::Json;
use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use control::{CameraId, ReservationId, SourceId};

use super::node::require_question;
use super::problem::Problem;
use super::wire::nodes::{
    Act, CameraQuestion, ChangesQuestion, EndingQuestion, HeartbeatQuestion, HolderAnswer,
    HolderQuestion, NodeQuestion, Question, RecordsQuestion, Refusal, RemoveQuestion,
    RemovedViewer, RenewQuestion, ResetQuestion, StateQuestion, StopIngressQuestion, TraceQuestion,
    WhepQuestion, WhipQuestion, WhyQuestion,
};
use super::{Http, api, participants, renewal, reset, spreading, trace, whep, whip, why};
use crate::app::{Holder, LeaseError, Over};
use crate::cluster::{Asked, Cluster, Silent, SilentReason};
use crate::journal::Step;

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
                Err(error) => all.silent.push(garbled(&node, &error)),
            }
        }
        all
    }

    /// Asks one other node.
    pub(super) async fn ask_node<Q: NodeQuestion>(
        &self,
        node: &str,
        question: Q,
    ) -> Result<Q::Answer, Silent> {
        let unknown = || Silent { node: node.to_owned(), reason: SilentReason::Unknown };
        let cluster = self.app().cluster().ok_or_else(unknown)?;
        let text = question.into().to_text();
        let text = text.map_err(|error| garbled(node, &error))?;
        let answer = cluster.ask(node, &text).await?;
        serde_json::from_str(&answer).map_err(|error| garbled(node, &error))
    }

    /// Whose a reservation is, whichever node has its session: as the store tells it, and where it cannot
    /// be asked as the nodes do. `None`: nobody who answers knows it.
    pub(super) async fn find_holder(&self, id: &ReservationId) -> Option<Holder> {
        if let Some(holder) = self.app().holder_of(id.clone()).await {
            return Some(holder);
        }
        let cluster = self.app().cluster()?;
        if let Ok(Some(holder)) = cluster.holder_in_store(id).await {
            return Some(holder.into());
        }
        let asked = self.ask_nodes(HolderQuestion { reservation_id: id.to_string() }).await;
        asked.answers.into_iter().find_map(|(_, answer)| answer?.read())
    }

    /// Whether the session of a reservation may be another node's: there are others, and it is not here.
    pub(super) async fn may_be_elsewhere(&self, id: &ReservationId) -> bool {
        self.app().cluster().is_some() && self.app().holder_of(id.clone()).await.is_none()
    }

    /// Lets the node act that has the session of a reservation.
    pub(super) async fn act_elsewhere<T, Q>(&self, id: &str, question: Q) -> Result<T, Problem>
    where
        Q: NodeQuestion<Answer = Act<T>>,
    {
        let asked = self.ask_nodes(question).await;
        let mut refused = None;
        for (_, act) in asked.answers {
            match act {
                Act::Done(done) => return Ok(done),
                Act::Refused(refusal) => refused = Some(refusal),
                Act::NotHere => {}
            }
        }
        match refused {
            Some(refusal) => Err(refusal.into()),
            None => Err(self.not_found_at(id, &asked.silent).await),
        }
    }

    /// No node that answered has the session. One that was too busy may, and is worth another try; with one
    /// that is gone its sessions are.
    async fn not_found_at(&self, id: &str, silent: &[Silent]) -> Problem {
        if let Some(problem) = ask_again(silent) {
            return problem;
        }
        let (over, said) = (self.why_over(id).await, sentences(silent));
        if said.is_empty() { over } else { over.with_note(&said.join("; ")) }
    }

    /// That a reservation is not there any more, with the reason where a node knows it.
    pub(super) async fn why_over(&self, id: &str) -> Problem {
        let over = self.app().ending_of(id).await;
        if over.0.is_none() {
            let asked = self.ask_nodes(EndingQuestion { reservation_id: id.to_owned() }).await;
            if let Some(refusal) = asked.answers.into_iter().find_map(|(_, ending)| ending) {
                return refusal.into();
            }
        }
        LeaseError::Over(over).into()
    }
}

impl Http {
    /// What this node is called, if it is one.
    pub(super) fn node_name(&self) -> Option<&str> {
        self.app().cluster().map(Cluster::name)
    }

    /// Notes that a request for a reservation came here, which another node answers.
    pub(super) fn forwarded(&self, id: &ReservationId, what: &'static str) {
        self.app().journal().step_anywhere(id, Step::Forwarded { what });
    }

    /// The node that pulls a camera for all, if one does.
    pub(super) async fn origin_of(&self, camera: &CameraId) -> Option<String> {
        self.app().cluster()?.origin_of(camera).await
    }
}

fn garbled(node: &str, error: &serde_json::Error) -> Silent {
    Silent { node: node.to_owned(), reason: SilentReason::Garbled(error.to_string()) }
}

/// Where nodes are only slow: one of them may have what was asked for.
pub(super) fn ask_again(silent: &[Silent]) -> Option<Problem> {
    let is_gone = |silent: &Silent| matches!(silent.reason, SilentReason::Gone { .. });
    if silent.iter().all(is_gone) {
        return None;
    }
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentences(silent).join("; "));
    Some(problem.with_header(RETRY_AFTER, HeaderValue::from(1)))
}

/// Who did not answer, a sentence each.
pub(super) fn sentences(silent: &[Silent]) -> Vec<String> {
    silent.iter().map(ToString::to_string).collect()
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
        Question::Holder(question) => said::<HolderQuestion>(holder(&http, &question).await),
        Question::Ending(question) => said::<EndingQuestion>(ending(&http, &question).await),
        Question::Heartbeat(question) => {
            let HeartbeatQuestion { reservation_id: id, request } = &question;
            let act = async { api::heartbeat_here(&http, id, request).await };
            said::<HeartbeatQuestion>(acted(&http, id, act).await)
        }
        Question::Renew(question) => {
            let id = &question.reservation_id;
            said::<RenewQuestion>(acted(&http, id, renewal::renew_here(&http, id)).await)
        }
        Question::State(StateQuestion {}) => said::<StateQuestion>(http.whole().here().await),
        Question::Remove(question) => {
            let id = &question.reservation_id;
            said::<RemoveQuestion>(acted(&http, id, remove(&http, &question)).await)
        }
        Question::Trace(question) => {
            said::<TraceQuestion>(trace::known_here(&http, &question.reservation_id).await?)
        }
        Question::Why(question) => {
            said::<WhyQuestion>(why::known_here(&http, &question.reservation_id).await)
        }
        Question::Whep(question) => {
            said::<WhepQuestion>(whep::elsewhere::answer(&http, question).await)
        }
        Question::Whip(question) => {
            said::<WhipQuestion>(whip::elsewhere::answer(&http, question).await)
        }
        Question::StopIngress(StopIngressQuestion { ingress_id }) => {
            said::<StopIngressQuestion>(http.app().stop_source(&ingress_id).await)
        }
        Question::Reset(ResetQuestion { camera_id }) => {
            said::<ResetQuestion>(reset::reset_here(&http, camera_id.as_deref()).await?)
        }
        Question::Camera(question) => {
            said::<CameraQuestion>(why::camera_here(&http, &question.camera_id).await)
        }
        Question::Changes(question) => {
            said::<ChangesQuestion>(spreading::changes_here(&http, &question))
        }
        Question::Records(question) => {
            said::<RecordsQuestion>(spreading::records_here(&http, question).await?)
        }
    })
}

/// An answer of the type that its question has.
fn said<Q: NodeQuestion>(answer: Q::Answer) -> Response {
    Json(answer).into_response()
}

/// Acts where the session is this node's.
async fn acted<T>(http: &Http, id: &str, act: impl Future<Output = Result<T, Problem>>) -> Act<T> {
    let Ok(known) = ReservationId::parse(id) else { return Act::NotHere };
    if http.app().holder_of(known).await.is_none() {
        return Act::NotHere;
    }
    match act.await {
        Ok(done) => Act::Done(done),
        Err(problem) => Act::Refused(problem.into()),
    }
}

async fn holder(http: &Http, question: &HolderQuestion) -> Option<HolderAnswer> {
    let id = ReservationId::parse(&question.reservation_id).ok()?;
    let holder = http.app().holder_of(id).await?;
    Some(HolderAnswer {
        user_id: holder.user,
        camera_id: holder.camera.to_string(),
        source: holder.source.to_string(),
    })
}

async fn ending(http: &Http, question: &EndingQuestion) -> Option<Refusal> {
    let over: Over = http.app().ending_of(&question.reservation_id).await;
    over.0.map(|_| Problem::from(LeaseError::Over(over)).into())
}

async fn remove(http: &Http, question: &RemoveQuestion) -> Result<RemovedViewer, Problem> {
    let RemoveQuestion { reservation_id, by } = question;
    let id = ReservationId::parse(reservation_id);
    let id = id.map_err(|_| LeaseError::Over(Over(None)))?;
    let holder = http.app().holder_of(id.clone()).await;
    let holder = holder.ok_or(LeaseError::Over(Over(None)))?;
    participants::remove_here(http, &id, &holder, by).await
}

impl HolderAnswer {
    /// `None`: it is none that could be.
    fn read(self) -> Option<Holder> {
        let Self { user_id, camera_id, source } = self;
        let camera = CameraId::parse(&camera_id).ok()?;
        Some(Holder { user: user_id, camera, source: SourceId::parse(&source).ok()? })
    }
}

//! `/node`: what other nodes of the cluster ask of this one.
//!
//! Each address has a token of its own, made with what this node has told the store of itself, so that
//! whoever is let into the store is let in here. A server that is no node has none of it.

use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use engine::Rendition;

use super::Http;
use super::api::camera_id;
use super::auth::bearer;
use super::extract::require_content_type;
use super::problem::Problem;
use super::whep::{SDP, no_session, text};
use crate::app::{FeedError, HoldError};
use crate::cluster::Cluster;
use crate::net::OfferError;

/// `POST /node/{camera}/{rendition}`: a stream, for as long as the other node takes it.
pub(super) async fn offer(
    State(http): State<Http>,
    Path((camera, rendition)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    require_node(&http, request.headers(), &format!("{camera}/{rendition}"))?;
    let camera = camera_id(&camera)?;
    let rendition = match rendition.as_str() {
        "main" => Rendition::Main,
        "sub" => Rendition::Sub,
        _ => return Err(Problem::not_found("a camera has the streams main and sub")),
    };
    require_content_type(request.headers(), SDP)?;
    let offer = text(request, &http, "the offer").await?;
    let feeding = http.app().feed(camera.clone(), rendition, offer).await.map_err(refused)?;
    let location = format!("/node/{camera}/{}/{}", rendition.as_str(), feeding.resource);
    let location = HeaderValue::try_from(location).map_err(|_| no_session())?;
    let headers = [(CONTENT_TYPE, HeaderValue::from_static(SDP)), (LOCATION, location)];
    Ok((StatusCode::CREATED, headers, feeding.answer_sdp).into_response())
}

/// `DELETE /node/{camera}/{rendition}/{resource}`
pub(super) async fn end(
    State(http): State<Http>,
    Path((_, _, resource)): Path<(String, String, String)>,
) -> Result<StatusCode, Problem> {
    if http.app().end_feed(resource).await { Ok(StatusCode::OK) } else { Err(no_session()) }
}

/// `GET /node/store`: 204 when this node sees the store.
pub(super) async fn store(
    State(http): State<Http>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    require_node(&http, &headers, "store")?;
    if http.app().cluster().is_some_and(|cluster| cluster.sees_store()) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this node does not see the store either"))
}

fn require_node(http: &Http, headers: &HeaderMap, place: &str) -> Result<(), Problem> {
    require(http, headers, |cluster, token| cluster.admits(token, place))
}

/// Refuses a question that no node of the cluster has asked this one.
pub(super) fn require_question(
    http: &Http,
    headers: &HeaderMap,
    question: &str,
) -> Result<(), Problem> {
    require(http, headers, |cluster, token| cluster.admits_question(token, question))
}

fn require(
    http: &Http,
    headers: &HeaderMap,
    admits: impl FnOnce(&Cluster, &str) -> bool,
) -> Result<(), Problem> {
    let cluster = http.app().cluster();
    let cluster =
        cluster.ok_or_else(|| Problem::not_found("this server is no node of a cluster"))?;
    let token = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()).ok());
    if token.is_some_and(|token| admits(cluster, token)) {
        return Ok(());
    }
    let sentence = "this is for other nodes of the cluster, and the token is none of theirs";
    Err(Problem::new(StatusCode::UNAUTHORIZED, sentence))
}

fn refused(error: FeedError) -> Problem {
    let status = match &error {
        FeedError::Stream(HoldError::UnknownCamera(_) | HoldError::NoSub(_)) => {
            StatusCode::NOT_FOUND
        }
        FeedError::Stream(HoldError::CameraOffline(_)) => StatusCode::CONFLICT,
        FeedError::Stream(HoldError::TooMany | HoldError::ShuttingDown) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        FeedError::Offer(OfferError::Malformed(_) | OfferError::NoVideo) => StatusCode::BAD_REQUEST,
        FeedError::Offer(OfferError::NoCommonCodec { .. }) => StatusCode::NOT_ACCEPTABLE,
    };
    Problem::new(status, error.to_string())
}

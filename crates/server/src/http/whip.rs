//! `/whip` and `/w`: a publisher brings an offer and a stream key, and gets an answer (RFC 9725).
//!
//! The key is the path's last segment, or a bearer token behind a camera's id. The session's own
//! address names the camera and something nobody can guess, so that the key is in no answer.

pub(super) mod elsewhere;

use std::time::SystemTime;

use axum::extract::{Path, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, CONTENT_TYPE, ETAG, LINK, LOCATION,
    WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use control::{CameraId, SourceId};
use secrecy::ExposeSecret;

use super::api::camera_id;
use super::auth::bearer;
use super::caller::{Caller, Wish};
use super::extract::{Scheme, authority, require_content_type};
use super::problem::Problem;
use super::whep::elsewhere::session;
use super::whep::{ACCEPT_POST, FRAGMENT, Patch, SDP, quoted, restarted, text, trickled};
use super::wire::StreamKeyAnswer;
use super::wire::nodes::WhipQuestion;
use super::{ACCEPT_PATCH, Http};
use crate::app::{Accepted, Credentials, KeyRefusal, PublishRefusal};
use crate::audit::Change;
use crate::net::{OfferError, PublishError};

/// `POST /whip/{key}`
pub(super) async fn offer(
    State(http): State<Http>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let authorization = request.headers().get(AUTHORIZATION).cloned();
    let bearer = authorization.as_ref().map(|value| bearer(value.as_bytes())).transpose()?;
    require_content_type(request.headers(), SDP)
        .map_err(|problem| problem.with_header(ACCEPT_POST, HeaderValue::from_static(SDP)))?;
    let offer = text(request, &http, "the offer").await?;
    // OBS without a token sends an empty one.
    let bearer = bearer.filter(|token| !token.is_empty());
    let credentials = Credentials { name: &name, bearer };
    let accepted = http.app().publishing().publish(credentials, offer).await;
    created(&http, accepted.map_err(refused)?)
}

fn refused(refusal: PublishRefusal) -> Problem {
    let status = match &refusal {
        PublishRefusal::UnknownKey => StatusCode::NOT_FOUND,
        PublishRefusal::WrongBearer => StatusCode::UNAUTHORIZED,
        PublishRefusal::Busy(_) | PublishRefusal::Elsewhere { .. } => StatusCode::CONFLICT,
        PublishRefusal::Offer(PublishError::NoCommonCodec { .. } | PublishError::NoOpus { .. })
        | PublishRefusal::Offer(PublishError::Offer(OfferError::NoCommonCodec { .. })) => {
            StatusCode::NOT_ACCEPTABLE
        }
        PublishRefusal::Offer(
            PublishError::Offer(_) | PublishError::NoVideo | PublishError::NoAudio,
        ) => StatusCode::BAD_REQUEST,
        PublishRefusal::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problem = Problem::new(status, refusal.to_string());
    if status != StatusCode::UNAUTHORIZED {
        return problem;
    }
    let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    problem.with_header(WWW_AUTHENTICATE, challenge)
}

fn created(http: &Http, accepted: Accepted) -> Result<Response, Problem> {
    let unusable = |_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the session's name fits no HTTP header")
    };
    let location = format!("/whip/{}/{}", accepted.camera, accepted.resource);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
    headers.insert(LOCATION, HeaderValue::try_from(location).map_err(unusable)?);
    headers.insert(ETAG, HeaderValue::try_from(quoted(&accepted.etag)).map_err(unusable)?);
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    for link in http.0.ice_servers.links(accepted.camera.as_ref(), SystemTime::now()) {
        headers.append(LINK, link);
    }
    Ok((StatusCode::CREATED, headers, accepted.answer_sdp).into_response())
}

/// `PATCH /whip/{camera}/{resource}`
pub(super) async fn trickle(
    State(http): State<Http>,
    Path((_, resource)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let publishing = http.app().publishing();
    match Patch::read(request, &http).await? {
        Patch::Trickle { tag, .. } => match publishing.trickle(&resource, tag.as_deref()) {
            None => {
                let question = WhipQuestion::Trickle { resource: resource.clone(), tag };
                session(&http, &resource, question).await
            }
            outcome => trickled(outcome),
        },
        Patch::Restart { theirs, fragment } => {
            match publishing.restart_ice(&resource, theirs).await {
                None => {
                    let question = WhipQuestion::Restart { resource: resource.clone(), fragment };
                    session(&http, &resource, question).await
                }
                outcome => restarted(outcome, &fragment),
            }
        }
    }
}

/// `DELETE /whip/{camera}/{resource}`
pub(super) async fn end(
    State(http): State<Http>,
    Path((_, resource)): Path<(String, String)>,
) -> Result<Response, Problem> {
    if http.app().publishing().end(&resource) {
        return Ok(StatusCode::OK.into_response());
    }
    session(&http, &resource, WhipQuestion::End { resource: resource.clone() }).await
}

/// `POST /api/v1/cameras/{id}/stream-key`
#[utoipa::path(
    post,
    path = "/api/v1/cameras/{id}/stream-key",
    tag = "cameras",
    summary = "A new stream key for a camera that is published to",
    params(("id" = String, Path, description = "The camera")),
    responses(
        (status = 201, description = "The key, which is told this once", body = StreamKeyAnswer),
        (status = 404, description = "There is no such camera"),
        (status = 409, description = "The camera is not one that is published to"),
    ),
)]
pub(super) async fn new_key(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let camera = camera_id(&id)?;
    caller.require_camera(&http, &camera, Wish::Change).await?;
    let key = http.park().new_stream_key(camera.clone()).await?.map_err(|refusal| {
        let status = match &refusal {
            KeyRefusal::UnknownCamera(_) => StatusCode::NOT_FOUND,
            KeyRefusal::NotPublished(_) => StatusCode::CONFLICT,
        };
        Problem::new(status, refusal.to_string())
    })?;
    let source = http.app().source_of(camera.clone()).await;
    http.app().audit().tell(Change {
        actor: caller.identity(),
        action: "stream_key_changed",
        object: camera.as_str(),
        source: source.as_ref().map_or("", SourceId::as_str),
        detail: String::new(),
    });
    let key = key.expose_secret();
    let host = authority(request.headers(), request.uri());
    let whip_url = host.map(|host| {
        let scheme = http.rules().scheme_of(&host, Scheme::of(request.extensions()));
        format!("{}://{host}/whip/{key}", scheme.as_str())
    });
    let answer =
        StreamKeyAnswer { camera_id: camera.to_string(), stream_key: key.to_owned(), whip_url };
    Ok((StatusCode::CREATED, axum::Json(answer)).into_response())
}

/// `OPTIONS /whip/{key}`: what may be posted (RFC 9725 §4.1), and with a key that opens a camera the ICE
/// servers, for publishers that want them before they make their offer (§4.6). The CORS layer answers
/// the rest of it.
pub(super) async fn announce(State(http): State<Http>, request: Request, next: Next) -> Response {
    if *request.method() != Method::OPTIONS {
        return next.run(request).await;
    }
    let camera = camera_of(&http, &request);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(ACCEPT_POST, HeaderValue::from_static(SDP));
    if let Some(camera) = camera {
        for link in http.0.ice_servers.links(camera.as_str(), SystemTime::now()) {
            headers.append(LINK, link);
        }
        let exposed = HeaderValue::from_static("link, accept-post");
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

/// The camera that the request's key opens, wherever the key stands. A preflight of a browser that
/// has the key in the path is told as well: who has the key may know.
fn camera_of(http: &Http, request: &Request) -> Option<CameraId> {
    let path = request.uri().path();
    let name = path.strip_prefix("/whip/").or_else(|| path.strip_prefix("/w/"))?;
    let authorization = request.headers().get(AUTHORIZATION);
    let bearer = authorization.map(|value| bearer(value.as_bytes())).transpose().ok()?;
    let bearer = bearer.filter(|token| !token.is_empty());
    http.app().publishing().camera_of(Credentials { name, bearer })
}

/// A path as it may be logged and answered: what stands where stream keys do is left out.
pub(super) fn without_key(path: &str) -> String {
    for root in ["/whip/", "/w/"] {
        // Wherever it stands: a path that no route has may hold a key all the same.
        if let Some((before, rest)) = path.split_once(root) {
            let rest = rest.trim_start_matches('/');
            let session = rest.split_once('/').map_or("", |(_, session)| session);
            let slash = if session.is_empty() { "" } else { "/" };
            return format!("{before}{root}***{slash}{session}");
        }
    }
    path.to_owned()
}

/// A path as it may be logged: of a session's name, which lets whoever knows it end the session, so much
/// that lines which belong together can be told.
pub(super) fn for_log(path: &str) -> String {
    const SHOWN: usize = 8;
    let mut path = without_key(path);
    let behind = |root: &str| path.split_once(root).map(|(before, _)| before.len() + root.len());
    let Some(camera) = ["/whep/", "/whip/", "/w/"].into_iter().find_map(behind) else {
        return path;
    };
    let Some(session) = path[camera..].find('/').map(|slash| camera + slash + 1) else {
        return path;
    };
    if let Some((cut, _)) = path[session..].char_indices().nth(SHOWN) {
        path.truncate(session + cut);
        path.push('…');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_that_is_shown_has_a_stream_key() {
        assert_eq!(without_key("/whip/secret"), "/whip/***");
        assert_eq!(without_key("/w/secret/"), "/w/***");
        assert_eq!(without_key("/whip/cam-1/67e5"), "/whip/***/67e5");
        assert_eq!(without_key("//whip/secret"), "//whip/***");
        assert_eq!(without_key("/whip//secret"), "/whip/***");
        assert_eq!(without_key("/proxy/w/secret/67e5"), "/proxy/w/***/67e5");
        assert_eq!(without_key("/whep/cam-1"), "/whep/cam-1");
    }

    #[test]
    fn of_a_sessions_name_the_log_shows_the_beginning() {
        let name = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        assert_eq!(for_log(&format!("/whep/cam-1/{name}")), "/whep/cam-1/67e55044…");
        assert_eq!(for_log(&format!("/whip/cam-1/{name}")), "/whip/***/67e55044…");
        assert_eq!(for_log(&format!("/w/a-key/{name}/")), "/w/***/67e55044…");
        assert_eq!(for_log(&format!("/proxy/whep/a/{name}")), "/proxy/whep/a/67e55044…");
        assert_eq!(for_log("/whep/cam-1/ääääääää"), "/whep/cam-1/ääääääää");
        assert_eq!(for_log("/whep/cam-1"), "/whep/cam-1");
        assert_eq!(for_log("/api/v1/cameras/cam-1-of-many"), "/api/v1/cameras/cam-1-of-many");
    }
}

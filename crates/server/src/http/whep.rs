//! `/whep`: a viewer brings an offer and a token, and gets an answer.
//!
//! WHEP (draft-ietf-wish-whep) is WHIP (RFC 9725) with the media the other way round. The token of
//! a reservation opens the door; the session's own address, which nobody can guess, is all that is
//! needed to trickle or to end it, so that a page can do so with an expired token.

pub(super) mod elsewhere;

use std::ops::RangeInclusive;
use std::time::SystemTime;

use axum::extract::{Path, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, InvalidHeaderValue,
    LINK, LOCATION,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api::camera_id;
use super::auth::{Grant, bearer, claimed_reservation};
use super::extract::{body, require_content_type};
use super::problem::Problem;
use super::wire::nodes::WhepQuestion;
use super::{ACCEPT_PATCH, Http};
use crate::app::{IceRestart, WatchError, Watching};
use crate::journal::Step;
use crate::net::{IceCredentials, OfferError, Restarted};

pub(super) const SDP: &str = "application/sdp";
pub(super) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
pub(super) const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// `POST /whep/{camera}`
pub(super) async fn offer(
    State(http): State<Http>,
    Path(camera): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let refused_token = |reason: String| {
        if let Some(reservation) = claimed_reservation(authorization) {
            tracing::info!(reservation_id = %reservation, reason, "token not accepted");
            http.app().journal().step_anywhere(&reservation, Step::TokenRefused { reason });
        }
    };
    let grant = http.keyring().verify(authorization, SystemTime::now());
    let grant = grant.inspect_err(|error| refused_token(error.to_string()))?;
    let camera = camera_id(&camera)?;
    let reservation = grant.viewer_of(&camera.room_name());
    let reservation = reservation.inspect_err(|error| refused_token(error.to_string()))?;
    require_content_type(request.headers(), SDP)
        .map_err(|problem| problem.with_header(ACCEPT_POST, HeaderValue::from_static(SDP)))?;
    let token = bearer(authorization.unwrap_or_default())?.to_owned();
    let offer = text(request, &http, "the offer").await?;
    if http.may_be_elsewhere(&reservation).await {
        let camera_id = camera.to_string();
        let question = WhepQuestion::Offer { token, camera_id, offer };
        return elsewhere::offer(&http, &reservation, question).await;
    }
    offer_here(&http, &grant, camera.as_str(), offer).await
}

/// The offer of a viewer of this node.
async fn offer_here(
    http: &Http,
    grant: &Grant,
    camera: &str,
    offer: String,
) -> Result<Response, Problem> {
    let camera = camera_id(camera)?;
    let reservation = grant.viewer_of(&camera.room_name())?;
    let permit = grant.permit();
    let watching = http.app().watch(reservation.as_str(), camera.as_str(), offer, permit).await;
    created(http, camera.as_str(), reservation.as_str(), watching.map_err(refused)?)
}

pub(super) async fn text(request: Request, http: &Http, what: &str) -> Result<String, Problem> {
    let bytes = body(request, http).await?;
    String::from_utf8(bytes.into())
        .map_err(|_| Problem::bad_request(format!("{what} is not valid SDP: it is not UTF-8")))
}

fn refused(error: WatchError) -> Problem {
    let status = match &error {
        WatchError::UnknownCamera(_) => StatusCode::NOT_FOUND,
        WatchError::ReservationEnded(_) => StatusCode::GONE,
        WatchError::Offer(OfferError::Malformed(_) | OfferError::NoVideo) => {
            StatusCode::BAD_REQUEST
        }
        WatchError::Offer(OfferError::NoCommonCodec { .. }) | WatchError::Codec(_) => {
            StatusCode::NOT_ACCEPTABLE
        }
        WatchError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
    };
    let code = match &error {
        WatchError::ReservationEnded(over) => over.code(),
        WatchError::UnknownCamera(_)
        | WatchError::Offer(_)
        | WatchError::Codec(_)
        | WatchError::ShuttingDown => None,
    };
    Problem::new(status, error.to_string()).with_code(code)
}

pub(super) fn created(
    http: &Http,
    camera: &str,
    reservation: &str,
    watching: Watching,
) -> Result<Response, Problem> {
    let location = format!("/whep/{camera}/{}", watching.resource);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
    headers.insert(LOCATION, HeaderValue::try_from(location).map_err(unusable)?);
    headers.insert(ETAG, HeaderValue::try_from(quoted(&watching.etag)).map_err(unusable)?);
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    for link in http.0.ice_servers.links(reservation, SystemTime::now()) {
        headers.append(LINK, link);
    }
    Ok((StatusCode::CREATED, headers, watching.answer_sdp).into_response())
}

fn unusable(_: InvalidHeaderValue) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the session's name fits no HTTP header")
}

/// A strong entity tag (RFC 9110 §8.8.3).
pub(super) fn quoted(tag: &str) -> String {
    format!("\"{}\"", unquoted(tag))
}

fn unquoted(tag: &str) -> &str {
    tag.trim().trim_matches('"')
}

/// `OPTIONS /whep/{camera}` with a token: the ICE servers, for clients that want them before they make
/// their offer (RFC 9725 §4.6). The CORS layer answers the rest of it; preflights bring no token.
pub(super) async fn tell_ice_servers(
    State(http): State<Http>,
    request: Request,
    next: Next,
) -> Response {
    let authorization = request.headers().get(AUTHORIZATION).cloned();
    let camera = request.uri().path().strip_prefix("/whep/").map(ToOwned::to_owned);
    let asks = *request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    let (true, Some(authorization), Some(camera)) = (asks, authorization, camera) else {
        return response;
    };
    let now = SystemTime::now();
    let grant = http.keyring().verify(Some(authorization.as_bytes()), now);
    let camera = camera_id(&camera);
    if let (Ok(grant), Ok(camera)) = (grant, camera)
        && let Ok(reservation) = grant.viewer_of(&camera.room_name())
    {
        let headers = response.headers_mut();
        for link in http.0.ice_servers.links(reservation.as_str(), now) {
            headers.append(LINK, link);
        }
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("link"));
    }
    response
}

/// `PATCH /whep/{camera}/{resource}`
pub(super) async fn trickle(
    State(http): State<Http>,
    Path((_, resource)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    match Patch::read(request, &http).await? {
        Patch::Trickle { tag, fragment } => {
            match http.app().trickle(&resource, tag.as_deref(), fragment.clone()).await {
                None => {
                    let of = resource.clone();
                    let question = WhepQuestion::Trickle { resource: of, tag, fragment };
                    elsewhere::session(&http, &resource, question).await
                }
                outcome => trickled(outcome),
            }
        }
        Patch::Restart { theirs, fragment } => {
            match http.app().restart_ice(&resource, theirs).await {
                None => {
                    let question = WhepQuestion::Restart { resource: resource.clone(), fragment };
                    elsewhere::session(&http, &resource, question).await
                }
                outcome => restarted(outcome, &fragment),
            }
        }
    }
}

/// What the `PATCH` of a session asks for.
pub(super) enum Patch {
    /// The other side tells its candidates. The tag is without its quotes.
    Trickle { tag: Option<String>, fragment: String },
    /// `If-Match: *`: it matches whatever there is, and asks for an ICE restart (RFC 9725 §4.3.3).
    Restart { theirs: IceCredentials, fragment: String },
}

impl Patch {
    pub(super) async fn read(request: Request, http: &Http) -> Result<Self, Problem> {
        require_content_type(request.headers(), FRAGMENT).map_err(|problem| {
            problem.with_header(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT))
        })?;
        let tag = request.headers().get(IF_MATCH).and_then(|tag| tag.to_str().ok());
        let tag = tag.map(|tag| tag.trim().to_owned());
        let fragment = text(request, http, "the fragment").await?;
        if tag.as_deref() != Some("*") {
            return Ok(Self::Trickle { tag: tag.map(|tag| unquoted(&tag).to_owned()), fragment });
        }
        let theirs = ice_credentials(&fragment).ok_or_else(|| {
            Problem::bad_request("an ICE restart needs a=ice-ufrag and a=ice-pwd (RFC 8839 §5.4)")
        })?;
        Ok(Self::Restart { theirs, fragment })
    }
}

/// The answer to a trickle fragment. `None`: no such session; an error: another ICE session's.
pub(super) fn trickled(outcome: Option<Result<(), ()>>) -> Result<Response, Problem> {
    match outcome {
        Some(Ok(())) => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(Err(())) => Err(Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "If-Match names another ICE session than the one that runs",
        )),
        None => Err(no_session()),
    }
}

/// The answer to an ICE restart. `None`: no such session.
pub(super) fn restarted(outcome: Option<IceRestart>, fragment: &str) -> Result<Response, Problem> {
    match outcome {
        Some(IceRestart::Unchanged) => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(IceRestart::Done(ours)) => our_side(fragment, &ours),
        None => Err(no_session()),
    }
}

/// The credentials of a fragment, if they are what RFC 8839 §5.4 lets them be.
pub(super) fn ice_credentials(fragment: &str) -> Option<IceCredentials> {
    let value = |name: &str, lengths: RangeInclusive<usize>| {
        let value = fragment.lines().find_map(|line| line.strip_prefix(name))?.trim();
        let is_ice_char = |byte: u8| byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
        let is_valid = lengths.contains(&value.len()) && value.bytes().all(is_ice_char);
        is_valid.then(|| value.to_owned())
    };
    let ufrag = value("a=ice-ufrag:", 4..=256)?;
    Some(IceCredentials { ufrag, password: value("a=ice-pwd:", 22..=256)? })
}

/// Our credentials and candidates after a restart, in the section that the other side named
/// (RFC 9725 §4.3.3, RFC 8840 §9).
fn our_side(fragment: &str, ours: &Restarted) -> Result<Response, Problem> {
    let named = |prefix: &str| {
        let line = fragment.lines().find(|line| line.starts_with(prefix));
        line.map(|line| format!("{}\r\n", line.trim_end())).unwrap_or_default()
    };
    let body = format!(
        "a=ice-lite\r\n{}{}{}a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n{}a=end-of-candidates\r\n",
        named("a=group:BUNDLE "),
        named("m="),
        named("a=mid:"),
        ours.ice_ufrag,
        ours.ice_password,
        ours.candidates,
    );
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(FRAGMENT));
    headers.insert(ETAG, HeaderValue::try_from(quoted(&ours.ice_ufrag)).map_err(unusable)?);
    Ok((StatusCode::OK, headers, body).into_response())
}

/// `DELETE /whep/{camera}/{resource}`
pub(super) async fn end(
    State(http): State<Http>,
    Path((_, resource)): Path<(String, String)>,
) -> Result<Response, Problem> {
    if http.app().end_watch(&resource).await {
        return Ok(StatusCode::OK.into_response());
    }
    let question = WhepQuestion::End { resource: resource.clone() };
    elsewhere::session(&http, &resource, question).await
}

/// A session that is over, with the reason while that is known.
async fn why_no_session(http: &Http, resource: &str) -> Problem {
    let over = http.app().ending_of(resource).await;
    match over.code() {
        None => no_session(),
        code => Problem::not_found(over.to_string()).with_code(code),
    }
}

pub(super) fn no_session() -> Problem {
    Problem::not_found("there is no such session, or it has ended")
}

//! Offers, trickles and ends that come to another node than the one that reserved: that one is asked.
//!
//! What it answers goes back as it is. The session's address stays the same, so that what the viewer asks
//! next may come to any node. Media does not pass here; it is between the viewer and its node.

use std::time::SystemTime;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, ETAG, LINK, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use control::ReservationId;

use super::{ice_credentials, no_session, offer_here, restarted, trickled, why_no_session};
use crate::http::Http;
use crate::http::asking::ask_again;
use crate::http::problem::Problem;
use crate::http::wire::nodes::{Act, NodeQuestion, Passed, WhepQuestion};

/// Headers of answers that viewers need.
const HEADERS: [HeaderName; 5] = [CONTENT_TYPE, ETAG, LINK, LOCATION, crate::http::ACCEPT_PATCH];

/// Longest body of an answer: an SDP of some 10 KB.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Hands an offer to the node that has the reservation.
pub(super) async fn offer(
    http: &Http,
    reservation: &ReservationId,
    question: WhepQuestion,
) -> Result<Response, Problem> {
    http.forwarded(reservation, "offer");
    match http.act_elsewhere(reservation.as_str(), question).await {
        Ok(passed) => passed.into_response(),
        // As the node itself says of a reservation that has ended.
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => {
            Err(problem.with_status(StatusCode::GONE))
        }
        Err(problem) => Err(problem),
    }
}

/// Hands what is asked of a session to the node that has it. Its name, which nobody can guess, is all that is
/// needed there as here.
pub(in crate::http) async fn session<Q>(
    http: &Http,
    resource: &str,
    question: Q,
) -> Result<Response, Problem>
where
    Q: NodeQuestion<Answer = Act<Passed>>,
{
    // What is no name of a session is nobody's.
    if uuid::Uuid::try_parse(resource).is_err() {
        return Err(no_session());
    }
    let asked = http.ask_nodes(question).await;
    for (_, act) in asked.answers {
        match act {
            Act::Done(passed) => return passed.into_response(),
            Act::Refused(refusal) => return Err(refusal.into()),
            Act::NotHere => {}
        }
    }
    match ask_again(&asked.silent) {
        Some(problem) => Err(problem),
        None => Err(why_no_session(http, resource).await),
    }
}

/// For another node: a viewer of this one.
pub(in crate::http) async fn answer(http: &Http, question: WhepQuestion) -> Act<Passed> {
    passed(asked(http, question).await).await
}

/// An answer for the node that asked; `None`: the session is none of this node's.
pub(in crate::http) async fn passed(answer: Option<Result<Response, Problem>>) -> Act<Passed> {
    match answer {
        None => Act::NotHere,
        Some(Err(problem)) => Act::Refused(problem.into()),
        Some(Ok(response)) => match Passed::of(response).await {
            Some(passed) => Act::Done(passed),
            None => Act::Refused(no_session().into()),
        },
    }
}

/// `None`: it is none of this node's.
async fn asked(http: &Http, question: WhepQuestion) -> Option<Result<Response, Problem>> {
    let app = http.app();
    Some(match question {
        WhepQuestion::Offer { token, camera_id, offer } => {
            let grant = match http.keyring().verify_token(&token, SystemTime::now()) {
                Ok(grant) => grant,
                Err(error) => return Some(Err(error.into())),
            };
            app.holder_of(grant.reservation()?).await?;
            offer_here(http, &grant, &camera_id, offer).await
        }
        WhepQuestion::Trickle { resource, tag, fragment } => {
            trickled(Some(app.trickle(&resource, tag.as_deref(), fragment).await?))
        }
        WhepQuestion::Restart { resource, fragment } => {
            let theirs = ice_credentials(&fragment)?;
            restarted(Some(app.restart_ice(&resource, theirs).await?), &fragment)
        }
        WhepQuestion::End { resource } => {
            if !app.end_watch(&resource).await {
                return None;
            }
            Ok(Response::new(Body::empty()))
        }
    })
}

impl Passed {
    async fn of(response: Response) -> Option<Self> {
        let (parts, body) = response.into_parts();
        let headers = parts.headers.iter().filter(|(name, _)| HEADERS.contains(name));
        let headers = headers.filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        });
        let bytes = to_bytes(body, BODY_BYTES_MAX).await.ok()?;
        Some(Self {
            status: parts.status.as_u16(),
            headers: headers.collect(),
            body: String::from_utf8(bytes.into()).ok()?,
        })
    }

    fn into_response(self) -> Result<Response, Problem> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).map_err(|_| no_session())?;
        for (name, value) in self.headers {
            let name = HeaderName::try_from(name).ok().filter(|name| HEADERS.contains(name));
            if let (Some(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                response.headers_mut().append(name, value);
            }
        }
        Ok(response)
    }
}

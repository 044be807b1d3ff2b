//! Trickles, ICE restarts and ends of publishers' sessions that came to another node: it asks this one.
//!
//! Media does not pass there; it is between the publisher and the node that answered its offer.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::http::Http;
use crate::http::problem::Problem;
use crate::http::whep::elsewhere::passed;
use crate::http::whep::{ice_credentials, restarted, trickled};
use crate::http::wire::nodes::{Act, Passed, WhipQuestion};

/// For another node: a publisher of this one.
pub(in crate::http) async fn answer(http: &Http, question: WhipQuestion) -> Act<Passed> {
    passed(asked(http, question).await).await
}

/// `None`: it is none of this node's.
async fn asked(http: &Http, question: WhipQuestion) -> Option<Result<Response, Problem>> {
    let publishing = http.app().publishing();
    Some(match question {
        WhipQuestion::Trickle { resource, tag } => {
            trickled(Some(publishing.trickle(&resource, tag.as_deref())?))
        }
        WhipQuestion::Restart { resource, fragment } => {
            let theirs = ice_credentials(&fragment)?;
            restarted(Some(publishing.restart_ice(&resource, theirs).await?), &fragment)
        }
        WhipQuestion::End { resource } => {
            publishing.end(&resource).then(|| Ok(StatusCode::OK.into_response()))?
        }
    })
}

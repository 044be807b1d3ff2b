//! `GET /api/v1/cameras/{id}/frame.jpeg`: a camera's last keyframe as a still picture.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::Http;
use super::api::camera_id;
use super::caller::{Caller, Wish};
use super::extract::Params;
use super::problem::Problem;
use super::wire::FrameQuery;
use crate::app::HoldError;
use crate::stills::{Still, StillError, WIDTHS};

/// Pictures are not for caches on the way, and whoever has one asks whether it is still the newest.
const CACHING: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Pages of others may not show what they may not read (Fetch, §3.7).
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// When to ask again for a picture that could not be had.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// `GET /api/v1/cameras/{id}/frame.jpeg`, for who may call the API and for viewers of the camera.
#[utoipa::path(
    get,
    path = "/api/v1/cameras/{id}/frame.jpeg",
    tag = "cameras",
    summary = "The last keyframe as a still picture",
    params(("id" = String, Path, description = "The camera"), FrameQuery),
    responses(
        (status = 200, description = "The picture", body = [u8], content_type = "image/jpeg"),
        (status = 304, description = "It is still the newest"),
        (status = 400, description = "A wrong width"),
        (status = 404, description = "There is no such camera"),
        (status = 503, description = "No picture can be had at the moment"),
    ),
)]
pub(super) async fn jpeg(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
    Params(query): Params<FrameQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = camera_id(&id)?;
    caller.require_camera(&http, &id, Wish::Watch).await?;
    if query.width.is_some_and(|width| !WIDTHS.contains(&width)) {
        let (least, most) = (WIDTHS.start(), WIDTHS.end());
        return Err(Problem::bad_request(format!("width must be from {least} to {most} pixels")));
    }
    let still = http.stills().still(&id, query.width).await.map_err(refused)?;
    answer(&still, headers.get(IF_NONE_MATCH))
}

fn answer(still: &Still, known: Option<&HeaderValue>) -> Result<Response, Problem> {
    let unusable =
        |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the picture fits no HTTP header");
    let tag = format!("\"{}\"", still.tag);
    let is_known = known.and_then(|known| known.to_str().ok()).is_some_and(|known| {
        let mut tags = known.split(',').map(|one| one.trim().trim_start_matches("W/"));
        tags.any(|one| one == "*" || one == tag)
    });
    let mut headers = HeaderMap::new();
    headers.insert(ETAG, HeaderValue::try_from(tag).map_err(unusable)?);
    headers.insert(CACHE_CONTROL, CACHING);
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    let modified = http_date(still.captured);
    headers.insert(LAST_MODIFIED, HeaderValue::try_from(modified).map_err(unusable)?);
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("image/jpeg"));
    Ok((headers, still.jpeg.clone()).into_response())
}

fn refused(error: StillError) -> Problem {
    let status = match &error {
        StillError::Hold(HoldError::UnknownCamera(_) | HoldError::NoSub(_)) => {
            StatusCode::NOT_FOUND
        }
        StillError::Codec(_) => StatusCode::NOT_ACCEPTABLE,
        StillError::Hold(
            HoldError::CameraOffline(_) | HoldError::TooMany | HoldError::ShuttingDown,
        )
        | StillError::CameraFailed(_)
        | StillError::NoKeyframe
        | StillError::Picture(_)
        | StillError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problem = Problem::new(status, error.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        problem.with_header(RETRY_AFTER, RETRY_SECONDS)
    } else {
        problem
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
fn http_date(time: SystemTime) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // `1994-11-06T08:49:37Z`; the epoch was a Thursday.
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let days = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    let weekday = WEEKDAYS[usize::try_from(days % 7).unwrap_or(0)];
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    let month = part(5..7).parse::<usize>().ok().and_then(|month| MONTHS.get(month - 1));
    let month = month.copied().unwrap_or_default();
    format!("{weekday}, {} {month} {} {} GMT", part(8..10), part(0..4), part(11..19))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_rfc() {
        let date = |seconds| http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(1_709_164_800), "Thu, 29 Feb 2024 00:00:00 GMT");
    }
}

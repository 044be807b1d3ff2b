//! Quotas over HTTP: the sources with their limits, and the answer where a limit is reached.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use control::{Class, Scope, SourceId, Unit};

use super::Http;
use super::api::usage;
use super::caller::Caller;
use super::extract::JsonBody;
use super::problem::Problem;
use super::wire::sources::{
    LimitAnswer, LimitRequest, QuotaAnswer, QuotaError, SourceAnswer, SourcesAnswer,
};
use crate::app::{LimitError, SourceSnapshot};
use crate::audit::Change;

/// Said where a limit is 0, so that waiting does not help but somebody must raise it.
const CLOSED_RETRY: Duration = Duration::from_secs(60);

/// A reached limit.
pub(super) struct Full {
    /// Of what.
    pub(super) scope: Scope,
    /// Its name in English and in Arabic.
    pub(super) names: [String; 2],
    pub(super) current: u32,
    pub(super) limit: u32,
    /// `None`: never, since the limit is 0.
    pub(super) retry_after: Option<Duration>,
}

/// 429, as the original answers it.
pub(super) fn quota_answer(full: Full) -> Response {
    let Full { scope, names, current, limit, retry_after } = full;
    // Whole seconds, rounded up, so that nobody comes too early.
    let wait = retry_after.unwrap_or(CLOSED_RETRY);
    let retry_after = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    let [message_en, message_ar] = messages(&scope, names, (current, limit), retry_after);
    let error = QuotaError {
        code: "RATE_LIMIT_EXCEEDED",
        message_en,
        message_ar,
        source: scope.to_string(),
        current,
        limit,
        retry_after,
    };
    let headers = [(RETRY_AFTER, HeaderValue::from(retry_after))];
    (StatusCode::TOO_MANY_REQUESTS, headers, Json(QuotaAnswer { error })).into_response()
}

/// In English and in Arabic.
fn messages(
    scope: &Scope,
    [name, name_ar]: [String; 2],
    (current, limit): (u32, u32),
    seconds: u64,
) -> [String; 2] {
    let wait = format!("close one, or try again in {seconds} s");
    let wait_ar = format!("أغلق بثًا أو حاول مجددًا بعد {seconds} ثانية");
    if limit == 0 {
        let english = format!("{name} may watch nothing at present; its limit is 0");
        return [english, format!("المشاهدة متوقفة حاليًا لدى {name_ar}؛ الحد الأقصى 0")];
    }
    match scope {
        Scope::User(_) => [
            format!("you watch {current} of your {limit} streams at once; {wait}"),
            format!("بلغت الحد الأقصى للبث المتزامن المسموح لك ({current} من {limit})؛ {wait_ar}"),
        ],
        Scope::Source(_) | Scope::Total => [
            format!("{name} watches {current} of {limit} streams at once; {wait}"),
            format!("بلغت {name_ar} الحد الأقصى للبث المتزامن ({current} من {limit})؛ {wait_ar}"),
        ],
    }
}

/// The class that a reservation asks for.
pub(super) fn class(priority: Option<u64>) -> Result<Class, Problem> {
    let Some(priority) = priority else { return Ok(Class::LOWEST) };
    let class = u8::try_from(priority).ok().and_then(Class::new);
    class.ok_or_else(|| Problem::bad_request("priority must be 0 to 9"))
}

/// `GET /api/v1/sources`
#[utoipa::path(
    get,
    path = "/api/v1/sources",
    tag = "stream",
    summary = "The sources, their limits and how far they are used",
    responses((status = 200, description = "The caller's sources", body = SourcesAnswer)),
)]
pub(super) async fn sources(State(http): State<Http>, caller: Caller) -> Json<SourcesAnswer> {
    let snapshot = caller.visible(http.whole().snapshot().await);
    Json(SourcesAnswer {
        unit: match snapshot.unit {
            Unit::Viewer => "viewer",
            Unit::Camera => "camera",
        },
        per_user: snapshot.per_user,
        total: usage(snapshot.total_current, snapshot.total_limit),
        sources: snapshot.sources.iter().map(source_answer).collect(),
    })
}

fn source_answer(source: &SourceSnapshot) -> SourceAnswer {
    let usage = usage(source.current, source.limit);
    SourceAnswer {
        id: source.id.to_string(),
        name: source.name.clone(),
        name_ar: source.name_ar.clone(),
        current: usage.current,
        limit: usage.limit,
        configured_limit: source.configured_limit,
        available: usage.available,
        usage_percent: usage.percentage,
        active_cameras: source.active_cameras,
    }
}

/// `PUT /api/v1/sources/{id}/limit`
#[utoipa::path(
    put,
    path = "/api/v1/sources/{id}/limit",
    tag = "stream",
    summary = "Change a source's limit while the server runs",
    params(("id" = String, Path, description = "The source")),
    request_body = LimitRequest,
    responses(
        (status = 200, description = "The limit as it is from here on", body = LimitAnswer),
        (status = 400, description = "A wrong limit"),
        (status = 404, description = "There is no such source"),
        (status = 503, description = "The server ends, or its store cannot be asked"),
    ),
)]
pub(super) async fn set_limit(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<LimitRequest>,
) -> Result<Json<LimitAnswer>, Problem> {
    // Limits are shared out among the sources by who has a say in all of them.
    let is_known = SourceId::parse(&id).is_ok_and(|source| caller.may_read(&source));
    if !is_known {
        return Err(Problem::not_found(LimitError::UnknownSource.to_string()));
    }
    caller.require_admin()?;
    let set = http.limits().set(http.app(), &id, request.limit).await;
    let set = set.map_err(|error| {
        let status = match error {
            LimitError::UnknownSource => StatusCode::NOT_FOUND,
            LimitError::TooHigh => StatusCode::BAD_REQUEST,
            LimitError::StoreLost | LimitError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, error.to_string())
    })?;
    http.app().audit().tell(Change {
        actor: caller.identity(),
        action: "limit_changed",
        object: &id,
        source: &id,
        detail: format!("to {}", set.limit),
    });
    let usage = usage(set.current, set.limit);
    let (current, limit, available) = (usage.current, usage.limit, usage.available);
    Ok(Json(LimitAnswer { source: id, current, limit, available }))
}

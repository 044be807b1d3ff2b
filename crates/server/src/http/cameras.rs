//! `/api/v1/cameras`: what changes the park. What is read of it is in `api`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use control::CameraId;

use super::Http;
use super::api::{camera_answer, camera_id};
use super::auth::GrantError;
use super::caller::{Caller, Role, Wish, no_camera};
use super::extract::{Params, body, require_content_type};
use super::layouts::unkept;
use super::problem::Problem;
use super::wire::Camera;
use super::wire::park::{CameraRequest, DeletedCamera, ImportAnswer, ImportQuery, RowProblem};
use crate::config;
use crate::park::{Editor, Existing, Imported, ListFormat, ParkError};

/// Largest list of cameras: [`engine::MAX_CAMERAS`] with names in two scripts and two addresses each, some
/// 800 bytes.
pub(super) const LIST_LENGTH_MAX: usize = 8 * 1024 * 1024;

/// Problems that are put into the sentence; all of them stand beside it.
const PROBLEMS_IN_SENTENCE: usize = 5;

/// `POST /api/v1/cameras`
#[utoipa::path(
    post,
    path = "/api/v1/cameras",
    tag = "cameras",
    summary = "Add a camera",
    request_body = CameraRequest,
    responses(
        (status = 201, description = "It is there", body = Camera),
        (status = 400, description = "Settings that cannot be, all of them named"),
        (status = 409, description = "There is a camera with this id, or the park is full"),
        (status = 503, description = "Nothing can be kept at the moment"),
    ),
)]
pub(super) async fn add(
    State(http): State<Http>,
    caller: Caller,
    request: Request,
) -> Result<impl IntoResponse, Problem> {
    require_operator(&caller)?;
    let text = document(request).await?;
    let id = http.park().add(text, editor(caller)).await?;
    let location = format!("/api/v1/cameras/{id}");
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(answer(&http, &id).await?)))
}

/// `PUT /api/v1/cameras/{id}`
#[utoipa::path(
    put,
    path = "/api/v1/cameras/{id}",
    tag = "cameras",
    summary = "Change a camera",
    params(("id" = String, Path, description = "The camera")),
    request_body = CameraRequest,
    responses(
        (status = 200, description = "The camera as it is from here on; what was left out stays", body = Camera),
        (status = 400, description = "Settings that cannot be, all of them named"),
        (status = 404, description = "There is no such camera"),
        (status = 503, description = "Nothing can be kept at the moment"),
    ),
)]
pub(super) async fn change(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Camera>, Problem> {
    let id = camera_id(&id)?;
    caller.require_camera(&http, &id, Wish::Change).await?;
    let text = document(request).await?;
    http.park().change(id.clone(), text, editor(caller)).await?;
    answer(&http, &id).await.map(Json)
}

/// `DELETE /api/v1/cameras/{id}`
#[utoipa::path(
    delete,
    path = "/api/v1/cameras/{id}",
    tag = "cameras",
    summary = "Remove a camera",
    params(("id" = String, Path, description = "The camera")),
    responses(
        (status = 200, description = "It is gone, and nobody watches it any more", body = DeletedCamera),
        (status = 404, description = "There is no such camera"),
        (status = 503, description = "Nothing can be kept at the moment"),
    ),
)]
pub(super) async fn remove(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<DeletedCamera>, Problem> {
    let id = camera_id(&id)?;
    caller.require_camera(&http, &id, Wish::Change).await?;
    http.park().remove(id.clone(), editor(caller)).await?;
    Ok(Json(DeletedCamera { camera_id: id.to_string(), deleted: true }))
}

/// `POST /api/v1/cameras/import`
#[utoipa::path(
    post,
    path = "/api/v1/cameras/import",
    tag = "cameras",
    summary = "Add many cameras, all or none",
    params(ImportQuery),
    request_body(
        description = "A JSON list, or a table whose first row names the settings; at most 10,000 cameras and 8 MiB",
        content((Vec<CameraRequest> = "application/json"), (String = "text/csv")),
    ),
    responses(
        (status = 200, description = "All of them are there", body = ImportAnswer),
        (status = 400, description = "None was added; every problem is named by its row"),
        (status = 413, description = "The list is too long"),
        (status = 415, description = "Neither JSON nor CSV"),
        (status = 503, description = "Nothing can be kept at the moment"),
    ),
)]
pub(super) async fn import(
    State(http): State<Http>,
    caller: Caller,
    Params(query): Params<ImportQuery>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<ImportAnswer>, Problem> {
    require_operator(&caller)?;
    let existing = match query.existing.as_deref() {
        None | Some("refuse") => Existing::Refuse,
        Some("change") => Existing::Change,
        Some(_) => return Err(Problem::bad_request("existing must be refuse or change")),
    };
    let format = list_format(&headers)?;
    let text = utf8(list(request).await?)?;
    match http.park().import(text, format, existing, editor(caller)).await {
        Ok(Imported { added, changed }) => Ok(Json(ImportAnswer { added, changed })),
        Err(ParkError::Invalid { problems, count }) => Err(refused_list(&problems, count)),
        Err(error) => Err(error.into()),
    }
}

fn require_operator(caller: &Caller) -> Result<(), Problem> {
    if caller.role() >= Role::Operator { Ok(()) } else { Err(GrantError::NotAnOperator.into()) }
}

fn editor(caller: Caller) -> Editor {
    let name = caller.identity().to_owned();
    Editor { name, may_change: Box::new(move |source| caller.may_change(source)) }
}

async fn answer(http: &Http, id: &CameraId) -> Result<Camera, Problem> {
    let snapshot = http.whole().snapshot().await;
    let camera = snapshot.cameras.iter().find(|camera| camera.about.id == *id);
    camera.map(camera_answer).ok_or_else(|| no_camera(id))
}

async fn document(request: Request) -> Result<String, Problem> {
    require_content_type(request.headers(), "application/json")?;
    utf8(body(request, &()).await?)
}

async fn list(request: Request) -> Result<Bytes, Problem> {
    Bytes::from_request(request, &()).await.map_err(|rejection| {
        let status = rejection.into_response().status();
        let detail = if status == StatusCode::PAYLOAD_TOO_LARGE {
            format!("the list is larger than {} MiB", LIST_LENGTH_MAX / 1024 / 1024)
        } else {
            "the body ended before it was complete".to_owned()
        };
        Problem::new(status, detail)
    })
}

fn list_format(headers: &HeaderMap) -> Result<ListFormat, Problem> {
    if require_content_type(headers, "application/json").is_ok() {
        return Ok(ListFormat::Json);
    }
    require_content_type(headers, "text/csv").map(|()| ListFormat::Csv).map_err(|_| {
        let given = headers.get(CONTENT_TYPE).map_or("none", |_| "another one");
        let detail = format!(
            "the list must be sent with Content-Type: application/json or text/csv; there is {given}"
        );
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    })
}

fn utf8(bytes: Bytes) -> Result<String, Problem> {
    String::from_utf8(bytes.into())
        .map_err(|_| Problem::bad_request("the body is not UTF-8 text; save the file as UTF-8"))
}

fn refused_list(problems: &[config::Problem], count: usize) -> Problem {
    let sentences: Vec<String> =
        problems.iter().take(PROBLEMS_IN_SENTENCE).map(ToString::to_string).collect();
    let rest = count.saturating_sub(PROBLEMS_IN_SENTENCE);
    let more = if rest == 0 { String::new() } else { format!("; and {rest} more") };
    let noun = if count == 1 { "problem" } else { "problems" };
    let detail =
        format!("no camera was imported, for {count} {noun}: {}{more}", sentences.join("; "));
    Problem::bad_request(detail).with_problems(rows(problems))
}

fn rows(problems: &[config::Problem]) -> Vec<RowProblem> {
    let row = |problem: &config::Problem| RowProblem {
        row: problem.row(),
        key: problem.key.clone(),
        sentence: problem.sentence.clone(),
    };
    problems.iter().map(row).collect()
}

impl From<ParkError> for Problem {
    fn from(error: ParkError) -> Self {
        let sentence = error.to_string();
        match error {
            ParkError::Unknown(_) => Self::not_found(sentence),
            ParkError::Exists(_) | ParkError::Full => Self::new(StatusCode::CONFLICT, sentence),
            ParkError::Forbidden => Self::new(StatusCode::FORBIDDEN, sentence),
            ParkError::Invalid { problems, .. } => {
                Self::bad_request(sentence).with_problems(rows(&problems))
            }
            ParkError::Database(error) => unkept(&error),
            ParkError::Vault(error) => {
                tracing::error!("{error}");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
            }
            ParkError::ShuttingDown => Self::shutting_down(),
        }
    }
}

//! `/api/v1/layouts`: saved walls. Each is its owner's; an administrator sees and changes all.

use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::IntoResponse;
use control::CameraId;

use super::caller::Caller;
use super::extract::JsonBody;
use super::problem::Problem;
use super::wire::park::{LayoutAnswer, LayoutRequest, LayoutsAnswer, TileBody};
use super::{Http, rfc3339};
use crate::audit::Change;
use crate::database::DatabaseError;
use crate::layouts::{GRID_MAX, Layout, LayoutError, NAME_LENGTH_MAX, TILES_MAX, Tile, Whose};

/// `GET /api/v1/layouts`
#[utoipa::path(
    get,
    path = "/api/v1/layouts",
    tag = "layouts",
    summary = "The walls that the caller has saved",
    responses((status = 200, description = "By name; all of them for an administrator", body = LayoutsAnswer)),
)]
pub(super) async fn list(
    State(http): State<Http>,
    caller: Caller,
) -> Result<Json<LayoutsAnswer>, Problem> {
    let layouts = http.layouts().all(whose(&caller)).await.map_err(|error| unkept(&error))?;
    Ok(Json(LayoutsAnswer { layouts: layouts.iter().map(answer).collect() }))
}

/// `POST /api/v1/layouts`
#[utoipa::path(
    post,
    path = "/api/v1/layouts",
    tag = "layouts",
    summary = "Save a wall",
    request_body = LayoutRequest,
    responses(
        (status = 201, description = "It is saved", body = LayoutAnswer),
        (status = 400, description = "No name, or tiles that cannot be"),
        (status = 409, description = "There are too many"),
        (status = 503, description = "Nothing can be kept at the moment"),
    ),
)]
pub(super) async fn add(
    State(http): State<Http>,
    caller: Caller,
    JsonBody(request): JsonBody<LayoutRequest>,
) -> Result<impl IntoResponse, Problem> {
    let name = request.name.ok_or_else(|| Problem::bad_request("the layout has no name"))?;
    let layout = Layout {
        id: uuid::Uuid::new_v4().to_string(),
        name: checked_name(name)?,
        owner: caller.identity().to_owned(),
        tiles: tiles(request.tiles.unwrap_or_default())?,
        changed_at: SystemTime::now(),
    };
    let answer = answer(&layout);
    let location = format!("/api/v1/layouts/{}", layout.id);
    http.layouts().save(layout.clone()).await?;
    note(&http, &caller, "layout_added", &layout);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(answer)))
}

/// `GET /api/v1/layouts/{id}`
#[utoipa::path(
    get,
    path = "/api/v1/layouts/{id}",
    tag = "layouts",
    summary = "One wall",
    params(("id" = String, Path, description = "The layout")),
    responses(
        (status = 200, description = "The wall", body = LayoutAnswer),
        (status = 404, description = "There is no such layout of the caller"),
    ),
)]
pub(super) async fn one(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<LayoutAnswer>, Problem> {
    let layout = http.layouts().find(known(id)?, whose(&caller)).await?;
    Ok(Json(answer(&layout)))
}

/// `PUT /api/v1/layouts/{id}`
#[utoipa::path(
    put,
    path = "/api/v1/layouts/{id}",
    tag = "layouts",
    summary = "Change a wall",
    params(("id" = String, Path, description = "The layout")),
    request_body = LayoutRequest,
    responses(
        (status = 200, description = "The wall as it is from here on; what was left out stays", body = LayoutAnswer),
        (status = 400, description = "Tiles that cannot be"),
        (status = 404, description = "There is no such layout of the caller"),
        (status = 503, description = "Nothing can be kept at the moment"),
    ),
)]
pub(super) async fn change(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<LayoutRequest>,
) -> Result<Json<LayoutAnswer>, Problem> {
    let mut layout = http.layouts().find(known(id)?, whose(&caller)).await?;
    if let Some(name) = request.name {
        layout.name = checked_name(name)?;
    }
    if let Some(bodies) = request.tiles {
        layout.tiles = tiles(bodies)?;
    }
    layout.changed_at = SystemTime::now();
    let answer = answer(&layout);
    http.layouts().save(layout.clone()).await?;
    note(&http, &caller, "layout_changed", &layout);
    Ok(Json(answer))
}

/// `DELETE /api/v1/layouts/{id}`
#[utoipa::path(
    delete,
    path = "/api/v1/layouts/{id}",
    tag = "layouts",
    summary = "Forget a wall",
    params(("id" = String, Path, description = "The layout")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such layout of the caller"),
        (status = 503, description = "Nothing can be kept at the moment"),
    ),
)]
pub(super) async fn remove(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let layout = http.layouts().remove(known(id)?, whose(&caller)).await?;
    note(&http, &caller, "layout_deleted", &layout);
    Ok(StatusCode::NO_CONTENT)
}

/// Tells the audit trail. A wall is of no source.
fn note(http: &Http, caller: &Caller, action: &str, layout: &Layout) {
    let cameras = match layout.tiles.len() {
        1 => "1 camera".to_owned(),
        count => format!("{count} cameras"),
    };
    http.app().audit().tell(Change {
        actor: caller.identity(),
        action,
        object: &layout.id,
        source: "",
        detail: format!("{}, of {}, {cameras}", layout.name, layout.owner),
    });
}

fn whose(caller: &Caller) -> Whose {
    if caller.is_admin() { Whose::Everybodys } else { Whose::Owner(caller.identity().to_owned()) }
}

/// Ids are made here and nowhere else.
fn known(id: String) -> Result<String, Problem> {
    match uuid::Uuid::parse_str(&id) {
        Ok(_) => Ok(id),
        Err(_) => Err(Problem::not_found("there is no such layout")),
    }
}

fn checked_name(name: String) -> Result<String, Problem> {
    let is_name = !name.trim().is_empty()
        && name.len() <= NAME_LENGTH_MAX
        && !name.chars().any(char::is_control);
    if is_name {
        return Ok(name);
    }
    let detail = format!(
        "the name of a layout is 1 to {NAME_LENGTH_MAX} bytes of text without control characters"
    );
    Err(Problem::bad_request(detail))
}

/// Where no place is given, the wall is as square as can be, filled row by row.
fn tiles(bodies: Vec<TileBody>) -> Result<Vec<Tile>, Problem> {
    if bodies.len() > TILES_MAX {
        let detail = format!("a layout has at most {TILES_MAX} tiles, not {}", bodies.len());
        return Err(Problem::bad_request(detail));
    }
    let columns = (1..=GRID_MAX).find(|n| usize::from(*n).pow(2) >= bodies.len()).unwrap_or(1);
    let numbered = bodies.into_iter().zip(0_u16..);
    numbered.map(|(body, at)| tile(body, (at % columns, at / columns))).collect()
}

fn tile(body: TileBody, (x, y): (u16, u16)) -> Result<Tile, Problem> {
    let camera = CameraId::parse(&body.camera_id)
        .map_err(|error| Problem::bad_request(format!("a tile's camera_id: {error}")))?;
    let (x, y) = (body.x.unwrap_or(x), body.y.unwrap_or(y));
    let (width, height) = (body.width.unwrap_or(1), body.height.unwrap_or(1));
    let fits = |from: u16, size: u16| size >= 1 && from < GRID_MAX && size <= GRID_MAX - from;
    if fits(x, width) && fits(y, height) {
        return Ok(Tile { camera, x, y, width, height });
    }
    let detail = format!(
        "the tile of {camera} must lie within {GRID_MAX} columns and {GRID_MAX} rows and be at least 1 wide and high"
    );
    Err(Problem::bad_request(detail))
}

fn answer(layout: &Layout) -> LayoutAnswer {
    let tile = |tile: &Tile| TileBody {
        camera_id: tile.camera.to_string(),
        x: Some(tile.x),
        y: Some(tile.y),
        width: Some(tile.width),
        height: Some(tile.height),
    };
    LayoutAnswer {
        id: layout.id.clone(),
        name: layout.name.clone(),
        owner: layout.owner.clone(),
        tiles: layout.tiles.iter().map(tile).collect(),
        changed_at: rfc3339(layout.changed_at),
    }
}

impl From<LayoutError> for Problem {
    fn from(error: LayoutError) -> Self {
        match error {
            LayoutError::Unknown(_) => Self::not_found(error.to_string()),
            LayoutError::Full => Self::new(StatusCode::CONFLICT, error.to_string()),
            LayoutError::Database(error) => unkept(&error),
        }
    }
}

/// The database cannot be used.
pub(super) fn unkept(error: &DatabaseError) -> Problem {
    tracing::error!("{error}");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

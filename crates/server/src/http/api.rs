//! `/api/v1`: reserve, release, heartbeat, stats and the camera park.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use control::{CameraId, Class, ReservationId};

use super::caller::{Caller, Role, Wish, check_user, no_camera};
use super::extract::{JsonBody, OptionalJsonBody, Params, Scheme, authority};
use super::problem::Problem;
use super::sources::{self, Full};
use super::wire::nodes::HeartbeatQuestion;
use super::wire::{
    Camera, CameraNode, CameraStats, CamerasAnswer, CamerasQuery, HeartbeatAnswer,
    HeartbeatRequest, Quality, ReleaseAnswer, Rendition, ReserveAnswer, ReserveRequest,
    SourceStats, SourceUsage, StatsAnswer, Usage,
};
use super::{Http, renewal, rfc3339};
use crate::app::{
    self, CameraSnapshot, NodeSnapshot, PageName, RenditionSnapshot, Reservation, ReserveError,
    Snapshot, SourceSnapshot,
};
use crate::audit::Change;
use crate::config::AuthMode;

/// Most cameras in one answer, and the number where none is asked for: twice the park that the
/// server is built for, so that small dashboards need no paging.
const CAMERAS_MAX: usize = 1000;

/// The port of the LiveKit-compatible listener.
const LIVEKIT_PORT: u16 = 7880;

/// `POST /api/v1/stream/reserve`
#[utoipa::path(
    post,
    path = "/api/v1/stream/reserve",
    tag = "stream",
    summary = "Reserve a place before a camera",
    request_body = ReserveRequest,
    responses(
        (status = 200, description = "A lease, and the token that opens its media", body = ReserveAnswer),
        (status = 400, description = "A wrong field"),
        (status = 404, description = "There is no such camera"),
        (status = 409, description = "The camera is offline"),
        (status = 429, description = "A quota is used up; `Retry-After` in seconds", body = super::wire::sources::QuotaAnswer),
        (status = 503, description = "The server ends, or its store cannot be asked"),
    ),
)]
pub(super) async fn reserve(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    scheme: Scheme,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ReserveRequest>,
) -> Result<Response, Problem> {
    check_user(&request.user_id).map_err(Problem::bad_request)?;
    let camera = camera_id(&request.camera_id)?;
    let quality = quality(request.quality.as_deref())?.unwrap_or_default();
    caller.require_reserve_for(&request.user_id)?;
    let class = sources::class(request.priority)?;
    let page = page_name(request.page.as_deref())?;
    // To take others' places is for who has a say in the source.
    let right = if class > Class::LOWEST { Wish::Change } else { Wish::Watch };
    caller.require_camera(&http, &camera, right).await?;
    let (user, wish) = (&request.user_id, (quality, class));
    match http.app().reserve_at(page, camera.as_str(), user, wish).await {
        Ok(reservation) => {
            let host = authority(&headers, &uri);
            let answer = reserve_answer(&http, (scheme, host.as_ref()), &reservation);
            answer.map(|answer| Json(answer).into_response())
        }
        Err(ReserveError::QuotaExceeded {
            scope,
            source_name,
            source_name_ar,
            current,
            limit,
            retry_after,
        }) => {
            let names = [source_name, source_name_ar];
            Ok(sources::quota_answer(Full { scope, names, current, limit, retry_after }))
        }
        Err(error @ ReserveError::UnknownCamera(_)) => Err(Problem::not_found(error.to_string())),
        Err(error @ ReserveError::CameraOffline(_)) => {
            Err(Problem::new(StatusCode::CONFLICT, error.to_string()))
        }
        Err(ReserveError::StoreLost) => Err(Problem::store_lost(ReserveError::StoreLost)),
        Err(ReserveError::ShuttingDown) => Err(Problem::shutting_down()),
    }
}

/// A quality by its word; `None` where none is asked for.
fn quality(word: Option<&str>) -> Result<Option<app::Quality>, Problem> {
    let quality = match word {
        None => return Ok(None),
        Some("low") => app::Quality::Low,
        Some("medium") => app::Quality::Medium,
        Some("high") => app::Quality::High,
        Some("auto") => app::Quality::Auto,
        Some(_) => {
            return Err(Problem::bad_request("quality must be low, medium, high or auto"));
        }
    };
    Ok(Some(quality))
}

/// What a page calls itself, where it does.
pub(super) fn page_name(text: Option<&str>) -> Result<Option<PageName>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let name = PageName::parse(text);
    let sentence = "page must be 1 to 64 of the characters A-Z, a-z, 0-9, - and _";
    name.map(Some).ok_or_else(|| Problem::bad_request(sentence))
}

/// A text that is no id is the name of no camera.
pub(super) fn camera_id(text: &str) -> Result<CameraId, Problem> {
    CameraId::parse(text)
        .map_err(|error| Problem::not_found(format!("there is no such camera: {error}")))
}

pub(super) fn reserve_answer(
    http: &Http,
    reached: (Scheme, Option<&Authority>),
    reservation: &Reservation,
) -> Result<ReserveAnswer, Problem> {
    let camera = &reservation.camera;
    let now = SystemTime::now();
    let token = http
        .keyring()
        .viewer_token(&reservation.id, camera, now)
        .map_err(|error| renewal::unsigned(&error))?;
    http.app().journal().token(&reservation.id, http.keyring().ttl());
    Ok(ReserveAnswer {
        reservation_id: reservation.id.to_string(),
        camera_id: camera.to_string(),
        camera_name: reservation.camera_name.clone(),
        room_name: camera.room_name(),
        token,
        livekit_url: livekit_url(http, reached),
        whep_url: format!("{}/whep/{camera}", base_url(http, reached)),
        ice_servers: http.0.ice_servers.told(reservation.id.as_str(), now),
        expires_at: rfc3339(reservation.expires_at),
        quality: reservation.quality.into(),
        rendition: reservation.rendition.as_str(),
        source: reservation.source.to_string(),
        current_usage: reservation.current_usage,
        limit: reservation.limit,
    })
}

/// How the client reaches this server, as it has just done so.
fn base_url(http: &Http, (scheme, host): (Scheme, Option<&Authority>)) -> String {
    match host {
        Some(host) => format!("{}://{host}", http.rules().scheme_of(host, scheme).as_str()),
        None => format!("http://{}", http.0.doors.plain[0]),
    }
}

fn livekit_url(http: &Http, reached: (Scheme, Option<&Authority>)) -> String {
    if let Some(url) = &http.0.livekit_url {
        return url.clone();
    }
    let has_port = http.0.doors.plain.iter().any(|address| address.port() == LIVEKIT_PORT);
    match reached {
        (Scheme::Http, Some(host)) if has_port => format!("ws://{}:{LIVEKIT_PORT}", host.host()),
        // A page that came by HTTPS may not go on without it.
        (Scheme::Http | Scheme::Https, _) => base_url(http, reached).replacen("http", "ws", 1),
    }
}

/// `DELETE /api/v1/stream/release/{id}`
#[utoipa::path(
    delete,
    path = "/api/v1/stream/release/{id}",
    tag = "stream",
    summary = "Give a place back",
    params(("id" = String, Path, description = "The reservation")),
    responses(
        (status = 200, description = "It has ended", body = ReleaseAnswer),
        (status = 404, description = "There is no such reservation, or it has ended"),
    ),
)]
pub(super) async fn release(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ReleaseAnswer>, Problem> {
    caller.require_reservation(&http, &id).await?;
    if let Ok(known) = ReservationId::parse(&id)
        && http.may_be_elsewhere(&known).await
    {
        // The store tells its node.
        http.forwarded(&known, "release");
    }
    let released = http.app().release(&id).await?;
    // Without keys nobody is known, and each page ends its own.
    if http.auth_mode() == AuthMode::Keys && caller.role() >= Role::Operator {
        http.app().audit().tell(Change {
            actor: caller.identity(),
            action: "reservation_ended",
            object: &id,
            source: released.source.as_str(),
            detail: String::new(),
        });
    }
    Ok(Json(ReleaseAnswer {
        reservation_id: released.id.to_string(),
        source: released.source.to_string(),
        released: true,
        new_count: released.new_count,
    }))
}

/// `POST /api/v1/stream/heartbeat/{id}`
#[utoipa::path(
    post,
    path = "/api/v1/stream/heartbeat/{id}",
    tag = "stream",
    summary = "Keep a place whose media does not flow, and get a fresh token",
    params(("id" = String, Path, description = "The reservation")),
    request_body(content = Option<HeartbeatRequest>, description = "May be left out"),
    responses(
        (status = 200, description = "Until when it lives now, and a fresh token", body = HeartbeatAnswer),
        (status = 400, description = "A wrong field"),
        (status = 404, description = "There is no such reservation, or it has ended"),
    ),
)]
pub(super) async fn heartbeat(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
    OptionalJsonBody(request): OptionalJsonBody<HeartbeatRequest>,
) -> Result<Json<HeartbeatAnswer>, Problem> {
    caller.require_reservation(&http, &id).await?;
    if let Ok(known) = ReservationId::parse(&id)
        && http.may_be_elsewhere(&known).await
    {
        quality(request.quality.as_deref())?;
        http.forwarded(&known, "heartbeat");
        let question = HeartbeatQuestion { reservation_id: id.clone(), request };
        return http.act_elsewhere(&id, question).await.map(Json);
    }
    heartbeat_here(&http, &id, &request).await.map(Json)
}

/// A heartbeat of a viewer of this node.
pub(super) async fn heartbeat_here(
    http: &Http,
    id: &str,
    request: &HeartbeatRequest,
) -> Result<HeartbeatAnswer, Problem> {
    let extend = request.extend_ttl.map(|seconds| Duration::from_secs(seconds.into()));
    let quality = quality(request.quality.as_deref())?;
    let reservation = http.app().heartbeat(id, extend, quality).await?;
    let now = SystemTime::now();
    let token = renewal::sign(http, &reservation.id, &reservation.camera, now).await?.token;
    if let Some(frames) = request.frames_decoded {
        http.app().journal().decoded(&reservation.id, frames);
    }
    Ok(HeartbeatAnswer {
        reservation_id: reservation.id.to_string(),
        remaining_ttl: reservation.expires_at.duration_since(now).unwrap_or_default().as_secs(),
        updated: true,
        token,
        expires_at: rfc3339(reservation.expires_at),
        quality: reservation.quality.into(),
        rendition: reservation.rendition.as_str().to_owned(),
        switches: reservation.switches,
    })
}

/// `GET /api/v1/stream/stats`
#[utoipa::path(
    get,
    path = "/api/v1/stream/stats",
    tag = "stream",
    summary = "Who watches how much, now",
    responses(
        (status = 200, description = "Counted from the leases", body = StatsAnswer),
    ),
)]
pub(super) async fn stats(State(http): State<Http>, caller: Caller) -> Json<StatsAnswer> {
    let snapshot = caller.visible(http.whole().snapshot().await);
    Json(stats_answer(&snapshot, SystemTime::now()))
}

pub(super) fn stats_answer(snapshot: &Snapshot, now: SystemTime) -> StatsAnswer {
    let watched = snapshot.cameras.iter().filter(|camera| camera.viewer_count > 0);
    StatsAnswer {
        active_streams: snapshot.reservations.len(),
        total_viewers: snapshot.cameras.iter().map(|camera| camera.viewer_count).sum(),
        source_counts: snapshot.sources.iter().map(|s| (s.id.to_string(), s.current)).collect(),
        source_stats: snapshot
            .sources
            .iter()
            .map(|source| (source.id.to_string(), source_stats(source)))
            .collect(),
        camera_stats: watched.map(camera_stats).collect(),
        stats: snapshot
            .sources
            .iter()
            .map(|source| SourceUsage {
                source: source.id.to_string(),
                usage: usage(source.current, source.limit),
            })
            .collect(),
        total: usage(snapshot.total_current, snapshot.total_limit),
        missing_nodes: snapshot.missing_nodes.clone(),
        timestamp: rfc3339(now),
    }
}

fn source_stats(source: &SourceSnapshot) -> SourceStats {
    let usage = usage(source.current, source.limit);
    SourceStats {
        source: source.id.to_string(),
        current: usage.current,
        limit: usage.limit,
        usage_percent: usage.percentage,
        active_cameras: source.active_cameras,
        available: usage.available,
    }
}

fn camera_stats(camera: &CameraSnapshot) -> CameraStats {
    CameraStats {
        camera_id: camera.about.id.to_string(),
        camera_name: camera.about.name.clone(),
        viewer_count: camera.viewer_count,
        source: camera.about.source.to_string(),
        active_since: camera.active_since.map(rfc3339),
    }
}

pub(super) fn usage(current: u32, limit: u32) -> Usage {
    // A limit of nothing is full.
    let percentage = if limit == 0 { 100.0 } else { f64::from(current) * 100.0 / f64::from(limit) };
    // One decimal: dashboards print it as it is.
    let percentage = (percentage * 10.0).round() / 10.0;
    Usage { current, limit, percentage, available: limit.saturating_sub(current) }
}

/// `GET /api/v1/cameras`
#[utoipa::path(
    get,
    path = "/api/v1/cameras",
    tag = "cameras",
    summary = "The cameras",
    params(CamerasQuery),
    responses(
        (status = 200, description = "Those that match", body = CamerasAnswer),
        (status = 400, description = "A wrong filter"),
    ),
)]
pub(super) async fn cameras(
    State(http): State<Http>,
    caller: Caller,
    Params(query): Params<CamerasQuery>,
) -> Result<Json<CamerasAnswer>, Problem> {
    let filter = CameraFilter::read(&query)?;
    Ok(Json(filter.answer(&caller.visible(http.whole().snapshot().await))))
}

/// Which cameras are asked for.
pub(super) struct CameraFilter<'a> {
    source: Option<&'a str>,
    status: Option<&'static str>,
    /// In lower case.
    search: String,
    limit: usize,
    offset: usize,
}

impl<'a> CameraFilter<'a> {
    pub(super) fn read(query: &'a CamerasQuery) -> Result<Self, Problem> {
        Ok(Self {
            source: query.source.as_deref(),
            status: query.status.as_deref().map(status_filter).transpose()?,
            search: query.search.as_deref().unwrap_or_default().to_lowercase(),
            limit: query.limit.unwrap_or(CAMERAS_MAX).min(CAMERAS_MAX),
            offset: query.offset.unwrap_or(0),
        })
    }

    pub(super) fn answer(&self, snapshot: &Snapshot) -> CamerasAnswer {
        let cameras = &snapshot.cameras;
        let matching: Vec<_> = cameras.iter().filter(|camera| self.admits(camera)).collect();
        CamerasAnswer {
            total: matching.len(),
            cameras: matching
                .into_iter()
                .skip(self.offset)
                .take(self.limit)
                .map(camera_answer)
                .collect(),
            limit: self.limit,
            offset: self.offset,
            missing_nodes: snapshot.missing_nodes.clone(),
        }
    }

    fn admits(&self, camera: &CameraSnapshot) -> bool {
        let texts = [
            camera.about.id.as_str(),
            &camera.about.name,
            &camera.about.name_ar,
            &camera.about.location,
        ];
        self.source.is_none_or(|source| camera.about.source.as_str() == source)
            && self.status.is_none_or(|status| camera.status == status)
            && texts.iter().any(|text| text.to_lowercase().contains(&self.search))
    }
}

fn status_filter(status: &str) -> Result<&'static str, Problem> {
    let known = ["ONLINE", "OFFLINE", "ERROR"];
    let found = known.into_iter().find(|known| known.eq_ignore_ascii_case(status));
    found.ok_or_else(|| Problem::bad_request("status must be ONLINE, OFFLINE or ERROR"))
}

/// `GET /api/v1/cameras/{id}`
#[utoipa::path(
    get,
    path = "/api/v1/cameras/{id}",
    tag = "cameras",
    summary = "One camera",
    params(("id" = String, Path, description = "The camera")),
    responses(
        (status = 200, description = "Its settings without credentials, and its state", body = Camera),
        (status = 404, description = "There is no such camera"),
    ),
)]
pub(super) async fn camera(
    State(http): State<Http>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Camera>, Problem> {
    let id = camera_id(&id)?;
    caller.require_camera(&http, &id, Wish::Watch).await?;
    let snapshot = caller.visible(http.whole().snapshot().await);
    let camera = snapshot.cameras.iter().find(|camera| camera.about.id == id);
    let camera = camera.ok_or_else(|| no_camera(&id))?;
    Ok(Json(camera_answer(camera)))
}

pub(super) fn camera_answer(camera: &CameraSnapshot) -> Camera {
    Camera {
        id: camera.about.id.to_string(),
        name: camera.about.name.clone(),
        name_ar: camera.about.name_ar.clone(),
        location: camera.about.location.clone(),
        source: camera.about.source.to_string(),
        origin: camera.about.origin.word(),
        url: camera.about.url.clone(),
        sub_url: camera.about.sub_url.clone(),
        has_credentials: camera.about.has_credentials,
        transport: camera.about.transport.word(),
        close_after: humantime::format_duration(camera.about.close_after).to_string(),
        has_sub: camera.about.has_sub,
        on_demand: camera.about.on_demand,
        synthetic: camera.about.synthetic,
        status: camera.status,
        state: camera.state,
        reason: camera.reason.clone(),
        retry_in_s: camera.retry_in.map(|wait| wait.as_secs()),
        probed_at: camera.probed_at.map(rfc3339),
        viewer_count: camera.viewer_count,
        active_since: camera.active_since.map(rfc3339),
        codec: camera.codec,
        width: camera.width,
        height: camera.height,
        keyframe_interval_s: camera.keyframe_interval.map(|interval| interval.as_secs_f64()),
        audio: camera.audio,
        pullers: camera.pullers,
        pulls_started: camera.pulls_started,
        renditions: camera.renditions.iter().map(rendition_answer).collect(),
        nodes: camera.nodes.iter().map(node_answer).collect(),
    }
}

fn node_answer(node: &NodeSnapshot) -> CameraNode {
    CameraNode {
        node: node.node.clone(),
        origin: node.is_origin,
        state: node.state,
        reason: node.reason.clone(),
    }
}

fn rendition_answer(rendition: &RenditionSnapshot) -> Rendition {
    Rendition {
        rendition: rendition.rendition,
        state: rendition.state,
        reason: rendition.reason.clone(),
        viewer_count: rendition.viewer_count,
        codec: rendition.codec,
        width: rendition.width,
        height: rendition.height,
        keyframe_interval_s: rendition.keyframe_interval.map(|interval| interval.as_secs_f64()),
    }
}

impl From<app::Quality> for Quality {
    fn from(quality: app::Quality) -> Self {
        match quality {
            app::Quality::Low => Self::Low,
            app::Quality::Medium => Self::Medium,
            app::Quality::High => Self::High,
            app::Quality::Auto => Self::Auto,
        }
    }
}

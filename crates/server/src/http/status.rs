//! `/health` for load balancers, `/metrics` for Prometheus and for scripts.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::Http;
use super::caller::Caller;
use super::extract::Params;
use super::problem::Problem;
use super::wire::{ClusterMetrics, HealthAnswer, MetricsAnswer, MetricsQuery, StoreAnswer};
use crate::cluster::{Cluster, ClusterFigures};
use crate::ledger::StoreHealth;
use crate::metrics;
use crate::voice::{Status, Voice};

/// `GET /health`: 503 with the reason while the server ends. It asks nobody who could be busy.
pub(super) async fn health(State(http): State<Http>) -> (StatusCode, Json<HealthAnswer>) {
    let is_running = http.app().is_running() && http.voice().is_none_or(Voice::is_running);
    let trouble = if http.is_closing() {
        Some("the server is shutting down")
    } else if is_running {
        None
    } else {
        Some("a part of the server failed; it must be started anew")
    };
    let voice = http.voice().map(Voice::status).unwrap_or_default();
    let (code, answer) = health_answer(&voice, http.app().store(), trouble, http.uptime());
    let answer = HealthAnswer { cluster: http.whole().cluster(), ..answer };
    (code, Json(answer))
}

pub(super) fn health_answer(
    voice: &Status,
    store: StoreHealth,
    trouble: Option<&'static str>,
    uptime: Duration,
) -> (StatusCode, HealthAnswer) {
    let (code, status) = match trouble {
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
        None => (StatusCode::OK, "healthy"),
    };
    let answer = HealthAnswer {
        status,
        reason: trouble,
        webrtc_available: trouble.is_none(),
        audio_server_running: trouble.is_none(),
        active_streams: voice.residue.voices,
        connected_clients: voice.residue.connections,
        uptime_seconds: uptime.as_secs(),
        store: StoreAnswer {
            available: store.away.is_none(),
            away_seconds: store.away.as_ref().map(|(_, away)| away.as_secs()),
            reason: store.away.map(|(reason, _)| reason),
            url: store.place,
        },
        cluster: None,
    };
    (code, answer)
}

/// `GET /metrics`
pub(super) async fn metrics(
    State(http): State<Http>,
    caller: Caller,
    headers: HeaderMap,
    Params(query): Params<MetricsQuery>,
) -> Result<Response, Problem> {
    // Figures are of all sources together.
    caller.require_admin()?;
    let format = Format::negotiate(query.format.as_deref(), headers.get(ACCEPT))?;
    let voice = http.voice().map(Voice::status);
    let uptime = http.uptime();
    let figures = http.app().cluster().map(Cluster::figures);
    let Some(content_type) = format.content_type() else {
        let answer = plain(&voice.unwrap_or_default(), uptime);
        let cluster = figures.map(cluster_metrics);
        return Ok(Json(MetricsAnswer { cluster, ..answer }).into_response());
    };
    let snapshot = http.app().snapshot().await;
    let text = metrics::encode(
        snapshot,
        http.requests(),
        http.outlets(),
        (http.app().store(), http.keyring().revocations().figures()),
        figures,
        voice,
        uptime,
    );
    let text = text.map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written")
    })?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(content_type))], text).into_response())
}

pub(super) fn plain(voice: &Status, uptime: Duration) -> MetricsAnswer {
    MetricsAnswer {
        uptime_seconds: uptime.as_secs(),
        active_connections: voice.residue.connections,
        active_streams: voice.residue.voices,
        total_audio_bytes: voice.audio_bytes,
        webrtc_available: true,
        cluster: None,
    }
}

fn cluster_metrics(figures: ClusterFigures) -> ClusterMetrics {
    ClusterMetrics {
        nodes: figures.nodes,
        origins: figures.origins,
        feeds_taken: figures.feeds_taken,
        origins_taken: figures.origins_taken,
        origins_lost: figures.origins_lost,
        pulls_alone: figures.alone,
        rehomings: figures.rehomings,
        registrations_lost: figures.registrations_lost,
        records_learned: figures.records_learned,
        records_refused: figures.records_refused,
        questions_answered: figures.questions_answered,
        questions_failed: figures.questions_failed,
        questions_taken: figures.questions_taken,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// Plain clients accept anything and get JSON; Prometheus says what it wants.
    fn negotiate(asked: Option<&str>, accept: Option<&HeaderValue>) -> Result<Self, Problem> {
        let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
        match asked {
            Some("prometheus") => Ok(Self::Prometheus),
            Some("openmetrics") => Ok(Self::OpenMetrics),
            Some("json") => Ok(Self::Json),
            Some(_) => Err(Problem::bad_request("format must be prometheus, openmetrics or json")),
            None if accept.contains("application/openmetrics-text") => Ok(Self::OpenMetrics),
            None if accept.contains("text/plain") => Ok(Self::Prometheus),
            None => Ok(Self::Json),
        }
    }

    fn content_type(self) -> Option<&'static str> {
        match self {
            Self::Json => None,
            Self::Prometheus => Some("text/plain; version=0.0.4; charset=utf-8"),
            Self::OpenMetrics => Some("application/openmetrics-text; version=1.0.0; charset=utf-8"),
        }
    }
}

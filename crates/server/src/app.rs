//! The running application: drives the engine, executes what it asks for, and is what HTTP calls.

use std::time::{Duration, SystemTime};

use media::ViewerId;

use crate::net::OfferError;

/// Handle to the running application; cheap to clone.
#[derive(Clone)]
pub(crate) struct App {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Quality {
    Low,
    Medium,
    High,
    #[default]
    Auto,
}

/// Answer to reserve and heartbeat, without the token (HTTP signs it).
#[derive(Debug, Clone)]
pub(crate) struct Reservation {
    pub(crate) id: control::ReservationId,
    pub(crate) camera: control::CameraId,
    pub(crate) camera_name: String,
    pub(crate) source: control::SourceId,
    pub(crate) quality: Quality,
    pub(crate) expires_at: SystemTime,
    pub(crate) current_usage: u32,
    pub(crate) limit: u32,
}

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ReserveError {
    #[error("there is no camera {0}")]
    UnknownCamera(String),
    /// 409, with the camera's own sentence.
    #[error("{0}")]
    CameraOffline(String),
    /// 429. `scope` is a SourceId or "TOTAL".
    #[error("quota of {scope} is used up: {current} of {limit}")]
    QuotaExceeded {
        scope: String,
        source_name: String,
        source_name_ar: String,
        current: u32,
        limit: u32,
        retry_after: Duration,
    },
    #[error("the server is shutting down")]
    ShuttingDown,
}

#[derive(Debug, Clone)]
pub(crate) struct Released {
    pub(crate) id: control::ReservationId,
    pub(crate) source: control::SourceId,
    pub(crate) new_count: u32,
}

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WatchError {
    #[error("there is no camera {0}")]
    UnknownCamera(String),
    #[error("the reservation has ended; reserve again")]
    ReservationEnded,
    #[error(transparent)]
    Offer(#[from] OfferError),
    #[error("the server is shutting down")]
    ShuttingDown,
}

pub(crate) struct Watching {
    /// Unguessable; the last segment of the WHEP resource URL.
    pub(crate) viewer: ViewerId,
    pub(crate) resource: String,
    pub(crate) answer_sdp: String,
    pub(crate) etag: String,
}

impl App {
    pub(crate) async fn reserve(
        &self,
        _camera: &str,
        _user: &str,
        _quality: Quality,
    ) -> Result<Reservation, ReserveError> {
        todo!()
    }
    /// `None`: unknown or already released (404).
    pub(crate) async fn release(&self, _id: &str) -> Option<Released> {
        todo!()
    }
    pub(crate) async fn heartbeat(
        &self,
        _id: &str,
        _extend: Option<Duration>,
    ) -> Option<Reservation> {
        todo!()
    }
    /// WHEP POST, after the token was verified. A second POST on one reservation replaces the first session.
    pub(crate) async fn watch(
        &self,
        _reservation: &str,
        _camera: &str,
        _offer_sdp: String,
    ) -> Result<Watching, WatchError> {
        todo!()
    }
    /// WHEP PATCH; `None`: no such session (404). Err: etag does not match (412).
    pub(crate) async fn trickle(
        &self,
        _resource: &str,
        _etag: Option<&str>,
        _fragment: String,
    ) -> Option<Result<(), ()>> {
        todo!()
    }
    /// WHEP DELETE: the lease ends at once. False: no such session.
    pub(crate) async fn end_watch(&self, _resource: &str) -> bool {
        todo!()
    }
    /// `DELETE /ingress/{id}`: stops a camera's puller; viewers stay, the puller returns with the next viewer. False: unknown.
    pub(crate) async fn stop_source(&self, _ingress: &str) -> bool {
        todo!()
    }
    /// Everything that stats, rooms, cameras, health and metrics show, at one instant.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        todo!()
    }
    pub(crate) async fn shutdown(&self) {
        todo!()
    }
}

/// The whole state at one instant, computed from the leases and the sessions.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) total_current: u32,
    pub(crate) total_limit: u32,
    pub(crate) sources: Vec<SourceSnapshot>,
    pub(crate) cameras: Vec<CameraSnapshot>,
    pub(crate) reservations: Vec<ReservationSnapshot>,
    pub(crate) started_at: SystemTime,
    pub(crate) media: crate::net::MediaFigures,
    /// Milliseconds from WHEP POST to first media, of every join since the start, in histogram buckets of `JOIN_BUCKETS_MS`.
    pub(crate) join_buckets: Vec<u64>,
    pub(crate) join_sum_ms: u64,
}
#[derive(Debug, Clone)]
pub(crate) struct SourceSnapshot {
    pub(crate) id: control::SourceId,
    pub(crate) name: String,
    pub(crate) name_ar: String,
    pub(crate) current: u32,
    pub(crate) limit: u32,
    pub(crate) active_cameras: u32,
}
#[derive(Debug, Clone)]
pub(crate) struct CameraSnapshot {
    pub(crate) id: control::CameraId,
    pub(crate) name: String,
    pub(crate) name_ar: String,
    pub(crate) location: String,
    pub(crate) source: control::SourceId,
    /// Credentials removed.
    pub(crate) url: String,
    pub(crate) has_sub: bool,
    pub(crate) on_demand: bool,
    pub(crate) synthetic: bool,
    /// "ONLINE" | "OFFLINE" | "ERROR"
    pub(crate) status: &'static str,
    /// "idle" | "connecting" | "live" | "closing" | "unreachable" | "unauthorized" | "not_found" | "no_keyframe" | "b_frames" | "unsupported_codec" | "lost" | "protocol"
    pub(crate) state: &'static str,
    /// One sentence; None when live or idle.
    pub(crate) reason: Option<String>,
    pub(crate) retry_in: Option<Duration>,
    pub(crate) viewer_count: u32,
    pub(crate) active_since: Option<SystemTime>,
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
    pub(crate) audio: Option<&'static str>,
    /// Pullers running for it now (0 or 1 a rendition) and started since the start.
    pub(crate) pullers: u32,
    pub(crate) pulls_started: u64,
}
#[derive(Debug, Clone)]
pub(crate) struct ReservationSnapshot {
    pub(crate) id: control::ReservationId,
    pub(crate) camera: control::CameraId,
    pub(crate) source: control::SourceId,
    pub(crate) user: String,
    pub(crate) created_at: SystemTime,
    pub(crate) expires_at: SystemTime,
    /// Media flows to it.
    pub(crate) connected: bool,
}

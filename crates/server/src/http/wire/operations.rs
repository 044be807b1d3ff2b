//! What the commands of operators ask and are answered.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/why/{id}`
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(in crate::http) struct WhyAnswer {
    /// As asked.
    pub(in crate::http) id: String,
    /// `camera`, `reservation` or `voice`.
    pub(in crate::http) kind: String,
    /// Nothing is in the way.
    pub(in crate::http) well: bool,
    pub(in crate::http) sentence: String,
    pub(in crate::http) remedy: Option<String>,
    /// From the first to the last step.
    pub(in crate::http) ladder: Vec<WhyRung>,
    /// Who watches; of a camera alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::http) viewers: Option<Vec<WhyViewer>>,
    /// The node that a reservation's viewer watches at; of a cluster alone, as what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::http) node: Option<String>,
    /// The node that pulls the camera; null where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::http) origin: Option<String>,
    /// The camera at each node that said so; of a camera alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::http) nodes: Vec<WhyNode>,
    /// A sentence for each node that did not say what it knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::http) unanswered: Vec<String>,
}

/// A camera as one node sees it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(in crate::http) struct WhyNode {
    pub(in crate::http) node: String,
    /// As of the camera.
    pub(in crate::http) state: String,
    /// One sentence; null where it is well.
    pub(in crate::http) reason: Option<String>,
}

/// One step to a picture or a sound.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(in crate::http) struct WhyRung {
    pub(in crate::http) rung: String,
    /// `done`, `failed`, `waiting`, `ahead` or `unseen`.
    pub(in crate::http) state: String,
    pub(in crate::http) detail: String,
}

/// One who watches a camera.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(in crate::http) struct WhyViewer {
    pub(in crate::http) reservation_id: String,
    pub(in crate::http) user_id: String,
    /// How far it has come, in words.
    pub(in crate::http) stage: String,
    /// Where it watches; of a cluster alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::http) node: Option<String>,
}

/// `POST /api/v1/reset`: exactly one of both.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(in crate::http) struct ResetRequest {
    #[serde(default)]
    pub(in crate::http) camera_id: Option<String>,
    #[serde(default)]
    pub(in crate::http) all: bool,
}

/// What was ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct ResetAnswer {
    pub(in crate::http) reservations_ended: Vec<String>,
    /// Cameras whose pullers were stopped.
    pub(in crate::http) pullers_stopped: Vec<String>,
    /// Live reservations that are left: of the camera, or in all.
    pub(in crate::http) reservations_left: usize,
    /// Pullers that are left at the asked node.
    pub(in crate::http) pullers_left: u32,
    /// A sentence for each node whose part is not known to have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::http) unanswered: Vec<String>,
}

/// `GET /api/v1/bundle`: what only the server itself knows. Nothing of it is secret: there is no field that a
/// secret could be in.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct BundleAnswer {
    pub(in crate::http) version: &'static str,
    pub(in crate::http) uptime_seconds: u64,
    pub(in crate::http) settings: SettingsView,
    /// The newest lines of the log, oldest first.
    pub(in crate::http) log: Vec<String>,
}

/// The settings without secrets: of a secret there is only whether there is one.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(crate) struct SettingsView {
    pub(in crate::http) listen: Vec<String>,
    pub(in crate::http) audio_listen: Option<String>,
    pub(in crate::http) https: Option<String>,
    /// `local` or `files`.
    pub(in crate::http) certificates: &'static str,
    pub(in crate::http) allowed_origins: Vec<String>,
    pub(in crate::http) livekit_url_set: bool,
    pub(in crate::http) media: MediaView,
    pub(in crate::http) rtsp_listen: Option<String>,
    pub(in crate::http) rtsp_users: usize,
    pub(in crate::http) voice: VoiceView,
    pub(in crate::http) auth: AuthView,
    /// Without user and password.
    pub(in crate::http) store: String,
    pub(in crate::http) quota_unit: String,
    pub(in crate::http) quota_total: u32,
    pub(in crate::http) sources: Vec<SourceView>,
    pub(in crate::http) cameras: Vec<CameraView>,
    pub(in crate::http) log_format: String,
    pub(in crate::http) log_level: String,
}

#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct MediaView {
    pub(in crate::http) udp: String,
    pub(in crate::http) tcp: Option<String>,
    pub(in crate::http) advertise: Vec<String>,
    pub(in crate::http) workers: Option<u32>,
    pub(in crate::http) priority: String,
    /// STUN and TURN servers, each by its addresses.
    pub(in crate::http) ice_servers: Vec<Vec<String>>,
    pub(in crate::http) turn: Vec<Vec<String>>,
}

#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct VoiceView {
    pub(in crate::http) enabled: bool,
    pub(in crate::http) token_set: bool,
    pub(in crate::http) allowed_origins: Vec<String>,
    pub(in crate::http) max_connections: u32,
    pub(in crate::http) queue_size: u32,
    pub(in crate::http) connection_timeout_seconds: u64,
    pub(in crate::http) levels: String,
    pub(in crate::http) sample_rate: u32,
    pub(in crate::http) channels: u8,
}

#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct AuthView {
    /// `open` or `keys`.
    pub(in crate::http) mode: &'static str,
    pub(in crate::http) keys: usize,
    pub(in crate::http) token_ttl_seconds: u64,
}

#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct SourceView {
    pub(in crate::http) id: String,
    pub(in crate::http) name: String,
    pub(in crate::http) limit: u32,
}

#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct CameraView {
    pub(in crate::http) id: String,
    pub(in crate::http) source: String,
    pub(in crate::http) main: UrlView,
    pub(in crate::http) sub: Option<UrlView>,
    pub(in crate::http) transport: &'static str,
    pub(in crate::http) on_demand: bool,
    pub(in crate::http) close_after_ms: u64,
}

/// Where a camera is. Its path is left out: some cameras have their password in it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct UrlView {
    pub(in crate::http) scheme: &'static str,
    pub(in crate::http) host: Option<String>,
    pub(in crate::http) port: Option<u16>,
    pub(in crate::http) credentials: bool,
}

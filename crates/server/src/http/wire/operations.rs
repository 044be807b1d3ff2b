//! What the commands of operators ask and are answered.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/why/{id}`
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct WhyAnswer {
    /// As asked.
    pub(in crate::http) id: String,
    /// `camera`, `reservation` or `voice`.
    pub(in crate::http) kind: &'static str,
    /// Nothing is in the way.
    pub(in crate::http) well: bool,
    pub(in crate::http) sentence: String,
    pub(in crate::http) remedy: Option<String>,
    /// From the first to the last step.
    pub(in crate::http) ladder: Vec<WhyRung>,
    /// Who watches; of a camera alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) viewers: Option<Vec<WhyViewer>>,
}

/// One step to a picture or a sound.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct WhyRung {
    pub(in crate::http) rung: &'static str,
    /// `done`, `failed`, `waiting`, `ahead` or `unseen`.
    pub(in crate::http) state: &'static str,
    pub(in crate::http) detail: String,
}

/// One who watches a camera.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct WhyViewer {
    pub(in crate::http) reservation_id: String,
    pub(in crate::http) user_id: String,
    /// How far it has come, in words.
    pub(in crate::http) stage: &'static str,
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
    /// Pullers that are left.
    pub(in crate::http) pullers_left: u32,
}

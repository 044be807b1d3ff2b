//! The park and the walls, as they are changed over the API.

use serde::{Deserialize, Serialize};

/// What cameras are written as. The body is read by the rules of the settings file; this only describes it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = CameraSettings)]
pub(in crate::http) struct CameraRequest {
    /// Letters, digits, `-` and `_`. Of a PUT it may be left out.
    pub(in crate::http) id: String,
    pub(in crate::http) name: Option<String>,
    pub(in crate::http) name_ar: Option<String>,
    pub(in crate::http) location: Option<String>,
    pub(in crate::http) source: String,
    /// `rtsp://user:password@host/path`, `whip://<stream key>` or `test://`.
    #[schema(write_only)]
    pub(in crate::http) url: String,
    pub(in crate::http) sub_url: Option<String>,
    /// `tcp` or `udp`.
    pub(in crate::http) transport: Option<String>,
    pub(in crate::http) on_demand: Option<bool>,
    /// As `5s`.
    pub(in crate::http) close_after: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct DeletedCamera {
    pub(in crate::http) camera_id: String,
    pub(in crate::http) deleted: bool,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct ImportQuery {
    /// What becomes of a camera that is there already: `refuse` (a problem, where left out) or `change`.
    pub(in crate::http) existing: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct ImportAnswer {
    pub(in crate::http) added: usize,
    pub(in crate::http) changed: usize,
}

/// One thing that is wrong with what was sent.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct RowProblem {
    /// In a table as spreadsheets count; in a list from 1.
    pub(in crate::http) row: usize,
    /// The setting; empty where the row as a whole is meant.
    pub(in crate::http) key: String,
    pub(in crate::http) sentence: String,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct LayoutRequest {
    pub(in crate::http) name: Option<String>,
    pub(in crate::http) tiles: Option<Vec<TileBody>>,
    /// Told in answers; not read.
    #[serde(default, rename = "id")]
    _id: Option<String>,
    /// Told in answers; not read.
    #[serde(default, rename = "owner")]
    _owner: Option<String>,
    /// Told in answers; not read.
    #[serde(default, rename = "changed_at")]
    _changed_at: Option<String>,
}

/// A camera on a wall, in cells of its grid.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct TileBody {
    pub(in crate::http) camera_id: String,
    /// Of the left column, from 0.
    pub(in crate::http) x: Option<u16>,
    /// Of the top row, from 0.
    pub(in crate::http) y: Option<u16>,
    /// 1 where left out.
    pub(in crate::http) width: Option<u16>,
    /// 1 where left out.
    pub(in crate::http) height: Option<u16>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct LayoutAnswer {
    pub(in crate::http) id: String,
    pub(in crate::http) name: String,
    pub(in crate::http) owner: String,
    pub(in crate::http) tiles: Vec<TileBody>,
    pub(in crate::http) changed_at: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct LayoutsAnswer {
    pub(in crate::http) layouts: Vec<LayoutAnswer>,
}

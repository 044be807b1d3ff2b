//! What a token holds as JSON.

use serde::{Deserialize, Serialize};

/// Claims of an access token in LiveKit's format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// Id of the key that signed.
    pub(super) iss: String,
    /// The participant's identity, `viewer_<reservation_id>` for viewers.
    #[serde(default)]
    pub(super) sub: String,
    /// Seconds since the Unix epoch; the token is worthless from then on.
    pub(super) exp: u64,
    /// Seconds since the Unix epoch; the token is worthless until then.
    #[serde(default)]
    pub(super) nbf: u64,
    /// Makes two tokens of one second distinguishable.
    #[serde(default)]
    pub(super) jti: String,
    #[serde(default)]
    pub(super) video: VideoGrant,
}

/// What a token allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct VideoGrant {
    pub(super) room_join: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) room: String,
    /// LiveKit takes a missing value for yes.
    pub(super) can_subscribe: Option<bool>,
    pub(super) can_publish: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) room_admin: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) room_create: bool,
}

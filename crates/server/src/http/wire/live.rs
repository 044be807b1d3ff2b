//! `/ws/stream/stats`: what a dashboard is told as it happens.

use serde::{Deserialize, Serialize};

use super::StatsAnswer;

/// One message to the client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::http) struct Told {
    #[serde(flatten)]
    pub(in crate::http) news: News,
    /// RFC 3339.
    pub(in crate::http) timestamp: String,
}

/// What it tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", content = "data", rename_all = "SCREAMING_SNAKE_CASE")]
pub(in crate::http) enum News {
    StreamStats(Box<StatsAnswer>),
    CameraStatus(CameraStatus),
    AgencyLimitUpdate(AgencyLimit),
    Alert(Alert),
    /// To `RENEW`.
    Token(RenewedToken),
    /// What the client sent cannot be done.
    Error(LiveError),
}

/// A camera that is in another state than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::http) struct CameraStatus {
    pub(in crate::http) camera_id: String,
    pub(in crate::http) camera_name: String,
    pub(in crate::http) source: String,
    /// `ONLINE`, `OFFLINE`, `ERROR`, or `REMOVED` where there is no such camera any more.
    pub(in crate::http) status: &'static str,
    /// As in `GET /api/v1/cameras`; empty where it is removed.
    pub(in crate::http) state: &'static str,
    pub(in crate::http) reason: Option<String>,
}

/// A source whose limit changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::http) struct AgencyLimit {
    pub(in crate::http) source: String,
    pub(in crate::http) current: u32,
    pub(in crate::http) limit: u32,
    pub(in crate::http) previous_limit: u32,
    pub(in crate::http) available: u32,
}

/// Something that somebody should look at, or that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::http) struct Alert {
    /// `QUOTA_FULL`, `CAMERA_ERROR`, `STORE_LOST` or `NODE_MISSING`.
    pub(in crate::http) code: &'static str,
    /// False: it is over.
    pub(in crate::http) active: bool,
    /// The source's id, or `TOTAL`; of quotas and cameras.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) camera_id: Option<String>,
    /// The node that is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) node: Option<String>,
    pub(in crate::http) message_en: String,
    pub(in crate::http) message_ar: String,
}

/// A fresh token for one that held.
#[derive(Clone, PartialEq, Serialize)]
pub(in crate::http) struct RenewedToken {
    pub(in crate::http) token: String,
    /// RFC 3339.
    pub(in crate::http) expires_at: String,
}

/// Without the token, which is a secret.
impl std::fmt::Debug for RenewedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RenewedToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::http) struct LiveError {
    pub(in crate::http) message: String,
}

/// One message from the client. No `Debug`, for the token is a secret.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub(in crate::http) enum Said {
    /// A fresh token for this one, which still holds.
    Renew { token: String },
}

/// Query of `/ws/stream/stats`: browsers cannot give a WebSocket a header.
#[derive(Default, Deserialize)]
pub(in crate::http) struct LiveQuery {
    pub(in crate::http) token: Option<String>,
    /// Which page this is, as it names itself with its reservations.
    pub(in crate::http) page: Option<String>,
}

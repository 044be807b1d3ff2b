//! Sources, their limits, and what is said where one is reached.

use serde::{Deserialize, Deserializer, Serialize};

/// The body of 429, in the shape that dashboards of the original system read.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct QuotaAnswer {
    pub(in crate::http) error: QuotaError,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct QuotaError {
    /// `RATE_LIMIT_EXCEEDED`
    pub(in crate::http) code: &'static str,
    pub(in crate::http) message_en: String,
    pub(in crate::http) message_ar: String,
    /// What the limit is of: a source's id, `TOTAL` or `USER`.
    pub(in crate::http) source: String,
    /// Units in use.
    pub(in crate::http) current: u32,
    pub(in crate::http) limit: u32,
    /// Seconds until there is room, if nobody leaves before and nobody is heard of any more.
    pub(in crate::http) retry_after: u64,
}

/// `GET /api/v1/sources`
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct SourcesAnswer {
    /// What counts 1: `viewer` or `camera`.
    pub(in crate::http) unit: &'static str,
    /// What one user may use over all sources; null where that is not limited.
    pub(in crate::http) per_user: Option<u32>,
    pub(in crate::http) total: super::Usage,
    /// In the order of the configuration.
    pub(in crate::http) sources: Vec<SourceAnswer>,
}

/// An agency and its quota.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct SourceAnswer {
    pub(in crate::http) id: String,
    pub(in crate::http) name: String,
    pub(in crate::http) name_ar: String,
    pub(in crate::http) current: u32,
    /// The limit that holds.
    pub(in crate::http) limit: u32,
    /// The limit of the configuration.
    pub(in crate::http) configured_limit: u32,
    pub(in crate::http) available: u32,
    pub(in crate::http) usage_percent: f64,
    /// Its cameras that are being watched.
    pub(in crate::http) active_cameras: u32,
}

/// `PUT /api/v1/sources/{id}/limit`
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(in crate::http) struct LimitRequest {
    /// In units of the quota; null for the configured one.
    #[serde(deserialize_with = "must_be_there")]
    pub(in crate::http) limit: Option<u32>,
}

/// A forgotten member must not take a limit back.
fn must_be_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Option::deserialize(deserializer)
}

/// The limit as it is from here on.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct LimitAnswer {
    pub(in crate::http) source: String,
    pub(in crate::http) current: u32,
    pub(in crate::http) limit: u32,
    pub(in crate::http) available: u32,
}

//! Lives of reservations and rows of the audit trail.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/trace/{id}`
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(in crate::http) struct TraceAnswer {
    pub(in crate::http) reservation_id: String,
    pub(in crate::http) camera_id: String,
    /// Null where it was never granted.
    pub(in crate::http) source: Option<String>,
    pub(in crate::http) user_id: String,
    /// `asked`, `refused`, `granted`, `ended`, or `cut`: the server was killed while it lived.
    pub(in crate::http) state: String,
    /// When it was asked for, RFC 3339.
    pub(in crate::http) began: String,
    /// When it was refused or ended; null while it lives.
    pub(in crate::http) ended: Option<String>,
    /// From the one to the other; to the present while it lives.
    pub(in crate::http) duration_ms: u64,
    /// Why it was refused or ended.
    pub(in crate::http) reason: Option<String>,
    /// The stream that it watches or last watched: `main` or `sub`. Null where it is not known.
    pub(in crate::http) rendition: Option<String>,
    /// RTP packets that its viewer was sent, without repeats.
    pub(in crate::http) packets_sent: u64,
    /// Bytes of media in them, as `bytesReceived` of WebRTC's statistics counts.
    pub(in crate::http) bytes_sent: u64,
    /// Frames that the page says it has decoded; null where it does not say.
    pub(in crate::http) frames_decoded: Option<u64>,
    /// When its newest token expires; null where it is not known.
    pub(in crate::http) token_expires: Option<String>,
    pub(in crate::http) token_renewals: Option<u32>,
    /// What happened, the first first.
    pub(in crate::http) steps: Vec<TraceStep>,
    /// Steps that were left out in the middle of `steps`.
    pub(in crate::http) steps_omitted: u64,
    /// Where this was found: `memory` or `audit`.
    pub(in crate::http) found_in: String,
    /// The node that its viewer watches or watched at; of a cluster alone, as what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::http) node: Option<String>,
    /// The node that pulls its camera; null where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::http) origin: Option<String>,
    /// A sentence for each node that did not say what it knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::http) unanswered: Vec<String>,
}

/// One step of a reservation's life.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(in crate::http) struct TraceStep {
    pub(in crate::http) at: String,
    /// Since it was asked for.
    pub(in crate::http) after_ms: u64,
    /// For programs.
    pub(in crate::http) step: String,
    /// For people.
    pub(in crate::http) detail: String,
    /// Where it happened; of a cluster alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::http) node: Option<String>,
}

/// Query of `GET /api/v1/audit`.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct AuditParams {
    /// Of this camera.
    pub(in crate::http) camera: Option<String>,
    /// Of this user, or by this caller.
    pub(in crate::http) user: Option<String>,
    /// Of this source.
    pub(in crate::http) source: Option<String>,
    /// Of these kinds, with commas between: `watch_begun`, `watch_ended`, `watch_refused`, `watch_cut`,
    /// `changed`, `server_started`, `server_stopped`, `rows_lost`, `checkpoint`.
    pub(in crate::http) kind: Option<String>,
    /// What happened then or later: RFC 3339, or a date.
    pub(in crate::http) from: Option<String>,
    /// What happened before.
    pub(in crate::http) to: Option<String>,
    /// Rows in the answer, 1000 where it is left out, 10000 at most.
    pub(in crate::http) limit: Option<usize>,
    /// Rows after this number.
    pub(in crate::http) after: Option<u64>,
    /// `json` or `csv`, as `Accept` otherwise says.
    pub(in crate::http) format: Option<String>,
}

/// `GET /api/v1/audit`
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct AuditAnswer {
    /// The oldest first.
    pub(in crate::http) rows: Vec<AuditRow>,
    /// There may be more: ask again with `after` set to this.
    pub(in crate::http) next_after: Option<u64>,
}

/// A row of the audit trail. What does not concern its kind is empty or null.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct AuditRow {
    /// From 1, without gaps.
    pub(in crate::http) number: u64,
    /// When it was written.
    pub(in crate::http) at: String,
    pub(in crate::http) kind: &'static str,
    /// Who.
    pub(in crate::http) actor: String,
    /// Did what.
    pub(in crate::http) action: String,
    /// To what.
    pub(in crate::http) object: String,
    pub(in crate::http) camera_id: String,
    pub(in crate::http) source: String,
    pub(in crate::http) reservation_id: String,
    /// Watched from then on.
    pub(in crate::http) from: Option<String>,
    /// Until then.
    pub(in crate::http) to: Option<String>,
    pub(in crate::http) packets_sent: u64,
    pub(in crate::http) bytes_sent: u64,
    pub(in crate::http) reason: String,
    /// Rows that were lost or removed, of the kinds that tell so.
    pub(in crate::http) count: u64,
    /// The chain's hash, in hexadecimal digits.
    pub(in crate::http) hash: String,
}

/// Query of `GET /api/v1/audit/verify`.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct VerifyParams {
    /// A row that was noted before: `number:hash`, as in `head`.
    pub(in crate::http) head: Option<String>,
}

/// `GET /api/v1/audit/verify`
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct VerifyAnswer {
    pub(in crate::http) whole: bool,
    /// Rows that are there; null where the trail is not whole.
    pub(in crate::http) rows: Option<u64>,
    /// Rows that were removed since they were too old.
    pub(in crate::http) removed: Option<u64>,
    /// The newest row and its hash. Noted elsewhere, it shows later that nothing before it was changed.
    pub(in crate::http) head: Option<String>,
    /// The first row that is not as it was written.
    pub(in crate::http) broken_at: Option<u64>,
    /// What is wrong with it.
    pub(in crate::http) why: Option<String>,
}

//! What nodes of a cluster ask each other, and what they answer.
//!
//! A new question is a variant of [`Question`], and a type with the type of its answer ([`NodeQuestion`]). A
//! node of another version that does not know it counts as one that did not answer.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::audit::{TraceAnswer, TraceStep};
use super::operations::WhyAnswer;
use super::{HeartbeatAnswer, HeartbeatRequest};
use crate::config::StoredStamp;

/// `POST /node/ask`. No `Debug`, for tokens are in it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub(in crate::http) enum Question {
    Holder(HolderQuestion),
    Ending(EndingQuestion),
    Heartbeat(HeartbeatQuestion),
    Renew(RenewQuestion),
    Remove(RemoveQuestion),
    State(StateQuestion),
    Trace(TraceQuestion),
    Why(WhyQuestion),
    Camera(CameraQuestion),
    Whep(WhepQuestion),
    Whip(WhipQuestion),
    StopIngress(StopIngressQuestion),
    Reset(ResetQuestion),
    Changes(ChangesQuestion),
    Records(RecordsQuestion),
}

/// A question with its answer.
pub(in crate::http) trait NodeQuestion: Into<Question> + Send {
    /// What the asked node says.
    type Answer: DeserializeOwned + Serialize + Send;
}

impl Question {
    /// As it is sent.
    pub(in crate::http) fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// What came of something that the one node is to do that has the session.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum Act<T> {
    /// It is another node's.
    NotHere,
    Done(T),
    Refused(Refusal),
}

/// A problem, for the caller of the node that asked.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::http) struct Refusal {
    pub(in crate::http) status: u16,
    pub(in crate::http) detail: String,
    pub(in crate::http) code: Option<String>,
}

/// Whose a reservation is, if the asked node has its session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct HolderQuestion {
    pub(in crate::http) reservation_id: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct HolderAnswer {
    pub(in crate::http) user_id: String,
    pub(in crate::http) camera_id: String,
    pub(in crate::http) source: String,
}

/// How a reservation ended, if the asked node had its session a short while ago.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct EndingQuestion {
    pub(in crate::http) reservation_id: String,
}

/// A heartbeat that came to another node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct HeartbeatQuestion {
    pub(in crate::http) reservation_id: String,
    pub(in crate::http) request: HeartbeatRequest,
}

/// A fresh token for the viewer of a reservation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct RenewQuestion {
    pub(in crate::http) reservation_id: String,
}

/// No `Debug`, for the token is a secret.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::http) struct FreshToken {
    pub(in crate::http) token: String,
    /// RFC 3339.
    pub(in crate::http) expires_at: String,
}

/// A viewer is sent away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct RemoveQuestion {
    pub(in crate::http) reservation_id: String,
    /// By whom.
    pub(in crate::http) by: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct RemovedViewer {
    pub(in crate::http) source: String,
    pub(in crate::http) new_count: u32,
}

/// How the asked node's cameras are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct StateQuestion {}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct StateAnswer {
    /// Without those of which there is nothing to say: idle, and never pulled.
    pub(in crate::http) cameras: Vec<CameraState>,
    /// Reservations to whose viewers media flows.
    pub(in crate::http) connected: Vec<String>,
}

/// A camera at the asked node. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct CameraState {
    pub(in crate::http) id: String,
    pub(in crate::http) is_origin: bool,
    pub(in crate::http) status: String,
    pub(in crate::http) retry_in_ms: Option<u64>,
    pub(in crate::http) probed_at: Option<u64>,
    pub(in crate::http) active_since: Option<u64>,
    pub(in crate::http) audio: Option<String>,
    pub(in crate::http) pullers: u32,
    pub(in crate::http) pulls_started: u64,
    /// Of the whole camera.
    pub(in crate::http) picture: PictureState,
    /// Of each of its streams.
    pub(in crate::http) renditions: Vec<RenditionState>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct RenditionState {
    /// `main` or `sub`.
    pub(in crate::http) rendition: String,
    pub(in crate::http) viewer_count: u32,
    pub(in crate::http) picture: PictureState,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct PictureState {
    pub(in crate::http) state: String,
    pub(in crate::http) reason: Option<String>,
    pub(in crate::http) codec: Option<String>,
    pub(in crate::http) width: Option<u32>,
    pub(in crate::http) height: Option<u32>,
    pub(in crate::http) keyframe_interval_ms: Option<u64>,
}

/// What the asked node knows of a reservation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct TraceQuestion {
    pub(in crate::http) reservation_id: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::http) struct TracePart {
    /// Its life, where it was asked for at the asked node.
    pub(in crate::http) life: Option<TraceAnswer>,
    /// What else the asked node had to do with it.
    pub(in crate::http) steps: Vec<TraceStep>,
}

/// Why a viewer of the asked node sees something or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct WhyQuestion {
    pub(in crate::http) reservation_id: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct WhyFound {
    pub(in crate::http) user_id: String,
    pub(in crate::http) camera_id: String,
    /// Null where it was never granted.
    pub(in crate::http) source: Option<String>,
    pub(in crate::http) answer: WhyAnswer,
}

/// How a camera is at the asked node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct CameraQuestion {
    pub(in crate::http) camera_id: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct CameraHere {
    pub(in crate::http) state: String,
    pub(in crate::http) reason: Option<String>,
    /// How far its viewers there have come, in words, by reservation.
    pub(in crate::http) stages: BTreeMap<String, String>,
}

/// What a viewer asked of a session by WHEP. No `Debug`, for the token is a secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(in crate::http) enum WhepQuestion {
    Offer { token: String, camera_id: String, offer: String },
    Trickle { resource: String, tag: Option<String>, fragment: String },
    Restart { resource: String, fragment: String },
    End { resource: String },
}

/// What a publisher asked of a session by WHIP. No `Debug`, for a session's name lets whoever knows it end it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(in crate::http) enum WhipQuestion {
    Trickle { resource: String, tag: Option<String> },
    Restart { resource: String, fragment: String },
    End { resource: String },
}

/// The answer, which goes to the viewer or publisher as it is.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::http) struct Passed {
    pub(in crate::http) status: u16,
    pub(in crate::http) headers: Vec<(String, String)>,
    pub(in crate::http) body: String,
}

/// The puller of a camera is to be stopped. The answer: whether the asked node had one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct StopIngressQuestion {
    pub(in crate::http) ingress_id: String,
}

/// The end of all reservations and pullers of a camera, or of all. The node that a person asked has decided
/// that he may.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct ResetQuestion {
    /// `None`: all.
    pub(in crate::http) camera_id: Option<String>,
}

/// What was ended at the asked node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct ResetPart {
    pub(in crate::http) reservations: Vec<String>,
    /// Cameras whose pullers were stopped.
    pub(in crate::http) cameras: Vec<String>,
}

/// What is the same at all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum RecordKind {
    Cameras,
    Layouts,
}

/// What was written after a place in the asked node's order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct ChangesQuestion {
    pub(in crate::http) kind: RecordKind,
    /// The process to whose order the place belongs; empty at first.
    pub(in crate::http) epoch: String,
    pub(in crate::http) place: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct ChangesAnswer {
    pub(in crate::http) epoch: String,
    /// Where the next question goes on.
    pub(in crate::http) place: u64,
    /// By the records' ids. Empty: there is no more.
    pub(in crate::http) stamps: Vec<(String, StoredStamp)>,
}

/// The asked node's last writes of these records.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct RecordsQuestion {
    pub(in crate::http) kind: RecordKind,
    pub(in crate::http) ids: Vec<String>,
}

/// Nothing in it is secret: what is, is sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::http) struct RecordsAnswer {
    /// The id of the key for tokens that it is sealed with, too.
    pub(in crate::http) key: Option<String>,
    /// [`CarriedRecords`](crate::config::CarriedRecords).
    pub(in crate::http) sealed: String,
}

/// Ties questions to their variants and to their answers.
macro_rules! questions {
    ($($variant:ident($question:ty) -> $answer:ty;)*) => {$(
        impl NodeQuestion for $question {
            type Answer = $answer;
        }

        impl From<$question> for Question {
            fn from(question: $question) -> Self {
                Self::$variant(question)
            }
        }
    )*};
}

questions! {
    Holder(HolderQuestion) -> Option<HolderAnswer>;
    Ending(EndingQuestion) -> Option<Refusal>;
    Heartbeat(HeartbeatQuestion) -> Act<HeartbeatAnswer>;
    Renew(RenewQuestion) -> Act<FreshToken>;
    Remove(RemoveQuestion) -> Act<RemovedViewer>;
    State(StateQuestion) -> StateAnswer;
    Trace(TraceQuestion) -> TracePart;
    Why(WhyQuestion) -> Option<WhyFound>;
    Camera(CameraQuestion) -> Option<CameraHere>;
    Whep(WhepQuestion) -> Act<Passed>;
    Whip(WhipQuestion) -> Act<Passed>;
    StopIngress(StopIngressQuestion) -> bool;
    Reset(ResetQuestion) -> ResetPart;
    Changes(ChangesQuestion) -> ChangesAnswer;
    Records(RecordsQuestion) -> RecordsAnswer;
}

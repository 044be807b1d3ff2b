//! What nodes of a cluster ask each other, and what they answer.
//!
//! A new question is a variant of [`Question`], and a type with the type of its answer ([`NodeQuestion`]). A
//! node of another version that does not know it counts as one that did not answer.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// `POST /node/ask`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub(in crate::http) enum Question {
    Holder(HolderQuestion),
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

impl NodeQuestion for HolderQuestion {
    /// `None`: the asked node does not have it.
    type Answer = Option<HolderAnswer>;
}

impl From<HolderQuestion> for Question {
    fn from(question: HolderQuestion) -> Self {
        Self::Holder(question)
    }
}

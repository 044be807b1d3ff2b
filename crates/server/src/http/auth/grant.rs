//! What a token that holds is good for.

use control::ReservationId;

use super::super::wire::Claims;
use super::{GrantError, time};
use crate::app::{KeyNumber, Permit};

/// What a verified token allows.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(super) claims: Claims,
    pub(super) key: KeyNumber,
}

impl Grant {
    /// The reservation, if the token lets its holder watch in `room`.
    pub(crate) fn viewer_of(&self, room: &str) -> Result<ReservationId, GrantError> {
        let video = &self.claims.video;
        if video.room != room {
            return Err(GrantError::OtherRoom { room: room.to_owned() });
        }
        let id = self.claims.sub.strip_prefix("viewer_");
        let id = id.and_then(|id| ReservationId::parse(id).ok()).ok_or(GrantError::NotAViewer)?;
        let may_watch = video.room_join && video.can_subscribe != Some(false);
        if may_watch { Ok(id) } else { Err(GrantError::NotAViewer) }
    }

    /// How long it lets its holder watch.
    pub(crate) fn permit(&self) -> Permit {
        Permit { until: time(self.claims.exp), key: self.key }
    }

    /// Whom the token was made for.
    pub(crate) fn subject(&self) -> &str {
        &self.claims.sub
    }

    /// The room that its holder may join; empty where none is named.
    pub(crate) fn room(&self) -> &str {
        let video = &self.claims.video;
        if video.room_join && video.can_subscribe != Some(false) { &video.room } else { "" }
    }

    /// Whether it is for the viewer of a reservation, rather than for a person or a program.
    pub(crate) fn is_viewers(&self) -> bool {
        self.claims.sub.starts_with("viewer_")
    }

    /// The reservation that it is for, if it is a viewer's of one.
    pub(crate) fn reservation(&self) -> Option<ReservationId> {
        ReservationId::parse(self.claims.sub.strip_prefix("viewer_")?).ok()
    }

    /// One of LiveKit's `attributes`, if it is there. `Err` where it is no text: half a sentence.
    pub(crate) fn attribute(&self, name: &str) -> Result<Option<&str>, String> {
        match self.claims.attributes.get(name) {
            None => Ok(None),
            Some(serde_json::Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{name} must be a text")),
        }
    }

    /// Whether the token may call the API.
    pub(crate) fn admin(&self) -> Result<(), GrantError> {
        let video = &self.claims.video;
        if video.room_admin || video.room_create { Ok(()) } else { Err(GrantError::NotAnAdmin) }
    }
}

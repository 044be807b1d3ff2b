//! Reservations: a viewer's lease on a camera.

use crate::ids::{CameraId, ReservationId, SourceId};
use crate::time::Timestamp;

/// Which rendition a viewer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Quality {
    /// The sub stream, where the camera has one.
    Low,
    /// The main stream.
    Medium,
    /// The main stream.
    High,
    /// The main stream.
    #[default]
    Auto,
}

/// How much a reservation matters: one of a higher class may take the place of one of a lower class
/// where a quota is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Class(u8);

impl Class {
    /// Nobody gives way to it.
    pub const LOWEST: Self = Self(0);
    /// It gives way to nobody.
    pub const HIGHEST: Self = Self(9);

    /// A class of 0 to 9; `None` beyond.
    pub const fn new(class: u8) -> Option<Self> {
        if class <= Self::HIGHEST.0 { Some(Self(class)) } else { None }
    }

    /// As a number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// What a viewer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Chosen by the caller, at random.
    pub id: ReservationId,
    /// The camera to watch.
    pub camera: CameraId,
    /// The camera's source, whose quota is used.
    pub source: SourceId,
    /// Who asks, as the caller names him. Not unique: one user may watch often.
    pub user: String,
    /// The rendition.
    pub quality: Quality,
    /// How much it matters, beside others that want the same place.
    pub class: Class,
}

/// What keeps a lease alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// No media flowed yet: the start and the heartbeats count.
    Heartbeat,
    /// Media flowed: only the viewer's packets count.
    Media {
        /// When the last of them came.
        last_packet: Timestamp,
    },
}

/// A reservation that was granted. It lives while the time is before `expires_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What was granted.
    pub reservation: Reservation,
    /// When it was granted.
    pub created_at: Timestamp,
    /// The first millisecond in which it lives no more.
    pub expires_at: Timestamp,
    /// What keeps it alive.
    pub basis: Basis,
}

impl Lease {
    /// The reservation's id.
    pub const fn id(&self) -> &ReservationId {
        &self.reservation.id
    }

    /// When it was last used: its viewer's last packet, or the time at which it was granted while no
    /// media flowed. Heartbeats of a page without a picture are no use.
    pub const fn last_used(&self) -> Timestamp {
        match self.basis {
            Basis::Heartbeat => self.created_at,
            Basis::Media { last_packet } => last_packet,
        }
    }

    /// Whether the lease lives at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }
}

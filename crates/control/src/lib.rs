//! Who may watch what: sources, cameras, reservations, quotas and the ledger. No IO, no clock, no RTP.

pub mod ids;

pub use ids::{CameraId, ReservationId, SourceId};

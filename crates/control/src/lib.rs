//! Who may watch what: sources, cameras, reservations, quotas and the ledger. No IO, no clock, no RTP.

pub mod camera;
pub mod ids;
pub mod source;
pub mod time;

pub use camera::Camera;
pub use ids::{CameraId, IdError, ReservationId, SourceId};
pub use source::Source;
pub use time::Timestamp;

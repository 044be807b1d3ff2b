//! Who may watch what: sources, cameras, reservations, quotas and the ledger. No IO, no clock, no RTP.
//!
//! The truth is the set of leases that a ledger holds ([`ledger`]). Everything that is counted is
//! counted from it. The caller brings the time and the randomness.

pub mod ids;
pub mod time;

pub mod camera;
pub mod source;

pub mod quota;
pub mod reservation;

pub mod policy;

pub mod ledger;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use camera::Camera;
pub use ids::{CameraId, IdError, ReservationId, SourceId};
pub use ledger::{Answer, EndCause, EndedLease, LedgerOp, MAX_LEASES, MemoryLedger, Outcome};
pub use policy::Policy;
pub use quota::{Exceeded, Quota, Scope, Unit, Usage};
pub use reservation::{Basis, Class, Lease, Quality, Reservation};
pub use source::Source;
pub use time::Timestamp;

//! How long a lease lives.
//!
//! The rules, of which the last that applies holds:
//! 1. A new lease lives [`Policy::initial`].
//! 2. While its media never flowed, a heartbeat makes it live [`Policy::heartbeat`] from then on, or
//!    the shorter time that the heartbeat asks for. A heartbeat never shortens a lease.
//! 3. Once its media flowed, it lives [`Policy::media_silence`] after the viewer's last packet, and
//!    heartbeats change nothing: a page that keeps calling while its picture is dead holds no quota.
//!
//! This module does *not* know priorities between viewers.

use std::time::Duration;

use crate::reservation::{Basis, Lease};
use crate::time::Timestamp;

/// The durations of the rules above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// From the reservation to its end, when nothing else happens.
    pub initial: Duration,
    /// From a heartbeat to the end, and the most that a heartbeat may ask for.
    pub heartbeat: Duration,
    /// From the viewer's last packet to the end.
    pub media_silence: Duration,
}

impl Default for Policy {
    /// 30 s to start watching, and 14 s of silence: a vanished viewer is promised to be gone within
    /// 15 s, of which up to one second may pass between its packets being reported.
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(30),
            heartbeat: Duration::from_secs(30),
            media_silence: Duration::from_secs(14),
        }
    }
}

impl Policy {
    /// When a lease that begins at `now` ends by itself.
    pub fn first_expiry(&self, now: Timestamp) -> Timestamp {
        now + self.initial
    }

    /// When `lease` ends after a heartbeat at `now` that asks for `extend`.
    pub fn expiry_after_heartbeat(
        &self,
        lease: &Lease,
        now: Timestamp,
        extend: Option<Duration>,
    ) -> Timestamp {
        match lease.basis {
            Basis::Heartbeat => {
                let extend = extend.map_or(self.heartbeat, |asked| asked.min(self.heartbeat));
                lease.expires_at.max(now + extend)
            }
            Basis::Media { .. } => lease.expires_at,
        }
    }

    /// When `lease` ends after a packet of its viewer at `at`; packets may be told out of order.
    /// Also returns the time of the last packet.
    pub fn expiry_after_media(&self, lease: &Lease, at: Timestamp) -> (Timestamp, Timestamp) {
        let last_packet = match lease.basis {
            Basis::Heartbeat => at,
            Basis::Media { last_packet } => last_packet.max(at),
        };
        (last_packet + self.media_silence, last_packet)
    }
}

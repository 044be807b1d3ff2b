//! What a viewer's line carries, from what the viewer says of it.
//!
//! Reads no packets and sends none: figures in, figures out.

use std::time::Duration;

/// How a viewer's line does, as far as the viewer told.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LineState {
    /// Share of the packets that was lost on the way, 0.0 to 1.0, smoothed over some seconds.
    /// Repaired ones count as lost.
    pub loss: f32,
    /// Time to the viewer and back; `None` before it answered a sender report.
    pub round_trip: Option<Duration>,
    /// What the line carries in bits a second; `None` when nothing is known or nothing limits it.
    pub estimate_bps: Option<u64>,
}

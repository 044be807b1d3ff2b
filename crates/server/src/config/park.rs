//! `[park]`: what holds for cameras that are added while the server runs, and for those nobody watches.

use std::time::Duration;

use super::AuthMode;
use super::reader::Section;
use crate::ingest::Reach;

/// How often a camera that nobody watches is asked how it is. A person who looks at a list of cameras
/// comes back within minutes; a camera answers without noticing.
const PROBE_INTERVAL: Duration = Duration::from_secs(60);

/// Shortest interval: cameras log each request.
const PROBE_INTERVAL_MIN: Duration = Duration::from_secs(5);

/// The park's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Park {
    /// Where addresses that come over the API may lead.
    pub(crate) reach: Reach,
    /// `None`: nobody is asked.
    pub(crate) probe_interval: Option<Duration>,
}

/// Where nobody is asked for a key, everybody who comes is on this machine already.
pub(super) fn read(mut section: Section<'_>, mode: AuthMode) -> Park {
    let allows_loopback = section.value("allow_loopback", mode == AuthMode::Open);
    let origin = section.origin_of("probe_interval");
    let interval = section.value("probe_interval", PROBE_INTERVAL);
    if !interval.is_zero() && interval < PROBE_INTERVAL_MIN {
        let sentence = "this must be at least \"5s\", or \"0s\" to ask no camera";
        section.problem(origin, "probe_interval", sentence);
    }
    section.finish();
    Park {
        reach: if allows_loopback { Reach::NetworkAndLoopback } else { Reach::Network },
        probe_interval: Some(interval).filter(|interval| !interval.is_zero()),
    }
}

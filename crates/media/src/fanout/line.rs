//! When a viewer's line is news.

use super::{Fanout, FanoutEvent};
use crate::estimate::LineState;

/// A line in steps in which a change is worth telling: a percent of loss, a tenth of a bitrate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Figure {
    loss_percent: u8,
    estimate_step: Option<u32>,
    stream_step: Option<u32>,
}

impl Figure {
    fn new(line: &LineState, stream_bps: Option<u64>) -> Self {
        Self {
            loss_percent: (line.loss.clamp(0.0, 1.0) * 100.0) as u8,
            estimate_step: line.estimate_bps.map(tenths),
            stream_step: stream_bps.map(tenths),
        }
    }
}

/// Steps of about a tenth: eight to each doubling.
fn tenths(bps: u64) -> u32 {
    ((bps.max(1) as f64).log2() * 8.0) as u32
}

impl Fanout {
    /// Tells how a viewer's line does, if that changed. Called about once a second.
    pub(super) fn tell_of_line(&mut self, place: usize) {
        let at = &mut self.places[place];
        let (line, stream, viewer) = (at.viewer.line(), at.stream, at.viewer.id());
        let stream_bps = self.hubs.get(&stream).and_then(|hub| hub.cadence.bits_per_second());
        let figure = Figure::new(&line, stream_bps);
        if at.line_told.replace(figure) != Some(figure) {
            self.events.push_back(FanoutEvent::Line { viewer, line, stream, stream_bps });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_changes_are_no_news() {
        let line = |loss, estimate_bps| LineState { loss, estimate_bps, ..LineState::default() };
        let figure = |loss, bps| Figure::new(&line(loss, Some(bps)), Some(2_000_000));
        assert_eq!(figure(0.011, 1_000_000), figure(0.019, 1_010_000));
        assert_ne!(figure(0.011, 1_000_000), figure(0.021, 1_000_000));
        assert_ne!(figure(0.0, 1_000_000), figure(0.0, 1_150_000));
        assert_ne!(figure(f32::NAN, 0), figure(2.0, u64::MAX));
    }
}

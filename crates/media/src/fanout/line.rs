//! When a viewer's line is news.

use super::{Fanout, FanoutEvent};
use crate::estimate::LineState;

/// A line in steps in which a change is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Figure {
    loss_percent: u8,
    is_too_thin: bool,
}

impl Figure {
    fn new(line: &LineState) -> Self {
        let loss_percent = (line.loss.clamp(0.0, 1.0) * 100.0) as u8;
        Self { loss_percent, is_too_thin: line.is_too_thin }
    }
}

impl Fanout {
    /// Tells how a viewer's line does, if that changed. Called about once a second.
    pub(super) fn tell_of_line(&mut self, place: usize) {
        let at = &mut self.places[place];
        let (line, stream, viewer) = (at.viewer.line(), at.stream, at.viewer.id());
        let figure = Figure::new(&line);
        if at.line_told.replace(figure) != Some(figure) {
            self.events.push_back(FanoutEvent::Line { viewer, line, stream });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_changes_are_no_news() {
        let figure = |loss, is_too_thin| {
            Figure::new(&LineState { loss, is_too_thin, ..LineState::default() })
        };
        assert_eq!(figure(0.011, false), figure(0.019, false));
        assert_ne!(figure(0.011, false), figure(0.021, false));
        assert_ne!(figure(0.0, false), figure(0.0, true));
        assert_eq!(figure(7.0, false), figure(1.0, false));
    }
}

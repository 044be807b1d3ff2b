//! Which of a camera's renditions suits a viewer: what it asked for, and what its line carries.
//!
//! Down fast, up slowly: a line that is too narrow for the full picture shows within seconds, while one
//! that has become wide enough shows only by trying. Each try that fails doubles the good time that
//! is asked for before the next. Pure: it is told the time, and decides nothing of streams.

use std::time::Duration;

use control::{Quality, Timestamp};
use media::estimate::LineState;

use crate::stream::Rendition;

/// A line that is bad for so long gets the smaller picture. Shorter, and one burst of losses would
/// switch; viewers report about once a second.
const DOWN_AFTER: Duration = Duration::from_secs(2);

/// The good time before the full picture is tried: twice what bitrate estimates take to recover from
/// a short disturbance.
const UP_AFTER_FIRST: Duration = Duration::from_secs(10);

/// The longest good time that is asked for: a line that cannot carry the full picture is disturbed
/// for some seconds every five minutes.
const UP_AFTER_MAX: Duration = Duration::from_secs(300);

/// A full picture that was given up so soon after it was tried was a try that failed.
const TRIAL: Duration = Duration::from_secs(30);

/// Above this share of lost packets retransmissions cannot keep up: a picture of the full stream is
/// some 8 packets, and at a tenth lost more than half of all pictures need a repair.
const LOSS_BAD: f32 = 0.10;

/// A line that was bad stays so above this share: of some 100 packets between two reports as many as 3
/// more or fewer are lost by chance, so that a steady tenth is above [`LOSS_BAD`] only now and then.
const LOSS_STILL_BAD: f32 = 0.07;

/// Below this share a smaller picture would not help.
const LOSS_GOOD: f32 = 0.05;

/// Why a viewer shall see what it shall see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SwitchReason {
    /// It was asked for.
    Quality,
    /// The viewer's line became too narrow for it, or carries more again.
    Line,
    /// The other stream cannot be played, or can be again.
    Source,
}

impl SwitchReason {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Quality, Self::Line, Self::Source];

    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quality => "quality",
            Self::Line => "line",
            Self::Source => "source",
        }
    }
}

/// What a line's figures mean for the stream that goes over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Good,
    Middling,
    Bad,
}

/// What one viewer shall see, as time goes by.
#[derive(Debug, Clone)]
pub(crate) struct Adaptation {
    quality: Quality,
    rendition: Rendition,
    reason: SwitchReason,
    judgement: Judgement,
    /// Since when the judgement is what it is; `None` while no figures of the present stream are known.
    judged_since: Option<Timestamp>,
    up_after: Duration,
    trial: Trial,
}

/// How far the last try of the full picture came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// There was none.
    None,
    /// It was to be seen, and its stream had not come yet.
    Asked,
    /// It was seen from then on.
    Begun(Timestamp),
}

impl Adaptation {
    pub(crate) const fn new(quality: Quality) -> Self {
        Self {
            quality,
            rendition: first_rendition(quality),
            reason: SwitchReason::Quality,
            judgement: Judgement::Middling,
            judged_since: None,
            up_after: UP_AFTER_FIRST,
            trial: Trial::None,
        }
    }

    /// What was asked for.
    pub(crate) const fn quality(&self) -> Quality {
        self.quality
    }

    /// What the viewer shall see.
    pub(crate) const fn rendition(&self) -> Rendition {
        self.rendition
    }

    /// Why.
    pub(crate) const fn reason(&self) -> SwitchReason {
        self.reason
    }

    /// Something else is asked for. What was learnt of the line stays.
    pub(crate) fn handle_quality(&mut self, quality: Quality) {
        if quality == self.quality {
            return;
        }
        self.quality = quality;
        self.show(first_rendition(quality), SwitchReason::Quality);
    }

    /// The viewer sees another stream from here on: what its line did belongs to the one before.
    pub(crate) fn handle_switched(&mut self, rendition: Rendition, now: Timestamp) {
        self.forget_line();
        let is_try = rendition == Rendition::Main && self.reason == SwitchReason::Line;
        if is_try && self.rendition == rendition {
            self.trial = Trial::Begun(now);
        }
    }

    /// What the viewer tells of its line.
    pub(crate) fn handle_line(&mut self, line: &LineState, now: Timestamp) {
        let bad = if self.judgement == Judgement::Bad { LOSS_STILL_BAD } else { LOSS_BAD };
        let judgement = if line.is_too_thin || line.loss > bad {
            Judgement::Bad
        } else if line.loss < LOSS_GOOD {
            Judgement::Good
        } else {
            Judgement::Middling
        };
        if judgement != self.judgement || self.judged_since.is_none() {
            self.judgement = judgement;
            self.judged_since = Some(now);
        }
        self.handle_time(now);
    }

    /// Time passed. Called at least once a second while the viewer lives.
    pub(crate) fn handle_time(&mut self, now: Timestamp) {
        let adapts = match self.quality {
            Quality::Low | Quality::High => false,
            Quality::Medium | Quality::Auto => true,
        };
        let Some(since) = self.judged_since.filter(|_| adapts) else { return };
        let lasted = now.saturating_since(since);
        match (self.rendition, self.judgement) {
            (Rendition::Main, Judgement::Bad) if lasted >= DOWN_AFTER => self.lower(now),
            (Rendition::Sub, Judgement::Good) if lasted >= self.up_after => {
                self.trial = Trial::Asked;
                self.show(Rendition::Main, SwitchReason::Line);
            }
            (Rendition::Main | Rendition::Sub, _) => {}
        }
    }

    fn lower(&mut self, now: Timestamp) {
        self.up_after = match self.trial {
            // The line was too narrow for the small picture: nothing was learnt of the full one.
            Trial::Asked => self.up_after,
            Trial::Begun(at) if now.saturating_since(at) < TRIAL => {
                (self.up_after * 2).min(UP_AFTER_MAX)
            }
            Trial::None | Trial::Begun(_) => UP_AFTER_FIRST,
        };
        self.show(Rendition::Sub, SwitchReason::Line);
    }

    fn show(&mut self, rendition: Rendition, reason: SwitchReason) {
        if rendition != self.rendition {
            self.rendition = rendition;
            self.reason = reason;
            self.forget_line();
        }
    }

    fn forget_line(&mut self) {
        self.judgement = Judgement::Middling;
        self.judged_since = None;
    }
}

/// What a viewer sees before anything is known of its line.
pub(crate) const fn first_rendition(quality: Quality) -> Rendition {
    match quality {
        Quality::Low | Quality::Medium => Rendition::Sub,
        Quality::High | Quality::Auto => Rendition::Main,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An adaptation and a viewer that reports once a second.
    struct Viewer {
        adaptation: Adaptation,
        now: Timestamp,
    }

    impl Viewer {
        fn new(quality: Quality) -> Self {
            Self { adaptation: Adaptation::new(quality), now: Timestamp::from_millis(1_000_000) }
        }

        /// Reports the same for some seconds and switches whenever it is told to. Returns what it saw
        /// at the end of each.
        fn report(&mut self, seconds: u64, loss: f32, is_too_thin: bool) -> Vec<Rendition> {
            let line = LineState { loss, is_too_thin, ..LineState::default() };
            let mut seen = Vec::new();
            for _ in 0..seconds {
                let before = self.adaptation.rendition();
                self.now = self.now + Duration::from_secs(1);
                self.adaptation.handle_line(&line, self.now);
                let after = self.adaptation.rendition();
                if before != after {
                    self.adaptation.handle_switched(after, self.now);
                }
                seen.push(after);
            }
            seen
        }

        /// Seconds of a good line until the full picture is tried.
        fn good_seconds_to_main(&mut self) -> u64 {
            for seconds in 1..1_000 {
                if self.report(1, 0.0, false) == [Rendition::Main] {
                    return seconds;
                }
            }
            panic!("it is never tried");
        }
    }

    #[test]
    fn every_quality_begins_as_promised() {
        let first = [Quality::Low, Quality::Medium, Quality::High, Quality::Auto]
            .map(|quality| Adaptation::new(quality).rendition());
        assert_eq!(first, [Rendition::Sub, Rendition::Sub, Rendition::Main, Rendition::Main]);
    }

    #[test]
    fn low_and_high_hold_whatever_the_line_does() {
        for (quality, fixed) in [(Quality::Low, Rendition::Sub), (Quality::High, Rendition::Main)] {
            let mut viewer = Viewer::new(quality);
            let mut seen = viewer.report(30, 0.5, true);
            seen.extend(viewer.report(600, 0.0, false));
            assert!(seen.iter().all(|rendition| *rendition == fixed), "{quality:?}");
        }
    }

    #[test]
    fn auto_and_medium_go_down_after_two_bad_seconds() {
        for quality in [Quality::Auto, Quality::Medium] {
            let mut viewer = Viewer::new(quality);
            viewer.report(12, 0.0, false);
            let seen = viewer.report(3, 0.2, false);
            assert_eq!(seen, [Rendition::Main, Rendition::Main, Rendition::Sub], "{quality:?}");
            assert_eq!(viewer.adaptation.reason(), SwitchReason::Line);
        }
    }

    #[test]
    fn one_burst_of_losses_changes_nothing() {
        let mut viewer = Viewer::new(Quality::Auto);
        for _ in 0..20 {
            let mut seen = viewer.report(2, 0.3, false);
            seen.extend(viewer.report(1, 0.0, false));
            assert!(!seen.contains(&Rendition::Sub));
        }
    }

    #[test]
    fn a_line_that_is_too_thin_is_bad_without_any_loss() {
        let mut viewer = Viewer::new(Quality::Auto);
        assert_eq!(viewer.report(4, 0.0, true).last(), Some(&Rendition::Sub));
    }

    #[test]
    fn medium_rises_on_a_good_line_and_not_on_a_lossy_one() {
        let mut viewer = Viewer::new(Quality::Medium);
        assert!(!viewer.report(600, 0.07, false).contains(&Rendition::Main));
        assert_eq!(viewer.good_seconds_to_main(), 11);
    }

    #[test]
    fn each_try_that_fails_doubles_the_time_before_the_next_up_to_a_bound() {
        let mut viewer = Viewer::new(Quality::Auto);
        let mut waits = Vec::new();
        for _ in 0..7 {
            viewer.report(5, 0.3, false);
            assert_eq!(viewer.adaptation.rendition(), Rendition::Sub);
            // The first good report after a bad one only begins the good time.
            waits.push(viewer.good_seconds_to_main() - 1);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        viewer.report(40, 0.0, false);
        viewer.report(5, 0.3, false);
        assert_eq!(viewer.good_seconds_to_main(), 11, "a try that lasted starts it anew");
    }

    #[test]
    fn a_try_whose_stream_does_not_come_teaches_nothing_of_the_line() {
        let mut viewer = Viewer::new(Quality::Auto);
        for wait in [10, 20, 40] {
            viewer.report(5, 0.3, false);
            assert_eq!(viewer.good_seconds_to_main() - 1, wait);
        }
        viewer.report(5, 0.3, false);
        // 80 s of a good line, and the camera is slow to bring its full picture.
        let good = LineState::default();
        while viewer.adaptation.rendition() == Rendition::Sub {
            viewer.now = viewer.now + Duration::from_secs(1);
            viewer.adaptation.handle_line(&good, viewer.now);
        }
        viewer.now = viewer.now + Duration::from_secs(60);
        let bad = LineState { loss: 0.3, ..LineState::default() };
        while viewer.adaptation.rendition() == Rendition::Main {
            viewer.now = viewer.now + Duration::from_secs(1);
            viewer.adaptation.handle_line(&bad, viewer.now);
        }
        assert_eq!(viewer.good_seconds_to_main() - 1, 80);
    }

    #[test]
    fn a_steady_tenth_of_loss_goes_down_and_less_does_not() {
        let alternating = |losses: [f32; 2]| {
            let mut viewer = Viewer::new(Quality::Auto);
            let seconds = (0..60).map(|second| losses[second % 2]);
            seconds.flat_map(|loss| viewer.report(1, loss, false)).collect::<Vec<_>>()
        };
        assert_eq!(alternating([0.11, 0.09]).last(), Some(&Rendition::Sub));
        assert!(!alternating([0.09, 0.07]).contains(&Rendition::Sub));
        assert!(!alternating([0.2, 0.0]).contains(&Rendition::Sub), "bursts come and go");
    }

    #[test]
    fn what_is_asked_for_is_shown_at_once() {
        let mut viewer = Viewer::new(Quality::Auto);
        for (quality, shown) in [
            (Quality::Low, Rendition::Sub),
            (Quality::Auto, Rendition::Main),
            (Quality::Medium, Rendition::Sub),
            (Quality::High, Rendition::Main),
        ] {
            viewer.adaptation.handle_quality(quality);
            assert_eq!(viewer.adaptation.rendition(), shown);
            assert_eq!(viewer.adaptation.reason(), SwitchReason::Quality);
        }
    }

    #[test]
    fn asking_for_the_same_again_undoes_nothing() {
        let mut viewer = Viewer::new(Quality::Auto);
        viewer.report(5, 0.3, false);
        viewer.adaptation.handle_quality(Quality::Auto);
        assert_eq!(viewer.adaptation.rendition(), Rendition::Sub);
    }
}

//! What is shown while viewers watch: a bar and three lines that stay in place on a terminal, a line
//! now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::board::Look;

/// Cells of the bar.
const BAR_WIDTH: usize = 40;
/// Lines of the terminal's display.
const LINES: usize = 3;
/// Between two looks on a terminal.
const PACE: Duration = Duration::from_secs(1);

/// Where the present state goes: standard error, so that a report on standard output stays clean.
#[derive(Debug)]
pub(crate) struct Display {
    kind: Kind,
    before: Option<Look>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Written over and over again.
    Terminal,
    /// One line a look.
    Lines,
    /// Nothing.
    Silent,
}

impl Display {
    /// On a terminal in place, else line by line.
    pub(crate) fn of_process() -> Self {
        let kind = if std::io::stderr().is_terminal() { Kind::Terminal } else { Kind::Lines };
        Self { kind, before: None }
    }

    /// Shows nothing.
    pub(crate) fn silent() -> Self {
        Self { kind: Kind::Silent, before: None }
    }

    /// How often it is worth showing something.
    pub(super) fn pace(&self) -> Duration {
        PACE
    }

    /// Shows how things stand.
    pub(super) fn show(&mut self, look: &Look) {
        let text = match self.kind {
            Kind::Silent => return,
            Kind::Lines => self.line(look) + "\n",
            Kind::Terminal => {
                let up =
                    if self.before.is_some() { format!("\x1b[{LINES}A") } else { String::new() };
                let lines = self.lines(look);
                up + &lines.iter().map(|line| format!("\x1b[2K{line}\n")).collect::<String>()
            }
        };
        self.before = Some(*look);
        // There is nobody to tell that standard error is closed.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// Leaves what is shown in place.
    pub(super) fn end(&mut self) {
        self.before = None;
    }

    fn lines(&self, look: &Look) -> [String; LINES] {
        let done = (look.playing * BAR_WIDTH).checked_div(look.viewers).unwrap_or(0);
        let (rate, bitrate) = self.rates(look);
        [
            format!(
                "[{}{}] {}/{} playing  {:.0} s",
                "#".repeat(done),
                "-".repeat(BAR_WIDTH - done.min(BAR_WIDTH)),
                look.playing,
                look.viewers,
                look.at.as_secs_f64(),
            ),
            format!(
                "joining {}  connected {}  joined {}  failed {}",
                look.joining, look.connected, look.joined, look.failed
            ),
            format!(
                "{rate:.0} packets/s  {bitrate:.1} Mbit/s  lost {}  reordered {}  not authentic {}  \
                 pause {} ms",
                look.figures.lost,
                look.figures.reordered,
                look.figures.not_authentic,
                look.gap.as_millis(),
            ),
        ]
    }

    fn line(&self, look: &Look) -> String {
        let (rate, bitrate) = self.rates(look);
        format!(
            "{:.0}s joining={} connected={} playing={} joined={} failed={} packets/s={rate:.0} \
             mbit/s={bitrate:.1} lost={} pause_ms={}",
            look.at.as_secs_f64(),
            look.joining,
            look.connected,
            look.playing,
            look.joined,
            look.failed,
            look.figures.lost,
            look.gap.as_millis(),
        )
    }

    /// Packets and megabits a second since the look before.
    fn rates(&self, look: &Look) -> (f64, f64) {
        let before = self.before.unwrap_or_default();
        let seconds = look.at.saturating_sub(before.at).as_secs_f64().max(1e-3);
        let packets = look.figures.packets.saturating_sub(before.figures.packets) as f64;
        let bytes = look.figures.bytes.saturating_sub(before.figures.bytes) as f64;
        (packets / seconds, bytes * 8e-6 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use media::reception::ReceptionFigures;

    use super::*;

    #[test]
    fn rates_are_those_since_the_look_before() {
        let mut display = Display::silent();
        let at = |seconds, packets| Look {
            at: Duration::from_secs(seconds),
            viewers: 4,
            playing: 2,
            figures: ReceptionFigures { packets, bytes: packets * 1_000, ..Default::default() },
            ..Look::default()
        };
        display.before = Some(at(1, 100));
        let lines = display.lines(&at(2, 350));
        assert!(lines[0].starts_with("[####################----------"), "{}", lines[0]);
        assert!(
            lines[0].contains("2/4 playing") && lines[2].starts_with("250 packets/s  2.0 Mbit/s")
        );
        assert!(display.line(&at(3, 600)).contains("packets/s=250 mbit/s=2.0"));
    }
}

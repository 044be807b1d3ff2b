//! What a run came to: a table for people, JSON for programs. Documented in `docs/ref/load.md`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use media::reception::ReceptionFigures;
use serde_json::{Value, json};

use super::board::{Board, JoinTimes, Look};
use super::histogram::Histogram;
use super::{LoadPlan, Offload};

/// Everything that a run found.
#[derive(Debug)]
pub(crate) struct LoadReport {
    title: String,
    viewers: usize,
    offload: Offload,
    seconds: f64,
    tried: u64,
    left: u64,
    failures: BTreeMap<String, u64>,
    joins: Vec<JoinTimes>,
    last_keyframe: Option<Duration>,
    looks: Vec<Look>,
    figures: ReceptionFigures,
    overflowed: u64,
    delay: Times,
    decoded: Times,
}

/// A distribution in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    count: u64,
    p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

/// One stage of a join: its name in the JSON, for people, and where it is kept.
type Stage = (&'static str, &'static str, fn(&JoinTimes) -> Option<Duration>);

const STAGES: [Stage; 5] = [
    ("reserved", "reserve", |times| times.reserved),
    ("answered", "POST to answer", |times| times.answered),
    ("connected", "to connected", |times| times.connected),
    ("first_packet", "to first packet", |times| times.first_packet),
    ("first_keyframe", "to first keyframe", |times| times.keyframe),
];

impl LoadReport {
    pub(super) fn new(board: &Board, plan: &LoadPlan, seconds: Duration) -> Self {
        let look = board.look();
        Self {
            title: plan.targets.title(),
            viewers: plan.viewers.get(),
            offload: plan.offload,
            seconds: seconds.as_secs_f64(),
            tried: board.tried(),
            left: board.left(),
            failures: board.failures(),
            joins: board.joins(),
            last_keyframe: board.last_keyframe(),
            looks: board.looks(),
            figures: look.figures,
            overflowed: look.overflowed,
            delay: Times::of_histogram(&board.delays),
            decoded: Times::of_histogram(&board.decoded),
        }
    }

    /// Viewers that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn stage(&self, (_, _, of): &Stage) -> Times {
        Times::of(self.joins.iter().filter_map(of).collect())
    }

    fn longest_gap(&self) -> Duration {
        self.looks.iter().map(|look| look.gap).max().unwrap_or_default()
    }

    /// One object; its keys are promised.
    pub(crate) fn json(&self) -> Value {
        let stages: serde_json::Map<String, Value> =
            STAGES.iter().map(|stage| (stage.0.to_owned(), self.stage(stage).json())).collect();
        let failures: Vec<Value> = self
            .failures
            .iter()
            .map(|(reason, count)| json!({ "reason": reason, "count": count }))
            .collect();
        json!({
            "target": self.title,
            "viewers": self.viewers,
            "seconds": self.seconds,
            "offload": self.offload == Offload::Runs,
            "joins": {
                "tried": self.tried,
                "played": self.joins.len(),
                "left": self.left,
                "failed": self.failed(),
                "last_keyframe_ms": self.last_keyframe.map(milliseconds),
            },
            "join_ms": stages,
            "media": figures_json(&self.figures, self.overflowed),
            "gap_ms_max": milliseconds(self.longest_gap()),
            "delay_ms": self.delay.json(),
            "decoded_delay_ms": self.decoded.json(),
            "failures": failures,
            "timeline": self.looks.iter().map(look_json).collect::<Vec<_>>(),
        })
    }

    /// A table for a terminal.
    pub(crate) fn text(&self) -> String {
        let ReceptionFigures { packets, bytes, lost, .. } = self.figures;
        let mut text = format!(
            "{}: {} viewers, {:.1} s\n{} joins, {} played, {} left, {} failed\n",
            self.title,
            self.viewers,
            self.seconds,
            self.tried,
            self.joins.len(),
            self.left,
            self.failed(),
        );
        // Writing to a String does not fail.
        let _ = writeln!(text, "{:22}{:>10}{:>10}{:>10}{:>10}", "ms", "p50", "p95", "p99", "max");
        let stages = STAGES.iter().map(|stage| (stage.1, self.stage(stage)));
        let delays = [("picture's delay", self.delay), ("delay when decoded", self.decoded)];
        for (name, times) in stages.chain(delays).filter(|(_, times)| times.count > 0) {
            let Times { p50, p95, p99, max, .. } = times;
            let _ = writeln!(text, "{name:22}{p50:>10.1}{p95:>10.1}{p99:>10.1}{max:>10.1}");
        }
        let figures = &self.figures;
        let _ = writeln!(
            text,
            "{packets} packets, {:.1} MB, {:.2} Mbit/s a viewer; longest pause of a picture {:.0} ms",
            bytes as f64 / 1e6,
            self.bitrate() / 1e6,
            milliseconds(self.longest_gap()),
        );
        let _ = writeln!(
            text,
            "{lost} lost ({} of them found no room here), {} reordered, {} repeated, {} not \
             authentic of {} opened, {} refused",
            self.overflowed.min(lost),
            figures.reordered,
            figures.repeated,
            figures.not_authentic,
            figures.opened + figures.not_authentic,
            figures.refused,
        );
        for (reason, count) in &self.failures {
            let _ = writeln!(text, "failed {count} times: {reason}");
        }
        text.trim_end().to_owned()
    }

    /// Of a viewer in the last whole second in which viewers played, in bits a second.
    fn bitrate(&self) -> f64 {
        let pair = self.looks.windows(2).rfind(|pair| pair[0].playing > 0 && pair[1].playing > 0);
        pair.map_or(0.0, |pair| {
            let bytes = pair[1].figures.bytes.saturating_sub(pair[0].figures.bytes) as f64;
            let seconds = (pair[1].at - pair[0].at).as_secs_f64();
            bytes * 8.0 / seconds / pair[1].playing as f64
        })
    }
}

fn figures_json(figures: &ReceptionFigures, overflowed: u64) -> Value {
    json!({
        "packets": figures.packets,
        "bytes": figures.bytes,
        "pictures": figures.pictures,
        "lost": figures.lost,
        "overflowed": overflowed,
        "reordered": figures.reordered,
        "repeated": figures.repeated,
        "restarts": figures.restarts,
        "opened": figures.opened,
        "not_authentic": figures.not_authentic,
        "refused": figures.refused,
        "reports": figures.reports,
        "keyframes_asked": figures.keyframes_asked,
    })
}

fn look_json(look: &Look) -> Value {
    json!({
        "at_ms": milliseconds(look.at),
        "joining": look.joining,
        "connected": look.connected,
        "playing": look.playing,
        "joined": look.joined,
        "failed": look.failed,
        "packets": look.figures.packets,
        "bytes": look.figures.bytes,
        "lost": look.figures.lost,
        "gap_ms_max": milliseconds(look.gap),
    })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let rank = (times.len() as f64 * share).ceil().max(1.0) as usize;
            times.get(rank - 1).copied().map_or(0.0, milliseconds)
        };
        let count = times.len() as u64;
        Self { count, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
    }

    fn of_histogram(times: &Histogram) -> Self {
        let at = |share| times.quantile(share).map_or(0.0, milliseconds);
        let count = times.count();
        Self { count, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
    }

    /// `null` where nothing was measured.
    fn json(&self) -> Value {
        let Self { count, p50, p95, p99, max } = self;
        if *count == 0 {
            return Value::Null;
        }
        json!({ "count": count, "p50": p50, "p95": p95, "p99": p99, "max": max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_by_nearest_rank() {
        let times = Times::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!((times.p50, times.p95, times.p99, times.max), (100.0, 190.0, 198.0, 200.0));
        assert_eq!(Times::of(Vec::new()).json(), Value::Null);
    }
}

//! `manifold bench`: what viewers cost on this machine, each number beside its target.
//!
//! Nothing is sent to another machine. The sending paths are the server's own; only sources and
//! viewers are stand-ins.

mod cameras;
mod egress;
mod floor;
mod ledger;
mod load;
mod sinks;

mod child;
mod memory;
mod request;
mod speakers;
mod viewers;
mod voice;

use std::fmt::Write;

use serde_json::{Value, json};

pub(crate) use cameras::{Generator, serve as cameras};
pub(crate) use egress::{EgressBench, curve, run as egress};
pub(crate) use ledger::{LedgerBench, Way, run as ledger};
pub(crate) use memory::{MemoryBench, run as memory};
pub(crate) use speakers::run as speakers;
pub(crate) use voice::{VoiceBench, run as voice};

/// What a benchmark found.
#[derive(Debug)]
pub(crate) struct Report {
    /// What was measured and how, in a sentence.
    title: String,
    /// Figures that others pick out of the JSON by name, beside the list.
    headline: Vec<(&'static str, f64)>,
    figures: Vec<Figure>,
}

/// One measured number.
#[derive(Debug)]
struct Figure {
    name: String,
    unit: &'static str,
    /// The median, where there are several measurements.
    value: f64,
    /// Lowest and highest tenth of the measurements, where there are several.
    spread: Option<(f64, f64)>,
    /// What the value has to stay under.
    target: Option<f64>,
}

impl Figure {
    fn new(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self { name: name.into(), unit, value, spread: None, target: None }
    }

    /// The median of the measurements, and their spread.
    fn median(name: impl Into<String>, unit: &'static str, measured: &[f64]) -> Self {
        let spread = Some((quantile(measured, 0.1), quantile(measured, 0.9)));
        Self { spread, ..Self::new(name, unit, quantile(measured, 0.5)) }
    }

    fn under(self, target: f64) -> Self {
        Self { target: Some(target), ..self }
    }

    /// Whether the target is met; `None` where there is none.
    fn passes(&self) -> Option<bool> {
        self.target.map(|target| self.value < target)
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "unit": self.unit,
            "value": self.value,
            "low": self.spread.map(|(low, _)| low),
            "high": self.spread.map(|(_, high)| high),
            "target": self.target,
            "pass": self.passes(),
        })
    }
}

impl Report {
    /// One line: `{"<headline>": number, .., "figures": [{"name", "unit", "value", "low", "high",
    /// "target", "pass"}, ..]}`, where `low` and `high` are the tenth and ninetieth percentile.
    pub(crate) fn json(&self) -> String {
        let mut value = json!({
            "title": self.title,
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
        });
        for (name, number) in &self.headline {
            value[*name] = json!(number);
        }
        value.to_string()
    }

    /// A table for a terminal.
    pub(crate) fn text(&self) -> String {
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        let mut text = format!("{}\n", self.title);
        for figure in &self.figures {
            let spread = figure
                .spread
                .map_or_else(String::new, |(low, high)| format!("{low:.3} .. {high:.3}"));
            let verdict = match (figure.target, figure.passes()) {
                (Some(target), Some(true)) => format!("< {target}  met"),
                (Some(target), _) => format!("< {target}  MISSED"),
                (None, _) => String::new(),
            };
            let Figure { name, unit, value, .. } = figure;
            // Writing to a String does not fail.
            let _ = writeln!(text, "{name:width$}  {value:9.3} {unit:4} {spread:20} {verdict}");
        }
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// The smallest of the values that `share` of them do not exceed (nearest rank); 0 of none.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(
            [0.0, 0.5, 0.9, 1.0].map(|share| quantile(&values, share)),
            [1.0, 3.0, 5.0, 5.0]
        );
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_report_says_what_misses_its_target() {
        let report = Report {
            title: "what".to_owned(),
            headline: vec![("a_us", 1.5)],
            figures: vec![
                Figure::median("a", "us", &[1.0, 1.5, 9.0]).under(2.0),
                Figure::new("b", "KB", 7.0).under(7.0),
            ],
        };

        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["a_us"], json!(1.5));
        assert_eq!(json["figures"][0]["pass"], json!(true));
        assert_eq!(json["figures"][0]["high"], json!(9.0));
        assert_eq!(json["figures"][1]["pass"], json!(false));
        assert_eq!(report.text().matches("MISSED").count(), 1);
    }
}

//! `cargo xtask bench`: the numbers the project is built for, measured on this machine.
//!
//! Egress and memory come from `manifold bench`, join times from Chromium. The raw results go to
//! `target/bench/*.json`; the table and the plot to `docs/design` only when asked.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::repo::Repo;
use crate::{plot, setup, step};

/// The longest that 95 of 100 joins of a camera that is already live may take.
const FIRST_FRAME_P95_MS_MAX: f64 = 80.0;

/// Where the results are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// In `target/bench`, for a look.
    InTarget,
    /// In `docs/design` as well, for the record.
    InDocs,
}

/// One measured number: a row of the table.
struct Figure {
    name: String,
    unit: String,
    value: f64,
    /// What the value has to stay under. `None`: told, not judged.
    target: Option<f64>,
}

/// Measures, prints the table, keeps the results.
pub(crate) fn run(repo: &Repo, keep: Keep) -> Result<()> {
    setup::install(repo)?;
    repo.build_manifold()?;
    let manifold = repo.manifold();
    let manifold = manifold.to_str().context("the path of the binary is not UTF-8")?;
    let egress =
        measure(repo, "egress", &mut repo.command("", manifold, &["bench", "egress", "--json"]))?;
    let memory =
        measure(repo, "memory", &mut repo.command("", manifold, &["bench", "memory", "--json"]))?;
    let join = measure(
        repo,
        "join",
        repo.command("e2e", "node", &["bench/join.mjs"]).env("MANIFOLD_BIN", manifold),
    )?;

    let results = Results::read(&egress, &memory, &join)?;
    step::say(&format!("\n{}", results.table()));
    if keep == Keep::InDocs {
        std::fs::write(repo.path("docs/design/performance.svg"), results.plot()?)?;
        std::fs::write(repo.path("docs/design/performance.md"), results.page()?)?;
        step::say("written: docs/design/performance.md, docs/design/performance.svg");
    }
    Ok(())
}

/// Runs a benchmark whose last line is JSON, and keeps that as `target/bench/<name>.json`.
fn measure(repo: &Repo, name: &str, command: &mut Command) -> Result<Value> {
    let text = step::time(&format!("benchmark {name}"), || step::output(command))?;
    let line = text.trim_end().lines().last().with_context(|| format!("{name} printed nothing"))?;
    let value = serde_json::from_str(line).with_context(|| format!("{name} printed `{line}`"))?;
    let folder = repo.target().join("bench");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(format!("{name}.json")), serde_json::to_string_pretty(&value)?)?;
    Ok(value)
}

/// What the benchmarks found.
struct Results {
    figures: Vec<Figure>,
    ours_us: f64,
    floor_us: f64,
    /// POST to first decoded frame of each join, ascending.
    first_frame_ms: Vec<f64>,
}

impl Results {
    fn read(egress: &Value, memory: &Value, join: &Value) -> Result<Self> {
        let first_frame_ms = milliseconds(join, "first_frame_ms")?;
        let live_ms = milliseconds(join, "live_ms")?;
        let mut figures = Vec::new();
        for report in [egress, memory] {
            for figure in list(report, "figures")? {
                figures.push(Figure::read(figure)?);
            }
        }
        let target = Some(FIRST_FRAME_P95_MS_MAX);
        for (what, sorted, share, target) in [
            ("first frame decoded", &first_frame_ms, 50.0, None),
            ("first frame decoded", &first_frame_ms, 95.0, target),
            ("first frame decoded that is live", &live_ms, 50.0, None),
            ("first frame decoded that is live", &live_ms, 95.0, None),
        ] {
            figures.push(Figure {
                name: format!("{what}, Chromium, warm camera, p{share}"),
                unit: "ms".to_owned(),
                value: percentile(sorted, share),
                target,
            });
        }
        let ours_us = number(egress, "ours_us_per_packet")?;
        let floor_us = number(egress, "floor_us_per_packet")?;
        Ok(Self { figures, ours_us, floor_us, first_frame_ms })
    }

    /// The figures as a Markdown table.
    fn table(&self) -> String {
        let rows = self.figures.iter().map(Figure::row).collect::<String>();
        format!("| what | measured | target | |\n|---|---|---|---|\n{rows}")
    }

    fn plot(&self) -> Result<String> {
        let bars = [("Manifold", self.ours_us), ("floor", self.floor_us)];
        let egress_target = self
            .figures
            .iter()
            .find(|figure| figure.unit == "us" && figure.target.is_some())
            .and_then(|figure| figure.target)
            .context("no figure of the egress benchmark has a target")?;
        Ok(plot::page(&[
            plot::bars("CPU a packet, 300 viewers (µs)", &bars, egress_target),
            plot::distribution(
                "First frame decoded, share of joins (ms)",
                &self.first_frame_ms,
                FIRST_FRAME_P95_MS_MAX,
            ),
        ]))
    }

    fn page(&self) -> Result<String> {
        Ok(format!(
            "# Performance\n\n\
             Written by `cargo xtask bench --commit-results`, which measures all of it in one run; \
             the floor is measured beside it, because machines differ.\n\n\
             Machine: {}.\n\n{}\n\
             ![CPU a packet, and the distribution of join times](performance.svg)\n\n\
             Joins: {} of them in Chromium on loopback, spread evenly over a keyframe interval of 2 s, \
             from the WHEP POST to the first decoded frame, and to the first that was captured at most \
             150 ms before.\n",
            machine()?,
            self.table(),
            self.first_frame_ms.len(),
        ))
    }
}

impl Figure {
    /// As `manifold bench --json` writes one.
    fn read(value: &Value) -> Result<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Ok(Self {
            name: text("name").with_context(|| format!("no name in {value}"))?,
            unit: text("unit").unwrap_or_default(),
            value: number(value, "value")?,
            target: value["target"].as_f64(),
        })
    }

    fn row(&self) -> String {
        let Self { name, unit, value, target } = self;
        let judged = target.map_or_else(
            || " | |".to_owned(),
            // NaN meets no target.
            |target| {
                format!("< {target} {unit} | {} |", if *value < target { "met" } else { "MISSED" })
            },
        );
        format!("| {name} | {value:.2} {unit} | {judged}\n")
    }
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key].as_array().with_context(|| format!("no list `{key}` in {value}"))
}

/// Milliseconds of each join, ascending.
fn milliseconds(join: &Value, key: &str) -> Result<Vec<f64>> {
    let numbers = list(join, key)?.iter().map(Value::as_f64).collect::<Option<Vec<_>>>();
    numbers.with_context(|| format!("{key} is not a list of numbers"))
}

fn number(value: &Value, key: &str) -> Result<f64> {
    value[key].as_f64().with_context(|| format!("no number `{key}` in {value}"))
}

/// The smallest value that `share` percent of the sorted values do not exceed (nearest rank).
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share / 100.0).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// The processor and the kernel, for whoever compares.
fn machine() -> Result<String> {
    let processors = std::fs::read_to_string("/proc/cpuinfo")?;
    let models: Vec<&str> =
        processors.lines().filter_map(|line| line.strip_prefix("model name")).collect();
    let model =
        models.first().map_or("unknown processor", |line| line.trim_matches([' ', '\t', ':']));
    let kernel = step::output(Command::new("uname").arg("-r"))?;
    Ok(format!("{} × {model}, Linux {}", models.len(), kernel.trim()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let sorted: Vec<f64> = (1..=30).map(f64::from).collect();

        assert_eq!(percentile(&sorted, 50.0), 15.0);
        assert_eq!(percentile(&sorted, 95.0), 29.0);
        assert_eq!(percentile(&[7.0], 95.0), 7.0);
        assert!(percentile(&[], 95.0).is_nan());
    }

    #[test]
    fn a_target_that_is_missed_is_said_to_be() {
        let row = |value: f64| {
            let figure = json!({"name": "memory", "unit": "KB", "value": value, "target": 100.0});
            Figure::read(&figure).unwrap().row()
        };

        assert_eq!(row(99.0), "| memory | 99.00 KB | < 100 KB | met |\n");
        assert_eq!(row(100.0), "| memory | 100.00 KB | < 100 KB | MISSED |\n");
    }

    #[test]
    fn what_the_benchmarks_print_becomes_a_table_and_a_plot() {
        let figure = json!({"name": "video egress", "unit": "us", "value": 1.5, "target": 1.9});
        let egress =
            json!({"ours_us_per_packet": 1.5, "floor_us_per_packet": 1.2, "figures": [figure]});
        let join = json!({"first_frame_ms": [40.0, 50.0, 90.0], "live_ms": [50.0, 60.0, 99.0]});

        let results = Results::read(&egress, &json!({"figures": []}), &join).unwrap();

        assert!(results.table().contains("| video egress | 1.50 us | < 1.9 us | met |"));
        assert!(results.table().contains("p95 | 90.00 ms | < 80 ms | MISSED |"));
        assert!(results.table().contains("live, Chromium, warm camera, p95 | 99.00 ms |  | |"));
        assert!(results.plot().unwrap().contains("target 80"));
    }
}

//! `cargo xtask bench`: the numbers the project is built for, measured on this machine.
//!
//! Egress and memory come from `manifold bench`, join times from Chromium. The raw results go to
//! `target/bench/*.json`; the table and the plot to `docs/design` only when asked.

use std::fmt::Write;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::repo::Repo;
use crate::{plot, setup, step};

/// Where the results are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// In `target/bench`, for a look.
    InTarget,
    /// In `docs/design` as well, for the record.
    InDocs,
}

/// One row of the table: what was measured against what it should be.
struct Row {
    what: &'static str,
    measured: f64,
    unit: &'static str,
    /// The measured value has to stay under it. `None`: told, not judged.
    bound: Option<f64>,
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
    let table = table(&results.rows());
    step::say(&format!("\n{table}"));
    if keep == Keep::InDocs {
        std::fs::write(repo.path("docs/design/performance.svg"), results.plot())?;
        std::fs::write(repo.path("docs/design/performance.md"), results.page(&table)?)?;
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

/// What the table and the plot need of the three benchmarks.
struct Results {
    egress_us: f64,
    floor_us: f64,
    memory_kb: f64,
    /// POST to first decoded frame of each join, ascending.
    first_frame_ms: Vec<f64>,
}

impl Results {
    fn read(egress: &Value, memory: &Value, join: &Value) -> Result<Self> {
        let first_frame_ms = join["first_frame_ms"]
            .as_array()
            .context("join has no first_frame_ms")?
            .iter()
            .map(|ms| ms.as_f64().context("first_frame_ms is not a list of numbers"))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            egress_us: number(egress, "ours_us_per_packet")?,
            floor_us: number(egress, "floor_us_per_packet")?,
            memory_kb: number(memory, "bytes_per_viewer")? / 1000.0,
            first_frame_ms,
        })
    }

    fn rows(&self) -> Vec<Row> {
        let row = |what, measured, unit, bound| Row { what, measured, unit, bound };
        let join = |share| percentile(&self.first_frame_ms, share);
        vec![
            row(
                "video egress, 300 viewers, 8-packet frames, CPU a packet",
                self.egress_us,
                "µs",
                Some(1.9),
            ),
            row("floor: seal and send, nothing else, CPU a packet", self.floor_us, "µs", None),
            row("egress over floor", self.egress_us / self.floor_us, "×", Some(1.6)),
            row("memory a viewer", self.memory_kb, "KB", Some(100.0)),
            row("first frame decoded, warm camera, p50", join(0.50), "ms", None),
            row("first frame decoded, warm camera, p95", join(0.95), "ms", Some(80.0)),
        ]
    }

    fn plot(&self) -> String {
        plot::page(&[
            plot::bars(
                "CPU a packet, 300 viewers (µs)",
                &[("Manifold", self.egress_us), ("floor", self.floor_us)],
                1.9,
            ),
            plot::distribution(
                "first frame decoded, share of joins (ms)",
                &self.first_frame_ms,
                80.0,
            ),
        ])
    }

    fn page(&self, table: &str) -> Result<String> {
        Ok(format!(
            "# Performance\n\n\
             Written by `cargo xtask bench --commit-results`, which measures all of it in one run; \
             the floor is measured beside it, because machines differ.\n\n\
             Machine: {}.\n\n{table}\n\
             ![CPU a packet, and the distribution of join times](performance.svg)\n\n\
             Joins: {} of them in Chromium on loopback, spread evenly over a keyframe interval of 2 s, \
             from the WHEP POST to the first decoded frame.\n",
            machine()?,
            self.first_frame_ms.len(),
        ))
    }
}

fn number(value: &Value, key: &str) -> Result<f64> {
    value[key].as_f64().with_context(|| format!("no number `{key}` in {value}"))
}

/// The smallest value that `share` of the sorted values do not exceed (nearest rank).
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// The rows as a Markdown table.
fn table(rows: &[Row]) -> String {
    let mut text = String::from("| what | measured | target | |\n|---|---|---|---|\n");
    for row in rows {
        let (target, verdict) = match row.bound {
            Some(bound) if row.measured < bound => (format!("< {bound} {}", row.unit), "met"),
            Some(bound) => (format!("< {bound} {}", row.unit), "MISSED"),
            None => (String::new(), ""),
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| {} | {:.2} {} | {target} | {verdict} |",
            row.what, row.measured, row.unit
        );
    }
    text
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
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let sorted: Vec<f64> = (1..=30).map(f64::from).collect();

        assert_eq!(percentile(&sorted, 0.50), 15.0);
        assert_eq!(percentile(&sorted, 0.95), 29.0);
        assert_eq!(percentile(&[7.0], 0.95), 7.0);
        assert!(percentile(&[], 0.95).is_nan());
    }

    #[test]
    fn a_target_that_is_missed_is_said_to_be() {
        let row = |measured| Row { what: "memory", measured, unit: "KB", bound: Some(100.0) };

        assert!(table(&[row(99.0)]).contains("| < 100 KB | met |"));
        assert!(table(&[row(100.0)]).contains("MISSED"));
        assert!(table(&[row(f64::NAN)]).contains("MISSED"));
    }
}

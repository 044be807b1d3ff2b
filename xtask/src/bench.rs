//! `cargo xtask bench`: the numbers the project is built for, measured on this machine.
//!
//! Some parts come from `manifold bench`, the others from `e2e/bench`. The raw results go to
//! `target/bench/*.json`; tables and plots to `docs/design` only when asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::repo::Repo;
use crate::{plot, setup, step};

/// The longest that 95 of 100 joins of a camera that is already live may take.
const FIRST_FRAME_P95_MS_MAX: f64 = 80.0;

/// How often a part is tried: machines have hiccups, and one of them should not cost all results.
const ATTEMPTS_MAX: usize = 2;

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

/// What is measured: its name, who measures it, and what its table is headed with.
struct Part {
    name: &'static str,
    program: Program,
    title: &'static str,
}

/// Who measures.
#[derive(Clone, Copy)]
enum Program {
    /// `manifold bench <name> --json`.
    Manifold,
    /// `e2e/bench/<name>.mjs`.
    Node,
}

/// In the order in which they run: what needs a quiet machine first.
const PARTS: [Part; 13] = [
    Part { name: "egress", program: Program::Manifold, title: "A packet" },
    Part { name: "curve", program: Program::Manifold, title: "A packet, by viewers" },
    Part { name: "memory", program: Program::Manifold, title: "Memory" },
    Part { name: "ledger", program: Program::Manifold, title: "Reservations on a store" },
    Part { name: "voice", program: Program::Manifold, title: "A voice" },
    Part { name: "mp3", program: Program::Manifold, title: "A voice as MP3" },
    Part { name: "voice_latency", program: Program::Node, title: "From mouth to ear in Chromium" },
    Part { name: "join", program: Program::Node, title: "First picture in Chromium" },
    Part { name: "storm", program: Program::Node, title: "A storm of joins" },
    Part { name: "churn", program: Program::Node, title: "Joins and leaves" },
    Part { name: "park", program: Program::Node, title: "Many cameras" },
    Part { name: "cluster", program: Program::Node, title: "Three nodes, and one that goes" },
    Part { name: "compare", program: Program::Node, title: "Beside Janus and Pion" },
];

/// Takes hours, and is measured only where it is named. What it found last is told with the others.
const SOAK: Part = Part { name: "soak", program: Program::Node, title: "Hours" };

/// Measures, prints the tables, keeps the results. With a name only that part, and nothing but
/// `target/bench` keeps it.
pub(crate) fn run(repo: &Repo, keep: Keep, only: Option<&str>) -> Result<()> {
    let is_named = |part: &&Part| match only {
        None => part.name != SOAK.name,
        Some(name) => part.name == name,
    };
    let parts: Vec<&Part> = PARTS.iter().chain([&SOAK]).filter(is_named).collect();
    if parts.is_empty() {
        let names =
            PARTS.iter().chain([&SOAK]).map(|part| part.name).collect::<Vec<_>>().join(", ");
        bail!("there is no benchmark `{}`; there are {names}", only.unwrap_or_default());
    }
    setup::install(repo)?;
    setup::install_bench()?;
    repo.build_manifold()?;
    let mut measured = Vec::new();
    for part in parts {
        measured.push((part, part.measure(repo)?));
    }
    if only.is_none()
        && let Some(kept) = SOAK.kept(repo)?
    {
        measured.push((&SOAK, kept));
    }
    let results = Results::read(&measured)?;
    step::say(&format!("\n{}", results.tables()));
    if keep == Keep::InDocs { results.write(repo) } else { Ok(()) }
}

/// Writes what `target/bench` keeps of each part, as it was measured last: after parts were measured anew.
pub(crate) fn report(repo: &Repo) -> Result<()> {
    let mut kept = Vec::new();
    for part in &PARTS {
        let missing = || format!("{0} was never measured here: cargo xtask bench {0}", part.name);
        kept.push((part, part.kept(repo)?.with_context(missing)?));
    }
    if let Some(soak) = SOAK.kept(repo)? {
        kept.push((&SOAK, soak));
    }
    Results::read(&kept)?.write(repo)
}

impl Part {
    /// What it finds, at the first or a later attempt.
    fn measure(&self, repo: &Repo) -> Result<Value> {
        let mut attempt = 1;
        loop {
            match measure(repo, self.name, &mut self.command(repo)?) {
                Ok(found) => return Ok(found),
                Err(error) if attempt < ATTEMPTS_MAX => {
                    step::say(&format!("    once more, because of this: {error:#}"));
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What it found when it was last measured, if it ever was.
    fn kept(&self, repo: &Repo) -> Result<Option<Value>> {
        let path = kept_path(repo, self.name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn command(&self, repo: &Repo) -> Result<Command> {
        let manifold = repo.manifold();
        let manifold = manifold.to_str().context("the path of the binary is not UTF-8")?;
        Ok(match self.program {
            Program::Manifold => repo.command("", manifold, &["bench", self.name, "--json"]),
            Program::Node => {
                let script = format!("bench/{}.mjs", self.name);
                let mut command = repo.command("e2e", "node", &[script.as_str()]);
                command.env("MANIFOLD_BIN", manifold);
                command
            }
        })
    }
}

/// Runs a benchmark whose last line is JSON, and keeps that as `target/bench/<name>.json`.
fn measure(repo: &Repo, name: &str, command: &mut Command) -> Result<Value> {
    let text = step::time(&format!("benchmark {name}"), || step::output(command))?;
    let line = text.trim_end().lines().last().with_context(|| format!("{name} printed nothing"))?;
    let value = serde_json::from_str(line).with_context(|| format!("{name} printed `{line}`"))?;
    std::fs::create_dir_all(repo.target().join("bench"))?;
    std::fs::write(kept_path(repo, name), serde_json::to_string_pretty(&value)?)?;
    Ok(value)
}

fn kept_path(repo: &Repo, name: &str) -> PathBuf {
    repo.target().join("bench").join(format!("{name}.json"))
}

/// What the benchmarks found.
struct Results {
    /// Each part's figures under its title.
    tables: Vec<(&'static str, Vec<Figure>)>,
    /// What they printed, by name.
    raw: BTreeMap<&'static str, Value>,
    /// POST to first decoded frame of each join, ascending.
    first_frame_ms: Vec<f64>,
}

impl Results {
    fn read(measured: &[(&Part, Value)]) -> Result<Self> {
        let mut results =
            Self { tables: Vec::new(), raw: BTreeMap::new(), first_frame_ms: Vec::new() };
        for (part, report) in measured {
            let figures = if part.name == "join" {
                results.first_frame_ms = milliseconds(report, "first_frame_ms")?;
                join_figures(&results.first_frame_ms, &milliseconds(report, "live_ms")?)
            } else {
                list(report, "figures")?.iter().map(Figure::read).collect::<Result<_>>()?
            };
            results.tables.push((part.title, figures));
            results.raw.insert(part.name, report.clone());
        }
        Ok(results)
    }

    /// The figures as Markdown tables.
    fn tables(&self) -> String {
        let table = |(title, figures): &(&str, Vec<Figure>)| {
            let rows = figures.iter().map(Figure::row).collect::<String>();
            format!("## {title}\n\n| what | measured | target | |\n|---|---|---|---|\n{rows}\n")
        };
        self.tables.iter().map(table).collect()
    }

    fn raw(&self, name: &str) -> Result<&Value> {
        self.raw.get(name).with_context(|| format!("the benchmark {name} did not run"))
    }

    fn write(&self, repo: &Repo) -> Result<()> {
        std::fs::write(repo.path("docs/design/performance.svg"), self.plot()?)?;
        std::fs::write(repo.path("docs/design/performance.md"), self.page()?)?;
        std::fs::write(repo.path("docs/design/performance.json"), self.json()?)?;
        step::say("written: docs/design/performance.md, performance.svg, performance.json");
        Ok(())
    }

    fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(&self.raw)? + "\n")
    }

    fn plot(&self) -> Result<String> {
        let egress = self.raw("egress")?;
        let ours = number(egress, "ours_us_per_packet")?;
        let floor = number(egress, "floor_us_per_packet")?;
        let targets = list(egress, "figures")?.iter().filter(|figure| figure["unit"] == "us");
        let target = targets.filter_map(|figure| figure["target"].as_f64()).next();
        let target = target.context("no figure of the egress benchmark has a target")?;
        let ways = voice_ways(self.raw("voice")?)?;
        let compare = self.raw("compare")?;
        let rivals = list(compare, "rivals")?
            .iter()
            .map(|rival| {
                let name = rival["name"].as_str().context("a rival without a name")?;
                Ok((name, measured(rival, "usAPacket")?))
            })
            .filter(|rival| rival.as_ref().map_or(true, |(_, value)| !value.is_nan()))
            .collect::<Result<Vec<_>>>()?;
        let mut panels = vec![
            plot::bars(
                "CPU a packet, 300 viewers (µs)",
                &[("Manifold", ours), ("floor", floor)],
                Some(target),
            ),
            plot::curve("CPU a packet by viewers (µs)", &curves(self.raw("curve")?)?),
            plot::bars(
                "A voice's packet from in to out, by listeners (ms)",
                &ways.iter().map(|(name, way)| (name.as_str(), *way)).collect::<Vec<_>>(),
                Some(number(self.raw("voice")?, "way_ms_max")?),
            ),
            plot::bars("CPU a packet beside others, whole server (µs)", &rivals, None),
            plot::distribution(
                "First frame decoded, share of joins (ms)",
                &self.first_frame_ms,
                FIRST_FRAME_P95_MS_MAX,
            ),
        ];
        if let Some(soak) = self.raw.get(SOAK.name) {
            let title = "Resident memory over hours, viewers come and go (MB)";
            panels.push(plot::timeline(title, &resident(soak)?));
        }
        Ok(plot::page(&panels))
    }

    fn page(&self) -> Result<String> {
        Ok(format!(
            "# Performance\n\n\
             Written by `cargo xtask bench --commit-results`, which measures all of it, or by \
             `cargo xtask bench report`, which takes each part as it was measured last. Floors and \
             others' servers are measured in one run with what stands beside them, because machines \
             differ. The raw results are in [performance.json](performance.json).\n\n\
             Machine: {}.\n\n\
             ![CPU a packet, by viewers and beside others, and the distribution of join times]\
             (performance.svg)\n\n{}{METHOD}",
            machine()?,
            self.tables(),
        ))
    }
}

/// How the numbers come about: the end of the page.
const METHOD: &str = "\
## Method

Cameras, server and viewers share the machine's cores, on loopback.

- **A packet**: the server's own fan-out and sending in one thread, to sockets that nobody reads. The
  floor is AES-GCM and the same system call, nothing else. All contestants send in turns; medians.
- **A packet, by viewers**: the same at 10, 100, 300 and 1,000 viewers.
- **Reservations on a store**: a redis-server on the same machine; each caller reserves and releases in turn.
  Reservations are timed from when their turn was, so that whoever waited because an earlier one took long
  counts too. First the ledger is asked as the server's own parts ask it, then a whole server by HTTP over
  connections that stay open. All of them, callers included, share the cores.
- **A voice**: CPU a packet as above, for listeners of sound alone. For the rest the real server, a whole
  WebRTC speaker of 50 packets a second, and listeners that come by the relay's WebSocket and are real up
  to the keys. A packet's way is from just before the speaker's `sendto` to the kernel's note of its
  arrival at a listener, with all of them on the same cores. Listeners that join and leave close their
  WebSocket as soon as they heard something.
- **First picture**: 30 joins in Chromium, spread evenly over a keyframe interval of 2 s, from the WHEP
  POST to the first decoded frame, and to the first that was captured at most 150 ms before.
- **Storm, joins and leaves, many cameras**: the real server. The viewers are those of `manifold load`
  ([load.md](../ref/load.md)): real up to the keys, cheap from there on; times of arrival are the
  kernel's. Cameras are those of `manifold bench cameras`, 2 Mbit/s each, and take a part of the machine
  as the viewers do. With many cameras, delays are those of the last 50 viewers, who come when all others
  play; frames are left out where a worker has more of them waiting than it can send in time.
- **Three nodes**: a redis-server and three whole servers. The one that goes is the origin of 12 cameras with a
  keyframe each 2 s, which are watched at all three; 5 places there are reserved and not used. It is killed
  (SIGKILL), stands still as a machine that is dead (SIGSTOP), or ends (SIGTERM). Times are from the signal to
  what is seen from outside, a look each 20 ms: the store's own keys, and the answers of the other two. The gap is
  the longest that one of their 24 viewers had. The cost is that of 100 cameras with 300 viewers at one node, then
  with 100 at each of three, where each camera is pulled once and fed on twice.
- **Hours**: 20 cameras, 10 viewers who stay, a voice from one page to another, and over and over 400 joins
  and leaves with a rest after them; measured by itself (`cargo xtask bench soak`), other programs beside it
  or not. The looks at rest of the last third are compared with those of the second, by their medians.
- **Beside Janus and Pion**: one camera, the same viewers, one server after the other. Manifold pulls the
  camera; the others get its pictures as RTP by UDP, already cut into packets. The viewers take each
  datagram by itself, so that nobody gains by segments that are never taken apart. CPU is the whole
  server's, from /proc, over the packets that arrived; memory is what it grew by, a viewer, after a first
  one had come and left. Janus is
  Debian's, its streaming plugin behind a shim that turns WHEP into its own API. Pion is Debian's, in a
  program as its examples are, with the default interceptors.
";

/// Of the lists that the join benchmark measures.
fn join_figures(first_frame_ms: &[f64], live_ms: &[f64]) -> Vec<Figure> {
    [
        ("first frame decoded", first_frame_ms, 50.0, None),
        ("first frame decoded", first_frame_ms, 95.0, Some(FIRST_FRAME_P95_MS_MAX)),
        ("first frame decoded that is live", live_ms, 50.0, None),
        ("first frame decoded that is live", live_ms, 95.0, None),
    ]
    .map(|(what, sorted, share, target)| Figure {
        name: format!("{what}, Chromium, warm camera, p{share}"),
        unit: "ms".to_owned(),
        value: percentile(sorted, share),
        target,
    })
    .into()
}

/// The medians and worst hundredths of a voice's way, by listeners: `300 listeners: packet in to packet
/// out, p99`.
fn voice_ways(report: &Value) -> Result<Vec<(String, f64)>> {
    let mut ways = Vec::new();
    for figure in list(report, "figures")? {
        let name = figure["name"].as_str().unwrap_or_default();
        let value = measured(figure, "value")?;
        let Some((listeners, share)) = name.split_once(": packet in to packet out, ") else {
            continue;
        };
        let count = listeners.split(' ').next().unwrap_or_default();
        if !value.is_nan() {
            ways.push((format!("{count}, {share}"), value));
        }
    }
    Ok(ways)
}

/// Hours since the begin of a soak, and megabytes.
fn resident(soak: &Value) -> Result<Vec<(f64, f64)>> {
    let looks = list(soak, "timeline")?.iter();
    looks
        .map(|look| Ok((number(look, "at_s")? / 3_600.0, number(look, "residentKb")? / 1e3)))
        .collect()
}

/// A curve's name and its points.
type Curve = (String, Vec<(f64, f64)>);

/// `300 viewers: video` in microseconds is a point of the curve `video`.
fn curves(report: &Value) -> Result<Vec<Curve>> {
    let mut curves: Vec<Curve> = Vec::new();
    for figure in list(report, "figures")? {
        let name = figure["name"].as_str().unwrap_or_default();
        let Some((viewers, of)) = name.split_once(" viewers: ") else { continue };
        let value = measured(figure, "value")?;
        if figure["unit"] != "us" || value.is_nan() {
            continue;
        }
        let point = (viewers.parse()?, value);
        match curves.iter_mut().find(|(known, _)| known == of) {
            Some((_, points)) => points.push(point),
            None => curves.push((of.to_owned(), vec![point])),
        }
    }
    Ok(curves)
}

impl Figure {
    /// As `manifold bench --json` writes one.
    fn read(value: &Value) -> Result<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Ok(Self {
            name: text("name").with_context(|| format!("no name in {value}"))?,
            unit: text("unit").unwrap_or_default(),
            value: measured(value, "value")?,
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
        if value.is_nan() {
            return format!("| {name} | nothing came | {judged}\n");
        }
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

/// A figure's value. JSON has no NaN, and says `null` of what could not be measured.
fn measured(value: &Value, key: &str) -> Result<f64> {
    if value.get(key).is_some_and(Value::is_null) {
        return Ok(f64::NAN);
    }
    number(value, key)
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
        // JSON of it is null.
        assert_eq!(row(f64::NAN), "| memory | nothing came | < 100 KB | MISSED |\n");
    }

    #[test]
    fn what_the_benchmarks_print_becomes_tables_and_plots() {
        let figure = |name: &str| json!({"name": name, "unit": "us", "value": 1.5, "target": 1.9});
        let egress = json!({
            "ours_us_per_packet": 1.5, "floor_us_per_packet": 1.2, "figures": [figure("video egress")],
        });
        let points = ["10 viewers: video", "300 viewers: video"].map(figure);
        let way = json!({
            "name": "300 listeners: packet in to packet out, p99", "unit": "ms", "value": 1.25,
        });
        let join = json!({"first_frame_ms": [40.0, 50.0, 90.0], "live_ms": [50.0, 60.0, 99.0]});
        let rivals =
            json!([{"name": "Manifold", "usAPacket": 2.0}, {"name": "Pion", "usAPacket": 20.0}]);
        let reports = PARTS.iter().map(|part| {
            let report = match part.name {
                "egress" => egress.clone(),
                "curve" => json!({"figures": points}),
                "voice" => json!({"way_ms_max": 2.0, "figures": [way]}),
                "join" => join.clone(),
                "compare" => json!({"figures": [], "rivals": rivals}),
                _ => json!({"figures": []}),
            };
            (part, report)
        });

        let results = Results::read(&reports.collect::<Vec<_>>()).unwrap();

        let tables = results.tables();
        assert!(tables.contains("| video egress | 1.50 us | < 1.9 us | met |"));
        assert!(tables.contains("p95 | 90.00 ms | < 80 ms | MISSED |"));
        assert!(tables.contains("live, Chromium, warm camera, p95 | 99.00 ms |  | |"));
        let plot = results.plot().unwrap();
        assert!(plot.contains(">300, p99<") && plot.contains(">1.25<"), "{plot}");
        assert!(plot.contains("target 80") && plot.contains(">Pion<") && plot.contains(">20.00<"));
        let curves = curves(&results.raw["curve"]).unwrap();
        assert_eq!(curves, [("video".to_owned(), vec![(10.0, 1.5), (300.0, 1.5)])]);
    }
}

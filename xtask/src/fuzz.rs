//! `cargo xtask fuzz`: libFuzzer over what strangers may send, on stable Rust and without cargo-fuzz.
//!
//! The compiler puts counters into our code and all libraries below it; libfuzzer-sys brings the
//! fuzzer itself. Inputs that are worth keeping lie in `fuzz/corpus` and are fed by `cargo test` too;
//! what a run finds anew stays below `target/fuzz`.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::repo::Repo;
use crate::step;

/// How long each target runs, if nothing else is said.
const SECONDS: u64 = 60;

/// Targets at once: one a core of the machine that CI has.
const AT_ONCE: usize = 2;

/// Between two lines that tell how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Between two looks at what runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Longest input in bytes: an offer of a browser has 8 KiB, a frame in a few packets less.
const INPUT_BYTES_MAX: u32 = 16_384;

/// Seconds after which one input is a finding: the slowest take some milliseconds.
const INPUT_SECONDS_MAX: u32 = 10;

/// Lines of a failed target's log that are shown.
const LINES_SHOWN: usize = 40;

/// Lines of a panic's message that the error repeats: the place, and both sides of what should be equal.
const REASON_LINES_MAX: usize = 6;

/// The step that builds them.
const BUILD: &str = "fuzz targets";

/// What makes the compiler count edges and comparisons for libFuzzer.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// What is asked for on the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    /// All of them if not given.
    target: Option<&'a str>,
    seconds: u64,
    then: Then,
}

/// What follows the build.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    /// New inputs are looked for.
    Fuzz,
    /// `fuzz/corpus` becomes the smallest set that reaches all that was ever reached.
    Minimise,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self { target: None, seconds: SECONDS, then: Then::Fuzz }
    }
}

impl<'a> Wanted<'a> {
    /// `[TARGET] [--seconds N] [--minimise]`; `None` where it is something else.
    pub(crate) fn read(words: &[&'a str]) -> Option<Self> {
        let mut wanted = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--seconds" => wanted.seconds = words.next()?.parse().ok()?,
                "--minimise" => wanted.then = Then::Minimise,
                flag if flag.starts_with('-') => return None,
                target if wanted.target.is_none() => wanted.target = Some(target),
                _ => return None,
            }
        }
        Some(wanted)
    }
}

/// Builds the targets and runs them.
pub(crate) fn run(repo: &Repo, wanted: &Wanted<'_>) -> Result<()> {
    // Before the build, which takes minutes.
    targets(repo, wanted.target)?;
    step::run(BUILD, &mut build(repo)?)?;
    feed(repo, wanted)
}

/// Builds the targets while another step is at work.
pub(crate) fn build_apart(repo: &Repo) -> Result<()> {
    step::run_apart(BUILD, &mut build(repo)?)
}

/// Runs the targets, which are built.
fn feed(repo: &Repo, wanted: &Wanted<'_>) -> Result<()> {
    let targets = targets(repo, wanted.target)?;
    let fuzzer = Fuzzer {
        programs: folder(repo).join(host_triple()?).join("release"),
        root: repo.path("fuzz"),
        found: folder(repo).join("found"),
        logs: folder(repo).join("logs"),
        crashes: folder(repo).join("crashes"),
        seconds: wanted.seconds,
    };
    match wanted.then {
        Then::Fuzz => step::time("fuzzing", || fuzzer.fuzz_all(targets)),
        Then::Minimise => targets.iter().try_for_each(|target| fuzzer.minimise(target)),
    }
}

/// The names of the files in `fuzz/targets`.
fn targets(repo: &Repo, only: Option<&str>) -> Result<Vec<String>> {
    let folder = repo.path("fuzz/targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    let Some(only) = only else { return Ok(names) };
    if names.iter().any(|name| name == only) {
        return Ok(vec![only.to_owned()]);
    }
    bail!("there is no fuzz target `{only}`; there are {}", names.join(", "))
}

fn folder(repo: &Repo) -> PathBuf {
    repo.target().join("fuzz")
}

/// With the triple named, cargo leaves build scripts and macros without the flags.
fn build(repo: &Repo) -> Result<Command> {
    // The same libraries as in the program; cargo adds libfuzzer-sys and what that needs.
    std::fs::copy(repo.path("Cargo.lock"), repo.path("fuzz/Cargo.lock"))?;
    let mut command = repo.cargo(&["build", "--release", "--bins", "--target", &host_triple()?]);
    command
        .args(["--manifest-path", "fuzz/Cargo.toml"])
        .env("CARGO_TARGET_DIR", folder(repo))
        .env("RUSTFLAGS", COVERAGE);
    Ok(command)
}

fn host_triple() -> Result<String> {
    let version = step::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

/// Where everything lies, and how long it runs.
struct Fuzzer {
    programs: PathBuf,
    root: PathBuf,
    found: PathBuf,
    logs: PathBuf,
    crashes: PathBuf,
    seconds: u64,
}

/// A target that runs. Ended with its owner.
struct Running {
    target: String,
    log: PathBuf,
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Fuzzer {
    /// Some at a time; the first that finds something ends the rest.
    fn fuzz_all(&self, targets: Vec<String>) -> Result<()> {
        let mut waiting = VecDeque::from(targets);
        let mut running: Vec<Running> = Vec::new();
        let mut told = Instant::now();
        loop {
            while running.len() < AT_ONCE
                && let Some(target) = waiting.pop_front()
            {
                running.push(self.start(target)?);
            }
            if running.is_empty() {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
            let mut still = Vec::new();
            for mut one in running {
                match one.child.try_wait()? {
                    None => still.push(one),
                    Some(status) if status.success() => {
                        step::say(&format!("    {}: {}", one.target, last_status(&one.log)));
                    }
                    Some(status) => return Err(self.finding(&one, &status.to_string())),
                }
            }
            running = still;
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                for one in &running {
                    step::say(&format!("    … {}: {}", one.target, last_status(&one.log)));
                }
            }
        }
    }

    fn start(&self, target: String) -> Result<Running> {
        let found = self.found.join(&target);
        let crashes = self.crashes.join(&target);
        for folder in [&found, &crashes, &self.logs] {
            std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
        }
        let log = self.logs.join(format!("{target}.log"));
        let output = File::create(&log).with_context(|| format!("{}", log.display()))?;
        let mut command = Command::new(self.programs.join(&target));
        command
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-artifact_prefix={}/", crashes.display()))
            .args(["-rss_limit_mb=1024", "-print_final_stats=1"])
            .args(self.dictionary(&target))
            .arg(found)
            .arg(self.root.join("corpus").join(&target))
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = command.spawn().with_context(|| format!("fuzz target {target}"))?;
        Ok(Running { target, log, child })
    }

    fn dictionary(&self, target: &str) -> Option<String> {
        let path = self.root.join("dictionaries").join(format!("{target}.dict"));
        path.exists().then(|| format!("-dict={}", path.display()))
    }

    /// Why it failed, what to look at and what to run.
    fn finding(&self, one: &Running, status: &str) -> anyhow::Error {
        let log = read(&one.log);
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(LINES_SHOWN)..] {
            step::say(line);
        }
        let target = &one.target;
        let why = reason(&lines).unwrap_or_else(|| format!("it ended with {status}"));
        let log_at = one.log.display();
        let prefix = "Test unit written to ";
        let input = log.lines().find_map(|line| Some(line.split_once(prefix)?.1.trim()));
        let Some(input) = input else {
            return anyhow::anyhow!("{target} failed:\n  {why}\nits log:\n  {log_at}");
        };
        let program = self.programs.join(target);
        anyhow::anyhow!(
            "{target} failed:\n  {why}\nits log:\n  {log_at}\nthe input:\n  {input}\nagain:\n  \
             {} {input}\nas a test for ever:\n  cp {input} fuzz/corpus/{target}/",
            program.display()
        )
    }

    /// Puts the smallest set of inputs, committed and found, in the place of the committed ones.
    fn minimise(&self, target: &str) -> Result<()> {
        let corpus = self.root.join("corpus").join(target);
        let kept = self.found.join(format!("{target}.kept"));
        if kept.exists() {
            std::fs::remove_dir_all(&kept)?;
        }
        std::fs::create_dir_all(&kept)?;
        let mut merge = Command::new(self.programs.join(target));
        merge.args(["-merge=1", "-max_len=4096"]).arg(&kept).arg(&corpus);
        merge.args(Some(self.found.join(target)).filter(|found| found.exists()));
        step::output(&mut merge)?;
        // Inputs with a name that a person chose stay: they say what they are.
        for input in files(&corpus)?.iter().filter(|input| is_named_by_hash(input)) {
            std::fs::remove_file(input)?;
        }
        let named: Vec<_> = files(&corpus)?.iter().map(std::fs::read).collect::<Result<_, _>>()?;
        for input in files(&kept)? {
            if named.contains(&std::fs::read(&input)?) {
                continue;
            }
            std::fs::copy(&input, corpus.join(input.file_name().unwrap_or_default()))?;
        }
        step::say(&format!("    {target}: {} inputs", files(&corpus)?.len()));
        Ok(())
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// libFuzzer names inputs by their SHA-1.
fn is_named_by_hash(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The panic's place and message, or what libFuzzer itself found: out of time, out of memory.
fn reason(log: &[&str]) -> Option<String> {
    let belongs = |line: &&str| !(line.starts_with("note: ") || line.starts_with("=="));
    let told: Vec<&str> = match log.iter().position(|line| line.contains("panicked at ")) {
        Some(panic) => log[panic..].iter().copied().take_while(belongs).collect(),
        None => log.iter().copied().filter(|line| line.contains("ERROR: libFuzzer")).collect(),
    };
    let told = &told[..told.len().min(REASON_LINES_MAX)];
    (!told.is_empty()).then(|| told.join("\n  "))
}

/// The newest line in which libFuzzer counts, from the number of inputs on.
fn last_status(log: &Path) -> String {
    let log = read(log);
    let line = log.lines().rev().find(|line| line.starts_with('#') && line.contains("cov: "));
    line.map_or_else(|| "begins".to_owned(), |line| line.replace('\t', " "))
}

fn read(log: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line() {
        let wanted = |words: &[&'static str]| Wanted::read(words);
        assert_eq!(wanted(&[]), Some(Wanted::default()));
        let one = Wanted { target: Some("rtcp"), seconds: 5, then: Then::Fuzz };
        assert_eq!(wanted(&["rtcp", "--seconds", "5"]), Some(one));
        assert_eq!(wanted(&["--seconds"]), None);
        assert_eq!(wanted(&["rtcp", "rtp"]), None);
        assert_eq!(wanted(&["--often"]), None);
    }

    #[test]
    fn a_finding_begins_with_the_panic() {
        let panic = [
            "#2785768\tREDUCE cov: 650 ft: 3895",
            "thread '<unnamed>' (7) panicked at crates/media/src/fuzz/rtp.rs:91:9:",
            "assertion `left == right` failed: frames differ",
            "  left: 1",
            " right: 2",
            "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
            "==7== ERROR: libFuzzer: deadly signal",
        ];
        assert_eq!(reason(&panic), Some(panic[1..5].join("\n  ")));

        let slow = ["#2\tINITED cov: 650", "==7== ERROR: libFuzzer: timeout after 10 seconds"];
        assert_eq!(reason(&slow), Some(slow[1].to_owned()));

        assert_eq!(reason(&["#2\tINITED cov: 650"]), None);
    }

    #[test]
    fn inputs_that_a_person_named_are_told_from_found_ones() {
        assert!(is_named_by_hash(Path::new("a/da39a3ee5e6b4b0d3255bfef95601890afd80709")));
        assert!(!is_named_by_hash(Path::new("a/lying-length")));
    }
}

//! Browser test files side by side, each a process of Node's test runner.
//!
//! That runner by itself takes files in the order of their names. Here they begin in the order that is
//! asked for, and what a file prints is shown whole when it has ended, with its time.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::repo::Repo;
use crate::step;

/// How names of test files end.
pub(crate) const ENDING: &str = ".test.mjs";

/// Files of which some run at once.
pub(crate) struct Lane {
    /// In the order in which they begin.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) at_once: usize,
}

/// Runs all lanes at once, as one step. All files run, also when some fail.
pub(crate) fn run(repo: &Repo, title: &str, lanes: Vec<Lane>) -> Result<()> {
    let files: Vec<&PathBuf> = lanes.iter().flat_map(|lane| &lane.files).collect();
    match files.as_slice() {
        [] => Ok(()),
        // Somebody waits for it: shown as it comes.
        [file] => step::run(title, node_tests(repo).arg(file)),
        _ => step::time(title, || side_by_side(repo, lanes)),
    }
}

/// Node's test runner. Each file starts its own servers, cameras and browsers.
pub(crate) fn node_tests(repo: &Repo) -> Command {
    let mut command =
        repo.command("e2e", "node", &["--test", "--test-reporter=spec", "--test-timeout=300000"]);
    command.env("MANIFOLD_BIN", repo.manifold());
    command
}

/// `wall` of `e2e/tests/wall.test.mjs`.
pub(crate) fn name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(ENDING).unwrap_or(&name).to_owned()
}

fn side_by_side(repo: &Repo, lanes: Vec<Lane>) -> Result<()> {
    let ran = Mutex::new(Vec::new());
    let take_in_turn = |waiting: &Mutex<VecDeque<PathBuf>>| {
        // A call of its own, so that the queue is free while the file runs.
        let next = || locked(waiting).pop_front();
        while let Some(file) = next() {
            let done = one(repo, &file);
            locked(&ran).push(done);
        }
    };
    let lanes: Vec<_> = lanes
        .into_iter()
        .map(|lane| (Mutex::new(VecDeque::from(lane.files)), lane.at_once))
        .collect();
    std::thread::scope(|scope| {
        for (waiting, at_once) in &lanes {
            for _ in 0..*at_once {
                scope.spawn(|| take_in_turn(waiting));
            }
        }
    });
    let ran: Result<Vec<Ran>> = locked(&ran).drain(..).collect();
    judge(&ran?)
}

/// What is left when somebody who held it has panicked is still right.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a file's tests went.
struct Ran {
    file: String,
    /// Whether Node says so of the whole file.
    well: bool,
    passed: usize,
}

fn one(repo: &Repo, file: &Path) -> Result<Ran> {
    let start = Instant::now();
    let file_name = name(file);
    let output = node_tests(repo).arg(file).output().context("`node` does not start")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().filter(|line| sum(line).is_none()).collect();
    let seconds = start.elapsed().as_secs_f64();
    step::say(&format!("--- {file_name}: {seconds:.1} s\n{}", lines.join("\n").trim_end()));
    let passed = said.lines().filter_map(sum).find(|(what, _)| *what == "pass");
    Ok(Ran { file: file_name, well: output.status.success(), passed: passed.map_or(0, |(_, n)| n) })
}

/// One of the sums that Node prints below the tests of a file: `ℹ pass 12`.
fn sum(line: &str) -> Option<(&str, usize)> {
    let (what, number) = line.strip_prefix("ℹ ")?.split_once(' ')?;
    let sums = ["tests", "suites", "pass", "fail", "cancelled", "skipped", "todo", "duration_ms"];
    // The time has a fraction, which nobody needs.
    let number = number.split('.').next()?.parse().ok()?;
    sums.contains(&what).then_some((what, number))
}

/// Names the files that failed.
fn judge(ran: &[Ran]) -> Result<()> {
    let passed: usize = ran.iter().map(|file| file.passed).sum();
    let failed: Vec<&str> =
        ran.iter().filter(|file| !file.well).map(|file| file.file.as_str()).collect();
    step::say(&format!("    {} files, {passed} tests passed", ran.len()));
    if failed.is_empty() {
        return Ok(());
    }
    bail!("tests failed in {}; what they said is above, after `---`", failed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_below_the_tests_are_told_from_what_tests_say() {
        assert_eq!(sum("ℹ pass 12"), Some(("pass", 12)));
        assert_eq!(sum("ℹ duration_ms 217894.916762"), Some(("duration_ms", 217_894)));
        assert_eq!(sum("ℹ page 0: /e2e/.out/page-0.png"), None);
        assert_eq!(sum("ℹ pass the salt"), None);
        assert_eq!(sum("✔ a wall of 2 plays (3584.7ms)"), None);
    }

    #[test]
    fn one_file_that_fails_fails_all_and_is_named() {
        let ran = |file: &str, well| Ran { file: file.to_owned(), well, passed: 3 };

        assert!(judge(&[ran("leave", true), ran("wall", true)]).is_ok());
        let error = judge(&[ran("leave", true), ran("wall", false)]).unwrap_err();
        assert!(error.to_string().starts_with("tests failed in wall;"), "{error}");
    }
}

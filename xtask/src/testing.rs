//! `cargo xtask test`: every test there is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::repo::Repo;
use crate::{setup, step};

/// Browser test files that measure what the machine must be free for: rates, delays, CPU. One runs at a
/// time. All others wait for conditions, much of the time for leases to end and cameras to come back.
const MEASURING: [&str; 10] = [
    "bad_network",
    "leave",
    "lip_sync",
    "load",
    "page_keyboard",
    "page_look",
    "synthetic",
    "voice_loss",
    "wall",
    "whep",
];

/// Files of the others at once: one a core of the machine that CI has.
const AT_ONCE: usize = 2;

/// Set-up, Rust tests, page tests, release binary, browser tests. With a filter: the browser tests
/// whose file name contains it, and nothing else.
pub(crate) fn run(repo: &Repo, filter: Option<&str>) -> Result<()> {
    if let Err(error) = setup::install(repo) {
        // The tests whose part is missing fail with the line that installs it; the others count.
        step::say(&format!("warning: {error:#}"));
    }
    if filter.is_none() {
        step::run("Rust tests", &mut repo.cargo(&["test", "--workspace"]))?;
        step::run("page tests", &mut repo.command("web", "npm", &["test", "--silent"]))?;
    }
    repo.build_manifold()?;
    let files = test_files(repo, filter.unwrap_or_default())?;
    let (alone, beside): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| measures(file));
    let lanes = [("browser tests", beside, AT_ONCE), ("browser tests that measure", alone, 1)];
    // All of them, also when some fail: each failure is worth knowing.
    let ran = lanes.map(|(title, files, at_once)| {
        if files.is_empty() {
            return Ok(());
        }
        step::run(title, &mut node_tests(repo, &files, at_once))
    });
    ran.into_iter().collect()
}

fn measures(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    MEASURING.iter().any(|measuring| name == format!("{measuring}.test.mjs"))
}

/// The browser tests whose file name contains `part`, one file after the other.
pub(crate) fn browser_tests(repo: &Repo, part: &str) -> Result<Command> {
    Ok(node_tests(repo, &test_files(repo, part)?, 1))
}

/// Node's test runner. Each file starts its own servers, cameras and browsers.
fn node_tests(repo: &Repo, files: &[PathBuf], at_once: usize) -> Command {
    let mut command =
        repo.command("e2e", "node", &["--test", "--test-reporter=spec", "--test-timeout=300000"]);
    command.arg(format!("--test-concurrency={at_once}"));
    command.args(files).env("MANIFOLD_BIN", repo.manifold());
    command
}

fn test_files(repo: &Repo, part: &str) -> Result<Vec<PathBuf>> {
    let folder = repo.path("e2e/tests");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".test.mjs") && name.contains(part) {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        bail!("no file in e2e/tests has `{part}` in its name");
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_measures_is_there() {
        let files = test_files(&Repo::find().unwrap(), "").unwrap();
        let measuring = files.iter().filter(|file| measures(file)).count();
        assert_eq!(measuring, MEASURING.len());
    }
}

//! `cargo xtask test`: every test there is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::browser::{self, Lane};
use crate::repo::Repo;
use crate::{setup, step};

/// Browser test files that measure what the machine must be free for: rates, delays, CPU. One runs at a
/// time. All others wait for conditions, much of the time for leases to end and cameras to come back.
const MEASURING: [&str; 11] = [
    "bad_network",
    "commands",
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

/// Files that do nothing but wait for most of their time, the longest first: less than a quarter of a core
/// each. One of them runs beside the others.
const WAITING: [&str; 4] = ["store", "runbook_voice", "voice_signal", "reserve"];

/// Of the others, those that take the longest, in that order: they begin first, so that none is left to run
/// on alone.
const LONG: [&str; 10] = [
    "cluster",
    "codecs",
    "cluster_whole",
    "live",
    "talk",
    "runbook",
    "reach",
    "tokens",
    "edge",
    "switch",
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
    match filter {
        None => without_browsers(repo)?,
        Some(_) => repo.build_manifold()?,
    }
    in_browsers(repo, filter.unwrap_or_default())
}

/// Rust tests and page tests, with the release binary built on the way: beside the build of the tests, for
/// either leaves a core idle while a large crate is compiled. The tests have the machine to themselves.
fn without_browsers(repo: &Repo) -> Result<()> {
    step::beside(&[&|| repo.build_manifold_apart()], || {
        step::run("build of the Rust tests", &mut repo.cargo(&["test", "--workspace", "--no-run"]))
    })?;
    step::run("Rust tests", &mut repo.cargo(&["test", "--workspace"]))?;
    step::run("page tests", &mut repo.command("web", "npm", &["test", "--silent"]))
}

/// The browser tests whose file name contains `part`, against the release binary.
fn in_browsers(repo: &Repo, part: &str) -> Result<()> {
    let (alone, beside): (Vec<_>, Vec<_>) =
        test_files(repo, part)?.into_iter().partition(|file| place(file, &MEASURING).is_some());
    let (mut waiting, mut busy): (Vec<_>, Vec<_>) =
        beside.into_iter().partition(|file| place(file, &WAITING).is_some());
    waiting.sort_by_key(|file| place(file, &WAITING));
    busy.sort_by_key(|file| place(file, &LONG).unwrap_or(LONG.len()));
    let beside = vec![Lane { files: busy, at_once: AT_ONCE }, Lane { files: waiting, at_once: 1 }];
    let alone = vec![Lane { files: alone, at_once: 1 }];
    // All of them, also when some fail: each failure is worth knowing.
    let ran = [
        browser::run(repo, "browser tests", beside),
        browser::run(repo, "browser tests that measure", alone),
    ];
    ran.into_iter().collect()
}

/// Where a test file stands in a list of names.
fn place(file: &Path, names: &[&str]) -> Option<usize> {
    let file = browser::name(file);
    names.iter().position(|name| *name == file)
}

/// The browser tests whose file name contains `part`, one file after the other.
pub(crate) fn browser_tests(repo: &Repo, part: &str) -> Result<Command> {
    let mut command = browser::node_tests(repo);
    command.arg("--test-concurrency=1").args(test_files(repo, part)?);
    Ok(command)
}

fn test_files(repo: &Repo, part: &str) -> Result<Vec<PathBuf>> {
    let folder = repo.path("e2e/tests");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(browser::ENDING) && name.contains(part) {
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
    fn what_is_named_is_there_and_named_once() {
        let files = test_files(&Repo::find().unwrap(), "").unwrap();
        let named = [&MEASURING[..], &WAITING, &LONG].concat();
        for name in &named {
            let found = files.iter().filter(|file| browser::name(file) == *name).count();
            assert_eq!(found, 1, "{name}");
            assert_eq!(named.iter().filter(|other| *other == name).count(), 1, "{name}");
        }
    }
}

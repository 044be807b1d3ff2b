//! `cargo xtask test`: every test there is.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::repo::Repo;
use crate::{setup, step};

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
    step::run("browser tests", &mut browser_tests(repo, filter)?)
}

/// Node's test runner over the browser tests, one file after the other: each starts its own
/// server, cameras and browsers, and two at once would measure each other.
pub(crate) fn browser_tests(repo: &Repo, filter: Option<&str>) -> Result<Command> {
    let files = test_files(repo, filter.unwrap_or_default())?;
    let mut command = repo.command(
        "e2e",
        "node",
        &["--test", "--test-concurrency=1", "--test-reporter=spec", "--test-timeout=300000"],
    );
    command.args(files).env("MANIFOLD_BIN", repo.manifold());
    Ok(command)
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

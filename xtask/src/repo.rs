//! Where things lie in the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::step;

/// The root of the repository, and the paths below it that chores use.
pub(crate) struct Repo {
    root: PathBuf,
}

impl Repo {
    /// The repository that this xtask was built from.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask/ has no parent folder")?
            .to_owned();
        Ok(Self { root })
    }

    /// A path below the root.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// cargo's target folder, wherever the environment puts it.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.path("target"), PathBuf::from)
    }

    /// The release binary that browser tests and benchmarks run; `MANIFOLD_BIN` overrides it.
    pub(crate) fn manifold(&self) -> PathBuf {
        std::env::var_os("MANIFOLD_BIN")
            .map_or_else(|| self.target().join("release/manifold"), PathBuf::from)
    }

    /// A command that runs in `folder` below the root.
    pub(crate) fn command(&self, folder: &str, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.path(folder));
        command
    }

    /// cargo, in the root.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        self.command("", &cargo, arguments)
    }

    /// Builds the release binary, unless `MANIFOLD_BIN` names one.
    pub(crate) fn build_manifold(&self) -> Result<()> {
        self.build_manifold_as(step::run)
    }

    /// The same while another step is at work.
    pub(crate) fn build_manifold_apart(&self) -> Result<()> {
        self.build_manifold_as(step::run_apart)
    }

    fn build_manifold_as(&self, run: fn(&str, &mut Command) -> Result<()>) -> Result<()> {
        if std::env::var_os("MANIFOLD_BIN").is_some() {
            step::say(&format!("using {} (MANIFOLD_BIN)", self.manifold().display()));
            return Ok(());
        }
        run("release binary", &mut self.cargo(&["build", "--release", "--package", "server"]))
    }
}

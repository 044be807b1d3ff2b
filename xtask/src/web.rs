//! `cargo xtask web`: the page, built into `web/dist`, which is committed.

use anyhow::{Result, bail};

use crate::repo::Repo;
use crate::{setup, step};

/// Builds `web/dist`.
pub(crate) fn build(repo: &Repo) -> Result<()> {
    setup::npm(repo, "web")?;
    step::run("web/dist", &mut repo.command("web", "npm", &["run", "--silent", "build"]))
}

/// Builds `web/dist` and fails where that changes anything against the commit.
pub(crate) fn check(repo: &Repo) -> Result<()> {
    build(repo)?;
    let changed = step::output(&mut repo.command(
        "",
        "git",
        &["status", "--porcelain", "--untracked-files=all", "--", "web/dist"],
    ))?;
    if !changed.trim().is_empty() {
        bail!(
            "web/dist is not what web/src builds; commit the result of `cargo xtask web`:\n{changed}"
        );
    }
    Ok(())
}

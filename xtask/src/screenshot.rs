//! `cargo xtask screenshot`: the picture in the README, made by the browser test of the page.

use anyhow::Result;

use crate::repo::Repo;
use crate::{setup, step, testing};

/// Writes `docs/guide/wall.png`.
pub(crate) fn run(repo: &Repo) -> Result<()> {
    setup::install(repo)?;
    repo.build_manifold()?;
    let mut command = testing::browser_tests(repo, "page_look")?;
    command.env("MANIFOLD_SCREENSHOT", repo.path("docs/guide/wall.png"));
    step::run("docs/guide/wall.png", &mut command)
}

//! `cargo xtask screenshot`: the pictures of the README and the guide, made by the browser tests of the
//! pages.

use anyhow::Result;

use crate::repo::Repo;
use crate::{setup, step, testing};

/// Which file of tests makes which picture, and the variable that asks for it.
const PICTURES: &[(&str, &str, &str)] = &[
    ("page_look", "MANIFOLD_SCREENSHOT", "docs/guide/wall.png"),
    ("talk.", "MANIFOLD_TALK_SCREENSHOT", "docs/guide/talk.png"),
];

/// Writes all pictures.
pub(crate) fn run(repo: &Repo) -> Result<()> {
    setup::install(repo)?;
    repo.build_manifold()?;
    for (tests, variable, picture) in PICTURES {
        let mut command = testing::browser_tests(repo, tests)?;
        command.env(variable, repo.path(picture));
        step::run(picture, &mut command)?;
    }
    Ok(())
}

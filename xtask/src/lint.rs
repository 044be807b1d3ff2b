//! `cargo xtask ci`: what CI checks beside the tests.

use anyhow::Result;

use crate::repo::Repo;
use crate::{setup, step, web};

/// Format, clippy, docs and the committed page. Warnings are errors.
pub(crate) fn run(repo: &Repo) -> Result<()> {
    before_builds(repo)?;
    with_compiler(repo)
}

/// What takes seconds, and what builds need.
pub(crate) fn before_builds(repo: &Repo) -> Result<()> {
    step::run("format", &mut repo.cargo(&["fmt", "--all", "--check"]))?;
    setup::install(repo)?;
    web::check(repo)
}

/// What compiles everything.
pub(crate) fn with_compiler(repo: &Repo) -> Result<()> {
    step::run(
        "clippy",
        &mut repo.cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    let without = ["clippy", "-p", "server", "--no-default-features", "--", "-D", "warnings"];
    step::run("clippy without LAME", &mut repo.cargo(&without))?;
    step::run(
        "docs",
        repo.cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

//! `cargo xtask ci`: what CI checks beside the tests.

use anyhow::Result;

use crate::repo::Repo;
use crate::{fuzz, setup, step, web};

/// Format, clippy, docs, the committed page, and that the fuzz targets can be built. Warnings are errors.
pub(crate) fn run(repo: &Repo) -> Result<()> {
    step::run("format", &mut repo.cargo(&["fmt", "--all", "--check"]))?;
    setup::install(repo)?;
    web::check(repo)?;
    // Either leaves a core idle while a large crate is compiled.
    step::beside(&[&|| fuzz::build_apart(repo)], || clippy_and_docs(repo))
}

fn clippy_and_docs(repo: &Repo) -> Result<()> {
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

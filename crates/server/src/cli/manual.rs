//! `manifold completions` and `manifold man`: made of the command line itself, so that they never lag
//! behind it.

use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;

use super::{Cli, Failure};

const NAME: &str = "manifold";

/// A script for the shell, on standard output.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    let written = std::io::Write::write_all(&mut std::io::stdout().lock(), &script);
    Ok(written.context("the completions cannot be written")?)
}

/// `manifold.1`, and a page for each command: `manifold-health.1` and so on.
pub(super) fn write(directory: &Path) -> Result<(), Failure> {
    let pages = || {
        std::fs::create_dir_all(directory)?;
        clap_mangen::generate_to(Cli::command(), directory)
    };
    let unwritable = || format!("the man pages cannot be written to {}", directory.display());
    Ok(pages().with_context(unwritable)?)
}

//! `manifold config check`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::say;
use crate::config::{self, Environment, Flags};

/// Prints what is wrong, one problem a line, or that nothing is.
pub(super) fn run(file: Option<PathBuf>) -> ExitCode {
    let flags = Flags { config: file, ..Flags::default() };
    match config::load(&flags, &Environment::of_process()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                say(&format!("{warning} (warning)"));
            }
            let name =
                loaded.file.as_deref().map_or("built-in settings".into(), Path::to_string_lossy);
            let cameras = counted(loaded.config.cameras.len(), "camera");
            let sources = counted(loaded.config.sources.len(), "source");
            say(&format!("{name}: ok, {cameras}, {sources}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// `1 camera`, `4 cameras`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

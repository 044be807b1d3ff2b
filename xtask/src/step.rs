//! One step of a chore: a title, a command, the time it took.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Prints a line. A closed standard output (`| head`) is no reason to fail.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nothing is left to tell it to where this fails.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Runs a command as one step; its output goes through.
pub(crate) fn run(title: &str, command: &mut Command) -> Result<()> {
    time(title, || status(command))
}

/// Does `work` as one step.
pub(crate) fn time<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(&format!("==> {title}"));
    let start = Instant::now();
    let done = work();
    let seconds = start.elapsed().as_secs_f64();
    match done {
        Ok(value) => {
            say(&format!("    {title}: {seconds:.1} s"));
            Ok(value)
        }
        Err(error) => Err(error.context(format!("{title} failed after {seconds:.1} s"))),
    }
}

/// What a command prints, where it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = line_of(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("`{line}` does not start"))?;
    if !output.status.success() {
        bail!("`{line}` ended with {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed no UTF-8"))
}

fn status(command: &mut Command) -> Result<()> {
    let line = line_of(command);
    let status = command.status().with_context(|| format!("`{line}` does not start"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

fn line_of(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

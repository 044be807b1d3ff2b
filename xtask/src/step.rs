//! One step of a chore: a title, a command, the time it took.

use std::cell::Cell;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Every step that began, in that order, for the table. One run has a few dozen.
static STEPS: Mutex<Vec<Step>> = Mutex::new(Vec::new());

thread_local! {
    /// How many steps this thread is inside of.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// A step that began.
struct Step {
    title: String,
    /// How many steps it is part of.
    depth: usize,
    end: End,
}

/// How a step ended, after how many seconds.
enum End {
    NotYet,
    Done(f64),
    Failed(f64),
}

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

/// The same while another step prints: its output is shown whole, and only where it fails.
pub(crate) fn run_apart(title: &str, command: &mut Command) -> Result<()> {
    let line = line_of(command);
    time(title, || {
        let output = command.output().with_context(|| format!("`{line}` does not start"))?;
        if !output.status.success() {
            say(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
            bail!("`{line}` ended with {}", output.status);
        }
        Ok(())
    })
}

/// Does the steps of `apart` one after the other while `work` goes on. Once either has failed no further
/// step begins there. Where both fail, `work` is told.
pub(crate) fn beside(
    apart: &[&(dyn Fn() -> Result<()> + Sync)],
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let apart = scope.spawn(|| {
            let goes_on = |_: &_| !failed.load(Ordering::Relaxed);
            apart.iter().take_while(goes_on).try_for_each(|step| step())
        });
        let done = work();
        failed.store(done.is_err(), Ordering::Relaxed);
        let apart = apart.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.and(apart)
    })
}

/// Does `work` as one step.
pub(crate) fn time<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(&format!("==> {title}"));
    let place = begin(title);
    let start = Instant::now();
    let done = work();
    let seconds = start.elapsed().as_secs_f64();
    match done {
        Ok(value) => {
            end(place, End::Done(seconds));
            say(&format!("    {title}: {seconds:.1} s"));
            Ok(value)
        }
        Err(error) => {
            end(place, End::Failed(seconds));
            Err(error.context(format!("{title} failed after {seconds:.1} s")))
        }
    }
}

/// Does `work`, then shows every step in it with its time. Some steps run beside others.
pub(crate) fn with_table(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    let done = work();
    let steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    say(&format!("==> times\n{}", table(&steps, start.elapsed().as_secs_f64())));
    done
}

/// Its place among the steps.
fn begin(title: &str) -> usize {
    let depth = DEPTH.replace(DEPTH.get() + 1);
    let mut steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    steps.push(Step { title: title.to_owned(), depth, end: End::NotYet });
    steps.len() - 1
}

fn end(place: usize, end: End) {
    DEPTH.set(DEPTH.get() - 1);
    let mut steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    steps[place].end = end;
}

/// A line a step, those of a step below it and farther to the right.
fn table(steps: &[Step], all: f64) -> String {
    let line = |step: &Step| {
        let indent = 2 * step.depth;
        let (seconds, note) = match step.end {
            End::NotYet => return format!("    {:indent$}{}: not ended", "", step.title),
            End::Done(seconds) => (seconds, ""),
            End::Failed(seconds) => (seconds, " FAILED"),
        };
        format!("    {:indent$}{} {}{note}", "", minutes(seconds), step.title)
    };
    let mut lines: Vec<String> = steps.iter().map(line).collect();
    lines.push(format!("    {} all", minutes(all)));
    lines.join("\n")
}

/// As `12:03`.
fn minutes(seconds: f64) -> String {
    let seconds = Duration::from_secs_f64(seconds.round()).as_secs();
    format!("{:>3}:{:02}", seconds / 60, seconds % 60)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_side_may_fail() {
        let well = || Ok(());
        let badly = || bail!("apart");

        assert!(beside(&[&well, &well], || Ok(())).is_ok());
        let error = beside(&[&badly, &|| unreachable!()], || Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "apart");
        let error = beside(&[&badly], || bail!("work")).unwrap_err();
        assert_eq!(error.to_string(), "work");
    }

    #[test]
    fn the_table_has_a_line_a_step() {
        let step = |title: &str, depth, end| Step { title: title.to_owned(), depth, end };
        let steps = [
            step("set-up", 0, End::Done(13.1)),
            step("npm ci in web/", 1, End::Done(2.8)),
            step("clippy", 0, End::Failed(250.7)),
            step("fuzzing", 0, End::NotYet),
        ];

        let shown = table(&steps, 3663.6);

        let lines = [
            "      0:13 set-up",
            "        0:03 npm ci in web/",
            "      4:11 clippy FAILED",
            "    fuzzing: not ended",
            "     61:04 all",
        ];
        assert_eq!(shown, lines.join("\n"));
    }
}

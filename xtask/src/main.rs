//! The project's chores, run as `cargo xtask <chore>`.
//!
//! Every chore says what it does, step by step, with the time each step took. What the tests need
//! from outside cargo (Chromium, GStreamer's RTSP server, npm and PyPI packages) is known to
//! [`setup`] alone.

mod bench;
mod browser;
mod fuzz;
mod lint;
mod plot;
mod repo;
mod screenshot;
mod setup;
mod step;
mod testing;
mod web;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::repo::Repo;

const USAGE: &str = "\
usage: cargo xtask <chore>

  setup [--check|--bench]   installs what the tests need; --check only lists what is missing, --bench
                            adds the servers that benchmarks compare with
  test [FILTER]             set-up, Rust tests, page tests, then the browser tests against the release
                            binary; FILTER picks browser test files by a part of their name
  ci                        format, clippy, docs, web/dist: all that CI checks beside `test`
  fuzz [TARGET]             made-up input for all that reads from strangers, 60 s a target (--seconds N);
                            --minimise makes fuzz/corpus as small as it can be
  web [--check]             builds web/dist; --check fails where it differs from what is committed
  bench [PART]              egress, curve, memory, voice, mp3, voice_latency, join, storm, churn, park,
                            compare, or one of them; needs Janus and Go, which it installs
  bench soak                hours of the same (SOAK_MINUTES, two hours by default)
  bench --commit-results    all of them, written to docs/design/performance.md, .svg and .json
  bench report              the same of each part as it was measured last
  screenshot                makes docs/guide/wall.png and talk.png, the pictures of README and guide";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            step::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let repo = Repo::find()?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["setup"] => setup::install(&repo),
        ["setup", "--check"] => setup::check(&repo),
        ["setup", "--bench"] => setup::install(&repo).and_then(|()| setup::install_bench()),
        ["test"] => step::with_table(|| testing::run(&repo, None)),
        ["test", filter] => testing::run(&repo, Some(filter)),
        ["ci"] => step::with_table(|| lint::run(&repo)),
        ["fuzz", rest @ ..] if let Some(wanted) = fuzz::Wanted::read(rest) => {
            step::with_table(|| fuzz::run(&repo, &wanted))
        }
        ["web"] => web::build(&repo),
        ["web", "--check"] => web::check(&repo),
        ["bench"] => bench::run(&repo, bench::Keep::InTarget, None),
        ["bench", "report"] => bench::report(&repo),
        ["bench", "--commit-results"] => bench::run(&repo, bench::Keep::InDocs, None),
        ["bench", part] => bench::run(&repo, bench::Keep::InTarget, Some(part)),
        ["screenshot"] => screenshot::run(&repo),
        ["help" | "--help" | "-h"] | [] => {
            step::say(USAGE);
            Ok(())
        }
        unknown => bail!("there is no chore `{}`\n\n{USAGE}", unknown.join(" ")),
    }
}

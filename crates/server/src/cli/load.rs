//! `manifold load`

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use secrecy::SecretString;
use url::Url;

use super::client::trust;
use super::{Failure, say};
use crate::config::{Log, LogFormat, LogLevel};
use crate::load::{self, Display, LoadPlan, LoadReport, Targets};
use crate::logging;
use crate::net::Offload;

/// The token may be kept out of the process list.
pub(super) const TOKEN_VARIABLE: &str = "MANIFOLD_TOKEN";

#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// WHEP address that is watched; give it several times, or a row as cam-{1..500}, and viewers go
    /// round
    #[arg(long, value_name = "URL", required = true)]
    whep: Vec<String>,
    /// Viewers at the same time
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    viewers: NonZeroUsize,
    /// Viewers that begin a second
    #[arg(long, value_name = "JOINS/S", default_value_t = 50.0, value_parser = rate)]
    rate: f64,
    /// All viewers begin at once
    #[arg(long, conflicts_with = "rate")]
    at_once: bool,
    /// From the start to the end [default: until Ctrl-C, or until all joins are done]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Joins in all: viewers leave once they have their picture, and join again
    #[arg(long, value_name = "NUMBER")]
    joins: Option<usize>,
    /// With --joins: how long a viewer stays with its picture
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s")]
    stay: Duration,
    /// How long a viewer may take from its offer to its first keyframe
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    patience: Duration,
    /// Bearer token for each request [default: the variable MANIFOLD_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Certificate of the authority that an https:// server is believed by [default: those of this machine, and
    /// that of its own server]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Base of Manifold's API, where each viewer reserves its place first: http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    reserve: Option<Url>,
    /// Viewers that decode their picture and read the test card's strip for its delay
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    decode: usize,
    /// One media packet in so many is decrypted to see that it is authentic
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=16384))]
    open_every: u16,
    /// Threads [default: one a core, at most 4]
    #[arg(long, value_name = "NUMBER")]
    threads: Option<NonZeroUsize>,
    /// The viewers' own address [default: the one on the way to the server]
    #[arg(long, value_name = "ADDR")]
    bind: Option<IpAddr>,
    /// Take each datagram by itself from the kernel, as over a network
    #[arg(long)]
    no_offload: bool,
    /// Show nothing while viewers watch
    #[arg(long)]
    quiet: bool,
    /// Write the report here as JSON; - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Watches, reports; an exit code of failure when a viewer failed.
pub(super) fn run(args: LoadArgs) -> Result<ExitCode, Failure> {
    logging::start(Log { format: LogFormat::Text, level: LogLevel::Warn });
    let json = args.json.clone();
    let display = if args.quiet { Display::silent() } else { Display::of_process() };
    let report = load::run(args.plan()?, display)?;
    write(&report, json.as_deref())?;
    Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(report: &LoadReport, file: Option<&Path>) -> anyhow::Result<()> {
    let json = report.json();
    match file {
        Some(path) if path == Path::new("-") => say(&json.to_string()),
        Some(path) => {
            std::fs::write(path, format!("{json:#}\n"))
                .with_context(|| format!("cannot write --json {}", path.display()))?;
            say(&report.text());
        }
        None => say(&report.text()),
    }
    Ok(())
}

/// The token of the flag, else of the environment.
pub(super) fn token(flag: Option<String>) -> Option<SecretString> {
    flag.or_else(|| std::env::var(TOKEN_VARIABLE).ok()).map(SecretString::from)
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=1e6).contains(&rate) {
        Ok(rate)
    } else {
        Err("must be from 0.001 to 1000000".to_owned())
    }
}

impl LoadArgs {
    fn plan(self) -> anyhow::Result<LoadPlan> {
        let pause =
            if self.at_once { Duration::ZERO } else { Duration::from_secs_f64(1.0 / self.rate) };
        let is_secure = self.whep.iter().any(|url| url.starts_with("https:"))
            || self.reserve.as_ref().is_some_and(|base| base.scheme() == "https");
        Ok(LoadPlan {
            targets: Targets::parse(&self.whep)?,
            viewers: self.viewers,
            pause,
            duration: self.duration,
            joins: self.joins,
            stay: self.stay,
            patience: self.patience,
            token: token(self.token),
            trust: if is_secure { Some(trust(self.ca.as_deref())?) } else { None },
            reserve: self.reserve,
            decoding: self.decode,
            open_every: self.open_every,
            threads: self.threads.unwrap_or_else(load::usual_threads),
            bind: self.bind,
            offload: if self.no_offload { Offload::None } else { Offload::Runs },
        })
    }
}

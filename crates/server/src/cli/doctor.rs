//! `manifold doctor`: tries everything, and says what is wrong and what to do.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use super::check::counted;
use super::client::{AskError, Client, Server, block_on};
use super::health::store_trouble;
use super::{Failure, say};
use crate::config::{self, Environment, Flags, Loaded, Log, LogFormat, LogLevel};
use crate::doctor::{self, CameraChoice, Checkup, Finding, Level, Progress, RunningServer};
use crate::logging;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Config file of the server [default: ./manifold.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask the server alone: the settings are those of another machine
    #[arg(long, conflicts_with = "config")]
    remote: bool,
    /// Call this camera alone
    #[arg(long, value_name = "ID")]
    camera: Option<String>,
    /// Call no camera
    #[arg(long, conflicts_with = "camera")]
    no_cameras: bool,
    /// Tell what is wrong alone
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    server: Server,
}

/// Exit code 0 where nothing is in the way, else 1.
pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    // What is wrong is told in findings; libraries' own words are for the log of the server.
    logging::start(Log { format: LogFormat::Text, level: LogLevel::Error });
    let show = Show { is_quiet: args.quiet, is_json: args.server.json };
    let findings = block_on(examine(args, show))?;
    let grave = findings.iter().filter(|found| found.level == Level::Trouble).count();
    if args.server.json {
        say(&json!({ "troubles": grave, "findings": json_of(&findings) }).to_string());
    } else {
        let notes = findings.iter().filter(|found| found.level == Level::Note).count();
        say(&format!("{}, {}", counted(grave, "trouble"), counted(notes, "note")));
    }
    Ok(if grave == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What is found, for a report that is not shown meanwhile.
pub(super) async fn silent(server: &Server, config: Option<&Path>) -> Result<Value, Failure> {
    let args = DoctorArgs {
        config: config.map(Path::to_owned),
        remote: false,
        camera: None,
        no_cameras: true,
        quiet: true,
        server: server.clone(),
    };
    let findings = Box::pin(examine(&args, Show { is_quiet: true, is_json: true })).await?;
    Ok(json_of(&findings))
}

fn json_of(findings: &[Finding]) -> Value {
    let one = |found: &Finding| {
        let Finding { part, level, sentence, remedy } = found;
        json!({ "part": part, "level": level.as_str(), "sentence": sentence, "remedy": remedy })
    };
    findings.iter().map(one).collect()
}

async fn examine(args: &DoctorArgs, show: Show) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    let mut tell = |progress| show.tell(progress, &mut findings);
    let loaded = (!args.remote).then(|| load(args.config.clone(), &mut tell)).flatten();
    let server = running(&args.server, &mut tell).await?;
    let file = loaded.as_ref().and_then(|loaded| loaded.file.as_deref());
    let file = file.unwrap_or(Path::new("manifold.toml")).display().to_string();
    let cameras = match (&args.camera, args.no_cameras) {
        (Some(id), _) => CameraChoice::One(id.clone()),
        (None, true) => CameraChoice::None,
        (None, false) => CameraChoice::All,
    };
    let settings = loaded.as_ref().map(|loaded| (&loaded.config, file.as_str()));
    doctor::run(Checkup { settings, server, cameras }, &mut tell).await;
    Ok(findings)
}

/// The settings of this machine, and what is wrong with them.
fn load(file: Option<PathBuf>, tell: &mut dyn FnMut(Progress)) -> Option<Loaded> {
    const PART: &str = "settings";
    let flags = Flags { config: file, ..Flags::default() };
    let mut told = |level, sentence: String, remedy: Option<&str>| {
        let remedy = remedy.map(ToOwned::to_owned);
        tell(Progress::Found(Finding { part: PART, level, sentence, remedy }));
    };
    match config::load(&flags, &Environment::of_process()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                told(Level::Note, warning.to_string(), Some("take it out of the settings"));
            }
            let file = loaded.file.as_deref().map_or("built-in".into(), Path::to_string_lossy);
            told(Level::Fine, format!("the settings ({file}) can be read"), None);
            Some(loaded)
        }
        Err(error) => {
            let remedy = "correct it; `manifold config check` reads the settings again";
            for line in error.to_string().lines() {
                told(Level::Trouble, line.to_owned(), Some(remedy));
            }
            None
        }
    }
}

/// The server, if one answers.
async fn running(
    server: &Server,
    tell: &mut dyn FnMut(Progress),
) -> Result<Option<RunningServer>, Failure> {
    const PART: &str = "server";
    let mut client = Client::new(server)?;
    let health: Value;
    let found = match client.any(Method::GET, "/health", None).await {
        Ok(answer) => {
            health = serde_json::from_str(&answer.body).unwrap_or_default();
            let base = client.base().clone();
            if health["status"] == "healthy" {
                let sentence = format!("the server at {base} is well");
                Finding { part: PART, level: Level::Fine, sentence, remedy: None }
            } else {
                let reason = health["reason"].as_str().unwrap_or("it does not say why");
                Finding {
                    part: PART,
                    level: Level::Trouble,
                    sentence: format!("the server at {base} is not well: {reason}"),
                    remedy: Some("start it again; its log says more".to_owned()),
                }
            }
        }
        Err(AskError::Absent { url, reason }) => {
            let found = Finding {
                part: PART,
                level: Level::Note,
                sentence: format!("no server answers at {url}: {reason}"),
                remedy: Some("start it with `manifold`, or say with --url where it is".to_owned()),
            };
            tell(Progress::Found(found));
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    tell(Progress::Found(found));
    store(&health).into_iter().for_each(|found| tell(Progress::Found(found)));
    let (base, token) = (client.base().clone(), client.token().cloned());
    Ok(Some(RunningServer { http: client.into_http(), base, token }))
}

/// Where leases are kept, as the server finds it.
fn store(health: &Value) -> Option<Finding> {
    const PART: &str = "store";
    if let Some(sentence) = store_trouble(health) {
        let remedy = "start the store, or look at the network between; who watches keeps watching";
        let remedy = Some(remedy.to_owned());
        return Some(Finding { part: PART, level: Level::Trouble, sentence, remedy });
    }
    let url = health["store"]["url"].as_str()?;
    let sentence = format!("leases are kept in {url}");
    Some(Finding { part: PART, level: Level::Fine, sentence, remedy: None })
}

/// How findings are shown as they come.
#[derive(Debug, Clone, Copy)]
struct Show {
    is_quiet: bool,
    is_json: bool,
}

impl Show {
    fn tell(self, progress: Progress, findings: &mut Vec<Finding>) {
        match progress {
            Progress::Begins(what) => self.begins(&what),
            Progress::Found(found) => {
                self.clear();
                if !self.is_json && (found.level != Level::Fine || !self.is_quiet) {
                    lines(&found).iter().for_each(|line| say(line));
                }
                findings.push(found);
            }
        }
    }

    /// On a terminal alone: elsewhere the findings themselves show that it goes on.
    fn begins(self, what: &str) {
        if !self.is_json && std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[2Ktrying {what} ...");
        }
    }

    fn clear(self) {
        if !self.is_json && std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[2K");
        }
    }
}

fn lines(found: &Finding) -> Vec<String> {
    let first = format!("{:<8} {:<12} {}", found.level.as_str(), found.part, found.sentence);
    let remedy = found.remedy.iter().map(|remedy| format!("{:<21} -> {remedy}", ""));
    std::iter::once(first).chain(remedy).collect()
}

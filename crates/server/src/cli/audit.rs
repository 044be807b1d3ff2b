//! `manifold audit`: is the trail whole, what is in it, and all of it as CSV.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use hyper::header::HeaderName;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::client::{Client, Server, block_on};
use super::{Failure, say};
use crate::audit::{Link, Verdict, verify_now};
use crate::config::{self, Environment, Flags};
use crate::data_dir::DataDir;
use crate::database::Database;

/// Rows that are asked for at once: as many as a server gives.
const PAGE_ROWS: u32 = 10_000;

/// Where a page in CSV says that there are more.
const NEXT_AFTER: HeaderName = HeaderName::from_static("x-next-after");

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Is the trail what was written? Exit code 0: yes, 1: no, 2: it cannot be read
    Verify(VerifyArgs),
    /// Show rows
    Query(QueryArgs),
    /// Write rows as CSV, all of them
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Look into the file of this directory, while no server runs on it, instead of asking a server
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The same, of the directory that these settings name
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    config: Option<PathBuf>,
    /// A row and its hash that was noted before, as `verify` prints it: it must still be there
    #[arg(long, value_name = "NUMBER:HASH")]
    head: Option<Link>,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
pub(super) struct QueryArgs {
    #[command(flatten)]
    filter: Filter,
    /// Rows, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    limit: u32,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    filter: Filter,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
}

/// Which rows.
#[derive(Debug, Args)]
struct Filter {
    /// Of this camera
    #[arg(long, value_name = "ID")]
    camera: Option<String>,
    /// Of this user, or by this caller
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Of this source
    #[arg(long, value_name = "ID")]
    source: Option<String>,
    /// Of these kinds, with commas between, such as watch_ended,changed
    #[arg(long, value_name = "KINDS")]
    kind: Option<String>,
    /// What happened then or later, as 2026-11-22 or 2026-11-22T10:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// What happened before
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Rows after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
}

/// See each command.
pub(super) fn run(command: &AuditCommand) -> Result<ExitCode, Failure> {
    match command {
        AuditCommand::Verify(args) => verify(args),
        AuditCommand::Query(args) => query(args),
        AuditCommand::Export(args) => export(args),
    }
}

fn verify(args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let answer = match &args.data_dir {
        Some(directory) => verify_file(directory, args.head),
        None => match &args.config {
            Some(file) => {
                let flags = Flags { config: Some(file.clone()), ..Flags::default() };
                let config = config::load(&flags, &Environment::of_process())?.config;
                verify_place(DataDir::of_process(config.store.data_dir.as_deref()), args.head)
            }
            None => block_on(async {
                let mut client = Client::new(&args.server)?;
                let head = args.head.map(|head| format!("?head={head}")).unwrap_or_default();
                Ok(Ok(client.get(&format!("/api/v1/audit/verify{head}")).await?))
            })?,
        },
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(unreadable) => {
            super::complain(&format!("{unreadable:#}"));
            return Ok(ExitCode::from(2));
        }
    };
    say(&if args.server.json { answer.to_string() } else { line(&answer) });
    Ok(if answer["whole"] == true { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn verify_file(directory: &Path, head: Option<Link>) -> anyhow::Result<Value> {
    verify_place(DataDir::of_process(Some(directory)), head)
}

fn verify_place(place: DataDir, head: Option<Link>) -> anyhow::Result<Value> {
    let place_name = place.path("").display().to_string();
    let verdict = verify_now(&Database::new(place), head)?;
    match verdict {
        Some(Verdict::Whole { rows, removed, head }) => {
            let head = head.to_string();
            Ok(json!({ "whole": true, "rows": rows, "removed": removed, "head": head }))
        }
        Some(Verdict::Broken { number, why }) => {
            Ok(json!({ "whole": false, "broken_at": number, "why": why }))
        }
        None => Err(anyhow!("there is no audit trail in {place_name}")),
    }
}

fn line(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if answer["whole"] == true {
        let removed = match answer["removed"].as_u64() {
            Some(0) | None => String::new(),
            Some(removed) => format!(", {removed} older ones were removed in their time"),
        };
        format!("whole: {} rows{removed}; the newest is {}", answer["rows"], text(&answer["head"]))
    } else {
        format!("broken at row {}: {}", answer["broken_at"], text(&answer["why"]))
    }
}

impl Filter {
    fn path(&self, after: u64, limit: u32) -> String {
        let mut query = Serializer::new(String::new());
        let texts = [
            ("camera", &self.camera),
            ("user", &self.user),
            ("source", &self.source),
            ("kind", &self.kind),
            ("from", &self.from),
            ("to", &self.to),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                query.append_pair(name, text);
            }
        }
        query.append_pair("after", &after.to_string());
        query.append_pair("limit", &limit.to_string());
        format!("/api/v1/audit?{}", query.finish())
    }
}

fn query(args: &QueryArgs) -> Result<ExitCode, Failure> {
    let answer = block_on(async {
        let mut client = Client::new(&args.server)?;
        Ok(client.get(&args.filter.path(args.filter.after, args.limit)).await?)
    })?;
    if args.server.json {
        say(&answer.to_string());
    } else {
        lines(&answer).iter().for_each(|line| say(line));
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(answer: &Value) -> Vec<String> {
    let empty = Vec::new();
    let mut lines: Vec<String> =
        answer["rows"].as_array().unwrap_or(&empty).iter().map(row_line).collect();
    if let Some(next) = answer["next_after"].as_u64() {
        lines.push(format!("there are more: --after {next}"));
    }
    lines
}

fn row_line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    let mut line = format!("{:>6}  {}  {:<14}", row["number"], text("at"), text("kind"));
    for (name, value) in [
        ("", text("actor")),
        ("", text("action")),
        ("", text("object")),
        ("reservation ", text("reservation_id")),
        ("from ", text("from")),
        ("to ", text("to")),
    ] {
        if !value.is_empty() {
            line.push_str(&format!("  {name}{value}"));
        }
    }
    for (key, unit) in [("bytes_sent", "bytes"), ("count", "rows")] {
        if let Some(number) = row[key].as_u64().filter(|number| *number > 0) {
            line.push_str(&format!("  {number} {unit}"));
        }
    }
    if !text("reason").is_empty() {
        line.push_str(&format!("  ({})", text("reason")));
    }
    line
}

fn export(args: &ExportArgs) -> Result<ExitCode, Failure> {
    let mut out: Box<dyn Write> = match &args.output {
        Some(path) => {
            let file = File::create(path);
            Box::new(file.with_context(|| format!("cannot write {}", path.display()))?)
        }
        None => Box::new(std::io::stdout().lock()),
    };
    block_on(async {
        let mut client = Client::new(&args.server)?;
        let mut after = Some(args.filter.after);
        let mut is_first = true;
        while let Some(from) = after {
            let path = format!("{}&format=csv", args.filter.path(from, PAGE_ROWS));
            let page = client.page(&path).await?;
            // The names of the columns stand in each page; once is enough.
            let skipped = if is_first { 0 } else { page.body.find('\n').map_or(0, |at| at + 1) };
            let text = &page.body[skipped..];
            out.write_all(text.as_bytes()).context("the rows cannot be written")?;
            let next = page.header(NEXT_AFTER).and_then(|next| next.parse().ok());
            // One that does not go on would never end.
            (after, is_first) = (next.filter(|next| *next > from), false);
        }
        out.flush().context("the rows cannot be written")?;
        Ok(ExitCode::SUCCESS)
    })
}

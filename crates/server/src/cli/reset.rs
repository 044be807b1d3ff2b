//! `manifold reset`: ends viewers and pullers, once somebody has said that this is meant.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use super::check::counted;
use super::client::{Client, Server, block_on, path_of};
use super::{Failure, say};

#[derive(Debug, Args)]
#[group(id = "extent", required = true, multiple = false, args = ["camera", "all"])]
pub(super) struct ResetArgs {
    /// This camera: its viewers and its puller
    #[arg(long, value_name = "ID")]
    camera: Option<String>,
    /// Every viewer and every puller
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    server: Server,
}

/// Exit code 0 where nothing is left, 1 where somebody came meanwhile, a node did not answer, or nobody said
/// yes.
pub(super) fn run(args: &ResetArgs) -> Result<ExitCode, Failure> {
    let answer = block_on(async {
        let mut client = Client::new(&args.server)?;
        if !args.yes {
            confirm(&question(&mut client, args.camera.as_deref()).await?)?;
        }
        let body = match &args.camera {
            Some(camera) => json!({ "camera_id": camera }),
            None => json!({ "all": true }),
        };
        Ok(client.post("/api/v1/reset", &body).await?)
    })?;
    if args.server.json {
        say(&answer.to_string());
    } else {
        lines(&answer).iter().for_each(|line| say(line));
    }
    let is_empty = answer["reservations_left"] == 0 && answer["unanswered"].is_null();
    Ok(if is_empty { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn question(client: &mut Client, camera: Option<&str>) -> Result<String, Failure> {
    let number = |value: &Value| value.as_u64().and_then(|n| n.try_into().ok()).unwrap_or(0);
    let (viewers, of) = match camera {
        Some(camera) => {
            let found = client.get(&path_of("/api/v1/cameras/", camera)).await?;
            (number(&found["viewer_count"]), format!("camera {camera}"))
        }
        None => {
            let stats = client.get("/api/v1/stream/stats").await?;
            (number(&stats["active_streams"]), "all cameras".to_owned())
        }
    };
    Ok(format!(
        "This ends {} of {of}, and the pullers. Type yes to go on: ",
        counted(viewers, "viewer")
    ))
}

fn confirm(question: &str) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("nobody can be asked here; say --yes if it is meant");
    }
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "{question}").and_then(|()| stderr.flush()).context("nobody can be asked")?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line).context("the answer cannot be read")?;
    if line.trim() != "yes" {
        bail!("nothing was ended");
    }
    Ok(())
}

fn lines(answer: &Value) -> Vec<String> {
    let empty = Vec::new();
    let list = |key: &str| answer[key].as_array().unwrap_or(&empty).clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (ended, stopped) = (list("reservations_ended"), list("pullers_stopped"));
    let ids = ended.iter().map(|id| format!("ended reservation {}", text(id)));
    let cameras = stopped.iter().map(|id| format!("stopped the puller of {}", text(id)));
    let sum = format!(
        "{} ended, {} stopped; left: {}, {}",
        counted(ended.len(), "reservation"),
        counted(stopped.len(), "puller"),
        format_args!("{} reservations", answer["reservations_left"]),
        format_args!("{} pullers", answer["pullers_left"]),
    );
    let unanswered = super::trace::unanswered(answer);
    ids.chain(cameras).chain([sum]).chain(unanswered).collect()
}

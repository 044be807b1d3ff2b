//! `manifold why`: one sentence, one remedy, and the ladder.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::{Client, Server, block_on, path_of};
use super::{Failure, say};

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// A reservation's id, a camera's id, or "voice"
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    server: Server,
}

/// Exit code 0 where nothing is in the way, else 1.
pub(super) fn run(args: &WhyArgs) -> Result<ExitCode, Failure> {
    let answer = block_on(async {
        let mut client = Client::new(&args.server)?;
        Ok(client.get(&path_of("/api/v1/why/", &args.id)).await?)
    })?;
    if args.server.json {
        say(&answer.to_string());
    } else {
        lines(&answer).iter().for_each(|line| say(line));
    }
    Ok(if answer["well"] == true { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn lines(answer: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let empty = Vec::new();
    let mut lines = vec![text(&answer["sentence"])];
    if let Some(remedy) = answer["remedy"].as_str() {
        lines.push(format!("-> {remedy}"));
    }
    for rung in answer["ladder"].as_array().unwrap_or(&empty) {
        let line = format!(
            "  {:<8} {:<8} {}",
            text(&rung["rung"]),
            text(&rung["state"]),
            text(&rung["detail"])
        );
        lines.push(line.trim_end().to_owned());
    }
    for viewer in answer["viewers"].as_array().unwrap_or(&empty) {
        let (id, user) = (text(&viewer["reservation_id"]), text(&viewer["user_id"]));
        lines.push(format!("  viewer {id} of {user}: {}", text(&viewer["stage"])));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_sentence_comes_first_and_the_remedy_behind_it() {
        let answer = json!({
            "sentence": "it is off", "remedy": "turn it on",
            "ladder": [{"rung": "quota", "state": "done", "detail": "A uses 1 of 2"},
                       {"rung": "ice", "state": "ahead", "detail": ""}],
            "viewers": [{"reservation_id": "r", "user_id": "u", "stage": "playing"}],
        });
        let wanted = [
            "it is off",
            "-> turn it on",
            "  quota    done     A uses 1 of 2",
            "  ice      ahead",
            "  viewer r of u: playing",
        ];
        assert_eq!(lines(&answer), wanted);
    }
}

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
        let place = viewer["node"].as_str().map(|node| format!(" at {node}")).unwrap_or_default();
        lines.push(format!("  viewer {id} of {user}{place}: {}", text(&viewer["stage"])));
    }
    lines.extend(super::trace::places(answer));
    for node in answer["nodes"].as_array().unwrap_or(&empty) {
        let (name, state) = (text(&node["node"]), text(&node["state"]));
        let reason = node["reason"].as_str().map(|reason| format!(": {reason}"));
        lines.push(format!("  at {name} the camera is {state}{}", reason.unwrap_or_default()));
    }
    lines.extend(super::trace::unanswered(answer));
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
            "viewers": [{"reservation_id": "r", "user_id": "u", "stage": "playing", "node": "n1"}],
            "origin": "n2", "nodes": [{"node": "n2", "state": "lost", "reason": "it is cut off"}],
            "unanswered": ["node n3 did not answer: it is gone since 4 s"],
        });
        let wanted = [
            "it is off",
            "-> turn it on",
            "  quota    done     A uses 1 of 2",
            "  ice      ahead",
            "  viewer r of u at n1: playing",
            "camera pulled by node n2",
            "  at n2 the camera is lost: it is cut off",
            "node n3 did not answer: it is gone since 4 s",
        ];
        assert_eq!(lines(&answer), wanted);
    }
}

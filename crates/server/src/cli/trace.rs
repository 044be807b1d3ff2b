//! `manifold trace`: the life of a reservation as a timeline.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::{Client, Server, block_on, path_of};
use super::{Failure, say};

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// A reservation's id; it may have ended
    #[arg(value_name = "RESERVATION")]
    id: String,
    #[command(flatten)]
    server: Server,
}

/// Exit code 0 where it is known. One that is not is a failure with code 3.
pub(super) fn run(args: &TraceArgs) -> Result<ExitCode, Failure> {
    let answer = block_on(async {
        let mut client = Client::new(&args.server)?;
        Ok(client.get(&path_of("/api/v1/trace/", &args.id)).await?)
    })?;
    if args.server.json {
        say(&answer.to_string());
    } else {
        lines(&answer).iter().for_each(|line| say(line));
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(answer: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let duration = seconds(answer["duration_ms"].as_u64().unwrap_or_default());
    let reason = answer["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    let mut lines = vec![
        format!("reservation {} of {}", text(&answer["reservation_id"]), text(&answer["user_id"])),
        format!("camera {}, source {}", text(&answer["camera_id"]), or_none(&answer["source"])),
        format!("{} after {duration}{reason}", text(&answer["state"])),
        format!(
            "sent {} packets, {} bytes of media; decoded {}",
            answer["packets_sent"],
            answer["bytes_sent"],
            answer["frames_decoded"]
                .as_u64()
                .map_or("not told".to_owned(), |n| format!("{n} frames")),
        ),
        format!("from {}", text(&answer["began"])),
    ];
    lines.extend(places(answer));
    let empty = Vec::new();
    let mut before = 0;
    for step in answer["steps"].as_array().unwrap_or(&empty) {
        let at = step["after_ms"].as_u64().unwrap_or_default();
        let gap = at.saturating_sub(before);
        let (word, detail) = (text(&step["step"]), text(&step["detail"]));
        let node = step["node"].as_str().map(|node| format!("{node}  ")).unwrap_or_default();
        let (at_s, gap_s) = (seconds(at), seconds(gap));
        lines.push(format!("  {at_s:>9}  (+{gap_s:>8})  {node}{word:<14} {detail}"));
        before = at;
    }
    if let Some(omitted) = answer["steps_omitted"].as_u64().filter(|omitted| *omitted > 0) {
        lines.push(format!("  {omitted} steps of its middle are left out"));
    }
    lines.extend(unanswered(answer));
    lines
}

/// Where its viewer is, and its camera; nothing of a server that is alone.
pub(super) fn places(answer: &Value) -> Option<String> {
    let viewer = answer["node"].as_str().map(|node| format!("watched at node {node}"));
    let origin = answer["origin"].as_str().map(|node| format!("camera pulled by node {node}"));
    let places: Vec<String> = viewer.into_iter().chain(origin).collect();
    (!places.is_empty()).then(|| places.join(", "))
}

/// Who did not say what he knows.
pub(super) fn unanswered(answer: &Value) -> Vec<String> {
    let sentences = answer["unanswered"].as_array().into_iter().flatten();
    sentences.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

fn or_none(value: &Value) -> &str {
    value.as_str().unwrap_or("none")
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_step_stands_with_its_time_and_how_long_it_took() {
        let answer = json!({
            "reservation_id": "r1", "camera_id": "cam-1", "source": null, "user_id": "amal",
            "state": "refused", "reason": "full", "began": "2026-11-22T10:00:00.000Z",
            "duration_ms": 1250, "packets_sent": 0, "bytes_sent": 0, "frames_decoded": null,
            "steps": [{"after_ms": 0, "step": "asked", "detail": "it was asked for"},
                      {"after_ms": 1250, "step": "refused", "detail": "full", "node": "n1"}],
            "steps_omitted": 0, "node": "n1", "origin": "n2", "unanswered": ["node n3 did not answer"],
        });
        let wanted = [
            "reservation r1 of amal",
            "camera cam-1, source none",
            "refused after 1.250 s: full",
            "sent 0 packets, 0 bytes of media; decoded not told",
            "from 2026-11-22T10:00:00.000Z",
            "watched at node n1, camera pulled by node n2",
            "    0.000 s  (+ 0.000 s)  asked          it was asked for",
            "    1.250 s  (+ 1.250 s)  n1  refused        full",
            "node n3 did not answer",
        ];
        assert_eq!(lines(&answer), wanted);
    }
}

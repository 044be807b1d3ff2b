//! `manifold health`: one line, and what it rests on.

use std::process::ExitCode;

use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use super::check::counted;
use super::client::{AskError, Client, Server, block_on};
use super::{Failure, say};

/// States in which a camera that is watched gives no picture, but will.
const ON_THE_WAY: [&str; 4] = ["idle", "connecting", "live", "closing"];

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    server: Server,
    /// The one line alone
    #[arg(long, short)]
    quiet: bool,
}

/// What was found.
struct Health {
    /// What is not as it should be, each a sentence.
    troubles: Vec<String>,
    details: Vec<String>,
    /// As the server answered.
    answer: Value,
}

/// Exit code 0 where all is well, 1 where something is not. A server that does not answer is a failure with
/// code 2.
pub(super) fn run(args: &HealthArgs) -> Result<ExitCode, Failure> {
    let health = block_on(look(&args.server))?;
    let is_well = health.troubles.is_empty();
    if args.server.json {
        let status = if is_well { "ok" } else { "degraded" };
        let Health { troubles, details, answer } = &health;
        let found = json!({
            "status": status, "troubles": troubles, "details": details, "health": answer,
        });
        say(&found.to_string());
    } else {
        say(&line(&health));
        // The first is in the line already.
        let told = usize::from(is_well);
        let rest = if args.quiet { &[] } else { health.details.get(told..).unwrap_or_default() };
        rest.iter().for_each(|detail| say(&format!("  {detail}")));
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn line(health: &Health) -> String {
    match &health.troubles[..] {
        [] => format!("ok: {}", health.details.first().map_or("", String::as_str)),
        troubles => format!("degraded: {}", troubles.join("; ")),
    }
}

async fn look(server: &Server) -> Result<Health, Failure> {
    let mut client = Client::new(server)?;
    let answer = client.any(Method::GET, "/health", None).await?;
    let strange = |_| AskError::Strange(client.base().clone());
    let answer: Value = serde_json::from_str(&answer.body).map_err(strange)?;
    let mut troubles = Vec::new();
    if answer["status"] != "healthy" {
        let reason = answer["reason"].as_str();
        troubles.push(reason.unwrap_or("the server says that it is not well").to_owned());
    }
    troubles.extend(store_trouble(&answer));
    troubles.extend(node_troubles(&answer));
    let uptime = answer["uptime_seconds"].as_u64().unwrap_or_default();
    let up = humantime::format_duration(std::time::Duration::from_secs(uptime));
    let mut details = vec![format!("{} is up for {up}", client.base())];
    if let Some(url) = answer["store"]["url"].as_str() {
        details.push(format!("leases: {url}"));
    }
    details.push(format!(
        "voices: {}, clients of the relay: {}",
        answer["active_streams"], answer["connected_clients"]
    ));
    let state = match client.get("/api/v1/stream/stats").await {
        Ok(stats) => Some((stats, client.cameras().await?)),
        Err(AskError::Token(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match state {
        Some((stats, cameras)) => tell_state(&stats, &cameras, &mut troubles, &mut details),
        None => details.push("cameras and quotas are told with --token alone".to_owned()),
    }
    Ok(Health { troubles, details, answer })
}

/// The sentence of a store that does not answer, where there is one at all.
pub(super) fn store_trouble(health: &Value) -> Option<String> {
    let store = health.get("store").filter(|store| store["available"] == false)?;
    let (url, reason) = (store["url"].as_str(), store["reason"].as_str());
    let away = store["away_seconds"].as_u64().unwrap_or_default();
    Some(format!(
        "the store of leases at {} has been away for {away} s: {}",
        url.unwrap_or("its address"),
        reason.unwrap_or("it does not answer"),
    ))
}

/// A sentence for each node of a cluster that is not heard.
fn node_troubles(health: &Value) -> Vec<String> {
    let nodes = health["cluster"]["nodes"].as_array();
    let silent = nodes.into_iter().flatten().filter(|node| node["available"] == false);
    let tell = |node: &Value| {
        let name = node["node"].as_str().unwrap_or_default();
        let reason = node["reason"].as_str().unwrap_or("why is not known");
        format!("node {name} does not answer: {reason}; what only it knows is not shown")
    };
    silent.map(tell).chain(node_differences(health)).collect()
}

/// A sentence for each node of a cluster that has its clock or its keys otherwise.
fn node_differences(health: &Value) -> Vec<String> {
    let nodes = health["cluster"]["nodes"].as_array().into_iter().flatten();
    let differing = nodes.filter_map(|node| node["node"].as_str().zip(node["difference"].as_str()));
    differing.map(|(name, difference)| format!("node {name}: {difference}")).collect()
}

fn tell_state(
    stats: &Value,
    cameras: &[Value],
    troubles: &mut Vec<String>,
    details: &mut Vec<String>,
) {
    let empty = Vec::new();
    let word = |camera: &Value| camera["state"].as_str().unwrap_or_default().to_owned();
    let live = cameras.iter().filter(|camera| word(camera) == "live").count();
    let pullers: u64 = cameras.iter().filter_map(|camera| camera["pullers"].as_u64()).sum();
    let pullers = counted(usize::try_from(pullers).unwrap_or(usize::MAX), "puller");
    details.push(format!("cameras: {live} of {} live, {pullers}", cameras.len()));
    details.push(format!("reservations: {}", stats["active_streams"]));
    for source in stats["stats"].as_array().unwrap_or(&empty) {
        let name = source["source"].as_str().unwrap_or_default();
        details.push(format!("{name}: {} of {}", source["current"], source["limit"]));
    }
    let watched = cameras.iter().filter(|camera| camera["viewer_count"].as_u64() > Some(0));
    let dark: Vec<&Value> =
        watched.filter(|camera| !ON_THE_WAY.contains(&word(camera).as_str())).collect();
    if let Some(first) = dark.first() {
        let (id, reason) = (&first["id"], &first["reason"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let others = match dark.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        troubles.push(format!(
            "camera {} is watched and gives no picture: {}{others}",
            text(id),
            text(reason)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_away_is_trouble_and_memory_is_not() {
        let memory = json!({"store": {"available": true, "away_seconds": null, "url": "memory"}});
        assert_eq!(store_trouble(&memory), None);
        assert_eq!(store_trouble(&json!({})), None);
        let away = json!({"store": {
            "available": false, "away_seconds": 7, "reason": "refused", "url": "redis://a:6379",
        }});
        let wanted = "the store of leases at redis://a:6379 has been away for 7 s: refused";
        assert_eq!(store_trouble(&away).as_deref(), Some(wanted));
    }

    #[test]
    fn a_node_that_is_not_heard_is_trouble() {
        let health = json!({"cluster": {"node": "n2", "nodes": [
            {"node": "n1", "available": false, "reason": "it is gone since 3 s"},
            {"node": "n3", "available": true},
            {"node": "n4", "available": true, "difference": "its clock is 9 s ahead"},
        ]}});
        let wanted =
            "node n1 does not answer: it is gone since 3 s; what only it knows is not shown";
        assert_eq!(node_troubles(&health), [wanted, "node n4: its clock is 9 s ahead"]);
        assert!(node_troubles(&json!({})).is_empty());
    }

    #[test]
    fn a_watched_camera_without_a_picture_is_trouble_and_an_unwatched_one_is_not() {
        let stats =
            json!({"active_streams": 1, "stats": [{"source": "A", "current": 1, "limit": 2}]});
        let camera = |state: &str, viewers: u64| {
            json!({
                "id": "cam-1", "state": state, "reason": "it is off", "viewer_count": viewers,
                "pullers": 0,
            })
        };
        let troubles = |camera: Value| {
            let (mut troubles, mut details) = (Vec::new(), Vec::new());
            tell_state(&stats, &[camera], &mut troubles, &mut details);
            assert!(details.contains(&"A: 1 of 2".to_owned()), "{details:?}");
            troubles
        };
        assert_eq!(
            troubles(camera("unreachable", 1)),
            ["camera cam-1 is watched and gives no picture: it is off"]
        );
        assert!(troubles(camera("unreachable", 0)).is_empty());
        assert!(troubles(camera("connecting", 1)).is_empty());
    }
}

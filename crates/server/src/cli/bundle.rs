//! `manifold bundle`: a report of a fault as one file, with nothing secret in it.
//!
//! Of a camera only what is named here is taken, of the settings only what `SettingsView` has a field for.
//! Without a server there are the settings of this machine and what `doctor` finds.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::client::{AskError, Client, Server, block_on};
use super::{Failure, doctor, say};
use crate::config::{self, Environment, Flags};
use crate::http::wire::operations::SettingsView;

/// What is taken of a camera. Its address is not.
const OF_CAMERA: [&str; 19] = [
    "id",
    "name",
    "source",
    "has_sub",
    "on_demand",
    "synthetic",
    "status",
    "state",
    "reason",
    "retry_in_s",
    "viewer_count",
    "active_since",
    "codec",
    "width",
    "height",
    "audio",
    "pullers",
    "pulls_started",
    "renditions",
];

/// Files of this machine that tell what it is.
const OF_MACHINE: [(&str, &str); 5] = [
    ("os", "/etc/os-release"),
    ("kernel", "/proc/version"),
    ("load", "/proc/loadavg"),
    ("udp", "/proc/net/snmp"),
    ("memory", "/proc/meminfo"),
];

#[derive(Debug, Args)]
pub(super) struct BundleArgs {
    /// Where to [default: manifold-bundle-TIME.tar.gz in this directory]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Config file of the server [default: ./manifold.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
}

/// The files of the report, by name.
type Parts = Vec<(&'static str, String)>;

/// Asks the server for all it knows, and writes it.
pub(super) fn run(args: &BundleArgs) -> Result<(), Failure> {
    let now = SystemTime::now();
    let parts = block_on(gather(args))?;
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(default_name(now)));
    let size = write(&path, &parts, now)
        .with_context(|| format!("the bundle cannot be written to {}", path.display()))?;
    if args.server.json {
        let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
        let file = path.display().to_string();
        say(&json!({ "file": file, "bytes": size, "parts": names }).to_string());
    } else {
        say(&format!("{}: {} files, {size} bytes, no secrets", path.display(), parts.len()));
    }
    Ok(())
}

async fn gather(args: &BundleArgs) -> Result<Parts, Failure> {
    let mut parts: Parts = vec![
        ("version.txt", format!("{}\n", env!("CARGO_PKG_VERSION"))),
        ("machine.json", pretty(&machine())),
    ];
    let mut client = Client::new(&args.server)?;
    match client.get("/api/v1/bundle").await {
        Ok(own) => of_server(&mut client, &own, &mut parts).await?,
        Err(error @ AskError::Absent { .. }) => of_machine(args, &error, &mut parts)?,
        Err(error) => return Err(error.into()),
    }
    let findings = Box::pin(doctor::silent(&args.server, args.config.as_deref())).await?;
    parts.push(("doctor.json", pretty(&findings)));
    Ok(parts)
}

async fn of_server(client: &mut Client, own: &Value, parts: &mut Parts) -> Result<(), Failure> {
    let empty = Vec::new();
    let lines = own["log"].as_array().unwrap_or(&empty).iter().filter_map(Value::as_str);
    let log: String = lines.map(|line| format!("{line}\n")).collect();
    let about = json!({ "version": own["version"], "uptime_seconds": own["uptime_seconds"] });
    let cameras: Vec<Value> = client.cameras().await?.iter().map(picked).collect();
    parts.push(("server.json", pretty(&about)));
    parts.push(("settings.json", pretty(&own["settings"])));
    parts.push(("log.txt", log));
    parts.push(("cameras.json", pretty(&Value::Array(cameras))));
    for (name, path) in [
        ("health.json", "/health"),
        ("stats.json", "/api/v1/stream/stats"),
        ("rooms.json", "/rooms"),
        ("voices.json", "/stream/status"),
    ] {
        parts.push((name, pretty(&client.get(path).await?)));
    }
    parts.push(("metrics.txt", client.text("/metrics?format=prometheus").await?));
    Ok(())
}

/// What there is without a server.
fn of_machine(args: &BundleArgs, error: &AskError, parts: &mut Parts) -> Result<(), Failure> {
    parts.push(("server.txt", format!("{error}\n")));
    let flags = Flags { config: args.config.clone(), ..Flags::default() };
    match config::load(&flags, &Environment::of_process()) {
        Ok(loaded) => {
            let settings = serde_json::to_value(SettingsView::of(&loaded.config));
            let settings = settings.context("the settings cannot be written")?;
            parts.push(("settings.json", pretty(&settings)));
        }
        // What is wrong may repeat what is written, passwords too.
        Err(_) => parts.push(("settings.txt", "the settings cannot be read\n".to_owned())),
    }
    Ok(())
}

fn picked(camera: &Value) -> Value {
    OF_CAMERA.iter().map(|key| ((*key).to_owned(), camera[*key].clone())).collect()
}

fn machine() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let addresses: Vec<String> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .iter()
        .map(|interface| format!("{} {}", interface.name, interface.ip()))
        .collect();
    let mut about = json!({ "cores": cores, "addresses": addresses });
    for (name, path) in OF_MACHINE {
        about[name] = std::fs::read_to_string(path).unwrap_or_default().lines().collect();
    }
    about
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// `manifold-bundle-20260102-030405.tar.gz`, in UTC.
fn default_name(now: SystemTime) -> String {
    let time = humantime::format_rfc3339_seconds(now).to_string();
    let time = time.replace(['-', ':', 'Z'], "").replace('T', "-");
    format!("manifold-bundle-{time}.tar.gz")
}

/// For its owner alone: names of users and cameras are in it. Returns its bytes.
fn write(path: &Path, parts: &Parts, now: SystemTime) -> anyhow::Result<u64> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for (name, text) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len().try_into()?);
        header.set_mode(0o600);
        header.set_mtime(seconds);
        archive.append_data(&mut header, format!("manifold-bundle/{name}"), text.as_bytes())?;
    }
    let mut file = archive.into_inner()?.finish()?;
    file.flush()?;
    Ok(file.metadata()?.len())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_a_camera_its_address_is_left_out() {
        let camera =
            json!({"id": "cam-1", "url": "rtsp://canary", "state": "live", "new": "canary"});
        let picked = picked(&camera);
        assert_eq!((&picked["id"], &picked["state"]), (&json!("cam-1"), &json!("live")));
        assert!(!picked.to_string().contains("canary"));
    }

    #[test]
    fn the_name_has_the_time() {
        let at = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(default_name(at), "manifold-bundle-20270115-080000.tar.gz");
    }
}

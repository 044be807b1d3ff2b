//! `manifold top`: what goes on, again and again: in place on a terminal, one after the other elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::client::{AskError, Client, Server, block_on};
use super::{Failure, say};

/// Cameras that are shown, those with most viewers first: with the sources they fit on a screen.
const CAMERAS_SHOWN: usize = 24;

/// Between two looks, at least: a look costs the server some milliseconds.
const INTERVAL_MIN: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Between two looks
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s")]
    interval: Duration,
    /// Look once, for the time of one interval, and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    server: Server,
}

/// Until Ctrl-C, or the server is gone.
pub(super) fn run(args: &TopArgs) -> Result<(), Failure> {
    block_on(async {
        let interval = args.interval.max(INTERVAL_MIN);
        let mut client = Client::new(&args.server)?;
        let in_place = !args.once && !args.server.json && std::io::stdout().is_terminal();
        let mut before = Look::take(&mut client).await?;
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
            let look = Look::take(&mut client).await?;
            if args.server.json {
                say(&look.json(&before).to_string());
            } else {
                show(&look.lines(&before), in_place);
            }
            if args.once {
                return Ok(());
            }
            before = look;
        }
    })
}

fn show(lines: &[String], in_place: bool) {
    let clear = if in_place { "\x1b[H\x1b[J" } else { "" };
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    // There is nobody to tell that standard output is closed.
    let _ = write!(std::io::stdout().lock(), "{clear}{text}");
}

/// How things stand at one moment.
struct Look {
    at: Instant,
    base: String,
    stats: Value,
    cameras: Vec<Value>,
    /// Sums over all labels, by name.
    figures: HashMap<String, f64>,
}

impl Look {
    async fn take(client: &mut Client) -> Result<Self, AskError> {
        let stats = client.get("/api/v1/stream/stats").await?;
        let cameras = client.cameras().await?;
        let metrics = client.text("/metrics?format=prometheus").await?;
        Ok(Self {
            at: Instant::now(),
            base: client.base().to_string(),
            stats,
            cameras,
            figures: figures(&metrics),
        })
    }

    fn figure(&self, name: &str) -> f64 {
        self.figures.get(name).copied().unwrap_or_default()
    }

    /// How much more there is a second since the look before. A server that was started anew began at 0.
    fn rate(&self, before: &Self, name: &str) -> f64 {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
        (self.figure(name) - before.figure(name)).max(0.0) / seconds
    }

    fn json(&self, before: &Self) -> Value {
        json!({
            "stats": self.stats,
            "cameras": self.cameras,
            "cpu_percent": 100.0 * self.rate(before, "process_cpu_seconds_total"),
            "memory_bytes": self.figure("process_resident_memory_bytes"),
            "viewers_connected": self.figure("manifold_viewers_connected"),
            "packets_per_second": self.rate(before, "manifold_packets_sent_total"),
            "bits_per_second": 8.0 * self.rate(before, "manifold_bytes_sent_total"),
            "send_drops_per_second": self.rate(before, "manifold_send_drops_total"),
            "packets_lost_per_second": self.rate(before, "manifold_packets_lost_reported_total"),
            "voices": self.figure("manifold_voices"),
            "voice_receivers": self.figure("manifold_voice_receivers"),
            "voice_loss_percent": 100.0 * self.voice_loss(before),
            "mp3_listeners": self.figure("manifold_mp3_listeners"),
            "mp3_encoders": self.figure("manifold_mp3_encoders"),
        })
    }

    fn lines(&self, before: &Self) -> Vec<String> {
        let uptime = Duration::from_secs(self.figure("manifold_uptime_seconds") as u64);
        let state = |state: &str| self.cameras.iter().filter(|one| one["state"] == state).count();
        let on_the_way = state("connecting") + state("closing");
        let (live, idle) = (state("live"), state("idle"));
        let failed = self.cameras.len() - live - idle - on_the_way;
        let mut lines = vec![
            format!(
                "{}  up {}  cpu {:.0} %  memory {:.0} MB",
                self.base,
                humantime::format_duration(uptime),
                100.0 * self.rate(before, "process_cpu_seconds_total"),
                self.figure("process_resident_memory_bytes") / 1e6,
            ),
            format!(
                "reservations {}  connected {:.0}  frames in {:.0}/s",
                self.stats["active_streams"],
                self.figure("manifold_viewers_connected"),
                self.rate(before, "manifold_frames_in_total"),
            ),
            format!(
                "cameras: {live} live, {on_the_way} on the way, {idle} idle, {failed} without a picture"
            ),
            format!(
                "{:.0} packets/s  {:.1} Mbit/s  lost {:.0}/s  repaired {:.0}/s  dropped {:.0}/s",
                self.rate(before, "manifold_packets_sent_total"),
                8e-6 * self.rate(before, "manifold_bytes_sent_total"),
                self.rate(before, "manifold_packets_lost_reported_total"),
                self.rate(before, "manifold_repairs_total"),
                self.rate(before, "manifold_send_drops_total"),
            ),
        ];
        lines.extend(self.voice_line(before));
        lines.extend(self.missing_line());
        lines.push(String::new());
        lines.extend(self.source_lines());
        lines.push(String::new());
        lines.extend(self.camera_lines());
        lines
    }

    /// Of the packets that senders sent, 0.0 to 1.0: those that never came.
    fn voice_loss(&self, before: &Self) -> f64 {
        let lost = self.rate(before, "manifold_voice_packets_lost_total");
        let sent = lost + self.rate(before, "manifold_voice_packets_total");
        if sent > 0.0 { lost / sent } else { 0.0 }
    }

    /// Nothing while nobody speaks.
    fn voice_line(&self, before: &Self) -> Option<String> {
        let voices = self.figure("manifold_voices");
        (voices > 0.0).then(|| {
            format!(
                "voices {voices:.0}  receivers {:.0}  MP3 players {:.0}, encoders {:.0}  lost on the way here {:.0} %",
                self.figure("manifold_voice_receivers"),
                self.figure("manifold_mp3_listeners"),
                self.figure("manifold_mp3_encoders"),
                100.0 * self.voice_loss(before),
            )
        })
    }

    /// The nodes of a cluster that are not in these figures.
    fn missing_line(&self) -> Option<String> {
        let missing = self.stats["missing_nodes"].as_array()?;
        let names: Vec<&str> = missing.iter().filter_map(Value::as_str).collect();
        Some(format!("not heard: {}; what only they know is not shown", names.join(", ")))
    }

    fn source_lines(&self) -> Vec<String> {
        let mut lines =
            vec![format!("{:<24} {:>6} {:>6} {:>6}", "SOURCE", "USED", "LIMIT", "FREE")];
        let row = |name: &str, usage: &Value| {
            let number = |key: &str| usage[key].as_u64().unwrap_or_default();
            let (used, limit, free) = (number("current"), number("limit"), number("available"));
            format!("{:<24} {used:>6} {limit:>6} {free:>6}", shortened(name, 24))
        };
        let sources = self.stats["stats"].as_array().cloned().unwrap_or_default();
        lines.extend(
            sources.iter().map(|source| row(source["source"].as_str().unwrap_or_default(), source)),
        );
        lines.push(row("all together", &self.stats["total"]));
        lines
    }

    fn camera_lines(&self) -> Vec<String> {
        let head = format!(
            "{:<24} {:<17} {:>7} {:>7} {}",
            "CAMERA", "STATE", "VIEWERS", "PULLERS", "PICTURE"
        );
        let viewers = |camera: &Value| camera["viewer_count"].as_u64().unwrap_or_default();
        let mut cameras: Vec<&Value> = self.cameras.iter().collect();
        cameras
            .sort_by_key(|camera| (std::cmp::Reverse(viewers(camera)), camera["state"] != "live"));
        let more = cameras.len().saturating_sub(CAMERAS_SHOWN);
        let rows = cameras.into_iter().take(CAMERAS_SHOWN).flat_map(camera_lines);
        let rest = (more > 0).then(|| format!("and {more} more"));
        std::iter::once(head).chain(rows).chain(rest).collect()
    }
}

/// One line, and below it the reason why there is no picture. Both fit into a terminal's 80 columns.
fn camera_lines(camera: &Value) -> Vec<String> {
    let text = |key: &str| camera[key].as_str().unwrap_or_default();
    let number = |key: &str| camera[key].as_u64().unwrap_or_default();
    let picture = match camera["codec"].as_str() {
        Some(codec) => format!("{codec} {}x{}", number("width"), number("height")),
        None => String::new(),
    };
    let line = format!(
        "{:<24} {:<17} {:>7} {:>7} {picture}",
        shortened(text("id"), 24),
        text("state"),
        number("viewer_count"),
        number("pullers"),
    );
    let reason = camera["reason"].as_str().map(|reason| format!("  {}", shortened(reason, 78)));
    std::iter::once(line.trim_end().to_owned()).chain(reason).collect()
}

fn shortened(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let kept = text.chars().take(characters.saturating_sub(1));
    kept.chain(std::iter::once('…')).collect()
}

/// The samples of Prometheus' text format, summed over their labels. Buckets are left out.
fn figures(text: &str) -> HashMap<String, f64> {
    let mut figures = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or_default();
        let Ok(value) = value.parse::<f64>() else { continue };
        if !name.ends_with("_bucket") {
            *figures.entry(name.to_owned()).or_default() += value;
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(after: Duration, packets: u32) -> Look {
        let metrics = format!(
            "# HELP manifold_packets_sent_total x\nmanifold_packets_sent_total {packets}\n\
             manifold_pulls_started_total{{camera_id=\"a b\"}} 2\nmanifold_pulls_started_total{{camera_id=\"c\"}} 3\n\
             process_cpu_seconds_total {}\n",
            f64::from(packets) / 1000.0
        );
        let camera = |id: &str, viewers: u64| {
            json!({"id": id, "state": "live", "viewer_count": viewers, "pullers": 1,
                   "codec": "H264", "width": 640, "height": 360})
        };
        Look {
            at: Instant::now() + after,
            base: "http://a/".to_owned(),
            stats: json!({
                "active_streams": 3,
                "stats": [{"source": "METRO", "current": 3, "limit": 30, "available": 27}],
                "total": {"current": 3, "limit": 500, "available": 497},
            }),
            cameras: (0..30).map(|number| camera(&format!("cam-{number}"), number)).collect(),
            figures: figures(&metrics),
        }
    }

    #[test]
    fn rates_are_those_since_the_look_before_and_cameras_come_by_viewers() {
        let (before, now) = (look(Duration::ZERO, 0), look(Duration::from_secs(2), 1_000));
        assert!((now.rate(&before, "manifold_packets_sent_total") - 500.0).abs() < 1.0);
        assert!((now.figure("manifold_pulls_started_total") - 5.0).abs() < 1e-9);
        let lines = now.lines(&before);
        assert!(lines[0].contains("cpu 50 %"), "{}", lines[0]);
        assert!(lines[3].starts_with("500 packets/s"), "{}", lines[3]);
        assert!(lines.iter().any(|line| line.starts_with("METRO") && line.ends_with("27")));
        let cameras = now.camera_lines();
        assert!(cameras[1].starts_with("cam-29 ") && cameras[1].ends_with("H264 640x360"));
        assert_eq!(cameras.last().map(String::as_str), Some("and 6 more"));
        // It was started anew.
        assert!(before.rate(&now, "manifold_packets_sent_total").abs() < 1e-9);
    }
}

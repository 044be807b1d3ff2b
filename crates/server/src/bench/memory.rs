//! Memory a viewer: what a server of its own grows by when viewers join, whether others can use it
//! when they have left, and whether all of them are forgotten.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use media::peer::client::ClientFactory;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::child::ServerProcess;
use super::request::Request;
use super::viewers::Watching;
use super::{Figure, Report};

/// Resident memory that one viewer may take.
const VIEWER_KB_MAX: f64 = 100.0;
/// What a viewer may take beyond the memory that another one left. The allocator keeps what it was
/// given back, so that memory which stays resident is none that is lost; what grows from round to
/// round is. Threads that share the work differently each time make some difference.
const LOST_KB_MAX: f64 = 10.0;
/// Viewers that join at the same time: more would only wait for the handshakes of each other.
const JOINS_AT_ONCE: usize = 16;
/// How long all viewers together may take to play, or to be forgotten.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at what is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A lease ends before the viewer has been told; what was held for telling it goes in this time.
const GOODBYE_TIME: Duration = Duration::from_millis(500);
/// Pictures that each viewer gets before the memory is read: two groups, so that nothing of the
/// joining is on its way any more.
const PICTURES_BEFORE: u64 = 30;
const CAMERA: &str = "bench";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryBench {
    /// Viewers of the one camera.
    pub(crate) viewers: usize,
}

/// Measures for some tens of seconds.
pub(crate) fn run(bench: MemoryBench) -> anyhow::Result<Report> {
    ensure!(bench.viewers > 0, "there is nothing to measure");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(bench))
}

async fn measure(bench: MemoryBench) -> anyhow::Result<Report> {
    let server = ServerProcess::start(&settings(bench.viewers)).await?;
    let clients = ClientFactory::new().context("no DTLS certificate could be made")?;
    // The first one brings the camera, and threads and tables that the others share.
    let first = join(&server, &clients, 1).await?;
    let before = server.resident_bytes()?;
    let viewers = join(&server, &clients, bench.viewers).await?;
    let watched = server.resident_bytes()?;
    leave(viewers).await?;
    remaining(server.address(), 1).await?;
    let again = join(&server, &clients, bench.viewers).await?;
    let watched_again = server.resident_bytes()?;
    leave(again.into_iter().chain(first)).await?;
    let (viewers_left, reservations_left) = remaining(server.address(), 0).await?;
    let left = server.resident_bytes()?;

    let a_viewer = watched.saturating_sub(before) as f64 / bench.viewers as f64;
    let lost = watched_again.saturating_sub(watched) as f64 / bench.viewers as f64;
    let kb = |bytes: u64| bytes as f64 / 1e3;
    let figures = vec![
        Figure::new("memory a viewer", "KB", a_viewer / 1e3).under(VIEWER_KB_MAX),
        Figure::new("not used again when others come", "KB", lost / 1e3).under(LOST_KB_MAX),
        Figure::new("resident with one viewer", "KB", kb(before)),
        Figure::new("resident with all viewers", "KB", kb(watched)),
        Figure::new("resident when all have left", "KB", kb(left)),
        Figure::new("viewers left", "", viewers_left as f64).under(1.0),
        Figure::new("reservations left", "", reservations_left as f64).under(1.0),
    ];
    let title = format!(
        "resident memory of a server that {} more viewers join and leave twice",
        bench.viewers
    );
    Ok(Report { title, headline: vec![("bytes_per_viewer", a_viewer)], figures })
}

/// One synthetic camera, and room for one viewer more than are measured.
fn settings(viewers: usize) -> String {
    let limit = viewers + 1;
    format!(
        r#"listen = ["127.0.0.1:0"]
[media]
udp = "127.0.0.1:0"
[quota]
total = {limit}
[log]
level = "warn"
[[sources]]
id = "BENCH"
name = "Benchmark"
limit = {limit}
[[cameras]]
id = "{CAMERA}"
name = "Benchmark"
source = "BENCH"
url = "test://?width=320&height=180&fps=15&gop=15"
"#
    )
}

/// Lets `count` viewers join, and returns when all of them have been playing for a while.
async fn join(
    server: &ServerProcess,
    clients: &ClientFactory,
    count: usize,
) -> anyhow::Result<Vec<Watching>> {
    let viewers: Vec<Watching> = stream::iter(0..count)
        .map(|_| Watching::join(server.address(), CAMERA, clients))
        .buffer_unordered(JOINS_AT_ONCE)
        .try_collect()
        .await?;
    let deadline = Instant::now() + PATIENCE;
    let behind = || viewers.iter().filter(|viewer| viewer.pictures() < PICTURES_BEFORE).count();
    while behind() > 0 {
        ensure!(Instant::now() < deadline, "{} of {count} viewers do not play", behind());
        sleep(LOOK_INTERVAL).await;
    }
    Ok(viewers)
}

async fn leave(viewers: impl IntoIterator<Item = Watching>) -> anyhow::Result<()> {
    for viewer in viewers {
        viewer.leave().await?;
    }
    Ok(())
}

/// Waits until only `expected` watch, and returns who is left (viewers, reservations).
async fn remaining(server: SocketAddr, expected: u64) -> anyhow::Result<(u64, u64)> {
    let stats = Request {
        method: "GET",
        path: "/api/v1/stream/stats",
        content_type: "application/json",
        token: None,
        body: "",
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = stats.send(server).await?.json()?;
        let left = (count(&answer, "total_viewers")?, count(&answer, "active_streams")?);
        if left == (expected, expected) {
            sleep(GOODBYE_TIME).await;
            return Ok(left);
        }
        if Instant::now() >= deadline {
            return Ok(left);
        }
        sleep(LOOK_INTERVAL).await;
    }
}

fn count(answer: &Value, key: &str) -> anyhow::Result<u64> {
    let Some(number) = answer[key].as_u64() else { bail!("no number {key} in {answer}") };
    Ok(number)
}

//! One voice and its listeners: what a packet costs, how long it is on its way, what a listener takes,
//! and what ten thousand joins and leaves leave behind.
//!
//! The costs are measured as those of pictures are (`egress`). For the rest a server of its own runs,
//! with a speaker and listeners over loopback that come by its WebSocket as pages do. The way of a packet
//! is from just before the speaker's `sendto` to the kernel's note of its arrival at a listener: all of
//! the server, and loopback twice. Speaker and listeners share the machine's cores with the server.

mod listener;
mod signalling;
mod speaker;
mod stage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use media::peer::tapped_client::TappedClientFactory;
use tokio::time::{Instant, sleep};

use super::child::ServerProcess;
use super::request::Request;
use super::{Figure, Report, egress, quantile};
use crate::net::raise_descriptor_limit;
use listener::{Audience, Heard, Listening};
use speaker::Speaker;
use stage::Stage;

/// From a packet's arrival at the server to its arrival at a listener.
const WAY_P99_MS_MAX: f64 = 2.0;
/// Resident memory that one listener may take.
const LISTENER_KB_MAX: f64 = 100.0;
/// What a listener may take beyond the memory that another one left, as in `memory`.
const LOST_KB_MAX: f64 = 10.0;
/// What joins and leaves may leave behind: the allocator keeps what it was given back, in pieces that
/// differ from run to run.
const GROWTH_KB_MAX: f64 = 2_000.0;
/// Listeners that join at the same time, as in `churn`: more would only wait for the handshakes of each
/// other.
const JOINS_AT_ONCE: usize = 32;
/// Tables and the allocator's arenas have their size after a fifth of the joins.
const WARM_UP_SHARE: usize = 5;
/// Packets that each listener gets before anything is measured: half a second.
const PACKETS_BEFORE: u64 = 25;
/// How long all listeners together may take to hear, or to be forgotten.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at what is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A client is forgotten before its connection has said goodbye; what was held for that goes in this
/// time.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VoiceBench {
    /// Listeners of the one voice.
    pub(crate) listeners: usize,
    /// Turns that each way of sending is measured in.
    pub(crate) rounds: usize,
    /// How long the way of packets is timed.
    pub(crate) time: Duration,
    /// Joins and leaves.
    pub(crate) joins: usize,
}

/// Measures for some minutes.
pub(crate) fn run(bench: VoiceBench) -> anyhow::Result<Report> {
    ensure!(bench.listeners > 0 && bench.rounds > 0, "there is nothing to measure");
    raise_descriptor_limit();
    let mut figures = egress::voice(bench.listeners, bench.rounds)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    figures.extend(runtime.block_on(measure(bench))?);
    let title = format!(
        "one voice for {} listeners over loopback, and {} joins and leaves",
        bench.listeners, bench.joins
    );
    Ok(Report { title, headline: vec![("way_ms_max", WAY_P99_MS_MAX)], figures })
}

async fn measure(bench: VoiceBench) -> anyhow::Result<Vec<Figure>> {
    let server = ServerProcess::start(&settings(bench.listeners)).await?;
    let stage = Arc::new(Stage::new());
    let clients = TappedClientFactory::new().context("no DTLS certificate could be made")?;
    let audience = Audience {
        server: server.address(),
        clients: Arc::new(clients),
        stage: Arc::clone(&stage),
    };
    let _speaker = Speaker::begin(server.address(), stage).await?;
    let mut figures = way(&server, &audience, 1, bench.time).await?;
    figures.extend(way(&server, &audience, bench.listeners, bench.time).await?);
    figures.extend(memory(&server, &audience, bench.listeners).await?);
    figures.extend(churn(&server, &audience, bench.joins).await?);
    Ok(figures)
}

/// Room for the speaker, who looks on from a second connection, and one listener more than are measured.
fn settings(listeners: usize) -> String {
    let limit = listeners.max(JOINS_AT_ONCE) + 3;
    format!(
        r#"listen = ["127.0.0.1:0"]
[media]
udp = "127.0.0.1:0"
[voice]
max_connections = {limit}
[log]
level = "warn"
"#
    )
}

/// How long packets are on their way to so many listeners, and what that costs the server.
async fn way(
    server: &ServerProcess,
    audience: &Audience,
    listeners: usize,
    time: Duration,
) -> anyhow::Result<Vec<Figure>> {
    let listening = join(audience, listeners).await?;
    let packets = || listening.iter().map(Listening::packets).sum::<u64>();
    let (packets_before, cpu_before) = (packets(), server.cpu_time()?);
    audience.stage.begin();
    sleep(time).await;
    audience.stage.end();
    let cpu = server.cpu_time()?.saturating_sub(cpu_before);
    let arrived = packets() - packets_before;
    let heard = leave(listening).await?;
    remaining(server.address(), 1).await?;

    let ways: Vec<f64> = heard.iter().flat_map(|heard| &heard.ways_ms).copied().collect();
    ensure!(!ways.is_empty(), "no packet was timed");
    let lost: u64 = heard.iter().map(|heard| heard.figures.lost).sum();
    let forged: u64 = heard.iter().map(|heard| heard.figures.not_authentic).sum();
    let of = |what: &str| match listeners {
        1 => format!("1 listener: {what}"),
        _ => format!("{listeners} listeners: {what}"),
    };
    let cpu_us = cpu.as_secs_f64() * 1e6 / arrived.max(1) as f64;
    Ok(vec![
        Figure::new(of("packet in to packet out, p50"), "ms", quantile(&ways, 0.5)),
        Figure::new(of("packet in to packet out, p99"), "ms", quantile(&ways, 0.99))
            .under(WAY_P99_MS_MAX),
        Figure::new(of("CPU of the whole server a packet"), "us", cpu_us),
        Figure::new(of("packets lost or not authentic"), "", (lost + forged) as f64).under(1.0),
    ])
}

/// What the server grows by when listeners join, and whether others can use it when they have left.
async fn memory(
    server: &ServerProcess,
    audience: &Audience,
    listeners: usize,
) -> anyhow::Result<Vec<Figure>> {
    // The first one brings what the others share.
    let first = join(audience, 1).await?;
    let before = server.resident_bytes()?;
    let mut heard = Vec::new();
    for _ in 0..2 {
        let listening = join(audience, listeners).await?;
        heard.push(server.resident_bytes()?);
        leave(listening).await?;
        remaining(server.address(), 2).await?;
    }
    leave(first).await?;
    let [once, twice] = [heard[0], heard[1]];
    let a_listener = |from: u64, to: u64| to.saturating_sub(from) as f64 / listeners as f64 / 1e3;
    Ok(vec![
        Figure::new("memory a listener", "KB", a_listener(before, once)).under(LISTENER_KB_MAX),
        Figure::new("not used again when others come", "KB", a_listener(once, twice))
            .under(LOST_KB_MAX),
    ])
}

/// What a server holds.
struct Holdings {
    resident_kb: f64,
    files: f64,
    threads: f64,
    clients: f64,
}

/// Joins and leaves, and what of them stays behind.
async fn churn(
    server: &ServerProcess,
    audience: &Audience,
    joins: usize,
) -> anyhow::Result<Vec<Figure>> {
    visit(audience, joins / WARM_UP_SHARE).await?;
    let before = rest(server).await?;
    let (begun, cpu_before) = (Instant::now(), server.cpu_time()?);
    let times_ms = visit(audience, joins).await?;
    let (elapsed, cpu) = (begun.elapsed(), server.cpu_time()?.saturating_sub(cpu_before));
    let after = rest(server).await?;
    let a_join = |time: Duration| time.as_secs_f64() * 1e3 / joins.max(1) as f64;
    let failed = joins - times_ms.len();
    let grown = |of: fn(&Holdings) -> f64| of(&after) - of(&before);
    Ok(vec![
        Figure::new(format!("{joins} joins and leaves: failed"), "", failed as f64).under(1.0),
        Figure::new("memory more than before", "KB", grown(|held| held.resident_kb))
            .under(GROWTH_KB_MAX),
        Figure::new("sockets and files more than before", "", grown(|held| held.files)).under(1.0),
        Figure::new("threads more than before", "", grown(|held| held.threads)).under(1.0),
        Figure::new("clients more than before", "", grown(|held| held.clients)).under(1.0),
        Figure::new("joins a second", "/s", joins as f64 / elapsed.as_secs_f64()),
        Figure::new("CPU of the server, a join and leave", "ms", a_join(cpu)),
        Figure::new("from the wish to the first packet, p50", "ms", quantile(&times_ms, 0.5)),
        Figure::new("from the wish to the first packet, p99", "ms", quantile(&times_ms, 0.99)),
    ])
}

/// So many joins, each left again once something is heard. Returns how long those took that came about,
/// in milliseconds.
async fn visit(audience: &Audience, joins: usize) -> anyhow::Result<Vec<f64>> {
    let visits = stream::iter(0..joins).map(|_| async {
        let listening = Listening::join(audience.clone()).await?;
        let joined_in = listening.joined_in;
        listening.leave().await?;
        anyhow::Ok(joined_in.as_secs_f64() * 1e3)
    });
    let results: Vec<anyhow::Result<f64>> = visits.buffer_unordered(JOINS_AT_ONCE).collect().await;
    let mut times_ms = Vec::with_capacity(results.len());
    for result in results {
        match result {
            Ok(time) => times_ms.push(time),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "a listener failed"),
        }
    }
    Ok(times_ms)
}

/// Lets `count` listeners join, and returns when all of them have been hearing for a while.
async fn join(audience: &Audience, count: usize) -> anyhow::Result<Vec<Listening>> {
    let listening: Vec<Listening> = stream::iter(0..count)
        .map(|_| Listening::join(audience.clone()))
        .buffer_unordered(JOINS_AT_ONCE)
        .try_collect()
        .await?;
    let deadline = Instant::now() + PATIENCE;
    let behind = || listening.iter().filter(|one| one.packets() < PACKETS_BEFORE).count();
    while behind() > 0 {
        ensure!(Instant::now() < deadline, "{} of {count} listeners do not hear", behind());
        sleep(LOOK_INTERVAL).await;
    }
    Ok(listening)
}

async fn leave(listening: Vec<Listening>) -> anyhow::Result<Vec<Heard>> {
    stream::iter(listening)
        .map(Listening::leave)
        .buffer_unordered(JOINS_AT_ONCE)
        .try_collect()
        .await
}

/// What the server holds when only the speaker is there.
async fn rest(server: &ServerProcess) -> anyhow::Result<Holdings> {
    let clients = remaining(server.address(), 1).await?;
    Ok(Holdings {
        resident_kb: server.resident_bytes()? as f64 / 1e3,
        files: server.files()? as f64,
        threads: server.threads()? as f64,
        clients: clients as f64,
    })
}

/// Waits until there are `expected` clients, and returns how many there are.
async fn remaining(server: SocketAddr, expected: u64) -> anyhow::Result<u64> {
    let health = Request {
        method: "GET",
        path: "/health",
        content_type: "application/json",
        token: None,
        body: "",
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = health.send(server).await?.json()?;
        let clients = answer["connected_clients"]
            .as_u64()
            .with_context(|| format!("no number connected_clients in {answer}"))?;
        if clients == expected {
            sleep(GOODBYE_TIME).await;
            return Ok(clients);
        }
        if Instant::now() >= deadline {
            return Ok(clients);
        }
        sleep(LOOK_INTERVAL).await;
    }
}

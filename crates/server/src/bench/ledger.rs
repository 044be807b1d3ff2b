//! Reservations a second on a store: many callers reserve and release at a fixed rate, however long the
//! answers take, and in the end nothing may be left. Once as the server's own parts ask the ledger,
//! once through the HTTP interface of a server of its own.

mod desk;
mod http;
mod redis;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::runtime::Builder;

use super::child::cpu_time;
use super::{Figure, Report, quantile};
use crate::ledger::connection::Store;
use crate::ledger::{LedgerPlace, OnStoreLoss, StoreAddress};
use redis::RedisServer;

/// The longest that 99 of 100 operations may take.
const P99_MS_MAX: f64 = 10.0;
/// How much of the rate may be missed, in percent.
const MISSING_MAX: f64 = 1.0;
/// Cameras that are reserved in turn, of several sources.
const CAMERAS: u32 = 100;
const SOURCES: u32 = 4;
/// Limit of each source and of all: more than all callers hold at once.
const LEASES_MAX: u32 = 50_000;
/// Before every key: beside what else is in the store, and in one slot of a cluster.
const PREFIX: &str = "{manifold-bench}";

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct LedgerBench {
    /// `store.url`; a redis-server is started for it where it is left out.
    pub(crate) store: Option<String>,
    /// Reservations a second, each of which is released again.
    pub(crate) rate: u32,
    /// The same through HTTP.
    pub(crate) http_rate: u32,
    /// Callers, each of which waits for its answer; of HTTP each by a connection of its own.
    pub(crate) callers: u32,
    /// For how long, each way.
    pub(crate) time: Duration,
    /// `None`: both.
    pub(crate) only: Option<Way>,
}

/// How the ledger is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// As the server's own parts ask it.
    Ledger,
    /// By HTTP requests to a server.
    Http,
}

/// Measures for `time`, or twice that, and a moment.
pub(crate) fn run(bench: &LedgerBench) -> anyhow::Result<Report> {
    let is_something = bench.callers > 0 && bench.rate > 0 && bench.http_rate > 0;
    ensure!(is_something, "there is nothing to measure");
    let mut figures = Vec::new();
    let mut headline = Vec::new();
    if bench.only != Some(Way::Http) {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let found = runtime.block_on(by_ledger(bench))?;
        headline.extend([("reserve_p99_ms", found.p99), ("reservations_per_second", found.rate)]);
        figures.extend(found.figures);
    }
    if bench.only != Some(Way::Ledger) {
        // All callers in one thread, which wakes nobody: they take as little of the cores as they can.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let found = runtime.block_on(by_http(bench))?;
        headline.extend([
            ("http_reserve_p99_ms", found.p99),
            ("http_reservations_per_second", found.rate),
        ]);
        figures.extend(found.figures);
    }
    let title = format!(
        "{} reservations a second for {} s by {} callers, {} through HTTP, each released at once, on {}",
        bench.rate,
        bench.time.as_secs(),
        bench.callers,
        bench.http_rate,
        if bench.store.is_some() { "the given store" } else { "a redis-server of its own" },
    );
    Ok(Report { title, headline, figures })
}

/// What one way came to.
struct Found {
    rate: f64,
    /// Of reservations, in milliseconds.
    p99: f64,
    figures: Vec<Figure>,
}

async fn by_ledger(bench: &LedgerBench) -> anyhow::Result<Found> {
    let (place, redis) = place(bench).await?;
    let desk = desk::start(place)?;
    let callers = (0..bench.callers).map(|_| desk.clone()).collect();
    let took = call_all(bench, bench.rate, callers).await?;
    let left = desk.left().await?;
    let mut found = took.found("", bench.rate, left);
    found.figures.extend(redis.map(|redis| took.cpu("redis-server", redis.cpu_time())));
    Ok(found)
}

async fn by_http(bench: &LedgerBench) -> anyhow::Result<Found> {
    let (place, redis) = place(bench).await?;
    let url = match (&bench.store, &redis) {
        (Some(url), _) => url.clone(),
        (None, Some(redis)) => redis.url(),
        (None, None) => "memory".to_owned(),
    };
    let server = http::start(&url).await?;
    let callers = http::connect(server.address(), bench.callers).await?;
    let before = server.cpu_time()?;
    let own_before = cpu_time(std::process::id())?;
    let took = call_all(bench, bench.http_rate, callers).await?;
    let cpu = server.cpu_time().map(|time| time.saturating_sub(before));
    let own = cpu_time(std::process::id()).map(|time| time.saturating_sub(own_before));
    let cpu = [took.cpu("HTTP: server", cpu), took.cpu("HTTP: callers", own)];
    let mut left = http::left(server.address()).await?;
    drop(server);
    if let LedgerPlace::Store { .. } = place {
        left += desk::start(place)?.left().await?;
    }
    let mut found = took.found("HTTP: ", bench.http_rate, left);
    found.figures.extend(cpu);
    found.figures.extend(redis.map(|redis| took.cpu("HTTP: redis-server", redis.cpu_time())));
    Ok(found)
}

/// Where leases are kept, and the server that was started for them.
async fn place(bench: &LedgerBench) -> anyhow::Result<(LedgerPlace, Option<RedisServer>)> {
    let (url, redis) = match &bench.store {
        Some(url) => (url.clone(), None),
        None => RedisServer::start().map(|redis| (redis.url(), Some(redis)))?,
    };
    if url == "memory" {
        return Ok((LedgerPlace::Memory, redis));
    }
    let address = StoreAddress::parse(&url).map_err(anyhow::Error::msg)?;
    let store = Store::new(address, PREFIX.to_owned());
    store.ping().await?;
    Ok((LedgerPlace::Store { store, on_loss: OnStoreLoss::Refuse }, redis))
}

/// Who reserves and releases.
trait Caller: Send + 'static {
    /// What is reserved.
    type Place: Send;

    /// `None`: it was not granted.
    fn reserve(&mut self, camera: u32) -> impl Future<Output = Option<Self::Place>> + Send;

    /// Whether it was there.
    fn release(&mut self, place: Self::Place) -> impl Future<Output = bool> + Send;
}

/// What all callers found.
struct Took {
    seconds: f64,
    times: Times,
}

/// In milliseconds, of reservations from when their turn was.
#[derive(Default)]
struct Times {
    reserving: Vec<f64>,
    releasing: Vec<f64>,
    failed: u32,
}

async fn call_all<C: Caller>(
    bench: &LedgerBench,
    rate: u32,
    callers: Vec<C>,
) -> anyhow::Result<Took> {
    let began = Instant::now();
    let interval = Duration::from_secs(1) * bench.callers / rate;
    let tasks: Vec<_> = callers
        .into_iter()
        .zip(0u32..)
        .map(|(caller, number)| {
            let offset = interval * number / bench.callers;
            tokio::spawn(call(caller, interval, offset, bench.time))
        })
        .collect();
    let mut times = Times::default();
    for task in tasks {
        let Times { reserving, releasing, failed } = task.await.context("a caller panicked")?;
        times.reserving.extend(reserving);
        times.releasing.extend(releasing);
        times.failed += failed;
    }
    Ok(Took { seconds: began.elapsed().as_secs_f64(), times })
}

/// Reserves and releases once in each `interval`. Who comes late through slow answers has the time
/// counted that he was late.
async fn call<C: Caller>(
    mut caller: C,
    interval: Duration,
    offset: Duration,
    time: Duration,
) -> Times {
    let began = tokio::time::Instant::now() + offset;
    let mut times = Times::default();
    let mut turn = 0u32;
    loop {
        let due = began + interval * turn;
        if due.duration_since(began) >= time {
            return times;
        }
        tokio::time::sleep_until(due).await;
        match caller.reserve(turn % CAMERAS).await {
            Some(place) => {
                times.reserving.push(due.elapsed().as_secs_f64() * 1e3);
                let asked = Instant::now();
                let was_there = caller.release(place).await;
                times.releasing.push(asked.elapsed().as_secs_f64() * 1e3);
                times.failed += u32::from(!was_there);
            }
            None => times.failed += 1,
        }
        turn += 1;
    }
}

impl Took {
    fn found(&self, way: &str, wanted: u32, left: u32) -> Found {
        let Times { reserving, releasing, failed } = &self.times;
        let rate = reserving.len() as f64 / self.seconds;
        let missing = 100.0 * (1.0 - rate / f64::from(wanted)).max(0.0);
        let p99 = quantile(reserving, 0.99);
        let named = |name: &str| format!("{way}{name}");
        let figures = vec![
            Figure::new(named("reservations a second"), "/s", rate),
            Figure::new(named("of those wanted, missing"), "%", missing).under(MISSING_MAX),
            Figure::median(named("reserve"), "ms", reserving),
            Figure::new(named("reserve, 99 of 100"), "ms", p99).under(P99_MS_MAX),
            Figure::new(named("reserve, longest"), "ms", quantile(reserving, 1.0)),
            Figure::median(named("release"), "ms", releasing),
            Figure::new(named("release, 99 of 100"), "ms", quantile(releasing, 0.99))
                .under(P99_MS_MAX),
            Figure::new(named("not granted"), "", f64::from(*failed)).under(1.0),
            Figure::new(named("leases and counts left"), "", f64::from(left)).under(1.0),
        ];
        Found { rate, p99, figures }
    }

    /// What somebody's CPU time is a reservation and its release; not a number if he ended.
    fn cpu(&self, whose: &str, time: anyhow::Result<Duration>) -> Figure {
        let total_us = time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e6);
        let a_reservation = total_us / self.times.reserving.len() as f64;
        Figure::new(format!("{whose}, CPU a reservation and its release"), "us", a_reservation)
    }
}

fn camera(number: u32) -> String {
    format!("cam-{number:03}")
}

/// Of a camera.
fn source(camera: u32) -> String {
    format!("BENCH_{}", camera % SOURCES)
}

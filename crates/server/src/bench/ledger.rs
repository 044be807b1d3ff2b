//! Reservations a second on a store: many callers reserve and release at a fixed rate, however long the
//! answers take, and in the end nothing may be left.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use control::{
    Answer, CameraId, Class, LedgerOp, Outcome, Policy, Quality, Quota, Reservation, ReservationId,
    Source, SourceId, Timestamp, Unit,
};
use tokio::sync::oneshot;

use super::{Figure, Report, quantile};
use crate::ledger::connection::Store;
use crate::ledger::{Ledger, LedgerPlace, News, OnStoreLoss, StoreAddress};

/// The longest that 99 of 100 operations may take.
const P99_MS_MAX: f64 = 10.0;
/// How much of the rate has to be reached.
const REACHED_MIN: f64 = 0.99;
/// How long redis-server may take to start.
const START_TIME_MAX: Duration = Duration::from_secs(20);
/// Cameras that are reserved in turn, of several sources.
const CAMERAS: usize = 100;
const SOURCES: usize = 4;

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct LedgerBench {
    /// `store.url`; a redis-server is started for it where it is left out.
    pub(crate) store: Option<String>,
    /// Reservations a second, each of which is released again.
    pub(crate) rate: u32,
    /// Callers, each of which waits for its answer.
    pub(crate) callers: u32,
    /// For how long.
    pub(crate) time: Duration,
}

type Ticket = oneshot::Sender<Outcome>;

/// Measures for `time` and a moment.
pub(crate) fn run(bench: &LedgerBench) -> anyhow::Result<Report> {
    ensure!(bench.callers > 0 && bench.rate > 0, "there is nothing to measure");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(bench))
}

async fn measure(bench: &LedgerBench) -> anyhow::Result<Report> {
    let (url, _server) = match &bench.store {
        Some(url) => (url.clone(), None),
        None => RedisServer::start().map(|server| (server.url(), Some(server)))?,
    };
    let place = if url == "memory" {
        LedgerPlace::Memory
    } else {
        let address = StoreAddress::parse(&url).map_err(anyhow::Error::msg)?;
        // Beside what else is in the store, and in one slot of a cluster.
        let store = Store::new(address, "{manifold-bench}".to_owned());
        store.ping().await?;
        LedgerPlace::Store { store, on_loss: OnStoreLoss::Refuse }
    };
    let ledger = start(place)?;
    let callers: Vec<_> = (0..bench.callers)
        .map(|caller| tokio::spawn(call(ledger.clone(), bench.clone(), caller)))
        .collect();
    let began = Instant::now();
    let (mut reserving, mut releasing, mut failed) = (Vec::new(), Vec::new(), 0);
    for caller in callers {
        let times = caller.await.context("a caller panicked")?;
        reserving.extend(times.reserving);
        releasing.extend(times.releasing);
        failed += times.failed;
    }
    let took = began.elapsed().as_secs_f64();
    let left = left(&ledger).await?;
    let rate = reserving.len() as f64 / took;
    let wanted = f64::from(bench.rate);
    let p99 = quantile(&reserving, 0.99);
    let figures = vec![
        Figure::new("reservations a second", "/s", rate),
        Figure::new("of those wanted, missing", "%", 100.0 * (1.0 - rate / wanted).max(0.0))
            .under(100.0 * (1.0 - REACHED_MIN)),
        Figure::median("reserve", "ms", &reserving),
        Figure::new("reserve, 99 of 100", "ms", p99).under(P99_MS_MAX),
        Figure::new("reserve, longest", "ms", quantile(&reserving, 1.0)),
        Figure::median("release", "ms", &releasing),
        Figure::new("release, 99 of 100", "ms", quantile(&releasing, 0.99)).under(P99_MS_MAX),
        Figure::new("not granted", "", f64::from(failed)).under(1.0),
        Figure::new("leases and counts left", "", f64::from(left)).under(1.0),
    ];
    let title = format!(
        "{} reservations a second for {} s by {} callers, each released at once, on {}",
        bench.rate,
        bench.time.as_secs(),
        bench.callers,
        if bench.store.is_some() { "the given store" } else { "a redis-server of its own" },
    );
    let headline = vec![("reserve_p99_ms", p99), ("reservations_per_second", rate)];
    Ok(Report { title, headline, figures })
}

/// What one caller found, in milliseconds from when its turn was.
#[derive(Default)]
struct Times {
    reserving: Vec<f64>,
    releasing: Vec<f64>,
    failed: u32,
}

/// A ledger that several callers ask.
#[derive(Clone)]
struct Shared {
    ledger: Arc<Mutex<Ledger<Ticket>>>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Shared {
    async fn ask(&self, op: LedgerOp) -> anyhow::Result<Outcome> {
        let (ticket, outcome) = oneshot::channel();
        let at_once = {
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger.apply(ticket, op, (self.clock)(), ToString::to_string)
        };
        match at_once {
            Some((_, outcome)) => Ok(outcome),
            None => outcome.await.context("the ledger ended"),
        }
    }
}

fn start(place: LedgerPlace) -> anyhow::Result<Shared> {
    let sources: Result<Vec<Source>, _> = (0..SOURCES)
        .map(|number| {
            let id = SourceId::parse(&format!("BENCH_{number}"))?;
            anyhow::Ok(Source { id, name: String::new(), name_ar: String::new(), limit: 50_000 })
        })
        .collect();
    let quota = Quota::new(Unit::Viewer, 50_000, &sources?);
    let (began, wall) = (Instant::now(), SystemTime::now());
    let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let clock: Arc<dyn Fn() -> Timestamp + Send + Sync> =
        Arc::new(move || Timestamp::ZERO + since_epoch + began.elapsed());
    let tell = |news| {
        if let News::Outcome(ticket, outcome) = news {
            // The caller gave up: the measurement has failed.
            let _: Result<(), Outcome> = Ticket::send(ticket, outcome);
        }
    };
    let ledger = Ledger::start(place, quota, Policy::default(), Arc::clone(&clock), Box::new(tell));
    Ok(Shared { ledger: Arc::new(Mutex::new(ledger)), clock })
}

/// Reserves and releases at its share of the rate. Who comes late through slow answers has the time
/// counted that he was late.
async fn call(ledger: Shared, bench: LedgerBench, caller: u32) -> Times {
    let interval = Duration::from_secs(1) * bench.callers / bench.rate;
    let began = tokio::time::Instant::now() + interval * caller / bench.callers;
    let mut times = Times::default();
    let mut turn = 0u32;
    loop {
        let due = began + interval * turn;
        if due.duration_since(began) >= bench.time {
            return times;
        }
        tokio::time::sleep_until(due).await;
        let Some(reservation) = reservation(turn) else { return times };
        let id = reservation.id.clone();
        match ledger.ask(LedgerOp::Reserve(reservation)).await {
            Ok(Outcome { answer: Answer::Reserved { .. }, .. }) => {
                times.reserving.push(due.elapsed().as_secs_f64() * 1e3);
            }
            Ok(_) | Err(_) => times.failed += 1,
        }
        let asked = Instant::now();
        match ledger.ask(LedgerOp::Release(id)).await {
            Ok(Outcome { answer: Answer::Released { .. }, .. }) => {
                times.releasing.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            Ok(_) | Err(_) => times.failed += 1,
        }
        turn += 1;
    }
}

fn reservation(turn: u32) -> Option<Reservation> {
    let number = turn as usize % CAMERAS;
    Some(Reservation {
        id: ReservationId::parse(&uuid::Uuid::new_v4().to_string()).ok()?,
        camera: CameraId::parse(&format!("cam-{number:03}")).ok()?,
        source: SourceId::parse(&format!("BENCH_{}", number % SOURCES)).ok()?,
        user: "bench".to_owned(),
        quality: Quality::Auto,
        class: Class::LOWEST,
    })
}

/// Leases, and units that are still counted.
async fn left(ledger: &Shared) -> anyhow::Result<u32> {
    let Answer::Snapshot(snapshot) = ledger.ask(LedgerOp::Snapshot).await?.answer else {
        bail!("the store could not be asked for what is left");
    };
    let mut left = u32::try_from(snapshot.leases.len()).unwrap_or(u32::MAX);
    for source in snapshot.sources {
        let counted = ledger.ask(LedgerOp::Count(source.source)).await?.answer;
        if let Answer::Counted(usage) = counted {
            left += usage.current;
        }
    }
    Ok(left)
}

/// A redis-server that keeps nothing, and ends with the measurement.
struct RedisServer {
    port: u16,
    child: Child,
}

impl RedisServer {
    fn start() -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server does not start; install it, or name a store with --store")?;
        let server = Self { port, child };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(began.elapsed() < START_TIME_MAX, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

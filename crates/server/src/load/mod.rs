//! `manifold load`: many viewers of any WHEP server, in one process on few threads.
//!
//! Each viewer is a real one up to its keys: an offer over HTTP, ICE, DTLS, and a UDP socket of its
//! own. From there on it is as cheap as one can be: it counts what arrives by the headers, opens one
//! packet in so many, and sends a receiver report a second. What it leaves out is written in
//! `docs/ref/load.md`.

mod board;
mod decode;
mod display;
mod histogram;
mod report;
mod targets;
mod viewer;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use media::peer::tapped_client::TappedClientFactory;
use secrecy::SecretString;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use url::Url;

use board::Board;
use viewer::Viewing;

pub(crate) use display::Display;
pub(crate) use report::LoadReport;
pub(crate) use targets::Targets;

use crate::net::{Offload, raise_descriptor_limit};
use crate::remote::{Trust, own_address};

/// How long viewers may take to leave when the time is over: a request each, over what may be a slow
/// server, as many at once as there are viewers.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(30);

/// What is to be done.
#[derive(Debug)]
pub(crate) struct LoadPlan {
    /// What is watched, one after the other by each next viewer.
    pub(crate) targets: Targets,
    /// Viewers at the same time.
    pub(crate) viewers: NonZeroUsize,
    /// Between the starts of two viewers; zero is all at once.
    pub(crate) pause: Duration,
    /// From the start to the end, unless a signal or the last join comes before.
    pub(crate) duration: Option<Duration>,
    /// Joins in all, where viewers leave again; `None`: each joins once and stays.
    pub(crate) joins: Option<usize>,
    /// How long a viewer that leaves again stays once it has its first keyframe.
    pub(crate) stay: Duration,
    /// How long a viewer may take from its offer to its first keyframe.
    pub(crate) patience: Duration,
    /// Goes with each request.
    pub(crate) token: Option<SecretString>,
    /// By whom servers are believed that are asked by HTTPS.
    pub(crate) trust: Option<Trust>,
    /// Base of our own API where each viewer reserves a place first.
    pub(crate) reserve: Option<Url>,
    /// How many of the viewers decode their picture and read the test card's strip.
    pub(crate) decoding: usize,
    /// One packet in so many is decrypted.
    pub(crate) open_every: u16,
    pub(crate) threads: NonZeroUsize,
    /// The viewers' own address; else the one on the way to the server.
    pub(crate) bind: Option<std::net::IpAddr>,
    pub(crate) offload: Offload,
}

/// Runs to the end of the plan, or to a signal.
pub(crate) fn run(plan: LoadPlan, display: Display) -> anyhow::Result<LoadReport> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(plan.threads.get())
        .enable_all()
        .build()
        .context("the threads could not be started")?;
    let report = runtime.block_on(watch(plan, display));
    runtime.shutdown_background();
    report
}

/// Threads that are worth it: more than four only wait for each other in the kernel.
pub(crate) fn usual_threads() -> NonZeroUsize {
    const THREADS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
    thread::available_parallelism().map_or(NonZeroUsize::MIN, |cores| cores.min(THREADS_MAX))
}

async fn watch(plan: LoadPlan, mut display: Display) -> anyhow::Result<LoadReport> {
    let first = plan.targets.of(0);
    let address = match plan.bind {
        Some(address) => address,
        None => own_address(&first.url).await?,
    };
    let clients = TappedClientFactory::new().context("no DTLS certificate could be made")?;
    let started = Instant::now();
    let count = plan.viewers.get();
    let deadline = plan.duration.map(|duration| started + duration);
    let joins_left = AtomicUsize::new(plan.joins.unwrap_or(count));
    let viewing = Arc::new(Viewing {
        board: Board::new(count, started),
        plan,
        clients,
        address,
        joins_left,
        stop: CancellationToken::new(),
    });
    let mut viewers: JoinSet<()> =
        (0..count).map(|index| viewer::run(Arc::clone(&viewing), index)).collect();

    let mut second = interval(display.pace());
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    second.tick().await;
    loop {
        tokio::select! {
            left = viewers.join_next() => match left {
                Some(ended) => ended.context("a viewer's task failed")?,
                None => break,
            },
            _ = second.tick() => display.show(&viewing.board.look()),
            () = until(deadline) => break,
            signal = tokio::signal::ctrl_c() => {
                signal.context("signals cannot be received")?;
                break;
            }
        }
    }
    let seconds = started.elapsed();
    viewing.board.note_end();
    viewing.stop.cancel();
    let all = async { while viewers.join_next().await.is_some() {} };
    if tokio::time::timeout(LEAVE_TIME_MAX, all).await.is_err() {
        tracing::warn!("some viewers could not leave in time");
    }
    display.show(&viewing.board.look());
    display.end();
    let plan = &viewing.plan;
    ensure!(viewing.board.tried() > 0, "the time was over before the first viewer joined");
    Ok(LoadReport::new(&viewing.board, plan, seconds))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Takes one of the joins that are left. False: there is none.
fn take_join(left: &AtomicUsize) -> bool {
    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    taken.is_ok()
}

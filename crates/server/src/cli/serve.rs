//! `manifold serve`: starts everything, says where, and ends everything when it is told to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::check::counted;
use super::front::{self, Front};
use super::reload::Reload;
use super::{Failure, ServeArgs, complain, say};
use crate::app::{App, AppConfig};
use crate::audit::Audit;
use crate::bind_error::BindError;
use crate::config::{self, Config, Environment, Loaded};
use crate::data_dir::DataDir;
use crate::database::{Database, DatabaseError};
use crate::http::wire::Ready;
use crate::http::{self, Doors, Http, Keyring};
use crate::ingest;
use crate::layouts::Layouts;
use crate::ledger::{self, LedgerPlace};
use crate::limits::Limits;
use crate::logging;
use crate::metrics::Outlets;
use crate::net::{MediaConfig, MediaPlane, StartError, raise_descriptor_limit};
use crate::park::{self, Park};
use crate::remote::TrustError;
use crate::rtsp_out::{Cameras, RtspOut};
use crate::voice::Voice;

/// From the signal to the end of the process, at most. Telling viewers and ending sources takes the
/// application 3 s, HTTP 2 s beside it; the promise to operators is 5 s.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_millis(4500);

/// How long voice clients may take to be told that the server ends. It takes the relay a millisecond.
const FAREWELL_TIME_MAX: Duration = Duration::from_millis(250);

/// How long cameras may take to be told that nobody wants their stream.
const TEARDOWN_TIME_MAX: Duration = Duration::from_millis(500);

/// Runs until a signal comes.
pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let loaded = config::load(&args.flags(), &Environment::of_process())?;
    logging::start(loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the threads could not be started")?;
    let result = runtime.block_on(serve(&loaded, args));
    // What still runs is cut off: it had its time in `serve`.
    runtime.shutdown_background();
    Ok(result?)
}

async fn serve(loaded: &Loaded, args: &ServeArgs) -> anyhow::Result<()> {
    let config = &loaded.config;
    // Before anything is started, so that a signal always finds someone who listens.
    let mut signals = Signals::new().context("signals cannot be received")?;
    let settings = settings_name(loaded);
    let Front { listeners, doors, listen, audio, upkeep } = front::open(config, &settings).await?;
    let welcome = front::welcome(&doors);
    let https = doors.secure.as_ref().map(|secure| secure.address);
    let rtsp = bind_rtsp(config, &settings).await?;
    let rtsp_address = rtsp.as_ref().map(RtspOut::address);
    let keyring = Arc::new(Keyring::new(&config.auth)?);
    let database = open_database(config)?;
    keyring.revocations().load(&database, SystemTime::now())?;
    let parked = park::Loaded::read(config, &database)?;
    let audit = start_audit(config, &database);
    let application = AppConfig { audit, cameras: parked.cameras(), ..config.application() };
    let application = secured(application, &doors)?;
    try_store(&application.ledger).await?;
    let limits = Limits::new(&application.ledger, database.clone());
    let leases = application.ledger.clone();
    let closing = CancellationToken::new();
    let (app, plane, media) = start_app(config, application, &settings)?;
    limits.restore(&app).await?;
    share_revocations(&keyring, leases, &app, &closing);
    let park = Park::new(parked, app.clone());
    let node = config.cluster.as_ref().map(config::Cluster::node).unwrap_or_default();
    let layouts = Layouts::new(database, node)?;
    let voice = config.voice.enabled.then(|| Voice::start(config.voice.relay(), plane));
    let outlets = Arc::new(Outlets::default());
    let http = Http::new(
        app.clone(),
        Arc::clone(&keyring),
        config,
        doors,
        Arc::clone(&outlets),
        voice.clone(),
        http::Kept { park, layouts, limits },
    );
    look_around(config, &app, &http, &closing);
    if let Some(upkeep) = upkeep {
        tokio::spawn(upkeep.run(closing.clone()));
    }
    let (flags, file) = (args.flags(), loaded.file.clone());
    let reload = Reload::new(flags, file, Arc::clone(&keyring), app.clone())?;
    tokio::spawn(reload.run(closing.clone()));
    let router = http::router(http.clone());
    let serving = tokio::spawn(listeners.serve(router, Arc::clone(&outlets), closing.clone()));
    if let Some(rtsp) = rtsp {
        let cameras = Cameras::new(app.clone(), keyring, &config.rtsp, config.auth.mode);
        tokio::spawn(rtsp.serve(cameras, outlets, closing.clone()));
    }
    let bound = Bound { listen, audio, https, media, rtsp: rtsp_address };
    announce(config, &bound, &welcome, args.ready_file.as_deref())?;

    let signal = tokio::select! {
        name = signals.next() => Some(name),
        () = app.failed() => None,
        () = failed(voice.as_ref()) => None,
    };
    match signal {
        Some(name) => tracing::info!(signal = name, "shutting down"),
        None => tracing::error!("a part of the server failed, shutting down"),
    }
    http.set_closing();
    closing.cancel();
    tokio::select! {
        () = end(&app, voice.as_ref(), serving) => {}
        _ = signals.next() => complain("ended at once by a second signal"),
    }
    signal.map(drop).context("a part of the server failed; the log says which. Start it again")
}

/// With what other nodes see of this one by HTTPS, and by whom it believes them.
fn secured(application: AppConfig, doors: &Doors) -> Result<AppConfig, TrustError> {
    let tls = doors.secure.as_ref().map(|secure| secure.tls.clone());
    let cluster = application.cluster.map(|cluster| cluster.secured(tls)).transpose()?;
    Ok(AppConfig { cluster, ..application })
}

/// Asks cameras that nobody watches, and other nodes, how they are.
fn look_around(config: &Config, app: &App, http: &Http, closing: &CancellationToken) {
    if let Some(interval) = config.park.probe_interval {
        tokio::spawn(park::probe_unwatched(app.clone(), interval, closing.clone()));
    }
    tokio::spawn(http::follow_nodes(http.clone(), closing.clone()));
    tokio::spawn(http::spread(http.clone(), closing.clone()));
}

/// Never, where the relay is switched off.
async fn failed(voice: Option<&Voice>) {
    match voice {
        Some(voice) => voice.failed().await,
        None => std::future::pending().await,
    }
}

/// The file that a busy port can be changed in.
fn settings_name(loaded: &Loaded) -> String {
    let file = loaded.file.as_deref().unwrap_or(Path::new("manifold.toml"));
    file.display().to_string()
}

/// What is really bound.
struct Bound {
    listen: Vec<SocketAddr>,
    audio: Option<SocketAddr>,
    https: Option<SocketAddr>,
    media: MediaPorts,
    rtsp: Option<SocketAddr>,
}

async fn bind_rtsp(config: &Config, settings: &str) -> Result<Option<RtspOut>, BindError> {
    match config.rtsp.listen {
        Some(address) => RtspOut::bind(address, "rtsp.listen", settings).await.map(Some),
        None => Ok(None),
    }
}

fn announce(
    config: &Config,
    bound: &Bound,
    welcome: &[String],
    ready_file: Option<&Path>,
) -> anyhow::Result<()> {
    if let Some(path) = ready_file {
        write_ready(path, bound)
            .with_context(|| format!("cannot write --ready-file {}", path.display()))?;
    }
    for line in welcome {
        say(line);
    }
    say(&counted(config.cameras.len(), "camera"));
    Ok(())
}

/// Written beside and renamed, so that a reader never sees a part.
fn write_ready(path: &Path, bound: &Bound) -> anyhow::Result<()> {
    let listen = bound.listen.iter().map(ToString::to_string).collect();
    let (udp, tcp) = (bound.media.udp.to_string(), bound.media.tcp.map(|tcp| tcp.to_string()));
    let text_of = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    let (audio, https, rtsp) = (text_of(bound.audio), text_of(bound.https), text_of(bound.rtsp));
    let text = serde_json::to_string(&Ready { listen, audio, https, udp, tcp, rtsp })?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, text)?;
    Ok(std::fs::rename(&beside, path)?)
}

async fn end(app: &App, voice: Option<&Voice>, serving: JoinHandle<()>) {
    let all = async {
        if let Some(voice) = voice {
            voice.shutdown(FAREWELL_TIME_MAX).await;
        }
        app.shutdown().await;
        let journal = app.journal().clone();
        // A panic in it has been reported.
        let _ = tokio::task::spawn_blocking(move || journal.finish()).await;
        // It ends by itself once `closing` is cancelled; a panic in it has been reported.
        let _ = serving.await;
        ingest::settle(TEARDOWN_TIME_MAX).await;
    };
    if tokio::time::timeout(SHUTDOWN_TIME_MAX, all).await.is_err() {
        tracing::warn!("some connections did not end in time and were cut off");
    }
}

/// Where media is bound.
#[derive(Debug, Clone, Copy)]
struct MediaPorts {
    udp: SocketAddr,
    tcp: Option<SocketAddr>,
}

/// SIGTERM and SIGINT (Ctrl-C).
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A database that somebody asked for must be there; else the server goes without, so that a second one
/// can be tried beside the first.
fn open_database(config: &Config) -> anyhow::Result<Database> {
    let data_dir = config.store.data_dir.as_deref();
    let database = Database::new(DataDir::of_process(data_dir));
    match database.check() {
        Ok(()) => {}
        Err(error @ DatabaseError::InUse { .. }) if data_dir.is_none() => {
            tracing::warn!("cameras that were added over the API are not there: {error}");
            database.give_up(&error);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(database)
}

fn start_audit(config: &Config, database: &Database) -> Audit {
    if config.audit.enabled {
        Audit::start(database.clone(), config.audit.keep)
    } else {
        Audit::off()
    }
}

/// A store that is away is waited for while the server runs; one that lets us not in is told at once.
async fn try_store(ledger: &LedgerPlace) -> anyhow::Result<()> {
    let LedgerPlace::Store { store, .. } = ledger else { return Ok(()) };
    match ledger::try_store(store).await {
        Ok(None) => Ok(()),
        Ok(Some(away)) => {
            tracing::warn!("{away}; the server starts without it and tries on");
            Ok(())
        }
        Err(refused) => Err(refused.into()),
    }
}

/// Where there is a store, whoever is sent away by one of its servers is sent away by all.
fn share_revocations(
    keyring: &Keyring,
    leases: LedgerPlace,
    app: &App,
    closing: &CancellationToken,
) {
    if let LedgerPlace::Store { store, .. } = leases {
        let revocations = keyring.revocations().clone();
        tokio::spawn(revocations.share(store, app.clone(), closing.clone()));
    }
}

/// Opens the media port and starts the application on it.
fn start_app(
    config: &Config,
    application: AppConfig,
    settings: &str,
) -> Result<(App, MediaPlane, MediaPorts), BindError> {
    let (events_in, events) = mpsc::unbounded_channel();
    let media_config = MediaConfig {
        udp: config.media.udp,
        tcp: config.media.tcp,
        advertise: config.media.advertise.clone(),
        workers: config.media.workers.and_then(|workers| usize::try_from(workers).ok()),
        priority: config.media.priority,
    };
    let refused = |StartError { key, address, reason }| BindError {
        address,
        key,
        index: None,
        settings: settings.to_owned(),
        reason,
    };
    let media = MediaPlane::start(&media_config, events_in).map_err(refused)?;
    let ports = MediaPorts { udp: media.local_address(), tcp: media.tcp_address() };
    Ok((App::start(application, media.clone(), events), media, ports))
}

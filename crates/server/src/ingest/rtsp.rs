//! Cameras that speak RTSP (RFC 2326), read through `retina`.
//!
//! This part connects, keeps the time limits and says why it failed. Which tracks are taken is
//! [`tracks`]' choice, what becomes of what comes is [`feed`]'s, the sentences are [`failure`]'s. It never retries: one call is one
//! attempt.

mod failure;
mod feed;
mod incoming;
#[cfg(test)]
mod tests;
mod tracks;

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use engine::SourceFailure;
use retina::client::{
    Credentials, Described, InitialSequenceNumberPolicy, InitialTimestampPolicy, PlayOptions,
    Session, SessionGroup, SessionIdPolicy, SessionOptions, SetupOptions, TcpTransportOptions,
    Transport, UdpTransportOptions,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use self::failure::Explain;
use self::feed::Feed;
use self::incoming::Incoming;
use self::tracks::{Tracks, parameter_sets};
use super::wall_clock::WallClock;
use super::{FIRST_KEYFRAME_TIMEOUT, Output, RtspTransport};

/// Sessions whose TEARDOWN is on its way.
static TEARDOWNS: LazyLock<Arc<SessionGroup>> = LazyLock::new(Arc::default);

/// A camera's address as [`super::SourceUrl`] holds it.
pub(super) struct Address<'a> {
    /// Without credentials.
    pub(super) url: &'a Url,
    pub(super) username: Option<&'a str>,
    pub(super) password: Option<&'a SecretString>,
}

/// How long a camera may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// To connect and answer DESCRIBE, and to answer each request after that.
    pub(super) answer: Duration,
    /// From one picture to the next. Cameras that send a picture a minute are stills, not streams.
    pub(super) silence: Duration,
    /// From PLAY to the first keyframe.
    pub(super) first_keyframe: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            first_keyframe: FIRST_KEYFRAME_TIMEOUT,
        }
    }
}

/// One attempt: see [`super::pull`].
pub(super) async fn pull(
    address: &Address<'_>,
    transport: RtspTransport,
    output: Arc<dyn Output>,
    limits: Limits,
) -> SourceFailure {
    let explain = Explain::new(address.url, address.password);
    match attempt(address, transport, output, limits, &explain).await {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

/// Waits until the TEARDOWN requests of ended pulls are through, at most `limit`.
pub(super) async fn teardowns_sent(limit: Duration) {
    let ended = TEARDOWNS.stale_sessions();
    // What could not be torn down ends by the camera's own session timeout.
    let _ = timeout(limit, TEARDOWNS.await_stale_sessions(&ended)).await;
}

/// Asks for the description (RFC 2326 §10.2) and whether there is something in it that could be taken.
pub(super) async fn probe(address: &Address<'_>) -> Result<(), SourceFailure> {
    let explain = Explain::new(address.url, address.password);
    let session = describe(address, Limits::default(), &explain).await?;
    Tracks::choose(session.streams()).map(drop)
}

async fn describe(
    address: &Address<'_>,
    limits: Limits,
    explain: &Explain<'_>,
) -> Result<Session<Described>, SourceFailure> {
    let describe = Session::describe(address.url.clone(), session_options(address));
    timeout(limits.answer, describe)
        .await
        .map_err(|_elapsed| explain.no_answer(limits.answer))?
        .map_err(|error| explain.before_play(&error))
}

async fn attempt(
    address: &Address<'_>,
    transport: RtspTransport,
    output: Arc<dyn Output>,
    limits: Limits,
    explain: &Explain<'_>,
) -> Result<Infallible, SourceFailure> {
    let mut session = describe(address, limits, explain).await?;
    let mut tracks = Tracks::choose(session.streams())?;
    let video = tracks.picture.stream;
    set_up(&mut session, video, transport, limits, explain).await?;
    if let Some(track) = &tracks.sound
        && let Err(failure) = set_up(&mut session, track.stream, transport, limits, explain).await
    {
        tracing::info!(reason = %failure, "the camera does not hand out its sound; picture only");
        tracks.sound = None;
    }

    // The timestamps' origin and the first sequence number are taken from the first packets: many
    // cameras announce others than they send.
    let options = PlayOptions::default()
        .initial_timestamp(InitialTimestampPolicy::Ignore)
        .initial_seq(InitialSequenceNumberPolicy::Ignore);
    let session = timeout(limits.answer, session.play(options))
        .await
        .map_err(|_elapsed| explain.no_answer(limits.answer))?
        .map_err(|error| explain.before_play(&error))?;
    for nal in parameter_sets(&session.streams()[video]) {
        tracks.picture.picture.handle_parameter_set(nal);
    }
    let incoming = if tracks.picture.comes_as_packets() {
        Incoming::Packets(Box::new(session))
    } else {
        Incoming::Frames(session.demuxed().map_err(|error| explain.before_play(&error))?)
    };
    let feed = Feed::new(output, tracks);
    tracing::debug!(transport = ?transport, sound = ?feed.sound_codec(), "the camera plays");
    play(incoming, feed, limits, explain).await
}

/// Hands on what comes until something fails.
async fn play(
    mut incoming: Incoming,
    mut feed: Feed,
    limits: Limits,
    explain: &Explain<'_>,
) -> Result<Infallible, SourceFailure> {
    let clock = WallClock::start();
    let started = Instant::now();
    let keyframe_due = started + limits.first_keyframe;
    let mut picture_due = started + limits.silence;
    loop {
        let due = if feed.is_live() { picture_due } else { picture_due.min(keyframe_due) };
        let item = match timeout_at(due, incoming.next()).await {
            Ok(Some(item)) => item.map_err(|error| explain.after_play(&error))?,
            Ok(None) => return Err(explain.closed()),
            Err(_elapsed) if due == picture_due => return Err(explain.silent(limits.silence)),
            Err(_elapsed) => {
                return Err(SourceFailure::NoKeyframe {
                    waited_s: limits.first_keyframe.as_secs(),
                });
            }
        };
        if feed.is_picture(&item) {
            picture_due = Instant::now() + limits.silence;
        }
        feed.handle_item(item, clock.unix_micros())?;
    }
}

fn session_options(address: &Address<'_>) -> SessionOptions {
    let credentials = address.username.map(|username| Credentials {
        username: username.to_owned(),
        password: address
            .password
            .map(|password| password.expose_secret().to_owned())
            .unwrap_or_default(),
    });
    SessionOptions::default()
        .creds(credentials)
        .user_agent(concat!("manifold/", env!("CARGO_PKG_VERSION")).to_owned())
        .session_group(Arc::clone(&TEARDOWNS))
        // Some cameras change the session id from SETUP to SETUP and mean the first.
        .session_id(SessionIdPolicy::UseFirst)
}

async fn set_up(
    session: &mut Session<Described>,
    stream: usize,
    transport: RtspTransport,
    limits: Limits,
    explain: &Explain<'_>,
) -> Result<(), SourceFailure> {
    let transport = match transport {
        RtspTransport::Tcp => Transport::Tcp(TcpTransportOptions::default()),
        RtspTransport::Udp => Transport::Udp(UdpTransportOptions::default()),
    };
    timeout(limits.answer, session.setup(stream, SetupOptions::default().transport(transport)))
        .await
        .map_err(|_elapsed| explain.no_answer(limits.answer))?
        .map_err(|error| explain.before_play(&error))
}

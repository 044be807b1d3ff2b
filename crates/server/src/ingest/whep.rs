//! Cameras that are another server's (WHEP): watched there as any viewer does, and passed on.
//!
//! The connection is the puller's of the media core, over a socket of this attempt's own. What is asked
//! for is in the config: the address, the scheme `http`, and a few redirections; nothing that an answer
//! names is fetched.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::SourceFailure;
use hyper::StatusCode;
use media::MediaKind;
use media::peer::puller::{Puller, PullerFactory, PullerOutput};
use media::publish::TrackOutput;
use secrecy::{ExposeSecret, SecretString};
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};
use url::Url;

use super::source_url::{authority, masked_path};
use super::wall_clock::WallClock;
use super::whip::{Feed, SILENCE_MAX};
use super::{FIRST_KEYFRAME_TIMEOUT, NodeStream, Output};
use crate::remote::{
    HttpClient, NODE_GIVE_CA, Redirects, RemoteError, Reservation, Session, Trust, disbelief,
    own_address, reserve,
};

/// How long a request may take.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// How long ICE and DTLS may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// From one datagram to the next. Servers send several pictures a second, and even one whose camera shows
/// nothing answers our checks, of which one goes out every 3 s.
const DATAGRAM_SILENCE_MAX: Duration = Duration::from_secs(4);

/// The same of a node of ours, which reports once a second. One that was killed is to be found out soon.
const NODE_SILENCE_MAX: Duration = Duration::from_millis(1_500);

/// Longest datagram that a server sends.
const DATAGRAM_BYTES: usize = 2048;

/// What may wait in the kernel: half a second of 16 Mbit/s, or one large keyframe at once.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// What another Manifold is told of who reserves.
const USER: &str = "manifold";

/// Goodbyes that are being said in the background; more of them than cameras cannot be, and those that
/// are through leave with the next one.
static GOODBYES: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// The certificate of all pulls of the process.
static FACTORY: LazyLock<Option<PullerFactory>> = LazyLock::new(PullerFactory::new);

/// Where a picture is watched.
pub(super) struct Origin<'a> {
    /// The endpoint, without the token.
    url: &'a Url,
    /// Goes along as the bearer token.
    token: Option<&'a SecretString>,
    /// By whom it is believed, where it is asked by HTTPS.
    trust: Option<&'a Trust>,
    /// Where it may send us on to.
    redirects: Redirects,
    /// From one datagram to the next.
    silence: Duration,
}

/// One attempt: see [`super::pull`].
pub(super) async fn pull(
    origin: &Origin<'_>,
    output: Arc<dyn Output>,
    keyframe_wanted: &Notify,
) -> SourceFailure {
    match attempt(origin, output, keyframe_wanted).await {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

/// Waits until the servers of ended pulls have been told, at most `limit`.
pub(super) async fn goodbyes_said(limit: Duration) {
    let goodbyes = std::mem::take(&mut *GOODBYES.lock().unwrap_or_else(PoisonError::into_inner));
    // Who was not told finds out by itself.
    let _ = timeout(limit, futures::future::join_all(goodbyes)).await;
}

async fn attempt(
    origin: &Origin<'_>,
    output: Arc<dyn Output>,
    keyframe_wanted: &Notify,
) -> Result<Infallible, SourceFailure> {
    let (mut pull, place) = Box::pin(Pull::open(origin)).await?;
    let renewed = async {
        match place {
            Some(place) => place.renew(&mut origin.client()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = Box::pin(watch(&mut pull, origin, output, keyframe_wanted)) => ended,
        never = renewed => match never {},
    }
}

/// Hands on what comes, until nothing does.
async fn watch(
    pull: &mut Pull,
    origin: &Origin<'_>,
    output: Arc<dyn Output>,
    keyframe_wanted: &Notify,
) -> Result<Infallible, SourceFailure> {
    pull.connect(origin).await?;
    let clock = WallClock::start();
    let mut feed = Feed::new(output);
    let mut picture_due = Instant::now() + FIRST_KEYFRAME_TIMEOUT;
    loop {
        match pull.next(picture_due, keyframe_wanted).await {
            Next::Track(item) => {
                let is_picture = matches!(
                    &item,
                    TrackOutput::Frame(frame) if frame.codec.kind() == MediaKind::Video
                );
                feed.handle(item, |moment| clock.unix_micros_at(moment))?;
                if is_picture && feed.is_live() {
                    picture_due = Instant::now() + SILENCE_MAX;
                }
            }
            Next::Connected => {}
            Next::Closed => return Err(lost("the other server ended the session")),
            Next::Silent => {
                let silence = origin.silence.as_secs_f32();
                return Err(lost(&format!("the other server was silent for {silence} s")));
            }
            Next::Late if feed.is_live() => {
                let silence = SILENCE_MAX.as_secs();
                return Err(lost(&format!("no picture came for {silence} s")));
            }
            Next::Late => {
                let waited_s = FIRST_KEYFRAME_TIMEOUT.as_secs();
                return Err(SourceFailure::NoKeyframe { waited_s });
            }
        }
    }
}

fn lost(detail: &str) -> SourceFailure {
    SourceFailure::Lost { detail: detail.to_owned() }
}

impl<'a> Origin<'a> {
    /// Any server.
    pub(super) fn new(url: &'a Url, token: Option<&'a SecretString>, redirects: Redirects) -> Self {
        Self { url, token, trust: None, redirects, silence: DATAGRAM_SILENCE_MAX }
    }

    /// Another node of ours.
    pub(super) fn of_node(node: &NodeStream<'a>) -> Self {
        let (redirects, silence) = (Redirects::SameServer, NODE_SILENCE_MAX);
        Self { url: node.url, token: Some(node.token), trust: node.trust, redirects, silence }
    }
}

impl Origin<'_> {
    fn client(&self) -> HttpClient {
        match self.trust {
            Some(trust) => HttpClient::with_trust(REQUEST_TIME_MAX, trust.clone()),
            None => HttpClient::new(REQUEST_TIME_MAX),
        }
    }

    fn unreachable(&self, detail: &str) -> SourceFailure {
        let address = authority(self.url);
        SourceFailure::Unreachable { address, detail: self.scrub(detail) }
    }

    /// Whatever another server wrote, without our token.
    fn scrub(&self, text: &str) -> String {
        match self.token.map(ExposeSecret::expose_secret) {
            Some(token) if !token.is_empty() => text.replace(token, "***"),
            Some(_) | None => text.to_owned(),
        }
    }

    fn explain(&self, error: &RemoteError) -> SourceFailure {
        match error {
            RemoteError::Refused { status: StatusCode::NOT_FOUND, .. } => {
                let path = masked_path(self.url);
                SourceFailure::NotFound { path }
            }
            error if is_of_token(error) => SourceFailure::Unauthorized,
            RemoteError::Refused { status, reason, .. } => {
                self.unreachable(&format!("it refused with {}: {reason}", status.as_u16()))
            }
            RemoteError::Unreachable { reason, .. } => {
                let untrusted = disbelief(reason, NODE_GIVE_CA);
                self.unreachable(&untrusted.unwrap_or_else(|| reason.to_string()))
            }
            RemoteError::Late { limit, .. } => {
                self.unreachable(&format!("no answer came within {} s", limit.as_secs()))
            }
            RemoteError::Scheme(_) => {
                let detail = "it sends on to an address that is not http://".to_owned();
                SourceFailure::Protocol { detail }
            }
            RemoteError::Cut { reason, .. } => {
                SourceFailure::Protocol { detail: self.scrub(reason) }
            }
        }
    }

    /// The camera, where the endpoint looks like another Manifold's.
    fn camera(&self) -> Option<&str> {
        let camera = self.url.path().strip_prefix("/whep/")?;
        (!camera.is_empty() && !camera.contains('/')).then_some(camera)
    }

    /// Brings the offer. Another Manifold wants a place reserved first, and lets in with that one's
    /// token.
    async fn offer(
        &self,
        http: &mut HttpClient,
        offer: &str,
    ) -> Result<(Session, Option<SecretString>, Option<Reservation>), SourceFailure> {
        let refusal = match Session::open(http, self.url, self.token, offer, self.redirects).await {
            Ok(session) => return Ok((session, self.token.cloned(), None)),
            Err(error) => error,
        };
        let Some(camera) = self.camera().filter(|_| is_of_token(&refusal)) else {
            return Err(self.explain(&refusal));
        };
        let place = reserve(http, self.url, camera, USER, self.token).await;
        let place = place.map_err(|error| {
            // Without such an interface the token was meant for the endpoint.
            self.explain(if is_foreign(&error, camera) { &refusal } else { &error })
        })?;
        let session =
            Session::open(http, self.url, Some(&place.token), offer, self.redirects).await;
        let session = session.map_err(|error| self.explain(&error))?;
        Ok((session, Some(place.token.clone()), Some(place)))
    }
}

/// Whether a server that was asked for a place before `camera` does not know what that is. Ours names the
/// camera that it has not.
fn is_foreign(error: &RemoteError, camera: &str) -> bool {
    match error {
        RemoteError::Refused { status: StatusCode::NOT_FOUND, reason, .. } => {
            !reason.contains(camera)
        }
        RemoteError::Refused { status, .. } => *status == StatusCode::METHOD_NOT_ALLOWED,
        RemoteError::Cut { .. } => true,
        RemoteError::Scheme(_) | RemoteError::Unreachable { .. } | RemoteError::Late { .. } => {
            false
        }
    }
}

fn is_of_token(error: &RemoteError) -> bool {
    let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
    matches!(error, RemoteError::Refused { status, .. } if refused.contains(status))
}

/// A session, and what is needed to end it.
struct Held {
    session: Session,
    token: Option<SecretString>,
    http: HttpClient,
}

/// One connection. Dropping it says goodbye in the background.
struct Pull {
    socket: UdpSocket,
    puller: Puller,
    session: Option<Held>,
    /// When the puller has something to do.
    due: Instant,
    /// When a datagram came last.
    heard: Instant,
    /// From one to the next, at most.
    silence: Duration,
    buffer: Box<[u8; DATAGRAM_BYTES]>,
}

/// What happened.
enum Next {
    Connected,
    Track(TrackOutput),
    Closed,
    /// Nothing at all came for as long as is allowed.
    Silent,
    /// What was waited for did not come in time.
    Late,
}

impl Pull {
    /// Offers, and has an answer; with the place that was reserved for it, if one was.
    async fn open(origin: &Origin<'_>) -> Result<(Self, Option<Reservation>), SourceFailure> {
        let no_socket =
            |error: std::io::Error| origin.unreachable(&format!("there is no socket: {error}"));
        let own = own_address(origin.url).await.map_err(|error| origin.explain(&error))?;
        // Candidates may be reached by another interface than the one that leads to the endpoint.
        let any = if own.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await.map_err(no_socket)?;
        if let Err(error) = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
            tracing::debug!(%error, "the socket's buffer keeps its default size");
        }
        let port = socket.local_addr().map_err(no_socket)?.port();
        let failed = |detail: String| SourceFailure::Protocol { detail };
        let factory = FACTORY.as_ref();
        let factory = factory.ok_or_else(|| failed("no DTLS certificate could be made".into()))?;
        let now = Instant::now();
        let offered = factory.offer(SocketAddr::new(own, port), now);
        let (mut puller, offer) = offered.map_err(|error| failed(error.to_string()))?;
        let mut http = origin.client();
        let (session, token, place) = origin.offer(&mut http, &offer).await?;
        let answered = puller.handle_answer(&session.answer);
        let now = Instant::now();
        puller.handle_timeout(now);
        let session = Some(Held { session, token, http: http.another() });
        let buffer = Box::new([0; DATAGRAM_BYTES]);
        let pull =
            Self { socket, puller, session, due: now, heard: now, silence: origin.silence, buffer };
        // From here on the other server is told when it is over.
        answered.map_err(|error| failed(origin.scrub(&error.to_string())))?;
        Ok((pull, place))
    }

    async fn connect(&mut self, origin: &Origin<'_>) -> Result<(), SourceFailure> {
        let deadline = Instant::now() + CONNECT_TIME_MAX;
        let nothing_asked = Notify::new();
        loop {
            self.heard = Instant::now();
            match self.next(deadline, &nothing_asked).await {
                Next::Connected => return Ok(()),
                // Nothing comes before; and whether something will is decided by the deadline alone.
                Next::Track(_) | Next::Silent => {}
                Next::Closed => {
                    return Err(origin.unreachable("it answered, and ended the session at once"));
                }
                Next::Late => {
                    let seconds = CONNECT_TIME_MAX.as_secs();
                    return Err(origin.unreachable(&format!(
                        "it answered, but ICE and DTLS were not done within {seconds} s; check \
                         that its media port can be reached from here"
                    )));
                }
            }
        }
    }

    /// The next thing that happens, until `deadline`.
    async fn next(&mut self, deadline: Instant, keyframe_wanted: &Notify) -> Next {
        loop {
            match self.puller.poll_output(Instant::now()) {
                PullerOutput::Transmit { destination, contents } => {
                    // Any datagram may be lost; this one is lost at once.
                    let _ = self.socket.send_to(&contents, destination).await;
                    continue;
                }
                PullerOutput::Connected => return Next::Connected,
                PullerOutput::Track(item) => return Next::Track(item),
                PullerOutput::Closed => return Next::Closed,
                PullerOutput::Timeout(at) => self.due = at,
            }
            let silent = self.heard + self.silence;
            tokio::select! {
                received = self.socket.recv_from(&mut self.buffer[..]) => {
                    // An error is what an earlier datagram came to; silence tells.
                    if let Ok((length, source)) = received {
                        self.heard = Instant::now();
                        self.puller.handle_datagram(source, &self.buffer[..length], self.heard);
                    }
                }
                () = sleep_until(self.due.into()) => self.puller.handle_timeout(Instant::now()),
                () = keyframe_wanted.notified() => self.puller.want_keyframe(),
                () = sleep_until(deadline.into()) => return Next::Late,
                () = sleep_until(silent.into()) => return Next::Silent,
            }
        }
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.puller.close();
        while let PullerOutput::Transmit { destination, contents } =
            self.puller.poll_output(Instant::now())
        {
            // A goodbye that finds no room is said by DELETE.
            let _ = self.socket.try_send_to(&contents, destination);
        }
        let (Some(Held { session, token, mut http }), Ok(runtime)) =
            (self.session.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let goodbye = runtime.spawn(async move {
            // A session that is lost may be gone there as well.
            let _ = session.close(&mut http, token.as_ref()).await;
        });
        let mut goodbyes = GOODBYES.lock().unwrap_or_else(PoisonError::into_inner);
        goodbyes.retain(|goodbye| !goodbye.is_finished());
        goodbyes.push(goodbye);
    }
}

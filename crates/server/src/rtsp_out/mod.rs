//! RTSP out: cameras for players and recorders (RFC 2326), interleaved in the TCP connection.
//!
//! | module | what |
//! |---|---|
//! | `message` | requests and answers as bytes |
//! | `uri`, `transport`, `auth` | what single parts of requests say |
//! | `turns` | how many cameras an address may have described at once |
//! | `guesses` | how often an address may be wrong about a password |
//! | `sdp` | a camera's description |
//! | `player` | frames to a reader's packets |
//! | `door` | who gets a connection at all |
//! | `connection` | one client, from the first byte to the last |
//! | `cameras` | what there is to read: Manifold's cameras |
//!
//! The server knows no camera: it is given a [`Library`]. `bench cameras` has another one. Frames are
//! those of all viewers; UDP is refused, since players fall back to TCP by themselves.

mod auth;
mod cameras;
mod connection;
mod door;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod guesses;
mod message;
mod player;
mod sdp;
mod transport;
mod turns;
mod uri;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use media::{NtpTime, PacketisedFrame};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission::Limits;
use crate::bind_error::BindError;
use crate::metrics::Outlets;
use crate::net::Tapped;

pub(crate) use cameras::Cameras;
pub(crate) use sdp::{Description, TrackFormat};

use auth::{Authorization, Challenge};
use connection::Patience;
use door::Door;
use message::{Method, Status};
use uri::Uri;

/// Connections at once. A player or recorder has one a camera; 2,000 are the park of 500 four times
/// over.
pub(crate) const CONNECTIONS_MAX: usize = 2_000;

/// Pause after an error of accept, so that a lack of file descriptors does not burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    /// Which camera.
    uri: &'a Uri,
    /// The method, which Digest binds.
    method: Method,
    /// Who asks, if he says so.
    authorization: Option<&'a Authorization>,
    /// The connection's challenge.
    nonce: &'a str,
    /// From where.
    ip: IpAddr,
}

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// 401: the client is to say who it is. The sentence tells what was wrong, if it did.
    Unauthorized(Challenge, String),
    /// 503, with a sentence for people, and how long it will be of no use to ask again.
    NotBefore(Duration, String),
    /// With a sentence for people.
    Because(Status, String),
}

impl Ask<'_> {
    /// The camera's name in the URL.
    pub(crate) fn name(&self) -> &str {
        &self.uri.name
    }
}

impl Refusal {
    /// 404, with a sentence for people.
    pub(crate) fn not_found(sentence: String) -> Self {
        Self::Because(Status::NotFound, sentence)
    }
}

/// What is to be sent next.
#[derive(Debug)]
pub(crate) enum Played {
    /// Frames with times of their own.
    Tapped(Tapped),
    /// A frame that is shown again and again, with the times of this once. See [`Frame`] for both.
    ///
    /// [`Frame`]: media::Frame
    At {
        /// The frame; its own times do not matter.
        frame: Arc<PacketisedFrame>,
        /// On the codec's clock.
        ticks: u64,
        /// When it was captured.
        captured: NtpTime,
    },
}

/// What there is to read.
pub(crate) trait Library: Clone + Send + Sync + 'static {
    /// How many may be connected.
    const LIMITS: Limits;

    /// What is kept from a description to the begin of playing; dropped when it comes to nothing.
    type Described: Send;
    /// A stream that plays.
    type Playing: Playing;

    /// Lets the client see the camera that it asks for. Who was let in is no stranger any more.
    fn admit(&self, ask: Ask<'_>) -> impl Future<Output = Result<Self::Described, Refusal>> + Send;

    /// What the camera sends. May take as long as a camera needs to its first keyframe.
    fn describe(
        &self,
        described: &mut Self::Described,
    ) -> impl Future<Output = Result<Description, Refusal>> + Send;

    /// Begins to play what was described.
    fn play(
        &self,
        described: Self::Described,
    ) -> impl Future<Output = Result<Self::Playing, Refusal>> + Send;
}

/// A stream that plays. It ends when it is dropped.
pub(crate) trait Playing: Send {
    /// The next frames; `None` when it is over. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Option<Played>> + Send;

    /// The reader is there. Told every few seconds.
    fn alive(&self);
}

/// A bound listener.
#[derive(Debug)]
pub(crate) struct RtspOut {
    listener: TcpListener,
    address: SocketAddr,
}

impl RtspOut {
    /// Binds the address that `key` of `settings` has.
    pub(crate) async fn bind(
        address: SocketAddr,
        key: &'static str,
        settings: &str,
    ) -> Result<Self, BindError> {
        let failed =
            |reason| BindError { address, key, index: None, settings: settings.to_owned(), reason };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// What is really bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `closing` is cancelled.
    pub(crate) async fn serve<L: Library>(
        self,
        library: L,
        counters: Arc<Outlets>,
        closing: CancellationToken,
    ) {
        self.serve_within(Patience::default(), library, counters, closing).await;
    }

    async fn serve_within<L: Library>(
        self,
        patience: Patience,
        library: L,
        counters: Arc<Outlets>,
        closing: CancellationToken,
    ) {
        let door = Door::new(L::LIMITS);
        // As many as the door lets in, and those that it has just shown out.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = closing.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => match door.admit(peer) {
                        Ok(guest) => {
                            let (library, counters) = (library.clone(), Arc::clone(&counters));
                            let closing = closing.clone();
                            connections.spawn(async move {
                                counters.rtsp_connections.add(1);
                                let with = (patience, library, &*counters);
                                connection::converse(stream, guest, with, closing).await;
                                counters.rtsp_connections.subtract_one();
                            });
                        }
                        Err(full) => {
                            counters.rtsp_connections_refused.add(1);
                            door::turn_away(&stream, full);
                        }
                    },
                    Err(error) => {
                        tracing::warn!(%error, "an RTSP connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests;

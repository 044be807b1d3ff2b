//! The media port by TCP, for networks that let no UDP through: connections that viewers open
//! (ICE-TCP, RFC 6544), packets framed by RFC 4571.
//!
//! ```text
//! viewer --STUN, DTLS--> connection --> handshake threads --answers--> its queue
//! viewer --SRTCP-------> connection --> worker -----------frames-----> its queue --> viewer
//! ```
//! One thread runs all connections, so that none of their writes holds up a worker. A queue is
//! bounded in bytes: when it is long, the worker is told and its viewer goes without whole frames.
//! Whoever connects without ever sending an authentic check is dropped and counted, and gives way
//! before that when there is no room for others ([`crate::admission`]).

mod connection;
mod connections;
mod outgoing;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use futures::future::join_all;
use media::batch::Route;
use media::framing::{Deframer, FrameTooLong};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::ReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use self::connection::NO_PUBLISHER;
pub(crate) use self::connection::{Connection, Delivery};
use self::connections::count;
pub(crate) use self::connections::{Connections, TcpFigures};
use self::outgoing::Outgoing;
use super::handshakes::Handshakes;
use super::publishers::Publishers;
use super::worker::{Content, WorkerHandle, WorkerInput};

/// How long a connection may take to its first authentic check. Browsers send it in the same round
/// trip in which they connect, and again for seconds.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);
/// Frames that are looked at before the first authentic check: browsers send one every 50 ms.
const MAX_UNPROVEN_FRAMES: u32 = 256;
/// How long a connection lives after its last authentic check: as long as consent (RFC 7675 §5.1).
const CHECK_TIMEOUT: Duration = media::peers::CONSENT_TIMEOUT;
/// How long the other end may take nothing at all of what waits for it.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a congested connection may take until it has drained. That is 32 kbit/s if all that may wait
/// does: less than sound alone takes. It is sent nothing new all that time, and keeps what waits.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// How long what waits may take to leave a connection that we close.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Bytes that may wait in the kernel: at 2 Mbit/s half a second, and enough for 10 Mbit/s over a
/// round trip of 100 ms. (The kernel doubles the number for its own use.)
const SEND_BUFFER: usize = 128 << 10;
/// Bytes taken from the kernel in one call.
const READ_BYTES: usize = 4 << 10;
/// How long accepting pauses when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Either side closed it, or it broke.
    Closed,
    /// No check, or none for too long.
    Unchecked,
    /// The other end takes nothing, or next to nothing.
    Stalled,
    /// It speaks something else.
    Framing,
}

/// Binds the port. Of IPv6 it takes IPv4 as well, as the port for UDP does.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    /// Connections that wait to be accepted: the joins of a quarter of a second in a storm.
    const BACKLOG: i32 = 1024;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes connections, and runs them.
pub(crate) struct TcpPort {
    pub(crate) connections: Connections,
    pub(crate) handshakes: Handshakes,
    pub(crate) publishers: Publishers,
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) patience: Patience,
}

/// How long the other end may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// To take a run of packets.
    stall: Duration,
    /// To drain a congested connection.
    drain: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { stall: STALL_TIMEOUT, drain: DRAIN_TIMEOUT }
    }
}

impl TcpPort {
    /// Starts the thread on bound listeners. It ends with [`Connections::end`]; the channel is closed
    /// when it has ended.
    pub(crate) fn start(
        self,
        listeners: Vec<std::net::TcpListener>,
        alarm: impl Send + 'static,
    ) -> io::Result<Receiver<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ended, is_ended) = bounded(0);
        thread::Builder::new().name("media-tcp".to_owned()).spawn(move || {
            let _told = (alarm, ended);
            runtime.block_on(self.run(listeners));
        })?;
        Ok(is_ended)
    }

    async fn run(self, listeners: Vec<std::net::TcpListener>) {
        let port = Arc::new(self);
        let accepting = listeners.into_iter().map(|listener| Arc::clone(&port).accept(listener));
        join_all(accepting).await;
    }

    async fn accept(self: Arc<Self>, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the TCP port for media cannot be used");
                return;
            }
        };
        let ending = self.connections.0.ending.clone();
        // As many as `Connections` lets in.
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, remote)) => {
                        if let Some(serving) = Arc::clone(&self).admit(stream, remote) {
                            running.spawn(serving);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = running.join_next() => {}
                () = ending.cancelled() => break,
            }
        }
        running.join_all().await;
    }

    fn admit(
        self: Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let local = stream.local_addr().ok()?;
        // A small buffer is a wish, and without delay is one too.
        let _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
        let _ = stream.set_nodelay(true);
        let admitted = self.connections.admit(canonical(remote), canonical(local));
        let (connection, queued) = admitted.ok()?;
        Some(async move {
            let mut stream = stream;
            let end = self.serve(&connection, queued, &mut stream).await;
            let remote = connection.remote;
            tracing::debug!(%remote, ?end, "media connection ended");
            // Counted before the other end sees that it is closed.
            self.connections.forget(&connection, end);
            drop(stream);
        })
    }

    /// Runs a connection to its end.
    async fn serve(
        &self,
        connection: &Connection,
        queued: UnboundedReceiver<Vec<u8>>,
        stream: &mut TcpStream,
    ) -> End {
        let (mut reader, writer) = stream.split();
        let mut outgoing = Outgoing { queued, writer, begun: Vec::new(), written: 0 };
        let end = tokio::select! {
            end = self.read(connection, &mut reader) => end,
            end = self.write(connection, &mut outgoing) => end,
            end = self.outlive_checks(connection) => end,
            () = connection.closing.cancelled() => End::Closed,
        };
        if end == End::Closed {
            // Who does not take the rest in time goes without it.
            let _ = tokio::time::timeout(FLUSH_TIMEOUT, outgoing.finish()).await;
        }
        end
    }

    async fn read(&self, connection: &Connection, reader: &mut ReadHalf<'_>) -> End {
        let route = Route::new(connection.local, connection.transport_remote());
        let mut deframer = Deframer::default();
        let mut buffer = [0; READ_BYTES];
        let mut unproven = 0;
        loop {
            let Ok(len @ 1..) = reader.read(&mut buffer).await else { return End::Closed };
            let pushed = deframer.push(&buffer[..len], |packet| {
                unproven += 1;
                self.receive(connection, route, packet);
            });
            if let Err(FrameTooLong(bytes)) = pushed {
                tracing::debug!(remote = %connection.remote, bytes, "not framed by RFC 4571");
                return End::Framing;
            }
            if unproven > MAX_UNPROVEN_FRAMES && !connection.proven.load(Ordering::Relaxed) {
                return End::Unchecked;
            }
            // However fast one sends, the others have their turn.
            tokio::task::yield_now().await;
        }
    }

    fn receive(&self, connection: &Connection, route: Route, packet: &[u8]) {
        // Connections are dealt out to the workers in turn.
        let worker = connection.id.0 as usize % self.workers.len();
        count(&self.connections.0.counters.received);
        let publisher = connection.publisher.load(Ordering::Relaxed);
        let publisher = (publisher != NO_PUBLISHER).then_some(publisher);
        let taken = self.publishers.receive(publisher, worker, route, packet);
        let known = match Content::of(packet) {
            _ if taken.is_some() => taken == Some(true),
            Content::Handshake => self.handshakes.receive(worker, route, packet),
            // There is no feedback before a handshake, and no handshake before a check: strangers take
            // no room from what waits of viewers.
            Content::Feedback if !connection.proven.load(Ordering::Relaxed) => false,
            Content::Feedback => {
                self.workers[worker].tell(WorkerInput::Feedback(route, packet.to_vec()));
                true
            }
            Content::Unknown => false,
        };
        if !known {
            count(&self.connections.0.counters.dropped);
        }
    }

    async fn write(&self, connection: &Connection, outgoing: &mut Outgoing<'_>) -> End {
        let mut congested_until = None;
        loop {
            let Some(waiting) = outgoing.next().await else { return End::Closed };
            let now = tokio::time::Instant::now();
            congested_until = connection
                .congested
                .load(Ordering::Acquire)
                .then(|| congested_until.unwrap_or(now + self.patience.drain));
            let stalled_at = now + self.patience.stall;
            let deadline = congested_until.map_or(stalled_at, |until| stalled_at.min(until));
            match tokio::time::timeout_at(deadline, outgoing.write_begun()).await {
                Ok(Ok(())) => {}
                // The reader finds the end too, after what came before it: a goodbye, mostly.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) => return End::Stalled,
            }
            if connection.note_written(waiting) {
                // Whichever worker serves the viewer: it may have come from UDP.
                for worker in &self.workers {
                    worker.tell(WorkerInput::Drained(connection.transport_remote()));
                }
            }
        }
    }

    /// Returns when the connection has had its time.
    async fn outlive_checks(&self, connection: &Connection) -> End {
        let begun_ms = self.connections.now_ms();
        loop {
            let until_ms = if connection.proven.load(Ordering::Relaxed) {
                connection.checked_ms.load(Ordering::Relaxed) + CHECK_TIMEOUT.as_millis() as u64
            } else {
                begun_ms + PROOF_TIMEOUT.as_millis() as u64
            };
            let left = until_ms.saturating_sub(self.connections.now_ms());
            if left == 0 {
                return End::Unchecked;
            }
            tokio::time::sleep(Duration::from_millis(left)).await;
        }
    }
}

/// An IPv6 socket sees IPv4 under mapped addresses (RFC 4291 §2.5.5.2).
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;

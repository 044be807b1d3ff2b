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
//! before that when there is no room for others ([`Admission`]).

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use futures::future::join_all;
use media::batch::{ConnectionId, Remote, Route, Run, Transport};
use media::framing::{Deframer, FrameTooLong, put_frame};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::handshakes::Handshakes;
use super::publishers::Publishers;
use super::worker::{Content, WorkerHandle, WorkerInput};
use crate::admission::{Admission, Admitted, Crowd, Full, Limits, PlaceId, Standing};

/// Connections at once. A browser opens one for each address that is announced and closes all but
/// one; 1,000 viewers without UDP and as many that are just joining.
const MAX_CONNECTIONS: usize = 4_096;
/// Of them without an authentic check yet: 1,000 joins at once, and two addresses.
const MAX_STRANGERS: usize = 2_048;
/// Of them from one address (of IPv6: one network of /64): an office behind NAT whose browsers all
/// join within one round trip.
const MAX_STRANGERS_AN_ADDRESS: usize = 128;
/// Who proved himself is one of our viewers, wherever he is: only strangers are bounded by address.
/// A browser sends its check in the same round trip in which it connects, so that those who are there
/// need no more than the time to do so.
const LIMITS: Limits = Limits {
    all: MAX_CONNECTIONS,
    an_address: MAX_CONNECTIONS,
    strangers: MAX_STRANGERS,
    strangers_an_address: MAX_STRANGERS_AN_ADDRESS,
    crowd: Crowd::Refused,
};
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
/// From here on a connection is congested: half a second more at 2 Mbit/s.
const CONGESTED_BYTES: usize = 128 << 10;
/// And from here on it is not.
const DRAINED_BYTES: usize = 32 << 10;
/// What would make the queue longer is dropped. A worker that is told of congestion has at most a
/// picture and a burst under way (60 and 30 packets), besides reports; this is three times that.
const MAX_WAITING_BYTES: usize = CONGESTED_BYTES + (384 << 10);
/// Bytes taken from the kernel in one call.
const READ_BYTES: usize = 4 << 10;
/// How long accepting pauses when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections count. All rise, except `open`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TcpFigures {
    /// Connections at present.
    pub(crate) open: u64,
    /// Connections that were let in.
    pub(crate) accepted: u64,
    /// Connections that were closed at once, since there were too many.
    pub(crate) refused: u64,
    /// Connections that were dropped since no authentic check came.
    pub(crate) strangers: u64,
    /// Connections that were dropped before one came, since others needed the place.
    pub(crate) evicted: u64,
    /// Connections that were dropped since what came was not framed.
    pub(crate) framing_errors: u64,
    /// Packets that arrived.
    pub(crate) received: u64,
    /// Of them those that belong to nobody.
    pub(crate) dropped: u64,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    strangers: AtomicU64,
    evicted: AtomicU64,
    framing_errors: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One viewer's connection, as workers and handshake threads see it.
#[derive(Debug)]
pub(crate) struct Connection {
    id: ConnectionId,
    remote: SocketAddr,
    local: SocketAddr,
    queue: UnboundedSender<Vec<u8>>,
    waiting_bytes: AtomicUsize,
    /// The worker was told that the queue is long, and not yet that it is short again.
    congested: AtomicBool,
    /// An authentic check came. What the table says, for those who do not lock it.
    proven: AtomicBool,
    /// When the newest one came, in milliseconds since the port was opened.
    checked_ms: AtomicU64,
    /// The publisher thread whose publisher this is; [`NO_PUBLISHER`] for viewers.
    publisher: AtomicUsize,
    closing: CancellationToken,
}

/// No publisher thread has this number.
const NO_PUBLISHER: usize = usize::MAX;

/// What became of packets for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// They are on their way.
    Taken,
    /// They are on their way, and nothing more should follow for now. [`WorkerInput::Drained`] tells
    /// when it may.
    Congested,
    /// There is no room, or the connection is gone.
    Refused,
}

impl Connection {
    /// Puts the datagrams of a run into the queue, all or none. Never blocks.
    pub(crate) fn send_run(&self, run: &Run, bytes: &[u8]) -> Delivery {
        let mut framed = Vec::with_capacity(run.len + 2 * run.count);
        for packet in bytes[run.start..run.start + run.len].chunks(run.segment) {
            put_frame(packet, &mut framed);
        }
        self.send(framed)
    }

    fn send(&self, framed: Vec<u8>) -> Delivery {
        let len = framed.len();
        let waiting = self.waiting_bytes.load(Ordering::Relaxed) + len;
        if waiting > MAX_WAITING_BYTES {
            return Delivery::Refused;
        }
        let is_congested = waiting > CONGESTED_BYTES;
        if is_congested {
            // Before the bytes go: whoever writes them looks at it afterwards.
            self.congested.store(true, Ordering::Release);
        }
        self.waiting_bytes.fetch_add(len, Ordering::Relaxed);
        match self.queue.send(framed) {
            Err(_) => Delivery::Refused,
            Ok(()) if is_congested => Delivery::Congested,
            Ok(()) => Delivery::Taken,
        }
    }

    /// Whether nothing can be sent any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    fn note_written(&self, bytes: usize) -> bool {
        let waiting = self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        waiting <= DRAINED_BYTES && self.congested.swap(false, Ordering::AcqRel)
    }

    fn transport_remote(&self) -> Remote {
        Remote { address: self.remote, transport: Transport::Tcp(self.id) }
    }
}

/// All connections; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    opened_at: Instant,
    table: Mutex<Admission<Arc<Connection>>>,
    counters: Counters,
    ending: CancellationToken,
}

impl Connections {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            opened_at: Instant::now(),
            table: Mutex::new(Admission::new(LIMITS)),
            counters: Counters::default(),
            ending: CancellationToken::new(),
        }))
    }

    /// The connection, while it lasts. Takes a lock: not for every packet.
    pub(crate) fn find(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        self.table().find(PlaceId(id.0)).cloned()
    }

    /// An authentic check came on it.
    pub(crate) fn note_check(&self, id: ConnectionId) {
        let place = PlaceId(id.0);
        let mut table = self.table();
        table.prove(place);
        if let Some(connection) = table.find(place) {
            connection.checked_ms.store(self.now_ms(), Ordering::Relaxed);
            connection.proven.store(true, Ordering::Relaxed);
        }
    }

    /// What comes on it is a publisher's.
    pub(crate) fn set_publisher(&self, id: ConnectionId, thread: usize) {
        if let Some(connection) = self.find(id) {
            connection.publisher.store(thread, Ordering::Relaxed);
        }
    }

    /// Closes a connection once what waits has left it.
    pub(crate) fn close(&self, id: ConnectionId) {
        if let Some(connection) = self.find(id) {
            connection.closing.cancel();
        }
    }

    /// Closes all of them, and takes no more.
    pub(crate) fn end(&self) {
        self.0.ending.cancel();
    }

    /// Counters so far.
    pub(crate) fn figures(&self) -> TcpFigures {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TcpFigures {
            open: self.table().len() as u64,
            accepted: read(&counters.accepted),
            refused: read(&counters.refused),
            strangers: read(&counters.strangers),
            evicted: read(&counters.evicted),
            framing_errors: read(&counters.framing_errors),
            received: read(&counters.received),
            dropped: read(&counters.dropped),
        }
    }

    fn table(&self) -> MutexGuard<'_, Admission<Arc<Connection>>> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.0.opened_at.elapsed().as_millis() as u64
    }

    /// Lets a connection in, if there is room for it or a stranger to make some.
    fn admit(
        &self,
        remote: SocketAddr,
        local: SocketAddr,
    ) -> Result<(Arc<Connection>, UnboundedReceiver<Vec<u8>>), Full> {
        let (queue, queued) = unbounded_channel();
        let make = |id: PlaceId| {
            Arc::new(Connection {
                id: ConnectionId(id.0),
                remote,
                local,
                queue,
                waiting_bytes: AtomicUsize::new(0),
                congested: AtomicBool::new(false),
                proven: AtomicBool::new(false),
                checked_ms: AtomicU64::new(0),
                publisher: AtomicUsize::new(NO_PUBLISHER),
                closing: self.0.ending.child_token(),
            })
        };
        let counters = &self.0.counters;
        let admitted = self.table().admit(remote.ip(), make);
        let Admitted { guest, evicted } = admitted.inspect_err(|_| count(&counters.refused))?;
        count(&counters.accepted);
        if let Some(evicted) = evicted {
            count(&counters.evicted);
            evicted.closing.cancel();
        }
        Ok((guest, queued))
    }

    /// A connection has ended. One that was evicted has been counted, and has no place to leave.
    fn forget(&self, connection: &Connection, end: End) {
        let left = self.table().leave(PlaceId(connection.id.0));
        let standing = left.map(|(_, standing)| standing);
        if standing == Some(Standing::Stranger) && end == End::Unchecked {
            count(&self.0.counters.strangers);
        }
        if end == End::Framing {
            count(&self.0.counters.framing_errors);
        }
    }
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
                Ok(Err(_)) => return End::Closed,
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

/// The way out of a connection. Every call may be cut short: what was written is remembered, so that
/// no frame is left half.
struct Outgoing<'s> {
    queued: UnboundedReceiver<Vec<u8>>,
    writer: WriteHalf<'s>,
    begun: Vec<u8>,
    written: usize,
}

impl Outgoing<'_> {
    /// Waits for what is to be written next; its length.
    async fn next(&mut self) -> Option<usize> {
        self.begun = self.queued.recv().await?;
        self.written = 0;
        Some(self.begun.len())
    }

    async fn write_begun(&mut self) -> io::Result<()> {
        while self.written < self.begun.len() {
            match self.writer.write(&self.begun[self.written..]).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => self.written += count,
            }
        }
        Ok(())
    }

    /// What waits when the connection is closed: a goodbye, for one.
    async fn finish(&mut self) -> io::Result<()> {
        self.queued.close();
        self.write_begun().await?;
        while self.next().await.is_some() {
            self.write_begun().await?;
        }
        self.writer.shutdown().await
    }
}

/// An IPv6 socket sees IPv4 under mapped addresses (RFC 4291 §2.5.5.2).
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::sys::UdpPort;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A port with one worker, whose inputs nobody else takes.
    struct World {
        connections: Connections,
        address: SocketAddr,
        inputs: Receiver<WorkerInput>,
        ended: Receiver<()>,
    }

    impl World {
        fn start() -> Self {
            let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
            let (worker, inputs) = WorkerHandle::new(UdpPort::bind(loopback).unwrap()).unwrap();
            let listener = bind(loopback).unwrap();
            let address = listener.local_addr().unwrap();
            let connections = Connections::new();
            let port = TcpPort {
                connections: connections.clone(),
                handshakes: Handshakes::new(1).0,
                publishers: Publishers::new(1).0,
                workers: vec![worker],
                patience: Patience::default(),
            };
            let ended = port.start(vec![listener], ()).unwrap();
            Self { connections, address, inputs, ended }
        }

        /// A viewer's socket, and our end of it, as if an authentic check had come.
        fn connect(&self) -> (std::net::TcpStream, Arc<Connection>) {
            let known = self.connections.figures().accepted;
            let stream = std::net::TcpStream::connect(self.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            until(|| self.connections.figures().accepted > known);
            let id = ConnectionId(known + 1);
            self.connections.note_check(id);
            (stream, self.connections.find(id).unwrap())
        }
    }

    fn until(done: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "it did not come about");
            thread::yield_now();
        }
    }

    /// Eight packets as a worker hands them over.
    fn picture(connection: &Connection, number: u8) -> (Run, Vec<u8>) {
        let route = Route::new(connection.local, connection.transport_remote());
        let bytes = vec![number; 8 * 1_200];
        (Run { route, start: 0, len: bytes.len(), segment: 1_200, count: 8 }, bytes)
    }

    fn send(connection: &Connection, number: u8) -> Delivery {
        let (run, bytes) = picture(connection, number);
        connection.send_run(&run, &bytes)
    }

    #[test]
    fn a_viewer_that_does_not_read_fills_its_queue_and_no_other() {
        let world = World::start();
        let (mut slow, slows) = world.connect();
        let (mut quick, quicks) = world.connect();
        let mut taken = 0;
        // More than the kernel's buffers of both ends and the queue together.
        for number in 0..=u8::MAX {
            for _ in 0..20 {
                taken += u64::from(send(&slows, number) != Delivery::Refused);
                assert!(slows.waiting_bytes.load(Ordering::Relaxed) <= MAX_WAITING_BYTES);
            }
        }
        assert_eq!(send(&slows, 0), Delivery::Refused);
        assert_eq!(send(&quicks, 7), Delivery::Taken);
        let mut arrived = [0; 8 * 1_202];
        quick.read_exact(&mut arrived).unwrap();
        assert_eq!(arrived[..3], [1_200_u16.to_be_bytes()[0], 1_200_u16.to_be_bytes()[1], 7]);

        // What was taken arrives whole, and the worker hears of the room.
        let (mut deframer, mut packets, mut buffer) = (Deframer::default(), 0, [0; 60_000]);
        while packets < taken * 8 {
            let len = slow.read(&mut buffer).unwrap();
            deframer
                .push(&buffer[..len], |packet| {
                    assert!(packet.len() == 1_200 && packet.iter().all(|byte| *byte == packet[0]));
                    packets += 1;
                })
                .unwrap();
        }
        let told = world.inputs.recv_timeout(PATIENCE).unwrap();
        let remote = slows.transport_remote();
        assert!(matches!(told, WorkerInput::Drained(drained) if drained == remote));
        assert_eq!(send(&slows, 1), Delivery::Taken);
    }

    #[tokio::test]
    async fn a_viewer_that_takes_next_to_nothing_is_cut_off() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let (worker, _inputs) = WorkerHandle::new(UdpPort::bind(loopback).unwrap()).unwrap();
        let patience = Patience { stall: PATIENCE, drain: Duration::from_millis(500) };
        let port = TcpPort {
            connections: Connections::new(),
            handshakes: Handshakes::new(1).0,
            publishers: Publishers::new(1).0,
            workers: vec![worker],
            patience,
        };
        let listener = TcpListener::bind(loopback).await.unwrap();
        let mut viewer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, remote) = listener.accept().await.unwrap();
        let (connection, queued) = port.connections.admit(remote, loopback).unwrap();
        let (_reader, writer) = stream.split();
        let mut outgoing = Outgoing { queued, writer, begun: Vec::new(), written: 0 };
        let crawls = async {
            // More than the kernel's buffers of both ends take, and the queue full behind it.
            for number in 0..=u8::MAX {
                for _ in 0..20 {
                    send(&connection, number);
                }
                tokio::task::yield_now().await;
            }
            // Every run of packets is taken long before it counts as stalled.
            let begin = Instant::now();
            while begin.elapsed() < 6 * patience.drain {
                viewer.read_exact(&mut [0; 1_000]).await.unwrap();
                tokio::time::sleep(patience.drain / 50).await;
            }
        };
        let end = tokio::select! {
            end = port.write(&connection, &mut outgoing) => Some(end),
            () = crawls => None,
        };
        assert_eq!(end, Some(End::Stalled));
    }

    #[test]
    fn a_goodbye_leaves_before_the_connection_is_closed() {
        let world = World::start();
        let (mut viewer, connection) = world.connect();
        send(&connection, 9);
        world.connections.close(connection.id);
        let mut received = Vec::new();
        viewer.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), 8 * 1_202);
        until(|| world.connections.figures().open == 0);
        assert_eq!(send(&connection, 9), Delivery::Refused);
        world.connections.end();
        assert!(world.ended.recv_timeout(PATIENCE).is_err(), "the thread ends");
    }

    #[test]
    fn feedback_of_strangers_is_dropped_where_it_lands() {
        let world = World::start();
        let mut report = Vec::new();
        put_frame(&[128, 201, 0, 1, 0, 0, 0, 1], &mut report);
        let mut stranger = std::net::TcpStream::connect(world.address).unwrap();
        stranger.write_all(&report).unwrap();
        until(|| world.connections.figures().dropped == 1);
        let (mut viewer, connection) = world.connect();
        viewer.write_all(&report).unwrap();
        let told = world.inputs.recv_timeout(PATIENCE).unwrap();
        let remote = connection.transport_remote();
        assert!(matches!(told, WorkerInput::Feedback(route, _) if route.remote() == remote));
        assert!(world.inputs.is_empty());
    }

    #[test]
    fn strangers_are_counted_by_address_until_they_prove_themselves() {
        let connections = Connections::new();
        let from = |host: u8, port: u16| SocketAddr::from(([10, 0, 0, host], port));
        let local = from(1, 8555);
        let mut first = None;
        for port in 0..MAX_STRANGERS_AN_ADDRESS as u16 {
            let (connection, _) = connections.admit(from(2, port), local).unwrap();
            first.get_or_insert(connection);
        }
        assert!(matches!(connections.admit(from(2, 9_999), local), Err(Full::Address)));
        assert!(connections.admit(from(3, 1), local).is_ok(), "others have room");
        let first = first.unwrap();
        connections.note_check(first.id);
        assert!(connections.admit(from(2, 9_999), local).is_ok(), "one of them was no stranger");
        connections.forget(&first, End::Unchecked);
        let figures = connections.figures();
        assert_eq!((figures.refused, figures.strangers), (1, 0));
        assert_eq!(figures.open, MAX_STRANGERS_AN_ADDRESS as u64 + 1);
    }

    #[test]
    fn strangers_of_a_few_addresses_keep_nobody_else_out() {
        let connections = Connections::new();
        let local = SocketAddr::from(([10, 0, 0, 1], 8555));
        let from = |host: u8, port| SocketAddr::from(([10, 0, 1, host], port));
        let addresses = MAX_STRANGERS / MAX_STRANGERS_AN_ADDRESS;
        let mut strangers = Vec::new();
        for host in 0..addresses as u8 {
            for port in 0..MAX_STRANGERS_AN_ADDRESS as u16 {
                strangers.push(connections.admit(from(host, port), local).unwrap().0);
            }
        }
        let viewer = SocketAddr::from(([192, 0, 2, 1], 4_000));
        let (viewer, _) = connections.admit(viewer, local).unwrap();
        assert!(strangers[0].closing.is_cancelled(), "the oldest of them gives way");
        assert!(!strangers[1].closing.is_cancelled());
        connections.note_check(strangers[0].id);
        connections.forget(&strangers[0], End::Unchecked);
        connections.note_check(viewer.id);
        let figures = connections.figures();
        assert_eq!((figures.evicted, figures.strangers, figures.refused), (1, 0, 0));
        assert_eq!(figures.open, MAX_STRANGERS as u64);
    }

    #[test]
    fn what_is_no_frame_ends_the_connection() {
        let world = World::start();
        let (mut stream, _) = world.connect();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        until(|| world.connections.figures().framing_errors == 1);
        until(|| world.connections.figures().open == 0);
    }

    #[test]
    fn reports_go_to_the_connections_worker() {
        let world = World::start();
        let (mut stream, connection) = world.connect();
        let mut framed = Vec::new();
        put_frame(&[0x80, 201, 0, 1, 0, 0, 0, 1], &mut framed);
        stream.write_all(&framed).unwrap();
        let told = world.inputs.recv_timeout(PATIENCE).unwrap();
        let WorkerInput::Feedback(route, packet) = told else { panic!("something else") };
        assert_eq!((route.remote(), packet.len()), (connection.transport_remote(), 8));
    }
}

//! Handshake threads: SDP, ICE and DTLS of all viewers, beside the fan-out and never in it.
//!
//! A handshake costs 2.5 ms of CPU, which is a thousand packets. These threads run at a lower
//! priority; a storm of joins makes joins wait, not pictures.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};
use media::batch::{Route, Run};
use media::peer::{Answer, IceCredentials, OfferError, PeerFactory, Received};
use media::peers::{CloseReason, PeerTable, PeersOutput};
use media::{StreamId, ViewerId};
use tokio::sync::oneshot;

use super::worker::{WorkerHandle, WorkerInput};
use super::{EventSink, MediaEvent, random_u64};

/// Datagrams that may wait for a handshake thread: 1,000 joins with 8 in flight each. What is
/// beyond is dropped and counted; STUN and DTLS send again.
const MAX_WAITING_DATAGRAMS: usize = 8_000;
/// The shard is the first character of the user fragment, an ice-char (RFC 8839 §5.4).
const SHARD_NAMES: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef";
/// Said to viewers when the server ends their session.
const GOODBYE: &str = "the server ended this session";

/// What a handshake thread is told.
enum Command {
    Offer {
        viewer: ViewerId,
        stream: StreamId,
        offer: String,
        reply: oneshot::Sender<Result<Answer, OfferError>>,
    },
    Close(ViewerId, CloseReason),
    CloseAll(Sender<()>),
    Stop,
}

/// STUN or DTLS from a worker.
struct Datagram {
    worker: usize,
    source: SocketAddr,
    local: SocketAddr,
    packet: Vec<u8>,
}

#[derive(Clone)]
struct Shard {
    commands: Sender<Command>,
    datagrams: Sender<Datagram>,
}

/// The way to all handshake threads.
#[derive(Clone)]
pub(crate) struct Handshakes {
    shards: Vec<Shard>,
}

/// The receiving ends, one a thread.
pub(crate) struct ShardInputs {
    commands: Receiver<Command>,
    datagrams: Receiver<Datagram>,
}

impl Handshakes {
    /// `count` shards, at most as many as there are names.
    pub(crate) fn new(count: usize) -> (Self, Vec<ShardInputs>) {
        let (shards, inputs) = (0..count.clamp(1, SHARD_NAMES.len()))
            .map(|_| {
                let (commands, commands_in) = unbounded();
                let (datagrams, datagrams_in) = bounded(MAX_WAITING_DATAGRAMS);
                let inputs = ShardInputs { commands: commands_in, datagrams: datagrams_in };
                (Shard { commands, datagrams }, inputs)
            })
            .unzip();
        (Self { shards }, inputs)
    }

    fn shard_of(&self, viewer: ViewerId) -> &Shard {
        &self.shards[viewer.0 as usize % self.shards.len()]
    }

    /// Answers an offer. `None` when the threads are gone.
    pub(crate) async fn offer(
        &self,
        viewer: ViewerId,
        stream: StreamId,
        offer: String,
    ) -> Option<Result<Answer, OfferError>> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Offer { viewer, stream, offer, reply };
        self.shard_of(viewer).commands.send(command).ok()?;
        answer.await.ok()
    }

    /// Ends a session by our will.
    pub(crate) fn close(&self, viewer: ViewerId) {
        // Failing means that the threads are gone, and the session with them.
        let _ = self.shard_of(viewer).commands.send(Command::Close(viewer, CloseReason::Asked));
    }

    /// The viewer said BYE.
    pub(crate) fn goodbye(&self, viewer: ViewerId) {
        let _ = self.shard_of(viewer).commands.send(Command::Close(viewer, CloseReason::Peer));
    }

    /// Hands a datagram to whom it concerns. A check names its shard; DTLS does not, and goes to
    /// all: those who do not know its source drop it. False when it was dropped here.
    pub(crate) fn receive(
        &self,
        worker: usize,
        source: SocketAddr,
        local: SocketAddr,
        packet: &[u8],
    ) -> bool {
        let send = |shard: &Shard| {
            let datagram = Datagram { worker, source, local, packet: packet.to_vec() };
            shard.datagrams.try_send(datagram).is_ok()
        };
        if matches!(packet.first(), Some(20..=63)) {
            return self.shards.iter().filter(|shard| !send(shard)).count() == 0;
        }
        let name = media::stun::BindingRequest::parse(packet)
            .and_then(|request| request.local_ufrag()?.bytes().next());
        let shard = name.and_then(|name| SHARD_NAMES.iter().position(|other| *other == name));
        shard.and_then(|shard| self.shards.get(shard)).is_some_and(send)
    }

    /// Says goodbye to everybody; returns when all are told, or after `limit`.
    pub(crate) fn close_all(&self, limit: Duration) {
        let (done, all_done) = bounded(self.shards.len());
        for shard in &self.shards {
            let _ = shard.commands.send(Command::CloseAll(done.clone()));
        }
        drop(done);
        let deadline = Instant::now() + limit;
        for _ in &self.shards {
            if all_done.recv_deadline(deadline).is_err() {
                return;
            }
        }
    }

    /// Ends the threads.
    pub(crate) fn stop(&self) {
        for shard in &self.shards {
            let _ = shard.commands.send(Command::Stop);
        }
    }
}

/// One handshake thread.
pub(crate) struct HandshakeThread {
    index: usize,
    inputs: ShardInputs,
    table: PeerTable,
    workers: Vec<WorkerHandle>,
    events: EventSink,
    /// Which worker serves an attached viewer.
    serving: HashMap<ViewerId, usize>,
    /// The worker on which the datagram that is being handled landed.
    arrival: usize,
    closing_all: Option<Sender<()>>,
}

impl HandshakeThread {
    pub(crate) fn new(
        index: usize,
        inputs: ShardInputs,
        factory: PeerFactory,
        workers: Vec<WorkerHandle>,
        events: EventSink,
    ) -> Self {
        Self {
            index,
            inputs,
            table: PeerTable::new(factory),
            workers,
            events,
            serving: HashMap::new(),
            arrival: 0,
            closing_all: None,
        }
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        super::sys::lower_priority();
        loop {
            let timeout = self.table.next_timeout().map_or_else(never, crossbeam_channel::at);
            select! {
                recv(self.inputs.commands) -> command => match command {
                    Ok(Command::Stop) | Err(_) => return,
                    Ok(command) => self.handle_command(command),
                },
                recv(self.inputs.datagrams) -> datagram => {
                    if let Ok(datagram) = datagram {
                        self.handle_datagram(&datagram);
                    }
                },
                recv(timeout) -> _ => self.table.handle_timeout(Instant::now()),
            }
            self.drain();
        }
    }

    fn handle_command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Offer { viewer, stream, offer, reply } => {
                let credentials = self.new_credentials();
                let answer = self.table.handle_offer(viewer, stream, &offer, &credentials, now);
                // Whoever asked may have gone away; the session then ends by its lease.
                let _ = reply.send(answer);
            }
            Command::Close(viewer, reason) => self.close(viewer, reason, now),
            Command::CloseAll(done) => {
                for viewer in self.table.viewers() {
                    self.close(viewer, CloseReason::Asked, now);
                }
                self.closing_all = Some(done);
            }
            Command::Stop => {}
        }
    }

    fn close(&mut self, viewer: ViewerId, reason: CloseReason, now: Instant) {
        let goodbye = (reason == CloseReason::Asked).then_some(GOODBYE);
        self.detach(viewer, goodbye);
        self.table.handle_close(viewer, reason, now);
    }

    fn detach(&mut self, viewer: ViewerId, goodbye: Option<&'static str>) {
        if let Some(worker) = self.serving.remove(&viewer) {
            self.workers[worker].tell(WorkerInput::Detach(viewer, goodbye));
        }
    }

    fn handle_datagram(&mut self, datagram: &Datagram) {
        self.arrival = datagram.worker;
        let Datagram { source, local, packet, .. } = datagram;
        let received = self.table.handle_datagram(*source, *local, packet, Instant::now());
        if received == Received::Dropped {
            self.events.count_rejected();
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.table.poll_output() {
            self.execute(output);
        }
        if self.table.is_empty()
            && let Some(done) = self.closing_all.take()
        {
            // The one who waits may have given up.
            let _ = done.send(());
        }
    }

    fn execute(&mut self, output: PeersOutput) {
        match output {
            PeersOutput::Transmit { source, destination, contents } => {
                let len = contents.len();
                let route = Route { source, destination };
                let run = Run { route, start: 0, len, segment: len, count: 1 };
                // A lost datagram of a handshake is sent again by its sender.
                self.workers[self.arrival].shared().port.send_one(&run, &contents);
            }
            PeersOutput::Attach(attach) => {
                let viewer = attach.viewer;
                let handshake_ms = attach.handshake.as_millis() as u32;
                self.serving.insert(viewer, self.arrival);
                self.workers[self.arrival].tell(WorkerInput::Attach(attach, random_u64()));
                self.events.send(MediaEvent::Connected { viewer, handshake_ms });
            }
            PeersOutput::Moved { viewer, source, destination } => {
                if let Some(worker) = self.serving.get(&viewer) {
                    let route = Route { source, destination };
                    self.workers[*worker].tell(WorkerInput::Move(viewer, route));
                }
            }
            PeersOutput::Alive { viewer, at } => self.events.send(MediaEvent::Alive { viewer, at }),
            PeersOutput::Closed { viewer, reason } => {
                self.detach(viewer, None);
                self.events.send(MediaEvent::Closed { viewer, reason });
            }
        }
    }

    /// Fresh ICE credentials: 80 bits of user fragment after the shard's name, 160 of password
    /// (RFC 8445 §5.3 asks for 24 and 128).
    fn new_credentials(&self) -> IceCredentials {
        let shard = char::from(SHARD_NAMES[self.index % SHARD_NAMES.len()]);
        let random_chars = |count: usize| {
            (0..count).map(|_| {
                let bits = (random_u64() & 31) as usize;
                char::from(SHARD_NAMES[bits])
            })
        };
        IceCredentials {
            ufrag: std::iter::once(shard).chain(random_chars(16)).collect(),
            password: random_chars(32).collect(),
        }
    }
}

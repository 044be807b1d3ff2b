//! Handshake threads: SDP, ICE and DTLS of all viewers, beside the fan-out and never in it.
//!
//! A handshake costs 2.5 ms of CPU, which is a thousand packets. These threads run at a lower
//! priority; a storm of joins makes joins wait, not pictures.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};
use media::batch::{Route, Run, Transport};
use media::peer::{Answer, AnswerError, IceCredentials, OfferError, PeerFactory, Received};
use media::peers::{CloseReason, PeerTable, PeersOutput};
use media::{StreamId, ViewerId};
use tokio::sync::oneshot;

use super::addresses::Announced;
use super::tcp::Connections;
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
    OfferSound {
        viewer: ViewerId,
        stream: StreamId,
        reply: oneshot::Sender<String>,
    },
    Answer {
        viewer: ViewerId,
        answer: String,
        reply: oneshot::Sender<Result<(), AnswerError>>,
    },
    Restart {
        viewer: ViewerId,
        theirs: IceCredentials,
        reply: oneshot::Sender<Option<Restarted>>,
    },
    Moved(ViewerId, Route),
    Close(ViewerId, CloseReason),
    CloseAll(Sender<()>),
    Stop,
}

/// What a viewer needs to know of our side after an ICE restart.
#[derive(Debug, Clone)]
pub(crate) struct Restarted {
    pub(crate) ice_ufrag: String,
    pub(crate) ice_password: String,
    /// Lines of SDP.
    pub(crate) candidates: String,
}

/// STUN or DTLS, and the worker that it came to or whose connection it came on.
struct Datagram {
    worker: usize,
    route: Route,
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

    /// Offers a receiver the sound of a stream. `None` when the threads are gone.
    pub(crate) async fn offer_sound(&self, viewer: ViewerId, stream: StreamId) -> Option<String> {
        let (reply, offer) = oneshot::channel();
        let command = Command::OfferSound { viewer, stream, reply };
        self.shard_of(viewer).commands.send(command).ok()?;
        offer.await.ok()
    }

    /// A receiver's answer. `None` when the threads are gone.
    pub(crate) async fn take_answer(
        &self,
        viewer: ViewerId,
        answer: String,
    ) -> Option<Result<(), AnswerError>> {
        let (reply, taken) = oneshot::channel();
        let command = Command::Answer { viewer, answer, reply };
        self.shard_of(viewer).commands.send(command).ok()?;
        taken.await.ok()
    }

    /// An ICE restart with the viewer's new credentials. `None` when there is no such viewer.
    pub(crate) async fn restart(
        &self,
        viewer: ViewerId,
        theirs: IceCredentials,
    ) -> Option<Restarted> {
        let (reply, restarted) = oneshot::channel();
        let command = Command::Restart { viewer, theirs, reply };
        self.shard_of(viewer).commands.send(command).ok()?;
        restarted.await.ok()?
    }

    /// The viewer's feedback came along another path.
    pub(crate) fn moved(&self, viewer: ViewerId, route: Route) {
        let _ = self.shard_of(viewer).commands.send(Command::Moved(viewer, route));
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
    pub(crate) fn receive(&self, worker: usize, route: Route, packet: &[u8]) -> bool {
        let send = |shard: &Shard| {
            let datagram = Datagram { worker, route, packet: packet.to_vec() };
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

/// What a handshake or publisher thread needs of the rest of the media plane.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) connections: Connections,
    pub(crate) announced: Announced,
    pub(crate) events: EventSink,
}

impl Surroundings {
    /// Sends one packet, by the port of `worker` where it goes by UDP. What is lost is not said.
    pub(crate) fn transmit(&self, worker: usize, route: Route, packet: &[u8]) {
        let len = packet.len();
        let run = Run { route, start: 0, len, segment: len, count: 1 };
        match route.transport {
            Transport::Udp => {
                self.workers[worker].shared().port.send_one(&run, packet);
            }
            Transport::Tcp(id) => {
                if let Some(connection) = self.connections.find(id) {
                    connection.send_run(&run, packet);
                }
            }
        }
    }
}

/// One handshake thread.
pub(crate) struct HandshakeThread {
    index: usize,
    inputs: ShardInputs,
    table: PeerTable,
    net: Surroundings,
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
        net: Surroundings,
    ) -> Self {
        Self {
            index,
            inputs,
            table: PeerTable::new(factory),
            net,
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
                self.announce(now);
                let credentials = self.new_credentials();
                let answer = self.table.handle_offer(viewer, stream, &offer, &credentials, now);
                // Whoever asked may have gone away; the session then ends by its lease.
                let _ = reply.send(answer);
            }
            Command::OfferSound { viewer, stream, reply } => {
                self.announce(now);
                let credentials = self.new_credentials();
                let offer = self.table.handle_receiver(viewer, stream, &credentials, now);
                // Whoever asked may have gone away; without an answer the session ends by itself.
                let _ = reply.send(offer);
            }
            Command::Answer { viewer, answer, reply } => {
                let _ = reply.send(self.table.handle_answer(viewer, &answer, now));
            }
            Command::Restart { viewer, theirs, reply } => {
                self.announce(now);
                let _ = reply.send(self.restart(viewer, theirs, now));
            }
            Command::Moved(viewer, route) => self.table.handle_moved(viewer, route, now),
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

    /// Tells the table what this machine's addresses are at present.
    fn announce(&mut self, now: Instant) {
        if let Some(candidates) = self.net.announced.refresh(now) {
            self.table.set_candidates(candidates);
        }
    }

    fn restart(
        &mut self,
        viewer: ViewerId,
        theirs: IceCredentials,
        now: Instant,
    ) -> Option<Restarted> {
        let ours = self.new_credentials();
        let candidates = self.table.handle_restart(viewer, &ours, theirs, now)?;
        Some(Restarted { ice_ufrag: ours.ufrag, ice_password: ours.password, candidates })
    }

    fn close(&mut self, viewer: ViewerId, reason: CloseReason, now: Instant) {
        let goodbye = (reason == CloseReason::Asked).then_some(GOODBYE);
        self.detach(viewer, goodbye);
        self.table.handle_close(viewer, reason, now);
    }

    fn detach(&mut self, viewer: ViewerId, goodbye: Option<&'static str>) {
        if let Some(worker) = self.serving.remove(&viewer) {
            self.net.workers[worker].tell(WorkerInput::Detach(viewer, goodbye));
        }
    }

    fn handle_datagram(&mut self, datagram: &Datagram) {
        self.arrival = datagram.worker;
        let Datagram { route, packet, .. } = datagram;
        let (source, local) = (route.remote(), route.source);
        let received = self.table.handle_datagram(source, local, packet, Instant::now());
        match (received, route.transport) {
            (Received::Dropped, _) => self.net.events.count_rejected(),
            (Received::Authentic, Transport::Tcp(id)) => self.net.connections.note_check(id),
            (Received::Authentic | Received::Accepted, _) => {}
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
            // A lost packet of a handshake is sent again by its sender.
            PeersOutput::Transmit { route, contents } => {
                self.net.transmit(self.arrival, route, &contents);
            }
            PeersOutput::Attach(attach) => {
                let viewer = attach.viewer;
                let handshake_ms = attach.handshake.as_millis() as u32;
                let route = attach.route;
                self.serving.insert(viewer, self.arrival);
                self.net.workers[self.arrival].tell(WorkerInput::Attach(attach, random_u64()));
                self.net.events.send(MediaEvent::Connected { viewer, handshake_ms, route });
            }
            PeersOutput::PathProven { viewer, route } => {
                self.tell_server(viewer, WorkerInput::PathProven(viewer, route));
            }
            PeersOutput::PathForgotten { viewer, route } => {
                self.tell_server(viewer, WorkerInput::PathForgotten(viewer, route));
                if let Transport::Tcp(id) = route.transport {
                    self.net.connections.close(id);
                }
            }
            PeersOutput::Moved { viewer, route } => {
                self.tell_server(viewer, WorkerInput::Move(viewer, route));
                self.net.events.send(MediaEvent::Moved { viewer, route });
            }
            PeersOutput::Alive { viewer, at, route } => {
                if !self.serving.contains_key(&viewer) {
                    self.net.events.send(MediaEvent::Reached { viewer, route });
                }
                self.net.events.send(MediaEvent::Alive { viewer, at, sent: None });
            }
            PeersOutput::Closed { viewer, reason } => {
                self.detach(viewer, None);
                match reason {
                    CloseReason::ConsentExpired => self.net.events.count_expired_consent(),
                    CloseReason::Failed => self.net.events.count_failed_session(),
                    CloseReason::Peer
                    | CloseReason::NeverConnected
                    | CloseReason::Handshake
                    | CloseReason::Asked => {}
                }
                self.net.events.send(MediaEvent::Closed { viewer, reason });
            }
        }
    }

    /// Tells the worker that serves the viewer, if it is attached.
    fn tell_server(&self, viewer: ViewerId, input: WorkerInput) {
        if let Some(worker) = self.serving.get(&viewer) {
            self.net.workers[*worker].tell(input);
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

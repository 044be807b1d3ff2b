//! The server under test: the real cores, put together as the program puts them together.
//!
//! What happens between threads there takes time; here three queues stand for it, each in order and
//! with a delay by seed: the ledger's outcomes, the media plane's events to the engine, and the
//! engine's commands to the handshake threads. A fourth is what waits for the media worker while that
//! gets no processor.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use control::{EndCause, LedgerOp, MemoryLedger, Outcome, ReservationId};
use engine::{
    Action, CameraSpec, Engine, OpId, Rendition, Reply, Request, RequestId, SourceEvent,
    ViewerEvent,
};
use media::batch::{Batch, Route};
use media::fanout::{Fanout, FanoutEvent};
use media::peer::{IceCredentials, Received};
use media::peers::{Attach, CloseReason, PeerTable, PeersOutput};
use media::viewer::MAX_PENDING_PACKETS;
use media::{Codec, PacketisedFrame, StreamId, ViewerId};

use crate::book::Book;
use crate::clock::{Clock, SimTime};
use crate::light::{HELLO, LightTable};
use crate::plan::Latency;
use crate::random::Random;

/// Where the media port is.
pub(crate) fn media_port() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8555))
}

/// What the server does to the world.
#[derive(Debug)]
pub(crate) enum ServerOutput {
    Datagram {
        destination: SocketAddr,
        contents: Vec<u8>,
    },
    Reply {
        request: RequestId,
        reply: Reply,
        answer: Option<String>,
    },
    StartSource {
        stream: StreamId,
        camera: control::CameraId,
        rendition: Rendition,
        attempt: u64,
    },
    StopSource {
        stream: StreamId,
    },
    RequestKeyframe {
        stream: StreamId,
    },
    /// A peer got its number.
    Accepting {
        request: RequestId,
        viewer: ViewerId,
        stream: StreamId,
    },
    /// Media flows to a peer from here on.
    Attached {
        viewer: ViewerId,
    },
    /// Nothing is sent to a peer any more.
    Detached {
        viewer: ViewerId,
    },
    /// A peer plays another stream from here on.
    Switched {
        viewer: ViewerId,
        stream: StreamId,
    },
    /// What waits on a stream is dropped.
    Interrupted {
        stream: StreamId,
    },
    /// A lease ran out.
    Expired {
        reservation: ReservationId,
    },
    /// A lease gave way to one of a higher class.
    Preempted {
        reservation: ReservationId,
    },
    /// For the record.
    Note(String),
}

/// The offer of a `Watch` request.
#[derive(Debug, Clone)]
pub(crate) enum Offer {
    Light,
    Full(String),
}

/// What is under way between two parts.
#[derive(Debug)]
enum Later {
    Outcome(OpId, Outcome),
    Viewer(ViewerId, ViewerEvent),
    KeyframeWanted(StreamId),
    Source(StreamId, u64, SourceEvent),
    Offer {
        request: RequestId,
        viewer: ViewerId,
        stream: StreamId,
    },
    Switch(ViewerId, StreamId),
    /// With what the viewer is told.
    Close(ViewerId, &'static str),
}

/// What the media worker is told, in order.
#[derive(Debug)]
enum WorkerInput {
    Frame(StreamId, Arc<PacketisedFrame>),
    Interrupt(StreamId),
    Remove(StreamId),
    Attach(Box<Attach>, u64),
    PathProven(ViewerId, Route),
    PathForgotten(ViewerId, Route),
    Move(ViewerId, Route),
    Detach(ViewerId, Option<&'static str>),
    Feedback(Route, Vec<u8>),
}

/// One of the three queues.
#[derive(Debug, Clone, Copy)]
enum Lane {
    Ledger = 0,
    Events = 1,
    Commands = 2,
}

/// The server.
pub(crate) struct Server {
    clock: Clock,
    random: Random,
    latency: Latency,
    pub(crate) engine: Engine,
    pub(crate) ledger: MemoryLedger,
    pub(crate) book: Book,
    table: Option<PeerTable>,
    light: LightTable,
    pub(crate) fanout: Fanout,
    /// What came while the worker stalls.
    waiting: VecDeque<WorkerInput>,
    stalled_until: SimTime,
    offers: BTreeMap<RequestId, Offer>,
    answers: BTreeMap<RequestId, String>,
    later: BTreeMap<(SimTime, u64), Later>,
    next_later: u64,
    /// The time of the last entry of each [`Lane`].
    newest: [SimTime; 3],
    outputs: VecDeque<ServerOutput>,
    /// What went wrong inside.
    failure: Option<String>,
    next_ufrag: u64,
}

impl Server {
    pub(crate) fn new(
        clock: Clock,
        mut random: Random,
        latency: Latency,
        ledger: MemoryLedger,
        book: Book,
        table: Option<PeerTable>,
    ) -> Self {
        let secret = random.next();
        Self {
            clock,
            latency,
            engine: Engine::new(random.next()),
            ledger,
            book,
            table,
            light: LightTable::new(clock, secret),
            fanout: Fanout::new(),
            waiting: VecDeque::new(),
            stalled_until: SimTime::default(),
            offers: BTreeMap::new(),
            answers: BTreeMap::new(),
            later: BTreeMap::new(),
            next_later: 0,
            newest: [SimTime::default(); 3],
            outputs: VecDeque::new(),
            failure: None,
            next_ufrag: 0,
            random,
        }
    }

    /// What light viewers make their keys from.
    pub(crate) const fn light_secret(&self) -> u64 {
        self.light.secret()
    }

    pub(crate) fn poll_output(&mut self) -> Option<ServerOutput> {
        self.outputs.pop_front()
    }

    /// Nothing is under way inside.
    pub(crate) fn is_settled(&self) -> bool {
        self.later.is_empty()
    }

    /// Everybody whose connection is not over.
    pub(crate) fn peers(&self) -> impl Iterator<Item = ViewerId> {
        let full = self.table.as_ref().map(PeerTable::viewers).unwrap_or_default();
        full.into_iter().chain(self.light.viewers())
    }

    pub(crate) fn handle_request(
        &mut self,
        id: RequestId,
        request: Request,
        offer: Option<Offer>,
        now: SimTime,
    ) {
        if let Some(offer) = offer {
            self.offers.insert(id, offer);
        }
        self.engine.handle_request(id, request, self.clock.timestamp(now));
        self.settle(now);
    }

    pub(crate) fn handle_cameras(&mut self, specs: Vec<CameraSpec>, now: SimTime) {
        self.engine.handle_cameras(specs, self.clock.timestamp(now));
        self.settle(now);
    }

    pub(crate) fn handle_shutdown(&mut self, now: SimTime) {
        self.engine.handle_shutdown(self.clock.timestamp(now));
        self.settle(now);
    }

    pub(crate) fn handle_source(
        &mut self,
        stream: StreamId,
        attempt: u64,
        event: SourceEvent,
        now: SimTime,
    ) {
        self.push(Lane::Events, Later::Source(stream, attempt, event), now);
        self.settle(now);
    }

    pub(crate) fn publish(&mut self, stream: StreamId, frame: Arc<PacketisedFrame>, now: SimTime) {
        self.tell_worker(WorkerInput::Frame(stream, frame), now);
        self.settle(now);
    }

    /// A datagram at the media port.
    pub(crate) fn handle_datagram(&mut self, source: SocketAddr, packet: &mut [u8], now: SimTime) {
        let at = self.clock.instant(now);
        match packet {
            [0..=3 | 20..=63, ..] => {
                if let Some(table) = &mut self.table {
                    let _: Received = table.handle_datagram(source, media_port(), packet, at);
                }
            }
            [HELLO, ..] => {
                self.light.handle_datagram(source, media_port(), packet, now);
            }
            [128..=191, 192..=223, ..] => {
                let route = Route::new(media_port(), source);
                self.tell_worker(WorkerInput::Feedback(route, packet.to_vec()), now);
            }
            _ => {}
        }
        self.settle(now);
    }

    pub(crate) fn next_timeout(&self) -> Option<SimTime> {
        let of_instant = |at: Option<_>| at.map(|at| self.clock.of_instant(at));
        [
            self.later.keys().next().map(|(at, _)| *at),
            self.engine.next_timeout().map(|at| self.clock.of_timestamp(at)),
            of_instant(self.table.as_ref().and_then(PeerTable::next_timeout)),
            self.light.next_timeout(),
            self.worker_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: SimTime) {
        let at = self.clock.instant(now);
        self.engine.handle_timeout(self.clock.timestamp(now));
        if let Some(table) = &mut self.table {
            table.handle_timeout(at);
        }
        self.light.handle_timeout(now);
        self.run_worker(now);
        self.settle(now);
    }

    /// The media worker gets no processor up to a time.
    pub(crate) fn handle_stall(&mut self, until: SimTime) {
        self.stalled_until = self.stalled_until.max(until);
    }

    /// When the worker has something to do and a processor to do it with.
    fn worker_timeout(&self) -> Option<SimTime> {
        let due = self.fanout.next_timeout().map(|at| self.clock.of_instant(at));
        let due = if self.waiting.is_empty() { due } else { Some(self.stalled_until) };
        due.map(|at| at.max(self.stalled_until))
    }

    fn tell_worker(&mut self, input: WorkerInput, now: SimTime) {
        if now < self.stalled_until {
            self.waiting.push_back(input);
        } else {
            self.run_worker(now);
            self.handle_worker(input, now);
        }
    }

    /// What waited for the end of a stall, and the timers.
    fn run_worker(&mut self, now: SimTime) {
        if now < self.stalled_until {
            return;
        }
        while let Some(input) = self.waiting.pop_front() {
            self.handle_worker(input, now);
            self.flush(now);
        }
        self.fanout.handle_timeout(self.clock.instant(now));
    }

    fn handle_worker(&mut self, input: WorkerInput, now: SimTime) {
        let at = self.clock.instant(now);
        match input {
            WorkerInput::Frame(stream, frame) => self.fanout.handle_frame(stream, frame, at),
            WorkerInput::Interrupt(stream) => self.fanout.handle_interruption(stream),
            WorkerInput::Remove(stream) => self.fanout.handle_stream_removed(stream),
            WorkerInput::Attach(attach, seed) => {
                let viewer = attach.viewer;
                self.fanout.handle_attach(*attach, seed, at);
                self.outputs.push_back(ServerOutput::Attached { viewer });
            }
            WorkerInput::PathProven(viewer, route) => self.fanout.handle_path(viewer, route),
            WorkerInput::PathForgotten(viewer, route) => {
                self.fanout.handle_path_forgotten(viewer, route);
            }
            WorkerInput::Move(viewer, route) => self.fanout.handle_move(viewer, route, at),
            WorkerInput::Detach(viewer, goodbye) => {
                self.fanout.handle_detach(viewer, goodbye);
                self.outputs.push_back(ServerOutput::Detached { viewer });
            }
            WorkerInput::Feedback(route, mut packet) => {
                self.fanout.handle_rtcp(route, &mut packet, at);
            }
        }
    }

    /// What must hold at every moment.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.engine.check().map_err(|error| format!("engine: {error}"))?;
        self.ledger.check().map_err(|error| format!("ledger: {error}"))?;
        let figures = self.fanout.figures();
        if figures.seal_errors > 0 {
            return Err(format!("{} packets could not be sealed", figures.seal_errors));
        }
        let waiting = self.fanout.longest_queue();
        if waiting > MAX_PENDING_PACKETS {
            return Err(format!("{waiting} packets wait for one viewer"));
        }
        if self.is_settled() {
            let sessions = self.engine.sessions().map(|session| &session.reservation.id);
            if !sessions.eq(self.book.leases()) {
                return Err("the engine's sessions are not the ledger's leases".to_owned());
            }
        }
        Ok(())
    }

    /// What is left of anything: to be empty at the end.
    pub(crate) fn residue(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut note = |is_left: bool, what: String| {
            if is_left {
                left.push(what);
            }
        };
        let residue = self.engine.residue();
        note(!residue.is_empty(), format!("engine: {residue:?}"));
        note(!self.ledger.is_empty(), format!("{} leases", self.ledger.len()));
        note(!self.fanout.is_empty(), format!("fan-out: {:?}", self.fanout.figures()));
        note(self.fanout.next_timeout().is_some(), "a timer of the fan-out".to_owned());
        note(!self.light.is_empty(), "light peers".to_owned());
        let table = self.table.as_ref();
        note(table.is_some_and(|table| !table.is_empty()), "peers".to_owned());
        note(!self.waiting.is_empty(), "something before the worker".to_owned());
        note(!self.later.is_empty(), "something between the threads".to_owned());
        note(!self.offers.is_empty(), format!("{} offers", self.offers.len()));
        left
    }

    fn push(&mut self, lane: Lane, what: Later, now: SimTime) {
        let most = match lane {
            Lane::Ledger => self.latency.ledger_us,
            Lane::Events => self.latency.events_us,
            Lane::Commands => self.latency.commands_us,
        };
        let newest = &mut self.newest[lane as usize];
        *newest = (*newest).max(now + self.random.between(0, most));
        self.later.insert((*newest, self.next_later), what);
        self.next_later += 1;
    }

    /// Lets everything happen that follows at once.
    fn settle(&mut self, now: SimTime) {
        loop {
            while let Some(action) = self.engine.poll_action() {
                self.execute(action, now);
            }
            self.drain_tables(now);
            self.flush(now);
            match self.later.first_entry().filter(|first| first.key().0 <= now) {
                Some(due) => {
                    let what = due.remove();
                    self.handle_later(what, now);
                }
                None => return,
            }
        }
    }

    fn execute(&mut self, action: Action, now: SimTime) {
        match action {
            Action::Ledger { op, ledger_op } => self.apply(op, ledger_op, now),
            Action::Reply(request, reply) => {
                self.offers.remove(&request);
                let answer = self.answers.remove(&request);
                self.outputs.push_back(ServerOutput::Reply { request, reply, answer });
            }
            Action::StartSource { stream, camera, rendition, attempt } => {
                let start = ServerOutput::StartSource { stream, camera, rendition, attempt };
                self.outputs.push_back(start);
            }
            Action::StopSource { stream } => {
                self.outputs.push_back(ServerOutput::StopSource { stream });
            }
            Action::InterruptStream { stream } => {
                self.tell_worker(WorkerInput::Interrupt(stream), now);
                self.outputs.push_back(ServerOutput::Interrupted { stream });
            }
            Action::RemoveStream { stream } => {
                self.tell_worker(WorkerInput::Remove(stream), now);
                self.outputs.push_back(ServerOutput::Interrupted { stream });
            }
            Action::AcceptViewer { request, viewer, stream } => {
                self.outputs.push_back(ServerOutput::Accepting { request, viewer, stream });
                self.push(Lane::Commands, Later::Offer { request, viewer, stream }, now);
            }
            Action::SwitchViewer { viewer, stream } => {
                self.push(Lane::Commands, Later::Switch(viewer, stream), now);
            }
            Action::CloseViewer { viewer, cause } => {
                self.push(Lane::Commands, Later::Close(viewer, cause.as_str()), now);
            }
            // Nobody holds anything in the simulation.
            Action::HoldEnded { .. } | Action::Note { .. } => {}
            Action::RequestKeyframe { stream } => {
                self.outputs.push_back(ServerOutput::RequestKeyframe { stream });
            }
        }
    }

    fn apply(&mut self, op: OpId, ledger_op: LedgerOp, now: SimTime) {
        let note = format!("ledger {ledger_op:?}");
        let outcome = self.ledger.apply(ledger_op, self.clock.timestamp(now));
        self.note(&format!("{note} -> {} ended", outcome.ended.len()));
        for ended in &outcome.ended {
            let reservation = ended.lease.id().clone();
            self.outputs.push_back(match ended.cause {
                EndCause::Preempted { .. } => ServerOutput::Preempted { reservation },
                EndCause::Expired | EndCause::Deleted | EndCause::ReleasedElsewhere => {
                    ServerOutput::Expired { reservation }
                }
            });
        }
        if let Err(error) = self.book.handle_outcome(&outcome) {
            self.failure.get_or_insert(error);
        }
        self.push(Lane::Ledger, Later::Outcome(op, outcome), now);
    }

    fn handle_later(&mut self, what: Later, now: SimTime) {
        let at = self.clock.timestamp(now);
        match what {
            Later::Outcome(op, outcome) => self.engine.handle_outcome(op, outcome, at),
            Later::Viewer(viewer, event) => {
                self.note(&format!("{viewer:?} {event:?}"));
                self.engine.handle_viewer(viewer, event, at);
            }
            Later::KeyframeWanted(stream) => self.engine.handle_keyframe_wanted(stream, at),
            Later::Source(stream, attempt, event) => {
                self.note(&format!("{stream:?} attempt {attempt} {event:?}"));
                self.engine.handle_source(stream, attempt, event, at);
            }
            Later::Offer { request, viewer, stream } => self.offer(request, viewer, stream, now),
            Later::Switch(viewer, stream) => {
                self.note(&format!("{viewer:?} is to go to {stream:?}"));
                self.fanout.handle_switch(viewer, stream, self.clock.instant(now));
                self.flush(now);
            }
            Later::Close(viewer, why) => self.close(viewer, Some(why), now),
        }
    }

    fn offer(&mut self, request: RequestId, viewer: ViewerId, stream: StreamId, now: SimTime) {
        let accepted = match self.offers.remove(&request) {
            Some(Offer::Light) => {
                self.light.handle_offer(viewer, stream, now);
                true
            }
            Some(Offer::Full(offer)) => self.full_offer(request, viewer, stream, &offer, now),
            // Answered meanwhile: the reservation ended.
            None => false,
        };
        let codecs = [Codec::H264, Codec::Opus, Codec::Pcmu, Codec::Pcma].into_iter().collect();
        let event = if accepted { ViewerEvent::Accepted { codecs } } else { ViewerEvent::Refused };
        self.push(Lane::Events, Later::Viewer(viewer, event), now);
    }

    fn full_offer(
        &mut self,
        request: RequestId,
        viewer: ViewerId,
        stream: StreamId,
        offer: &str,
        now: SimTime,
    ) -> bool {
        self.next_ufrag += 1;
        let credentials = IceCredentials {
            ufrag: format!("A{:016}", self.next_ufrag),
            password: format!("{:032}", self.random.next()),
        };
        let at = self.clock.instant(now);
        let Some(table) = &mut self.table else { return false };
        match table.handle_offer(viewer, stream, offer, &credentials, at) {
            Ok(answer) => {
                self.answers.insert(request, answer.sdp);
                true
            }
            Err(_) => false,
        }
    }

    /// `goodbye` is what the viewer is told; `None`: it said so itself.
    fn close(&mut self, viewer: ViewerId, goodbye: Option<&'static str>, now: SimTime) {
        let reason = if goodbye.is_some() { CloseReason::Asked } else { CloseReason::Peer };
        self.detach(viewer, goodbye, now);
        let at = self.clock.instant(now);
        if let Some(table) = &mut self.table {
            table.handle_close(viewer, reason, at);
        }
        self.light.handle_close(viewer, reason);
        self.drain_tables(now);
    }

    fn detach(&mut self, viewer: ViewerId, goodbye: Option<&'static str>, now: SimTime) {
        self.tell_worker(WorkerInput::Detach(viewer, goodbye), now);
        self.outputs.push_back(ServerOutput::Detached { viewer });
        self.flush(now);
    }

    fn drain_tables(&mut self, now: SimTime) {
        while let Some(output) = self.light.poll_output() {
            self.handle_peers(output, now);
        }
        while let Some(output) = self.table.as_mut().and_then(PeerTable::poll_output) {
            self.handle_peers(output, now);
        }
    }

    fn handle_peers(&mut self, output: PeersOutput, now: SimTime) {
        match output {
            PeersOutput::Transmit { route, contents } => {
                let destination = route.destination;
                self.outputs.push_back(ServerOutput::Datagram { destination, contents });
            }
            PeersOutput::Attach(attach) => {
                let viewer = attach.viewer;
                let handshake_ms = attach.handshake.as_millis() as u32;
                let seed = self.attach_seed();
                self.tell_worker(WorkerInput::Attach(attach, seed), now);
                self.flush(now);
                self.tell(viewer, ViewerEvent::Connected { handshake_ms }, now);
            }
            PeersOutput::PathProven { viewer, route } => {
                self.tell_worker(WorkerInput::PathProven(viewer, route), now);
            }
            PeersOutput::PathForgotten { viewer, route } => {
                self.tell_worker(WorkerInput::PathForgotten(viewer, route), now);
            }
            PeersOutput::Moved { viewer, route } => {
                self.tell_worker(WorkerInput::Move(viewer, route), now);
            }
            PeersOutput::Alive { viewer, at, .. } => {
                let at = self.clock.timestamp(self.clock.of_instant(at));
                self.tell(viewer, ViewerEvent::Alive { at }, now);
            }
            PeersOutput::Closed { viewer, reason } => {
                assert!(reason != CloseReason::Failed, "something panicked");
                self.detach(viewer, None, now);
                self.tell(viewer, ViewerEvent::Closed(reason), now);
            }
        }
    }

    /// Random, and every now and then with timestamps that wrap around soon.
    fn attach_seed(&mut self) -> u64 {
        let seed = self.random.next();
        if self.random.percent(30) {
            let timestamp = u32::MAX - self.random.between(0, 900_000) as u32;
            return seed & !0xffff_ffff | u64::from(timestamp);
        }
        seed
    }

    fn tell(&mut self, viewer: ViewerId, event: ViewerEvent, now: SimTime) {
        self.push(Lane::Events, Later::Viewer(viewer, event), now);
    }

    /// Takes everything out of the fan-out.
    fn flush(&mut self, now: SimTime) {
        if now < self.stalled_until {
            return;
        }
        let mut batch = Batch::default();
        loop {
            batch.clear();
            self.fanout.poll_transmit(&mut batch);
            if batch.is_empty() {
                break;
            }
            for run in batch.runs() {
                let bytes = &batch.bytes()[run.start..run.start + run.len];
                let destination = run.route.destination;
                self.outputs.extend(bytes.chunks(run.segment).map(|datagram| {
                    ServerOutput::Datagram { destination, contents: datagram.to_vec() }
                }));
            }
        }
        while let Some(event) = self.fanout.poll_event() {
            match event {
                FanoutEvent::FirstMedia { viewer } => {
                    self.tell(viewer, ViewerEvent::FirstMedia, now);
                }
                FanoutEvent::Alive { viewer, at, .. } => {
                    let at = self.clock.timestamp(self.clock.of_instant(at));
                    self.tell(viewer, ViewerEvent::Alive { at }, now);
                }
                // What it was sent is counted by the judges themselves.
                FanoutEvent::Detached { .. } => {}
                FanoutEvent::Moved { viewer, route } => {
                    if let Some(table) = &mut self.table {
                        table.handle_moved(viewer, route, self.clock.instant(now));
                    }
                }
                FanoutEvent::Goodbye { viewer } => {
                    self.note(&format!("{viewer:?} says goodbye"));
                    self.close(viewer, None, now);
                }
                FanoutEvent::KeyframeWanted { stream } => {
                    self.push(Lane::Events, Later::KeyframeWanted(stream), now);
                }
                FanoutEvent::Switched { viewer, stream } => {
                    self.outputs.push_back(ServerOutput::Switched { viewer, stream });
                    self.tell(viewer, ViewerEvent::Switched { stream }, now);
                }
                FanoutEvent::SwitchFailed { viewer, stream } => {
                    self.tell(viewer, ViewerEvent::SwitchFailed { stream }, now);
                }
                FanoutEvent::Line { viewer, line, stream } => {
                    self.tell(viewer, ViewerEvent::Line { line, stream }, now);
                }
            }
        }
    }

    fn note(&mut self, note: &str) {
        self.outputs.push_back(ServerOutput::Note(note.to_owned()));
    }
}

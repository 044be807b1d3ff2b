//! A run: virtual cameras, viewers and a network around the server, and one queue of events.

mod cameras;
mod checks;
mod viewers;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use control::{MemoryLedger, Policy, Quota, ReservationId, Source, SourceId};
use engine::{Reply, Request, RequestId, SourceFailure};
use media::peer::PeerFactory;
use media::peers::PeerTable;
use media::{StreamId, ViewerId};

use crate::book::Book;
use crate::clock::{Clock, SimTime};
use crate::picture::Log;
use crate::plan::{Ending, Fault, OperatorAct, Plan};
use crate::random::Random;
use crate::server::{Offer, Server, ServerOutput, media_port};

use cameras::{Pull, VirtualCamera};
use checks::{IdlePull, Promise};
use viewers::{PeerId, Person, PersonStep};

/// Events that a failed run shows.
const TRACE_LINES: usize = 50;
/// From the end of all activity to the end of the run: who lingers (33 s), the longest stay (15 s), a
/// lease without media (30 s), the linger of a stream (5 s), and some.
const ENDING_MS: u64 = 90_000;
/// After a shutdown or the removal of all cameras everything is gone in this time: goodbyes take
/// 200 ms.
const PROMPT_ENDING_US: u64 = 1_000_000;

/// Packets alone change little: everything is checked so often at least, and whenever something else
/// happened.
const CHECK_US: u64 = 20_000;
/// See [`Checks::Spaced`].
const SPACED_CHECK_US: u64 = 1_000_000;

/// When everything is checked.
#[derive(Debug, Clone, Copy)]
enum Checks {
    /// After each event of weight.
    EachEvent,
    /// Once a second: where thousands of people are looked through each time.
    Spaced,
}

impl Checks {
    /// Whether it is time, so long after the last one.
    const fn are_due(self, since_us: u64, has_noted: bool) -> bool {
        match self {
            Self::EachEvent => has_noted || since_us >= CHECK_US,
            Self::Spaced => since_us >= SPACED_CHECK_US,
        }
    }
}

/// What happens at a time.
#[derive(Debug)]
enum Event {
    Person { person: usize, visit: u64, step: PersonStep },
    Request { id: RequestId, request: Request, offer: Option<Offer> },
    Response { id: RequestId, reply: Box<Reply>, answer: Option<String> },
    ToServer { source: SocketAddr, peer: Option<PeerId>, packet: Vec<u8> },
    ToPeer { address: SocketAddr, packet: Vec<u8> },
    PeerWake { peer: PeerId },
    PullConnected { stream: StreamId, attempt: u64 },
    Picture { stream: StreamId, attempt: u64 },
    Sound { stream: StreamId, attempt: u64 },
    PullFails { stream: StreamId, attempt: u64, failure: SourceFailure },
    Fault { camera: usize, fault: Fault },
    Operator(OperatorAct),
    PutBack { camera: usize },
    Noise,
    Stall { us: u64 },
    End,
    EndedPromptly,
}

/// What came of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Pictures that arrived whole, of all viewers.
    pub pictures: u64,
    /// Packets of sound that arrived.
    pub sounds: u64,
    /// Peers to which media flowed.
    pub peers: u64,
    /// Viewers with ICE and DTLS. Without any, the seed decides everything; the timing inside str0m has
    /// a randomness of its own.
    pub full_viewers: u64,
    /// Leases that were granted.
    pub leases: u64,
    /// Leases that gave way to others.
    pub preemptions: u64,
    /// Pullers that were started.
    pub pulls: u64,
    /// RTP and RTCP packets that the server sent.
    pub packets: u64,
    /// Pictures that the server skipped for viewers that were too slow.
    pub skipped: u64,
    /// Viewers that went from one stream to another.
    pub switches: u64,
    /// Packets that viewers asked for and got again.
    pub repairs: u64,
    /// A hash of everything that was noted: equal for equal runs.
    pub fingerprint: u64,
}

pub(crate) struct World {
    clock: Clock,
    now: SimTime,
    queue: BTreeMap<(SimTime, u64), Event>,
    next_event: u64,
    plan: Plan,
    checks: Checks,
    random: Random,
    server: Server,
    cameras: Vec<VirtualCamera>,
    pulls: BTreeMap<StreamId, Pull>,
    next_epoch: u64,
    logs: BTreeMap<StreamId, Log>,
    people: Vec<Person>,
    by_address: BTreeMap<SocketAddr, PeerId>,
    by_viewer: BTreeMap<ViewerId, PeerId>,
    next_address: u32,
    requests: BTreeMap<RequestId, viewers::Asked>,
    next_request: u64,
    promises: Vec<Promise>,
    idle_pulls: BTreeMap<StreamId, IdlePull>,
    /// Peers without a session, and since when.
    strays: BTreeMap<ViewerId, SimTime>,
    heard: BTreeMap<ViewerId, SimTime>,
    /// The newest datagram of a peer, for those who forge.
    overheard: Option<(SocketAddr, Vec<u8>)>,
    is_ending: bool,
    /// When everything was checked; nothing of weight happened since, unless something was noted.
    checked_at: SimTime,
    has_noted: bool,
    trace: VecDeque<String>,
    report: Report,
    failure: Option<String>,
}

impl World {
    /// As the seed says.
    pub(crate) fn new(seed: u64, start: Instant) -> Result<Self, String> {
        let mut random = Random::new(seed);
        let plan = Plan::draw(random.fork());
        Self::of_plan(plan, Checks::EachEvent, random, start)
    }

    /// So many come and go.
    pub(crate) fn churn(seed: u64, joins: u64, start: Instant) -> Result<Self, String> {
        let mut random = Random::new(seed);
        let plan = Plan::draw_churn(random.fork(), joins);
        Self::of_plan(plan, Checks::Spaced, random, start)
    }

    fn of_plan(
        plan: Plan,
        checks: Checks,
        mut random: Random,
        start: Instant,
    ) -> Result<Self, String> {
        let clock = Clock::new(start);
        let full_viewers = plan.viewers.iter().filter(|viewer| viewer.is_full).count() as u64;
        let table = if full_viewers > 0 {
            let factory = PeerFactory::new(vec![media_port()]).ok_or("no certificate")?;
            Some(PeerTable::new(factory))
        } else {
            None
        };
        let sources: Vec<Source> = plan
            .limit_of_source
            .iter()
            .enumerate()
            .map(|(number, limit)| source(number, *limit))
            .collect();
        let limits = sources.iter().map(|source| (source.id.clone(), source.limit)).collect();
        let ledger =
            MemoryLedger::new(Quota::new(plan.unit, plan.limit_total, &sources), Policy::default());
        let book = Book::new(plan.unit, plan.limit_total, limits);
        let server = Server::new(clock, random.fork(), plan.latency, ledger, book, table);
        let cameras = plan.cameras.iter().enumerate();
        let cameras =
            cameras.map(|(number, plan)| VirtualCamera::new(number, plan.clone(), random.fork()));
        let cameras: Vec<_> = cameras.collect();
        let people = plan.viewers.iter().map(|plan| Person::new(plan.clone(), random.fork()));
        let people = people.collect();
        Ok(Self {
            clock,
            now: SimTime::default(),
            queue: BTreeMap::new(),
            next_event: 0,
            random,
            server,
            cameras,
            pulls: BTreeMap::new(),
            next_epoch: 0,
            logs: BTreeMap::new(),
            people,
            by_address: BTreeMap::new(),
            by_viewer: BTreeMap::new(),
            next_address: 0,
            requests: BTreeMap::new(),
            next_request: 0,
            promises: Vec::new(),
            idle_pulls: BTreeMap::new(),
            strays: BTreeMap::new(),
            heard: BTreeMap::new(),
            overheard: None,
            is_ending: false,
            checked_at: SimTime::default(),
            has_noted: false,
            trace: VecDeque::new(),
            report: Report { full_viewers, ..Report::default() },
            failure: None,
            checks,
            plan,
        })
    }

    /// Runs to the end. `Err` says what went wrong.
    pub(crate) fn run(&mut self) -> Result<Report, String> {
        self.schedule_plan();
        self.put_cameras();
        let end = self.plan.active_until + ENDING_MS * 1000;
        loop {
            let event_at = self.queue.keys().next().map(|(at, _)| *at);
            let server_at = self.server.next_timeout();
            let Some(next) = [event_at, server_at].into_iter().flatten().min() else { break };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if server_at.is_some_and(|at| at <= self.now) {
                self.server.handle_timeout(self.now);
                self.take_outputs();
            } else if let Some((_, event)) = self.queue.pop_first() {
                self.handle(event);
            }
            if self.checks.are_due(self.now.since(self.checked_at), self.has_noted) {
                self.check()?;
            }
        }
        self.now = end;
        self.check_end()?;
        let figures = self.server.fanout.figures();
        Ok(Report {
            packets: figures.packets_sent,
            skipped: figures.frames_skipped,
            repairs: figures.repairs,
            ..self.report
        })
    }

    /// What happened last, oldest first.
    pub(crate) fn trace(&self) -> Vec<String> {
        self.trace.iter().cloned().collect()
    }

    pub(crate) const fn now_us(&self) -> u64 {
        self.now.0
    }

    fn schedule_plan(&mut self) {
        for person in 0..self.people.len() {
            let at = self.people[person].plan.join_at;
            self.at(at, Event::Person { person, visit: 0, step: PersonStep::Join });
        }
        for camera in 0..self.cameras.len() {
            for (at, fault) in self.cameras[camera].plan.faults.clone() {
                self.at(at, Event::Fault { camera, fault });
            }
        }
        for (at, act) in self.plan.operator.clone() {
            self.at(at, Event::Operator(act));
        }
        for (at, us) in self.plan.stalls.clone() {
            self.at(at, Event::Stall { us });
        }
        if self.plan.noise_every_us.is_some() {
            self.at(SimTime::default(), Event::Noise);
        }
        self.at(self.plan.active_until, Event::End);
    }

    fn at(&mut self, at: SimTime, event: Event) {
        self.queue.insert((at.max(self.now), self.next_event), event);
        self.next_event += 1;
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.at(self.now + micros, event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Person { person, visit, step } => self.handle_person(person, visit, step),
            Event::Request { id, request, offer } => self.handle_request(id, request, offer),
            Event::Response { id, reply, answer } => self.handle_response(id, *reply, answer),
            Event::ToServer { source, peer, packet } => self.handle_to_server(source, peer, packet),
            Event::ToPeer { address, packet } => self.handle_to_peer(address, &packet),
            Event::PeerWake { peer } => self.handle_peer_wake(peer),
            Event::PullConnected { stream, attempt } => self.handle_connected(stream, attempt),
            Event::Picture { stream, attempt } => self.handle_picture(stream, attempt),
            Event::Sound { stream, attempt } => self.handle_sound(stream, attempt),
            Event::PullFails { stream, attempt, failure } => {
                self.handle_pull_fails(stream, attempt, failure);
            }
            Event::Fault { camera, fault } => self.handle_fault(camera, fault),
            Event::Operator(act) => self.handle_operator(act),
            Event::PutBack { camera } => {
                self.cameras[camera].is_present = true;
                self.put_cameras();
            }
            Event::Noise => self.make_noise(),
            Event::Stall { us } => {
                self.note(|| format!("the worker stalls for {us} us"));
                self.server.handle_stall(self.now + us);
            }
            Event::End => self.begin_end(),
            Event::EndedPromptly => self.check_ended_promptly(),
        }
    }

    fn begin_end(&mut self) {
        self.is_ending = true;
        let ending = self.plan.ending;
        self.note(|| format!("the end begins: {ending:?}"));
        for camera in &mut self.cameras {
            camera.on_demand = true;
        }
        match ending {
            Ending::Leave => self.put_cameras(),
            Ending::Vanish => {
                self.put_cameras();
                for person in 0..self.people.len() {
                    self.vanish(person);
                }
            }
            Ending::RemoveCameras => {
                for camera in &mut self.cameras {
                    camera.is_present = false;
                }
                self.put_cameras();
            }
            Ending::Shutdown => {
                self.server.handle_shutdown(self.now);
                self.take_outputs();
            }
        }
        if matches!(ending, Ending::RemoveCameras | Ending::Shutdown) {
            let wait = PROMPT_ENDING_US + self.plan.latency.round_us();
            self.after(wait, Event::EndedPromptly);
        }
    }

    /// Does what the server asks for.
    fn take_outputs(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                ServerOutput::Datagram { destination, contents } => {
                    self.send_to_peer(destination, contents);
                }
                ServerOutput::Reply { request, reply, answer } => {
                    self.note(|| format!("{request:?} {reply:?}"));
                    self.handle_reply(request, reply, answer);
                }
                ServerOutput::StartSource { stream, camera, rendition, attempt } => {
                    self.note(|| format!("start {stream:?} {camera} {rendition:?} {attempt}"));
                    self.start_pull(stream, &camera, rendition, attempt);
                }
                ServerOutput::StopSource { stream } => {
                    self.note(|| format!("stop {stream:?}"));
                    self.pulls.remove(&stream);
                }
                ServerOutput::RequestKeyframe { stream } => self.request_keyframe(stream),
                ServerOutput::Accepting { request, viewer, stream } => {
                    self.note(|| format!("{viewer:?} on {stream:?} for {request:?}"));
                    self.handle_accepting(request, viewer, stream);
                }
                ServerOutput::Attached { viewer } => self.handle_attached(viewer),
                ServerOutput::Detached { viewer } => self.handle_detached(viewer),
                ServerOutput::Switched { viewer, stream } => {
                    self.note(|| format!("{viewer:?} plays {stream:?}"));
                    self.handle_switched(viewer, stream);
                }
                ServerOutput::Interrupted { stream } => {
                    self.note(|| format!("{stream:?} is interrupted"));
                    self.handle_interrupted(stream);
                }
                ServerOutput::Expired { reservation } => self.handle_expired(&reservation),
                ServerOutput::Preempted { reservation } => {
                    self.report.preemptions += 1;
                    self.note(|| format!("{reservation} gave way"));
                    self.promise_end(reservation);
                }
                ServerOutput::Note(note) => self.note(|| note),
            }
        }
    }

    /// Random datagrams, and forgeries of what peers sent, from anywhere and from their addresses.
    fn make_noise(&mut self) {
        let Some(every) = self.plan.noise_every_us.filter(|_| !self.is_ending) else { return };
        let stranger = SocketAddr::from(([10, 9, 9, 9], 999));
        let (source, packet) = match self.overheard.take() {
            Some((address, mut packet)) if self.random.percent(70) && !packet.is_empty() => {
                let at = self.random.between(0, packet.len() as u64 - 1) as usize;
                match self.random.between(0, 2) {
                    0 => packet.truncate(at),
                    1 => packet[at] ^= 1 << self.random.between(0, 7),
                    _ => packet.extend(self.random.bytes(9)),
                }
                (if self.random.percent(50) { address } else { stranger }, packet)
            }
            Some((address, _)) => {
                let first =
                    *self.random.pick(&[0, 1, 20, 21, 22, 23, 25, 63, 64, 100, 128, 144, 255]);
                let len = self.random.between(0, 1_600) as usize;
                let mut packet = self.random.bytes(len);
                if let Some(byte) = packet.first_mut() {
                    *byte = first;
                }
                (if self.random.percent(50) { address } else { stranger }, packet)
            }
            None => (stranger, self.random.bytes(40)),
        };
        // A light viewer's hello has no integrity; forging it would be forging nothing of ours.
        if packet.first() != Some(&crate::light::HELLO) {
            self.after(0, Event::ToServer { source, peer: None, packet });
        }
        self.after(every, Event::Noise);
    }

    fn fail(&mut self, what: String) {
        self.has_noted = true;
        self.failure.get_or_insert(what);
    }

    /// Notes what happens, for the trace and the fingerprint.
    fn note(&mut self, line: impl FnOnce() -> String) {
        let line = line();
        self.has_noted = true;
        for byte in line.bytes() {
            self.report.fingerprint =
                (self.report.fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.trace.len() == TRACE_LINES {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>10} us  {line}", self.now.0));
    }
}

fn source(number: usize, limit: u32) -> Source {
    let id = SourceId::parse(&format!("SOURCE_{number}")).expect("it is an id by its making");
    Source { id, name: String::new(), name_ar: String::new(), limit }
}

fn reservation_id(random: &mut Random) -> ReservationId {
    let hex = format!("{:016x}{:016x}", random.next(), random.next());
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    ReservationId::parse(&parts.join("-")).expect("it is a UUID by its making")
}

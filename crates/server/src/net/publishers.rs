//! Publisher threads: the whole of WHIP's media side and of who speaks, beside the fan-out and never
//! in it.
//!
//! ```text
//! encoder --STUN, DTLS, SRTP, SRTCP--> worker --bounded queue--> publisher thread: PublisherTable
//! publisher thread --frames, bounded channel--> the camera's source attempt --> MediaPlane::publish
//! publisher thread --a voice's packets, by a call--> MediaPlane::publish
//! ```
//! A camera's frames wait in a channel, since what takes them may be slow. A voice's packets wait for
//! nobody: a turn of the scheduler is all the delay that a relay may add.
//!
//! A worker finds out whose a datagram is without a lock: from a table of proven addresses of its own,
//! which the publisher threads keep up to date by command. What looks like RTP and comes from nobody
//! in that table is dropped where it landed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};
use media::CodecSet;
use media::batch::{Remote, Route, Transport};
use media::peer::publisher::{Demand, PublisherFactory, SoundWishes};
use media::peer::{IceCredentials, Received};
use media::publish::TrackOutput;
use media::publishers::{PublisherTable, PublishersOutput, TableFigures};
use tokio::sync::{mpsc, oneshot};

use super::handshakes::Surroundings;
use super::urgency::{Priority, Urgency};
use super::worker::WorkerInput;
use super::{Accepted, MediaEvent, Restarted, random_u64};

pub(crate) use media::peer::publisher::PublishError;
pub(crate) use media::publishers::{Claim, PublisherEnd, PublisherId};

/// Datagrams that may wait for a publisher thread: 500 publishers of 2 Mbit/s send 125 of them a
/// millisecond, so that this is some 30 ms of all of them on one thread. What is beyond is dropped and
/// counted; publishers are asked for it again (NACK).
const MAX_WAITING_DATAGRAMS: usize = 4_000;

/// Frames that may wait for a source attempt: three seconds of 30 pictures and 50 packets of sound. It
/// goes on at a keyframe when it was later than that.
const MAX_WAITING_FRAMES: usize = 240;

/// The thread is the first character of the user fragment, an ice-char that names no handshake thread.
const SHARD_NAMES: &[u8] = b"ghijklmnopqrstuvwxyz";

/// What user fragments and passwords are made of: 32 ice-chars (RFC 8839 §5.4).
const ICE_CHARS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What a publisher thread is told.
enum Command {
    Offer {
        publisher: PublisherId,
        offer: String,
        sends: Sends,
        reply: oneshot::Sender<Result<Accepted, PublishError>>,
    },
    Restart {
        publisher: PublisherId,
        theirs: IceCredentials,
        reply: oneshot::Sender<Option<Restarted>>,
    },
    IsPresent(PublisherId, oneshot::Sender<bool>),
    Attach(PublisherId, Outlet),
    /// Frees what was attached, if nobody takes from it any more.
    Detach(PublisherId),
    WantKeyframe(PublisherId),
    Close(PublisherId),
    CloseAll(Sender<()>),
    Stop,
}

/// What is answered.
enum Sends {
    Camera,
    Voice(SoundWishes),
}

/// Where a publisher's frames go.
enum Outlet {
    Channel(mpsc::Sender<TrackOutput>),
    Call(Box<dyn Sink>),
}

/// What takes a voice's packets on a publisher thread, so that it must return at once. Dropped when the
/// session ends.
pub(crate) trait Sink: Send {
    /// The next thing that came of the voice's packets.
    fn handle(&mut self, output: TrackOutput);
}

/// A datagram from a worker.
struct Datagram {
    worker: usize,
    route: Route,
    packet: Vec<u8>,
}

#[derive(Clone)]
struct Shard {
    commands: Sender<Command>,
    datagrams: Sender<Datagram>,
    figures: Arc<Mutex<ShardFigures>>,
}

/// What one thread counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ShardFigures {
    pub(crate) table: TableFigures,
    /// Frames that found no room behind a thread.
    pub(crate) overflows: u64,
}

/// The receiving ends of one thread.
pub(crate) struct ShardInputs {
    commands: Receiver<Command>,
    datagrams: Receiver<Datagram>,
    figures: Arc<Mutex<ShardFigures>>,
}

/// The way to all publisher threads.
#[derive(Clone)]
pub(crate) struct Publishers {
    shards: Vec<Shard>,
    next: Arc<AtomicU64>,
    /// Sessions whose address the workers may not know yet.
    handshaking: Arc<AtomicUsize>,
    /// Datagrams of publishers for which there was no room.
    dropped: Arc<AtomicU64>,
}

/// One worker's table of the addresses that proved to be publishers'. Bounded by the sessions, of
/// which a stream key has one, and the addresses of each.
#[derive(Debug, Default)]
pub(crate) struct PublisherRoutes(HashMap<Remote, Owner>);

#[derive(Debug, Clone, Copy)]
struct Owner {
    thread: usize,
    claim: Claim,
}

impl PublisherRoutes {
    /// What comes from there is for `thread`, or no longer. A check, whose source may be forged, takes
    /// no address from a thread whose publisher proved more.
    pub(crate) fn set(&mut self, remote: Remote, claim: Claim, thread: usize) {
        let owner = self.0.get(&remote).copied();
        match claim {
            Claim::Taken if owner.is_some_and(|owner| owner.claim == Claim::Proven) => {}
            Claim::Taken | Claim::Proven => {
                self.0.insert(remote, Owner { thread, claim });
            }
            Claim::Released if owner.is_some_and(|owner| owner.thread == thread) => {
                self.0.remove(&remote);
            }
            Claim::Released => {}
        }
    }

    /// The thread that what comes from there is for.
    pub(crate) fn owner(&self, remote: &Remote) -> Option<usize> {
        self.0.get(remote).map(|owner| owner.thread)
    }
}

impl Publishers {
    /// `count` threads, at most as many as there are names.
    pub(crate) fn new(count: usize) -> (Self, Vec<ShardInputs>) {
        let (shards, inputs) = (0..count.clamp(1, SHARD_NAMES.len()))
            .map(|_| {
                let (commands, commands_in) = unbounded();
                let (datagrams, datagrams_in) = bounded(MAX_WAITING_DATAGRAMS);
                let figures = Arc::<Mutex<ShardFigures>>::default();
                let inputs = ShardInputs {
                    commands: commands_in,
                    datagrams: datagrams_in,
                    figures: Arc::clone(&figures),
                };
                (Shard { commands, datagrams, figures }, inputs)
            })
            .unzip();
        let publishers = Self {
            shards,
            next: Arc::default(),
            handshaking: Arc::default(),
            dropped: Arc::default(),
        };
        (publishers, inputs)
    }

    /// Answers a camera's offer. `None` when the threads are gone. Who hangs up before has no session.
    pub(crate) async fn offer(
        &self,
        offer: String,
    ) -> Option<Result<(PublisherHandle, Accepted), PublishError>> {
        self.answer(offer, Sends::Camera).await
    }

    /// Answers the offer of somebody who speaks. `None` when the threads are gone.
    pub(crate) async fn offer_sound(
        &self,
        offer: String,
        wishes: SoundWishes,
    ) -> Option<Result<(PublisherHandle, Accepted), PublishError>> {
        self.answer(offer, Sends::Voice(wishes)).await
    }

    async fn answer(
        &self,
        offer: String,
        sends: Sends,
    ) -> Option<Result<(PublisherHandle, Accepted), PublishError>> {
        let publisher = PublisherId(self.next.fetch_add(1, Ordering::Relaxed));
        let handle = PublisherHandle { publishers: self.clone(), publisher };
        let (reply, answer) = oneshot::channel();
        let command = Command::Offer { publisher, offer, sends, reply };
        self.shard_of(publisher).commands.send(command).ok()?;
        let mut unanswered = Unanswered(Some(handle));
        let answer = answer.await.ok()?;
        let handle = unanswered.0.take()?;
        Some(answer.map(|accepted| (handle, accepted)))
    }

    /// Takes a packet that is a publisher's; `owner` is the thread that its source is known to belong
    /// to. `None` when it is none's; false when it is dropped here.
    pub(crate) fn receive(
        &self,
        owner: Option<usize>,
        worker: usize,
        route: Route,
        packet: &[u8],
    ) -> Option<bool> {
        let send = |shard: usize| {
            let datagram = Datagram { worker, route, packet: packet.to_vec() };
            let is_taken = self.shards[shard].datagrams.try_send(datagram).is_ok();
            self.dropped.fetch_add(u64::from(!is_taken), Ordering::Relaxed);
            is_taken
        };
        match packet.first()? {
            0..=3 => {
                let name = media::stun::BindingRequest::parse(packet)?.local_ufrag()?;
                let name = name.bytes().next()?;
                let shard = SHARD_NAMES.iter().position(|other| *other == name)?;
                (shard < self.shards.len()).then(|| send(shard))
            }
            first => {
                if let Some(shard) = owner {
                    return Some(send(shard));
                }
                // The first flight of DTLS may overtake the news of its address. Who does not know
                // it drops it, here and in the handshake threads.
                if matches!(first, 20..=63) && self.handshaking.load(Ordering::Relaxed) > 0 {
                    for shard in 0..self.shards.len() {
                        send(shard);
                    }
                }
                None
            }
        }
    }

    /// Sum over all threads since the start.
    pub(crate) fn figures(&self) -> (ShardFigures, u64) {
        let mut sum = ShardFigures::default();
        for shard in &self.shards {
            let figures = *shard.figures.lock().unwrap_or_else(PoisonError::into_inner);
            sum.table = sum.table + figures.table;
            sum.overflows += figures.overflows;
        }
        (sum, self.dropped.load(Ordering::Relaxed))
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

    fn shard_of(&self, publisher: PublisherId) -> &Shard {
        &self.shards[publisher.0 as usize % self.shards.len()]
    }
}

/// Closes a session whose answer nobody waits for any more.
struct Unanswered(Option<PublisherHandle>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            // Behind the offer: the thread takes commands in their order.
            handle.close();
        }
    }
}

/// One publisher's session.
#[derive(Clone)]
pub(crate) struct PublisherHandle {
    publishers: Publishers,
    publisher: PublisherId,
}

impl PublisherHandle {
    /// Which one.
    pub(crate) fn id(&self) -> PublisherId {
        self.publisher
    }

    /// Whether it holds its place against another publisher.
    pub(crate) async fn is_present(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::IsPresent(self.publisher, reply));
        answer.await.unwrap_or(false)
    }

    /// An ICE restart with the publisher's new credentials. `None` when its session is over.
    pub(crate) async fn restart_ice(&self, theirs: IceCredentials) -> Option<Restarted> {
        let (reply, restarted) = oneshot::channel();
        self.tell(Command::Restart { publisher: self.publisher, theirs, reply });
        restarted.await.ok()?
    }

    /// Its frames from the next keyframe on. Ends when the session does; the last one who attached
    /// gets them.
    pub(crate) fn attach(&self) -> Frames {
        let (sender, frames) = mpsc::channel(MAX_WAITING_FRAMES);
        self.tell(Command::Attach(self.publisher, Outlet::Channel(sender)));
        Frames { frames, handle: self.clone() }
    }

    /// Its packets go to `sink` until the session ends, or at once if it has.
    pub(crate) fn attach_sink(&self, sink: impl Sink + 'static) {
        self.tell(Command::Attach(self.publisher, Outlet::Call(Box::new(sink))));
    }

    /// Viewers cannot decode.
    pub(crate) fn want_keyframe(&self) {
        self.tell(Command::WantKeyframe(self.publisher));
    }

    /// Ends the session by our will.
    pub(crate) fn close(&self) {
        self.tell(Command::Close(self.publisher));
    }

    fn tell(&self, command: Command) {
        // Failing means that the threads are gone, and the session with them.
        let _ = self.publishers.shard_of(self.publisher).commands.send(command);
    }
}

/// What a publisher sends, as long as this lives.
pub(crate) struct Frames {
    frames: mpsc::Receiver<TrackOutput>,
    handle: PublisherHandle,
}

impl Frames {
    /// The next one; `None` when the session has ended.
    pub(crate) async fn next(&mut self) -> Option<TrackOutput> {
        self.frames.recv().await
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.frames.close();
        self.handle.tell(Command::Detach(self.handle.publisher));
    }
}

/// One publisher thread.
pub(crate) struct PublisherThread {
    index: usize,
    inputs: ShardInputs,
    table: PublisherTable,
    net: Surroundings,
    handshaking: Arc<AtomicUsize>,
    /// Sessions that are counted in `handshaking`; whether they are is the value.
    sessions: HashMap<PublisherId, Progress>,
    attached: HashMap<PublisherId, Outlet>,
    overflows: u64,
    /// The worker on which the newest datagram landed.
    arrival: usize,
    closing_all: Option<Sender<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Handshaking,
    Connected,
}

impl PublisherThread {
    pub(crate) fn new(
        index: usize,
        inputs: ShardInputs,
        factory: PublisherFactory,
        net: Surroundings,
        publishers: &Publishers,
    ) -> Self {
        Self {
            index,
            inputs,
            table: PublisherTable::new(factory),
            net,
            handshaking: Arc::clone(&publishers.handshaking),
            sessions: HashMap::new(),
            attached: HashMap::new(),
            overflows: 0,
            arrival: 0,
            closing_all: None,
        }
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self, priority: Priority) {
        let mut urgency = Urgency::begin(priority, Instant::now());
        loop {
            let timeout = self.table.next_timeout().map_or_else(never, crossbeam_channel::at);
            select! {
                recv(self.inputs.commands) -> command => match command {
                    Ok(Command::Stop) | Err(_) => return,
                    Ok(command) => self.handle_command(command, Instant::now()),
                },
                recv(self.inputs.datagrams) -> datagram => {
                    if let Ok(datagram) = datagram {
                        self.handle_datagram(&datagram);
                    }
                },
                recv(timeout) -> _ => self.table.handle_timeout(Instant::now()),
            }
            self.drain();
            urgency.update(Instant::now());
        }
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Offer { publisher, offer, sends, reply } => {
                self.announce(now);
                let (ours, table) = (self.new_credentials(), &mut self.table);
                let answer = match sends {
                    Sends::Camera => table.handle_offer(publisher, &offer, &ours, now),
                    Sends::Voice(wishes) => {
                        table.handle_sound_offer(publisher, &offer, &ours, &wishes, now)
                    }
                };
                if answer.is_ok() {
                    self.handshaking.fetch_add(1, Ordering::Relaxed);
                    self.sessions.insert(publisher, Progress::Handshaking);
                }
                let accepted = answer.map(|answer_sdp| Accepted {
                    answer_sdp,
                    ice_ufrag: ours.ufrag,
                    // A publisher takes nothing.
                    codecs: CodecSet::default(),
                    their_ufrag: None,
                });
                // Whoever asked may have gone away; the handshake then times out.
                let _ = reply.send(accepted);
            }
            Command::Restart { publisher, theirs, reply } => {
                self.announce(now);
                // Whoever asked may have gone away; the old credentials are good still.
                let _ = reply.send(self.restart(publisher, theirs, now));
            }
            Command::IsPresent(publisher, reply) => {
                let _ = reply.send(self.table.is_present(publisher, now));
            }
            Command::Attach(publisher, outlet) => {
                if self.sessions.contains_key(&publisher) {
                    self.attached.insert(publisher, outlet);
                    self.table.set_demand(publisher, Demand::Wanted, now);
                } else {
                    // It ended before; whoever attaches may have heard of that when he did not know it yet.
                    let reason = PublisherEnd::Peer;
                    self.net.events.send(MediaEvent::PublisherClosed { publisher, reason });
                }
            }
            Command::Detach(publisher) => self.detach_if_closed(publisher, now),
            Command::WantKeyframe(publisher) => self.table.want_keyframe(publisher, now),
            Command::Close(publisher) => {
                self.table.handle_close(publisher, PublisherEnd::Asked, now);
            }
            Command::CloseAll(done) => {
                for publisher in self.table.publishers() {
                    self.table.handle_close(publisher, PublisherEnd::Asked, now);
                }
                self.closing_all = Some(done);
            }
            Command::Stop => {}
        }
    }

    fn restart(
        &mut self,
        publisher: PublisherId,
        theirs: IceCredentials,
        now: Instant,
    ) -> Option<Restarted> {
        let ours = self.new_credentials();
        let candidates = self.table.handle_restart(publisher, &ours, theirs, now)?;
        Some(Restarted { ice_ufrag: ours.ufrag, ice_password: ours.password, candidates })
    }

    /// Another attempt may have attached meanwhile.
    fn detach_if_closed(&mut self, publisher: PublisherId, now: Instant) {
        let is_closed = match self.attached.get(&publisher) {
            Some(Outlet::Channel(sender)) => sender.is_closed(),
            Some(Outlet::Call(_)) | None => false,
        };
        if is_closed {
            self.attached.remove(&publisher);
            self.table.set_demand(publisher, Demand::Unwanted, now);
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
        let figures = ShardFigures { table: self.table.figures(), overflows: self.overflows };
        *self.inputs.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
        if self.table.is_empty()
            && let Some(done) = self.closing_all.take()
        {
            // The one who waits may have given up.
            let _ = done.send(());
        }
    }

    fn execute(&mut self, output: PublishersOutput) {
        match output {
            // What is lost of it is sent again, or is a report of which the next one is near.
            PublishersOutput::Transmit { route, contents } => {
                self.net.transmit(self.arrival, route, &contents);
            }
            PublishersOutput::Address { remote, claim } => self.tell_of_address(remote, claim),
            PublishersOutput::Connected(publisher) => {
                self.sessions.insert(publisher, Progress::Connected);
                self.handshaking.fetch_sub(1, Ordering::Relaxed);
                self.net.events.send(MediaEvent::PublisherConnected { publisher });
            }
            PublishersOutput::Track(publisher, output) => self.hand_on(publisher, output),
            PublishersOutput::Closed { publisher, reason } => {
                if self.sessions.remove(&publisher) == Some(Progress::Handshaking) {
                    self.handshaking.fetch_sub(1, Ordering::Relaxed);
                }
                self.attached.remove(&publisher);
                if reason == PublisherEnd::Failed {
                    self.net.events.count_failed_session();
                }
                self.net.events.send(MediaEvent::PublisherClosed { publisher, reason });
            }
        }
    }

    /// Workers and connections find out by themselves whose a packet is.
    fn tell_of_address(&self, remote: Remote, claim: Claim) {
        match (remote.transport, claim) {
            (Transport::Udp, _) => {
                for worker in &self.net.workers {
                    worker.tell(WorkerInput::PublisherAddress(remote, claim, self.index));
                }
            }
            (Transport::Tcp(id), Claim::Taken | Claim::Proven) => {
                self.net.connections.set_publisher(id, self.index);
            }
            (Transport::Tcp(id), Claim::Released) => self.net.connections.close(id),
        }
    }

    /// Tells the table what this machine's addresses are at present.
    fn announce(&mut self, now: Instant) {
        if let Some(candidates) = self.net.announced.refresh(now) {
            self.table.set_candidates(candidates);
        }
    }

    fn hand_on(&mut self, publisher: PublisherId, output: TrackOutput) {
        let sender = match self.attached.get_mut(&publisher) {
            Some(Outlet::Channel(sender)) => sender,
            Some(Outlet::Call(sink)) => return sink.handle(output),
            None => return,
        };
        match sender.try_send(output) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.overflows += 1;
                self.table.handle_overflow(publisher, Instant::now());
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.detach_if_closed(publisher, Instant::now());
            }
        }
    }

    /// Fresh ICE credentials: 80 bits of user fragment after the thread's name, 160 of password
    /// (RFC 8445 §5.3 asks for 24 and 128).
    fn new_credentials(&self) -> IceCredentials {
        let name = char::from(SHARD_NAMES[self.index % SHARD_NAMES.len()]);
        let random_chars =
            |count: usize| (0..count).map(|_| char::from(ICE_CHARS[(random_u64() & 31) as usize]));
        IceCredentials {
            ufrag: std::iter::once(name).chain(random_chars(16)).collect(),
            password: random_chars(32).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[tokio::test]
    async fn who_hangs_up_before_the_answer_leaves_no_session_behind() {
        let (publishers, mut inputs) = Publishers::new(1);
        let inputs = inputs.remove(0);
        {
            let mut offered = std::pin::pin!(publishers.offer(String::new()));
            assert!(futures::poll!(offered.as_mut()).is_pending());
        }
        let told: Vec<_> = inputs.commands.try_iter().collect();
        let [Command::Offer { publisher, .. }, Command::Close(closed)] = &told[..] else {
            panic!("{} commands", told.len());
        };
        assert_eq!(publisher, closed);
    }

    #[test]
    fn a_check_on_another_thread_takes_no_address_from_who_proved_more() {
        let mut routes = PublisherRoutes::default();
        let remote = Remote::from(SocketAddr::from(([10, 0, 0, 2], 4_000)));
        let (forger, owner) = (0, 1);
        for (claim, thread, expected) in [
            (Claim::Taken, forger, Some(forger)),
            (Claim::Taken, owner, Some(owner)),
            (Claim::Released, forger, Some(owner)),
            (Claim::Taken, forger, Some(forger)),
            (Claim::Proven, owner, Some(owner)),
            (Claim::Taken, forger, Some(owner)),
            (Claim::Released, forger, Some(owner)),
            (Claim::Released, owner, None),
        ] {
            routes.set(remote, claim, thread);
            assert_eq!(routes.owner(&remote), expected, "{claim:?} of {thread}");
        }
    }
}

//! People at browsers: they reserve, watch, move about, lose packets, and go in one way or another.

use std::net::SocketAddr;

use control::ReservationId;
use engine::{Reply, Request, RequestId};
use media::{StreamId, ViewerId};

use super::{Event, World, reservation_id};
use crate::browser::Browser;
use crate::clock::SimTime;
use crate::judge::{Demand, Judge};
use crate::light::LightViewer;
use crate::network::Link;
use crate::picture::Log;
use crate::plan::{Leave, Manner, ViewerPlan};
use crate::random::Random;
use crate::server::{Offer, media_port};

/// Between two heartbeats of a page.
const HEARTBEAT_US: u64 = 10_000_000;
/// How long a full viewer may take from the last packet of a picture to the picture: it hands pictures
/// out when its own timers let it.
const BROWSER_US: u64 = 100_000;
/// How long someone who lingers waits before it watches: heartbeats carry it over the first 30 s.
const LINGER_US: u64 = 33_000_000;

/// One connection of a person: a person, and which of its connections.
pub(super) type PeerId = (usize, usize);

/// What a person does next.
#[derive(Debug, Clone, Copy)]
pub(super) enum PersonStep {
    Join,
    Watch,
    Heartbeat,
    Leave,
    Move,
    Ask,
}

/// A request that is under way.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Reserve {
        person: usize,
        visit: u64,
    },
    Watch {
        person: usize,
        visit: u64,
        peer: usize,
    },
    /// Nobody waits for the reply.
    Other,
}

/// A person.
pub(super) struct Person {
    pub(super) plan: ViewerPlan,
    random: Random,
    /// Steps of earlier visits are void.
    visit: u64,
    returns: u64,
    pub(super) reservation: Option<ReservationId>,
    pub(super) peers: Vec<Connection>,
}

/// What a person's connection runs on.
enum Client {
    /// Its offer is not answered.
    Unanswered,
    Light(Box<LightViewer>),
    Full(Box<Browser>),
}

/// A connection of a person.
pub(super) struct Connection {
    client: Client,
    pub(super) judge: Option<Judge>,
    pub(super) viewer: Option<ViewerId>,
    stream: StreamId,
    address: SocketAddr,
    up: Link,
    down: Link,
    /// It says and hears nothing any more.
    pub(super) is_gone: bool,
    wakes_at: Option<SimTime>,
}

impl Person {
    pub(super) fn new(plan: ViewerPlan, random: Random) -> Self {
        let returns = plan.returns;
        Self { plan, random, visit: 0, returns, reservation: None, peers: Vec::new() }
    }

    fn is_strict(&self) -> bool {
        // Media that overtakes the end of the handshake is lost to a full viewer.
        let overtakes = self.plan.is_full && self.plan.path.disorder;
        self.plan.path.is_lossless() && self.plan.move_after_us.is_none() && !overtakes
    }
}

impl World {
    pub(super) fn handle_person(&mut self, person: usize, visit: u64, step: PersonStep) {
        if self.people[person].visit != visit {
            return;
        }
        self.note(|| format!("person {person}: {step:?}"));
        match step {
            PersonStep::Join => self.join(person),
            PersonStep::Watch => self.watch(person),
            PersonStep::Heartbeat => self.send_heartbeat(person),
            PersonStep::Leave => self.leave(person),
            PersonStep::Move => self.move_peer(person),
            PersonStep::Ask => self.ask_for_picture(person),
        }
    }

    /// Lets a person do something after a while, unless its visit ends before.
    fn next_step(&mut self, person: usize, micros: u64, step: PersonStep) {
        let visit = self.people[person].visit;
        self.after(micros, Event::Person { person, visit, step });
    }

    fn join(&mut self, person: usize) {
        if self.is_ending {
            return;
        }
        let ViewerPlan { camera, quality, class, .. } = self.people[person].plan;
        let request = Request::Reserve {
            reservation: reservation_id(&mut self.people[person].random),
            camera: self.cameras[camera].id.clone(),
            user: format!("person {person}"),
            quality,
            class,
        };
        let visit = self.people[person].visit;
        self.ask(person, request, None, Asked::Reserve { person, visit });
    }

    /// Ends this visit; the person comes back if it has the patience.
    fn end_visit(&mut self, person: usize) {
        let at = &mut self.people[person];
        at.visit += 1;
        at.reservation = None;
        if at.returns > 0 {
            at.returns -= 1;
            let wait = at.random.between(100_000, 4_000_000);
            self.next_step(person, wait, PersonStep::Join);
        }
    }

    fn send_heartbeat(&mut self, person: usize) {
        if let Some(reservation) = self.people[person].reservation.clone() {
            let request = Request::Heartbeat { reservation, extend: None, quality: None };
            self.ask(person, request, None, Asked::Other);
            self.next_step(person, HEARTBEAT_US, PersonStep::Heartbeat);
        }
    }

    fn watch(&mut self, person: usize) {
        let Some(reservation) = self.people[person].reservation.clone() else { return };
        let Ok((client, offer)) = self.new_client(person) else {
            return self.fail("a client made no offer".to_owned());
        };
        self.next_address += 1;
        let number = self.next_address.to_be_bytes();
        let address = SocketAddr::from(([10, 1, number[2], number[3]], 4_000));
        let at = &mut self.people[person];
        let (up, down) = (at.random.fork(), at.random.fork());
        let peer = at.peers.len();
        at.peers.push(Connection {
            client,
            judge: None,
            viewer: None,
            stream: StreamId(u32::MAX),
            address,
            up: Link::new(at.plan.path.clone(), up),
            down: Link::new(at.plan.path.clone(), down),
            is_gone: false,
            wakes_at: None,
        });
        // A second connection takes the place of the first.
        for earlier in &mut at.peers[..peer] {
            earlier.is_gone = true;
        }
        let visit = at.visit;
        let camera = self.cameras[at.plan.camera].id.clone();
        self.by_address.insert(address, (person, peer));
        let request = Request::Watch { reservation, camera };
        self.ask(person, request, Some(offer), Asked::Watch { person, visit, peer });
    }

    fn new_client(&mut self, person: usize) -> Result<(Client, Offer), String> {
        let plan = &self.people[person].plan;
        if plan.manner == Manner::BadOffer {
            return Ok((Client::Unanswered, Offer::Full("v=0\r\nm=video".to_owned())));
        }
        if !plan.is_full {
            return Ok((Client::Unanswered, Offer::Light));
        }
        let number = (self.next_address + 1).to_be_bytes();
        let address = SocketAddr::from(([10, 1, number[2], number[3]], 4_000));
        let (browser, offer) = Browser::new(address, self.clock, self.now)?;
        Ok((Client::Full(Box::new(browser)), Offer::Full(offer)))
    }

    pub(super) fn ask_as_operator(&mut self, request: Request) {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.requests.insert(id, Asked::Other);
        self.after(0, Event::Request { id, request, offer: None });
    }

    fn ask(&mut self, person: usize, request: Request, offer: Option<Offer>, asked: Asked) {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.requests.insert(id, asked);
        let way = self.people[person].plan.request_us;
        self.after(way, Event::Request { id, request, offer });
    }

    pub(super) fn handle_request(&mut self, id: RequestId, request: Request, offer: Option<Offer>) {
        self.note(|| format!("{id:?} {request:?}"));
        match &request {
            Request::Release { reservation } | Request::Revoke { reservation, .. } => {
                self.promise_end(reservation.clone());
            }
            Request::EndWatch { viewer } => self.promise_end_of(*viewer),
            Request::Reserve { .. } | Request::Heartbeat { .. } | Request::Watch { .. } => {}
            // Viewers of the simulation come over WebRTC.
            Request::Read { .. } | Request::Hold { .. } | Request::Feed { .. } => {}
            Request::StopSource { .. } | Request::SetLimit { .. } | Request::Snapshot => {}
            // Its operators end sources and viewers one by one.
            Request::Reset { .. } => {}
        }
        self.server.handle_request(id, request, offer, self.now);
        self.take_outputs();
    }

    pub(super) fn handle_reply(&mut self, id: RequestId, reply: Reply, answer: Option<String>) {
        let Some(asked) = self.requests.get(&id) else {
            return self.fail(format!("{id:?} was replied to twice"));
        };
        let way = match asked {
            Asked::Reserve { person, .. } | Asked::Watch { person, .. } => {
                self.people[*person].plan.request_us
            }
            Asked::Other => {
                self.requests.remove(&id);
                return;
            }
        };
        self.after(way, Event::Response { id, reply: Box::new(reply), answer });
    }

    pub(super) fn handle_response(&mut self, id: RequestId, reply: Reply, answer: Option<String>) {
        let Some(asked) = self.requests.remove(&id) else {
            return self.fail(format!("{id:?} was replied to twice"));
        };
        match (asked, reply) {
            (Asked::Reserve { person, visit }, Reply::Reserve(reply)) => {
                if self.people[person].visit == visit {
                    match reply {
                        Ok(grant) => self.handle_granted(person, grant.lease.id().clone()),
                        Err(_) => self.end_visit(person),
                    }
                }
            }
            (Asked::Watch { person, visit, peer }, Reply::Watch(reply)) => {
                if self.people[person].visit == visit {
                    match reply {
                        Ok(viewer) => self.handle_answered((person, peer), viewer, answer),
                        Err(_) => self.release(person),
                    }
                }
            }
            (asked, reply) => self.fail(format!("{asked:?} was answered with {reply:?}")),
        }
    }

    fn handle_granted(&mut self, person: usize, reservation: ReservationId) {
        self.report.leases += 1;
        let at = &mut self.people[person];
        at.reservation = Some(reservation);
        let think = at.random.between(0, 200_000);
        let (manner, stay_us) = (at.plan.manner, at.plan.stay_us);
        match manner {
            Manner::Forget => {
                at.reservation = None;
                at.visit += 1;
                return;
            }
            Manner::Linger => {
                self.next_step(person, LINGER_US, PersonStep::Watch);
                self.next_step(person, LINGER_US + stay_us, PersonStep::Leave);
            }
            Manner::Watch | Manner::BadOffer | Manner::Ghost => {
                self.next_step(person, think, PersonStep::Watch);
                self.next_step(person, think + stay_us, PersonStep::Leave);
            }
        }
        if let Some(wait) = self.people[person].plan.rewatch_after_us {
            self.next_step(person, think + wait, PersonStep::Watch);
        }
        self.next_step(person, HEARTBEAT_US, PersonStep::Heartbeat);
    }

    /// The media plane's number of the peer that a `Watch` request brings.
    pub(super) fn handle_accepting(&mut self, id: RequestId, viewer: ViewerId, stream: StreamId) {
        let Some(Asked::Watch { person, peer, .. }) = self.requests.get(&id).cloned() else {
            return self.fail(format!("{id:?} brought no offer"));
        };
        let plan = &self.people[person].plan;
        let demand = if !plan.path.is_lossless() {
            Demand::Nothing
        } else if !self.people[person].is_strict() {
            Demand::Keyframes
        } else if self.cameras[plan.camera].plan.floods() {
            Demand::Groups
        } else {
            Demand::All
        };
        // A light viewer waits before its first packet and behind a gap, whoever may overtake.
        let own_us = if plan.is_full { BROWSER_US } else { LightViewer::patience_us(&plan.path) };
        let stall_us = self.plan.longest_stall_us();
        let delay_us_max = plan.path.delay_us_max() + own_us + stall_us;
        let at = &mut self.people[person].peers[peer];
        at.viewer = Some(viewer);
        at.stream = stream;
        at.judge = Some(Judge::new(stream, demand, delay_us_max));
        self.by_viewer.insert(viewer, (person, peer));
        self.logs.entry(stream).or_default();
    }

    /// The answer to its offer reached a peer.
    fn handle_answered(&mut self, id: PeerId, viewer: ViewerId, answer: Option<String>) {
        let (now, secret) = (self.now, self.server.light_secret());
        let stall_us = self.plan.longest_stall_us();
        let is_heavy = self.cameras[self.people[id.0].plan.camera].plan.is_heavy();
        let person = &mut self.people[id.0];
        let (strict, plan) = (person.is_strict(), person.plan.clone());
        let at = &mut person.peers[id.1];
        if plan.manner == Manner::Ghost {
            at.is_gone = true;
            return;
        }
        let started = match (&mut at.client, answer) {
            (Client::Full(browser), Some(answer)) => browser.handle_answer(&answer, now),
            (Client::Unanswered, None) => LightViewer::new(viewer, secret, &plan.path, strict, now)
                .map(|mut light| {
                    if plan.path.is_repairable() && !is_heavy {
                        light.expect_repairs(&plan.path, stall_us);
                    }
                    at.client = Client::Light(Box::new(light));
                })
                .ok_or_else(|| "the keys do not fit".to_owned()),
            _ => Err("the answer is not of the offer's kind".to_owned()),
        };
        if let Err(error) = started {
            return self.fail(error);
        }
        if let Some(wait) = plan.move_after_us {
            self.next_step(id.0, wait, PersonStep::Move);
        }
        if let Some(wait) = plan.ask_after_us {
            self.next_step(id.0, wait, PersonStep::Ask);
        }
        self.handle_peer_wake(id);
    }

    /// The peer that a person uses, if it is there.
    fn current_peer(&mut self, person: usize) -> Option<(PeerId, &mut Connection)> {
        let peers = &mut self.people[person].peers;
        let peer = peers.len().checked_sub(1)?;
        let at = &mut peers[peer];
        (!at.is_gone).then_some(((person, peer), at))
    }

    fn leave(&mut self, person: usize) {
        match self.people[person].plan.leave {
            Leave::EndWatch => {
                let viewer = self.current_peer(person).and_then(|(_, at)| at.viewer);
                self.leave_peers(person);
                match viewer {
                    Some(viewer) => {
                        self.ask(person, Request::EndWatch { viewer }, None, Asked::Other);
                    }
                    None => return self.release(person),
                }
            }
            Leave::Release => return self.release(person),
            Leave::Goodbye => self.say_goodbye(person),
            Leave::Vanish => self.leave_peers(person),
        }
        self.end_visit(person);
    }

    fn release(&mut self, person: usize) {
        self.leave_peers(person);
        if let Some(reservation) = self.people[person].reservation.clone() {
            self.ask(person, Request::Release { reservation }, None, Asked::Other);
        }
        self.end_visit(person);
    }

    fn leave_peers(&mut self, person: usize) {
        for peer in &mut self.people[person].peers {
            peer.is_gone = true;
        }
    }

    /// The cable is pulled, and the person does not come back.
    pub(super) fn vanish(&mut self, person: usize) {
        self.leave_peers(person);
        self.people[person].visit += 1;
    }

    fn say_goodbye(&mut self, person: usize) {
        let now = self.now;
        let peers = &mut self.people[person].peers;
        if let Some(peer) = peers.last_mut().filter(|peer| !peer.is_gone) {
            let log = self.logs.entry(peer.stream).or_default();
            let said = match (&mut peer.client, &mut peer.judge) {
                (Client::Light(light), _) => {
                    light.say_goodbye();
                    Ok(())
                }
                (Client::Full(browser), Some(judge)) => browser.say_goodbye(judge, log, now),
                (Client::Unanswered | Client::Full(_), _) => Ok(()),
            };
            let id = (person, peers.len() - 1);
            if let Err(error) = said {
                return self.fail(error);
            }
            self.send_from_peer(id);
        }
        self.leave_peers(person);
    }

    fn move_peer(&mut self, person: usize) {
        self.next_address += 1;
        let number = self.next_address.to_be_bytes();
        let address = SocketAddr::from(([10, 1, number[2], number[3]], 5_000));
        let now = self.now;
        let Some((id, at)) = self.current_peer(person) else { return };
        let before = std::mem::replace(&mut at.address, address);
        if let Some(judge) = &mut at.judge {
            judge.relax();
        }
        if let Client::Light(light) = &mut at.client {
            light.handle_moved(now);
        }
        self.by_address.remove(&before);
        self.by_address.insert(address, id);
        self.handle_peer_wake(id);
    }

    fn ask_for_picture(&mut self, person: usize) {
        let now = self.now;
        let Some((id, at)) = self.current_peer(person) else { return };
        let Some(judge) = at.judge.as_mut().filter(|judge| judge.is_attached()) else { return };
        match &mut at.client {
            Client::Light(light) => light.ask_for_picture(judge, now),
            Client::Full(browser) => browser.ask_for_picture(judge, now),
            Client::Unanswered => {}
        }
        self.handle_peer_wake(id);
    }

    pub(super) fn handle_peer_wake(&mut self, id: PeerId) {
        let now = self.now;
        let peer = &mut self.people[id.0].peers[id.1];
        let Some(judge) = peer.judge.as_mut().filter(|_| !peer.is_gone) else { return };
        let log = self.logs.entry(peer.stream).or_default();
        let due = match &peer.client {
            Client::Unanswered => return,
            Client::Light(light) => light.next_timeout(),
            Client::Full(browser) => browser.next_timeout(),
        };
        let handled = match &mut peer.client {
            Client::Light(light) if due <= now => light.handle_timeout(judge, log, now),
            Client::Full(browser) if due <= now => browser.handle_timeout(judge, log, now),
            Client::Unanswered | Client::Light(_) | Client::Full(_) => Ok(()),
        };
        self.settle_peer(id, handled);
    }

    pub(super) fn handle_to_peer(&mut self, address: SocketAddr, packet: &[u8]) {
        let now = self.now;
        let Some(id) = self.by_address.get(&address).copied() else { return };
        let peer = &mut self.people[id.0].peers[id.1];
        let Some(judge) = peer.judge.as_mut().filter(|_| !peer.is_gone) else { return };
        let log = self.logs.entry(peer.stream).or_default();
        let handled = match &mut peer.client {
            Client::Unanswered => Ok(()),
            Client::Light(light) => light.handle_datagram(packet, judge, log, now),
            Client::Full(browser) => browser.handle_datagram(media_port(), packet, judge, log, now),
        };
        self.settle_peer(id, handled);
    }

    /// Sends what a client wants to send, and wakes it when it wants to be woken.
    fn settle_peer(&mut self, id: PeerId, handled: Result<(), String>) {
        if let Err(error) = handled {
            let (person, viewer) = (id.0, self.people[id.0].peers[id.1].viewer);
            return self.fail(format!("person {person} ({viewer:?}): {error}"));
        }
        self.send_from_peer(id);
        let peer = &mut self.people[id.0].peers[id.1];
        let (is_closed, wakes_at) = match &peer.client {
            Client::Unanswered => return,
            Client::Light(light) => (light.is_closed, light.next_timeout()),
            Client::Full(browser) => (browser.is_closed, browser.next_timeout()),
        };
        if is_closed && !peer.is_gone {
            peer.is_gone = true;
            self.note(|| format!("person {} was let go", id.0));
            return self.release(id.0);
        }
        if peer.wakes_at != Some(wakes_at) {
            peer.wakes_at = Some(wakes_at);
            self.at(wakes_at, Event::PeerWake { peer: id });
        }
    }

    fn send_from_peer(&mut self, id: PeerId) {
        let now = self.now;
        let peer = &mut self.people[id.0].peers[id.1];
        let sent = match &mut peer.client {
            Client::Unanswered => return,
            Client::Light(light) => light.take_sent(),
            Client::Full(browser) => browser.take_sent(),
        };
        let source = peer.address;
        for packet in sent {
            let arrivals: Vec<_> = self.people[id.0].peers[id.1].up.arrivals(now).collect();
            for at in arrivals {
                let packet = packet.clone();
                self.at(at, Event::ToServer { source, peer: Some(id), packet });
            }
        }
    }

    pub(super) fn send_to_peer(&mut self, address: SocketAddr, packet: Vec<u8>) {
        let Some(id) = self.by_address.get(&address).copied() else { return };
        let now = self.now;
        let arrivals: Vec<_> = self.people[id.0].peers[id.1].down.arrivals(now).collect();
        for at in arrivals {
            self.at(at, Event::ToPeer { address, packet: packet.clone() });
        }
    }

    pub(super) fn handle_to_server(
        &mut self,
        source: SocketAddr,
        peer: Option<PeerId>,
        mut packet: Vec<u8>,
    ) {
        if let Some((person, number)) = peer {
            if let Some(viewer) = self.people[person].peers[number].viewer {
                self.heard.insert(viewer, self.now);
            }
            if self.plan.noise_every_us.is_some() {
                self.overheard = Some((source, packet.clone()));
            }
        }
        self.server.handle_datagram(source, &mut packet, self.now);
        self.take_outputs();
    }

    fn judge_of(&mut self, viewer: ViewerId) -> Option<(&mut Judge, &Log)> {
        let (person, peer) = *self.by_viewer.get(&viewer)?;
        let at = &mut self.people[person].peers[peer];
        let log = self.logs.get(&at.stream)?;
        Some((at.judge.as_mut()?, log))
    }

    pub(super) fn handle_attached(&mut self, viewer: ViewerId) {
        self.report.peers += 1;
        let now = self.now;
        if let Some((judge, log)) = self.judge_of(viewer) {
            judge.handle_attached(log, now);
        }
    }

    pub(super) fn handle_detached(&mut self, viewer: ViewerId) {
        if let Some((judge, _)) = self.judge_of(viewer) {
            judge.handle_detached();
        }
    }

    pub(super) fn handle_switched(&mut self, viewer: ViewerId, stream: StreamId) {
        let now = self.now;
        self.report.switches += 1;
        self.logs.entry(stream).or_default();
        let Some((person, peer)) = self.by_viewer.get(&viewer).copied() else { return };
        let at = &mut self.people[person].peers[peer];
        at.stream = stream;
        if let Some(judge) = &mut at.judge {
            judge.handle_switched(stream, now);
        }
    }

    pub(super) fn handle_interrupted(&mut self, stream: StreamId) {
        self.logs.entry(stream).or_default().interrupt();
        for judge in self.judges_on(stream) {
            judge.handle_interruption();
        }
    }

    pub(super) fn tell_judges_of_picture(&mut self, stream: StreamId) {
        let now = self.now;
        let Some(log) = self.logs.remove(&stream) else { return };
        for judge in self.judges_on(stream) {
            judge.handle_published(&log, now);
        }
        self.logs.insert(stream, log);
    }

    fn judges_on(&mut self, stream: StreamId) -> impl Iterator<Item = &mut Judge> {
        let peers = self.people.iter_mut().flat_map(|person| &mut person.peers);
        peers
            .filter(move |peer| peer.stream == stream && !peer.is_gone)
            .filter_map(|peer| peer.judge.as_mut())
    }
}

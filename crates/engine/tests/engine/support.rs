//! The world around an engine: a ledger, cameras and a media plane that do as the test says.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use control::{
    Camera, CameraId, Class, LedgerOp, MemoryLedger, Policy, Quality, Quota, ReservationId, Source,
    SourceId, Timestamp, Unit,
};
use engine::{
    Action, CameraSpec, Engine, Grant, HoldId, Note, OpId, Rendition, Reply, Request, RequestId,
    SourceEvent, SourceFailure, ViewerEvent,
};
use media::peers::CloseReason;
use media::{Codec, CodecSet, StreamId, ViewerId};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// An engine and all that it is joined to.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) ledger: MemoryLedger,
    pub(crate) now: Timestamp,
    /// Replies that came, by request.
    pub(crate) replies: BTreeMap<RequestId, Reply>,
    /// Running attempts.
    pub(crate) pullers: BTreeMap<StreamId, Puller>,
    /// Every start of a source: when and which.
    pub(crate) starts: Vec<(Timestamp, CameraId)>,
    /// Offers under way.
    pub(crate) offers: BTreeMap<ViewerId, StreamId>,
    /// Peers of the media plane, from the answered offer to `Closed`.
    pub(crate) peers: BTreeMap<ViewerId, StreamId>,
    /// Streams that the media plane was told to free since the last look.
    pub(crate) removed: Vec<StreamId>,
    /// Streams whose picture was dropped since the last look.
    pub(crate) interrupted: Vec<StreamId>,
    pub(crate) keyframe_requests: Vec<StreamId>,
    /// What peers were told to go to since the last look.
    pub(crate) switches: Vec<(ViewerId, StreamId)>,
    /// Holds that were not let go.
    pub(crate) holds: Vec<HoldId>,
    /// Holds that ended by themselves.
    pub(crate) notes: Vec<(ReservationId, Note)>,
    pub(crate) holds_ended: Vec<(HoldId, Option<SourceFailure>)>,
    /// Ledger operations that wait, when the ledger is slow.
    pub(crate) ledger_queue: VecDeque<(OpId, LedgerOp)>,
    pub(crate) ledger_is_slow: bool,
    next_request: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Puller {
    pub(crate) camera: CameraId,
    pub(crate) rendition: Rendition,
    pub(crate) attempt: u64,
}

impl World {
    /// `cameras` cameras of one source, `cam-0` and so on, each with a sub stream.
    pub(crate) fn new(seed: u64, cameras: u32) -> Self {
        crate::log_lines::install_recorder();
        let source = Source {
            id: source_id(),
            name: "Metro".to_owned(),
            name_ar: String::new(),
            limit: 10_000,
        };
        let quota = Quota::new(Unit::Viewer, 10_000, [&source]);
        let mut world = Self {
            engine: Engine::new(seed),
            ledger: MemoryLedger::new(quota, Policy::default()),
            now: START,
            replies: BTreeMap::new(),
            pullers: BTreeMap::new(),
            starts: Vec::new(),
            offers: BTreeMap::new(),
            peers: BTreeMap::new(),
            removed: Vec::new(),
            interrupted: Vec::new(),
            keyframe_requests: Vec::new(),
            switches: Vec::new(),
            holds: Vec::new(),
            notes: Vec::new(),
            holds_ended: Vec::new(),
            ledger_queue: VecDeque::new(),
            ledger_is_slow: false,
            next_request: 0,
        };
        world.set_cameras((0..cameras).map(spec).collect());
        world
    }

    pub(crate) fn set_cameras(&mut self, specs: Vec<CameraSpec>) {
        self.engine.handle_cameras(specs, self.now);
        self.settle();
    }

    /// Asks, without waiting for the reply.
    pub(crate) fn ask(&mut self, request: Request) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.engine.handle_request(id, request, self.now);
        self.settle();
        id
    }

    /// Asks, and takes the reply that must have come.
    pub(crate) fn call(&mut self, request: Request) -> Reply {
        let id = self.ask(request);
        self.replies.remove(&id).expect("the reply came at once")
    }

    pub(crate) fn reserve(&mut self, viewer: u32, camera: u32) -> Reply {
        self.call(reserve(viewer, camera, Quality::Auto))
    }

    /// Reserves, which must succeed.
    pub(crate) fn reserved(&mut self, viewer: u32, camera: u32) -> Grant {
        let reply = self.reserve(viewer, camera);
        let Reply::Reserve(Ok(grant)) = reply else {
            panic!("viewer {viewer} did not get camera {camera}: {reply:?}");
        };
        grant
    }

    pub(crate) fn release(&mut self, viewer: u32) -> bool {
        let reply = self.call(Request::Release { reservation: reservation_id(viewer) });
        matches!(reply, Reply::Release(Some(_)))
    }

    /// Offers on a reservation; the media plane answers when it is told to.
    pub(crate) fn offer(&mut self, viewer: u32, camera: u32) -> RequestId {
        let reservation = reservation_id(viewer);
        self.ask(Request::Watch { reservation, camera: camera_id(camera) })
    }

    /// Offers, is answered and connects.
    pub(crate) fn watch(&mut self, viewer: u32, camera: u32) -> ViewerId {
        let request = self.offer(viewer, camera);
        let peer = *self.offers.keys().next_back().expect("an offer is under way");
        self.answer(peer);
        assert_eq!(self.replies.remove(&request), Some(Reply::Watch(Ok(peer))));
        self.viewer(peer, ViewerEvent::Connected { handshake_ms: 20 });
        peer
    }

    /// The media plane answers an offer.
    pub(crate) fn answer(&mut self, peer: ViewerId) {
        let stream = self.offers.remove(&peer).expect("the offer is under way");
        self.peers.insert(peer, stream);
        self.accepts(peer, CodecSet::ALL);
    }

    /// The media plane has answered an offer of somebody who takes these codecs.
    pub(crate) fn accepts(&mut self, peer: ViewerId, codecs: CodecSet) {
        self.viewer(peer, ViewerEvent::Accepted { codecs });
    }

    pub(crate) fn viewer(&mut self, peer: ViewerId, event: ViewerEvent) {
        self.engine.handle_viewer(peer, event, self.now);
        self.settle();
    }

    pub(crate) fn alive(&mut self, peer: ViewerId) {
        self.viewer(peer, ViewerEvent::Alive { at: self.now });
    }

    /// The peer goes by itself.
    pub(crate) fn peer_closes(&mut self, peer: ViewerId, reason: CloseReason) {
        if self.peers.remove(&peer).is_some() {
            self.viewer(peer, ViewerEvent::Closed(reason));
        }
    }

    /// The running attempt at a camera's main stream.
    pub(crate) fn puller(&self, camera: u32) -> Option<(StreamId, Puller)> {
        let id = camera_id(camera);
        let found = self
            .pullers
            .iter()
            .find(|(_, puller)| puller.camera == id && puller.rendition == Rendition::Main);
        found.map(|(stream, puller)| (*stream, puller.clone()))
    }

    pub(crate) fn live(&mut self, camera: u32) {
        let (stream, puller) = self.puller(camera).expect("a puller runs");
        self.engine.handle_source(
            stream,
            puller.attempt,
            SourceEvent::Live { codec: Codec::H264 },
            self.now,
        );
        self.settle();
    }

    pub(crate) fn fail(&mut self, camera: u32, failure: SourceFailure) {
        let (stream, puller) = self.puller(camera).expect("a puller runs");
        self.pullers.remove(&stream);
        self.engine.handle_source(stream, puller.attempt, SourceEvent::Failed(failure), self.now);
        self.settle();
    }

    /// The state's word of a camera.
    pub(crate) fn word(&self, camera: u32) -> &'static str {
        let view = self.engine.camera(&camera_id(camera)).expect("the camera is there");
        view.leading().condition.word()
    }

    /// Lets time pass, with all timeouts in their moment.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.engine.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
            let before = self.engine.next_timeout();
            self.settle();
            let is_stuck = before == self.engine.next_timeout() && before == Some(due);
            assert!(!is_stuck, "a timeout at {due} is not handled");
        }
        self.now = end;
    }

    /// Executes all actions until none is left, and checks what must always hold.
    pub(crate) fn settle(&mut self) {
        loop {
            while let Some(action) = self.engine.poll_action() {
                self.execute(action);
            }
            if self.ledger_is_slow || !self.step_ledger() {
                break;
            }
        }
        self.engine.check().expect("the engine is in order");
        self.ledger.check().expect("the ledger is in order");
        if self.ledger_queue.is_empty() {
            assert_eq!(self.engine.sessions().count(), self.ledger.len(), "sessions are leases");
        }
    }

    /// The slow ledger answers one operation. False: none waits.
    pub(crate) fn step_ledger(&mut self) -> bool {
        let Some((op, ledger_op)) = self.ledger_queue.pop_front() else {
            return false;
        };
        let outcome = self.ledger.apply(ledger_op, self.now);
        self.engine.handle_outcome(op, outcome, self.now);
        true
    }

    /// Everything ended: nothing is left anywhere.
    pub(crate) fn assert_nothing_is_left(&self) {
        let residue = self.engine.residue();
        assert!(residue.is_empty(), "{residue:?}");
        assert!(self.ledger.is_empty(), "{} leases are left", self.ledger.len());
        assert!(self.pullers.is_empty(), "pullers are left: {:?}", self.pullers);
        assert!(self.peers.is_empty(), "peers are left: {:?}", self.peers);
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::Ledger { op, ledger_op } => self.ledger_queue.push_back((op, ledger_op)),
            Action::Reply(request, reply) => {
                let earlier = self.replies.insert(request, reply);
                assert_eq!(earlier, None, "one reply a request");
            }
            Action::StartSource { stream, camera, rendition, attempt } => {
                self.starts.push((self.now, camera.clone()));
                let puller = Puller { camera, rendition, attempt };
                let earlier = self.pullers.insert(stream, puller);
                assert!(earlier.is_none(), "one puller a stream");
            }
            Action::StopSource { stream } => {
                assert!(self.pullers.remove(&stream).is_some(), "only what runs is stopped");
            }
            Action::InterruptStream { stream } => self.interrupted.push(stream),
            Action::RemoveStream { stream } => {
                assert!(!self.pullers.contains_key(&stream), "the puller ends before its stream");
                self.removed.push(stream);
            }
            Action::AcceptViewer { viewer, stream, .. } => {
                self.offers.insert(viewer, stream);
            }
            // The media plane tells of the end of each peer once.
            Action::CloseViewer { viewer } => {
                if self.peers.remove(&viewer).is_some() {
                    let closed = ViewerEvent::Closed(CloseReason::Asked);
                    self.engine.handle_viewer(viewer, closed, self.now);
                }
            }
            Action::SwitchViewer { viewer, stream } => self.switches.push((viewer, stream)),
            Action::Note { reservation, note } => self.notes.push((reservation, note)),
            Action::HoldEnded { hold, failure } => self.holds_ended.push((hold, failure)),
            Action::RequestKeyframe { stream } => self.keyframe_requests.push(stream),
        }
    }
}

pub(crate) fn spec(camera: u32) -> CameraSpec {
    CameraSpec {
        camera: Camera {
            id: camera_id(camera),
            name: format!("Camera {camera}"),
            name_ar: String::new(),
            location: String::new(),
            source: source_id(),
            has_sub: true,
        },
        on_demand: true,
        close_after: Duration::from_secs(5),
        revision: 0,
    }
}

pub(crate) fn reserve(viewer: u32, camera: u32, quality: Quality) -> Request {
    Request::Reserve {
        reservation: reservation_id(viewer),
        camera: camera_id(camera),
        user: "operator".to_owned(),
        quality,
        class: Class::LOWEST,
    }
}

pub(crate) fn source_id() -> SourceId {
    SourceId::parse("METRO").expect("well formed")
}

pub(crate) fn camera_id(camera: u32) -> CameraId {
    CameraId::parse(&format!("cam-{camera}")).expect("well formed")
}

pub(crate) fn reservation_id(viewer: u32) -> ReservationId {
    let text = format!("67e55044-10b1-426f-9247-{viewer:012x}");
    ReservationId::parse(&text).expect("well formed")
}

pub(crate) fn unreachable() -> SourceFailure {
    SourceFailure::Unreachable {
        address: "192.0.2.7:554".to_owned(),
        detail: "connection refused".to_owned(),
    }
}

pub(crate) fn lost() -> SourceFailure {
    SourceFailure::Lost { detail: "the connection was closed".to_owned() }
}

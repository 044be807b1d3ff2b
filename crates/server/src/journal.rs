//! The life of each reservation, step by step, for whoever asks why somebody sees nothing.
//!
//! It is kept in memory: of all who watch, and of the newest of those who did. Nothing is decided by it;
//! the engine, the media plane and HTTP tell it what happened, and it forgets the oldest first.

mod foreign;
mod record;
mod step;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use control::{CameraId, Class, Quality, ReservationId, SourceId, Timestamp};
use engine::{EndReason, Note, Rendition};
use media::ViewerId;
use media::viewer::TrackFigures;

use crate::audit::Audit;
use crate::net::{CloseReason, MediaEvent};

use foreign::Foreign;

pub(crate) use step::{OfferFault, Path, Refusal, Step};

/// Lives that are kept after their end: those of an hour in which each of 1,000 viewers reloads his page
/// four times. A life has some 20 steps of 100 bytes, so that they take 8 MB.
const MAX_ENDED: usize = 4_096;

/// Refused reservations that are kept, apart from the others: somebody who asks in a loop shall not drive
/// out the lives of those who watched.
const MAX_REFUSED: usize = 1_024;

/// Steps of one life. Without adaptation or reconnecting it has about 12; a line that is thin now and then
/// adds three a minute.
const MAX_STEPS: usize = 64;

/// Of these, those of its beginning, which say why it began as it did. Beyond the bound the oldest of the
/// others go, and are counted.
const FIRST_STEPS: usize = 32;

/// After its end, how long a life waits to be told what its viewer was sent. A worker says so within
/// milliseconds; one that is late by so much has ended.
const FIGURES_WAIT: Duration = Duration::from_secs(5);

/// Handle to the lives of all reservations; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    book: Mutex<Book>,
    /// Also told of those that begin, are refused or end.
    audit: Audit,
    started: Instant,
    started_at: Timestamp,
}

/// What is asked for with a reservation.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) camera: CameraId,
    pub(crate) user: String,
    pub(crate) quality: Quality,
    pub(crate) class: Class,
}

/// How far a reservation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LifeState {
    /// It is asked for.
    Asked,
    /// It was not granted; the last step says why.
    Refused,
    /// It lives.
    Granted,
    /// It is over.
    Ended(EndReason),
}

/// One reservation from its request to its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Life {
    pub(crate) id: ReservationId,
    pub(crate) camera: CameraId,
    /// Whose quota it uses; `None` before it was granted.
    pub(crate) source: Option<SourceId>,
    /// Who asked, as he was called.
    pub(crate) user: String,
    /// What was asked for at first.
    pub(crate) quality: Quality,
    pub(crate) class: Class,
    /// The stream that it watches; `None` before it was granted.
    pub(crate) rendition: Option<Rendition>,
    pub(crate) state: LifeState,
    /// When it was asked for.
    pub(crate) began: Timestamp,
    /// When it was refused or ended.
    pub(crate) ended: Option<Timestamp>,
    /// What happened, in order; at most 64 steps.
    pub(crate) steps: Vec<Moment>,
    /// Steps that were left out between the first 32 and the rest.
    pub(crate) steps_omitted: u32,
    /// RTP that its viewers were sent, without repeats; octets are those of payloads, as RTCP counts them
    /// (RFC 3550 §6.4.1). While it is watched at most some seconds old.
    pub(crate) sent: TrackFigures,
    /// The newest token that its viewer was given.
    pub(crate) token: Option<Token>,
    /// Frames that the page says it has decoded; `None` where it said nothing.
    pub(crate) decoded: Option<u64>,
}

/// What is known of a viewer's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    /// When the newest was given.
    pub(crate) given: Timestamp,
    /// From when on it opens nothing.
    pub(crate) expires: Timestamp,
    /// How many were given before it.
    pub(crate) renewals: u32,
}

/// A step and when it was made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Moment {
    pub(crate) at: Timestamp,
    pub(crate) step: Step,
}

impl Life {
    fn new(id: ReservationId, wish: Wish, began: Timestamp) -> Self {
        let Wish { camera, user, quality, class } = wish;
        Self {
            id,
            camera,
            source: None,
            user,
            quality,
            class,
            rendition: None,
            state: LifeState::Asked,
            began,
            ended: None,
            steps: Vec::new(),
            steps_omitted: 0,
            sent: TrackFigures::default(),
            token: None,
            decoded: None,
        }
    }

    /// The newest step that `is` admits, if it is still kept.
    pub(crate) fn newest(&self, is: impl Fn(&Step) -> bool) -> Option<&Moment> {
        self.steps.iter().rev().find(|moment| is(&moment.step))
    }

    /// The steps since its newest offer, that one included; all where there is none. What came before it
    /// says nothing of the connection that is tried at present.
    pub(crate) fn since_offer(&self) -> &[Moment] {
        let offered = |moment: &Moment| matches!(moment.step, Step::Offered | Step::Reading);
        &self.steps[self.steps.iter().rposition(offered).unwrap_or_default()..]
    }

    fn push(&mut self, at: Timestamp, step: Step) {
        if self.steps.len() >= MAX_STEPS {
            self.steps.remove(FIRST_STEPS);
            self.steps_omitted = self.steps_omitted.saturating_add(1);
        }
        self.steps.push(Moment { at, step });
    }
}

/// Bounded by the leases and the constants above.
#[derive(Debug)]
struct Book {
    audit: Audit,
    lives: HashMap<ReservationId, Entry>,
    /// In the order of their ends.
    ended: VecDeque<ReservationId>,
    refused: VecDeque<ReservationId>,
    peers: HashMap<ViewerId, Peer>,
    /// Ended, and a peer has not told yet what it was sent; with the time until which it may.
    closing: VecDeque<(Timestamp, ReservationId)>,
    foreign: Foreign,
}

#[derive(Debug)]
struct Entry {
    life: Life,
    /// Peers that will tell what they were sent.
    peers: u32,
    is_closed: bool,
}

#[derive(Debug)]
struct Peer {
    reservation: ReservationId,
    sent: TrackFigures,
    /// It tells at its end what it was sent.
    is_attached: bool,
    was_heard: bool,
    is_thin: bool,
    path: Option<Path>,
}

impl Journal {
    /// An empty one, which tells `audit` of each life.
    pub(crate) fn new(audit: Audit) -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let started_at = Timestamp::ZERO + wall;
        let book = Mutex::new(Book::new(audit.clone()));
        Self(Arc::new(Inner { book, audit, started: Instant::now(), started_at }))
    }

    /// Where what is told here outlives the process.
    pub(crate) fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// Closes all lives that have ended, and writes what waits. For the end of the program.
    pub(crate) fn finish(&self) {
        self.book().settle(self.now() + FIGURES_WAIT);
        self.0.audit.finish();
    }

    /// The life of a reservation, as far as it is known; `None`: it never was, or is forgotten.
    pub(crate) fn life(&self, id: &ReservationId) -> Option<Life> {
        self.book().lives.get(id).map(|entry| entry.life.clone())
    }

    /// A reservation is asked for.
    pub(crate) fn asked(&self, id: &ReservationId, wish: Wish) {
        let now = self.now();
        let life = Life::new(id.clone(), wish, now);
        let mut book = self.book();
        book.settle(now);
        book.lives.insert(id.clone(), Entry { life, peers: 0, is_closed: false });
        book.step(id, now, Step::Asked);
    }

    /// It was not granted.
    pub(crate) fn refused(&self, id: &ReservationId, refusal: Refusal) {
        let now = self.now();
        self.book().refuse(id, refusal, now);
    }

    /// Something else happened to it. Reservations that are not known are passed over.
    pub(crate) fn step(&self, id: &ReservationId, step: Step) {
        let now = self.now();
        self.book().step(id, now, step);
    }

    /// The same, also of a reservation whose session another node has.
    pub(crate) fn step_anywhere(&self, id: &ReservationId, step: Step) {
        let now = self.now();
        let mut book = self.book();
        if book.lives.contains_key(id) {
            book.step(id, now, step);
        } else {
            book.foreign.note(id, now, step);
        }
    }

    /// What this node had to do with a reservation of another one.
    pub(crate) fn foreign_steps(&self, id: &ReservationId) -> Vec<Moment> {
        self.book().foreign.steps(id)
    }

    /// Its viewer was given a token; the first is a step, the others are counted.
    pub(crate) fn token(&self, id: &ReservationId, valid_for: Duration) {
        let now = self.now();
        self.book().token(id, now, now + valid_for);
    }

    /// Its viewer's page says how many frames it has decoded so far.
    pub(crate) fn decoded(&self, id: &ReservationId, frames: u64) {
        let now = self.now();
        self.book().decoded(id, frames, now);
    }

    /// What the engine tells.
    pub(crate) fn handle_note(&self, id: &ReservationId, note: Note) {
        let now = self.now();
        self.book().handle_note(id, note, now);
    }

    /// What the media plane tells.
    pub(crate) fn handle_media(&self, event: &MediaEvent) {
        let now = self.now();
        self.book().handle_media(event, now);
    }

    /// A reader inside this process was given so much so far.
    pub(crate) fn read(&self, reader: ViewerId, sent: TrackFigures) {
        self.book().sent(reader, sent);
    }

    /// A reader inside this process is gone.
    pub(crate) fn read_all(&self, reader: ViewerId, sent: TrackFigures) {
        self.book().detached(reader, sent);
    }

    fn now(&self) -> Timestamp {
        self.0.started_at + self.0.started.elapsed()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn new(audit: Audit) -> Self {
        let (lives, peers) = (HashMap::new(), HashMap::new());
        let (ended, refused, closing) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let foreign = Foreign::default();
        Self { audit, lives, ended, refused, peers, closing, foreign }
    }

    fn step(&mut self, id: &ReservationId, at: Timestamp, step: Step) {
        if let Some(entry) = self.lives.get_mut(id) {
            entry.life.push(at, step);
        }
    }

    fn refuse(&mut self, id: &ReservationId, refusal: Refusal, now: Timestamp) {
        let Some(entry) = self.lives.get_mut(id) else { return };
        entry.life.push(now, Step::Refused(refusal));
        entry.life.state = LifeState::Refused;
        entry.life.ended = Some(now);
        entry.is_closed = true;
        self.audit.add(entry.life.refused());
        self.refused.push_back(id.clone());
        if self.refused.len() > MAX_REFUSED
            && let Some(oldest) = self.refused.pop_front()
        {
            self.lives.remove(&oldest);
        }
    }

    fn token(&mut self, id: &ReservationId, given: Timestamp, expires: Timestamp) {
        let Some(entry) = self.lives.get_mut(id) else { return };
        let renewals = entry.life.token.map_or(0, |before| before.renewals.saturating_add(1));
        entry.life.token = Some(Token { given, expires, renewals });
        if renewals == 0 {
            entry.life.push(given, Step::TokenIssued { expires });
        }
    }

    fn decoded(&mut self, id: &ReservationId, frames: u64, now: Timestamp) {
        let Some(entry) = self.lives.get_mut(id) else { return };
        let before = entry.life.decoded.replace(frames);
        if before.unwrap_or_default() == 0 && frames > 0 {
            entry.life.push(now, Step::Decoded { frames });
        }
    }

    fn handle_note(&mut self, id: &ReservationId, note: Note, now: Timestamp) {
        match note {
            Note::Begun { reservation, rendition } => {
                let control::Reservation { source, camera, user, quality, class, .. } =
                    *reservation;
                let entry = self.lives.entry(id.clone()).or_insert_with(|| {
                    let wish = Wish { camera, user, quality, class };
                    let life = Life::new(id.clone(), wish, now);
                    Entry { life, peers: 0, is_closed: false }
                });
                entry.life.source = Some(source.clone());
                entry.life.rendition = Some(rendition);
                entry.life.state = LifeState::Granted;
                entry.life.push(now, Step::Reserved { source, rendition });
                self.audit.add(entry.life.begun());
            }
            Note::CameraLive => self.step(id, now, Step::CameraLive),
            Note::CameraFailed(failure) => {
                self.step(id, now, Step::CameraFailed { reason: failure.to_string() });
            }
            Note::Answered { viewer } => {
                self.step(id, now, Step::Answered);
                self.begin_peer(viewer, id);
            }
            Note::Reading { viewer } => {
                self.step(id, now, Step::Reading);
                self.begin_peer(viewer, id);
                self.attached(viewer);
            }
            Note::Switched { to, reason } => {
                self.step(id, now, Step::Switched { to, reason });
                if let Some(entry) = self.lives.get_mut(id) {
                    entry.life.rendition = Some(to);
                }
            }
            Note::SwitchFailed { to, reason } => {
                self.step(id, now, Step::SwitchFailed { to, reason });
            }
            Note::Mismatched(mismatch) => {
                let (reason, fault) = (mismatch.to_string(), OfferFault::Codec);
                self.step(id, now, Step::OfferRefused { reason, fault });
            }
            Note::PeerGone(reason) => self.step(id, now, Step::Disconnected { reason }),
            Note::Ended(reason) => self.end(id, reason, now),
        }
    }

    fn begin_peer(&mut self, viewer: ViewerId, reservation: &ReservationId) {
        let peer = Peer {
            reservation: reservation.clone(),
            sent: TrackFigures::default(),
            is_attached: false,
            was_heard: false,
            is_thin: false,
            path: None,
        };
        self.peers.insert(viewer, peer);
    }

    /// It tells at its end what it was sent.
    fn attached(&mut self, viewer: ViewerId) {
        let Some(peer) = self.peers.get_mut(&viewer) else { return };
        if !std::mem::replace(&mut peer.is_attached, true)
            && let Some(entry) = self.lives.get_mut(&peer.reservation)
        {
            entry.peers += 1;
        }
    }

    fn handle_media(&mut self, event: &MediaEvent, now: Timestamp) {
        match *event {
            MediaEvent::Reached { viewer, route } => self.reached(viewer, route.into(), now),
            MediaEvent::Connected { viewer, handshake_ms, route } => {
                self.attached(viewer);
                self.reached(viewer, route.into(), now);
                self.step_of(viewer, now, Step::Connected { handshake_ms });
            }
            MediaEvent::Moved { viewer, route } => self.reached(viewer, route.into(), now),
            MediaEvent::FirstMedia { viewer } => self.step_of(viewer, now, Step::FirstMedia),
            MediaEvent::Alive { viewer, sent: Some(sent), .. } => {
                self.sent(viewer, sent);
                let peer =
                    self.peers.get_mut(&viewer).filter(|peer| sent.packets > 0 && !peer.was_heard);
                if let Some(peer) = peer {
                    peer.was_heard = true;
                    self.step_of(viewer, now, Step::Heard);
                }
            }
            MediaEvent::Line { viewer, line, .. } => {
                let bits_per_second = line.estimate_bps;
                let step = match line.is_too_thin {
                    true => Step::LineThin { bits_per_second },
                    false => Step::LineWide { bits_per_second },
                };
                if let Some(peer) = self.peers.get_mut(&viewer)
                    && std::mem::replace(&mut peer.is_thin, line.is_too_thin) != line.is_too_thin
                {
                    self.step_of(viewer, now, step);
                }
            }
            MediaEvent::Detached { viewer, sent } => self.detached(viewer, sent),
            MediaEvent::Closed { viewer, reason } => self.closed(viewer, reason),
            MediaEvent::Alive { sent: None, .. }
            | MediaEvent::Switched { .. }
            | MediaEvent::SwitchFailed { .. }
            | MediaEvent::KeyframeWanted { .. }
            | MediaEvent::PublisherConnected { .. }
            | MediaEvent::PublisherClosed { .. }
            | MediaEvent::Failed => {}
        }
    }

    fn step_of(&mut self, viewer: ViewerId, at: Timestamp, step: Step) {
        if let Some(peer) = self.peers.get(&viewer)
            && let Some(entry) = self.lives.get_mut(&peer.reservation)
        {
            entry.life.push(at, step);
        }
    }

    fn reached(&mut self, viewer: ViewerId, path: Path, now: Timestamp) {
        let Some(peer) = self.peers.get_mut(&viewer) else { return };
        if peer.path.replace(path) != Some(path) {
            self.step_of(viewer, now, Step::Path(path));
        }
    }

    fn sent(&mut self, viewer: ViewerId, sent: TrackFigures) {
        let Some(peer) = self.peers.get_mut(&viewer) else { return };
        let before = std::mem::replace(&mut peer.sent, sent);
        if let Some(entry) = self.lives.get_mut(&peer.reservation) {
            let all = &mut entry.life.sent;
            all.packets = (all.packets + sent.packets).saturating_sub(before.packets);
            all.octets = (all.octets + sent.octets).saturating_sub(before.octets);
        }
    }

    fn detached(&mut self, viewer: ViewerId, sent: TrackFigures) {
        self.sent(viewer, sent);
        let Some(peer) = self.peers.remove(&viewer) else { return };
        let Some(entry) = self.lives.get_mut(&peer.reservation) else { return };
        entry.peers = entry.peers.saturating_sub(1);
        if entry.peers == 0 && entry.life.ended.is_some() {
            self.close(&peer.reservation);
        }
    }

    /// One that was attached tells later what it was sent, or has done so.
    fn closed(&mut self, viewer: ViewerId, _: CloseReason) {
        if self.peers.get(&viewer).is_some_and(|peer| !peer.is_attached) {
            self.peers.remove(&viewer);
        }
    }

    fn end(&mut self, id: &ReservationId, reason: EndReason, now: Timestamp) {
        self.settle(now);
        let Some(entry) = self.lives.get_mut(id).filter(|entry| entry.life.ended.is_none()) else {
            return;
        };
        entry.life.push(now, Step::Ended(reason));
        entry.life.state = LifeState::Ended(reason);
        entry.life.ended = Some(now);
        if entry.peers == 0 {
            self.close(id);
        } else {
            self.closing.push_back((now + FIGURES_WAIT, id.clone()));
        }
    }

    /// Closes the lives whose peers had their time.
    fn settle(&mut self, now: Timestamp) {
        while let Some((_, id)) = self.closing.pop_front_if(|(due, _)| *due <= now) {
            self.close(&id);
        }
    }

    /// Nothing is added to this life any more.
    fn close(&mut self, id: &ReservationId) {
        let Some(entry) = self.lives.get_mut(id).filter(|entry| !entry.is_closed) else { return };
        entry.is_closed = true;
        self.audit.add(entry.life.ended());
        self.ended.push_back(id.clone());
        if self.ended.len() > MAX_ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.lives.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;

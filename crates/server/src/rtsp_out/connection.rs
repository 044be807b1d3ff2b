//! One client, from its first byte to its last.
//!
//! Requests are read and frames written by turns, in one task. What the socket does not take waits in
//! the tap, whose bound makes a slow reader skip whole frames; one that takes nothing at all is cut
//! off. So is one that sends something else than RTSP, too many requests or wrong passwords.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use media::rtcp;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::auth::Authorization;
use super::door::Guest;
use super::message::{self, Answer, Incoming, MESSAGE_LENGTH_MAX, Method, Request, Status};
use super::player::{Player, Track};
use super::sdp::Description;
use super::transport;
use super::uri::{TRACK, Uri};
use super::{Ask, Library, Played, Playing, Refusal};
use crate::metrics::Outlets;

/// Requests are taken only while fewer bytes than this wait to be written: a client that reads no
/// answers gets no further ones.
const WAITING_ANSWERS_MAX: usize = 64 * 1024;

/// How much the write buffer keeps between frames. A keyframe may have taken megabytes.
const WRITE_BUFFER_KEPT: usize = 256 * 1024;

/// Requests that a client may have made at once, and how many more it may make a second. Setting a
/// camera up takes six, keeping it alive one in half a minute.
const REQUESTS_BURST: u32 = 50;
const REQUESTS_A_SECOND: u32 = 5;

/// Wrong passwords and tokens before the connection ends. Players ask without one first.
const REFUSALS_MAX: u32 = 4;

/// How often a client is looked after.
const TICK: Duration = Duration::from_secs(1);

/// The engine is told that a reader lives every so many ticks; its lease would end after 15 s.
const ALIVE_TICKS: u32 = 4;

/// What clients are told of how long they may be silent, in seconds. While media flows, the connection
/// itself shows that they are there.
const SESSION_TIMEOUT_S: u64 = 60;

/// What the client can ask for, as OPTIONS tells.
const PUBLIC: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER, SET_PARAMETER";

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// To ask for something, while nothing plays.
    pub(super) idle: Duration,
    /// To take something of what is written.
    pub(super) stall: Duration,
    /// From the connection to the first camera that it is let see.
    pub(super) proof: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(SESSION_TIMEOUT_S),
            stall: Duration::from_secs(10),
            // Two requests, and a third when the nonce was too old; players that ask a person for a
            // password open another connection with it.
            proof: Duration::from_secs(20),
        }
    }
}

/// Why a connection ends before the client ends it.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the client takes nothing of what is sent")]
    Slow,
    #[error("the client asked for nothing")]
    Idle,
    #[error("the client was let see no camera in time")]
    Stranger,
    #[error("others need the place, and the client had shown nothing yet")]
    Evicted,
    #[error("the client sent something else than RTSP: {0}")]
    Malformed(#[from] message::MessageError),
    #[error("the client sends too many requests")]
    TooManyRequests,
    #[error("the client has tried too many passwords")]
    TooManyPasswords,
    #[error("the stream is over")]
    Over,
    #[error("the camera changed its codec")]
    CodecChanged,
    #[error("the server ends")]
    Closing,
}

/// Serves one connection to its end.
pub(super) async fn converse<L: Library>(
    stream: TcpStream,
    guest: Guest,
    (patience, library, counters): (Patience, L, &Outlets),
    closing: CancellationToken,
) {
    set_options(&stream, patience);
    let peer = stream.peer_addr().ok();
    let mut conversation = Conversation::new(stream, &guest, patience, library, counters);
    let end = tokio::select! {
        () = closing.cancelled() => End::Closing,
        () = guest.evicted() => End::Evicted,
        end = conversation.run() => end,
    };
    match &end {
        End::Slow => counters.rtsp_dropped_slow.add(1),
        End::Idle => counters.rtsp_dropped_idle.add(1),
        End::Stranger => counters.rtsp_dropped_stranger.add(1),
        End::Evicted => counters.rtsp_dropped_evicted.add(1),
        End::Malformed(_) | End::TooManyRequests | End::TooManyPasswords => {
            counters.rtsp_dropped_hostile.add(1);
        }
        End::Closed | End::Broken(_) | End::Over | End::CodecChanged | End::Closing => {}
    }
    let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
    tracing::debug!(peer, reason = %end, "RTSP connection ended");
}

/// Best effort: without them a vanished client is found out later.
fn set_options(stream: &TcpStream, patience: Patience) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_user_timeout(Some(patience.stall));
    let probe = patience.stall / 3;
    let keepalive = TcpKeepalive::new().with_time(probe).with_interval(probe);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

struct Conversation<'c, L: Library> {
    stream: TcpStream,
    guest: &'c Guest,
    /// Until when it has to be let see a camera; `None` once it has been.
    proof_until: Option<Instant>,
    patience: Patience,
    library: L,
    counters: &'c Outlets,
    state: State<L>,
    /// What was read and is not a whole message yet. At most [`MESSAGE_LENGTH_MAX`] and one read.
    input: Vec<u8>,
    /// What is to be written, from `written` on. Answers and at most one frame.
    output: Vec<u8>,
    written: usize,
    /// When the client last took something, or there was nothing to take.
    taken_at: Instant,
    heard_at: Instant,
    budget: Budget,
    refusals: u32,
    nonce: String,
    session: String,
    ticks: u32,
}

/// What the client has set up. A large value, of which there is one a connection.
enum State<L: Library> {
    Fresh,
    Described { uri: Uri, description: Description, described: L::Described, tracks: Vec<SetUp> },
    Playing { playing: L::Playing, player: Player },
}

/// A track that was set up.
struct SetUp {
    number: usize,
    track: Track,
}

enum Event {
    Readable,
    Writable,
    Media(Option<Played>),
    Tick,
}

impl<'c, L: Library> Conversation<'c, L> {
    fn new(
        stream: TcpStream,
        guest: &'c Guest,
        patience: Patience,
        library: L,
        counters: &'c Outlets,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            guest,
            proof_until: Some(now + patience.proof),
            patience,
            library,
            counters,
            state: State::Fresh,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            taken_at: now,
            heard_at: now,
            budget: Budget::new(now),
            refusals: 0,
            nonce: format!("{:016x}{:016x}", random(), random()),
            session: format!("{:016x}", random()),
            ticks: 0,
        }
    }

    async fn run(&mut self) -> End {
        let mut ticker = tokio::time::interval(TICK.min(self.patience.stall / 2));
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(end) = self.turn(&mut ticker).await {
                return end;
            }
        }
    }

    async fn turn(&mut self, ticker: &mut Interval) -> Result<(), End> {
        match self.next_event(ticker).await? {
            Event::Readable => {
                self.read()?;
                self.answer_all().await?;
            }
            Event::Writable => {}
            Event::Media(None) => return Err(End::Over),
            Event::Media(Some(played)) => {
                if let State::Playing { player, .. } = &mut self.state {
                    player.handle(played, Instant::now()).map_err(|_| End::CodecChanged)?;
                }
            }
            Event::Tick => self.look_after()?,
        }
        self.write()
    }

    async fn next_event(&mut self, ticker: &mut Interval) -> Result<Event, End> {
        let waiting = self.output.len() - self.written;
        let interest = match (waiting < WAITING_ANSWERS_MAX, waiting > 0) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, _) => Interest::WRITABLE,
        };
        let (stream, state) = (&self.stream, &mut self.state);
        let media = async {
            match state {
                State::Playing { playing, .. } if waiting == 0 => playing.next().await,
                State::Playing { .. } | State::Fresh | State::Described { .. } => {
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            ready = stream.ready(interest) => {
                let ready = ready?;
                Ok(if ready.is_readable() { Event::Readable } else { Event::Writable })
            }
            played = media => Ok(Event::Media(played)),
            _ = ticker.tick() => Ok(Event::Tick),
        }
    }

    fn look_after(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let is_waiting = self.output.len() > self.written;
        if is_waiting && now.saturating_duration_since(self.taken_at) > self.patience.stall {
            return Err(End::Slow);
        }
        if self.proof_until.is_some_and(|until| now >= until) {
            return Err(End::Stranger);
        }
        self.ticks = self.ticks.wrapping_add(1);
        match &self.state {
            State::Playing { playing, .. } => {
                if self.ticks.is_multiple_of(ALIVE_TICKS) {
                    playing.alive();
                }
                Ok(())
            }
            State::Fresh | State::Described { .. } => {
                let silence = now.saturating_duration_since(self.heard_at);
                if silence > self.patience.idle { Err(End::Idle) } else { Ok(()) }
            }
        }
    }

    fn read(&mut self) -> Result<(), End> {
        let mut buffer = [0; 4096];
        match self.stream.try_read(&mut buffer) {
            Ok(0) => Err(End::Closed),
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes all whole messages out of what was read.
    async fn answer_all(&mut self) -> Result<(), End> {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some((incoming, length)) = message::read(rest)? {
            match incoming {
                Incoming::Request(request) => {
                    // Reports of who plays nothing do not keep a place.
                    self.heard_at = Instant::now();
                    if !self.budget.take(self.heard_at) {
                        return Err(End::TooManyRequests);
                    }
                    self.answer(&request).await?;
                }
                // Nothing is repeated over TCP; that reports are read at all is for who looks.
                Incoming::Interleaved { channel, packet } => {
                    let is_report = channel % 2 == 1 && rtcp::parse(packet).is_ok();
                    self.counters.rtsp_reports_received.add(u64::from(is_report));
                }
                Incoming::Answer => {}
            }
            rest = &rest[length..];
        }
        // Empty lines belong to no message: kept, they would pile up as long as nothing follows them.
        let blank = rest.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        rest = &rest[blank..];
        debug_assert!(rest.len() < MESSAGE_LENGTH_MAX, "a whole message is never left");
        self.input = rest.to_vec();
        Ok(())
    }

    async fn answer(&mut self, request: &Request<'_>) -> Result<(), End> {
        let answer = match self.respond(request).await {
            Ok(answer) => answer,
            Err(refusal) => self.refuse(refusal),
        };
        let (method, status) = (request.method.name(), answer.status().code());
        tracing::debug!(method, status, "RTSP request");
        let is_ok = answer.status() == Status::Ok;
        let counter = if is_ok {
            &self.counters.rtsp_requests_ok
        } else {
            &self.counters.rtsp_requests_refused
        };
        counter.add(1);
        if self.output.len() == self.written {
            self.taken_at = Instant::now();
        }
        answer.write(request.sequence(), &mut self.output);
        if self.refusals > REFUSALS_MAX {
            // It is told, if its socket takes it at once.
            let _ = self.write();
            return Err(End::TooManyPasswords);
        }
        Ok(())
    }

    fn refuse(&mut self, refusal: Refusal) -> Answer {
        match refusal {
            Refusal::Because(status, sentence) => Answer::sentence(status, sentence),
            Refusal::NotBefore(wait, sentence) => {
                let seconds = wait.as_secs_f64().ceil().to_string();
                Answer::sentence(Status::ServiceUnavailable, sentence).with("Retry-After", seconds)
            }
            Refusal::Unauthorized(challenge, sentence) => {
                self.refusals += 1;
                let answer = Answer::sentence(Status::Unauthorized, sentence);
                let values = challenge.headers(&self.nonce).into_iter();
                values.fold(answer, |answer, value| answer.with("WWW-Authenticate", value))
            }
        }
    }

    async fn respond(&mut self, request: &Request<'_>) -> Result<Answer, Refusal> {
        match request.method {
            Method::Options => Ok(Answer::new(Status::Ok).with("Public", PUBLIC)),
            Method::Describe => self.describe(request).await,
            Method::Setup => self.set_up(request),
            Method::Play => self.play(request).await,
            Method::Teardown => self.tear_down(request),
            Method::GetParameter | Method::SetParameter => {
                self.check_session(request)?;
                Ok(self.with_session(Answer::new(Status::Ok)))
            }
            Method::Pause => Err(because(
                Status::NotImplemented,
                "a live stream cannot be paused; TEARDOWN ends it",
            )),
            Method::Announce | Method::Record => Err(because(
                Status::MethodNotAllowed,
                "publishing by RTSP is not possible here; use WHIP",
            )),
            Method::Other => Err(because(Status::NotImplemented, "there is no such method here")),
        }
    }

    async fn describe(&mut self, request: &Request<'_>) -> Result<Answer, Refusal> {
        if matches!(self.state, State::Playing { .. }) {
            return Err(because(
                Status::MethodNotValidInThisState,
                "something plays on this connection; TEARDOWN first, or open another",
            ));
        }
        // What was described before is let go, whatever becomes of this.
        self.state = State::Fresh;
        let uri = parse(request)?;
        let authorization = request.header("Authorization").and_then(Authorization::parse);
        let ask = Ask {
            uri: &uri,
            method: request.method,
            authorization: authorization.as_ref(),
            nonce: &self.nonce,
            ip: self.guest.ip(),
        };
        let mut described = self.library.admit(ask).await?;
        self.guest.prove();
        self.proof_until = None;
        self.refusals = 0;
        let description = self.library.describe(&mut described).await?;
        let address =
            self.stream.local_addr().map_or(IpAddr::from(Ipv4Addr::LOCALHOST), |a| a.ip());
        let sdp = description.sdp(random() >> 1, address);
        let answer = Answer::new(Status::Ok)
            .with("Content-Base", uri.base.clone())
            .with_body("application/sdp", sdp);
        self.state = State::Described { uri, description, described, tracks: Vec::new() };
        Ok(answer)
    }

    fn set_up(&mut self, request: &Request<'_>) -> Result<Answer, Refusal> {
        self.check_session(request)?;
        let asked = parse(request)?;
        let State::Described { uri, description, tracks, .. } = &mut self.state else {
            let sentence = "SETUP follows DESCRIBE, and comes before PLAY";
            return Err(because(Status::MethodNotValidInThisState, sentence));
        };
        if asked.name != uri.name || asked.sub != uri.sub {
            let sentence = "another camera was described on this connection";
            return Err(because(Status::MethodNotValidInThisState, sentence));
        }
        let number = asked.track.unwrap_or(0);
        let Some(format) = description.tracks.get(number) else {
            return Err(because(Status::NotFound, "there is no such track"));
        };
        let offered = request.header("Transport").and_then(transport::choose);
        let Some(offered) = offered else {
            return Err(because(
                Status::UnsupportedTransport,
                "media comes in the RTSP connection only; set the player to TCP",
            ));
        };
        tracks.retain(|set_up| set_up.number != number);
        let channels = free_channels(tracks, offered.channels);
        let track = Track::new(format, channels, random());
        let transport = format!(
            "RTP/AVP/TCP;unicast;interleaved={}-{};ssrc={:08X}",
            channels.0, channels.1, track.ssrc
        );
        tracks.push(SetUp { number, track });
        Ok(self.with_session(Answer::new(Status::Ok)).with("Transport", transport))
    }

    async fn play(&mut self, request: &Request<'_>) -> Result<Answer, Refusal> {
        self.check_session(request)?;
        match std::mem::replace(&mut self.state, State::Fresh) {
            playing @ State::Playing { .. } => {
                self.state = playing;
                Ok(self.with_session(Answer::new(Status::Ok)))
            }
            State::Described { uri, described, tracks, .. } if !tracks.is_empty() => {
                let playing = self.library.play(described).await?;
                let info = play_info(&uri, &tracks);
                let tracks = tracks.into_iter().map(|set_up| set_up.track).collect();
                // Nothing of the host, nothing that two readers share.
                let player = Player::new(tracks, format!("{:016x}", random()));
                self.state = State::Playing { playing, player };
                let answer =
                    Answer::new(Status::Ok).with("Range", "npt=now-").with("RTP-Info", info);
                Ok(self.with_session(answer))
            }
            fresh @ (State::Fresh | State::Described { .. }) => {
                self.state = fresh;
                let sentence = "PLAY follows SETUP";
                Err(because(Status::MethodNotValidInThisState, sentence))
            }
        }
    }

    fn tear_down(&mut self, request: &Request<'_>) -> Result<Answer, Refusal> {
        self.check_session(request)?;
        self.state = State::Fresh;
        Ok(Answer::new(Status::Ok))
    }

    /// A connection has one session; a client need not name it.
    fn check_session(&self, request: &Request<'_>) -> Result<(), Refusal> {
        let named = request.header("Session").map(|id| id.split(';').next().unwrap_or_default());
        match named {
            Some(id) if id.trim() != self.session => {
                Err(because(Status::SessionNotFound, "there is no such session on this connection"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn with_session(&self, answer: Answer) -> Answer {
        answer.with("Session", format!("{};timeout={SESSION_TIMEOUT_S}", self.session))
    }

    /// Writes what the socket takes, frame by frame.
    fn write(&mut self) -> Result<(), End> {
        loop {
            if self.written == self.output.len() && !self.refill() {
                return Ok(());
            }
            match self.stream.try_write(&self.output[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    self.taken_at = Instant::now();
                    self.counters.rtsp_bytes_sent.add(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Puts the next frame into the empty output; false when there is none.
    fn refill(&mut self) -> bool {
        self.output.clear();
        self.output.shrink_to(WRITE_BUFFER_KEPT);
        self.written = 0;
        let State::Playing { player, .. } = &mut self.state else { return false };
        let now = Instant::now();
        let is_there = player.write_next(now, &mut self.output);
        self.taken_at = now;
        self.counters.rtsp_packets_sent.add(player.take_packets());
        // A frame may have no packets.
        is_there && (!self.output.is_empty() || self.refill())
    }
}

fn because(status: Status, sentence: &str) -> Refusal {
    Refusal::Because(status, sentence.to_owned())
}

fn parse(request: &Request<'_>) -> Result<Uri, Refusal> {
    let sentence = "the URL is not of the form rtsp://host:port/camera";
    Uri::parse(request.uri).ok_or_else(|| because(Status::BadRequest, sentence))
}

/// The channels that the client wants, if no other track has them; else the first free pair.
fn free_channels(tracks: &[SetUp], wanted: Option<(u8, u8)>) -> (u8, u8) {
    let is_free = |(rtp, rtcp): &(u8, u8)| {
        let taken = tracks.iter().map(|set_up| set_up.track.channels);
        taken.into_iter().all(|(a, b)| ![a, b].contains(rtp) && ![a, b].contains(rtcp))
    };
    // A connection has two tracks, so that one of the first pairs is free.
    let mut candidates = wanted.into_iter().chain([(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]);
    candidates.find(is_free).unwrap_or((0, 1))
}

/// Where the sequence numbers begin (RFC 2326 §12.33). Times are told by the sender reports, which go
/// before the first packets and place all tracks on one clock.
fn play_info(uri: &Uri, tracks: &[SetUp]) -> String {
    let parts: Vec<String> = tracks
        .iter()
        .map(|SetUp { number, track }| {
            format!("url={}{TRACK}{number};seq={}", uri.base, track.sequence)
        })
        .collect();
    parts.join(",")
}

/// A number nobody can guess.
fn random() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    // The fixed bits of a version 4 UUID are the high nibble of byte 6 and two bits of byte 8.
    high.rotate_left(32) ^ low
}

/// How many requests a client may make.
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: REQUESTS_BURST, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(REQUESTS_A_SECOND);
            self.left = self.left.saturating_add(more).min(REQUESTS_BURST);
            self.since = now;
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

//! One viewer's life: reserve, offer, ICE and DTLS, watch, leave; and again where that is asked for.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use media::NtpTime;
use media::peer::client::ClientError;
use media::peer::tapped_client::{TappedClient, TappedClientFactory, TappedOutput};
use media::reception::{Arrival, Depth, Received, Reception};
use media::srtp::SrtpError;
use secrecy::SecretString;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::board::{Board, JoinTimes, Phase};
use super::decode::StripReader;
use super::targets::Target;
use super::{LoadPlan, take_join};
use crate::net::{Segment, Segments, Taken, open_receiver};
use crate::remote::{HttpClient, Redirects, RemoteError, Session, reserve};

/// Room for what arrives while the thread is busy with other viewers: two seconds of 4 Mbit/s.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Between two looks at what is due, once media flows: reports, figures, checks. Coarse, because a
/// thousand viewers have it each.
const TICK: Duration = Duration::from_millis(250);
/// How soon after its arrival in a picture's first second its delay counts: the cached group comes
/// with times made up.
const SETTLING_TIME: Duration = Duration::from_secs(1);

thread_local! {
    /// 512 KiB that all viewers of a thread receive into, one after the other.
    static SEGMENTS: RefCell<Segments> = RefCell::new(Segments::new());
}

/// What all viewers share.
pub(super) struct Viewing {
    pub(super) plan: LoadPlan,
    pub(super) board: Board,
    pub(super) clients: TappedClientFactory,
    /// Of this machine on the way to the server.
    pub(super) address: IpAddr,
    pub(super) joins_left: AtomicUsize,
    /// The time is over.
    pub(super) stop: CancellationToken,
}

/// Why a viewer gave up.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no socket for a viewer: {0}")]
    Socket(#[from] io::Error),
    #[error("the H.264 decoder does not start: {0}")]
    Decoder(#[from] openh264::Error),
    #[error("the keys cannot be used: {0}")]
    Keys(#[from] SrtpError),
    #[error("ICE and DTLS were not done within {} s: {hint}", limit.as_secs())]
    NotConnected { limit: Duration, hint: &'static str },
    #[error("connected, but no media came within {} s", limit.as_secs())]
    NoMedia { limit: Duration },
    #[error("media came, but no whole keyframe within {} s", limit.as_secs())]
    NoKeyframe { limit: Duration },
    #[error("the time was over before the first keyframe")]
    Unfinished,
    #[error("the server ended the session")]
    Ended,
    #[error("the session could not be ended: {0}")]
    Leave(String),
}

/// Runs one viewer to its end.
pub(super) async fn run(viewing: Arc<Viewing>, index: usize) {
    let begin = Instant::now() + viewing.plan.pause * index as u32;
    let mut http = HttpClient::with_any(viewing.plan.patience, viewing.plan.trust.clone());
    tokio::select! {
        () = sleep_until(begin.into()) => {}
        () = viewing.stop.cancelled() => return,
    }
    while !viewing.stop.is_cancelled() && take_join(&viewing.joins_left) {
        viewing.board.note_try(index);
        // On the heap: a viewer's state is large, and a task moves while it is made.
        let ended = Box::pin(visit(&viewing, index, &mut http)).await;
        viewing.board.note_leave(index, ended.err().map(|failure| failure.to_string()));
    }
}

/// One join with its leaving.
async fn visit(viewing: &Viewing, index: usize, http: &mut HttpClient) -> Result<(), Failure> {
    let plan = &viewing.plan;
    let target = plan.targets.of(index);
    let (reserved, place) = match &plan.reserve {
        None => (None, None),
        Some(base) => {
            let asked = Instant::now();
            let place = reserve(http, base, &target.camera, "load", plan.token.as_ref()).await?;
            (Some(asked.elapsed()), Some(place))
        }
    };
    let token = place.as_ref().map(|place| place.token.clone()).or_else(|| plan.token.clone());
    let times = JoinTimes { reserved, ..JoinTimes::default() };
    let (session, mut watching) = open(viewing, index, http, target, token.as_ref(), times).await?;
    if plan.joins.is_none() {
        // A thousand connections that nobody uses are a load of their own.
        http.hang_up();
    }
    let watched = match &place {
        None => watching.run(viewing).await,
        Some(place) => tokio::select! {
            watched = watching.run(viewing) => watched,
            never = place.renew(http) => match never {},
        },
    };
    let left = session.close(http, token.as_ref()).await;
    watching.say_goodbye();
    watched?;
    left.map_err(|error| Failure::Leave(without_path(&error)))
}

/// What a refusal says, without the session's own name: so that equal reasons are counted together.
fn without_path(error: &RemoteError) -> String {
    match error {
        RemoteError::Refused { status, reason, .. } => format!("{status}: {reason}"),
        RemoteError::Cut { reason, .. } => reason.clone(),
        RemoteError::Late { .. } => "no answer in time".to_owned(),
        RemoteError::Scheme(_) | RemoteError::Unreachable { .. } => error.to_string(),
    }
}

async fn open<'a>(
    viewing: &'a Viewing,
    index: usize,
    http: &mut HttpClient,
    target: &Target,
    token: Option<&SecretString>,
    mut times: JoinTimes,
) -> Result<(Session, Watching<'a>), Failure> {
    let any: IpAddr = match viewing.address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let bound = viewing.plan.bind.unwrap_or(any);
    let socket = open_receiver(SocketAddr::new(bound, 0), RECEIVE_BUFFER, viewing.plan.offload)?;
    let own = SocketAddr::new(viewing.address, socket.local_addr()?.port());
    let (mut client, offer) = viewing.clients.offer(own, Instant::now())?;
    let offered = Instant::now();
    let session = Session::open(http, &target.url, token, &offer, Redirects::Anywhere).await?;
    times.answered = Some(offered.elapsed());
    client.handle_answer(&session.answer)?;
    let decodes = index < viewing.plan.decoding;
    let reader = decodes.then(StripReader::new).transpose()?;
    let depth = if decodes { Depth::Whole } else { Depth::Sampled(viewing.plan.open_every) };
    let watching = Watching {
        board: &viewing.board,
        index,
        socket: UdpSocket::from_std(socket)?,
        client: Box::new(client),
        answer: session.answer.clone(),
        ice_servers: session.ice_servers,
        depth,
        reception: None,
        reader,
        offered,
        times,
        joined: None,
        overflowed: 0,
        media_source: None,
        due: offered,
        ended: false,
        failed: None,
    };
    Ok((session, watching))
}

/// A viewer with its connection.
struct Watching<'a> {
    board: &'a Board,
    index: usize,
    socket: UdpSocket,
    client: Box<TappedClient>,
    answer: String,
    ice_servers: usize,
    depth: Depth,
    /// From the end of the handshake on.
    reception: Option<Reception>,
    reader: Option<StripReader>,
    offered: Instant,
    times: JoinTimes,
    /// When the first keyframe was there.
    joined: Option<Instant>,
    /// As the socket counted last.
    overflowed: u32,
    /// Where media came from last, and feedback goes to.
    media_source: Option<SocketAddr>,
    /// When something has to be done even if nothing arrives.
    due: Instant,
    ended: bool,
    failed: Option<SrtpError>,
}

impl Watching<'_> {
    /// Watches until the time is over, or fails.
    async fn run(&mut self, viewing: &Viewing) -> Result<(), Failure> {
        let plan = &viewing.plan;
        let give_up = self.offered + plan.patience;
        // A new socket is not known to take anything before it was waited for once.
        self.socket.writable().await?;
        // The answer sets checks off, once the client hears of the time.
        self.client.handle_timeout(Instant::now());
        self.drain();
        let mut tick = std::pin::pin!(sleep_until(self.due.into()));
        loop {
            tokio::select! {
                biased;
                () = viewing.stop.cancelled() => break,
                ready = self.socket.readable() => {
                    ready?;
                    self.take();
                }
                () = tick.as_mut() => self.handle_tick(),
            }
            self.set(tick.as_mut());
            if let Some(error) = self.failed.take() {
                return Err(error.into());
            }
            if self.ended {
                self.publish();
                return Err(Failure::Ended);
            }
            match self.joined {
                Some(joined) if plan.joins.is_some() && joined.elapsed() >= plan.stay => break,
                None if Instant::now() >= give_up => return Err(self.verdict(plan.patience)),
                Some(_) | None => {}
            }
        }
        self.publish();
        if self.joined.is_none() { Err(Failure::Unfinished) } else { Ok(()) }
    }

    fn set(&self, tick: std::pin::Pin<&mut Sleep>) {
        let due = self.due.into();
        if tick.deadline() != due {
            tick.reset(due);
        }
    }

    fn handle_tick(&mut self) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.client.handle_timeout(now);
        self.drain();
        if let Some(feedback) = self.reception.as_mut().and_then(|media| media.poll_feedback(now)) {
            self.send(&feedback, self.media_source);
        }
        self.publish();
    }

    /// Does what the client wants done.
    fn drain(&mut self) {
        loop {
            match self.client.poll_output() {
                TappedOutput::Transmit { destination, contents } => {
                    self.send(&contents, Some(destination));
                }
                TappedOutput::Connected { keys, role } => {
                    let now = Instant::now();
                    self.times.connected = Some(now - self.offered);
                    self.board.note_phase(self.index, Phase::Connected);
                    let seed = (self.index as u32).wrapping_mul(0x9e37_79b9);
                    let (answer, depth) = (&self.answer, self.depth);
                    match Reception::new(&keys, role, answer, depth, (now, seed)) {
                        Ok(reception) => self.reception = Some(reception),
                        Err(error) => self.failed = Some(error),
                    }
                }
                TappedOutput::Closed => {
                    self.ended = true;
                    return;
                }
                TappedOutput::Timeout(at) => {
                    // Exact for the handshake; afterwards consent checks can wait for the tick.
                    let tick = Instant::now() + TICK;
                    self.due = if self.reception.is_some() { tick } else { at.min(tick) };
                    return;
                }
            }
        }
    }

    fn send(&self, contents: &[u8], destination: Option<SocketAddr>) {
        if let Some(destination) = destination {
            // Any datagram may be lost; this one is lost at once.
            let _ = self.socket.try_send_to(contents, destination);
        }
    }

    /// Takes all that has arrived.
    fn take(&mut self) {
        SEGMENTS.with_borrow_mut(|segments| {
            let mut taken = None;
            while taken.is_none_or(|taken: Taken| !taken.all) {
                taken = None;
                // Where nothing more waits it says so at once, and saves the call that finds out.
                let _ = self.socket.try_io(Interest::READABLE, || {
                    let now = *taken.insert(segments.receive(&self.socket)?);
                    if now.all { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
                });
                let Some(taken) = taken else { return };
                self.note_overflow(taken.overflowed);
                let clock = Clock::new();
                for segment in segments.datagrams() {
                    self.handle_segment(segment, &clock);
                }
            }
        });
    }

    fn note_overflow(&mut self, counted: Option<u32>) {
        let Some(counted) = counted else { return };
        let more = counted.wrapping_sub(self.overflowed);
        self.overflowed = counted;
        self.board.note_overflow(self.index, u64::from(more));
    }

    fn handle_segment(&mut self, segment: Segment<'_>, clock: &Clock) {
        let Segment { source, at, bytes } = segment;
        match (bytes.first(), &mut self.reception) {
            (Some(0..=3 | 20..=63), _) => {
                self.client.handle_datagram(source, bytes, Instant::now());
                // At once: the keys in it open what follows.
                self.drain();
            }
            (Some(128..=191), Some(reception)) => {
                self.media_source = Some(source);
                let arrival = clock.arrival(at);
                match reception.handle_datagram(bytes, arrival) {
                    Received::Picture(packet) => {
                        let read = self.reader.as_mut().and_then(|reader| reader.handle(&packet));
                        let has_settled =
                            self.joined.is_some_and(|joined| arrival.at >= joined + SETTLING_TIME);
                        if let Some(delay) = read.filter(|_| has_settled) {
                            self.board.decoded.note(delay);
                        }
                    }
                    Received::Goodbye => self.ended = true,
                    Received::Counted | Received::Refused => {}
                }
                self.note_progress(arrival.at);
            }
            // Media before its keys, or noise.
            _ => {}
        }
    }

    fn note_progress(&mut self, now: Instant) {
        let Some(reception) = &self.reception else { return };
        match (self.joined, reception.keyframe_at()) {
            (None, Some(at)) => {
                let since = |moment: Instant| moment.saturating_duration_since(self.offered);
                self.times.first_packet = reception.first_packet_at().map(since);
                self.times.keyframe = Some(since(at));
                self.joined = Some(at);
                self.board.note_join(self.index, self.times);
            }
            (Some(joined), _) if now >= joined + SETTLING_TIME => {
                if let Some(delay) = reception.newest_delay() {
                    self.board.delays.note(delay);
                }
            }
            (Some(_) | None, _) => {}
        }
    }

    fn publish(&mut self) {
        if let Some(reception) = &mut self.reception {
            let gap = reception.take_longest_gap();
            self.board.note_figures(self.index, reception.figures(), gap);
        }
    }

    /// Why there is no picture.
    fn verdict(&self, limit: Duration) -> Failure {
        let Some(reception) = &self.reception else {
            return Failure::NotConnected { limit, hint: self.hint() };
        };
        match reception.first_packet_at() {
            Some(_) => Failure::NoKeyframe { limit },
            None => Failure::NoMedia { limit },
        }
    }

    /// What may be the matter with the answer's candidates.
    fn hint(&self) -> &'static str {
        let own_is_v4 = self.socket.local_addr().is_ok_and(|own| own.is_ipv4());
        match candidates(&self.answer).map(|ip| ip.is_ipv4() == own_is_v4).max() {
            None => "the answer has no UDP candidate that is an address",
            Some(false) => "its candidates are of the other IP version; choose one with --bind",
            Some(true) if self.ice_servers > 0 => {
                "no answer to connectivity checks; the server names TURN servers, which are not used"
            }
            Some(true) => "no answer to connectivity checks, or none to DTLS",
        }
    }

    /// DTLS close_notify, as far as it goes without waiting.
    fn say_goodbye(&mut self) {
        self.client.close();
        self.drain();
    }
}

/// The UDP candidates of an answer that are addresses: `candidate:1 1 udp 2113 10.0.0.1 8555 typ host`.
fn candidates(answer: &str) -> impl Iterator<Item = IpAddr> {
    answer.lines().filter_map(|line| {
        let mut words = line.strip_prefix("a=candidate:")?.split(' ').skip(2);
        let is_udp = words.next()?.eq_ignore_ascii_case("udp");
        words.nth(1)?.parse().ok().filter(|_| is_udp)
    })
}

/// Both clocks at one moment, so that the kernel's times become ours.
struct Clock {
    at: Instant,
    wall: SystemTime,
}

impl Clock {
    fn new() -> Self {
        Self { at: Instant::now(), wall: SystemTime::now() }
    }

    fn arrival(&self, came: SystemTime) -> Arrival {
        let ago = self.wall.duration_since(came).unwrap_or_default();
        let micros = came.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let wall = NtpTime::from_unix_micros(u64::try_from(micros).unwrap_or_default());
        Arrival { at: self.at.checked_sub(ago).unwrap_or(self.at), wall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_of_other_transports_and_hidden_ones_are_left_out() {
        let answer = "v=0\r\na=candidate:1 1 udp 2113 10.0.0.1 8555 typ host\r\n\
                      a=candidate:2 1 tcp 2113 10.0.0.2 8555 typ host tcptype passive\r\n\
                      a=candidate:3 1 UDP 2113 ::1 8555 typ host\r\n\
                      a=candidate:4 1 udp 2113 abc.local 8555 typ host\r\n";
        let found: Vec<String> = candidates(answer).map(|ip| ip.to_string()).collect();
        assert_eq!(found, ["10.0.0.1", "::1"]);
    }
}

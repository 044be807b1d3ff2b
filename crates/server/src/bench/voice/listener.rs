//! A listener as `manifold load` has its viewers: real up to the keys, and what arrives is counted by
//! its headers. Of each the first packet is opened, which tells which of the voice's it is; how long
//! the others were on their way shows in their timestamps.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use media::NtpTime;
use media::peer::tapped_client::{TappedClient, TappedClientFactory, TappedOutput};
use media::reception::{Arrival, Depth, Received, Reception, ReceptionFigures};
use media::srtp::ReceivedSession;
use serde_json::json;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::signalling::Signalling;
use super::speaker::{is_media, number_of, packets_between};
use super::stage::Stage;
use crate::net::{Offload, Segment, Segments, open_receiver};

/// Room for what arrives while the thread is busy with others: ten seconds of a voice.
const RECEIVE_BUFFER: usize = 256 * 1024;
/// One packet in so many is decrypted.
const OPEN_EVERY: u16 = 50;
/// Between two looks at what is due, once packets flow.
const TICK: Duration = Duration::from_millis(250);
/// From the wish to listen to the first packet, while many want to.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of an RTP header without extensions, which is what voices are sent with.
const HEADER_BYTES: usize = 12;

thread_local! {
    /// What all listeners of a thread receive into, one after the other.
    static SEGMENTS: std::cell::RefCell<Segments> = std::cell::RefCell::new(Segments::new());
}

/// What all listeners share.
#[derive(Clone)]
pub(super) struct Audience {
    pub(super) server: SocketAddr,
    pub(super) clients: Arc<TappedClientFactory>,
    pub(super) stage: Arc<Stage>,
}

/// What a listener has heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) figures: ReceptionFigures,
    /// How long the packets took that were timed, in milliseconds.
    pub(super) ways_ms: Vec<f64>,
}

/// One that listens until it leaves.
pub(super) struct Listening {
    packets: Arc<AtomicU64>,
    leave: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<Heard>>,
    /// From the wish to listen to the first packet.
    pub(super) joined_in: Duration,
}

impl Listening {
    /// Asks for the newest voice; returns when its first packet came.
    pub(super) async fn join(audience: Audience) -> anyhow::Result<Self> {
        let asked = Instant::now();
        let (ear, signalling) = Ear::open(&audience).await?;
        let packets = Arc::clone(&ear.packets);
        let (leave, left) = oneshot::channel();
        let (heard, first) = oneshot::channel();
        let task = tokio::spawn(ear.run(signalling, heard, left));
        let Ok(came) = tokio::time::timeout(PATIENCE, first).await else {
            task.abort();
            bail!("a listener heard nothing within {PATIENCE:?}");
        };
        match came {
            Ok(at) => {
                let joined_in = Instant::saturating_duration_since(&at, asked);
                Ok(Self { packets, leave, task, joined_in })
            }
            // It ended before: with an error, since nobody told it to leave.
            Err(_) => match task.await? {
                Err(error) => Err(error),
                Ok(_) => bail!("a listener ended before it heard anything"),
            },
        }
    }

    /// Packets heard so far.
    pub(super) fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Closes its WebSocket, as a page does that is left.
    pub(super) async fn leave(self) -> anyhow::Result<Heard> {
        // Gone only if the task has failed, which it tells itself.
        let _ = self.leave.send(());
        self.task.await?
    }
}

/// Which packet has which timestamp.
#[derive(Clone, Copy)]
struct Anchor {
    number: u64,
    timestamp: u32,
}

/// A listener's connection.
struct Ear {
    stage: Arc<Stage>,
    socket: UdpSocket,
    client: Box<TappedClient>,
    offer: String,
    /// From the end of the handshake on: what counts, and what opens the first packet.
    reception: Option<(Reception, ReceivedSession)>,
    anchor: Option<Anchor>,
    /// Where feedback goes to.
    source: Option<SocketAddr>,
    packets: Arc<AtomicU64>,
    ways_ms: Vec<f64>,
    due: Instant,
    is_over: bool,
}

impl Ear {
    async fn open(audience: &Audience) -> anyhow::Result<(Self, Signalling)> {
        let mut signalling = Signalling::connect(audience.server).await?;
        signalling.send(&json!({ "type": "start_receiving" })).await?;
        let message = signalling.wait_for("webrtc_offer").await?;
        let offer = message["offer"]["sdp"].as_str().context("no SDP in the offer")?.to_owned();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let socket = open_receiver(any, RECEIVE_BUFFER, Offload::None)?;
        let address = socket.local_addr()?;
        let (client, answer) = audience.clients.answer(&offer, address, Instant::now())?;
        let message =
            json!({ "type": "webrtc_answer", "answer": { "type": "answer", "sdp": answer } });
        signalling.send(&message).await?;
        let ear = Self {
            stage: Arc::clone(&audience.stage),
            socket: UdpSocket::from_std(socket)?,
            client: Box::new(client),
            offer,
            reception: None,
            anchor: None,
            source: None,
            packets: Arc::default(),
            ways_ms: Vec::new(),
            due: Instant::now(),
            is_over: false,
        };
        Ok((ear, signalling))
    }

    async fn run(
        mut self,
        mut signalling: Signalling,
        heard: oneshot::Sender<Instant>,
        mut leave: oneshot::Receiver<()>,
    ) -> anyhow::Result<Heard> {
        let mut heard = Some(heard);
        self.socket.writable().await?;
        self.handle_timeout()?;
        loop {
            tokio::select! {
                ready = self.socket.readable() => {
                    ready?;
                    self.take()?;
                }
                message = signalling.next() => {
                    let message = message?;
                    ensure!(message["type"] != "error", "the relay says {}", message["message"]);
                }
                () = tokio::time::sleep_until(self.due.into()) => self.handle_timeout()?,
                _ = &mut leave => break,
            }
            ensure!(!self.is_over, "the relay ended a listener's connection");
            let first = self.reception.as_ref().and_then(|(media, _)| media.first_packet_at());
            if let (Some(at), Some(heard)) = (first, heard.take_if(|_| first.is_some())) {
                // Nobody waits for it any more if it came too late.
                let _ = heard.send(at);
            }
        }
        signalling.close().await?;
        let figures = self.reception.map(|(reception, _)| reception.figures());
        Ok(Heard { figures: figures.unwrap_or_default(), ways_ms: self.ways_ms })
    }

    fn handle_timeout(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.client.handle_timeout(now);
        self.drain()?;
        let feedback = self.reception.as_mut().and_then(|(media, _)| media.poll_feedback(now));
        if let (Some(feedback), Some(source)) = (feedback, self.source) {
            self.send(&feedback, source);
        }
        Ok(())
    }

    fn drain(&mut self) -> anyhow::Result<()> {
        loop {
            match self.client.poll_output() {
                TappedOutput::Transmit { destination, contents } => {
                    self.send(&contents, destination);
                }
                TappedOutput::Connected { keys, role } => {
                    let seed = self.socket.local_addr()?.port();
                    let begin = (Instant::now(), u32::from(seed).wrapping_mul(0x9e37_79b9));
                    let depth = Depth::Sampled(OPEN_EVERY);
                    let reception = Reception::new(&keys, role, &self.offer, depth, begin)?;
                    let session = ReceivedSession::new(keys.profile, &keys.material, role)?;
                    self.reception = Some((reception, session));
                }
                TappedOutput::Closed => {
                    self.is_over = true;
                    return Ok(());
                }
                TappedOutput::Timeout(at) => {
                    // Exact for the handshake; afterwards consent checks can wait for the tick.
                    let tick = Instant::now() + TICK;
                    self.due = if self.reception.is_some() { tick } else { at.min(tick) };
                    return Ok(());
                }
            }
        }
    }

    fn send(&self, contents: &[u8], destination: SocketAddr) {
        // Any datagram may be lost; this one is lost at once.
        let _ = self.socket.try_send_to(contents, destination);
    }

    /// Takes what has arrived.
    fn take(&mut self) -> anyhow::Result<()> {
        SEGMENTS.with_borrow_mut(|segments| {
            let received =
                self.socket.try_io(Interest::READABLE, || segments.receive(&self.socket));
            match received {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            segments.datagrams().try_for_each(|segment| self.handle_segment(segment))
        })
    }

    fn handle_segment(&mut self, segment: Segment<'_>) -> anyhow::Result<()> {
        let Segment { source, at, bytes } = segment;
        if matches!(bytes.first(), Some(0..=3 | 20..=63)) {
            self.client.handle_datagram(source, bytes, Instant::now());
            // At once: the keys in it open what follows.
            return self.drain();
        }
        let Some((reception, session)) = &mut self.reception else { return Ok(()) };
        self.source = Some(source);
        if is_media(bytes) {
            self.packets.fetch_add(1, Ordering::Relaxed);
            if self.anchor.is_none() {
                self.anchor = anchor(session, bytes);
            }
            let number = self.anchor.and_then(|anchor| anchor.number_at(bytes));
            let way = number.and_then(|number| self.stage.way_of(number, at));
            self.ways_ms.extend(way.map(|way| way.as_secs_f64() * 1e3));
        }
        if reception.handle_datagram(bytes, arrival(at)) == Received::Goodbye {
            self.is_over = true;
        }
        Ok(())
    }
}

/// Opens a packet to see which one it is.
fn anchor(session: &mut ReceivedSession, packet: &[u8]) -> Option<Anchor> {
    let (sequence, timestamp, ssrc) = (
        u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?),
        word(packet, 4)?,
        word(packet, 8)?,
    );
    let mut packet = packet.to_vec();
    let payload = session.open_rtp(ssrc, sequence, HEADER_BYTES, &mut packet).ok()?;
    Some(Anchor { number: number_of(payload)?, timestamp })
}

impl Anchor {
    fn number_at(self, packet: &[u8]) -> Option<u64> {
        self.number.checked_add_signed(packets_between(self.timestamp, word(packet, 4)?))
    }
}

fn word(packet: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?))
}

/// The kernel's moment of arrival on both clocks.
fn arrival(came: SystemTime) -> Arrival {
    let ago = SystemTime::now().duration_since(came).unwrap_or_default();
    let micros = came.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let wall = NtpTime::from_unix_micros(u64::try_from(micros).unwrap_or_default());
    let now = Instant::now();
    Arrival { at: now.checked_sub(ago).unwrap_or(now), wall }
}

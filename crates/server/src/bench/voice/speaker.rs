//! Somebody who speaks: a packet of Opus every 20 ms, by a whole WebRTC sender.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use media::peer::pusher::{Pusher, PusherFactory, PusherOutput, Redundancy};
use media::{AudioLevel, Codec, Frame, NtpTime};
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::signalling::Signalling;
use super::stage::Stage;

/// Of Opus, as microphones are sent.
const PACKET_TIME: Duration = Duration::from_millis(20);
const PACKET_TICKS: u64 = 960;
/// 64 kbit/s.
const PAYLOAD_BYTES: usize = 160;
/// One frame of 20 ms, fullband, in one channel (RFC 6716 §3.1).
const OPUS_TOC: u8 = 0x78;
/// Somebody speaks, neither loudly nor softly.
const LEVEL: AudioLevel = AudioLevel { below_full: 30, voice: Some(true) };
/// Longest datagram that a server sends.
const DATAGRAM_BYTES: usize = 2048;

/// A voice that goes on until this is dropped.
pub(super) struct Speaker {
    task: JoinHandle<anyhow::Result<()>>,
}

impl Speaker {
    /// Begins to speak; returns when the relay tells everybody of it.
    pub(super) async fn begin(server: SocketAddr, stage: Arc<Stage>) -> anyhow::Result<Self> {
        let mut signalling = Signalling::connect(server).await?;
        signalling.send(&json!({ "type": "start_sending" })).await?;
        signalling.wait_for("sender_ready").await?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let senders = PusherFactory::new().context("no DTLS certificate could be made")?;
        let (mut pusher, offer) =
            senders.offer_sound(socket.local_addr()?, Redundancy::None, Instant::now())?;
        let message = json!({ "type": "webrtc_offer", "offer": { "type": "offer", "sdp": offer } });
        signalling.send(&message).await?;
        let answer = signalling.wait_for("webrtc_answer").await?;
        pusher.handle_answer(answer["answer"]["sdp"].as_str().context("no SDP in the answer")?)?;
        let speaking = Speaking {
            pusher: Box::new(pusher),
            socket,
            stage,
            number: 0,
            unsent: None,
            next: None,
        };
        let mut bystander = Signalling::connect(server).await?;
        let task = tokio::spawn(speaking.run(signalling));
        bystander.wait_for("stream_available").await?;
        bystander.close().await?;
        Ok(Self { task })
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Speaking {
    pusher: Box<Pusher>,
    socket: UdpSocket,
    stage: Arc<Stage>,
    /// Of the next packet.
    number: u64,
    /// The packet that has not left yet.
    unsent: Option<u64>,
    /// When the next one is due, once the connection is there.
    next: Option<Instant>,
}

impl Speaking {
    async fn run(mut self, mut signalling: Signalling) -> anyhow::Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            let timeout = match self.pusher.poll_output() {
                PusherOutput::Transmit { destination, contents } => {
                    if let Some(number) = self.unsent.take_if(|_| is_media(&contents)) {
                        self.stage.note(number);
                    }
                    self.socket.send_to(&contents, destination).await?;
                    continue;
                }
                PusherOutput::Connected => {
                    self.next = Some(Instant::now());
                    continue;
                }
                PusherOutput::Figures(..) | PusherOutput::KeyframeWanted => continue,
                PusherOutput::Closed => anyhow::bail!("the voice's connection ended"),
                PusherOutput::Timeout(at) => at,
            };
            let due = self.next.map_or(timeout, |next| next.min(timeout));
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    let (len, source) = received?;
                    self.pusher.handle_datagram(source, &buffer[..len], Instant::now());
                }
                message = signalling.next() => drop(message?),
                () = tokio::time::sleep_until(due.into()) => self.handle_timeout()?,
            }
        }
    }

    fn handle_timeout(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.pusher.handle_timeout(now);
        let Some(next) = self.next.filter(|next| now >= *next) else { return Ok(()) };
        self.next = Some(next + PACKET_TIME);
        let number = self.number;
        self.number += 1;
        let mut payload = vec![0x5a; PAYLOAD_BYTES];
        payload[0] = OPUS_TOC;
        payload[1..9].copy_from_slice(&number.to_be_bytes());
        let frame = Frame {
            codec: Codec::Opus,
            ticks: number * PACKET_TICKS,
            captured: NtpTime(0),
            keyframe: true,
            discontinuity: false,
            units: vec![payload.into()],
            forwarded: None,
        };
        self.unsent = Some(number);
        Ok(self.pusher.handle_sound(&frame, LEVEL, now)?)
    }
}

/// The number in a speaker's payload.
pub(super) fn number_of(payload: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(payload.get(1..9)?.try_into().ok()?))
}

/// How many packets lie between two timestamps.
pub(super) fn packets_between(from: u32, to: u32) -> i64 {
    i64::from(to.wrapping_sub(from).cast_signed()) / PACKET_TICKS.cast_signed()
}

/// RFC 5761 §4: the second byte of RTCP is 192 to 223.
pub(super) fn is_media(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(192..=223).contains(second))
}

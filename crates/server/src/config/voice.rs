//! `[voice]`: the voice relay.

use std::time::Duration;

use engine::voice::Limits;
use secrecy::{ExposeSecret, SecretString};

use super::reader::{Section, Setting};
use super::tree::Node;
use super::{WebOrigin, choice};
use crate::net::SoundWishes;
use crate::voice::{LevelMode, VoiceConfig};

/// WebSockets at once: what the old voice server had.
const CONNECTIONS: u32 = 50;

/// Most WebSockets at once. Each has its task, its queue and 16 KiB of buffers.
const CONNECTIONS_MAX: u32 = 100_000;

/// Messages that may wait for a client: the coming and going of all voices of a full relay, twice over.
const QUEUE_LENGTH: u32 = 256;

/// A queue is there from the start.
const QUEUE_LENGTH_MAX: u32 = 65_536;

/// From an offer to the end of ICE and DTLS.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer than the handshakes of the media plane wait has no effect; shorter than a slow phone needs has
/// a bad one.
const CONNECTION_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// An hour is no time limit.
const CONNECTION_TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60);

/// Sample rates that Opus codes (RFC 6716 §2.1.3).
const SAMPLE_RATE_MIN: u32 = 8_000;
const SAMPLE_RATE_MAX: u32 = 48_000;

/// Shortest token: a guess takes a connection.
const TOKEN_LENGTH_MIN: usize = 8;

/// The voice relay.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    pub(crate) enabled: bool,
    /// Who does not have it may not connect; asked of nobody where not set.
    pub(crate) token: Option<SecretString>,
    /// Origins whose pages may connect, beside our own. Empty: those of this network's hosts.
    pub(crate) allowed_origins: Vec<WebOrigin>,
    /// WebSockets at once.
    pub(crate) max_connections: u32,
    /// Messages that may wait for a client.
    pub(crate) queue_size: u32,
    pub(crate) connection_timeout: Duration,
    pub(crate) levels: LevelMode,
    pub(crate) audio: Audio,
}

/// How voices are recorded and encoded, as far as browsers do what they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Audio {
    /// Hz.
    pub(crate) sample_rate: u32,
    /// 1 or 2.
    pub(crate) channels: u8,
    pub(crate) echo_cancellation: bool,
    pub(crate) noise_suppression: bool,
    pub(crate) auto_gain_control: bool,
    /// From the microphone to the packet, as asked; zero is as little as possible.
    pub(crate) latency: Duration,
    /// Forward error correction in band.
    pub(crate) fec: bool,
    /// Silence is not sent.
    pub(crate) dtx: bool,
}

impl Voice {
    /// What of it the relay runs with.
    pub(crate) fn relay(&self) -> VoiceConfig {
        let limits = Limits {
            connections_max: self.max_connections,
            connection_timeout: self.connection_timeout,
        };
        let queue_length = usize::try_from(self.queue_size).unwrap_or(usize::MAX);
        VoiceConfig { limits, queue_length, wishes: self.audio.wishes(), levels: self.levels }
    }
}

impl Audio {
    fn wishes(&self) -> SoundWishes {
        SoundWishes {
            sample_rate: self.sample_rate,
            channels: self.channels,
            packet_time: self.packet_time(),
            fec: self.fec,
            dtx: self.dtx,
        }
    }

    /// A packet is complete when its last sample is recorded, so that it is as long as the latency that
    /// is allowed. The shortest of WebRTC, 10 ms, bring a voice over 10 ms earlier than browsers' own 20 ms
    /// do, and cost twice the packets, which a LAN has room for.
    fn packet_time(&self) -> u8 {
        match self.latency.as_millis() {
            0..20 => 10,
            20..40 => 20,
            40..60 => 40,
            _ => 60,
        }
    }
}

/// Reads the section.
pub(super) fn read(mut section: Section<'_>) -> Voice {
    let enabled = section.value("enabled", true);
    let token = read_token(&mut section);
    let allowed_origins = section.value("allowed_origins", Vec::new());
    let max_connections = bounded(&mut section, "max_connections", CONNECTIONS, 1, CONNECTIONS_MAX);
    let queue_size = bounded(&mut section, "queue_size", QUEUE_LENGTH, 1, QUEUE_LENGTH_MAX);
    let connection_timeout = read_timeout(&mut section);
    let levels = section.value("levels", LevelMode::HeaderElseDecode);
    let audio = read_audio(section.section("audio"));
    section.finish();
    Voice {
        enabled,
        token,
        allowed_origins,
        max_connections,
        queue_size,
        connection_timeout,
        levels,
        audio,
    }
}

fn read_token(section: &mut Section<'_>) -> Option<SecretString> {
    let origin = section.origin_of("token");
    let token: SecretString = section.optional("token")?;
    let length = token.expose_secret().trim().len();
    if length == 0 {
        return None;
    }
    if length < TOKEN_LENGTH_MIN {
        let sentence =
            format!("the token is too short; use at least {TOKEN_LENGTH_MIN} characters, or none");
        section.problem(origin, "token", &sentence);
    }
    Some(token)
}

fn read_timeout(section: &mut Section<'_>) -> Duration {
    let origin = section.origin_of("connection_timeout");
    let timeout = section.value("connection_timeout", CONNECTION_TIMEOUT);
    if !(CONNECTION_TIMEOUT_MIN..=CONNECTION_TIMEOUT_MAX).contains(&timeout) {
        let sentence = "this must be from \"1s\" to \"1h\"";
        section.problem(origin, "connection_timeout", sentence);
    }
    timeout
}

fn read_audio(mut section: Section<'_>) -> Audio {
    let sample_rate =
        bounded(&mut section, "sample_rate", 16_000, SAMPLE_RATE_MIN, SAMPLE_RATE_MAX);
    let channels = bounded(&mut section, "channels", 1, 1, 2);
    let audio = Audio {
        sample_rate,
        channels: if channels == 2 { 2 } else { 1 },
        echo_cancellation: section.value("echo_cancellation", true),
        noise_suppression: section.value("noise_suppression", true),
        auto_gain_control: section.value("auto_gain_control", true),
        latency: section.value("latency", Duration::ZERO),
        fec: section.value("fec", true),
        dtx: section.value("dtx", true),
    };
    section.finish();
    audio
}

fn bounded(
    section: &mut Section<'_>,
    key: &'static str,
    default: u32,
    least: u32,
    most: u32,
) -> u32 {
    let origin = section.origin_of(key);
    let value = section.value(key, default);
    if !(least..=most).contains(&value) {
        section.problem(origin, key, &format!("this must be from {least} to {most}"));
    }
    value
}

impl Setting for LevelMode {
    fn read(node: &Node) -> Result<Self, String> {
        let choices =
            [("auto", Self::HeaderElseDecode), ("header", Self::Header), ("off", Self::Off)];
        choice(node, &choices)
    }
}

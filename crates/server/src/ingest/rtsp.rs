//! Cameras that speak RTSP (RFC 2326), read through `retina`.
//!
//! This part connects, chooses tracks, keeps the time limits and says why it failed. What becomes of
//! the frames is [`feed`]'s, the sentences are [`failure`]'s. It never retries: one call is one
//! attempt.

mod failure;
mod feed;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use engine::SourceFailure;
use futures::StreamExt;
use media::{Codec, h264, h265};
use retina::client::{
    Credentials, Demuxed, Described, InitialSequenceNumberPolicy, InitialTimestampPolicy,
    PlayOptions, Session, SessionGroup, SessionIdPolicy, SessionOptions, SetupOptions, Stream,
    TcpTransportOptions, Transport, UdpTransportOptions,
};
use retina::codec::{CodecItem, ParametersRef, VideoParametersCodec};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use self::failure::Explain;
use self::feed::{Feed, Picture, PictureTrack, Sound, SoundTrack};
use super::audio::AacToOpus;
use super::wall_clock::WallClock;
use super::{FIRST_KEYFRAME_TIMEOUT, Output, RtspTransport};

/// Sessions whose TEARDOWN is on its way.
static TEARDOWNS: LazyLock<Arc<SessionGroup>> = LazyLock::new(Arc::default);

/// A camera's address as [`super::SourceUrl`] holds it.
pub(super) struct Address<'a> {
    /// Without credentials.
    pub(super) url: &'a Url,
    pub(super) username: Option<&'a str>,
    pub(super) password: Option<&'a SecretString>,
}

/// How long a camera may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// To connect and answer DESCRIBE, and to answer each request after that.
    pub(super) answer: Duration,
    /// From one picture to the next. Cameras that send a picture a minute are stills, not streams.
    pub(super) silence: Duration,
    /// From PLAY to the first keyframe.
    pub(super) first_keyframe: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            first_keyframe: FIRST_KEYFRAME_TIMEOUT,
        }
    }
}

/// One attempt: see [`super::pull`].
pub(super) async fn pull(
    address: &Address<'_>,
    transport: RtspTransport,
    output: Arc<dyn Output>,
    limits: Limits,
) -> SourceFailure {
    let explain = Explain::new(address.url, address.password);
    match attempt(address, transport, output, limits, &explain).await {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

/// Waits until the TEARDOWN requests of ended pulls are through, at most `limit`.
pub(super) async fn teardowns_sent(limit: Duration) {
    let ended = TEARDOWNS.stale_sessions();
    // What could not be torn down ends by the camera's own session timeout.
    let _ = timeout(limit, TEARDOWNS.await_stale_sessions(&ended)).await;
}

async fn attempt(
    address: &Address<'_>,
    transport: RtspTransport,
    output: Arc<dyn Output>,
    limits: Limits,
    explain: &Explain<'_>,
) -> Result<Infallible, SourceFailure> {
    let describe = Session::describe(address.url.clone(), session_options(address));
    let mut session = timeout(limits.answer, describe)
        .await
        .map_err(|_elapsed| explain.no_answer(limits.answer))?
        .map_err(|error| explain.before_play(&error))?;

    let video = choose_video(session.streams())?;
    set_up(&mut session, video.stream, transport, limits, explain).await?;
    let mut sound = choose_sound(session.streams());
    if let Some(track) = &sound
        && let Err(failure) = set_up(&mut session, track.stream, transport, limits, explain).await
    {
        tracing::info!(reason = %failure, "the camera does not hand out its sound; picture only");
        sound = None;
    }

    // The timestamps' origin and the first sequence number are taken from the first packets: many
    // cameras announce others than they send.
    let options = PlayOptions::default()
        .initial_timestamp(InitialTimestampPolicy::Ignore)
        .initial_seq(InitialSequenceNumberPolicy::Ignore);
    let frames = timeout(limits.answer, session.play(options))
        .await
        .map_err(|_elapsed| explain.no_answer(limits.answer))?
        .and_then(Session::demuxed)
        .map_err(|error| explain.before_play(&error))?;

    let mut video = video;
    for nal in parameter_sets(&frames.streams()[video.stream]) {
        video.picture.handle_parameter_set(nal);
    }
    let feed = Feed::new(output, video, sound);
    tracing::debug!(transport = ?transport, sound = ?feed.sound_codec(), "the camera plays");
    play(frames, feed, limits, explain).await
}

/// Hands frames on until something fails.
async fn play(
    mut frames: Demuxed,
    mut feed: Feed,
    limits: Limits,
    explain: &Explain<'_>,
) -> Result<Infallible, SourceFailure> {
    let clock = WallClock::start();
    let started = Instant::now();
    let keyframe_due = started + limits.first_keyframe;
    let mut picture_due = started + limits.silence;
    loop {
        let due = if feed.is_live() { picture_due } else { picture_due.min(keyframe_due) };
        let item = match timeout_at(due, frames.next()).await {
            Ok(Some(item)) => item.map_err(|error| explain.after_play(&error))?,
            Ok(None) => return Err(explain.closed()),
            Err(_elapsed) if due == picture_due => return Err(explain.silent(limits.silence)),
            Err(_elapsed) => {
                return Err(SourceFailure::NoKeyframe {
                    waited_s: limits.first_keyframe.as_secs(),
                });
            }
        };
        if matches!(item, CodecItem::VideoFrame(_)) {
            picture_due = Instant::now() + limits.silence;
        }
        feed.handle_item(item, clock.unix_micros())?;
    }
}

fn session_options(address: &Address<'_>) -> SessionOptions {
    let credentials = address.username.map(|username| Credentials {
        username: username.to_owned(),
        password: address
            .password
            .map(|password| password.expose_secret().to_owned())
            .unwrap_or_default(),
    });
    SessionOptions::default()
        .creds(credentials)
        .user_agent(concat!("manifold/", env!("CARGO_PKG_VERSION")).to_owned())
        .session_group(Arc::clone(&TEARDOWNS))
        // Some cameras change the session id from SETUP to SETUP and mean the first.
        .session_id(SessionIdPolicy::UseFirst)
}

async fn set_up(
    session: &mut Session<Described>,
    stream: usize,
    transport: RtspTransport,
    limits: Limits,
    explain: &Explain<'_>,
) -> Result<(), SourceFailure> {
    let transport = match transport {
        RtspTransport::Tcp => Transport::Tcp(TcpTransportOptions::default()),
        RtspTransport::Udp => Transport::Udp(UdpTransportOptions::default()),
    };
    timeout(limits.answer, session.setup(stream, SetupOptions::default().transport(transport)))
        .await
        .map_err(|_elapsed| explain.no_answer(limits.answer))?
        .map_err(|error| explain.before_play(&error))
}

/// The first track of pictures that can be passed on, H.264 before H.265, or what there is instead.
fn choose_video(streams: &[Stream]) -> Result<PictureTrack, SourceFailure> {
    let track_of = |name: &str, codec: Codec| {
        streams.iter().position(|stream| {
            stream.media() == "video"
                && stream.encoding_name() == name
                && stream.clock_rate_hz() == codec.clock_rate()
        })
    };
    if let Some(stream) = track_of("h264", Codec::H264) {
        return Ok(PictureTrack { stream, picture: Picture::H264(h264::Normaliser::default()) });
    }
    if let Some(stream) = track_of("h265", Codec::H265) {
        return Ok(PictureTrack { stream, picture: Picture::H265(h265::Normaliser::default()) });
    }
    let codec = match streams.iter().find(|stream| matches!(stream.media(), "video" | "image")) {
        Some(stream) => match stream.encoding_name() {
            "jpeg" => "MJPEG".to_owned(),
            "mp4v-es" => "MPEG-4 Visual".to_owned(),
            other => failure::excerpt(&other.to_ascii_uppercase()),
        },
        None => "sound without a picture".to_owned(),
    };
    Err(SourceFailure::UnsupportedCodec { codec })
}

/// The first track of sound that viewers can be given.
fn choose_sound(streams: &[Stream]) -> Option<SoundTrack> {
    let tracks = || streams.iter().enumerate().filter(|(_, stream)| stream.media() == "audio");
    let chosen = tracks()
        .find_map(|(index, stream)| Some(SoundTrack { stream: index, sound: sound_of(stream)? }));
    if chosen.is_none()
        && let Some((_, stream)) = tracks().next()
    {
        tracing::info!(
            codec = failure::excerpt(stream.encoding_name()),
            rate = stream.clock_rate_hz(),
            "the camera's sound cannot be passed on; picture only"
        );
    }
    chosen
}

fn sound_of(stream: &Stream) -> Option<Sound> {
    let mono = stream.channels().is_none_or(|channels| channels.get() == 1);
    let g711 = |codec: Codec| {
        (mono && stream.clock_rate_hz() == codec.clock_rate()).then_some(Sound::G711(codec))
    };
    match stream.encoding_name() {
        "pcmu" => g711(Codec::Pcmu),
        "pcma" => g711(Codec::Pcma),
        "mpeg4-generic" => {
            let Some(ParametersRef::Audio(parameters)) = stream.parameters() else { return None };
            AacToOpus::new(parameters.extra_data(), stream.clock_rate_hz())
                .inspect_err(|error| tracing::info!(%error, "the camera's sound is left out"))
                .ok()
                .map(|transcoder| Sound::Aac(Box::new(transcoder)))
        }
        _ => None,
    }
}

/// The parameter sets of the session description (RFC 6184 §8.1, RFC 7798 §7.1).
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum is not ours and will grow; what else there is has no parameter sets"
)]
fn parameter_sets(stream: &Stream) -> Vec<&[u8]> {
    let Some(ParametersRef::Video(parameters)) = stream.parameters() else { return Vec::new() };
    match parameters.codec_params() {
        VideoParametersCodec::H264 { sps, pps } => vec![sps, pps],
        VideoParametersCodec::H265 { vps, sps, pps } => vec![vps, sps, pps],
        _ => Vec::new(),
    }
}

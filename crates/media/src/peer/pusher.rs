//! A publisher: brings frames to somebody else's WHIP server, or a voice to a relay. The whole of it is
//! str0m: packets, SRTP, retransmissions, reports.
//!
//! Sans-IO like its neighbours: datagrams, frames and time in, [`PusherOutput`] out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::change::SdpPendingOffer;
use str0m::format::{Codec as StrCodec, CodecConfig};
use str0m::media::{Direction, Frequency, MediaKind as StrMediaKind, MediaTime, Mid, Pt};
use str0m::{Event, Output, Rtc, RtcConfig};

use super::client::ClientError;
use super::dial::{self, Identity};
use crate::frame::{AudioLevel, Codec, Frame, MediaKind};

/// Between two [`PusherOutput::Figures`].
const FIGURES_INTERVAL: Duration = Duration::from_secs(1);

/// Start codes between NAL units (ITU-T H.264 annex B).
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// What all pushers of a process share: the certificate and the crypto.
pub struct PusherFactory {
    identity: Identity,
}

/// Why a frame did not leave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The server's answer has no payload type for it.
    #[error("the server takes no {0}")]
    Codec(&'static str),
    /// str0m refused it.
    #[error("a frame could not be sent: {0}")]
    Refused(String),
}

/// What the server's reports and our own counting say of one track, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PushFigures {
    /// Packets sent, retransmissions too.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Requests for retransmission that came.
    pub nacks: u64,
    /// Requests for a keyframe that came (PLI and FIR).
    pub keyframe_requests: u64,
    /// Round trip, where a report told it lately.
    pub round_trip: Option<Duration>,
    /// Share that was lost lately, 0 to 1, where a report told it.
    pub lost: Option<f32>,
}

/// What a pusher wants done or tells.
#[derive(Debug)]
pub enum PusherOutput {
    /// Send this datagram from the pusher's address.
    Transmit {
        /// The server's address.
        destination: SocketAddr,
        /// STUN, DTLS, SRTP or SRTCP.
        contents: Vec<u8>,
    },
    /// DTLS is done: frames may be sent, a keyframe first.
    Connected,
    /// The server cannot decode and wants a keyframe.
    KeyframeWanted,
    /// About once a second for each track.
    Figures(MediaKind, PushFigures),
    /// The server said goodbye, or the connection failed: of no more use.
    Closed,
    /// Nothing more until input comes or this moment.
    Timeout(Instant),
}

/// One publishing connection.
pub struct Pusher {
    /// Boxed: some 20 KB, which callers would carry in their futures.
    rtc: Box<Rtc>,
    address: SocketAddr,
    /// `None`: a voice.
    video: Option<Track>,
    audio: Track,
    pending: Option<SdpPendingOffer>,
}

/// One section of the offer.
struct Track {
    mid: Mid,
    clock: Clock,
}

/// RTP time that goes on evenly when the source begins anew.
#[derive(Debug, Default)]
struct Clock {
    /// Source ticks and ours of the newest frame, and when it was captured.
    newest: Option<(u64, u64, Instant)>,
}

impl PusherFactory {
    /// Makes the one certificate that all pushers use. `None` when the crypto library fails.
    pub fn new() -> Option<Self> {
        Some(Self { identity: Identity::new()? })
    }

    /// A pusher that is reached at `address`, and its offer to send picture and sound.
    pub fn offer(
        &self,
        address: SocketAddr,
        now: Instant,
    ) -> Result<(Pusher, String), ClientError> {
        let config = self
            .config()
            .enable_h264(true)
            .enable_h265(true)
            .enable_opus(true, false)
            .enable_pcmu(true, false)
            .enable_pcma(true, false);
        offer(config, address, Sections::Both, now)
    }

    /// A pusher that is reached at `address`, and its offer to send a voice: Opus alone.
    pub fn offer_sound(
        &self,
        address: SocketAddr,
        redundancy: Redundancy,
        now: Instant,
    ) -> Result<(Pusher, String), ClientError> {
        let mut config = self.config().enable_opus(true, redundancy == Redundancy::OnePacket);
        let opus = config.codec_config().params().first().copied();
        if let Some(mut opus) = opus {
            opus.set_fb_nack(true);
            *config.codec_config() = CodecConfig::new_from_payload_params(vec![opus]);
        }
        offer(config, address, Sections::SoundAlone, now)
    }

    fn config(&self) -> RtcConfig {
        self.identity.config().set_stats_interval(Some(FIGURES_INTERVAL)).clear_codecs()
    }
}

/// What a voice sends besides each packet of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redundancy {
    /// Nothing.
    None,
    /// The packet before it once more (RED, RFC 2198), if the answer takes that.
    OnePacket,
}

/// What is offered.
enum Sections {
    Both,
    SoundAlone,
}

fn offer(
    config: RtcConfig,
    address: SocketAddr,
    sections: Sections,
    now: Instant,
) -> Result<(Pusher, String), ClientError> {
    let mut rtc = Box::new(config.build(now));
    dial::set_address(&mut rtc, address)?;
    let mut change = rtc.sdp_api();
    let mut add = |kind| {
        // One media stream for both, so that viewers play them together.
        let stream = Some("manifold".to_owned());
        let mid = change.add_media(kind, Direction::SendOnly, stream, None, None);
        Track { mid, clock: Clock::default() }
    };
    let video = match sections {
        Sections::Both => Some(add(StrMediaKind::Video)),
        Sections::SoundAlone => None,
    };
    let audio = add(StrMediaKind::Audio);
    let (offer, pending) = change.apply().expect("a section was added");
    let pusher = Pusher { rtc, address, video, audio, pending: Some(pending) };
    Ok((pusher, offer.to_sdp_string()))
}

impl Pusher {
    /// The server's answer; taken once.
    pub fn handle_answer(&mut self, sdp: &str) -> Result<(), ClientError> {
        dial::handle_answer(&mut self.rtc, &mut self.pending, sdp)
    }

    /// A datagram that arrived at the pusher's address. What is not understood is ignored.
    pub fn handle_datagram(&mut self, source: SocketAddr, packet: &[u8], now: Instant) {
        dial::handle_datagram(&mut self.rtc, (source, self.address), packet, now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        dial::handle_timeout(&mut self.rtc, now);
    }

    /// The next frame, captured at `captured`; before [`PusherOutput::Connected`] it is dropped. Poll
    /// before the next one.
    pub fn handle_frame(&mut self, frame: &Frame, captured: Instant) -> Result<(), PushError> {
        self.write(frame, captured, None)
    }

    /// As [`Self::handle_frame`], for sound that says how loud it is (RFC 6464), if the answer takes
    /// that.
    pub fn handle_sound(
        &mut self,
        frame: &Frame,
        level: AudioLevel,
        captured: Instant,
    ) -> Result<(), PushError> {
        self.write(frame, captured, Some(level))
    }

    fn write(
        &mut self,
        frame: &Frame,
        captured: Instant,
        level: Option<AudioLevel>,
    ) -> Result<(), PushError> {
        let refused = |error: &dyn std::fmt::Display| PushError::Refused(error.to_string());
        let unknown = PushError::Codec(frame.codec.name());
        let track = match frame.codec.kind() {
            MediaKind::Video => self.video.as_mut().ok_or(unknown.clone())?,
            MediaKind::Audio => &mut self.audio,
        };
        let Some(mut writer) = self.rtc.writer(track.mid) else { return Err(unknown) };
        let payload_type: Option<Pt> =
            writer.payload_params().find(|params| is_for(frame.codec, params)).map(|p| p.pt());
        let payload_type = payload_type.ok_or(unknown)?;
        let ticks = track.clock.next(frame, captured);
        let rate = Frequency::new(frame.codec.clock_rate()).ok_or_else(|| refused(&"no clock"))?;
        let time = MediaTime::new(ticks, rate);
        let data = elementary_stream(frame);
        if let Some(AudioLevel { below_full, voice }) = level {
            let below_full = i8::try_from(below_full).unwrap_or(i8::MAX);
            writer = writer.audio_level(-below_full, voice.unwrap_or_default());
        }
        writer.write(payload_type, captured, time, data).map_err(|error| refused(&error))
    }

    /// Starts the goodbye (DTLS close_notify); poll until [`PusherOutput::Closed`] or a timeout.
    pub fn close(&mut self) {
        dial::close(&mut self.rtc);
    }

    /// The next thing to do; call until it is `Timeout` or `Closed`.
    pub fn poll_output(&mut self) -> PusherOutput {
        loop {
            if !self.rtc.is_alive() {
                return PusherOutput::Closed;
            }
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => return PusherOutput::Timeout(at),
                Ok(Output::Transmit(transmit)) => {
                    let (destination, contents) =
                        (transmit.destination, transmit.contents.to_vec());
                    return PusherOutput::Transmit { destination, contents };
                }
                Ok(Output::Event(Event::Connected)) => return PusherOutput::Connected,
                Ok(Output::Event(Event::KeyframeRequest(_))) => {
                    return PusherOutput::KeyframeWanted;
                }
                Ok(Output::Event(Event::MediaEgressStats(stats))) => {
                    let is_video = stats.mid != self.audio.mid;
                    let kind = if is_video { MediaKind::Video } else { MediaKind::Audio };
                    let figures = PushFigures {
                        packets: stats.packets,
                        bytes: stats.bytes,
                        nacks: stats.nacks,
                        keyframe_requests: stats.plis + stats.firs,
                        round_trip: stats.rtt,
                        lost: stats.loss,
                    };
                    return PusherOutput::Figures(kind, figures);
                }
                Ok(Output::Event(Event::Closed)) => return PusherOutput::Closed,
                Ok(Output::Event(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "the connection failed");
                    self.rtc.disconnect();
                    return PusherOutput::Closed;
                }
            }
        }
    }
}

impl Clock {
    /// RTP time of the next frame of a source that may have begun anew.
    fn next(&mut self, frame: &Frame, captured: Instant) -> u64 {
        let ticks = match self.newest {
            None => 0,
            Some((source, ours, _)) if !frame.discontinuity && frame.ticks >= source => {
                ours + (frame.ticks - source)
            }
            Some((_, ours, before)) => {
                let pause = captured.saturating_duration_since(before);
                let ticks = pause.as_secs_f64() * f64::from(frame.codec.clock_rate());
                ours + (ticks as u64).max(1)
            }
        };
        self.newest = Some((frame.ticks, ticks, captured));
        ticks
    }
}

fn is_for(codec: Codec, params: &str0m::format::PayloadParams) -> bool {
    let spec = params.spec();
    match codec {
        Codec::H264 => spec.codec == StrCodec::H264 && spec.format.packetization_mode == Some(1),
        Codec::H265 => spec.codec == StrCodec::H265,
        Codec::Vp8 => spec.codec == StrCodec::Vp8,
        Codec::Vp9 => spec.codec == StrCodec::Vp9,
        Codec::Av1 => spec.codec == StrCodec::Av1,
        Codec::Opus => spec.codec == StrCodec::Opus,
        Codec::Pcmu => spec.codec == StrCodec::PCMU,
        Codec::Pcma => spec.codec == StrCodec::PCMA,
    }
}

/// NAL units with start codes; sound as it is.
fn elementary_stream(frame: &Frame) -> Vec<u8> {
    let start_code: &[u8] = match frame.codec {
        Codec::H264 | Codec::H265 => &START_CODE,
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => &[],
        Codec::Opus | Codec::Pcmu | Codec::Pcma => &[],
    };
    frame.units.iter().flat_map(|unit| [start_code, &unit[..]]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::NtpTime;
    use crate::peer::client::ClientOutput;

    const HERE: ([u8; 4], u16) = ([10, 0, 0, 1], 4000);
    const THERE: ([u8; 4], u16) = ([10, 0, 0, 2], 8555);

    fn frame(codec: Codec, ticks: u64, discontinuity: bool) -> Frame {
        let units = vec![vec![0x67; 9].into(), vec![0x68; 4].into(), vec![0x65; 3_000].into()];
        let captured = NtpTime(0);
        Frame { forwarded: None, codec, ticks, captured, keyframe: true, discontinuity, units }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn time_goes_on_when_the_source_begins_anew() {
        let (mut clock, start) = (Clock::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(clock.next(&frame(Codec::H264, 900_000, true), at(0)), 0);
        assert_eq!(clock.next(&frame(Codec::H264, 903_600, false), at(40)), 3_600);
        assert_eq!(clock.next(&frame(Codec::H264, 5, true), at(1040)), 93_600);
        assert_eq!(clock.next(&frame(Codec::H264, 3_605, false), at(1080)), 97_200);
    }

    /// A publisher and a receiver of str0m: offer, answer, ICE, DTLS, and a whole picture.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn a_picture_arrives_and_a_keyframe_can_be_asked_for() {
        let mut now = Instant::now();
        let (mut pusher, offer) = PusherFactory::new().unwrap().offer(HERE.into(), now).unwrap();
        let (mut viewer, answer) = crate::peer::client::answering(&offer, THERE.into(), now);
        pusher.handle_answer(&answer).unwrap();
        let (mut connected, mut asked, mut wanted, mut pictures) = (false, false, false, 0);
        for step in 0..4_000_u64 {
            now += Duration::from_millis(1);
            pusher.handle_timeout(now);
            loop {
                match pusher.poll_output() {
                    PusherOutput::Transmit { contents, .. } => {
                        viewer.handle_datagram(HERE.into(), &contents, now);
                    }
                    PusherOutput::Connected => connected = true,
                    PusherOutput::KeyframeWanted => wanted = true,
                    PusherOutput::Figures(..) => {}
                    PusherOutput::Closed => panic!("closed"),
                    PusherOutput::Timeout(_) => break,
                }
            }
            if connected && step % 40 == 0 {
                pusher.handle_frame(&frame(Codec::H264, step * 90, false), now).unwrap();
            }
            viewer.handle_timeout(now);
            loop {
                match viewer.poll_output() {
                    ClientOutput::Transmit { contents, .. } => {
                        pusher.handle_datagram(THERE.into(), &contents, now);
                    }
                    ClientOutput::Media { data, .. } => {
                        pictures += usize::from(data.len() > 3_000);
                    }
                    ClientOutput::Connected => {}
                    ClientOutput::Closed => panic!("closed"),
                    ClientOutput::Timeout(_) => break,
                }
            }
            if pictures == 10 && !asked {
                viewer.request_keyframe();
                asked = true;
            }
        }
        assert!(connected && wanted && pictures > 20, "{connected} {wanted} {pictures}");
        let other = pusher.handle_frame(&frame(Codec::Vp8, 0, false), now);
        assert_eq!(other, Err(PushError::Codec("VP8")));
    }
}

//! From a camera's frames to [`Output`]: picture made fit for browsers, sound passed or re-encoded,
//! both placed on our wall clock.
//!
//! It reads no clock and does no IO; the arrival of each frame is told.

use std::sync::Arc;

use bytes::Bytes;
use engine::SourceFailure;
use media::h264::{Normaliser, split_avcc};
use media::{Codec, Frame, MediaKind};
use retina::codec::CodecItem;
use retina::rtcp::ReceivedCompoundPacket;

use crate::ingest::audio::AacToOpus;
use crate::ingest::clock::SourceClock;
use crate::ingest::{Output, SourceFormat};

/// Added to a camera's timestamps, which may go below zero when they jump back. A multiple of 2^32,
/// so that the lower half is still what the camera sends.
const TICKS_ORIGIN: i64 = 1 << 40;

/// A step in timestamps over this is a new timeline. Pictures come at least every ten seconds, or
/// the attempt ends.
const STEP_SECONDS_MAX: i64 = 15;

/// The track of sound that was chosen.
pub(super) struct SoundTrack {
    /// Index of its stream in the session.
    pub(super) stream: usize,
    pub(super) sound: Sound,
}

/// What becomes of a camera's sound.
pub(super) enum Sound {
    /// Passed through.
    G711(Codec),
    /// Re-encoded to Opus.
    Aac(Box<AacToOpus>),
}

impl Sound {
    /// What viewers get.
    fn codec(&self) -> Codec {
        match self {
            Self::G711(codec) => *codec,
            Self::Aac(_) => Codec::Opus,
        }
    }

    /// The camera's timestamps in ticks of what viewers get.
    fn ticks(&self, camera_ticks: i64) -> i64 {
        match self {
            Self::G711(_) => camera_ticks,
            Self::Aac(transcoder) => transcoder.ticks(camera_ticks),
        }
    }
}

/// One session's frames on their way to its output.
pub(super) struct Feed {
    output: Arc<dyn Output>,
    clock: SourceClock,
    normaliser: Normaliser,
    video_stream: usize,
    sound: Option<SoundTrack>,
    /// What was last said to be live.
    live: Option<SourceFormat>,
    video_steps: Steps,
    sound_steps: Steps,
}

impl Feed {
    /// Nothing leaves before the first keyframe.
    pub(super) fn new(
        output: Arc<dyn Output>,
        video_stream: usize,
        sound: Option<SoundTrack>,
    ) -> Self {
        let sound_codec = sound.as_ref().map_or(Codec::Opus, |track| track.sound.codec());
        Self {
            output,
            clock: SourceClock::new(Codec::H264.clock_rate(), sound_codec.clock_rate()),
            normaliser: Normaliser::default(),
            video_stream,
            sound,
            live: None,
            video_steps: Steps::new(Codec::H264),
            sound_steps: Steps::new(sound_codec),
        }
    }

    /// Whether the first keyframe has come.
    pub(super) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// The sound that viewers get.
    pub(super) fn sound_codec(&self) -> Option<Codec> {
        self.sound.as_ref().map(|track| track.sound.codec())
    }

    /// Parameter sets that came out of band.
    pub(super) fn handle_parameter_sets(&mut self, sps: &[u8], pps: &[u8]) {
        self.normaliser.handle_parameter_set(sps);
        self.normaliser.handle_parameter_set(pps);
    }

    /// The next thing from the camera, which arrived at `arrival` (microseconds, Unix epoch).
    pub(super) fn handle_item(
        &mut self,
        item: CodecItem,
        arrival: i64,
    ) -> Result<(), SourceFailure> {
        match item {
            CodecItem::VideoFrame(frame) if frame.stream_id() == self.video_stream => {
                let (ticks, lost) = (frame.timestamp().timestamp(), frame.loss());
                self.handle_picture(ticks, lost, frame.into_data().into(), arrival)
            }
            CodecItem::AudioFrame(frame) => {
                let ticks = frame.timestamp().timestamp();
                self.handle_sound(ticks, frame.loss(), frame.data(), arrival);
                Ok(())
            }
            CodecItem::Rtcp(packet) => {
                self.handle_rtcp(&packet);
                Ok(())
            }
            // Metadata is not asked for.
            _ => Ok(()),
        }
    }

    /// One access unit, each NAL unit behind its length in four bytes.
    pub(super) fn handle_picture(
        &mut self,
        ticks: i64,
        lost: u16,
        data: Bytes,
        arrival: i64,
    ) -> Result<(), SourceFailure> {
        self.count_lost(lost);
        let unit = split_avcc(&data).and_then(|units| self.normaliser.handle_access_unit(units));
        let unit = match unit {
            Ok(Some(unit)) => unit,
            Ok(None) => return Ok(()),
            Err(error) => {
                // Viewers see it as loss, until the next keyframe.
                tracing::debug!(%error, "a picture cannot be read");
                return Ok(());
            }
        };
        if unit.reordered {
            return Err(SourceFailure::BFrames);
        }
        let captured = self.clock.captured(MediaKind::Video, ticks, arrival);
        if unit.keyframe {
            self.announce();
        }
        if self.is_live() {
            let (ticks, discontinuity) = self.video_steps.next(ticks);
            self.output.frame(Frame {
                codec: Codec::H264,
                ticks,
                captured,
                keyframe: unit.keyframe,
                discontinuity,
                units: unit.units,
            });
        }
        Ok(())
    }

    /// One frame of sound as the camera sends it.
    pub(super) fn handle_sound(&mut self, ticks: i64, lost: u16, data: &[u8], arrival: i64) {
        self.count_lost(lost);
        let Some(track) = &mut self.sound else { return };
        match &mut track.sound {
            Sound::G711(codec) => {
                let codec = *codec;
                self.send_sound(codec, ticks, false, Bytes::copy_from_slice(data), arrival);
            }
            Sound::Aac(transcoder) => {
                for packet in transcoder.handle_frame(ticks, lost > 0, data) {
                    let (ticks, restarted) = (packet.ticks, packet.restarted);
                    self.send_sound(Codec::Opus, ticks, restarted, packet.data, arrival);
                }
            }
        }
    }

    /// `ticks` and `data` of a packet as viewers get it.
    fn send_sound(
        &mut self,
        codec: Codec,
        ticks: i64,
        restarted: bool,
        data: Bytes,
        arrival: i64,
    ) {
        let captured = self.clock.captured(MediaKind::Audio, ticks, arrival);
        if !self.is_live() {
            return;
        }
        let (ticks, broken) = self.sound_steps.next(ticks);
        self.output.frame(Frame {
            codec,
            ticks,
            captured,
            keyframe: true,
            discontinuity: restarted || broken,
            units: vec![data],
        });
    }

    /// Takes sender reports to the clock.
    fn handle_rtcp(&mut self, packet: &ReceivedCompoundPacket) {
        let Some(at) = packet.rtp_timestamp() else { return };
        let report = packet.pkts().next().and_then(|first| first.as_sender_report().ok().flatten());
        let Some(ntp) = report.map(|report| report.ntp_timestamp().0) else { return };
        let stream = packet.stream_id();
        if stream == self.video_stream {
            self.clock.handle_sender_report(MediaKind::Video, ntp, at.timestamp());
        } else if let Some(track) = self.sound.as_ref().filter(|track| track.stream == stream) {
            let ticks = track.sound.ticks(at.timestamp());
            self.clock.handle_sender_report(MediaKind::Audio, ntp, ticks);
        }
    }

    /// Says that the source is live, or that its format has changed.
    fn announce(&mut self) {
        let Some(video) = self.normaliser.format() else { return };
        let format = SourceFormat { video, audio: self.sound_codec() };
        if self.live != Some(format) {
            self.live = Some(format);
            self.output.live(format);
        }
    }

    fn count_lost(&self, packets: u16) {
        if packets > 0 {
            self.output.lost(u64::from(packets));
        }
    }
}

/// Follows a track's timestamps as they leave.
#[derive(Debug)]
struct Steps {
    step_max: i64,
    last: Option<i64>,
}

impl Steps {
    fn new(codec: Codec) -> Self {
        Self { step_max: STEP_SECONDS_MAX * i64::from(codec.clock_rate()), last: None }
    }

    /// The timestamp as [`Frame::ticks`] wants it, and whether it is unrelated to the one before.
    fn next(&mut self, ticks: i64) -> (u64, bool) {
        let broken = self.last.is_none_or(|last| {
            !(0..=self.step_max).contains(&ticks.saturating_sub(last))
        });
        self.last = Some(ticks);
        (u64::try_from(ticks.saturating_add(TICKS_ORIGIN)).unwrap_or(0), broken)
    }
}

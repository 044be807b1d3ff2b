//! From a camera's frames to [`Output`]: picture made fit for browsers, sound passed or re-encoded,
//! both placed on our wall clock.
//!
//! It reads no clock and does no IO; the arrival of each frame is told.

use std::sync::Arc;

use bytes::Bytes;
use engine::SourceFailure;
use media::depacketise::Packet;
use media::frame::AccessUnit;
use media::{Codec, Frame, MediaKind, PictureSize};
use retina::client::PacketItem;
use retina::codec::CodecItem;
use retina::rtcp::ReceivedCompoundPacket;
use retina::rtp::ReceivedPacket;

use super::incoming::Item;
use super::tracks::{Picture, PictureTrack, Sound, SoundTrack, Tracks};
use crate::ingest::audio::SoundPacket;
use crate::ingest::clock::SourceClock;
use crate::ingest::steps::Steps;
use crate::ingest::{Output, SourceFormat};

/// One session's frames on their way to its output.
pub(super) struct Feed {
    output: Arc<dyn Output>,
    clock: SourceClock,
    video: PictureTrack,
    sound: Option<SoundTrack>,
    /// What was last said to be live.
    live: Option<SourceFormat>,
    video_steps: Steps,
    sound_steps: Steps,
}

impl Feed {
    /// Nothing leaves before the first keyframe.
    pub(super) fn new(output: Arc<dyn Output>, tracks: Tracks) -> Self {
        let Tracks { picture: video, sound } = tracks;
        let sound_codec = sound.as_ref().map_or(Codec::Opus, |track| track.sound.codec());
        let video_codec = video.picture.codec();
        Self {
            output,
            clock: SourceClock::new(video_codec.clock_rate(), sound_codec.clock_rate()),
            video,
            sound,
            live: None,
            video_steps: Steps::new(video_codec),
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

    /// Whether this is of the picture, whole or a part of it.
    pub(super) fn is_picture(&self, item: &Item) -> bool {
        match item {
            Item::Frame(item) => matches!(item, CodecItem::VideoFrame(_)),
            Item::Packet(PacketItem::Rtp(packet)) => packet.stream_id() == self.video.stream,
            Item::Packet(_) => false,
        }
    }

    /// The next thing from the camera, which arrived at `arrival` (microseconds, Unix epoch).
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enums are not ours and will grow; what is not handled was not asked for"
    )]
    pub(super) fn handle_item(&mut self, item: Item, arrival: i64) -> Result<(), SourceFailure> {
        match item {
            Item::Frame(CodecItem::VideoFrame(frame)) if frame.stream_id() == self.video.stream => {
                let (ticks, lost) = (frame.timestamp().timestamp(), frame.loss());
                self.handle_picture(ticks, lost, frame.into_data().into(), arrival)
            }
            Item::Frame(CodecItem::AudioFrame(frame)) => {
                let ticks = frame.timestamp().timestamp();
                self.handle_sound(ticks, frame.loss(), frame.data(), arrival);
                Ok(())
            }
            Item::Packet(PacketItem::Rtp(packet)) => self.handle_packet(packet, arrival),
            Item::Frame(CodecItem::Rtcp(packet)) | Item::Packet(PacketItem::Rtcp(packet)) => {
                self.handle_rtcp(&packet);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// One RTP packet of either track.
    fn handle_packet(&mut self, packet: ReceivedPacket, arrival: i64) -> Result<(), SourceFailure> {
        let (ticks, lost, marker) = (packet.timestamp().timestamp(), packet.loss(), packet.mark());
        if packet.stream_id() == self.video.stream {
            let payload = packet.into_payload_bytes();
            let packet = Packet { timestamp: ticks as u32, marker, payload };
            return self.handle_part(ticks, lost, packet, arrival);
        }
        if self.sound.as_ref().is_some_and(|track| track.stream == packet.stream_id()) {
            self.handle_sound(ticks, lost, packet.payload(), arrival);
        }
        Ok(())
    }

    /// A part of a picture, with its timestamp extended.
    pub(super) fn handle_part(
        &mut self,
        ticks: i64,
        lost: u16,
        packet: Packet,
        arrival: i64,
    ) -> Result<(), SourceFailure> {
        self.count_lost(lost);
        let Picture::Packets(depacketiser) = &mut self.video.picture else { return Ok(()) };
        if lost > 0 {
            depacketiser.handle_gap();
        }
        let frames = match depacketiser.handle_packet(packet) {
            Ok(frames) => frames,
            Err(error) => {
                // Viewers see it as loss, until the next keyframe.
                tracing::debug!(%error, "a picture cannot be put together");
                return Ok(());
            }
        };
        for frame in frames {
            // One whose end shows with the next packet has the timestamp before that.
            let behind = (ticks as u32).wrapping_sub(frame.timestamp).cast_signed();
            let ticks = ticks.saturating_sub(i64::from(behind));
            let (keyframe, reordered) = (frame.keyframe, frame.reordered);
            self.send_picture(
                ticks,
                AccessUnit { units: frame.units, keyframe, reordered },
                arrival,
            )?;
        }
        Ok(())
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
        let unit = match self.video.picture.handle_access_unit(&data) {
            Ok(Some(unit)) => unit,
            Ok(None) => return Ok(()),
            Err(error) => {
                // Viewers see it as loss, until the next keyframe.
                tracing::debug!(%error, "a picture cannot be read");
                return Ok(());
            }
        };
        self.send_picture(ticks, unit, arrival)
    }

    fn send_picture(
        &mut self,
        ticks: i64,
        unit: AccessUnit,
        arrival: i64,
    ) -> Result<(), SourceFailure> {
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
                forwarded: None,
                codec: self.video.picture.codec(),
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
            Sound::Passed(codec) => {
                let codec = *codec;
                let data = Bytes::copy_from_slice(data);
                self.send_sound(codec, SoundPacket { ticks, restarted: false, data }, arrival);
            }
            Sound::Aac(transcoder) => {
                for packet in transcoder.handle_frame(ticks, lost, data) {
                    self.send_sound(Codec::Opus, packet, arrival);
                }
            }
        }
    }

    fn send_sound(&mut self, codec: Codec, packet: SoundPacket, arrival: i64) {
        let SoundPacket { ticks, restarted, data } = packet;
        let captured = self.clock.captured(MediaKind::Audio, ticks, arrival);
        if !self.is_live() {
            return;
        }
        let (ticks, broken) = self.sound_steps.next(ticks);
        self.output.frame(Frame {
            forwarded: None,
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
        if stream == self.video.stream {
            self.clock.handle_sender_report(MediaKind::Video, ntp, at.timestamp());
        } else if let Some(track) = self.sound.as_ref().filter(|track| track.stream == stream) {
            let ticks = track.sound.ticks(at.timestamp());
            self.clock.handle_sender_report(MediaKind::Audio, ntp, ticks);
        }
    }

    /// Says that the source is live, or that its format has changed.
    fn announce(&mut self) {
        let Some(PictureSize { width, height }) = self.video.picture.size() else { return };
        let codec = self.video.picture.codec();
        let format = SourceFormat { codec, width, height, audio: self.sound_codec() };
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Mutex;

    use media::h264::{self, split_annex_b};
    use openh264::encoder::Encoder;
    use openh264::formats::YUVBuffer;

    use super::*;

    /// 2025-01-01, in microseconds since the Unix epoch.
    const NOW: i64 = 1_735_689_600_000_000;
    const PICTURE_TICKS: i64 = 6_000;

    #[test]
    fn nothing_leaves_before_the_first_keyframe() {
        let (mut feed, output) = feed(Some(Sound::Passed(Codec::Pcma)));
        let pictures = pictures(64, 3);

        feed.handle_sound(0, 0, &[0xd5; 160], NOW);
        feed.handle_picture(0, 0, pictures[1].clone(), NOW).unwrap();
        assert!(!feed.is_live() && output.events().is_empty());

        feed.handle_picture(PICTURE_TICKS, 0, pictures[0].clone(), NOW).unwrap();
        feed.handle_sound(160, 0, &[0xd5; 160], NOW);
        feed.handle_picture(2 * PICTURE_TICKS, 0, pictures[1].clone(), NOW).unwrap();
        assert_eq!(
            output.events(),
            ["live 64x64 Pcma", "H264 key new", "Pcma key new", "H264"].map(str::to_owned)
        );
    }

    #[test]
    fn another_size_is_announced_before_its_keyframe() {
        let (mut feed, output) = feed(None);
        let sizes = [pictures(64, 2), pictures(96, 2), pictures(96, 1)].concat();
        for (index, picture) in (0..).zip(sizes) {
            feed.handle_picture(index * PICTURE_TICKS, 0, picture, NOW).unwrap();
        }

        let expected = ["live 64x64", "H264 key new", "H264", "live 96x96", "H264 key", "H264"];
        assert_eq!(output.events()[..6], expected.map(str::to_owned));
        assert_eq!(output.events()[6..], ["H264 key".to_owned()]);
    }

    #[test]
    fn timestamps_that_jump_are_a_discontinuity() {
        let (mut feed, output) = feed(None);
        let pictures = pictures(64, 2);
        for (index, ticks) in [0, 6_000, 12_000, 90_000_000, 90_006_000, 5].into_iter().enumerate()
        {
            feed.handle_picture(ticks, 0, pictures[index.min(1)].clone(), NOW).unwrap();
        }

        let expected = ["H264 key new", "H264", "H264", "H264 new", "H264", "H264 new"];
        assert_eq!(output.events()[1..], expected.map(str::to_owned));
        let ticks = output.ticks();
        assert_eq!(ticks[4] - ticks[3], 6_000);
        assert_eq!(ticks[0] as u32, 0);
    }

    #[test]
    fn losses_are_counted_and_broken_pictures_passed_over() {
        let (mut feed, output) = feed(None);
        feed.handle_picture(0, 3, pictures(64, 1)[0].clone(), NOW).unwrap();
        feed.handle_picture(6_000, 2, Bytes::from_static(&[0, 0, 9, 9, 1]), NOW).unwrap();
        feed.handle_sound(0, 4, &[0], NOW);

        let expected = ["lost 3", "live 64x64", "H264 key new", "lost 2", "lost 4"];
        assert_eq!(output.events(), expected.map(str::to_owned));
    }

    #[test]
    fn sender_reports_reach_the_clock() {
        let output = Arc::new(Recorder::default());
        let sound = Some(SoundTrack { stream: 0, sound: Sound::Passed(Codec::Pcmu) });
        let mut feed = Feed::new(output.clone(), Tracks { picture: h264_of(1), sound });
        let picture = pictures(64, 1);
        feed.handle_picture(0, 0, picture[0].clone(), NOW).unwrap();

        // By its ticks the second packet is 21 ms after the first, by the camera's clock 20 ms.
        for (seconds, fraction, ticks) in [(100, 0, 0), (100, 85_899_346, 168)] {
            feed.handle_rtcp(&report(seconds, fraction, ticks));
            feed.handle_sound(ticks, 0, &[0xff; 160], NOW + ticks * 125);
        }
        let captured = output.captured();
        let step = captured[2] - captured[1];
        assert!((19_990..20_010).contains(&step), "the sound is {step} us later");
    }

    /// A sender report of stream 0 (RFC 3550 §6.4.1).
    fn report(seconds: u32, fraction: u32, ticks: i64) -> ReceivedCompoundPacket {
        let mut packet = vec![0x80, 200, 0, 6, 0, 0, 0, 1];
        packet.extend(seconds.to_be_bytes());
        packet.extend(fraction.to_be_bytes());
        packet.extend((ticks as u32).to_be_bytes());
        packet.extend([0; 8]);
        let rate = NonZeroU32::new(8_000).unwrap();
        ReceivedCompoundPacket::dummy(retina::Timestamp::new(ticks, rate, 0), &packet)
    }

    fn feed(sound: Option<Sound>) -> (Feed, Arc<Recorder>) {
        let output = Arc::new(Recorder::default());
        let sound = sound.map(|sound| SoundTrack { stream: 1, sound });
        (Feed::new(output.clone(), Tracks { picture: h264_of(0), sound }), output)
    }

    fn h264_of(stream: usize) -> PictureTrack {
        PictureTrack { stream, picture: Picture::H264(h264::Normaliser::default()) }
    }

    /// A keyframe of `side` x `side` pixels and pictures that follow it, as a camera sends them.
    fn pictures(side: usize, count: usize) -> Vec<Bytes> {
        let mut encoder = Encoder::new().unwrap();
        let mut encode = |index: usize| {
            let shade = u8::try_from(40 * index + 20).unwrap();
            let planes = vec![shade; side * side * 3 / 2];
            let stream = encoder.encode(&YUVBuffer::from_vec(planes, side, side)).unwrap().to_vec();
            let units = split_annex_b(&stream.into());
            let lengths = units.iter().flat_map(|unit| {
                [&u32::try_from(unit.len()).unwrap().to_be_bytes(), &unit[..]].concat()
            });
            lengths.collect()
        };
        (0..count).map(&mut encode).collect()
    }

    #[derive(Default)]
    struct Recorder {
        events: Mutex<Vec<String>>,
        frames: Mutex<Vec<Frame>>,
    }

    impl Recorder {
        fn events(&self) -> Vec<String> {
            self.events.lock().unwrap().clone()
        }

        fn ticks(&self) -> Vec<u64> {
            self.frames.lock().unwrap().iter().map(|frame| frame.ticks).collect()
        }

        fn captured(&self) -> Vec<u64> {
            let frames = self.frames.lock().unwrap();
            frames.iter().map(|frame| frame.captured.unix_micros()).collect()
        }

        fn push(&self, event: String) {
            self.events.lock().unwrap().push(event);
        }
    }

    impl Output for Recorder {
        fn frame(&self, frame: Frame) {
            let keyframe = if frame.keyframe { " key" } else { "" };
            let discontinuity = if frame.discontinuity { " new" } else { "" };
            self.push(format!("{:?}{keyframe}{discontinuity}", frame.codec));
            self.frames.lock().unwrap().push(frame);
        }

        fn live(&self, format: SourceFormat) {
            let audio = format.audio.map(|codec| format!(" {codec:?}")).unwrap_or_default();
            self.push(format!("live {}x{}{audio}", format.width, format.height));
        }

        fn lost(&self, packets: u64) {
            self.push(format!("lost {packets}"));
        }
    }
}

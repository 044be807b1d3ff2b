//! From shared frames to one reader's interleaved packets.
//!
//! Payloads are those of all viewers; SSRC, sequence numbers and timestamps are the reader's own. The
//! cached group is compressed to its end being "now", as for browsers: what is shown is not late, and a
//! recording begins with a picture.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use media::rtcp::{SenderInfo, write_sender_report};
use media::timeline::Timeline;
use media::{Codec, MediaKind, NtpTime, PacketisedFrame};

use super::Played;
use super::sdp::TrackFormat;
use crate::net::Tapped;

/// Between two sender reports of a track (RFC 3550 §6.2). The first goes before the first packet, so
/// that recorders have picture and sound together from the start.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// All tracks that a reader has set up.
#[derive(Debug)]
pub(super) struct Player {
    tracks: Vec<Track>,
    /// Frames with their timestamps, of which none has been written. Filled with one item of the tap
    /// at a time, and only when it is empty.
    waiting: VecDeque<(usize, Arc<PacketisedFrame>, u64)>,
    cname: String,
    packets: u64,
}

/// The camera sends another codec than it was described with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the camera changed its codec")]
pub(super) struct CodecChanged;

/// One track on its two channels.
#[derive(Debug)]
pub(super) struct Track {
    codec: Codec,
    payload_type: u8,
    /// For RTP and for RTCP.
    pub(super) channels: (u8, u8),
    pub(super) ssrc: u32,
    pub(super) sequence: u16,
    timeline: Timeline,
    /// A moment in the camera's time and on this track's clock.
    placed: (NtpTime, u64),
    reported_at: Option<Instant>,
    packets: u32,
    octets: u32,
}

impl Track {
    /// A track that begins anywhere. `random` must be.
    pub(super) fn new(format: &TrackFormat, channels: (u8, u8), random: u64) -> Self {
        let [ssrc, start] = [random as u32, (random >> 32) as u32];
        Self {
            codec: format.codec,
            payload_type: format.payload_type(),
            channels,
            ssrc,
            sequence: start as u16,
            timeline: Timeline::new(start.rotate_left(16), format.codec.clock_rate()),
            placed: (NtpTime(0), 0),
            reported_at: None,
            packets: 0,
            octets: 0,
        }
    }

    fn write(
        &mut self,
        frame: &PacketisedFrame,
        timestamp: u64,
        cname: &str,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= REPORT_INTERVAL;
        if self.reported_at.is_none_or(is_due) {
            self.reported_at = Some(now);
            self.write_report(cname, out);
        }
        let is_picture = frame.codec.kind() == MediaKind::Video;
        let mut left = frame.packet_count();
        for payload in frame.payloads() {
            left -= 1;
            let is_last = left == 0 && is_picture;
            self.write_packet(payload, timestamp as u32, is_last, out);
        }
    }

    /// ```text
    /// |      '$'      |    channel    |            length             |
    /// |V=2|P|X|  CC   |M|     PT      |       sequence number         |
    /// |                           timestamp                           |
    /// |                             SSRC                              |
    /// ```
    fn write_packet(&mut self, payload: &[u8], timestamp: u32, marker: bool, out: &mut Vec<u8>) {
        const HEADER: usize = 12;
        // Payloads fit into a datagram.
        let length = (HEADER + payload.len()) as u16;
        out.extend_from_slice(&[b'$', self.channels.0]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&[0x80, u8::from(marker) << 7 | self.payload_type]);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&timestamp.to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
    }

    fn write_report(&self, cname: &str, out: &mut Vec<u8>) {
        let (ntp, timestamp) = self.placed;
        let info = SenderInfo {
            ssrc: self.ssrc,
            ntp,
            rtp_timestamp: timestamp as u32,
            packets: self.packets,
            octets: self.octets,
        };
        let start = out.len();
        out.extend_from_slice(&[b'$', self.channels.1, 0, 0]);
        write_sender_report(&info, cname, out);
        // A report and a name take less than 300 bytes.
        let length = (out.len() - start - 4) as u16;
        out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

impl Player {
    /// A player of these tracks; `cname` is the same for all (RFC 3550 §6.5.1).
    pub(super) fn new(tracks: Vec<Track>, cname: String) -> Self {
        Self { tracks, waiting: VecDeque::new(), cname, packets: 0 }
    }

    /// Takes what is to be played. Frames of tracks that were not set up are passed over.
    pub(super) fn handle(&mut self, played: Played, now: Instant) -> Result<(), CodecChanged> {
        match played {
            Played::Tapped(Tapped::Group { frames, age }) => self.handle_group(frames, age, now),
            Played::Tapped(Tapped::Frame(frame)) => {
                let (ticks, captured) = (frame.ticks, frame.captured);
                self.handle_frame(frame, ticks, captured, now)
            }
            Played::At { frame, ticks, captured } => self.handle_frame(frame, ticks, captured, now),
        }
    }

    fn handle_group(
        &mut self,
        frames: Vec<Arc<PacketisedFrame>>,
        age: Duration,
        now: Instant,
    ) -> Result<(), CodecChanged> {
        let Some(last) = frames.last() else { return Ok(()) };
        let Some((number, track)) = find(&mut self.tracks, last.codec)? else { return Ok(()) };
        let timestamps = track.timeline.compress(frames.len(), last.ticks, age, now);
        let end = last.captured.unix_micros().saturating_add(age.as_micros() as u64);
        let placed: Vec<_> = frames.iter().cloned().zip(timestamps).collect();
        if let (Some((_, first)), Some((_, last))) = (placed.first(), placed.last()) {
            // On the line through the last one, which is now. Recorders begin to count at the report,
            // so that no frame may lie before it.
            let span =
                last.wrapping_sub(*first) * 1_000_000 / u64::from(track.timeline.clock_rate());
            track.placed = (NtpTime::from_unix_micros(end.saturating_sub(span)), *first);
        }
        self.waiting.extend(placed.into_iter().map(|(frame, at)| (number, frame, at)));
        Ok(())
    }

    fn handle_frame(
        &mut self,
        frame: Arc<PacketisedFrame>,
        ticks: u64,
        captured: NtpTime,
        now: Instant,
    ) -> Result<(), CodecChanged> {
        let Some((number, track)) = find(&mut self.tracks, frame.codec)? else { return Ok(()) };
        if frame.discontinuity {
            track.timeline.anchor(ticks, now);
        }
        let timestamp = track.timeline.map(ticks, now);
        track.placed = (captured, timestamp);
        self.waiting.push_back((number, frame, timestamp));
        Ok(())
    }

    /// Appends the next frame to `out`; false when none waits.
    pub(super) fn write_next(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let Some((number, frame, timestamp)) = self.waiting.pop_front() else { return false };
        if let Some(track) = self.tracks.get_mut(number) {
            track.write(&frame, timestamp, &self.cname, now, out);
            self.packets += frame.packet_count() as u64;
        }
        true
    }

    /// Packets written since the last call.
    pub(super) fn take_packets(&mut self) -> u64 {
        std::mem::take(&mut self.packets)
    }
}

/// The track of a codec's kind. A sound of another codec is passed over, a picture of another one is
/// the end: the reader has to ask again what there is.
fn find(tracks: &mut [Track], codec: Codec) -> Result<Option<(usize, &mut Track)>, CodecChanged> {
    let mut tracks = tracks.iter_mut().enumerate();
    let Some(found) = tracks.find(|(_, track)| track.codec.kind() == codec.kind()) else {
        return Ok(None);
    };
    match (found.1.codec == codec, codec.kind()) {
        (true, _) => Ok(Some(found)),
        (false, MediaKind::Audio) => Ok(None),
        (false, MediaKind::Video) => Err(CodecChanged),
    }
}

#[cfg(test)]
mod tests {
    use media::Frame;
    use media::packetise::packetise;

    use super::*;

    fn frame(codec: Codec, ticks: u64, bytes: usize) -> Arc<PacketisedFrame> {
        Arc::new(packetise(&Frame {
            forwarded: None,
            codec,
            ticks,
            captured: NtpTime::from_unix_micros(1_000_000 + ticks),
            keyframe: true,
            discontinuity: false,
            units: vec![vec![0x41; bytes].into()],
        }))
    }

    fn live(codec: Codec, ticks: u64, bytes: usize) -> Played {
        Played::Tapped(Tapped::Frame(frame(codec, ticks, bytes)))
    }

    fn player() -> Player {
        let track =
            |codec, channels, random| Track::new(&TrackFormat::of_sound(codec), channels, random);
        let tracks =
            vec![track(Codec::H264, (0, 1), 0xffff_0000_0007), track(Codec::Opus, (2, 3), 9)];
        Player::new(tracks, "cname".to_owned())
    }

    /// Channel and packet of everything that the player writes.
    fn packets(player: &mut Player, now: Instant) -> Vec<(u8, Vec<u8>)> {
        let mut out = Vec::new();
        while player.write_next(now, &mut out) {}
        let mut rest = &out[..];
        let mut packets = Vec::new();
        while let [b'$', channel, high, low, behind @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            packets.push((*channel, behind[..length].to_vec()));
            rest = &behind[length..];
        }
        assert!(rest.is_empty());
        packets
    }

    fn timestamp(packet: &[u8]) -> u32 {
        u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]])
    }

    #[test]
    fn a_report_goes_first_then_packets_with_the_marker_on_the_last() {
        let mut player = player();
        let now = Instant::now();
        player.handle(live(Codec::H264, 90_000, 3_000), now).unwrap();
        let sent = packets(&mut player, now);
        assert_eq!(sent.iter().map(|(channel, _)| *channel).collect::<Vec<_>>(), [1, 0, 0, 0]);
        assert_eq!(sent[0].1[1], 200, "a sender report");
        let report = &sent[0].1;
        assert_eq!(report[16..20], sent[1].1[4..8], "it places the frame's timestamp");
        let markers: Vec<_> = sent[1..].iter().map(|(_, packet)| packet[1]).collect();
        assert_eq!(markers, [96, 96, 96 | 0x80]);
        let sequences: Vec<_> = sent[1..]
            .iter()
            .map(|(_, packet)| u16::from_be_bytes([packet[2], packet[3]]))
            .collect();
        assert_eq!(sequences, [0xffff, 0, 1], "they wrap");
        assert!(sent[1..].iter().all(|(_, packet)| packet[8..12] == 7_u32.to_be_bytes()));
        assert_eq!(player.take_packets(), 3);
    }

    #[test]
    fn the_cached_group_ends_now_and_live_frames_go_on_from_there() {
        let mut player = player();
        let now = Instant::now();
        let frames = (0..3).map(|n| frame(Codec::H264, n * 6_000, 10)).collect();
        player.handle(Played::Tapped(Tapped::Group { frames, age: Duration::ZERO }), now).unwrap();
        player.handle(live(Codec::H264, 18_000, 10), now).unwrap();
        let sent = packets(&mut player, now);
        let pictures: Vec<_> = sent.iter().filter(|(channel, _)| *channel == 0).collect();
        let times: Vec<_> = pictures.iter().map(|(_, packet)| timestamp(packet)).collect();
        let steps: Vec<_> = times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        assert_eq!(steps, [90, 90, 6_000]);
    }

    #[test]
    fn reports_come_every_few_seconds() {
        let mut player = player();
        let begin = Instant::now();
        let mut reports = 0;
        for second in 0..12 {
            let now = begin + Duration::from_secs(second);
            player.handle(live(Codec::Opus, second * 48_000, 10), now).unwrap();
            reports +=
                packets(&mut player, now).iter().filter(|(channel, _)| *channel == 3).count();
        }
        assert_eq!(reports, 3);
    }

    #[test]
    fn another_codec_of_the_picture_ends_it_and_of_the_sound_is_passed_over() {
        let mut player = player();
        let now = Instant::now();
        assert_eq!(player.handle(live(Codec::Pcmu, 0, 10), now), Ok(()));
        assert!(packets(&mut player, now).is_empty());
        let changed = player.handle(live(Codec::H265, 0, 10), now);
        assert_eq!(changed, Err(CodecChanged));
    }
}

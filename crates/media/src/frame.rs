//! The frame model: what every source produces and every viewer is served from.
//!
//! A [`Frame`] is one access unit (video) or one packet (audio). [`PacketisedFrame`] is the same
//! frame cut once into RTP payloads, shared by reference between all viewers. Neither knows a
//! sequence number, an SSRC or a payload type: those belong to a viewer.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::picture_id::PictureId;

/// Largest RTP payload in bytes. Header, extensions, the RTX sequence number and the SRTP tag go on
/// top and stay within a datagram of 1200 bytes, which passes every usual path whole.
pub const MAX_PAYLOAD: usize = 1160;

/// Bytes around a payload, at most: RTP header (12), header extension (8), SRTP tag (16).
pub const PACKET_OVERHEAD: usize = 36;
/// With the original sequence number in front of a repeated payload (RFC 4588 §4) no datagram is
/// over 1200 bytes.
const _: () = assert!(MAX_PAYLOAD + PACKET_OVERHEAD + 2 <= 1_200);

/// Largest RTP payload in bytes that is forwarded as a publisher cut it. Publishers cut to 1200
/// bytes and less; what a path of 1500 bytes carries is the bound: without 48 bytes of IPv6 and UDP,
/// 12 of RTP header, 32 of header extensions, 2 of an RTX sequence number and 16 of the tag, 1390
/// are left.
pub const MAX_CUT_PAYLOAD: usize = 1500 - 48 - 12 - 32 - 2 - 16;

/// Largest access unit in bytes. A 3840x2160 picture of 4:2:0 has 12.4 MB raw, and every level
/// that allows it asks for at least half (MinCR, ITU-T H.264 table A-1): 6.2 MB. The codecs after
/// H.264 need less for the same picture.
pub(crate) const MAX_ACCESS_UNIT: usize = 8 << 20;

/// A stream inside this process: one rendition (main or sub) of one camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// A viewer inside this process: one WebRTC session. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewerId(pub u64);

/// The two kinds of track that a viewer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// A picture.
    Video,
    /// Sound.
    Audio,
}

/// A codec that can be forwarded to a viewer without touching its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264 in RTP, packetization-mode 1 (RFC 6184).
    H264,
    /// H.265 in RTP, one stream, no DONL (RFC 7798).
    H265,
    /// VP8 in RTP (RFC 7741).
    Vp8,
    /// VP9 in RTP (RFC 9628).
    Vp9,
    /// AV1 in RTP (the Alliance for Open Media's payload format, v1.0).
    Av1,
    /// Opus in RTP (RFC 7587). The RTP clock is 48 kHz whatever the sound's rate.
    Opus,
    /// G.711 µ-law (RFC 3551).
    Pcmu,
    /// G.711 A-law (RFC 3551).
    Pcma,
}

impl Codec {
    /// The RTP clock in ticks a second.
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::H264 | Self::H265 | Self::Vp8 | Self::Vp9 | Self::Av1 => 90_000,
            Self::Opus => 48_000,
            Self::Pcmu | Self::Pcma => 8_000,
        }
    }

    /// Whether this codec carries picture or sound.
    pub const fn kind(self) -> MediaKind {
        match self {
            Self::H264 | Self::H265 | Self::Vp8 | Self::Vp9 | Self::Av1 => MediaKind::Video,
            Self::Opus | Self::Pcmu | Self::Pcma => MediaKind::Audio,
        }
    }

    /// The codec of an `a=rtpmap` line's encoding name, which knows no case (RFC 8866 §6.6).
    pub fn from_name(name: &str) -> Option<Self> {
        const ALL: [Codec; 8] = [
            Codec::H264,
            Codec::H265,
            Codec::Vp8,
            Codec::Vp9,
            Codec::Av1,
            Codec::Opus,
            Codec::Pcmu,
            Codec::Pcma,
        ];
        ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    /// The encoding name of the `a=rtpmap` line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::H264 => "H264",
            Self::H265 => "H265",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::Av1 => "AV1",
            Self::Opus => "opus",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }
}

/// How large a picture is, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PictureSize {
    /// From left to right.
    pub width: u32,
    /// From top to bottom.
    pub height: u32,
}

/// Largest width or height in pixels that is believed: level 6.2 of H.264 and H.265 ends at 16,888 for
/// extreme shapes, and no camera or browser comes near.
pub(crate) const MAX_PICTURE_SIDE: u32 = 16_384;

/// An access unit of H.264 or H.265 made fit for browsers: no delimiters, no filler, parameter sets
/// before each keyframe.
#[derive(Debug, Clone)]
pub struct AccessUnit {
    /// NAL units in decoding order.
    pub units: Vec<Bytes>,
    /// Decoding can start here. H.264: an IDR picture, or intra slices alone behind a recovery
    /// point. H.265: an IRAP picture.
    pub keyframe: bool,
    /// It may be shown before a picture that was sent before it. H.264: it has a B slice, in a stream
    /// that does not rule that out. H.265: it does by its order count, or leads its IRAP picture.
    pub reordered: bool,
}

/// What one RTP payload of VP8, VP9 or AV1 tells of its picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PayloadHead {
    /// The picture begins with it.
    pub(crate) begins: bool,
    /// The picture begins with it, and decoding can start there.
    pub(crate) keyframe: bool,
    /// Told where a keyframe begins.
    pub(crate) size: Option<PictureSize>,
    /// Which picture it is of; `None` where the publisher does not number them.
    pub(crate) picture_id: Option<PictureId>,
}

/// A moment on this server's wall clock as an NTP timestamp: seconds since 1900 in the upper 32
/// bits, fractions in the lower (RFC 3550 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// Seconds between the NTP era (1900) and the Unix era (1970).
    const UNIX_OFFSET_SECONDS: u64 = 2_208_988_800;

    /// From microseconds since the Unix epoch.
    pub const fn from_unix_micros(micros: u64) -> Self {
        let seconds = micros / 1_000_000 + Self::UNIX_OFFSET_SECONDS;
        let fraction = ((micros % 1_000_000) << 32) / 1_000_000;
        Self((seconds << 32) | fraction)
    }

    /// Microseconds since the Unix epoch, rounded down; 0 for moments before 1970.
    pub const fn unix_micros(self) -> u64 {
        let seconds = (self.0 >> 32).saturating_sub(Self::UNIX_OFFSET_SECONDS);
        seconds * 1_000_000 + (((self.0 & 0xffff_ffff) * 1_000_000) >> 32)
    }
}

/// One access unit (video) or one packet (audio), as a source hands it over.
#[derive(Clone)]
pub struct Frame {
    /// The codec of `data`.
    pub codec: Codec,
    /// Presentation time in ticks of the codec's clock, extended to 64 bits so that it never wraps.
    /// Its origin is arbitrary and may change when `discontinuity` is set.
    pub ticks: u64,
    /// When it was captured, on this server's wall clock. Picture and sound of one source are placed
    /// on it by the source's sender reports where it sends them, else by arrival.
    pub captured: NtpTime,
    /// Decoding can start here. Always true for audio.
    pub keyframe: bool,
    /// The source was restarted before this frame: `ticks` has no relation to earlier frames.
    pub discontinuity: bool,
    /// The payload: for H.264 and H.265 the NAL units in decoding order without start codes or
    /// lengths; for VP8, VP9 and AV1 the RTP payloads as the publisher cut them, their picture ids
    /// in 15 bits; for audio exactly one entry.
    pub units: Vec<Bytes>,
    /// Of sound that is passed on packet by packet, as it came: what its packet was like.
    pub forwarded: Option<Forwarded>,
}

/// What a packet of sound was like on its way in, so that it is the same on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// Its sequence number, extended so that it never wraps. Receivers see the same gaps and the same
    /// order as we did, from which they conceal, repair and ask again.
    pub number: u64,
    /// Its marker bit: it is the first one behind a silence (RFC 3551 §4.1).
    pub marker: bool,
    /// Its whole payload where it came with redundancy (RED, RFC 2198), for receivers who take
    /// that. The frame's only unit is the newest block of it.
    pub red: Option<Bytes>,
}

/// How loud a packet of sound is, as its sender says (RFC 6464) or as it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioLevel {
    /// Below the loudest possible, in dB: 0 to 127 (silence).
    pub below_full: u8,
    /// Whether it is somebody who speaks, where the sender says so.
    pub voice: Option<bool>,
}

impl AudioLevel {
    /// Digital silence.
    pub const SILENCE: Self = Self { below_full: 127, voice: None };

    /// Of full scale, 0.0 to 1.0.
    pub fn amplitude(self) -> f32 {
        if self.below_full >= Self::SILENCE.below_full {
            return 0.0;
        }
        10_f32.powf(-f32::from(self.below_full) / 20.0)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("codec", &self.codec)
            .field("ticks", &self.ticks)
            .field("keyframe", &self.keyframe)
            .field("units", &self.units.iter().map(Bytes::len).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The next frame's serial. 64 bits do not wrap.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// A frame cut into RTP payloads, made once and shared by every viewer.
///
/// ```text
/// data:  | payload 0 | payload 1 | ... | payload n-1 |
/// ends:            ^           ^                    ^
/// ```
pub struct PacketisedFrame {
    /// The codec of the payloads.
    pub codec: Codec,
    /// See [`Frame::ticks`].
    pub ticks: u64,
    /// See [`Frame::captured`].
    pub captured: NtpTime,
    /// See [`Frame::keyframe`].
    pub keyframe: bool,
    /// See [`Frame::discontinuity`].
    pub discontinuity: bool,
    /// See [`Frame::forwarded`].
    pub forwarded: Option<Forwarded>,
    serial: u64,
    data: Box<[u8]>,
    ends: Box<[u32]>,
}

impl PacketisedFrame {
    /// Makes each of the frame's units a payload, as a publisher cut them; none if one of them is
    /// empty or larger than [`MAX_CUT_PAYLOAD`].
    pub(crate) fn as_cut(frame: &Frame) -> Self {
        let fits = |unit: &Bytes| (1..=MAX_CUT_PAYLOAD).contains(&unit.len());
        if !frame.units.iter().all(fits) {
            return Self::new(frame, Vec::new(), Vec::new());
        }
        let mut data = Vec::with_capacity(frame.units.iter().map(Bytes::len).sum());
        let mut ends = Vec::with_capacity(frame.units.len());
        for unit in &frame.units {
            data.extend_from_slice(unit);
            ends.push(data.len() as u32);
        }
        Self::new(frame, data, ends)
    }

    /// Joins a frame's times with its payloads.
    ///
    /// `ends[i]` is the offset in `data` behind payload `i`: rising, the last one equal to
    /// `data.len()`. The packetisers of this crate hold to that.
    pub(crate) fn new(frame: &Frame, data: Vec<u8>, ends: Vec<u32>) -> Self {
        debug_assert_eq!(ends.last().map_or(0, |end| *end as usize), data.len());
        Self {
            codec: frame.codec,
            ticks: frame.ticks,
            captured: frame.captured,
            keyframe: frame.keyframe,
            discontinuity: frame.discontinuity,
            forwarded: frame.forwarded.clone(),
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            data: data.into_boxed_slice(),
            ends: ends.into_boxed_slice(),
        }
    }

    /// Makes the frame's first unit its only payload, as audio has it; none if that is empty or does
    /// not fit into a packet.
    pub(crate) fn single(frame: &Frame) -> Self {
        match frame.units.first() {
            Some(unit) if (1..=MAX_PAYLOAD).contains(&unit.len()) => {
                Self::new(frame, unit.to_vec(), vec![unit.len() as u32])
            }
            Some(_) | None => Self::new(frame, Vec::new(), Vec::new()),
        }
    }

    /// Names this frame among all of the process, of whatever stream; of two frames of one stream
    /// the later one has the greater. What was sent of a frame is found again by it, so that a
    /// packet is repeated from the very frame that it was made of.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// How many RTP packets the frame takes.
    pub fn packet_count(&self) -> usize {
        self.ends.len()
    }

    /// All payload bytes together.
    pub fn payload_bytes(&self) -> usize {
        self.data.len()
    }

    /// Bytes that it takes for as long as it is kept: payloads, and redundancy that came with them.
    pub(crate) fn kept_bytes(&self) -> usize {
        let red = self.forwarded.as_ref().and_then(|forwarded| forwarded.red.as_ref());
        self.data.len() + red.map_or(0, Bytes::len)
    }

    /// What the frame takes of a viewer's line, in bytes: payloads, headers and tags.
    pub fn wire_bytes(&self) -> usize {
        self.wire_bytes_from(0)
    }

    /// The same of payload `index` and those behind it; 0 when there are not so many.
    pub(crate) fn wire_bytes_from(&self, index: usize) -> usize {
        let packets = self.packet_count().saturating_sub(index);
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before));
        self.data.len() - start.map_or(0, |end| *end as usize) + packets * PACKET_OVERHEAD
    }

    /// The payloads in sending order.
    pub fn payloads(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.ends.len()).map(|index| self.payload(index))
    }

    /// Payload `index`, counted from 0. Panics when there are not so many.
    pub fn payload(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.data[start..self.ends[index] as usize]
    }
}

impl fmt::Debug for PacketisedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketisedFrame")
            .field("codec", &self.codec)
            .field("ticks", &self.ticks)
            .field("keyframe", &self.keyframe)
            .field("packets", &self.packet_count())
            .field("bytes", &self.payload_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_round_trip_is_exact_to_a_microsecond() {
        for micros in [0, 1, 999_999, 1_000_000, 1_795_000_000_123_456] {
            let back = NtpTime::from_unix_micros(micros).unix_micros();
            assert!(micros - back <= 1, "{micros} came back as {back}");
        }
    }
}

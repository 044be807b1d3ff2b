//! What virtual cameras send, kept so that what arrives can be compared with it byte by byte.
//!
//! Every slice and every packet of sound begins, behind its NAL header, with a mark that says which
//! frame of which stream it is: the counterpart of the strip in the synthetic cameras' pictures.

use bytes::Bytes;
use media::{Codec, Frame, MediaKind, NtpTime, PacketisedFrame, StreamId};

use crate::clock::SimTime;
use crate::random::Random;

/// Digits of a mark: stream (8) and number (16), each digit a byte from `@` on. No byte is zero, so
/// that start codes can be found between NAL units.
const MARK_BYTES: usize = 24;
/// As many frames as the server keeps of a group of pictures, and their bytes.
const GROUP_FRAMES_MAX: usize = media::gop::MAX_FRAMES;
const GROUP_BYTES_MAX: usize = media::gop::MAX_BYTES;

/// A frame that was handed to the server.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) keyframe: bool,
    /// Counts the source's clocks: frames of one epoch share a clock.
    pub(crate) epoch: u64,
    pub(crate) ticks: u64,
    pub(crate) clock_rate: u32,
    pub(crate) captured: NtpTime,
    pub(crate) at: SimTime,
    /// RTP packets that it takes.
    pub(crate) packets: u64,
    pub(crate) units: Vec<Bytes>,
}

/// Everything one stream sent, and what the server has cached of it.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// A frame's number is its place.
    pictures: Vec<Published>,
    sounds: Vec<Published>,
    /// The first frame that the server has cached; all later ones are too.
    cached_from: Option<usize>,
    cached_bytes: usize,
}

impl Log {
    pub(crate) fn of(&self, kind: MediaKind) -> &[Published] {
        match kind {
            MediaKind::Video => &self.pictures,
            MediaKind::Audio => &self.sounds,
        }
    }

    /// The numbers of the pictures that the server has cached.
    pub(crate) fn cached(&self) -> std::ops::Range<usize> {
        self.cached_from.unwrap_or(self.pictures.len())..self.pictures.len()
    }

    pub(crate) fn publish(
        &mut self,
        frame: &Frame,
        cut: &PacketisedFrame,
        epoch: u64,
        at: SimTime,
    ) {
        let published = Published {
            keyframe: frame.keyframe,
            epoch,
            ticks: frame.ticks,
            clock_rate: frame.codec.clock_rate(),
            captured: frame.captured,
            at,
            packets: cut.packet_count() as u64,
            units: frame.units.clone(),
        };
        match frame.codec.kind() {
            MediaKind::Audio => self.sounds.push(published),
            MediaKind::Video => {
                let number = self.pictures.len();
                self.pictures.push(published);
                self.cache(number, frame, cut.payload_bytes());
            }
        }
    }

    /// The source is gone.
    pub(crate) fn interrupt(&mut self) {
        self.cached_from = None;
    }

    fn cache(&mut self, number: usize, frame: &Frame, payload_bytes: usize) {
        if frame.keyframe {
            self.cached_from = Some(number);
            self.cached_bytes = 0;
        } else if frame.discontinuity {
            self.cached_from = None;
        }
        self.cached_bytes += payload_bytes;
        let is_over = self.cached_from.is_some_and(|from| number - from >= GROUP_FRAMES_MAX);
        if is_over || self.cached_bytes > GROUP_BYTES_MAX {
            self.cached_from = None;
        }
    }
}

/// How large a camera's frames are, in bytes of one slice.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    pub(crate) keyframe: (u64, u64),
    pub(crate) other: (u64, u64),
    pub(crate) slices_max: u64,
}

/// The NAL units of a picture.
pub(crate) fn units(
    stream: StreamId,
    number: usize,
    keyframe: bool,
    sizes: &Sizes,
    random: &mut Random,
) -> Vec<Bytes> {
    let (least, most) = if keyframe { sizes.keyframe } else { sizes.other };
    let slice = |random: &mut Random| {
        let header = if keyframe { 0x65 } else { 0x41 };
        let size = random.between(least, most) as usize;
        marked(&[header], stream, number, size, random)
    };
    let slices = random.between(1, sizes.slices_max);
    let mut units = Vec::new();
    if keyframe {
        units.push(Bytes::from_static(&[0x67, 66, 0xe0, 31, 1]));
        units.push(Bytes::from_static(&[0x68, 1, 2]));
    }
    units.extend((0..slices).map(|_| slice(random)));
    units
}

/// The one unit of a packet of sound.
pub(crate) fn sound(codec: Codec, stream: StreamId, number: usize, random: &mut Random) -> Bytes {
    let size = if codec == Codec::Opus { random.between(3, 100) } else { 160 - MARK_BYTES as u64 };
    marked(&[], stream, number, size as usize, random)
}

fn marked(head: &[u8], stream: StreamId, number: usize, size: usize, random: &mut Random) -> Bytes {
    let digit = |value: u64, at: u64| b'@' + (value >> (4 * at) & 15) as u8;
    let mut bytes = head.to_vec();
    bytes.extend((0..8).rev().map(|at| digit(u64::from(stream.0), at)));
    bytes.extend((0..16).rev().map(|at| digit(number as u64, at)));
    // One byte all through would hide a fragment that is put in the wrong place; noise costs time.
    let pattern: Vec<u8> = random.bytes(251).into_iter().map(|byte| byte | 1).collect();
    let mut body = pattern.repeat(size.div_ceil(pattern.len()));
    body.truncate(size);
    bytes.append(&mut body);
    bytes.into()
}

/// Which frame a slice or a packet of sound says it is of.
pub(crate) fn read_mark(kind: MediaKind, unit: &[u8]) -> Option<(StreamId, usize)> {
    let head = match kind {
        MediaKind::Video => 1,
        MediaKind::Audio => 0,
    };
    let digits = unit.get(head..head + MARK_BYTES)?;
    let value = |digits: &[u8]| {
        digits.iter().try_fold(0_u64, |value, digit| {
            let digit = digit.checked_sub(b'@').filter(|digit| *digit < 16)?;
            Some(value << 4 | u64::from(digit))
        })
    };
    Some((StreamId(value(&digits[..8])? as u32), value(&digits[8..])? as usize))
}

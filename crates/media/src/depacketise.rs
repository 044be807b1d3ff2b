//! From a publisher's RTP packets to frames: the way back of [`packetise`], for every codec.
//!
//! H.264 and H.265 come out as access units made fit for browsers; VP8, VP9 and AV1 as the payloads
//! that arrived, one picture's together, their picture ids in 15 bits; sound as the packets that
//! arrived. The caller puts packets into order and tells of missing ones; a picture that misses one
//! never comes out, and whether those behind it can be decoded is the caller's to decide.
//!
//! [`packetise`]: crate::packetise::packetise()

use bytes::Bytes;

use crate::fragments::NalPayloadError;
use crate::frame::{
    AccessUnit, Codec, MAX_ACCESS_UNIT, MAX_CUT_PAYLOAD, MediaKind, PayloadHead, PictureSize,
};
use crate::picture_id::{PictureId, PictureIds};
use crate::{av1, h264, h265, vp8, vp9};

/// One RTP packet of a publisher, as far as its payload format needs it.
#[derive(Debug, Clone)]
pub struct Packet {
    /// The RTP timestamp: equal in all packets of a picture.
    pub timestamp: u32,
    /// The marker bit: the last packet of a picture. Without meaning for sound.
    pub marker: bool,
    /// What stands behind header and extensions, without padding.
    pub payload: Bytes,
}

/// A whole frame: what [`Frame`](crate::Frame) needs from a codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// The RTP timestamp of its packets.
    pub timestamp: u32,
    /// Decoding can start here. Always true for sound.
    pub keyframe: bool,
    /// It is shown before a picture that was sent before it: browsers cannot play that live.
    pub reordered: bool,
    /// Of the newest keyframe; `None` for sound.
    pub size: Option<PictureSize>,
    /// See [`Frame::units`](crate::Frame::units).
    pub units: Vec<Bytes>,
}

/// Why packets make no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DepacketiseError {
    /// A payload that its codec's format does not allow.
    #[error("a {} payload of {bytes} bytes is cut short or breaks the format", codec.name())]
    Malformed {
        /// The settled codec.
        codec: Codec,
        /// How long the payload is.
        bytes: usize,
    },
    /// A payload that cannot be forwarded in one packet.
    #[error("a payload of {bytes} bytes; the publisher must cut to {MAX_CUT_PAYLOAD} or less")]
    PayloadSize {
        /// How long the payload is, as it would be forwarded.
        bytes: usize,
    },
    /// A picture whose first packet is missing.
    #[error("a picture without its beginning")]
    NoBeginning,
    /// A picture whose last packet is missing.
    #[error("a picture without its end")]
    NoEnd,
    /// A picture larger than any can be.
    #[error("a picture of more than {MAX_ACCESS_UNIT} bytes")]
    PictureSize,
    /// H.264 or H.265 payloads that do not fit each other.
    #[error(transparent)]
    Payload(#[from] NalPayloadError),
    /// An H.264 access unit that cannot be read.
    #[error(transparent)]
    H264(#[from] h264::H264Error),
    /// An H.265 access unit that cannot be read.
    #[error(transparent)]
    H265(#[from] h265::H265Error),
}

/// Puts one track's frames together.
///
/// At most `MAX_ACCESS_UNIT` bytes wait for the rest of a picture.
#[derive(Debug)]
pub struct Depacketiser {
    codec: Codec,
    format: Format,
    size: Option<PictureSize>,
    open: Option<Open>,
}

/// What reads the codec's payloads.
#[derive(Debug)]
enum Format {
    H264(h264::Depacketiser, h264::Normaliser),
    H265(h265::Depacketiser, h265::Normaliser),
    /// One payload's head after the other.
    AsCut(fn(&[u8]) -> Option<PayloadHead>, PictureIds),
    /// One packet, one frame.
    Single,
}

/// The picture whose packets are coming in.
#[derive(Debug)]
struct Open {
    timestamp: u32,
    /// NAL units, or payloads.
    units: Vec<Bytes>,
    bytes: usize,
    keyframe: bool,
    /// A packet was missing or broken: nothing comes out.
    broken: bool,
}

impl Depacketiser {
    /// For a track of this codec.
    pub fn new(codec: Codec) -> Self {
        let format = match codec {
            Codec::H264 => Format::H264(h264::Depacketiser::default(), h264::Normaliser::default()),
            Codec::H265 => Format::H265(h265::Depacketiser::default(), h265::Normaliser::default()),
            Codec::Vp8 => Format::AsCut(vp8::read_head, PictureIds::default()),
            Codec::Vp9 => Format::AsCut(vp9::read_head, PictureIds::default()),
            Codec::Av1 => Format::AsCut(av1::read_head, PictureIds::default()),
            Codec::Opus | Codec::Pcmu | Codec::Pcma => Format::Single,
        };
        Self { codec, format, size: None, open: None }
    }

    /// The codec it was made for.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Of the newest keyframe; `None` before the first and for sound.
    pub fn size(&self) -> Option<PictureSize> {
        self.size
    }

    /// A parameter set that came out of band, as one NAL unit (`sprop-parameter-sets` of H.264,
    /// `sprop-vps` and its like of H.265). Broken ones are passed over.
    pub fn handle_parameter_set(&mut self, nal: &[u8]) {
        match &mut self.format {
            Format::H264(_, normaliser) => normaliser.handle_parameter_set(nal),
            Format::H265(_, normaliser) => normaliser.handle_parameter_set(nal),
            Format::AsCut(..) | Format::Single => {}
        }
    }

    /// Packets before the next one are missing: the picture that is coming in will not be whole.
    pub fn handle_gap(&mut self) {
        if let Some(open) = &mut self.open {
            open.broken = true;
            open.units = Vec::new();
        }
    }

    /// The next packet in order. Answers the frames that are whole with it: its own picture where it
    /// is the last of it, and before that one whose end was not marked.
    ///
    /// After an error its picture is lost; the packet still begins the next one where it is of that.
    pub fn handle_packet(&mut self, packet: Packet) -> Result<Vec<Assembled>, DepacketiseError> {
        if self.codec.kind() == MediaKind::Audio {
            return self.handle_sound(packet).map(|sound| vec![sound]);
        }
        let timestamp = packet.timestamp;
        let ended = match self.open.take_if(|open| open.timestamp != timestamp) {
            Some(unmarked) => self.close(unmarked),
            None => Ok(None),
        };
        let marker = packet.marker;
        let added = self.add(packet);
        let mut frames: Vec<Assembled> = ended?.into_iter().collect();
        added?;
        if marker && let Some(open) = self.open.take() {
            frames.extend(self.close(open)?);
        }
        Ok(frames)
    }

    fn handle_sound(&self, packet: Packet) -> Result<Assembled, DepacketiseError> {
        let Packet { timestamp, payload, .. } = packet;
        match payload.len() {
            0 => Err(DepacketiseError::Malformed { codec: self.codec, bytes: 0 }),
            1..=MAX_CUT_PAYLOAD => Ok(Assembled {
                timestamp,
                keyframe: true,
                reordered: false,
                size: None,
                units: vec![payload],
            }),
            bytes => Err(DepacketiseError::PayloadSize { bytes }),
        }
    }

    /// Adds a packet to its picture.
    fn add(&mut self, packet: Packet) -> Result<(), DepacketiseError> {
        let Packet { timestamp, payload, .. } = packet;
        let mut open = self.open.take().unwrap_or_else(|| Open {
            timestamp,
            units: Vec::new(),
            bytes: 0,
            keyframe: false,
            broken: false,
        });
        let added = if open.broken { Ok(()) } else { self.add_payload(&mut open, payload) };
        if added.is_err() {
            open.broken = true;
            open.units = Vec::new();
        }
        self.open = Some(open);
        added
    }

    fn add_payload(&mut self, open: &mut Open, payload: Bytes) -> Result<(), DepacketiseError> {
        open.bytes += payload.len();
        if open.bytes > MAX_ACCESS_UNIT {
            return Err(DepacketiseError::PictureSize);
        }
        match &mut self.format {
            Format::H264(depacketiser, _) => {
                open.units.extend(depacketiser.handle_payload(&payload)?);
            }
            Format::H265(depacketiser, _) => {
                open.units.extend(depacketiser.handle_payload(&payload)?);
            }
            Format::AsCut(read_head, ids) => {
                let bytes = payload.len();
                let malformed = DepacketiseError::Malformed { codec: self.codec, bytes };
                let head = read_head(&payload).ok_or(malformed)?;
                if open.units.is_empty() && !head.begins {
                    return Err(DepacketiseError::NoBeginning);
                }
                if open.units.is_empty() {
                    open.keyframe = head.keyframe;
                    self.size = head.size.or(self.size);
                }
                open.units.push(renumbered(payload, head.picture_id, ids)?);
            }
            Format::Single => {}
        }
        Ok(())
    }

    /// The picture is over; `None` when nothing of it is worth sending.
    fn close(&mut self, open: Open) -> Result<Option<Assembled>, DepacketiseError> {
        if open.broken {
            self.forget_fragments();
            return Ok(None);
        }
        let Open { timestamp, units, keyframe, .. } = open;
        let unit = match &mut self.format {
            Format::H264(depacketiser, normaliser) => {
                depacketiser.handle_end_of_frame()?;
                check_beginning(&units, h264::begins_picture)?;
                let unit = normaliser.handle_access_unit(units)?;
                self.size = normaliser.format().map(|format| format.size());
                unit
            }
            Format::H265(depacketiser, normaliser) => {
                depacketiser.handle_end_of_frame()?;
                check_beginning(&units, h265::begins_picture)?;
                let unit = normaliser.handle_access_unit(units)?;
                self.size = normaliser.format().map(|format| format.size());
                unit
            }
            Format::AsCut(..) | Format::Single => {
                Some(AccessUnit { units, keyframe, reordered: false })
            }
        };
        Ok(unit.map(|AccessUnit { units, keyframe, reordered }| Assembled {
            timestamp,
            keyframe,
            reordered,
            size: self.size,
            units,
        }))
    }

    /// What is left of a broken picture must not end in the next one.
    fn forget_fragments(&mut self) {
        // Whether a NAL unit was open changes nothing: its picture is lost.
        match &mut self.format {
            Format::H264(depacketiser, _) => drop(depacketiser.handle_end_of_frame()),
            Format::H265(depacketiser, _) => drop(depacketiser.handle_end_of_frame()),
            Format::AsCut(..) | Format::Single => {}
        }
    }
}

/// The payload as it is forwarded.
fn renumbered(
    payload: Bytes,
    id: Option<PictureId>,
    ids: &mut PictureIds,
) -> Result<Bytes, DepacketiseError> {
    let payload = match id {
        Some(id) => ids.renumber(payload, id),
        None => payload,
    };
    match payload.len() {
        ..=MAX_CUT_PAYLOAD => Ok(payload),
        bytes => Err(DepacketiseError::PayloadSize { bytes }),
    }
}

/// A picture whose first packets are missing without anybody having told.
fn check_beginning(units: &[Bytes], begins: fn(&[u8]) -> bool) -> Result<(), DepacketiseError> {
    match units.first() {
        Some(first) if !begins(first) => Err(DepacketiseError::NoBeginning),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDR: [u8; 5] = [0x65, 0b1000_1000, 0x84, 0x11, 7];
    const SPS: &[u8] = &[
        0x67, 0x42, 0xc0, 0x16, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0xc0, 0x44, 0, 0, 3, 0, 4, 0, 0, 3,
        0, 0x7a, 0x3c, 0x58, 0xba, 0x80,
    ];
    const PPS: &[u8] = &[0x68, 0xce, 0x0f, 0xc8];

    #[test]
    fn h264_comes_out_fit_for_browsers() {
        let mut depacketiser = Depacketiser::new(Codec::H264);
        depacketiser.handle_parameter_set(SPS);
        depacketiser.handle_parameter_set(PPS);
        let delimiter = packet(1, false, &[0x09, 0xf0]);
        assert_eq!(depacketiser.handle_packet(delimiter), Ok(vec![]));
        let frames = depacketiser.handle_packet(packet(1, true, &IDR)).unwrap();
        assert_eq!(frames[0].units, [SPS, PPS, &IDR]);
        assert!(frames[0].keyframe);
        assert_eq!(frames[0].size, Some(PictureSize { width: 640, height: 360 }));
    }

    #[test]
    fn a_picture_whose_first_slice_is_missing_never_comes_out() {
        let mut depacketiser = Depacketiser::new(Codec::H264);
        depacketiser.handle_parameter_set(SPS);
        depacketiser.handle_parameter_set(PPS);
        let second_slice = packet(1, true, &[0x65, 0b0100_0110, 0x80]);
        assert_eq!(depacketiser.handle_packet(second_slice), Err(DepacketiseError::NoBeginning));
        assert_eq!(depacketiser.handle_packet(packet(2, true, &IDR)).unwrap().len(), 1);
    }

    #[test]
    fn what_is_behind_a_broken_picture_comes_out() {
        let mut depacketiser = Depacketiser::new(Codec::H265);
        let middle = packet(1, false, &[49 << 1, 1, 0x01, 9]);
        assert!(depacketiser.handle_packet(middle).is_err());
        let rest = packet(1, true, &[49 << 1, 1, 0x41, 9]);
        assert_eq!(depacketiser.handle_packet(rest), Ok(vec![]), "one error a picture");
        let open = packet(2, true, &[49 << 1, 1, 0x81, 9]);
        assert!(matches!(
            depacketiser.handle_packet(open),
            Err(DepacketiseError::Payload(NalPayloadError::NoEnd { .. }))
        ));
    }

    #[test]
    fn a_picture_without_end_is_bounded() {
        let mut depacketiser = Depacketiser::new(Codec::Vp8);
        let mut first = [0; 1200];
        first[..2].copy_from_slice(&[0x10, 1]);
        let first = packet(1, false, &first);
        depacketiser.handle_packet(first.clone()).unwrap();
        let more = Packet { payload: Bytes::from(vec![0; 1200]), ..first };
        let refused = (0..10_000).find_map(|_| depacketiser.handle_packet(more.clone()).err());
        assert_eq!(refused, Some(DepacketiseError::PictureSize));
        let open = depacketiser.open.as_ref().unwrap();
        assert!(open.bytes <= MAX_ACCESS_UNIT + 1200 && open.units.is_empty());
    }

    proptest! {
        #[test]
        fn any_packets_are_taken_without_panic(
            codec in prop::sample::select(vec![
                Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::Opus,
            ]),
            packets in prop::collection::vec(
                (0..4_u32, any::<bool>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)),
                0..40,
            ),
        ) {
            let mut depacketiser = Depacketiser::new(codec);
            for (timestamp, marker, gap, payload) in packets {
                if gap {
                    depacketiser.handle_gap();
                }
                let frames = depacketiser.handle_packet(packet(timestamp, marker, &payload));
                prop_assert!(frames.map_or(0, |frames| frames.len()) <= 2);
            }
        }
    }

    fn packet(timestamp: u32, marker: bool, payload: &[u8]) -> Packet {
        Packet { timestamp, marker, payload: Bytes::copy_from_slice(payload) }
    }
}

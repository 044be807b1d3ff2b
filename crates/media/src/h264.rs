//! H.264: parameter sets, B-frame detection, and packetising once (RFC 6184).

use bytes::Bytes;

use crate::frame::{Frame, PacketisedFrame};

/// Largest RTP payload that leaves room for header, extensions, SRTP tag and the RTX sequence number.
pub const MAX_PAYLOAD: usize = 1160;

/// What a sequence parameter set says of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoFormat {
    /// profile_idc, constraint flags, level_idc: the `profile-level-id` of RFC 6184 §8.1.
    pub profile_level_id: [u8; 3],
    /// Cropped width in pixels.
    pub width: u32,
    /// Cropped height in pixels.
    pub height: u32,
}

/// An access unit made fit for browsers: no AUD, no filler, parameter sets before each IDR.
#[derive(Debug, Clone)]
pub struct AccessUnit {
    /// NAL units in decoding order.
    pub units: Vec<Bytes>,
    /// Starts with an IDR picture (or a recovery point a browser can start from).
    pub keyframe: bool,
    /// Contains a B slice, or its stream reorders pictures.
    pub reordered: bool,
}

/// Why an access unit cannot be forwarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum H264Error {
    /// A NAL unit's length runs over the end of the buffer.
    #[error("NAL unit at byte {offset} claims {claimed} bytes, {available} are left")]
    Length { offset: usize, claimed: usize, available: usize },
    // further variants as the implementer needs
}

/// Cleans a camera's access units and keeps its parameter sets.
#[derive(Debug, Default)]
pub struct Normaliser {}

impl Normaliser {
    /// Takes parameter sets that came out of band (`sprop-parameter-sets`).
    pub fn handle_parameter_set(&mut self, _nal: &[u8]) {
        todo!()
    }
    /// One access unit in; `None` when nothing of it is worth sending (only AUD or filler).
    pub fn handle_access_unit(&mut self, _nals: Vec<Bytes>) -> Result<Option<AccessUnit>, H264Error> {
        todo!()
    }
    /// The format of the newest sequence parameter set.
    pub fn format(&self) -> Option<VideoFormat> {
        todo!()
    }
}

/// Splits 4-byte length prefixed NAL units (AVCC).
pub fn split_avcc(_data: &Bytes) -> Result<Vec<Bytes>, H264Error> {
    todo!()
}

/// Splits a byte stream with start codes (Annex B).
pub fn split_annex_b(_data: &Bytes) -> Vec<Bytes> {
    todo!()
}

/// Cuts a frame into RTP payloads (single NAL unit, STAP-A, FU-A) of at most [`MAX_PAYLOAD`] bytes.
/// The fragments of one NAL unit are of equal size, the last one may be shorter.
pub fn packetise(_frame: &Frame) -> PacketisedFrame {
    todo!()
}

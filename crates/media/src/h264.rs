//! H.264: parameter sets, B-frame detection, and packetising once (RFC 6184).
//!
//! A camera's access units are split into NAL units ([`split_avcc`], [`split_annex_b`]), made fit
//! for browsers ([`Normaliser`]) and cut into RTP payloads ([`packetise()`]). [`Depacketiser`] goes
//! the other way, for tests and load tools. Pictures are never decoded here.

mod depacketise;
mod error;
mod nal;
mod normalise;
mod packetise;
mod slice;
mod sps;

pub use crate::frame::{AccessUnit, MAX_PAYLOAD};
pub use depacketise::Depacketiser;
pub use error::H264Error;
pub(crate) use nal::begins_picture;
pub use nal::{NalType, split_annex_b, split_avcc};
pub use normalise::Normaliser;
pub use packetise::packetise;
pub use sps::{Sps, VideoFormat};

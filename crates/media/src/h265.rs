//! H.265: parameter sets, pictures out of order, and packetising once (RFC 7798).
//!
//! As [`h264`](crate::h264): a camera's access units are made fit for browsers ([`Normaliser`]) and
//! cut into RTP payloads ([`packetise()`]); [`Depacketiser`] goes the other way. Only the base layer
//! is forwarded. Pictures are never decoded here.

mod depacketise;
mod error;
mod nal;
mod normalise;
mod order;
mod packetise;
mod parameters;
mod slice;

pub use crate::frame::AccessUnit;
pub use depacketise::Depacketiser;
pub use error::H265Error;
pub use nal::NalType;
pub(crate) use nal::begins_picture;
pub use normalise::Normaliser;
pub use packetise::packetise;
pub use parameters::{Sps, VideoFormat};

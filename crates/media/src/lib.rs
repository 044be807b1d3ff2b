//! Frames in, SRTP out: the media plane's core.
//!
//! A camera's access units come in as [`Frame`]s, are packetised once ([`PacketisedFrame`]), and
//! leave once a viewer as protected RTP. This crate does no IO, reads no clock and knows no users:
//! it is told the time and the addresses, and hands back bytes to send.

mod av1;
pub mod batch;
mod bits;
mod cadence;
mod codec_set;
pub mod depacketise;
pub mod estimate;
pub mod fanout;
mod fragments;
pub mod frame;
pub mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod g711;
pub mod gop;
pub mod h264;
pub mod h265;
mod hub;
mod ice;
mod jitter;
pub mod negotiated;
pub mod opus;
pub mod packetise;
mod payloads;
pub mod peer;
pub mod peers;
mod picture_id;
pub mod publish;
pub mod publishers;
pub mod reception;
pub mod red;
pub mod route;
pub mod rtcp;
mod rtx;
pub mod srtp;
pub mod stun;
pub mod timeline;
pub mod viewer;
mod vp8;
mod vp9;

pub use codec_set::CodecSet;
pub use fragments::NalPayloadError;
pub use frame::{
    AudioLevel, Codec, Forwarded, Frame, MediaKind, NtpTime, PacketisedFrame, PictureSize,
    StreamId, ViewerId,
};

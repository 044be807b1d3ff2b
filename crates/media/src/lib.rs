//! Frames in, SRTP out: the media plane's core.
//!
//! A camera's access units come in as [`Frame`]s, are packetised once ([`PacketisedFrame`]), and
//! leave once a viewer as protected RTP. This crate does no IO, reads no clock and knows no users:
//! it is told the time and the addresses, and hands back bytes to send.

pub mod frame;
pub mod h264;
pub mod opus;
pub mod g711;
pub mod packetise;
pub mod gop;
pub mod srtp;
pub mod rtcp;
pub mod stun;
pub mod negotiated;
pub mod peer;
pub mod peers;
pub mod batch;
pub mod timeline;
pub mod viewer;
mod hub;
pub mod fanout;

pub use frame::{Codec, Frame, MediaKind, NtpTime, PacketisedFrame, StreamId, ViewerId};

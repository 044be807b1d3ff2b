//! The whole of the crate, from outside: streams of real cameras, offers of real browsers, and sessions over a wire
//! in virtual time.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod answered_codecs;
mod answered_feedback;
mod answered_microphones;
mod h264_streams;
mod h265_streams;
mod hostile_datagrams;
mod hostile_handshakes;
mod hostile_offers;
mod lossy_line;
mod moves;
mod publisher_line;
mod publishers_payloads;
mod puller_line;
mod viewer_plays;
mod viewer_switches;
mod voice_line;
mod voice_receivers;
mod wire;

//! What is sent in a benchmark, whoever sends it.

use std::time::Duration;

use media::Codec;

/// Whose frames they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A camera's, for viewers of picture and sound.
    Camera,
    /// Of somebody who speaks, for receivers of sound alone: passed on with their numbers.
    Voice,
}

/// Frames that all look alike.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) origin: Origin,
    pub(super) codec: Codec,
    /// RTP packets a frame, all of the same size.
    pub(super) packets: usize,
    /// Payload bytes of each.
    pub(super) payload: usize,
    /// From one frame to the next.
    pub(super) interval: Duration,
    /// Frames that a sender sends before another has its turn: tens of milliseconds of work.
    pub(super) frames_a_turn: u32,
}

/// A picture: 2 Mbit/s in the largest payloads that the packetiser makes.
pub(super) const VIDEO: Load = Load {
    origin: Origin::Camera,
    codec: Codec::H264,
    packets: 8,
    payload: 1160,
    interval: Duration::from_millis(40),
    frames_a_turn: 10,
};

/// Sound: 20 ms of Opus at 64 kbit/s.
pub(super) const AUDIO: Load = Load {
    origin: Origin::Camera,
    codec: Codec::Opus,
    packets: 1,
    payload: 160,
    interval: Duration::from_millis(20),
    frames_a_turn: 40,
};

/// The same of a voice.
pub(super) const VOICE: Load = Load { origin: Origin::Voice, ..AUDIO };

/// Sends a load to all viewers, and says when the kernel did not take all of it.
pub(super) trait Sender {
    fn send_frame(&mut self) -> anyhow::Result<()>;
}

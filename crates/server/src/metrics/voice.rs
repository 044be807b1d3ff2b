//! The voice relay's figures.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{count, counters, gauge};
use crate::voice::Status;

/// What the relay says of itself at one moment.
#[derive(Debug)]
pub(super) struct VoiceFigures(pub(super) Status);

impl Collector for VoiceFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let Status { residue, figures, delivery, audio_bytes, .. } = &self.0;
        let gauges = [
            ("manifold_voice_clients", "WebSockets of the voice relay", residue.connections),
            ("manifold_voices", "Voices that are heard", residue.voices),
            ("manifold_voice_senders", "Sessions of senders, heard or not", residue.senders),
            ("manifold_voice_receivers", "Sessions of receivers", residue.receivers),
            ("manifold_voice_waiting", "Receivers that wait for a voice", residue.waiting),
        ];
        for (name, help, value) in gauges {
            gauge(encoder, name, help)?.encode_gauge(&count(value))?;
        }
        counters(
            encoder,
            &[
                ("manifold_voices_begun", "Voices that began", figures.voices),
                (
                    "manifold_voice_receivers_connected",
                    "Receivers to whom a connection for sound came about",
                    figures.receivers,
                ),
                (
                    "manifold_voice_timeouts",
                    "Sessions of voices whose ICE and DTLS did not finish",
                    figures.timeouts,
                ),
                ("manifold_voice_audio_bytes", "Bytes of sound that senders sent", *audio_bytes),
                (
                    "manifold_voice_clients_refused",
                    "WebSockets that found all places taken",
                    figures.refused,
                ),
                (
                    "manifold_voice_clients_gave_way",
                    "Idle WebSockets that were closed for one of another address",
                    figures.gave_way,
                ),
                (
                    "manifold_voice_clients_flooding",
                    "WebSockets that were closed since they sent too many messages",
                    figures.flooded,
                ),
                (
                    "manifold_voice_clients_too_slow",
                    "WebSockets that were closed since they did not take their messages",
                    delivery.too_slow,
                ),
                (
                    "manifold_voice_messages_dropped",
                    "Messages that were not read, since a client sent too many",
                    figures.messages_dropped,
                ),
                (
                    "manifold_voice_messages_bad",
                    "Messages that could not be understood",
                    figures.messages_bad,
                ),
                (
                    "manifold_voice_levels_dropped",
                    "Levels not told to a client that is slow",
                    delivery.levels_dropped,
                ),
            ],
        )
    }
}

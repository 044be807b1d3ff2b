//! The voice relay's figures.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};

use super::{count, counter, counters, gauge};
use crate::voice::Status;
use crate::voice::mp3::Mp3Figures;

/// What the relay says of itself at one moment.
#[derive(Debug)]
pub(super) struct VoiceFigures(pub(super) Status);

impl Collector for VoiceFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let Status { residue, figures, delivery, audio_bytes, mp3, .. } = &self.0;
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
        )?;
        players(encoder, mp3)
    }
}

/// What speakers are played.
fn players(encoder: &mut DescriptorEncoder<'_>, mp3: &Mp3Figures) -> fmt::Result {
    gauge(encoder, "manifold_mp3_listeners", "Players of voices as MP3")?
        .encode_gauge(&mp3.listeners)?;
    gauge(encoder, "manifold_mp3_encoders", "Voices that somebody plays as MP3")?
        .encode_gauge(&mp3.encoders)?;
    counters(
        encoder,
        &[
            ("manifold_mp3_bytes_sent", "Bytes of MP3 handed to players", mp3.bytes_sent),
            (
                "manifold_mp3_drops_to_live",
                "Times that a player took nothing for so long that it was put back to live",
                mp3.drops_to_live,
            ),
            (
                "manifold_mp3_pauses",
                "Times that a voice paused, or came too late, and silence was put in",
                mp3.pauses,
            ),
            (
                "manifold_mp3_skips",
                "Times that some of a voice was left out, so that it is live again",
                mp3.skips,
            ),
            (
                "manifold_mp3_frames_missed",
                "Frames of MP3 not made, as the encoder had no time",
                mp3.frames_missed,
            ),
        ],
    )?;
    let help = "Packets of voices that were not played as MP3";
    let mut metric = counter(encoder, "manifold_mp3_packets_missing", help)?;
    let reasons =
        [("lost", mp3.packets_lost), ("late", mp3.packets_late), ("broken", mp3.packets_broken)];
    for (reason, number) in reasons {
        metric
            .encode_family(&[("reason", reason)])?
            .encode_counter::<NoLabelSet, _, f64>(&number, None)?;
    }
    Ok(())
}

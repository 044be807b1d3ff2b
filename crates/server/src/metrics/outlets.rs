//! What RTSP readers, still pictures and MP3 for speakers count as it happens.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};

use super::{counter, gauge};

/// One figure.
#[derive(Debug, Default)]
pub(crate) struct Figure(AtomicU64);

impl Figure {
    /// So many more.
    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// One less, of those that fall.
    pub(crate) fn subtract_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The figures. All rise, except `rtsp_connections`, `mp3_listeners` and `mp3_encoders`.
#[derive(Debug, Default)]
pub(crate) struct Outlets {
    /// Open RTSP connections.
    pub(crate) rtsp_connections: Figure,
    /// Requests answered with success.
    pub(crate) rtsp_requests_ok: Figure,
    /// Requests refused.
    pub(crate) rtsp_requests_refused: Figure,
    /// RTP packets written to readers.
    pub(crate) rtsp_packets_sent: Figure,
    /// Bytes written to clients, all headers included.
    pub(crate) rtsp_bytes_sent: Figure,
    /// Receiver reports and the like that clients sent.
    pub(crate) rtsp_reports_received: Figure,
    /// Connections ended because nothing was taken of what was written.
    pub(crate) rtsp_dropped_slow: Figure,
    /// Connections ended for what the client sent: no RTSP, too much of it, wrong passwords.
    pub(crate) rtsp_dropped_hostile: Figure,
    /// Connections ended because the client asked for nothing.
    pub(crate) rtsp_dropped_idle: Figure,
    /// Still pictures answered from the cache.
    pub(crate) stills_cached: Figure,
    /// Still pictures decoded and encoded.
    pub(crate) stills_made: Figure,
    /// Still pictures that could not be had.
    pub(crate) stills_failed: Figure,
    /// Players of MP3.
    pub(crate) mp3_listeners: Figure,
    /// Encoders that run: voices that somebody plays as MP3.
    pub(crate) mp3_encoders: Figure,
    /// Bytes of MP3 handed to players' connections.
    pub(crate) mp3_bytes_sent: Figure,
    /// How often a player took nothing for so long that it was put back to live.
    pub(crate) mp3_drops_to_live: Figure,
    /// Packets of voices made up for MP3, as they were lost.
    pub(crate) mp3_packets_lost: Figure,
    /// Packets of voices not played as MP3, as others overtook them.
    pub(crate) mp3_packets_late: Figure,
    /// Packets of voices not played as MP3, as they cannot be decoded.
    pub(crate) mp3_packets_broken: Figure,
    /// How often a voice paused, or its packets came too late, and silence was put in.
    pub(crate) mp3_pauses: Figure,
    /// How often some of a voice was left out of MP3, so that it is live again.
    pub(crate) mp3_skips: Figure,
    /// Frames of MP3 that were not made, as the encoder had no time.
    pub(crate) mp3_turns_missed: Figure,
}

/// Shows them.
#[derive(Debug)]
pub(super) struct OutletFigures(pub(super) Arc<Outlets>);

impl Collector for OutletFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let outlets = &self.0;
        gauge(encoder, "manifold_rtsp_connections", "Open RTSP connections")?
            .encode_gauge(&outlets.rtsp_connections.value())?;
        let plain = [
            (
                "manifold_rtsp_packets_sent",
                "Media packets written to RTSP readers",
                &outlets.rtsp_packets_sent,
            ),
            ("manifold_rtsp_bytes_sent", "Bytes written to RTSP clients", &outlets.rtsp_bytes_sent),
            (
                "manifold_rtsp_reports_received",
                "RTCP packets that RTSP readers sent",
                &outlets.rtsp_reports_received,
            ),
        ];
        for (name, help, figure) in plain {
            counter(encoder, name, help)?
                .encode_counter::<NoLabelSet, _, f64>(&figure.value(), None)?;
        }
        labelled(
            encoder,
            "manifold_rtsp_requests",
            "RTSP requests answered",
            "result",
            &[("ok", &outlets.rtsp_requests_ok), ("refused", &outlets.rtsp_requests_refused)],
        )?;
        let help = "RTSP connections ended by the server";
        labelled(
            encoder,
            "manifold_rtsp_connections_dropped",
            help,
            "reason",
            &[
                ("slow", &outlets.rtsp_dropped_slow),
                ("hostile", &outlets.rtsp_dropped_hostile),
                ("idle", &outlets.rtsp_dropped_idle),
            ],
        )?;
        labelled(
            encoder,
            "manifold_stills",
            "Still pictures asked for",
            "result",
            &[
                ("cached", &outlets.stills_cached),
                ("made", &outlets.stills_made),
                ("failed", &outlets.stills_failed),
            ],
        )?;
        mp3(encoder, outlets)
    }
}

fn mp3(encoder: &mut DescriptorEncoder<'_>, outlets: &Outlets) -> fmt::Result {
    gauge(encoder, "manifold_mp3_listeners", "Players of MP3")?
        .encode_gauge(&outlets.mp3_listeners.value())?;
    gauge(encoder, "manifold_mp3_encoders", "Voices that somebody plays as MP3")?
        .encode_gauge(&outlets.mp3_encoders.value())?;
    let plain = [
        ("manifold_mp3_bytes_sent", "Bytes of MP3 sent to players", &outlets.mp3_bytes_sent),
        (
            "manifold_mp3_drops_to_live",
            "Times that a player took nothing for so long that it was put back to live",
            &outlets.mp3_drops_to_live,
        ),
        (
            "manifold_mp3_pauses",
            "Times that a voice paused, or came too late, and silence was put in",
            &outlets.mp3_pauses,
        ),
        (
            "manifold_mp3_skips",
            "Times that some of a voice was left out, so that it is live again",
            &outlets.mp3_skips,
        ),
        (
            "manifold_mp3_frames_missed",
            "Frames of MP3 not made, as the encoder had no time",
            &outlets.mp3_turns_missed,
        ),
    ];
    for (name, help, figure) in plain {
        counter(encoder, name, help)?
            .encode_counter::<NoLabelSet, _, f64>(&figure.value(), None)?;
    }
    labelled(
        encoder,
        "manifold_mp3_packets_missing",
        "Packets of voices that were not played as MP3",
        "reason",
        &[
            ("lost", &outlets.mp3_packets_lost),
            ("late", &outlets.mp3_packets_late),
            ("broken", &outlets.mp3_packets_broken),
        ],
    )
}

fn labelled(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: &[(&str, &Figure)],
) -> fmt::Result {
    let mut metric = counter(encoder, name, help)?;
    for (value, figure) in values {
        metric
            .encode_family(&[(label, *value)])?
            .encode_counter::<NoLabelSet, _, f64>(&figure.value(), None)?;
    }
    Ok(())
}

//! What RTSP readers, still pictures and connections by TLS count as it happens.

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

/// The figures. All rise, except `rtsp_connections` and `live_sockets`.
#[derive(Debug, Default)]
pub(crate) struct Outlets {
    /// Open RTSP connections.
    pub(crate) rtsp_connections: Figure,
    /// Connections closed at once, since there were too many.
    pub(crate) rtsp_connections_refused: Figure,
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
    /// Connections ended because they were let see no camera in time.
    pub(crate) rtsp_dropped_stranger: Figure,
    /// Of such, those that gave way to others before.
    pub(crate) rtsp_dropped_evicted: Figure,
    /// Open WebSockets of dashboards.
    pub(crate) live_sockets: Figure,
    /// Those that were not let in, since there were too many.
    pub(crate) live_refused: Figure,
    /// Those that took nothing of what was written.
    pub(crate) live_dropped_slow: Figure,
    /// Resets of a camera or of all.
    pub(crate) resets: Figure,
    /// Still pictures answered from the cache.
    pub(crate) stills_cached: Figure,
    /// Still pictures decoded and encoded.
    pub(crate) stills_made: Figure,
    /// Still pictures that could not be had.
    pub(crate) stills_failed: Figure,
    /// Handshakes of TLS that were completed.
    pub(crate) tls_handshakes_ok: Figure,
    /// Handshakes of TLS that one side gave up, and connections that spoke something else.
    pub(crate) tls_handshakes_failed: Figure,
    /// Connections ended because the handshake of TLS took too long.
    pub(crate) tls_handshakes_slow: Figure,
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
        gauge(encoder, "manifold_live_sockets", "Open WebSockets of dashboards")?
            .encode_gauge(&outlets.live_sockets.value())?;
        for (name, help, figure) in plain(outlets) {
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
                ("stranger", &outlets.rtsp_dropped_stranger),
                ("evicted", &outlets.rtsp_dropped_evicted),
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
        labelled(
            encoder,
            "manifold_tls_handshakes",
            "Connections to the port of HTTPS",
            "result",
            &[
                ("ok", &outlets.tls_handshakes_ok),
                ("failed", &outlets.tls_handshakes_failed),
                ("slow", &outlets.tls_handshakes_slow),
            ],
        )
    }
}

/// What is counted without a label: name, help, figure.
fn plain(outlets: &Outlets) -> [(&'static str, &'static str, &Figure); 7] {
    [
        ("manifold_resets", "Resets of a camera or of all", &outlets.resets),
        (
            "manifold_live_sockets_refused",
            "WebSockets of dashboards not let in, since there were too many",
            &outlets.live_refused,
        ),
        (
            "manifold_live_sockets_slow",
            "WebSockets of dashboards dropped, since nothing was taken of what was written",
            &outlets.live_dropped_slow,
        ),
        (
            "manifold_rtsp_connections_refused",
            "RTSP connections closed at once, since there were too many",
            &outlets.rtsp_connections_refused,
        ),
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
    ]
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

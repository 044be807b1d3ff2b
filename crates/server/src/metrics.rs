//! Figures for Prometheus, in the OpenMetrics text format.
//!
//! Everything but the HTTP counters is computed from one [`Snapshot`] when it is asked for: there is
//! no second account that could drift from the first. `docs/ref/metrics.md` lists the names.

mod cluster;
mod outlets;
mod process;
mod store;
mod voice;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use engine::{Rendition, SwitchReason};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

pub(crate) use outlets::Outlets;

use cluster::NodeFigures;
use outlets::OutletFigures;
use process::ProcessFigures;
use store::StoreFigures;
use voice::VoiceFigures;

use crate::app::{CameraSnapshot, JOIN_BUCKETS_MS, Snapshot};
use crate::cluster::ClusterFigures;
use crate::ledger::StoreHealth;
use crate::voice::Status;

/// HTTP requests by route and status; counted as they happen. The label values are the routes of
/// the router and the status codes it answers, so the family cannot grow without bound.
#[derive(Debug, Default)]
pub(crate) struct Requests(Family<RequestLabels, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RequestLabels {
    route: String,
    status: u16,
}

impl EncodeLabelSet for RequestLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        [("route", self.route.clone()), ("status", self.status.to_string())].encode(encoder)
    }
}

impl Requests {
    /// One more. `route` is a route's pattern, never a path that a client chose.
    pub(crate) fn count(&self, route: &str, status: u16) {
        self.0.get_or_create(&RequestLabels { route: route.to_owned(), status }).inc();
    }
}

/// All figures as text.
pub(crate) fn encode(
    snapshot: Snapshot,
    requests: &Requests,
    outlets: &Arc<Outlets>,
    store: StoreHealth,
    cluster: Option<ClusterFigures>,
    voice: Option<Status>,
    uptime: Duration,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register("manifold_http_requests", "HTTP requests answered", requests.0.clone());
    registry.register_collector(Box::new(OutletFigures(Arc::clone(outlets))));
    registry.register_collector(Box::new(StoreFigures(store)));
    if let Some(figures) = cluster {
        registry.register_collector(Box::new(NodeFigures(figures)));
    }
    if let Some(status) = voice {
        registry.register_collector(Box::new(VoiceFigures(status)));
    }
    registry.register_collector(Box::new(ProcessFigures));
    registry.register_collector(Box::new(Figures { snapshot, uptime }));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Figures {
    snapshot: Snapshot,
    uptime: Duration,
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.sources(encoder)?;
        self.cameras(encoder)?;
        self.media(encoder)?;
        self.switches(encoder)?;
        self.revocations(encoder)?;
        self.left_behind(encoder)?;
        self.probes(encoder)?;
        let audit = &self.snapshot.audit;
        counters(
            encoder,
            &[
                ("manifold_audit_rows_written", "Rows added to the audit trail", audit.written),
                ("manifold_audit_rows_lost", "Rows of it that found no place", audit.lost),
            ],
        )?;
        gauge(encoder, "manifold_feeds_given", "Streams that other nodes pull from here")?
            .encode_gauge(&count(self.snapshot.feeds))?;
        self.quotas(encoder)?;
        self.joins(encoder)?;
        gauge(encoder, "manifold_viewers_connected", "Viewers to whom media flows")?
            .encode_gauge(&self.snapshot.media.viewers_connected)?;
        gauge(encoder, "manifold_tcp_connections", "Connections for media at present")?
            .encode_gauge(&self.snapshot.media.tcp.open)?;
        gauge(
            encoder,
            "manifold_viewers_limited",
            "Viewers whose line is too thin for their stream",
        )?
        .encode_gauge(&self.snapshot.media.viewers_limited)?;
        gauge(encoder, "manifold_reservations", "Live reservations")?
            .encode_gauge(&count(self.snapshot.reservations.len()))?;
        gauge(encoder, "manifold_uptime_seconds", "Seconds since the start")?
            .encode_gauge(&self.uptime.as_secs_f64())
    }
}

/// Picks one figure of a kind of switch.
type SwitchFigure = fn(&(Rendition, SwitchReason, u64, u64)) -> u64;

/// Picks one figure of a camera.
type CameraFigure = fn(&CameraSnapshot) -> u64;

impl Figures {
    fn sources(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sources = &self.snapshot.sources;
        let mut metric = gauge(encoder, "cctv_streams_active", "Live reservations of a source")?;
        for source in sources {
            let labels = [("source", source.id.as_str())];
            metric.encode_family(&labels)?.encode_gauge(&source.current)?;
        }
        let mut metric = gauge(encoder, "cctv_streams_limit", "Most reservations of a source")?;
        for source in sources {
            let labels = [("source", source.id.as_str())];
            metric.encode_family(&labels)?.encode_gauge(&source.limit)?;
        }
        Ok(())
    }

    fn cameras(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let cameras = &self.snapshot.cameras;
        let mut metric = gauge(encoder, "manifold_viewers", "Reservations of a camera")?;
        for camera in cameras {
            let labels = [("camera_id", camera.about.id.as_str())];
            metric.encode_family(&labels)?.encode_gauge(&camera.viewer_count)?;
        }
        let mut states: BTreeMap<&str, u32> = BTreeMap::new();
        for camera in cameras {
            *states.entry(camera.state).or_default() += 1;
        }
        let mut metric = gauge(encoder, "manifold_sources", "Cameras in a state")?;
        for (state, number) in states {
            metric.encode_family(&[("state", state)])?.encode_gauge(&number)?;
        }
        let pullers: u32 = cameras.iter().map(|camera| camera.pullers).sum();
        gauge(encoder, "manifold_pullers", "Pullers that run")?.encode_gauge(&pullers)?;
        let figures: [(&str, &str, CameraFigure); 3] = [
            ("manifold_pulls_started", "Pullers started for a camera", |c| c.pulls_started),
            ("manifold_pulls_failed", "Pullers of a camera that failed", |c| c.pulls_failed),
            ("manifold_source_packets_lost", "Packets lost on the way from a camera", |c| {
                c.packets_lost
            }),
        ];
        for (name, help, value) in figures {
            let mut metric = counter(encoder, name, help)?;
            for camera in cameras {
                let labels = [("camera_id", camera.about.id.as_str())];
                metric
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, f64>(&value(camera), None)?;
            }
        }
        Ok(())
    }

    /// What comes in and goes out.
    fn media(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let media = &self.snapshot.media;
        let figures = [
            ("manifold_frames_in", "Frames that sources brought in", media.frames_in),
            ("manifold_packets_sent", "Media packets sent to viewers", media.packets_sent),
            ("manifold_bytes_sent", "Bytes of media packets sent to viewers", media.bytes_sent),
            (
                "manifold_packets_received",
                "Datagrams received on the media port",
                media.packets_received,
            ),
            (
                "manifold_datagrams_dropped",
                "Datagrams on the media port that belong to nobody or are not authentic",
                media.datagrams_dropped,
            ),
            (
                "manifold_send_drops",
                "Media packets that the socket would not take",
                media.send_drops,
            ),
            (
                "manifold_keyframe_requests",
                "Keyframe requests from viewers (PLI and FIR)",
                media.keyframe_requests,
            ),
            (
                "manifold_packets_lost_reported",
                "Packets that viewers reported lost",
                media.packets_lost_reported,
            ),
        ];
        counters(encoder, &figures)?;
        self.repairs(encoder)?;
        self.paths(encoder)?;
        self.publishers(encoder)?;
        self.voices(encoder)
    }

    /// What is lost on the way to viewers, and what is done about it.
    fn repairs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let media = &self.snapshot.media;
        let figures = [
            ("manifold_nacks", "Packets that viewers asked for again", media.nacks),
            ("manifold_repairs", "Packets sent again since a viewer asked", media.repairs),
            (
                "manifold_repairs_refused",
                "Packets not sent again, as a viewer asked too often, too early or for too much",
                media.repairs_refused,
            ),
            (
                "manifold_repairs_missed",
                "Packets not sent again, as they are not kept any more or never were sent",
                media.repairs_missed,
            ),
            (
                "manifold_frames_skipped",
                "Frames not sent to a viewer that could not keep up",
                media.frames_skipped,
            ),
            (
                "manifold_frames_not_taken",
                "Frames not sent to a viewer whose answer has no such codec",
                media.frames_not_taken,
            ),
            (
                "manifold_packets_too_late",
                "Packets of voices not passed on, as they came twice or too late for a number",
                media.packets_too_late,
            ),
            (
                "manifold_frames_not_cut",
                "Frames of which no packets could be made",
                media.frames_not_cut,
            ),
            (
                "manifold_tap_frames_skipped",
                "Frames not handed to an RTSP reader that could not keep up",
                media.tap_frames_skipped,
            ),
        ];
        counters(encoder, &figures)
    }

    /// By which ways viewers come.
    fn paths(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let media = &self.snapshot.media;
        let figures = [
            (
                "manifold_viewer_moves",
                "Viewers that moved to another address, or between UDP and TCP",
                media.moves,
            ),
            (
                "manifold_consents_expired",
                "Viewers let go since no ICE check came for 30 s",
                media.consents_expired,
            ),
            (
                "manifold_sessions_failed",
                "Sessions of viewers and publishers that ended since something in the server panicked",
                media.sessions_failed,
            ),
            (
                "manifold_tcp_connections_accepted",
                "Connections for media that were let in",
                media.tcp.accepted,
            ),
            (
                "manifold_tcp_connections_refused",
                "Connections for media that were closed at once, since there were too many",
                media.tcp.refused,
            ),
            (
                "manifold_tcp_strangers_dropped",
                "Connections for media that were dropped, since no authentic check came",
                media.tcp.strangers,
            ),
            (
                "manifold_tcp_strangers_evicted",
                "Connections for media that gave way to others before an authentic check came",
                media.tcp.evicted,
            ),
            (
                "manifold_tcp_framing_errors",
                "Connections for media that were dropped, since what came was not framed by RFC 4571",
                media.tcp.framing_errors,
            ),
        ];
        counters(encoder, &figures)
    }

    fn publishers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let media = &self.snapshot.media;
        gauge(encoder, "manifold_publishers_connected", "Publishers whose connection stands")?
            .encode_gauge(&media.publishers_connected)?;
        let figures = [
            (
                "manifold_publisher_packets",
                "Packets of media from publishers that somebody watched",
                media.publisher_packets,
            ),
            (
                "manifold_publisher_packets_lost",
                "Packets of publishers that never came",
                media.publisher_packets_lost,
            ),
            (
                "manifold_publisher_nacks",
                "Requests for lost packets that were sent to publishers",
                media.publisher_nacks,
            ),
            (
                "manifold_publisher_frames_withheld",
                "Pictures of publishers not passed on: broken, or waiting for a keyframe",
                media.publisher_frames_withheld,
            ),
            (
                "manifold_publisher_keyframes_asked",
                "Keyframes that publishers were asked for",
                media.publisher_keyframes_asked,
            ),
            (
                "manifold_publisher_overflows",
                "Datagrams and frames of publishers for which a queue had no room",
                media.publisher_overflows,
            ),
        ];
        counters(encoder, &figures)
    }

    /// What comes from those who speak.
    fn voices(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sum = &self.snapshot.media.voices.sum;
        let figures = [
            ("manifold_voice_packets", "Packets of sound from senders", sum.tracks.packets),
            (
                "manifold_voice_packets_lost",
                "Packets of senders that never came, or too late to be passed on",
                sum.tracks.lost,
            ),
            (
                "manifold_voice_packets_late",
                "Packets of senders not passed on: twice, too late, or beside another source",
                sum.tracks.late,
            ),
            (
                "manifold_voice_packets_withheld",
                "Packets of senders not passed on: too large, or redundancy that cannot be read",
                sum.tracks.withheld,
            ),
            (
                "manifold_voice_nacks",
                "Requests for lost packets that were sent to senders",
                sum.nacks,
            ),
        ];
        counters(encoder, &figures)
    }
}

impl Figures {
    fn switches(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let figures: [(&str, &str, SwitchFigure); 2] = [
            ("manifold_switches", "Viewers that went to the camera's other stream", |row| row.2),
            ("manifold_switches_failed", "Switches that were given up", |row| row.3),
        ];
        for (name, help, value) in figures {
            let mut metric = counter(encoder, name, help)?;
            for row in self.snapshot.switches.rows() {
                let labels = [("to", row.0.as_str()), ("reason", row.1.as_str())];
                metric
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, f64>(&value(&row), None)?;
            }
        }
        Ok(())
    }

    fn revocations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Viewers whose right to watch ended before their lease";
        let mut metric = counter(encoder, "manifold_grants_ended", help)?;
        for (cause, count) in self.snapshot.revocations.counts() {
            let labels = [("reason", cause.word())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        Ok(())
    }

    fn left_behind(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let figures = self.snapshot.left_behind;
        let help = "Reservations given back because nobody was there for them any more";
        let mut metric = counter(encoder, "manifold_reservations_left_behind", help)?;
        for (why, count) in [("page_gone", figures.page_gone), ("hung_up", figures.hung_up)] {
            let labels = [("why", why)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        Ok(())
    }

    fn probes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Cameras that nobody watches, asked how they are";
        let mut metric = counter(encoder, "manifold_probes", help)?;
        for (outcome, count) in &self.snapshot.probes {
            let labels = [("outcome", *outcome)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(count, None)?;
        }
        Ok(())
    }

    fn quotas(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let figures = &self.snapshot.quota_figures;
        let help = "Reservations that a limit forbade";
        let mut metric = counter(encoder, "manifold_quota_refusals", help)?;
        let scopes = [("user", figures.user), ("source", figures.source), ("total", figures.total)];
        for (scope, count) in scopes {
            let labels = [("scope", scope)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        let help = "Reservations that gave way to one of a higher class";
        counter(encoder, "manifold_preemptions", help)?
            .encode_counter::<NoLabelSet, _, f64>(&figures.preempted, None)
    }

    fn joins(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = &self.snapshot.join_buckets;
        let bounds = JOIN_BUCKETS_MS.iter().map(|ms| Duration::from_millis(*ms).as_secs_f64());
        let bounds = bounds.chain(std::iter::once(f64::INFINITY));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let sum = Duration::from_millis(self.snapshot.join_sum_ms).as_secs_f64();
        encoder
            .encode_descriptor(
                "manifold_join_duration_seconds",
                "From the WHEP POST to the first packet of media",
                None,
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }
}

fn gauge<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}

/// The encoder appends `_total` to the name.
/// Counters without labels: name, help, value.
fn counters(encoder: &mut DescriptorEncoder<'_>, figures: &[(&str, &str, u64)]) -> fmt::Result {
    for (name, help, value) in figures {
        counter(encoder, name, help)?.encode_counter::<NoLabelSet, _, f64>(value, None)?;
    }
    Ok(())
}

fn counter<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

/// A length as a gauge value.
fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

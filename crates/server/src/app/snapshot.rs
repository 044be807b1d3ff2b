//! The whole state at one instant.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use control::{CameraId, ReservationId, SourceId, Timestamp, Unit};
use engine::{
    CameraView, Condition, SessionState, SessionView, SourceFailure, StreamView, SwitchFigures,
};
use media::estimate::LineState;

use super::actor::Actor;
use super::clock::Clock;
use super::endings::QuotaFigures;
use super::grants::RevocationFigures;
use super::joins::Joins;
use super::pages::LeftFigures;
use super::park::ProbeFigures;
use super::publishing::Presence;
use super::{CameraConfig, CameraOrigin};
use crate::audit::AuditFigures;
use crate::ingest::{RtspTransport, SourceFormat, SourceUrl};
use crate::net::MediaFigures;

/// The whole state at one instant, computed from the leases and the sessions.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// Units in use, of all sources together.
    pub(crate) total_current: u32,
    pub(crate) total_limit: u32,
    /// What is counted.
    pub(crate) unit: Unit,
    /// What one user may use over all sources.
    pub(crate) per_user: Option<u32>,
    /// The store of reservations did not answer: leases and counts are those that it last told.
    pub(crate) is_store_lost: bool,
    /// What quotas forbade and took since the start.
    pub(crate) quota_figures: QuotaFigures,
    /// Sources in the order of the config.
    pub(crate) sources: Vec<SourceSnapshot>,
    /// Cameras in the order of their ids.
    pub(crate) cameras: Vec<CameraSnapshot>,
    /// Live reservations, the next to expire first.
    pub(crate) reservations: Vec<ReservationSnapshot>,
    pub(crate) media: MediaFigures,
    /// Joins since the start, from the WHEP POST to the first media: how many in each bucket of
    /// `JOIN_BUCKETS_MS`, not cumulative; the last counts those beyond.
    pub(crate) join_buckets: Vec<u64>,
    pub(crate) join_sum_ms: u64,
    /// Viewers that went from one stream to another since the start.
    pub(crate) switches: SwitchFigures,
    /// Viewers that lost their right to watch since the start.
    pub(crate) revocations: RevocationFigures,
    /// Reservations that nobody was there for any more.
    pub(crate) left_behind: LeftFigures,
    /// What became of asking cameras that nobody watches.
    pub(crate) probes: ProbeFigures,
    /// Rows of the audit trail.
    pub(crate) audit: AuditFigures,
    /// Streams that other nodes pull from here.
    pub(crate) feeds: usize,
    /// Nodes of the cluster that are not heard, so that what only they know is missing.
    pub(crate) missing_nodes: Vec<String>,
}

/// What this node knows of itself, without asking the store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Here {
    /// Cameras in the order of their ids.
    pub(crate) cameras: Vec<CameraSnapshot>,
    /// Reservations to whose viewers media flows.
    pub(crate) connected: Vec<ReservationId>,
}

#[derive(Debug, Clone)]
pub(crate) struct SourceSnapshot {
    pub(crate) id: SourceId,
    pub(crate) name: String,
    pub(crate) name_ar: String,
    pub(crate) configured_limit: u32,
    pub(crate) current: u32,
    pub(crate) limit: u32,
    /// Its cameras that are being watched.
    pub(crate) active_cameras: u32,
}

/// What a camera is: made anew when its definition changes, and shared by all snapshots until then, for a large
/// park is looked at several times a second.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) id: CameraId,
    pub(crate) name: String,
    pub(crate) name_ar: String,
    pub(crate) location: String,
    pub(crate) source: SourceId,
    /// Credentials removed.
    pub(crate) url: String,
    /// Credentials removed.
    pub(crate) sub_url: Option<String>,
    /// There is something in its addresses that is not shown.
    pub(crate) has_credentials: bool,
    pub(crate) origin: CameraOrigin,
    pub(crate) transport: RtspTransport,
    pub(crate) close_after: Duration,
    pub(crate) has_sub: bool,
    pub(crate) on_demand: bool,
    pub(crate) synthetic: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct CameraSnapshot {
    pub(crate) about: Arc<About>,
    /// When it was last asked how it is, without a viewer.
    pub(crate) probed_at: Option<SystemTime>,
    /// "ONLINE" | "OFFLINE" | "ERROR"
    pub(crate) status: &'static str,
    /// "idle" | "connecting" | "live" | "closing" | "unreachable" | "unauthorized" | "not_found" | "no_publisher" | "no_keyframe" | "b_frames" | "unsupported_codec" | "lost" | "protocol"
    pub(crate) state: &'static str,
    /// One sentence; None when live or idle.
    pub(crate) reason: Option<String>,
    /// Until the next attempt by itself; None while none is waited for.
    pub(crate) retry_in: Option<Duration>,
    /// Live reservations.
    pub(crate) viewer_count: u32,
    pub(crate) active_since: Option<SystemTime>,
    /// The picture's codec, by its name in SDP; like what follows, of a live stream only.
    pub(crate) codec: Option<&'static str>,
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
    /// From one keyframe to the next, once two have come.
    pub(crate) keyframe_interval: Option<Duration>,
    pub(crate) audio: Option<&'static str>,
    /// Pullers running for it now (0 or 1 a rendition) and started since the start.
    pub(crate) pullers: u32,
    pub(crate) pulls_started: u64,
    /// Attempts that failed since the start.
    pub(crate) pulls_failed: u64,
    /// Packets lost on the way from the camera since the start.
    pub(crate) packets_lost: u64,
    /// Its streams: the full picture, then the smaller one if there is one.
    pub(crate) renditions: Vec<RenditionSnapshot>,
    /// The nodes of the cluster that have it, in the order of their names; empty where this server is alone.
    pub(crate) nodes: Vec<NodeSnapshot>,
}

/// How a camera is at one node.
#[derive(Debug, Clone)]
pub(crate) struct NodeSnapshot {
    pub(crate) node: String,
    /// It pulls the camera, and other nodes pull it.
    pub(crate) is_origin: bool,
    /// As of the camera.
    pub(crate) state: &'static str,
    /// One sentence; None when live or idle.
    pub(crate) reason: Option<String>,
}

/// One of a camera's streams.
#[derive(Debug, Clone)]
pub(crate) struct RenditionSnapshot {
    /// "main" | "sub"
    pub(crate) rendition: &'static str,
    /// As of the camera.
    pub(crate) state: &'static str,
    /// One sentence; None when live or idle.
    pub(crate) reason: Option<String>,
    /// Reservations whose viewers see it.
    pub(crate) viewer_count: u32,
    pub(crate) codec: Option<&'static str>,
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
    pub(crate) keyframe_interval: Option<Duration>,
}

#[derive(Debug, Clone)]
pub(crate) struct ReservationSnapshot {
    pub(crate) id: ReservationId,
    pub(crate) camera: CameraId,
    pub(crate) user: String,
    pub(crate) created_at: SystemTime,
    /// When its lease runs out, unless it is renewed.
    pub(crate) expires_at: SystemTime,
    /// Media flows to it.
    pub(crate) connected: bool,
    /// How far its viewer has come; `None` where that is on another node.
    pub(crate) stage: Option<Stage>,
    /// What the viewer last told of its line.
    pub(crate) line: Option<LineState>,
}

/// How far a viewer has come on its way to a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It has a place; no offer was answered.
    Reserved,
    /// Its offer was answered; no ICE check has come.
    Answered,
    /// ICE found a way; DTLS is not done.
    PathFound,
    /// DTLS is done; no packet of media has left.
    Connected,
    /// Media is sent.
    Playing,
}

impl Snapshot {
    /// What there is to show of an application that has ended.
    pub(crate) fn of_nothing() -> Self {
        Self {
            total_current: 0,
            total_limit: 0,
            unit: Unit::default(),
            per_user: None,
            is_store_lost: false,
            quota_figures: QuotaFigures::default(),
            sources: Vec::new(),
            cameras: Vec::new(),
            reservations: Vec::new(),
            media: MediaFigures::default(),
            join_buckets: Joins::default().buckets.to_vec(),
            join_sum_ms: 0,
            switches: SwitchFigures::default(),
            revocations: RevocationFigures::default(),
            left_behind: LeftFigures::default(),
            probes: ProbeFigures::default(),
            audit: AuditFigures::default(),
            feeds: 0,
            missing_nodes: Vec::new(),
        }
    }
}

impl From<&CameraConfig> for About {
    fn from(config: &CameraConfig) -> Self {
        let camera = &config.definition;
        Self {
            id: camera.id.clone(),
            name: camera.name.clone(),
            name_ar: camera.name_ar.clone(),
            location: camera.location.clone(),
            source: camera.source.clone(),
            url: config.main.display(),
            sub_url: config.sub.as_ref().map(SourceUrl::display),
            has_credentials: config.has_credentials(),
            origin: config.origin,
            transport: config.transport,
            close_after: config.close_after,
            has_sub: config.sub.is_some(),
            on_demand: config.on_demand,
            synthetic: config.main.is_synthetic(),
        }
    }
}

impl Actor {
    pub(super) fn snapshot(&self, ledger: &control::ledger::Snapshot, now: Timestamp) -> Snapshot {
        let cameras = self.engine.cameras().filter_map(|view| {
            let about = Arc::clone(self.abouts.get(&view.camera.id)?);
            Some(self.camera_snapshot(&view, about, now))
        });
        Snapshot {
            total_current: ledger.total.current,
            total_limit: ledger.total.limit,
            unit: self.quota.unit(),
            per_user: self.quota.user_limit(),
            is_store_lost: false,
            quota_figures: self.quota_figures,
            sources: self.source_snapshots(ledger),
            cameras: cameras.collect(),
            reservations: ledger
                .leases
                .iter()
                .map(|lease| self.reservation_snapshot(lease))
                .collect(),
            media: self.media_figures(),
            join_buckets: self.joins.buckets.to_vec(),
            join_sum_ms: self.joins.sum_ms,
            switches: *self.engine.switches(),
            revocations: self.grants.ended,
            left_behind: self.pages.figures,
            probes: self.findings.figures.clone(),
            audit: self.journal.audit().figures(),
            feeds: self.feeds.count(),
            missing_nodes: Vec::new(),
        }
    }

    pub(super) fn here(&self) -> Here {
        let now = self.clock.now();
        let cameras = self.engine.cameras().filter_map(|view| {
            let about = Arc::clone(self.abouts.get(&view.camera.id)?);
            Some(self.camera_snapshot(&view, about, now))
        });
        let connected =
            self.engine.sessions().filter(|session| session.state == SessionState::Connected);
        Here {
            cameras: cameras.collect(),
            connected: connected.map(|session| session.reservation.id.clone()).collect(),
        }
    }

    /// Readers inside this process are viewers to whom media flows, too.
    fn media_figures(&self) -> MediaFigures {
        let mut figures = self.media.figures();
        figures.viewers_connected += self.outlets.readers() as u64;
        figures
    }

    fn source_snapshots(&self, ledger: &control::ledger::Snapshot) -> Vec<SourceSnapshot> {
        let of = |id: &SourceId| ledger.sources.iter().find(|usage| usage.source == *id);
        let snapshots = self.sources.iter().map(|source| SourceSnapshot {
            id: source.id.clone(),
            name: source.name.clone(),
            name_ar: source.name_ar.clone(),
            configured_limit: source.limit,
            current: of(&source.id).map_or(0, |usage| usage.usage.current),
            limit: of(&source.id).map_or(source.limit, |usage| usage.usage.limit),
            active_cameras: of(&source.id).map_or(0, |usage| usage.active_cameras),
        });
        snapshots.collect()
    }

    fn camera_snapshot(
        &self,
        view: &CameraView<'_>,
        about: Arc<About>,
        now: Timestamp,
    ) -> CameraSnapshot {
        let camera = view.camera;
        let leading = view.leading();
        // Nobody wants it, and nobody could have it.
        let presence = self.publishing.presence(&camera.id, leading.rendition);
        let condition = match (leading.condition, presence) {
            (Condition::Idle, Some(Presence::Nobody)) => {
                Condition::Failed(&SourceFailure::NoPublisher)
            }
            (condition, _) => self.as_found(camera, condition, leading.is_pulling),
        };
        let format = self.pullers.format(leading.id);
        let active_since = view.streams().filter_map(|stream| stream.active_since).min();
        let reservations: usize = view.streams().map(|stream| stream.reservations).sum();
        let running = view.streams().filter(|stream| stream.is_pulling).count();
        CameraSnapshot {
            about,
            probed_at: self.findings.get(&camera.id).map(|finding| finding.at),
            status: condition.status(),
            state: condition.word(),
            reason: reason(&condition),
            retry_in: leading.retry_at.map(|at| at.saturating_since(now)),
            viewer_count: u32::try_from(reservations).unwrap_or(u32::MAX),
            active_since: active_since.map(|since| self.clock.system_time(since)),
            codec: format.map(|format| format.codec.name()),
            width: format.map(|format| format.width),
            height: format.map(|format| format.height),
            keyframe_interval: self.pullers.keyframe_interval(leading.id),
            audio: format.and_then(audio_name),
            pullers: u32::try_from(running).unwrap_or(u32::MAX),
            pulls_started: view.streams().map(|stream| stream.pulls_started).sum(),
            pulls_failed: view.streams().map(|stream| stream.failures).sum(),
            packets_lost: view.streams().map(|stream| self.pullers.lost(stream.id)).sum(),
            renditions: view.streams().map(|stream| self.rendition_snapshot(&stream)).collect(),
            nodes: Vec::new(),
        }
    }

    /// What was last found of a camera that no puller runs for, where that is known.
    fn as_found<'a>(
        &'a self,
        camera: &control::Camera,
        condition: Condition<'a>,
        is_pulling: bool,
    ) -> Condition<'a> {
        let finding = self.findings.get(&camera.id).map(|finding| &finding.result);
        match (condition, finding) {
            (Condition::Idle | Condition::Failed(_), Some(Err(failure))) if !is_pulling => {
                Condition::Failed(failure)
            }
            (condition, _) => condition,
        }
    }

    fn rendition_snapshot(&self, stream: &StreamView<'_>) -> RenditionSnapshot {
        let format = self.pullers.format(stream.id);
        RenditionSnapshot {
            rendition: stream.rendition.as_str(),
            state: stream.condition.word(),
            reason: reason(&stream.condition),
            viewer_count: u32::try_from(stream.reservations).unwrap_or(u32::MAX),
            codec: format.map(|format| format.codec.name()),
            width: format.map(|format| format.width),
            height: format.map(|format| format.height),
            keyframe_interval: self.pullers.keyframe_interval(stream.id),
        }
    }

    fn reservation_snapshot(&self, lease: &control::Lease) -> ReservationSnapshot {
        let clock: &Clock = &self.clock;
        let session = self.engine.session(lease.id());
        ReservationSnapshot {
            id: lease.id().clone(),
            camera: lease.reservation.camera.clone(),
            user: lease.reservation.user.clone(),
            created_at: clock.system_time(lease.created_at),
            expires_at: clock.system_time(lease.expires_at),
            connected: session.is_some_and(|session| session.state == SessionState::Connected),
            stage: session.map(|session| self.stage(&session)),
            line: session.and_then(|session| self.peers.get(&session.viewer?)?.line),
        }
    }
}

impl Actor {
    /// Readers inside this process have no peer: they are given frames as soon as they are there.
    fn stage(&self, session: &SessionView<'_>) -> Stage {
        let peer = session.viewer.and_then(|viewer| self.peers.get(&viewer));
        match session.state {
            SessionState::Reserved | SessionState::Ended => Stage::Reserved,
            SessionState::Negotiated if peer.is_some_and(|peer| peer.is_checked) => {
                Stage::PathFound
            }
            SessionState::Negotiated => Stage::Answered,
            SessionState::Connected if peer.is_none_or(|peer| peer.has_media) => Stage::Playing,
            SessionState::Connected => Stage::Connected,
        }
    }
}

fn reason(condition: &Condition<'_>) -> Option<String> {
    match condition {
        Condition::Failed(failure) => Some(failure.to_string()),
        Condition::Idle | Condition::Connecting | Condition::Live | Condition::Closing => None,
    }
}

fn audio_name(format: SourceFormat) -> Option<&'static str> {
    format.audio.map(media::Codec::name)
}

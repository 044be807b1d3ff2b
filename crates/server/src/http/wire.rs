//! Every shape that travels as JSON, and nothing else: no rules live here.
//!
//! Field names are the contract with dashboards and scripts; `docs/ref/api.md` describes them.

pub(super) mod audit;
pub(super) mod live;
pub(super) mod nodes;
pub(crate) mod operations;
pub(super) mod park;
pub(super) mod sources;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Claims of an access token in LiveKit's format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// Id of the key that signed.
    pub(crate) iss: String,
    /// The participant's identity, `viewer_<reservation_id>` for viewers.
    #[serde(default)]
    pub(crate) sub: String,
    /// Seconds since the Unix epoch; the token is worthless from then on.
    pub(crate) exp: u64,
    /// Seconds since the Unix epoch; the token is worthless until then.
    #[serde(default)]
    pub(crate) nbf: u64,
    /// Makes two tokens of one second distinguishable.
    #[serde(default)]
    pub(crate) jti: String,
    #[serde(default)]
    pub(crate) video: VideoGrant,
    /// `role` and `sources` are ours, the rest is of whoever made the token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) attributes: BTreeMap<String, serde_json::Value>,
}

/// What a token allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VideoGrant {
    pub(crate) room_join: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) room: String,
    /// LiveKit takes a missing value for yes.
    pub(crate) can_subscribe: Option<bool>,
    pub(crate) can_publish: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) room_admin: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) room_create: bool,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(super) struct ReserveRequest {
    pub(super) camera_id: String,
    pub(super) user_id: String,
    /// As text, so that a wrong one is answered with a sentence of our own.
    #[serde(default)]
    pub(super) quality: Option<String>,
    /// 0 to 9: where a quota is used up, a reservation of a lower one gives way.
    #[serde(default)]
    pub(super) priority: Option<u64>,
    /// Where a page shows it: the name with which the page also opens `/ws/stream/stats`, 1 to 64 of
    /// `A-Z a-z 0-9 - _`. The reservation is released soon after the page's last socket ended, if nothing is
    /// heard of the viewer since.
    #[serde(default)]
    pub(super) page: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(utoipa::ToSchema)]
pub(super) enum Quality {
    Low,
    Medium,
    High,
    Auto,
}

/// No `Debug`, for the token and the passwords are secrets.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct ReserveAnswer {
    pub(super) reservation_id: String,
    pub(super) camera_id: String,
    pub(super) camera_name: String,
    pub(super) room_name: String,
    pub(super) token: String,
    pub(super) livekit_url: String,
    pub(super) whep_url: String,
    /// For the offer's own `RTCPeerConnection`; left out where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ice_servers: Vec<IceServerAnswer>,
    pub(super) expires_at: String,
    pub(super) quality: Quality,
    /// The stream with which it begins: `main` or `sub`.
    pub(super) rendition: &'static str,
    pub(super) source: String,
    pub(super) current_usage: u32,
    pub(super) limit: u32,
}

/// A STUN or TURN server, as WebRTC's `RTCIceServer` has it. No `Debug`, for it has a password.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct IceServerAnswer {
    pub(super) urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) credential: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ReleaseAnswer {
    pub(super) reservation_id: String,
    pub(super) source: String,
    pub(super) released: bool,
    pub(super) new_count: u32,
}

/// A new stream key: no `Debug`, for it is a secret.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct StreamKeyAnswer {
    pub(super) camera_id: String,
    pub(super) stream_key: String,
    /// Where to publish, as this server was asked; missing where it was asked without a host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) whip_url: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct HeartbeatRequest {
    /// Seconds.
    #[serde(default)]
    pub(super) extend_ttl: Option<u32>,
    /// From here on; as before where it is left out.
    #[serde(default)]
    pub(super) quality: Option<String>,
    /// Pictures that the page has decoded since its session began.
    #[serde(default)]
    pub(super) frames_decoded: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct HeartbeatAnswer {
    pub(super) reservation_id: String,
    /// Seconds.
    pub(super) remaining_ttl: u64,
    pub(super) updated: bool,
    pub(super) token: String,
    pub(super) expires_at: String,
    pub(super) quality: Quality,
    /// The stream that the viewer sees: `main` or `sub`.
    pub(super) rendition: String,
    /// How often it went from one to the other.
    pub(super) switches: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub(super) struct StatsAnswer {
    pub(super) active_streams: usize,
    pub(super) total_viewers: u32,
    pub(super) source_counts: BTreeMap<String, u32>,
    pub(super) source_stats: BTreeMap<String, SourceStats>,
    pub(super) camera_stats: Vec<CameraStats>,
    pub(super) stats: Vec<SourceUsage>,
    pub(super) total: Usage,
    /// Nodes of the cluster that do not answer, so that what only they know is missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) missing_nodes: Vec<String>,
    pub(super) timestamp: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub(super) struct SourceStats {
    pub(super) source: String,
    pub(super) current: u32,
    pub(super) limit: u32,
    pub(super) usage_percent: f64,
    pub(super) active_cameras: u32,
    pub(super) available: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub(super) struct CameraStats {
    pub(super) camera_id: String,
    pub(super) camera_name: String,
    pub(super) viewer_count: u32,
    pub(super) source: String,
    pub(super) active_since: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub(super) struct SourceUsage {
    pub(super) source: String,
    #[serde(flatten)]
    pub(super) usage: Usage,
}

#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub(super) struct Usage {
    pub(super) current: u32,
    pub(super) limit: u32,
    pub(super) percentage: f64,
    pub(super) available: u32,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CamerasQuery {
    pub(super) source: Option<String>,
    pub(super) status: Option<String>,
    pub(super) search: Option<String>,
    pub(super) limit: Option<usize>,
    pub(super) offset: Option<usize>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct CamerasAnswer {
    pub(super) cameras: Vec<Camera>,
    /// Cameras that match, of which `cameras` is a part.
    pub(super) total: usize,
    pub(super) limit: usize,
    pub(super) offset: usize,
    /// Nodes of the cluster that do not answer: what is theirs is not in the states.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) missing_nodes: Vec<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Camera {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) name_ar: String,
    pub(super) location: String,
    pub(super) source: String,
    /// `config` (the settings file) or `stored` (the API).
    pub(super) origin: &'static str,
    /// Credentials removed.
    pub(super) url: String,
    /// Credentials removed.
    pub(super) sub_url: Option<String>,
    /// There is something in the addresses that is not shown.
    pub(super) has_credentials: bool,
    pub(super) has_sub: bool,
    /// `tcp` or `udp`.
    pub(super) transport: &'static str,
    /// As `5s`.
    pub(super) close_after: String,
    pub(super) on_demand: bool,
    pub(super) synthetic: bool,
    pub(super) status: &'static str,
    pub(super) state: &'static str,
    pub(super) reason: Option<String>,
    pub(super) retry_in_s: Option<u64>,
    /// When it was last asked how it is while nobody watched it.
    pub(super) probed_at: Option<String>,
    pub(super) viewer_count: u32,
    pub(super) active_since: Option<String>,
    pub(super) codec: Option<&'static str>,
    pub(super) width: Option<u32>,
    pub(super) height: Option<u32>,
    /// From one keyframe to the next, once two have come.
    pub(super) keyframe_interval_s: Option<f64>,
    pub(super) audio: Option<&'static str>,
    pub(super) pullers: u32,
    pub(super) pulls_started: u64,
    pub(super) renditions: Vec<Rendition>,
    /// The nodes that have it, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) nodes: Vec<CameraNode>,
}

/// How a camera is at one node of a cluster.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct CameraNode {
    pub(super) node: String,
    /// It pulls the camera; the others pull it from there.
    pub(super) origin: bool,
    pub(super) state: &'static str,
    pub(super) reason: Option<String>,
}

/// One of a camera's streams.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Rendition {
    /// `main` or `sub`.
    pub(super) rendition: &'static str,
    pub(super) state: &'static str,
    pub(super) reason: Option<String>,
    pub(super) viewer_count: u32,
    pub(super) codec: Option<&'static str>,
    pub(super) width: Option<u32>,
    pub(super) height: Option<u32>,
    pub(super) keyframe_interval_s: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct RoomsAnswer {
    pub(super) rooms: Vec<Room>,
}

#[derive(Debug, Serialize)]
pub(super) struct Room {
    pub(super) name: String,
    /// The publisher included, as LiveKit counts.
    pub(super) num_participants: u32,
    pub(super) num_publishers: u32,
    /// Seconds since the Unix epoch.
    pub(super) creation_time: Option<u64>,
    /// For `DELETE /ingress/{id}`.
    pub(super) ingress_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) participants: Option<Vec<Participant>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Participant {
    pub(super) identity: String,
    /// The user of the reservation, or the camera's name.
    pub(super) name: String,
    /// `ACTIVE` once media flows, `JOINED` before.
    pub(super) state: &'static str,
    /// Seconds since the Unix epoch.
    pub(super) joined_at: Option<u64>,
    pub(super) is_publisher: bool,
}

/// A viewer was sent away.
#[derive(Debug, Serialize)]
pub(super) struct RemovedAnswer {
    pub(super) room: String,
    pub(super) identity: String,
    /// `false`: the node with the session is still to read of it.
    pub(super) removed: bool,
    pub(super) source: String,
    pub(super) new_count: u32,
    /// Who did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// LiveKit's `RoomParticipantIdentity`.
#[derive(Debug, Deserialize)]
pub(super) struct RemoveParticipant {
    pub(super) room: String,
    pub(super) identity: String,
}

/// An error as Twirp has it.
#[derive(Debug, Serialize)]
pub(super) struct TwirpError<'a> {
    pub(super) code: &'static str,
    pub(super) msg: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct IngressAnswer {
    pub(super) ingress_id: String,
    pub(super) stopped: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct HealthAnswer {
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    pub(super) webrtc_available: bool,
    pub(super) audio_server_running: bool,
    pub(super) active_streams: usize,
    pub(super) connected_clients: usize,
    pub(super) uptime_seconds: u64,
    pub(super) store: StoreAnswer,
    /// Missing where this server is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<ClusterAnswer>,
}

/// Which nodes are there, as this one sees it.
#[derive(Debug, Serialize)]
pub(super) struct ClusterAnswer {
    /// The one that was asked.
    pub(super) node: String,
    /// The others.
    pub(super) nodes: Vec<NodeAnswer>,
}

#[derive(Debug, Serialize)]
pub(super) struct NodeAnswer {
    pub(super) node: String,
    /// It answers this node.
    pub(super) available: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

/// Where leases are kept. While it does not answer, the server goes on by itself (`on_store_loss`).
#[derive(Debug, Serialize)]
pub(super) struct StoreAnswer {
    /// Without user and password; `memory` is this process.
    pub(super) url: String,
    pub(super) available: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) away_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct MetricsQuery {
    pub(super) format: Option<String>,
}

/// `/metrics` for plain clients.
#[derive(Debug, Serialize)]
pub(super) struct MetricsAnswer {
    pub(super) uptime_seconds: u64,
    pub(super) active_connections: usize,
    pub(super) active_streams: usize,
    pub(super) total_audio_bytes: u64,
    pub(super) webrtc_available: bool,
    /// Missing where this server is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<ClusterMetrics>,
}

/// A node's part in its cluster; counted since its start from `origins_taken` on.
#[derive(Debug, Serialize)]
pub(super) struct ClusterMetrics {
    pub(super) nodes: u64,
    pub(super) origins: u64,
    pub(super) feeds_taken: u64,
    pub(super) origins_taken: u64,
    pub(super) origins_lost: u64,
    pub(super) pulls_alone: u64,
    pub(super) rehomings: u64,
    pub(super) registrations_lost: u64,
    pub(super) records_learned: u64,
    pub(super) records_refused: u64,
}

/// Problem details (RFC 9457).
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ProblemBody<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) title: &'a str,
    pub(super) status: u16,
    pub(super) detail: &'a str,
    /// Each thing that is wrong by itself, of cameras that were sent.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) problems: &'a [park::RowProblem],
    /// Tells it from others of its status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<&'a str>,
}

/// Query of `GET /api/v1/cameras/{id}/frame.jpeg`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FrameQuery {
    /// Most pixels in a row.
    pub(super) width: Option<u32>,
}

/// How a page gets to HTTPS, without which browsers keep the microphone closed.
#[derive(Debug, Serialize)]
pub(super) struct TlsAnswer {
    /// Null where there is no HTTPS.
    pub(super) https_port: Option<u16>,
    /// Where the certificate of the local authority is; null where there is none to install.
    pub(super) ca: Option<&'static str>,
    /// `auto`, `files` or `off`.
    pub(super) mode: &'static str,
}

#[derive(Debug, Deserialize)]
pub(super) struct AuthorityQuery {
    /// `pem` or `der`.
    pub(super) format: Option<String>,
}

/// What `--ready-file` holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) listen: Vec<String>,
    /// `None`: there is no port of its own for voice clients.
    pub(crate) audio: Option<String>,
    /// `None`: HTTPS is off.
    pub(crate) https: Option<String>,
    pub(crate) udp: String,
    /// Where connections for media are taken; null where they are not.
    pub(crate) tcp: Option<String>,
    /// `None`: RTSP is off.
    pub(crate) rtsp: Option<String>,
}

/// A message of a voice client. Fields that are not named here are passed over.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum VoiceRequest {
    StartSending {
        #[serde(default)]
        stream_id: Option<String>,
    },
    WebrtcOffer {
        offer: VoiceDescription,
        #[serde(default)]
        stream_id: Option<String>,
    },
    StartReceiving {
        #[serde(default)]
        stream_id: Option<String>,
    },
    WebrtcAnswer {
        answer: VoiceDescription,
        #[serde(default)]
        stream_id: Option<String>,
    },
    IceCandidate,
    GetAvailableStreams,
    StopStream {
        #[serde(default)]
        stream_id: Option<String>,
    },
    Ping,
    LocalIp,
}

/// `RTCSessionDescription` as browsers write it. Which of the two it is, the message says.
#[derive(Debug, Deserialize)]
pub(super) struct VoiceDescription {
    pub(super) sdp: String,
}

/// A message to a voice client.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum VoiceAnswer<'a> {
    SenderReady {
        connection_id: String,
    },
    WebrtcAnswer {
        answer: SessionDescription<'a>,
    },
    WebrtcOffer {
        offer: SessionDescription<'a>,
        stream_id: String,
    },
    AvailableStreams {
        streams: Vec<String>,
    },
    StreamAvailable {
        stream_id: String,
    },
    StreamEnded {
        stream_id: String,
    },
    AudioData {
        stream_id: String,
        /// Seconds since the Unix epoch.
        timestamp: f64,
        /// Of full scale, 0 to 1.
        level: f32,
        /// The same in dB below full scale, 0 to -127.
        dbov: i16,
        /// Whether somebody speaks; null where the sender does not say.
        voice: Option<bool>,
    },
    Pong,
    Error {
        message: String,
    },
}

/// `RTCSessionDescriptionInit`.
#[derive(Debug, Serialize)]
pub(super) struct SessionDescription<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) sdp: &'a str,
}

/// Query of `/ws`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct VoiceQuery {
    pub(super) token: Option<String>,
}

/// `GET /stream/status`
#[derive(Debug, Serialize)]
pub(super) struct StreamStatus {
    /// The newest last.
    pub(super) active_streams: Vec<String>,
}

/// `GET /voice/config`: what a page that speaks or listens has to know.
#[derive(Serialize)]
pub(super) struct VoiceSettings {
    pub(super) enabled: bool,
    /// For `RTCPeerConnection`, under the browser's own name.
    #[serde(rename = "iceServers")]
    pub(super) ice_servers: Vec<IceServerAnswer>,
    /// For `getUserMedia`, under the browser's own names.
    pub(super) audio: AudioConstraints,
    /// A token must be given as `?token=`.
    pub(super) token_required: bool,
    pub(super) max_connections: u32,
    /// From an offer to the end of ICE and DTLS.
    pub(super) connection_timeout_seconds: u64,
    /// The longest message.
    pub(super) message_bytes_max: usize,
}

/// `MediaTrackConstraints`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AudioConstraints {
    pub(super) sample_rate: u32,
    pub(super) channel_count: u8,
    pub(super) echo_cancellation: bool,
    pub(super) noise_suppression: bool,
    pub(super) auto_gain_control: bool,
    /// Seconds.
    pub(super) latency: f64,
}

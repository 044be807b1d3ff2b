//! `GET /api/v1/bundle`: what a report of a fault needs of the server itself.
//!
//! The settings are put together anew of values that are no secrets, so that a secret cannot be among them:
//! nothing is searched for and taken out.

use axum::Json;
use axum::extract::State;

use super::Http;
use super::caller::Caller;
use super::problem::Problem;
use super::wire::operations::{
    AuthView, BundleAnswer, CameraView, MediaView, SettingsView, SourceView, UrlView, VoiceView,
};
use crate::config::{self, AuthMode, Camera, Config, Door};
use crate::ingest::{RtspTransport, SourceUrl};
use crate::ledger::LedgerPlace;
use crate::logging;
use crate::net::MediaTcp;
use crate::tls::Certificates;

#[utoipa::path(
    get,
    path = "/api/v1/bundle",
    tag = "operations",
    summary = "What a report of a fault needs of the server: settings without secrets, newest log lines",
    responses((status = 200, description = "Nothing of it is secret", body = BundleAnswer)),
)]
pub(super) async fn bundle(
    State(http): State<Http>,
    caller: Caller,
) -> Result<Json<BundleAnswer>, Problem> {
    caller.require_admin()?;
    Ok(Json(BundleAnswer {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: http.uptime().as_secs(),
        settings: http.0.settings.clone(),
        log: logging::recent(),
    }))
}

impl SettingsView {
    /// What of the settings anybody may see.
    pub(crate) fn of(config: &Config) -> Self {
        let certificates = match &config.https.certificates {
            Certificates::Local => "local",
            Certificates::Files { .. } => "files",
        };
        Self {
            listen: config.listen.iter().map(ToString::to_string).collect(),
            audio_listen: door(config.audio_listen),
            https: door(config.https.listen),
            certificates,
            allowed_origins: origins(&config.http.allowed_origins),
            livekit_url_set: config.http.livekit_url.is_some(),
            media: media(&config.media),
            rtsp_listen: config.rtsp.listen.map(|address| address.to_string()),
            rtsp_users: config.rtsp.users.len(),
            voice: voice(&config.voice),
            auth: AuthView {
                mode: match config.auth.mode {
                    AuthMode::Open => "open",
                    AuthMode::Keys => "keys",
                },
                keys: config.auth.keys.len(),
                token_ttl_seconds: config.auth.token_ttl.as_secs(),
            },
            store: match config.store.ledger() {
                LedgerPlace::Memory => "memory".to_owned(),
                LedgerPlace::Store { store, .. } => store.place(),
            },
            quota_unit: format!("{:?}", config.quota.unit),
            quota_total: config.quota.total,
            sources: config.sources.iter().map(source).collect(),
            cameras: config.cameras.iter().map(camera).collect(),
            log_format: format!("{:?}", config.log.format),
            log_level: format!("{:?}", config.log.level),
        }
    }
}

fn door(door: Door) -> Option<String> {
    match door {
        Door::Closed => None,
        Door::IfFree(address) | Door::At(address) => Some(address.to_string()),
    }
}

fn origins(origins: &[config::WebOrigin]) -> Vec<String> {
    origins.iter().map(|origin| origin.as_str().to_owned()).collect()
}

fn media(media: &config::Media) -> MediaView {
    MediaView {
        udp: media.udp.to_string(),
        tcp: match media.tcp {
            MediaTcp::LikeUdp => Some(media.udp.to_string()),
            MediaTcp::At(address) => Some(address.to_string()),
            MediaTcp::Off => None,
        },
        advertise: media.advertise.iter().map(ToString::to_string).collect(),
        workers: media.workers,
        priority: format!("{:?}", media.priority),
        ice_servers: media.ice_servers.iter().map(|server| server.urls.clone()).collect(),
        turn: media.turn.iter().map(|server| server.urls.clone()).collect(),
    }
}

fn voice(voice: &config::Voice) -> VoiceView {
    VoiceView {
        enabled: voice.enabled,
        token_set: voice.token.is_some(),
        allowed_origins: origins(&voice.allowed_origins),
        max_connections: voice.max_connections,
        queue_size: voice.queue_size,
        connection_timeout_seconds: voice.connection_timeout.as_secs(),
        levels: format!("{:?}", voice.levels),
        sample_rate: voice.audio.sample_rate,
        channels: voice.audio.channels,
    }
}

fn source(source: &config::Source) -> SourceView {
    SourceView { id: source.id.to_string(), name: source.name.clone(), limit: source.limit }
}

fn camera(camera: &Camera) -> CameraView {
    CameraView {
        id: camera.id.to_string(),
        source: camera.source.to_string(),
        main: url(&camera.url),
        sub: camera.sub_url.as_ref().map(url),
        transport: match camera.transport {
            RtspTransport::Tcp => "tcp",
            RtspTransport::Udp => "udp",
        },
        on_demand: camera.on_demand,
        close_after_ms: u64::try_from(camera.close_after.as_millis()).unwrap_or(u64::MAX),
    }
}

fn url(source: &SourceUrl) -> UrlView {
    let nowhere = |scheme| UrlView { scheme, host: None, port: None, credentials: false };
    match source {
        SourceUrl::Rtsp { url, username, .. } => UrlView {
            scheme: "rtsp",
            host: url.host_str().map(ToOwned::to_owned),
            port: url.port(),
            credentials: username.is_some(),
        },
        SourceUrl::Whep { url, .. } => UrlView {
            scheme: "whep+http",
            host: url.host_str().map(ToOwned::to_owned),
            port: url.port(),
            credentials: source.has_credentials(),
        },
        SourceUrl::Test { .. } => nowhere("test"),
        SourceUrl::Sealed { .. } => UrlView { credentials: true, ..nowhere("sealed") },
        SourceUrl::Whip(_) => UrlView { credentials: true, ..nowhere("whip") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-0123456789-0123456789-0123456789";

    /// In every place of the settings that holds a secret, or may.
    #[test]
    fn no_secret_of_the_settings_is_shown() {
        let settings = format!(
            r#"
            [http]
            livekit_url = "wss://user:{CANARY}@media.example"
            [media]
            ice_servers = [{{ urls = ["turn:a.example"], username = "{CANARY}", credential = "{CANARY}" }}]
            turn = [{{ urls = ["turn:t.example:3478"], secret = "{CANARY}" }}]
            [auth]
            mode = "keys"
            [auth.keys]
            {CANARY} = "{CANARY}"
            [rtsp.users]
            {CANARY} = "{CANARY}"
            [store]
            url = "redis://{CANARY}:{CANARY}@store.example:6379"
            [voice]
            token = "{CANARY}"
            [[sources]]
            id = "TEST"
            limit = 1
            [[cameras]]
            id = "cam-1"
            source = "TEST"
            url = "rtsp://{CANARY}:{CANARY}@camera.example/live/{CANARY}?password={CANARY}"
            sub_url = "whip://{CANARY}"
            "#
        );
        let view = SettingsView::of(&config::from_toml(&settings));
        let shown = serde_json::to_string(&view).unwrap();
        assert!(!shown.contains("canary"), "{shown}");
        for known in [
            "camera.example",
            "store.example",
            "t.example:3478",
            "\"credentials\":true",
            "\"token_set\":true",
        ] {
            assert!(shown.contains(known), "{known}: {shown}");
        }
    }
}

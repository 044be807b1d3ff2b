//! What the API tells of the system's state, to the letter of the contract.

use super::*;

fn reservation_on_cam_1(id: &str, connected: bool) -> ReservationSnapshot {
    ReservationSnapshot {
        id: control::ReservationId::parse(id).unwrap(),
        camera: control::CameraId::parse("cam-1").unwrap(),
        user: "u".to_owned(),
        created_at: at(1_800_000_002),
        expires_at: at(1_800_000_032),
        connected,
        stage: None,
        line: None,
    }
}

fn metro() -> control::SourceId {
    control::SourceId::parse("METRO").unwrap()
}

fn camera(
    id: &str,
    name: &str,
    state: &'static str,
    status: &'static str,
    viewer_count: u32,
) -> CameraSnapshot {
    CameraSnapshot {
        about: Arc::new(About {
            id: control::CameraId::parse(id).unwrap(),
            name: name.to_owned(),
            name_ar: "شارع الشيخ زايد".to_owned(),
            location: "Gate 4".to_owned(),
            source: metro(),
            url: "rtsp://192.0.2.8/1".to_owned(),
            sub_url: None,
            has_credentials: true,
            origin: CameraOrigin::Config,
            transport: RtspTransport::Tcp,
            close_after: Duration::from_millis(2_500),
            has_sub: false,
            on_demand: true,
            synthetic: false,
        }),
        probed_at: None,
        status,
        state,
        reason: (state == "lost").then(|| "the camera's stream ended: timeout".to_owned()),
        retry_in: (state == "lost").then(|| Duration::from_millis(3900)),
        viewer_count,
        active_since: (viewer_count > 0).then(|| at(1_800_000_001)),
        codec: Some("H264"),
        width: Some(640),
        height: Some(360),
        keyframe_interval: Some(Duration::from_millis(2_040)),
        audio: Some("opus"),
        pullers: viewer_count.min(1),
        pulls_started: 3,
        pulls_failed: 2,
        packets_lost: 5,
        renditions: vec![RenditionSnapshot {
            rendition: "main",
            state,
            reason: None,
            viewer_count,
            codec: Some("H264"),
            width: Some(640),
            height: Some(360),
            keyframe_interval: Some(Duration::from_millis(2_040)),
        }],
        nodes: Vec::new(),
    }
}

/// Two reservations on `cam-1`, one of which is connected; `cam-2` is broken and idle.
pub(in crate::http) fn snapshot() -> Snapshot {
    Snapshot {
        total_current: 2,
        total_limit: 500,
        unit: control::Unit::Viewer,
        per_user: None,
        is_store_lost: false,
        sources: vec![SourceSnapshot {
            id: metro(),
            name: "Metro".to_owned(),
            name_ar: String::new(),
            configured_limit: 30,
            current: 2,
            limit: 30,
            active_cameras: 1,
        }],
        cameras: vec![
            camera("cam-1", "<script>alert(1)</script>", "live", "ONLINE", 2),
            camera("cam-2", "Union", "lost", "OFFLINE", 0),
        ],
        reservations: vec![reservation_on_cam_1(ONE, true), reservation_on_cam_1(TWO, false)],
        media: crate::net::MediaFigures { packets_sent: 7, ..Default::default() },
        join_buckets: vec![0, 2, 0, 0, 1, 0, 0, 0, 0, 0, 1],
        join_sum_ms: 12_250,
        revocations: crate::app::RevocationFigures::default(),
        probes: crate::app::ProbeFigures::default(),
        ..Snapshot::of_nothing()
    }
}

#[test]
fn stats_have_the_contracts_shape() {
    let answer = api::stats_answer(&snapshot(), at(1_800_000_010));
    assert_eq!(
        serde_json::to_value(answer).unwrap(),
        json!({
            "active_streams": 2,
            "total_viewers": 2,
            "source_counts": {"METRO": 2},
            "source_stats": {"METRO": {
                "source": "METRO", "current": 2, "limit": 30, "usage_percent": 6.7,
                "active_cameras": 1, "available": 28,
            }},
            "camera_stats": [{
                "camera_id": "cam-1", "camera_name": "<script>alert(1)</script>",
                "viewer_count": 2, "source": "METRO", "active_since": "2027-01-15T08:00:01.000Z",
            }],
            "stats": [{
                "source": "METRO", "current": 2, "limit": 30, "percentage": 6.7, "available": 28,
            }],
            "total": {"current": 2, "limit": 500, "percentage": 0.4, "available": 498},
            "timestamp": "2027-01-15T08:00:10.000Z",
        })
    );
}

#[test]
fn rooms_count_the_publisher_and_exist_while_someone_is_there() {
    let snapshot = snapshot();
    let rooms = serde_json::to_value(rooms::rooms_answer(&snapshot)).unwrap();
    let room = json!({
        "name": "camera_cam-1", "num_participants": 3, "num_publishers": 1,
        "creation_time": 1_800_000_001, "ingress_id": "whip-pusher-cam-1",
    });
    assert_eq!(rooms, json!({"rooms": [room]}));

    let one = rooms::room_answer(&snapshot, "camera_cam-1").ok().unwrap();
    let one = serde_json::to_value(one).unwrap();
    let participants = one["rooms"][0]["participants"].as_array().unwrap();
    let told: Vec<_> = participants
        .iter()
        .map(|p| (p["identity"].as_str().unwrap(), p["state"].as_str().unwrap()))
        .collect();
    let (first, second) = (format!("viewer_{ONE}"), format!("viewer_{TWO}"));
    let wanted =
        [("camera_cam-1_publisher", "ACTIVE"), (first.as_str(), "ACTIVE"), (&second, "JOINED")];
    assert_eq!(told, wanted);

    let idle = rooms::room_answer(&snapshot, "camera_cam-2").ok().unwrap();
    assert!(idle.rooms.is_empty());
    assert!(rooms::room_answer(&snapshot, "cam-1").is_err());
}

#[test]
fn cameras_are_filtered_searched_and_paged() {
    let snapshot = snapshot();
    let ids = |query: &str| -> (Vec<String>, usize) {
        let uri = format!("/?{query}").parse().unwrap();
        let query = axum::extract::Query::<wire::CamerasQuery>::try_from_uri(&uri).unwrap().0;
        let answer = api::CameraFilter::read(&query).ok().unwrap().answer(&snapshot);
        (answer.cameras.into_iter().map(|camera| camera.id).collect(), answer.total)
    };
    let both = || vec!["cam-1".to_owned(), "cam-2".to_owned()];
    assert_eq!(ids(""), (both(), 2));
    assert_eq!(ids("source=METRO&search=GATE"), (both(), 2));
    assert_eq!(ids("source=NAVY"), (vec![], 0));
    assert_eq!(ids("status=offline"), (vec!["cam-2".to_owned()], 1));
    assert_eq!(ids("search=union"), (vec!["cam-2".to_owned()], 1));
    assert_eq!(ids("search=%D8%B2%D8%A7%D9%8A%D8%AF"), (both(), 2), "Arabic names are searched");
    assert_eq!(ids("limit=1"), (vec!["cam-1".to_owned()], 2));
    assert_eq!(ids("limit=1&offset=1"), (vec!["cam-2".to_owned()], 2));
    assert_eq!(ids("offset=9"), (vec![], 2));
}

#[test]
fn a_broken_camera_says_why_and_when_it_is_tried_again() {
    let uri = "/?search=cam-2".parse().unwrap();
    let query = axum::extract::Query::<wire::CamerasQuery>::try_from_uri(&uri).unwrap().0;
    let answer = api::CameraFilter::read(&query).ok().unwrap().answer(&snapshot());
    assert_eq!(
        serde_json::to_value(&answer.cameras[0]).unwrap(),
        json!({
            "id": "cam-2", "name": "Union", "name_ar": "شارع الشيخ زايد", "location": "Gate 4",
            "source": "METRO", "origin": "config", "url": "rtsp://192.0.2.8/1", "sub_url": null,
            "has_credentials": true, "has_sub": false, "transport": "tcp", "close_after": "2s 500ms",
            "on_demand": true, "synthetic": false, "status": "OFFLINE", "state": "lost",
            "reason": "the camera's stream ended: timeout", "retry_in_s": 3, "probed_at": null, "viewer_count": 0,
            "active_since": null, "codec": "H264", "width": 640, "height": 360, "audio": "opus", "pullers": 0,
            "keyframe_interval_s": 2.04, "pulls_started": 3,
            "renditions": [{
                "rendition": "main", "state": "lost", "reason": null, "viewer_count": 0,
                "codec": "H264", "width": 640, "height": 360, "keyframe_interval_s": 2.04,
            }],
        })
    );
}

#[test]
fn health_has_the_contracts_shape_and_turns_while_the_server_ends() {
    let uptime = Duration::from_millis(90_900);
    let (code, answer) = status::health_answer(&voice_status(), store(None), None, uptime);
    assert_eq!(code, StatusCode::OK);
    assert_eq!(
        serde_json::to_value(answer).unwrap(),
        json!({
            "status": "healthy", "webrtc_available": true, "audio_server_running": true,
            "active_streams": 1, "connected_clients": 3, "uptime_seconds": 90,
            "store": { "url": "redis://store:6379", "available": true },
        })
    );
    let (code, answer) = status::health_answer(
        &voice_status(),
        store(None),
        Some("the server is shutting down"),
        uptime,
    );
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.reason, Some("the server is shutting down"));
}

#[test]
fn a_server_whose_store_is_away_goes_on_and_says_so() {
    let away = Some(("it does not answer".to_owned(), Duration::from_secs(7)));
    let (code, answer) = status::health_answer(&voice_status(), store(away), None, Duration::ZERO);
    assert_eq!(code, StatusCode::OK);
    assert_eq!(
        serde_json::to_value(answer).unwrap()["store"],
        json!({
            "url": "redis://store:6379", "available": false, "reason": "it does not answer",
            "away_seconds": 7,
        })
    );
}

fn store(away: Option<(String, Duration)>) -> crate::ledger::StoreHealth {
    let place = "redis://store:6379".to_owned();
    crate::ledger::StoreHealth { place, away, losses: 0, repairs: Default::default() }
}

#[test]
fn plain_metrics_have_the_contracts_shape() {
    let answer = status::plain(&voice_status(), Duration::from_secs(90));
    assert_eq!(
        serde_json::to_value(answer).unwrap(),
        json!({
            "uptime_seconds": 90, "active_connections": 3, "active_streams": 1,
            "total_audio_bytes": 1_048_576, "webrtc_available": true,
        })
    );
}

/// One sender, two receivers.
fn voice_status() -> crate::voice::Status {
    let mut status = crate::voice::Status { audio_bytes: 1_048_576, ..Default::default() };
    status.residue.connections = 3;
    status.residue.voices = 1;
    status
}

#[test]
fn figures_come_in_prometheus_text() {
    let requests = Requests::default();
    requests.count("/rooms/{name}", 200);
    requests.count("/rooms/{name}", 200);
    let text = crate::metrics::encode(
        snapshot(),
        &requests,
        &Arc::default(),
        (store(None), crate::revocations::SharedRevocations::default()),
        None,
        Some(voice_status()),
        Duration::from_secs(90),
    )
    .unwrap();
    for line in [
        "cctv_streams_active{source=\"METRO\"} 2",
        "cctv_streams_limit{source=\"METRO\"} 30",
        "manifold_viewers{camera_id=\"cam-1\"} 2",
        "manifold_sources{state=\"live\"} 1",
        "manifold_sources{state=\"lost\"} 1",
        "manifold_pullers 1",
        "manifold_pulls_started_total{camera_id=\"cam-2\"} 3",
        "manifold_packets_sent_total 7",
        "manifold_join_duration_seconds_sum 12.25",
        "manifold_join_duration_seconds_count 4",
        "manifold_join_duration_seconds_bucket{le=\"0.05\"} 2",
        "manifold_join_duration_seconds_bucket{le=\"0.2\"} 3",
        "manifold_join_duration_seconds_bucket{le=\"+Inf\"} 4",
        "manifold_http_requests_total{route=\"/rooms/{name}\",status=\"200\"} 2",
        "manifold_uptime_seconds 90.0",
        "manifold_voices 1",
        "manifold_voice_clients 3",
        "manifold_voice_audio_bytes_total 1048576",
        "# TYPE manifold_join_duration_seconds histogram",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n--\n{text}");
    }
}

#[test]
fn the_reference_names_every_figure() {
    let reference = include_str!("../../../../../docs/ref/metrics.md");
    let text = crate::metrics::encode(
        snapshot(),
        &Requests::default(),
        &Arc::default(),
        (store(None), crate::revocations::SharedRevocations::default()),
        None,
        Some(voice_status()),
        Duration::ZERO,
    )
    .unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for line in types {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(reference.contains(&format!("| `{name}` | {kind} |")), "{name} {kind}");
    }
}

#[tokio::test]
async fn health_is_503_once_the_application_has_ended() {
    let server = Server::start(|_| {}).await;
    let answer = server.ask(plain("GET", "/health")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reason"], "a part of the server failed; it must be started anew");
}

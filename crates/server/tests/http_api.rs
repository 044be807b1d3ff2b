//! The program as operators, scripts and browsers meet it: its command line, its sockets, its end.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod cameras;
mod program;

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use program::{Directory, Program, manifold, until};

/// Is in the addresses of cameras and in keys, and must come out nowhere.
const CANARY: &str = "canary-5d0f-never-print-this-anywhere";

fn reserve(program: &Program, camera: &str) -> program::Answer {
    let body = json!({"camera_id": camera, "user_id": "u"});
    program.post("/api/v1/stream/reserve", &body)
}

#[test]
fn a_reservation_lives_from_reserve_to_release() {
    let program = Program::start("");
    let camera = "cam-001-sheikh-zayed";
    let answer = reserve(&program, camera);
    assert_eq!(answer.status, 200, "{answer:?}");
    let reserved = answer.json();
    let id = reserved["reservation_id"].as_str().unwrap();
    assert_eq!(reserved["room_name"], format!("camera_{camera}"));
    assert_eq!(reserved["whep_url"], format!("http://{}/whep/{camera}", program.address));
    assert_eq!((&reserved["current_usage"], &reserved["limit"]), (&json!(1), &json!(50)));

    let stats = program.get("/api/v1/stream/stats").json();
    assert_eq!(stats["active_streams"], 1);
    assert_eq!(stats["source_counts"]["DUBAI_POLICE"], 1);
    assert_eq!(stats["camera_stats"].as_array().unwrap().len(), 1);
    assert_eq!(stats["camera_stats"][0]["viewer_count"], 1);
    let rooms = program.get("/rooms").json();
    assert_eq!(rooms["rooms"][0]["name"], format!("camera_{camera}"));
    assert_eq!(rooms["rooms"][0]["num_participants"], 2);
    until("the camera is live", || {
        program.get(&format!("/api/v1/cameras/{camera}")).json()["state"] == "live"
    });

    let beat = program.post(&format!("/api/v1/stream/heartbeat/{id}"), &json!({})).json();
    assert_eq!(beat["updated"], true);
    assert!(beat["remaining_ttl"].as_u64().is_some_and(|ttl| (25..=30).contains(&ttl)), "{beat}");
    assert_ne!(beat["token"], reserved["token"], "the token is fresh");

    let path = format!("/api/v1/stream/release/{id}");
    let released = program.ask("DELETE", &path, &[], "");
    assert_eq!(
        released.json(),
        json!({
            "reservation_id": id, "source": "DUBAI_POLICE", "released": true, "new_count": 0,
        })
    );
    program.ask("DELETE", &path, &[], "").problem(404);
    program.post(&format!("/api/v1/stream/heartbeat/{id}"), &json!({})).problem(404);
    assert_eq!(program.get("/api/v1/stream/stats").json()["active_streams"], 0);
}

#[test]
fn a_full_quota_refuses_and_a_release_makes_room() {
    let program =
        Program::start("[[sources]]\nid = \"TAXI\"\nname_ar = \"سيارات الأجرة\"\nlimit = 1");
    let first = reserve(&program, "cam-004-taxi-airport").json();
    let full = reserve(&program, "cam-004-taxi-airport");
    assert_eq!(full.status, 429);
    assert!(full.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
    let error = &full.json()["error"];
    assert_eq!(error["code"], "RATE_LIMIT_EXCEEDED");
    assert_eq!((&error["source"], &error["current"]), (&json!("TAXI"), &json!(1)));
    assert!(error["message_ar"].as_str().unwrap().contains("سيارات الأجرة"));
    let id = first["reservation_id"].as_str().unwrap();
    program.ask("DELETE", &format!("/api/v1/stream/release/{id}"), &[], "");
    assert_eq!(reserve(&program, "cam-004-taxi-airport").status, 200);
}

fn whep(program: &Program, camera: &str, token: &str, offer: &str) -> program::Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/sdp")];
    program.ask("POST", &format!("/whep/{camera}"), &headers, offer)
}

const AUDIO_ONLY: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
    a=group:BUNDLE 0\r\na=fingerprint:sha-256 \
    00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\
    \r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\n\
    a=rtpmap:111 opus/48000/2\r\n";

#[test]
fn offers_that_cannot_be_answered_are_told_why() {
    let program = Program::start("");
    let reserved = reserve(&program, "cam-001-sheikh-zayed").json();
    let token = reserved["token"].as_str().unwrap();
    let camera = "cam-001-sheikh-zayed";

    assert!(whep(&program, camera, token, "hello").problem(400).contains("SDP"));
    assert!(whep(&program, camera, token, "").problem(400).contains("SDP"));
    assert!(whep(&program, camera, token, AUDIO_ONLY).problem(400).contains("video"));
    // Before, nobody knows what it sends.
    until("the camera sends", || {
        program.get("/api/v1/cameras/cam-001-sheikh-zayed").json()["state"] == "live"
    });
    let vp8 = AUDIO_ONLY.replace("m=audio", "m=video").replace("opus/48000/2", "VP8/90000");
    assert!(whep(&program, camera, token, &vp8).problem(406).contains("H.264"));
    let huge = "v=0\r\n".repeat(60_000);
    whep(&program, camera, token, &huge).problem(413);
    whep(&program, "cam-002-metro-union", token, AUDIO_ONLY).problem(403);
    whep(&program, camera, "a.b.c", AUDIO_ONLY).problem(401);
    let stats = program.get("/api/v1/stream/stats").json();
    assert_eq!(stats["active_streams"], 1, "a refused offer costs the reservation nothing");

    let id = reserved["reservation_id"].as_str().unwrap();
    program.ask("DELETE", &format!("/api/v1/stream/release/{id}"), &[], "");
    whep(&program, camera, token, AUDIO_ONLY).problem(410);
    program.ask("DELETE", "/whep/cam-001-sheikh-zayed/0123", &[], "").problem(404);
}

const VIDEO: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
    a=group:BUNDLE 0\r\na=fingerprint:sha-256 \
    00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\
    \r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\n\
    a=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n";

#[test]
fn a_session_is_opened_trickled_and_ended() {
    let program = Program::start("");
    let camera = "cam-001-sheikh-zayed";
    let reserved = reserve(&program, camera).json();
    let answer = whep(&program, camera, reserved["token"].as_str().unwrap(), VIDEO);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/sdp");
    assert!(answer.text.contains("a=rtpmap:") && answer.text.contains("H264/90000"));
    let session = answer.header("location").to_owned();
    assert!(session.starts_with(&format!("/whep/{camera}/")), "{session}");
    let tag = answer.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "{tag}");
    assert!(answer.text.contains(&format!("a=ice-ufrag:{}", tag.trim_matches('"'))));

    let patch = |tag: &str, fragment: &str| {
        let kind = "application/trickle-ice-sdpfrag";
        let headers = [("content-type", kind), ("if-match", tag)];
        program.ask("PATCH", &session, &headers, fragment)
    };
    let trickled = "a=ice-ufrag:abcd\r\n";
    assert_eq!(patch(&tag, trickled).status, 204);
    patch("\"other\"", trickled).problem(412);
    patch("*", trickled).problem(400);
    let restarted = patch("*", "a=ice-ufrag:efgh\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n");
    assert_eq!(restarted.status, 200, "{restarted:?}");
    assert_ne!(restarted.header("etag"), tag);
    patch(&tag, trickled).problem(412);
    assert_eq!(program.ask("DELETE", &session, &[], "").status, 200);
    program.ask("DELETE", &session, &[], "").problem(404);
    assert_eq!(program.get("/api/v1/stream/stats").json()["active_streams"], 0);
}

#[test]
fn a_camera_that_is_down_says_so_and_its_password_is_told_nowhere() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let program = Program::start_with(
        &format!(
            "[auth.keys]\ndev = \"{CANARY}\"\n[log]\nlevel = \"trace\"\n\
             [[cameras]]\nid = \"down\"\nname = \"<script>alert(1)</script>\"\nsource = \"METRO\"\n\
             url = \"rtsp://admin:{CANARY}@{closed}/1\"\n"
        ),
        &[("RUST_LOG", "trace")],
    );
    let camera = || program.get("/api/v1/cameras/down");
    assert_eq!(camera().json()["state"], "idle");
    assert_eq!(reserve(&program, "down").status, 200, "an idle camera is never refused");
    until("the camera is unreachable", || camera().json()["state"] == "unreachable");
    let shown = camera().json();
    assert_eq!(shown["status"], "OFFLINE");
    assert!(shown["reason"].as_str().unwrap().contains("cannot be reached"), "{shown}");
    assert_eq!(shown["name"], "<script>alert(1)</script>");
    let sentence = reserve(&program, "down").problem(409);
    assert!(sentence.contains("cannot be reached"), "{sentence}");

    let mut told = String::new();
    for path in [
        "/api/v1/cameras",
        "/api/v1/cameras/down",
        "/api/v1/stream/stats",
        "/rooms",
        "/rooms/camera_down",
        "/health",
        "/metrics",
        "/metrics?format=prometheus",
    ] {
        let answer = program.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        told.push_str(&answer.text);
    }
    let output = program.end();
    assert!(output.log.contains("unreachable"), "the log was read: {}", output.log);
    told.push_str(&output.log);
    told.push_str(&output.printed);
    assert!(!told.contains(CANARY));
}

#[test]
fn rooms_and_cameras_that_are_none_are_404() {
    let program = Program::start("");
    for path in ["/rooms/camera_nobody", "/api/v1/cameras/nobody", "/api/v1/cameras/..%2f..%2fx"] {
        program.get(path).problem(404);
    }
    reserve(&program, "nobody").problem(404);
    reserve(&program, "../../etc/passwd").problem(404);
    program.ask("DELETE", "/ingress/nobody", &[], "").problem(404);
    let idle = program.get("/rooms/camera_cam-001-sheikh-zayed").json();
    assert_eq!(idle, json!({"rooms": []}));
}

#[test]
fn it_says_where_it_is_and_ends_cleanly_on_a_signal() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let program = Program::start("");
        assert_eq!(reserve(&program, "cam-001-sheikh-zayed").status, 200);
        let page = format!("Manifold is ready: http://{}/", program.address);
        program.signal(signal);
        let output = program.wait(Duration::from_secs(5));
        assert_eq!(output.code, Some(0), "{}", output.log);
        assert!(output.printed.contains(&page), "{}", output.printed);
        assert!(output.printed.contains("4 cameras"));
    }
}

#[test]
fn a_busy_port_is_one_line_with_the_setting_and_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listen = format!("127.0.0.1:0,{address}");
    let output =
        manifold(&["serve", "--listen", &listen, "--udp", "127.0.0.1:0", "--rtsp", ""], &[]);
    assert_eq!(output.code, Some(1));
    let wanted = format!(
        "manifold: port {address} (listen[1]) is in use; stop the other program or change \
         `listen` in manifold.toml\n"
    );
    assert_eq!(output.log, wanted);

    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = taken.local_addr().unwrap().to_string();
    let output = manifold(
        &["--listen", "127.0.0.1:0", "--udp", &udp, "--rtsp", "", "--log-level", "error"],
        &[],
    );
    assert_eq!(output.code, Some(1));
    let wanted = format!(
        "manifold: port {udp} (media.udp) is in use; stop the other program or change \
         `media.udp` in manifold.toml\n"
    );
    assert_eq!(output.log, wanted);
}

fn check(name: &str, text: &str, variables: &[(&str, &str)]) -> (program::Output, PathBuf) {
    let directory = Directory::new();
    let path = directory.write(name, text);
    let arguments = ["config", "check", "--config", path.to_str().unwrap()];
    (manifold(&arguments, variables), path)
}

#[test]
fn config_check_names_file_line_and_key() {
    let (output, path) =
        check("m.toml", "[[cameras]]\nid = \"a\"\nsource = \"METRO\"\nurl = \"test://\"", &[]);
    assert_eq!(output.printed, format!("{}: ok, 1 camera, 4 sources\n", path.display()));
    assert_eq!(output.code, Some(0));

    let text = "{\n\"media\": {\"udp\": \"here\"},\n\"quota\": {\"totl\": 1}}";
    let (output, path) = check("m.json", text, &[("MANIFOLD__LOG__LEVEL", "loud")]);
    assert_eq!(output.code, Some(1));
    let lines: Vec<&str> = output.printed.lines().collect();
    let path = path.display();
    assert!(lines[0].starts_with(&format!("{path}:3: quota.totl: there is no such setting")));
    assert!(lines[1].starts_with(&format!("{path}:2: media.udp: this must be an address")));
    assert!(
        lines[2].starts_with("environment variable MANIFOLD__LOG__LEVEL: log.level: this must")
    );
    assert_eq!(lines.len(), 3, "{}", output.printed);
}

#[test]
fn wrong_settings_end_the_start_with_code_2() {
    let directory = Directory::new();
    let path = directory.write("m.toml", "listen = [\"0.0.0.0:0\"]\n");
    let output = manifold(&["--config", path.to_str().unwrap()], &[]);
    assert_eq!(output.code, Some(2));
    let wanted = format!("manifold: {}:1: listen: 0.0.0.0:0 can be reached", path.display());
    assert!(output.log.starts_with(&wanted), "{}", output.log);
    assert_eq!(output.log.lines().count(), 1);

    let output = manifold(&["--config", "/nonexistent/m.toml"], &[]);
    assert_eq!(output.code, Some(2));
    assert!(output.log.starts_with("manifold: cannot read the config file /nonexistent/m.toml: "));
    assert_eq!(manifold(&["--no-such-flag"], &[]).code, Some(2));
}

#[test]
fn two_hundred_first_viewers_start_one_puller() {
    let program = Program::start("[[sources]]\nid = \"TAXI\"\nlimit = 500");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = || reserve(&program, "cam-004-taxi-airport").status;
        let asking: Vec<_> = (0..200).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let camera: Value = program.get("/api/v1/cameras/cam-004-taxi-airport").json();
    assert_eq!((&camera["viewer_count"], &camera["pullers"]), (&json!(200), &json!(1)));
    assert_eq!(camera["pulls_started"], 1);
}

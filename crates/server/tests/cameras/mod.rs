//! The park and the walls over the API: what is added is there at once, and after a restart; what is secret
//! is nowhere.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::program::{Answer, Directory, Program, manifold, until};

const CANARY: &str = "canary-9b1e-never-print-this-anywhere";

const JSON: (&str, &str) = ("content-type", "application/json");

/// Where a server of a test keeps things, over its restarts.
struct Home(Directory);

impl Home {
    fn new() -> Self {
        Self(Directory::new())
    }

    fn settings(&self, more: &str) -> String {
        let data = self.0.path("data");
        format!(
            "{more}\n[store]\ndata_dir = {data:?}\n[log]\nlevel = \"debug\"\n{}",
            if more.contains("[park]") { "" } else { "[park]\nprobe_interval = \"0s\"\n" }
        )
    }

    fn start(&self, more: &str) -> Program {
        Program::start(&self.settings(more))
    }

    /// Everything that is on the disk, the key file apart.
    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.0.path("data/manifold.redb")).unwrap()
    }
}

fn put(program: &Program, path: &str, body: &Value) -> Answer {
    program.ask("PUT", path, &[JSON], &body.to_string())
}

fn delete(program: &Program, path: &str) -> Answer {
    program.ask("DELETE", path, &[], "")
}

fn camera(id: &str, url: &str) -> Value {
    json!({"id": id, "source": "METRO", "url": url, "name": "Gate", "name_ar": "بوابة"})
}

fn ids(program: &Program, query: &str) -> Vec<String> {
    let answer = program.get(&format!("/api/v1/cameras?{query}")).json();
    let cameras = answer["cameras"].as_array().unwrap().iter();
    cameras.map(|camera| camera["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_camera_lives_from_post_to_delete_and_its_password_is_nowhere() {
    let home = Home::new();
    let program = home.start("");
    let url = format!("rtsp://admin:{CANARY}@192.0.2.8/a?token={CANARY}");
    let mut told = String::new();

    let added = program.post("/api/v1/cameras", &camera("gate", &url));
    assert_eq!(added.status, 201, "{added:?}");
    assert_eq!(added.header("location"), "/api/v1/cameras/gate");
    let answer = added.json();
    assert_eq!((&answer["origin"], &answer["has_credentials"]), (&json!("stored"), &json!(true)));
    assert_eq!(
        (&answer["url"], &answer["name_ar"]),
        (&json!("rtsp://192.0.2.8/a?token=***"), &json!("بوابة"))
    );
    let twice = program.post("/api/v1/cameras", &camera("gate", "test://"));
    assert!(twice.problem(409).contains("there is a camera gate already"));

    let changed = put(&program, "/api/v1/cameras/gate", &json!({"name": "<b>North</b>"}));
    assert_eq!(changed.json()["name"], "<b>North</b>");
    assert_eq!(changed.json()["url"], answer["url"], "what is left out stays");
    let moved = put(&program, "/api/v1/cameras/gate", &json!({"url": "rtsp://192.0.2.8/b"})).json();
    assert_eq!(
        (&moved["url"], &moved["has_credentials"]),
        (&json!("rtsp://192.0.2.8/b"), &json!(true))
    );
    let back = put(&program, "/api/v1/cameras/gate", &changed.json());
    told.push_str(&back.problem(400));
    assert!(told.contains("in place of what is not shown"), "{told}");
    let elsewhere = json!({"id": "other"});
    assert!(
        put(&program, "/api/v1/cameras/gate", &elsewhere)
            .problem(400)
            .contains("cannot be changed")
    );
    put(&program, "/api/v1/cameras/none", &json!({})).problem(404);
    delete(&program, "/api/v1/cameras/none").problem(404);

    for (path, body) in [
        ("/api/v1/cameras", camera("x", &format!("rtsp://u:{CANARY}@"))),
        ("/api/v1/cameras", camera("x", &format!("http://u:{CANARY}@192.0.2.1/"))),
        ("/api/v1/cameras/import", json!([camera("x", &format!("rtsp://u:{CANARY}#@192.0.2.1/"))])),
    ] {
        let answer = program.post(path, &body);
        assert_eq!(answer.status, 400, "{answer:?}");
        told.push_str(&answer.text);
    }
    for path in ["/api/v1/cameras", "/api/v1/cameras/gate", "/rooms", "/metrics", "/health"] {
        told.push_str(&program.get(path).text);
    }
    let reserved = json!({"camera_id": "gate", "user_id": "u"});
    told.push_str(&program.post("/api/v1/stream/reserve", &reserved).text);
    let output = program.end();
    told.push_str(&output.log);
    assert!(output.log.contains("a camera is added over the API"), "the log is looked at");
    assert!(!told.contains(CANARY), "{told}");
    let bytes = home.bytes();
    assert!(bytes.windows(4).any(|bytes| bytes == b"gate"), "the file is looked at");
    let canary = CANARY.as_bytes();
    assert!(!bytes.windows(12).any(|bytes| bytes == &canary[..12]));

    let program = home.start("");
    let kept = program.get("/api/v1/cameras/gate").json();
    assert_eq!((&kept["url"], &kept["name"]), (&moved["url"], &json!("<b>North</b>")));
    assert_eq!(kept["has_credentials"], true);
    let deleted = delete(&program, "/api/v1/cameras/gate");
    assert_eq!(deleted.json(), json!({"camera_id": "gate", "deleted": true}));
    program.get("/api/v1/cameras/gate").problem(404);
    program.end();
    home.start("").get("/api/v1/cameras/gate").problem(404);
}

#[test]
fn everything_that_is_wrong_is_named_at_once_and_nothing_is_imported() {
    let home = Home::new();
    let program = home.start("");
    let many: Vec<Value> = (0..500).map(|n| camera(&format!("n-{n:03}"), "test://")).collect();
    let imported = program.post("/api/v1/cameras/import", &json!(many));
    assert_eq!(imported.json(), json!({"added": 500, "changed": 0}));
    assert_eq!(ids(&program, "search=n-&limit=3&offset=100"), ["n-100", "n-101", "n-102"]);
    assert_eq!(program.get("/api/v1/cameras?source=METRO&status=online").json()["total"], 501);

    let csv = "id,source,url,name\nzz-1,METRO,test://,One\nn-007,METRO,test://,Again\nzz-2,NOBODY,rtsp://169.254.169.254/,\nzz-1,METRO,test://,Twice\n";
    let import = |query: &str, csv: &str| {
        program.ask(
            "POST",
            &format!("/api/v1/cameras/import{query}"),
            &[("content-type", "text/csv")],
            csv,
        )
    };
    let refused = import("", csv);
    let sentence = refused.problem(400);
    assert!(
        sentence.starts_with("no camera was imported, for 4 problems: row 3: id: "),
        "{sentence}"
    );
    let problems = refused.json()["problems"].clone();
    let named: Vec<(u64, &str)> = problems
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| (problem["row"].as_u64().unwrap(), problem["key"].as_str().unwrap()))
        .collect();
    assert_eq!(named, [(3, "id"), (4, "source"), (4, "url"), (5, "id")]);
    assert!(ids(&program, "search=zz-").is_empty());

    let changed = import("?existing=change", "id;name\nn-007;\"Bond; James\"\n");
    assert_eq!(changed.json(), json!({"added": 0, "changed": 1}), "{changed:?}");
    assert_eq!(program.get("/api/v1/cameras/n-007").json()["name"], "Bond; James");
    import("?existing=sometimes", csv).problem(400);
    let big = format!("id,url\n{}", "x".repeat(8 * 1024 * 1024));
    assert_eq!(import("", &big).problem(413), "the list is larger than 8 MiB");
    program
        .ask("POST", "/api/v1/cameras/import", &[("content-type", "text/html")], "")
        .problem(415);

    program.end();
    let program = home.start("");
    assert_eq!(program.get("/api/v1/cameras").json()["total"], 504);
}

#[test]
fn the_last_change_holds_of_the_file_or_of_the_api() {
    let home = Home::new();
    let file = |name: &str| {
        format!(
            "[[cameras]]\nid = \"c\"\nname = \"{name}\"\nsource = \"METRO\"\nurl = \"rtsp://u:{CANARY}@192.0.2.8/\"\n\n[[cameras]]\nid = \"d\"\nsource = \"METRO\"\nurl = \"test://\"\n"
        )
    };
    let program = home.start(&file("Of the file"));
    assert_eq!(program.get("/api/v1/cameras/c").json()["origin"], "config");
    let covered = put(&program, "/api/v1/cameras/c", &json!({"name": "Of the API"})).json();
    assert_eq!((&covered["origin"], &covered["has_credentials"]), (&json!("stored"), &json!(true)));
    assert_eq!(delete(&program, "/api/v1/cameras/d").status, 200);
    program.end();

    let program = home.start(&file("Of the file"));
    assert_eq!(program.get("/api/v1/cameras/c").json()["name"], "Of the API");
    program.get("/api/v1/cameras/d").problem(404);
    program.end();

    let program = home.start(&file("Of the file, edited"));
    let edited = program.get("/api/v1/cameras/c").json();
    assert_eq!(
        (&edited["name"], &edited["origin"]),
        (&json!("Of the file, edited"), &json!("config"))
    );
    program.get("/api/v1/cameras/d").problem(404);
}

#[test]
fn without_its_key_a_camera_is_an_error_and_the_server_runs() {
    let home = Home::new();
    let program = home.start("");
    program.post("/api/v1/cameras", &camera("gate", &format!("rtsp://u:{CANARY}@192.0.2.8/")));
    program.post("/api/v1/cameras", &camera("open", "test://"));
    program.end();
    std::fs::remove_file(home.0.path("data/manifold.key")).unwrap();

    let program = home.start("[park]\nprobe_interval = \"5s\"");
    until("the camera is an error", || {
        program.get("/api/v1/cameras/gate").json()["status"] == "ERROR"
    });
    let camera = program.get("/api/v1/cameras/gate").json();
    assert_eq!(
        (&camera["state"], &camera["url"]),
        (&json!("unusable"), &json!("rtsp://192.0.2.8/"))
    );
    assert!(camera["reason"].as_str().unwrap().contains("manifold.key is missing"), "{camera}");
    assert_eq!(program.get("/api/v1/cameras/open").json()["status"], "ONLINE");

    let renamed = put(&program, "/api/v1/cameras/gate", &json!({"name": "Still there"})).json();
    assert_eq!(renamed["name"], "Still there");
    let mended = json!({"url": format!("rtsp://u:{CANARY}@192.0.2.8/new")});
    let mended = put(&program, "/api/v1/cameras/gate", &mended).json();
    assert_eq!(
        (&mended["url"], &mended["state"]),
        (&json!("rtsp://192.0.2.8/new"), &json!("idle"))
    );
}

#[test]
fn a_camera_that_nobody_watches_is_asked_how_it_is() {
    let home = Home::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let program = home.start("[park]\nprobe_interval = \"5s\"");
    let url = format!("rtsp://{closed}/");
    program.post("/api/v1/cameras", &camera("gone", &url));
    until("it is known to be gone", || {
        program.get("/api/v1/cameras/gone").json()["state"] == "unreachable"
    });
    let camera = program.get("/api/v1/cameras/gone").json();
    assert_eq!((&camera["status"], &camera["pulls_started"]), (&json!("OFFLINE"), &json!(0)));
    assert!(camera["probed_at"].is_string() && camera["reason"].is_string(), "{camera}");
    assert_eq!(ids(&program, "status=OFFLINE"), ["gone"]);
}

#[test]
fn addresses_that_are_nobodys_business_are_refused() {
    let home = Home::new();
    let keys = "[auth]\nmode = \"keys\"\n[auth.keys]\nk = \"0123456789012345678901234567890123456789\"\n[park]\nallow_loopback = false\n";
    assert_eq!(home.start(keys).post("/api/v1/cameras", &camera("c", "test://")).status, 401);

    let program = home.start("[park]\nallow_loopback = false");
    for host in ["127.0.0.1", "169.254.169.254", "[fe80::1]", "0.0.0.0", "[::ffff:127.0.0.1]"] {
        let answer = program.post("/api/v1/cameras", &camera("c", &format!("rtsp://{host}/")));
        assert!(answer.problem(400).starts_with("url: "), "{host}");
    }
    // A name is judged when it is resolved.
    program.post("/api/v1/cameras", &camera("c", "rtsp://localhost/"));
    let reserved = json!({"camera_id": "c", "user_id": "u"});
    assert_eq!(program.post("/api/v1/stream/reserve", &reserved).status, 200);
    until("the address is refused", || {
        program.get("/api/v1/cameras/c").json()["state"] == "unusable"
    });
    let reason = program.get("/api/v1/cameras/c").json()["reason"].clone();
    assert!(reason.as_str().unwrap().contains("park.allow_loopback"), "{reason}");
}

#[test]
fn a_stream_key_made_by_the_api_outlives_the_process() {
    let home = Home::new();
    let program = home.start("");
    program.post("/api/v1/cameras", &camera("stage", "whip://"));
    let made = program.post("/api/v1/cameras/stage/stream-key", &json!({})).json();
    let key = made["stream_key"].as_str().unwrap().to_owned();
    let knows = |program: &Program| {
        let path = format!("/whip/{key}");
        // An offer that cannot be read is told only to who has the key.
        program.ask("POST", &path, &[("content-type", "application/sdp")], "v=0").status == 400
    };
    assert!(knows(&program));
    let stolen = program.post("/api/v1/cameras", &camera("thief", &format!("whip://{key}")));
    assert!(stolen.problem(400).contains("same stream key"));
    program.end();
    let bytes = home.bytes();
    assert!(!bytes.windows(key.len()).any(|bytes| bytes == key.as_bytes()));

    let program = home.start("");
    assert!(knows(&program));
    put(&program, "/api/v1/cameras/stage", &json!({"url": "test://"}));
    assert!(!knows(&program), "nothing is published to it any more");
}

#[test]
fn walls_are_saved_changed_and_forgotten() {
    let home = Home::new();
    let program = home.start("");
    let wall = json!({"name": "غرفة <i>one</i>", "tiles": [
        {"camera_id": "a"}, {"camera_id": "b"}, {"camera_id": "c", "x": 2, "y": 0, "width": 2, "height": 2},
    ]});
    let saved = program.post("/api/v1/layouts", &wall);
    assert_eq!(saved.status, 201, "{saved:?}");
    let saved = saved.json();
    assert_eq!(
        saved["tiles"][1],
        json!({"camera_id": "b", "x": 1, "y": 0, "width": 1, "height": 1})
    );
    let path = format!("/api/v1/layouts/{}", saved["id"].as_str().unwrap());
    assert_eq!(put(&program, &path, &json!({"name": "Two"})).json()["tiles"], saved["tiles"]);
    for wrong in [
        json!({"name": ""}),
        json!({"name": "a\u{7}"}),
        json!({"tiles": [{"camera_id": "a b"}]}),
        json!({"tiles": [{"camera_id": "a", "x": 64}]}),
        json!({"tiles": [{"camera_id": "a", "width": 0}]}),
        json!({"colour": "red"}),
    ] {
        put(&program, &path, &wrong).problem(400);
    }
    program.post("/api/v1/layouts", &json!({"tiles": []})).problem(400);
    program.get("/api/v1/layouts/none").problem(404);
    program.end();

    let program = home.start("");
    let all = program.get("/api/v1/layouts").json();
    assert_eq!(
        (&all["layouts"][0]["name"], &all["layouts"][0]["id"]),
        (&json!("Two"), &saved["id"])
    );
    assert_eq!(delete(&program, &path).status, 204);
    delete(&program, &path).problem(404);
    assert_eq!(program.get("/api/v1/layouts").json(), json!({"layouts": []}));
}

#[test]
fn a_second_server_on_the_same_data_is_told_so() {
    let home = Home::new();
    let program = home.start("");
    program.post("/api/v1/cameras", &camera("c", "test://"));
    let settings = home.0.write("second.toml", &home.settings(""));
    let arguments =
        ["serve", "--listen", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--rtsp", "", "--config"];
    let arguments = [&arguments[..], &[settings.to_str().unwrap()]].concat();
    let second = manifold(&arguments, &[]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.log.contains("in use by another process"), "{}", second.log);
}

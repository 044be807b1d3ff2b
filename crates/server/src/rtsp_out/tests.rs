//! The server with real sockets: a running Manifold with synthetic cameras, clients that do as the test
//! says, and our own RTSP client, which is retina.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::SystemTime;

use control::CameraId;
use media::{Codec, Frame};
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::app::App;
use crate::config;
use crate::http::Keyring;
use crate::ingest::{self, Output, Reach, RtspTransport, SourceFormat, SourceUrl};
use crate::net::{MediaConfig, MediaPlane, MediaTcp, Priority};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const CAMERAS: &str = r#"
[[sources]]
id = "METRO"
limit = 2
[[cameras]]
id = "cam-1"
source = "METRO"
url = "test://clock?width=320&height=180&fps=15&gop=15"
sub_url = "test://bars?width=192&height=108&fps=15&gop=15"
[[cameras]]
id = "cam-2"
source = "METRO"
url = "test://ball?width=320&height=180&fps=15&gop=15"
[[cameras]]
id = "cam-dead"
source = "METRO"
url = "rtsp://127.0.0.1:1/nothing"
"#;

const KEYS: &str = r#"
[auth]
mode = "keys"
[auth.keys]
testkey = "a-secret-of-at-least-32-characters!!"
"#;

const USERS: &str = r#"
[rtsp.users]
recorder = "correct horse"
"#;

/// A running server.
struct World {
    address: SocketAddr,
    app: App,
    keyring: Arc<Keyring>,
    outlets: Arc<Outlets>,
    closing: CancellationToken,
}

impl World {
    async fn start(settings: &str) -> Self {
        Self::start_with(settings, Patience::default()).await
    }

    async fn start_with(settings: &str, patience: Patience) -> Self {
        let config = config::from_toml(&format!("{settings}\n{CAMERAS}"));
        let (events, events_in) = mpsc::unbounded_channel();
        let udp = "127.0.0.1:0".parse().unwrap();
        let media = MediaConfig {
            udp,
            tcp: MediaTcp::Off,
            advertise: Vec::new(),
            workers: Some(1),
            priority: Priority::Ordinary,
        };
        let media = MediaPlane::start(&media, events).unwrap();
        let app = App::start(config.application(), media, events_in);
        let keyring = Arc::new(Keyring::new(&config.auth).unwrap());
        let server = RtspOut::bind(udp, "rtsp.listen", "m.toml").await.unwrap();
        let address = server.address();
        let cameras =
            Cameras::new(app.clone(), Arc::clone(&keyring), &config.rtsp, config.auth.mode);
        let (outlets, closing) = (Arc::<Outlets>::default(), CancellationToken::new());
        let serving = server.serve_within(patience, cameras, Arc::clone(&outlets), closing.clone());
        tokio::spawn(serving);
        Self { address, app, keyring, outlets, closing }
    }

    fn url(&self, path: &str) -> String {
        format!("rtsp://{}{path}", self.address)
    }

    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let base = self.url("");
        Client { stream, input: Vec::new(), base, sequence: 0, media: 0, headers: Vec::new() }
    }

    async fn reservations(&self) -> usize {
        self.app.snapshot().await.reservations.len()
    }

    async fn until_reservations(&self, wanted: usize) {
        let there = async {
            while self.reservations().await != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, there).await.unwrap();
    }

    async fn token(&self, camera: &str) -> (control::ReservationId, String) {
        let reserved = self
            .app
            .reserve(camera, "a", (control::Quality::High, control::Class::LOWEST))
            .await
            .unwrap();
        let camera = CameraId::parse(camera).unwrap();
        let token = self.keyring.viewer_token(&reserved.id, &camera, SystemTime::now()).unwrap();
        (reserved.id, token)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// A client that asks what it is told to.
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    base: String,
    sequence: u32,
    /// Interleaved packets that came.
    media: usize,
    /// Sent with each request.
    headers: Vec<String>,
}

/// An answer, taken apart.
#[derive(Debug)]
struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Answered {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(prefix.as_str()))
    }
}

impl Client {
    async fn ask(&mut self, method: &str, path: &str, headers: &[&str]) -> Answered {
        self.sequence += 1;
        let own = self.headers.iter().map(String::as_str);
        let headers: String =
            headers.iter().copied().chain(own).map(|header| format!("{header}\r\n")).collect();
        let (base, sequence) = (&self.base, self.sequence);
        self.send(&format!("{method} {base}{path} RTSP/1.0\r\nCSeq: {sequence}\r\n{headers}\r\n"))
            .await;
        let answer = self.answer().await.expect("an answer comes");
        assert_eq!(answer.header("CSeq"), Some(sequence.to_string().as_str()));
        answer
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next answer; `None` at the end. Media before it is counted.
    async fn answer(&mut self) -> Option<Answered> {
        loop {
            let packet = self.packet().await?;
            if packet.first() == Some(&b'$') {
                self.media += 1;
                continue;
            }
            let text = String::from_utf8(packet).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            return Some(Answered { status, head: head.to_owned(), body: body.to_owned() });
        }
    }

    /// The next answer or interleaved packet, whole.
    async fn packet(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = whole(&self.input) {
                let rest = self.input.split_off(length);
                return Some(std::mem::replace(&mut self.input, rest));
            }
            let mut buffer = vec![0; 65_536];
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer));
            let count = read.await.expect("something comes").unwrap_or(0);
            if count == 0 {
                return None;
            }
            self.input.extend_from_slice(&buffer[..count]);
        }
    }

    /// DESCRIBE, SETUP of the picture, PLAY.
    async fn play(&mut self, path: &str) -> Answered {
        let described = self.ask("DESCRIBE", path, &[]).await;
        assert_eq!(described.status, 200, "{described:?}");
        let track = format!("{}/trackID=0", path.split('?').next().unwrap());
        let set_up = self.ask("SETUP", &track, &[TCP]).await;
        assert_eq!(set_up.status, 200, "{set_up:?}");
        self.ask("PLAY", path.split('?').next().unwrap(), &[]).await
    }

    async fn frames(&mut self, wanted: usize) {
        let mut markers = 0;
        while markers < wanted {
            let packet = self.packet().await.expect("media comes");
            markers += usize::from(packet[1] == 0 && packet[5] & 0x80 != 0);
        }
    }

    /// Whether the server ends the connection.
    async fn is_ended(&mut self) -> bool {
        while self.packet().await.is_some() {}
        true
    }
}

const TCP: &str = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1";

/// How long the first whole message is.
fn whole(input: &[u8]) -> Option<usize> {
    if let [b'$', _, high, low, ..] = input {
        let length = 4 + usize::from(u16::from_be_bytes([*high, *low]));
        return (input.len() >= length).then_some(length);
    }
    let head = input.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&input[..head]).into_owned();
    let body = text.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length = head + body.map_or(0, |length| length.parse().unwrap());
    (input.len() >= length).then_some(length)
}

/// What our own puller brings of a URL.
#[derive(Default)]
struct Seen {
    frames: Mutex<Vec<(Codec, bool, u64)>>,
    format: Mutex<Option<SourceFormat>>,
    more: Notify,
}

impl Output for Seen {
    fn frame(&self, frame: Frame) {
        let row = (frame.codec, frame.keyframe, frame.captured.unix_micros());
        self.frames.lock().unwrap().push(row);
        self.more.notify_one();
    }

    fn live(&self, format: SourceFormat) {
        *self.format.lock().unwrap() = Some(format);
    }

    fn lost(&self, _packets: u64) {}
}

/// Pulls until `enough` pictures are there.
async fn pull(url: &str, enough: usize) -> Result<Arc<Seen>, engine::SourceFailure> {
    let seen = Arc::new(Seen::default());
    let source = SourceUrl::parse(url).unwrap();
    let output: Arc<dyn Output> = Arc::<Seen>::clone(&seen);
    let pulling =
        ingest::pull(&source, Reach::Anywhere, RtspTransport::Tcp, output, Arc::default());
    let arrived = async {
        loop {
            seen.more.notified().await;
            let frames = seen.frames.lock().unwrap();
            if frames.iter().filter(|(codec, _, _)| *codec == Codec::H264).count() >= enough {
                break;
            }
        }
    };
    tokio::select! {
        failure = pulling => return Err(failure),
        () = arrived => {}
        () = tokio::time::sleep(PATIENCE) => panic!("too few frames"),
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_puller_reads_both_renditions() {
    let world = World::start("").await;
    for (path, width) in [("/cam-1", 320), ("/cam-1/sub", 192)] {
        let seen = pull(&world.url(path), 20).await.unwrap();
        let format = seen.format.lock().unwrap().unwrap();
        assert_eq!(format.width, width, "{path}");
        assert!(seen.frames.lock().unwrap()[0].1, "it begins with a keyframe");
    }
    world.until_reservations(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_a_viewer_with_a_lease_that_ends_with_its_connection() {
    let world = World::start("").await;
    let mut client = world.client().await;
    assert_eq!(client.play("/cam-1").await.status, 200);
    client.frames(20).await;
    let snapshot = world.app.snapshot().await;
    let camera =
        snapshot.cameras.iter().find(|camera| camera.about.id.as_str() == "cam-1").unwrap();
    assert_eq!((camera.viewer_count, camera.pullers, camera.pulls_started), (1, 1, 1));
    assert!(snapshot.reservations[0].connected && snapshot.reservations[0].user == "rtsp");
    assert_eq!((snapshot.total_current, snapshot.media.viewers_connected), (1, 1));
    drop(client);
    world.until_reservations(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn describing_takes_no_quota_and_playing_does() {
    let world = World::start("").await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = world.client().await;
        assert_eq!(client.ask("DESCRIBE", "/cam-1", &[]).await.status, 200);
        assert_eq!(client.ask("SETUP", "/cam-1/trackID=0", &[TCP]).await.status, 200);
        clients.push(client);
    }
    assert_eq!(world.reservations().await, 0);
    let mut statuses = Vec::new();
    for client in &mut clients {
        let answer = client.ask("PLAY", "/cam-1", &[]).await;
        if answer.status != 200 {
            assert_eq!(answer.body, "quota of METRO is used up: 2 of 2");
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [200, 200, 453, 453]);
    assert_eq!(clients[0].ask("TEARDOWN", "/cam-1", &[]).await.status, 200);
    world.until_reservations(1).await;
    assert_eq!(clients[2].play("/cam-1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_possible_is_refused_with_a_sentence() {
    let world = World::start("").await;
    let mut client = world.client().await;
    let udp = "Transport: RTP/AVP;unicast;client_port=5000-5001";
    for (method, path, header, status, sentence) in [
        ("DESCRIBE", "/nope", "", 404, "there is no camera nope"),
        ("DESCRIBE", "/cam-2/sub", "", 404, "camera cam-2 has no smaller picture"),
        ("DESCRIBE", "/cam-dead", "", 503, "the camera at 127.0.0.1:1 cannot be reached"),
        ("SETUP", "/cam-1/trackID=0", TCP, 455, "SETUP follows DESCRIBE"),
        ("PLAY", "/cam-1", "", 455, "PLAY follows SETUP"),
        ("DESCRIBE", "/cam-1", "", 200, "v=0"),
        ("SETUP", "/cam-2/trackID=0", TCP, 455, "another camera was described"),
        ("SETUP", "/cam-1/trackID=7", TCP, 404, "there is no such track"),
        ("SETUP", "/cam-1/trackID=0", udp, 461, "media comes in the RTSP connection only"),
        ("PLAY", "/cam-1", "", 455, "PLAY follows SETUP"),
        ("PLAY", "/cam-1", "Session: another", 454, "there is no such session"),
        ("PAUSE", "/cam-1", "", 501, "a live stream cannot be paused"),
        ("ANNOUNCE", "/cam-1", "", 405, "publishing by RTSP is not possible"),
        ("BREW", "/cam-1", "", 501, "there is no such method"),
        ("OPTIONS", "/cam-1", "", 200, ""),
        ("GET_PARAMETER", "/cam-1", "", 200, ""),
    ] {
        let headers: &[&str] = if header.is_empty() { &[] } else { &[header] };
        let answer = client.ask(method, path, headers).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(answer.body.starts_with(sentence), "{method} {path}: {answer:?}");
    }
    assert_eq!(world.outlets.rtsp_requests_refused.value(), 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_by_digest_and_by_basic() {
    let world = World::start(USERS).await;
    let with = |password: &str| {
        world.url("/cam-1").replace("rtsp://", &format!("rtsp://recorder:{password}@"))
    };
    let seen = pull(&with("correct%20horse"), 5).await;
    assert!(seen.is_ok(), "retina answers the Digest challenge");
    let refused = pull(&with("wrong%20horse"), 5).await;
    assert!(matches!(refused, Err(engine::SourceFailure::Unauthorized)));

    let mut client = world.client().await;
    let answer = client.ask("DESCRIBE", "/cam-1", &[]).await;
    assert_eq!(answer.status, 401);
    assert!(answer.header("WWW-Authenticate").unwrap().starts_with("Digest realm=\"Manifold\""));
    // recorder:correct horse
    client.headers = vec!["Authorization: Basic cmVjb3JkZXI6Y29ycmVjdCBob3JzZQ==".to_owned()];
    assert_eq!(client.play("/cam-1").await.status, 200);
    let users: Vec<_> =
        world.app.snapshot().await.reservations.into_iter().map(|one| one.user).collect();
    assert!(users.contains(&"recorder".to_owned()), "{users:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewers_token_opens_its_own_reservation() {
    let world = World::start(KEYS).await;
    let (reservation, token) = world.token("cam-1").await;
    let mut client = world.client().await;
    assert_eq!(client.ask("DESCRIBE", "/cam-1", &[]).await.status, 401);
    let other = client.ask("DESCRIBE", &format!("/cam-2?token={token}"), &[]).await;
    assert_eq!((other.status, other.body.contains("another room")), (403, true), "{other:?}");
    let sub = client.play(&format!("/cam-1/sub?token={token}")).await;
    assert_eq!(
        (sub.status, sub.body.contains("the camera's other picture")),
        (403, true),
        "{sub:?}"
    );
    assert_eq!(client.play(&format!("/cam-1?token={token}")).await.status, 200);
    let ids: Vec<_> =
        world.app.snapshot().await.reservations.into_iter().map(|one| one.id).collect();
    assert_eq!(ids, [reservation], "it took no second one");
    client.frames(5).await;
    drop(client);
    world.until_reservations(0).await;
    let mut client = world.client().await;
    let answer = client.play(&format!("/cam-1?token={token}")).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (403, "the reservation has ended; reserve again")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_taken_as_the_password_of_basic_and_as_bearer() {
    use base64::Engine;
    let world = World::start(KEYS).await;
    let (_, token) = world.token("cam-1").await;
    let basic = base64::prelude::BASE64_STANDARD.encode(format!("token:{token}"));
    for header in [format!("Basic {basic}"), format!("Bearer {token}")] {
        let mut client = world.client().await;
        client.headers = vec![format!("Authorization: {header}")];
        assert_eq!(client.ask("DESCRIBE", "/cam-1", &[]).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn releasing_the_lease_ends_the_connection() {
    let world = World::start("").await;
    let mut client = world.client().await;
    client.play("/cam-1").await;
    let id = world.app.snapshot().await.reservations[0].id.clone();
    assert!(world.app.release(id.as_str()).await.is_ok());
    assert!(client.is_ended().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_and_too_many_requests_end_the_connection() {
    let world = World::start(USERS).await;
    let mut client = world.client().await;
    client.headers = vec!["Authorization: Basic cmVjb3JkZXI6bm8=".to_owned()];
    for _ in 0..5 {
        assert_eq!(client.ask("DESCRIBE", "/cam-1", &[]).await.status, 401);
    }
    assert!(client.is_ended().await);

    let mut client = world.client().await;
    client.send(&"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n".repeat(1_000)).await;
    assert!(client.is_ended().await);
    assert_eq!(world.outlets.rtsp_dropped_hostile.value(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_on_many_connections_make_their_address_wait_and_keep_no_token_out() {
    let world = World::start(&format!("{KEYS}{USERS}")).await;
    let basic = |password: &str| {
        use base64::Engine;
        let text = base64::prelude::BASE64_STANDARD.encode(format!("recorder:{password}"));
        vec![format!("Authorization: Basic {text}")]
    };
    let mut recorder = world.client().await;
    recorder.headers = basic("correct horse");
    let mut tries = 0;
    // On a slow machine tries come back while others are made.
    let refused = loop {
        let mut client = world.client().await;
        assert_eq!(client.ask("DESCRIBE", "/cam-1", &[]).await.status, 401, "asking is no guess");
        client.headers = basic("no");
        let status = client.ask("DESCRIBE", "/cam-1", &[]).await.status;
        tries += 1;
        assert!(tries < 100 && (status == 401 || tries > 10), "{status} at try {tries}");
        if status == 503 {
            let answer = recorder.ask("DESCRIBE", "/cam-1", &[]).await;
            if answer.status == 503 {
                break answer;
            }
        }
    };
    assert!(refused.body.starts_with("too many wrong passwords"), "{refused:?}");
    let wait: u64 = refused.header("Retry-After").unwrap().parse().unwrap();
    assert!((1..=5).contains(&wait), "{wait}");
    let (_, token) = world.token("cam-1").await;
    let mut viewer = world.client().await;
    let answer = viewer.ask("DESCRIBE", &format!("/cam-1?token={token}"), &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let until_let_in = async {
        while recorder.ask("DESCRIBE", "/cam-1", &[]).await.status != 200 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_let_in).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_rtsp_ends_the_connection() {
    let world = World::start("").await;
    let large = format!("OPTIONS * RTSP/1.0\r\nA: {}", "a".repeat(20_000));
    for text in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\u{16}\u{3}\u{1}\r\n", &large] {
        let mut client = world.client().await;
        client.send(text).await;
        assert!(client.is_ended().await);
    }
    assert_eq!(world.outlets.rtsp_dropped_hostile.value(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_lines_are_not_kept() {
    let world = World::start("").await;
    let mut client = world.client().await;
    client.send(&"\r\n".repeat(2 * message::MESSAGE_LENGTH_MAX)).await;
    assert_eq!(client.ask("OPTIONS", "/", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_for_nothing_is_cut_off() {
    let short = Duration::from_millis(100);
    let world =
        World::start_with("", Patience { idle: short, stall: short, ..Patience::default() }).await;
    let mut client = world.client().await;
    assert!(client.is_ended().await);
    assert_eq!(world.outlets.rtsp_dropped_idle.value(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_do_not_keep_the_place_of_a_client_that_asks_for_nothing() {
    let short = Duration::from_millis(100);
    let world =
        World::start_with("", Patience { idle: short, stall: short, ..Patience::default() }).await;
    let mut client = world.client().await;
    let until_cut_off = async {
        while client.stream.write_all(b"$\x01\0\0").await.is_ok() {
            tokio::time::sleep(short / 10).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_cut_off).await.unwrap();
    assert_eq!(world.outlets.rtsp_dropped_idle.value(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_does_not_keep_the_place_of_a_client_that_is_let_see_nothing() {
    let short = Duration::from_millis(300);
    let patience = Patience { stall: short, proof: short, ..Patience::default() };
    let world = World::start_with(USERS, patience).await;
    let mut known = world.client().await;
    known.headers = vec!["Authorization: Basic cmVjb3JkZXI6Y29ycmVjdCBob3JzZQ==".to_owned()];
    assert_eq!(known.ask("DESCRIBE", "/cam-1", &[]).await.status, 200);
    let mut stranger = world.client().await;
    let until_cut_off = async {
        while stranger.stream.write_all(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n").await.is_ok() {
            tokio::time::sleep(short / 3).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_cut_off).await.unwrap();
    assert_eq!(world.outlets.rtsp_dropped_stranger.value(), 1);
    assert_eq!(known.play("/cam-1").await.status, 200, "who was let in may take his time");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_of_an_address_take_places_from_themselves() {
    let world = World::start("").await;
    let mut reader = world.client().await;
    assert_eq!(reader.play("/cam-1").await.status, 200);
    let mut strangers = Vec::new();
    for _ in 0..Cameras::LIMITS.strangers_an_address + 1 {
        strangers.push(world.client().await);
    }
    assert!(strangers[0].is_ended().await, "the oldest gives way");
    assert_eq!(world.outlets.rtsp_dropped_evicted.value(), 1);
    let newest = strangers.last_mut().unwrap();
    assert_eq!(newest.ask("OPTIONS", "/", &[]).await.status, 200);
    reader.frames(20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_describes_no_more_cameras_at_once_than_its_share() {
    let world = World::start("").await;
    let mut describing = Vec::new();
    for _ in 0..turns::TURNS_AN_ADDRESS {
        let mut client = world.client().await;
        assert_eq!(client.ask("DESCRIBE", "/cam-1", &[]).await.status, 200);
        describing.push(client);
    }
    let mut next = world.client().await;
    let refused = next.ask("DESCRIBE", "/cam-1", &[]).await;
    assert_eq!((refused.status, refused.header("Retry-After")), (503, Some("3")), "{refused:?}");
    assert!(refused.body.starts_with("too many cameras are being described"), "{refused:?}");
    assert_eq!(describing[0].ask("SETUP", "/cam-1/trackID=0", &[TCP]).await.status, 200);
    assert_eq!(describing[0].ask("PLAY", "/cam-1", &[]).await.status, 200);
    assert_eq!(
        next.ask("DESCRIBE", "/cam-1", &[]).await.status,
        200,
        "who plays has his turn back"
    );
}

/// A library in which there is nothing to see, with few places.
#[derive(Clone)]
struct Nothing;

impl Library for Nothing {
    const LIMITS: Limits = Limits { all: 3, an_address: 2, ..Cameras::LIMITS };

    type Described = ();
    type Playing = crate::app::Reading;

    async fn admit(&self, _: Ask<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    async fn describe(&self, (): &mut ()) -> Result<Description, Refusal> {
        Ok(Description { title: String::new(), tracks: Vec::new() })
    }

    async fn play(&self, (): ()) -> Result<crate::app::Reading, Refusal> {
        Err(Refusal::not_found(String::new()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_place_is_told_so() {
    let any = "127.0.0.1:0".parse().unwrap();
    let server = RtspOut::bind(any, "rtsp.listen", "m.toml").await.unwrap();
    let address = server.address();
    let (outlets, closing) = (Arc::<Outlets>::default(), CancellationToken::new());
    tokio::spawn(server.serve(Nothing, Arc::clone(&outlets), closing.clone()));
    let connect = async || {
        let stream = TcpStream::connect(address).await.unwrap();
        let base = format!("rtsp://{address}");
        Client { stream, input: Vec::new(), base, sequence: 0, media: 0, headers: Vec::new() }
    };
    let mut inside = [connect().await, connect().await];
    for client in &mut inside {
        assert_eq!(client.ask("DESCRIBE", "/a", &[]).await.status, 200);
    }
    let answer = connect().await.answer().await.unwrap();
    assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("30")));
    assert!(answer.body.starts_with("your address has all the connections"), "{answer:?}");
    assert_eq!(outlets.rtsp_connections_refused.value(), 1);
    drop(inside);
    let freed = async {
        while outlets.rtsp_connections.value() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.unwrap();
    assert_eq!(connect().await.ask("DESCRIBE", "/a", &[]).await.status, 200);
    closing.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_cut_off_and_others_play_on() {
    let patience =
        Patience { idle: PATIENCE, stall: Duration::from_millis(300), ..Patience::default() };
    let world = World::start_with("", patience).await;
    let mut slow = world.client().await;
    let small = socket2::SockRef::from(&slow.stream).set_recv_buffer_size(4_096);
    small.unwrap();
    slow.play("/cam-1").await;
    let mut other = world.client().await;
    other.play("/cam-1").await;
    world.until_reservations(2).await;
    let both = async {
        while world.reservations().await == 2 {
            other.frames(1).await;
        }
    };
    tokio::time::timeout(4 * PATIENCE, both).await.unwrap();
    other.frames(20).await;
    assert_eq!(world.reservations().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_server_ends_connections() {
    let world = World::start("").await;
    let mut client = world.client().await;
    client.play("/cam-1").await;
    world.closing.cancel();
    assert!(client.is_ended().await);
}

#[tokio::test]
async fn a_busy_port_is_named_with_its_setting() {
    let any = "127.0.0.1:0".parse().unwrap();
    let first = RtspOut::bind(any, "rtsp.listen", "m.toml").await.unwrap();
    let error = RtspOut::bind(first.address(), "rtsp.listen", "m.toml").await.unwrap_err();
    let wanted = format!(
        "port {} (rtsp.listen) is in use; stop the other program or change `rtsp.listen` in m.toml",
        first.address()
    );
    assert_eq!(error.to_string(), wanted);
}

#[test]
fn no_secret_is_printed() {
    let config = config::from_toml(USERS);
    assert!(!format!("{config:?}").contains("horse"));
    assert_eq!(config.rtsp.users[0].password.expose_secret(), "correct horse");
}

//! Runs the program for a test, talks HTTP to it, and ends it whatever happens.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of its own, gone with the value.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("manifold-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a program that ended left behind.
#[derive(Debug)]
pub(crate) struct Output {
    /// `None`: it was killed.
    pub(crate) code: Option<i32>,
    pub(crate) printed: String,
    pub(crate) log: String,
}

/// A running server.
pub(crate) struct Program {
    pub(crate) address: String,
    child: Child,
    printed: Option<JoinHandle<String>>,
    log: Option<JoinHandle<String>>,
    _directory: Directory,
}

/// The answer to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) text: String,
}

impl Program {
    /// Starts with these settings, on ports of its own.
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_with(settings, &[])
    }

    pub(crate) fn start_with(settings: &str, variables: &[(&str, &str)]) -> Self {
        let directory = Directory::new();
        let config = directory.write("manifold.toml", settings);
        let ready = directory.0.join("ready.json");
        let mut child = command(variables)
            .args(["serve", "--listen", "127.0.0.1:0", "--udp", "127.0.0.1:0"])
            .args(["--rtsp", "", "--config"])
            .args([config.as_os_str(), "--ready-file".as_ref(), ready.as_os_str()])
            .spawn()
            .unwrap();
        let printed = Some(reader(child.stdout.take().unwrap()));
        let log = Some(reader(child.stderr.take().unwrap()));
        let mut program =
            Self { address: String::new(), child, printed, log, _directory: directory };
        program.address = program.ready(&ready);
        program
    }

    fn ready(&mut self, file: &Path) -> String {
        let begun = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(file) {
                let ready: serde_json::Value = serde_json::from_str(&text).unwrap();
                return ready["listen"][0].as_str().unwrap().to_owned();
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = self.log.take().unwrap().join().unwrap();
                panic!("the program ended with {status}: {log}");
            }
            assert!(begun.elapsed() < PATIENCE, "the program does not become ready");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    pub(crate) fn post(&self, path: &str, body: &serde_json::Value) -> Answer {
        self.ask("POST", path, &[("content-type", "application/json")], &body.to_string())
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let headers: String =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\
             {headers}\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses a body need not read it.
        let _ = stream.write_all(body.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Answer::read(&String::from_utf8(answer).unwrap())
    }

    pub(crate) fn signal(&self, signal: i32) {
        let process = i32::try_from(self.child.id()).unwrap();
        let kill = Command::new("kill").args([format!("-{signal}"), process.to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn end(self) -> Output {
        self.signal(libc::SIGTERM);
        self.wait(PATIENCE)
    }

    /// Waits until it has ended, which it must within `limit`.
    pub(crate) fn wait(mut self, limit: Duration) -> Output {
        let begun = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(begun.elapsed() < limit, "the program does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let printed = self.printed.take().unwrap().join().unwrap();
        let log = self.log.take().unwrap().join().unwrap();
        Output { code, printed, log }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("cut: {text}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        Self { status, head: head.to_owned(), text: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The sentence of a problem with this status.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        self.json()["detail"].as_str().unwrap().to_owned()
    }
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "it never came to be that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the program to its end, in a directory without a config file.
pub(crate) fn manifold(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let directory = Directory::new();
    let output = command(variables).args(arguments).current_dir(&directory.0).output().unwrap();
    Output {
        code: output.status.code(),
        printed: String::from_utf8(output.stdout).unwrap(),
        log: String::from_utf8(output.stderr).unwrap(),
    }
}

fn command(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).envs(variables.iter().copied());
    command
}

fn reader(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    })
}

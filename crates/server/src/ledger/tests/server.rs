//! A redis-server of one test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::data_dir::tests::Temporary;
use crate::ledger::StoreAddress;

/// Names another server's program, as Valkey's.
const SERVER_VARIABLE: &str = "MANIFOLD_STORE_SERVER";

/// Runs until it is dropped.
pub(crate) struct Server {
    port: u16,
    child: Child,
    dir: Temporary,
}

impl Server {
    pub(crate) fn start() -> Self {
        let dir = Temporary::new();
        // Somebody else may take the port before the server does.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = spawn(port, &dir) {
                return Self { port, child, dir };
            }
        }
        panic!("redis-server does not start: install it with `cargo xtask setup`");
    }

    pub(crate) fn address(&self) -> StoreAddress {
        StoreAddress::parse(&format!("redis://127.0.0.1:{}", self.port)).unwrap()
    }

    /// What `redis-cli` prints.
    pub(crate) fn cli(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// As the kernel does to it when memory runs out.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Empty, on the same port.
    pub(super) fn start_again(&mut self) {
        self.child = spawn(self.port, &self.dir).expect("the port is ours");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None`: it ended at once. Returns when it answers.
fn spawn(port: u16, dir: &Temporary) -> Option<Child> {
    let folder = dir.0.path("redis");
    std::fs::create_dir_all(&folder).unwrap();
    let program = std::env::var(SERVER_VARIABLE).unwrap_or_else(|_| "redis-server".to_owned());
    let mut child = Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--enable-debug-command", "local", "--dir"])
        .arg(folder)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is there: `cargo xtask setup` installs it");
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(child);
        }
        assert!(began.elapsed() < Duration::from_secs(60), "redis-server does not answer");
        std::thread::yield_now();
    }
    None
}

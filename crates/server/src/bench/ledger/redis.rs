//! A redis-server of a benchmark's own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::bench::child::cpu_time;

/// How long redis-server may take to start.
const START_TIME_MAX: Duration = Duration::from_secs(20);

/// A redis-server that keeps nothing, and ends with the measurement.
pub(super) struct RedisServer {
    port: u16,
    child: Child,
}

impl RedisServer {
    pub(super) fn start() -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server does not start; install it, or name a store with --store")?;
        let server = Self { port, child };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(began.elapsed() < START_TIME_MAX, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// CPU time of all of its threads, since its start.
    pub(super) fn cpu_time(&self) -> anyhow::Result<Duration> {
        cpu_time(self.child.id())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A server of its own for a benchmark: this very program, with settings made for the purpose, on
//! free ports of loopback.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// From the start until it serves. Making a certificate and calibrating take milliseconds.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// How often is looked whether it serves.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running server. It ends, and its files go, when this is dropped.
pub(super) struct ServerProcess {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl ServerProcess {
    /// Starts this program with the given settings (TOML) and waits until it serves. `listen` and
    /// `media.udp` should say port 0.
    pub(super) async fn start(settings: &str) -> anyhow::Result<Self> {
        let name = format!("manifold-bench-{}", uuid::Uuid::new_v4());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (config, ready) = (folder.join("manifold.toml"), folder.join("ready.json"));
        fs::write(&config, settings)?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let child = Command::new(program)
            .arg("serve")
            .args(["--rtsp", ""])
            .arg("--config")
            .arg(&config)
            .arg("--ready-file")
            .arg(&ready)
            // What is kept of reservations belongs to the benchmark, not to a server of this machine.
            .env("STATE_DIRECTORY", folder.join("state"))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the server")?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, folder, address: nowhere };
        server.address = server.listening(&ready).await?;
        Ok(server)
    }

    async fn listening(&mut self, ready: &PathBuf) -> anyhow::Result<SocketAddr> {
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            // The file is there whole or not at all.
            if let Ok(text) = fs::read_to_string(ready) {
                let told: Value = serde_json::from_str(&text)?;
                let first = told["listen"][0].as_str().context("the server told no address")?;
                return Ok(first.parse()?);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at its start: {status}");
            }
            ensure!(Instant::now() < deadline, "the server did not start in {START_TIME_MAX:?}");
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Where it serves HTTP.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resident memory in bytes, as the kernel counts it.
    pub(super) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let resident = self.status("VmRSS:")?;
        let kib = resident.strip_suffix(" kB").context("VmRSS is not in kB")?;
        Ok(kib.parse::<u64>()? * 1024)
    }

    /// Its threads.
    pub(super) fn threads(&self) -> anyhow::Result<u64> {
        Ok(self.status("Threads:")?.parse()?)
    }

    /// Its sockets and files.
    pub(super) fn files(&self) -> anyhow::Result<u64> {
        let folder = format!("/proc/{}/fd", self.child.id());
        Ok(fs::read_dir(folder).context("the server has ended")?.count() as u64)
    }

    /// CPU time of all of its threads, since its start.
    pub(super) fn cpu_time(&self) -> anyhow::Result<Duration> {
        cpu_time(self.child.id())
    }

    /// A line of the kernel's account of the process.
    fn status(&self, name: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).context("the server has ended")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no {name} in {path}"))?.trim().to_owned())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended by itself, and what is left in the folder harms nobody.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// CPU time of all threads of a process, since its start.
pub(super) fn cpu_time(process: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).context("the server has ended")?;
    // Behind the name, which is in brackets: user and system time are the 12th and 13th field from
    // there (proc_pid_stat(5)), in hundredths of a second on all that Linux runs on (USER_HZ).
    let (_, fields) = stat.rsplit_once(')').with_context(|| format!("no name in {path}"))?;
    let times = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let hundredths: u64 = times.sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(hundredths * 10))
}

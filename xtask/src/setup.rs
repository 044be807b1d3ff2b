//! `cargo xtask setup`: what the tests need from Debian, npm and PyPI.
//!
//! Safe to run twice: what is there is left alone. Only Debian's packages need root; without it
//! the step fails with the line to run.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::repo::Repo;
use crate::step;

/// A Debian package and what it is for.
struct Package {
    name: &'static str,
    purpose: &'static str,
}

const fn package(name: &'static str, purpose: &'static str) -> Package {
    Package { name, purpose }
}

/// What the tests need from Debian.
const PACKAGES: &[Package] = &[
    package("g++", "builds openh264"),
    package("make", "builds native crates"),
    package("iproute2", "the bad networks of the browser tests"),
    package("redis-server", "the store of leases of the tests, with its Sentinel"),
    package("redis-tools", "what operators look into it with"),
    package("faketime", "nodes of the tests whose clocks are wrong"),
    package("coturn", "the TURN server of the browser tests"),
    package("chromium", "the browser of the browser tests"),
    package("libnss3-tools", "what the browser trusts"),
    package("openssl", "certificates of the browser tests"),
    package("curl", "a client of HTTPS that is no browser"),
    package("fonts-dejavu-core", "the page's text and the clock of the test camera"),
    package("python3-gi", "the test camera's Python"),
    package("python3-venv", "the Python viewer's environment"),
    package("gir1.2-gst-rtsp-server-1.0", "the test camera: a real RTSP server"),
    package("gir1.2-gst-plugins-base-1.0", "the test camera's own pictures"),
    package("gir1.2-gst-plugins-bad-1.0", "the GStreamer viewer and publisher (webrtcbin)"),
    package("gstreamer1.0-nice", "their ICE"),
    package("gstreamer1.0-tools", "the RTSP player of the tests"),
    package("ffmpeg", "the recorder of the tests, and what reads pictures back"),
    package("gstreamer1.0-plugins-base", "the test camera's pictures and G.711"),
    package("gstreamer1.0-plugins-good", "the test camera's RTP payloaders"),
    package("gstreamer1.0-plugins-bad", "the test camera's H.265"),
    package("gstreamer1.0-plugins-ugly", "the test camera's H.264 (x264)"),
    package("gstreamer1.0-libav", "the test camera's AAC"),
    package("gstreamer1.0-x", "the test camera's clock overlay"),
];

/// What only the benchmarks need: the servers to compare with. Not of the ordinary set-up, since the
/// tests do without and Go alone takes minutes.
const BENCH_PACKAGES: &[Package] = &[
    package("janus", "a server to compare with"),
    package("golang-go", "builds the Pion server to compare with"),
    package("golang-github-pion-webrtc.v3-dev", "Pion, to compare with"),
];

/// The smallest Node.js that Vite, which builds the page, runs on.
const NODE_MIN: (u32, u32) = (20, 19);

/// Installs whatever is missing.
pub(crate) fn install(repo: &Repo) -> Result<()> {
    step::time("set-up", || {
        debian(PACKAGES)?;
        node()?;
        npm(repo, "e2e")?;
        npm(repo, "web")?;
        python(repo)
    })
}

/// Installs what the benchmarks need beyond that.
pub(crate) fn install_bench() -> Result<()> {
    step::time("set-up of the benchmarks", || debian(BENCH_PACKAGES))
}

/// Lists what is missing, each with the line that installs it; fails where anything is.
pub(crate) fn check(repo: &Repo) -> Result<()> {
    let mut lines: Vec<String> = missing_packages(PACKAGES)?
        .iter()
        .map(|p| format!("{} ({}): {}", p.name, p.purpose, apt_line(&[p.name])))
        .collect();
    if let Err(error) = node() {
        lines.push(format!("{error:#}"));
    }
    for folder in ["e2e", "web"] {
        if !npm_installed(repo, folder)? {
            lines.push(format!("npm packages of {folder}/: (cd {folder} && npm ci)"));
        }
    }
    if !python_installed(repo)? {
        lines.push(format!("aiortc (the Python viewer): {PYTHON_LINE}"));
    }
    if lines.is_empty() {
        step::say("everything is there");
        return Ok(());
    }
    bail!("missing; `cargo xtask setup` installs all of it:\n  {}", lines.join("\n  "))
}

/// `npm ci` in `folder`, unless exactly its lock file is installed already.
pub(crate) fn npm(repo: &Repo, folder: &str) -> Result<()> {
    if npm_installed(repo, folder)? {
        step::say(&format!("    npm packages of {folder}/: there"));
        return Ok(());
    }
    step::run(
        &format!("npm ci in {folder}/"),
        &mut repo.command(folder, "npm", &["ci", "--no-audit", "--no-fund"]),
    )?;
    std::fs::copy(repo.path(folder).join("package-lock.json"), repo.path(folder).join(NPM_STAMP))?;
    Ok(())
}

/// The lock file that was installed: what tells whether it still is the one wanted.
const NPM_STAMP: &str = "node_modules/.installed.json";
const PYTHON_STAMP: &str = "e2e/.venv/installed.txt";
const PYTHON_LINE: &str =
    "/usr/bin/python3 -m venv e2e/.venv && e2e/.venv/bin/pip install -r e2e/requirements.txt";

fn npm_installed(repo: &Repo, folder: &str) -> Result<bool> {
    let folder = repo.path(folder);
    same(&folder.join("package-lock.json"), &folder.join(NPM_STAMP))
}

fn python_installed(repo: &Repo) -> Result<bool> {
    same(&repo.path("e2e/requirements.txt"), &repo.path(PYTHON_STAMP))
}

/// Whether the file that is wanted and the copy left by the last installation are equal.
fn same(wanted: &Path, installed: &Path) -> Result<bool> {
    let wanted = std::fs::read(wanted).with_context(|| format!("{}", wanted.display()))?;
    Ok(std::fs::read(installed).is_ok_and(|installed| installed == wanted))
}

fn python(repo: &Repo) -> Result<()> {
    if python_installed(repo)? {
        step::say("    Python packages of e2e/: there");
        return Ok(());
    }
    // Debian's own Python: the one that the python3-venv package serves.
    step::run(
        "Python environment e2e/.venv",
        &mut repo.command("", "/usr/bin/python3", &["-m", "venv", "e2e/.venv"]),
    )?;
    step::run(
        "pip install in e2e/.venv",
        &mut repo.command(
            "",
            "e2e/.venv/bin/pip",
            &["install", "--quiet", "--disable-pip-version-check", "-r", "e2e/requirements.txt"],
        ),
    )?;
    std::fs::copy(repo.path("e2e/requirements.txt"), repo.path(PYTHON_STAMP))?;
    Ok(())
}

fn node() -> Result<()> {
    let wanted = format!("{}.{}", NODE_MIN.0, NODE_MIN.1);
    let Ok(version) = step::output(Command::new("node").arg("--version")) else {
        bail!(
            "Node.js is missing: install {wanted} or newer (Debian 13: {})",
            apt_line(&["nodejs", "npm"])
        );
    };
    let version = version.trim();
    let mut numbers = version.trim_start_matches('v').split('.').map_while(|n| n.parse().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < NODE_MIN {
        bail!("Node.js {version} is too old for the browser tests: install {wanted} or newer");
    }
    step::say(&format!("    Node.js {version}: there"));
    Ok(())
}

fn debian(wanted: &'static [Package]) -> Result<()> {
    let missing = missing_packages(wanted)?;
    if missing.is_empty() {
        step::say("    Debian packages: there");
        return Ok(());
    }
    for package in &missing {
        step::say(&format!("    missing: {} ({})", package.name, package.purpose));
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let Some(prefix) = root_prefix() else {
        bail!("root is needed to install Debian packages; run: {}", apt_line(&names));
    };
    let apt = |arguments: &[&str]| {
        let mut words: Vec<&str> = prefix.to_vec();
        words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet=2"]);
        words.extend(arguments);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command
    };
    step::run("apt-get update", &mut apt(&["update"]))?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&names);
    step::run("apt-get install", &mut apt(&arguments))
}

/// What to put before a command that needs root: nothing for root, `sudo` where it asks for no
/// password. `None`: there is no way.
fn root_prefix() -> Option<&'static [&'static str]> {
    let user = step::output(Command::new("id").arg("--user")).ok()?;
    if user.trim() == "0" {
        return Some(&[]);
    }
    let quiet = Command::new("sudo")
        .args(["--non-interactive", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success()).then_some(&["sudo", "--non-interactive"])
}

fn apt_line(names: &[&str]) -> String {
    format!("sudo apt-get install --yes --no-install-recommends {}", names.join(" "))
}

/// The packages of the list that are not installed.
fn missing_packages(wanted: &'static [Package]) -> Result<Vec<&'static Package>> {
    // dpkg-query fails where one of the names is unknown to it, and still lists the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(wanted.iter().map(|package| package.name))
        .output()
        .context(
            "dpkg-query does not start: this set-up is for Debian; elsewhere install \
             Chromium, GStreamer with its RTSP server and the plugins by hand",
        )?;
    let listing = String::from_utf8_lossy(&output.stdout);
    Ok(wanted.iter().filter(|package| !is_installed(&listing, package.name)).collect())
}

fn is_installed(listing: &str, name: &str) -> bool {
    listing.lines().any(|line| line.split_once(' ') == Some((name, "installed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_package_with_its_settings_left_is_missing() {
        let listing = "chromium installed\npython3-gi config-files\n";

        assert!(is_installed(listing, "chromium"));
        assert!(!is_installed(listing, "python3-gi"));
        assert!(!is_installed(listing, "gstreamer1.0-x"));
    }
}

//! `manifold bench egress|curve|voice|mp3|memory|ledger|cameras`

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Failure, say};
use crate::bench::{self, EgressBench, Generator, LedgerBench, MemoryBench, VoiceBench, Way};

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// CPU a packet from a frame to its viewers, beside the bare floor; sends on loopback only
    Egress(EgressArgs),
    /// The same by the number of viewers, 10 to 1000: what grows faster than they do shows
    Curve {
        /// Print one line of JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// CPU of a voice as MP3, with one player and with a hundred
    Mp3 {
        /// Print one line of JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Memory a viewer, of a server with a synthetic camera that is started for it on free ports
    Memory {
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Reservations a second on a store of leases, each released at once
    Ledger(LedgerArgs),
    /// One voice for many listeners: CPU a packet, its way through a server that is started for it on
    /// free ports, memory a listener, and what joins and leaves leave behind
    Voice(VoiceArgs),
    /// Be many RTSP cameras in one process, for load tests of a server; until Ctrl-C
    Cameras(CamerasArgs),
}

/// Most cameras of one process: as many connections as its server takes.
const CAMERAS_MAX: u64 = 2_000;

#[derive(Debug, Args)]
pub(super) struct CamerasArgs {
    /// How many, cam-000 and so on
    #[arg(long, value_name = "NUMBER", default_value_t = 500,
        value_parser = clap::value_parser!(u64).range(1..=CAMERAS_MAX))]
    count: u64,
    /// Bits a second of each, as in 500k or 2M
    #[arg(long, value_name = "BITRATE", default_value = "2M", value_parser = bitrate)]
    bitrate: u64,
    /// Pictures a second
    #[arg(long, value_name = "NUMBER", default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=60))]
    fps: u32,
    /// Pictures from keyframe to keyframe
    #[arg(long, value_name = "NUMBER", default_value_t = 40,
        value_parser = clap::value_parser!(u32).range(1..=600))]
    gop: u32,
    /// Size of the pictures in pixels
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "640x360", value_parser = size)]
    size: (usize, usize),
    /// Where they are
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9554")]
    listen: SocketAddr,
}

/// `500k`, `2M`, `1.5M` or plain bits.
fn bitrate(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1e3),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1.0), |number| (number, 1e6)),
    };
    let bits = number.parse::<f64>().map(|number| number * unit);
    let is_sensible = |bits: &f64| (10e3..=100e6).contains(bits);
    let wanted = "give bits a second from 10k to 100M";
    bits.ok().filter(is_sensible).map(|bits| bits as u64).ok_or_else(|| wanted.to_owned())
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let size = text.split_once('x').and_then(|(width, height)| {
        let (width, height): (usize, usize) = (width.parse().ok()?, height.parse().ok()?);
        let is_possible = (192..=3840).contains(&width) && (108..=2160).contains(&height);
        is_possible.then_some((width & !1, height & !1))
    });
    size.ok_or_else(|| "give a size from 192x108 to 3840x2160".to_owned())
}

#[derive(Debug, Args)]
pub(super) struct EgressArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Turns that each way of sending is measured in
    #[arg(long, value_name = "NUMBER", default_value_t = 25)]
    rounds: usize,
    /// Frames, 40 ms apart, whose way to the last viewer is timed
    #[arg(long, value_name = "NUMBER", default_value_t = 250)]
    latency_frames: usize,
}

#[derive(Debug, Args)]
pub(super) struct CommonArgs {
    /// Viewers of the one camera
    #[arg(long, value_name = "NUMBER", default_value_t = 300)]
    viewers: usize,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct LedgerArgs {
    /// Where leases are kept, as in `store.url`, or "memory" [default: a redis-server that is started for it]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Reservations a second
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Reservations a second through the HTTP interface of a server that is started for it
    #[arg(long, value_name = "NUMBER", default_value_t = 2_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    http_rate: u32,
    /// One way of asking alone
    #[arg(long, value_name = "WAY")]
    only: Option<Way>,
    /// Callers, each of which waits for its answer; of HTTP each by a connection that it keeps
    #[arg(long, value_name = "NUMBER", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    callers: u32,
    /// For how long, each way
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Most listeners of the benchmark: each has a socket and a connection in this process, and in the
/// server's.
const LISTENERS_MAX: u64 = 10_000;

#[derive(Debug, Args)]
pub(super) struct VoiceArgs {
    /// Listeners of the one voice
    #[arg(long, value_name = "NUMBER", default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..=LISTENERS_MAX))]
    listeners: u64,
    /// Turns that each way of sending is measured in
    #[arg(long, value_name = "NUMBER", default_value_t = 25)]
    rounds: usize,
    /// How long the voice's way is timed
    #[arg(long, value_name = "SECONDS", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Joins and leaves of listeners
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    joins: usize,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub(super) fn run(command: &BenchCommand) -> Result<(), Failure> {
    let (json, report) = match command {
        BenchCommand::Egress(EgressArgs { common, rounds, latency_frames }) => {
            let (viewers, rounds, latency_frames) = (common.viewers, *rounds, *latency_frames);
            (common.json, bench::egress(EgressBench { viewers, rounds, latency_frames })?)
        }
        BenchCommand::Cameras(cameras) => return run_cameras(cameras),
        BenchCommand::Memory { common } => {
            (common.json, bench::memory(MemoryBench { viewers: common.viewers })?)
        }
        BenchCommand::Ledger(args) => {
            let bench = LedgerBench {
                store: args.store.clone(),
                rate: args.rate,
                http_rate: args.http_rate,
                callers: args.callers,
                time: Duration::from_secs(args.seconds),
                only: args.only,
            };
            (args.json, bench::ledger(&bench)?)
        }
        BenchCommand::Voice(VoiceArgs { listeners, rounds, seconds, joins, json }) => {
            let bench = VoiceBench {
                listeners: usize::try_from(*listeners).unwrap_or(1),
                rounds: *rounds,
                time: Duration::from_secs(*seconds),
                joins: *joins,
            };
            (*json, bench::voice(bench)?)
        }
        BenchCommand::Curve { json } => (*json, bench::curve()?),
        BenchCommand::Mp3 { json } => (*json, bench::speakers()?),
    };
    say(&if json { report.json() } else { report.text() });
    Ok(())
}

fn run_cameras(args: &CamerasArgs) -> Result<(), Failure> {
    let CamerasArgs { count, bitrate, fps, gop, size, listen } = *args;
    let count = usize::try_from(count).unwrap_or(1);
    Ok(bench::cameras(Generator { count, bitrate, fps, group: gop, size, listen }, say)?)
}

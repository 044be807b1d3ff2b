//! `manifold bench egress|memory`

use clap::{Args, Subcommand};

use super::{Failure, say};
use crate::bench::{self, EgressBench, MemoryBench, Report};

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// CPU a packet from a frame to its viewers, beside the bare floor; sends on loopback only
    Egress(EgressArgs),
    /// Memory a viewer, of a server with a synthetic camera that is started for it on free ports
    Memory {
        #[command(flatten)]
        common: CommonArgs,
    },
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

/// Measures and prints.
pub(super) fn run(command: &BenchCommand) -> Result<(), Failure> {
    let (common, report) = match command {
        BenchCommand::Egress(EgressArgs { common, rounds, latency_frames }) => {
            let (viewers, rounds, latency_frames) = (common.viewers, *rounds, *latency_frames);
            (common, bench::egress(EgressBench { viewers, rounds, latency_frames })?)
        }
        BenchCommand::Memory { common } => {
            (common, bench::memory(MemoryBench { viewers: common.viewers })?)
        }
    };
    print(common, &report);
    Ok(())
}

fn print(common: &CommonArgs, report: &Report) {
    say(&if common.json { report.json() } else { report.text() });
}

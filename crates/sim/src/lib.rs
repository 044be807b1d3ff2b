//! The simulation: the real media, control and engine cores in virtual network and time.
//!
//! One seed decides a run: which cameras there are and how they fail, who comes, watches, loses
//! packets and goes, and how long everything takes. After every event the cores' invariants are
//! checked, every picture that a viewer receives is compared with what the camera sent, and at the
//! end nothing may be left. This crate reads no clock and no randomness; it is no part of the program.

mod book;
mod browser;
mod cipher;
mod clock;
mod judge;
mod light;
mod network;
mod picture;
mod plan;
mod random;
mod rtp;
mod server;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

pub use world::Report;

/// A run that went wrong.
#[derive(Debug)]
pub struct Failure {
    /// The run's seed: `SIM_SEED=<seed> cargo test -p sim` runs it again.
    pub seed: u64,
    /// Virtual microseconds since the start of the run.
    pub at_us: u64,
    /// What went wrong.
    pub what: String,
    /// The last events, oldest first.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "{:>10} us  FAILED: {}", self.at_us, self.what)?;
        write!(f, "again: SIM_SEED={} cargo test -p sim", self.seed)
    }
}

impl std::error::Error for Failure {}

/// One run. `start` is any moment; only what passes from it on matters.
pub fn run(seed: u64, start: Instant) -> Result<Report, Box<Failure>> {
    run_world(seed, world::World::new(seed, start))
}

/// One run in which `joins` people come to one camera, one after the other, watch for a moment and go.
pub fn run_churn(seed: u64, joins: u64, start: Instant) -> Result<Report, Box<Failure>> {
    run_world(seed, world::World::churn(seed, joins, start))
}

fn run_world(seed: u64, world: Result<world::World, String>) -> Result<Report, Box<Failure>> {
    let failure = |at_us, what, trace| Box::new(Failure { seed, at_us, what, trace });
    let mut world = world.map_err(|what| failure(0, what, Vec::new()))?;
    // A panic of a core is a failure of the run like any other, and the world is only read then.
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    ended
        .unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("panic: {}", message.unwrap_or_default()))
        })
        .map_err(|what| failure(world.now_us(), what, world.trace()))
}

//! The manifold program, as a library: `main.rs` runs it, and fuzz targets reach what it reads.
//!
//! The only place of sockets, files, clocks and JSON: `cli` starts, `http` serves, `app` drives
//! the engine, `net` moves media, `ingest` brings it in, `rtsp_out` hands it to players and recorders.

mod admission;
mod app;
mod audit;
mod bench;
mod bind_error;
mod cli;
mod cluster;
mod config;
mod data_dir;
mod database;
mod doctor;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod http;
mod ingest;
mod journal;
mod layouts;
mod ledger;
mod limits;
mod load;
mod logging;
mod metrics;
mod net;
mod park;
mod push;
mod remote;
mod revocations;
mod rtsp_out;
mod stills;
mod tls;
mod vault;
mod versions;
mod voice;
mod why;

/// Does what the command line asks for; ends with the process's exit code.
pub fn run() -> std::process::ExitCode {
    cli::run()
}

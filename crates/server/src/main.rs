//! The manifold binary.
//!
//! The only place of sockets, files, clocks and JSON: [`cli`] starts, [`http`] serves, [`app`] drives
//! the engine, [`net`] moves media, [`ingest`] brings it in.

mod app;
mod bench;
mod bind_error;
mod cli;
mod config;
mod http;
mod ingest;
mod load;
mod logging;
mod metrics;
mod net;
mod push;
mod remote;

fn main() -> std::process::ExitCode {
    cli::run()
}

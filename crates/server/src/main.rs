//! The manifold binary.
#![allow(dead_code, missing_docs, reason = "skeleton")]

mod app;
mod auth;
mod bench;
mod bind_error;
mod cli;
mod config;
mod http;
mod ingest;
mod logging;
mod metrics;
mod net;

fn main() -> std::process::ExitCode {
    cli::run()
}

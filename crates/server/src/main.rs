//! The manifold binary.
#![allow(dead_code, missing_docs, reason = "skeleton")]

mod app;
mod config;
mod ingest;
mod net;

fn main() {}

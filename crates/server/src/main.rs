//! The manifold binary.
#![allow(dead_code, missing_docs, reason = "skeleton")]

mod app;
mod auth;
mod config;
mod http;
mod ingest;
mod net;

fn main() {}

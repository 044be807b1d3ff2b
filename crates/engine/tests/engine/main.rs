//! The engine with a ledger, cameras and peers that do as the test says, in virtual time.

mod drive;
mod feeds;
mod holds;
mod log_lines;
mod places;
mod readers;
mod renditions;
mod sessions;
mod streams;
mod support;

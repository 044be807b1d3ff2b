//! The engine with a ledger, cameras and peers that do as the test says, in virtual time.

mod drive;
mod log_lines;
mod sessions;
mod streams;
mod support;

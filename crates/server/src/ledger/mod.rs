//! The ledger in a store that outlives this process: Valkey or Redis.

mod address;
pub(crate) mod connection;

pub(crate) use address::StoreAddress;

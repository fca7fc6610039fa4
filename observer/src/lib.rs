//! Shows the MCP calls of every process on a Linux node without touching one of them.
#![allow(
    clippy::disallowed_methods,
    reason = "clocks are forbidden to `protocol` alone, which denies them for itself"
)]

#[cfg(feature = "daemon")]
pub mod capture;
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
pub mod enrich;
pub mod protocol;
#[cfg(feature = "daemon")]
pub mod sink;

//! Shows the MCP calls of every process on a Linux node without touching one of them.

#[cfg(feature = "daemon")]
pub mod capture;
pub mod protocol;

//! What messages mean in MCP.

pub(crate) mod method;

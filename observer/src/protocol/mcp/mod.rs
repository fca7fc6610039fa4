//! What messages mean in MCP.

pub(crate) mod call;
pub(crate) mod method;
pub(crate) mod outcome;
pub(crate) mod peer;

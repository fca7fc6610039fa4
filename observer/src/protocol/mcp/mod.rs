//! What messages mean in MCP.

pub(crate) mod again;
pub(crate) mod call;
pub(crate) mod catalog;
pub(crate) mod conformance;
pub(crate) mod method;
pub(crate) mod outcome;
pub(crate) mod params;
pub(crate) mod peer;
pub(crate) mod pressure;
pub(crate) mod reply;
pub(crate) mod schema;
pub(crate) mod session;
pub(crate) mod task;

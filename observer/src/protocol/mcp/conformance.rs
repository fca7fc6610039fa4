//! Rules of MCP that an answer or a request keeps or breaks, judged by the message and the revision it names.

use super::method::{Method, Nature};
use super::params::Params;
use super::reply::Reply;
use crate::protocol::observation::MalformedReason;

/// The first revision without sessions, whose requests repeat themselves in header fields.
pub(crate) const STATELESS: &str = "2026-07-28";

/// Methods whose complete result has content: `content`, `contents` or `messages`.
const WITH_CONTENT: [&str; 3] = ["tools/call", "resources/read", "prompts/get"];

/// What the header fields of an HTTP request say of its body (2026-07-28, transports).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mirror<'a> {
    /// `MCP-Protocol-Version`.
    pub(crate) version: Option<&'a str>,
    /// `Mcp-Method`.
    pub(crate) method: Option<&'a str>,
    /// `Mcp-Name`.
    pub(crate) name: Option<&'a str>,
}

/// The rule that a result breaks, if any.
pub(crate) fn breach(method: &Method, version: Option<&str>, reply: &Reply) -> Option<MalformedReason> {
    let complete = reply.result_type.as_deref().is_none_or(|kind| kind == "complete");
    let acknowledges = reply.task.as_ref().is_some_and(|task| task.acknowledged);
    if WITH_CONTENT.contains(&method.name()) && complete && !acknowledges && !reply.has_content {
        return Some(MalformedReason::MissingContent);
    }
    // `initialize` is of earlier revisions, whatever version it speaks of.
    let demanded = version.is_some_and(|version| version >= STATELESS) && !method.is("initialize");
    (demanded && reply.result_type.is_none()).then_some(MalformedReason::MissingResultType)
}

/// Whether header fields and body of a request disagree, or fields that its revision demands are missing.
pub(crate) fn disagrees(mirror: &Mirror<'_>, method: &Method, params: &Params) -> bool {
    let differs = |field: Option<&str>, body: Option<&str>| field.zip(body).is_some_and(|(field, body)| field != body);
    let named = params.named().filter(|_| method.nature() != Nature::Notification);
    // What is not ASCII is encoded in the field.
    let name = mirror.name.filter(|name| !name.starts_with("=?base64?"));
    let stateless = params
        .meta_version
        .as_deref()
        .is_some_and(|version| version >= STATELESS);
    let missing = stateless && method.nature() != Nature::Notification && mirror.method.is_none();
    missing
        || differs(mirror.method, Some(method.name()))
        || differs(name, named)
        || differs(mirror.version, params.meta_version.as_deref())
}

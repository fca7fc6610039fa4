//! Rules of MCP that an answer or a request keeps or breaks, judged by the message and the revision it names.

use super::method::{MAX_NAME, Method, Nature};
use super::params::Params;
use super::reply::Reply;
use crate::protocol::framing::head::MAX_VALUE;
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

/// Whether `Mcp-Name` is what the body names. What is not ASCII is `=?base64?…?=` in the field; of what is longer than is kept
/// the beginnings are compared.
fn names(field: &str, body: &str) -> bool {
    let coded = field.strip_prefix("=?base64?");
    let long = body.len() + 4 > MAX_NAME || field.len() + 4 > MAX_VALUE;
    let same = |field: &[u8]| {
        let body = body.as_bytes();
        field == body || (long && (field.starts_with(body) || body.starts_with(field)))
    };
    match coded {
        Some(coded) => base64(coded.strip_suffix("?=").unwrap_or(coded)).is_some_and(|field| same(&field)),
        None => same(field.as_bytes()),
    }
}

/// Decodes base64 (RFC 4648, section 4), with or without padding; what a cut left over at the end is no byte.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count) = (0_u32, 0);
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for digit in text.trim_end_matches('=').bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, count) = ((bits << 6) | u32::from(value), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count).to_le_bytes()[0]);
        }
    }
    Some(bytes)
}

/// Whether header fields and body of a request disagree, or fields that its revision demands are missing.
pub(crate) fn disagrees(mirror: &Mirror<'_>, method: &Method, params: &Params) -> bool {
    let differs = |field: Option<&str>, body: Option<&str>| field.zip(body).is_some_and(|(field, body)| field != body);
    let named = params.named().filter(|_| method.nature() != Nature::Notification);
    let misnamed = mirror.name.zip(named).is_some_and(|(field, body)| !names(field, body));
    let stateless = params
        .meta_version
        .as_deref()
        .is_some_and(|version| version >= STATELESS);
    let missing = stateless && method.nature() != Nature::Notification && mirror.method.is_none();
    missing
        || differs(mirror.method, Some(method.name()))
        || misnamed
        || differs(mirror.version, params.meta_version.as_deref())
}

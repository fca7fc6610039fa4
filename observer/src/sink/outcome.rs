//! What an outcome means to those who read metrics and logs: error type and level.

use std::borrow::Cow;

use crate::protocol::observation::{Call, Outcome, Side};

/// JSON-RPC codes that are the caller's mistakes: on the server's side they are no errors.
const CALLERS_MISTAKES: &[i64] = &[-32700, -32600, -32601, -32602, -32002];

/// OpenTelemetry's `error.type` of a call as `side` sees it; `None` where it did not fail.
#[must_use]
pub(super) fn error_type(call: &Call, side: Side) -> Option<Cow<'static, str>> {
    match call.outcome {
        Outcome::Ok
        | Outcome::Negotiation
        | Outcome::AuthChallenge
        | Outcome::InputRequired
        | Outcome::TaskAccepted => None,
        Outcome::RpcError => match call.rpc_code {
            Some(code) if side == Side::Server && CALLERS_MISTAKES.contains(&code) => None,
            Some(code) => Some(code.to_string().into()),
            None => Some(Outcome::RpcError.name().into()),
        },
        Outcome::HttpError => Some(
            call.http_status
                .map_or(Outcome::HttpError.name().into(), |s| s.to_string().into()),
        ),
        Outcome::ToolError
        | Outcome::Timeout
        | Outcome::Cancelled
        | Outcome::ClientGone
        | Outcome::ServerGone
        | Outcome::Malformed
        | Outcome::Unanswered => Some(call.outcome.name().into()),
    }
}

/// `error` for what failed at the server, `warn` for what the client did wrong or gave up, else `info`.
#[must_use]
pub(super) fn level(call: &Call) -> &'static str {
    match (call.outcome, call.status) {
        (Outcome::Negotiation | Outcome::AuthChallenge | Outcome::InputRequired | Outcome::TaskAccepted, _) => "info",
        (_, 500..) => "error",
        (_, 400..) => "warn",
        _ => "info",
    }
}

//! How a call ended and the HTTP-like status of that: the table of the README, first match wins.

use super::pressure::{Pressure, Signal};
use crate::protocol::observation::Outcome;

/// URL elicitation required (2025-11-25): the caller is asked for something, nothing failed.
const URL_ELICITATION: i64 = -32042;

/// The protocol version is not supported (2026-07-28).
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;

/// What ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End<'a> {
    /// A result; with `isError`, `resultType` and whether it names a task.
    Result {
        is_error: bool,
        result_type: Option<&'a str>,
        task: bool,
    },
    /// A JSON-RPC error.
    Error(i64),
    /// An HTTP answer other than 2xx without a JSON-RPC error; whether it challenges the client to authenticate.
    Http {
        challenges: bool,
    },
    /// An answer that breaks the rules.
    Malformed,
    ServerGone,
    ClientGone,
    /// `notifications/cancelled`, or in 2026-07-28 a closed answer; whether the reason speaks of time.
    Cancelled {
        timeout: bool,
    },
    Deadline,
}

/// What ended a call and what HTTP said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts<'a> {
    pub(crate) end: End<'a>,
    pub(crate) http: Option<u16>,
    /// It is a refusal that is about load.
    pub(crate) pressure: Option<Pressure>,
    /// It was a refused probe that the client follows by another handshake.
    pub(crate) negotiation: bool,
}

/// Classifies the end of a call.
pub(crate) fn classify(facts: &Facts<'_>) -> (Outcome, u16) {
    let outcome = match facts.end {
        End::Error(_) | End::Http { .. } if facts.negotiation => Outcome::Negotiation,
        End::Http { challenges: true } if facts.http == Some(401) => Outcome::AuthChallenge,
        End::Http { .. } => Outcome::HttpError,
        End::Error(_) => Outcome::RpcError,
        End::Result { is_error: true, .. } => Outcome::ToolError,
        End::Result {
            result_type: Some("input_required"),
            ..
        } => Outcome::InputRequired,
        End::Result {
            result_type: Some("task"),
            ..
        } => Outcome::TaskAccepted,
        End::Result {
            result_type: None,
            task: true,
            ..
        } => Outcome::TaskAccepted,
        End::Result { .. } => Outcome::Ok,
        End::Malformed => Outcome::Malformed,
        End::ServerGone => Outcome::ServerGone,
        End::ClientGone => Outcome::ClientGone,
        End::Cancelled { timeout: true } => Outcome::Timeout,
        End::Cancelled { timeout: false } => Outcome::Cancelled,
        End::Deadline => Outcome::Unanswered,
    };
    (outcome, status(facts, outcome))
}

fn status(facts: &Facts<'_>, outcome: Outcome) -> u16 {
    let code = match facts.end {
        End::Error(code) => Some(code),
        _ => None,
    };
    // Words alone do not change what the answer says of itself.
    if let Some(Pressure::RateLimited(Signal::Status | Signal::Header | Signal::Code, _)) = facts.pressure {
        return 429;
    }
    match (facts.http, code, outcome) {
        (Some(http), ..) if !(200..300).contains(&http) => http,
        (.., Outcome::Ok | Outcome::InputRequired | Outcome::TaskAccepted) | (_, Some(URL_ELICITATION), _) => 200,
        (_, Some(-32700 | -32600 | -32602 | -32020 | -32021 | UNSUPPORTED_VERSION), _) => 400,
        (_, Some(-32601 | -32002), _) => 404,
        (_, Some(_), _) | (.., Outcome::ToolError) => 500,
        (.., Outcome::Malformed | Outcome::ServerGone) => 502,
        (.., Outcome::Timeout | Outcome::Unanswered) => 504,
        (.., Outcome::Cancelled | Outcome::ClientGone) => 499,
        (.., Outcome::HttpError | Outcome::AuthChallenge | Outcome::RpcError | Outcome::Negotiation) => 500,
    }
}

/// Whether the reason of a cancellation says that time was over (`McpError: MCP error -32001: Request timed out`).
pub(crate) fn speaks_of_time(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["timed out", "timeout", "time out", "deadline"]
        .iter()
        .any(|word| reason.contains(word))
}

#[cfg(test)]
mod tests {
    use super::super::pressure::{Refusal, recognise};
    use super::*;

    fn result(is_error: bool, result_type: Option<&str>, task: bool) -> End<'_> {
        End::Result {
            is_error,
            result_type,
            task,
        }
    }

    #[test]
    fn one_line_a_row() {
        fn check(end: End<'_>, http: Option<u16>, expected: &str) {
            let code = match end {
                End::Error(code) => Some(code),
                _ => None,
            };
            let refusal = Refusal {
                http,
                code,
                ..Refusal::default()
            };
            let (outcome, status) = classify(&Facts {
                end,
                http,
                pressure: recognise(&refusal),
                negotiation: false,
            });
            assert_eq!(format!("{} {status}", outcome.name()), expected, "{end:?} {http:?}");
        }
        let ok = result(false, None, false);
        check(End::Http { challenges: false }, Some(429), "http_error 429");
        check(End::Error(-32000), Some(429), "rpc_error 429");
        check(End::Error(429), None, "rpc_error 429");
        check(End::Error(-32029), Some(200), "rpc_error 429");
        check(End::Http { challenges: false }, Some(503), "http_error 503");
        check(End::Http { challenges: true }, Some(429), "http_error 429");
        check(End::Error(-32001), Some(404), "rpc_error 404");
        check(End::Http { challenges: true }, Some(401), "auth_challenge 401");
        check(End::Http { challenges: false }, Some(401), "http_error 401");
        check(ok, None, "ok 200");
        check(ok, Some(200), "ok 200");
        check(result(false, Some("complete"), false), None, "ok 200");
        check(result(false, Some("input_required"), false), None, "input_required 200");
        check(result(false, Some("task"), false), None, "task_accepted 200");
        check(result(false, None, true), None, "task_accepted 200");
        check(result(false, Some("complete"), true), None, "ok 200");
        check(End::Error(-32042), None, "rpc_error 200");
        for code in [-32700, -32600, -32602, -32020, -32021, -32022] {
            check(End::Error(code), None, "rpc_error 400");
        }
        check(End::Error(-32601), None, "rpc_error 404");
        check(End::Error(-32002), None, "rpc_error 404");
        check(End::Error(-32603), None, "rpc_error 500");
        check(End::Error(17), None, "rpc_error 500");
        check(result(true, None, false), Some(200), "tool_error 500");
        check(End::Malformed, Some(200), "malformed 502");
        check(End::ServerGone, None, "server_gone 502");
        check(End::Cancelled { timeout: true }, None, "timeout 504");
        check(End::Deadline, None, "unanswered 504");
        check(End::Cancelled { timeout: false }, None, "cancelled 499");
        check(End::ClientGone, None, "client_gone 499");
    }

    #[test]
    fn a_refused_probe_is_negotiation() {
        let facts = Facts {
            end: End::Error(-32601),
            http: None,
            pressure: None,
            negotiation: true,
        };
        assert_eq!(classify(&facts), (Outcome::Negotiation, 404));
    }

    #[test]
    fn reasons() {
        assert!(speaks_of_time("McpError: MCP error -32001: Request timed out"));
        assert!(!speaks_of_time("user pressed stop"));
    }
}

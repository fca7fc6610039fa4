//! Refusals under load: rate limits and load shedding, and by what they show.
//!
//! | refusal | status | header | code | text |
//! |---|---|---|---|---|
//! | rate limit | 429 | `RateLimit-Remaining: 0` on a refusal | 429, -32029 | `rate limit`, `too many requests`, … |
//! | load shed | 529 | 503 with `Retry-After` | – | `overloaded`, `at capacity`, … |

/// JSON-RPC codes by which servers and gateways say that the caller is too fast: the HTTP status used as a code, and the
/// vendor code that gateways use.
const RATE_LIMIT_CODES: &[i64] = &[429, -32029];

/// Words of a rate limit, in lower case.
const LIMIT_WORDS: &[&str] = &[
    "rate limit",
    "rate-limit",
    "ratelimit",
    "too many requests",
    "quota exceeded",
    "status code 429",
    "http 429",
    "error 429",
];

/// Words of a server that sheds load, in lower case.
const SHED_WORDS: &[&str] = &["overloaded", "at capacity", "server is busy", "server busy"];

/// What a response's fields say of load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hints {
    /// `Retry-After`.
    pub(crate) retry_after: bool,
    /// `RateLimit-Remaining` or `X-RateLimit-Remaining` is 0.
    pub(crate) exhausted: bool,
}

/// A refusal that is about load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pressure {
    /// The caller was too fast.
    RateLimited(Signal, Origin),
    /// The server had too much to do.
    Shed(Signal),
}

/// By what a refusal is recognised; the label `signal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// The HTTP status.
    Status,
    /// A field of the HTTP response.
    Header,
    /// The JSON-RPC code.
    Code,
    /// The words of an error.
    Text,
}

/// Whose limit it is; the label `origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The server's own, or that of a gateway before it.
    Server,
    /// That of something the tool called: the call itself was let in and answered.
    Upstream,
}

impl Signal {
    /// The value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "http_status",
            Self::Header => "http_header",
            Self::Code => "rpc_code",
            Self::Text => "text",
        }
    }
}

impl Origin {
    /// The value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Upstream => "upstream",
        }
    }
}

/// What a refusal says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal<'a> {
    pub(crate) http: Option<u16>,
    pub(crate) hints: Hints,
    pub(crate) code: Option<i64>,
    /// The words of a JSON-RPC error.
    pub(crate) message: Option<&'a str>,
    /// The words of a result with `isError`.
    pub(crate) complaint: Option<&'a str>,
}

/// Recognises a refusal that is about load; the first row that fits.
pub(crate) fn recognise(refusal: &Refusal<'_>) -> Option<Pressure> {
    let limited = |signal| Some(Pressure::RateLimited(signal, Origin::Server));
    let refused = refusal.http.is_some_and(|status| !(200..300).contains(&status));
    match (refusal.http, refusal.code) {
        (Some(429), _) => return limited(Signal::Status),
        (Some(529), _) => return Some(Pressure::Shed(Signal::Status)),
        (_, Some(code)) if RATE_LIMIT_CODES.contains(&code) => return limited(Signal::Code),
        _ if refused && refusal.hints.exhausted => return limited(Signal::Header),
        (Some(503), _) if refusal.hints.retry_after => return Some(Pressure::Shed(Signal::Header)),
        _ => {}
    }
    let (words, origin) = match (refusal.message, refusal.complaint) {
        (Some(words), _) => (words, Origin::Server),
        (None, Some(words)) => (words, Origin::Upstream),
        (None, None) => return None,
    };
    let words = words.to_ascii_lowercase();
    let says = |list: &[&str]| list.iter().any(|word| words.contains(word));
    if says(LIMIT_WORDS) {
        return Some(Pressure::RateLimited(Signal::Text, origin));
    }
    says(SHED_WORDS).then_some(Pressure::Shed(Signal::Text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_signal() {
        fn check(refusal: Refusal<'_>, expected: Option<Pressure>) {
            assert_eq!(recognise(&refusal), expected, "{refusal:?}");
        }
        let none = Refusal::default();
        let limited = |signal, origin| Some(Pressure::RateLimited(signal, origin));
        let http = |status| Refusal {
            http: Some(status),
            ..none
        };
        let fields = |status, retry_after, exhausted| Refusal {
            hints: Hints { retry_after, exhausted },
            ..http(status)
        };
        let code = |code| Refusal {
            code: Some(code),
            ..none
        };
        let error = |message| Refusal {
            message: Some(message),
            code: Some(-32000),
            ..none
        };
        let tool = |complaint| Refusal {
            complaint: Some(complaint),
            ..none
        };
        check(http(429), limited(Signal::Status, Origin::Server));
        check(fields(403, false, true), limited(Signal::Header, Origin::Server));
        check(fields(200, false, true), None);
        check(code(429), limited(Signal::Code, Origin::Server));
        check(code(-32029), limited(Signal::Code, Origin::Server));
        check(error("Rate limit exceeded"), limited(Signal::Text, Origin::Server));
        check(tool("HTTP 429 from api"), limited(Signal::Text, Origin::Upstream));
        check(tool("room 429 is taken"), None);
        check(fields(503, true, false), Some(Pressure::Shed(Signal::Header)));
        check(http(503), None);
        check(http(529), Some(Pressure::Shed(Signal::Status)));
        check(error("the model is Overloaded"), Some(Pressure::Shed(Signal::Text)));
        check(error("no such city"), None);
        check(none, None);
    }
}

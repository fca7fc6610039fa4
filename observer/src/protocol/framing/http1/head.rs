//! Heads of HTTP/1.1 messages and what MCP puts into them.

use httparse::{EMPTY_HEADER, Header, Status};

use crate::protocol::digest::Digest;
use crate::protocol::mcp::method::cut;
use crate::protocol::mcp::pressure::Hints;

/// Fields of a head; servers allow about a hundred.
const MAX_FIELDS: usize = 128;

/// Bytes of a target, host, session id or other field value that are kept.
const MAX_VALUE: usize = 1024;

/// What the method of a request means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
    Delete,
    Head,
    Connect,
    Other,
}

/// What matters of a request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) verb: Verb,
    /// Path without query, scheme and authority.
    pub(crate) path: Box<str>,
    /// After the `?`.
    pub(crate) query: Option<Box<str>>,
    pub(crate) authority: Option<Box<str>>,
    pub(crate) user_agent: Option<Box<str>>,
    pub(crate) session: Option<Box<str>>,
    pub(crate) version: Option<Box<str>>,
    pub(crate) traceparent: Option<Box<str>>,
    /// `Mcp-Method`.
    pub(crate) mcp_method: Option<Box<str>>,
    /// `Mcp-Name`.
    pub(crate) mcp_name: Option<Box<str>>,
    /// Of `Authorization`, whose value is not kept.
    pub(crate) principal: Digest,
    /// Whether there is a field whose name begins with `mcp-`.
    pub(crate) proves_mcp: bool,
    /// Whether the body may be JSON: its type says so, or says nothing.
    pub(crate) may_be_json: bool,
    /// Whether the body is compressed.
    pub(crate) encoded: bool,
    /// Whether `text/event-stream` is accepted.
    pub(crate) accepts_events: bool,
}

/// What matters of a response's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) session: Option<Box<str>>,
    /// Whether the body is `text/event-stream`.
    pub(crate) is_event_stream: bool,
    /// Whether the body may be JSON: its type says so, or says nothing.
    pub(crate) may_be_json: bool,
    /// Whether the body is compressed.
    pub(crate) encoded: bool,
    /// Whether there is a `WWW-Authenticate`.
    pub(crate) challenges: bool,
    pub(crate) hints: Hints,
    /// Whether there is a field whose name begins with `mcp-`.
    pub(crate) proves_mcp: bool,
}

/// Either head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    Request(RequestHead),
    Response(ResponseHead),
}

/// How the end of a body is told (RFC 9112 section 6.3), the request's method aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

const STARTS: &[&[u8]] = &[
    b"HTTP/1.",
    b"POST ",
    b"GET ",
    b"DELETE ",
    b"PUT ",
    b"HEAD ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
];

/// Whether bytes begin like an HTTP/1 message, or are too few to tell.
pub(crate) fn begins_message(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && STARTS
            .iter()
            .any(|start| bytes.starts_with(start) || start.starts_with(bytes))
}

/// Whether bytes begin like a chunk: up to 8 hexadecimal digits, then a line end.
pub(super) fn begins_chunk(bytes: &[u8]) -> bool {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    (1..=8).contains(&digits) && bytes[digits..].starts_with(b"\r\n")
}

impl Head {
    /// Reads a head; one that is `torn` is read as far as its last whole line.
    pub(super) fn parse(text: &[u8], torn: bool) -> Option<(Self, Framing)> {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let repaired;
        let text = if torn {
            let end = memchr::memrchr(b'\n', text)?;
            repaired = [&text[..=end], b"\r\n"].concat();
            &repaired
        } else {
            text
        };
        if text.starts_with(b"HTTP/") {
            let mut response = httparse::Response::new(&mut fields);
            let Ok(Status::Complete(_)) = response.parse(text) else {
                return None;
            };
            let facts = Facts::read(response.headers)?;
            let status = response.code?;
            return Some((Self::Response(facts.response(status)), facts.response_framing(status)));
        }
        let mut request = httparse::Request::new(&mut fields);
        let Ok(Status::Complete(_)) = request.parse(text) else {
            return None;
        };
        let (method, target) = (request.method?, request.path?);
        let facts = Facts::read(request.headers)?;
        let framing = facts.framing.unwrap_or(Framing::None);
        Some((Self::Request(facts.request(method, target)), framing))
    }
}

/// What fields say.
#[derive(Default)]
struct Facts {
    framing: Option<Framing>,
    is_json: Option<bool>,
    is_event_stream: bool,
    encoded: bool,
    accepts_events: bool,
    challenges: bool,
    hints: Hints,
    proves_mcp: bool,
    mcp_method: Option<Box<str>>,
    mcp_name: Option<Box<str>>,
    principal: Digest,
    authority: Option<Box<str>>,
    user_agent: Option<Box<str>>,
    session: Option<Box<str>>,
    version: Option<Box<str>>,
    traceparent: Option<Box<str>>,
}

impl Facts {
    /// `None` where the fields contradict each other about the body's length.
    fn read(fields: &[Header<'_>]) -> Option<Self> {
        let mut facts = Self::default();
        for field in fields {
            facts.read_field(field)?;
        }
        Some(facts)
    }

    fn read_field(&mut self, field: &Header<'_>) -> Option<()> {
        let value = std::str::from_utf8(field.value).unwrap_or("").trim();
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let keep = || Some(cut(value, MAX_VALUE).into());
        match field.name.len() {
            17 if is("transfer-encoding") => self.framing = Some(Framing::Chunked),
            14 if is("content-length") => {
                let length = Framing::Length(value.parse().ok()?);
                match self.framing {
                    Some(Framing::Length(_)) if self.framing != Some(length) => return None,
                    Some(Framing::Chunked) => {}
                    _ => self.framing = Some(length),
                }
            }
            12 if is("content-type") => {
                let kind = value.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
                self.is_json = Some(kind.ends_with("json"));
                self.is_event_stream = kind == "text/event-stream";
            }
            16 if is("content-encoding") => self.encoded = !value.eq_ignore_ascii_case("identity"),
            16 if is("www-authenticate") => self.challenges = true,
            6 if is("accept") => self.accepts_events = value.contains("text/event-stream"),
            4 if is("host") => self.authority = keep(),
            10 if is("user-agent") => self.user_agent = keep(),
            11 if is("traceparent") => self.traceparent = keep(),
            // The subprotocol of MCP's SDKs.
            22 if is("sec-websocket-protocol") => self.proves_mcp |= value.split(',').any(|name| name.trim() == "mcp"),
            11 if is("retry-after") => self.hints.retry_after = true,
            13 if is("authorization") => self.principal = Digest::of(field.value),
            19 if is("ratelimit-remaining") => self.hints.exhausted |= value == "0",
            21 if is("x-ratelimit-remaining") => self.hints.exhausted |= value == "0",
            _ => {}
        }
        if field
            .name
            .get(..4)
            .is_some_and(|start| start.eq_ignore_ascii_case("mcp-"))
        {
            self.proves_mcp = true;
            if is("mcp-session-id") {
                self.session = keep();
            } else if is("mcp-protocol-version") {
                self.version = keep();
            } else if is("mcp-method") {
                self.mcp_method = keep();
            } else if is("mcp-name") {
                self.mcp_name = keep();
            }
        }
        Some(())
    }

    fn request(&self, method: &str, target: &str) -> RequestHead {
        let absolute = target.split_once("://").map(|(_, rest)| rest);
        let (authority, target) = match absolute {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", target),
        };
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        RequestHead {
            verb: match method {
                "GET" => Verb::Get,
                "POST" => Verb::Post,
                "DELETE" => Verb::Delete,
                "HEAD" => Verb::Head,
                "CONNECT" => Verb::Connect,
                _ => Verb::Other,
            },
            path: cut(path, MAX_VALUE).into(),
            query: query.map(|query| cut(query, MAX_VALUE).into()),
            authority: if authority.is_empty() {
                self.authority.clone()
            } else {
                Some(cut(authority, MAX_VALUE).into())
            },
            user_agent: self.user_agent.clone(),
            session: self.session.clone(),
            version: self.version.clone(),
            traceparent: self.traceparent.clone(),
            mcp_method: self.mcp_method.clone(),
            mcp_name: self.mcp_name.clone(),
            principal: self.principal,
            proves_mcp: self.proves_mcp,
            may_be_json: self.is_json.unwrap_or(true),
            encoded: self.encoded,
            accepts_events: self.accepts_events,
        }
    }

    fn response(&self, status: u16) -> ResponseHead {
        ResponseHead {
            status,
            session: self.session.clone(),
            is_event_stream: self.is_event_stream && !self.encoded,
            may_be_json: self.is_json.unwrap_or(true),
            encoded: self.encoded,
            challenges: self.challenges,
            hints: self.hints,
            proves_mcp: self.proves_mcp,
        }
    }

    fn response_framing(&self, status: u16) -> Framing {
        match status {
            100..=199 | 204 | 304 => Framing::None,
            _ => self.framing.unwrap_or(Framing::UntilClose),
        }
    }
}

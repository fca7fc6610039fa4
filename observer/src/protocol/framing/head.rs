//! Heads of HTTP messages, whichever version carries them, and what MCP puts into them.

use std::sync::Arc;

use super::coding::Codings;
use crate::protocol::digest::Digest;
use crate::protocol::mcp::method::cut;
use crate::protocol::mcp::pressure::Hints;

/// Bytes of a target, host, session id or other field value that are kept.
pub(crate) const MAX_VALUE: usize = 1024;

/// What the method of a request means here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
    Delete,
    Head,
    Connect,
    #[default]
    Other,
}

impl Verb {
    pub(crate) fn named(method: &str) -> Self {
        match method {
            "GET" => Self::Get,
            "POST" => Self::Post,
            "DELETE" => Self::Delete,
            "HEAD" => Self::Head,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// What a content is, by its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Media {
    /// JSON, or without a type.
    #[default]
    Json,
    /// `text/event-stream`.
    Events,
    /// gRPC, in whatever form its messages are.
    Grpc,
    /// Nothing that MCP has.
    Other,
    /// Its type was told before the observer came.
    Untold,
}

impl Media {
    fn named(value: &str) -> Self {
        let kind = value.split(';').next().unwrap_or("").trim();
        let ends = |end: &str| {
            let start = kind.len().saturating_sub(end.len());
            kind.get(start..).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
        };
        let begins = |start: &str| {
            kind.get(..start.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(start))
        };
        match kind.len() {
            17 if ends("text/event-stream") => Self::Events,
            _ if begins("application/grpc") => Self::Grpc,
            _ if ends("json") => Self::Json,
            _ => Self::Other,
        }
    }

    /// Whether it may be JSON.
    pub(crate) const fn may_be_json(self) -> bool {
        matches!(self, Self::Json | Self::Untold)
    }

    /// Whether it is nothing that MCP has.
    pub(crate) const fn is_other(self) -> bool {
        matches!(self, Self::Other | Self::Grpc)
    }

    /// Whether it may be an event stream.
    pub(crate) const fn may_be_events(self) -> bool {
        matches!(self, Self::Events | Self::Untold)
    }
}

/// What a connection becomes after 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// HTTP/2 (RFC 7540, section 3.2).
    H2c,
    WebSocket,
    Other,
}

/// What matters of a request's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) verb: Verb,
    /// Path without query, scheme and authority; empty where it is not known.
    pub(crate) path: Arc<str>,
    /// After the `?`.
    pub(crate) query: Option<Arc<str>>,
    pub(crate) authority: Option<Arc<str>>,
    pub(crate) user_agent: Option<Arc<str>>,
    pub(crate) session: Option<Arc<str>>,
    pub(crate) version: Option<Arc<str>>,
    pub(crate) traceparent: Option<Arc<str>>,
    /// `Mcp-Method`.
    pub(crate) mcp_method: Option<Arc<str>>,
    /// `Mcp-Name`.
    pub(crate) mcp_name: Option<Arc<str>>,
    /// Of `Authorization`, whose value is not kept.
    pub(crate) principal: Digest,
    /// Whether there is a field whose name begins with `mcp-`.
    pub(crate) proves_mcp: bool,
    pub(crate) media: Media,
    pub(crate) coding: Codings,
    /// Whether `text/event-stream` is accepted.
    pub(crate) accepts_events: bool,
}

/// What matters of a response's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    /// `None` where it was told before the observer came.
    pub(crate) status: Option<u16>,
    pub(crate) session: Option<Arc<str>>,
    pub(crate) media: Media,
    pub(crate) coding: Codings,
    /// Whether there is a `WWW-Authenticate`.
    pub(crate) challenges: bool,
    pub(crate) hints: Hints,
    /// Whether there is a field whose name begins with `mcp-`.
    pub(crate) proves_mcp: bool,
    pub(crate) upgrade: Option<Upgrade>,
    /// Whether the same is offered over HTTP/3 (RFC 9114, section 3.1.1).
    pub(crate) offers_http3: bool,
}

impl ResponseHead {
    /// The first digit of the status.
    pub(crate) fn class(&self) -> Option<u16> {
        self.status.map(|status| status / 100)
    }

    /// Whether another response follows to the same request.
    pub(crate) fn is_interim(&self) -> bool {
        self.class() == Some(1) && self.status != Some(101)
    }

    /// Whether what follows on a connection, or in a stream, is another protocol.
    pub(crate) fn ends_http(&self, asked: Verb) -> bool {
        self.status == Some(101) || (asked == Verb::Connect && self.class() == Some(2))
    }
}

/// Values that the fields of one direction repeat from head to head, each kept once.
#[derive(Debug, Default)]
pub(super) struct Words {
    kept: Vec<Arc<str>>,
    /// Which is forgotten next.
    oldest: usize,
}

/// Values remembered of one direction: what a request of MCP has, twice.
const MAX_WORDS: usize = 16;

impl Words {
    /// What is kept of a value.
    pub(super) fn keep(&mut self, value: &str) -> Arc<str> {
        let value = cut(value, MAX_VALUE);
        if let Some(known) = self.kept.iter().find(|known| ***known == *value) {
            return known.clone();
        }
        let word: Arc<str> = value.into();
        if self.kept.len() < MAX_WORDS {
            self.kept.push(word.clone());
        } else {
            self.kept[self.oldest] = word.clone();
            self.oldest = (self.oldest + 1) % MAX_WORDS;
        }
        word
    }
}

/// What fields say.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) media: Option<Media>,
    pub(super) coding: Option<Codings>,
    accepts_events: bool,
    challenges: bool,
    hints: Hints,
    proves_mcp: bool,
    mcp_method: Option<Arc<str>>,
    mcp_name: Option<Arc<str>>,
    principal: Digest,
    upgrade: Option<Upgrade>,
    offers_http3: bool,
    pub(super) authority: Option<Arc<str>>,
    user_agent: Option<Arc<str>>,
    session: Option<Arc<str>>,
    version: Option<Arc<str>>,
    traceparent: Option<Arc<str>>,
}

impl Facts {
    pub(super) fn read(&mut self, name: &str, bytes: &[u8], words: &mut Words) {
        let value = || std::str::from_utf8(bytes.trim_ascii()).unwrap_or("");
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            12 if is("content-type") => self.media = Some(Media::named(value())),
            16 if is("content-encoding") => self.coding.get_or_insert_default().add(value()),
            16 if is("www-authenticate") => self.challenges = true,
            6 if is("accept") => self.accepts_events = value().contains("text/event-stream"),
            4 if is("host") => self.authority = Some(words.keep(value())),
            10 if is("user-agent") => self.user_agent = Some(words.keep(value())),
            11 if is("traceparent") => self.traceparent = Some(words.keep(value())),
            // The subprotocol of MCP's SDKs.
            22 if is("sec-websocket-protocol") => {
                self.proves_mcp |= value().split(',').any(|name| name.trim() == "mcp");
            }
            7 if is("alt-svc") => self.offers_http3 |= value().split(',').any(|name| name.trim().starts_with("h3=")),
            11 if is("retry-after") => self.hints.retry_after = true,
            13 if is("authorization") => self.principal = Digest::of(bytes),
            19 if is("ratelimit-remaining") => self.hints.exhausted |= value() == "0",
            21 if is("x-ratelimit-remaining") => self.hints.exhausted |= value() == "0",
            7 if is("upgrade") => {
                let value = value();
                let named = |name: &str| value.eq_ignore_ascii_case(name);
                self.upgrade = Some(match value.len() {
                    3 if named("h2c") => Upgrade::H2c,
                    9 if named("websocket") => Upgrade::WebSocket,
                    _ => Upgrade::Other,
                });
            }
            _ if name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("mcp-")) => {
                self.proves_mcp = true;
                let mut keep = || Some(words.keep(value()));
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
            _ => {}
        }
    }

    pub(super) fn request(self, verb: Verb, target: &str, words: &mut Words) -> RequestHead {
        let absolute = target.split_once("://").map(|(_, rest)| rest);
        let (authority, target) = match absolute {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", target),
        };
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        RequestHead {
            verb,
            path: words.keep(path),
            query: query.map(|query| words.keep(query)),
            authority: Some(authority)
                .filter(|name| !name.is_empty())
                .map(|name| words.keep(name))
                .or(self.authority),
            user_agent: self.user_agent,
            session: self.session,
            version: self.version,
            traceparent: self.traceparent,
            mcp_method: self.mcp_method,
            mcp_name: self.mcp_name,
            principal: self.principal,
            proves_mcp: self.proves_mcp,
            media: self.media.unwrap_or_default(),
            coding: self.coding.unwrap_or_default(),
            accepts_events: self.accepts_events,
        }
    }

    pub(super) fn response(self, status: Option<u16>) -> ResponseHead {
        ResponseHead {
            status,
            session: self.session,
            media: self.media.unwrap_or_default(),
            coding: self.coding.unwrap_or_default(),
            challenges: self.challenges,
            hints: self.hints,
            proves_mcp: self.proves_mcp,
            upgrade: self.upgrade,
            offers_http3: self.offers_http3,
        }
    }
}

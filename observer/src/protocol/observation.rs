//! What the pipeline concludes.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

pub use super::digest::Fingerprint;
use super::event::{DropReason, Pid, StreamKey, Timestamp, Verdict};
pub use super::mcp::again::InputKind;
pub use super::mcp::call::CallId;
pub use super::mcp::catalog::{Catalog, CatalogChange, CatalogItem, CatalogKind};
pub use super::mcp::pressure::{Origin, Pressure, Signal};
pub use super::mcp::session::{SessionChange, SessionEnd};
pub use super::mcp::task::{TaskEnd, TaskStatus};

/// One thing that comes out of the pipeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Something about MCP, for the sinks.
    Observation(Observation),
    /// Something for the kernel side: how to treat this stream from now on.
    Verdict(StreamKey, Verdict),
    /// Bytes or messages that could not be used; the counter behind `mcp_observer_lost_total`.
    Lost {
        /// Why.
        reason: DropReason,
        /// Bytes concerned; 0 where a message without a known length is meant.
        bytes: u64,
    },
}

/// Something that was seen of MCP.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// A request was seen; its [`Call`] follows, exactly one for each, whatever happens.
    CallBegan(CallBegan),
    /// A call is over.
    Call(Box<Call>),
    /// An answer came after its call had been given up as `unanswered`, `timeout` or `cancelled`.
    LateResponse(Parties),
    /// A notification, either way.
    Notification {
        /// Who talks with whom.
        parties: Parties,
        /// Method, as sent.
        method: Cow<'static, str>,
        /// Which side sent it.
        from: Side,
    },
    /// A request from the server to its client, which is not a call.
    ServerRequest {
        /// Who talks with whom.
        parties: Parties,
        /// Method, as sent.
        method: Cow<'static, str>,
    },
    /// A message that breaks the rules.
    Malformed {
        /// Who talks with whom.
        parties: Parties,
        /// Which side sent it.
        from: Side,
        /// Which rule.
        reason: MalformedReason,
    },
    /// What is known of a server has grown: name, version, protocol revision. Told on change only.
    Server {
        /// Who talks with whom.
        parties: Parties,
        /// The revision agreed on or named by the request.
        protocol_version: Option<Arc<str>>,
    },
    /// A subscription began (`+1`) or ended (`-1`).
    Subscription {
        /// Who talks with whom.
        parties: Parties,
        /// `1` or `-1`.
        change: i8,
    },
    /// A session with an id began or ended.
    Session {
        /// Who talks with whom.
        parties: Parties,
        /// Which.
        change: SessionChange,
    },
    /// A task is over; the call that began it was `task_accepted`.
    Task(Box<TaskEnd>),
    /// A server's catalog was listed for the first time, or is another one now.
    Catalog(Box<Catalog>),
    /// A process ended that was one side of MCP conversations.
    PeerExit {
        /// The process.
        pid: Pid,
        /// As `wait(2)` tells it.
        code: u32,
        /// When.
        time: Timestamp,
    },
    /// A process became another program or its number a new process: what was known of it is void.
    PeerReplaced {
        /// The process.
        pid: Pid,
    },
}

impl Observation {
    /// Who talks with whom; `None` of observations about one process.
    #[must_use]
    pub fn parties(&self) -> Option<&Parties> {
        match self {
            Self::Call(call) => Some(&call.parties),
            Self::CallBegan(began) => Some(&began.parties),
            Self::Task(task) => Some(&task.parties),
            Self::Catalog(catalog) => Some(&catalog.parties),
            Self::LateResponse(parties)
            | Self::Notification { parties, .. }
            | Self::ServerRequest { parties, .. }
            | Self::Malformed { parties, .. }
            | Self::Server { parties, .. }
            | Self::Session { parties, .. }
            | Self::Subscription { parties, .. } => Some(parties),
            Self::PeerExit { .. } | Self::PeerReplaced { .. } => None,
        }
    }
}

/// Which side of MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The side that makes calls.
    Client,
    /// The side that answers them.
    Server,
}

/// Both sides of a conversation and how they talk.
#[derive(Clone, Debug, PartialEq)]
pub struct Parties {
    /// The caller.
    pub client: Party,
    /// The one called.
    pub server: Party,
    /// MCP's transport.
    pub transport: Transport,
    /// What carries it.
    pub network: NetworkTransport,
    /// Whether it was seen inside TLS.
    pub tls: bool,
    /// From where it was seen.
    pub vantage: Vantage,
    /// HTTP `Host` or `:authority` of the request.
    pub authority: Option<Arc<str>>,
    /// Bytes of their streams were lost at some time: what is counted of them is a lower bound.
    pub lossy: bool,
}

/// One side of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Party {
    /// Its process, where that is on this node.
    pub pid: Option<Pid>,
    /// Its address, where it has one.
    pub address: Option<SocketAddr>,
    /// Network namespace of its socket, by inode number; 0 when unknown.
    pub netns: u32,
    /// Name and version it gave itself (`serverInfo`, `clientInfo`, else for clients the HTTP `User-Agent`).
    pub implementation: Option<Arc<Implementation>>,
}

/// `Implementation` of the MCP schema: what a peer calls itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Implementation {
    /// `name`.
    pub name: String,
    /// `version`; empty where it gave none.
    pub version: String,
}

/// MCP's transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Newline-delimited JSON on pipes, socketpairs or any byte stream.
    Stdio,
    /// Streamable HTTP (2025-03-26 and later).
    StreamableHttp,
    /// HTTP+SSE (2024-11-05): answers come on another connection.
    HttpSse,
    /// Not known yet.
    Unknown,
}

impl Transport {
    /// The name in the call record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdio => "stdio",
            Self::StreamableHttp => "streamable_http",
            Self::HttpSse => "http_sse",
            Self::Unknown => "unknown",
        }
    }
}

/// OpenTelemetry's `network.transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetworkTransport {
    /// Every stdio server, socketpair or not.
    Pipe,
    /// HTTP over a unix socket.
    Unix,
    /// TCP.
    Tcp,
}

impl NetworkTransport {
    /// The value of the attribute.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
            Self::Unix => "unix",
            Self::Tcp => "tcp",
        }
    }
}

/// From where a call was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vantage {
    /// The server's end is on this node and in scope.
    Server,
    /// Only the client's end is.
    Client,
    /// A relay's view of a call that is counted elsewhere.
    Hop,
}

impl Vantage {
    /// The value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Hop => "hop",
        }
    }
}

/// A request has been seen and is waiting for its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct CallBegan {
    /// The number of the call; its [`Call`] has the same.
    pub number: u64,
    /// Who talks with whom.
    pub parties: Parties,
    /// Method, as sent.
    pub method: Cow<'static, str>,
    /// Tool or prompt name.
    pub target: Option<Arc<str>>,
    /// Whether `target` is known to exist: a list result named it or a call to it succeeded.
    pub target_known: bool,
}

/// A finished call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The number of the call, as its [`CallBegan`] has it; unique within a pipeline.
    pub number: u64,
    /// Who talked with whom.
    pub parties: Parties,
    /// Method, as sent.
    pub method: Cow<'static, str>,
    /// Tool or prompt name (`tools/call`, `prompts/get`); never a URI.
    pub target: Option<Arc<str>>,
    /// Whether `target` is known to exist: a list result named it or a call to it succeeded.
    pub target_known: bool,
    /// The JSON-RPC id.
    pub id: CallId,
    /// How it ended.
    pub outcome: Outcome,
    /// HTTP-like status by the table of outcomes.
    pub status: u16,
    /// `error.code` of the answer.
    pub rpc_code: Option<i64>,
    /// HTTP status of the answer.
    pub http_status: Option<u16>,
    /// Protocol revision named by the request or agreed on in the handshake.
    pub protocol_version: Option<Arc<str>>,
    /// Raw session id; leaves the daemon only as a salted hash.
    pub session: Option<Arc<str>>,
    /// `resultType` of the answer.
    pub result_type: Option<Arc<str>>,
    /// 1, or the number of the round after `input_required`.
    pub round: u32,
    /// The number of the call of the first round: what the rounds of one operation have in common.
    pub first_round: u64,
    /// 1, or one more than that of the failed call of the last 60 s that this one repeats.
    pub attempt: u32,
    /// What the server wants, where the outcome is `input_required`.
    pub wants: Option<InputKind>,
    /// Whether it was refused under load, and by what that shows.
    pub pressure: Option<Pressure>,
    /// Tokens by estimate: [`super::Limits::characters_per_token`], text alone.
    pub tokens: EstimatedTokens,
    /// Task id of a task acknowledgement.
    pub task_id: Option<Arc<str>>,
    /// `traceparent` of the request's `_meta` or HTTP header.
    pub traceparent: Option<Arc<str>>,
    /// Times.
    pub timing: Timing,
    /// Bytes of the JSON-RPC request message.
    pub request_bytes: u64,
    /// Bytes of the JSON-RPC answer; 0 when none came.
    pub response_bytes: u64,
    /// The stream had a gap somewhere within this call.
    pub lossy: bool,
    /// A message of this call was not captured to its end.
    pub truncated: bool,
    /// Names of fields that were concluded, not read.
    pub inferred: Vec<&'static str>,
}

/// How many tokens a model would have had to write and read, by the number of characters; base64 is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EstimatedTokens {
    /// Of `arguments` as JSON text; `None` where there are none.
    pub arguments: Option<u64>,
    /// Of the texts of the result, or of a listing as JSON text; `None` where no result was read to its end.
    pub result: Option<u64>,
}

/// When a call happened, by the kernel's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// First byte of the request.
    pub began: Timestamp,
    /// End of the call as `vantage` sees it.
    pub ended: Timestamp,
    /// Nanoseconds: server vantage last request byte read → last response byte written; client vantage last request byte
    /// written → last response byte read. Where no answer came: until the call was given up.
    pub duration: u64,
    /// Nanoseconds at the client's end, where both ends were seen.
    pub client_duration: Option<u64>,
    /// Nanoseconds the request lay ready before the server read it.
    pub queue: Option<u64>,
    /// Nanoseconds until the first byte of the answer.
    pub first_byte: Option<u64>,
    /// Nanoseconds until the first progress notification.
    pub first_progress: Option<u64>,
}

/// How a call ended; see the table in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// A result.
    Ok,
    /// A result with `isError`.
    ToolError,
    /// A JSON-RPC error.
    RpcError,
    /// An HTTP status other than 2xx without a JSON-RPC error.
    HttpError,
    /// A refused probe for a revision, which the client answers by another handshake.
    Negotiation,
    /// 401 with `WWW-Authenticate`.
    AuthChallenge,
    /// The client gave up and said that its time was over.
    Timeout,
    /// The client cancelled.
    Cancelled,
    /// The client's process or connection went away.
    ClientGone,
    /// The server's process or connection went away.
    ServerGone,
    /// The answer broke the rules.
    Malformed,
    /// The server wants input before it goes on.
    InputRequired,
    /// The server made a task of it.
    TaskAccepted,
    /// No answer within the deadline.
    Unanswered,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: &'static [Self] = &[
        Self::Ok,
        Self::ToolError,
        Self::RpcError,
        Self::HttpError,
        Self::Negotiation,
        Self::AuthChallenge,
        Self::Timeout,
        Self::Cancelled,
        Self::ClientGone,
        Self::ServerGone,
        Self::Malformed,
        Self::InputRequired,
        Self::TaskAccepted,
        Self::Unanswered,
    ];

    /// The value of the label and of the record's `outcome`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool_error",
            Self::RpcError => "rpc_error",
            Self::HttpError => "http_error",
            Self::Negotiation => "negotiation",
            Self::AuthChallenge => "auth_challenge",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::ClientGone => "client_gone",
            Self::ServerGone => "server_gone",
            Self::Malformed => "malformed",
            Self::InputRequired => "input_required",
            Self::TaskAccepted => "task_accepted",
            Self::Unanswered => "unanswered",
        }
    }
}

macro_rules! malformed_reasons {
    ($( $(#[doc = $doc:literal])+ $name:ident = $label:literal; )+) => {
        /// Which rule a message breaks; the label `reason` of `mcp_malformed_messages_total`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum MalformedReason { $( $(#[doc = $doc])+ $name, )+ }

        impl MalformedReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// The value of the label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $label, )+ }
            }
        }
    };
}

malformed_reasons! {
    /// Not JSON.
    BadJson = "bad_json";
    /// Not UTF-8.
    BadUtf8 = "bad_utf8";
    /// JSON, but not a JSON-RPC 2.0 message.
    NotJsonRpc = "not_json_rpc";
    /// Both or neither of `result` and `error`.
    ResultAndError = "result_and_error";
    /// An id that is no string, number or null.
    BadId = "bad_id";
    /// Fewer bytes than `Content-Length` or the chunk size announced.
    ShortBody = "short_body";
    /// Bytes between messages that are no message (a log line on a server's stdout).
    StrayOutput = "stray_output";
    /// HTTP that breaks RFC 9112.
    BadHttp = "bad_http";
    /// JSON nested deeper than is followed.
    TooDeep = "too_deep";
    /// An answer whose id nobody asked with; like the next three only on a stream that was seen whole.
    UnknownId = "unknown_id";
    /// A second answer to one request.
    DuplicateAnswer = "duplicate_answer";
    /// An answer to what wants none.
    AnswerToNotification = "answer_to_notification";
    /// An answer after its client or server had closed the stream.
    AnswerAfterClose = "answer_after_close";
    /// A complete result of a tool, prompt or resource without content.
    MissingContent = "missing_content";
    /// No `resultType` where the revision demands it (2026-07-28).
    MissingResultType = "missing_result_type";
    /// An HTTP message with JSON-RPC whose `Content-Type` says that it is something else.
    WrongContentType = "wrong_content_type";
    /// Header fields that say otherwise than the body, or that the revision demands and that are missing (2026-07-28).
    HeaderMismatch = "header_mismatch";
    /// A notification that was answered with success, but not with 202.
    NotAccepted = "not_accepted";
    /// `structuredContent` that the tool's own `outputSchema` does not allow.
    SchemaViolation = "schema_violation";
}

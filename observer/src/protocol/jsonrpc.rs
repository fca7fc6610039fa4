//! Reads JSON-RPC 2.0 messages: the envelope and the few MCP fields that matter, nothing of the content.
//!
//! Key order is free: Node's SDK writes `jsonrpc` and `id` last. Where the middle of a message is missing, the envelope is
//! taken from its head and from its tail.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::json::{Fault, Scanner};
use super::mcp::method::{Method, cut};
use super::mcp::params::{Params, short};
use super::mcp::reply::Reply;
use super::observation::MalformedReason;

/// Messages of one batch that are looked at; later ones are ignored.
const MAX_BATCH: usize = 1024;

/// Bytes of an id that are kept; ids that differ only later are taken for one.
const MAX_ID: usize = 256;

/// One message body as the transport framed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The body and, it may be, what ends it; where `cut` its head.
    pub(crate) bytes: Bytes,
    /// Where `cut`: the last bytes that are known.
    pub(crate) tail: Bytes,
    /// The body's true length in bytes.
    pub(crate) length: u64,
    /// Whether bytes between head and tail are missing.
    pub(crate) cut: bool,
    /// Whether it is not known that this is the body, whole: bytes before it are missing.
    pub(crate) guessed: bool,
}

impl Payload {
    /// The body, or its head.
    pub(crate) fn text(&self) -> &[u8] {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        &self.bytes[..length.min(self.bytes.len())]
    }
}

/// A request's id. `1` and `"1"` are different ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum RpcId {
    /// A whole number in its shortest form.
    Integer(i64),
    /// Any other number, as written: fractions, and what does not fit 64 bits.
    Number(Arc<str>),
    /// A string.
    Text(Arc<str>),
    /// `null`.
    Null,
}

impl RpcId {
    /// Reads a JSON value; `None` where it is no id.
    pub(crate) fn from_json(raw: &[u8]) -> Option<Self> {
        match raw.first()? {
            b'"' => {
                let text = Scanner::new(raw).string_value().ok()??;
                Some(Self::Text(cut(&text, MAX_ID).into()))
            }
            b'n' => Some(Self::Null),
            b'-' | b'0'..=b'9' => {
                let text = std::str::from_utf8(raw).ok()?;
                Some(match text.parse::<i64>() {
                    Ok(number) if !text.starts_with("-0") => Self::Integer(number),
                    _ => Self::Number(cut(text, MAX_ID).into()),
                })
            }
            _ => None,
        }
    }
}

impl fmt::Display for RpcId {
    /// As JSON text.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(out, "{number}"),
            Self::Number(text) => out.write_str(text),
            Self::Text(text) => write!(out, "{text:?}"),
            Self::Null => out.write_str("null"),
        }
    }
}

/// One JSON-RPC message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    /// What it is.
    pub(crate) kind: Kind,
    /// Bytes of its text.
    pub(crate) length: u64,
    /// Not all of it was seen.
    pub(crate) cut: bool,
}

/// The kinds of message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Wants an answer.
    Request(RpcId, Method, Box<Params>),
    /// Wants none.
    Notification(Method, Box<Params>),
    /// A result.
    Result(RpcId, Box<Reply>),
    /// An error; without an id where the request could not be read.
    Error(Option<RpcId>, Failure),
}

/// What matters of `error`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Failure {
    /// `code`; 0 where there is none.
    pub(crate) code: i64,
    /// The begin of `message`.
    pub(crate) message: Option<Arc<str>>,
}

/// What a body turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Parsed {
    /// A message.
    Message(Message),
    /// Not one; with its id where that could be read and nothing says that it is a request.
    Broken(MalformedReason, Option<RpcId>),
    /// So much of it is missing, by no fault of the peer's, that nothing can be said: this many bytes were seen.
    Unreadable(u64),
}

/// The messages of one body: one, or those of a batch.
pub(crate) type Messages = SmallVec<[Parsed; 1]>;

/// Reads a body.
///
/// A cut body gives what its head and tail tell; where that is no message it is `Unreadable`.
pub(crate) fn parse(payload: &Payload) -> Messages {
    let mut messages = read(payload);
    if (payload.cut || payload.guessed) && messages.iter().any(|parsed| matches!(parsed, Parsed::Broken(..))) {
        let seen = payload.bytes.len() + payload.tail.len();
        messages = smallvec::smallvec![Parsed::Unreadable(seen as u64)];
    }
    messages
}

fn read(payload: &Payload) -> Messages {
    let text = payload.text();
    // Nearly all is ASCII, which is told apart many bytes at a time.
    if !payload.cut && !text.is_ascii() && std::str::from_utf8(text).is_err() {
        return smallvec::smallvec![Parsed::Broken(MalformedReason::BadUtf8, None)];
    }
    let mut scanner = Scanner::new(text);
    if scanner.peek() != Ok(b'[') {
        return smallvec::smallvec![parse_one(text, payload)];
    }
    let whole = Payload {
        bytes: payload.bytes.clone(),
        ..Payload::default()
    };
    let mut messages = Messages::new();
    let outcome = scanner.elements(&mut |element| {
        if messages.len() < MAX_BATCH {
            messages.push(parse_one(element, &whole));
        }
    });
    match outcome {
        Err(fault) if !payload.cut => smallvec::smallvec![Parsed::Broken(reason_of(fault), None)],
        _ if messages.is_empty() => smallvec::smallvec![Parsed::Broken(MalformedReason::NotJsonRpc, None)],
        _ => messages,
    }
}

fn parse_one(text: &[u8], payload: &Payload) -> Parsed {
    let mut envelope = Envelope::default();
    let mut scanner = Scanner::new(text);
    match envelope.read(&mut scanner, &payload.bytes) {
        Ok(()) if scanner.at_end() => {}
        Ok(()) => return Parsed::Broken(MalformedReason::BadJson, None),
        Err(Fault::Cut) if payload.cut => envelope.read_tail(&payload.tail),
        Err(fault) => return Parsed::Broken(reason_of(fault), None),
    }
    let length = if payload.length == 0 {
        text.len() as u64
    } else {
        payload.length
    };
    match envelope.judge() {
        Ok(kind) => Parsed::Message(Message {
            kind,
            length,
            cut: payload.cut,
        }),
        Err((reason, id)) => Parsed::Broken(reason, id),
    }
}

const fn reason_of(fault: Fault) -> MalformedReason {
    match fault {
        Fault::TooDeep => MalformedReason::TooDeep,
        Fault::Syntax | Fault::Cut => MalformedReason::BadJson,
    }
}

/// The members of one object, as far as they were read.
#[derive(Default)]
struct Envelope {
    is_object: bool,
    version_2: bool,
    id: Option<Option<RpcId>>,
    method: Option<Method>,
    params: Option<Box<Params>>,
    result: Option<Box<Reply>>,
    error: Option<Failure>,
}

impl Envelope {
    /// `source`: what the scanner's text is part of.
    fn read(&mut self, scanner: &mut Scanner<'_>, source: &Bytes) -> Result<(), Fault> {
        self.is_object |= scanner.peek()? == b'{';
        scanner.members(&mut |scanner, key| {
            match key {
                b"jsonrpc" => self.version_2 = scanner.text()?.as_deref() == Some(b"2.0"),
                b"id" => self.id = Some(RpcId::from_json(scanner.raw()?)),
                b"method" => self.method = scanner.text()?.map(|name| Method::from_name(&name)),
                b"params" => return self.params.get_or_insert_default().read(scanner),
                b"result" => return self.result.insert(Box::default()).read(scanner, source),
                b"error" => return self.error.insert(Failure::default()).read(scanner),
                _ => return scanner.skip(),
            }
            Ok(())
        })
    }

    /// Takes the members at the end of an object whose middle is missing: `…,"jsonrpc":"2.0","id":7}`.
    fn read_tail(&mut self, tail: &[u8]) {
        const MEMBERS: usize = 512;
        let tail = &tail[tail.len().saturating_sub(MEMBERS)..];
        let starts = [r#","jsonrpc":"#, r#","id":"#].map(|key| memchr::memmem::rfind(tail, key.as_bytes()));
        let mut starts: Vec<usize> = starts.into_iter().flatten().collect();
        starts.sort_unstable();
        for start in starts {
            let text = Bytes::from([b"{", &tail[start + 1..]].concat());
            let mut ending = Self::default();
            let mut scanner = Scanner::new(&text);
            if ending.read(&mut scanner, &text).is_ok() && scanner.at_end() {
                self.version_2 |= ending.version_2;
                self.id = self.id.take().or(ending.id);
                self.method = self.method.take().or(ending.method);
                return;
            }
        }
    }

    fn judge(self) -> Result<Kind, (MalformedReason, Option<RpcId>)> {
        if !self.is_object || !self.version_2 {
            let id = self.id.flatten().filter(|_| self.method.is_none());
            return Err((MalformedReason::NotJsonRpc, id));
        }
        let id = match self.id {
            Some(None) => return Err((MalformedReason::BadId, None)),
            Some(id) => id,
            None => None,
        };
        if let Some(method) = self.method {
            let params = self.params.unwrap_or_default();
            return Ok(match id {
                Some(id) => Kind::Request(id, method, params),
                None => Kind::Notification(method, params),
            });
        }
        match (id, self.result, self.error) {
            (Some(id), Some(reply), None) => Ok(Kind::Result(id, reply)),
            (id, None, Some(failure)) => Ok(Kind::Error(id.filter(|id| *id != RpcId::Null), failure)),
            (None, ..) => Err((MalformedReason::NotJsonRpc, None)),
            (id, ..) => Err((MalformedReason::ResultAndError, id)),
        }
    }
}

impl Failure {
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.members(&mut |scanner, key| {
            match key {
                b"code" => self.code = scanner.integer_value()?.unwrap_or(0),
                b"message" => self.message = short(scanner.string_value()?),
                _ => return scanner.skip(),
            }
            Ok(())
        })
    }
}

impl Message {
    /// Whether this message alone proves that its stream carries MCP; see the specification's method tables.
    pub(crate) fn proves_mcp(&self) -> bool {
        match &self.kind {
            Kind::Request(_, method, params) | Kind::Notification(method, params) => {
                params.meta_proves
                    || method.spec().is_some_and(|spec| spec.proves)
                    || (method.is("initialize") && params.version.as_deref().is_some_and(is_date))
            }
            Kind::Result(_, reply) => reply.meta_proves,
            Kind::Error(..) => false,
        }
    }
}

/// `2025-11-25`, also with something after it (`2026-07-28-draft`).
fn is_date(text: &str) -> bool {
    let shape = b"dddd-dd-dd";
    text.len() >= shape.len()
        && text.bytes().zip(shape).all(|(byte, shape)| match shape {
            b'd' => byte.is_ascii_digit(),
            _ => byte == b'-',
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Payload {
        Payload {
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            length: text.len() as u64,
            ..Payload::default()
        }
    }

    /// One word a message.
    fn words(payload: &Payload) -> String {
        let word = |parsed: &Parsed| match parsed {
            Parsed::Unreadable(bytes) => format!("unreadable:{bytes}"),
            Parsed::Broken(reason, id) => {
                format!(
                    "broken:{}:{}",
                    reason.name(),
                    id.as_ref().map_or_else(String::new, RpcId::to_string)
                )
            }
            Parsed::Message(message) => match &message.kind {
                Kind::Request(id, method, params) => {
                    format!(
                        "request:{id}:{}:{}",
                        method.name(),
                        params.name.as_deref().unwrap_or("")
                    )
                }
                Kind::Notification(method, _) => format!("notification:{}", method.name()),
                Kind::Result(id, reply) => format!("result:{id}:{}", reply.is_error),
                Kind::Error(id, failure) => {
                    format!(
                        "error:{}:{}",
                        id.as_ref().map_or_else(String::new, RpcId::to_string),
                        failure.code
                    )
                }
            },
        };
        parse(payload).iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn reads_envelopes() {
        fn check(text: &str, expected: &str) {
            assert_eq!(words(&whole(text)), expected, "{text}");
        }
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"}}"#,
            "request:1:tools/call:add",
        );
        check(
            r#"{"method":"tools/call","params":{"name":"add"},"jsonrpc":"2.0","id":0}"#,
            "request:0:tools/call:add",
        );
        check(
            r#"{"jsonrpc":"2.0","id":"1","result":{"isError":true}}"#,
            "result:\"1\":true",
        );
        check(r#"{"jsonrpc":"2.0","id":-7,"result":{}}"#, "result:-7:false");
        check(r#"{"jsonrpc":"2.0","id":1.5,"result":{}}"#, "result:1.5:false");
        check(
            r#"{"jsonrpc":"2.0","id":123456789012345678901234567890,"result":1}"#,
            "result:123456789012345678901234567890:false",
        );
        check(
            r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"x"}}"#,
            "error::-32700",
        );
        check(
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700}}"#,
            "error::-32700",
        );
        check(
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            "notification:notifications/initialized",
        );
        check(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, "request:2:ping:");
        check(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, "request:null:ping:");
        check(r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "broken:bad_id:");
        check(
            r#"{"jsonrpc":"2.0","id":3,"result":{},"error":{"code":1}}"#,
            "broken:result_and_error:3",
        );
        check(r#"{"jsonrpc":"2.0","id":3}"#, "broken:result_and_error:3");
        check(r#"{"id":3,"result":{}}"#, "broken:not_json_rpc:3");
        check("{}", "broken:not_json_rpc:");
        check("[]", "broken:not_json_rpc:");
        check("[1,2]", "broken:not_json_rpc: broken:not_json_rpc:");
        check("{\"a\":", "broken:bad_json:");
        check(&format!("{{\"a\":{}", "[".repeat(10_000)), "broken:too_deep:");
        check(
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"tools/list"}]"#,
            "request:1:ping: request:2:tools/list:",
        );
    }

    #[test]
    fn bad_utf8_is_no_message() {
        let payload = Payload {
            bytes: Bytes::from_static(b"{\"a\":\"\xff\"}"),
            length: 9,
            ..Payload::default()
        };
        assert_eq!(words(&payload), "broken:bad_utf8:");
    }

    #[test]
    fn a_cut_message_is_known_by_head_and_tail() {
        fn check(head: &str, tail: &str, expected: &str) {
            let payload = Payload {
                bytes: Bytes::copy_from_slice(head.as_bytes()),
                tail: Bytes::copy_from_slice(tail.as_bytes()),
                length: 1 << 20,
                cut: true,
                guessed: false,
            };
            assert_eq!(words(&payload), expected, "{head} … {tail}");
        }
        check(
            r#"{"result":{"content":[{"text":"aaa"#,
            r#"aaa"}]},"jsonrpc":"2.0","id":9}"#,
            "result:9:false",
        );
        check(
            r#"{"jsonrpc":"2.0","id":9,"result":{"text":"a"#,
            "aaaa",
            "result:9:false",
        );
        check(
            r#"{"method":"tools/call","params":{"name":"x","arguments":{"a":"b"#,
            r#"b"}},"jsonrpc":"2.0","id":"q"}"#,
            "request:\"q\":tools/call:x",
        );
        check(
            r#"{"result":{"te"#,
            r#"x","id":5}},"jsonrpc":"2.0","id":9}"#,
            "result:9:false",
        );
        check(r#"{"result":{"te"#, "zzzz", "unreadable:18");
    }

    #[test]
    fn evidence_of_mcp() {
        fn check(text: &str, expected: bool) {
            let Parsed::Message(message) = &parse(&whole(text))[0] else {
                panic!("no message: {text}");
            };
            assert_eq!(message.proves_mcp(), expected, "{text}");
        }
        check(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, true);
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#,
            true,
        );
        // ACP.
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}"#,
            false,
        );
        // LSP.
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"processId":1,"capabilities":{}}}"#,
            false,
        );
        // A2A.
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"id":"x"}}"#,
            false,
        );
        check(r#"{"jsonrpc":"2.0","id":1,"method":"message/send","params":{}}"#, false);
        // Ethereum.
        check(r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[]}"#, false);
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, false);
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"x/y","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
            true,
        );
        check(
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":3}}"#,
            true,
        );
    }
}

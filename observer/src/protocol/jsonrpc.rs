//! Reads JSON-RPC 2.0 messages: the envelope and the few MCP fields that matter, nothing of the content.
//!
//! Key order is free: Node's SDK writes `jsonrpc` and `id` last. Where the middle of a message is missing, the envelope is
//! taken from its head and from its tail.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use smallvec::SmallVec;

use super::json::{Fault, Scanner};
use super::mcp::method::{MAX_NAME, Method, cut};
use super::observation::{Implementation, MalformedReason};

/// Messages of one batch that are looked at; later ones are ignored.
const MAX_BATCH: usize = 1024;

/// Names of one list result that are kept.
const MAX_LISTED: usize = 4096;

/// Bytes of a short text (version, reason, trace parent, task id) that are kept.
const MAX_TEXT: usize = 256;

/// Bytes of an id that are kept; ids that differ only later are taken for one.
const MAX_ID: usize = 256;

/// One message body as the transport framed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The body, or its head where `cut`.
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

/// A request's id. `1` and `"1"` are different ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum RpcId {
    /// A whole number in its shortest form.
    Integer(i64),
    /// Any other number, as written: fractions, and what does not fit 64 bits.
    Number(Box<str>),
    /// A string.
    Text(Box<str>),
    /// `null`.
    Null,
}

impl RpcId {
    /// Reads a JSON value; `None` where it is no id.
    fn from_json(raw: &[u8]) -> Option<Self> {
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
    Request(RpcId, Method, Params),
    /// Wants none.
    Notification(Method, Params),
    /// A result.
    Result(RpcId, Reply),
    /// An error; without an id where the request could not be read.
    Error(Option<RpcId>, i64),
}

/// What matters of `params`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Params {
    /// `name`.
    pub(crate) name: Option<Box<str>>,
    /// `protocolVersion`, where it is a string.
    pub(crate) version: Option<Box<str>>,
    /// `clientInfo`, or that of `_meta`.
    pub(crate) client: Option<Implementation>,
    /// `_meta["io.modelcontextprotocol/protocolVersion"]`.
    pub(crate) meta_version: Option<Box<str>>,
    /// Whether `_meta` has a key that begins with `io.modelcontextprotocol/`.
    pub(crate) meta_proves: bool,
    /// `_meta.traceparent`.
    pub(crate) traceparent: Option<Box<str>>,
    /// `_meta.progressToken` of a request, `progressToken` of a progress notification.
    pub(crate) progress_token: Option<RpcId>,
    /// `requestId` of a cancellation.
    pub(crate) request_id: Option<RpcId>,
    /// `reason` of a cancellation.
    pub(crate) reason: Option<Box<str>>,
}

/// What matters of `result`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reply {
    /// `isError` is true.
    pub(crate) is_error: bool,
    /// `resultType`.
    pub(crate) result_type: Option<Box<str>>,
    /// `task.taskId`.
    pub(crate) task_id: Option<Box<str>>,
    /// `protocolVersion`.
    pub(crate) version: Option<Box<str>>,
    /// `serverInfo`, or that of `_meta`.
    pub(crate) server: Option<Implementation>,
    /// Whether `_meta` has a key that begins with `io.modelcontextprotocol/`.
    pub(crate) meta_proves: bool,
    /// Names in `tools` and `prompts`.
    pub(crate) listed: Vec<Box<str>>,
}

/// What a body turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Parsed {
    /// A message.
    Message(Box<Message>),
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
    let text = payload.bytes.as_ref();
    if !payload.cut && std::str::from_utf8(text).is_err() {
        return smallvec::smallvec![Parsed::Broken(MalformedReason::BadUtf8, None)];
    }
    let mut scanner = Scanner::new(text);
    if scanner.peek() != Ok(b'[') {
        return smallvec::smallvec![parse_one(text, payload)];
    }
    let whole = Payload::default();
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
    match envelope.read(&mut scanner) {
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
        Ok(kind) => Parsed::Message(Box::new(Message {
            kind,
            length,
            cut: payload.cut,
        })),
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
    params: Params,
    result: Option<Reply>,
    error: Option<i64>,
}

impl Envelope {
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        self.is_object |= scanner.peek()? == b'{';
        scanner.members(&mut |scanner, key| {
            match key {
                "jsonrpc" => self.version_2 = scanner.string_value()?.as_deref() == Some("2.0"),
                "id" => self.id = Some(RpcId::from_json(scanner.raw()?)),
                "method" => self.method = scanner.string_value()?.map(|name| Method::from_name(&name)),
                "params" => return self.params.read(scanner),
                "result" => return self.result.insert(Reply::default()).read(scanner),
                "error" => return read_error(scanner, self.error.insert(0)),
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
            let text = [b"{", &tail[start + 1..]].concat();
            let mut ending = Self::default();
            let mut scanner = Scanner::new(&text);
            if ending.read(&mut scanner).is_ok() && scanner.at_end() {
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
            return Ok(match id {
                Some(id) => Kind::Request(id, method, self.params),
                None => Kind::Notification(method, self.params),
            });
        }
        match (id, self.result, self.error) {
            (Some(id), Some(reply), None) => Ok(Kind::Result(id, reply)),
            (id, None, Some(code)) => Ok(Kind::Error(id.filter(|id| *id != RpcId::Null), code)),
            (None, ..) => Err((MalformedReason::NotJsonRpc, None)),
            (id, ..) => Err((MalformedReason::ResultAndError, id)),
        }
    }
}

fn read_error(scanner: &mut Scanner<'_>, code: &mut i64) -> Result<(), Fault> {
    scanner.members(&mut |scanner, key| {
        if key == "code" {
            *code = scanner.integer_value()?.unwrap_or(0);
            return Ok(());
        }
        scanner.skip()
    })
}

impl Params {
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.members(&mut |scanner, key| {
            match key {
                "name" => self.name = scanner.string_value()?.map(|name| cut(&name, MAX_NAME).into()),
                "protocolVersion" => self.version = short(scanner.string_value()?),
                "clientInfo" => self.client = read_implementation(scanner)?,
                "progressToken" => self.progress_token = RpcId::from_json(scanner.raw()?),
                "requestId" => self.request_id = RpcId::from_json(scanner.raw()?),
                "reason" => self.reason = short(scanner.string_value()?),
                "_meta" => return self.read_meta(scanner),
                _ => return scanner.skip(),
            }
            Ok(())
        })
    }

    fn read_meta(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.members(&mut |scanner, key| {
            self.meta_proves |= key.starts_with(META_PREFIX);
            match key.strip_prefix(META_PREFIX).unwrap_or(key) {
                "protocolVersion" => self.meta_version = short(scanner.string_value()?),
                "clientInfo" => self.client = read_implementation(scanner)?,
                "traceparent" => self.traceparent = short(scanner.string_value()?),
                "progressToken" => self.progress_token = RpcId::from_json(scanner.raw()?),
                _ => return scanner.skip(),
            }
            Ok(())
        })
    }
}

impl Reply {
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.members(&mut |scanner, key| {
            match key {
                "isError" => self.is_error = scanner.raw()? == b"true",
                "resultType" => self.result_type = short(scanner.string_value()?),
                "protocolVersion" => self.version = short(scanner.string_value()?),
                "serverInfo" => self.server = read_implementation(scanner)?,
                "task" => self.task_id = short(read_member(scanner, "taskId")?.map(Cow::Owned)),
                "tools" | "prompts" => return self.read_listed(scanner),
                "_meta" => return self.read_meta(scanner),
                _ => return scanner.skip(),
            }
            Ok(())
        })
    }

    fn read_listed(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.elements(&mut |element| {
            if let (true, Ok(Some(name))) = (
                self.listed.len() < MAX_LISTED,
                read_member(&mut Scanner::new(element), "name"),
            ) {
                self.listed.push(cut(&name, MAX_NAME).into());
            }
        })
    }

    fn read_meta(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.members(&mut |scanner, key| {
            self.meta_proves |= key.starts_with(META_PREFIX);
            if key.strip_prefix(META_PREFIX) == Some("serverInfo") {
                self.server = read_implementation(scanner)?;
                return Ok(());
            }
            scanner.skip()
        })
    }
}

/// What every `_meta` key of the specification begins with (2026-07-28, basic, `_meta`).
const META_PREFIX: &str = "io.modelcontextprotocol/";

fn short(text: Option<Cow<'_, str>>) -> Option<Box<str>> {
    text.map(|text| cut(&text, MAX_TEXT).into())
}

fn read_member(scanner: &mut Scanner<'_>, wanted: &str) -> Result<Option<String>, Fault> {
    let mut found = None;
    scanner.members(&mut |scanner, key| {
        if key == wanted {
            found = scanner.string_value()?.map(Cow::into_owned);
            return Ok(());
        }
        scanner.skip()
    })?;
    Ok(found)
}

fn read_implementation(scanner: &mut Scanner<'_>) -> Result<Option<Implementation>, Fault> {
    let (mut name, mut version) = (None, String::new());
    scanner.members(&mut |scanner, key| {
        match key {
            "name" => name = scanner.string_value()?.map(|text| cut(&text, MAX_NAME).to_owned()),
            "version" => {
                version = scanner
                    .string_value()?
                    .map_or_else(String::new, |text| cut(&text, MAX_TEXT).to_owned());
            }
            _ => return scanner.skip(),
        }
        Ok(())
    })?;
    Ok(name.map(|name| Implementation { name, version }))
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
                Kind::Error(id, code) => {
                    format!(
                        "error:{}:{code}",
                        id.as_ref().map_or_else(String::new, RpcId::to_string)
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

//! Heads of HTTP/1.1 messages (RFC 9112), and how the ends of their bodies are told.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Status};

use crate::protocol::framing::head::{Facts, RequestHead, ResponseHead, Verb, Words};
use crate::protocol::observation::Side;

/// Fields of a head; servers allow about a hundred.
const MAX_FIELDS: usize = 128;

pub(super) const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Where a head ends, if it does.
pub(super) fn end_of_head(text: &[u8]) -> Option<usize> {
    let mut lines = memchr::memchr_iter(b'\n', text).map(|at| at + 1);
    lines.find(|end| text[..*end].ends_with(END_OF_HEAD))
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
    b"PRI * HTTP/2.",
];

/// What a client of HTTP/2 says first, as far as it looks like a head of HTTP/1.1 (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// Whether bytes begin like an HTTP/1 message, or are too few to tell.
pub(crate) fn begins_message(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && STARTS
            .iter()
            .any(|start| bytes.starts_with(start) || start.starts_with(bytes))
}

/// Who writes bytes that begin like an HTTP/1 message, or like the preface of HTTP/2.
pub(crate) fn sender_of(bytes: &[u8]) -> Option<Side> {
    let (response, requests) = STARTS.split_first()?;
    if bytes.starts_with(response) {
        return Some(Side::Server);
    }
    requests
        .iter()
        .any(|start| bytes.starts_with(start))
        .then_some(Side::Client)
}

/// Whether bytes begin with the whole first line of an HTTP/1 message, which no line of JSON or of a log is.
pub(crate) fn begins_with_start_line(bytes: &[u8]) -> bool {
    let end = memchr::memchr(b'\n', bytes).unwrap_or(0);
    let Some(line) = bytes[..end].strip_suffix(b"\r") else {
        return false;
    };
    let is_request = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
    begins_message(line) && (is_request || line.starts_with(b"HTTP/1."))
}

/// Whether bytes begin like a chunk: up to 8 hexadecimal digits, then a line end.
pub(super) fn begins_chunk(bytes: &[u8]) -> bool {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    (1..=8).contains(&digits) && bytes[digits..].starts_with(b"\r\n")
}

impl Head {
    /// Reads a head; one that is `torn` is read as far as its last whole line.
    pub(super) fn parse(text: &[u8], torn: bool, words: &mut Words) -> Option<(Self, Framing)> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let parser = ParserConfig::default();
        let repaired;
        let text = if torn {
            let end = memchr::memrchr(b'\n', text)?;
            repaired = [&text[..=end], b"\r\n"].concat();
            &repaired
        } else {
            text
        };
        if text.starts_with(b"HTTP/") {
            let mut response = httparse::Response::new(&mut []);
            let Ok(Status::Complete(_)) = parser.parse_response_with_uninit_headers(&mut response, text, &mut fields)
            else {
                return None;
            };
            let (facts, told) = read(response.headers, words)?;
            let status = response.code?;
            let framing = match status {
                100..=199 | 204 | 304 => Framing::None,
                _ => told.unwrap_or(Framing::UntilClose),
            };
            return Some((Self::Response(facts.response(Some(status))), framing));
        }
        let mut request = httparse::Request::new(&mut []);
        let Ok(Status::Complete(_)) = parser.parse_request_with_uninit_headers(&mut request, text, &mut fields) else {
            return None;
        };
        let (method, target) = (request.method?, request.path?);
        let (facts, told) = read(request.headers, words)?;
        if told == Some(Framing::UntilClose) {
            // Where a request with such a body ends cannot be known (section 6.3).
            return None;
        }
        let framing = told.unwrap_or(Framing::None);
        Some((
            Self::Request(facts.request(Verb::named(method), target, words)),
            framing,
        ))
    }
}

/// What fields say of the message and of the length of its body; `None` where they contradict each other about that.
fn read(fields: &[Header<'_>], words: &mut Words) -> Option<(Facts, Option<Framing>)> {
    let (mut facts, mut framing, mut transfer) = (Facts::default(), None, "");
    for field in fields {
        match field.name.len() {
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                let value = std::str::from_utf8(field.value).ok()?;
                let (inner, last) = value.rsplit_once(',').unwrap_or(("", value));
                framing = Some(if last.trim().eq_ignore_ascii_case("chunked") {
                    Framing::Chunked
                } else {
                    Framing::UntilClose
                });
                transfer = inner;
            }
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                let value = std::str::from_utf8(field.value).ok()?.trim();
                // `parse` would take a sign.
                if !value.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                let length = Framing::Length(value.parse().ok()?);
                match framing {
                    Some(Framing::Length(_)) if framing != Some(length) => return None,
                    Some(Framing::Chunked | Framing::UntilClose) => {}
                    _ => framing = Some(length),
                }
            }
            _ => facts.read(field.name, field.value, words),
        }
    }
    // What is done for the transfer comes over what is done to the content.
    if !transfer.trim().is_empty() {
        facts.coding.get_or_insert_default().add(transfer);
    }
    Some((facts, framing))
}

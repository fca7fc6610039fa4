//! HTTP/1.1 messages in, one word a frame out.

use super::*;
use crate::protocol::reassembly::GapKind;

fn drain(framer: &mut HttpFramer, out: &mut Vec<String>) {
    loop {
        let frame = match framer.step(1 << 20) {
            Step::NeedMore => return,
            Step::Response => continue,
            Step::Lost { bytes, broken, .. } => {
                out.push(format!("lost:{bytes}{}", broken.map_or("", MalformedReason::name)));
                continue;
            }
            Step::Frame(frame) => frame,
        };
        out.push(match frame.kind {
            FrameKind::Request(head) => format!("{:?} {}", head.verb, head.path),
            FrameKind::Response(head) => head.status.unwrap_or(0).to_string(),
            FrameKind::Body(payload) => format!(
                "body={}{}",
                String::from_utf8_lossy(&payload.bytes),
                if payload.cut {
                    format!("…{}", String::from_utf8_lossy(&payload.tail))
                } else {
                    String::new()
                }
            ),
            FrameKind::Event(event) => format!("event={}", String::from_utf8_lossy(&event.data.bytes)),
            FrameKind::End(Ending::Whole) => "end".to_owned(),
            FrameKind::End(ending) => format!("end:{ending:?}"),
            other => format!("{other:?}"),
        });
    }
}

/// Pieces in (`Err`: a hole of so many bytes), frames out.
fn frames(pieces: &[Result<&[u8], u64>]) -> String {
    let mut framer = HttpFramer::new(0);
    let mut out = Vec::new();
    let mut at = 0;
    for piece in pieces {
        framer.feed(match *piece {
            Ok(bytes) => Chunk::Bytes {
                start: at,
                bytes: Bytes::copy_from_slice(bytes),
                fresh: true,
            },
            Err(length) => Chunk::Gap {
                start: at,
                length,
                kind: GapKind::Muted,
            },
        });
        at += piece.map_or_else(|length| length, |bytes| bytes.len() as u64);
        drain(&mut framer, &mut out);
    }
    framer.finish();
    drain(&mut framer, &mut out);
    out.join(" ")
}

#[test]
fn cuts_messages() {
    fn check(text: &str, expected: &str) {
        assert_eq!(frames(&[Ok(text.as_bytes())]), expected, "{text:?}");
        let single: Vec<_> = text.as_bytes().chunks(1).map(Ok).collect();
        assert_eq!(frames(&single), expected, "{text:?} byte by byte");
    }
    check(
        "POST /mcp HTTP/1.1\r\nContent-Length: 3\r\n\r\n{1}",
        "Post /mcp body={1} end",
    );
    check(
        "GET /a?b HTTP/1.1\r\n\r\nGET http://h/c HTTP/1.1\r\n\r\n",
        "Get /a end Get /c end",
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: u\r\n\r\n",
        "200 body=abc end",
    );
    check(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\nHTTP/1.0 200 OK\r\n\r\nabc",
        "100 end 204 end 200 body=abc end",
    );
    check(
        "HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "304 end 200 end",
    );
    check(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n5\r\ndata:\r\n5\r\n b\n\n\n\r\n0\r\n\r\n",
        "200 event=a event=b end",
    );
    check(
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
        "200 lost:3 end:Short",
    );
    check("POST / HTTP/1.1\r\nContent-Le", "lost:27");
}

#[test]
fn what_is_no_http_is_told() {
    fn check(text: &str, expected: &str) {
        assert_eq!(frames(&[Ok(text.as_bytes())]), expected, "{text:?}");
    }
    check(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000000\r\nab",
        "Post / lost:20bad_http end:Short",
    );
}

#[test]
fn holes() {
    fn check(pieces: &[Result<&[u8], u64>], expected: &str) {
        assert_eq!(frames(pieces), expected);
    }
    check(
        &[
            Ok(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{ab"),
            Err(3),
            Ok(b"cd}"),
            Ok(b"GET / HTTP/1.1\r\n\r\n"),
        ],
        "Post / body={ab…cd} end Get / end",
    );
    check(
        &[
            Ok(b"GET /a HTTP/1.1\r\nCookie: xxx"),
            Err(100),
            Ok(b"GET /b HTTP/1.1\r\n\r\n"),
        ],
        "Get /a end:Gap Get /b end",
    );
    check(
        &[
            Ok(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"),
            Err(100),
            Ok(b"junk"),
            Ok(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ],
        "200 body=ab… end:Gap lost:4 200 end",
    );
}

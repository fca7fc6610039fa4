//! HTTP/1.1 messages in, one word a frame out.

use super::HttpFramer;
use crate::protocol::framing::Framer;
use crate::protocol::framing::tests::{Piece, run};
use crate::protocol::reassembly::GapKind;

fn frames(pieces: &[Piece<'_>]) -> String {
    let framer = Framer::Http(Box::new(HttpFramer::new(0)));
    run(framer, pieces, 0, GapKind::Muted)
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
    // In chunks it is not known how much was lost: the next message tells that this one is over.
    check(
        &[
            Ok(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            Err(5),
            Ok(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ],
        "200 body=abc… end:Gap 200 end",
    );
}

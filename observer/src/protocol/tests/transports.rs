//! The rules of HTTP/1.1 (RFC 9112) and of event streams (WHATWG HTML, 9.2), one test each, where MCP meets them.

use super::scene::{Line, Scene};
use crate::protocol::event::Source;

fn call(id: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"add\"}}}}")
}

fn result(id: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}")
}

fn post(body: &str) -> String {
    message("POST /mcp HTTP/1.1\r\nHost: h", body)
}

fn ok(body: &str) -> String {
    message("HTTP/1.1 200 OK", body)
}

fn message(start: &str, body: &str) -> String {
    let length = body.len();
    format!("{start}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn good(id: u32) -> String {
    format!("call tools/call add id={id} ok 200 10→20 streamable_http server")
}

/// One connection on which client (`Ok`) and server (`Err`) say something in turn; the lines that come of it.
fn talk(turns: &[Result<&str, &str>]) -> String {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    say(&mut scene, (up, down), turns);
    scene.told()
}

fn say(scene: &mut Scene, (up, down): (Line, Line), turns: &[Result<&str, &str>]) {
    for turn in turns {
        match turn {
            Ok(text) => scene.say(10, up, 20, text),
            Err(text) => scene.say(20, down, 10, text),
        }
    }
}

/// The same in one piece and byte by byte; `expected` is what calls and other lines come of it.
fn check(turns: &[Result<&str, &str>], expected: &[String]) {
    assert_eq!(talk(turns), expected.join("\n"));
    let mut scene = Scene::new();
    let lines = scene.socket(1, 2, Source::Tcp);
    for turn in turns {
        let text = turn.unwrap_or_else(|text| text);
        for at in 0..text.len() {
            let byte = text.get(at..=at).expect("it is ASCII");
            say(&mut scene, lines, &[turn.map(|_| byte).map_err(|_| byte)]);
        }
    }
    assert_eq!(scene.told(), expected.join("\n"), "byte by byte");
}

#[test]
fn keep_alive() {
    let turns: Vec<String> = (1..=3).flat_map(|id| [post(&call(id)), ok(&result(id))]).collect();
    let turns: Vec<_> = turns
        .iter()
        .enumerate()
        .map(|(index, text)| if index % 2 == 0 { Ok(&text[..]) } else { Err(&text[..]) })
        .collect();
    check(&turns, &[good(1), good(2), good(3)]);
}

#[test]
fn pipelining() {
    let asked = [post(&call(1)), post(&call(2)), post(&call(3))].concat();
    let answered = [ok(&result(1)), ok(&result(2)), ok(&result(3))].concat();
    check(&[Ok(&asked), Err(&answered)], &[good(1), good(2), good(3)]);
}

#[test]
fn content_until_close() {
    let mut scene = Scene::new();
    let lines = scene.socket(1, 2, Source::Tcp);
    let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}", result(1));
    say(&mut scene, lines, &[Ok(&post(&call(1))), Err(&answer)]);
    scene.close(20, 2);
    assert_eq!(scene.told(), good(1));
}

#[test]
fn chunks_with_extensions_and_trailers() {
    let body = call(1);
    let (a, b) = body.split_at(10);
    let asked = format!(
        "POST /mcp HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x};name=\"value\"\r\n{a}\r\n{:X} ; q\r\n{b}\r\n000;last\r\nDigest: x\r\nA: b\r\n\r\n",
        a.len(),
        b.len()
    );
    check(&[Ok(&asked), Err(&ok(&result(1)))], &[good(1)]);
}

#[test]
fn chunks_go_before_length() {
    let body = call(1);
    let asked = format!(
        "POST /mcp HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    check(&[Ok(&asked), Err(&ok(&result(1)))], &[good(1)]);
}

#[test]
fn a_response_to_head_has_no_content() {
    let head = "HEAD /mcp HTTP/1.1\r\nMcp-Session-Id: a\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n";
    check(
        &[Ok(head), Err(answer), Ok(&post(&call(1))), Err(&ok(&result(1)))],
        &[good(1)],
    );
}

#[test]
fn interim_responses_and_expect() {
    let asked = post(&call(1));
    let (head, body) = asked.split_at(asked.find("{").unwrap());
    let expects = head.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    check(
        &[Ok(&expects), Err(interim), Ok(body), Err(hints), Err(&ok(&result(1)))],
        &[good(1)],
    );
}

#[test]
fn no_content_after_204_and_304() {
    for status in ["204 No Content", "304 Not Modified"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 500\r\n\r\n");
        let delete = "DELETE /mcp HTTP/1.1\r\nMcp-Session-Id: a\r\n\r\n";
        check(
            &[Ok(delete), Err(&answer), Ok(&post(&call(1))), Err(&ok(&result(1)))],
            &[good(1)],
        );
    }
}

#[test]
fn absolute_targets() {
    let mut scene = Scene::new();
    let lines = scene.socket(1, 2, Source::Tcp);
    let asked = post(&call(1)).replace("/mcp", "http://far.example:8080/mcp?a=b");
    say(&mut scene, lines, &[Ok(&asked), Err(&ok(&result(1)))]);
    assert_eq!(scene.calls()[0].parties.authority.as_deref(), Some("far.example:8080"));
}

#[test]
fn connect_makes_a_tunnel() {
    let connect = "CONNECT far.example:80 HTTP/1.1\r\nHost: far.example:80\r\n\r\n";
    let agreed = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n";
    check(
        &[Ok(connect), Err(agreed), Ok(&post(&call(1))), Err(&ok(&result(1)))],
        &[good(1)],
    );
}

#[test]
fn another_protocol_after_an_upgrade() {
    let asked = "GET /x HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n";
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n";
    let line = call(1) + "\n";
    let answer = result(1) + "\n";
    let expected = good(1).replace("streamable_http", "stdio");
    check(&[Ok(asked), Err(agreed), Ok(&line), Err(&answer)], &[expected]);
}

#[test]
fn what_is_refused() {
    let first = [post(&call(1)), ok(&result(1))];
    for (name, bad) in [
        ("obsolete line folding", "POST / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"),
        (
            "lengths that differ",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        ),
        ("a list of lengths", "POST / HTTP/1.1\r\nContent-Length: 3, 4\r\n\r\n"),
        ("a length with a sign", "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n"),
        (
            "a request of unknown length",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        ),
        ("white space before the colon", "POST / HTTP/1.1\r\nHost : h\r\n\r\n"),
        (
            "a chunk without its end",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ),
        (
            "a chunk of no size",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ),
    ] {
        let told = talk(&[Ok(&first[0]), Err(&first[1]), Ok(bad)]);
        assert!(told.contains("malformed bad_http from client"), "{name}: {told}");
    }
}

#[test]
fn a_transfer_coding_under_chunks() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(result(1).as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{:x}\r\n",
        body.len()
    );
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    scene.say(10, up, 20, &post(&call(1)));
    let answer = [head.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    scene.write(20, down, &answer);
    scene.read(10, down, answer.len());
    assert_eq!(scene.told(), good(1));
}

#[test]
fn http_1_0_and_its_lack_of_host() {
    let asked = post(&call(1)).replace("HTTP/1.1\r\nHost: h", "HTTP/1.0");
    check(&[Ok(&asked), Err(&ok(&result(1)))], &[good(1)]);
}

#[test]
fn empty_lines_before_a_request() {
    let asked = format!("\r\n\r\n{}", post(&call(2)));
    let turns = [
        Ok(&post(&call(1))[..]),
        Err(&ok(&result(1))[..]),
        Ok(&asked[..]),
        Err(&ok(&result(2))[..]),
    ];
    check(&turns, &[good(1), good(2)]);
}

/// What a server's event stream `text` answers to a call; it ends, or stays open.
fn events(text: &str) -> String {
    let asked = post(&call(1));
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    talk(&[Ok(&asked), Err(head), Err(&chunk)])
}

#[test]
fn lines_of_events_end_in_three_ways() {
    for end in ["\n", "\r\n", "\r"] {
        assert_eq!(
            events(&format!("event: message{end}data: {}{end}{end}:{end}", result(1))),
            good(1),
            "{end:?}"
        );
    }
}

#[test]
fn a_byte_order_mark_comes_first() {
    assert_eq!(events(&format!("\u{feff}data: {}\n\n", result(1))), good(1));
}

#[test]
fn data_of_several_lines_is_one_message() {
    let text = result(1)
        .replace(',', ",\ndata:")
        .replace("\"content\"", "\ndata:  \"content\"");
    assert_eq!(events(&format!("data: {text}\n\n")), good(1));
}

#[test]
fn comments_ids_retries_and_priming_are_no_messages() {
    let text = format!(
        ": ping\n\nid: 0\ndata:\n\nretry: 500\n\nid\nevent\nunknown: x\n\nid: 1\ndata: {}\n\n",
        result(1)
    );
    assert_eq!(events(&text), good(1));
}

#[test]
fn an_event_that_is_not_over_is_none() {
    // Without the empty line it is not dispatched: what is cut off is given up, the call waits.
    assert_eq!(events(&format!("data: {}\n", result(1))), "");
}

#[test]
fn an_event_cut_anywhere() {
    let text = format!("\u{feff}: a\r\nid: 7\r\ndata: {}\r\n\r\n", result(1));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    for at in 0..text.len() {
        let mut scene = Scene::new();
        let (up, down) = scene.socket(1, 2, Source::Tcp);
        scene.say(10, up, 20, &post(&call(1)));
        scene.say(20, down, 10, head);
        let (first, second) = text.as_bytes().split_at(at);
        for piece in [first, second].into_iter().filter(|piece| !piece.is_empty()) {
            scene.write(20, down, piece);
            scene.read(10, down, piece.len());
        }
        assert_eq!(scene.told(), good(1), "cut at {at}");
    }
}

#[test]
fn lines_of_json() {
    let mut scene = Scene::new();
    let (up, down) = (scene.pipe(1), scene.pipe(2));
    for (id, end) in [(1, "\n"), (2, "\r\n"), (3, "\n\n\r\n \n")] {
        scene.say(10, up, 20, &(call(id) + end));
        scene.say(20, down, 10, &format!("{}{end}", result(id)));
    }
    scene.say(20, down, 10, "a line for people\n");
    let good = |id| good(id).replace("streamable_http", "stdio");
    assert_eq!(
        scene.told(),
        [
            good(1),
            good(2),
            good(3),
            "malformed stray_output from server".to_owned()
        ]
        .join("\n")
    );
}

/// The content alone reads like a line, with its end or without; what comes next on the connection is HTTP all the same.
#[test]
fn joined_between_a_head_and_its_content() {
    for end in ["", "\n"] {
        let (asked, answered) = (format!("{}{end}", call(1)), format!("{}{end}", result(1)));
        let told = talk(&[Err(&answered), Ok(&post(&call(2))), Err(&ok(&result(2)))]);
        assert!(told.contains(&good(2)) && !told.contains("malformed"), "{told}");
        let told = talk(&[
            Ok(&asked),
            Err(&ok(&result(1))),
            Ok(&post(&call(2))),
            Err(&ok(&result(2))),
        ]);
        assert!(told.contains(&good(2)) && !told.contains("malformed"), "{told}");
    }
}

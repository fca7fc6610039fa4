//! Contents in gzip, deflate, br and zstd: read like any other, whole or as events; what cannot be read is said so.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use insta::assert_snapshot;

use super::scene::{Line, Scene};
use crate::protocol::event::Source;

fn call(id: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"add\"}}}}")
}

fn result(id: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[],\"isError\":true}}}}")
}

fn gzip(text: &str) -> Vec<u8> {
    gzip_bytes(text.as_bytes())
}

fn gzip_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn message(start: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{start}\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn say(scene: &mut Scene, line: Line, bytes: &[u8]) {
    for piece in bytes.chunks(50) {
        scene.write(10, line, piece);
        scene.read(20, line, piece.len());
    }
}

const CODED: &str = "Content-Encoding: gzip\r\n";

#[test]
fn coded_json_both_ways() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    say(&mut scene, up, &message("POST /mcp HTTP/1.1", CODED, &gzip(&call(1))));
    say(&mut scene, down, &message("HTTP/1.1 200 OK", CODED, &gzip(&result(1))));
    assert_snapshot!(scene.told(), @"call tools/call add id=1 tool_error 500 10→20 streamable_http server");
}

#[test]
fn coded_events_as_they_come() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    say(&mut scene, up, &message("POST /mcp HTTP/1.1", "", call(1).as_bytes()));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n";
    say(&mut scene, down, head.as_bytes());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let note = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{}}\n\n";
    for text in [note, ": ping\n\n", &format!("data: {}\n\n", result(1))] {
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.flush().unwrap();
        let part = std::mem::take(encoder.get_mut());
        let chunk = [format!("{:x}\r\n", part.len()).as_bytes(), &part, b"\r\n"].concat();
        say(&mut scene, down, &chunk);
    }
    // The stream stays open.
    assert_snapshot!(scene.told(), @r"
    notification notifications/progress from server
    call tools/call add id=1 tool_error 500 10→20 streamable_http server
    ");
}

#[test]
fn coded_twice() {
    let twice = gzip_bytes(&gzip(&result(1)));
    let thrice = gzip_bytes(&twice);
    for (fields, body, status) in [
        ("Content-Encoding: gzip, x-gzip\r\n", &twice, " tool_error 500"),
        (
            "Content-Encoding: gzip\r\nContent-Encoding: identity, gzip\r\n",
            &twice,
            " tool_error 500",
        ),
        // More is not read.
        ("Content-Encoding: gzip, gzip, gzip\r\n", &thrice, " ok 200"),
    ] {
        let mut scene = Scene::new();
        let (up, down) = scene.socket(1, 2, Source::Tcp);
        say(&mut scene, up, &message("POST /mcp HTTP/1.1", "", call(1).as_bytes()));
        say(&mut scene, down, &message("HTTP/1.1 200 OK", fields, body));
        let told = scene.told();
        assert!(
            told.starts_with("call tools/call add id=1") && told.contains(status),
            "{fields}: {told}"
        );
    }
}

#[test]
fn contents_that_are_not_read() {
    let answers = [
        // A coding that is not known, one that is broken off, no coding at all, a bomb.
        message("HTTP/1.1 200 OK", "Content-Encoding: compress\r\n", b"abc"),
        message("HTTP/1.1 200 OK", CODED, &gzip(&result(1))[..40]),
        message("HTTP/1.1 200 OK", CODED, result(1).as_bytes()),
        message("HTTP/1.1 200 OK", CODED, &gzip(&" ".repeat(16 << 20))),
    ];
    let mut told = Vec::new();
    for answer in answers {
        let mut scene = Scene::new();
        let (up, down) = scene.socket(1, 2, Source::Tcp);
        say(&mut scene, up, &message("POST /mcp HTTP/1.1", "", call(1).as_bytes()));
        say(&mut scene, down, &answer);
        told.push(scene.told());
    }
    assert_snapshot!(told.join("\n--\n"), @r"
    call tools/call add id=1 ok 200 10→20 streamable_http server inferred:outcome
    --
    malformed bad_json from server
    call tools/call add id=1 malformed 502 10→20 streamable_http server
    --
    lost resync 55
    malformed bad_http from server
    call tools/call add id=1 malformed 502 10→20 streamable_http server
    --
    lost stream_too_long 1402
    call tools/call add id=1 ok 200 10→20 streamable_http server inferred:outcome
    ");
}

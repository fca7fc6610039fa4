//! Bad input: no panic, no growth, no call invented, and the stream goes on where it can.

use super::scene::{Line, MILLI, Scene, lines};
use crate::protocol::Limits;
use crate::protocol::event::{Source, StreamKey, Verdict};
use crate::protocol::observation::Output;

const CALL: &str = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\"}}\n";
const RESULT: &str = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[]}}\n";

/// Bytes that look random, the same ones each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// What `bytes`, written in pieces of 4 KiB, is judged to be, and after how many of them.
fn verdict(source: Source, bytes: &[u8]) -> (Option<Verdict>, usize, String) {
    let mut scene = Scene::new();
    let line = match source {
        Source::Pipe => scene.pipe(1),
        _ => scene.socket(1, 2, source).0,
    };
    let mut written = 0;
    let mut rest = Vec::new();
    for piece in bytes.chunks(4096) {
        scene.write(10, line, piece);
        written += piece.len();
        scene.wait(30 * MILLI);
        assert!(held(&scene) < 1 << 20);
        for output in scene.outputs() {
            match output {
                Output::Verdict(key, verdict) => {
                    assert_eq!(key, StreamKey(1));
                    return (Some(verdict), written, lines(&rest));
                }
                other => rest.push(other),
            }
        }
    }
    (None, written, lines(&rest))
}

fn held(scene: &Scene) -> usize {
    let links = scene.pipeline.streams.iter().map(|(_, link)| link);
    links.map(crate::protocol::stream::Link::held_bytes).sum()
}

#[test]
fn what_is_not_mcp_is_said_so() {
    let check = |source, bytes: &[u8], expected, within: usize| {
        let (verdict, after, told) = verdict(source, bytes);
        assert_eq!(verdict, expected, "{}", String::from_utf8_lossy(&bytes[..40]));
        assert!(after <= within, "after {after} bytes");
        assert!(!told.contains("call"), "{told}");
    };
    let k64 = 64 << 10;
    check(Source::Tcp, &noise(1 << 20), Some(Verdict::NotMcp), k64);
    check(Source::Pipe, &noise(1 << 20), Some(Verdict::NotMcp), k64);
    let ciphertext = [b"\x16\x03\x01\x02\x00".as_slice(), &noise(1 << 20)].concat();
    // It may carry a session that is seen as plain text: its calls are looked at for a while.
    check(Source::Tcp, &ciphertext, Some(Verdict::HeadsOnly), k64);
    check(
        Source::Pipe,
        "a line of a log\n".repeat(10_000).as_bytes(),
        Some(Verdict::NotMcp),
        2 * k64,
    );
    let lsp = "Content-Length: 52\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{}}";
    check(
        Source::Pipe,
        lsp.repeat(5_000).as_bytes(),
        Some(Verdict::NotMcp),
        2 * k64,
    );
    let acp = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}\n";
    check(
        Source::Pipe,
        acp.repeat(5_000).as_bytes(),
        Some(Verdict::NotMcp),
        300 << 10,
    );
    check(
        Source::Pipe,
        "{\"level\":\"info\"}\n".repeat(10_000).as_bytes(),
        Some(Verdict::NotMcp),
        2 * k64,
    );
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
    check(Source::Tcp, get.as_bytes(), Some(Verdict::HeadsOnly), 4096);
}

/// A stdio server hears `bytes` before and between calls; what comes out.
fn between_calls(bytes: &[u8]) -> String {
    let mut scene = Scene::new();
    let (up, down) = (scene.pipe(1), scene.pipe(2));
    scene.say(10, up, 20, CALL);
    scene.say(20, down, 10, RESULT);
    for piece in bytes.chunks(60_000) {
        scene.write(20, down, piece);
    }
    scene.say(10, up, 20, CALL);
    scene.say(20, down, 10, RESULT);
    scene.told()
}

#[test]
fn a_known_stream_survives() {
    let ok = "call tools/call a id=1 ok 200 10→20 stdio server";
    let check = |bytes: &[u8], between: &str| {
        let expected = [ok, between, ok]
            .into_iter()
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(
            between_calls(bytes),
            expected,
            "{}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
        );
    };
    check(b"\n\r\n", "");
    check(b"starting up\n", "malformed stray_output from server");
    check(b"{}\n", "malformed not_json_rpc from server");
    check(
        b"{\"jsonrpc\":\"2.0\",\"id\":true,\"result\":{}}\n",
        "malformed bad_id from server",
    );
    check(
        b"{\"jsonrpc\":\"2.0\",\"result\":{}}\n",
        "malformed not_json_rpc from server",
    );
    check(b"{\"a\":\"\xff\xfe\"}\n", "malformed bad_utf8 from server");
    check(b"{\"a\":\n", "malformed bad_json from server");
    let deep = format!("{{\"a\":{}\n", "[".repeat(10_000));
    check(deep.as_bytes(), "malformed too_deep from server");
    check(
        &[noise(300), b"\n".to_vec()]
            .concat()
            .iter()
            .map(|byte| if *byte == b'\n' { 0 } else { *byte })
            .chain([b'\n'])
            .collect::<Vec<_>>(),
        "malformed stray_output from server",
    );
}

#[test]
fn a_line_of_a_hundred_megabytes() {
    let mut scene = Scene::new();
    let (up, down) = (scene.pipe(1), scene.pipe(2));
    scene.say(10, up, 20, CALL);
    let piece = vec![b'x'; 1 << 20];
    scene.write(20, down, b"{\"result\":{\"a\":\"");
    for _ in 0..100 {
        scene.write(20, down, &piece);
        scene.wait(30 * MILLI);
        assert!(held(&scene) < 40 << 20);
    }
    scene.write(20, down, b"\"},\"jsonrpc\":\"2.0\",\"id\":1}\n");
    scene.say(10, up, 20, CALL);
    scene.say(20, down, 10, RESULT);
    let told = scene.told();
    assert!(told.contains("id=1 ok 200 10→20 stdio server truncated"), "{told}");
    assert!(told.contains("lost stream_too_long"), "{told}");
    assert!(
        told.ends_with("call tools/call a id=1 ok 200 10→20 stdio server"),
        "{told}"
    );
}

#[test]
fn http_that_breaks_the_rules() {
    let post = "POST /mcp HTTP/1.1\r\nMcp-Session-Id: x\r\nContent-Length: 76\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n";
    let check = |text: &str, expected: &str| {
        let mut scene = Scene::new();
        let (up, down) = scene.socket(1, 2, Source::Tcp);
        let exchange = |scene: &mut Scene, (up, down): (Line, Line)| {
            scene.say(10, up, 20, &format!("{post}{:<76}", CALL.trim()));
            scene.say(20, down, 10, &format!("{ok}{:<50}", RESULT.trim()));
        };
        exchange(&mut scene, (up, down));
        for piece in text.as_bytes().chunks(60_000) {
            scene.write(10, up, piece);
        }
        scene.wait(100 * MILLI);
        assert!(held(&scene) < 1 << 20);
        exchange(&mut scene, (up, down));
        let told = scene.told();
        let call = "call tools/call a id=1 ok 200 10→20 streamable_http server";
        assert_eq!(told.matches(call).count(), 2, "{told}");
        assert!(told.contains(expected), "{told}");
    };
    check(
        &format!("GET / HTTP/1.1\r\n{}", "X-A: bbbbbbbbbb\r\n".repeat(70_000)),
        "malformed bad_http from client",
    );
    check(
        "GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        "malformed bad_http from client",
    );
    check("GET / HTTP/1.1\r\nA: \u{1}\r\n\r\n", "malformed bad_http from client");
}

#[test]
fn a_chunk_size_out_of_bounds() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    scene.say(
        10,
        up,
        20,
        &format!(
            "POST /mcp HTTP/1.1\r\nMcp-Session-Id: x\r\nContent-Length: 76\r\n\r\n{:<76}",
            CALL.trim()
        ),
    );
    scene.say(
        20,
        down,
        10,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    scene.say(20, down, 10, "8000000000000000\r\n{}");
    let told = scene.told();
    assert!(told.contains("malformed bad_http from server"), "{told}");
    assert!(told.contains("call tools/call a id=1 malformed 502"), "{told}");
}

#[test]
fn a_hundred_thousand_half_messages() {
    let mut scene = Scene::with(Limits {
        streams: 1000,
        ..Limits::default()
    });
    let healthy = (scene.pipe(1_000_001), scene.pipe(1_000_002));
    let mut lost = 0;
    for key in 1..=100_000 {
        let line = scene.pipe(key);
        scene.write(10, line, b"{\"jsonrpc\":\"2.0\",\"id\":1,\"meth");
        if key % 500 == 0 {
            scene.say(11, healthy.0, 21, CALL);
            scene.say(21, healthy.1, 11, RESULT);
            scene.wait(30 * MILLI);
            lost += scene
                .outputs()
                .iter()
                .filter(|output| matches!(output, Output::Lost { .. }))
                .count();
        }
    }
    scene.wait(1000 * MILLI);
    let census = scene.pipeline.census();
    assert!(census.streams_mcp + census.streams_undecided <= 1000);
    let [(_, streams), ..] = census.evictions;
    assert_eq!(streams, lost as u64);
    assert!(streams >= 99_000 && census.streams_mcp == 2);
    assert_eq!(census.pending, 0);
}

#[test]
fn a_hundred_thousand_half_messages_that_stay() {
    let limit = 4 << 20;
    let mut scene = Scene::with(Limits {
        streams: 200_000,
        held_bytes: limit,
        ..Limits::default()
    });
    let healthy: Vec<_> = (0..20_u64)
        .map(|n| (scene.pipe(1_000_000 + 2 * n), scene.pipe(1_000_001 + 2 * n)))
        .collect();
    let half = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"{:200}", "");
    let (call, rest) = CALL.split_at(30);
    let (mut lost, mut told) = ((0, 0), String::new());
    for key in 1..=100_000 {
        let line = scene.pipe(key);
        scene.write(10, line, half.as_bytes());
        if key % 5000 == 0 {
            // Healthy ones have half a message on their way too.
            for (index, (up, down)) in (0..).zip(&healthy) {
                scene.say(100 + index, *up, 200 + index, call);
                scene.say(100 + index, *up, 200 + index, rest);
                scene.say(200 + index, *down, 100 + index, RESULT);
            }
            scene.wait(30 * MILLI);
            assert!(held(&scene) <= limit && scene.pipeline.streams.held <= limit);
            for output in scene.outputs() {
                match output {
                    Output::Lost { bytes, .. } => lost = (lost.0 + 1, lost.1 + bytes),
                    other => told += &lines(&[other]),
                }
            }
        }
    }
    scene.wait(1000 * MILLI);
    told += &lines(&scene.outputs());
    let evicted = scene.pipeline.census().evictions[6];
    assert_eq!(evicted, ("held_bytes", lost.0));
    // What was given is what is held and what is lost.
    let given = 100_000 * half.len() as u64;
    assert_eq!(given, lost.1 + held(&scene) as u64);
    assert!(lost.0 > 80_000 && held(&scene) > limit / 2);
    assert_eq!(
        told.matches("call tools/call a id=1 ok 200").count(),
        20 * healthy.len()
    );
    assert!(!told.contains("lossy"), "{told}");
}

#[test]
fn more_requests_than_are_remembered() {
    let mut scene = Scene::new();
    let up = scene.pipe(1);
    let more = 100;
    let mut calls = (0, 0);
    for id in 0..crate::protocol::matcher::MAX_PENDING + more {
        let call = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\"}}\n");
        scene.write(10, up, call.as_bytes());
        if id % 1000 == 0 {
            scene.wait(MILLI);
        }
    }
    scene.wait(1000 * MILLI);
    assert_eq!(scene.pipeline.census().evictions[1], ("requests", more as u64));
    scene.pipeline.finish(crate::protocol::event::Timestamp(scene.now));
    for output in scene.outputs() {
        let line = super::scene::line(&output).unwrap_or_default();
        calls.0 += usize::from(line.starts_with("call "));
        calls.1 += usize::from(line.starts_with("lost request_evicted"));
    }
    assert_eq!(calls, (crate::protocol::matcher::MAX_PENDING + more, more));
}

#[test]
fn more_answers_without_request_than_are_held() {
    let mut scene = Scene::new();
    let (up, down) = (scene.pipe(1), scene.pipe(2));
    scene.say(10, up, 20, CALL);
    scene.say(20, down, 10, RESULT);
    for id in 100..3000 {
        scene.write(
            20,
            down,
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n").as_bytes(),
        );
    }
    scene.wait(30 * MILLI);
    assert!(scene.pipeline.early.len() <= 1024);
    assert_eq!(scene.told().matches("lost orphan_response").count(), 2900);
}

#[test]
fn more_pipelined_requests_than_are_remembered() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    let get = "GET / HTTP/1.1\r\n\r\n".repeat(1000);
    scene.write(10, up, get.as_bytes());
    scene.wait(30 * MILLI);
    let response = "HTTP/1.1 204 No Content\r\n\r\n".repeat(1000);
    scene.write(20, down, response.as_bytes());
    assert_eq!(scene.told(), "");
}

#[test]
fn more_sessions_failures_and_tasks_than_are_remembered() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    let sessions = 16_384 + 10;
    for n in 0..sessions {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{n},"method":"tools/call","params":{{"name":"a","arguments":{{"n":{n}}}}}}}"#
        );
        let length = body.len();
        scene.say(
            10,
            up,
            20,
            &format!("POST /mcp HTTP/1.1\r\nMcp-Session-Id: s{n}\r\nContent-Length: {length}\r\n\r\n{body}"),
        );
        let body = match n % 2 {
            0 => format!(r#"{{"jsonrpc":"2.0","id":{n},"error":{{"code":-32603}}}}"#),
            _ => format!(r#"{{"jsonrpc":"2.0","id":{n},"result":{{"task":{{"taskId":"{n}"}}}}}}"#),
        };
        let length = body.len();
        scene.say(
            20,
            down,
            10,
            &format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"),
        );
    }
    let told = scene.told();
    assert_eq!(told.matches("session evicted").count(), 10);
    assert_eq!(told.matches("task_accepted").count(), sessions / 2);
    let evictions = scene.pipeline.census().evictions;
    assert_eq!(evictions[3], ("tasks", (sessions / 2 - 4096) as u64));
    assert_eq!(evictions[4], ("sessions", 10));
}

//! Streamable HTTP, HTTP+SSE, and HTTP that is not MCP.

use insta::assert_snapshot;

use super::scene::{Line, MILLI, Scene};
use crate::protocol::event::{Missing, Source, Verdict};
use crate::protocol::observation::Output;

fn post(path: &str, fields: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: h:1\r\nUser-Agent: agent/1.0 x\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn json(status: &str, fields: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn call(id: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"add\"}}}}")
}

fn result(id: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}")
}

fn connection(scene: &mut Scene, a: u64) -> (Line, Line) {
    scene.socket(a, a + 1, Source::Tcp)
}

#[test]
fn json_answers_on_one_connection() {
    let mut scene = Scene::new();
    let (up, down) = connection(&mut scene, 1);
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","clientInfo":{"name":"c","version":"1"}}}"#;
    let answer =
        r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","serverInfo":{"name":"s","version":"1"}}}"#;
    scene.say(10, up, 20, &post("/mcp", "", initialize));
    scene.say(20, down, 10, &json("200 OK", "Mcp-Session-Id: abc\r\n", answer));
    let session = "Mcp-Session-Id: abc\r\n";
    scene.say(
        10,
        up,
        20,
        &post(
            "/mcp",
            session,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        ),
    );
    scene.say(20, down, 10, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
    scene.say(10, up, 20, &post("/mcp", session, &call(1)));
    scene.say(20, down, 10, &json("200 OK", "", &result(1)));
    scene.say(10, up, 20, &post("/mcp", session, &call(2)));
    scene.say(
        20,
        down,
        10,
        &json(
            "404 Not Found",
            "",
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"x"}}"#,
        ),
    );
    scene.say(10, up, 20, &post("/mcp", session, &call(3)));
    scene.say(20, down, 10, "HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy");
    scene.say(10, up, 20, &post("/mcp", session, &call(4)));
    scene.say(
        20,
        down,
        10,
        "HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n",
    );
    scene.say(10, up, 20, &post("/mcp", session, &call(5)));
    scene.say(20, down, 10, &json("200 OK", "", "{oops"));
    assert_snapshot!(scene.told(), @r"
    session began
    server s 2025-06-18
    call initialize id=0 ok 200 10→20 streamable_http server
    notification notifications/initialized from client
    call tools/call add id=1 ok 200 10→20 streamable_http server
    session expired after 1 ms
    call tools/call add id=2 rpc_error 404 10→20 streamable_http server
    call tools/call add id=3 http_error 503 10→20 streamable_http server attempt:2
    call tools/call add id=4 auth_challenge 401 10→20 streamable_http server attempt:3
    malformed bad_json from server
    call tools/call add id=5 malformed 502 10→20 streamable_http server
    ");
}

#[test]
fn a_call_knows_its_session_and_peers() {
    let mut scene = Scene::new();
    let (up, down) = connection(&mut scene, 1);
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","clientInfo":{"name":"c","version":"1"}}}"#;
    let answer =
        r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","serverInfo":{"name":"s","version":"1"}}}"#;
    scene.say(10, up, 20, &post("/mcp", "", initialize));
    scene.say(20, down, 10, &json("200 OK", "Mcp-Session-Id: abc\r\n", answer));
    let other = connection(&mut scene, 3);
    scene.say(10, other.0, 20, &post("/mcp", "Mcp-Session-Id: abc\r\n", &call(1)));
    scene.say(20, other.1, 10, &json("200 OK", "", &result(1)));
    let calls = scene.calls();
    let call = &calls[1];
    assert_eq!(call.session.as_deref(), Some("abc"));
    assert_eq!(call.protocol_version.as_deref(), Some("2025-06-18"));
    assert_eq!(call.parties.client.implementation.as_ref().unwrap().name, "c");
    assert_eq!(call.parties.server.implementation.as_ref().unwrap().name, "s");
    assert_eq!(call.parties.authority.as_deref(), Some("h:1"));
    assert_eq!(call.parties.server.address.unwrap().port(), 4);
}

#[test]
fn event_stream_answers_cut_in_pieces() {
    let mut scene = Scene::new();
    let (up, down) = connection(&mut scene, 1);
    scene.say(10, up, 20, &post("/mcp", "", &call(1)));
    scene.say(20, down, 10, EVENTS);
    scene.say(20, down, 10, &chunk("id: 1\ndata: \n\n"));
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#;
    scene.say(20, down, 10, &chunk(&format!("event: message\ndata: {progress}\n\n")));
    scene.say(
        20,
        down,
        10,
        &chunk("data: {\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"sampling/createMessage\"}\n\n"),
    );
    let text = chunk(&format!("event: message\ndata: {}\n\n", result(1))) + "0\r\n\r\n";
    for piece in text.as_bytes().chunks(7) {
        scene.say(20, down, 10, std::str::from_utf8(piece).unwrap());
    }
    scene.say(10, up, 20, &post("/mcp", "", &call(2)));
    scene.say(20, down, 10, &json("200 OK", "", &result(2)));
    assert_snapshot!(scene.told(), @r"
    notification notifications/progress from server
    server request sampling/createMessage
    call tools/call add id=1 ok 200 10→20 streamable_http server
    call tools/call add id=2 ok 200 10→20 streamable_http server
    ");
}

#[test]
fn answers_on_another_connection() {
    let mut scene = Scene::new();
    let (get, events) = connection(&mut scene, 1);
    let (up, down) = connection(&mut scene, 3);
    scene.say(
        10,
        get,
        20,
        "GET /sse HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n",
    );
    scene.say(20, events, 10, EVENTS);
    scene.say(
        20,
        events,
        10,
        &chunk("event: endpoint\ndata: /messages/?session_id=77\n\n"),
    );
    scene.say(
        10,
        up,
        20,
        &post(
            "/messages/?session_id=77",
            "",
            r#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#,
        ),
    );
    scene.say(
        20,
        down,
        10,
        "HTTP/1.1 202 Accepted\r\nContent-Length: 8\r\n\r\nAccepted",
    );
    scene.say(
        20,
        events,
        10,
        &chunk(&format!("event: message\ndata: {}\n\n", result(0))),
    );
    scene.say(10, up, 20, &post("/messages/?session_id=77", "", &call(1)));
    scene.say(
        20,
        events,
        10,
        &chunk(&format!("event: message\ndata: {}\n\n", result(1))),
    );
    scene.say(
        20,
        down,
        10,
        "HTTP/1.1 202 Accepted\r\nContent-Length: 8\r\n\r\nAccepted",
    );
    assert_snapshot!(scene.told(), @r"
    session began
    call ping id=0 ok 200 10→20 http_sse server
    call tools/call add id=1 ok 200 10→20 http_sse server
    ");
}

#[test]
fn one_call_after_two_hundred_rest_requests() {
    let mut scene = Scene::new();
    let (up, down) = connection(&mut scene, 1);
    let mut verdicts = Vec::new();
    let body = "x".repeat(2000);
    for n in 0..200 {
        let (request, response) = if n % 3 == 0 {
            (
                post("/rest", "", &format!("{{\"n\":\"{body}\"}}")),
                json("200 OK", "", &body),
            )
        } else {
            (
                format!("GET /rest/{n} HTTP/1.1\r\nHost: h\r\nCookie: {body}\r\n\r\n"),
                json("200 OK", "", &body),
            )
        };
        let muted = matches!(verdicts.last(), Some(Verdict::HeadsOnly));
        say_muted(&mut scene, up, &request, muted && n % 3 != 0);
        say_muted(&mut scene, down, &response, muted && n % 3 != 0);
        scene.wait(100 * MILLI);
        verdicts.extend(scene.outputs().iter().filter_map(|output| match output {
            Output::Verdict(_, verdict) => Some(*verdict),
            _ => None,
        }));
    }
    // Once at first, then after each POST; for both ends.
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::HeadsOnly));
    assert_eq!(verdicts.len(), 2 * 67);
    scene.say(10, up, 20, &post("/mcp", "", &call(1)));
    scene.say(20, down, 10, &json("200 OK", "", &result(1)));
    assert_snapshot!(scene.told(), @"call tools/call add id=1 ok 200 10→20 streamable_http server");
}

fn say_muted(scene: &mut Scene, line: Line, text: &str, muted: bool) {
    let (bytes, missing) = if muted && text.len() > 256 {
        (&text.as_bytes()[..256], Missing::Muted)
    } else {
        (text.as_bytes(), Missing::Nothing)
    };
    scene.write_span(10, line, bytes, text.len(), missing);
    scene.read(20, line, text.len());
}

#[test]
fn a_connection_joined_in_the_middle() {
    let mut scene = Scene::new();
    let (up, down) = connection(&mut scene, 1);
    scene.say(20, down, 10, "rest of something\r\n\r\n\u{1}\u{2}");
    scene.say(10, up, 20, "y of a request: 1}");
    scene.say(10, up, 20, &post("/mcp", "", &call(1)));
    scene.say(20, down, 10, &json("200 OK", "", &result(1)));
    assert_snapshot!(scene.told(), @"call tools/call add id=1 ok 200 10→20 streamable_http server");
}

#[test]
fn a_response_told_before_its_request() {
    let mut scene = Scene::new();
    let (up, down) = connection(&mut scene, 1);
    scene.write(20, down, json("200 OK", "", &result(1)).as_bytes());
    scene.wait(50 * MILLI);
    scene.now -= 51 * MILLI;
    scene.write(10, up, post("/mcp", "", &call(1)).as_bytes());
    scene.now += 51 * MILLI;
    assert_snapshot!(scene.told(), @"call tools/call add id=1 ok 200 10→20 streamable_http server inferred:serverStart");
}

#[test]
fn a_server_that_closes_before_it_answers() {
    let mut scene = Scene::new();
    let (up, _) = connection(&mut scene, 1);
    scene.say(10, up, 20, &post("/mcp", "", &call(1)));
    scene.close(20, 2);
    let (up, down) = connection(&mut scene, 3);
    scene.say(
        10,
        up,
        20,
        &post("/mcp", "MCP-Protocol-Version: 2026-07-28\r\n", &call(2)),
    );
    scene.say(20, down, 10, EVENTS);
    scene.close(10, 3);
    assert_snapshot!(scene.told(), @r"
    call tools/call add id=1 server_gone 502 10→20 streamable_http server
    call tools/call add id=2 cancelled 499 10→20 streamable_http server
    ");
}

#[test]
fn an_event_stream_older_than_the_observer() {
    let mut scene = Scene::new();
    let (_, events) = connection(&mut scene, 1);
    let (up, down) = connection(&mut scene, 3);
    let accepted = "HTTP/1.1 202 Accepted\r\nContent-Length: 8\r\n\r\nAccepted";
    for id in 1..=2 {
        scene.say(10, up, 20, &post("/message?sessionId=ab", "", &call(id)));
        scene.say(20, down, 10, accepted);
        for piece in [
            "6f",
            "\r\n",
            &format!("event: message\ndata: {}\n\n", result(id)),
            "\r\n",
        ] {
            scene.say(20, events, 10, piece);
        }
    }
    // The stream is over; what comes next on its connection is HTTP again.
    scene.say(20, events, 10, "0\r\n\r\n");
    let next = Line::Socket(1, 2);
    scene.say(10, next, 20, &post("/mcp", "", &call(3)));
    scene.say(20, events, 10, &json("200 OK", "", &result(3)));
    assert_snapshot!(scene.told(), @r"
    call tools/call add id=1 ok 200 10→20 http_sse server
    call tools/call add id=2 ok 200 10→20 http_sse server
    call tools/call add id=3 ok 200 10→20 streamable_http server
    ");
}

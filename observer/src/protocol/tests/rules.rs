//! Every rule that a message can break: a line each, by the name of its reason.

use insta::assert_snapshot;

use super::scene::{Line, Scene, Stdio};
use crate::protocol::event::Source;
use crate::protocol::observation::{MalformedReason, Output};

const OK: &str = r#""result":{"content":[]}"#;

/// What a server says after a handshake and a call of `id` 1, and what comes out beside the good call.
fn stdio(said: &[u8]) -> String {
    let mut talk = Stdio::greeted("2025-11-25");
    talk.call(1, "add", "")
        .server(&format!(r#""id":1,{OK}"#))
        .server_says(said);
    talk.told()
        .replace("call tools/call add id=1 ok 200 10→20 stdio server\n", "")
}

/// A good call, then one POST and what is answered; what comes out of the second.
fn http(fields: &str, body: &str, answer: &str) -> String {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    post(&mut scene, up, "application/json", "", CALL);
    scene.say(20, down, 10, &response("200 OK", "application/json", RESULT));
    post(&mut scene, up, "application/json", fields, body);
    scene.say(20, down, 10, answer);
    scene.close(20, 2);
    let told = scene.told();
    let (_, second) = told.split_once('\n').unwrap_or_default();
    second.to_owned()
}

fn post(scene: &mut Scene, up: Line, kind: &str, fields: &str, body: &str) {
    let length = body.len();
    let text = format!(
        "POST /mcp HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    );
    scene.say(10, up, 20, &text);
}

fn response(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"}}"#;
const NOTE: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;

#[test]
fn every_rule_of_messages() {
    fn check(said: &str, reason: MalformedReason) {
        let told = stdio(format!("{said}\n").as_bytes());
        assert_eq!(told, format!("malformed {} from server", reason.name()), "{said}");
    }
    assert_eq!(
        stdio(b"{\"jsonrpc\":\"2.0\",\"id\":\"\xff\"}\n"),
        "malformed bad_utf8 from server"
    );
    use MalformedReason as Reason;
    check(r#"{"jsonrpc":"2.0","id":"#, Reason::BadJson);
    check("{\"jsonrpc\":\"2.0\",\"id\":2,\"id\":\"\u{fffd}", Reason::BadJson);
    check(r#"{"id":2,"result":{}}"#, Reason::NotJsonRpc);
    check(r#"{"jsonrpc":"2.0","id":2}"#, Reason::ResultAndError);
    check(
        r#"{"jsonrpc":"2.0","id":2,"result":{},"error":{"code":1}}"#,
        Reason::ResultAndError,
    );
    check(r#"{"jsonrpc":"2.0","id":[2],"result":{}}"#, Reason::BadId);
    check("2026-11-22 INFO listening", Reason::StrayOutput);
    check(&format!("{{\"a\":{}", "[".repeat(300)), Reason::TooDeep);
    check(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#, Reason::UnknownId);
    check(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Reason::DuplicateAnswer);
    check(
        r#"{"jsonrpc":"2.0","id":null,"result":{}}"#,
        Reason::AnswerToNotification,
    );
}

#[test]
fn a_stream_that_was_not_seen_whole_convicts_nobody() {
    let mut talk = Stdio::new();
    talk.call(1, "add", "")
        .server(&format!(r#""id":1,{OK}"#))
        .server(&format!(r#""id":1,{OK}"#));
    let mut torn = Stdio::greeted("2025-11-25");
    torn.hole().server(&format!(r#""id":9,{OK}"#));
    torn.scene.wait(2_000_000_000);
    assert_snapshot!(talk.told() + "\n" + &torn.told(), @r"
    call tools/call add id=1 ok 200 10→20 stdio server
    lost orphan_response 48
    lost orphan_response 48
    ");
}

#[test]
fn what_is_told_of_a_stream_with_a_hole_says_so() {
    let mut talk = Stdio::greeted("2025-11-25");
    let note = r#""method":"notifications/message""#;
    let lossy = |talk: &mut Stdio| -> Vec<bool> {
        talk.told_after(2_000_000_000)
            .iter()
            .filter_map(|output| match output {
                Output::Observation(observation) => observation.parties().map(|parties| parties.lossy),
                _ => None,
            })
            .collect()
    };
    talk.call(1, "a", "").server(note);
    assert_eq!(lossy(&mut talk), [false, false]);
    talk.hole().server(&format!(r#""id":1,{OK}"#)).server(note);
    assert_eq!(lossy(&mut talk), [true, true]);
}

#[test]
fn an_answer_after_the_client_has_gone() {
    let mut talk = Stdio::greeted("2025-11-25");
    talk.call(1, "slow", "");
    talk.scene.exit(10);
    talk.scene.wait(1_000_000_000);
    talk.server(&format!(r#""id":1,{OK}"#));
    assert_snapshot!(talk.told(), @r"
    exit 10 9
    call tools/call slow id=1 client_gone 499 10→20 stdio server
    malformed answer_after_close from server
    ");
}

#[test]
fn results_without_what_they_must_have() {
    let mut talk = Stdio::greeted("2025-11-25");
    talk.call(1, "a", "")
        .server(r#""id":1,"result":{"structuredContent":{}}"#);
    talk.client(r#""id":2,"method":"prompts/get","params":{"name":"p"}"#);
    talk.server(r#""id":2,"result":{}"#);
    talk.client(r#""id":3,"method":"resources/read","params":{"uri":"file:///x"}"#);
    talk.server(r#""id":3,"result":{"contents":[]}"#);
    let meta = r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    talk.call(4, "b", meta).server(&format!(r#""id":4,{OK}"#));
    talk.call(5, "b", meta)
        .server(r#""id":5,"result":{"resultType":"complete","content":[]}"#);
    talk.call(6, "b", meta)
        .server(r#""id":6,"result":{"resultType":"input_required","requestState":"s"}"#);
    assert_snapshot!(talk.told(), @r"
    malformed missing_content from server
    call tools/call a id=1 malformed 502 10→20 stdio server
    malformed missing_content from server
    call prompts/get p id=2 malformed 502 10→20 stdio server
    call resources/read id=3 ok 200 10→20 stdio server
    malformed missing_result_type from server
    call tools/call b id=4 ok 200 10→20 stdio server
    call tools/call b id=5 ok 200 10→20 stdio server
    call tools/call b id=6 input_required 200 10→20 stdio server wants:state_only
    ");
}

#[test]
fn rules_of_http() {
    let json = "application/json";
    assert_snapshot!(http("", CALL, &response("200 OK", "text/plain", RESULT)), @r"
    malformed wrong_content_type from server
    call tools/call add id=1 ok 200 10→20 streamable_http server
    ");
    assert_snapshot!(http("", CALL, &response("200 OK", "text/html", "<p>hello")), @r"
    malformed wrong_content_type from server
    call tools/call add id=1 malformed 502 10→20 streamable_http server
    ");
    assert_snapshot!(http("", CALL, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{\"js"), @r"
    lost cut_short 4
    malformed short_body from server
    call tools/call add id=1 malformed 502 10→20 streamable_http server
    ");
    assert_snapshot!(http("", NOTE, &response("200 OK", json, "")), @r"
    notification notifications/initialized from client
    malformed not_accepted from server
    ");
    assert_snapshot!(http("", NOTE, &response("404 Not Found", json, "")), @"notification notifications/initialized from client");
    assert_snapshot!(http("", NOTE, &response("202 Accepted", json, RESULT)), @r"
    notification notifications/initialized from client
    malformed answer_to_notification from server
    ");
    assert_snapshot!(http("", CALL, &response("200 OK", json, &RESULT.replace("\"id\":1", "\"id\":7"))), @r"
    malformed unknown_id from server
    call tools/call add id=1 malformed 502 10→20 streamable_http server
    ");
    assert_snapshot!(http("", "{\"jsonrpc\":", &response("200 OK", json, RESULT)), @r"
    malformed bad_json from client
    lost orphan_response 48
    ");
    assert_snapshot!(http("Mcp-Method: tools/call\r\nMcp-Name: sub\r\n", CALL, &response("200 OK", json, RESULT)), @r"
    malformed header_mismatch from client
    call tools/call add id=1 ok 200 10→20 streamable_http server
    ");
}

#[test]
fn a_request_whose_type_is_wrong() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    post(
        &mut scene,
        up,
        "text/plain",
        "MCP-Protocol-Version: 2025-06-18\r\n",
        CALL,
    );
    scene.say(20, down, 10, &response("200 OK", "application/json", RESULT));
    assert_snapshot!(scene.told(), @r"
    malformed wrong_content_type from client
    call tools/call add id=1 ok 200 10→20 streamable_http server
    ");
}

#[test]
fn a_websocket_is_a_gap_and_no_silence() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    let ask = |protocol: &str| {
        format!(
            "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
        )
    };
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    scene.say(10, up, 20, &ask("mcp"));
    scene.say(20, down, 10, switch);
    let (up, down) = scene.socket(3, 4, Source::Tcp);
    scene.say(10, up, 20, &ask("chat"));
    scene.say(20, down, 10, switch);
    assert_snapshot!(scene.told(), @"lost websocket 0");
}

#[test]
fn header_fields_repeat_the_body() {
    fn check(fields: &str, params: &str, mismatch: bool) {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{params},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#
        );
        let told = http(fields, &body, &response("200 OK", "application/json", RESULT));
        assert_eq!(told.contains("header_mismatch"), mismatch, "{fields} {params}: {told}");
    }
    let version = "MCP-Protocol-Version: 2026-07-28\r\n";
    let name = r#""name":"add""#;
    check(
        &format!("{version}Mcp-Method: tools/call\r\nMcp-Name: add\r\n"),
        name,
        false,
    );
    check(
        &format!("{version}Mcp-Method: tools/call\r\nMcp-Name: =?base64?YWRk?=\r\n"),
        name,
        false,
    );
    check(
        &format!("{version}Mcp-Method: tools/list\r\nMcp-Name: add\r\n"),
        name,
        true,
    );
    check(
        &format!("{version}Mcp-Method: tools/call\r\nMcp-Name: mul\r\n"),
        name,
        true,
    );
    check(
        "MCP-Protocol-Version: 2025-11-25\r\nMcp-Method: tools/call\r\n",
        name,
        true,
    );
    check(version, name, true);
}

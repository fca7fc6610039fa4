//! Stdio servers on pipes and socketpairs.

use insta::assert_snapshot;

use super::scene::{Line, MILLI, Scene};
use crate::protocol::event::{Direction, Missing, Source};
use crate::protocol::observation::Vantage;

const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"#,
    r#""clientInfo":{"name":"agent","version":"1"}}}"#,
    "\n"
);
const INITIALIZED: &str = concat!(
    r#"{"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"weather","version":"2"}},"#,
    r#""jsonrpc":"2.0","id":0}"#,
    "\n"
);

fn call(id: &str, tool: &str) -> String {
    format!("{{\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\"}},\"jsonrpc\":\"2.0\",\"id\":{id}}}\n")
}

fn result(id: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}\n")
}

fn two_pipes(scene: &mut Scene) -> (Line, Line) {
    (scene.pipe(1), scene.pipe(2))
}

fn handshake(scene: &mut Scene, (up, down): (Line, Line), client: u32, server: u32) {
    scene.say(client, up, server, INITIALIZE);
    scene.say(server, down, client, INITIALIZED);
}

#[test]
fn a_session_on_two_pipes() {
    let mut scene = Scene::new();
    let (up, down) = two_pipes(&mut scene);
    handshake(&mut scene, (up, down), 10, 20);
    scene.say(
        10,
        up,
        20,
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n",
    );
    scene.say(10, up, 20, &call("1", "add"));
    scene.say(20, down, 10, &result("1"));
    scene.say(10, up, 20, &call("\"1\"", "fail"));
    scene.say(
        20,
        down,
        10,
        "{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":{\"content\":[],\"isError\":true}}\n",
    );
    scene.say(10, up, 20, "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"vendor/x\"}\n");
    scene.say(
        20,
        down,
        10,
        "{\"jsonrpc\":\"2.0\",\"id\":3,\"error\":{\"code\":-32601,\"message\":\"no\"}}\n",
    );
    assert_snapshot!(scene.told(), @r#"
    server weather 2025-11-25
    call initialize id=0 ok 200 10→20 stdio server
    notification notifications/initialized from client
    call tools/call add id=1 ok 200 10→20 stdio server
    call tools/call fail id="1" tool_error 500 10→20 stdio server
    call vendor/x id=3 rpc_error 404 10→20 stdio server
    "#);
}

#[test]
fn a_session_on_two_socketpairs_and_on_one() {
    let mut scene = Scene::new();
    let (up, _) = scene.socket(1, 2, Source::Unix);
    let (_, down) = scene.socket(3, 4, Source::Unix);
    handshake(&mut scene, (up, down), 10, 20);
    let one = scene.socket(5, 6, Source::Unix);
    handshake(&mut scene, one, 11, 21);
    assert_snapshot!(scene.told(), @r"
    server weather 2025-11-25
    call initialize id=0 ok 200 10→20 stdio server
    server weather 2025-11-25
    call initialize id=0 ok 200 11→21 stdio server
    ");
}

#[test]
fn times_of_both_ends() {
    let mut scene = Scene::new();
    let (up, down) = two_pipes(&mut scene);
    let (request, answer) = (call("1", "add"), result("1"));
    let began = scene.now;
    scene.write(10, up, request.as_bytes());
    scene.read(20, up, request.len());
    scene.now += 5 * MILLI;
    scene.write(20, down, answer.as_bytes());
    scene.now += MILLI;
    scene.read(10, down, answer.len());
    let calls = scene.calls();
    let timing = calls[0].timing;
    assert_eq!(calls[0].parties.vantage, Vantage::Server);
    assert_eq!(timing.began.0, began + 80_000);
    assert_eq!(timing.queue, Some(100_000));
    assert_eq!(timing.duration, 5 * MILLI + 100_000);
    assert_eq!(timing.client_duration, Some(6 * MILLI + 300_000));
    assert_eq!(timing.first_byte, Some(5 * MILLI + 80_000));
    assert_eq!(
        (calls[0].request_bytes, calls[0].response_bytes),
        (request.len() as u64 - 1, answer.len() as u64 - 1)
    );
    assert!(calls[0].target_known);
}

#[test]
fn two_hundred_clients_with_equal_ids() {
    let mut scene = Scene::new();
    let sessions: Vec<(Line, Line, u32)> = (0..200_u32)
        .map(|n| (scene.pipe(2 * u64::from(n) + 1), scene.pipe(2 * u64::from(n) + 2), n))
        .collect();
    for &(up, _, n) in &sessions {
        scene.say(1000, up, 2000 + n, &call("0", &format!("tool{n}")));
    }
    for &(_, down, n) in sessions.iter().rev() {
        scene.say(2000 + n, down, 1000, &result("0"));
    }
    let calls = scene.calls();
    assert_eq!(calls.len(), 200);
    for call in calls {
        let server = call.parties.server.pid.unwrap().0;
        assert_eq!(call.target.as_deref(), Some(format!("tool{}", server - 2000).as_str()));
        assert_eq!(call.outcome.name(), "ok");
    }
}

#[test]
fn a_server_already_blocked_in_read() {
    let mut scene = Scene::new();
    let (up, down) = two_pipes(&mut scene);
    scene.hold(20, &[(1, Direction::Received), (2, Direction::Sent)]);
    scene.write(10, up, call("7", "add").as_bytes());
    scene.say(20, down, 10, &result("7"));
    assert_snapshot!(scene.told(), @"call tools/call add id=7 ok 200 10→20 stdio server inferred:serverStart");
}

#[test]
fn only_the_client_in_scope() {
    let mut scene = Scene::new();
    let (up, down) = two_pipes(&mut scene);
    let answer = result("7");
    scene.write(10, up, call("7", "add").as_bytes());
    scene.now += MILLI;
    let read = Scene::now_data(&scene, 10, down, &answer);
    scene.pipeline.handle_event(read);
    assert_snapshot!(scene.told(), @"call tools/call add id=7 ok 200 10→? stdio client");
}

#[test]
fn messages_before_the_evidence_are_not_lost() {
    let mut scene = Scene::new();
    let (up, down) = two_pipes(&mut scene);
    scene.say(10, up, 20, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n");
    scene.say(20, down, 10, &result("1"));
    scene.wait(5_000 * MILLI);
    scene.say(10, up, 20, &call("2", "add"));
    scene.say(20, down, 10, &result("2"));
    assert_snapshot!(scene.told(), @r"
    call ping id=1 ok 200 10→20 stdio server
    call tools/call add id=2 ok 200 10→20 stdio server
    ");
}

#[test]
fn server_requests_cancellations_and_late_answers() {
    let mut scene = Scene::new();
    let (up, down) = two_pipes(&mut scene);
    handshake(&mut scene, (up, down), 10, 20);
    scene.say(
        20,
        down,
        10,
        "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"roots/list\"}\n",
    );
    scene.say(10, up, 20, "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"roots\":[]}}\n");
    scene.say(10, up, 20, &call("1", "slow"));
    scene.say(
        10,
        up,
        20,
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1,\"reason\":\"Request timed out\"}}\n",
    );
    scene.say(20, down, 10, &result("1"));
    scene.say(10, up, 20, &call("2", "slow"));
    scene.say(
        10,
        up,
        20,
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":2}}\n",
    );
    scene.say(20, down, 10, &result("99"));
    assert_snapshot!(scene.told(), @r"
    server weather 2025-11-25
    call initialize id=0 ok 200 10→20 stdio server
    server request roots/list
    call tools/call slow id=1 timeout 504 10→20 stdio server
    notification notifications/cancelled from client
    call tools/call slow id=2 cancelled 499 10→20 stdio server attempt:2
    notification notifications/cancelled from client
    late response
    malformed unknown_id from server
    ");
}

#[test]
fn peers_that_go_away() {
    let mut scene = Scene::new();
    let (up, down) = two_pipes(&mut scene);
    handshake(&mut scene, (up, down), 10, 20);
    scene.say(10, up, 20, &call("1", "crash"));
    scene.exit(20);
    scene.wait(1000 * MILLI);
    let other = scene.socket(5, 6, Source::Unix);
    handshake(&mut scene, other, 11, 21);
    scene.say(11, other.0, 21, &call("1", "long"));
    scene.exit(11);
    assert_snapshot!(scene.told(), @r"
    server weather 2025-11-25
    call initialize id=0 ok 200 10→20 stdio server
    exit 20 9
    call tools/call crash id=1 server_gone 502 10→20 stdio server
    server weather 2025-11-25
    call initialize id=0 ok 200 11→21 stdio server
    exit 11 9
    call tools/call long id=1 client_gone 499 11→21 stdio server
    ");
}

#[test]
fn unanswered_at_the_deadline() {
    let mut scene = Scene::new();
    let (up, down) = two_pipes(&mut scene);
    handshake(&mut scene, (up, down), 10, 20);
    scene.say(10, up, 20, &call("1", "hang"));
    scene.wait(301_000 * MILLI);
    scene.say(20, down, 10, &result("1"));
    assert_snapshot!(scene.told(), @r"
    server weather 2025-11-25
    call initialize id=0 ok 200 10→20 stdio server
    call tools/call hang id=1 unanswered 504 10→20 stdio server
    late response
    ");
}

#[test]
fn negotiation() {
    let mut scene = Scene::new();
    let (up, down) = two_pipes(&mut scene);
    scene.say(
        10,
        up,
        20,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"server/discover\"}\n",
    );
    scene.say(
        20,
        down,
        10,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32601,\"message\":\"?\"}}\n",
    );
    let list = |id: u32, version: &str| {
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/list\",\"params\":{{\"_meta\":{{\"io.modelcontextprotocol/protocolVersion\":\"{version}\"}}}}}}\n"
        )
    };
    scene.say(10, up, 20, &list(2, "2027-01-01"));
    scene.say(
        20,
        down,
        10,
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"error\":{\"code\":-32022,\"message\":\"?\"}}\n",
    );
    scene.say(10, up, 20, &list(3, "2026-07-28"));
    scene.say(
        20,
        down,
        10,
        "{\"jsonrpc\":\"2.0\",\"id\":3,\"error\":{\"code\":-32022,\"message\":\"?\"}}\n",
    );
    assert_snapshot!(scene.told(), @r"
    call server/discover id=1 negotiation 404 10→20 stdio server
    call tools/list id=2 negotiation 400 10→20 stdio server
    call tools/list id=3 rpc_error 400 10→20 stdio server
    ");
}

#[test]
fn a_large_answer_with_its_middle_lost() {
    use observer_common::drops::DropReason;
    let mut scene = Scene::new();
    let (up, down) = two_pipes(&mut scene);
    scene.say(10, up, 20, &call("1", "big"));
    let head = format!("{{\"result\":{{\"content\":[{{\"text\":\"{}", "x".repeat(1000));
    scene.write_span(
        20,
        down,
        head.as_bytes(),
        head.len() + 5000,
        Missing::Lost(DropReason::CallTooLong),
    );
    scene.write(20, down, b"xxx\"}]},\"jsonrpc\":\"2.0\",\"id\":1}\n");
    scene.say(10, up, 20, &call("2", "add"));
    scene.say(20, down, 10, &result("2"));
    assert_snapshot!(scene.told(), @r"
    call tools/call big id=1 ok 200 10→20 stdio server lossy truncated
    call tools/call add id=2 ok 200 10→20 stdio server
    ");
}

#[test]
fn the_other_end_is_told_after_the_first_request() {
    let mut scene = Scene::new();
    scene.open(1, None, Source::Unix);
    let (up, down) = (Line::Socket(1, 2), Line::Socket(2, 1));
    let request = call("1", "add");
    scene.write(10, up, request.as_bytes());
    scene.wait(30 * MILLI);
    scene.open(2, Some(1), Source::Unix);
    scene.read(20, up, request.len());
    scene.say(20, down, 10, &result("1"));
    scene.open(1, Some(2), Source::Unix);
    scene.say(10, up, 20, &call("2", "add"));
    scene.say(20, down, 10, &result("2"));
    assert_snapshot!(scene.told(), @r"
    call tools/call add id=1 ok 200 10→20 stdio server
    call tools/call add id=2 ok 200 10→20 stdio server
    ");
}

#[test]
fn both_halves_saw_bytes_before_they_were_joined() {
    let mut scene = Scene::new();
    scene.open(1, None, Source::Unix);
    scene.open(2, None, Source::Unix);
    let (up, down) = (Line::Socket(1, 2), Line::Socket(2, 1));
    let request = call("1", "add");
    scene.write(10, up, request.as_bytes());
    let read = Scene::now_data(&scene, 20, up, &request);
    scene.pipeline.handle_event(read);
    scene.wait(30 * MILLI);
    scene.open(2, Some(1), Source::Unix);
    scene.say(20, down, 10, &result("1"));
    let told = scene.told();
    assert!(
        told.contains("call tools/call add id=1 unanswered 504 ?→20 stdio hop"),
        "{told}"
    );
    assert!(
        told.contains("call tools/call add id=1 ok 200 10→20 stdio server"),
        "{told}"
    );
}

#[test]
fn streams_whose_opening_was_not_told() {
    let mut scene = Scene::new();
    let (up, down) = (Line::Pipe(1), Line::Pipe(2));
    handshake(&mut scene, (up, down), 10, 20);
    scene.say(10, up, 20, &call("1", "add"));
    scene.say(20, down, 10, &result("1"));
    assert_snapshot!(scene.told(), @r"
    server weather 2025-11-25
    call initialize id=0 ok 200 10→20 stdio server
    call tools/call add id=1 ok 200 10→20 stdio server
    ");
}

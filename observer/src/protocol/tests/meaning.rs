//! What belongs together beyond a request and its answer: rounds, tasks, sessions, retries.

use insta::assert_snapshot;

use super::scene::{MILLI, Scene, Stdio};
use crate::protocol::event::Source;
use crate::protocol::observation::InputKind;

const OK: &str = r#""result":{"content":[]}"#;

#[test]
fn rounds_are_one_operation() {
    let mut talk = Stdio::greeted("2025-11-25");
    let wants = |method: &str| {
        format!(
            r#""result":{{"resultType":"input_required","inputRequests":{{"q":{{"method":"{method}","params":{{}}}}}},"requestState":"s1"}}"#
        )
    };
    talk.call(1, "book", r#","arguments":{"to":"Rome"}"#);
    talk.server(&format!(r#""id":1,{}"#, wants("elicitation/create")));
    talk.call(
        2,
        "book",
        r#","arguments":{"to":"Rome"},"inputResponses":{"q":{}},"requestState":"s1""#,
    );
    talk.server(r#""id":2,"result":{"resultType":"input_required","requestState":"s2"}"#);
    talk.call(3, "book", r#","arguments":{"to":"Rome"},"requestState":"s2""#);
    talk.server(&format!(r#""id":3,{OK}"#));
    // Without a state: method, name and arguments tell.
    talk.call(4, "pay", r#","arguments":{"sum":1}"#);
    talk.server(
        r#""id":4,"result":{"resultType":"input_required","inputRequests":{"a":{"method":"sampling/createMessage"}}}"#,
    );
    talk.call(5, "pay", r#","arguments":{"sum":1},"inputResponses":{"a":{}}"#);
    talk.server(r#""id":5,"result":{"content":[],"isError":true}"#);
    let calls = talk.scene.calls();
    let rounds: Vec<_> = calls
        .iter()
        .map(|call| (call.first_round, call.round, call.wants.map(InputKind::name)))
        .collect();
    let first = calls[0].number;
    assert_eq!(
        rounds,
        [
            (first, 1, Some("elicitation")),
            (first, 2, Some("state_only")),
            (first, 3, None),
            (first + 3, 1, Some("sampling")),
            (first + 3, 2, None),
        ]
    );
}

#[test]
fn retries_within_a_minute_of_a_failure() {
    let mut talk = Stdio::greeted("2025-11-25");
    let arguments = r#","arguments":{"a":1}"#;
    let fails = r#""result":{"content":[{"type":"text","text":"no"}],"isError":true}"#;
    talk.call(1, "f", arguments).server(&format!(r#""id":1,{fails}"#));
    talk.call(2, "f", arguments)
        .server(r#""id":2,"error":{"code":-32603,"message":"x"}"#);
    talk.call(3, "f", r#","arguments":{"a":2}"#)
        .server(&format!(r#""id":3,{OK}"#));
    talk.call(4, "f", arguments).server(&format!(r#""id":4,{OK}"#));
    talk.call(5, "f", arguments).server(&format!(r#""id":5,{fails}"#));
    talk.scene.wait(61_000 * MILLI);
    talk.call(6, "f", arguments).server(&format!(r#""id":6,{OK}"#));
    assert_snapshot!(talk.told(), @r"
    call tools/call f id=1 tool_error 500 10→20 stdio server
    call tools/call f id=2 rpc_error 500 10→20 stdio server attempt:2
    call tools/call f id=3 ok 200 10→20 stdio server
    call tools/call f id=4 ok 200 10→20 stdio server attempt:3
    call tools/call f id=5 tool_error 500 10→20 stdio server
    call tools/call f id=6 ok 200 10→20 stdio server
    ");
}

#[test]
fn more_rounds_and_failures_than_are_remembered() {
    let (bound, more) = (16_384, 10);
    let ask = |talk: &mut Stdio, n: u32, tool: &str, rest: &str| {
        talk.call(n, tool, &format!(r#","arguments":{{"n":{n}}}{rest}"#));
    };
    let mut talk = Stdio::greeted("2025-11-25");
    for n in 0..bound + more {
        ask(&mut talk, n, "round", "");
        talk.server(&format!(
            r#""id":{n},"result":{{"resultType":"input_required","requestState":"{n}"}}"#
        ));
        ask(&mut talk, n, "failure", "");
        talk.server(&format!(r#""id":{n},"error":{{"code":-32603,"message":"x"}}"#));
    }
    talk.told();
    assert_eq!(
        talk.scene.pipeline.census().evictions[2],
        ("questions", 2 * u64::from(more))
    );
    // The oldest are forgotten, the others not.
    for n in [0, more] {
        ask(&mut talk, n, "round", &format!(r#","requestState":"{n}""#));
        talk.server(&format!(r#""id":{n},{OK}"#));
        ask(&mut talk, n, "failure", "");
        talk.server(&format!(r#""id":{n},{OK}"#));
    }
    assert_snapshot!(talk.told(), @r"
    call tools/call round id=0 ok 200 10→20 stdio server
    call tools/call failure id=0 ok 200 10→20 stdio server
    call tools/call round id=10 ok 200 10→20 stdio server round:2
    call tools/call failure id=10 ok 200 10→20 stdio server attempt:2
    ");
}

#[test]
fn refusals_under_load() {
    let mut talk = Stdio::greeted("2025-11-25");
    talk.call(1, "f", "")
        .server(r#""id":1,"result":{"isError":true,"content":[{"type":"text","text":"API said: Too Many Requests"}]}"#);
    talk.call(2, "g", "")
        .server(r#""id":2,"error":{"code":-32029,"message":"slow down"}"#);
    talk.call(3, "h", "")
        .server(r#""id":3,"error":{"code":-32000,"message":"Server is busy"}"#);
    talk.call(4, "i", "")
        .server(r#""id":4,"result":{"content":[{"type":"text","text":"rate limit: 5"}]}"#);
    assert_snapshot!(talk.told(), @r"
    call tools/call f id=1 tool_error 500 10→20 stdio server limited:text:upstream
    call tools/call g id=2 rpc_error 429 10→20 stdio server limited:rpc_code:server
    call tools/call h id=3 rpc_error 500 10→20 stdio server shed:text
    call tools/call i id=4 ok 200 10→20 stdio server
    ");
}

#[test]
fn a_task_of_2025() {
    let mut talk = Stdio::greeted("2025-11-25");
    let task = |id: u32, status: &str| format!(r#""id":{id},"result":{{"taskId":"t1","status":"{status}"}}"#);
    let get = |id: u32| format!(r#""id":{id},"method":"tasks/get","params":{{"taskId":"t1"}}"#);
    talk.call(1, "build", r#","task":{"ttl":60000}"#);
    talk.server(r#""id":1,"result":{"task":{"taskId":"t1","status":"working"}}"#);
    talk.client(&get(2)).server(&task(2, "working"));
    talk.scene.wait(500 * MILLI);
    talk.client(&get(3)).server(&task(3, "completed"));
    talk.client(r#""id":4,"method":"tasks/result","params":{"taskId":"t1"}"#);
    talk.server(r#""id":4,"result":{"content":[],"isError":true}"#);
    assert_snapshot!(talk.told(), @r"
    call tools/call build id=1 task_accepted 200 10→20 stdio server
    call tasks/get id=2 ok 200 10→20 stdio server
    call tasks/get id=3 ok 200 10→20 stdio server
    task tools/call build tool_error after 501 ms
    call tasks/result id=4 tool_error 500 10→20 stdio server
    ");
}

#[test]
fn a_task_whose_result_is_not_fetched_and_one_that_is_cancelled() {
    let mut talk = Stdio::greeted("2025-11-25");
    for (id, name) in [(1, "a"), (2, "b"), (3, "c")] {
        talk.call(id, name, r#","task":{}"#);
        talk.server(&format!(
            r#""id":{id},"result":{{"task":{{"taskId":"{name}","status":"working"}}}}"#
        ));
    }
    talk.server(r#""method":"notifications/tasks/status","params":{"taskId":"a","status":"completed"}"#);
    talk.client(r#""id":4,"method":"tasks/cancel","params":{"taskId":"b"}"#);
    talk.server(r#""id":4,"result":{"taskId":"b","status":"cancelled"}"#);
    talk.server(r#""method":"notifications/tasks/status","params":{"taskId":"c","status":"failed"}"#);
    talk.scene.wait(11_000 * MILLI);
    let told = talk.told();
    let tasks: Vec<&str> = told.lines().filter(|line| line.starts_with("task")).collect();
    assert_eq!(
        tasks,
        [
            "task tools/call b cancelled after 1 ms",
            "task tools/call c failed after 1 ms",
            "task tools/call a completed after 1 ms"
        ]
    );
}

#[test]
fn a_task_of_2026_across_connections() {
    let mut scene = Scene::new();
    let mut exchange = |port: u64, body: &str, answer: &str| {
        let (up, down) = scene.socket(port, 2, Source::Tcp);
        let request = format!(
            "POST /mcp HTTP/1.1\r\nHost: h\r\nMcp-Method: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        scene.say(10, up, 20, &request.replace("Mcp-Method: x", "X: y"));
        let length = answer.len();
        scene.say(
            20,
            down,
            10,
            &format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{answer}"),
        );
        scene.close(10, port);
        scene.close(20, 2);
        scene.told()
    };
    let mut told = exchange(
        101,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"build"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"task","taskId":"t","status":"working","ttlMs":1}}"#,
    );
    told += "\n";
    told += &exchange(
        103,
        r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"t","_meta":{"io.modelcontextprotocol/x":1}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","taskId":"t","status":"completed","result":{"content":[]}}}"#,
    );
    assert_snapshot!(told, @r"
    call tools/call build id=1 task_accepted 200 10→20 streamable_http server
    task tools/call build completed after 2000 ms
    call tasks/get id=1 ok 200 10→20 streamable_http server
    ");
}

#[test]
fn a_session_that_is_deleted_one_that_expires_and_one_that_falls_silent() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    let mut say = |request: &str, response: &str| {
        scene.say(10, up, 20, request);
        scene.say(20, down, 10, response);
    };
    let post = |session: &str, body: &str| {
        format!(
            "POST /mcp HTTP/1.1\r\nHost: h\r\n{session}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
    let welcome = |id: &str| {
        let body = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}"#;
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: {id}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let ping = r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#;
    say(&post("", initialize), &welcome("a"));
    say(
        "DELETE /mcp HTTP/1.1\r\nHost: h\r\nMcp-Session-Id: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    );
    say(&post("", initialize), &welcome("b"));
    say(&post("Mcp-Session-Id: b\r\n", ping), gone);
    say(&post("Mcp-Session-Id: b\r\n", ping), gone);
    say(&post("", initialize), &welcome("c"));
    // One that began before the observer.
    say(&post("Mcp-Session-Id: d\r\n", ping), gone);
    scene.wait(31 * 60 * 1000 * MILLI);
    scene.wait(61 * 1000 * MILLI);
    let told = scene.told();
    let sessions: Vec<&str> = told.lines().filter(|line| line.starts_with("session")).collect();
    assert_eq!(
        sessions,
        [
            "session began",
            "session deleted after 0 ms",
            "session began",
            "session expired after 0 ms",
            "session began",
            "session began",
            "session expired after ? ms",
            "session idle after 0 ms"
        ]
    );
}

#[test]
fn a_reply_on_a_later_get() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    let session = "Mcp-Session-Id: a\r\n";
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}}"#;
    let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let request = format!(
        "POST /mcp HTTP/1.1\r\nHost: h\r\n{session}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    scene.say(10, up, 20, &request);
    // The server ends its stream after the event that primes resuming: no failure.
    scene.say(20, down, 10, &format!("{events}f\r\nid: 1\nretry: 5\n\n\r\n0\r\n\r\n"));
    scene.wait(1000 * MILLI);
    let (get, later) = scene.socket(3, 4, Source::Tcp);
    let resume =
        format!("GET /mcp HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n{session}Last-Event-ID: 1\r\n\r\n");
    scene.say(10, get, 20, &resume);
    let event = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[]}}\n\n";
    scene.say(20, later, 10, &format!("{events}{:x}\r\n{event}\r\n", event.len()));
    assert_snapshot!(scene.told(), @r"
    session began
    call tools/call slow id=1 ok 200 10→20 streamable_http server
    ");
}

#[test]
fn what_servers_ask_and_tell_is_no_call() {
    let mut talk = Stdio::greeted("2025-11-25");
    for (id, method) in ["roots/list", "sampling/createMessage", "elicitation/create", "ping"]
        .iter()
        .enumerate()
    {
        talk.server(&format!(r#""id":{id},"method":"{method}""#));
        talk.client(&format!(r#""id":{id},"result":{{}}"#));
    }
    for method in [
        "message",
        "resources/updated",
        "tools/list_changed",
        "elicitation/complete",
    ] {
        talk.server(&format!(r#""method":"notifications/{method}""#));
    }
    talk.client(r#""method":"notifications/roots/list_changed""#);
    assert_snapshot!(talk.told(), @r"
    server request roots/list
    server request sampling/createMessage
    server request elicitation/create
    server request ping
    notification notifications/message from server
    notification notifications/resources/updated from server
    notification notifications/tools/list_changed from server
    notification notifications/elicitation/complete from server
    notification notifications/roots/list_changed from client
    ");
}

#[test]
fn every_request_of_a_client() {
    let mut talk = Stdio::greeted("2025-11-25");
    let methods = [
        "ping",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "completion/complete",
        "resources/subscribe",
        "resources/unsubscribe",
        "logging/setLevel",
        "tasks/list",
        "server/discover",
        "vendor/thing",
    ];
    for (id, method) in methods.iter().enumerate() {
        talk.client(&format!(r#""id":{id},"method":"{method}""#));
        talk.server(&format!(r#""id":{id},"result":{{}}"#));
    }
    let told = talk.told();
    let expected: Vec<String> = methods
        .iter()
        .enumerate()
        .map(|(id, method)| format!("call {method} id={id} ok 200 10→20 stdio server"))
        .collect();
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_subscription_is_never_a_slow_call_and_progress_is_timed() {
    let mut talk = Stdio::greeted("2025-11-25");
    talk.client(r#""id":1,"method":"subscriptions/listen""#);
    talk.call(2, "long", r#","_meta":{"progressToken":"p"}"#);
    talk.scene.wait(20 * MILLI);
    talk.server(r#""method":"notifications/progress","params":{"progressToken":"p","progress":1}"#);
    talk.client(r#""id":3,"method":"tasks/result","params":{"taskId":"x"}"#);
    talk.scene.wait(400_000 * MILLI);
    talk.client(r#""method":"notifications/cancelled","params":{"requestId":1}"#);
    let told = talk.told();
    assert_snapshot!(told, @r"
    subscription 1
    notification notifications/progress from server
    call tools/call long id=2 unanswered 504 10→20 stdio server
    subscription -1
    notification notifications/cancelled from client
    ");
}

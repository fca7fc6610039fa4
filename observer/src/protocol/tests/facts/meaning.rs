//! A call: its answer, its rounds, tasks, cancellation, progress; error codes and statuses.

use super::{Case, check, play_lines, play_web, stdio, web};
use crate::protocol::event::Source;
use crate::protocol::observation::Call;

const CALL: &str = r#"> "id":1,"method":"tools/call","params":{"name":"a"}"#;

/// A call and what follows it.
fn call(after: &str) -> String {
    stdio(&format!("{CALL}\n{after}"))
}

#[test]
fn results() {
    let cases: Vec<Case> = vec![
        (
            "Exactly one of result or error: a result",
            call(r#"< "id":1,"result":{"content":[]}"#),
            "call tools/call a id=1 ok 200 stdio",
        ),
        (
            "Exactly one of result or error: an error",
            call(r#"< "id":1,"error":{"code":-32603,"message":"x","data":{}}"#),
            "call tools/call a id=1 rpc_error 500 stdio",
        ),
        (
            "Exactly one of result or error: both",
            call(r#"< "id":1,"result":{},"error":{"code":1}"#),
            "malformed result_and_error from server; call tools/call a id=1 malformed 502 stdio",
        ),
        (
            "Exactly one of result or error: neither",
            call(r#"< "id":1"#),
            "malformed result_and_error from server; call tools/call a id=1 malformed 502 stdio",
        ),
        (
            "an error may lack id where the request could not be read",
            web(&format!(
                "> POST /mcp [] {}\n< 400 [] \"error\":{{\"code\":-32700}}",
                &CALL[2..]
            )),
            "call tools/call a id=1 rpc_error 400",
        ),
        (
            "resultType complete",
            call(r#"< "id":1,"result":{"resultType":"complete","content":[]}"#),
            "call tools/call a id=1 ok 200 stdio",
        ),
        (
            "resultType input_required",
            call(r#"< "id":1,"result":{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list"}}}"#),
            "call tools/call a id=1 input_required 200 stdio wants:roots",
        ),
        (
            "resultType input_required with only a requestState is a kind of its own",
            call(r#"< "id":1,"result":{"resultType":"input_required","requestState":"s"}"#),
            "call tools/call a id=1 input_required 200 stdio wants:state_only",
        ),
        (
            "resultType task",
            call(r#"< "id":1,"result":{"resultType":"task","taskId":"t","status":"working"}"#),
            "call tools/call a id=1 task_accepted 200 stdio",
        ),
        (
            "resultType absent: task if result.task.taskId exists",
            call(r#"< "id":1,"result":{"task":{"taskId":"t","status":"working"}}"#),
            "call tools/call a id=1 task_accepted 200 stdio",
        ),
        (
            "resultType absent: else complete",
            call(r#"< "id":1,"result":{"content":[]}"#),
            "call tools/call a id=1 ok 200 stdio",
        ),
        (
            "Tool failure is isError: true in a successful result on HTTP 200",
            web(&format!(
                "> POST /mcp [] {}\n< 200 [] \"id\":1,\"result\":{{\"content\":[],\"isError\":true}}",
                &CALL[2..]
            )),
            "call tools/call a id=1 tool_error 500",
        ),
        (
            "The same failure (unknown tool) is -32602 in one SDK",
            call(r#"< "id":1,"error":{"code":-32602,"message":"Unknown tool"}"#),
            "call tools/call a id=1 rpc_error 400 stdio",
        ),
        (
            "and isError with text in another",
            call(r#"< "id":1,"result":{"isError":true,"content":[{"type":"text","text":"Unknown tool"}]}"#),
            "call tools/call a id=1 tool_error 500 stdio",
        ),
    ];
    check(&cases);
}

#[test]
fn rounds_and_tasks() {
    let wants = |state: &str| {
        format!(
            r#"< "id":1,"result":{{"resultType":"input_required",{state}"inputRequests":{{"a":{{"method":"roots/list"}}}}}}"#
        )
    };
    let again = |more: &str| {
        format!(
            "> \"id\":2,\"method\":\"tools/call\",\"params\":{{\"name\":\"a\"{more}}}\n< \"id\":2,\"result\":{{\"content\":[]}}"
        )
    };
    let first = "call tools/call a id=1 input_required 200 stdio wants:roots; call tools/call a id=2 ok 200 stdio";
    let task = r#"< "id":1,"result":{"task":{"taskId":"t","status":"working"}}"#;
    let get = |status: &str| {
        format!(
            "> \"id\":2,\"method\":\"tasks/get\",\"params\":{{\"taskId\":\"t\"}}\n< \"id\":2,\"result\":{{\"taskId\":\"t\",\"status\":\"{status}\"}}\n_ 11000"
        )
    };
    let over = |status: &str| {
        let told = call(&format!("{task}\n{}", get(status)));
        let end = told
            .split("; ")
            .find(|line| line.starts_with("task "))
            .unwrap_or_default();
        end.to_owned()
    };
    let cases: Vec<Case> = vec![
        (
            "link the rounds: requestState",
            call(&format!(
                "{}\n{}",
                wants("\"requestState\":\"s\","),
                again(",\"requestState\":\"s\"")
            )),
            "call tools/call a id=1 input_required 200 stdio wants:roots; call tools/call a id=2 ok 200 stdio round:2",
        ),
        (
            "link the rounds: else method, name and arguments",
            call(&format!("{}\n{}", wants(""), again(",\"inputResponses\":{\"a\":{}}"))),
            "call tools/call a id=1 input_required 200 stdio wants:roots; call tools/call a id=2 ok 200 stdio round:2",
        ),
        (
            "link the rounds: what answers nothing is a call of its own",
            call(&format!("{}\n{}", wants(""), again(""))),
            first,
        ),
        (
            "Tasks: tasks/get until completed",
            over("completed"),
            "task tools/call a completed after 0 ms",
        ),
        (
            "Tasks: tasks/get until failed",
            over("failed"),
            "task tools/call a failed after 0 ms",
        ),
        (
            "Tasks: tasks/get until cancelled",
            over("cancelled"),
            "task tools/call a cancelled after 0 ms",
        ),
        (
            "Tasks: tasks/result",
            call(&format!(
                "{task}\n> \"id\":2,\"method\":\"tasks/result\",\"params\":{{\"taskId\":\"t\"}}\n_ 400000\n< \"id\":2,\"result\":{{\"content\":[]}}"
            )),
            "call tools/call a id=1 task_accepted 200 stdio; task tools/call a completed after 400000 ms; call tasks/result id=2 ok 200 stdio",
        ),
    ];
    check(&cases);
}

#[test]
fn cancellation_and_progress() {
    let cancel = |reason: &str| format!(r#"> "method":"notifications/cancelled","params":{{"requestId":1{reason}}}"#);
    let late = r#"< "id":1,"result":{"content":[]}"#;
    let cases: Vec<Case> = vec![
        (
            "Cancellation: notifications/cancelled",
            call(&cancel("")),
            "call tools/call a id=1 cancelled 499 stdio; notification notifications/cancelled from client",
        ),
        (
            "Cancellation: time-outs show in the reason",
            call(&cancel(r#","reason":"McpError: MCP error -32001: Request timed out""#)),
            "call tools/call a id=1 timeout 504 stdio; notification notifications/cancelled from client",
        ),
        (
            "Late replies are legal",
            call(&format!("{}\n{late}", cancel(""))),
            "call tools/call a id=1 cancelled 499 stdio; notification notifications/cancelled from client; late response",
        ),
        (
            "A server may cancel a subscription",
            stdio(
                "> \"id\":1,\"method\":\"subscriptions/listen\"\n< \"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}",
            ),
            "subscription 1; subscription -1; notification notifications/cancelled from server",
        ),
        (
            "Before 2026-07-28 a server may close the SSE answer and the client resume it: no failure",
            web(&format!(
                "> POST /mcp [Mcp-Session-Id: s] {}\n< 200 [] ~id: 1\\ndata:\\n\\n\nX\n> 2 GET /mcp [Accept: text/event-stream; Mcp-Session-Id: s; Last-Event-ID: 1]\n< 2 200 [] ~data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"content\":[]}}}}\\n\\n",
                &CALL[2..]
            )),
            "session began; call tools/call a id=1 ok 200",
        ),
        (
            "Progress: progressToken → notifications/progress",
            stdio(
                "> \"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\",\"_meta\":{\"progressToken\":5}}\n< \"method\":\"notifications/progress\",\"params\":{\"progressToken\":5,\"progress\":1,\"total\":2}\n< \"id\":1,\"result\":{\"content\":[]}",
            ),
            "notification notifications/progress from server; call tools/call a id=1 ok 200 stdio",
        ),
        (
            "outputSchema in tools/list: structuredContent can be checked from outside",
            stdio(
                "> \"id\":1,\"method\":\"tools/list\"\n< \"id\":1,\"result\":{\"tools\":[{\"name\":\"a\",\"outputSchema\":{\"required\":[\"n\"]}}]}\n> \"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"a\"}\n< \"id\":2,\"result\":{\"content\":[],\"structuredContent\":{}}",
            ),
            "catalog tools 1; call tools/list id=1 ok 200 stdio; malformed schema_violation from server; call tools/call a id=2 ok 200 stdio",
        ),
    ];
    check(&cases);
}

#[test]
fn error_codes() {
    for (name, code, status) in [
        ("parse", -32700, 400),
        ("request", -32600, 400),
        ("method", -32601, 404),
        ("params", -32602, 400),
        ("internal", -32603, 500),
        ("resource not found (≤ 2025-11-25)", -32002, 404),
        ("URL elicitation (2025-11-25)", -32042, 200),
        ("user rejected", -1, 500),
        ("header mismatch", -32020, 400),
        ("client capability", -32021, 400),
        ("protocol version", -32022, 400),
        ("vendor, first", -32000, 500),
        ("vendor, last", -32019, 500),
        ("SDKs: connection closed, bad session", -32000, 500),
        ("SDKs: time-out", -32001, 500),
    ] {
        let told = call(&format!("< \"id\":1,\"error\":{{\"code\":{code},\"message\":\"x\"}}"));
        assert_eq!(
            told,
            format!("call tools/call a id=1 rpc_error {status} stdio"),
            "{code} {name}"
        );
    }
}

#[test]
fn statuses_of_http() {
    let post = format!("> POST /mcp [] {}", &CALL[2..]);
    for (status, fields, expected) in [
        ("400", "", "http_error 400"),
        ("401", "", "http_error 401"),
        ("401", "WWW-Authenticate: Bearer", "auth_challenge 401"),
        ("403", "", "http_error 403"),
        ("404", "", "http_error 404"),
        ("405", "", "http_error 405"),
        ("429", "", "http_error 429"),
        ("429", "Retry-After: 5", "http_error 429"),
        ("503", "", "http_error 503"),
        ("500", "", "http_error 500"),
        ("502", "", "http_error 502"),
    ] {
        let told = web(&format!("{post}\n< {status} [{fields}]"));
        let told = told.split(" limited").next().unwrap_or_default();
        assert_eq!(told, format!("call tools/call a id=1 {expected}"), "{status} {fields}");
    }
}

#[test]
fn probes_and_load() {
    let probe = r#"> "id":1,"method":"server/discover""#;
    let limited = "call tools/call a id=1 ";
    let with = |rest: &str| format!("{limited}{rest}");
    let post = format!("> POST /mcp [] {}", &CALL[2..]);
    let told = [
        stdio(&format!(
            "{probe}\n< \"id\":1,\"error\":{{\"code\":-32601}}\n> \"id\":2,\"method\":\"initialize\",\"params\":{{\"protocolVersion\":\"2025-11-25\"}}\n< \"id\":2,\"result\":{{\"protocolVersion\":\"2025-11-25\"}}"
        )),
        web(&format!("{post}\n< 429 [Retry-After: 1]")),
        call("< \"id\":1,\"error\":{\"code\":-32029}"),
        call(
            "< \"id\":1,\"result\":{\"isError\":true,\"content\":[{\"type\":\"text\",\"text\":\"rate limit exceeded\"}]}",
        ),
        web(&format!(
            "{post}\n< 404 [] \"id\":1,\"error\":{{\"code\":-32001,\"message\":\"Session not found\"}}"
        )),
    ];
    for ((words, told), expected) in [
        "A client that may speak both eras probes: refusals of probes are no failures",
        "Rate limits appear as 429 + Retry-After",
        "as a vendor code",
        "or as text inside a 200 isError",
        "session not found with HTTP 404",
    ]
    .iter()
    .zip(told)
    .zip([
        "call server/discover id=1 negotiation 404 stdio; server - 2025-11-25; call initialize id=2 ok 200 stdio"
            .to_owned(),
        with("http_error 429 limited:http_status:server"),
        with("rpc_error 429 stdio limited:rpc_code:server"),
        with("tool_error 500 stdio limited:text:upstream"),
        with("rpc_error 404"),
    ]) {
        assert_eq!(told, expected, "{words}");
    }
}

/// The call of a script of HTTP that sends these fields and parameters.
fn posted(fields: &str, params: &str) -> Call {
    let ask =
        format!("> POST /mcp [{fields}] \"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"a\"{params}}}");
    let mut scene = play_web(&format!("{ask}\n< 200 [] \"id\":1,\"result\":{{\"content\":[]}}"));
    scene.calls().remove(0)
}

#[test]
fn what_a_request_says_of_its_client() {
    let client = |call: &Call| {
        call.parties
            .client
            .implementation
            .as_ref()
            .map(|client| client.name.clone())
    };
    let info = r#","_meta":{"io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}}"#;
    assert_eq!(client(&posted("", "")), None, "client name: not told");
    assert_eq!(
        client(&posted("User-Agent: agent/1.0 x", "")).as_deref(),
        Some("agent"),
        "client name: User-Agent"
    );
    assert_eq!(
        client(&posted("User-Agent: agent/1.0", info)).as_deref(),
        Some("c"),
        "client name: clientInfo in _meta goes first"
    );
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let meta = format!(r#","_meta":{{"traceparent":"{trace}"}}"#);
    for (words, call) in [
        ("params._meta.traceparent (W3C)", posted("", &meta)),
        (
            "traceparent of the HTTP request",
            posted(&format!("traceparent: {trace}"), ""),
        ),
    ] {
        assert_eq!(call.traceparent.as_deref(), Some(trace), "{words}");
    }
    let private = posted(
        "Mcp-Param-City: Secretville; Authorization: Bearer Secretville",
        r#","arguments":{"city":"Secretville"}"#,
    );
    assert!(
        !format!("{private:?}").contains("Secretville"),
        "Mcp-Param-* are a privacy surface"
    );
}

#[test]
fn the_time_to_the_first_progress() {
    let note = r#"< "method":"notifications/progress","params":{"progressToken":"p","progress":1}"#;
    let script = format!(
        "> \"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"a\",\"_meta\":{{\"progressToken\":\"p\"}}}}\n\
         _ 50\n{note}\n_ 500\n{note}\n< \"id\":1,\"result\":{{\"content\":[]}}"
    );
    let call = play_lines(Source::Pipe, &script).calls().remove(0);
    let first = call.timing.first_progress.map(|time| time / 10_000_000);
    assert!(first.is_some_and(|time| (4..10).contains(&time)), "{:?}", call.timing);
}

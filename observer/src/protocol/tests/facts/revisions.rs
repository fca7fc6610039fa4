//! The revisions of the protocol, from 2024-11-05 to 2026-07-28, on either transport.

use super::{Case, check, lines, stdio, web};
use crate::protocol::event::Source;

#[test]
fn lines_of_every_revision() {
    let call = r#"
        > "id":1,"method":"tools/call","params":{"name":"a"}
        < "id":1,"result":{"content":[]}
    "#;
    let ok = "call tools/call a id=1 ok 200 stdio";
    let cases: Vec<Case> = vec![
        ("2024-11-05 stdio: one JSON per line, UTF-8", stdio(call), ok),
        (
            "2024-11-05 stdio: what is no UTF-8 breaks the rule",
            stdio(&format!("{call}\n< \"id\":2,\"result\":{{\"a\":\"ÿ\"}}")),
            "call tools/call a id=1 ok 200 stdio; malformed bad_utf8 from server",
        ),
        (
            "2025-03-26 stdio: + batches (array on a line)",
            stdio(
                r#"
                > [{"jsonrpc":"2.0","id":1,"method":"tools/list"},{"jsonrpc":"2.0","id":2,"method":"ping"}]
                < [{"jsonrpc":"2.0","id":2,"result":{}},{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}]
                "#,
            ),
            "catalog tools 0; call ping id=2 ok 200 stdio; call tools/list id=1 ok 200 stdio",
        ),
        (
            "2025-06-18 stdio: no batches, and whoever sends one is understood all the same",
            stdio(
                r#"
                > "id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}
                < "id":0,"result":{"protocolVersion":"2025-06-18"}
                > [{"jsonrpc":"2.0","id":1,"method":"ping"}]
                < "id":1,"result":{}
                "#,
            ),
            "server - 2025-06-18; call initialize id=0 ok 200 stdio; call ping id=1 ok 200 stdio",
        ),
        (
            "2025-11-25 stdio: stderr is free text, and on a stream of its own it says nothing of MCP",
            stdio("< starting up\n< \n< level=info listening"),
            "",
        ),
        (
            "2026-07-28 stdio: server writes no requests; one that does is counted apart",
            stdio(&format!(
                "{call}\n< \"id\":9,\"method\":\"sampling/createMessage\",\"params\":{{\"_meta\":{{}}}}"
            )),
            "call tools/call a id=1 ok 200 stdio; server request sampling/createMessage",
        ),
        (
            "2026-07-28 stdio: same framing on unix sockets",
            lines(Source::Unix, call),
            ok,
        ),
        ("2026-07-28 stdio: same framing on TCP", lines(Source::Tcp, call), ok),
    ];
    check(&cases);
}

#[test]
fn http_of_every_revision() {
    let sse = r#"
        > POST /m?sessionId=7 [] "id":1,"method":"tools/call","params":{"name":"a"}
        < 202 [] Accepted
    "#;
    let open = "> 2 GET /sse [Accept: text/event-stream]\n< 2 200 [] ~event: endpoint\\ndata: /m?sessionId=7\\n\\n";
    let reply = r#"~ 2 event: message\ndata: {"jsonrpc":"2.0","id":1,"result":{"content":[]}}\n\n"#;
    let post = r#"> POST /mcp [MCP-Protocol-Version: 2025-11-25] "id":1,"method":"tools/call","params":{"name":"a"}"#;
    let json = r#"< 200 [] "id":1,"result":{"content":[]}"#;
    let event = r#"~ data: {"jsonrpc":"2.0","id":1,"result":{"content":[]}}\n\n"#;
    let ok = "call tools/call a id=1 ok 200";
    let cases: Vec<Case> = vec![
        (
            "2024-11-05 HTTP: first event endpoint names the URI, every reply comes on the GET stream",
            web(&format!("{open}\n{sse}\n{reply}")),
            "session began; call tools/call a id=1 ok 200 http_sse",
        ),
        (
            "2026-07-28 over HTTP+SSE, which it knows nothing of: the fields of its own transport are not asked for",
            web(&format!(
                "{open}\n{}\n{}",
                sse.replace(
                    r#""name":"a""#,
                    r#""name":"a","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#
                ),
                reply.replace("{\"content\"", "{\"resultType\":\"complete\",\"content\"")
            )),
            "session began; call tools/call a id=1 ok 200 http_sse",
        ),
        (
            "2025-03-26 HTTP: one endpoint, POST and GET; reply is JSON",
            web(&format!("{post}\n{json}")),
            ok,
        ),
        (
            "2025-03-26 HTTP: or an SSE stream",
            web(&format!("{post}\n< 200 [] ~: hello\\n\\n\n{event}\n.")),
            ok,
        ),
        (
            "2025-06-18 HTTP: same",
            web(&format!("{post}\n{json}").replace("2025-11-25", "2025-06-18")),
            ok,
        ),
        (
            "2025-11-25 HTTP: SSE polling (retry:, first event with empty data)",
            web(&format!(
                "{post}\n< 200 [] ~id: 1\\nretry: 500\\ndata:\\n\\n\n{event}\n."
            )),
            ok,
        ),
        (
            "2026-07-28 HTTP: POST only, GET and DELETE give 405",
            web(&format!(
                "{post}\n{json}\n> GET /mcp [Accept: text/event-stream; Mcp-Session-Id: s]\n< 405 []\n> DELETE /mcp [Mcp-Session-Id: s]\n< 405 []"
            )),
            ok,
        ),
    ];
    check(&cases);
}

#[test]
fn sessions_of_every_revision() {
    let hello = r#"> POST /mcp [] "id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}"#;
    let welcome = r#"< 200 [Mcp-Session-Id: s] "id":0,"result":{"protocolVersion":"2025-06-18"}"#;
    let greeted = "session began; server - 2025-06-18; call initialize id=0 ok 200";
    let ping = r#"> POST /mcp [Mcp-Session-Id: s] "id":5,"method":"ping""#;
    let pong = r#"< 200 [] "id":5,"result":{}"#;
    let greeted_and = |rest: &str| format!("{hello}\n{welcome}\n{rest}");
    let told = |script: &str| web(script).replacen(greeted, "", 1);
    let cases: Vec<Case> = vec![
        (
            "2024-11-05 session: id in the endpoint URI",
            web("> GET /sse [Accept: text/event-stream]\n< 200 [] ~event: endpoint\\ndata: /m?session_id=7\\n\\n\n.\n"),
            "session began; session closed after 0 ms",
        ),
        (
            "2025-03-26 session: Mcp-Session-Id response header of initialize, echoed",
            told(&greeted_and(&format!("{ping}\n{pong}"))),
            "; call ping id=5 ok 200",
        ),
        (
            "2025-06-18 session: DELETE ends it",
            told(&greeted_and("> DELETE /mcp [Mcp-Session-Id: s]\n< 200 []")),
            "; session deleted after 0 ms",
        ),
        (
            "2025-11-25 session: optional",
            web(&format!("{hello}\n{}", welcome.replace("Mcp-Session-Id: s", ""))),
            "server - 2025-06-18; call initialize id=0 ok 200",
        ),
        (
            "2025-11-25 session: 404 says that it is gone",
            told(&greeted_and(&format!("{ping}\n< 404 [] \"error\":{{\"code\":-32001}}"))),
            "; session expired after 0 ms; call ping id=5 rpc_error 404",
        ),
        (
            "2026-07-28 session: none; servers ignore the header",
            web(r#"
                > POST /mcp [MCP-Protocol-Version: 2026-07-28; Mcp-Method: tools/list] "id":1,"method":"tools/list"
                < 200 [] "id":1,"result":{"resultType":"complete","tools":[]}
            "#),
            "catalog tools 0; call tools/list id=1 ok 200",
        ),
    ];
    check(&cases);
}

#[test]
fn resuming_and_handshakes() {
    let slow = r#"> POST /mcp [Mcp-Session-Id: s] "id":1,"method":"tools/call","params":{"name":"a"}"#;
    let cases: Vec<Case> = vec![
        (
            "2025-03-26 to 2025-11-25 resuming: GET + Last-Event-ID; a reply may come on a later GET",
            web(&format!(
                "{slow}\n< 200 [] ~id: 1\\ndata:\\n\\n\n.\n> 2 GET /mcp [Accept: text/event-stream; Mcp-Session-Id: s; Last-Event-ID: 1]\n\
                 < 2 200 [] ~data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"content\":[]}}}}\\n\\n"
            )),
            "session began; call tools/call a id=1 ok 200",
        ),
        (
            "2026-07-28 resuming: none: a new request with a new id",
            web(r#"
                > POST /mcp [MCP-Protocol-Version: 2026-07-28; Mcp-Method: tools/call; Mcp-Name: a] "id":1,"method":"tools/call","params":{"name":"a"}
                < 200 [] ~: open\n\n
                x
                > 2 POST /mcp [MCP-Protocol-Version: 2026-07-28; Mcp-Method: tools/call; Mcp-Name: a] "id":2,"method":"tools/call","params":{"name":"a"}
                < 2 200 [] "id":2,"result":{"resultType":"complete","content":[]}
            "#),
            "call tools/call a id=2 ok 200; call tools/call a id=1 cancelled 499",
        ),
        (
            "2024-11-05 to 2025-11-25 handshake: initialize, notifications/initialized",
            stdio(
                r#"
                > "id":0,"method":"initialize","params":{"protocolVersion":"2024-11-05","clientInfo":{"name":"c","version":"1"}}
                < "id":0,"result":{"protocolVersion":"2024-11-05","serverInfo":{"name":"s","version":"1"}}
                > "method":"notifications/initialized"
                "#,
            ),
            "server s 2024-11-05; call initialize id=0 ok 200 stdio; notification notifications/initialized from client",
        ),
        (
            "2026-07-28 handshake: none; server/discover may be asked",
            stdio(
                r#"
                > "id":0,"method":"server/discover"
                < "id":0,"result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}}
                "#,
            ),
            "server s -; call server/discover id=0 ok 200 stdio",
        ),
    ];
    check(&cases);
}

#[test]
fn who_asks_and_by_which_ids() {
    let cases: Vec<Case> = vec![
        (
            "2024-11-05 to 2025-11-25 server asks client: roots/list, sampling/createMessage, ping, elicitation/create",
            stdio(
                r#"
                > "id":1,"method":"tools/list"
                < "id":1,"method":"roots/list"
                > "id":1,"result":{"roots":[]}
                < "id":2,"method":"sampling/createMessage"
                < "id":3,"method":"ping"
                < "id":4,"method":"elicitation/create"
                < "id":1,"result":{"tools":[]}
                "#,
            ),
            "server request roots/list; server request sampling/createMessage; server request ping; \
             server request elicitation/create; catalog tools 0; call tools/list id=1 ok 200 stdio",
        ),
        (
            "2026-07-28 server asks client: never: input_required and the client repeats the call",
            stdio(
                r#"
                > "id":1,"method":"tools/call","params":{"name":"a"}
                < "id":1,"result":{"resultType":"input_required","inputRequests":{"q":{"method":"elicitation/create"}}}
                > "id":2,"method":"tools/call","params":{"name":"a","inputResponses":{"q":{}}}
                < "id":2,"result":{"resultType":"complete","content":[]}
                "#,
            ),
            "call tools/call a id=1 input_required 200 stdio wants:elicitation; call tools/call a id=2 ok 200 stdio round:2",
        ),
        (
            "2024-11-05 to 2025-11-25 ids: string or integer, unique in the session",
            stdio(
                r#"
                > "id":1,"method":"tools/list"
                > "id":"1","method":"prompts/list"
                < "id":"1","result":{"prompts":[]}
                < "id":1,"result":{"tools":[]}
                "#,
            ),
            "catalog prompts 0; call prompts/list id=\"1\" ok 200 stdio; catalog tools 0; call tools/list id=1 ok 200 stdio",
        ),
        (
            "2026-07-28 ids: unique among those in flight",
            stdio(
                r#"
                > "id":1,"method":"resources/read","params":{"uri":"a:b"}
                < "id":1,"result":{"contents":[]}
                > "id":1,"method":"resources/read","params":{"uri":"a:c"}
                < "id":1,"result":{"contents":[]}
                "#,
            ),
            "call resources/read id=1 ok 200 stdio; call resources/read id=1 ok 200 stdio",
        ),
    ];
    check(&cases);
}

#[test]
fn the_stateless_revision() {
    let post = |fields: &str, members: &str| {
        format!("> POST /mcp [MCP-Protocol-Version: 2026-07-28; {fields}] \"id\":1,{members}")
    };
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    let done = "< 200 [] \"id\":1,\"result\":{\"resultType\":\"complete\",\"content\":[],\"contents\":[]}";
    let named = |method: &str, key: &str, field: &str| {
        let members = format!("\"method\":\"{method}\",\"params\":{{\"{key}\":\"ü\",{meta}}}");
        let told = web(&format!(
            "{}\n{done}",
            post(&format!("Mcp-Method: {method}; Mcp-Name: {field}"), &members)
        ));
        let mismatch = if told.contains("header_mismatch") {
            "differs"
        } else {
            "agrees"
        };
        mismatch.to_owned()
    };
    let cases: Vec<Case> = vec![
        (
            "HTTP requests must carry MCP-Protocol-Version and Mcp-Method",
            web(&format!(
                "{}\n{done}",
                post("X: y", &format!("\"method\":\"tools/list\",\"params\":{{{meta}}}"))
            )),
            "malformed header_mismatch from client; call tools/list id=1 ok 200",
        ),
        (
            "Mcp-Name for tools/call (name), as =?base64?…?=",
            named("tools/call", "name", "=?base64?w7w=?="),
            "agrees",
        ),
        (
            "Mcp-Name for tools/call (name), another one",
            named("tools/call", "name", "=?base64?YWRk?="),
            "differs",
        ),
        (
            "Mcp-Name for prompts/get (name)",
            named("prompts/get", "name", "=?base64?w7w=?="),
            "agrees",
        ),
        (
            "Mcp-Name for prompts/get (name), another one",
            named("prompts/get", "name", "b"),
            "differs",
        ),
        (
            "Mcp-Name for resources/read (uri)",
            named("resources/read", "uri", "=?base64?w7w=?="),
            "agrees",
        ),
        (
            "Mcp-Name for resources/read (uri), another one",
            named("resources/read", "uri", "b"),
            "differs",
        ),
        (
            "Mcp-Name for tasks/* (taskId)",
            named("tasks/get", "taskId", "=?base64?w7w=?="),
            "agrees",
        ),
        (
            "Mcp-Name for tasks/* (taskId), another one",
            named("tasks/get", "taskId", "b"),
            "differs",
        ),
        (
            "=?base64?…?= that is no base64",
            named("tools/call", "name", "=?base64?*?="),
            "differs",
        ),
        (
            "Header and body that disagree: 400 and -32020",
            web(&format!(
                "{}\n< 400 [] \"id\":1,\"error\":{{\"code\":-32020}}",
                post(
                    "Mcp-Method: tools/list",
                    &format!("\"method\":\"prompts/list\",\"params\":{{{meta}}}")
                )
            )),
            "malformed header_mismatch from client; call prompts/list id=1 rpc_error 400",
        ),
        (
            "Identity rides in every message: clientInfo and serverInfo in _meta",
            stdio(
                r#"
                > "id":1,"method":"x/y","params":{"_meta":{"io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}}}
                < "id":1,"result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}}
                "#,
            ),
            "server s -; call x/y id=1 ok 200 stdio",
        ),
        (
            "Identity rides in every message: with it the revision, which no handshake told",
            stdio(
                r#"
                > "id":1,"method":"x/y","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}
                < "id":1,"result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}}
                "#,
            ),
            "server s 2026-07-28; call x/y id=1 ok 200 stdio",
        ),
        (
            "Fields leak across eras: ttlMs under 2025-11-25, initialize with 2026-07-28",
            stdio(
                r#"
                > "id":0,"method":"initialize","params":{"protocolVersion":"2026-07-28"}
                < "id":0,"result":{"protocolVersion":"2025-11-25"}
                > "id":1,"method":"tools/list"
                < "id":1,"result":{"tools":[],"ttlMs":5,"cacheScope":"public"}
                "#,
            ),
            "server - 2025-11-25; call initialize id=0 ok 200 stdio; catalog tools 0; call tools/list id=1 ok 200 stdio",
        ),
        (
            "Servers of both eras on one endpoint exist",
            web(&format!(
                "> POST /mcp [] \"id\":0,\"method\":\"initialize\",\"params\":{{\"protocolVersion\":\"2025-11-25\"}}\n\
                 < 200 [] \"id\":0,\"result\":{{\"protocolVersion\":\"2025-11-25\"}}\n{}\n{done}",
                post(
                    "Mcp-Method: tools/call; Mcp-Name: a",
                    &format!("\"method\":\"tools/call\",\"params\":{{\"name\":\"a\",{meta}}}")
                )
            )),
            "server - 2025-11-25; call initialize id=0 ok 200; call tools/call a id=1 ok 200",
        ),
    ];
    check(&cases);
}

#[test]
fn the_common_rules_of_streamable_http() {
    let list = r#"> POST /mcp [Accept: application/json, text/event-stream] "id":1,"method":"tools/list""#;
    let note = r#"> POST /mcp [Mcp-Session-Id: s] "method":"notifications/cancelled""#;
    let reply = r#"data: {"jsonrpc":"2.0","id":1,"result":{"tools":[]}}"#;
    let ok = "catalog tools 0; call tools/list id=1 ok 200";
    let events = |text: &str| web(&format!("{list}\n< 200 [] ~{text}"));
    let noted = "notification notifications/cancelled from client";
    let cases: Vec<Case> = vec![
        (
            "Body notification → 202, empty",
            web(&format!("{note}\n< 202 []")),
            noted,
        ),
        (
            "Body response → 202, empty",
            web("> POST /mcp [Mcp-Session-Id: s] \"id\":4,\"result\":{}\n< 202 []"),
            "",
        ),
        (
            "Body request → application/json with one object",
            web(&format!("{list}\n< 200 [] \"id\":1,\"result\":{{\"tools\":[]}}")),
            ok,
        ),
        (
            "text/event-stream: requests and notifications before the response",
            events(&format!(
                "data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\"}}\\n\\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}}\\n\\n{reply}\\n\\n"
            )),
            "server request roots/list; notification notifications/message from server; catalog tools 0; call tools/list id=1 ok 200",
        ),
        (
            "No MCP-Protocol-Version header → up to 2025-03-26: no resultType, no Mcp-Method demanded",
            web(&format!("{list}\n< 200 [] \"id\":1,\"result\":{{\"tools\":[]}}")),
            ok,
        ),
        ("Keep-alive comments", events(&format!(": ping\\n\\n{reply}\\n\\n")), ok),
        (
            "multi-line data",
            events(&format!("{}\\n\\n", reply.replace(",\"id\"", ",\\ndata: \"id\""))),
            ok,
        ),
        ("CRLF ends a line", events(&format!("{reply}\\r\\n\\r\\n")), ok),
        ("LF ends a line", events(&format!("{reply}\\n\\n")), ok),
        ("CR ends a line", events(&format!("{reply}\\r\\r:\\r")), ok),
        ("a BOM may come first", events(&format!("\u{feff}{reply}\\n\\n")), ok),
        (
            "In 2026-07-28 closing the SSE response is the cancellation",
            web(
                "> POST /mcp [MCP-Protocol-Version: 2026-07-28; Mcp-Method: tools/list] \"id\":1,\"method\":\"tools/list\"\n< 200 [] ~: a\\n\\n\nx",
            ),
            "call tools/list id=1 cancelled 499",
        ),
        (
            "before, disconnecting is not",
            web(&format!("{list}\n< 200 [] ~: a\\n\\n\nx\n_ 400000")),
            "call tools/list id=1 unanswered 504",
        ),
    ];
    check(&cases);
}

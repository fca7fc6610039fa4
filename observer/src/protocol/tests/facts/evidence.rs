//! The methods, who else speaks JSON-RPC, and what proves MCP.

use super::{Case, check, lines, stdio, web};
use crate::protocol::event::Source;

/// Who may send a method.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Client,
    Server,
    Either,
}

#[test]
fn every_method() {
    use By::{Client, Either, Server};
    for (method, revisions, by) in [
        ("initialize", "not in 2026", Client),
        ("ping", "not in 2026", Either),
        ("server/discover", "2026", Client),
        ("subscriptions/listen", "2026", Client),
        ("tools/list", "all", Client),
        ("tools/call", "all", Client),
        ("prompts/list", "all", Client),
        ("prompts/get", "all", Client),
        ("resources/list", "all", Client),
        ("resources/templates/list", "all", Client),
        ("resources/read", "all", Client),
        ("completion/complete", "all", Client),
        ("resources/subscribe", "not in 2026", Client),
        ("resources/unsubscribe", "not in 2026", Client),
        ("logging/setLevel", "not in 2026", Client),
        ("roots/list", "legacy", Server),
        ("sampling/createMessage", "legacy", Server),
        ("elicitation/create", "legacy", Server),
        ("tasks/get", "2025-11-25 and 2026", Either),
        ("tasks/result", "2025-11-25", Either),
        ("tasks/list", "2025-11-25", Either),
        ("tasks/cancel", "2025-11-25 and 2026", Either),
        ("tasks/update", "2026", Client),
        ("vendor/own", "counts on a stream known as MCP", Either),
    ] {
        let row = format!("{method} ({revisions})");
        let first = "> \"id\":0,\"method\":\"logging/setLevel\"\n< \"id\":0,\"result\":{}\n";
        let before = "call logging/setLevel id=0 ok 200 stdio";
        let ask = format!("\"id\":1,\"method\":\"{method}\"");
        let told = |who: char, other: char| {
            let answer = format!("{other} \"id\":1,\"result\":{{\"content\":[],\"contents\":[],\"messages\":[]}}");
            stdio(&format!("{first}{who} {ask}\n{answer}"))
        };
        if by != Server {
            let expected = if method == "subscriptions/listen" {
                format!("{before}; subscription 1; subscription -1")
            } else {
                format!("{before}; call {method} id=1 ok 200 stdio")
            };
            assert_eq!(told('>', '<'), expected, "{row}");
        }
        if by != Client {
            assert_eq!(told('<', '>'), format!("{before}; server request {method}"), "{row}");
        }
    }
}

#[test]
fn every_notification() {
    use By::{Client, Either, Server};
    for (name, by) in [
        ("initialized", Client),
        ("cancelled", Either),
        ("progress", Either),
        ("message", Server),
        ("tools/list_changed", Server),
        ("prompts/list_changed", Server),
        ("resources/list_changed", Server),
        ("resources/updated", Server),
        ("roots/list_changed", Client),
        ("elicitation/complete", Server),
        ("tasks/status", Either),
        ("tasks", Server),
        ("subscriptions/acknowledged", Server),
    ] {
        let talk = |who: char| {
            let told = stdio(&format!(
                "> \"id\":0,\"method\":\"ping\"\n< \"id\":0,\"result\":{{}}\n> \"id\":1,\"method\":\"logging/setLevel\"\n\
                 < \"id\":1,\"result\":{{}}\n{who} \"method\":\"notifications/{name}\""
            ));
            told.rsplit_once("; ")
                .map(|(_, last)| last.to_owned())
                .unwrap_or_default()
        };
        for (who, side, allowed) in [('>', "client", by != Server), ('<', "server", by != Client)] {
            if allowed {
                assert_eq!(talk(who), format!("notification notifications/{name} from {side}"));
            }
        }
    }
}

#[test]
fn neighbours_that_are_not_mcp() {
    let cases: Vec<Case> = vec![
        (
            "LSP: initialize with Content-Length: framing",
            stdio(
                "> Content-Length: 60\n> \n> \"id\":1,\"method\":\"initialize\",\"params\":{\"processId\":1}\n< \"id\":1,\"result\":{\"capabilities\":{}}",
            ),
            "",
        ),
        (
            "ACP: initialize with an integer protocolVersion",
            stdio(
                "> \"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}\n< \"id\":1,\"result\":{\"protocolVersion\":1}",
            ),
            "",
        ),
        (
            "A2A: tasks/get",
            web(
                "> POST / [] \"id\":1,\"method\":\"tasks/get\",\"params\":{\"id\":\"x\"}\n< 200 [] \"id\":1,\"result\":{\"id\":\"x\"}",
            ),
            "",
        ),
        (
            "A2A: message/send",
            web(
                "> POST / [] \"id\":1,\"method\":\"message/send\",\"params\":{}\n< 200 [] \"id\":1,\"result\":{\"kind\":\"task\"}",
            ),
            "",
        ),
        (
            "Ethereum and other JSON-RPC over HTTP",
            web("> POST / [] \"id\":1,\"method\":\"eth_call\",\"params\":[]\n< 200 [] \"id\":1,\"result\":\"0x1\""),
            "",
        ),
    ];
    check(&cases);
}

#[test]
fn positive_evidence() {
    let ping = r#""id":1,"method":"ping""#;
    let pong = r#""id":1,"result":{}"#;
    let ok = "call ping id=1 ok 200";
    let posted = |asks: &str, answers: &str| web(&format!("> POST /mcp [{asks}] {ping}\n< 200 [{answers}] {pong}"));
    let cases: Vec<Case> = vec![
        ("no evidence: ping alone", posted("", ""), ""),
        ("an Mcp-* header of a request", posted("Mcp-Method: ping", ""), ok),
        (
            "an Mcp-* header of an answer",
            posted("", "Mcp-Session-Id: s"),
            "session began; call ping id=1 ok 200 inferred:serverStart",
        ),
        (
            "an MCP-Protocol-Version header",
            posted("MCP-Protocol-Version: 2025-06-18", ""),
            ok,
        ),
        (
            "an io.modelcontextprotocol/ key in _meta of a request",
            stdio(
                "> \"id\":1,\"method\":\"x/y\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/a\":1}}\n< \"id\":1,\"result\":{}",
            ),
            "call x/y id=1 ok 200 stdio",
        ),
        (
            "an io.modelcontextprotocol/ key in _meta of a result",
            lines(
                Source::Unix,
                "> \"id\":1,\"method\":\"x/y\"\n< \"id\":1,\"result\":{\"_meta\":{\"io.modelcontextprotocol/a\":1}}",
            ),
            "call x/y id=1 ok 200 stdio",
        ),
        (
            "initialize with a date-shaped string protocolVersion",
            stdio(
                "> \"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2024-11-05\"}\n< \"id\":1,\"result\":{}",
            ),
            "call initialize id=1 ok 200 stdio",
        ),
        (
            "an endpoint SSE event",
            web("> GET /sse [Accept: text/event-stream]\n< 200 [] ~event: endpoint\\ndata: /m?session_id=7\\n\\n"),
            "session began",
        ),
        (
            "tools/* on a JSON-RPC 2.0 message",
            stdio("> \"id\":1,\"method\":\"tools/list\"\n< \"id\":1,\"result\":{\"tools\":[]}"),
            "catalog tools 0; call tools/list id=1 ok 200 stdio",
        ),
        (
            "tools/* on a message that is no JSON-RPC 2.0",
            stdio("> {\"id\":1,\"method\":\"tools/list\"}\n< {\"id\":1,\"result\":{\"tools\":[]}}"),
            "",
        ),
        (
            "notifications/* of the list",
            stdio("> \"method\":\"notifications/initialized\""),
            "notification notifications/initialized from client",
        ),
        (
            "Once known, a stream stays known: an unknown method counts",
            stdio(
                "> \"id\":1,\"method\":\"tools/list\"\n< \"id\":1,\"result\":{\"tools\":[]}\n> \"id\":2,\"method\":\"vendor/x\"\n< \"id\":2,\"result\":{}",
            ),
            "catalog tools 0; call tools/list id=1 ok 200 stdio; call vendor/x id=2 ok 200 stdio",
        ),
        (
            "until known, messages are held so that the first calls are not lost",
            stdio(
                "> \"id\":1,\"method\":\"ping\"\n< \"id\":1,\"result\":{}\n> \"id\":2,\"method\":\"completion/complete\"\n< \"id\":2,\"result\":{}",
            ),
            "call ping id=1 ok 200 stdio; call completion/complete id=2 ok 200 stdio",
        ),
    ];
    check(&cases);
}

#[test]
fn transports_that_are_gaps() {
    let call = r#"POST /mcp [] "id":1,"method":"tools/call","params":{"name":"a"}"#;
    let result = r#""id":1,"result":{"content":[]}"#;
    let ok = "call tools/call a id=1 ok 200";
    let cases: Vec<Case> = vec![
        (
            "WebSocket",
            web(
                "> GET /ws [Upgrade: websocket; Sec-WebSocket-Protocol: mcp]\n< 101 [Upgrade: websocket; Connection: upgrade]",
            ),
            "lost websocket 0",
        ),
        (
            "HTTP/3, by Alt-Svc of an answer of MCP: told once a connection",
            web(&format!(
                "> {call}\n< 200 [Alt-Svc: h3=\":443\"] {result}\n> {call}\n< 200 [Alt-Svc: h3=\":443\"] {result}"
            )),
            "lost http3 0; call tools/call a id=1 ok 200; call tools/call a id=1 ok 200",
        ),
        (
            "no HTTP/3, by Alt-Svc of an answer of something else",
            web("> POST /x [] {}\n< 200 [Alt-Svc: h3=\":443\"] {}"),
            "",
        ),
        (
            "no HTTP/3, by Alt-Svc of another protocol",
            web(&format!("> {call}\n< 200 [Alt-Svc: h2=\":443\"] {result}")),
            ok,
        ),
        (
            "gRPC, on a connection that is MCP",
            web(&format!(
                "> {call}\n< 200 [] {result}\n> POST /mcp.Tools/Call [Content-Type: application/grpc] abc\n< 200 [Content-Type: application/grpc] abc"
            )),
            "call tools/call a id=1 ok 200; lost grpc 0",
        ),
        (
            "gRPC, of a service that is named after MCP",
            web("> POST /model_context_protocol.Mcp/CallTool [Content-Type: application/grpc] abc"),
            "lost grpc 0",
        ),
        (
            "gRPC, of any other service",
            web("> POST /pkg.Service/Call [Content-Type: application/grpc] abc"),
            "",
        ),
        (
            "MCP in lines over TCP is none",
            lines(
                Source::Tcp,
                "> \"id\":1,\"method\":\"tools/list\"\n< \"id\":1,\"result\":{}",
            ),
            "call tools/list id=1 ok 200 stdio",
        ),
    ];
    check(&cases);
}

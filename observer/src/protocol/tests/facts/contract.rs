//! What the outside relies on: every outcome with its status, every rule that a message may break. Both are matched
//! exhaustively, so that a new one does not come without its script.

use super::{stdio, web};
use crate::protocol::observation::{MalformedReason, Outcome};

const CALL: &str = r#""id":1,"method":"tools/call","params":{"name":"a"}"#;
const OK: &str = r#""id":1,"result":{"content":[]}"#;

fn posted(fields: &str, answer: &str) -> String {
    web(&format!("> POST /mcp [{fields}] {CALL}\n< {answer}"))
}

fn called(after: &str) -> String {
    stdio(&format!("> {CALL}\n{after}"))
}

/// A script that ends so, and the status of that.
fn outcome(outcome: Outcome) -> (String, u16) {
    match outcome {
        Outcome::Ok => (called(&format!("< {OK}")), 200),
        Outcome::ToolError => (called(r#"< "id":1,"result":{"content":[],"isError":true}"#), 500),
        Outcome::RpcError => (posted("", r#"503 [] "id":1,"error":{"code":-32603}"#), 503),
        Outcome::HttpError => (posted("", "503 [] busy"), 503),
        Outcome::Negotiation => (
            stdio("> \"id\":1,\"method\":\"server/discover\"\n< \"id\":1,\"error\":{\"code\":-32601}"),
            404,
        ),
        Outcome::AuthChallenge => (posted("", "401 [WWW-Authenticate: Bearer]"), 401),
        Outcome::Timeout => (
            called(r#"> "method":"notifications/cancelled","params":{"requestId":1,"reason":"Request timed out"}"#),
            504,
        ),
        Outcome::Cancelled => (
            called(r#"> "method":"notifications/cancelled","params":{"requestId":1}"#),
            499,
        ),
        Outcome::ClientGone => (called("k"), 499),
        Outcome::ServerGone => (called("K"), 502),
        Outcome::Malformed => (posted("", "200 [] {oops"), 502),
        Outcome::InputRequired => (
            called(r#"< "id":1,"result":{"resultType":"input_required","requestState":"s"}"#),
            200,
        ),
        Outcome::TaskAccepted => (called(r#"< "id":1,"result":{"task":{"taskId":"t"}}"#), 200),
        Outcome::Unanswered => (called("_ 301000"), 504),
    }
}

#[test]
fn every_outcome() {
    for one in Outcome::ALL {
        let (told, status) = outcome(*one);
        assert!(
            told.contains(&format!(" {} {status}", one.name())),
            "{}: {told}",
            one.name()
        );
    }
}

/// A script in which that rule is broken, and by whom.
fn malformed(reason: MalformedReason) -> (String, &'static str) {
    use MalformedReason as Reason;
    let greeted = |said: &str| {
        stdio(&format!(
            "> \"id\":0,\"method\":\"initialize\",\"params\":{{\"protocolVersion\":\"2025-11-25\"}}\n\
             < \"id\":0,\"result\":{{\"protocolVersion\":\"2025-11-25\"}}\n> {CALL}\n{said}"
        ))
    };
    let by_server = |said: &str| (greeted(said), "server");
    let notified = |answer: &str| {
        let posted =
            format!("> POST /mcp [] {CALL}\n< 200 [] {OK}\n> POST /mcp [] \"method\":\"notifications/initialized\"");
        (web(&format!("{posted}\n< {answer}")), "server")
    };
    match reason {
        Reason::BadJson => by_server("< {\"id\":1,"),
        Reason::BadUtf8 => by_server("< {\"id\":\"ÿ\"}"),
        Reason::NotJsonRpc => by_server("< {\"id\":1,\"result\":{}}"),
        Reason::ResultAndError => by_server("< \"id\":1"),
        Reason::BadId => by_server("< \"id\":true,\"result\":{}"),
        Reason::ShortBody => (
            web(&format!("> POST /mcp [] {CALL}\n< 200 [Content-Length: 500] {{\"a\nX")),
            "server",
        ),
        Reason::StrayOutput => by_server("< listening"),
        Reason::BadHttp => (
            web(&format!(
                "> POST /mcp [] {CALL}\n< 200 [] {OK}\n> GET /mcp [Content-Length: -1]"
            )),
            "client",
        ),
        Reason::TooDeep => by_server(&format!("< {{\"a\":{}", "[".repeat(300))),
        Reason::UnknownId => by_server("< \"id\":7,\"result\":{}"),
        Reason::DuplicateAnswer => by_server(&format!("< {OK}\n< {OK}")),
        Reason::AnswerToNotification => notified(&format!("202 [] {OK}")),
        Reason::AnswerAfterClose => by_server(&format!("k\n_ 1000\n< {OK}")),
        Reason::MissingContent => by_server("< \"id\":1,\"result\":{}"),
        Reason::MissingResultType => (
            posted("MCP-Protocol-Version: 2026-07-28", &format!("200 [] {OK}")),
            "server",
        ),
        Reason::WrongContentType => (posted("", &format!("200 [Content-Type: text/plain] {OK}")), "server"),
        Reason::HeaderMismatch => (posted("Mcp-Method: tools/list", &format!("200 [] {OK}")), "client"),
        Reason::NotAccepted => notified("200 []"),
        Reason::SchemaViolation => by_server(
            "< \"id\":1,\"result\":{\"content\":[]}\n> \"id\":2,\"method\":\"tools/list\"\n\
             < \"id\":2,\"result\":{\"tools\":[{\"name\":\"a\",\"outputSchema\":{\"required\":[\"n\"]}}]}\n\
             > \"id\":3,\"method\":\"tools/call\",\"params\":{\"name\":\"a\"}\n\
             < \"id\":3,\"result\":{\"content\":[],\"structuredContent\":{}}",
        ),
    }
}

#[test]
fn every_malformed_reason() {
    for reason in MalformedReason::ALL {
        let (told, side) = malformed(*reason);
        let line = format!("malformed {} from {side}", reason.name());
        assert!(told.contains(&line), "{line}: {told}");
    }
}

#[test]
fn a_good_answer_without_content_or_json_is_malformed() {
    let cases = [
        ("empty", posted("", "200 [Content-Type: application/json]")),
        ("no JSON", posted("", "200 [Content-Type: application/json] Accepted")),
    ];
    for (words, told) in cases {
        assert_eq!(
            told, "malformed bad_json from server; call tools/call a id=1 malformed 502",
            "{words}"
        );
    }
}

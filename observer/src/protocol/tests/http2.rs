//! MCP over HTTP/2: the same calls, sessions and endings as over HTTP/1.1, many at once on one connection.

use fluke_hpack::Encoder;
use insta::assert_snapshot;

use super::scene::{Line, MILLI, Scene};
use crate::protocol::event::{Source, Verdict};
use crate::protocol::observation::Output;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END: u8 = 1;

/// One connection, as its two ends write it.
struct Connection {
    up: Line,
    down: Line,
    client: Encoder<'static>,
    server: Encoder<'static>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

impl Connection {
    /// A connection whose beginning is not told.
    fn late(scene: &mut Scene) -> Self {
        let (up, down) = scene.socket(1, 2, Source::Tcp);
        Self {
            up,
            down,
            client: Encoder::new(),
            server: Encoder::new(),
        }
    }

    fn new(scene: &mut Scene) -> Self {
        let connection = Self::late(scene);
        connection.asks(scene, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        connection.asks(scene, &frame(4, 0, 0, &[0, 1, 0, 1, 0, 0]));
        connection.answers(scene, &frame(4, 0, 0, &[]));
        connection
    }

    fn asks(&self, scene: &mut Scene, bytes: &[u8]) {
        scene.write(10, self.up, bytes);
        scene.read(20, self.up, bytes.len());
    }

    fn answers(&self, scene: &mut Scene, bytes: &[u8]) {
        scene.write(20, self.down, bytes);
        scene.read(10, self.down, bytes.len());
    }

    fn request(&mut self, stream: u32, end: u8, fields: &[(&str, &str)]) -> Vec<u8> {
        frame(HEADERS, 4 | end, stream, &block(&mut self.client, fields))
    }

    fn response(&mut self, stream: u32, end: u8, fields: &[(&str, &str)]) -> Vec<u8> {
        frame(HEADERS, 4 | end, stream, &block(&mut self.server, fields))
    }

    fn post(&mut self, scene: &mut Scene, stream: u32, more: &[(&str, &str)], body: &str) {
        let fields = [&POST[..], more].concat();
        let head = self.request(stream, 0, &fields);
        self.asks(scene, &head);
        self.asks(scene, &frame(DATA, END, stream, body.as_bytes()));
    }

    fn json(&mut self, scene: &mut Scene, stream: u32, status: &str, body: &str) {
        let head = self.response(stream, 0, &[(":status", status), ("content-type", "application/json")]);
        self.answers(scene, &[head, frame(DATA, END, stream, body.as_bytes())].concat());
    }

    fn events(&mut self, scene: &mut Scene, stream: u32) {
        let head = self.response(stream, 0, &[(":status", "200"), ("content-type", "text/event-stream")]);
        self.answers(scene, &head);
    }

    fn event(&self, scene: &mut Scene, stream: u32, end: u8, data: &str) {
        let text = format!("event: message\ndata: {data}\n\n");
        self.answers(scene, &frame(DATA, end, stream, text.as_bytes()));
    }
}

fn block(encoder: &mut Encoder<'_>, fields: &[(&str, &str)]) -> Vec<u8> {
    encoder.encode(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

const POST: [(&str, &str); 7] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/mcp"),
    (":authority", "h:1"),
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
    ("user-agent", "agent/1.0"),
];

fn call(id: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"add\"}}}}")
}

fn result(id: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}")
}

#[test]
fn many_calls_at_once() {
    let mut scene = Scene::new();
    let mut connection = Connection::new(&mut scene);
    for stream in [1, 3, 5, 7, 9] {
        connection.post(&mut scene, stream, &[], &call(stream));
    }
    // Answered in another order: JSON in parts between which others come, events, errors, nothing.
    connection.events(&mut scene, 9);
    let answer = result(5);
    let head = connection.response(5, 0, &[(":status", "200"), ("content-type", "application/json")]);
    connection.answers(&mut scene, &head);
    connection.answers(&mut scene, &frame(DATA, 0, 5, &answer.as_bytes()[..10]));
    connection.json(&mut scene, 3, "200", &result(3));
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1}}"#;
    connection.event(&mut scene, 9, 0, progress);
    connection.answers(&mut scene, &frame(DATA, END, 5, &answer.as_bytes()[10..]));
    connection.json(&mut scene, 1, "503", "busy");
    connection.event(&mut scene, 9, END, &result(9));
    let head = connection.response(7, END, &[(":status", "401"), ("www-authenticate", "Bearer")]);
    connection.answers(&mut scene, &head);
    assert_snapshot!(scene.told(), @r"
    call tools/call add id=3 ok 200 10→20 streamable_http server
    notification notifications/progress from server
    call tools/call add id=5 ok 200 10→20 streamable_http server
    call tools/call add id=1 http_error 503 10→20 streamable_http server
    call tools/call add id=9 ok 200 10→20 streamable_http server
    call tools/call add id=7 auth_challenge 401 10→20 streamable_http server
    ");
}

#[test]
fn a_session() {
    let mut scene = Scene::new();
    let mut connection = Connection::new(&mut scene);
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","clientInfo":{"name":"c","version":"1"}}}"#;
    let answer =
        r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","serverInfo":{"name":"s","version":"1"}}}"#;
    connection.post(&mut scene, 1, &[], initialize);
    let head = connection.response(
        1,
        0,
        &[
            (":status", "200"),
            ("content-type", "application/json"),
            ("mcp-session-id", "abc"),
        ],
    );
    connection.answers(&mut scene, &[head, frame(DATA, END, 1, answer.as_bytes())].concat());
    let session = [("mcp-session-id", "abc")];
    connection.post(
        &mut scene,
        3,
        &session,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
    );
    let head = connection.response(3, END, &[(":status", "202")]);
    connection.answers(&mut scene, &head);
    connection.post(&mut scene, 5, &session, &call(1));
    connection.json(&mut scene, 5, "200", &result(1));
    let calls = scene.calls();
    let call = &calls[1];
    assert_eq!(call.session.as_deref(), Some("abc"));
    assert_eq!(call.protocol_version.as_deref(), Some("2025-06-18"));
    assert_eq!(call.parties.client.implementation.as_ref().unwrap().name, "c");
    assert_eq!(call.parties.authority.as_deref(), Some("h:1"));
}

#[test]
fn joined_in_the_middle() {
    let mut scene = Scene::new();
    let mut connection = Connection::late(&mut scene);
    // What came before put fields into both tables.
    let session = [("mcp-session-id", "abc")];
    let _ = connection.request(1, END, &[&POST[..], &session].concat());
    let _ = connection.response(
        1,
        END,
        &[
            (":status", "202"),
            ("content-type", "application/json"),
            ("mcp-session-id", "abc"),
        ],
    );
    connection.answers(&mut scene, b"the rest of a frame");
    connection.asks(&mut scene, b"the rest of another\0\0\0");
    for stream in [5, 7] {
        connection.post(&mut scene, stream, &session, &call(stream));
    }
    connection.json(&mut scene, 7, "200", &result(7));
    connection.events(&mut scene, 5);
    connection.event(&mut scene, 5, END, &result(5));
    connection.post(&mut scene, 9, &session, &call(9));
    // Its status is in the table that was not seen.
    connection.json(&mut scene, 9, "202", &result(9));
    assert_snapshot!(scene.told(), @r"
    call tools/call add id=7 ok 200 10→20 streamable_http server
    call tools/call add id=5 ok 200 10→20 streamable_http server
    call tools/call add id=9 ok 200 10→20 streamable_http server
    ");
}

#[test]
fn an_event_stream_older_than_the_observer() {
    let mut scene = Scene::new();
    let mut connection = Connection::late(&mut scene);
    connection.event(
        &mut scene,
        1,
        0,
        r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#,
    );
    connection.post(&mut scene, 5, &[], &call(5));
    connection.json(&mut scene, 5, "200", &result(5));
    assert_snapshot!(scene.told(), @r"
    notification notifications/tools/list_changed from server
    call tools/call add id=5 ok 200 10→20 streamable_http server
    ");
}

#[test]
fn holes_in_the_middle() {
    let mut scene = Scene::new();
    let mut connection = Connection::new(&mut scene);
    connection.post(&mut scene, 1, &[], &call(1));
    connection.json(&mut scene, 1, "200", &result(1));
    // A request and its answer go by unseen.
    let head = connection.request(3, 0, &POST);
    scene.skip(connection.up, head.len() + 9 + call(3).len());
    connection.json(&mut scene, 3, "200", &result(3));
    connection.post(&mut scene, 5, &[("x-more", "1")], &call(5));
    let head = connection.response(5, 0, &[(":status", "200"), ("content-type", "application/json")]);
    scene.skip(connection.down, head.len() + 9 + result(5).len());
    for stream in [7, 9] {
        connection.post(&mut scene, stream, &[("x-more", "1")], &call(stream));
        connection.json(&mut scene, stream, "200", &result(stream));
    }
    for seconds in [1, 1, 400] {
        scene.wait(seconds * 1_000 * MILLI);
    }
    assert_snapshot!(scene.told(), @r"
    call tools/call add id=1 ok 200 10→20 streamable_http server
    call tools/call add id=7 ok 200 10→20 streamable_http server lossy
    call tools/call add id=9 ok 200 10→20 streamable_http server lossy
    call tools/call add id=5 unanswered 504 10→20 streamable_http server lossy
    ");
}

#[test]
fn streams_that_are_given_up() {
    let mut scene = Scene::new();
    let mut connection = Connection::new(&mut scene);
    let stateless = [("mcp-protocol-version", "2026-07-28")];
    connection.post(&mut scene, 1, &[], &call(1));
    connection.answers(&mut scene, &frame(3, 0, 1, &[0, 0, 0, 2]));
    connection.post(&mut scene, 3, &stateless, &call(3));
    connection.events(&mut scene, 3);
    connection.asks(&mut scene, &frame(3, 0, 3, &[0, 0, 0, 8]));
    connection.post(&mut scene, 5, &[], &call(5));
    connection.post(&mut scene, 7, &[], &call(7));
    connection.answers(&mut scene, &frame(7, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 0]));
    connection.json(&mut scene, 5, "200", &result(5));
    connection.post(&mut scene, 9, &[], &call(9));
    connection.json(&mut scene, 9, "200", "{oops");
    connection.post(&mut scene, 11, &[], &call(11));
    scene.close(20, 2);
    assert_snapshot!(scene.told(), @r"
    call tools/call add id=5 ok 200 10→20 streamable_http server
    malformed bad_json from server
    call tools/call add id=9 malformed 502 10→20 streamable_http server
    call tools/call add id=1 server_gone 502 10→20 streamable_http server
    call tools/call add id=3 cancelled 499 10→20 streamable_http server
    call tools/call add id=7 server_gone 502 10→20 streamable_http server
    call tools/call add id=11 server_gone 502 10→20 streamable_http server attempt:2
    ");
}

#[test]
fn by_upgrade() {
    let mut scene = Scene::new();
    let mut connection = Connection::late(&mut scene);
    let body = call(1);
    let post = format!(
        "POST /mcp HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.asks(&mut scene, post.as_bytes());
    let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    connection.answers(&mut scene, &[&agreed[..], &frame(4, 0, 0, &[])].concat());
    connection.asks(&mut scene, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    connection.asks(&mut scene, &frame(4, 0, 0, &[]));
    connection.post(&mut scene, 3, &[], &call(2));
    connection.json(&mut scene, 3, "200", &result(2));
    connection.json(&mut scene, 1, "200", &result(1));
    assert_snapshot!(scene.told(), @r"
    call tools/call add id=2 ok 200 10→20 streamable_http server
    call tools/call add id=1 ok 200 10→20 streamable_http server
    ");
}

#[test]
fn a_response_told_before_its_request() {
    let mut scene = Scene::new();
    let mut connection = Connection::new(&mut scene);
    let answer = connection.response(1, 0, &[(":status", "200"), ("content-type", "application/json")]);
    let answer = [answer, frame(DATA, END, 1, result(1).as_bytes())].concat();
    scene.write(20, connection.down, &answer);
    scene.wait(50 * MILLI);
    scene.now -= 51 * MILLI;
    connection.post(&mut scene, 1, &[], &call(1));
    scene.now += 51 * MILLI;
    assert_snapshot!(scene.told(), @"call tools/call add id=1 ok 200 10→20 streamable_http server");
}

fn verdicts(scene: &mut Scene) -> Vec<Verdict> {
    scene.wait(100 * MILLI);
    let verdict = |output: &Output| match output {
        Output::Verdict(_, verdict) => Some(*verdict),
        _ => None,
    };
    scene.outputs().iter().filter_map(verdict).collect()
}

#[test]
fn grpc_is_not_mcp() {
    let mut scene = Scene::new();
    let mut connection = Connection::new(&mut scene);
    let fields = [
        (":method", "POST"),
        (":path", "/pkg.Service/Call"),
        ("content-type", "application/grpc+proto"),
    ];
    let head = connection.request(1, 0, &fields);
    connection.asks(&mut scene, &head);
    assert_eq!(verdicts(&mut scene), [Verdict::NotMcp; 2]);
    connection.asks(&mut scene, &frame(DATA, END, 1, b"\0\0\0\0\x02ab"));
    assert_eq!(scene.told(), "");
}

#[test]
fn what_is_something_else_is_left_out_after_a_while() {
    let mut scene = Scene::new();
    let mut connection = Connection::new(&mut scene);
    let get = [(":method", "GET"), (":path", "/rest"), ("accept", "*/*")];
    for stream in (1..200).step_by(2) {
        let head = connection.request(stream, END, &get);
        connection.asks(&mut scene, &head);
        connection.json(&mut scene, stream, "200", "{\"rest\":1}");
    }
    assert_eq!(verdicts(&mut scene), [Verdict::HeadsOnly; 2]);
    // A later request may be MCP: everything is wanted again.
    connection.post(&mut scene, 201, &[], &call(1));
    assert_eq!(
        verdicts(&mut scene),
        [Verdict::Undecided, Verdict::Undecided, Verdict::Mcp, Verdict::Mcp]
    );
    connection.json(&mut scene, 201, "200", &result(1));
    assert_snapshot!(scene.told(), @"call tools/call add id=1 ok 200 10→20 streamable_http server");
}

#[test]
fn web_sockets_are_not_read() {
    let mut scene = Scene::new();
    let connection = Connection::late(&mut scene);
    connection.asks(
        &mut scene,
        b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    connection.answers(
        &mut scene,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(verdicts(&mut scene).last(), Some(&Verdict::NotMcp));
    connection.answers(&mut scene, format!("\u{1}{}\n", call(1)).as_bytes());
    assert_eq!(scene.told(), "");
}

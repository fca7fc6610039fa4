//! A second implementation of HTTP/2 that shares nothing with ours: the `h2` crate talks to itself, thousands of requests over
//! memory, and what is read of them must be what was sent.
//!
//! Between the two stands a relay that notes every frame. Now and then it tells one side that the other's header table has
//! another size, as an endpoint may at any time, so that encoders resize and clear their tables in mid-connection.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::{client, server};
use http::{Request, Response};
use observer::protocol::event::Direction;
use observer::protocol::observation::{Call, Observation, Output};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};

use crate::{Write, play};

/// Requests of a connection.
const REQUESTS: u64 = 3000;

/// Requests on their way at once.
const AT_ONCE: u64 = 20;

/// Frames of one direction between two changes of the other's table.
const CHANGE: usize = 150;

/// Sizes that a table is given in turn, from none to RFC 9113's default, which is the most that the crate's decoders take.
const SIZES: [u32; 5] = [0, 40, 300, 2000, 4096];

const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const PREFACE: usize = 24;

/// What a request and its response say in their heads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    session: String,
    trace: String,
    revision: &'static str,
    status: u16,
}

/// Everything is made of the request's number.
fn said(id: u64) -> Said {
    let mut random = Random(id + 1);
    let trace = format!(
        "00-{:016x}{:016x}-{:016x}-01",
        random.next() | 1,
        random.next(),
        random.next() | 1
    );
    Said {
        // Some come again, so that they are found in the table.
        session: if id.is_multiple_of(3) {
            format!("session-{}", id / 60)
        } else {
            random.text(8..40)
        },
        trace,
        revision: ["2025-03-26", "2025-06-18", "2025-11-25"][usize::try_from(random.next() % 3).unwrap()],
        status: [200, 200, 200, 404, 429, 503, 418][usize::try_from(random.next() % 7).unwrap()],
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Any visible characters, of which some are rare in Huffman's code, which makes them long.
    fn text(&mut self, length: std::ops::Range<u64>) -> String {
        let length = length.start + self.next() % (length.end - length.start);
        (0..length)
            .map(|_| char::from(b'!' + u8::try_from(self.next() % 94).unwrap()))
            .collect()
    }

    /// Fields that nobody reads and that drive others out of the table.
    fn others(&mut self) -> Vec<(String, String)> {
        let count = self.next() % 6;
        (0..count)
            .map(|_| (format!("x-{}", self.next() % 40), self.text(0..120)))
            .collect()
    }
}

fn request(id: u64) -> Request<()> {
    let said = said(id);
    let mut request = Request::builder()
        .method("POST")
        .uri("http://tools.example/mcp")
        .header("content-type", "application/json")
        .header("mcp-protocol-version", said.revision);
    for (name, value) in Random(!id).others() {
        request = request.header(name, value);
    }
    request
        .header("mcp-session-id", said.session)
        .header("traceparent", said.trace)
        .body(())
        .expect("a request that is one")
}

fn body(id: u64) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"tool-{id}"}}}}"#).into()
}

async fn ask(connection: &mut client::SendRequest<Bytes>, id: u64) -> impl Future<Output = ()> + use<> {
    poll_fn(|context| connection.poll_ready(context))
        .await
        .expect("the server goes on");
    let (response, mut stream) = connection.send_request(request(id), false).expect("a request goes out");
    stream.send_data(body(id), true).expect("its content goes out");
    async move {
        let mut response = response.await.expect("an answer").into_body();
        while let Some(data) = response.data().await {
            let length = data.expect("its content").len();
            response
                .flow_control()
                .release_capacity(length)
                .expect("what was received");
        }
    }
}

async fn serve(side: DuplexStream) {
    let mut connection = server::handshake(side).await.expect("a handshake");
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted.expect("a request");
        tokio::spawn(async move {
            let mut content = request.into_body();
            let mut body = Vec::new();
            while let Some(data) = content.data().await {
                let data = data.expect("its content");
                content
                    .flow_control()
                    .release_capacity(data.len())
                    .expect("what was received");
                body.extend_from_slice(&data);
            }
            let text = String::from_utf8(body).expect("JSON is text");
            let id = text
                .split([':', ','])
                .nth(3)
                .expect("it has an id")
                .parse()
                .expect("a number");
            let mut response = Response::builder()
                .status(said(id).status)
                .header("content-type", "application/json");
            for (name, value) in Random(id << 32).others() {
                response = response.header(name, value);
            }
            let result = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[]}}}}"#);
            let mut stream = respond
                .send_response(response.body(()).unwrap(), false)
                .expect("an answer goes out");
            stream.send_data(result.into(), true).expect("its content goes out");
        });
    }
}

/// What the relay knows of both directions.
#[derive(Default)]
struct Wire {
    writes: Vec<Write>,
    changes: usize,
}

/// Hands on the frames of one direction and notes them, with settings put in between.
async fn relay(
    wire: Arc<Mutex<Wire>>,
    direction: Direction,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) {
    let is_client = direction == Direction::Sent;
    let (mut frames, mut answers) = (0, 0);
    if is_client {
        let mut preface = vec![0; PREFACE];
        from.read_exact(&mut preface).await.expect("a client begins with it");
        note(&wire, direction, &preface);
        to.write_all(&preface).await.expect("the server reads");
    }
    let mut head = [0; 9];
    while from.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut frame = head.to_vec();
        frame.resize(9 + length, 0);
        from.read_exact(&mut frame[9..]).await.expect("a frame is whole");
        note(&wire, direction, &frame);
        let is_answer = frame[3] == SETTINGS && frame[4] == ACK;
        answers += usize::from(is_answer);
        // The first one answers what the other side said at the beginning, all others the relay.
        if (!is_answer || answers == 1) && to.write_all(&frame).await.is_err() {
            return;
        }
        frames += 1;
        // A header block that goes on in the next frame is not to be torn.
        let goes_on = matches!(frame[3], 1 | 9) && frame[4] & 4 == 0;
        if frames % CHANGE == 0 && !goes_on {
            let settings = change(&wire, frames / CHANGE);
            note(&wire, direction, &settings);
            if to.write_all(&settings).await.is_err() {
                return;
            }
        }
    }
    let _ = to.shutdown().await;
}

/// Settings with a new size of the table.
fn change(wire: &Mutex<Wire>, number: usize) -> Vec<u8> {
    let mut wire = wire.lock().unwrap();
    wire.changes += 1;
    let size = SIZES[number % SIZES.len()].to_be_bytes();
    [&[0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 1][..], &size].concat()
}

fn note(wire: &Mutex<Wire>, direction: Direction, bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    wire.lock().unwrap().writes.push((0, direction, bytes));
}

/// A connection with all its requests: what went over the wire, and how often a table was changed.
fn talk() -> (Vec<Write>, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let wire = Arc::new(Mutex::new(Wire::default()));
    runtime.block_on(async {
        let (client_side, client_relay) = duplex(1 << 16);
        let (server_relay, server_side) = duplex(1 << 16);
        let ((from_client, to_client), (from_server, to_server)) = (split(client_relay), split(server_relay));
        tokio::spawn(relay(Arc::clone(&wire), Direction::Sent, from_client, to_server));
        tokio::spawn(relay(Arc::clone(&wire), Direction::Received, from_server, to_client));
        tokio::spawn(serve(server_side));
        let (mut requests, connection) = client::handshake(client_side).await.expect("a handshake");
        tokio::spawn(async { connection.await.expect("a connection without a fault") });
        for first in (0..REQUESTS).step_by(usize::try_from(AT_ONCE).unwrap()) {
            let mut answers = Vec::new();
            for id in first..first + AT_ONCE {
                answers.push(tokio::spawn(ask(&mut requests, id).await));
            }
            for answer in answers {
                answer.await.expect("an answer");
            }
        }
    });
    let mut wire = wire.lock().unwrap();
    (std::mem::take(&mut wire.writes), wire.changes)
}

/// The calls among what was told, by id.
fn calls(told: Vec<Output>) -> BTreeMap<u64, Call> {
    let mut calls = BTreeMap::new();
    for output in told {
        if let Output::Observation(Observation::Call(call)) = output {
            let id = call.id.to_string().parse().expect("ids are numbers");
            assert!(calls.insert(id, *call).is_none(), "{id} was told twice");
        }
    }
    calls
}

#[test]
fn what_is_read_from_the_first_byte_is_what_was_sent() {
    let (writes, changes) = talk();
    assert!(changes > 20, "{changes} changes of a table");
    // Encoders answer by telling the new size where a header block begins (RFC 7541, section 6.3).
    let resized = |(_, _, frame): &&Write| frame.get(3) == Some(&1) && frame.get(9).is_some_and(|byte| byte >> 5 == 1);
    let resized = writes.iter().filter(resized).count();
    assert!(resized > 10, "{resized} blocks resize the table");
    for piece in [usize::MAX, 13] {
        let told = play(&writes, piece);
        let lost = told.iter().find(|output| matches!(output, Output::Lost { .. }));
        assert_eq!(lost, None);
        let calls = calls(told);
        assert_eq!(calls.len() as u64, REQUESTS);
        for (id, call) in calls {
            let heads = Said {
                session: call.session.as_deref().unwrap_or("none").to_owned(),
                trace: call.traceparent.as_deref().unwrap_or("none").to_owned(),
                revision: said(id).revision,
                status: call.http_status.unwrap_or(0),
            };
            assert_eq!(heads, said(id), "{id}");
            assert_eq!(call.protocol_version.as_deref(), Some(heads.revision), "{id}");
            assert_eq!(call.target.as_deref(), Some(&*format!("tool-{id}")));
        }
    }
}

#[test]
fn what_is_read_from_the_middle_on_is_true() {
    let (writes, _) = talk();
    for from in (1..writes.len()).step_by(writes.len() / 40) {
        let calls = calls(play(&writes[from..], usize::MAX));
        let begun_before = BTreeMap::from_iter(
            writes[..from]
                .iter()
                .flat_map(|(_, _, bytes)| ids(bytes))
                .map(|id| (id, ())),
        );
        let (mut known, mut missing) = (0, Vec::new());
        for id in 0..REQUESTS {
            let Some(call) = calls.get(&id) else {
                if !begun_before.contains_key(&id) {
                    missing.push(id);
                }
                continue;
            };
            // What was put into the table before is not known; nothing else takes its place.
            let sent = said(id);
            assert!(
                call.session.as_deref().is_none_or(|session| session == sent.session),
                "{id} from {from}"
            );
            assert!(
                call.traceparent.as_deref().is_none_or(|trace| trace == sent.trace),
                "{id} from {from}"
            );
            assert!(
                call.http_status.is_none_or(|status| status == sent.status),
                "{id} from {from}"
            );
            assert_eq!(call.target.as_deref(), Some(&*format!("tool-{id}")));
            known += u64::from(call.session.is_some() && call.traceparent.is_some());
        }
        // A request whose head went before is the one that may be missing at each of as many streams as are open.
        assert!(missing.len() as u64 <= AT_ONCE, "from {from}: {missing:?}");
        let after = REQUESTS - begun_before.len() as u64;
        assert!(known + 300 >= after, "from {from} {known} of {after} are known whole");
    }
}

/// The ids in a request's content.
fn ids(frame: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(frame.get(9..)?).into_owned();
    let id = text
        .strip_prefix(r#"{"jsonrpc":"2.0","id":"#)?
        .split_once(r#","method""#)?
        .0;
    id.parse().ok()
}

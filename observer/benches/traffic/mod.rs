//! Streams of events as the kernel side tells them, for benchmarks: both ends of every transfer, times that go on.

use bytes::Bytes;
use observer::protocol::event::{Data, Direction, Event, Missing, Opened, Pid, Position, Source, StreamKey, Timestamp};
use observer::protocol::{Limits, Pipeline};

/// Bytes of a small message.
pub(crate) const SMALL: usize = 300;

/// Bytes that one record carries at most.
const RECORD: usize = 60_000;

/// Events between two turns of the daemon.
const TURN: usize = 1000;

/// Nanoseconds between two events.
const STEP: u64 = 5_000;

/// Nanoseconds between the beginnings of two sessions: in that time the events of the first are worked through.
const PAUSE: u64 = 50_000_000;

const CLIENT: Pid = Pid(10);
const SERVER: Pid = Pid(20);

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Newline-delimited JSON on two pipes.
    Lines,
    /// HTTP/1.1 on one connection, a POST and its JSON answer for each call.
    Http,
}

/// One session in the making.
pub(crate) struct Session {
    pub(crate) events: Vec<Event>,
    wire: Wire,
    time: u64,
    /// Bytes written so far, requests and answers.
    written: [u64; 2],
    /// Bytes of one write.
    piece: usize,
    /// What its streams are named after.
    base: u64,
}

impl Session {
    /// A session whose streams are only opened.
    pub(crate) fn opened(wire: Wire, base: u64) -> Self {
        let mut session = Self {
            events: Vec::new(),
            wire,
            time: base * PAUSE,
            written: [0; 2],
            piece: RECORD,
            base,
        };
        for end in 0..2 {
            session.events.push(Event::Opened(session.stream(end)));
        }
        session
    }

    /// A session after its handshake.
    pub(crate) fn begun(wire: Wire, base: u64) -> Self {
        let mut session = Self::opened(wire, base);
        session.request(
            r#"{"jsonrpc":"2.0","id":"begin","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"agent","version":"1.0.0"}}}"#,
        );
        session.answer(
            r#"{"jsonrpc":"2.0","id":"begin","result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"weather","version":"1.4.0"}}}"#,
        );
        session
    }

    /// Calls whose requests are small and whose answers have `size` bytes.
    pub(crate) fn calls(wire: Wire, calls: u64, size: usize) -> Self {
        let mut session = Self::begun(wire, 1);
        for id in 0..calls {
            session.call(id, size);
        }
        session
    }

    /// One call whose answer is written in pieces.
    pub(crate) fn pieces(size: usize, piece: usize) -> Self {
        let mut session = Self::begun(Wire::Lines, 1);
        session.piece = piece;
        session.call(1, size);
        session
    }

    pub(crate) fn call(&mut self, id: u64, size: usize) {
        self.request(&request(id));
        self.answer(&answer(id, size));
    }

    fn request(&mut self, body: &str) {
        let text = match self.wire {
            Wire::Lines => format!("{body}\n"),
            Wire::Http => format!(
                "POST /mcp HTTP/1.1\r\nhost: weather.example:8000\r\nuser-agent: agent/1.0.0\r\naccept: application/json, text/event-stream\r\n\
                 content-type: application/json\r\nmcp-protocol-version: 2025-11-25\r\n\
                 mcp-session-id: 0af7651916cd43dd8448eb211c80319c\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
        };
        self.transfer(0, text.as_bytes());
    }

    fn answer(&mut self, body: &str) {
        let text = match self.wire {
            Wire::Lines => format!("{body}\n"),
            Wire::Http => format!(
                "HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-type: application/json\r\n\
                 mcp-session-id: 0af7651916cd43dd8448eb211c80319c\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
        };
        for piece in text.as_bytes().chunks(self.piece) {
            self.transfer(1, piece);
        }
    }

    /// Both ends of one transfer: the writer's record with the bytes, the reader's with who and when.
    fn transfer(&mut self, way: usize, bytes: &[u8]) {
        let position = Position::Total(self.written[way]);
        self.written[way] += bytes.len() as u64;
        // A pipe is one object, a connection has one at each end.
        let ends = match self.wire {
            Wire::Lines => [way, way],
            Wire::Http => [way, 1 - way],
        };
        let processes = if way == 0 { [CLIENT, SERVER] } else { [SERVER, CLIENT] };
        for (index, (end, pid)) in ends.into_iter().zip(processes).enumerate() {
            self.time += STEP;
            let sent = index == 0;
            self.events.push(Event::Data(Data {
                key: self.key(end),
                direction: if sent { Direction::Sent } else { Direction::Received },
                position,
                span: u32::try_from(bytes.len()).expect("a record is short"),
                bytes: if sent {
                    Bytes::copy_from_slice(bytes)
                } else {
                    Bytes::new()
                },
                missing: if sent { Missing::Nothing } else { Missing::AtOtherEnd },
                pid,
                tid: pid.0,
                entered: Some(Timestamp(self.time - 1_000)),
                returned: Timestamp(self.time),
            }));
        }
    }

    fn key(&self, end: usize) -> StreamKey {
        StreamKey(2 * self.base + end as u64)
    }

    fn stream(&self, end: usize) -> Opened {
        let http = self.wire == Wire::Http;
        let port = if end == 0 { 40_000 } else { 8_000 };
        let address = |port| http.then(|| ([127, 0, 0, 1], port).into());
        Opened {
            key: self.key(end),
            source: if http { Source::Tcp } else { Source::Pipe },
            peer: http.then(|| self.key(1 - end)),
            inode: self.key(end).0,
            local: address(port),
            remote: address(48_000 - port),
            netns: 0,
            pid: CLIENT,
            time: Timestamp(1),
        }
    }
}

/// A request of [`SMALL`] bytes, with its newline.
fn request(id: u64) -> String {
    let head =
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"add","arguments":{{"a":""#);
    fill(head, "\"}}}", SMALL - 1)
}

/// An answer of `size` bytes, with its newline.
pub(crate) fn answer(id: u64, size: usize) -> String {
    let head = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":""#);
    fill(head, "\"}]}}", size - 1)
}

fn fill(mut text: String, end: &str, size: usize) -> String {
    let rest = size.saturating_sub(text.len() + end.len());
    text.extend(std::iter::repeat_n('x', rest));
    text + end
}

/// The same events with bytes of their own, as each record has them that was just read.
pub(crate) fn fresh(events: &[Event]) -> Vec<Event> {
    let mut events = events.to_vec();
    for event in &mut events {
        if let Event::Data(data) = event {
            data.bytes = Bytes::copy_from_slice(&data.bytes);
        }
    }
    events
}

/// A pipeline that is fed the way the daemon does: a drain, then a turn.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) pipeline: Pipeline,
    last: Timestamp,
    since: usize,
    outputs: usize,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self {
            pipeline: Pipeline::new(Limits::default()),
            last: Timestamp(0),
            since: 0,
            outputs: 0,
        }
    }

    pub(crate) fn give(&mut self, events: Vec<Event>) {
        for event in events {
            self.last = self.last.max(event.time());
            self.pipeline.handle_event(event);
            self.since += 1;
            if self.since == TURN {
                self.turn(self.last);
            }
        }
    }

    /// Time passes until everything given is worked through.
    pub(crate) fn settle(&mut self) {
        self.turn(self.last.plus(PAUSE / 2));
    }

    pub(crate) fn turn(&mut self, now: Timestamp) {
        self.since = 0;
        self.last = now;
        self.pipeline.handle_timeout(now);
        while self.pipeline.poll_output().is_some() {
            self.outputs += 1;
        }
    }

    /// How much came out.
    pub(crate) fn finish(mut self) -> usize {
        self.pipeline.finish(Timestamp(u64::MAX / 2));
        self.settle();
        self.outputs
    }
}

/// Everything through a new pipeline.
pub(crate) fn run(events: Vec<Event>) -> usize {
    let mut feed = Feed::new();
    feed.give(events);
    feed.finish()
}

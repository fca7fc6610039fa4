//! Fuzz targets: what an enemy of the observer may send, one function for each place that reads it.
//!
//! `cargo xtask fuzz` looks for inputs that break them; those worth keeping lie in `tests/fuzz/corpus`, and the tests run each of
//! them again. A target panics when a bound or the sum of bytes does not hold.
#![allow(
    clippy::missing_panics_doc,
    clippy::expect_used,
    reason = "to panic is how a target says that something is wrong"
)]

mod tls;

use bytes::Bytes;

use super::event::{Closed, Data, Direction, Event, Missing, Opened, Pid, Position, Source, StreamKey, Timestamp};
use super::framing::coding::{self, Coding};
use super::framing::http1::HttpFramer;
use super::framing::sse::SseParser;
use super::framing::{FrameKind, Framer, Step, hpack};
use super::jsonrpc::{self, Payload};
use super::observation::Side;
use super::reassembly::{Chunk, GapKind};
use super::{Limits, Pipeline};

/// A function that takes any bytes and panics when the core does something that it must not.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("line", line),
    ("http1", http1),
    ("http2", http2),
    ("hpack", header_blocks),
    ("coding", coding),
    ("sse", sse),
    ("jsonrpc", json_rpc),
    ("pipeline", pipeline),
    ("tls", tls::tls),
];

/// Bytes that a framer may hold in these targets.
const MAX_BYTES: usize = 4096;

/// What a framer may hold beyond that: the chunk in hand, and a head of HTTP.
const SLACK: usize = 256 << 10;

/// Newline-delimited JSON, with its eye on what else it may be.
pub fn line(input: &[u8]) {
    frame(Framer::default(), input);
}

/// HTTP/1.1, requests and responses mixed.
pub fn http1(input: &[u8]) {
    frame(Framer::Http(Box::new(HttpFramer::new(0))), input);
}

/// Frames of HTTP/2, from a client, or from a server where the first byte is odd.
pub fn http2(input: &[u8]) {
    let sender = match input.first() {
        Some(first) if first % 2 == 1 => Side::Server,
        _ => Side::Client,
    };
    frame(Framer::http2(0, sender), input);
}

/// Header blocks of one direction; after each one that is broken the table is not known.
pub fn header_blocks(input: &[u8]) {
    let mut decoder = hpack::Decoder::new();
    for block in chunks(input) {
        let bytes = match block {
            Chunk::Bytes { bytes, .. } => bytes,
            Chunk::Gap { .. } => {
                decoder.forget();
                continue;
            }
        };
        if decoder.decode(&bytes, |_| {}).is_err() {
            decoder.forget();
        }
    }
}

/// Coded content; the first byte of the stream says how it is coded.
pub fn coding(input: &[u8]) {
    let codings = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let coding = codings[usize::from(*first) % codings.len()];
    let mut decoder = coding::Decoder::new(coding).expect("a coding that is known");
    for chunk in chunks(rest) {
        let Chunk::Bytes { bytes, .. } = chunk else { continue };
        if decoder.decode(&bytes).is_err() {
            return;
        }
    }
}

/// An event stream.
pub fn sse(input: &[u8]) {
    let mut parser = SseParser::default();
    for chunk in chunks(input) {
        match chunk {
            Chunk::Bytes { start, bytes, .. } => {
                parser.feed(start, start + bytes.len() as u64, bytes);
                while let Some((start, end, event)) = parser.step(MAX_BYTES) {
                    assert!(start <= end, "an event that ends before it begins");
                    assert!(event.data.bytes.len() <= MAX_BYTES + SLACK, "an event beyond its bound");
                }
            }
            Chunk::Gap { length, .. } => parser.gap(length),
        }
        assert!(
            parser.held_bytes() <= MAX_BYTES + SLACK,
            "an event stream holds too much"
        );
    }
}

/// One message body, whole and as what is left of a longer one.
pub fn json_rpc(input: &[u8]) {
    let whole = Payload {
        bytes: Bytes::copy_from_slice(input),
        length: input.len() as u64,
        ..Payload::default()
    };
    let (head, tail) = input.split_at(input.len() / 2);
    let cut = Payload {
        bytes: Bytes::copy_from_slice(head),
        tail: Bytes::copy_from_slice(tail),
        length: input.len() as u64 * 2,
        cut: true,
        guessed: false,
    };
    for payload in [whole, cut] {
        let _ = jsonrpc::parse(&payload);
    }
}

/// The input as the chunks of one direction of a stream.
///
/// ```text
/// | bytes of a chunk, 0: all | a hole after so many chunks, 0: none | the stream …
/// ```
fn chunks(input: &[u8]) -> impl Iterator<Item = Chunk> {
    let (size, holes, stream) = match input {
        [size, holes, stream @ ..] => (usize::from(*size), u64::from(*holes), stream),
        _ => (0, 0, input),
    };
    let size = if size == 0 { stream.len().max(1) } else { size };
    let mut position = 0;
    stream.chunks(size).zip(1_u64..).flat_map(move |(piece, number)| {
        let bytes = Chunk::Bytes {
            start: position,
            bytes: Bytes::copy_from_slice(piece),
            fresh: number % 2 == 1,
        };
        position += piece.len() as u64;
        let hole = (holes != 0 && number.is_multiple_of(holes)).then(|| {
            let kind = if number.is_multiple_of(3) {
                GapKind::Muted
            } else {
                GapKind::Undelivered
            };
            position += holes;
            Chunk::Gap {
                start: position - holes,
                length: holes,
                kind,
            }
        });
        std::iter::once(bytes).chain(hole)
    })
}

/// Feeds a framer to the end: it stays within bounds, goes on, and accounts for no more than it was given.
fn frame(mut framer: Framer, input: &[u8]) {
    let (mut given, mut told) = (0, 0);
    for chunk in chunks(input) {
        if let Chunk::Bytes { bytes, .. } = &chunk {
            given += bytes.len() as u64;
        }
        framer.feed(chunk);
        let Some(accounted) = steps(&mut framer, input.len()) else {
            return;
        };
        told += accounted;
        assert!(told <= given, "{told} bytes accounted for, {given} given");
        assert!(framer.held_bytes() <= MAX_BYTES + SLACK, "a framer holds too much");
    }
    framer.finish();
    steps(&mut framer, input.len());
}

/// Steps until more is wanted; the bytes that were accounted for, or `None` when the framer has nothing more to do with this stream.
fn steps(framer: &mut Framer, length: usize) -> Option<u64> {
    let mut told = 0;
    // A step uses up a byte, ends a message, or is the last.
    for _ in 0..4 * length + 64 {
        let step = framer.step(MAX_BYTES);
        told += framer.take_used();
        match step {
            Step::NeedMore => {
                let rejected = match framer {
                    Framer::Http(http) => http.take_rejected(),
                    _ => None,
                };
                return rejected.is_none().then_some(told);
            }
            Step::Frame(frame) if frame.kind == FrameKind::Noise => return None,
            Step::Response => {}
            Step::Frame(frame) => assert!(frame.start <= frame.end, "a frame that ends before it begins"),
            Step::Lost { bytes, .. } => told += bytes,
        }
    }
    panic!("a framer does not come to an end");
}

/// Streams of the stage of [`pipeline`]; each has two ends.
const STREAMS: usize = 4;

/// Four connections and what happens on them, in the order of the input.
///
/// ```text
/// | what: 2 bits stream, 1 bit end, 1 bit whether the other end reads, 4 bits what happens | length | bytes …
/// ```
pub fn pipeline(input: &[u8]) {
    let mut stage = Stage::new();
    let mut rest = input;
    while let [what, length, after @ ..] = rest {
        rest = after;
        let (stream, end, read) = (usize::from(what & 3), usize::from(what >> 2 & 1), what & 8 != 0);
        let (writer, reader) = (2 * stream + end, 2 * stream + (1 - end));
        stage.now += 50_000;
        match what >> 4 {
            0 => stage.now += u64::from(*length) * 100_000_000,
            1 => stage.close(writer),
            2 => stage.sent[writer] += 1 + u64::from(*length),
            _ => {
                let (bytes, after) = rest.split_at(rest.len().min(1 + usize::from(*length)));
                rest = after;
                stage.send(writer, reader, bytes, read);
            }
        }
        stage.pipeline.handle_timeout(Timestamp(stage.now));
        check(&mut stage.pipeline);
    }
    stage.pipeline.finish(Timestamp(stage.now + 1));
    check(&mut stage.pipeline);
}

/// The object at an end.
const fn key(end: usize) -> StreamKey {
    StreamKey(end as u64 + 1)
}

struct Stage {
    pipeline: Pipeline,
    now: u64,
    /// Bytes sent at each end.
    sent: [u64; 2 * STREAMS],
}

impl Stage {
    fn new() -> Self {
        let mut pipeline = Pipeline::new(limits());
        for end in 0..2 * STREAMS {
            let source = if end < STREAMS { Source::Tcp } else { Source::Unix };
            pipeline.handle_event(Event::Opened(Opened {
                key: key(end),
                source,
                peer: Some(key(end ^ 1)),
                inode: key(end).0,
                local: None,
                remote: None,
                netns: 0,
                pid: Pid(1),
                time: Timestamp(1),
            }));
        }
        Self {
            pipeline,
            now: 1_000_000_000,
            sent: [0; 2 * STREAMS],
        }
    }

    fn send(&mut self, writer: usize, reader: usize, bytes: &[u8], read: bool) {
        let Ok(span) = u32::try_from(bytes.len()) else { return };
        let position = self.sent[writer];
        self.sent[writer] += u64::from(span);
        let data = |end, direction, bytes, missing| Data {
            key: key(end),
            direction,
            position: Position::Total(position),
            span,
            bytes,
            missing,
            pid: Pid(if end % 2 == 0 { 10 } else { 20 }),
            tid: 1,
            entered: Some(Timestamp(self.now)),
            returned: Timestamp(self.now + 10_000),
        };
        let sent = data(writer, Direction::Sent, Bytes::copy_from_slice(bytes), Missing::Nothing);
        let received = data(reader, Direction::Received, Bytes::new(), Missing::AtOtherEnd);
        self.pipeline.handle_event(Event::Data(sent));
        if read {
            self.pipeline.handle_event(Event::Data(received));
        }
    }

    fn close(&mut self, end: usize) {
        self.pipeline.handle_event(closed(key(end), self.now));
    }
}

/// Few streams, so that some are let go.
fn limits() -> Limits {
    Limits {
        streams: 8,
        stream_bytes: MAX_BYTES,
        call_deadline: 5_000_000_000,
        ..Limits::default()
    }
}

/// An end of a stream is closed.
const fn closed(key: StreamKey, now: u64) -> Event {
    Event::Closed(Closed {
        key,
        direction: Direction::Sent,
        readers_left: false,
        writers_left: false,
        pid: Pid(10),
        time: Timestamp(now),
    })
}

/// Works off what there is, and holds every flow to the sum of its bytes.
fn check(pipeline: &mut Pipeline) {
    while pipeline.poll_output().is_some() {}
    for (_, link) in pipeline.streams.iter() {
        for flow in link.flows() {
            assert!(flow.is_balanced(), "bytes are not accounted for: {flow:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::TARGETS;

    #[test]
    fn every_input_kept_is_survived() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let folder = std::fs::read_dir(corpus.join(name)).expect("every target has a corpus");
            let mut inputs = 0;
            for file in folder {
                let input = std::fs::read(file.expect("a file of the corpus").path()).expect("a readable file");
                target(&input);
                inputs += 1;
            }
            assert!(inputs > 0, "the corpus of {name} is empty");
        }
    }
}

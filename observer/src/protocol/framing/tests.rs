//! What the tests of all framers share: pieces in, one word a frame out, every byte accounted for after each step; and what
//! must hold of each framer wherever its bytes are cut, torn or joined.

use bytes::Bytes;
use fluke_hpack::Encoder;
use proptest::prelude::*;

use super::http1::HttpFramer;
use super::{Chunk, Ending, Frame, FrameKind, Framer, MalformedReason, Payload, Step, Suspicion};
use crate::protocol::reassembly::GapKind;

/// Bytes, or a hole of so many.
pub(super) type Piece<'a> = Result<&'a [u8], u64>;

/// Pieces in, one word a frame out. The first `torn` pieces do not begin where a call's bytes begin.
pub(super) fn run(mut framer: Framer, pieces: &[Piece<'_>], torn: usize, hole: GapKind) -> String {
    let mut out = Vec::new();
    let (mut at, mut given, mut used) = (0, 0, 0);
    for (index, piece) in pieces.iter().enumerate() {
        framer.feed(match *piece {
            Ok(bytes) => Chunk::Bytes {
                start: at,
                bytes: Bytes::copy_from_slice(bytes),
                fresh: index >= torn,
            },
            Err(length) => Chunk::Gap {
                start: at,
                length,
                kind: hole,
            },
        });
        at += piece.map_or_else(|length| length, |bytes| bytes.len() as u64);
        given += piece.map_or(0, |bytes| bytes.len() as u64);
        drain(&mut framer, &mut out);
        used += framer.take_used();
        let told = used + lost(&out) + framer.held_bytes() as u64;
        assert_eq!(given, told, "{}", out.join(" "));
    }
    framer.finish();
    drain(&mut framer, &mut out);
    used += framer.take_used();
    assert_eq!(given, used + lost(&out), "{}", out.join(" "));
    out.join(" ")
}

fn drain(framer: &mut Framer, out: &mut Vec<String>) {
    loop {
        match framer.step(1 << 20) {
            Step::NeedMore => return,
            Step::Response => {}
            Step::Lost { bytes, broken, .. } => {
                out.push(format!("lost:{bytes}{}", broken.map_or("", MalformedReason::name)));
            }
            Step::Frame(frame) => out.push(word(frame)),
        }
    }
}

fn word(frame: Frame) -> String {
    let Frame {
        start,
        end,
        stream,
        kind,
    } = frame;
    let word = match kind {
        FrameKind::Line(payload) => format!("{start}..{end}={}", text(&payload)),
        FrameKind::Stray => format!("{start}..{end}:stray"),
        FrameKind::Request(head) => format!("{:?} {}", head.verb, head.path),
        FrameKind::Response(head) => head.status.unwrap_or(0).to_string(),
        FrameKind::Body(payload) => format!("body={}", text(&payload)),
        FrameKind::Event(event) => format!("event={}", text(&event.data)),
        FrameKind::End(Ending::Whole) => "end".to_owned(),
        FrameKind::End(ending) => format!("end:{ending:?}"),
        FrameKind::Preface => "preface".to_owned(),
        FrameKind::GoAway(last) => format!("goaway:{last}"),
        other => format!("{other:?}"),
    };
    if stream == 0 { word } else { format!("{stream}:{word}") }
}

/// A hole is an ellipsis.
fn text(payload: &Payload) -> String {
    let bytes = String::from_utf8_lossy(payload.text());
    if payload.cut {
        format!("{bytes}…{}", String::from_utf8_lossy(&payload.tail))
    } else {
        bytes.into_owned()
    }
}

fn lost(out: &[String]) -> u64 {
    let lost = out.iter().filter_map(|word| word.strip_prefix("lost:"));
    lost.map(|word| {
        let number = word.trim_end_matches(|byte: char| !byte.is_ascii_digit());
        number.parse::<u64>().expect("losses are numbers")
    })
    .sum()
}

/// What a stream's bytes are framed by.
#[derive(Clone, Copy, Debug)]
enum Way {
    Lines,
    Http1,
    Events,
    Http2,
}

impl Way {
    fn framer(self) -> Framer {
        match self {
            Self::Lines => Framer::Line(Box::default(), Suspicion::Settled),
            Self::Http1 | Self::Events => Framer::Http(Box::new(HttpFramer::new(0))),
            Self::Http2 => Framer::http2(0, super::Side::Server),
        }
    }

    /// What a side writes, a message a write: `{"n":0}` to `{"n":5}`.
    fn writes(self) -> Vec<Vec<u8>> {
        let bodies: Vec<String> = (0..6).map(|number| format!("{{\"n\":{number}}}")).collect();
        match self {
            Self::Lines => bodies.iter().map(|body| format!("{body}\n").into_bytes()).collect(),
            Self::Http1 => bodies
                .iter()
                .enumerate()
                .map(|(index, body)| http1(index, body))
                .collect(),
            Self::Events => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                let chunk = |text: String| format!("{:x}\r\n{text}\r\n", text.len());
                let events = bodies
                    .iter()
                    .map(|body| chunk(format!(": note\nevent: message\ndata: {body}\r\n\r\n")));
                let all = std::iter::once(head.to_owned()).chain(events);
                all.chain(std::iter::once("0\r\n\r\n".to_owned()))
                    .map(String::into_bytes)
                    .collect()
            }
            Self::Http2 => http2(&bodies),
        }
    }

    /// The words of what is whole: lines, or contents and events.
    fn bodies(self, told: &str) -> Vec<String> {
        let marks: &[&str] = match self {
            Self::Lines => &["="],
            Self::Http1 | Self::Events | Self::Http2 => &["body=", "event="],
        };
        let words = told.split(' ').filter(|word| !word.contains('…'));
        let body = |word: &str| marks.iter().find_map(|mark| Some(word.split_once(mark)?.1.to_owned()));
        words.filter_map(body).collect()
    }

    /// The write with which a body begins, and what it needs.
    fn begins(self, body: usize) -> usize {
        match self {
            Self::Lines | Self::Http1 => body,
            Self::Events => 1 + body,
            Self::Http2 => 1 + body / 2 * 3 + body % 2,
        }
    }
}

/// By length and by chunks in turn.
fn http1(index: usize, body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let length = body.len();
    if index.is_multiple_of(2) {
        format!("{head}content-length: {length}\r\n\r\n{body}").into()
    } else {
        let (one, two) = body.split_at(3);
        let rest = two.len();
        format!("{head}transfer-encoding: chunked\r\n\r\n3\r\n{one}\r\n{rest}\r\n{two}\r\n0\r\n\r\n").into()
    }
}

/// Two streams at once: content in two frames, events, and so on.
fn http2(bodies: &[String]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let mut head = |stream: u32, media: &str| {
        let fields = [
            (":status", "200"),
            ("content-type", media),
            ("x-stream", &stream.to_string()),
        ];
        let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        let block = encoder.encode(fields.iter().map(|(name, value)| (&name[..], &value[..])));
        frame(1, 4, stream, &block)
    };
    let mut writes = vec![frame(4, 0, 0, &[])];
    for (pair, stream) in bodies.chunks(2).zip((1..).step_by(4)) {
        let (first, rest) = pair[0].split_at(3);
        let event = format!("event: message\ndata: {}\n\n", pair[1]);
        writes.push([head(stream, "application/json"), frame(0, 0, stream, first.as_bytes())].concat());
        writes.push(
            [
                head(stream + 2, "text/event-stream"),
                frame(0, 0, stream + 2, event.as_bytes()),
            ]
            .concat(),
        );
        writes.push([frame(0, 1, stream, rest.as_bytes()), frame(0, 1, stream + 2, &[])].concat());
    }
    writes
}

fn any_way() -> impl Strategy<Value = Way> {
    proptest::sample::select(vec![Way::Lines, Way::Http1, Way::Events, Way::Http2])
}

proptest! {
    #[test]
    fn cutting_anywhere_changes_nothing(way in any_way(), cuts in proptest::collection::vec(1_usize..50, 1..8)) {
        let bytes = way.writes().concat();
        let whole = run(way.framer(), &[Ok(&bytes)], 0, GapKind::Told);
        prop_assert_eq!(way.bodies(&whole).len(), 6, "{}", whole);
        let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.push(Ok(piece));
            rest = after;
            if rest.is_empty() { break }
        }
        prop_assert_eq!(run(way.framer(), &pieces, 0, GapKind::Told), whole);
    }

    #[test]
    fn dropping_anything_makes_nothing_up(
        way in any_way(),
        holes in proptest::collection::vec((0_usize..700, 1_usize..60), 1..4),
        told in any::<bool>(),
    ) {
        let writes = way.writes();
        let all = way.bodies(&run(way.framer(), &[Ok(&writes.concat())], 0, GapKind::Told));
        let is_in_hole = |at: usize| holes.iter().any(|(start, length)| (*start..start + length).contains(&at));
        let (mut pieces, mut at, mut torn) = (Vec::new(), 0, false);
        for write in &writes {
            // Runs of bytes that are there and that are not.
            for run in write.iter().enumerate().collect::<Vec<_>>().chunk_by(|a, b| is_in_hole(at + a.0) == is_in_hole(at + b.0)) {
                let (from, length) = (run[0].0, run.len());
                let hole = is_in_hole(at + from);
                torn |= hole;
                pieces.push(if hole { Err(length as u64) } else { Ok(&write[from..from + length]) });
            }
            at += write.len();
        }
        let kind = if told { GapKind::Told } else { GapKind::Missing };
        let seen = way.bodies(&run(way.framer(), &pieces, 0, kind));
        // Of a content whose head is lost, the rest is what there is.
        let known = |body: &String| all.iter().any(|other| other == body || (matches!(way, Way::Http2) && other.ends_with(&**body)));
        prop_assert!(seen.iter().all(known), "{:?}", seen);
        prop_assert!(torn || seen == all, "{:?}", seen);
    }

    #[test]
    fn joining_at_any_point_makes_nothing_up(way in any_way(), from in 0_usize..700) {
        let writes = way.writes();
        let all = way.bodies(&run(way.framer(), &[Ok(&writes.concat())], 0, GapKind::Told));
        let (mut pieces, mut torn, mut left_out) = (Vec::new(), 0, from);
        for write in &writes {
            let skipped = left_out.min(write.len());
            torn += usize::from(skipped > 0);
            pieces.push(Ok(&write[skipped..]));
            left_out -= skipped;
        }
        let told = run(Framer::default(), &pieces, torn, GapKind::Told);
        let seen = way.bodies(&told);
        // What was joined in the middle is what is left of it; what begins after is whole.
        prop_assert!(seen.iter().all(|body| all.iter().any(|other| other.ends_with(&**body))), "{}", told);
        for number in (0..all.len()).filter(|number| way.begins(*number) >= torn) {
            let body = format!("{{\"n\":{number}}}");
            prop_assert!(told.contains(&format!("={body}")), "{} is not in {}", number, told);
        }
    }
}

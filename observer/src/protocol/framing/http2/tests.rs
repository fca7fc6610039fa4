//! HTTP/2 frames in, one word a frame out.

use fluke_hpack::Encoder;
use proptest::prelude::*;

use super::*;
use crate::protocol::framing::tests::{self, Piece};
use crate::protocol::framing::{Framer, Step};
use crate::protocol::reassembly::GapKind;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame with its payload.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn block(encoder: &mut Encoder<'_>, fields: &[(&str, &str)]) -> Vec<u8> {
    encoder.encode(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":path", "/mcp"),
    ("content-type", "application/json"),
    ("user-agent", "a/1"),
];

fn run(pieces: &[Piece<'_>]) -> String {
    play(pieces, 0)
}

/// The first `torn` pieces do not begin where a call's bytes begin.
fn play(pieces: &[Piece<'_>], torn: usize) -> String {
    tests::run(Framer::default(), pieces, torn, GapKind::Missing)
}

fn check(bytes: &[u8], expected: &str) {
    assert_eq!(run(&[Ok(bytes)]), expected);
    for size in [1, 7] {
        let pieces: Vec<_> = bytes.chunks(size).map(Ok).collect();
        assert_eq!(run(&pieces), expected, "in pieces of {size}");
    }
}

/// A client that posts twice, the second time while the first post is not complete.
fn two_posts() -> Vec<u8> {
    writes().concat()
}

fn writes() -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    vec![
        PREFACE.to_vec(),
        frame(4, 0, 0, &[0, 1, 0, 0, 16, 0]),
        frame(8, 0, 0, &[0, 0, 255, 255]),
        frame(HEADERS, 4, 1, &block(&mut encoder, &POST)),
        frame(DATA, 0, 1, b"{\"a\":"),
        frame(HEADERS, 4, 3, &block(&mut encoder, &POST)),
        frame(DATA, 0, 3, b"{\"b\""),
        frame(DATA, 1, 1, b"1}"),
        frame(6, 0, 0, b"12345678"),
        frame(DATA, 1, 3, b":2}"),
    ]
}

const TWO_POSTS: &str = "preface 1:Post /mcp 3:Post /mcp 1:body={\"a\":1} 1:end 3:body={\"b\":2} 3:end";

#[test]
fn streams_that_are_mixed() {
    check(&two_posts(), TWO_POSTS);
}

#[test]
fn padding_priority_and_continuation() {
    let mut encoder = Encoder::new();
    let fields = block(&mut encoder, &POST);
    let (a, rest) = fields.split_at(3);
    let (b, c) = rest.split_at(5);
    let padded = [&[4], &[0, 0, 0, 0, 9][..], a, &[0; 4]].concat();
    let bytes = [
        PREFACE.to_vec(),
        frame(HEADERS, 0x8 | 0x20, 1, &padded),
        frame(CONTINUATION, 0, 1, b),
        frame(CONTINUATION, 4, 1, c),
        frame(2, 0, 3, &[0, 0, 0, 0, 9]),
        frame(DATA, 0x8, 1, b"\x03{}\0\0\0"),
        frame(DATA, 0x8 | 1, 1, b"\x00"),
        // A kind that nobody knows, and an end in trailers.
        frame(0xbe, 0xff, 7, b"grease"),
        frame(HEADERS, 4, 3, &block(&mut encoder, &POST)),
        frame(DATA, 0, 3, b"[]"),
        frame(HEADERS, 5, 3, &block(&mut encoder, &[("x-trailer", "1")])),
    ];
    check(
        &bytes.concat(),
        "preface 1:Post /mcp 1:body={} 1:end 3:Post /mcp 3:body=[] 3:end",
    );
}

#[test]
fn responses_interim_events_resets_and_the_end() {
    let mut encoder = Encoder::new();
    let events = [(":status", "200"), ("content-type", "text/event-stream")];
    let bytes = [
        frame(4, 0, 0, &[]),
        frame(HEADERS, 4, 1, &block(&mut encoder, &[(":status", "103")])),
        frame(HEADERS, 4, 1, &block(&mut encoder, &events)),
        frame(HEADERS, 4, 3, &block(&mut encoder, &events)),
        frame(DATA, 0, 1, b"data: a\n\ndata: "),
        frame(DATA, 0, 3, b": ping\n\ndata: x\n\n"),
        frame(DATA, 0, 1, b"b\n\n"),
        frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]),
        frame(DATA, 1, 1, b""),
        frame(HEADERS, 5, 5, &block(&mut encoder, &[(":status", "202")])),
        frame(HEADERS, 4, 7, &block(&mut encoder, &[(":status", "200")])),
        frame(DATA, 0, 7, b"{\"half"),
        frame(GOAWAY, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 0]),
    ];
    let expected =
        "1:103 1:200 3:200 1:event=a 3:event=x 1:event=b 3:Reset 1:end 5:202 5:end 7:200 goaway:5 lost:6 7:end:Short";
    let bytes = bytes.concat();
    let whole: Vec<_> = bytes.chunks(9).take(1).chain([&bytes[9..]]).map(Ok).collect();
    assert_eq!(run(&whole), expected);
}

#[test]
fn holes() {
    let bytes = two_posts();
    let find = |text: &[u8]| memchr::memmem::find(&bytes, text).unwrap();
    // In content, which goes on; in a header block, whose names are not known then; over several frames.
    let torn = find(b"\"a\"");
    assert_eq!(
        run(&[Ok(&bytes[..torn]), Err(3), Ok(&bytes[torn + 3..])]),
        TWO_POSTS.replace("{\"a\":1}", "{…:1}")
    );
    let torn = find(b"/mcp");
    assert_eq!(
        run(&[Ok(&bytes[..torn]), Err(4), Ok(&bytes[torn + 4..])]),
        "preface lost:3 3:Post /mcp 1:body={\"a\":1} 1:end 3:body={\"b\":2} 3:end"
    );
    let (torn, goes_on) = (find(b"/mcp"), find(b"{\"b\"") - HEADER);
    assert_eq!(
        run(&[Ok(&bytes[..torn]), Err((goes_on - torn) as u64), Ok(&bytes[goes_on..])]),
        "preface lost:3 1:body=1} 1:end 3:body={\"b\":2} 3:end"
    );
}

/// A receiver that counts may close or reset the stream before the frame that ends it (RFC 9113, 8.1.1).
#[test]
fn content_is_whole_when_its_length_has_come() {
    fn check(after: &[Vec<u8>], expected: &str) {
        let mut encoder = Encoder::new();
        let fields = [
            (":status", "200"),
            ("content-type", "application/json"),
            ("content-length", "4"),
        ];
        let (settings, head) = (frame(4, 0, 0, &[]), frame(HEADERS, 4, 1, &block(&mut encoder, &fields)));
        let padded = frame(DATA, 8, 1, b"\x01}]\0");
        let bytes = [&head[..], &frame(DATA, 0, 1, b"[{"), &padded, &after.concat()].concat();
        assert_eq!(run(&[Ok(&settings), Ok(&bytes)]), expected);
    }
    let whole = "1:200 1:body=[{}] 1:end";
    check(&[], whole);
    check(&[frame(DATA, 1, 1, b"")], whole);
    check(
        &[frame(HEADERS, 5, 1, &block(&mut Encoder::new(), &[("x", "1")]))],
        whole,
    );
    check(&[frame(RST_STREAM, 0, 1, &[0; 4])], &format!("{whole} 1:Reset"));
    check(&[frame(DATA, 1, 1, b",")], &format!("{whole} lost:1bad_http"));
    let mut encoder = Encoder::new();
    let none = block(&mut encoder, &[(":status", "202"), ("content-length", "0")]);
    let bytes = [frame(HEADERS, 4, 1, &none), frame(DATA, 1, 1, b"")].concat();
    assert_eq!(run(&[Ok(&frame(4, 0, 0, &[])), Ok(&bytes)]), "1:202 1:end");
    // What a hole may have held is not counted on.
    let head = frame(
        HEADERS,
        4,
        1,
        &block(&mut encoder, &[(":status", "200"), ("content-length", "3")]),
    );
    let torn = [head, frame(DATA, 0, 1, b"[1234]")[..HEADER + 2].to_vec()].concat();
    assert_eq!(
        run(&[Ok(&frame(4, 0, 0, &[])), Ok(&torn), Err(2), Ok(b"4]")]),
        "1:200 lost:4 1:end:Short"
    );
}

#[test]
fn broken_rules() {
    let begun = |more: &[u8]| [PREFACE, &frame(4, 0, 0, &[]), more].concat();
    let mut encoder = Encoder::new();
    let fields = block(&mut encoder, &POST);
    let head = frame(HEADERS, 4, 1, &fields);
    let after = [
        &head[..],
        &frame(DATA, 0, 0, b"{}"),
        &frame(HEADERS, 4, 5, &fields),
        &frame(DATA, 1, 5, b"{}"),
    ];
    assert_eq!(
        run(&[Ok(&begun(&after.concat()))]),
        "preface 1:Post /mcp lost:9bad_http lost:2 5:Post /mcp 5:body={} 5:end 1:end:Short"
    );
}

#[test]
fn blocks_without_end_and_streams_without_end_are_bounded() {
    let mut framer = Framer::http2(0, Side::Client);
    let mut at = 0;
    let mut feed = |framer: &mut Framer, bytes: Vec<u8>| {
        let (start, fresh) = (at, true);
        at += bytes.len() as u64;
        framer.feed(Chunk::Bytes {
            start,
            bytes: bytes.into(),
            fresh,
        });
        while framer.step(1 << 20) != Step::NeedMore {}
        assert!(framer.held_bytes() < 4 << 20, "{}", framer.held_bytes());
    };
    feed(&mut framer, frame(HEADERS, 0, 1, b"x"));
    for _ in 0..1000 {
        feed(&mut framer, frame(CONTINUATION, 0, 1, &[0x82; 16_000]));
    }
    feed(&mut framer, frame(CONTINUATION, 4, 1, &[0x82]));
    let mut encoder = Encoder::new();
    let fields = block(&mut encoder, &POST);
    for stream in (3..5000).step_by(2) {
        feed(&mut framer, frame(HEADERS, 4, stream, &fields));
        feed(&mut framer, frame(DATA, 0, stream, &[b'1'; 16_000]));
        feed(&mut framer, frame(DATA, 0, stream, &[b'1'; 16_000]));
    }
}

proptest! {
    #[test]
    fn any_bytes_at_all(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..10)) {
        let mut all = vec![Ok(PREFACE)];
        all.extend(pieces.iter().map(|piece| Ok(&piece[..])));
        run(&all);
    }

    #[test]
    fn any_frames_at_all(
        frames in proptest::collection::vec((0_u8..12, any::<u8>(), 0_u32..6, proptest::collection::vec(any::<u8>(), 0..20)), 0..30),
        hole in proptest::option::of((0_usize..30, 1_u64..40)),
    ) {
        let frames: Vec<_> = frames.iter().map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload)).collect();
        let mut all = vec![Ok(PREFACE)];
        all.extend(frames.iter().map(|frame| Ok(&frame[..])));
        if let Some((at, length)) = hole {
            all.insert(at.min(all.len()), Err(length));
        }
        run(&all);
    }

    #[test]
    fn joined_at_any_point(from in 0_usize..200) {
        // What begins after is found whole; of what began before, nothing is made up.
        let writes = writes();
        let (mut pieces, mut torn, mut from) = (Vec::new(), 0, from);
        for write in &writes {
            let left_out = from.min(write.len());
            torn += usize::from(left_out > 0);
            pieces.push(Ok(&write[left_out..]));
            from -= left_out;
        }
        let told = play(&pieces, torn);
        for word in told.split(' ') {
            let known = TWO_POSTS.split(' ').any(|other| other == word);
            let part = ["lost:", "1:body=", "3:body=", "1:Post", "3:Post", "1:end:", "3:end:"];
            let part = word.ends_with(":stray") || part.iter().any(|part| word.starts_with(part)) || word.is_empty();
            prop_assert!(known || part, "{}", told);
        }
    }
}

//! Real HTTP/2: what httpx, curl, nghttp and h2load said to hypercorn and it to them, through the pipeline.
//!
//! No root, no kernel. `tests/captures/http2/record.py` says what is on a tape and how it was made.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use observer::protocol::event::{Data, Direction, Event, Missing, Opened, Pid, Position, Source, StreamKey, Timestamp};
use observer::protocol::observation::{Observation, Output};
use observer::protocol::{Limits, Pipeline};

/// A millisecond.
const MILLI: u64 = 1_000_000;

/// One write: on which connection, by whom, what.
type Write = (u64, Direction, Bytes);

fn tape(name: &str) -> Vec<Write> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures/http2");
    let tape = std::fs::read(folder.join(name)).expect("the tapes are part of the source");
    let (mut rest, mut connection, mut writes) = (&tape[..], 0, Vec::new());
    while let Some(side) = rest.split_off_first() {
        if *side == 2 {
            connection += 1;
            continue;
        }
        let length = rest.split_off(..4).expect("a tape is whole");
        let length = u32::from_be_bytes(length.try_into().expect("it is four bytes"));
        let bytes = rest.split_off(..length as usize).expect("a tape is whole");
        let direction = if *side == 0 {
            Direction::Sent
        } else {
            Direction::Received
        };
        writes.push((connection, direction, Bytes::copy_from_slice(bytes)));
    }
    writes
}

/// How many calls end in which way, as `method tool outcome status`; every call that began must have ended.
fn play(writes: &[Write], piece: usize) -> BTreeMap<String, usize> {
    let mut pipeline = Pipeline::new(Limits::default());
    let mut positions = BTreeMap::new();
    let mut now = 1_000 * MILLI;
    let (mut begun, mut calls, mut over) = (0, BTreeMap::new(), 0);
    let mut take = |pipeline: &mut Pipeline| {
        while let Some(output) = pipeline.poll_output() {
            match output {
                Output::Observation(Observation::CallBegan(_)) => begun += 1,
                Output::Observation(Observation::Call(call)) => {
                    over += 1;
                    let target = call.target.unwrap_or_default();
                    let line = format!("{} {target} {} {}", call.method, call.outcome.name(), call.status);
                    *calls.entry(line).or_default() += 1;
                }
                Output::Lost { reason, .. } => *calls.entry(format!("lost {}", reason.label())).or_default() += 1,
                Output::Observation(Observation::Malformed { reason, .. }) => {
                    *calls.entry(format!("malformed {}", reason.name())).or_default() += 1;
                }
                _ => {}
            }
        }
    };
    for (connection, direction, bytes) in writes {
        let (client, server) = (StreamKey(2 * connection), StreamKey(2 * connection + 1));
        let (from, to, pid) = match direction {
            Direction::Sent => (client, server, 10),
            Direction::Received => (server, client, 20),
        };
        let position = positions.entry(from).or_insert_with(|| {
            pipeline.handle_event(opened(from, to, now));
            0
        });
        for bytes in bytes.chunks(piece) {
            now += MILLI / 10;
            pipeline.handle_event(Event::Data(Data {
                key: from,
                direction: Direction::Sent,
                position: Position::Total(*position),
                span: u32::try_from(bytes.len()).expect("a write is short"),
                bytes: Bytes::copy_from_slice(bytes),
                missing: Missing::Nothing,
                pid: Pid(pid),
                tid: pid,
                entered: Some(Timestamp(now - 1000)),
                returned: Timestamp(now),
            }));
            *position += bytes.len() as u64;
        }
        pipeline.handle_timeout(Timestamp(now));
        take(&mut pipeline);
    }
    for _ in 0..3 {
        now += 1_500 * MILLI;
        pipeline.handle_timeout(Timestamp(now));
        take(&mut pipeline);
    }
    pipeline.finish(Timestamp(now));
    take(&mut pipeline);
    assert_eq!(begun, over);
    calls
}

fn opened(key: StreamKey, peer: StreamKey, now: u64) -> Event {
    Event::Opened(Opened {
        key,
        source: Source::Tcp,
        peer: Some(peer),
        inode: key.0,
        local: None,
        remote: None,
        netns: 0,
        pid: Pid(0),
        time: Timestamp(now),
    })
}

/// What a tape tells, whole and in any pieces.
fn check(name: &str, expected: &[(&str, usize)]) {
    let writes = tape(name);
    let expected: BTreeMap<String, usize> = expected
        .iter()
        .map(|(line, count)| ((*line).to_owned(), *count))
        .collect();
    for piece in [usize::MAX, 1000, 100, 7, 1] {
        assert_eq!(play(&writes, piece), expected, "{name} in pieces of {piece}");
    }
}

#[test]
fn calls_at_once_and_in_a_row_of_httpx() {
    check(
        "httpx.tape",
        &[
            ("tools/call add ok 200", 6),
            ("tools/call events ok 200", 4),
            ("tools/call wait ok 200", 1),
        ],
    );
}

#[test]
fn curl_with_prior_knowledge_and_coded_answers() {
    check(
        "curl-prior-knowledge.tape",
        &[("tools/call add ok 200", 2), ("tools/call events ok 200", 1)],
    );
}

#[test]
fn an_upgrade_that_the_server_does_not_take() {
    check(
        "curl-upgrade.tape",
        &[("tools/call add ok 200", 2), ("tools/call events ok 200", 1)],
    );
}

#[test]
fn an_upgrade_with_priorities_and_padding() {
    check("nghttp-upgrade.tape", &[("tools/call add ok 200", 1)]);
}

#[test]
fn many_calls_at_once_of_h2load() {
    check("h2load.tape", &[("tools/call add ok 200", 40)]);
}

#[test]
fn joined_at_any_write() {
    for name in ["httpx.tape", "h2load.tape", "curl-prior-knowledge.tape"] {
        let writes = tape(name);
        let whole: usize = play(&writes, usize::MAX).values().sum();
        for from in 1..writes.len() {
            let told = play(&writes[from..], usize::MAX);
            // Nothing is made up: every call is one of those, and good; one whose answer came as the observer did is not told.
            for line in told.keys() {
                assert!(
                    line.ends_with(" ok 200") || line.starts_with("lost "),
                    "{name} from {from}: {told:?}"
                );
            }
            let calls: usize = told
                .iter()
                .filter(|(line, _)| line.starts_with("tools"))
                .map(|(_, count)| count)
                .sum();
            assert!(calls <= whole, "{name} from {from}: {told:?}");
        }
    }
}

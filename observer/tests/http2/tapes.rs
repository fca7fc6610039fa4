//! Real programs: what httpx, curl, nghttp and h2load said to hypercorn and it to them.
//!
//! `tests/captures/http2/record.py` says what is on a tape and how it was made.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use observer::protocol::event::Direction;
use observer::protocol::observation::{Observation, Output};

use crate::Write;

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

/// How many calls end in which way, as `method tool outcome status`.
fn play(writes: &[Write], piece: usize) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for output in crate::play(writes, piece) {
        let line = match output {
            Output::Observation(Observation::Call(call)) => {
                let target = call.target.unwrap_or_default();
                format!("{} {target} {} {}", call.method, call.outcome.name(), call.status)
            }
            Output::Lost { reason, .. } => format!("lost {}", reason.label()),
            Output::Observation(Observation::Malformed { reason, .. }) => format!("malformed {}", reason.name()),
            _ => continue,
        };
        *calls.entry(line).or_default() += 1;
    }
    calls
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

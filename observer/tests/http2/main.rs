//! HTTP/2 of other implementations through the pipeline: no root, no kernel.

mod crate_h2;
mod tapes;

use std::collections::HashMap;

use bytes::Bytes;
use observer::protocol::event::{Data, Direction, Event, Missing, Opened, Pid, Position, Source, StreamKey, Timestamp};
use observer::protocol::observation::{Observation, Output};
use observer::protocol::{Limits, Pipeline};

/// A millisecond.
const MILLI: u64 = 1_000_000;

/// One write: on which connection, by whom, what.
type Write = (u64, Direction, Bytes);

/// What the pipeline tells of some writes, each given in pieces; every call that began must have ended.
fn play(writes: &[Write], piece: usize) -> Vec<Output> {
    let mut pipeline = Pipeline::new(Limits::default());
    let (mut positions, mut told) = (HashMap::new(), Vec::new());
    let mut now = 1_000 * MILLI;
    let mut take = |pipeline: &mut Pipeline| told.extend(std::iter::from_fn(|| pipeline.poll_output()));
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
    let count = |is: fn(&Output) -> bool| told.iter().filter(|output| is(output)).count();
    assert_eq!(
        count(|output| matches!(output, Output::Observation(Observation::CallBegan(_)))),
        count(|output| matches!(output, Output::Observation(Observation::Call(_)))),
    );
    told
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

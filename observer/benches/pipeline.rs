//! Throughput of the whole pipeline, from events to observations.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use observer::protocol::event::{Data, Direction, Event, Missing, Opened, Pid, Position, Source, StreamKey, Timestamp};
use observer::protocol::{Limits, Pipeline};

/// Calls of one batch.
const CALLS: u64 = 10_000;

/// Bytes of a small message.
const SMALL: usize = 300;

fn opened(key: u64) -> Event {
    Event::Opened(Opened {
        key: StreamKey(key),
        source: Source::Pipe,
        peer: None,
        inode: key,
        local: None,
        remote: None,
        netns: 0,
        pid: Pid(1),
        time: Timestamp(1),
    })
}

/// Both ends of one transfer: the writer's record with the bytes, the reader's with who and when.
fn transfer(
    events: &mut Vec<Event>,
    key: u64,
    position: &mut u64,
    (from, to): (u32, u32),
    time: &mut u64,
    bytes: Bytes,
) {
    let span = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let at = Position::Total(*position);
    *position += u64::from(span);
    for (direction, pid, bytes, missing) in [
        (Direction::Sent, from, bytes, Missing::Nothing),
        (Direction::Received, to, Bytes::new(), Missing::AtOtherEnd),
    ] {
        *time += 5_000;
        events.push(Event::Data(Data {
            key: StreamKey(key),
            direction,
            position: at,
            span,
            bytes,
            missing,
            pid: Pid(pid),
            tid: pid,
            entered: Some(Timestamp(*time - 1_000)),
            returned: Timestamp(*time),
        }));
    }
}

/// Calls of one stdio session whose answers are `size` bytes long.
fn session(calls: u64, size: usize) -> Vec<Event> {
    let mut events = vec![opened(1), opened(2)];
    let (mut up, mut down, mut time) = (0, 0, 1_000_000);
    for id in 0..calls {
        let request =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"add","arguments":{{"a":""#);
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":""#);
        let request = format!("{request}{}\"}}}}}}\n", "x".repeat(SMALL - request.len()));
        let answer = format!("{answer}{}\"}}]}}}}\n", "x".repeat(size.saturating_sub(answer.len())));
        transfer(&mut events, 1, &mut up, (10, 20), &mut time, request.into());
        for piece in answer.as_bytes().chunks(60_000) {
            transfer(
                &mut events,
                2,
                &mut down,
                (20, 10),
                &mut time,
                Bytes::copy_from_slice(piece),
            );
        }
    }
    events
}

/// Feeds events the way the daemon does: a drain, then a turn.
fn run(events: Vec<Event>) -> usize {
    let mut pipeline = Pipeline::new(Limits::default());
    let mut outputs = 0;
    let mut since = 0;
    for event in events {
        let time = event.time();
        pipeline.handle_event(event);
        since += 1;
        if since == 1000 {
            since = 0;
            pipeline.handle_timeout(time);
            outputs += std::iter::from_fn(|| pipeline.poll_output()).count();
        }
    }
    pipeline.finish(Timestamp(u64::MAX / 2));
    outputs + std::iter::from_fn(|| pipeline.poll_output()).count()
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.sample_size(20);
    let small = session(CALLS, SMALL);
    group.throughput(Throughput::Elements(CALLS * 2));
    group.bench_function("small_messages", |bencher| {
        bencher.iter_batched(|| small.clone(), run, BatchSize::LargeInput);
    });
    let large = session(100, 100_000);
    group.throughput(Throughput::Bytes(100 * 100_000));
    group.bench_function("results_of_100_kb", |bencher| {
        bencher.iter_batched(|| large.clone(), run, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);

//! Throughput of the whole pipeline, from events to observations.

mod traffic;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use self::traffic::{SMALL, Session, Wire, fresh, run};

/// Calls of one batch.
const CALLS: u64 = 10_000;

/// Bytes of a body that comes in pieces.
const BODY: usize = 400_000;

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.sample_size(20);
    let mut measure = |name: &str, throughput: Throughput, session: Session| {
        group.throughput(throughput);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| fresh(&session.events), run, BatchSize::LargeInput);
        });
    };
    let small = |wire| Session::calls(wire, CALLS, SMALL);
    measure("small_messages", Throughput::Elements(CALLS * 2), small(Wire::Lines));
    measure(
        "small_messages_http",
        Throughput::Elements(CALLS * 2),
        small(Wire::Http),
    );
    for (name, calls, size) in [("results_of_100_kb", 100, 100_000), ("results_of_1_mb", 10, 1_000_000)] {
        let session = Session::calls(Wire::Lines, calls, size);
        measure(name, Throughput::Bytes(calls * size as u64), session);
    }
    for (name, piece) in [
        ("pieces_of_1_b", 1),
        ("pieces_of_100_b", 100),
        ("pieces_of_4_kib", 4096),
    ] {
        measure(name, Throughput::Bytes(BODY as u64), Session::pieces(BODY, piece));
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);

//! What the pipeline costs beside what it may cost: speed, allocations, memory of idle streams, bodies in pieces.
//!
//! Prints one line a figure, its target and whether that is met. Times are the best of several runs; on a shared machine
//! compare them with those of the same run: copying the same bytes, and stepping over the same JSON by `serde_json`.

mod traffic;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use observer::protocol::event::Event;
use serde::de::IgnoredAny;

use self::traffic::{Feed, SMALL, Session, Wire, answer, fresh, run};

/// Times each measurement is taken; the best counts.
const RUNS: usize = 7;

/// Calls of one measurement of small messages.
const CALLS: u64 = 10_000;

/// Streams of each kind that idle; fewer than are remembered at once.
const IDLE: u64 = 10_000;

/// Pauses after which an idle stream has given back room.
const RESTS: usize = 100;

/// Counts what is allocated, and what of it is held.
struct Counter;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicU64 = AtomicU64::new(0);

/// Adds without a lock: one thread allocates here.
fn count(counter: &AtomicU64, step: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(step), Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(&ALLOCATIONS, 1);
        count(&HELD, layout.size() as u64);
        // SAFETY: the caller keeps the rules of this very method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(&HELD, (layout.size() as u64).wrapping_neg());
        // SAFETY: the caller keeps the rules of this very method.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(&ALLOCATIONS, 1);
        count(&HELD, (size as u64).wrapping_sub(layout.size() as u64));
        // SAFETY: the caller keeps the rules of this very method.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTER: Counter = Counter;

/// What a figure has to be.
#[derive(Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// It is stated, not bounded.
    None,
}

fn main() {
    println!("{:<52} {:>14} {:>14}", "figure", "measured", "target");
    small();
    large();
    pieces();
    idle();
}

fn tell(figure: &str, value: f64, unit: &str, target: Target) {
    let (bound, met) = match target {
        Target::AtLeast(bound) => (format!(">= {bound}"), Some(value >= bound)),
        Target::AtMost(bound) => (format!("<= {bound}"), Some(value <= bound)),
        Target::None => ("-".to_owned(), None),
    };
    let verdict = met.map_or("", |met| if met { "met" } else { "MISSED" });
    println!("{figure:<52} {value:>14.2} {bound:>14} {unit:<12} {verdict}");
}

/// The shortest time that a run over fresh events takes.
fn best(events: &[Event]) -> Duration {
    best_of(|| fresh(events), run)
}

fn best_of<T, R>(prepare: impl Fn() -> T, run: impl Fn(T) -> R) -> Duration {
    let once = |_| {
        let input = prepare();
        let start = Instant::now();
        black_box(run(input));
        start.elapsed()
    };
    (0..RUNS).map(once).min().expect("RUNS is not 0")
}

fn small() {
    for (wire, name) in [(Wire::Lines, "lines"), (Wire::Http, "HTTP/1.1")] {
        let session = Session::calls(wire, CALLS, SMALL);
        let messages = 2.0 * CALLS as f64;
        let rate = messages / best(&session.events).as_secs_f64();
        tell(
            &format!("small messages, {name}"),
            rate / 1e6,
            "million/s",
            Target::AtLeast(1.0),
        );
        tell(
            &format!("allocations of a small message, {name}"),
            allocations(&session.events) / messages,
            "",
            Target::AtMost(3.0),
        );
    }
}

/// Allocations of the second half of some events, once everything has its room; per whole.
fn allocations(events: &[Event]) -> f64 {
    let mut feed = Feed::new();
    let mut events = fresh(events);
    let rest = events.split_off(events.len() / 2);
    feed.give(events);
    let before = ALLOCATIONS.load(Relaxed);
    feed.give(rest);
    let count = ALLOCATIONS.load(Relaxed) - before;
    black_box(feed.finish());
    2.0 * count as f64
}

fn large() {
    for (calls, size, name) in [(100, 100_000, "100 kB"), (10, 1_000_000, "1 MB")] {
        let session = Session::calls(Wire::Lines, calls, size);
        let bytes = calls as f64 * size as f64;
        let rate = |time: Duration| bytes / time.as_secs_f64() / 1e9;
        let whole = rate(best(&session.events));
        let bodies: Vec<String> = (0..calls).map(|id| answer(id, size)).collect();
        let skip = rate(best_of(
            || &bodies,
            |bodies| {
                bodies
                    .iter()
                    .all(|body| serde_json::from_str::<IgnoredAny>(body).is_ok())
            },
        ));
        let copy = rate(best_of(
            || vec![0_u8; size],
            |mut room| {
                for body in &bodies {
                    black_box(&mut room)[..body.len()].copy_from_slice(body.as_bytes());
                }
            },
        ));
        tell(&format!("results of {name}"), whole, "GB/s", Target::AtLeast(1.0));
        tell(
            &format!("  stepped over by serde_json: {skip:.2} GB/s, ratio"),
            whole / skip,
            "",
            Target::None,
        );
        tell(
            &format!("  copied: {copy:.2} GB/s, ratio"),
            whole / copy,
            "",
            Target::None,
        );
    }
}

/// A body four times as long may cost four times as much, and a bit for the noise of the machine.
fn pieces() {
    // So few bytes of one each that their events do not outgrow what the processor keeps near.
    for (piece, body, name) in [
        (1, 20_000, "1 byte"),
        (100, 200_000, "100 bytes"),
        (4096, 200_000, "4 KiB"),
    ] {
        let [short, long] = [body, 4 * body].map(|size| best(&Session::pieces(size, piece).events));
        let rate = 4.0 * body as f64 / long.as_secs_f64() / 1e6;
        tell(&format!("body in pieces of {name}"), rate, "MB/s", Target::None);
        let growth = long.as_secs_f64() / short.as_secs_f64();
        tell(
            "  cost of a body four times as long",
            growth,
            "times",
            Target::AtMost(5.0),
        );
    }
}

fn idle() {
    let streams = |wire: Wire, calls: u64| {
        move |base: u64| {
            let mut session = if calls == 0 {
                Session::opened(wire, base)
            } else {
                Session::begun(wire, base)
            };
            (0..calls).for_each(|id| session.call(id, SMALL));
            session.events
        }
    };
    // A pipe is a stream of its own, both ends of a connection are one.
    let pipes = IDLE / 2;
    for (name, sessions, events) in [
        (
            "idle pipe, opened",
            pipes,
            &streams(Wire::Lines, 0) as &dyn Fn(u64) -> Vec<Event>,
        ),
        ("idle pipe, after one call", pipes, &streams(Wire::Lines, 1)),
        ("idle connection, opened", IDLE, &streams(Wire::Http, 0)),
        ("idle connection, after one call", IDLE, &streams(Wire::Http, 1)),
    ] {
        tell(
            name,
            held(sessions, events) / IDLE as f64,
            "bytes",
            Target::AtMost(400.0),
        );
    }
}

/// Bytes that a pipeline holds more with these sessions than without, once they idle.
fn held(sessions: u64, events: impl Fn(u64) -> Vec<Event>) -> f64 {
    let mut feed = Feed::new();
    let before = HELD.load(Relaxed);
    for base in 1..=sessions {
        feed.give(events(base));
        feed.settle();
    }
    (0..RESTS).for_each(|_| feed.settle());
    let after = HELD.load(Relaxed);
    black_box(feed.finish());
    (after - before) as f64
}

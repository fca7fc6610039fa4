//! The only writer of records and of loss counters.
//!
//! A record is reserved straight in the ring, in the smallest of ten size classes that holds it, and filled there: one copy,
//! nothing shared with a program that preempts this one, no wake-up of the daemon.

use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_xadd},
    mem::size_of,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user},
};
use observer_common::{
    drops::{DropReason, MISSED_RETURNS},
    limits::MAX_RECORD_BYTES,
    record::{Closed, Data, Head, RecordKind, SEQUENCE_TCP},
    stream::Direction,
};

use crate::{
    maps::{DROPS, RING},
    scope::{current, current_process},
};

/// Bytes that one record can carry.
pub const MAX_PIECE: u64 = (MAX_RECORD_BYTES - size_of::<Data>()) as u64;

/// Bytes of several buffers that go into one record.
pub const GATHERED: u64 = 2_048;

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no arguments and always succeeds.
    unsafe { bpf_ktime_get_ns() }
}

/// Counts a loss.
#[inline(always)]
pub fn count(reason: DropReason, bytes: u64) {
    count_slot(reason as u32, bytes);
}

/// Counts bytes left out because the daemon asked for it; no loss, and no events.
#[inline(always)]
pub fn count_muted(bytes: u64) {
    if let Some(counter) = DROPS.get_ptr_mut(0) {
        // SAFETY: as in `count_slot`.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*counter).bytes, bytes) };
    }
}

/// Counts a call's return on which the kernel ran no program.
#[inline(always)]
pub fn count_missed_return() {
    count_slot(MISSED_RETURNS, 0);
}

#[inline(always)]
fn count_slot(slot: u32, bytes: u64) {
    if let Some(counter) = DROPS.get_ptr_mut(slot) {
        // SAFETY: the pointer is to this CPU's slot; atomic, since a program may preempt another on one CPU.
        unsafe {
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*counter).events, 1);
            // The compiler would make an atomic `or` of adding 0, which 5.10 does not know.
            if bytes != 0 {
                atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*counter).bytes, bytes);
            }
        }
    }
}

/// A bit of the tags: the call is told of as if it had returned when it began.
pub const AT_ENTRY: u64 = 1 << 63;

/// What is equal for all records of one call, in one word: the kernel function that copies takes five words.
#[inline(always)]
pub const fn tags(source: u8, direction: u8, missing: u8, sequence: u8) -> u64 {
    (source as u64) << 32 | (direction as u64) << 40 | (missing as u64) << 48 | (sequence as u64) << 56
}

/// Puts a record of fixed size into the ring.
#[inline(always)]
pub fn fixed<T: Copy + 'static>(record: &T) {
    if let Some(mut place) = RING.reserve::<T>(0) {
        place.write(*record);
        place.submit(BPF_RB_NO_WAKEUP.into());
    } else {
        count(DropReason::RingFull, 0);
    }
}

/// Puts a record of fixed size into the ring, zeroed, and lets `fill` write it there.
#[inline(always)]
pub fn in_place<T: Copy + 'static>(fill: impl FnOnce(&mut T)) {
    if let Some(mut place) = RING.reserve::<T>(0) {
        let words = place.as_mut_ptr().cast::<u64>();
        // SAFETY: records hold integers only, in whole words; zeros are valid.
        unsafe {
            for word in 0..size_of::<T>() / 8 {
                // Volatile, or the compiler makes a call of it, which needs stack.
                write_volatile(words.add(word), 0);
            }
            fill(&mut *place.as_mut_ptr());
        }
        place.submit(BPF_RB_NO_WAKEUP.into());
    } else {
        count(DropReason::RingFull, 0);
    }
}

/// Tells that an end of a stream is gone.
#[inline(always)]
pub fn closed(source: u8, direction: Direction, flags: u8, stream: u64) {
    let head = Head {
        kind: RecordKind::Closed as u8,
        source,
        direction: direction as u8,
        flags,
        pid: current_process(),
    };
    fixed(&Closed {
        head,
        stream,
        time: now(),
    });
}

/// The head of a data record.
#[inline(always)]
fn data(tags: u64, captured: u32, span: u32, stream: u64, position: u64, entered: u64) -> Data {
    let sequence = ((tags & !AT_ENTRY) >> 56) as u8;
    let current = current();
    Data {
        head: Head {
            kind: RecordKind::Data as u8,
            source: (tags >> 32) as u8,
            direction: (tags >> 40) as u8,
            flags: 0,
            pid: (current >> 32) as u32,
        },
        tid: current as u32,
        captured,
        span,
        missing: (tags >> 48) as u8,
        sequence,
        reserved: [0; 2],
        stream,
        offset: if sequence == SEQUENCE_TCP {
            position & 0xffff_ffff
        } else {
            position
        },
        entered,
        returned: if tags & AT_ENTRY != 0 { entered } else { now() },
    }
}

/// Tells of `span` bytes of a stream without copying them. `tags` says why. Lost bytes are counted by the caller.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn emit_span(tags: u64, span: u64, stream: u64, position: u64, entered: u64) -> u64 {
    fixed(&data(tags, 0, span as u32, stream, position, entered));
    0
}

macro_rules! class {
    ($room:literal, $from:expr, $length:expr, $head:expr, $span:expr) => {
        if let Some(mut place) = RING.reserve::<[u64; ($room + size_of::<Data>()) / 8]>(0) {
            let start = place.as_mut_ptr().cast::<u64>();
            // The volatile read keeps the bound below in the program; the compiler knows it to hold, the verifier does not.
            let length = $length;
            // SAFETY: a live local.
            let length = unsafe { read_volatile(&raw const length) };
            let length = if length > $room { $room } else { length };
            // SAFETY: `start` has room for the head and `$room` bytes more; the helper copies or fails.
            unsafe {
                let failed = bpf_probe_read_user(start.add(size_of::<Data>() / 8).cast(), length, $from as *const c_void);
                let mut head: Data = $head;
                if failed != 0 {
                    count(DropReason::Fault, $span.into());
                    head.captured = 0;
                    head.missing = DropReason::Fault as u8;
                }
                start.cast::<Data>().write(head);
            }
            place.submit(BPF_RB_NO_WAKEUP.into());
        } else {
            count(DropReason::RingFull, $span.into());
        }
    };
}

/// Copies `length` bytes (the low 32 bits of `length_and_tags`; at most [`MAX_PIECE`]) at user address `from` into a record.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn emit_bytes(from: u64, length_and_tags: u64, stream: u64, position: u64, entered: u64) -> u64 {
    let n = length_and_tags as u32;
    let head = data(length_and_tags, n, n, stream, position, entered);
    match n {
        0..=72 => class!(72, from, n, head, n),
        73..=200 => class!(200, from, n, head, n),
        201..=456 => class!(456, from, n, head, n),
        457..=968 => class!(968, from, n, head, n),
        969..=1_992 => class!(1_992, from, n, head, n),
        1_993..=4_040 => class!(4_040, from, n, head, n),
        4_041..=8_136 => class!(8_136, from, n, head, n),
        8_137..=16_328 => class!(16_328, from, n, head, n),
        16_329..=32_712 => class!(32_712, from, n, head, n),
        _ => class!(65_480, from, n, head, n),
    }
    0
}

/// Puts a record of bytes (as many as the low 32 bits of `length_and_tags` say; at most [`GATHERED`]) into the ring that `fill` copies
/// together. False, and nothing in the ring, where it cannot or there is no room.
///
/// There is room for twice as many: so the verifier sees that what begins in the first half ends in the second.
#[inline(always)]
pub fn gathered(
    length_and_tags: u64,
    stream: u64,
    position: u64,
    entered: u64,
    fill: impl FnOnce(*mut u8) -> bool,
) -> bool {
    let Some(mut place) = RING.reserve::<[u64; (2 * GATHERED as usize + size_of::<Data>()) / 8]>(0) else {
        return false;
    };
    let start = place.as_mut_ptr().cast::<Data>();
    // SAFETY: there is room for the head and twice `GATHERED` bytes.
    let is_full = fill(unsafe { start.add(1).cast() });
    if is_full {
        let n = length_and_tags as u32;
        // SAFETY: as above.
        unsafe { start.write(data(length_and_tags, n, n, stream, position, entered)) };
        place.submit(BPF_RB_NO_WAKEUP.into());
    } else {
        place.discard(BPF_RB_NO_WAKEUP.into());
    }
    is_full
}

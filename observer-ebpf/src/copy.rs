//! Copies what a call moved: piece after piece, segment after segment, message after message.
//!
//! The loop's state lives in the map value, not in registers, and the loop in a function of its own, as is the copying: so each
//! iteration looks alike to the verifiers of 5.10 and later, and they need not follow every combination.

use core::{
    ffi::c_void,
    mem::size_of,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use observer_common::{drops::DropReason, limits::MAX_SEGMENTS};

use crate::{
    call::{self, Call, VECTOR_IN_USER},
    emit::{self, GATHERED, MAX_PIECE},
    kernel::{read, read_user},
    stream,
    syscall::MessageHeader,
};

/// Iterations of the copy loop: every segment may begin a piece, and the longest call is cut into 17.
const STEPS: u32 = 64;

/// Buffers of a call that go into one record, of [`GATHERED`] bytes at most: a head and its body, a body and its frame.
const BUFFERS: u64 = 8;

/// What remains of a call's tags in records whose bytes are all there.
const NOTHING_MISSING: u64 = !(0xff << 48);

/// Address and length of the `iovec` at `address`.
#[inline(always)]
pub unsafe fn segment(call: *const Call, address: u64) -> (u64, u64) {
    // SAFETY: the caller passes a live map value.
    if unsafe { (*call).flags } & VECTOR_IN_USER != 0 {
        let [base, length] = read_user::<[u64; 2]>(address).unwrap_or([0; 2]);
        (base, length)
    } else {
        let [base, length] = read::<[u64; 2]>(address);
        (base, length)
    }
}

/// Copies a call of one buffer and one record, as most are; false for any other.
#[inline(always)]
pub unsafe fn copy_at_once(call: *mut Call) -> bool {
    // SAFETY: the caller passes a live map value.
    unsafe {
        let total = (*call).total;
        if (*call).segments != 0 || total > MAX_PIECE || (*call).head_end != total {
            return false;
        }
        emit::emit_bytes(
            (*call).vector + (*call).offset,
            total | (*call).tags,
            (*call).birth,
            (*call).position,
            (*call).entered,
        );
    }
    true
}

/// Copies all that the plan of this thread's call asks for; what lies beyond the last step is a counted loss.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn copy_call() -> u64 {
    let Some(call) = call::entry() else { return 0 };
    // SAFETY: a live map value that only this thread uses.
    unsafe {
        if gather(call) {
            return 0;
        }
        for _ in 0..STEPS {
            if !step(call) {
                return 0;
            }
        }
        let left = (*call).total - (*call).done;
        emit::count(DropReason::Segments, left);
        let tags = emit::tags(
            (*call).source as u8,
            (*call).direction as u8,
            DropReason::Segments as u8,
            stream::sequence_kind((*call).source as u8),
        );
        emit::emit_span(
            tags,
            left,
            (*call).birth,
            (*call).position + (*call).done,
            (*call).entered,
        );
    }
    0
}

/// Copies a call of a few buffers and one record; false for any other, and where a buffer cannot be read.
#[inline(always)]
unsafe fn gather(call: *mut Call) -> bool {
    // SAFETY: the caller passes a live map value.
    unsafe {
        let total = (*call).total;
        let is_small = (*call).segments <= BUFFERS && total <= GATHERED;
        if !is_small || (*call).head_end != total || (*call).message_end < total {
            return false;
        }
        let is_told = emit::gathered(
            total | (*call).tags,
            (*call).birth,
            (*call).position,
            (*call).entered,
            |room| gather_into(call, room),
        );
        write_volatile(&raw mut (*call).done, 0);
        is_told
    }
}

/// Puts the bytes of a call's buffers one behind the other at `room`, which has [`GATHERED`] bytes twice.
#[inline(always)]
unsafe fn gather_into(call: *mut Call, room: *mut u8) -> bool {
    // SAFETY: the caller passes a live map value; what is written lies in `room` by the bounds that stand before it.
    unsafe {
        let mut offset = (*call).offset;
        for number in 0..BUFFERS {
            if number >= (*call).segments {
                break;
            }
            let (base, length) = segment(call, (*call).vector + 16 * number);
            let done = read_volatile(&raw const (*call).done);
            let length = forget(call, length.wrapping_sub(offset).min((*call).total - done));
            if done > GATHERED || length > GATHERED {
                return false;
            }
            if bpf_probe_read_user(
                room.add(done as usize).cast(),
                length as u32,
                (base + offset) as *const c_void,
            ) != 0
            {
                return false;
            }
            write_volatile(&raw mut (*call).done, done + length);
            if done + length == (*call).total {
                return true;
            }
            offset = 0;
        }
    }
    false
}

/// Copies one piece, or tells of the gap, or goes on to the next segment. False when nothing is left.
#[inline(always)]
unsafe fn step(call: *mut Call) -> bool {
    // SAFETY: the caller passes a live map value.
    unsafe {
        let done = read_volatile(&raw const (*call).done);
        let total = read_volatile(&raw const (*call).total);
        if done >= total {
            return false;
        }
        let message_end = read_volatile(&raw const (*call).message_end);
        if done >= message_end {
            return next_message(call);
        }
        let number = read_volatile(&raw const (*call).segment);
        let offset = read_volatile(&raw const (*call).offset);
        let (base, length) = if (*call).segments == 0 {
            ((*call).vector, offset + total - done)
        } else if number >= (*call).segments || number >= MAX_SEGMENTS as u64 {
            return true;
        } else {
            segment(call, (*call).vector + 16 * number)
        };
        write_volatile(&raw mut (*call).base, base);
        let rest = forget(call, length.wrapping_sub(offset));
        if rest == 0 || rest > 1 << 40 {
            write_volatile(&raw mut (*call).segment, number + 1);
            write_volatile(&raw mut (*call).offset, 0);
            return true;
        }
        let n = forget(call, rest.min(part_end(call, done) - done).min(message_end - done));
        let n = if is_copied(call, done) {
            let n = forget(call, n.min(MAX_PIECE));
            emit::emit_bytes(
                read_volatile(&raw const (*call).base) + offset,
                n | (*call).tags & NOTHING_MISSING,
                (*call).birth,
                (*call).position + done,
                (*call).entered,
            );
            n
        } else {
            emit::emit_span((*call).tags, n, (*call).birth, (*call).position + done, (*call).entered);
            n
        };
        write_volatile(&raw mut (*call).offset, offset + n);
        write_volatile(&raw mut (*call).done, done + n);
        true
    }
}

/// `value`, of which the verifier knows nothing any more: the ways that led to it are one way from here on.
#[inline(always)]
unsafe fn forget(call: *mut Call, value: u64) -> u64 {
    // SAFETY: the caller passes a live map value.
    unsafe {
        write_volatile(&raw mut (*call).scratch, value);
        read_volatile(&raw const (*call).scratch)
    }
}

/// Whether the byte at `done` is in a part that is copied.
#[inline(always)]
unsafe fn is_copied(call: *const Call, done: u64) -> bool {
    // SAFETY: the caller passes a live map value.
    unsafe { done < read_volatile(&raw const (*call).head_end) || done >= read_volatile(&raw const (*call).tail_start) }
}

/// Where the part ends that the byte at `done` is in: head, gap or tail.
#[inline(always)]
unsafe fn part_end(call: *mut Call, done: u64) -> u64 {
    // SAFETY: the caller passes a live map value.
    unsafe {
        let (head_end, tail_start) = (
            read_volatile(&raw const (*call).head_end),
            read_volatile(&raw const (*call).tail_start),
        );
        let end = if done < head_end {
            head_end
        } else if done < tail_start {
            tail_start
        } else {
            (*call).total
        };
        forget(call, end)
    }
}

/// Goes on to the next message of a `sendmmsg` or `recvmmsg`.
#[inline(always)]
unsafe fn next_message(call: *mut Call) -> bool {
    // SAFETY: the caller passes a live map value.
    unsafe {
        let (message, left) = (
            read_volatile(&raw const (*call).next_message),
            read_volatile(&raw const (*call).messages),
        );
        let Some(header) = read_user::<MessageHeader>(message) else {
            return false;
        };
        if left == 0 {
            return false;
        }
        write_volatile(&raw mut (*call).vector, header.vector);
        write_volatile(&raw mut (*call).segments, header.segments);
        write_volatile(&raw mut (*call).segment, 0);
        write_volatile(&raw mut (*call).offset, 0);
        write_volatile(
            &raw mut (*call).next_message,
            message + size_of::<MessageHeader>() as u64,
        );
        write_volatile(&raw mut (*call).messages, left - 1);
        write_volatile(
            &raw mut (*call).message_end,
            read_volatile(&raw const (*call).message_end) + u64::from(header.length),
        );
        true
    }
}

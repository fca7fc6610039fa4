//! One call that moves bytes, from its entry to its return: which bytes to copy at which end, and the copying.
//!
//! Buffers are remembered at entry and copied at return: only the return value says how much was moved, and by then every page
//! of it is in memory. Both ends count positions alike, so the reader of bytes that were copied at the writer's end only tells
//! who read them and when. The reader copies what its writer could not: bytes sent before the writer came into sight, by a way
//! that no probe covers, or in a call too long to wait for its return (`BULK`).
//!
//! ```text
//! a call longer than MAX_CALL_BYTES:   | head, in pieces | gap: one record without bytes | tail, in pieces |
//!                                      0            head_end                         tail_start         total
//! ```
//!
//! The loop's state lives in the map value, not in registers, and the copying in a function of its own: so each iteration looks
//! alike to the verifiers of 5.10 and later, and they need not follow every combination.

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    mem::size_of,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use observer_common::{
    drops::DropReason,
    limits::{HEAD_BYTES, MAX_CALL_BYTES, MAX_SEGMENTS, TAIL_BYTES},
    record::{AT_OTHER_END, CLOSED_READERS_LEFT, MUTED as MUTED_BYTES},
    stream::{Direction, Source, Verdict},
};

use crate::{
    emit::{self, MAX_PIECE},
    kernel::{read, read_user},
    maps::{CALLS, STREAMS},
    stream::{self, ARMED_FOR, MUTED, READER, SENDER, Stream},
    syscall::MessageHeader,
};

/// Iterations of the copy loop: every segment may begin a piece, and the longest call is cut into 17.
const STEPS: u32 = 64;

/// What remains of a call's tags in records whose bytes are all there.
const NOTHING_MISSING: u64 = !(0xff << 48);

/// `Call::flags`: `vector` is in user memory (system call), not in the kernel's copy of it.
pub const VECTOR_IN_USER: u64 = 1;
/// `Call::flags`: there is no user memory to copy from (kernel buffers).
pub const OPAQUE: u64 = 2;
/// `Call::flags`: an iterator of a kind this version does not know.
pub const UNKNOWN: u64 = 4;
/// `Call::flags`: the reader copies these bytes.
pub const BULK: u64 = 8;
/// `Call::flags`: a call on a muted stream.
pub const IGNORED: u64 = 16;

/// A call between its entry and its return, and the state of the loop that copies it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// Address of the kernel object: the key of `STREAMS`; 0 when the thread is in no call.
    pub object: u64,
    pub entered: u64,
    /// Address of an `iovec` array, or of the only buffer where `segments` is 0.
    pub vector: u64,
    pub segments: u64,
    /// Bytes of the first segment that were used up before the call.
    pub offset: u64,
    /// Bytes asked for.
    pub size: u64,
    pub flags: u64,
    pub source: u64,
    pub direction: u64,
    /// User address of the next `mmsghdr` of a `sendmmsg` or `recvmmsg`, and how many are left; `vector` is the one before's.
    pub next_message: u64,
    pub messages: u64,
    /// Bytes of the call, counted from its begin, that end with the message in `vector`.
    pub message_end: u64,
    // The loop.
    segment: u64,
    done: u64,
    total: u64,
    head_end: u64,
    tail_start: u64,
    birth: u64,
    position: u64,
    tags: u64,
}

impl Call {
    /// A call on `object` whose buffers are not known yet.
    #[inline(always)]
    pub fn new(object: u64, source: Source, direction: Direction) -> Self {
        Self {
            object,
            entered: emit::now(),
            vector: 0,
            segments: 0,
            offset: 0,
            size: 0,
            flags: 0,
            source: source as u64,
            direction: direction as u64,
            next_message: 0,
            messages: 0,
            message_end: u64::MAX,
            segment: 0,
            done: 0,
            total: 0,
            head_end: 0,
            tail_start: 0,
            birth: 0,
            position: 0,
            tags: 0,
        }
    }
}

/// Remembers a call until it returns. `position` is where a send begins, as far as that is known at entry.
#[inline(always)]
pub fn begin(call: &mut Call, stream: *mut Stream, position: u64) -> Result<(), DropReason> {
    let direction = call.direction as u8;
    // SAFETY: `stream` is a live map value.
    unsafe {
        if (*stream).flags & MUTED != 0 {
            call.flags |= IGNORED;
            return remember(call);
        }
        stream::enter(stream, call.source as u8, direction, position, call.size);
        if direction == Direction::Sent as u8
            && call.size > MAX_CALL_BYTES
            && let Some(reader) = reader_in_sight(stream, call.source as u8)
        {
            // What the reader has not reached of an earlier long call stays in the range.
            if !stream::before(call.source as u8, (*reader).received, (*stream).bulk_to) {
                (*stream).bulk_from = position;
            }
            (*stream).bulk_to = position + call.size;
            call.flags |= BULK;
        }
    }
    remember(call)
}

/// Puts `call` into this thread's entry.
#[inline(always)]
fn remember(call: &Call) -> Result<(), DropReason> {
    let thread = bpf_get_current_pid_tgid();
    if let Some(entry) = CALLS.get_ptr_mut(&thread) {
        // SAFETY: a live map value that only this thread uses.
        unsafe { *entry = *call };
        return Ok(());
    }
    CALLS.insert(&thread, call, 0).map_err(|_| DropReason::TableFull)
}

/// Notes that this thread is in no call on a stream, and that it has been seen.
#[inline(always)]
pub fn idle() -> Result<(), DropReason> {
    if let Some(entry) = entry() {
        // SAFETY: a live map value that only this thread uses.
        unsafe { (*entry).object = 0 };
        return Ok(());
    }
    idle_entry();
    Ok(())
}

/// Makes this thread's entry. A function of its own, since an entry needs stack.
#[inline(never)]
fn idle_entry() -> u64 {
    let call = Call::new(0, Source::Pipe, Direction::Sent);
    CALLS.insert(&bpf_get_current_pid_tgid(), &call, 0).is_ok().into()
}

/// This thread's entry, of a call or idle; `None` for a thread that has made no call in scope yet.
#[inline(always)]
pub fn entry() -> Option<*mut Call> {
    CALLS.get_ptr_mut(&bpf_get_current_pid_tgid())
}

/// The end where a process in scope reads what is written at this end.
#[inline(always)]
pub unsafe fn reader_in_sight(stream: *mut Stream, source: u8) -> Option<*const Stream> {
    // SAFETY: the caller passes a live map value.
    unsafe {
        let reader = if source == Source::Pipe as u8 {
            stream.cast_const()
        } else {
            let peer = (*stream).peer;
            STREAMS.get_ptr(&peer)?
        };
        if (*reader).flags & READER != 0 {
            Some(reader)
        } else {
            None
        }
    }
}

/// Works off the return of this thread's call on `object`. `begin_of` says where its bytes began, from the stream, the direction
/// and their number.
///
/// A call that was not seen to begin (out of scope, muted, in progress when the observer came) is none of ours.
#[inline(always)]
pub fn returned(object: u64, result: i64, begin_of: impl FnOnce(*mut Stream, u8, u64) -> u64) {
    let Some(stream) = STREAMS.get_ptr_mut(&object) else {
        return;
    };
    // SAFETY: live map values.
    unsafe {
        if (*stream).flags & MUTED != 0 {
            emit::count_muted(if result > 0 { result as u64 } else { 0 });
            return;
        }
        let Some(call) = entry() else { return };
        if (*call).object != object || (*call).flags & IGNORED != 0 {
            return;
        }
        let direction = (*call).direction as u8;
        if result > 0 {
            let position = begin_of(stream, direction, result as u64);
            if plan(call, stream, result as u64, position) {
                copy(call);
            }
        } else if result == 0 && (*call).size > 0 && direction == Direction::Received as u8 {
            end_of_bytes((*call).source as u8, (*stream).birth);
        }
        (*call).object = 0;
    }
}

/// Adds the bytes of a call to a total kept by us and returns where they began.
#[inline(always)]
pub unsafe fn advance(total: *mut u64, bytes: u64) -> u64 {
    // SAFETY: the caller passes a live map value.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(total, bytes);
        read_volatile(total).wrapping_sub(bytes)
    }
}

/// Decides what of the call is copied. False when nothing is, and what there is to tell has been told.
#[inline(always)]
unsafe fn plan(call: *mut Call, stream: *mut Stream, returned: u64, position: u64) -> bool {
    // SAFETY: both are live map values.
    unsafe {
        let (source, direction) = ((*call).source as u8, (*call).direction as u8);
        (*call).birth = (*stream).birth;
        (*call).position = position;
        (*call).total = returned;
        let tags = |missing: u8| emit::tags(source, direction, missing, stream::sequence_kind(source));
        let verdict = stream::verdict(stream);
        if verdict == Verdict::NotMcp {
            emit::count_muted(returned);
            return false;
        }
        let missing = if copied_elsewhere(call, stream, returned, position) {
            AT_OTHER_END
        } else if (*call).flags & (OPAQUE | UNKNOWN) != 0 {
            let reason = if (*call).flags & OPAQUE != 0 {
                DropReason::Opaque
            } else {
                DropReason::UnknownIterator
            };
            emit::count(reason, returned);
            reason as u8
        } else {
            0
        };
        if missing != 0 {
            emit::emit_span(tags(missing), returned, (*call).birth, position, (*call).entered);
            return false;
        }
        (*call).head_end = returned;
        (*call).tail_start = returned;
        (*call).tags = tags(0);
        if verdict != Verdict::Mcp && source != Source::Pipe as u8 {
            arm(call, stream);
        }
        if verdict == Verdict::HeadsOnly && (*stream).armed_until < (*call).entered {
            if returned > u64::from(HEAD_BYTES) {
                (*call).head_end = HEAD_BYTES.into();
                (*call).tags = tags(MUTED_BYTES);
                emit::count_muted(returned - u64::from(HEAD_BYTES));
            }
        } else if returned > MAX_CALL_BYTES {
            (*call).head_end = MAX_CALL_BYTES - TAIL_BYTES;
            (*call).tail_start = returned - TAIL_BYTES;
            (*call).tags = tags(DropReason::CallTooLong as u8);
            emit::count(DropReason::CallTooLong, (*call).tail_start - (*call).head_end);
        }
        true
    }
}

/// Whether the bytes of this call are copied at the stream's other end.
#[inline(always)]
unsafe fn copied_elsewhere(call: *mut Call, stream: *mut Stream, returned: u64, position: u64) -> bool {
    // SAFETY: both are live map values.
    unsafe {
        let source = (*call).source as u8;
        if (*call).direction as u8 == Direction::Sent as u8 {
            (*stream).promised = position + returned;
            if (*call).flags & BULK != 0 {
                (*stream).bulk_to = position + returned;
                return true;
            }
            return false;
        }
        let sender = if source == Source::Pipe as u8 {
            stream.cast_const()
        } else {
            let peer = (*stream).peer;
            match STREAMS.get_ptr(&peer) {
                Some(sender) => sender,
                None => return false,
            }
        };
        let in_bulk = (*sender).bulk_from != (*sender).bulk_to
            && stream::before(source, position, (*sender).bulk_to)
            && stream::before(source, (*sender).bulk_from, position + returned);
        (*sender).flags & SENDER != 0
            && !stream::before(source, position, (*sender).captured_from)
            && !stream::before(source, (*sender).promised, position + returned)
            && !in_bulk
    }
}

/// Begins to copy everything for a while when the call begins like a POST.
#[inline(always)]
unsafe fn arm(call: *mut Call, stream: *mut Stream) {
    // SAFETY: both are live map values.
    unsafe {
        let first = if (*call).segments == 0 {
            (*call).vector
        } else {
            segment(call, (*call).vector).0
        };
        if read_user::<[u8; 4]>(first + (*call).offset) == Some(*b"POST") {
            let until = (*call).entered + ARMED_FOR;
            (*stream).armed_until = until;
            let peer = (*stream).peer;
            if let Some(peer) = STREAMS.get_ptr_mut(&peer) {
                (*peer).armed_until = until;
            }
        }
    }
}

/// Address and length of the `iovec` at `address`.
#[inline(always)]
unsafe fn segment(call: *const Call, address: u64) -> (u64, u64) {
    // SAFETY: the caller passes a live map value.
    if unsafe { (*call).flags } & VECTOR_IN_USER != 0 {
        let [base, length] = read_user::<[u64; 2]>(address).unwrap_or([0; 2]);
        (base, length)
    } else {
        let [base, length] = read::<[u64; 2]>(address);
        (base, length)
    }
}

#[inline(always)]
unsafe fn copy(call: *mut Call) {
    // SAFETY: the caller passes a live map value.
    unsafe {
        for _ in 0..STEPS {
            if !step(call) {
                return;
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
        let rest = length.wrapping_sub(offset);
        if rest == 0 || rest > 1 << 40 {
            write_volatile(&raw mut (*call).segment, number + 1);
            write_volatile(&raw mut (*call).offset, 0);
            return true;
        }
        let (head_end, tail_start) = (
            read_volatile(&raw const (*call).head_end),
            read_volatile(&raw const (*call).tail_start),
        );
        let copied = done < head_end || done >= tail_start;
        let boundary = if done < head_end {
            head_end
        } else if done < tail_start {
            tail_start
        } else {
            total
        };
        let mut n = rest.min(boundary - done).min(message_end - done);
        if copied {
            n = n.min(MAX_PIECE);
            emit::emit_bytes(
                base + offset,
                n | (*call).tags & NOTHING_MISSING,
                (*call).birth,
                (*call).position + done,
                (*call).entered,
            );
        } else {
            emit::emit_span((*call).tags, n, (*call).birth, (*call).position + done, (*call).entered);
        }
        write_volatile(&raw mut (*call).offset, offset + n);
        write_volatile(&raw mut (*call).done, done + n);
        true
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

/// Tells that the reader has seen the end of what was written.
#[inline(always)]
fn end_of_bytes(source: u8, birth: u64) {
    if source == Source::Pipe as u8 {
        emit::closed(source, Direction::Sent, CLOSED_READERS_LEFT, birth);
    } else {
        emit::closed(source, Direction::Received, 0, birth);
    }
}

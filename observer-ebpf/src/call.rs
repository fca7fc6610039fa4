//! One call that moves bytes, from its entry to its return: which bytes to copy at which end.
//!
//! Buffers are remembered at entry and copied at return: only the return value says how much was moved, and by then every page
//! of it is in memory. Both ends count positions alike, so the reader of bytes that were copied at the writer's end only tells
//! who read them and when. The reader copies what its writer could not: bytes sent before the writer came into sight, by a way
//! that no probe covers, or in a call that is too long to wait for its return, has too many segments or buffers of the kernel's
//! (`LEFT_TO_READER`).
//!
//! ```text
//! a call longer than MAX_CALL_BYTES:   | head, in pieces | gap: one record without bytes | tail, in pieces |
//!                                      0            head_end                         tail_start         total
//! ```
//!
//! A call is put together in its map value, never on the stack: 5.10 has little of that, and what the verifier reads back from
//! a map value it knows nothing of, so that all ways of making a call look alike to it from there on.

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::read_volatile,
};

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use observer_common::{
    drops::DropReason,
    limits::{HEAD_BYTES, MAX_CALL_BYTES, MAX_SEGMENTS, TAIL_BYTES},
    record::{AT_OTHER_END, CLOSED_READERS_LEFT, MUTED as MUTED_BYTES},
    stream::{Direction, Source, Verdict},
};

use crate::{
    copy, emit,
    kernel::read_user,
    maps::{CALLS, STREAMS},
    stream::{self, ARMED_FOR, READER, SENDER, Stream},
};

/// Bytes of the longest call: positions of TCP are compared in 32 bits. Linux moves at most twice as many at once.
pub const LONGEST: u64 = 1 << 30;

/// `Call::flags`: `vector` is in user memory (system call), not in the kernel's copy of it.
pub const VECTOR_IN_USER: u64 = 1;
/// `Call::flags`: there is no user memory to copy from (kernel buffers).
pub const OPAQUE: u64 = 2;
/// `Call::flags`: an iterator of a kind this version does not know.
pub const UNKNOWN: u64 = 4;
/// `Call::flags`: the reader copies these bytes.
pub const LEFT_TO_READER: u64 = 8;
/// `Call::flags`: a call on a muted stream.
pub const IGNORED: u64 = 16;
/// `Call::flags`: the call was not seen to begin.
pub const UNSEEN: u64 = 32;

/// `Call::flags`: told of before its return, with the moment of its entry for both.
pub const UNRETURNED: u64 = 64;

/// `Call::object` of a thread in a system call that is none of ours.
pub const OTHER: u64 = u64::MAX - 1;

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
    /// Bytes moved: 0 until the call returns. A call that was not seen to begin has them when it is begun.
    pub total: u64,
    // The plan, and how far the loop of `copy` is.
    pub segment: u64,
    pub done: u64,
    pub head_end: u64,
    pub tail_start: u64,
    pub birth: u64,
    pub position: u64,
    pub tags: u64,
    pub base: u64,
    pub scratch: u64,
    /// The last muted file that this thread moved bytes through, its inode's number and its stream; by system calls alone.
    pub muted_file: u64,
    pub muted_number: u64,
    pub muted_birth: u64,
    /// Programs that ran on the call's return; by functions alone.
    pub returns: u64,
}

/// This thread's entry, of a call or idle; `None` for a thread that has made no call in scope yet.
#[inline(always)]
pub fn entry() -> Option<*mut Call> {
    CALLS.get_ptr_mut(&bpf_get_current_pid_tgid())
}

/// What a new entry is made of: it is too large for the stack.
static IDLE: Call = zeroed_call();

const fn zeroed_call() -> Call {
    // SAFETY: integers only; zeros are valid.
    unsafe { core::mem::zeroed() }
}

/// This thread's entry, idle; made where none has been `seen`.
#[inline(always)]
pub fn idle(seen: Option<*mut Call>) -> Result<*mut Call, DropReason> {
    let entry = seen.map_or_else(make_entry, Ok)?;
    // SAFETY: a live map value that only this thread uses.
    unsafe { (*entry).object = 0 };
    Ok(entry)
}

/// This thread's entry, as it is; made where there is none.
#[inline(always)]
pub fn make_entry() -> Result<*mut Call, DropReason> {
    if let Some(entry) = entry() {
        return Ok(entry);
    }
    let thread = bpf_get_current_pid_tgid();
    CALLS.insert(&thread, &IDLE, 0).map_err(|_| DropReason::TableFull)?;
    entry().ok_or(DropReason::TableFull)
}

/// Makes an idle entry one of a call on `object` whose buffers are not known yet.
#[inline(always)]
pub unsafe fn prepare(call: *mut Call, object: u64, source: Source, direction: Direction) {
    // SAFETY: the caller passes this thread's entry.
    unsafe {
        (*call).object = object;
        (*call).entered = emit::now();
        (*call).segments = 0;
        (*call).offset = 0;
        (*call).flags = 0;
        (*call).source = source as u64;
        (*call).direction = direction as u64;
        (*call).next_message = 0;
        (*call).messages = 0;
        (*call).message_end = u64::MAX;
        (*call).total = 0;
        (*call).birth = 0;
        (*call).returns = 0;
    }
}

/// Makes an idle entry one of a call on a muted stream: only its bytes are counted when it returns.
#[inline(always)]
pub unsafe fn ignore(call: *mut Call) {
    // SAFETY: the caller passes this thread's entry.
    unsafe {
        (*call).messages = 0;
        (*call).flags = IGNORED;
        // It stands for no stream; not 0, since the thread is in a call.
        (*call).object = u64::MAX;
    }
}

/// Lets a call begin whose buffers are known. `position` is where a send begins, as far as that is known at entry.
#[inline(always)]
pub unsafe fn begin(call: *mut Call, stream: *mut Stream, position: u64) {
    // SAFETY: the caller passes live map values.
    unsafe {
        let (source, direction) = ((*call).source as u8, (*call).direction as u8);
        let size = (*call).size.min(LONGEST);
        (*call).birth = (*stream).birth;
        stream::enter(stream, source, direction, position, size);
        let beyond_us =
            size > MAX_CALL_BYTES || (*call).segments > MAX_SEGMENTS.into() || (*call).flags & (OPAQUE | UNKNOWN) != 0;
        if direction == Direction::Sent as u8 && beyond_us && reader_in_sight(stream, source) {
            stream::leave_to_reader(stream, position, size);
            (*call).flags |= LEFT_TO_READER;
        }
    }
}

/// The other end of a stream, where that is in sight; of a pipe the same object.
#[inline(always)]
pub unsafe fn other_end(stream: *mut Stream, source: u8) -> Option<*mut Stream> {
    if source == Source::Pipe as u8 {
        return Some(stream);
    }
    // SAFETY: the caller passes a live map value.
    let peer = unsafe { (*stream).peer };
    STREAMS.get_ptr_mut(&peer)
}

/// Whether a process in scope reads what is written at this end.
#[inline(always)]
pub unsafe fn reader_in_sight(stream: *mut Stream, source: u8) -> bool {
    // SAFETY: live map values.
    unsafe { other_end(stream, source).is_some_and(|reader| (*reader).flags & READER != 0) }
}

/// Works off the return of `call` on `stream`.
#[inline(always)]
pub fn finish(call: *mut Call, stream: *mut Stream, result: i64, begin_of: impl FnOnce(*mut Stream, u8, u64) -> u64) {
    // SAFETY: callers pass live map values.
    unsafe {
        let direction = (*call).direction as u8;
        if result > 0 {
            let position = begin_of(stream, direction, result as u64);
            if plan(call, stream, result as u64, position) && !copy::copy_at_once(call) {
                copy::copy_call();
            }
        } else if direction == Direction::Sent as u8 {
            stream::unpromise(stream, (*call).source as u8);
        } else if result == 0 && (*call).size > 0 {
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
        (*call).segment = 0;
        (*call).done = 0;
        let moment = if (*call).flags & UNRETURNED != 0 {
            emit::AT_ENTRY
        } else {
            0
        };
        let tags = |missing: u8| emit::tags(source, direction, missing, stream::sequence_kind(source)) | moment;
        let verdict = stream::verdict(stream);
        if verdict == Verdict::NotMcp {
            emit::count_muted(returned);
            return false;
        }
        let missing = if copied_elsewhere(call, stream, returned, position) {
            AT_OTHER_END
        } else if (*call).flags & (OPAQUE | UNKNOWN | UNSEEN) != 0 {
            let reason = match (*call).flags & (OPAQUE | UNKNOWN) {
                0 => DropReason::Unprobed,
                OPAQUE => DropReason::Opaque,
                _ => DropReason::UnknownIterator,
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
        let (source, end) = ((*call).source as u8, position + returned);
        if (*call).direction as u8 == Direction::Sent as u8 {
            if (*call).flags & UNSEEN != 0 && reader_in_sight(stream, source) {
                return true;
            }
            (*stream).promised = end;
            if (*call).flags & LEFT_TO_READER != 0 {
                (*stream).left_to = end;
                return true;
            }
            return false;
        }
        let Some(sender) = other_end(stream, source) else {
            return false;
        };
        (*sender).flags & SENDER != 0
            && !stream::before(source, position, (*sender).captured_from)
            && !stream::before(source, (*sender).promised, end)
            && !stream::is_left_to_reader(sender, source, position, end)
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
            copy::segment(call, (*call).vector).0
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

/// Tells that the reader has seen the end of what was written.
#[inline(always)]
fn end_of_bytes(source: u8, birth: u64) {
    if source == Source::Pipe as u8 {
        emit::closed(source, Direction::Sent, CLOSED_READERS_LEFT, birth);
    } else {
        emit::closed(source, Direction::Received, 0, birth);
    }
}

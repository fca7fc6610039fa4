//! Streams in sight: identity, positions at both ends, verdict.

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_get_smp_processor_id};
use observer_common::{
    record::{Opened, RecordKind, SEQUENCE_TCP},
    stream::{Direction, STREAM_WORDS, Source, StreamKey, Verdict},
};

use crate::{
    emit,
    kernel::low_half,
    maps::{self, BIRTHS, STREAMS, VERDICTS},
    scope::{current_process, current_thread},
};

/// A process in scope has written at this end: bytes from `captured_from` on are copied here.
pub const SENDER: u32 = 1;
/// A process in scope has read at this end.
pub const READER: u32 = 2;
/// Not MCP, until the daemon says otherwise of a socket.
pub const MUTED: u32 = 4;
/// `expected_sent` is set; TCP.
pub const SENT_KNOWN: u32 = 8;
/// `expected_received` is set; TCP.
pub const RECEIVED_KNOWN: u32 = 16;
/// `received` was set while bytes were under way and may be too small by these; not TCP.
pub const UNSETTLED: u32 = 32;
/// `sent` may be too small by what a call moved whose return was not seen; not TCP.
pub const SENT_UNSETTLED: u32 = 64;

/// Nanoseconds for which everything is copied after a call that begins like a POST, so that neither its body nor its answer
/// is missed while the daemon has not yet decided about that request.
pub const ARMED_FOR: u64 = 1_000_000_000;

/// What is known of one kernel object. Positions are totals since first sight, for TCP sequence numbers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Stream {
    pub birth: u64,
    pub inode: u64,
    /// Address of the socket at the other end; 0 when unknown, and for pipes.
    pub peer: u64,
    /// Bytes written at this end; for TCP where the next send is expected.
    pub sent: u64,
    /// Bytes read at this end; for TCP where the next read is expected.
    pub received: u64,
    /// Sent bytes before this position were not copied here.
    pub captured_from: u64,
    /// Sent bytes that the reader copies, since this end could not or would be too late; none where both are equal.
    pub left_from: u64,
    pub left_to: u64,
    /// Where the sends of this end that are done or under way end. A reader beyond it has read what no probe saw being sent.
    pub promised: u64,
    /// Until when everything is copied whatever the verdict.
    pub armed_until: u64,
    pub flags: u32,
    /// A [`Source`].
    pub source: u32,
}

const _: () = assert!(size_of::<Stream>() == 8 * STREAM_WORDS && core::mem::offset_of!(Stream, birth) == 0);

/// Slots of the table of muted objects; a power of two.
pub const MUTED_SLOTS: u32 = 1 << 12;

/// An object that is muted, and the birth number of its stream.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Muted {
    pub object: u64,
    pub birth: u64,
}

/// A birth number for a new stream.
#[inline(always)]
pub fn give_birth() -> u64 {
    // SAFETY: the helper has no arguments and always succeeds.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(births) = BIRTHS.get_ptr_mut(0) else { return 0 };
    // SAFETY: the pointer is to this CPU's slot.
    let count = unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(births, 1);
        read_volatile(births)
    };
    StreamKey::compose(count, cpu, current_thread()).0
}

/// The stream of an object that has been seen before and has not been freed since.
#[inline(always)]
pub fn known(object: u64, inode: u64) -> Option<*mut Stream> {
    of_inode(STREAMS.get_ptr_mut(&object), inode)
}

/// What is known of an object's address, if it is of the object that is there now.
#[inline(always)]
pub fn of_inode(stream: Option<*mut Stream>, inode: u64) -> Option<*mut Stream> {
    // SAFETY: callers pass a live map value.
    stream.filter(|stream| unsafe { (**stream).inode } == inode)
}

/// Whether a stream is muted. The function backend goes by the object's address alone: it sees every object's end.
#[inline(always)]
pub fn is_muted(stream: *mut Stream) -> bool {
    // SAFETY: callers pass a live map value.
    unsafe { (*stream).flags & MUTED != 0 }
}

/// Whether the object at an address is known to be muted.
#[inline(always)]
pub fn is_known_muted(object: u64) -> bool {
    known_muted(object).is_some()
}

/// The same as a call on it begins, as [`stays_muted`].
///
/// A slot is written without a lock. Who reads a birth number that is not the object's own goes by a verdict on another stream, which
/// is at most to look at that again.
#[inline(always)]
pub fn stays_known_muted(object: u64) -> bool {
    // SAFETY: a live map value.
    known_muted(object).is_some_and(|slot| unsafe { !is_looked_at_again(read_volatile(&raw const (*slot).birth)) })
}

#[inline(always)]
fn known_muted(object: u64) -> Option<*mut Muted> {
    // SAFETY: a live map value.
    muted_slot(object).filter(|slot| unsafe { read_volatile(&raw const (**slot).object) == object })
}

/// Makes a muted stream's object known as such.
#[inline(always)]
pub fn know_muted(object: u64, stream: *mut Stream) {
    if let Some(slot) = muted_slot(object) {
        // SAFETY: live map values.
        unsafe {
            write_volatile(&raw mut (*slot).object, 0);
            write_volatile(&raw mut (*slot).birth, (*stream).birth);
            write_volatile(&raw mut (*slot).object, object);
        }
    }
}

/// Forgets that an object is muted: it is gone, or looked at again.
#[inline(always)]
pub fn forget_muted(object: u64) {
    if let Some(slot) = known_muted(object) {
        // SAFETY: a live map value.
        unsafe { write_volatile(&raw mut (*slot).object, 0) };
    }
}

/// The place of an object in the table of muted ones. Objects lie at multiples of 64 bytes at least.
#[inline(always)]
fn muted_slot(object: u64) -> Option<*mut Muted> {
    let line = low_half(object) >> 6;
    maps::MUTED.get_ptr_mut((line ^ line >> 12) & (MUTED_SLOTS - 1))
}

/// Whether the stream of an object is muted as a call on it begins. The daemon looks again at a TCP socket when there is plain text whose
/// ciphertext may go through it; nothing that went by meanwhile is missed.
#[inline(always)]
pub fn stays_muted(object: u64, stream: *mut Stream) -> bool {
    // SAFETY: callers pass a live map value.
    unsafe {
        if is_muted(stream) && (*stream).source == Source::Tcp as u32 && is_looked_at_again((*stream).birth) {
            (*stream).flags &= !(MUTED | SENDER | SENT_KNOWN | RECEIVED_KNOWN);
            forget_muted(object);
        }
    }
    is_muted(stream)
}

/// Whether the daemon has changed its mind about a muted stream.
#[inline(always)]
pub fn is_looked_at_again(birth: u64) -> bool {
    is_told(birth, Verdict::HeadsOnly)
}

/// Whether the daemon has decided that a stream is not MCP.
#[inline(always)]
pub fn is_refused(birth: u64) -> bool {
    is_told(birth, Verdict::NotMcp)
}

/// Whether `verdict` is the last that the daemon told of a stream, as far as its slot is still its own.
#[inline(always)]
fn is_told(birth: u64, verdict: Verdict) -> bool {
    let key = StreamKey(birth);
    // SAFETY: a live map value, written by the daemon in one piece.
    let word = VERDICTS
        .get_ptr(key.verdict_slot())
        .map(|slot| unsafe { read_volatile(slot) });
    word == Some(key.verdict_word(verdict))
}

/// Takes a new object into sight and tells the daemon what it is; `describe` fills in what only its source knows, and `other_end`
/// finds address and inode number of the socket at its other end; 0 for an address or number that is not known.
///
/// Of two calls that meet the object at once the first wins and tells. The other end is looked up only after this one can be
/// found: of two ends that come at once at least one then finds the other. The record is written where it lies in the ring, since
/// it would be too much for the stack.
#[inline(always)]
pub fn open(
    object: u64,
    source: Source,
    inode: u64,
    other_end: impl FnOnce() -> (u64, u64),
    describe: impl FnOnce(&mut Opened),
) {
    let stream = Stream {
        birth: give_birth(),
        inode,
        peer: 0,
        sent: 0,
        received: 0,
        captured_from: 0,
        left_from: 0,
        left_to: 0,
        promised: 0,
        armed_until: 0,
        flags: 0,
        source: source as u32,
    };
    if let Some(old) = STREAMS.get_ptr(&object)
        // SAFETY: a live map value.
        && unsafe { (*old).inode } != inode
    {
        // The address belonged to an object whose end was not seen.
        let _ = STREAMS.remove(&object);
    }
    if STREAMS.insert(&object, &stream, BPF_NOEXIST.into()).is_err() {
        return;
    }
    let (peer, number) = other_end();
    let peer_birth = meet(object, peer, number);
    emit::in_place(|opened: &mut Opened| {
        opened.head.kind = RecordKind::Opened as u8;
        opened.head.source = source as u8;
        opened.head.pid = current_process();
        opened.stream = stream.birth;
        opened.peer = peer_birth;
        opened.inode = inode;
        opened.time = emit::now();
        describe(opened);
    });
}

/// Makes a socket and the one at its other end known to each other; returns that one's birth number, or 0 when it is not in sight.
#[inline(always)]
fn meet(object: u64, peer: u64, number: u64) -> u64 {
    if peer == 0 {
        return 0;
    }
    if let Some(stream) = STREAMS.get_ptr_mut(&object) {
        // SAFETY: a live map value.
        unsafe { (*stream).peer = peer };
    }
    let Some(other) = STREAMS.get_ptr_mut(&peer) else {
        return 0;
    };
    // SAFETY: a live map value.
    unsafe {
        // An entry of another number is of a socket that had this address before.
        if number != 0 && (*other).inode != number {
            return 0;
        }
        (*other).peer = object;
        (*other).birth
    }
}

/// The verdict in force for a stream. That it is muted is kept in its flags, whoever takes its slot.
#[inline(always)]
pub unsafe fn verdict(stream: *mut Stream) -> Verdict {
    // SAFETY: the caller passes a live map value.
    let key = StreamKey(unsafe { (*stream).birth });
    let Some(slot) = VERDICTS.get_ptr(key.verdict_slot()) else {
        return Verdict::Undecided;
    };
    // SAFETY: a live map value, written by the daemon in one piece.
    let word = unsafe { read_volatile(slot) };
    if word == key.verdict_word(Verdict::NotMcp) {
        // SAFETY: as above.
        unsafe { (*stream).flags |= MUTED };
        return Verdict::NotMcp;
    }
    if word == key.verdict_word(Verdict::Mcp) {
        return Verdict::Mcp;
    }
    if word == key.verdict_word(Verdict::HeadsOnly) {
        Verdict::HeadsOnly
    } else {
        Verdict::Undecided
    }
}

/// A position as both ends count it, from a total or sequence number.
pub const fn sequence_kind(source: u8) -> u8 {
    if source == Source::Tcp as u8 { SEQUENCE_TCP } else { 0 }
}

/// Whether position `a` lies before `b`, in the arithmetic of the source.
#[inline(always)]
pub fn before(source: u8, a: u64, b: u64) -> bool {
    if source == Source::Tcp as u8 {
        ((a as u32).wrapping_sub(b as u32) as i32) < 0
    } else {
        a < b
    }
}

/// Notes that a process in scope is about to move bytes at this end: `size` bytes from `position` on, for a send.
#[inline(always)]
pub unsafe fn enter(stream: *mut Stream, source: u8, direction: u8, position: u64, size: u64) {
    // SAFETY: the caller passes a live map value.
    unsafe {
        if direction == Direction::Received as u8 {
            (*stream).flags |= READER;
            return;
        }
        if (*stream).flags & SENDER == 0 {
            (*stream).captured_from = position;
            (*stream).promised = position;
            (*stream).flags |= SENDER;
        }
        if before(source, (*stream).promised, position + size) {
            (*stream).promised = position + size;
        }
    }
}

/// A send has failed: nothing is under way. Not for TCP, whose reader goes by sequence numbers alone.
#[inline(always)]
pub unsafe fn unpromise(stream: *mut Stream, source: u8) {
    if source != Source::Tcp as u8 {
        // SAFETY: the caller passes a live map value.
        unsafe { (*stream).promised = (*stream).sent };
    }
}

/// Leaves the `size` bytes that are sent from `position` on to their reader to copy.
#[inline(always)]
pub unsafe fn leave_to_reader(stream: *mut Stream, position: u64, size: u64) {
    // SAFETY: the caller passes a live map value.
    unsafe {
        // What the reader has not reached of an earlier call stays in the range.
        if (*stream).left_from == (*stream).left_to {
            (*stream).left_from = position;
        }
        (*stream).left_to = position + size;
    }
}

/// Whether a reader of `position .. end` must copy some of it, as the sender leaves it to; a range that it is past is forgotten.
#[inline(always)]
pub unsafe fn is_left_to_reader(sender: *mut Stream, source: u8, position: u64, end: u64) -> bool {
    // SAFETY: the caller passes a live map value.
    unsafe {
        let (from, to) = ((*sender).left_from, (*sender).left_to);
        if from == to {
            return false;
        }
        if !before(source, end, to) {
            (*sender).left_from = to;
        }
        before(source, position, to) && before(source, from, end)
    }
}

//! Go's `crypto/tls`: the same as for other libraries, read from where Go keeps it.
//!
//! | hook | on | records |
//! |---|---|---|
//! | uprobes `go_tls_send`, `go_tls_receive` | `crypto/tls.(*Conn).Write`, `.Read` | none |
//! | uprobe `go_tls_return` | each return instruction of both | Opened, Data |
//! | uprobe `go_tls_end` | `crypto/tls.(*Conn).Close` | Closed |
//!
//! On amd64 other instructions serve where the kernel need not step (`emulated` of the daemon's `capture/tls`):
//!
//! | hook | on | records |
//! |---|---|---|
//! | uprobe `go_tls_send_record` | in `Write` each call of `writeRecordLocked` | none |
//! | uprobe `go_tls_return` | the branch behind it | Opened, Data |
//! | uprobe `go_tls_receive_copy` | in `Read` the call of `runtime.memmove`, for its return | Opened, Data |
//!
//! A program may end, or its thread be kept from going on, while the answer to what it has written is read already: who reads an answer
//! tells of the write that has not returned. A `Write` takes all that it is given, or its connection is over.
//!
//! No uretprobe: it puts an address of its own in place of a return address, and a stack that Go moves or walks meanwhile breaks the
//! program. A goroutine may go on in another thread before it returns, so that calls are known by goroutine.
//!
//! Arguments and results are where Go's register ABI has them (amd64 from 1.17, arm64 from 1.18); the daemon attaches to functions
//! that follow it and to no others. Source: `src/cmd/compile/abi-internal.md` of Go.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    EbpfContext,
    macros::{map, uprobe},
    maps::LruHashMap,
    programs::ProbeContext,
};
use observer_common::{drops::DropReason, limits::MAX_OPEN_CALLS, stream::Direction};

use super::{TlsCall, ended, is_being_attached, stay_off_private_stack, tell};
use crate::{
    call::UNRETURNED,
    emit,
    kernel::read_user,
    scope::{current_process, watches_current},
};

/// Nanoseconds after which a write that has not returned is told by who reads: long against what a write takes, which is better told
/// when it returns, since its bytes may be written over from then on; short against what comes before an answer.
const LATE: u64 = 100_000;

/// A call into Go's `crypto/tls` between its entry and its return.
#[repr(C)]
#[derive(Clone, Copy)]
struct GoCall {
    call: TlsCall,
    /// Where the stack was at entry, for a buffer on the stack, which moves together with it; else 0.
    stack: u64,
}

/// Calls into Go's `crypto/tls`, by address of the goroutine and process. An entry stays, idle between calls; goroutines end
/// unseen, so that the least recently used leave.
#[map]
static GO_CALLS: LruHashMap<[u64; 2], GoCall> = LruHashMap::with_max_entries(MAX_OPEN_CALLS, 0);

/// The goroutine whose `Write` has not returned, by connection and process. Who takes it out tells of it.
#[map]
static GO_WRITES: LruHashMap<[u64; 2], u64> = LruHashMap::with_max_entries(MAX_OPEN_CALLS, 0);

// func (c *Conn) Write(b []byte) (int, error)
#[uprobe]
pub fn go_tls_send(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    let buffer = register(&ctx, registers::SECOND);
    entered(&ctx, Direction::Sent, buffer, register(&ctx, registers::THIRD))
}

// func (c *Conn) writeRecordLocked(typ recordType, data []byte) (int, error)
#[uprobe]
pub fn go_tls_send_record(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    let buffer = register(&ctx, registers::THIRD);
    entered(&ctx, Direction::Sent, buffer, register(&ctx, registers::FOURTH))
}

// func (c *Conn) Read(b []byte) (int, error)
#[uprobe]
pub fn go_tls_receive(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    let buffer = register(&ctx, registers::SECOND);
    entered(&ctx, Direction::Received, buffer, register(&ctx, registers::THIRD))
}

#[uprobe]
pub fn go_tls_return(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    if watches_current() {
        returned(&ctx, register(&ctx, registers::FIRST), None);
    }
    0
}

// func memmove(to, from unsafe.Pointer, n uintptr)
#[uprobe]
pub fn go_tls_receive_copy(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    if watches_current() {
        let from = register(&ctx, registers::SECOND);
        returned(&ctx, register(&ctx, registers::THIRD), Some(from));
    }
    0
}

// func (c *Conn) Close() error
#[uprobe]
pub fn go_tls_end(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    // It breaks off a write that is under way, and does not wait for it.
    let session = register(&ctx, registers::FIRST);
    ended(session, GO_WRITES.get_ptr(&key(session)).is_some());
    0
}

/// A function that has to grow its stack begins again: what it is called with is then noted twice.
#[inline(always)]
fn entered(ctx: &ProbeContext, direction: Direction, buffer: u64, size: u64) -> i32 {
    if !watches_current() {
        return 0;
    }
    let (goroutine, stack) = (register(ctx, registers::GOROUTINE), register(ctx, registers::STACK));
    // struct g of `src/runtime/runtime2.go` begins with the lower and the upper bound of its stack.
    let on_stack = buffer > stack && read_user::<u64>(goroutine + 8).is_some_and(|bound| buffer < bound);
    let call = GoCall {
        call: TlsCall {
            session: register(ctx, registers::FIRST),
            buffer,
            size,
            ..TlsCall::new(direction)
        },
        stack: if on_stack { stack } else { 0 },
    };
    if GO_CALLS.insert(&key(goroutine), &call, 0).is_err() {
        emit::count(DropReason::TableFull, 0);
    }
    // Where the stack is by then only its goroutine knows.
    if let Direction::Sent = direction
        && !on_stack
    {
        let _ = GO_WRITES.insert(&key(call.call.session), &goroutine, 0);
    }
    0
}

/// Tells of the goroutine's call. `from` is where its bytes are, if not yet in the buffer that it was called with.
#[inline(always)]
fn returned(ctx: &ProbeContext, moved: u64, from: Option<u64>) {
    let goroutine = register(ctx, registers::GOROUTINE);
    let moves = moved as i64 > 0;
    let Some(go) = GO_CALLS.get_ptr_mut(&key(goroutine)) else {
        if moves {
            emit::count(DropReason::ReadBeforeAttach, moved);
        }
        return;
    };
    // SAFETY: a live map value.
    unsafe {
        let session = (*go).call.session;
        // Two probes on one instruction tell once.
        if session == 0 {
            return;
        }
        let attaching = is_being_attached(ctx.as_ptr()).into();
        if (*go).call.direction == Direction::Received as u64 {
            if moves {
                tell_write_under_way(session, attaching);
            }
        } else if GO_WRITES.remove(key(session)).is_err() && read_volatile(&raw const (*go).call.session) == 0 {
            return;
        }
        if let Some(from) = from {
            (*go).call.buffer = from;
        } else if (*go).stack != 0 {
            let further = register(ctx, registers::STACK).wrapping_sub((*go).stack);
            (*go).call.buffer = (*go).call.buffer.wrapping_add(further);
        }
        (*go).call.session = 0;
        // A call that moved nothing wants to be made again, or the connection has ended: closing the session tells.
        if moves {
            tell_call(goroutine, session, moved, 0, attaching);
        }
    }
}

/// Tells of the write on a session that has not returned, if there is one: its answer may be what is read.
#[inline(always)]
fn tell_write_under_way(session: u64, attaching: u64) {
    let Some(writer) = GO_WRITES.get_ptr(&key(session)) else {
        return;
    };
    // SAFETY: live map values. The session is taken away first: its own goroutine sees that when it finds its entry taken out.
    unsafe {
        let goroutine = *writer;
        let Some(go) = GO_CALLS.get_ptr_mut(&key(goroutine)) else {
            return;
        };
        let call = &raw const (*go).call;
        let is_late = emit::now().wrapping_sub((*call).entered) > LATE;
        if (*call).session != session || (*call).direction != Direction::Sent as u64 || !is_late {
            return;
        }
        write_volatile(&raw mut (*go).call.session, 0);
        if GO_WRITES.remove(key(session)).is_ok() {
            tell_call(goroutine, session, (*go).call.size, UNRETURNED, attaching);
        }
    }
}

/// Tells of a goroutine's call. A function of its own, since a read may tell of two.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn tell_call(goroutine: u64, session: u64, moved: u64, flags: u64, attaching: u64) -> u64 {
    let told = match GO_CALLS.get_ptr_mut(&key(goroutine)) {
        // SAFETY: a live map value.
        Some(go) => unsafe { tell(&raw mut (*go).call, session, moved, flags, || attaching != 0) },
        None => Err(DropReason::TableFull),
    };
    if let Err(reason) = told {
        emit::count(reason, moved);
    }
    0
}

/// What belongs to the current process.
#[inline(always)]
fn key(address: u64) -> [u64; 2] {
    [address, current_process().into()]
}

/// A register of the program's, by its place in `struct pt_regs`.
#[inline(always)]
fn register(ctx: &ProbeContext, place: usize) -> u64 {
    // SAFETY: callers name a word of the context.
    unsafe { ctx.as_ptr().cast::<u64>().add(place).read() }
}

/// Places in `struct pt_regs`, in words. The first argument's register has the first result.
#[cfg(not(bpf_target_arch = "aarch64"))]
mod registers {
    //! x86-64: `arch/x86/include/asm/ptrace.h`.
    pub(super) const GOROUTINE: usize = 1; // r14
    pub(super) const SECOND: usize = 5; // rbx
    pub(super) const FIRST: usize = 10; // rax
    pub(super) const THIRD: usize = 11; // rcx
    pub(super) const FOURTH: usize = 14; // rdi
    pub(super) const STACK: usize = 19; // rsp
}

/// Places in `struct pt_regs`, in words. The first argument's register has the first result.
#[cfg(bpf_target_arch = "aarch64")]
mod registers {
    //! arm64: `arch/arm64/include/uapi/asm/ptrace.h`.
    pub(super) const FIRST: usize = 0;
    pub(super) const SECOND: usize = 1;
    pub(super) const THIRD: usize = 2;
    pub(super) const FOURTH: usize = 3;
    pub(super) const GOROUTINE: usize = 28;
    pub(super) const STACK: usize = 31;
}

const _: () = assert!(size_of::<GoCall>() == 80);

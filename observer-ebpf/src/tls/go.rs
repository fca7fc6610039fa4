//! Go's `crypto/tls`: the same as for other libraries, read from where Go keeps it.
//!
//! | hook | on | records |
//! |---|---|---|
//! | uprobes `go_tls_send`, `go_tls_receive` | `crypto/tls.(*Conn).Write`, `.Read` | none |
//! | uprobe `go_tls_return` | each return instruction of both | Opened, Data |
//! | uprobe `go_tls_end` | `crypto/tls.(*Conn).Close` | Closed |
//!
//! No uretprobe: it puts an address of its own in place of a return address, and a stack that Go moves or walks meanwhile breaks the
//! program. A goroutine may go on in another thread before it returns, so that calls are known by goroutine.
//!
//! Arguments and results are where Go's register ABI has them (amd64 from 1.17, arm64 from 1.18); the daemon attaches to functions
//! that follow it and to no others. Source: `src/cmd/compile/abi-internal.md` of Go.

use aya_ebpf::{
    EbpfContext,
    macros::{map, uprobe},
    maps::LruHashMap,
    programs::ProbeContext,
};
use observer_common::{drops::DropReason, limits::MAX_OPEN_CALLS, stream::Direction};

use super::{TlsCall, ended, tell};
use crate::{
    emit,
    kernel::read_user,
    scope::{current_process, watches_current},
};

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

// func (c *Conn) Write(b []byte) (int, error)
#[uprobe]
pub fn go_tls_send(ctx: ProbeContext) -> i32 {
    entered(&ctx, Direction::Sent)
}

// func (c *Conn) Read(b []byte) (int, error)
#[uprobe]
pub fn go_tls_receive(ctx: ProbeContext) -> i32 {
    entered(&ctx, Direction::Received)
}

#[uprobe]
pub fn go_tls_return(ctx: ProbeContext) -> i32 {
    let moved = register(&ctx, registers::FIRST);
    // A call that moved nothing wants to be made again, or the connection has ended: closing the session tells.
    if moved as i64 > 0
        && watches_current()
        && let Err(reason) = returned(&ctx, moved)
    {
        emit::count(reason, moved);
    }
    0
}

// func (c *Conn) Close() error
#[uprobe]
pub fn go_tls_end(ctx: ProbeContext) -> i32 {
    ended(register(&ctx, registers::FIRST));
    0
}

/// A function that has to grow its stack begins again: what it is called with is then noted twice.
#[inline(always)]
fn entered(ctx: &ProbeContext, direction: Direction) -> i32 {
    if !watches_current() {
        return 0;
    }
    let (goroutine, stack) = (register(ctx, registers::GOROUTINE), register(ctx, registers::STACK));
    let buffer = register(ctx, registers::SECOND);
    // struct g of `src/runtime/runtime2.go` begins with the lower and the upper bound of its stack.
    let on_stack = buffer > stack && read_user::<u64>(goroutine + 8).is_some_and(|bound| buffer < bound);
    let call = GoCall {
        call: TlsCall {
            session: register(ctx, registers::FIRST),
            buffer,
            size: register(ctx, registers::THIRD),
            ..TlsCall::new(direction)
        },
        stack: if on_stack { stack } else { 0 },
    };
    if GO_CALLS.insert(&key(goroutine), &call, 0).is_err() {
        emit::count(DropReason::TableFull, 0);
    }
    0
}

#[inline(always)]
fn returned(ctx: &ProbeContext, moved: u64) -> Result<(), DropReason> {
    let go = GO_CALLS
        .get_ptr_mut(&key(register(ctx, registers::GOROUTINE)))
        .ok_or(DropReason::ReadBeforeAttach)?;
    // SAFETY: a live map value that only this goroutine uses.
    unsafe {
        let session = (*go).call.session;
        // Two probes on one instruction tell once.
        if session == 0 {
            return Ok(());
        }
        (*go).call.session = 0;
        if (*go).stack != 0 {
            let further = register(ctx, registers::STACK).wrapping_sub((*go).stack);
            (*go).call.buffer = (*go).call.buffer.wrapping_add(further);
        }
        tell(ctx.as_ptr(), &raw mut (*go).call, session, moved)
    }
}

#[inline(always)]
fn key(goroutine: u64) -> [u64; 2] {
    [goroutine, current_process().into()]
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
    pub(super) const STACK: usize = 19; // rsp
}

/// Places in `struct pt_regs`, in words. The first argument's register has the first result.
#[cfg(bpf_target_arch = "aarch64")]
mod registers {
    //! arm64: `arch/arm64/include/uapi/asm/ptrace.h`.
    pub(super) const FIRST: usize = 0;
    pub(super) const SECOND: usize = 1;
    pub(super) const THIRD: usize = 2;
    pub(super) const GOROUTINE: usize = 28;
    pub(super) const STACK: usize = 31;
}

const _: () = assert!(size_of::<GoCall>() == 88);

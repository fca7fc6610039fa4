//! TLS libraries: the plain text that a program gives them and takes from them.
//!
//! | hook | on | records |
//! |---|---|---|
//! | uprobes `tls_send*`, `tls_receive*` | functions that take plain text, or give it | none |
//! | uretprobe `tls_return` | the same | Opened, Data |
//! | uprobe `tls_end` | the function that frees a session | Closed |
//! | uprobes `tls_send_chunks`, `tls_receive_payload` | the same in rustls, see [`rustls`] | none |
//! | uprobes `tls_*_file*` | functions of NSPR, under which NSS is, see [`nss`] | none |
//! | uprobes `go_tls_*` | the same in Go, see [`go`] | the same |
//! | `vm_mmap_pgoff` return (function backend), `sys_exit` of `mmap` (syscall backend) | | Mapped |
//! | `tcp_set_ulp` return (function backend), `sys_exit` of `setsockopt` (syscall backend) | | KernelTls |
//!
//! Which functions those are, in which file and with which of the programs, the daemon knows (`capture/tls`). A session is named by
//! its address and its process; the socket underneath is found by the daemon. Two probes on one function, as an overlay file system
//! may lead to one file by two ways, tell once: the first return takes the call.

mod go;
mod nss;
mod rustls;

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_get_attach_cookie,
    macros::{fexit, map, uprobe, uretprobe},
    maps::{Array, HashMap, ProgramArray},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use observer_common::{
    drops::DropReason,
    limits::MAX_OPEN_CALLS,
    record::{Opened, RecordKind},
    stream::{Direction, Source},
};

use crate::{
    call::{self, VECTOR_IN_USER},
    emit,
    kernel::{Access, Probed, offset, read, read_user, setting},
    maps::STREAMS,
    process,
    scope::{self, current_process},
    stream::{self, Stream},
    totals,
};

/// `PROT_EXEC` of `include/uapi/asm-generic/mman-common.h`.
pub const PROT_EXEC: u64 = 4;

/// The library that is being given its probes, by the number that they have as their cookie, if they have one; 0 for none.
#[map]
pub static TLS_ATTACHING: Array<u64> = Array::with_max_entries(1, 0);

/// A call into a TLS library between its entry and its return.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TlsCall {
    /// Address of the session; 0 when the thread is in no such call.
    session: u64,
    entered: u64,
    /// User address of the bytes, or of an array of their addresses and lengths where `segments` is not 0.
    buffer: u64,
    segments: u64,
    size: u64,
    /// Bytes moved, where that is known at entry; else 0.
    moved: u64,
    /// User address of the number of bytes moved, where the function does not return it.
    length_at: u64,
    direction: u64,
    /// Calls of the same functions within this one that have nothing to do with it and have not returned.
    within: u64,
}

/// `Stream::flags`: the session was ended at `armed_until`, while a write on it was under way, which is still to be told.
const ENDED: u32 = 1 << 31;

impl TlsCall {
    /// One that begins now.
    #[inline(always)]
    fn new(direction: Direction) -> Self {
        Self {
            session: 0,
            entered: emit::now(),
            buffer: 0,
            segments: 0,
            size: 0,
            moved: 0,
            length_at: 0,
            direction: direction as u64,
            within: 0,
        }
    }
}

/// Programs that another may go on in: none. See [`stay_off_private_stack`].
#[map]
static NO_PROGRAMS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Makes the program have its stack where the kernel's is. From 6.13 on the kernel gives a program one of its own for each processor
/// (`bpf_enable_priv_stack`), since it does not run a program within itself; but a program on a uprobe it does, where tasks are preempted
/// inside the kernel (`bpf_prog_run_array_uprobe`): two tasks then write over each other's values, and the kernel dies of it. A program in
/// which there is a tail call, made or not, gets none.
#[inline(always)]
fn stay_off_private_stack(ctx: &impl EbpfContext) {
    // Never so, which the verifier knows and the compiler does not.
    if setting!(observer) == u32::MAX {
        // SAFETY: there is no program to go on in.
        unsafe { NO_PROGRAMS.tail_call(ctx, 0) };
    }
}

/// Calls into TLS libraries, by thread. One does system calls of its own, which are in `CALLS` meanwhile.
#[map]
pub static TLS_CALLS: HashMap<u64, TlsCall> = HashMap::with_max_entries(MAX_OPEN_CALLS, 0);

// int SSL_write(SSL *ssl, const void *buf, int num)
// ssize_t gnutls_record_send(gnutls_session_t session, const void *data, size_t data_size)
#[uprobe]
pub fn tls_send(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    entered(&ctx, Direction::Sent, None)
}

// int SSL_write_ex(SSL *s, const void *buf, size_t num, size_t *written)
// int SSL_write_early_data(SSL *s, const void *buf, size_t num, size_t *written)
#[uprobe]
pub fn tls_send_length4(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    entered(&ctx, Direction::Sent, Some(3))
}

// int SSL_write_ex2(SSL *s, const void *buf, size_t num, uint64_t flags, size_t *written)
#[uprobe]
pub fn tls_send_length5(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    entered(&ctx, Direction::Sent, Some(4))
}

// int SSL_read(SSL *ssl, void *buf, int num)
// ssize_t gnutls_record_recv(gnutls_session_t session, void *data, size_t data_size)
#[uprobe]
pub fn tls_receive(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    entered(&ctx, Direction::Received, None)
}

// int SSL_read_ex(SSL *s, void *buf, size_t num, size_t *readbytes)
// int SSL_read_early_data(SSL *s, void *buf, size_t num, size_t *readbytes)
#[uprobe]
pub fn tls_receive_length4(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    entered(&ctx, Direction::Received, Some(3))
}

#[uretprobe]
pub fn tls_return(ctx: RetProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    returned(ctx.as_ptr(), ctx.ret());
    0
}

// void SSL_free(SSL *ssl)
// void gnutls_deinit(gnutls_session_t session)
#[uprobe]
pub fn tls_end(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    ended(ctx.arg(0).unwrap_or(0), false);
    0
}

// unsigned long vm_mmap_pgoff(struct file *file, unsigned long addr, unsigned long len, unsigned long prot,
//                             unsigned long flag, unsigned long pgoff)                                     5.10 to 7.3
#[fexit(function = "vm_mmap_pgoff")]
pub fn file_mapped(ctx: FExitContext) -> i32 {
    let (file, protection): (u64, u64) = (ctx.arg(0), ctx.arg(3));
    // SAFETY: a context of six arguments and a return value, eight bytes each.
    let result = unsafe { ctx.as_ptr().cast::<i64>().add(6).read() };
    if file != 0 && protection & PROT_EXEC != 0 {
        mapped(result);
    }
    0
}

// int tcp_set_ulp(struct sock *sk, const char *name)                                                        5.10 to 7.3
#[fexit(function = "tcp_set_ulp")]
pub fn kernel_tls(ctx: FExitContext) -> i32 {
    let name: u64 = ctx.arg(1);
    // SAFETY: a context of two arguments and a return value, eight bytes each; the function returns an `int`.
    let result = unsafe { ctx.as_ptr().cast::<i64>().add(2).read() } as i32;
    upper_layer_set(i64::from(result), read(name));
    0
}

/// Tells that the current process has the kernel do TLS, if that is what it asked for above TCP.
#[inline(always)]
pub fn upper_layer_set(result: i64, name: [u8; 3]) {
    if result == 0 && name == *b"tls" && scope::covers_current() {
        process::tell(RecordKind::KernelTls, current_process(), 0, 0);
    }
}

/// Tells that the current process has code of one more file.
#[inline(always)]
pub fn mapped(result: i64) {
    // Errors are -4095 to -1; an address may have any other value.
    if !(-4095..0).contains(&result) && scope::covers_current() {
        process::tell(RecordKind::Mapped, current_process(), 0, 0);
    }
}

#[inline(always)]
fn entered(ctx: &ProbeContext, direction: Direction, length: Option<usize>) -> i32 {
    if !scope::watches_current() {
        return 0;
    }
    begun(TlsCall {
        session: ctx.arg(0).unwrap_or(0),
        buffer: ctx.arg(1).unwrap_or(0),
        size: ctx.arg(2).unwrap_or(0),
        length_at: length.and_then(|place| ctx.arg(place)).unwrap_or(0),
        ..TlsCall::new(direction)
    });
    0
}

/// Remembers a call until its return.
#[inline(always)]
fn begun(call: TlsCall) {
    if TLS_CALLS.insert(&scope::current(), &call, 0).is_err() {
        emit::count(DropReason::TableFull, 0);
    }
}

#[inline(always)]
fn returned(ctx: *mut c_void, result: i32) {
    let Some(tls) = TLS_CALLS.get_ptr_mut(&scope::current()) else {
        return;
    };
    // SAFETY: a live map value that only this thread uses.
    let session = unsafe {
        if (*tls).within != 0 {
            (*tls).within -= 1;
            return;
        }
        (*tls).session
    };
    if session == 0 {
        return;
    }
    // SAFETY: as above.
    let moved = unsafe {
        (*tls).session = 0;
        match ((*tls).moved, (*tls).length_at) {
            (0, 0) => result.max(0) as u64,
            (0, _) if result <= 0 => 0,
            (0, place) => read_user(place).unwrap_or(0),
            (moved, _) => moved,
        }
    };
    // A call that moved nothing wants to be made again, or the connection has ended: freeing the session tells.
    if moved != 0
        && let Err(reason) = tell(tls, session, moved, 0, || is_being_attached(ctx))
    {
        emit::count(reason, moved);
    }
}

/// Tells that a session is over, and forgets it unless a write on it is under way.
#[inline(always)]
fn ended(session: u64, writes: bool) {
    let object = object(session);
    let Some(stream) = stream::known(object, address_space()) else {
        return;
    };
    // SAFETY: a live map value.
    unsafe {
        if (*stream).flags & ENDED != 0 {
            return;
        }
        emit::closed(Source::Tls as u8, Direction::Sent, 0, (*stream).birth);
        if writes {
            (*stream).armed_until = emit::now();
            (*stream).flags |= ENDED;
        } else {
            let _ = STREAMS.remove(&object);
        }
    }
}

/// Tells of the plain text that a call has moved. `flags` are further ones of the `Call`; `is_being_attached` says so of the library.
#[inline(always)]
fn tell(
    tls: *mut TlsCall,
    session: u64,
    moved: u64,
    flags: u64,
    is_being_attached: impl FnOnce() -> bool,
) -> Result<(), DropReason> {
    // SAFETY: a live map value.
    if moved > unsafe { (*tls).size } {
        return Err(DropReason::UnknownIterator);
    }
    let (object, number) = (object(session), address_space());
    let known = stream::known(object, number);
    let stream = match known {
        Some(stream) if ended_before(stream, tls) => {
            let _ = STREAMS.remove(&object);
            open_tls(object, number, session);
            STREAMS.get_ptr_mut(&object).ok_or(DropReason::TableFull)?
        }
        Some(stream) => stream,
        // Of a library with some of its probes the calls would be seen and not their answers, or the other way round.
        None if is_being_attached() => return Err(DropReason::Unprobed),
        None => {
            open_tls(object, number, session);
            STREAMS.get_ptr_mut(&object).ok_or(DropReason::TableFull)?
        }
    };
    if stream::is_muted(stream) {
        emit::count_muted(moved);
        return Ok(());
    }
    let call = call::idle(None)?;
    // SAFETY: live map values; the thread is in no system call.
    unsafe {
        let direction = if (*tls).direction == Direction::Sent as u64 {
            Direction::Sent
        } else {
            Direction::Received
        };
        call::prepare(call, object, Source::Tls, direction);
        (*call).entered = (*tls).entered;
        (*call).vector = (*tls).buffer;
        (*call).segments = (*tls).segments;
        (*call).flags = VECTOR_IN_USER | flags;
        (*call).size = (*tls).size;
        call::begin(call, stream, (*stream).sent);
        call::finish(call, stream, moved as i64, totals::position);
        if (*stream).flags & ENDED != 0 {
            let _ = STREAMS.remove(&object);
        }
    }
    Ok(())
}

/// Whether the session of `stream` was over before a call began: the call is on another at the same place.
#[inline(always)]
fn ended_before(stream: *mut Stream, tls: *const TlsCall) -> bool {
    // SAFETY: live map values.
    unsafe { (*stream).flags & ENDED != 0 && (*stream).armed_until < (*tls).entered }
}

/// Whether the library whose probe this is has not all of them yet.
#[inline(always)]
fn is_being_attached(ctx: *mut c_void) -> bool {
    // SAFETY: a live map value.
    let library = TLS_ATTACHING.get_ptr(0).map_or(0, |library| unsafe { *library });
    // SAFETY: the context of a probe that was attached with a cookie.
    library != 0 && (setting!(cookies) == 0 || library == unsafe { bpf_get_attach_cookie(ctx) })
}

/// Names a session in `STREAMS`: sessions lie at multiples of 16 below 2^47, kernel objects above.
#[inline(always)]
fn object(session: u64) -> u64 {
    (session >> 4) & 0x7ff_ffff_ffff | u64::from(current_process()) << 43
}

/// The current process's memory, in place of an inode number: another program, or another process of the same number, has another.
#[inline(always)]
fn address_space() -> u64 {
    Probed::load(Probed::task() + offset!(task_mm))
}

/// Takes a session into sight. A function of its own, since its record needs stack.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn open_tls(object: u64, number: u64, session: u64) -> u64 {
    let describe = |opened: &mut Opened| opened.inode = session;
    stream::open(object, Source::Tls, number, || (0, 0), describe);
    0
}

const _: () = assert!(size_of::<TlsCall>() == 72);

//! The fallback backend: the same records from system calls, where the kernel has no trampolines or refuses them.
//!
//! | hook | kernels | records |
//! |---|---|---|
//! | tracepoint `sys_enter` | all | Opened; Closed, of a pipe or unix socket whose last descriptor is closed |
//! | tracepoint `sys_exit` | all | Data; Mapped, KernelTls |
//! | raw tracepoint `inet_sock_set_state` | all | Closed, of TCP |
//!
//! Typed tracepoints from 5.11, raw ones before: half of what there is to read on the way from a descriptor to its file is then a
//! load instead of a helper call, and a system call that moves no bytes costs next to nothing.
//!
//! A descriptor leads to the kernel object: task → files → table → file → pipe, or socket → sock. Not seen: io_uring, splice,
//! sendfile, and calls of 32-bit programs, which are counted.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use observer_common::{config::ABSENT, drops::DropReason, limits::MAX_SEGMENTS, stream::Source};

use crate::{
    arch::{self, Flags, Shape},
    call::{self, Call, IGNORED, VECTOR_IN_USER},
    emit,
    kernel::{Access, Probed, Typed, inode_number, offset, read, read_user},
    maps::STREAMS,
    pipe, scope,
    stream::{self, Stream},
    tcp, tls, unix,
};

/// `S_IFMT`, `S_IFIFO` and `S_IFSOCK` of `include/uapi/linux/stat.h`.
const S_IFMT: u16 = 0o170_000;
const S_IFIFO: u16 = 0o010_000;
const S_IFSOCK: u16 = 0o140_000;
/// Address families, socket type and protocol.
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;
/// `SOL_TCP` of `include/linux/socket.h` and `TCP_ULP` of `include/uapi/linux/tcp.h`.
const SOL_TCP: u32 = 6;
const TCP_ULP: u32 = 31;
/// `TCP_CLOSE` of `include/net/tcp_states.h`.
const TCP_CLOSE: u32 = 7;
/// Messages of one `sendmmsg` or `recvmmsg` that are followed.
const MAX_MESSAGES: u64 = 8;
/// `TS_COMPAT` of `arch/x86/include/asm/thread_info.h`.
const TS_COMPAT: u32 = 2;

/// `struct mmsghdr` of `include/linux/socket.h`, 64 bits.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MessageHeader {
    pub name: u64,
    pub name_length: u64,
    pub vector: u64,
    pub segments: u64,
    pub control: [u64; 2],
    pub flags: u64,
    /// Bytes moved; written by the kernel when the call returns.
    pub length: u32,
    pub padding: u32,
}

// TP_PROTO(struct pt_regs *regs, long id)
#[btf_tracepoint(function = "sys_enter")]
pub fn syscall_entry(ctx: BtfTracePointContext) -> i32 {
    begins::<Typed>(ctx.arg(0), ctx.arg(1))
}

// TP_PROTO(struct pt_regs *regs, long ret)
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_return(ctx: BtfTracePointContext) -> i32 {
    returns::<Typed>(ctx.arg(0), ctx.arg(1))
}

// As above.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn syscall_entry_untyped(ctx: RawTracePointContext) -> i32 {
    begins::<Probed>(ctx.arg(0), ctx.arg(1))
}

// As above.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn syscall_return_untyped(ctx: RawTracePointContext) -> i32 {
    returns::<Probed>(ctx.arg(0), ctx.arg(1))
}

// TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn tcp_state(ctx: RawTracePointContext) -> i32 {
    let (sock, state): (u64, u32) = (ctx.arg(0), ctx.arg(2));
    if state == TCP_CLOSE {
        tcp::close(sock);
    }
    0
}

#[inline(always)]
fn begins<A: Access>(regs: u64, number: u64) -> i32 {
    if number == arch::CLOSE {
        closing::<A>(regs);
    } else if arch::classify(number).is_some()
        && scope::is_armed()
        && let Err(reason) = entered::<A>(regs, number)
    {
        emit::count(reason, 0);
    }
    0
}

#[inline(always)]
fn returns<A: Access>(regs: u64, result: i64) -> i32 {
    let number = arch::number::<A>(regs);
    if number == arch::MMAP {
        mapped::<A>(regs, result);
        return 0;
    }
    if number == arch::SETSOCKOPT {
        option_set::<A>(regs, result);
        return 0;
    }
    if arch::classify(number).is_none() {
        return 0;
    }
    let mut call = call::entry();
    // SAFETY: this thread's entry.
    let begun = call.is_some_and(|call| unsafe { (*call).object != 0 });
    if !begun && result > 0 && scope::watches_current() && !compat::<A>() {
        if let Some([descriptor, address, count]) = moving::<A>(regs, number) {
            begun_before_us(number, file::<A>(descriptor), address, count, result as u64);
        }
        call = call::entry();
    }
    if let Some(call) = call {
        returned(call, result);
    }
    0
}

/// `mmap(addr, length, prot, flags, fd, offset)` has returned; without a file its descriptor is -1.
#[inline(always)]
fn mapped<A: Access>(regs: u64, result: i64) {
    let [_, _, protection] = arch::arguments::<A>(regs);
    if protection & tls::PROT_EXEC != 0 && arch::fifth_argument::<A>(regs) as i32 >= 0 {
        tls::mapped(result);
    }
}

/// `setsockopt(sockfd, level, optname, optval, optlen)` has returned.
#[inline(always)]
fn option_set<A: Access>(regs: u64, result: i64) {
    let [_, level, option] = arch::arguments::<A>(regs);
    if (level as u32, option as u32) == (SOL_TCP, TCP_ULP)
        && let Some(name) = read_user(arch::fourth_argument::<A>(regs))
    {
        tls::upper_layer_set(result, name);
    }
}

/// A 32-bit system call: its number means another call.
#[inline(always)]
fn compat<A: Access>() -> bool {
    let field = offset!(task_status);
    field != u64::from(ABSENT) && A::load::<u32>(A::task() + field) & TS_COMPAT != 0
}

/// The file behind a descriptor of the current process; 0 when there is none.
#[inline(always)]
fn file<A: Access>(descriptor: u64) -> u64 {
    let files: u64 = A::load(A::task() + offset!(task_files));
    let table: u64 = A::load(files + offset!(files_fdt));
    let size: u32 = A::load(table + offset!(fdtable_max_fds));
    let descriptor = descriptor as u32;
    if descriptor < size {
        read(A::load::<u64>(table + offset!(fdtable_files)) + 8 * u64::from(descriptor))
    } else {
        0
    }
}

/// What a file moves bytes through.
#[derive(Clone, Copy)]
struct Object {
    source: Source,
    address: u64,
    /// Inode number.
    number: u64,
    /// Its stream, where that is in sight.
    known: Option<*mut Stream>,
}

/// The object behind a file; `None` when it is none of ours.
#[inline(always)]
fn object(file: u64) -> Option<Object> {
    if file == 0 {
        return None;
    }
    let inode: u64 = read(file + offset!(file_inode));
    let kind = read::<u16>(inode + offset!(inode_mode)) & S_IFMT;
    if kind != S_IFIFO && kind != S_IFSOCK {
        return None;
    }
    let number = read(inode + offset!(inode_number));
    if kind == S_IFIFO {
        let address = read(inode + offset!(inode_pipe));
        return Some(Object {
            source: Source::Pipe,
            address,
            number,
            known: stream::known(address, number),
        });
    }
    // An inode of a socket and its `struct socket` are one `struct socket_alloc`.
    let address: u64 = read(inode - offset!(socket_inode) + offset!(socket_sk));
    let known = stream::known(address, number);
    let source = match known {
        // SAFETY: a live map value.
        Some(stream) if unsafe { (*stream).source } == Source::Tcp as u32 => Source::Tcp,
        Some(_) => Source::Unix,
        None => socket_source(address)?,
    };
    Some(Object {
        source,
        address,
        number,
        known,
    })
}

/// What kind of socket a `struct sock` is; `None` when it is none of ours.
#[inline(always)]
fn socket_source(sock: u64) -> Option<Source> {
    if read::<u16>(sock + offset!(sock_type)) != SOCK_STREAM {
        return None;
    }
    match read::<u16>(sock + offset!(sock_family)) {
        AF_UNIX => Some(Source::Unix),
        AF_INET | AF_INET6 if read::<u16>(sock + offset!(sock_protocol)) == IPPROTO_TCP => Some(Source::Tcp),
        _ => None,
    }
}

/// Takes over the buffers that the second and the third argument of a system call tell of; false when there are none.
#[inline(always)]
unsafe fn describe(call: *mut Call, shape: Shape, address: u64, count: u64) -> bool {
    // SAFETY: the caller passes a live map value.
    unsafe {
        (*call).vector = address;
        (*call).size = count;
        if shape == Shape::Buffer {
            return true;
        }
        (*call).flags = VECTOR_IN_USER;
        if shape == Shape::Vector {
            (*call).segments = count;
        } else {
            let Some(header) = read_user::<[u64; 4]>(address) else {
                return false;
            };
            (*call).vector = header[2];
            (*call).segments = header[3];
            if shape == Shape::Messages {
                (*call).next_message = address;
                (*call).messages = MAX_MESSAGES;
                (*call).message_end = 0;
            }
        }
        (*call).size = bytes_asked_for((*call).vector, (*call).segments);
        (*call).segments != 0
    }
}

/// Sum of the lengths of the `segments` segments at user address `vector`; the most there can be where they are too many to look
/// at. A function of its own, since it has a loop.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bytes_asked_for(vector: u64, segments: u64) -> u64 {
    if segments > MAX_SEGMENTS.into() {
        return call::LONGEST;
    }
    let mut sum = 0;
    for index in 0..u64::from(MAX_SEGMENTS) {
        if index >= segments {
            break;
        }
        sum += read_user::<u64>(vector + 16 * index + 8).unwrap_or(0);
    }
    sum
}

/// The first three arguments of the system call `number`; `None` where its flags make it move none.
#[inline(always)]
fn moving<A: Access>(regs: u64, number: u64) -> Option<[u64; 3]> {
    let arguments = arch::arguments::<A>(regs);
    let flags = match arch::classify(number)?.2 {
        Flags::None => 0,
        Flags::Third => arguments[2],
        Flags::Fourth => arch::fourth_argument::<A>(regs),
    };
    (flags as u32 & tcp::IGNORED_FLAGS == 0).then_some(arguments)
}

/// What is muted is found by the thread's entry, before the scope is asked; a thread out of scope has none.
#[inline(always)]
fn entered<A: Access>(regs: u64, number: u64) -> Result<(), DropReason> {
    let seen = call::entry();
    if seen.is_none() && !scope::covers_current() {
        return Ok(());
    }
    let moving = moving::<A>(regs, number);
    let file = moving.map_or(0, |[descriptor, ..]| file::<A>(descriptor));
    // SAFETY: this thread's entry.
    unsafe {
        if let Some(call) = seen {
            if is_muted(call, file) {
                call::ignore(call);
                return Ok(());
            }
            if !scope::covers_current() {
                return Ok(());
            }
        }
        if compat::<A>() {
            return Err(DropReason::Compat);
        }
        let call = call::idle(seen)?;
        (*call).object = call::OTHER;
        match moving {
            Some([_, address, count]) => begin(call, number, file, address, count, 0),
            None => Ok(()),
        }
    }
}

/// Whether `file` is the one that this thread has last found to be muted. Spares what is moved through it over and over the way
/// to the object. The inode's number tells when another file has its address.
#[inline(always)]
unsafe fn is_muted(call: *mut Call, file: u64) -> bool {
    // SAFETY: the caller passes this thread's entry.
    unsafe {
        file != 0
            && (*call).muted_file == file
            && (*call).muted_number == inode_number::<Probed>(file)
            && !stream::is_looked_at_again((*call).muted_birth)
    }
}

/// Lets the system call `number` on `file` begin, with its second and third argument. `moved`: what it has moved already, where it
/// was not seen to begin.
#[inline(always)]
unsafe fn begin(
    call: *mut Call,
    number: u64,
    file: u64,
    address: u64,
    count: u64,
    moved: u64,
) -> Result<(), DropReason> {
    let (Some((shape, direction, _)), Some(object)) = (arch::classify(number), object(file)) else {
        return Ok(());
    };
    // SAFETY: the caller passes this thread's entry, idle.
    unsafe {
        if let Some(stream) = object
            .known
            .filter(|stream| stream::stays_muted(object.address, *stream))
        {
            (*call).muted_file = file;
            (*call).muted_number = object.number;
            (*call).muted_birth = (*stream).birth;
            call::ignore(call);
            return Ok(());
        }
        call::prepare(call, object.address, object.source, direction);
        (*call).total = moved;
        if !describe(call, shape, address, count) {
            (*call).object = call::OTHER;
            return Ok(());
        }
        match object.source {
            Source::Pipe => pipe::begin(call, object.known, object.number),
            Source::Unix => unix::begin(call, object.known, object.number),
            _ => tcp::begin(call, object.known, object.number),
        }
    }
}

/// The return of a call that was not seen to begin: its thread was in it when the observer came or when it came into scope, or the
/// kernel did not run the program, as another task was in the middle of it on this processor (7.x). The registers still hold the
/// arguments. A function of its own, since the verifier then looks at it once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn begun_before_us(number: u64, file: u64, address: u64, count: u64, moved: u64) -> u64 {
    if let Ok(call) = call::idle(None) {
        // SAFETY: this thread's entry.
        let _ = unsafe { begin(call, number, file, address, count, moved) };
    }
    0
}

#[inline(always)]
fn returned(call: *mut Call, result: i64) {
    // SAFETY: a live map value.
    unsafe {
        let object = (*call).object;
        if object == 0 {
            return;
        }
        (*call).object = 0;
        if object == call::OTHER {
            return;
        }
        let result = if (*call).messages != 0 && result > 0 {
            sum(call, result as u64)
        } else {
            result
        };
        if (*call).flags & IGNORED != 0 {
            emit::count_muted(if result > 0 { result as u64 } else { 0 });
        } else if let Some(stream) = STREAMS.get_ptr_mut(&object) {
            call::finish(call, stream, result, |stream, direction, bytes| {
                if (*call).source == Source::Tcp as u64 {
                    tcp::position(object, stream, direction, bytes)
                } else if (*call).source == Source::Pipe as u64 {
                    pipe::position(object, stream, direction, bytes)
                } else {
                    unix::position(object, stream, direction, bytes)
                }
            });
        }
    }
}

/// Bytes of the first `count` messages of a `sendmmsg` or `recvmmsg`.
#[inline(always)]
unsafe fn sum(call: *mut Call, count: u64) -> i64 {
    let mut bytes = 0;
    for index in 0..MAX_MESSAGES {
        // SAFETY: the caller passes a live map value.
        let message = unsafe { (*call).next_message } + index * size_of::<MessageHeader>() as u64;
        if index < count
            && let Some(header) = read_user::<MessageHeader>(message)
        {
            bytes += i64::from(header.length);
        }
    }
    bytes
}

/// A descriptor is about to be closed: when it is its file's last reference, an end of the stream goes with it.
#[inline(always)]
fn closing<A: Access>(regs: u64) {
    if !scope::covers_current() {
        return;
    }
    let file = file::<A>(arch::arguments::<A>(regs)[0]);
    let Some(object) = object(file) else {
        return;
    };
    if read::<u64>(file + offset!(file_references)) != offset!(file_last_reference) {
        return;
    }
    match object.source {
        Source::Pipe => pipe::release(object.address, object.number, file),
        Source::Unix => unix::release(object.address),
        _ => {}
    }
}

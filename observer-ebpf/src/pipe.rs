//! Pipes and FIFOs.
//!
//! | hook | kernels | records |
//! |---|---|---|
//! | `pipe_read`, `pipe_write` entry and return | to 6.12 | Opened, Data |
//! | `anon_pipe_read`, `anon_pipe_write` entry and return | from 6.14; `fifo_pipe_*` call them, so these alone see FIFOs too | Opened, Data |
//! | `pipe_release` entry | all | Closed |
//!
//! Names are given by the daemon when it attaches, from what the running kernel has.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use observer_common::{
    drops::DropReason,
    record::{CLOSED_READERS_LEFT, CLOSED_WRITERS_LEFT},
    stream::{Direction, Source},
};

use crate::{
    call::{self, Call},
    emit,
    function::{self, Entry, Return},
    kernel::{Access, Typed, inode_number, offset, read},
    maps::STREAMS,
    stream::{self, Stream},
    totals,
};

/// `FMODE_READ` and `FMODE_WRITE` of `include/linux/fs.h`.
const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;

/// Buffers of a pipe that are looked at; one has 16 unless `F_SETPIPE_SZ` gives it more.
const MAX_BUFFERS: u32 = 64;

// ssize_t pipe_read(struct kiocb *iocb, struct iov_iter *to)         5.10 to 6.12
// ssize_t anon_pipe_read(struct kiocb *iocb, struct iov_iter *to)    from 6.14
#[fentry]
pub fn pipe_read_entry(ctx: FEntryContext) -> i32 {
    entered(Direction::Received, ctx.arg(0), ctx.arg(1));
    0
}

#[fexit]
pub fn pipe_read_return(ctx: FExitContext) -> i32 {
    returned(Direction::Received, ctx.arg(0), result(&ctx), false)
}

#[fexit]
pub fn pipe_read_return_again(ctx: FExitContext) -> i32 {
    returned(Direction::Received, ctx.arg(0), result(&ctx), true)
}

// ssize_t pipe_write(struct kiocb *iocb, struct iov_iter *from)      5.10 to 6.12
// ssize_t anon_pipe_write(struct kiocb *iocb, struct iov_iter *from) from 6.14
#[fentry]
pub fn pipe_write_entry(ctx: FEntryContext) -> i32 {
    entered(Direction::Sent, ctx.arg(0), ctx.arg(1));
    0
}

#[fexit]
pub fn pipe_write_return(ctx: FExitContext) -> i32 {
    returned(Direction::Sent, ctx.arg(0), result(&ctx), false)
}

#[fexit]
pub fn pipe_write_return_again(ctx: FExitContext) -> i32 {
    returned(Direction::Sent, ctx.arg(0), result(&ctx), true)
}

// int pipe_release(struct inode *inode, struct file *file)           5.10 to 7.3
#[fentry]
pub fn pipe_release_entry(ctx: FEntryContext) -> i32 {
    let (inode, file): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    release(
        Typed::load(file + offset!(file_private_data)),
        Typed::load(inode + offset!(inode_number)),
        file,
    );
    0
}

/// Return value of a function with two arguments: the slot after them (`bpf_get_func_ret` needs 5.17).
#[inline(always)]
fn result(ctx: &FExitContext) -> i64 {
    // SAFETY: a context of two arguments and a return value, eight bytes each.
    unsafe { ctx.as_ptr().cast::<i64>().add(2).read() }
}

#[inline(always)]
fn entered(direction: Direction, iocb: u64, iterator: u64) {
    let file: u64 = Typed::load(iocb + offset!(kiocb_file));
    let call = Entry {
        object: Typed::load(file + offset!(file_private_data)),
        source: Source::Pipe,
        direction,
        iterator,
    };
    let number = || inode_number::<Typed>(file);
    function::entered(&call, number, begin);
}

#[inline(always)]
fn returned(direction: Direction, iocb: u64, result: i64, again: bool) -> i32 {
    let file: u64 = Typed::load(iocb + offset!(kiocb_file));
    let pipe = Typed::load(file + offset!(file_private_data));
    let call = Return {
        object: pipe,
        source: Source::Pipe,
        direction,
        result,
        again,
    };
    function::returned(&call, |stream, direction, bytes| {
        position(pipe, stream, direction, bytes)
    });
    0
}

/// Where the bytes of a call on the pipe at `object` began; counts them.
#[inline(always)]
pub fn position(object: u64, stream: *mut Stream, direction: u8, bytes: u64) -> u64 {
    if direction == Direction::Sent as u8 {
        return totals::position(stream, direction, bytes);
    }
    totals::position_read(stream, stream, bytes, || is_empty(object))
}

/// Whether there is nothing to read from the pipe at `object`.
#[inline(always)]
fn is_empty(object: u64) -> bool {
    read::<u32>(object + offset!(pipe_head)) == read::<u32>(object + offset!(pipe_tail))
}

/// Lets a call on the pipe `call.object` begin, whose inode has `number`; `known` is its stream where that is in sight.
#[inline(always)]
pub unsafe fn begin(call: *mut Call, known: Option<*mut Stream>, number: u64) -> Result<(), DropReason> {
    // SAFETY: the caller passes this thread's entry; streams are live map values.
    unsafe {
        let object = read_volatile(&raw const (*call).object);
        let stream = match known {
            Some(stream) => stream,
            None => {
                open_pipe(object, number);
                STREAMS.get_ptr_mut(&object).ok_or(DropReason::TableFull)?
            }
        };
        if totals::are_apart(stream, stream, (*call).direction, || is_empty(object)) {
            meet_pipe(object, (*call).direction, (*call).total);
        }
        call::begin(call, stream, (*stream).sent);
    }
    Ok(())
}

/// Makes the totals of the pipe at `object` meet. A function of its own, since it has a loop.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn meet_pipe(object: u64, direction: u64, moved: u64) -> u64 {
    let Some(stream) = STREAMS.get_ptr_mut(&object) else {
        return 0;
    };
    // SAFETY: a live map value.
    unsafe { totals::meet(stream, stream, direction, || unread(object), moved) };
    0
}

/// Bytes in the pipe at `object`.
#[inline(always)]
fn unread(object: u64) -> u64 {
    let (head, tail) = (
        read::<u32>(object + offset!(pipe_head)),
        read::<u32>(object + offset!(pipe_tail)),
    );
    let buffers: u64 = read(object + offset!(pipe_buffers));
    let last = read::<u32>(object + offset!(pipe_ring_size)).wrapping_sub(1);
    let mut sum = 0;
    for number in 0..MAX_BUFFERS {
        let slot = tail.wrapping_add(number);
        if slot == head {
            break;
        }
        let buffer = buffers + u64::from(slot & last) * offset!(pipe_buffer_size);
        sum += u64::from(read::<u32>(buffer + offset!(pipe_buffer_length)));
    }
    sum
}

/// Takes the pipe at `object` into sight. A function of its own, since its record needs stack.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn open_pipe(object: u64, number: u64) -> u64 {
    stream::open(object, Source::Pipe, number, || (0, 0), |_| ());
    0
}

/// Tells that the end of a pipe that `file` holds is released, and forgets the pipe when no reader or no writer is left.
#[inline(always)]
pub fn release(object: u64, number: u64, file: u64) {
    let Some(stream) = stream::known(object, number) else {
        return;
    };
    let mode: u32 = read(file + offset!(file_mode));
    let readers = read::<u32>(object + offset!(pipe_readers)).saturating_sub(u32::from(mode & FMODE_READ != 0));
    let writers = read::<u32>(object + offset!(pipe_writers)).saturating_sub(u32::from(mode & FMODE_WRITE != 0));
    let direction = if mode & FMODE_WRITE != 0 {
        Direction::Sent
    } else {
        Direction::Received
    };
    let flags = if readers > 0 { CLOSED_READERS_LEFT } else { 0 } | if writers > 0 { CLOSED_WRITERS_LEFT } else { 0 };
    // SAFETY: a live map value.
    emit::closed(Source::Pipe as u8, direction, flags, unsafe { (*stream).birth });
    if readers == 0 && writers == 0 {
        stream::forget_muted(object);
        let _ = STREAMS.remove(&object);
    }
}

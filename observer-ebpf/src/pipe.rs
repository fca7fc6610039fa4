//! Pipes and FIFOs.
//!
//! | hook | kernels | records |
//! |---|---|---|
//! | `pipe_read`, `pipe_write` entry and return | to 6.12 | Opened, Data |
//! | `anon_pipe_read`, `anon_pipe_write` entry and return | from 6.14; `fifo_pipe_*` call them, so these alone see FIFOs too | Opened, Data |
//! | `pipe_release` entry | all | Closed |
//!
//! Names are given by the daemon when it attaches, from what the running kernel has.

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
    emit, iterator,
    kernel::{offset, read},
    maps::STREAMS,
    scope,
    stream::{self, Stream},
};

/// `FMODE_READ` and `FMODE_WRITE` of `include/linux/fs.h`.
const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;

// ssize_t pipe_read(struct kiocb *iocb, struct iov_iter *to)         5.10 to 6.12
// ssize_t anon_pipe_read(struct kiocb *iocb, struct iov_iter *to)    from 6.14
#[fentry]
pub fn pipe_read_entry(ctx: FEntryContext) -> i32 {
    entered(Direction::Received, ctx.arg(0), ctx.arg(1))
}

#[fexit]
pub fn pipe_read_return(ctx: FExitContext) -> i32 {
    returned(ctx.arg(0), result(&ctx))
}

// ssize_t pipe_write(struct kiocb *iocb, struct iov_iter *from)      5.10 to 6.12
// ssize_t anon_pipe_write(struct kiocb *iocb, struct iov_iter *from) from 6.14
#[fentry]
pub fn pipe_write_entry(ctx: FEntryContext) -> i32 {
    entered(Direction::Sent, ctx.arg(0), ctx.arg(1))
}

#[fexit]
pub fn pipe_write_return(ctx: FExitContext) -> i32 {
    returned(ctx.arg(0), result(&ctx))
}

// int pipe_release(struct inode *inode, struct file *file)           5.10 to 7.3
#[fentry]
pub fn pipe_release_entry(ctx: FEntryContext) -> i32 {
    let (inode, file): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    release(
        read(file + offset!(file_private_data)),
        read(inode + offset!(inode_number)),
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
fn entered(direction: Direction, iocb: u64, iter: u64) -> i32 {
    if scope::covers_current() {
        let file: u64 = read(iocb + offset!(kiocb_file));
        let pipe = read(file + offset!(file_private_data));
        if stream::muted(pipe) {
            return 0;
        }
        let mut call = Call::new(pipe, Source::Pipe, direction);
        iterator::describe(&mut call, iter);
        if let Err(reason) = begin(
            &mut call,
            read(read::<u64>(file + offset!(file_inode)) + offset!(inode_number)),
        ) {
            emit::count(reason, 0);
        }
    }
    0
}

#[inline(always)]
fn returned(iocb: u64, result: i64) -> i32 {
    let file: u64 = read(iocb + offset!(kiocb_file));
    call::returned(read(file + offset!(file_private_data)), result, position);
    0
}

/// Remembers a call on the pipe `call.object`, whose inode has `number`, until it returns.
#[inline(always)]
pub fn begin(call: &mut Call, number: u64) -> Result<(), DropReason> {
    let stream = match stream::known(call.object, number) {
        Some(stream) => stream,
        None => {
            open_pipe(call.object, number);
            STREAMS.get_ptr_mut(&call.object).ok_or(DropReason::TableFull)?
        }
    };
    // SAFETY: a live map value.
    unsafe {
        // What was read here before its writer came into sight had been written before.
        if call.direction == Direction::Sent as u64 && (*stream).sent == 0 {
            (*stream).sent = (*stream).received;
        }
        call::begin(call, stream, (*stream).sent)
    }
}

/// Takes the pipe at `object` into sight. A function of its own, since its record needs stack.
#[inline(never)]
fn open_pipe(object: u64, number: u64) -> u64 {
    stream::open(object, Source::Pipe, number, || (0, 0), |_| ());
    0
}

/// Where the bytes of a call on a pipe began, by our own totals.
#[inline(always)]
pub fn position(stream: *mut Stream, direction: u8, bytes: u64) -> u64 {
    // SAFETY: a live map value.
    unsafe {
        let sent = direction == Direction::Sent as u8;
        call::advance(
            if sent {
                &raw mut (*stream).sent
            } else {
                &raw mut (*stream).received
            },
            bytes,
        )
    }
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
        let _ = STREAMS.remove(&object);
    }
}

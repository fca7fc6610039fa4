//! Stream sockets of `AF_UNIX`.
//!
//! | hook | kernels | records |
//! |---|---|---|
//! | `unix_stream_sendmsg`, `unix_stream_recvmsg` entry and return | all | Opened, Data |
//! | `unix_release` entry | all | Closed |
//!
//! Each end is an object of its own; `unix_sock.peer` leads to the other.

use aya_ebpf::{
    EbpfContext,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use observer_common::{
    drops::DropReason,
    stream::{Direction, Source},
};

use crate::{
    call::{self, Call},
    emit, iterator,
    kernel::{offset, read},
    maps::STREAMS,
    scope,
    stream::{self, Stream},
    tcp::{IGNORED_FLAGS, network_namespace},
};

// int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)                5.10 to 7.3
#[fentry(function = "unix_stream_sendmsg")]
pub fn unix_send_entry(ctx: FEntryContext) -> i32 {
    entered(Direction::Sent, ctx.arg(0), ctx.arg(1))
}

#[fexit(function = "unix_stream_sendmsg")]
pub fn unix_send_return(ctx: FExitContext) -> i32 {
    // SAFETY: a context of three arguments and a return value, eight bytes each.
    returned(ctx.arg(0), unsafe { ctx.as_ptr().cast::<i64>().add(3).read() })
}

// int unix_stream_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)    5.10 to 7.3
#[fentry(function = "unix_stream_recvmsg")]
pub fn unix_receive_entry(ctx: FEntryContext) -> i32 {
    let flags: u32 = ctx.arg(3);
    if flags & IGNORED_FLAGS != 0 {
        return 0;
    }
    entered(Direction::Received, ctx.arg(0), ctx.arg(1))
}

#[fexit(function = "unix_stream_recvmsg")]
pub fn unix_receive_return(ctx: FExitContext) -> i32 {
    let flags: u32 = ctx.arg(3);
    if flags & IGNORED_FLAGS != 0 {
        return 0;
    }
    // SAFETY: a context of four arguments and a return value, eight bytes each.
    returned(ctx.arg(0), unsafe { ctx.as_ptr().cast::<i64>().add(4).read() })
}

// int unix_release(struct socket *sock)                                                       5.10 to 7.3
#[fentry(function = "unix_release")]
pub fn unix_release_entry(ctx: FEntryContext) -> i32 {
    let socket: u64 = ctx.arg(0);
    release(read(socket + offset!(socket_sk)));
    0
}

#[inline(always)]
fn entered(direction: Direction, socket: u64, message: u64) -> i32 {
    if scope::covers_current() {
        let sock = read(socket + offset!(socket_sk));
        if stream::muted(sock) {
            return 0;
        }
        let mut call = Call::new(sock, Source::Unix, direction);
        iterator::describe(&mut call, message + offset!(msghdr_iter));
        if let Err(reason) = begin(&mut call, inode(sock)) {
            emit::count(reason, 0);
        }
    }
    0
}

#[inline(always)]
fn returned(socket: u64, result: i64) -> i32 {
    // The kernel function returns an `int`.
    call::returned(read(socket + offset!(socket_sk)), i64::from(result as i32), position);
    0
}

/// Remembers a call on the socket `call.object`, whose inode has `number`, until it returns.
#[inline(always)]
pub fn begin(call: &mut Call, number: u64) -> Result<(), DropReason> {
    let stream = match stream::known(call.object, number) {
        Some(stream) => stream,
        None => {
            open_unix(call.object, number, scope::current_process());
            let stream = STREAMS.get_ptr_mut(&call.object).ok_or(DropReason::TableFull)?;
            // SAFETY: a live map value.
            let peer = unsafe { (*stream).peer };
            // Its other end too: who holds that may be known before it moves a byte.
            if peer != 0 {
                let number = inode(peer);
                if stream::known(peer, number).is_none() {
                    open_unix(peer, number, 0);
                }
            }
            stream
        }
    };
    // SAFETY: live map values.
    unsafe {
        if call.direction == Direction::Sent as u64 && (*stream).sent == 0 {
            let peer = (*stream).peer;
            if let Some(peer) = STREAMS.get_ptr(&peer) {
                (*stream).sent = (*peer).received;
            }
        }
        call::begin(call, stream, (*stream).sent)
    }
}

/// Where the bytes of a call on a unix socket began, by our own totals.
#[inline(always)]
pub fn position(stream: *mut Stream, direction: u8, bytes: u64) -> u64 {
    crate::pipe::position(stream, direction, bytes)
}

/// Tells that a socket is released, and forgets it.
#[inline(always)]
pub fn release(socket: u64) {
    if let Some(stream) = STREAMS.get_ptr(&socket) {
        // SAFETY: a live map value.
        emit::closed(Source::Unix as u8, Direction::Sent, 0, unsafe { (*stream).birth });
        let _ = STREAMS.remove(&socket);
    }
}

/// Inode number of a socket; 0 for one that no file belongs to.
#[inline(always)]
pub fn inode(sock: u64) -> u64 {
    let socket: u64 = read(sock + offset!(sock_socket));
    if socket == 0 {
        0
    } else {
        read(socket + offset!(socket_inode) + offset!(inode_number))
    }
}

/// Takes the socket at `sock` into sight. A function of its own, since its record needs stack.
#[inline(never)]
fn open_unix(sock: u64, number: u64, process: u32) -> u64 {
    let peer: u64 = read(sock + offset!(unix_peer));
    let peer_number = if peer == 0 { 0 } else { inode(peer) };
    let other_end = || (peer, peer_number);
    stream::open(sock, Source::Unix, number, other_end, |opened| {
        opened.head.pid = process;
        opened.netns = network_namespace(sock);
        opened.peer_inode = peer_number;
    });
    0
}

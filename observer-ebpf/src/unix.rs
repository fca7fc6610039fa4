//! Stream sockets of `AF_UNIX`.
//!
//! | hook | kernels | records |
//! |---|---|---|
//! | `unix_stream_sendmsg`, `unix_stream_recvmsg` entry and return | all | Opened, Data |
//! | `unix_release` entry | all | Closed |
//!
//! Each end is an object of its own; `unix_sock.peer` leads to the other.

use core::ptr::read_volatile;

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
    emit,
    function::{self, Entry, Return},
    kernel::{Access, Probed, Typed, inode_number, offset, read},
    maps::STREAMS,
    scope,
    stream::{self, Stream},
    tcp::{IGNORED_FLAGS, network_namespace},
    totals,
};

/// Buffers of a receive queue that are looked at.
const MAX_BUFFERS: u32 = 64;

// int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)                5.10 to 7.3
#[fentry(function = "unix_stream_sendmsg")]
pub fn unix_send_entry(ctx: FEntryContext) -> i32 {
    entered(Direction::Sent, ctx.arg(0), ctx.arg(1));
    0
}

#[fexit(function = "unix_stream_sendmsg")]
pub fn unix_send_return(ctx: FExitContext) -> i32 {
    sent(&ctx, false)
}

#[fexit(function = "unix_stream_sendmsg")]
pub fn unix_send_return_again(ctx: FExitContext) -> i32 {
    sent(&ctx, true)
}

#[inline(always)]
fn sent(ctx: &FExitContext, again: bool) -> i32 {
    // SAFETY: a context of three arguments and a return value, eight bytes each.
    let result = unsafe { ctx.as_ptr().cast::<i64>().add(3).read() };
    returned(Direction::Sent, ctx.arg(0), result, again)
}

// int unix_stream_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)    5.10 to 7.3
#[fentry(function = "unix_stream_recvmsg")]
pub fn unix_receive_entry(ctx: FEntryContext) -> i32 {
    let flags: u32 = ctx.arg(3);
    if flags & IGNORED_FLAGS == 0 {
        entered(Direction::Received, ctx.arg(0), ctx.arg(1));
    }
    0
}

#[fexit(function = "unix_stream_recvmsg")]
pub fn unix_receive_return(ctx: FExitContext) -> i32 {
    received(&ctx, false)
}

#[fexit(function = "unix_stream_recvmsg")]
pub fn unix_receive_return_again(ctx: FExitContext) -> i32 {
    received(&ctx, true)
}

#[inline(always)]
fn received(ctx: &FExitContext, again: bool) -> i32 {
    let flags: u32 = ctx.arg(3);
    if flags & IGNORED_FLAGS != 0 {
        return 0;
    }
    // SAFETY: a context of four arguments and a return value, eight bytes each.
    let result = unsafe { ctx.as_ptr().cast::<i64>().add(4).read() };
    returned(Direction::Received, ctx.arg(0), result, again)
}

// int unix_release(struct socket *sock)                                                       5.10 to 7.3
#[fentry(function = "unix_release")]
pub fn unix_release_entry(ctx: FEntryContext) -> i32 {
    let socket: u64 = ctx.arg(0);
    release(Typed::load(socket + offset!(socket_sk)));
    0
}

#[inline(always)]
fn entered(direction: Direction, socket: u64, message: u64) {
    let call = Entry {
        object: Typed::load(socket + offset!(socket_sk)),
        source: Source::Unix,
        direction,
        iterator: message + offset!(msghdr_iter),
    };
    function::entered(&call, || number::<Typed>(socket), begin);
}

#[inline(always)]
fn returned(direction: Direction, socket: u64, result: i64, again: bool) -> i32 {
    let sock = Typed::load(socket + offset!(socket_sk));
    // The kernel function returns an `int`.
    let result = i64::from(result as i32);
    let call = Return {
        object: sock,
        source: Source::Unix,
        direction,
        result,
        again,
    };
    function::returned(&call, |stream, direction, bytes| {
        position(sock, stream, direction, bytes)
    });
    0
}

/// Where the bytes of a call on the socket at `sock` began; counts them.
#[inline(always)]
pub fn position(sock: u64, stream: *mut Stream, direction: u8, bytes: u64) -> u64 {
    // SAFETY: callers pass a live map value.
    let peer = unsafe { call::other_end(stream, Source::Unix as u8) };
    if direction == Direction::Received as u8
        && let Some(peer) = peer
    {
        return totals::position_read(peer, stream, bytes, || is_empty(sock));
    }
    totals::position(stream, direction, bytes)
}

/// Whether there is nothing to read from the socket at `sock`.
#[inline(always)]
fn is_empty(sock: u64) -> bool {
    let queue = sock + offset!(sock_receive_queue);
    read::<u64>(queue + offset!(skb_next)) == queue
}

/// Lets a call on the socket `call.object` begin, whose inode has `number`; `known` is its stream where that is in sight.
#[inline(always)]
pub unsafe fn begin(call: *mut Call, known: Option<*mut Stream>, number: u64) -> Result<(), DropReason> {
    // SAFETY: the caller passes this thread's entry; streams are live map values.
    unsafe {
        let object = read_volatile(&raw const (*call).object);
        let stream = match known {
            Some(stream) => stream,
            None => {
                open_unix(object, number, scope::current_process());
                let stream = STREAMS.get_ptr_mut(&object).ok_or(DropReason::TableFull)?;
                let peer = (*stream).peer;
                // Its other end too: who holds that may be known before it moves a byte.
                if peer != 0 {
                    let number = number_of_sock(peer);
                    if stream::known(peer, number).is_none() {
                        open_unix(peer, number, 0);
                    }
                }
                stream
            }
        };
        let direction = (*call).direction;
        let are_apart = |peer| {
            if direction == Direction::Sent as u64 {
                totals::are_apart(stream, peer, direction, || false)
            } else {
                totals::are_apart(peer, stream, direction, || is_empty(object))
            }
        };
        if call::other_end(stream, Source::Unix as u8).is_some_and(are_apart) {
            meet_unix(object, direction, (*call).total);
        }
        call::begin(call, stream, (*stream).sent);
    }
    Ok(())
}

/// Makes the totals of the socket at `object` and of its other end meet. A function of its own, since it has a loop.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn meet_unix(object: u64, direction: u64, moved: u64) -> u64 {
    let Some(stream) = STREAMS.get_ptr_mut(&object) else {
        return 0;
    };
    // SAFETY: a live map value.
    let peer_object = unsafe { (*stream).peer };
    let Some(peer) = STREAMS.get_ptr_mut(&peer_object) else {
        return 0;
    };
    // SAFETY: live map values.
    unsafe {
        if direction == Direction::Sent as u64 {
            totals::meet(stream, peer, direction, || unread(peer_object), moved);
        } else {
            totals::meet(peer, stream, direction, || unread(object), moved);
        }
    }
    0
}

/// Bytes that wait to be read from the socket at `sock`.
#[inline(always)]
fn unread(sock: u64) -> u64 {
    let queue = sock + offset!(sock_receive_queue);
    let mut buffer: u64 = read(queue + offset!(skb_next));
    let mut sum = 0;
    for _ in 0..MAX_BUFFERS {
        if buffer == queue || buffer == 0 {
            break;
        }
        let consumed = read::<u32>(buffer + offset!(skb_control) + offset!(unix_consumed));
        sum += u64::from(read::<u32>(buffer + offset!(skb_length)).wrapping_sub(consumed));
        buffer = read(buffer + offset!(skb_next));
    }
    sum
}

/// Tells that a socket is released, and forgets it.
#[inline(always)]
pub fn release(socket: u64) {
    stream::forget_muted(socket);
    if let Some(stream) = STREAMS.get_ptr(&socket) {
        // SAFETY: a live map value.
        emit::closed(Source::Unix as u8, Direction::Sent, 0, unsafe { (*stream).birth });
        let _ = STREAMS.remove(&socket);
    }
}

/// Inode number of a `struct socket`; 0 for one that no file belongs to.
#[inline(always)]
pub fn number<A: Access>(socket: u64) -> u64 {
    inode_number::<A>(A::load(socket + offset!(socket_file)))
}

/// Inode number of a socket's `struct sock`; 0 for one that is not accepted yet.
#[inline(always)]
fn number_of_sock(sock: u64) -> u64 {
    number::<Probed>(read(sock + offset!(sock_socket)))
}

/// Takes the socket at `sock` into sight. A function of its own, since its record needs stack.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn open_unix(sock: u64, number: u64, process: u32) -> u64 {
    let peer: u64 = read(sock + offset!(unix_peer));
    let peer_number = if peer == 0 { 0 } else { number_of_sock(peer) };
    let other_end = || (peer, peer_number);
    stream::open(sock, Source::Unix, number, other_end, |opened| {
        opened.head.pid = process;
        opened.netns = network_namespace(sock);
        opened.peer_inode = peer_number;
    });
    0
}

//! TCP over IPv4 and IPv6.
//!
//! | hook | kernels | records |
//! |---|---|---|
//! | `tcp_sendmsg` entry and return | all | Opened, Data |
//! | `tcp_recvmsg` entry and return, one program for each prototype | all | Opened, Data |
//! | `tcp_close` entry | all | Closed |
//!
//! Positions are TCP's own sequence numbers: equal at both ends, kept by address translation, and true for connections older
//! than the observer.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use observer_common::{
    config::ABSENT,
    drops::DropReason,
    record::Opened,
    stream::{Direction, Source},
};

use crate::{
    call::{self, Call},
    emit,
    function::{self, Entry, Return},
    kernel::{Access, Typed, offset, read},
    maps::{CONNECTIONS, STREAMS},
    stream::{self, RECEIVED_KNOWN, SENT_KNOWN, Stream},
    unix::number,
};

/// `MSG_OOB`, `MSG_PEEK`, `MSG_TRUNC` and `MSG_ERRQUEUE` of a receive: what it returns is not the stream's next bytes.
///
/// `MSG_TRUNC` on TCP throws bytes away unread; the next receive shows them as a gap.
pub const IGNORED_FLAGS: u32 = 0x1 | 0x2 | 0x20 | 0x2000;

/// `AF_INET6`.
const AF_INET6: u16 = 10;

// int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)                                        5.10 to 7.3
#[fentry(function = "tcp_sendmsg")]
pub fn tcp_send_entry(ctx: FEntryContext) -> i32 {
    entered(Direction::Sent, ctx.arg(0), ctx.arg(1));
    0
}

#[fexit(function = "tcp_sendmsg")]
pub fn tcp_send_return(ctx: FExitContext) -> i32 {
    sent(&ctx, false)
}

#[fexit(function = "tcp_sendmsg")]
pub fn tcp_send_return_again(ctx: FExitContext) -> i32 {
    sent(&ctx, true)
}

#[inline(always)]
fn sent(ctx: &FExitContext, again: bool) -> i32 {
    // SAFETY: a context of three arguments and a return value, eight bytes each.
    let result = unsafe { ctx.as_ptr().cast::<i64>().add(3).read() };
    returned(Direction::Sent, ctx.arg(0), result, again)
}

macro_rules! receive {
    ($entry:ident, $flags:literal) => {
        #[fentry(function = "tcp_recvmsg")]
        pub fn $entry(ctx: FEntryContext) -> i32 {
            let flags: u32 = ctx.arg($flags);
            if flags & IGNORED_FLAGS == 0 {
                entered(Direction::Received, ctx.arg(0), ctx.arg(1));
            }
            0
        }
    };
    ($return:ident, $flags:literal, $arguments:literal, $again:literal) => {
        #[fexit(function = "tcp_recvmsg")]
        pub fn $return(ctx: FExitContext) -> i32 {
            let flags: u32 = ctx.arg($flags);
            if flags & IGNORED_FLAGS != 0 {
                return 0;
            }
            // SAFETY: a context of as many arguments and a return value, eight bytes each.
            let result = unsafe { ctx.as_ptr().cast::<i64>().add($arguments).read() };
            returned(Direction::Received, ctx.arg(0), result, $again)
        }
    };
}

// int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int nonblock, int flags, int *addr_len) 5.10 to 5.18
receive!(tcp_receive6_entry, 4);
receive!(tcp_receive6_return, 4, 6, false);
receive!(tcp_receive6_return_again, 4, 6, true);
// int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags, int *addr_len)               5.19 to 6.17
receive!(tcp_receive5_entry, 3);
receive!(tcp_receive5_return, 3, 5, false);
receive!(tcp_receive5_return_again, 3, 5, true);
// int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t size, int flags)                             from 6.18
receive!(tcp_receive4_entry, 3);
receive!(tcp_receive4_return, 3, 4, false);
receive!(tcp_receive4_return_again, 3, 4, true);

// void tcp_close(struct sock *sk, long timeout)                                                            5.10 to 7.3
#[fentry(function = "tcp_close")]
pub fn tcp_close_entry(ctx: FEntryContext) -> i32 {
    close(ctx.arg(0));
    0
}

#[inline(always)]
fn entered(direction: Direction, sock: u64, message: u64) {
    let call = Entry {
        object: sock,
        source: Source::Tcp,
        direction,
        iterator: message + offset!(msghdr_iter),
    };
    function::entered(
        &call,
        || number::<Typed>(Typed::load(sock + offset!(sock_socket))),
        begin,
    );
}

#[inline(always)]
fn returned(direction: Direction, sock: u64, result: i64, again: bool) -> i32 {
    // The kernel function returns an `int`.
    let result = i64::from(result as i32);
    let call = Return {
        object: sock,
        source: Source::Tcp,
        direction,
        result,
        again,
    };
    function::returned(&call, |stream, direction, bytes| {
        position(sock, stream, direction, bytes)
    });
    0
}

/// Lets a call on the socket `call.object` begin, whose inode has `number`; `known` is its stream where that is in sight.
#[inline(always)]
pub unsafe fn begin(call: *mut Call, known: Option<*mut Stream>, number: u64) -> Result<(), DropReason> {
    // SAFETY: the caller passes this thread's entry; streams are live map values.
    unsafe {
        let sock = read_volatile(&raw const (*call).object);
        let stream = match known {
            Some(stream) => stream,
            None => {
                open_tcp(sock, number);
                STREAMS.get_ptr_mut(&sock).ok_or(DropReason::TableFull)?
            }
        };
        let position = if (*call).direction == Direction::Sent as u64 {
            read::<u32>(sock + offset!(tcp_write_seq)).wrapping_sub((*call).total as u32)
        } else {
            0
        };
        call::begin(call, stream, position.into());
    }
    Ok(())
}

/// Where the bytes of a call on a socket began; counts what passed unseen since the last one.
#[inline(always)]
pub fn position(sock: u64, stream: *mut Stream, direction: u8, bytes: u64) -> u64 {
    let sent = direction == Direction::Sent as u8;
    let (field, known) = if sent {
        (offset!(tcp_write_seq), SENT_KNOWN)
    } else {
        (offset!(tcp_copied_seq), RECEIVED_KNOWN)
    };
    let next: u32 = read(sock + field);
    let begin = next.wrapping_sub(bytes as u32);
    // SAFETY: a live map value.
    unsafe {
        let expected = if sent {
            &raw mut (*stream).sent
        } else {
            &raw mut (*stream).received
        };
        let unseen = begin.wrapping_sub(*expected as u32);
        let is_gap = (*stream).flags & known != 0 && unseen != 0 && unseen < 1 << 31;
        // What no probe saw being sent is copied where it is read, if that is in sight.
        if is_gap && !(sent && call::reader_in_sight(stream, Source::Tcp as u8)) {
            emit::count(DropReason::Unprobed, unseen.into());
        }
        (*stream).flags |= known;
        *expected = next.into();
    }
    begin.into()
}

/// Tells that a socket is closed, and forgets it.
#[inline(always)]
pub fn close(sock: u64) {
    stream::forget_muted(sock);
    if let Some(stream) = STREAMS.get_ptr(&sock) {
        // SAFETY: a live map value.
        emit::closed(Source::Tcp as u8, Direction::Sent, 0, unsafe { (*stream).birth });
        let _ = STREAMS.remove(&sock);
        let _ = CONNECTIONS.remove(&connection_key(sock));
    }
}

/// Inode number of the network namespace of a socket.
#[inline(always)]
pub fn network_namespace(sock: u64) -> u32 {
    let net: u64 = read(sock + offset!(sock_net));
    read(net + offset!(net_inode))
}

/// The sequence numbers at which sending and receiving began, in one word: mirrored at the other end of the connection.
///
/// RFC 9293 gives each direction its own start; `bytes_acked` and `bytes_received` (RFC 4898) count from there, though on the side
/// that connected the SYN counts as one acked byte.
#[inline(always)]
fn connection_key(sock: u64) -> u64 {
    let acked = read::<u64>(sock + offset!(tcp_bytes_acked)) as u32;
    let send = read::<u32>(sock + offset!(tcp_snd_una)).wrapping_sub(acked);
    let received = read::<u64>(sock + offset!(tcp_bytes_received)) as u32;
    let receive = read::<u32>(sock + offset!(tcp_rcv_nxt)).wrapping_sub(received);
    u64::from(send) << 32 | u64::from(receive)
}

/// Address of the other end's socket, where that is on this node and in sight; else 0.
#[inline(always)]
fn other_end(key: u64) -> u64 {
    let (send, receive) = ((key >> 32) as u32, key as u32);
    // We connected: our SYN counts in `send`. They connected: theirs counts in our `receive`. Or neither shows.
    let sock = lookup(receive, send.wrapping_add(1));
    if sock != 0 {
        return sock;
    }
    let sock = lookup(receive.wrapping_sub(1), send);
    if sock != 0 { sock } else { lookup(receive, send) }
}

#[inline(always)]
fn lookup(send: u32, receive: u32) -> u64 {
    // SAFETY: a live map value.
    CONNECTIONS
        .get_ptr(&(u64::from(send) << 32 | u64::from(receive)))
        .map_or(0, |sock| unsafe { *sock })
}

/// Takes the socket at `sock` into sight. A function of its own, since its record needs stack.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn open_tcp(sock: u64, number: u64) -> u64 {
    let key = connection_key(sock);
    let other_end = || {
        let _ = CONNECTIONS.insert(&key, &sock, 0);
        (other_end(key), 0)
    };
    stream::open(sock, Source::Tcp, number, other_end, |opened| {
        opened.netns = network_namespace(sock);
        opened.send_base = (key >> 32) as u32;
        opened.receive_base = key as u32;
        addresses(sock, opened);
    });
    0
}

#[inline(always)]
fn addresses(sock: u64, opened: &mut Opened) {
    opened.family = read(sock + offset!(sock_family));
    opened.local_port = read(sock + offset!(sock_local_port));
    opened.remote_port = u16::from_be(read(sock + offset!(sock_remote_port)));
    if opened.family == AF_INET6 && offset!(sock_local_v6) != u64::from(ABSENT) {
        opened.local = read(sock + offset!(sock_local_v6));
        opened.remote = read(sock + offset!(sock_remote_v6));
    } else {
        let (local, remote): ([u8; 4], [u8; 4]) = (
            read(sock + offset!(sock_local_v4)),
            read(sock + offset!(sock_remote_v4)),
        );
        opened.local[..4].copy_from_slice(&local);
        opened.remote[..4].copy_from_slice(&remote);
    }
}

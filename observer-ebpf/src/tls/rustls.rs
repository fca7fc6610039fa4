//! rustls: the same as for other libraries, read from where Rust puts it.
//!
//! | hook | on | records |
//! |---|---|---|
//! | uprobe `tls_send_chunks` | `CommonState::buffer_plaintext` | none |
//! | uprobe `tls_receive_payload` | `CommonState::take_received_plaintext` | none |
//! | uretprobe `tls_return` | the same | Opened, Data |
//! | uprobe `tls_end` | `drop_in_place::<CommonState>` | Closed |
//!
//! Every way to write or read plain text that rustls offers leads through these two; it is encrypted later, or was decrypted before,
//! so that no socket is used meanwhile.
//!
//! A session is a value, which programs move: when its handshake is done, and what came together with the handshake's end has been read
//! by then, or later. At its new address it is a new session here; the daemon joins them (`protocol/underlay/moved`).
//!
//! Rust promises nobody where arguments are. What is counted on here has held since 1.67: what is larger than two words is passed by
//! its address, and of an enum whose largest variant begins with a pointer or a capacity that word says which variant it is, those
//! of the others following. Where it does not hold, lengths contradict each other or memory cannot be read: both are counted.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use observer_common::{drops::DropReason, stream::Direction};

use super::{TlsCall, begun, stay_off_private_stack};
use crate::{emit, kernel::read_user, scope::watches_current};

/// Bytes of plain text in one record, at most (RFC 8446 section 5.1).
const RECORD: u64 = 16 << 10;

// fn buffer_plaintext(&mut self, payload: OutboundChunks<'_>, sendable_plaintext: &mut ChunkVecBuffer) -> usize
// enum OutboundChunks<'a> { Single(&'a [u8]), Multiple { chunks: &'a [&'a [u8]], start: usize, end: usize } }
#[uprobe]
pub fn tls_send_chunks(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    if !watches_current() {
        return 0;
    }
    match argument::<[u64; 4]>(&ctx) {
        Some([0, buffer, size, _]) => begun(TlsCall {
            buffer,
            size,
            ..call(&ctx, Direction::Sent)
        }),
        // Nothing of the first chunk is done: the function is where chunks come in.
        Some([buffer, segments, 0, size]) => begun(TlsCall {
            buffer,
            segments,
            size,
            ..call(&ctx, Direction::Sent)
        }),
        _ => emit::count(DropReason::UnknownIterator, 0),
    }
    0
}

// fn take_received_plaintext(&mut self, bytes: Payload<'_>)
// enum Payload<'a> { Borrowed(&'a [u8]), Owned(Vec<u8>) }
#[uprobe]
pub fn tls_receive_payload(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    if !watches_current() {
        return 0;
    }
    match argument::<[u64; 3]>(&ctx) {
        Some([_, buffer, size]) if size <= RECORD => begun(TlsCall {
            buffer,
            size,
            moved: size,
            ..call(&ctx, Direction::Received)
        }),
        _ => emit::count(DropReason::UnknownIterator, 0),
    }
    0
}

/// The second argument.
#[inline(always)]
fn argument<T: Copy>(ctx: &ProbeContext) -> Option<T> {
    read_user(ctx.arg(1).unwrap_or(0))
}

#[inline(always)]
fn call(ctx: &ProbeContext, direction: Direction) -> TlsCall {
    TlsCall {
        session: ctx.arg(0).unwrap_or(0),
        movable: 1,
        ..TlsCall::new(direction)
    }
}

//! rustls: the same as for other libraries, read from where Rust puts it.
//!
//! | hook | on | records |
//! |---|---|---|
//! | uprobe `tls_send_chunks` | `CommonState::buffer_plaintext` | none |
//! | uprobe `tls_receive_payload` | `CommonState::take_received_plaintext` | none |
//! | uretprobe `tls_return` | the same | Opened, Data |
//! | uprobe `tls_end_state` | `drop_in_place::<CommonState>` | Closed |
//!
//! Every way to write or read plain text that rustls offers leads through these two; it is encrypted later, or was decrypted before,
//! so that no socket is used meanwhile.
//!
//! A session is a value, which programs move: when its handshake is done, and before it ends. What names it is the address of what
//! encrypts it, which stays where it is and comes to an end with it; it is made anew when keys are, and application data has one key
//! for 2^24 records and more.
//!
//! Rust promises nobody where arguments are. What is counted on here has held since 1.67: what is larger than two words is passed by
//! its address, and of an enum whose largest variant begins with a pointer or a capacity that word says which variant it is, those
//! of the others following. Where it does not hold, lengths contradict each other or memory cannot be read: both are counted.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use observer_common::{drops::DropReason, limits::RUSTLS_ENCRYPTER, stream::Direction};

use super::{TlsCall, begun, ended, stay_off_private_stack};
use crate::{emit, kernel::read_user, scope::watches_current};

/// Bytes of the largest encrypter; real ones have some 600. One without keys has none.
const LARGEST: u64 = 64 << 10;

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
    match (session(&ctx), argument::<[u64; 4]>(&ctx)) {
        (Some(session), Some([0, buffer, size, _])) => begun(TlsCall {
            session,
            buffer,
            size,
            ..TlsCall::new(Direction::Sent)
        }),
        // Nothing of the first chunk is done: the function is where chunks come in.
        (Some(session), Some([buffer, segments, 0, size])) => begun(TlsCall {
            session,
            buffer,
            segments,
            size,
            ..TlsCall::new(Direction::Sent)
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
    match (session(&ctx), argument::<[u64; 3]>(&ctx)) {
        (Some(session), Some([_, buffer, size])) if size <= RECORD => begun(TlsCall {
            session,
            buffer,
            size,
            moved: size,
            ..TlsCall::new(Direction::Received)
        }),
        _ => emit::count(DropReason::UnknownIterator, 0),
    }
    0
}

// unsafe fn drop_in_place(state: *mut CommonState)
#[uprobe]
pub fn tls_end_state(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    if let Some(session) = session(&ctx) {
        ended(session, false);
    }
    0
}

/// What names the session whose state is the first argument: the address of the `dyn MessageEncrypter` in it. `None` where there is
/// none, or none with keys.
#[inline(always)]
fn session(ctx: &ProbeContext) -> Option<u64> {
    let state: u64 = ctx.arg(0).unwrap_or(0);
    let [encrypter, methods] = read_user::<[u64; 2]>(state.wrapping_add(RUSTLS_ENCRYPTER))?;
    // Before what a trait object can do there is how to drop it, and its size and alignment.
    let [_, size, alignment] = read_user::<[u64; 3]>(methods)?;
    let is_object = (1..=LARGEST).contains(&size) && alignment.is_power_of_two() && encrypter & (alignment - 1) == 0;
    is_object.then_some(encrypter)
}

/// The second argument.
#[inline(always)]
fn argument<T: Copy>(ctx: &ProbeContext) -> Option<T> {
    read_user(ctx.arg(1).unwrap_or(0))
}

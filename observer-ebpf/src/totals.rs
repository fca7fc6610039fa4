//! Positions in pipes and unix sockets, which the kernel does not number: what was written and read since first sight.
//!
//! Both ends count alike as long as this holds: **written = read + unread**. It is made true when the second end moves its first
//! bytes, since bytes may have passed between them before they came into sight.

use core::ptr::read_volatile;

use observer_common::stream::Direction;

use crate::{
    call,
    stream::{READER, SENDER, Stream, UNSETTLED},
};

/// Whether [`meet`] is to be called before a process moves bytes at this end.
#[inline(always)]
pub unsafe fn are_apart(stream: *mut Stream, direction: u64) -> bool {
    // SAFETY: the caller passes a live map value.
    let flags = unsafe { (*stream).flags };
    if direction == Direction::Sent as u64 {
        flags & SENDER == 0
    } else {
        flags & (READER | UNSETTLED) != READER
    }
}

/// Makes the totals of a stream's ends meet when a process moves bytes in `direction`. `unread` counts the bytes that wait to be
/// read; `moved` is what this call has moved already, where it was not seen to begin.
///
/// While a send is under way, or was over while the unread were counted, it is not known whether its bytes are among them: the
/// reader then looks again later.
#[inline(always)]
pub unsafe fn meet(writer: *mut Stream, reader: *mut Stream, direction: u64, unread: impl FnOnce() -> u64, moved: u64) {
    // SAFETY: the caller passes live map values.
    unsafe {
        if direction == Direction::Sent as u64 {
            (*writer).sent = ((*reader).received + unread()).saturating_sub(moved);
            return;
        }
        if (*writer).flags & SENDER == 0 {
            return;
        }
        let sent = read_volatile(&raw const (*writer).sent);
        let unread = unread();
        let quiet =
            read_volatile(&raw const (*writer).promised) == sent && read_volatile(&raw const (*writer).sent) == sent;
        if (*reader).flags & READER == 0 || quiet {
            (*reader).received = sent.saturating_sub(unread + moved);
        }
        if quiet {
            (*reader).flags &= !UNSETTLED;
        } else {
            (*reader).flags |= UNSETTLED;
        }
    }
}

/// Where the bytes of a call began; counts them.
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

//! Positions in pipes and unix sockets, which the kernel does not number: what was written and read since first sight.
//!
//! Both ends count alike as long as this holds: **written = read + unread**. It is made true when the second end moves its first
//! bytes, since bytes may have passed between them before they came into sight, and again when they are found to be apart: a program
//! that the kernel does not run, or a process out of scope, leaves out at one end what is counted at the other.

use core::ptr::read_volatile;

use observer_common::stream::Direction;

use crate::{
    call,
    stream::{READER, SENDER, SENT_UNSETTLED, Stream, UNSETTLED},
};

/// Whether [`meet`] is to be called before a process moves bytes at an end, of a stream with these two.
#[inline(always)]
pub unsafe fn are_apart(
    writer: *mut Stream,
    reader: *mut Stream,
    direction: u64,
    is_empty: impl FnOnce() -> bool,
) -> bool {
    // SAFETY: the caller passes live map values.
    unsafe {
        if direction == Direction::Sent as u64 {
            let received = (*reader).received;
            (*writer).flags & (SENDER | SENT_UNSETTLED) != SENDER
                || (*reader).flags & READER != 0 && received > (*writer).sent && received >= (*writer).promised
        } else {
            (*reader).flags & (READER | UNSETTLED) != READER || is_behind(writer, reader, is_empty)
        }
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
            // Before its first call a reader has counted nothing: what was sent since then stays.
            if (*writer).flags & SENDER == 0 || (*reader).flags & READER != 0 {
                (*writer).sent = ((*reader).received + unread()).saturating_sub(moved);
            }
            (*writer).flags &= !SENT_UNSETTLED;
            return;
        }
        if (*writer).flags & SENDER == 0 {
            return;
        }
        let sent = read_volatile(&raw const (*writer).sent);
        let unread = unread();
        let quiet = is_quiet(writer, sent);
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
    let sent = direction == Direction::Sent as u8;
    // SAFETY: a live map value.
    unsafe {
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

/// The same for a read that is over: where it has left nothing to read, it ended where what was written does.
#[inline(always)]
pub fn position_read(writer: *mut Stream, reader: *mut Stream, bytes: u64, is_empty: impl FnOnce() -> bool) -> u64 {
    let begin = position(reader, Direction::Received as u8, bytes);
    // SAFETY: live map values.
    unsafe {
        if is_behind(writer, reader, is_empty) {
            (*reader).received = (*writer).sent;
            return (*reader).received - bytes;
        }
    }
    begin
}

/// Whether more was sent than read, though nothing is left to read and no send is under way.
#[inline(always)]
unsafe fn is_behind(writer: *mut Stream, reader: *mut Stream, is_empty: impl FnOnce() -> bool) -> bool {
    // SAFETY: the caller passes live map values.
    unsafe {
        let sent = read_volatile(&raw const (*writer).sent);
        (*writer).flags & SENDER != 0
            && (*reader).received < sent
            && is_quiet(writer, sent)
            && is_empty()
            && is_quiet(writer, sent)
    }
}

/// Whether no send is under way where `sent` bytes were sent.
#[inline(always)]
unsafe fn is_quiet(writer: *mut Stream, sent: u64) -> bool {
    // SAFETY: the caller passes a live map value.
    unsafe { read_volatile(&raw const (*writer).promised) == sent && read_volatile(&raw const (*writer).sent) == sent }
}

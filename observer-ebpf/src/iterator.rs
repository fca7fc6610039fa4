//! Where a kernel function finds the user's buffers: `struct iov_iter`, in every shape of 5.10 to 7.3.
//!
//! ```text
//! ITER_UBUF  (from 6.0)  one buffer, its address in the iterator
//! ITER_IOVEC             an array of iovec, copied into kernel memory by the system call
//! any other kind         kernel memory (sendfile, splice, io_uring's registered buffers): the bytes count, but cannot be copied
//! ```

use observer_common::config::ABSENT;

use crate::{
    call::{Call, OPAQUE, UNKNOWN},
    kernel::{Access, Typed, offset},
};

/// Largest kind number any kernel uses; beyond it the layout is not what was thought.
const LARGEST_KIND: u64 = 127;

/// Takes over buffers and size of the iterator at `iterator`, an address that was come to from an argument.
#[inline(always)]
pub unsafe fn describe(call: *mut Call, iterator: u64) {
    let kind = u64::from(Typed::load::<u8>(iterator + offset!(iter_kind))) & offset!(iter_kind_mask);
    // SAFETY: the caller passes a live map value.
    unsafe {
        (*call).vector = Typed::load(iterator + offset!(iter_base));
        (*call).offset = Typed::load(iterator + offset!(iter_offset));
        (*call).size = Typed::load(iterator + offset!(iter_count));
        if kind == offset!(iter_iovec) {
            (*call).segments = Typed::load(iterator + offset!(iter_segments));
            if (*call).segments == 0 {
                (*call).flags |= OPAQUE;
            }
        } else if kind != offset!(iter_ubuf) || offset!(iter_ubuf) == u64::from(ABSENT) {
            (*call).flags |= if kind > LARGEST_KIND { UNKNOWN } else { OPAQUE };
        }
    }
}

//! What hooks on functions share: from the object and the buffers that a function is given to the entry of its thread, and from what it
//! returns to the bytes.

use observer_common::{
    drops::DropReason,
    stream::{Direction, Source},
};

use crate::{
    call::{self, Call, OTHER, UNSEEN, entry},
    emit, iterator,
    kernel::setting,
    maps::STREAMS,
    scope,
    stream::{self, READER, SENDER, SENT_UNSETTLED, Stream, UNSETTLED},
};

/// What a program is told of a function that is entered.
pub struct Entry {
    /// Address of the kernel object.
    pub object: u64,
    pub source: Source,
    pub direction: Direction,
    /// Address of the `struct iov_iter`, come to from an argument.
    pub iterator: u64,
}

/// Lets this thread's call begin, where it is to be seen. `number` reads the number of the object's inode; `begin` is the source's
/// own, given this thread's entry, the object's stream where that is in sight, and that number.
#[inline(always)]
pub fn entered(
    entry: &Entry,
    number: impl FnOnce() -> u64,
    begin: unsafe fn(*mut Call, Option<*mut Stream>, u64) -> Result<(), DropReason>,
) {
    if stream::stays_known_muted(entry.object) || !scope::watches_current() {
        return;
    }
    let seen = STREAMS.get_ptr_mut(&entry.object);
    if let Some(stream) = seen.filter(|stream| stream::stays_muted(entry.object, *stream)) {
        stream::know_muted(entry.object, stream);
        return;
    }
    let number = number();
    let begun = idle_by_now().and_then(|call| {
        // SAFETY: this thread's entry.
        unsafe {
            call::prepare(call, entry.object, entry.source, entry.direction);
            iterator::describe(call, entry.iterator);
            begin(call, stream::of_inode(seen, number), number)
        }
    });
    if let Err(reason) = begun {
        emit::count(reason, 0);
    }
}

/// What a program is told of a function's return.
pub struct Return {
    /// Address of the kernel object.
    pub object: u64,
    pub source: Source,
    pub direction: Direction,
    /// What the function returns.
    pub result: i64,
    /// Whether it is the second of two programs that do the same.
    pub again: bool,
}

/// Works off the return of this thread's call. `begin_of` says where its bytes began, from the stream, the direction and their
/// number.
///
/// The kernel does not run a program on a processor where another task is in the middle of it, which happens where tasks are preempted
/// inside the kernel (7.x). There each function has two programs on its return: whichever runs first works the call off.
#[inline(always)]
pub fn returned(call: &Return, begin_of: impl FnOnce(*mut Stream, u8, u64) -> u64) {
    // SAFETY: live map values.
    unsafe {
        if call.again && is_worked_off(call.object) {
            return;
        }
        if stream::is_known_muted(call.object) {
            count_muted(call);
            return;
        }
        let entry = entry();
        if call.result < 0
            && let Direction::Received = call.direction
            && let Some(entry) = entry
            && (*entry).object == call.object
        {
            // A read that found nothing has nothing to tell.
            (*entry).object = 0;
            (*entry).returns += 1;
            return;
        }
        let Some(stream) = STREAMS.get_ptr_mut(&call.object) else {
            return;
        };
        if stream::is_muted(stream) {
            count_muted(call);
            return;
        }
        let Some(entry) = entry else { return };
        if (*entry).object == call.object || has_returned(entry) && was_unseen(entry, call, stream) {
            call::finish(entry, stream, call.result, begin_of);
        }
        (*entry).returns += 1;
    }
}

/// Counts the bytes of a call on a muted stream, once.
#[inline(always)]
fn count_muted(call: &Return) {
    if !call.again && call.result > 0 {
        emit::count_muted(call.result as u64);
    }
}

/// Whether the other program on the return of this thread's call on `object` has run.
#[inline(always)]
unsafe fn is_worked_off(object: u64) -> bool {
    let Some(entry) = entry() else { return false };
    // SAFETY: a live map value.
    unsafe {
        let other_has_run = (*entry).object != object && !has_returned(entry);
        if other_has_run {
            (*entry).returns += 1;
        }
        other_has_run
    }
}

/// Whether every program has run on the return of the last call seen to begin: another return is that of a call that was not.
#[inline(always)]
unsafe fn has_returned(entry: *mut Call) -> bool {
    let programs: u32 = setting!(returns);
    // SAFETY: the caller passes a live map value.
    unsafe { (*entry).returns >= programs.into() }
}

/// Makes this thread's entry one of a call that was not seen to begin, at an end where calls were seen before: no program was run, or
/// its thread came into scope meanwhile. What was read is told; what was written its reader copies.
///
/// False for a call that is none of ours: out of scope, or in progress when the observer came.
#[inline(always)]
unsafe fn was_unseen(entry: *mut Call, call: &Return, stream: *mut Stream) -> bool {
    let seen = match call.direction {
        Direction::Sent if call.source as u8 == Source::Tcp as u8 => return false,
        Direction::Sent => SENDER,
        Direction::Received => READER,
    };
    // SAFETY: the caller passes live map values.
    unsafe {
        if call.result <= 0 || (*stream).flags & seen == 0 || !scope::watches_current() {
            return false;
        }
        call::prepare(entry, call.object, call.source, call.direction);
        (*entry).size = call.result as u64;
        (*entry).flags = UNSEEN;
    }
    true
}

/// The same for a call of a kernel function. A call that it is still in has returned without a program being run.
#[inline(always)]
pub fn idle_by_now() -> Result<*mut Call, DropReason> {
    let entry = call::make_entry()?;
    // SAFETY: a live map value that only this thread uses.
    unsafe {
        if (*entry).object != 0 {
            miss_return();
        }
        (*entry).object = 0;
    }
    Ok(entry)
}

/// Takes in that this thread's call has returned unseen: whenever a program, of whomever, is attached to a kernel function or detached,
/// the calls that are in progress there return without any (`bpf_tramp_image_put` of `kernel/bpf/trampoline.c`), which the kernel
/// counts nowhere. What the call moved its other end tells, where that is in sight; when it returned nobody knows.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn miss_return() -> u64 {
    let Some(call) = entry() else { return 0 };
    // SAFETY: live map values.
    unsafe {
        let (object, birth) = ((*call).object, (*call).birth);
        // The return of a call on a stream that is muted meanwhile is passed over.
        if object == 0 || object >= OTHER || birth == 0 || stream::is_refused(birth) {
            return 0;
        }
        if let Some(stream) = STREAMS.get_ptr_mut(&object)
            && (*stream).birth == birth
        {
            if stream::is_muted(stream) {
                return 0;
            }
            (*stream).flags |= if (*call).direction == Direction::Sent as u64 {
                SENT_UNSETTLED
            } else {
                UNSETTLED
            };
        }
    }
    emit::count_missed_return();
    0
}

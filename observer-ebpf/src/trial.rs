//! A uretprobe that tells that it ran: the daemon tries it on a process of its own before any other process gets one.
//!
//! | hook | on | records |
//! |---|---|---|
//! | uretprobe `trial_return` | a function of the daemon's own executable | none |

use aya_ebpf::{
    macros::{map, uretprobe},
    maps::Array,
    programs::RetProbeContext,
};

/// Not 0 once the probe has run.
#[map]
pub static TRIAL: Array<u32> = Array::with_max_entries(1, 0);

#[uretprobe]
pub fn trial_return(_ctx: RetProbeContext) -> i32 {
    if let Some(ran) = TRIAL.get_ptr_mut(0) {
        // SAFETY: a live map value; whoever writes it writes the same.
        unsafe { ran.write(1) };
    }
    0
}

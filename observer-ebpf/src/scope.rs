//! Early exits: whether the current process is to be seen at all, decided before anything is copied.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_cgroup_id};
use observer_common::config::ScopeKind;

use crate::{
    kernel::setting,
    maps::{ARMED, CGROUPS, PROCESSES},
};

/// The current thread and its process, in one word.
#[inline(always)]
pub fn current() -> u64 {
    bpf_get_current_pid_tgid()
}

/// Process id (thread group) of the current process.
#[inline(always)]
pub fn current_process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Thread id of the current thread.
#[inline(always)]
pub fn current_thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// Whether the current process is to be seen, and every probe is in place.
#[inline(always)]
pub fn watches_current() -> bool {
    is_armed() && covers_current()
}

/// Whether every probe is in place: a message that passed while they were being attached would be seen at one end only.
#[inline(always)]
pub fn is_armed() -> bool {
    // SAFETY: a live map value.
    ARMED.get_ptr(0).is_some_and(|armed| unsafe { *armed } != 0)
}

/// Whether the current process is to be seen. The observer itself never is.
#[inline(always)]
pub fn covers_current() -> bool {
    let process = current_process();
    process != setting!(observer) && (setting!(scope) == ScopeKind::Node as u32 || lists(process))
}

#[inline(always)]
fn lists(process: u32) -> bool {
    if setting!(processes) != 0 && PROCESSES.get_ptr(&process).is_some() {
        return true;
    }
    // SAFETY: the helper has no arguments and always succeeds.
    setting!(cgroups) != 0 && CGROUPS.get_ptr(&unsafe { bpf_get_current_cgroup_id() }).is_some()
}

//! Processes: made, turned into another program, ended; and control groups made and removed, for the scope.
//!
//! | hook | kernels | records |
//! |---|---|---|
//! | raw tracepoint `sched_process_fork` | all | Process (Fork) |
//! | raw tracepoint `sched_process_exec` | all | Process (Exec) |
//! | raw tracepoint `sched_process_exit` | all | Process (Exit), of the last thread |
//! | raw tracepoints `cgroup_mkdir`, `cgroup_rmdir` | all | none; they keep `CGROUPS` |

use aya_ebpf::{helpers::bpf_get_current_comm, macros::raw_tracepoint, programs::RawTracePointContext};
use observer_common::{
    drops::DropReason,
    record::{Head, Process, RecordKind},
};

use crate::{
    emit, function,
    kernel::{offset, read},
    maps::{CALLS, CGROUPS, PROCESSES},
    scope,
    tls::TLS_CALLS,
};

// TP_PROTO(struct task_struct *parent, struct task_struct *child)
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    let child: u64 = ctx.arg(1);
    let process: u32 = read(child + offset!(task_tgid));
    if !scope::covers_current() || read::<u32>(child + offset!(task_pid)) != process {
        return 0;
    }
    let parent = scope::current_process();
    if PROCESSES.get_ptr(&parent).is_some() && PROCESSES.insert(&process, &1, 0).is_err() {
        emit::count(DropReason::TableFull, 0);
    }
    tell(RecordKind::Fork, process, parent, 0);
    0
}

// TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(_ctx: RawTracePointContext) -> i32 {
    if scope::covers_current() {
        tell(RecordKind::Exec, scope::current_process(), 0, 0);
    }
    0
}

// TP_PROTO(struct task_struct *p)                   5.10 to 6.15
// TP_PROTO(struct task_struct *p, bool group_dead)  from 6.16
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(ctx: RawTracePointContext) -> i32 {
    function::miss_return();
    let _ = CALLS.remove(&scope::current());
    let _ = TLS_CALLS.remove(&scope::current());
    let task: u64 = ctx.arg(0);
    let signal: u64 = read(task + offset!(task_signal));
    if !scope::covers_current() || read::<u32>(signal + offset!(signal_live)) != 0 {
        return 0;
    }
    let group: u32 = read(signal + offset!(signal_group_exit_code));
    let code = if group != 0 {
        group
    } else {
        read(task + offset!(task_exit_code))
    };
    let process = scope::current_process();
    tell(RecordKind::Exit, process, 0, code);
    let _ = PROCESSES.remove(&process);
    0
}

// TP_PROTO(struct cgroup *cgrp, const char *path)
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_made(ctx: RawTracePointContext) -> i32 {
    let group: u64 = ctx.arg(0);
    let parent = read::<u64>(group + offset!(cgroup_parent)).wrapping_sub(offset!(cgroup_self));
    if unified(group) && CGROUPS.get_ptr(&id(parent)).is_some() && CGROUPS.insert(&id(group), &1, 0).is_err() {
        emit::count(DropReason::TableFull, 0);
    }
    0
}

// TP_PROTO(struct cgroup *cgrp, const char *path)
#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub fn cgroup_removed(ctx: RawTracePointContext) -> i32 {
    let group: u64 = ctx.arg(0);
    if unified(group) {
        let _ = CGROUPS.remove(&id(group));
    }
    0
}

/// Whether a group is of cgroup v2; the groups of v1 have ids of their own, which may be equal.
#[inline(always)]
fn unified(group: u64) -> bool {
    let root: u64 = read(group + offset!(cgroup_root));
    read::<u32>(root + offset!(root_hierarchy)) == 0
}

#[inline(always)]
fn id(group: u64) -> u64 {
    let node: u64 = read(group + offset!(cgroup_kn));
    read(node + offset!(kernfs_id))
}

/// Tells of a change of a process.
#[inline(always)]
pub fn tell(kind: RecordKind, process: u32, parent: u32, exit_code: u32) {
    emit::fixed(&Process {
        head: Head {
            kind: kind as u8,
            source: 0,
            direction: 0,
            flags: 0,
            pid: process,
        },
        parent,
        exit_code,
        time: emit::now(),
        comm: bpf_get_current_comm().unwrap_or_default(),
    });
}

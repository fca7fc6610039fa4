//! How probes go at the end: the kernel waits for every processor a few times for each probe on a library, one probe after the
//! other, some tenth of a second each on a busy node. Whoever closes the last descriptor of a probe waits; so a child holds all of
//! them and closes them after we have ended.

use std::fs;
use std::os::fd::RawFd;
use std::os::unix::process::parent_id;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The word on the command line that makes a child hold probes. For nobody else.
pub const WORD: &str = "hold-probes";

/// How long a child waits for its parent's end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a child that holds the descriptors of all probes until this process has ended.
pub(super) fn hand_over() -> Result<()> {
    for descriptor in descriptors() {
        // SAFETY: the call changes a flag of a descriptor that is ours.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) };
    }
    Command::new("/proc/self/exe")
        .arg(WORD)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(|_| ())
        .context("no child could be started to hold the probes")
}

/// What the child does: holds what it was given until its parent is gone.
pub fn hold() {
    let (parent, since) = (parent_id(), Instant::now());
    while parent_id() == parent && since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Descriptors of probes on functions of programs.
fn descriptors() -> Vec<RawFd> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            target.contains("perf_event")
                || (target.contains("bpf") && is_perf_link(&entry.file_name().to_string_lossy()))
        })
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .collect()
}

/// Whether a descriptor is a link of a program to such a probe (5.15 and later); links to functions of the kernel go at once.
fn is_perf_link(descriptor: &str) -> bool {
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).unwrap_or_default();
    told.lines()
        .any(|line| line.starts_with("link_type:") && line.ends_with("perf"))
}

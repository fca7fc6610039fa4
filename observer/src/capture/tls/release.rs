//! How probes go: the kernel waits for every processor a few times for each probe on a library, one probe after the other, some tenth
//! of a second each on a busy node. Whoever closes the last descriptor of a probe waits; so a child closes them, when we have closed
//! ours or have ended.

use std::fs;
use std::io::{self, Read};
use std::os::fd::RawFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// The word on the command line that makes a child hold probes. For nobody else.
pub const WORD: &str = "hold-probes";

/// A child that holds the descriptors of all probes there are, until it is told to let go of them or we have ended.
pub(super) struct Holder(Child);

impl Holder {
    /// Starts the child.
    ///
    /// # Errors
    /// When the system has no room for another process.
    pub(super) fn start() -> Result<Self> {
        for descriptor in descriptors() {
            // SAFETY: the call changes a flag of a descriptor that is ours.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) };
        }
        Command::new("/proc/self/exe")
            .arg(WORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
            .context("no child could be started to hold the probes")
    }

    /// Has it let go of them, and end.
    pub(super) fn let_go(&mut self) {
        self.0.stdin = None;
    }

    /// Whether it has ended, and leaves nothing behind.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

/// What the child does: holds what it was given until the other end of its standard input is closed.
pub fn hold() {
    // Nothing is ever written there: it ends, or it cannot be read, and then there is nothing to wait for.
    let _ = io::stdin().read(&mut [0]);
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

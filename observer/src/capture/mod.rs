//! The kernel side as the daemon sees it: loads and attaches probes, turns ring records into [`Event`]s, takes verdicts back.

pub mod recording;

use std::path::PathBuf;

use observer_common::drops::{DropCount, DropReason};

use crate::protocol::event::{Event, StreamKey, Timestamp, Verdict};

/// What to observe and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which probes to use.
    pub backend: BackendChoice,
    /// Whose calls to see.
    pub scope: Scope,
    /// Size of the ring in bytes; rounded up to a power of two of at least one page.
    pub ring_bytes: u32,
}

/// `--backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The function backend where the kernel can, else the syscall backend.
    #[default]
    Auto,
    /// fentry and fexit on the kernel's pipe and socket functions, or an error.
    Function,
    /// Raw tracepoints on system calls.
    Syscall,
}

/// The probes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// fentry and fexit.
    Function,
    /// Raw tracepoints on system calls.
    Syscall,
}

/// Whose calls to see. The observer itself is never in scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// These processes and their descendants.
    pub pids: Vec<u32>,
    /// These control groups (paths in the cgroup v2 tree) and their descendants.
    pub cgroups: Vec<PathBuf>,
}

/// One probe and whether it is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Kernel function or tracepoint, with what is done there: `tcp_sendmsg entry`.
    pub name: String,
    /// `None` when attached; else why not.
    pub failure: Option<String>,
}

/// Probes in place, and the ring they write to. Dropping it detaches everything.
#[derive(Debug)]
pub struct Capture {}

impl Capture {
    /// Loads and attaches.
    ///
    /// # Errors
    /// One line that says what the kernel refused and what to do.
    pub fn start(_options: &Options) -> anyhow::Result<Self> {
        anyhow::bail!("not yet")
    }

    /// The probes in use.
    #[must_use]
    pub fn backend(&self) -> Backend {
        Backend::Syscall
    }

    /// Every probe of this backend.
    #[must_use]
    pub fn probes(&self) -> &[Probe] {
        &[]
    }

    /// Hands on every record that is in the ring now, as events; returns the bytes of ring records taken out.
    ///
    /// Bounded: at most one ring's size a call. Keeps the raw records too while a recording is on.
    pub fn drain(&mut self, mut _take: impl FnMut(Event)) -> usize {
        0
    }

    /// Tells the kernel side how to treat a stream. Streams it has forgotten are ignored.
    pub fn set_verdict(&mut self, _key: StreamKey, _verdict: Verdict) {}

    /// What the kernel side could not copy, by reason, since start.
    #[must_use]
    pub fn losses(&self) -> Vec<(DropReason, DropCount)> {
        Vec::new()
    }

    /// Bytes left out since start because a verdict said so.
    #[must_use]
    pub fn muted_bytes(&self) -> u64 {
        0
    }

    /// Runs of each program that the kernel skipped because it was already running on that CPU.
    #[must_use]
    pub fn skipped_runs(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Bytes in the ring that wait to be drained.
    #[must_use]
    pub fn backlog(&self) -> usize {
        0
    }

    /// Writes every raw record to `recording` from now on.
    pub fn record_to(&mut self, _recording: recording::Writer) {}
}

/// The kernel's monotonic clock now: the time base of all events.
#[must_use]
pub fn now() -> Timestamp {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Timestamp(u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// What this node lets the observer see; the content of `mcp-observer check`.
#[derive(Clone, Debug)]
pub struct Survey {
    /// `uname -r`.
    pub kernel: String,
    /// Whether `/sys/kernel/btf/vmlinux` can be read.
    pub btf: bool,
    /// The backend that `auto` would choose, and the sentence that says why; `Err` when none would work, with why and what to do.
    pub backend: Result<(Backend, String), String>,
    /// Capabilities that are missing among those needed.
    pub missing_capabilities: Vec<&'static str>,
    /// What cannot be seen here at all, one sentence each.
    pub blind_spots: Vec<String>,
}

/// Looks at the node without attaching anything that stays.
#[must_use]
pub fn survey() -> Survey {
    Survey {
        kernel: String::new(),
        btf: false,
        backend: Err(String::new()),
        missing_capabilities: Vec::new(),
        blind_spots: Vec::new(),
    }
}

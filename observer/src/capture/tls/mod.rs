//! Probes on TLS libraries: which process has which, and the probes that follow.
//!
//! ```text
//! loop ── processes that mapped a file, or changed ──► search ── what TLS libraries a process has ──► probes
//!   ▲                                                                                                   │
//!   └──────────────── how many processes have which library, and how far the way into it is open ───────┘
//! ```
//!
//! The kernel tells when code of a file is mapped (`Mapped` records), [`search`] finds out what the file is, [`probes`] attaches.
//! Both are threads, since files are large and the kernel lets whoever attaches wait for all who detach.
//!
//! Probes belong to a file, each once, and serve every process that has it, a new one from its first call. Processes out of scope run
//! into them too; nothing of theirs is read. (Probes of one process alone would have the kernel go through those of all processes
//! of the file at each call, and wait for every processor when each ends.)

mod census;
mod confinement;
mod elf;
mod emulated;
mod families;
mod go;
mod names;
mod pclntab;
mod probes;
pub mod release;
mod rustls;
mod search;
mod signatures;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use aya::Ebpf;
use aya::programs::{FExit, Program, UProbe};
use observer_common::record::RecordKind;

use self::elf::{Findings, Point, Refusal};
use self::families::PROGRAMS;
use self::probes::Probes;
pub(super) use self::search::Change;
use super::layout::Kernel;
use super::{Backend, Probe, Scope, attach, decode};
pub(super) use census::census;
pub use census::{Census, LibraryUse};
pub(super) use confinement::uretprobes;

/// Processes whose findings may wait to be attached to.
const QUEUE: usize = 256;

/// The functions whose returns tell what no record of the function backend's own does: function, its number of arguments, program,
/// and what comes of it where it is missing.
const TOLD_BY_RETURNS: &[(&str, usize, &str, &str)] = &[
    (
        "vm_mmap_pgoff",
        6,
        "file_mapped",
        "new TLS libraries are found within a minute",
    ),
    (
        "tcp_set_ulp",
        2,
        "kernel_tls",
        "TLS that the kernel does is not told of",
    ),
];

/// How far the way into a process's TLS is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Probes are in place.
    Attached,
    /// The library has no way in that is known.
    Unsupported,
    /// The file or the kernel refuses.
    Failed,
}

impl State {
    /// The value of the metric label `state`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
        }
    }
}

/// Whether uretprobes do no harm on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returns {
    Safe,
    Unsafe,
}

/// How many processes have a library, by its name and how far the way into it is open.
pub(super) type Uses = BTreeMap<(&'static str, State), u64>;

/// Probes on TLS libraries, and who has them.
pub(super) struct Tls {
    wanted: Sender<Vec<Change>>,
    /// What happened to processes since the last turn, each once and in the order of its first.
    changes: Vec<Change>,
    /// What the thread that attaches told last.
    uses: Arc<Mutex<Uses>>,
    /// Whether no more probes are to be attached.
    ending: Arc<AtomicBool>,
}

impl Tls {
    /// Loads the programs and begins to search.
    ///
    /// # Errors
    /// When the kernel refuses the programs; everything else goes on without them.
    pub(super) fn start(
        ebpf: &mut Ebpf,
        kernel: &Kernel,
        backend: Backend,
        scope: &Scope,
        probes: &mut Vec<Probe>,
    ) -> Result<Self> {
        for name in PROGRAMS {
            probe(ebpf, name)?
                .load()
                .map_err(attach::readable)
                .with_context(|| format!("the kernel refuses {name}"))?;
        }
        if backend == Backend::Function {
            for (function, arguments, program, otherwise) in TOLD_BY_RETURNS {
                let attached = if kernel.arguments(function) == Some(*arguments) {
                    follow(ebpf, function, program)
                } else {
                    Err(anyhow!("this kernel's {function} is another one: {otherwise}"))
                };
                probes.push(Probe {
                    name: format!("{function} return"),
                    failure: attached.err().map(|error| format!("{error:#}")),
                });
            }
        }
        let returns = uretprobes(ebpf)
            .inspect_err(|reason| {
                tracing::warn!("TLS libraries whose returns would be probed are left alone: {reason}");
            })
            .map_or(Returns::Unsafe, |()| Returns::Safe);
        let (uses, ending) = (Arc::default(), Arc::default());
        let attaching = Probes::new(ebpf, returns, Arc::clone(&uses), Arc::clone(&ending))?;
        let (wanted, requests) = channel();
        let (findings, found) = sync_channel(QUEUE);
        let scope = scope.clone();
        thread("tls-search", move || search::search(&scope, &requests, &findings))?;
        thread("tls-attach", move || attaching.follow(&found))?;
        Ok(Self {
            wanted,
            changes: Vec::new(),
            uses,
            ending,
        })
    }

    /// Has something looked into that happened to a process.
    pub(super) fn note(&mut self, change: Change) {
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }

    /// Has what happened looked into.
    pub(super) fn turn(&mut self) {
        if !self.changes.is_empty() {
            // It ends when we do.
            let _ = self.wanted.send(std::mem::take(&mut self.changes));
        }
    }

    /// How many processes have each library, by how far the way into it is open.
    pub(super) fn processes(&self) -> Uses {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a record tells of a process's way to TLS; `None` for all other records.
pub(super) fn change(record: &[u8]) -> Option<Change> {
    let process = decode::process_of(record)?;
    match *record.first()? {
        kind if kind == RecordKind::Mapped as u8 => Some(Change::Mapped(process)),
        kind if kind == RecordKind::KernelTls as u8 => Some(Change::KernelTls(process)),
        _ => None,
    }
}

/// Whether the kernel lets a probe know what it was attached for.
pub(super) fn has_cookies() -> bool {
    let features = aya::features();
    features.bpf_cookie() && features.bpf_perf_link()
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(|_| ())
        .context("cannot start a thread; raise the limit on processes")
}

/// A library's name and where it is to be probed; else its name and why it is not.
fn ways_in(
    findings: &Result<Findings, Refusal>,
    returns: Returns,
) -> Result<(&'static str, &[Point]), (&'static str, State)> {
    match findings {
        Ok(Findings::Reachable { library, points }) => {
            if returns == Returns::Unsafe && points.iter().any(|point| point.returns) {
                return Err((library, State::Failed));
            }
            Ok((library, points))
        }
        Ok(Findings::Unsupported { library }) => Err((library, State::Unsupported)),
        Ok(Findings::Nothing) | Err(_) => Err(("unknown", State::Failed)),
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // What is attached after the child has begun would be ours to wait for.
        self.ending.store(true, Ordering::Release);
        match release::Holder::start() {
            // It holds them until we have ended.
            Ok(holder) => std::mem::forget(holder),
            Err(error) => tracing::warn!("{error:#}: it takes some seconds until the last probe is gone"),
        }
    }
}

/// Has a program told of a kernel function's returns.
fn follow(ebpf: &mut Ebpf, function: &str, program: &str) -> Result<()> {
    let btf = aya::Btf::from_sys_fs().context("the kernel's type information cannot be read")?;
    let program: &mut FExit = attach::find(ebpf, program)?.try_into()?;
    program.load(function, &btf).map_err(attach::readable)?;
    program.attach()?;
    Ok(())
}

fn probe<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut UProbe> {
    let program: &mut Program = attach::find(ebpf, name)?;
    Ok(program.try_into()?)
}

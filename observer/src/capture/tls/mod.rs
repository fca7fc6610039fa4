//! Probes on TLS libraries: which process has which, and the probes that follow.
//!
//! The kernel tells when code of a file is mapped (`Mapped` records), [`search`] finds out what the file is, and this module
//! attaches. Probes belong to a file and serve every process that has it; where only some processes are in scope, they belong to
//! file and process, so that nobody else runs into them.

mod census;
mod confinement;
mod elf;
mod families;
mod go;
mod pclntab;
pub mod release;
mod search;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::uprobe::{UProbeLink, UProbeScope};
use aya::programs::{FExit, Program, UProbe};

use self::elf::{Findings, Point, Refusal};
use self::families::{PROGRAMS, RETURN};
use self::search::{Change, FileId, Found, Library};
use super::layout::Kernel;
use super::{Backend, Probe, Scope, attach};
pub(super) use census::census;
pub use census::{Census, LibraryUse};
pub(super) use confinement::uretprobes;

/// Processes whose findings may wait for the loop.
const QUEUE: usize = 256;

/// Processes whose libraries are attached in one turn: each takes system calls, and the ring fills meanwhile.
const AT_ONCE: usize = 16;

/// Processes that may have probes of their own on one file: each runs into those of all, which the kernel goes through one by one.
const MAX_PROCESSES_OF_FILE: usize = 32;

/// How long probes stay that nobody uses: the next process with the same library is often near.
const GRACE: Duration = Duration::from_secs(60);

/// Threads that take probes away at the same time.
const DETACHERS: usize = 32;

/// The function whose return tells that a file was mapped.
const MAPPING: &str = "vm_mmap_pgoff";

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

/// Probes on TLS libraries, and who has them.
pub(super) struct Tls {
    wanted: Sender<Vec<Change>>,
    found: Receiver<Found>,
    /// What happened to processes since the last turn, each once and in the order of its first.
    changes: Vec<Change>,
    /// Whether probes belong to one process each.
    one_process_each: bool,
    /// Whether returns may be probed.
    returns: Returns,
    libraries: HashMap<Place, Attached>,
    processes: HashMap<u32, Vec<Place>>,
    /// Takes probes that nobody needs: the kernel lets the one that takes them away wait for everyone in them.
    unneeded: Sender<Vec<UProbeLink>>,
    /// How many times it has still to do so.
    detaching: Arc<AtomicUsize>,
    /// When what is unused was last looked for.
    swept: Instant,
}

/// Where probes are: a file, and the process where they serve only one.
type Place = (FileId, Option<u32>);

/// Probes in one place.
struct Attached {
    library: &'static str,
    state: State,
    links: Vec<UProbeLink>,
    users: HashSet<u32>,
    /// Since when there are none.
    unused: Option<Instant>,
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
            probes.push(Probe {
                name: format!("{MAPPING} return"),
                failure: follow_mappings(ebpf, kernel).err().map(|error| format!("{error:#}")),
            });
        }
        let returns = uretprobes(ebpf)
            .inspect_err(|reason| {
                tracing::warn!("TLS libraries whose returns would be probed are left alone: {reason}");
            })
            .map_or(Returns::Unsafe, |()| Returns::Safe);
        let (wanted, requests) = channel();
        let (findings, found) = sync_channel(QUEUE);
        let one_process_each = !scope.pids.is_empty() || !scope.cgroups.is_empty();
        let scope = scope.clone();
        std::thread::Builder::new()
            .name("tls-search".to_owned())
            .spawn(move || search::search(&scope, &requests, &findings))
            .context("cannot start a thread; raise the limit on processes")?;
        let (unneeded, links) = channel::<Vec<UProbeLink>>();
        let detaching = Arc::new(AtomicUsize::new(0));
        std::thread::Builder::new()
            .name("tls-detach".to_owned())
            .spawn({
                let detaching = Arc::clone(&detaching);
                move || {
                    for some in links {
                        take_away(some);
                        detaching.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            })
            .context("cannot start a thread; raise the limit on processes")?;
        Ok(Self {
            wanted,
            found,
            changes: Vec::new(),
            one_process_each,
            returns,
            libraries: HashMap::new(),
            processes: HashMap::new(),
            unneeded,
            detaching,
            swept: Instant::now(),
        })
    }

    /// A process has code of one more file.
    pub(super) fn mapped(&mut self, process: u32) {
        self.note(Change::Mapped(process));
    }

    /// A process is new, is another program now, or has ended.
    pub(super) fn replaced(&mut self, process: u32) {
        for place in self.processes.remove(&process).unwrap_or_default() {
            self.leave(place, process);
        }
        self.note(Change::Replaced(process));
    }

    fn note(&mut self, change: Change) {
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }

    /// Takes in what the search has found, a bounded part of it.
    pub(super) fn turn(&mut self, ebpf: &mut Ebpf) {
        if !self.changes.is_empty() {
            // It ends when we do.
            let _ = self.wanted.send(std::mem::take(&mut self.changes));
        }
        self.sweep();
        // Whoever attaches now waits with the kernel until all are gone, and the loop must not wait.
        if self.detaching.load(Ordering::Relaxed) > 0 {
            return;
        }
        for _ in 0..AT_ONCE {
            let Ok(found) = self.found.try_recv() else { return };
            self.take(ebpf, &found);
        }
    }

    /// How many processes have each library, by how far the way into it is open.
    pub(super) fn processes(&self) -> BTreeMap<(&'static str, State), u64> {
        let mut counts = BTreeMap::new();
        for places in self.processes.values() {
            let mut states: Vec<_> = places
                .iter()
                .filter_map(|place| self.libraries.get(place))
                .map(|attached| (attached.library, attached.state))
                .collect();
            states.sort_unstable();
            states.dedup();
            for state in states {
                *counts.entry(state).or_default() += 1;
            }
        }
        counts
    }

    fn take(&mut self, ebpf: &mut Ebpf, found: &Found) {
        let process = found.process;
        let returns = self.returns;
        let place = |library: &Arc<Library>| (library.id, self.one_process_each.then_some(process));
        let places: Vec<Place> = found.libraries.iter().map(place).collect();
        for (library, place) in found.libraries.iter().zip(&places) {
            let crowded = !self.libraries.contains_key(place) && self.is_crowded(library.id);
            let attached = self.libraries.entry(*place).or_insert_with(|| {
                if crowded {
                    Attached::crowded(library)
                } else {
                    Attached::new(ebpf, library, returns, place.1)
                }
            });
            attached.users.insert(process);
            attached.unused = None;
        }
        let before = if places.is_empty() {
            self.processes.remove(&process)
        } else {
            self.processes.insert(process, places.clone())
        };
        for place in before.unwrap_or_default() {
            if !places.contains(&place) {
                self.leave(place, process);
            }
        }
    }

    /// Whether no more processes may have probes of their own on a file.
    fn is_crowded(&self, file: FileId) -> bool {
        let places = self.libraries.iter();
        let on_file = places.filter(|(place, attached)| place.0 == file && !attached.links.is_empty());
        on_file.count() >= MAX_PROCESSES_OF_FILE
    }

    fn leave(&mut self, place: Place, process: u32) {
        if let Some(attached) = self.libraries.get_mut(&place) {
            attached.users.remove(&process);
            if attached.users.is_empty() {
                attached.unused = Some(Instant::now());
            }
        }
    }

    /// Takes away what nobody has used for a while: while probes are taken away none can be attached.
    fn sweep(&mut self) {
        if self.swept.elapsed() < GRACE / 4 {
            return;
        }
        self.swept = Instant::now();
        let unneeded = |attached: &Attached| attached.unused.is_some_and(|since| since.elapsed() > GRACE);
        let links: Vec<_> = self
            .libraries
            .extract_if(|_, attached| unneeded(attached))
            .flat_map(|(_, attached)| attached.links)
            .collect();
        if !links.is_empty() {
            self.detaching.fetch_add(1, Ordering::Relaxed);
            // It ends after us.
            let _ = self.unneeded.send(links);
        }
    }
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
        let links: Vec<_> = self
            .libraries
            .drain()
            .flat_map(|(_, attached)| attached.links)
            .collect();
        match release::hand_over() {
            // They are not ours to close any more.
            Ok(()) => links.into_iter().for_each(std::mem::forget),
            Err(error) => {
                tracing::warn!("{error:#}: it takes some seconds until the last probe is gone");
                take_away(links);
            }
        }
    }
}

/// Takes probes away. Each takes the kernel some milliseconds of waiting, which many do at the same time.
fn take_away(mut links: Vec<UProbeLink>) {
    let share = links.len().div_ceil(DETACHERS).max(1);
    std::thread::scope(|scope| {
        while !links.is_empty() {
            let some = links.split_off(links.len().saturating_sub(share));
            scope.spawn(move || drop(some));
        }
    });
}

impl Attached {
    fn new(ebpf: &mut Ebpf, library: &Library, returns: Returns, process: Option<u32>) -> Self {
        let (name, points) = match ways_in(&library.findings, returns) {
            Ok(ways) => ways,
            Err((name, state)) => return Self::without(name, state),
        };
        let scope = process
            .and_then(NonZeroU32::new)
            .map_or(UProbeScope::AllProcesses, UProbeScope::OneProcess);
        let target = format!("/proc/self/fd/{}", library.file.as_raw_fd());
        let mut attached = Self::without(name, State::Attached);
        for point in points {
            // Returns first: an entry without its return would be taken for that of the next.
            for program in [RETURN, point.program] {
                if program == RETURN && !point.returns {
                    continue;
                }
                let link = probe(ebpf, program).and_then(|probe| {
                    let link = probe.attach(point.offset, &target, scope)?;
                    Ok(probe.take_link(link)?)
                });
                match link {
                    Ok(link) => attached.links.push(link),
                    Err(error) => {
                        tracing::warn!(
                            "{}: cannot attach {program} at {:#x}: {error:#}",
                            library.path,
                            point.offset
                        );
                        attached.state = State::Failed;
                    }
                }
            }
        }
        tracing::debug!("{}: {name} {} for {process:?}", library.path, attached.state.label());
        attached
    }

    /// Of one process too many.
    fn crowded(library: &Library) -> Self {
        let (name, state) = match &library.findings {
            Ok(Findings::Reachable { library, .. }) => (*library, State::Failed),
            Ok(Findings::Unsupported { library }) => (*library, State::Unsupported),
            Ok(Findings::Nothing) | Err(_) => ("unknown", State::Failed),
        };
        tracing::debug!(
            "{}: {MAX_PROCESSES_OF_FILE} processes have probes on it already",
            library.path
        );
        Self::without(name, state)
    }

    fn without(library: &'static str, state: State) -> Self {
        Self {
            library,
            state,
            links: Vec::new(),
            users: HashSet::new(),
            unused: None,
        }
    }
}

/// Lets the kernel tell of mapped files, where the backend does not by itself. Without it the search looks at every process now and
/// again.
fn follow_mappings(ebpf: &mut Ebpf, kernel: &Kernel) -> Result<()> {
    anyhow::ensure!(
        kernel.arguments(MAPPING) == Some(6),
        "this kernel's {MAPPING} is another one: new TLS libraries are found within a minute"
    );
    let btf = aya::Btf::from_sys_fs().context("the kernel's type information cannot be read")?;
    let program: &mut FExit = attach::find(ebpf, "file_mapped")?.try_into()?;
    program.load(MAPPING, &btf).map_err(attach::readable)?;
    program.attach()?;
    Ok(())
}

fn probe<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut UProbe> {
    let program: &mut Program = attach::find(ebpf, name)?;
    Ok(program.try_into()?)
}

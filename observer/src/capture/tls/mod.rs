//! Probes on TLS libraries: which process has which, and the probes that follow.
//!
//! The kernel tells when code of a file is mapped (`Mapped` records), [`search`] finds out what the file is, and this module
//! attaches. Probes belong to a file and serve every process that has it; where only some processes are in scope, they belong to
//! file and process, so that nobody else runs into them.

mod elf;
mod families;
mod go;
mod pclntab;
mod search;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::uprobe::{UProbeLinkId, UProbeScope};
use aya::programs::{FExit, Program, UProbe};

use self::elf::Findings;
use self::families::{PROGRAMS, RETURN};
use self::search::{Change, FileId, Found, Library};
use super::layout::Kernel;
use super::{Backend, Probe, Scope, attach};

/// Processes whose findings may wait for the loop.
const QUEUE: usize = 256;

/// Processes whose libraries are attached in one turn: each takes system calls, and the ring fills meanwhile.
const AT_ONCE: usize = 16;

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

/// Probes on TLS libraries, and who has them.
pub(super) struct Tls {
    wanted: Sender<Vec<Change>>,
    found: Receiver<Found>,
    /// What happened to processes since the last turn, each once and in the order of its first.
    changes: Vec<Change>,
    /// Whether probes belong to one process each.
    one_process_each: bool,
    libraries: HashMap<Place, Attached>,
    processes: HashMap<u32, Vec<Place>>,
}

/// Where probes are: a file, and the process where they serve only one.
type Place = (FileId, Option<u32>);

/// Probes in one place.
struct Attached {
    library: &'static str,
    state: State,
    links: Vec<(&'static str, UProbeLinkId)>,
    users: HashSet<u32>,
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
        let (wanted, requests) = channel();
        let (findings, found) = sync_channel(QUEUE);
        let one_process_each = !scope.pids.is_empty() || !scope.cgroups.is_empty();
        let scope = scope.clone();
        std::thread::Builder::new()
            .name("tls-search".to_owned())
            .spawn(move || search::search(&scope, &requests, &findings))
            .context("cannot start a thread; raise the limit on processes")?;
        Ok(Self {
            wanted,
            found,
            changes: Vec::new(),
            one_process_each,
            libraries: HashMap::new(),
            processes: HashMap::new(),
        })
    }

    /// A process has code of one more file.
    pub(super) fn mapped(&mut self, process: u32) {
        self.note(Change::Mapped(process));
    }

    /// A process is new, is another program now, or has ended.
    pub(super) fn replaced(&mut self, ebpf: &mut Ebpf, process: u32) {
        for place in self.processes.remove(&process).unwrap_or_default() {
            self.leave(ebpf, place, process);
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
        let place = |library: &Arc<Library>| (library.id, self.one_process_each.then_some(process));
        let places: Vec<Place> = found.libraries.iter().map(place).collect();
        for (library, place) in found.libraries.iter().zip(&places) {
            self.libraries
                .entry(*place)
                .or_insert_with(|| Attached::new(ebpf, library, place.1))
                .users
                .insert(process);
        }
        let before = if places.is_empty() {
            self.processes.remove(&process)
        } else {
            self.processes.insert(process, places.clone())
        };
        for place in before.unwrap_or_default() {
            if !places.contains(&place) {
                self.leave(ebpf, place, process);
            }
        }
    }

    fn leave(&mut self, ebpf: &mut Ebpf, place: Place, process: u32) {
        let Some(attached) = self.libraries.get_mut(&place) else {
            return;
        };
        attached.users.remove(&process);
        if attached.users.is_empty()
            && let Some(attached) = self.libraries.remove(&place)
        {
            attached.detach(ebpf);
        }
    }
}

impl Attached {
    fn new(ebpf: &mut Ebpf, library: &Library, process: Option<u32>) -> Self {
        let (name, points) = match &library.findings {
            Ok(Findings::Reachable { library, points }) => (*library, points),
            Ok(Findings::Unsupported { library }) => return Self::without(library, State::Unsupported),
            Ok(Findings::Nothing) | Err(_) => return Self::without("unknown", State::Failed),
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
                let link = probe(ebpf, program).and_then(|probe| Ok(probe.attach(point.offset, &target, scope)?));
                match link {
                    Ok(link) => attached.links.push((program, link)),
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

    fn without(library: &'static str, state: State) -> Self {
        Self {
            library,
            state,
            links: Vec::new(),
            users: HashSet::new(),
        }
    }

    fn detach(self, ebpf: &mut Ebpf) {
        for (program, link) in self.links {
            // The other way round than it was attached: an entry without its return tells nothing.
            if let Ok(probe) = probe(ebpf, program) {
                let _ = probe.detach(link);
            }
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

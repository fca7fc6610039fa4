//! Attaches to what the search has found, and takes away what nobody uses any more.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use aya::programs::{ProbeKind, UProbe};

use super::families::{PROGRAMS, RETURN};
use super::release::Holder;
use super::search::{FileId, Found, Library};
use super::{Returns, State, Uses, has_cookies, probe, ways_in};
use crate::capture::take as take_map;

/// How long probes stay that nobody uses: the next process with the same library is often near.
const GRACE: Duration = Duration::from_secs(60);

/// Time between two looks for such.
const SWEEP: Duration = Duration::from_secs(15);

/// Probes in place, and who has the files they are on.
pub(super) struct Probes {
    programs: HashMap<&'static str, UProbe>,
    /// Tells the programs which library has some of its probes.
    attaching: Array<MapData, u64>,
    /// Libraries attached so far.
    count: u64,
    /// Whether returns may be probed.
    returns: Returns,
    libraries: HashMap<FileId, Attached>,
    processes: HashMap<u32, Vec<FileId>>,
    /// When what is unused was last looked for.
    swept: Instant,
    /// Children that take probes away.
    holders: Vec<Holder>,
    uses: Arc<Mutex<Uses>>,
    ending: Arc<AtomicBool>,
}

/// Probes on one file.
struct Attached {
    library: &'static str,
    state: State,
    links: Vec<UProbeLink>,
    users: HashSet<u32>,
    /// Since when there are none.
    unused: Option<Instant>,
}

impl Probes {
    /// Takes loaded programs, to tell `uses` what becomes of them.
    ///
    /// # Errors
    /// When the kernel does not give a program a second time.
    pub(super) fn new(
        ebpf: &mut Ebpf,
        returns: Returns,
        uses: Arc<Mutex<Uses>>,
        ending: Arc<AtomicBool>,
    ) -> Result<Self> {
        let attaching = take_map(ebpf, "TLS_ATTACHING")?.try_into()?;
        let mut again = |name: &'static str| -> Result<(&'static str, UProbe)> {
            let kind = if name == RETURN {
                ProbeKind::Return
            } else {
                ProbeKind::Entry
            };
            let info = probe(ebpf, name)?.info()?;
            // SAFETY: it is the same program, loaded as the same kind.
            let program = unsafe { UProbe::from_program_info(info, name.into(), kind) };
            let program = program.context("the kernel does not share its programs: CAP_SYS_ADMIN is needed")?;
            Ok((name, program))
        };
        Ok(Self {
            attaching,
            count: 0,
            programs: PROGRAMS.iter().map(|name| again(name)).collect::<Result<_>>()?,
            returns,
            libraries: HashMap::new(),
            processes: HashMap::new(),
            swept: Instant::now(),
            holders: Vec::new(),
            uses,
            ending,
        })
    }

    /// Attaches to whatever is found, until the search has ended.
    pub(super) fn follow(mut self, found: &Receiver<Found>) {
        loop {
            match found.recv_timeout(SWEEP) {
                Ok(first) => {
                    self.take(&first);
                    for more in found.try_iter() {
                        self.take(&more);
                    }
                    self.tell();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.sweep();
        }
        // The daemon ends, and a child takes them away.
        std::mem::forget(self.libraries);
    }

    fn take(&mut self, found: &Found) {
        let process = found.process;
        for library in &found.libraries {
            if !self.libraries.contains_key(&library.id) {
                let attached = self.attach(library);
                self.libraries.insert(library.id, attached);
            }
            if let Some(attached) = self.libraries.get_mut(&library.id) {
                attached.users.insert(process);
                attached.unused = None;
            }
        }
        let files: Vec<FileId> = found.libraries.iter().map(|library| library.id).collect();
        let before = if files.is_empty() {
            self.processes.remove(&process)
        } else {
            self.processes.insert(process, files.clone())
        };
        for file in before.unwrap_or_default() {
            if !files.contains(&file) {
                self.leave(file, process);
            }
        }
    }

    /// Attaches to a library. Sessions that the kernel side meets meanwhile it leaves alone until it has all probes: of a session with
    /// some of them the calls would be seen and not the answers, or the other way round.
    fn attach(&mut self, library: &Library) -> Attached {
        self.count += 1;
        let cookie = has_cookies().then_some(self.count);
        self.tell_attaching(self.count);
        let attached = Attached::new(&mut self.programs, library, self.returns, cookie, &self.ending);
        self.tell_attaching(0);
        attached
    }

    fn tell_attaching(&mut self, library: u64) {
        if let Err(error) = self.attaching.set(0, library, 0) {
            tracing::warn!("TLS sessions seen in part cannot be told from whole ones: {error}");
        }
    }

    fn leave(&mut self, file: FileId, process: u32) {
        if let Some(attached) = self.libraries.get_mut(&file) {
            attached.users.remove(&process);
            if attached.users.is_empty() {
                attached.unused = Some(Instant::now());
            }
        }
    }

    /// Tells how many processes have which library: once, whatever number of its files.
    fn tell(&self) {
        let mut uses = Uses::new();
        for files in self.processes.values() {
            let mut states: Vec<_> = files
                .iter()
                .filter_map(|file| self.libraries.get(file))
                .map(|attached| (attached.library, attached.state))
                .collect();
            states.sort_unstable();
            states.dedup();
            for state in states {
                *uses.entry(state).or_default() += 1;
            }
        }
        *self.uses.lock().unwrap_or_else(PoisonError::into_inner) = uses;
    }

    /// Takes away what nobody has used for a while.
    fn sweep(&mut self) {
        if self.swept.elapsed() < SWEEP {
            return;
        }
        self.swept = Instant::now();
        self.holders.retain_mut(|holder| !holder.has_ended());
        let unneeded = |attached: &Attached| attached.unused.is_some_and(|since| since.elapsed() > GRACE);
        let gone: Vec<_> = self.libraries.extract_if(|_, attached| unneeded(attached)).collect();
        if gone.iter().all(|(_, attached)| attached.links.is_empty()) {
            return;
        }
        match Holder::start() {
            Ok(mut holder) => {
                drop(gone);
                holder.let_go();
                self.holders.push(holder);
            }
            // The kernel lets this thread wait for each.
            Err(error) => tracing::debug!("{error:#}"),
        }
    }
}

impl Attached {
    fn new(
        programs: &mut HashMap<&'static str, UProbe>,
        library: &Library,
        returns: Returns,
        cookie: Option<u64>,
        ending: &AtomicBool,
    ) -> Self {
        let without = |library, state| Self {
            library,
            state,
            links: Vec::new(),
            users: HashSet::new(),
            unused: None,
        };
        let (name, points) = match ways_in(&library.findings, returns) {
            Ok(ways) => ways,
            Err((name, state)) => return without(name, state),
        };
        let target = format!("/proc/self/fd/{}", library.file.as_raw_fd());
        let mut attached = without(name, State::Attached);
        for point in points {
            // Returns first: an entry without its return would be taken for that of the next.
            for program in [RETURN, point.program] {
                if (program == RETURN && !point.returns) || ending.load(Ordering::Acquire) {
                    continue;
                }
                match attach(programs, program, &target, (point.offset, cookie)) {
                    Ok(link) => attached.links.push(link),
                    Err(error) => {
                        let (path, offset) = (&library.path, point.offset);
                        tracing::warn!("{path}: cannot attach {program} at {offset:#x}: {error:#}");
                        attached.state = State::Failed;
                    }
                }
            }
        }
        tracing::debug!("{}: {name} {}", library.path, attached.state.label());
        attached
    }
}

fn attach(
    programs: &mut HashMap<&'static str, UProbe>,
    name: &str,
    target: &str,
    (offset, cookie): (u64, Option<u64>),
) -> Result<UProbeLink> {
    let program = programs.get_mut(name).context("no such program")?;
    let point = UProbeAttachPoint {
        location: UProbeAttachLocation::AbsoluteOffset(offset),
        cookie,
    };
    let link = program.attach(point, target, UProbeScope::AllProcesses)?;
    Ok(program.take_link(link)?)
}

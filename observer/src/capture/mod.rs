//! The kernel side as the daemon sees it: loads and attaches probes, turns ring records into [`Event`]s, takes verdicts back.

mod attach;
pub mod decode;
mod holders;
pub mod layout;
pub mod recording;
mod scope;
mod survey;
mod tls;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::{Ebpf, EbpfLoader};
use observer_common::config::{ScopeKind, Settings};
use observer_common::drops::{DropCount, DropReason, KERNEL_REASONS, MISSED_RETURNS};
use observer_common::limits::MAX_KERNEL_STREAMS;
use observer_common::stream::STREAM_WORDS;

use crate::protocol::event::{Event, StreamKey, Timestamp, Verdict};
use holders::Holders;
pub use survey::{Survey, survey};
pub use tls::{Census as TlsCensus, LibraryUse as TlsLibraryUse, State as TlsState, release};

/// The kernel programs, built by `cargo xtask build`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mcp-observer.bpf.o"));

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
pub struct Capture {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    ring_bytes: usize,
    verdicts: Array<MapData, u64>,
    drops: PerCpuArray<MapData, DropCount>,
    streams: HashMap<MapData, u64, [u64; STREAM_WORDS]>,
    backend: Backend,
    reason: String,
    probes: Vec<Probe>,
    holders: Holders,
    tls: Option<tls::Tls>,
    recording: Option<recording::Writer>,
    records: [u64; RECORD_SOURCES.len()],
    bad_records: u64,
    backlog: usize,
}

/// What records tell of: the sources by their number, processes in place of number 0.
const RECORD_SOURCES: [&str; 5] = ["process", "pipe", "unix", "tcp", "tls"];

/// What the kernel says of one loaded program. A figure that it does not keep is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramFigures {
    /// Its name.
    pub program: String,
    /// Runs that were left out because the program was already running on that CPU (5.12 and later).
    pub skipped_runs: Option<u64>,
    /// Time spent in it; kept only where the node does so anyway (`kernel.bpf_stats_enabled`).
    pub nanoseconds: Option<u64>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("backend", &self.backend)
            .field("probes", &self.probes)
            .finish_non_exhaustive()
    }
}

impl Capture {
    /// Loads and attaches.
    ///
    /// # Errors
    /// One line that says what the kernel refused and what to do.
    pub fn start(options: &Options) -> Result<Self> {
        let kernel = layout::Kernel::running()?;
        let mut ebpf = load(&kernel, options)?;
        follow(&mut ebpf, &options.scope)?;
        let (backend, reason, mut probes) = attach::attach(&mut ebpf, &kernel, options.backend)?;
        let tls = tls::Tls::start(&mut ebpf, &kernel, backend, &options.scope, &mut probes);
        let tls = tls
            .inspect_err(|error| tracing::warn!("nothing is seen through TLS: {error:#}"))
            .ok();
        // Again: what was made while the programs were being attached.
        follow(&mut ebpf, &options.scope)?;
        let mut members = scope::members(&options.scope)?;
        members.remove(&std::process::id());
        Array::<_, u32>::try_from(map(&mut ebpf, "ARMED")?)?
            .set(0, 1, 0)
            .context("the kernel refuses to be told that every probe is in place")?;
        let capture = Self {
            ring: RingBuf::try_from(take(&mut ebpf, "RING")?)?,
            ring_bytes: ring_bytes(options.ring_bytes) as usize,
            verdicts: Array::try_from(take(&mut ebpf, "VERDICTS")?)?,
            drops: PerCpuArray::try_from(take(&mut ebpf, "DROPS")?)?,
            streams: HashMap::try_from(take(&mut ebpf, "STREAMS")?)?,
            ebpf,
            backend,
            reason,
            probes,
            holders: Holders::existing(members),
            tls,
            recording: None,
            records: [0; RECORD_SOURCES.len()],
            bad_records: 0,
            backlog: 0,
        };
        drop(kernel);
        give_back_memory();
        Ok(capture)
    }

    /// The probes in use.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Why these and not the others.
    #[must_use]
    pub fn backend_reason(&self) -> &str {
        &self.reason
    }

    /// Every probe of this backend.
    #[must_use]
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// Hands on every record that is in the ring now, as events; returns the bytes of ring records taken out.
    ///
    /// Bounded: at most one ring's size a call. Keeps the raw records too while a recording is on.
    pub fn drain(&mut self, mut take: impl FnMut(Event)) -> usize {
        let mut drained = 0;
        while drained < self.ring_bytes
            && let Some(record) = self.ring.next()
        {
            drained += record.len();
            if let Some(change) = tls::change(&record) {
                if let Some(tls) = &mut self.tls {
                    tls.note(change);
                }
                continue;
            }
            if let Some(recording) = &mut self.recording {
                recording.record(&record);
            }
            if let Some(count) = record
                .get(1)
                .and_then(|source| self.records.get_mut(usize::from(*source)))
            {
                *count += 1;
            }
            match decode::event(&record) {
                Some(Event::Opened(opened)) => {
                    let holders = self.holders.of(&opened, opened.time);
                    take(Event::Opened(opened));
                    holders.for_each(&mut take);
                }
                Some(event) => {
                    if let (Some(tls), Event::Process(process)) = (&mut self.tls, &event) {
                        tls.note(tls::Change::Replaced(process.pid.0));
                    }
                    take(event);
                }
                None => self.bad_records += 1,
            }
        }
        self.backlog = if drained < self.ring_bytes { 0 } else { drained };
        if let Some(recording) = &mut self.recording {
            recording.turn(now());
        }
        if let Some(tls) = &mut self.tls {
            tls.turn();
        }
        drained
    }

    /// Processes by the TLS library they have and how far the way into it is open.
    #[must_use]
    pub fn tls_processes(&self) -> Vec<(&'static str, TlsState, u64)> {
        let processes = self.tls.iter().flat_map(tls::Tls::processes);
        processes
            .map(|((library, state), count)| (library, state, count))
            .collect()
    }

    /// Tells the kernel side how to treat a stream. Streams it has forgotten are ignored.
    pub fn set_verdict(&mut self, key: StreamKey, verdict: Verdict) {
        if let Err(error) = self.verdicts.set(key.verdict_slot(), key.verdict_word(verdict), 0) {
            tracing::warn!("a verdict could not be given to the kernel: {error}");
        }
    }

    /// The streams that the kernel side knows: of those that it has told of, all others have ended.
    ///
    /// Two system calls a stream. Streams that come or go meanwhile may be in it or not.
    #[must_use]
    pub fn streams(&self) -> BTreeSet<StreamKey> {
        // A table that changes may have to be read from its beginning again.
        let found = self.streams.iter().take(2 * MAX_KERNEL_STREAMS as usize);
        found.flatten().map(|(_, [birth, ..])| StreamKey(birth)).collect()
    }

    /// What the kernel side could not copy, by reason, since start; and records that could not be read.
    #[must_use]
    pub fn losses(&self) -> Vec<(DropReason, DropCount)> {
        let kernel = (1..KERNEL_REASONS).filter_map(|slot| {
            let reason = DropReason::from_u8(u8::try_from(slot).ok()?)?;
            Some((reason, self.counter(slot)))
        });
        kernel
            .chain([(
                DropReason::BadRecord,
                DropCount {
                    events: self.bad_records,
                    bytes: 0,
                },
            )])
            .collect()
    }

    /// Bytes left out since start because a verdict said so.
    #[must_use]
    pub fn muted_bytes(&self) -> u64 {
        self.counter(0).bytes
    }

    /// Ring records taken out since start, by what they tell of.
    pub fn records(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RECORD_SOURCES.into_iter().zip(self.records)
    }

    /// What the kernel says of each loaded program, as `/proc/self/fdinfo` shows it; and, for all programs on returns together, what
    /// the kernel side has found out by itself: calls that had returned by the time that their thread began another, or ended.
    #[must_use]
    pub fn programs(&self) -> Vec<ProgramFigures> {
        let figures = |(name, program): (&str, &aya::programs::Program)| {
            let descriptor = program.fd().ok()?.as_fd().as_raw_fd();
            let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
            let figure = |name: &str| {
                told.lines()
                    .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            };
            Some(ProgramFigures {
                program: name.to_owned(),
                skipped_runs: figure("recursion_misses:"),
                nanoseconds: figure("run_time_ns:").filter(|time| *time > 0),
            })
        };
        let missed = ProgramFigures {
            program: "*_return".to_owned(),
            skipped_runs: Some(self.counter(MISSED_RETURNS).events),
            nanoseconds: None,
        };
        self.ebpf.programs().filter_map(figures).chain([missed]).collect()
    }

    /// Bytes in the ring that are known to wait for the next drain.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// Writes every raw record to `recording` from now on.
    pub fn record_to(&mut self, mut recording: recording::Writer) {
        recording.anchor(now(), SystemTime::now());
        self.recording = Some(recording);
    }

    /// Ends the recording, if one is on.
    ///
    /// # Errors
    /// When it could not be written whole.
    pub fn end_recording(&mut self) -> Result<()> {
        self.recording.take().map_or(Ok(()), |mut recording| recording.flush())
    }

    fn counter(&self, slot: u32) -> DropCount {
        let mut sum = DropCount::default();
        for cpu in self.drops.get(&slot, 0).iter().flat_map(|values| values.iter()) {
            sum.events += cpu.events;
            sum.bytes += cpu.bytes;
        }
        sum
    }
}

/// Loads the kernel object's maps and values; no program yet.
fn load(kernel: &layout::Kernel, options: &Options) -> Result<Ebpf> {
    if OBJECT.is_empty() {
        bail!("this program was built without its kernel object: build it with `cargo xtask build`");
    }
    let listed = !options.scope.pids.is_empty() || !options.scope.cgroups.is_empty();
    let settings = Settings {
        observer: std::process::id(),
        scope: if listed { ScopeKind::Listed } else { ScopeKind::Node } as u32,
        cgroups: u32::from(!options.scope.cgroups.is_empty()),
        processes: u32::from(!options.scope.pids.is_empty()),
        cookies: u32::from(tls::has_cookies()),
        returns: 1 + u32::from(attach::leaves_programs_out()),
    };
    allow_locked_memory();
    EbpfLoader::new()
        .override_global("LAYOUT", kernel.layout(), true)
        .override_global("SETTINGS", &settings, true)
        .map_max_entries("RING", ring_bytes(options.ring_bytes))
        .load(OBJECT)
        .context("the kernel refuses the observer's tables: root, or CAP_BPF with CAP_PERFMON, is needed")
}

/// A ring's size must be a power of two and at least a page.
fn ring_bytes(wanted: u32) -> u32 {
    // SAFETY: the call has no memory effects.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    wanted
        .max(u32::try_from(page).unwrap_or(4096))
        .checked_next_power_of_two()
        .unwrap_or(1 << 31)
}

/// Puts the processes and groups in scope into the kernel side's tables.
fn follow(ebpf: &mut Ebpf, scope: &Scope) -> Result<()> {
    let mut processes: HashMap<_, u32, u8> = HashMap::try_from(map(ebpf, "PROCESSES")?)?;
    for process in scope::descendants(&scope.pids)? {
        processes
            .insert(process, 1, 0)
            .context("--pid: too many processes to follow")?;
    }
    let mut groups: HashMap<_, u64, u8> = HashMap::try_from(map(ebpf, "CGROUPS")?)?;
    for group in scope::groups(&scope.cgroups)? {
        groups
            .insert(group, 1, 0)
            .context("--cgroup: too many groups to follow")?;
    }
    Ok(())
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    ebpf.map_mut(name)
        .with_context(|| format!("the kernel object has no table {name}: build it again"))
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    ebpf.take_map(name)
        .with_context(|| format!("the kernel object has no table {name}: build it again"))
}

/// Kernels before 5.11 count BPF memory against a limit that is too small by default. Later ones do not; a refusal is no error.
fn allow_locked_memory() {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the pointer is to a live rlimit.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}

/// Gives back what reading the kernel's type information took: some sixty megabytes that are not needed again.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no memory effects that Rust could see.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The kernel's monotonic clock now: the time base of all events.
#[must_use]
pub fn now() -> Timestamp {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Timestamp(u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0))
}

//! Processes: what `/proc` says of them, read once at first sight and kept for a while after their end.
//!
//! A process that lives for 50 ms is gone before its calls are understood, so the table reads about whoever moves bytes as soon
//! as the daemon hears of it, within a budget a turn: a machine that starts 1,000 programs a second must not be slowed by us.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::command;
use super::container::container_id;
use super::{HOST, Workload};
use crate::protocol::event::{Pid, Process, ProcessChange, Timestamp};

/// Processes remembered at once; an entry takes less than 1 KiB.
const MAX_PROCESSES: usize = 16_384;

/// Processes forgotten at once when the table is full.
const EVICTED_AT_ONCE: usize = MAX_PROCESSES / 64;

/// Nanoseconds between two looks for processes whose end was not told: a full ring may have lost it.
const ROLL_CALL_INTERVAL: u64 = 30_000_000_000;

/// Nanoseconds between two looks for processes that ended long ago.
const SWEEP_INTERVAL: u64 = 1_000_000_000;

/// Reads a turn (10 ms) for processes that no observation has asked for; each takes about 50 µs.
const GLIMPSES_PER_TURN: u32 = 4;

/// How long an ended process is remembered: as long as its late observations may come.
const KEPT_AFTER_EXIT: u64 = 60_000_000_000;

/// Bytes of a command line that are looked at.
const MAX_COMMAND: usize = 4096;

/// What is known of processes.
#[derive(Debug)]
pub(super) struct ProcessTable {
    /// Where the processes are listed; `None` when they are those of another machine (a replay).
    proc: Option<PathBuf>,
    node: Arc<str>,
    entries: FxHashMap<Pid, Entry>,
    instances: u64,
    glimpses: u32,
    evictions: u64,
    swept: Timestamp,
    called: Timestamp,
}

#[derive(Debug)]
struct Entry {
    workload: Arc<Workload>,
    instance: u64,
    /// Whether `/proc` has been asked.
    read: bool,
    /// Whether an observation has asked for it.
    wanted: bool,
    exited: Option<Timestamp>,
    /// Who had this number before; told when the pipeline says that it was replaced, which is a little later.
    previous: Option<(Arc<Workload>, u64)>,
}

impl ProcessTable {
    pub(super) fn new(proc: Option<PathBuf>) -> Self {
        let name = proc
            .as_deref()
            .and_then(|proc| read_text(&proc.join("sys/kernel/hostname")));
        Self {
            proc,
            node: name.as_deref().unwrap_or_default().trim().into(),
            entries: FxHashMap::default(),
            instances: 0,
            glimpses: GLIMPSES_PER_TURN,
            evictions: 0,
            swept: Timestamp::default(),
            called: Timestamp::default(),
        }
    }

    /// Takes in what the kernel said about a process.
    pub(super) fn handle_process(&mut self, process: &Process) {
        match process.change {
            ProcessChange::Fork { .. } | ProcessChange::Exec => {
                let workload = self.nameless(process.pid, Some(process.comm.clone()));
                self.insert(process.pid, workload, false);
            }
            ProcessChange::Exit { .. } => {
                if let Some(entry) = self.entries.get_mut(&process.pid) {
                    entry.exited = Some(process.time);
                }
            }
        }
    }

    /// The program or process that had this number before the present one, if anything was known of it.
    pub(super) fn replaced(&mut self, pid: Pid) -> Option<(Arc<Workload>, u64)> {
        self.entries.get_mut(&pid)?.previous.take()
    }

    /// Reads about a process that moves bytes, if that was not done yet and the turn's budget allows.
    pub(super) fn glimpse(&mut self, pid: Pid) {
        if self.glimpses > 0 && !self.entries.get(&pid).is_some_and(|entry| entry.read) {
            self.glimpses -= 1;
            self.read(pid);
        }
    }

    /// The process, and a number that no other process or program of this observer's life has.
    pub(super) fn get(&mut self, pid: Pid) -> (Arc<Workload>, u64) {
        if !self.entries.get(&pid).is_some_and(|entry| entry.read) {
            self.read(pid);
        }
        let entry = self.entries.get_mut(&pid).expect("`read` inserts an entry");
        entry.wanted = true;
        (Arc::clone(&entry.workload), entry.instance)
    }

    /// Begins a turn: renews the budget and forgets those that ended long ago.
    pub(super) fn turn(&mut self, now: Timestamp) {
        self.glimpses = GLIMPSES_PER_TURN;
        if now.since(self.swept) >= SWEEP_INTERVAL {
            self.swept = now;
            self.entries
                .retain(|_, entry| entry.exited.is_none_or(|exited| now.since(exited) < KEPT_AFTER_EXIT));
        }
    }

    /// Processes that were asked for and are gone without a word, at most once for each.
    pub(super) fn vanished(&mut self, now: Timestamp) -> Vec<Pid> {
        let Some(proc) = self
            .proc
            .as_ref()
            .filter(|_| now.since(self.called) >= ROLL_CALL_INTERVAL)
        else {
            return Vec::new();
        };
        self.called = now;
        let silent = self
            .entries
            .iter_mut()
            .filter(|(pid, entry)| entry.wanted && entry.exited.is_none() && !proc.join(pid.0.to_string()).exists());
        silent
            .map(|(pid, entry)| {
                entry.exited = Some(now);
                *pid
            })
            .collect()
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    fn read(&mut self, pid: Pid) {
        let comm = self.entries.get(&pid).and_then(|entry| entry.workload.comm.clone());
        let mut workload = self.nameless(pid, comm);
        if let Some(folder) = self.proc.as_ref().map(|proc| proc.join(pid.0.to_string())) {
            fill(&mut workload, &folder);
        }
        self.insert(pid, workload, true);
    }

    fn nameless(&self, pid: Pid, comm: Option<String>) -> Workload {
        Workload {
            name: comm.clone().unwrap_or_else(|| super::UNKNOWN.to_owned()),
            namespace: HOST.to_owned(),
            pid: Some(pid),
            comm,
            node: Some(Arc::clone(&self.node)).filter(|node| !node.is_empty()),
            ..Workload::default()
        }
    }

    fn insert(&mut self, pid: Pid, workload: Workload, read: bool) {
        if self.entries.len() >= MAX_PROCESSES && !self.entries.contains_key(&pid) {
            self.evict();
        }
        let old = self.entries.remove(&pid);
        let entry = match old {
            // The same program, now read about.
            Some(old) if read && !old.read => Entry {
                workload: Arc::new(workload),
                read,
                ..old
            },
            old => {
                self.instances += 1;
                let previous = old.filter(|old| old.read).map(|old| (old.workload, old.instance));
                Entry {
                    workload: Arc::new(workload),
                    instance: self.instances,
                    read,
                    wanted: false,
                    exited: None,
                    previous,
                }
            }
        };
        self.entries.insert(pid, entry);
    }

    /// Those seen first among the ended, then among all, give way; many at once, since finding them looks at everyone.
    fn evict(&mut self) {
        let mut order: Vec<_> = self
            .entries
            .iter()
            .map(|(pid, entry)| (entry.exited.is_none(), entry.instance, *pid))
            .collect();
        let (oldest, _, _) = order.select_nth_unstable(EVICTED_AT_ONCE);
        for (_, _, pid) in oldest {
            self.entries.remove(pid);
            self.evictions += 1;
        }
    }
}

/// Adds what `/proc/PID` says; a process that is gone leaves the workload as it was.
fn fill(workload: &mut Workload, folder: &Path) {
    let Some(stat) = read_text(&folder.join("stat")) else {
        return;
    };
    workload.start = start_of(&stat);
    if let Some(comm) = stat
        .find('(')
        .zip(stat.rfind(')'))
        .map(|(open, close)| &stat[open + 1..close])
    {
        workload.comm = Some(comm.to_owned());
    }
    workload.exe = std::fs::read_link(folder.join("exe")).ok().map(|path| {
        let path = path.to_string_lossy().into_owned();
        path.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(path)
    });
    let arguments = read_command(&folder.join("cmdline"));
    workload.package = command::package(&arguments);
    workload.runtime = workload.exe.as_deref().map(command::runtime);
    workload.container = read_text(&folder.join("cgroup")).and_then(|text| container_id(&text).map(str::to_owned));
    workload.uid = read_text(&folder.join("status")).and_then(|text| uid_of(&text));
    let executable = workload
        .exe
        .as_deref()
        .or(arguments.first().map(String::as_str))
        .map(command::base_name);
    if let Some(name) = workload.package.as_deref().or(executable).or(workload.comm.as_deref()) {
        workload.name = super::cut(name);
    }
}

fn read_text(path: &Path) -> Option<String> {
    std::fs::read(path)
        .ok()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn read_command(path: &Path) -> Vec<String> {
    let mut bytes = std::fs::read(path).unwrap_or_default();
    bytes.truncate(MAX_COMMAND);
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_end_matches('\0');
    if text.is_empty() {
        Vec::new()
    } else {
        text.split('\0').map(str::to_owned).collect()
    }
}

/// Field 22 of `/proc/PID/stat`: clock ticks after boot. The name in field 2 may hold blanks and parentheses.
fn start_of(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(19)?.parse().ok()
}

fn uid_of(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(pid: u32, change: ProcessChange, time: u64) -> Process {
        Process {
            pid: Pid(pid),
            change,
            comm: "sh".into(),
            time: Timestamp(time),
        }
    }

    #[test]
    fn this_test_itself_is_a_process() {
        let mut table = ProcessTable::new(Some("/proc".into()));
        let (workload, instance) = table.get(Pid(std::process::id()));
        assert!(workload.exe.as_deref().is_some_and(|exe| exe.contains("observer")));
        assert!(workload.start.is_some() && workload.uid.is_some());
        assert_eq!(workload.runtime, Some("native"));
        assert_eq!(table.get(Pid(std::process::id())).1, instance);
    }

    #[test]
    fn a_process_that_was_gone_before_it_was_read_keeps_its_name_from_the_kernel() {
        let mut table = ProcessTable::new(Some("/nonexistent".into()));
        table.handle_process(&event(7, ProcessChange::Exec, 1));
        assert_eq!(table.get(Pid(7)).0.name, "sh");
        assert_eq!(table.get(Pid(8)).0.name, "_unknown");
    }

    #[test]
    fn a_process_whose_end_was_not_told_is_missed_at_the_roll_call() {
        let mut table = ProcessTable::new(Some("/proc".into()));
        table.get(Pid(std::process::id()));
        table.get(Pid(u32::MAX));
        assert_eq!(table.vanished(Timestamp(ROLL_CALL_INTERVAL)), [Pid(u32::MAX)]);
        assert_eq!(table.vanished(Timestamp(2 * ROLL_CALL_INTERVAL)), [Pid(0); 0]);
    }

    #[test]
    fn another_program_and_another_process_are_another_instance() {
        let mut table = ProcessTable::new(None);
        let first = table.get(Pid(7)).1;
        table.handle_process(&event(7, ProcessChange::Exec, 1));
        let second = table.get(Pid(7)).1;
        table.handle_process(&event(7, ProcessChange::Fork { parent: Pid(1) }, 2));
        let third = table.get(Pid(7)).1;
        assert!(first < second && second < third);
    }

    #[test]
    fn the_table_is_bounded_and_says_whom_it_forgot() {
        let mut table = ProcessTable::new(None);
        for pid in 0..u32::try_from(MAX_PROCESSES).unwrap() + 3 {
            table.get(Pid(pid));
        }
        assert_eq!(table.evictions(), EVICTED_AT_ONCE as u64);
        assert_eq!(table.entries.len(), MAX_PROCESSES + 3 - EVICTED_AT_ONCE);
        table.handle_process(&event(1000, ProcessChange::Exit { code: 0 }, 1));
        table.turn(Timestamp(KEPT_AFTER_EXIT + 2));
        assert_eq!(table.entries.len(), MAX_PROCESSES + 2 - EVICTED_AT_ONCE);
    }
}

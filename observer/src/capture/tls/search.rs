//! Looks for TLS libraries in processes, on a thread of its own: files are large and the loop must not wait for them.
//!
//! ```text
//! loop ── processes that mapped a file ──► search ── files that a process has, analysed once each ──► loop
//! ```

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use super::elf::{self, Findings, Refusal};
use crate::capture::Scope;
use crate::capture::scope::members;

/// Time between two looks at every process: what no probe told is then found.
const RESCAN: Duration = Duration::from_secs(60);

/// Files whose findings are remembered; beyond that all are forgotten and found again.
const MAX_FILES: usize = 16 << 10;

/// Files of one process that are looked at.
const MAX_FILES_OF_ONE: usize = 1024;

/// Names a file for as long as it is remembered. An inode number may come to another file; with its size and time of change it
/// does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// A file with a TLS library.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) id: FileId,
    /// Open, since its path may be of another mount namespace, or gone.
    pub(super) file: File,
    /// Where it was mapped from, for people.
    pub(super) path: String,
    pub(super) findings: Result<Findings, Refusal>,
}

impl Library {
    /// What stands for the kernel's TLS, unless it is one of the process's own libraries that uses it, and shows the plain text.
    fn of_kernel(process: u32, libraries: &[Arc<Self>]) -> Option<Arc<Self>> {
        let shows = |library: &Arc<Self>| matches!(library.findings, Ok(Findings::Reachable { .. }));
        if libraries.iter().any(shows) {
            return None;
        }
        let path = format!("/proc/{process}/exe");
        Some(Arc::new(Self {
            id: KERNEL,
            file: File::open(&path).ok()?,
            path,
            findings: Ok(Findings::Unsupported { library: "ktls" }),
        }))
    }
}

/// What a process has.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) process: u32,
    /// Empty for a process that has none, or none any more.
    pub(super) libraries: Vec<Arc<Library>>,
}

/// Looks at the processes that are asked for, at all in scope now and again, until the loop is gone.
pub(super) fn search(scope: &Scope, wanted: &Receiver<Vec<Change>>, found: &SyncSender<Found>) {
    let mut search = Search::default();
    let mut everyone = true;
    loop {
        let mut processes: HashSet<u32> = HashSet::new();
        if everyone {
            processes.extend(members(scope).unwrap_or_default());
            // Those that ended unseen are found out.
            processes.extend(search.processes.keys());
            everyone = false;
        } else {
            match wanted.recv_timeout(RESCAN) {
                Ok(changes) => search.heed(changes, &mut processes),
                Err(RecvTimeoutError::Timeout) => everyone = true,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        for changes in wanted.try_iter() {
            search.heed(changes, &mut processes);
        }
        processes.remove(&std::process::id());
        for process in processes {
            let libraries = search.of_process(process);
            if found.send(Found { process, libraries }).is_err() {
                return;
            }
        }
    }
}

/// Something that happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::capture) enum Change {
    /// It has code of one more file.
    Mapped(u32),
    /// It is new, is another program now, or has ended.
    Replaced(u32),
    /// It has the kernel do the TLS of a connection.
    KernelTls(u32),
}

#[derive(Debug, Default)]
struct Search {
    /// Every file looked at so far: `None` for one without a TLS library.
    files: HashMap<FileId, Option<Arc<Library>>>,
    processes: HashMap<u32, Known>,
}

/// What is known of a process: a program maps file after file, and only the new ones are looked at.
#[derive(Debug, Default)]
struct Known {
    seen: HashSet<MappedFile>,
    libraries: Vec<Arc<Library>>,
    kernel_tls: bool,
}

/// What stands for the kernel's TLS, which is no file's.
const KERNEL: FileId = FileId {
    device: 0,
    inode: 0,
    size: 0,
    changed: (0, 0),
};

/// A file as `/proc/PID/maps` names it: device and inode number, which tell the lines of one process apart.
type MappedFile = (u32, u64);

impl Search {
    fn heed(&mut self, changes: Vec<Change>, processes: &mut HashSet<u32>) {
        for change in changes {
            let (Change::Mapped(process) | Change::Replaced(process) | Change::KernelTls(process)) = change;
            match change {
                Change::Mapped(_) => {}
                Change::Replaced(_) => {
                    self.processes.remove(&process);
                }
                Change::KernelTls(_) => self.processes.entry(process).or_default().kernel_tls = true,
            }
            processes.insert(process);
        }
    }

    fn of_process(&mut self, process: u32) -> Vec<Arc<Library>> {
        // A process may be gone by now, or be one that may not be looked into.
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
        if maps.is_empty() {
            self.processes.remove(&process);
            return Vec::new();
        }
        let mut known = self.processes.remove(&process).unwrap_or_default();
        let mut executable = None;
        for mapping in maps.lines().filter_map(Mapping::parse) {
            if known.seen.len() >= MAX_FILES_OF_ONE || !known.seen.insert(mapping.file) {
                continue;
            }
            let Some((file, metadata)) = mapping.open(process) else {
                continue;
            };
            let id = FileId {
                device: metadata.dev(),
                inode: metadata.ino(),
                size: metadata.len(),
                changed: (metadata.mtime(), metadata.mtime_nsec()),
            };
            let exe = executable.get_or_insert_with(|| fs::metadata(format!("/proc/{process}/exe")).ok());
            let runs = exe
                .as_ref()
                .is_some_and(|exe| (exe.dev(), exe.ino()) == (id.device, id.inode));
            known.libraries.extend(self.of_file(id, file, mapping.path, runs));
        }
        let mut libraries = known.libraries.clone();
        if known.kernel_tls {
            libraries.extend(Library::of_kernel(process, &libraries));
        }
        self.processes.insert(process, known);
        libraries
    }

    fn of_file(&mut self, id: FileId, file: File, path: &str, executable: bool) -> Option<Arc<Library>> {
        if let Some(known) = self.files.get(&id) {
            return known.clone();
        }
        if self.files.len() >= MAX_FILES {
            self.files.clear();
        }
        let findings = elf::analyse(&file, executable);
        let library = match findings {
            Ok(Findings::Nothing) | Err(Refusal::NotElf) => None,
            findings => Some(Arc::new(Library {
                id,
                file,
                path: path.to_owned(),
                findings,
            })),
        };
        tracing::debug!("{path}: {:?}", library.as_ref().map(|library| &library.findings));
        self.files.insert(id, library.clone());
        library
    }
}

/// One line of `/proc/PID/maps`: code of a file.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    /// As the kernel writes it: `start-end`.
    range: &'a str,
    file: MappedFile,
    path: &'a str,
}

impl<'a> Mapping<'a> {
    /// Reads `55d0-55f0 r-xp 00002000 08:01 1234    /usr/lib/x.so`; `None` for what is no code or has no file.
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let (range, mode, _, device, inode) = (
            words.next()?,
            words.next()?,
            words.next()?,
            words.next()?,
            words.next()?,
        );
        let path = words.next()?.trim_start();
        if mode.as_bytes().get(2) != Some(&b'x') || inode == "0" || !path.starts_with('/') {
            return None;
        }
        let (major, minor) = device.split_once(':')?;
        let number = |digits| u32::from_str_radix(digits, 16).ok();
        let file = (number(major)? << 20 | number(minor)?, inode.parse().ok()?);
        Some(Self { range, file, path })
    }

    /// Opens the file that is mapped, whatever its path names in this mount namespace, and even when it is deleted.
    fn open(&self, process: u32) -> Option<(File, Metadata)> {
        let file = File::open(format!("/proc/{process}/map_files/{}", self.range))
            .or_else(|_| File::open(format!("/proc/{process}/root{}", self.path)))
            .ok()?;
        // Only what begins like an ELF file: devices may be mapped too, and reading them may wait.
        let metadata = file.metadata().ok()?;
        let mut magic = [0; 4];
        let is_elf = metadata.is_file() && file.read_exact_at(&mut magic, 0).is_ok() && &magic == b"\x7fELF";
        is_elf.then_some((file, metadata))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let line = "7f16-7f18 r-xp 00002000 08:01 1234       /usr/lib/a b.so (deleted)";
        assert_eq!(
            Mapping::parse(line),
            Some(Mapping {
                range: "7f16-7f18",
                file: (8 << 20 | 1, 1234),
                path: "/usr/lib/a b.so (deleted)"
            })
        );
        for none in [
            "7f16-7f18 rw-p 00002000 08:01 1234       /usr/lib/a.so",
            "7ffd-7ffe r-xp 00000000 00:00 0          [vdso]",
            "7f16-7f18 r-xp 00000000 00:00 0 ",
            "",
        ] {
            assert_eq!(Mapping::parse(none), None, "{none}");
        }
    }
}

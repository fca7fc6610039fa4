//! Who held which pipes and sockets when the observer came.
//!
//! A server that was already blocked in `read` has moved no byte in our sight; when its client writes, nothing in that call
//! names the server. `/proc/PID/fd` does. It is read once, at start; later processes are seen to read and write themselves.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::protocol::event::{Direction, Event, Holder, Opened, Pid, Source, Timestamp};

/// Descriptors remembered at most, so that a node with very many costs a few megabytes; later ones are left out.
const MAX_ENDS: usize = 128 << 10;

/// Ends of pipes and sockets that existed at start, by inode number.
#[derive(Debug, Default)]
pub(super) struct Holders {
    ends: HashMap<u64, Vec<(Pid, Direction)>>,
}

impl Holders {
    /// Reads the descriptors of `processes`.
    pub(super) fn existing(processes: HashSet<u32>) -> Self {
        let mut ends: HashMap<u64, Vec<(Pid, Direction)>> = HashMap::new();
        let descriptors = processes.into_iter().flat_map(descriptors);
        for (inode, end) in descriptors.take(MAX_ENDS) {
            let holders = ends.entry(inode).or_default();
            if !holders.contains(&end) {
                holders.push(end);
            }
        }
        Self { ends }
    }

    /// Tells who held the ends of a stream that has just come into sight; nothing for one that is younger than the observer.
    pub(super) fn of(&mut self, opened: &Opened, now: Timestamp) -> impl Iterator<Item = Event> + use<> {
        let known = match opened.source {
            Source::Pipe | Source::Unix => self.ends.remove(&opened.inode),
            Source::Tcp | Source::Tls => None,
        };
        let key = opened.key;
        known.into_iter().flatten().map(move |(pid, direction)| {
            Event::Holder(Holder {
                pid,
                ends: vec![(key, direction)],
                time: now,
            })
        })
    }
}

/// Pipes and sockets among the descriptors of a process. The link's own mode says which way a descriptor is open.
fn descriptors(process: u32) -> impl Iterator<Item = (u64, (Pid, Direction))> {
    let entries = fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    entries.flat_map(move |entry| {
        let inode = fs::read_link(entry.path())
            .ok()
            .and_then(|target| inode_of(target.to_str()?));
        let mode = entry.metadata().map_or(0, |link| link.mode());
        let readable = (mode & 0o400 != 0).then_some(Direction::Received);
        let writable = (mode & 0o200 != 0).then_some(Direction::Sent);
        let ends = readable.into_iter().chain(writable);
        ends.filter_map(move |direction| Some((inode?, (Pid(process), direction))))
    })
}

/// The inode number in `pipe:[123]` or `socket:[123]`.
fn inode_of(target: &str) -> Option<u64> {
    let number = target
        .strip_prefix("pipe:[")
        .or_else(|| target.strip_prefix("socket:["))?;
    number.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_of_ours_has_both_ends() {
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let target =
            fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader))).expect("a link");
        let inode = inode_of(target.to_str().expect("ASCII")).expect("a pipe");
        let ours: Vec<_> = descriptors(std::process::id())
            .filter(|(found, _)| *found == inode)
            .collect();
        assert!(ours.iter().any(|(_, (_, direction))| *direction == Direction::Sent));
        assert!(ours.iter().any(|(_, (_, direction))| *direction == Direction::Received));
    }
}

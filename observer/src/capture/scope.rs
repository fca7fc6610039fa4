//! Whose calls are seen: the processes and control groups that are in scope when the observer starts.
//!
//! From then on the kernel side keeps both sets itself: children are added when they are made, groups when they are.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::Scope;

/// Processes and their descendants, as `/proc` shows them now.
///
/// # Errors
/// When one of `roots` does not exist.
pub(super) fn descendants(roots: &[u32]) -> Result<HashSet<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in processes() {
        if let Some(parent) = parent(process) {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut found = HashSet::new();
    let mut waiting = Vec::new();
    for &root in roots {
        if !Path::new(&format!("/proc/{root}")).exists() {
            bail!("--pid {root}: there is no such process");
        }
        waiting.push(root);
    }
    while let Some(process) = waiting.pop() {
        if found.insert(process) {
            waiting.extend(children.get(&process).into_iter().flatten());
        }
    }
    Ok(found)
}

/// The processes in scope now; every process where the scope is the node.
///
/// # Errors
/// As [`descendants`] and [`groups`].
pub(super) fn members(scope: &Scope) -> Result<HashSet<u32>> {
    if scope.pids.is_empty() && scope.cgroups.is_empty() {
        return Ok(processes().collect());
    }
    let mut found = descendants(&scope.pids)?;
    for root in &scope.cgroups {
        walk(root, &mut |folder| {
            let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(processes.lines().filter_map(|line| line.parse::<u32>().ok()));
        });
    }
    Ok(found)
}

/// Every process there is now.
fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
}

/// Parent of a process, by field 4 of `/proc/PID/stat`, which follows the name in parentheses.
fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Ids of the control groups at `roots` and below: the inode numbers of their folders.
///
/// # Errors
/// When one of `roots` is no folder of a cgroup v2 tree.
pub(super) fn groups(roots: &[PathBuf]) -> Result<HashSet<u64>> {
    let mut found = HashSet::new();
    for root in roots {
        if !root.join("cgroup.procs").exists() || root.join("tasks").exists() {
            bail!(
                "--cgroup {}: this is no control group of version 2 (no file cgroup.procs there)",
                root.display()
            );
        }
        walk(root, &mut |folder| {
            found.extend(fs::metadata(folder).map(|folder| folder.ino()));
        });
    }
    Ok(found)
}

/// Shows `visit` a folder and every folder below it. One that goes meanwhile is left out.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    visit(folder);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_a_descendant() {
        let mut child = std::process::Command::new("sleep")
            .arg("5")
            .spawn()
            .expect("sleep runs");
        let found = descendants(&[std::process::id()]).expect("we exist");
        child.kill().expect("our child");
        child.wait().expect("our child");
        assert!(found.contains(&child.id()) && found.contains(&std::process::id()));
    }

    #[test]
    fn what_is_no_group_is_refused() {
        let error = groups(&["/proc".into()]).expect_err("no group").to_string();
        assert!(error.contains("--cgroup /proc"), "{error}");
    }
}

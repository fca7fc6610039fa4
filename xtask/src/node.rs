//! What the daemon needs of the machine it observes: root, and the kernel's tracing file systems mounted.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::shell;

/// Why the daemon runs as root.
pub(crate) const WHY: &str = "observing attaches programs to the kernel";

/// Mounts tracefs and bpffs where the distribution has not.
pub(crate) fn prepare() -> Result<()> {
    for (kind, place) in [("tracefs", "/sys/kernel/tracing"), ("bpf", "/sys/fs/bpf")] {
        if !is_mounted(kind, place) {
            let mount = shell::command("mount", ["-t", kind, kind, place]);
            shell::output(&mut shell::as_root(WHY, mount))?;
        }
    }
    Ok(())
}

/// The daemon's command line, through sudo where this user is not root.
pub(crate) fn daemon(program: &Path, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    shell::as_root(WHY, command)
}

fn is_mounted(kind: &str, place: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(place) && fields.next() == Some(kind)
    })
}

//! A control group of the test's own: what the observer is scoped to, and what is sure to be empty at the end.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

/// A child of the machine's cgroup2 mount. Its processes are killed and it is removed when dropped.
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group with a name that no other test has.
    pub(crate) fn create() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "mcp-observer-e2e-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let path = mount_point()?.join(name);
        fs::create_dir(&path).with_context(|| format!("no control group can be made at {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Has the command enter the group before it executes its program, so that no system call of the program is missed.
    pub(crate) fn adopt(&self, command: &mut Command) -> Result<()> {
        let processes: File = OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?;
        let enter = move || {
            // SAFETY: the descriptor is open as long as this closure lives, the buffer is one static byte.
            match unsafe { libc::write(processes.as_raw_fd(), c"0".as_ptr().cast(), 1) } {
                1 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: `enter` makes one system call and allocates nothing, as is asked between fork and exec.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }

    /// Has a process enter the group.
    pub(crate) fn take_in(&self, process: i32) -> Result<()> {
        enter(&self.path, process)
    }

    /// Has a process leave it for the group above.
    pub(crate) fn let_out(&self, process: i32) -> Result<()> {
        enter(self.path.parent().context("a control group below none")?, process)
    }

    /// Microseconds of CPU that its processes have used, those that ended among them.
    pub(crate) fn cpu_us(&self) -> Result<f64> {
        let text = fs::read_to_string(self.path.join("cpu.stat"))?;
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(usage.context("no usage_usec in cpu.stat")?.parse()?)
    }

    /// Its processes now.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

fn enter(group: &Path, process: i32) -> Result<()> {
    fs::write(group.join("cgroup.procs"), process.to_string())
        .with_context(|| format!("process {process} cannot enter {}", group.display()))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            for pid in self.processes() {
                // SAFETY: a signal to a process of this group, which only holds what the test started.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        eprintln!("e2e: control group {} could not be removed", self.path.display());
    }
}

fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    found.context("no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup")
}

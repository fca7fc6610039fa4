//! Whether uretprobes are safe on this node: tried on a confined process of our own before any other process gets one.
//!
//! On x86-64 a uretprobe makes a hidden system call since 6.11, in the name of the process that it watches. Where seccomp asks the
//! process's filter about it (before 6.14, and not in every stable line), a filter that does not know it kills the process: a
//! sandboxed program would die of being observed.
//!
//! ```text
//! we:     fork ───────────────────── attach ── go ──────────────── how did it end, and did the probe run?
//! child:        └─ seccomp ── ready ─────────────┴─ the function ── exit
//! ```

use std::io::{self, Read, Write};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::Array;
use aya::programs::UProbe;
use aya::programs::uprobe::UProbeScope;

use crate::capture::{attach, map};

/// How long a trial may take: some milliseconds are usual.
const LIMIT: Duration = Duration::from_secs(2);

/// The kernel program for the function's return.
const PROGRAM: &str = "trial_return";

/// Status of a child that could not be confined.
const UNCONFINED: i32 = 3;

/// The function that is probed in the child.
type Probed = extern "C" fn(u64) -> u64;

/// Tries a uretprobe on a confined process.
///
/// # Errors
/// Why there must be none on this node, as a sentence.
pub(in crate::capture) fn uretprobes(ebpf: &mut Ebpf) -> Result<(), String> {
    let begun = Instant::now();
    let mut ended = tried(ebpf);
    // On a busy node the child may have had no turn.
    if matches!(ended, Ok(Ended { fate: Fate::Late, .. })) {
        ended = tried(ebpf);
    }
    let ended = ended.map_err(|error| format!("uretprobes cannot be tried here: {error:#}"))?;
    tracing::debug!(
        "a confined process with a uretprobe: {ended:?} after {:?}",
        begun.elapsed()
    );
    ended.verdict()
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    fate: Fate,
    /// Whether the probe ran.
    ran: bool,
}

/// How a confined process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Exited(i32),
    Killed(i32),
    /// It had to be ended.
    Late,
}

impl Ended {
    fn verdict(self) -> Result<(), String> {
        match (self.fate, self.ran) {
            (Fate::Exited(0), true) => Ok(()),
            (Fate::Exited(0), false) => Err("a uretprobe on a process of our own did not run".to_owned()),
            (Fate::Exited(UNCONFINED), _) => Err("this kernel has no seccomp to try uretprobes with".to_owned()),
            (Fate::Exited(status), _) => Err(format!("a process of our own with a uretprobe ended with {status}")),
            (Fate::Killed(libc::SIGSYS), _) => Err(
                "on this kernel a uretprobe makes seccomp kill the process it watches; 6.14 and later do not"
                    .to_owned(),
            ),
            (Fate::Killed(signal), _) => Err(format!(
                "a confined process of our own died of a uretprobe (signal {signal})"
            )),
            (Fate::Late, _) => Err(format!(
                "a confined process of our own with a uretprobe did not end within {} s",
                LIMIT.as_secs()
            )),
        }
    }
}

fn tried(ebpf: &mut Ebpf) -> Result<Ended> {
    let offset = file_offset(probed as *const () as u64).context("our own code is not in /proc/self/maps")?;
    let program: &mut UProbe = attach::find(ebpf, PROGRAM)?.try_into()?;
    if program.fd().is_err() {
        program
            .load()
            .map_err(attach::readable)
            .context("the kernel refuses a uretprobe")?;
    }
    let mut link = None;
    let fate = confined(probed, LIMIT, |child| {
        let scope = UProbeScope::OneProcess(child);
        link = Some(program.attach(offset, "/proc/self/exe", scope)?);
        Ok(())
    });
    if let Some(link) = link {
        program.detach(link)?;
    }
    let fate = fate?;
    let ran: Array<_, u32> = Array::try_from(map(ebpf, "TRIAL")?)?;
    Ok(Ended {
        fate,
        ran: ran.get(&0, 0)? != 0,
    })
}

/// What is probed. Its own work makes no system call, so that whatever one is made is the probe's.
#[inline(never)]
extern "C" fn probed(value: u64) -> u64 {
    std::hint::black_box(value).wrapping_add(1)
}

/// Where in the executable the code at an address lies.
fn file_offset(address: u64) -> Option<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (range, _mode, offset) = (words.next()?, words.next()?, words.next()?);
        let (start, end) = range.split_once('-')?;
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        let (start, end) = (number(start)?, number(end)?);
        (start..end)
            .contains(&address)
            .then(|| Some(address - start + number(offset)?))?
    })
}

/// Runs a function in a child that may read, write and exit; `prepare` is told of the child when that is in force.
fn confined(function: Probed, limit: Duration, prepare: impl FnOnce(NonZeroU32) -> Result<()>) -> Result<Fate> {
    let deadline = Instant::now() + limit;
    let (mut near, far) = UnixStream::pair().context("no socket pair can be had")?;
    let filter = filter();
    // SAFETY: the child makes system calls alone, as is asked of the child of a process with threads.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: this is the child, its program is the caller's.
        unsafe { as_child(function, far.as_raw_fd(), near.as_raw_fd(), &filter) }
    }
    anyhow::ensure!(child > 0, "no process can be made: {}", io::Error::last_os_error());
    let child = Child(child);
    drop(far);
    near.set_read_timeout(Some(limit))?;
    let mut ready = [0];
    // Without that byte it could not be confined, and its status tells.
    if near.read(&mut ready).is_ok_and(|length| length == 1) {
        prepare(NonZeroU32::new(child.0.unsigned_abs()).context("a child without a number")?)?;
        // One that is dead by now is found out below.
        let _ = near.write_all(&ready);
    }
    Ok(child.fate(deadline))
}

/// A child, which is ended when dropped.
struct Child(libc::pid_t);

impl Child {
    fn fate(self, deadline: Instant) -> Fate {
        loop {
            if let Some(fate) = self.look() {
                std::mem::forget(self);
                return fate;
            }
            if Instant::now() >= deadline {
                return Fate::Late;
            }
            sleep(Duration::from_millis(1));
        }
    }

    fn look(&self) -> Option<Fate> {
        let mut status = 0;
        // SAFETY: a child of ours that was not waited for; the pointer is to a live number.
        if unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG) } != self.0 {
            return None;
        }
        Some(if libc::WIFEXITED(status) {
            Fate::Exited(libc::WEXITSTATUS(status))
        } else {
            Fate::Killed(libc::WTERMSIG(status))
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a child of ours that was not waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// What the child does: confines itself, says so, waits for leave, runs the function and exits.
///
/// # Safety
/// Only for a child that was just forked. Allocates nothing and takes no lock.
unsafe fn as_child(function: Probed, socket: i32, other: i32, filter: &[libc::sock_filter; 7]) -> ! {
    let program = libc::sock_fprog {
        len: 7,
        filter: filter.as_ptr().cast_mut(),
    };
    let mut byte = [b'r'];
    // SAFETY: plain system calls, on descriptors and memory of this process.
    unsafe {
        // So that the end of the daemon ends it too.
        libc::close(other);
        let confined = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0;
        if !confined {
            libc::_exit(UNCONFINED);
        }
        libc::write(socket, byte.as_ptr().cast(), 1);
        let leave = libc::read(socket, byte.as_mut_ptr().cast(), 1) == 1;
        let value = function(1);
        libc::_exit(i32::from(!(leave && value == 2)))
    }
}

/// Lets a process read, write and exit, and kills it for everything else, as sandboxes do with what they do not know.
fn filter() -> [libc::sock_filter; 7] {
    const NUMBER: u32 = 0;
    let step = |code: u32, value: u32, yes: u8, no: u8| libc::sock_filter {
        code: u16::try_from(code).expect("codes of classic BPF are small"),
        jt: yes,
        jf: no,
        k: value,
    };
    let number = |call: libc::c_long| u32::try_from(call).expect("system calls have small numbers");
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER, 0, 0),
        step(equal, number(libc::SYS_read), 4, 0),
        step(equal, number(libc::SYS_write), 3, 0),
        step(equal, number(libc::SYS_exit), 2, 0),
        step(equal, number(libc::SYS_exit_group), 1, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the hidden system call does.
    extern "C" fn calls(value: u64) -> u64 {
        // SAFETY: it has no effect.
        unsafe { libc::syscall(libc::SYS_getppid) };
        value + 1
    }

    extern "C" fn hangs(value: u64) -> u64 {
        loop {
            std::hint::black_box(value);
        }
    }

    #[test]
    fn a_system_call_in_the_function_kills_a_confined_process() {
        let told = |_| Ok(());
        assert_eq!(confined(probed, LIMIT, told).expect("a child"), Fate::Exited(0));
        assert_eq!(
            confined(calls, LIMIT, told).expect("a child"),
            Fate::Killed(libc::SIGSYS)
        );
    }

    #[test]
    fn a_process_that_does_not_end_is_ended() {
        let mut child = None;
        let fate = confined(hangs, LIMIT, |number| {
            child = Some(number);
            Ok(())
        });
        assert_eq!(fate.expect("a child"), Fate::Late);
        let child = child.expect("it was told of");
        assert!(!std::path::Path::new(&format!("/proc/{child}")).exists());
    }

    #[test]
    fn a_refusal_of_the_probe_ends_the_child() {
        let mut child = None;
        let refused = confined(probed, LIMIT, |number| {
            child = Some(number);
            anyhow::bail!("no")
        });
        assert!(refused.is_err());
        let child = child.expect("it was told of");
        assert!(!std::path::Path::new(&format!("/proc/{child}")).exists());
    }

    #[test]
    fn only_a_probe_that_ran_on_a_process_that_lived_is_safe() {
        let verdict = |fate, ran| Ended { fate, ran }.verdict();
        assert_eq!(verdict(Fate::Exited(0), true), Ok(()));
        for (fate, ran, word) in [
            (Fate::Exited(0), false, "did not run"),
            (Fate::Exited(UNCONFINED), false, "no seccomp"),
            (Fate::Exited(1), true, "ended with 1"),
            (Fate::Killed(libc::SIGSYS), true, "seccomp kill"),
            (Fate::Killed(libc::SIGSEGV), true, "signal 11"),
            (Fate::Late, true, "did not end"),
        ] {
            let reason = verdict(fate, ran).expect_err("unsafe");
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn code_of_our_own_lies_in_our_executable() {
        assert!(file_offset(probed as *const () as u64).is_some_and(|offset| offset > 0));
        assert_eq!(file_offset(8), None);
    }
}

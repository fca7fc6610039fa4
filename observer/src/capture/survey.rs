//! What this node lets the observer see: the content of `mcp-observer check`. Nothing that is attached here stays.

use std::fs;

use super::tls::{Census, Returns, census, uretprobes};
use super::{Backend, BackendChoice, Options, Scope, attach, layout, load};

/// What this node lets the observer see; the content of `mcp-observer check`.
#[derive(Clone, Debug)]
pub struct Survey {
    /// `uname -r`.
    pub kernel: String,
    /// Whether the kernel's type information can be read.
    pub btf: bool,
    /// The backend that `auto` chooses, and the sentence that says why; `Err` when none would work, with why and what to do.
    pub backend: Result<(Backend, String), String>,
    /// Capabilities that are missing among those needed.
    pub missing_capabilities: Vec<&'static str>,
    /// Whether uretprobes do no harm here, without which most TLS libraries are left alone; `Err` with why there are none.
    pub uretprobes: Result<(), String>,
    /// The TLS libraries in use, and whether `run` would attach to them.
    pub tls: Census,
    /// What cannot be seen here at all, one sentence each.
    pub blind_spots: Vec<String>,
}

/// Capabilities that `run` uses, by their numbers in `include/uapi/linux/capability.h`.
const CAPABILITIES: &[(u32, &str)] = &[
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// What no backend sees, on any node.
const NEVER_SEEN: &[&str] = &[
    "terminals (ptys): a server started with a tty on its standard streams",
    "vsock, and sockets inside sandboxed guests (gVisor, Kata): their kernel is not this one",
    "sockets in a sockmap, whose kernel functions are replaced",
    "bytes that splice or sendfile move: counted as opaque, not read",
    "transports inside one process",
];

/// Looks at the node.
#[must_use]
pub fn survey() -> Survey {
    let (backend, uretprobes) = match try_backend() {
        Ok((backend, reason, uretprobes)) => (Ok((backend, reason)), uretprobes),
        Err(reason) => (Err(reason), Err("no probe can be tried here".to_owned())),
    };
    let returns = uretprobes.as_ref().map_or(Returns::Unsafe, |()| Returns::Safe);
    let mut blind_spots: Vec<String> = NEVER_SEEN.iter().map(|&spot| spot.to_owned()).collect();
    if matches!(&backend, Ok((Backend::Syscall, _))) {
        blind_spots
            .push("io_uring, and 32-bit programs (counted): the syscall backend sees system calls only".to_owned());
    }
    if locked_down() {
        blind_spots
            .push("everything: this kernel is locked to confidentiality, which forbids reading memory".to_owned());
    }
    Survey {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        btf: fs::metadata(layout::BTF).is_ok(),
        backend,
        missing_capabilities: missing_capabilities(),
        uretprobes,
        tls: census(returns),
        blind_spots,
    }
}

/// Loads and attaches for a moment, to a scope that holds nobody.
fn try_backend() -> Result<(Backend, String, Result<(), String>), String> {
    let nobody = Scope {
        pids: vec![std::process::id()],
        cgroups: Vec::new(),
    };
    let options = Options {
        backend: BackendChoice::Auto,
        scope: nobody,
        ring_bytes: 4096,
    };
    let kernel = layout::Kernel::running().map_err(|error| format!("{error:#}"))?;
    let mut ebpf = load(&kernel, &options).map_err(|error| format!("{error:#}"))?;
    let (backend, reason, _) =
        attach::attach(&mut ebpf, &kernel, BackendChoice::Auto).map_err(|error| format!("{error:#}"))?;
    Ok((backend, reason, uretprobes(&mut ebpf)))
}

/// `[none] integrity confidentiality`, the one in force in brackets; no such file where lockdown is not built in.
fn locked_down() -> bool {
    fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|modes| modes.contains("[confidentiality]"))
}

fn missing_capabilities() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES
        .iter()
        .filter(|(bit, _)| effective & 1 << bit == 0)
        .map(|(_, name)| *name)
        .collect()
}

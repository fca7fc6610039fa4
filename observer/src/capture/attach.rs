//! Which programs go where: the two backends as tables, and loading and attaching them.

use anyhow::{Context, Result, anyhow};
use aya::programs::{FEntry, FExit, Program, RawTracePoint};
use aya::{Btf, Ebpf};

use super::layout::Kernel;
use super::{Backend, BackendChoice, Probe};

/// A program of the kernel object and the kernel functions it may be attached to, the first that the kernel has.
struct Function {
    program: &'static str,
    targets: &'static [&'static str],
    /// The number of arguments of the prototype that the program was written for; `None` where there is but one.
    arguments: Option<usize>,
    /// Whether it does what another does, for kernels that leave programs out.
    again: bool,
}

const fn function(program: &'static str, targets: &'static [&'static str]) -> Function {
    Function {
        program,
        targets,
        arguments: None,
        again: false,
    }
}

const fn again(program: &'static str, targets: &'static [&'static str]) -> Function {
    Function {
        again: true,
        ..function(program, targets)
    }
}

const fn variant(program: &'static str, arguments: usize) -> Function {
    Function {
        program,
        targets: &["tcp_recvmsg"],
        arguments: Some(arguments),
        again: false,
    }
}

/// The kernel made the pipes' functions two in 6.14: those of FIFOs call those of anonymous pipes.
const PIPE_READ: &[&str] = &["anon_pipe_read", "pipe_read"];
const PIPE_WRITE: &[&str] = &["anon_pipe_write", "pipe_write"];

/// The function backend. Sending comes first, so that a writer is always in sight before its reader.
const FUNCTIONS: &[Function] = &[
    function("pipe_write_return", PIPE_WRITE),
    again("pipe_write_return_again", PIPE_WRITE),
    function("pipe_write_entry", PIPE_WRITE),
    function("unix_send_return", &["unix_stream_sendmsg"]),
    again("unix_send_return_again", &["unix_stream_sendmsg"]),
    function("unix_send_entry", &["unix_stream_sendmsg"]),
    function("tcp_send_return", &["tcp_sendmsg"]),
    again("tcp_send_return_again", &["tcp_sendmsg"]),
    function("tcp_send_entry", &["tcp_sendmsg"]),
    function("pipe_read_return", PIPE_READ),
    again("pipe_read_return_again", PIPE_READ),
    function("pipe_read_entry", PIPE_READ),
    function("unix_receive_return", &["unix_stream_recvmsg"]),
    again("unix_receive_return_again", &["unix_stream_recvmsg"]),
    function("unix_receive_entry", &["unix_stream_recvmsg"]),
    variant("tcp_receive4_return", 4),
    Function {
        again: true,
        ..variant("tcp_receive4_return_again", 4)
    },
    variant("tcp_receive4_entry", 4),
    variant("tcp_receive5_return", 5),
    Function {
        again: true,
        ..variant("tcp_receive5_return_again", 5)
    },
    variant("tcp_receive5_entry", 5),
    variant("tcp_receive6_return", 6),
    Function {
        again: true,
        ..variant("tcp_receive6_return_again", 6)
    },
    variant("tcp_receive6_entry", 6),
    function("pipe_release_entry", &["pipe_release"]),
    function("unix_release_entry", &["unix_release"]),
    function("tcp_close_entry", &["tcp_close"]),
];

/// Tracepoints of both backends: program, tracepoint.
const PROCESSES: &[(&str, &str)] = &[
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
    ("cgroup_made", "cgroup_mkdir"),
    ("cgroup_removed", "cgroup_rmdir"),
];

/// Tracepoints of the syscall backend.
const SYSCALLS: &[(&str, &str)] = &[
    ("syscall_return", "sys_exit"),
    ("syscall_entry", "sys_enter"),
    ("tcp_state", "inet_sock_set_state"),
];

/// The same where programs on typed tracepoints cannot get at the current task.
const SYSCALLS_UNTYPED: &[(&str, &str)] = &[
    ("syscall_return_untyped", "sys_exit"),
    ("syscall_entry_untyped", "sys_enter"),
    ("tcp_state", "inet_sock_set_state"),
];

/// The helper that gives programs on typed tracepoints the current task (5.11).
const TYPED_TASK: &str = "bpf_get_current_task_btf";

/// A symbol that kernels have whose trampolines may be taken away safely ("Fix fexit trampoline", 5.12, and the stable lines).
const SAFE_TRAMPOLINES: &str = "__bpf_tramp_image_put_rcu";

/// Whether this kernel's trampolines are known to be safe, and if not why.
///
/// # Errors
/// The reason, as a sentence.
pub(super) fn trampolines() -> Result<(), String> {
    let symbols = std::fs::read("/proc/kallsyms").unwrap_or_default();
    if memchr::memmem::find(&symbols, SAFE_TRAMPOLINES.as_bytes()).is_some() {
        Ok(())
    } else {
        Err(format!(
            "this kernel's trampolines are absent or may crash when they are taken away (no {SAFE_TRAMPOLINES})"
        ))
    }
}

/// Whether this kernel leaves programs out: it does not run one on a processor where another task is in the middle of it, which is
/// only where it preempts tasks inside itself. From 7.0 on it always does, before that it is a choice made at its build or boot.
pub(super) fn leaves_programs_out() -> bool {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    let major = release.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let chosen = |text: String, words: &[&str]| text.split_whitespace().any(|word| words.contains(&word));
    major.is_some_and(|major| major >= 7)
        || chosen(read("/proc/version"), &["PREEMPT", "PREEMPT_LAZY", "PREEMPT_RT"])
        || chosen(read("/proc/cmdline"), &["preempt=full", "preempt=lazy"])
}

/// Attaches the programs of one backend; the other programs stay unloaded.
///
/// # Errors
/// When the backend asked for cannot work here; `Auto` fails only when none can.
pub(super) fn attach(ebpf: &mut Ebpf, kernel: &Kernel, choice: BackendChoice) -> Result<(Backend, String, Vec<Probe>)> {
    let refusal = match choice {
        BackendChoice::Syscall => "asked for by --backend".to_owned(),
        BackendChoice::Auto | BackendChoice::Function => match functions(ebpf, kernel) {
            Ok(probes) => {
                let probes = with_processes(ebpf, probes)?;
                return Ok((Backend::Function, "this kernel has BPF trampolines".to_owned(), probes));
            }
            Err(error) if choice == BackendChoice::Function => {
                return Err(error.context("the function backend cannot work here; try --backend auto"));
            }
            Err(error) => format!("the function backend cannot work here: {error:#}"),
        },
    };
    let probes = with_processes(ebpf, Vec::new())?;
    let typed = kernel.arguments(TYPED_TASK).is_some();
    let table = if typed { SYSCALLS } else { SYSCALLS_UNTYPED };
    let probes = tracepoints(ebpf, table, probes).context("the syscall backend cannot work here")?;
    Ok((Backend::Syscall, refusal, probes))
}

/// Process life first: a process made between two attachments is then not missed.
fn with_processes(ebpf: &mut Ebpf, probes: Vec<Probe>) -> Result<Vec<Probe>> {
    tracepoints(ebpf, PROCESSES, probes)
}

fn tracepoints(ebpf: &mut Ebpf, table: &[(&str, &str)], mut probes: Vec<Probe>) -> Result<Vec<Probe>> {
    for (program, tracepoint) in table {
        let refused = || format!("the kernel refuses a program on {tracepoint}");
        let attached = match find(ebpf, program)? {
            Program::BtfTracePoint(program) => {
                let btf = Btf::from_sys_fs().context("the kernel's type information cannot be read")?;
                program.load(tracepoint, &btf).map_err(readable).with_context(refused)?;
                program.attach().map(|_| ())
            }
            program => {
                let program: &mut RawTracePoint = program.try_into()?;
                program.load().map_err(readable).with_context(refused)?;
                program.attach(tracepoint).map(|_| ())
            }
        };
        attached.with_context(|| format!("the kernel refuses to attach to {tracepoint}"))?;
        probes.push(Probe {
            name: (*tracepoint).to_owned(),
            failure: None,
        });
    }
    Ok(probes)
}

/// Loads everything before it attaches anything: a backend is whole or not at all.
fn functions(ebpf: &mut Ebpf, kernel: &Kernel) -> Result<Vec<Probe>> {
    trampolines().map_err(|reason| anyhow!(reason))?;
    let btf = Btf::from_sys_fs().context("the kernel's type information cannot be read")?;
    let (mut loaded, twice) = (Vec::new(), leaves_programs_out());
    for hook in FUNCTIONS {
        let target = kernel.first_function(hook.targets);
        let Some(target) = target else {
            return Err(anyhow!("this kernel has no function {}", hook.targets.join(" or ")));
        };
        let arguments = kernel.arguments(target);
        if hook.arguments.is_some() && hook.arguments != arguments || hook.again && !twice {
            continue;
        }
        let result = match find(ebpf, hook.program)? {
            Program::FEntry(program) => program.load(target, &btf),
            Program::FExit(program) => program.load(target, &btf),
            _ => return Err(anyhow!("{} is no program of the function backend", hook.program)),
        };
        result
            .map_err(readable)
            .with_context(|| format!("the kernel refuses a program on {target}"))?;
        loaded.push((hook.program, target));
    }
    let mut probes = Vec::new();
    for (name, target) in loaded {
        let (moment, result) = match find(ebpf, name)? {
            Program::FEntry(program) => ("entry", FEntry::attach(program).map(|_| ())),
            Program::FExit(program) => ("return", FExit::attach(program).map(|_| ())),
            _ => continue,
        };
        result.with_context(|| format!("the kernel refuses to attach to {target}"))?;
        probes.push(Probe {
            name: format!("{target} {moment}"),
            failure: None,
        });
    }
    Ok(probes)
}

pub(super) fn find<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name)
        .with_context(|| format!("the kernel object has no program {name}: build it again"))
}

/// The kernel's own words about a refused program: of the verifier's log only the end, which holds the reason.
pub(super) fn readable(error: aya::programs::ProgramError) -> anyhow::Error {
    if let aya::programs::ProgramError::LoadError { io_error, verifier_log } = &error {
        let log = verifier_log.to_string();
        tracing::debug!(
            "the verifier says: {}",
            &log[log.floor_char_boundary(log.len().saturating_sub(6000))..]
        );
        let lines: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
        let reason = lines
            .iter()
            .rev()
            .find(|line| !line.starts_with("processed "))
            .copied()
            .unwrap_or_default();
        return anyhow!("{io_error}{}{reason}", if reason.is_empty() { "" } else { ": " });
    }
    error.into()
}

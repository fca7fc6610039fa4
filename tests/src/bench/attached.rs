//! What is attached while a benchmark runs: nothing, empty programs, or the observer.

use std::path::Path;

use anyhow::{Context, Result};
use aya::programs::{FEntry, FExit, Program, RawTracePoint};
use aya::{Btf, Ebpf, EbpfLoader};

use crate::observer::Observer;
use crate::scenarios::Stage;

/// What is attached while a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    Nothing,
    Empty,
    Observer,
}

impl Attached {
    /// Puts it in place for a run on `stage`; empty programs go when they are dropped.
    pub(super) fn attach(self, stage: &Stage, object: &Path) -> Result<(Vec<Ebpf>, Option<Observer>)> {
        Ok(match self {
            Self::Nothing => (Vec::new(), None),
            Self::Empty => (empty_programs(object, &stage.lab.backend)?, None),
            Self::Observer => {
                // One line a call, as the DaemonSet has it.
                let calls = stage.lab.file("calls.jsonl");
                let words = ["--calls", "none", "--calls-file", &calls.to_string_lossy()];
                let observer = Observer::start_writing(&stage.lab, &stage.cgroup, &calls, &words)?;
                (Vec::new(), Some(observer))
            }
        })
    }
}

/// What `run` shows in each of `rounds` with nothing, with empty programs and with the observer; each is first, second and third in
/// turn.
pub(super) fn alternate<T>(rounds: u32, mut run: impl FnMut(Attached) -> Result<T>) -> Result<[Vec<T>; 3]> {
    let mut order = [Attached::Nothing, Attached::Empty, Attached::Observer];
    let mut shown = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for attached in order {
            shown[attached as usize].push(run(attached)?);
        }
        order.rotate_left(1);
    }
    Ok(shown)
}

/// The backend's hooks that traffic over TCP passes, with nothing behind them; the syscall backend's hooks are those of all traffic.
fn empty_programs(object: &Path, backend: &str) -> Result<Vec<Ebpf>> {
    if backend == "syscall" {
        let mut ebpf = kernel_object(object)?;
        let program: &mut RawTracePoint = program(&mut ebpf, "baseline_tracepoint")?.try_into()?;
        program.load()?;
        for hook in ["sys_enter", "sys_exit"] {
            program.attach(hook)?;
        }
        return Ok(vec![ebpf]);
    }
    let btf = Btf::from_sys_fs()?;
    // A program is loaded for one function: each function takes the object anew.
    let on_function = |function: &&str| {
        let mut ebpf = kernel_object(object)?;
        let entry: &mut FEntry = program(&mut ebpf, "baseline_entry")?.try_into()?;
        entry.load(function, &btf)?;
        entry.attach()?;
        let back: &mut FExit = program(&mut ebpf, "baseline_return")?.try_into()?;
        back.load(function, &btf)?;
        back.attach()?;
        anyhow::Ok(ebpf)
    };
    ["tcp_sendmsg", "tcp_recvmsg"].iter().map(on_function).collect()
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name)
        .with_context(|| format!("the kernel object has no program {name}"))
}

fn kernel_object(object: &Path) -> Result<Ebpf> {
    EbpfLoader::new()
        .map_max_entries("RING", 4096)
        .load_file(object)
        .with_context(|| {
            format!(
                "{} cannot be loaded: name the kernel object with --object",
                object.display()
            )
        })
}

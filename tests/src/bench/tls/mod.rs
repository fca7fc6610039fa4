//! TLS: what the probes cost SDK pairs on HTTPS and each call of a library, and what it takes to look at 500 processes at start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::report::{Figure, Report, Target, median};
use super::sdk::{self, Case};
use crate::certificate::Certificate;
use crate::clock::wait_until;
use crate::lab::Lab;
use crate::observer::Observer;
use crate::peer::{Client, Program, Server, Transport};
use crate::scenarios::Stage;

/// The SDKs by whose TLS they have: OpenSSL twice, Go's own, rustls; and calls of one run.
const CASES: &[Case] = &[
    (Client::Py23, Server::Py23, Transport::Https, 400),
    (Client::NodeSdk, Server::NodeSdk, Transport::Https, 1500),
    (Client::Go, Server::Go, Transport::Https, 4000),
    (Client::Rmcp, Server::Rmcp, Transport::Https, 4000),
];

/// The share of calls a second that must be left.
const THROUGHPUT: f64 = 0.97;

/// How long one run at saturation takes.
const SECONDS: &str = "2";

/// Processes that are there when the observer comes, and the bounds on looking at all of them.
const CROWD: u32 = 500;
const CROWD_SECONDS: f64 = 5.0;
const CROWD_MIB: f64 = 100.0;

/// Measures a library at saturation and many processes at once.
pub(super) fn measure(lab: &Arc<Lab>, rounds: u32, report: &mut Report) -> Result<()> {
    for kind in ["text", "mcp"] {
        saturation(lab, kind, rounds, report)?;
    }
    crowd(lab, report)
}

/// Measures the pairs, with one call of `fewer`.
pub(super) fn measure_pairs(lab: &Arc<Lab>, object: &Path, runs: sdk::Runs<'_>, report: &mut Report) -> Result<()> {
    sdk::measure_cases(lab, object, CASES, runs, THROUGHPUT, report)
}

/// Nanoseconds of CPU for a call of the library, without and with the observer in turns.
fn saturation(lab: &Arc<Lab>, kind: &str, rounds: u32, report: &mut Report) -> Result<()> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..rounds * 2 {
        // The order changes, so that neither is always second.
        if (round + round / 2) % 2 == 0 {
            without.push(saturate(lab, kind, Watched::No)?);
        } else {
            with.push(saturate(lab, kind, Watched::Yes)?);
        }
    }
    let case = format!("tls at saturation, {kind}");
    report.add(Figure::pair(&case, "CPU of a call of OpenSSL", "ns", &without, &with));
    report.add(Figure::alone(
        &case,
        "the observer's part of it",
        "ns",
        median(&with) - median(&without),
    ));
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watched {
    Yes,
    No,
}

fn saturate(lab: &Arc<Lab>, kind: &str, watched: Watched) -> Result<f64> {
    let stage = Stage::new(lab, "bench")?;
    let (word, log) = (lab.file("go"), lab.file("saturate.log"));
    let certificate = Certificate::create(&log)?;
    let observer = (watched == Watched::Yes).then(|| stage.observe(&[])).transpose()?;
    let mut program = python(&stage, include_str!("saturate.py"), |command| {
        command.args([kind, SECONDS]).arg(&word);
        command.arg(&certificate.file).arg(&certificate.key);
    })?;
    if let Some(observer) = &observer {
        attached(&stage, observer, 1, 20)?;
    }
    fs::write(&word, "")?;
    program.finish(lab.limit(60))?;
    if let Some(observer) = observer {
        let taken = || observer.metric("mcp_observer_records_total", "source=\"tls\"").ok();
        let some = || taken().filter(|records| *records > 0.0);
        wait_until(lab.limit(5), some).context("the observer saw nothing through TLS")?;
        observer.stop()?;
    }
    let said = program.said();
    let cost = said.split_whitespace().nth(1).context("the program said nothing")?;
    Ok(cost.parse()?)
}

fn crowd(lab: &Arc<Lab>, report: &mut Report) -> Result<()> {
    let stage = Stage::new(lab, "bench")?;
    let program = python(&stage, include_str!("crowd.py"), |command| {
        command.arg((CROWD - 1).to_string());
    })?;
    wait_until(lab.limit(60), || program.said().contains("ready").then_some(()))
        .with_context(|| format!("the processes were never all there: {}", program.said()))?;
    let begun = Instant::now();
    let observer = stage.observe(&[])?;
    let ready = begun.elapsed();
    attached(&stage, &observer, CROWD, 120)?;
    let took = begun.elapsed();
    let case = "500 processes with TLS";
    let mut add = |what, unit, value, target| report.add(Figure::alone(case, what, unit, value).with_target(target));
    add(
        "all attached after",
        "s",
        took.as_secs_f64(),
        Target::AtMost(CROWD_SECONDS),
    );
    add(
        "peak memory",
        "MiB",
        peak_mib(observer.pid())?,
        Target::AtMost(CROWD_MIB),
    );
    report.add(Figure::alone(case, "ready after", "s", ready.as_secs_f64()));
    let begun = Instant::now();
    observer.stop()?;
    report.add(Figure::alone(case, "stopped after", "s", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// Waits until so many processes are attached.
fn attached(stage: &Stage, observer: &Observer, processes: u32, seconds: u64) -> Result<()> {
    let count = || {
        observer
            .metric("mcp_observer_tls_processes", "state=\"attached\"")
            .unwrap_or(0.0)
    };
    let all = || (count() >= f64::from(processes)).then_some(());
    wait_until(stage.lab.limit(seconds), all)
        .with_context(|| format!("{} processes and not {processes} are attached", count()))
}

/// Starts a script with a copy of the library that nobody else has, not even the run before: the probes of a daemon that has ended
/// take the kernel some seconds to remove.
fn python(stage: &Stage, script: &str, words: impl FnOnce(&mut Command)) -> Result<Program> {
    let (file, copies) = (stage.lab.file("script.py"), stage.lab.file("copies"));
    fs::write(&file, script)?;
    fs::create_dir_all(&copies)?;
    let python = stage.lab.peers.join("py-2.3.0/bin/python");
    let library = library(&python)?;
    fs::copy(
        &library,
        copies.join(library.file_name().context("a library without a name")?),
    )?;
    let mut command = Command::new(python);
    command.arg(&file).env("LD_LIBRARY_PATH", copies);
    words(&mut command);
    Program::start(command, Some(&stage.cgroup), stage.lab.file("script.log"))
}

/// The TLS library that Python maps.
fn library(python: &Path) -> Result<PathBuf> {
    let script = "import _ssl; print([line.split()[-1] for line in open('/proc/self/maps') if 'libssl' in line][0])";
    let said = Command::new(python).args(["-c", script]).output()?.stdout;
    let path = PathBuf::from(String::from_utf8(said)?.trim());
    ensure!(path.is_file(), "Python maps no libssl");
    Ok(path)
}

/// The most memory that a process has had.
fn peak_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmHWM")?
        .parse()?;
    Ok(kib / 1024.0)
}

//! Benchmarks: what the observer costs the programs it watches, and what it costs itself.
//!
//! Never part of the tests: a figure is a fact about a machine at a time. Runs without and with the observer alternate, so that
//! what else the machine does falls on both; what is reported is the median of at least five of each.

mod attached;
mod bystander;
mod flood;
mod generator;
mod memory;
mod report;
mod sdk;
mod tls;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, ValueEnum};

pub(crate) use bystander::{EchoArgs, echo};
pub(crate) use generator::{FloodClientArgs, FloodServerArgs, flood_client, flood_server};
pub(crate) use memory::{HoldArgs, hold};

use crate::lab::{Lab, ScopeKind};
use report::Report;

/// What `bench` is told.
#[derive(Args, Clone)]
#[command(args_override_self = true)]
pub(crate) struct BenchArgs {
    /// What to measure; everything by default.
    #[arg(value_enum)]
    what: Vec<What>,
    /// The daemon to measure.
    #[arg(long)]
    observer: PathBuf,
    /// The folder that `tests/peers/setup.sh` filled.
    #[arg(long)]
    peers: PathBuf,
    /// The kernel object, for its empty programs.
    #[arg(long, default_value = "target/ebpf/mcp-observer.bpf.o")]
    object: PathBuf,
    /// The observer's backend.
    #[arg(long, default_value = "syscall")]
    backend: String,
    /// What the observer is scoped to: what is measured, or the whole node, as a DaemonSet is.
    #[arg(long, value_enum, default_value = "cgroup")]
    scope: ScopeKind,
    /// Runs of each kind.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// SDK pairs make one call of so many: an emulated machine takes its time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    fewer: u32,
    /// SDK pairs of which only those are measured whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// How long the flood lasts, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Writes the figures here too, as one JSON object.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// SDK clients calling SDK servers.
    Sdk,
    /// Traffic that is not MCP.
    Bystander,
    /// 50,000 calls a second.
    Flood,
    /// 10,000 open streams.
    Memory,
    /// SDK clients calling SDK servers on HTTPS.
    Https,
    /// Calls of OpenSSL, and 500 processes that have it.
    Tls,
}

impl BenchArgs {
    fn runs(&self) -> sdk::Runs<'_> {
        sdk::Runs {
            rounds: self.rounds,
            fewer: self.fewer,
            only: &self.only,
        }
    }
}

/// Runs the benchmarks and prints a line for each figure.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    let lab = Arc::new(Lab::for_bench(&args.observer, &args.peers, &args.backend, args.scope)?);
    let mut report = Report::begin(&lab);
    let wanted = |what| args.what.is_empty() || args.what.contains(&what);
    if wanted(What::Sdk) {
        sdk::measure(&lab, &args.object, args.runs(), &mut report)?;
    }
    if wanted(What::Bystander) {
        bystander::measure(&lab, &args.object, args.rounds, &mut report)?;
    }
    if wanted(What::Flood) {
        flood::measure(&lab, args.seconds, &mut report)?;
    }
    if wanted(What::Memory) {
        memory::measure(&lab, &mut report)?;
    }
    if wanted(What::Https) {
        tls::measure_pairs(&lab, &args.object, args.runs(), &mut report)?;
    }
    if wanted(What::Tls) {
        tls::measure(&lab, args.rounds, &mut report)?;
    }
    report.finish(args.json.as_deref())?;
    lab.clear(true);
    Ok(ExitCode::SUCCESS)
}

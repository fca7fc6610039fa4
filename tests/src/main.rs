//! End-to-end tests of mcp-observer: real MCP programs on a real kernel, and the observer's calls held against what those
//! programs say they did.
//!
//! `e2e native` and `e2e vm` run the tests, `e2e bench` the benchmarks, `e2e self-check` runs the peers without an observer,
//! `e2e capture` records golden captures, and the hidden commands are the light peers that tests and benchmarks start by the
//! hundred.

#![allow(clippy::disallowed_methods, reason = "a test driver reads clocks")]

mod bench;
mod certificate;
mod cgroup;
mod clock;
mod compare;
mod copies;
mod golden;
mod lab;
mod matrix;
mod noise;
mod observer;
mod pair;
mod peer;
mod record;
mod scenarios;
mod self_check;
mod tiny;
mod tls_server;
mod truth;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// End-to-end tests of mcp-observer.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the tests on this machine, with the syscall backend unless told otherwise.
    Native(RunArgs),
    /// Runs the tests inside a virtual machine that this command already runs in.
    Vm(RunArgs),
    /// Runs every pair of peers without an observer and checks what they say of themselves.
    SelfCheck(SelfCheckArgs),
    /// Measures what the observer costs others and itself.
    Bench(bench::BenchArgs),
    /// Records the golden captures of `tests/captures` that are not there.
    Capture(golden::CaptureArgs),
    /// Prints a matrix file as a table.
    Matrix {
        /// The file that `native` and `vm` append to.
        file: PathBuf,
    },
    #[command(hide = true)]
    TinyServer(tiny::ServerArgs),
    #[command(hide = true)]
    Certificate {
        /// Beside which file it is to lie.
        beside: PathBuf,
    },
    #[command(hide = true)]
    TlsServer(tls_server::ServerArgs),
    #[command(hide = true)]
    TinyClient(tiny::ClientArgs),
    #[command(hide = true)]
    Noise(noise::NoiseArgs),
    #[command(hide = true)]
    Echo(bench::EchoArgs),
    #[command(hide = true)]
    FloodClient(bench::FloodClientArgs),
    #[command(hide = true)]
    FloodServer(bench::FloodServerArgs),
    #[command(hide = true)]
    Hold(bench::HoldArgs),
}

/// What a run of the tests is told.
#[derive(Args, Clone)]
pub(crate) struct RunArgs {
    /// The daemon under test.
    #[arg(long)]
    observer: PathBuf,
    /// The folder that `tests/peers/setup.sh` filled.
    #[arg(long)]
    peers: PathBuf,
    /// Runs only tests whose name contains one of these, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Leaves out tests whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<String>,
    /// Appends a row for each test to this file.
    #[arg(long)]
    matrix: Option<PathBuf>,
    /// The observer's backend; `native` tests `syscall` by default, `vm` tests `function`.
    #[arg(long)]
    backend: Option<String>,
    /// What the observer is scoped to: the test's own control group, or the whole node.
    #[arg(long, value_enum, default_value = "cgroup")]
    scope: lab::ScopeKind,
    /// How many of the pairs to run; `native` runs all by default, `vm` the quick ones.
    #[arg(long, value_enum)]
    pairs: Option<lab::Pairs>,
    /// Tests that run at once; `native` runs 2 by default, `vm` 1.
    #[arg(long)]
    jobs: Option<usize>,
    /// Multiplies every time-out, for machines that are emulated.
    #[arg(long)]
    patience: Option<u32>,
    /// Keeps logs, truths and records here, and not in a temporary folder.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Lists the tests and runs none.
    #[arg(long)]
    list: bool,
}

#[derive(Args)]
struct SelfCheckArgs {
    /// The folder that `tests/peers/setup.sh` filled.
    #[arg(long)]
    peers: PathBuf,
    /// Runs only pairs whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Native(args) => copies::take().and_then(|()| scenarios::run(args, lab::Place::Native)),
        Command::Vm(args) => scenarios::run(args, lab::Place::Vm),
        Command::SelfCheck(args) => self_check::run(&args.peers, &args.only),
        Command::Capture(args) => copies::take().and_then(|()| golden::make(&args)),
        Command::Bench(args) => copies::take().and_then(|()| bench::run(&args)),
        Command::Matrix { file } => matrix::print(&file).map(|()| ExitCode::SUCCESS),
        Command::TinyServer(args) => tiny::serve(&args).map(|()| ExitCode::SUCCESS),
        Command::Certificate { beside } => certificate::Certificate::create(&beside).map(|_| ExitCode::SUCCESS),
        Command::TlsServer(args) => tls_server::serve(&args).map(|()| ExitCode::SUCCESS),
        Command::TinyClient(args) => tiny::call(&args).map(|()| ExitCode::SUCCESS),
        Command::Noise(args) => noise::make(&args).map(|()| ExitCode::SUCCESS),
        Command::Echo(args) => bench::echo(&args).map(|()| ExitCode::SUCCESS),
        Command::FloodClient(args) => bench::flood_client(&args).map(|()| ExitCode::SUCCESS),
        Command::FloodServer(args) => bench::flood_server(&args).map(|()| ExitCode::SUCCESS),
        Command::Hold(args) => bench::hold(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("e2e: {error:#}");
        ExitCode::FAILURE
    })
}

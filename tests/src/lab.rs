//! Where the tests run and with what: the daemon, the peers, the backend, the scope, and a folder for what they leave.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::RunArgs;
use crate::matrix::{self, Row};

/// What the observer is scoped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeKind {
    Cgroup,
    Node,
}

/// How many of the pairs to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pairs {
    /// A pair of some SDKs on what they have: `Pair::quick`.
    Quick,
    /// Every client and every server once on every transport it has.
    Each,
    All,
}

/// Whose defaults to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Native,
    Vm,
}

/// Everything a test needs to know of its surroundings.
pub(crate) struct Lab {
    pub(crate) observer: PathBuf,
    pub(crate) peers: PathBuf,
    pub(crate) backend: String,
    pub(crate) scope: ScopeKind,
    pub(crate) pairs: Pairs,
    pub(crate) jobs: usize,
    patience: u32,
    matrix: Option<PathBuf>,
    kernel: String,
    folder: PathBuf,
    keep: bool,
}

impl Lab {
    /// Settles what the command line leaves open.
    pub(crate) fn new(args: RunArgs, place: Place) -> Result<Self> {
        let native = place == Place::Native;
        let keep = args.keep.is_some();
        let folder = args.keep.unwrap_or_else(temporary);
        fs::create_dir_all(&folder)?;
        Ok(Self {
            observer: fs::canonicalize(&args.observer).with_context(|| format!("{}", args.observer.display()))?,
            peers: args.peers,
            backend: args
                .backend
                .unwrap_or_else(|| if native { "syscall" } else { "function" }.to_owned()),
            scope: args.scope,
            pairs: args.pairs.unwrap_or(if native { Pairs::All } else { Pairs::Quick }),
            jobs: args.jobs.unwrap_or(if native { 2 } else { 1 }),
            patience: args.patience.unwrap_or(if native { 1 } else { 8 }),
            matrix: args.matrix,
            kernel: running_kernel()?,
            folder,
            keep,
        })
    }

    /// What a benchmark needs.
    pub(crate) fn for_bench(observer: &Path, peers: &Path, backend: &str, scope: ScopeKind) -> Result<Self> {
        let folder = temporary();
        fs::create_dir_all(&folder)?;
        Ok(Self {
            observer: fs::canonicalize(observer).with_context(|| format!("{}", observer.display()))?,
            peers: peers.to_owned(),
            backend: backend.to_owned(),
            scope,
            pairs: Pairs::Quick,
            jobs: 1,
            patience: 1,
            matrix: None,
            kernel: running_kernel()?,
            folder,
            keep: false,
        })
    }

    /// The running kernel's release.
    pub(crate) fn kernel(&self) -> &str {
        &self.kernel
    }

    /// A time-out, stretched to this machine's speed.
    pub(crate) fn limit(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds * u64::from(self.patience))
    }

    /// A number of calls that takes about as long as the observer takes to start, on any machine.
    pub(crate) fn stretch(&self, calls: usize) -> usize {
        calls * self.patience as usize
    }

    /// A path for a file of a test's own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        self.folder
            .join(format!("{:04}-{name}", NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    /// Adds a test's row to the matrix.
    pub(crate) fn note(&self, test: &str, transport: &str, counts: Counts, passed: bool) -> Result<()> {
        let Some(file) = &self.matrix else { return Ok(()) };
        let row = Row {
            test: test.to_owned(),
            transport: transport.to_owned(),
            backend: self.backend.clone(),
            kernel: self.kernel.clone(),
            made: counts.made,
            seen: counts.seen,
            passed,
        };
        matrix::append(file, &row)
    }

    /// Removes what the tests left, unless it was asked for or a test failed.
    pub(crate) fn clear(&self, passed: bool) {
        if passed && !self.keep {
            let _ = fs::remove_dir_all(&self.folder);
        } else {
            eprintln!("e2e: logs, truths and records are in {}", self.folder.display());
        }
    }
}

fn temporary() -> PathBuf {
    env::temp_dir().join(format!("mcp-observer-e2e-{}", std::process::id()))
}

fn running_kernel() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

/// Calls that the peers made, and those of them that the observer saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) made: usize,
    pub(crate) seen: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.made += other.made;
        self.seen += other.seen;
    }
}

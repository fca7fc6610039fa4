//! `cargo xtask bench`: the driver measures the whole daemon, criterion the pipeline alone.
//!
//! What the function backend costs others is measured in a guest whose clock counts instructions: this machine's kernel may not
//! allow it, and the time of an emulated machine means nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::vm::{Clock, Guest, Job};
use crate::{build, node, peers, shell};

/// Kernel of the guest.
const KERNEL: &str = "6.12";

/// Its processors: with more, the clock of each would go on while another works.
const CPUS: u32 = 1;

/// Its memory in MiB.
const MEMORY: u32 = 3072;

/// Bound on the guest's measurements: an emulated instruction takes ten times as long as a real one.
const GUEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The pipeline alone, on golden captures.
    Core,
    /// SDK clients calling SDK servers.
    Sdk,
    /// The same with the function backend, in instructions of an emulated machine.
    SdkGuest,
    /// Traffic that is not MCP.
    Bystander,
    /// The same with the function backend, in instructions of an emulated machine.
    BystanderGuest,
    /// 50,000 calls a second.
    Flood,
    /// 10,000 open streams.
    Memory,
    /// SDK clients and servers on HTTPS, calls of OpenSSL, and 500 processes that have it.
    Tls,
    /// SDK clients and servers on HTTPS with the function backend, in instructions of an emulated machine.
    TlsGuest,
}

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What to measure; everything by default.
    #[arg(value_enum)]
    what: Vec<What>,
    /// Writes the figures here too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Further arguments of `e2e bench`, such as `--rounds 10`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl What {
    /// The driver's own name for it, where it is the driver that measures on this machine.
    fn of_driver(self) -> Option<&'static str> {
        match self {
            Self::Sdk => Some("sdk"),
            Self::Bystander => Some("bystander"),
            Self::Flood => Some("flood"),
            Self::Memory => Some("memory"),
            Self::Tls => Some("https tls"),
            Self::Core | Self::SdkGuest | Self::BystanderGuest | Self::TlsGuest => None,
        }
    }

    /// The same for what the driver measures in a guest, with further arguments.
    fn of_driver_in_guest(self) -> Option<&'static str> {
        match self {
            Self::SdkGuest => Some("sdk --rounds 3 --fewer 20 --scope node"),
            Self::BystanderGuest => Some("bystander --scope node"),
            Self::TlsGuest => Some("https --rounds 3 --fewer 5 --scope node"),
            Self::Core | Self::Sdk | Self::Bystander | Self::Flood | Self::Memory | Self::Tls => None,
        }
    }
}

/// Runs the benches.
pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted = |what| options.what.is_empty() || options.what.contains(&what);
    if wanted(What::Core) {
        shell::stream(&mut shell::cargo(["bench", "--package", "observer"]))?;
    }
    let chosen = |name: fn(What) -> Option<&'static str>| -> Vec<_> {
        let all = What::value_variants().iter().copied();
        all.filter(|what| wanted(*what)).filter_map(name).collect()
    };
    let (driven, in_guest) = (chosen(What::of_driver), chosen(What::of_driver_in_guest));
    if driven.is_empty() && in_guest.is_empty() {
        return Ok(());
    }
    let bench = Bench::prepare(options)?;
    let mut reports = Vec::new();
    if !driven.is_empty() {
        reports.push(bench.on_this_machine(&driven)?);
    }
    for what in in_guest {
        reports.push(bench.in_guest(what)?);
    }
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&json!({"reports": reports}))?;
        fs::write(file, text + "\n").with_context(|| format!("could not write {}", file.display()))?;
    }
    Ok(())
}

/// What all of the driver's measurements share.
struct Bench<'a> {
    cache: Cache,
    observer: PathBuf,
    object: PathBuf,
    driver: PathBuf,
    peers: PathBuf,
    arguments: &'a [String],
}

impl<'a> Bench<'a> {
    fn prepare(options: &'a Options) -> Result<Self> {
        let cache = Cache::open()?;
        Ok(Self {
            observer: build::shipped(&cache)?,
            object: build::kernel_object(&cache)?,
            driver: build::driver()?,
            peers: peers::provide(&cache)?,
            arguments: &options.arguments,
            cache,
        })
    }

    fn on_this_machine(&self, what: &[&str]) -> Result<Value> {
        node::prepare()?;
        let report = build::target_folder().join("bench.json");
        let mut bench = Command::new(&self.driver);
        bench
            .arg("bench")
            .args(what.iter().flat_map(|what| what.split(' ')))
            .arg("--observer")
            .arg(&self.observer)
            .arg("--peers")
            .arg(&self.peers)
            .arg("--object")
            .arg(&self.object)
            .arg("--json")
            .arg(&report)
            .args(self.arguments);
        shell::stream(&mut shell::as_root(node::WHY, bench))?;
        read(&report)
    }

    fn in_guest(&self, what: &str) -> Result<Value> {
        let guest = Guest {
            clock: Clock::Instructions,
            cpus: CPUS,
            memory: MEMORY,
            peers: Some(self.peers.clone()),
            ..Guest::new(KERNEL)
        };
        let file = |path: &Path, name: &str| (path.to_owned(), format!("/job/{name}"));
        let job = Job {
            name: "bench".to_owned(),
            files: vec![
                file(&self.driver, "e2e"),
                file(&self.observer, "mcp-observer"),
                file(&self.object, "mcp-observer.bpf.o"),
            ],
            command: format!(
                "./e2e bench {what} --backend function --observer ./mcp-observer --object ./mcp-observer.bpf.o \
                 --peers '{}' --json /results/bench.json {}",
                self.peers.display(),
                self.arguments.join(" ")
            ),
            timeout: GUEST_TIMEOUT,
        };
        let result = guest.run(&self.cache, &job)?;
        if result.code != 0 {
            bail!(
                "the benchmark in a guest failed: its log is in {}",
                result.folder.display()
            );
        }
        read(&result.results.join("bench.json"))
    }
}

fn read(report: &Path) -> Result<Value> {
    let text = fs::read(report).with_context(|| format!("the driver left no {}", report.display()))?;
    serde_json::from_slice(&text).context("the driver's report cannot be read")
}

//! `cargo xtask setup`: everything the other commands need, at once; each of them also fetches its own part by itself.

use anyhow::Result;
use clap::ValueEnum;

use crate::cache::Cache;
use crate::{peers, toolchain, vm};

/// Parts of set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What the kernel programs are built with.
    Build,
    /// The real MCP clients and servers.
    Peers,
    /// Kernels, root disks and the emulator, and the peers on the disks.
    Vm,
}

/// What to fetch.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Fetches these parts alone.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// Fetches what `options` ask for.
pub(crate) fn run(options: &Options) -> Result<()> {
    let cache = Cache::open()?;
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    if wanted(Part::Build) {
        toolchain::provide(&cache)?;
    }
    if wanted(Part::Peers) || wanted(Part::Vm) {
        let peers = peers::provide(&cache)?;
        if wanted(Part::Vm) {
            vm::provide(&cache, Some(&peers))?;
        }
    }
    Ok(())
}

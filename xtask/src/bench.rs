//! `cargo xtask bench`: the driver measures the whole daemon, criterion the pipeline alone.

use anyhow::Result;

use crate::cache::Cache;
use crate::{build, node, peers, shell};

/// What the driver's `bench` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Measures the pipeline alone.
    #[arg(long)]
    pipeline_only: bool,
    /// Arguments of `e2e bench`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the benches.
pub(crate) fn run(options: &Options) -> Result<()> {
    shell::stream(&mut shell::cargo(["bench", "--package", "observer"]))?;
    if options.pipeline_only {
        return Ok(());
    }
    let cache = Cache::open()?;
    let (observer, driver) = (build::daemon(&cache)?, build::driver()?);
    let peers = peers::provide(&cache)?;
    node::prepare()?;
    let mut bench = shell::command(driver, ["bench"]);
    bench
        .arg("--observer")
        .arg(observer)
        .arg("--peers")
        .arg(peers)
        .args(&options.arguments);
    shell::stream(&mut shell::as_root(node::WHY, bench))
}

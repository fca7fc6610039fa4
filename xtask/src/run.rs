//! `cargo xtask run`: builds the daemon and becomes it.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::{build, node};

/// What the daemon is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Arguments of `mcp-observer`; `run` when there are none.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Builds the daemon and replaces this process by it, so that signals and its exit code are its own.
pub(crate) fn run(options: &Options) -> Result<()> {
    let program = build::daemon(&Cache::open()?)?;
    node::prepare()?;
    let arguments = if options.arguments.is_empty() {
        vec!["run".to_owned()]
    } else {
        options.arguments.clone()
    };
    Err(node::daemon(&program, &arguments).exec()).context("could not start the daemon")
}

//! `cargo xtask run`: builds the daemon and becomes it.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::{build, node};

/// What the daemon is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Arguments of `mcp-observer`; those of its `run` where no command is named.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Builds the daemon and replaces this process by it, so that signals and its exit code are its own.
pub(crate) fn run(options: &Options) -> Result<()> {
    let program = build::daemon(&Cache::open()?)?;
    node::prepare()?;
    let mut arguments = options.arguments.clone();
    // Options alone are those of `run`.
    if arguments.first().is_none_or(|first| first.starts_with('-')) {
        arguments.insert(0, "run".to_owned());
    }
    Err(node::daemon(&program, &arguments).exec()).context("could not start the daemon")
}

//! Commands of the project: `cargo xtask COMMAND`.

mod build;
mod cache;
mod debian;
mod shell;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Builds, tests, measures and packs mcp-observer.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
enum Command {
    /// Fetches and builds what the other commands need.
    Setup,
    /// Builds the kernel object and the daemon.
    Build(build::Options),
}

fn main() -> ExitCode {
    match run(&Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Setup => toolchain::provide(&cache::Cache::open()?).map(drop),
        Command::Build(options) => build::run(options),
    }
}

//! Commands of the project: `cargo xtask COMMAND`.

mod build;
mod cache;
mod debian;
mod peers;
mod shell;
mod tidy;
mod toolchain;
mod vm;

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
    /// Runs one command in a virtual machine.
    Vm(vm::command::Options),
    /// Checks the rules that a compiler does not.
    Tidy,
}

fn main() -> ExitCode {
    match run(&Command::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked and returns the exit code.
fn run(command: &Command) -> Result<u8> {
    match command {
        Command::Setup => toolchain::provide(&cache::Cache::open()?).map(drop)?,
        Command::Build(options) => build::run(options)?,
        Command::Tidy => tidy::run()?,
        Command::Vm(options) => return Ok(u8::try_from(vm::command::run(options)?).unwrap_or(1)),
    }
    Ok(0)
}

//! Commands of the project: `cargo xtask COMMAND`.

mod bench;
mod build;
mod cache;
mod debian;
mod demo;
mod dist;
mod fuzz;
mod image;
mod libraries;
mod node;
mod peers;
mod run;
mod setup;
mod shell;
mod test;
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
    Setup(setup::Options),
    /// Builds the kernel object and the daemon.
    Build(build::Options),
    /// Builds the daemon and runs it.
    Run(run::Options),
    /// Shows the daemon at work on a real client and a real server.
    Demo,
    /// Runs the tests and tells what came of them.
    Test(test::Options),
    /// Checks the rules that a compiler does not.
    Tidy,
    /// Measures the daemon and its pipeline.
    Bench(bench::Options),
    /// Looks for inputs that break the protocol core.
    Fuzz(fuzz::Options),
    /// Runs one command in a virtual machine.
    Vm(vm::command::Options),
    /// Builds the container image.
    Image,
    /// Packs a release.
    Dist,
}

fn main() -> ExitCode {
    run(&Command::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: &Command) -> Result<ExitCode> {
    let done = match command {
        Command::Setup(options) => setup::run(options),
        Command::Build(options) => build::run(options),
        Command::Run(options) => run::run(options),
        Command::Demo => demo::run(),
        Command::Test(options) => return test::run(options),
        Command::Tidy => tidy::run(),
        Command::Bench(options) => bench::run(options),
        Command::Fuzz(options) => fuzz::run(options),
        Command::Vm(options) => return vm::command::run(options),
        Command::Image => image::run(),
        Command::Dist => dist::run(),
    };
    done.map(|()| ExitCode::SUCCESS)
}

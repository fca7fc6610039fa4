//! `cargo xtask test`: every test of the project, and a table of what came of them.
//!
//! A step that fails does not end the run: all of it is told at the end.

mod guards;
mod image;
mod summary;
mod system;

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use crate::cache::Cache;
use crate::shell;
use summary::{Summary, Tally};

/// Parts of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Formatting, lints, layers, the core by itself.
    Guards,
    /// Unit tests and golden captures: no root, no kernel.
    Unit,
    /// Real clients and servers, observed on this machine's kernel.
    Native,
    /// The same in virtual machines on every kernel.
    Vm,
    /// The container image, run in a virtual machine.
    Image,
}

/// What to test.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Runs these parts alone.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Boots these kernels alone.
    #[arg(long = "kernel", value_delimiter = ',', value_parser = crate::vm::VERSIONS)]
    kernels: Vec<String>,
    /// Runs only the end-to-end tests whose name contains this.
    #[arg(long, default_value = "")]
    filter: String,
}

/// Runs the tests and tells what came of them.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let mut summary = Summary::default();
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    if wanted(Part::Guards) {
        guards::run(&mut summary);
    }
    if wanted(Part::Unit) {
        summary.step("unit", "cargo test", || {
            let tests = ["test", "--workspace", "--exclude", "observer-ebpf", "--no-fail-fast"];
            let (status, output) = shell::tee(&mut shell::cargo(tests))?;
            Ok(Tally::of(status, &output))
        });
    }
    if wanted(Part::Native) || wanted(Part::Vm) {
        let kernels = if options.kernels.is_empty() {
            crate::vm::VERSIONS.map(str::to_owned).to_vec()
        } else {
            options.kernels.clone()
        };
        let kernels = if wanted(Part::Vm) { kernels } else { Vec::new() };
        system::run(&cache, &mut summary, wanted(Part::Native), &kernels, &options.filter);
    }
    if wanted(Part::Image) {
        summary.step("image", "runc in a guest", || image::run(&cache));
    }
    if wanted(Part::Native) || wanted(Part::Vm) {
        system::print_matrix()?;
    }
    summary.print();
    Ok(if summary.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

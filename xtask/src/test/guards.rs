//! The cheap guards: what a reviewer should never have to say.

use anyhow::Result;

use super::summary::{Summary, Tally};
use crate::{shell, tidy};

/// Cargo commands that must pass without a warning.
const CARGO: [(&str, &[&str]); 3] = [
    ("fmt", &["fmt", "--all", "--check"]),
    (
        "core alone",
        &["check", "--package", "observer", "--lib", "--no-default-features"],
    ),
    (
        "clippy",
        &[
            "clippy",
            "--workspace",
            "--exclude",
            "observer-ebpf",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ],
    ),
];

/// Runs all guards.
pub(super) fn run(summary: &mut Summary) {
    summary.step("guards", "tidy", || passed(tidy::run()));
    for (name, arguments) in CARGO {
        summary.step("guards", name, || passed(shell::stream(&mut shell::cargo(arguments))));
    }
}

fn passed(result: Result<()>) -> Result<Tally> {
    result.map(|()| Tally::default())
}

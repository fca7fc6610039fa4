//! End-to-end: the driver `e2e` runs real peers and holds what the daemon says against what the peers say they did.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::summary::{Summary, Tally};
use crate::cache::Cache;
use crate::vm::{Guest, Job};
use crate::{build, node, peers, shell};

/// Bound on one kernel's tests, boot included.
const GUEST_TIMEOUT: Duration = Duration::from_secs(40 * 60);

/// Memory of a guest, in MiB: several Pythons and Nodes at once.
const GUEST_MEMORY: u32 = 3072;

/// How the daemon looks at a kernel; each is tested on each.
const BACKENDS: [&str; 2] = ["function", "syscall"];

/// What the end-to-end tests share.
struct Parts {
    observer: PathBuf,
    driver: PathBuf,
    peers: PathBuf,
    matrix: PathBuf,
    filter: String,
}

/// Runs the tests natively and on `kernels`, and prints the matrix of calls seen.
pub(super) fn run(cache: &Cache, summary: &mut Summary, native: bool, kernels: &[String], filter: &str) -> Result<()> {
    let parts = match parts(cache, filter) {
        Ok(parts) => parts,
        Err(error) => {
            summary.step("system", "daemon, driver and peers", || Err(error));
            return Ok(());
        }
    };
    if native {
        summary.step("native", "syscall", || run_native(&parts));
    }
    for kernel in kernels {
        for backend in BACKENDS {
            summary.step("vm", &format!("{kernel} {backend}"), || {
                run_in_guest(cache, &parts, kernel, backend)
            });
        }
    }
    if parts.matrix.exists() {
        println!("\nCalls seen / calls made:");
        shell::stream(shell::command(&parts.driver, ["matrix"]).arg(&parts.matrix))?;
    }
    Ok(())
}

fn parts(cache: &Cache, filter: &str) -> Result<Parts> {
    let matrix = build::target_folder().join("matrix.jsonl");
    if matrix.exists() {
        fs::remove_file(&matrix)?;
    }
    Ok(Parts {
        observer: build::daemon(cache)?,
        driver: build::driver()?,
        peers: peers::provide(cache)?,
        matrix,
        filter: filter.to_owned(),
    })
}

fn run_native(parts: &Parts) -> Result<Tally> {
    node::prepare()?;
    let mut command = shell::command(&parts.driver, ["native", "--only", &parts.filter]);
    command
        .arg("--observer")
        .arg(&parts.observer)
        .arg("--peers")
        .arg(&parts.peers)
        .arg("--matrix")
        .arg(&parts.matrix);
    let (status, output) = shell::tee(&mut shell::as_root(node::WHY, command))?;
    Tally::of(status, &output).not_empty()
}

fn run_in_guest(cache: &Cache, parts: &Parts, kernel: &str, backend: &str) -> Result<Tally> {
    let guest = Guest {
        memory: GUEST_MEMORY,
        peers: Some(parts.peers.clone()),
        ..Guest::new(kernel)
    };
    let job = Job {
        name: format!("test-{kernel}-{backend}"),
        files: vec![
            (parts.driver.clone(), "/job/e2e".to_owned()),
            (parts.observer.clone(), "/job/mcp-observer".to_owned()),
        ],
        command: format!(
            "./e2e vm --observer ./mcp-observer --peers '{}' --matrix /results/matrix.jsonl --keep /results/kept \
             --backend {backend} --only '{}'",
            parts.peers.display(),
            parts.filter,
        ),
        timeout: GUEST_TIMEOUT,
    };
    let result = guest.run(cache, &job)?;
    append(&result.results.join("matrix.jsonl"), &parts.matrix)?;
    let output = fs::read_to_string(result.folder.join("output.log"))?;
    Tally::of_code(result.code, &output).not_empty()
}

/// Adds a guest's rows to the matrix of all kernels.
fn append(rows: &Path, matrix: &Path) -> Result<()> {
    use std::io::Write;
    let Ok(rows) = fs::read(rows) else { return Ok(()) };
    let mut file = fs::OpenOptions::new().create(true).append(true).open(matrix)?;
    file.write_all(&rows).context("could not add to the matrix")
}

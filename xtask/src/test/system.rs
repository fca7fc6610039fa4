//! End-to-end: the driver `e2e` runs real peers and holds what the daemon says against what the peers say they did.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::summary::{Summary, Tally};
use crate::cache::Cache;
use crate::vm::{Guest, Job};
use crate::{build, node, peers, shell};

/// Bound on one guest's tests, boot included.
const GUEST_TIMEOUT: Duration = Duration::from_secs(40 * 60);

/// Memory of a guest, in MiB: several Pythons and Nodes at once.
const GUEST_MEMORY: u32 = 3072;

/// Processors of a guest, each with a test to run.
const GUEST_CPUS: u32 = 2;

/// The kernel on which every peer and every hard case meets the function backend.
const WHOLE: &str = "6.12";

/// What is left out of guests unless a filter names it; every one of these is run natively. The first take minutes each under
/// emulation, since they start SDKs by the dozen or move megabytes; the others are about bytes that no kernel moves otherwise.
const HEAVY: &str = "load::50,load::results,load::a call,lives::a client,lives::a server,lives::the observer,lives::a thousand,tls::,http2::,\
    a language server,client protocol,Ethereum,agent to agent,HTTP that is not,half a message,odd ids,empty objects,invalid UTF-8,\
    levels of nesting,a chunk of,an answer shorter,header fields";

/// Modules of the guests' kernels that tests need: network namespaces are joined by a pair of these devices.
const MODULES: [&str; 1] = ["veth"];

/// The kernel's own TLS, and the kernel that has it not.
const KERNEL_TLS: (&str, &str) = ("tls", "5.10");

/// The kernel on which the syscall backend is tried too: the oldest, which has no typed tracepoints for it. Natively it is tried on
/// the kernel of this machine.
const SYSCALL: &str = "5.10";

/// The kernels on which the daemon watches the whole node, as it does where it is installed.
const NODE: [&str; 2] = ["5.10", "6.18"];

/// Tests of the other guests: one Python and one Node pair, on stdio, on HTTP, and through TLS.
const PAIRS: &str = "pairs::";

/// What the end-to-end tests share.
struct Parts {
    observer: PathBuf,
    driver: PathBuf,
    peers: PathBuf,
    matrix: PathBuf,
    filter: String,
}

/// One guest's share of the tests.
///
/// An SDK starts slowly on an emulated machine, so every pair meets the native kernel and every guest some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Share {
    kernel: String,
    backend: &'static str,
    /// Name, for the driver, of a choice of pairs.
    pairs: &'static str,
    /// Parts of the names of the tests to run, and of those to leave out.
    tests: String,
    skip: &'static str,
    /// What the observer is scoped to, for the driver.
    scope: &'static str,
}

/// Shares of the tests for guests on `kernels`.
fn shares(kernels: &[String], filter: &str) -> Vec<Share> {
    let share = |kernel: &str, backend, pairs, tests: &str| Share {
        kernel: kernel.to_owned(),
        backend,
        pairs,
        tests: if filter.is_empty() { tests } else { filter }.to_owned(),
        skip: if filter.is_empty() { HEAVY } else { "" },
        scope: if filter.is_empty() && tests == PAIRS && NODE.contains(&kernel) {
            "node"
        } else {
            "cgroup"
        },
    };
    let shares_of = |kernel: &String| {
        let mut shares = if kernel == WHOLE {
            vec![share(kernel, "function", "each", "")]
        } else {
            vec![share(kernel, "function", "quick", PAIRS)]
        };
        if kernel == SYSCALL {
            shares.push(share(kernel, "syscall", "quick", PAIRS));
        }
        shares
    };
    kernels.iter().flat_map(shares_of).collect()
}

/// Runs the tests natively and on `kernels`; `print_matrix` tells of the calls seen.
pub(super) fn run(cache: &Cache, summary: &mut Summary, native: bool, kernels: &[String], filter: &str) {
    let parts = match parts(cache, filter) {
        Ok(parts) => parts,
        Err(error) => {
            summary.step("system", "daemon, driver and peers", || Err(error));
            return;
        }
    };
    if native {
        summary.step("native", "syscall", || run_native(&parts));
    }
    for share in shares(kernels, filter) {
        summary.step("vm", &format!("{} {}", share.kernel, share.backend), || {
            run_in_guest(cache, &parts, &share)
        });
    }
}

/// Prints the calls seen and made: peers and transports by kernels and backends.
pub(super) fn print_matrix() -> Result<()> {
    let matrix = matrix();
    if !matrix.exists() {
        return Ok(());
    }
    println!("\nCalls seen / calls made:");
    shell::stream(shell::command(build::target_folder().join("release/e2e"), ["matrix"]).arg(matrix))
}

fn matrix() -> PathBuf {
    build::target_folder().join("matrix.jsonl")
}

fn parts(cache: &Cache, filter: &str) -> Result<Parts> {
    let matrix = matrix();
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

fn run_in_guest(cache: &Cache, parts: &Parts, share: &Share) -> Result<Tally> {
    let Share {
        kernel,
        backend,
        pairs,
        tests,
        skip,
        scope,
    } = share;
    let (tls, without) = KERNEL_TLS;
    let modules = MODULES.into_iter().chain((kernel != without).then_some(tls));
    let guest = Guest {
        cpus: GUEST_CPUS,
        memory: GUEST_MEMORY,
        peers: Some(parts.peers.clone()),
        modules: modules.map(str::to_owned).collect(),
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
             --backend {backend} --jobs {GUEST_CPUS} --scope {scope} --pairs {pairs} --only '{tests}' --skip '{skip}'",
            parts.peers.display(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shares_of(kernels: &[&str], filter: &str) -> Vec<Share> {
        let kernels: Vec<_> = kernels.iter().map(|&kernel| kernel.to_owned()).collect();
        shares(&kernels, filter)
    }

    #[test]
    fn every_kernel_meets_both_pairs_and_one_all_peers() {
        let shares = shares_of(&crate::vm::VERSIONS, "");
        for kernel in crate::vm::VERSIONS {
            let on_it = |share: &&Share| share.kernel == kernel && share.backend == "function";
            assert_eq!(shares.iter().filter(on_it).count(), 1, "{kernel}");
        }
        assert!(
            shares
                .iter()
                .any(|share| share.pairs == "each" && share.tests.is_empty())
        );
        assert!(shares.iter().any(|share| share.backend == "syscall"));
    }

    #[test]
    fn a_filter_takes_the_place_of_the_choice() {
        assert_eq!(shares_of(&["6.1"], "overflow")[0].tests, "overflow");
    }
}

//! The daemon under test: start, wait until it says it is ready, ask it things, stop.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cgroup::Cgroup;
use crate::clock::{monotonic_ns, wait_until};
use crate::lab::{Lab, ScopeKind};
use crate::record::{self, Record};

/// Seconds that the daemon may take after SIGTERM, as the contract says.
const STOP_LIMIT: u64 = 2;

/// A running daemon; killed when dropped without `stop`.
pub(crate) struct Observer {
    child: Child,
    address: String,
    calls: PathBuf,
    out: PathBuf,
    log: PathBuf,
    /// How long after SIGTERM it may take on this machine.
    stop_limit: Duration,
    /// When it said that it is ready, in monotonic nanoseconds.
    pub(crate) ready_ns: u64,
}

impl Observer {
    /// Starts the daemon over a control group (or the node, as the lab says) and waits until it is ready.
    pub(crate) fn start(lab: &Lab, cgroup: &Cgroup, extra: &[&str]) -> Result<Self> {
        let calls = lab.file("calls.jsonl");
        let words = ["--calls", "json", "--calls-file", &calls.to_string_lossy()];
        Self::start_writing(lab, cgroup, &calls, &[&words, extra].concat())
    }

    /// The same, with no file of calls unless `extra` names one: it prints where `--calls` says, which nobody reads.
    pub(crate) fn start_writing(lab: &Lab, cgroup: &Cgroup, calls: &Path, extra: &[&str]) -> Result<Self> {
        let (out, log) = (lab.file("observer.out"), lab.file("observer.log"));
        let mut command = Command::new(&lab.observer);
        command.args(["run", "--listen", "127.0.0.1:0"]);
        command.args(["--backend", &lab.backend]);
        if lab.scope == ScopeKind::Cgroup {
            command.arg("--cgroup").arg(cgroup.path());
        }
        command
            .args(extra)
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&log)?);
        let child = command
            .spawn()
            .with_context(|| format!("{} does not start", lab.observer.display()))?;
        let mut observer = Self {
            child,
            address: String::new(),
            calls: calls.to_owned(),
            out,
            log,
            stop_limit: lab.limit(STOP_LIMIT),
            ready_ns: 0,
        };
        let ready = wait_until(lab.limit(30), || observer.look());
        match ready {
            Some(Ok(())) => Ok(observer),
            Some(Err(error)) => Err(error.context(observer.last_words())),
            None => bail!("the observer was not ready in time; {}", observer.last_words()),
        }
    }

    /// One look whether it is ready: `None` not yet, an error when it has ended.
    fn look(&mut self) -> Option<Result<()>> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(Err(anyhow::anyhow!("the observer ended by itself: {status}")));
        }
        if self.address.is_empty() {
            let log = fs::read_to_string(&self.log).ok()?;
            let after = log.split_once("listening on ")?.1;
            let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || ".:[]".contains(c)))?;
            after[..end].clone_into(&mut self.address);
        }
        let (status, _) = self.get("/health/ready").ok()?;
        (status == 200).then(|| {
            self.ready_ns = monotonic_ns();
            Ok(())
        })
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "its log ends:\n    {}",
            lines[lines.len().saturating_sub(8)..].join("\n    ")
        )
    }

    /// Asks its endpoint; returns status and body.
    pub(crate) fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: observer\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").context("an answer without a head")?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .context("an answer without a status")?;
        Ok((status, body.to_owned()))
    }

    /// The sum of a metric over all series whose labels contain `labels`; 0 where there is none.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let (status, body) = self.get("/metrics")?;
        ensure!(status == 200, "/metrics answers {status}");
        Ok(sum(&body, name, labels))
    }

    /// The lines of a metric's series that are not 0.
    pub(crate) fn series(&self, name: &str) -> Result<Vec<String>> {
        let (_, body) = self.get("/metrics")?;
        let told = body
            .lines()
            .filter(|line| line.starts_with(name) && !line.ends_with(" 0"));
        Ok(told.map(str::to_owned).collect())
    }

    /// What it says it did not see, to be told with a failure.
    pub(crate) fn unseen(&self) -> String {
        let told = ["mcp_observer_lost_total", "mcp_observer_skipped_runs_total"].map(|name| self.series(name));
        match told.into_iter().collect::<Result<Vec<_>>>() {
            Ok(lines) => format!(
                "the observer counts as lost or skipped: [{}]",
                lines.concat().join("; ")
            ),
            Err(error) => format!("the observer's metrics cannot be had: {error:#}"),
        }
    }

    /// Returns of calls on which it says that the kernel ran no program; waits until they are `enough`.
    pub(crate) fn missed_returns(&self, enough: usize, limit: Duration) -> Result<usize> {
        let count = || self.number("mcp_observer_skipped_runs_total", "program=\"*_return\"");
        let _ = wait_until(limit, || (count().ok()? >= enough as u64).then_some(()));
        Ok(usize::try_from(count()?)?)
    }

    /// Bytes that it counts as lost, whatever the reason.
    pub(crate) fn lost_bytes(&self) -> Result<u64> {
        self.number("mcp_observer_lost_bytes_total", "")
    }

    /// Bytes that it keeps because more must come.
    pub(crate) fn held_bytes(&self) -> Result<u64> {
        self.number("mcp_observer_held_bytes", "")
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of one test"
    )]
    fn number(&self, metric: &str, labels: &str) -> Result<u64> {
        Ok(self.metric(metric, labels)? as u64)
    }

    /// Its calls, readable without it.
    pub(crate) fn reader(&self) -> Reader {
        Reader(self.calls.clone())
    }

    /// Its probes, by the ids of their links in the kernel.
    pub(crate) fn probes(&self) -> Result<HashSet<u32>> {
        let mut ids = HashSet::new();
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.child.id()))? {
            let info = fs::read_to_string(entry?.path()).unwrap_or_default();
            let values = info.lines().filter_map(|line| line.strip_prefix("link_id:"));
            ids.extend(values.filter_map(|value| value.trim().parse::<u32>().ok()));
        }
        Ok(ids)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kib * 1024)
    }

    /// Stops it as a service manager would, and returns all it reported; it must exit 0 within the contract's time.
    pub(crate) fn stop(mut self) -> Result<Vec<Record>> {
        let begin = Instant::now();
        self.signal(libc::SIGTERM);
        let status = wait_until(self.stop_limit * 5, || self.child.try_wait().ok().flatten());
        let took = begin.elapsed();
        let status = status.with_context(|| format!("it does not stop; {}", self.last_words()))?;
        ensure!(status.success(), "it stopped with {status}; {}", self.last_words());
        ensure!(took <= self.stop_limit, "it took {took:?} to stop");
        ensure_only_calls(&self.out)?;
        let calls = fs::read_to_string(&self.calls).unwrap_or_default();
        let (hole, misfit) = (record::hole(&calls), record::misfit(&calls));
        ensure!(hole.is_none(), "a line is lost: {hole:?}");
        ensure!(misfit.is_none(), "a line is not as its schema says: {misfit:?}");
        record::read(&self.calls)
    }

    /// Kills it without warning.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.signal(libc::SIGKILL);
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("process ids fit");
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(pid, signal) };
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The file that a daemon writes its calls to.
pub(crate) struct Reader(PathBuf);

impl Reader {
    /// Waits until each of these clients has as many calls, then a moment longer for calls too many; returns all calls.
    pub(crate) fn wait_for(&self, expected: &[(u32, usize)], limit: Duration) -> Result<Vec<Record>> {
        let complete = || {
            let mut counts: HashMap<Option<u32>, usize> = HashMap::new();
            for record in record::read(&self.0).ok()? {
                *counts.entry(record.caller.pid).or_default() += 1;
            }
            let all = expected
                .iter()
                .all(|(pid, calls)| counts.get(&Some(*pid)).copied().unwrap_or(0) >= *calls);
            all.then_some(())
        };
        let _ = wait_until(limit, complete);
        sleep(Duration::from_millis(100));
        record::read(&self.0)
    }
}

/// Every probe that is in place now, by the id of its link. The programs behind links go later, when the kernel's readers are through.
pub(crate) fn probes_of_the_kernel() -> HashSet<u32> {
    const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;
    let (mut ids, mut attributes) = (HashSet::new(), [0u32; 3]);
    // SAFETY: the attributes of this command are three 32-bit numbers: where to start, the next id, flags.
    while unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_GET_NEXT_ID,
            attributes.as_mut_ptr(),
            size_of_val(&attributes),
        )
    } == 0
    {
        ids.insert(attributes[1]);
        attributes[0] = attributes[1];
    }
    ids
}

/// Standard output carries calls and nothing else.
fn ensure_only_calls(out: &Path) -> Result<()> {
    let text = fs::read_to_string(out)?;
    let stray = text
        .lines()
        .find(|line| serde_json::from_str::<serde_json::Value>(line).is_err());
    ensure!(
        stray.is_none(),
        "standard output has a line that is no record: {stray:?}"
    );
    Ok(())
}

fn sum(body: &str, name: &str, labels: &str) -> f64 {
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let series = lines.filter_map(|line| {
        let (key, value) = line.rsplit_once(' ')?;
        let family = key.split('{').next()?;
        (family == name && key.contains(labels)).then(|| value.parse::<f64>().ok())?
    });
    series.fold(0.0, |total, value| total + value)
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn metrics_are_summed_by_name_and_labels() {
        let body = "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"2\",y=\"2\"} 4\nab{x=\"1\"} 9\na 1\n";
        assert!((sum(body, "a", "") - 8.0).abs() < 1e-9);
        assert!((sum(body, "a", "x=\"1\"") - 3.0).abs() < 1e-9);
        assert!(sum(body, "none", "").abs() < 1e-9);
    }
}

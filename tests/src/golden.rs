//! Golden captures made anew: real peers, each pair in a control group of its own, under `mcp-observer record`.
//!
//! One capture for each revision of MCP on each transport that no older capture has. A capture is written only if the client did
//! what it was asked for; what the observer makes of it is for its replay to tell.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::cgroup::Cgroup;
use crate::clock::wait_until;
use crate::peer::{Client, Pair, Peers, Server, Task, Transport};
use crate::truth::Truth;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);

/// What to record.
#[derive(Args)]
pub(crate) struct CaptureArgs {
    /// The program that records.
    #[arg(long)]
    observer: PathBuf,
    /// The folder that `tests/peers/setup.sh` filled.
    #[arg(long)]
    peers: PathBuf,
    /// Where to put the captures; one that is there is kept.
    #[arg(long)]
    into: PathBuf,
    /// Makes only captures whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// One capture: what is offered, by whom, to whom.
struct Golden {
    protocol: &'static str,
    pair: Pair,
}

impl Golden {
    /// Its file: `2025-03-26-http-rmcp-to-py-1.30.rec`.
    fn file(&self) -> String {
        let client = self.pair.client.name().trim_end_matches("-legacy");
        let (transport, server) = (self.pair.transport.name(), self.pair.server.name());
        format!("{}-{transport}-{client}-to-{server}.rec", self.protocol)
    }
}

/// The clients of Node 2.4 and of rmcp are those that can be told a revision to offer; every server takes part.
fn plan() -> Vec<Golden> {
    use Client::{NodeV2Legacy as Node, Py23, RmcpLegacy as Rmcp};
    use Server::{Everything, NodeSdk, NodeV2, Py23 as PyServer, Py130, Rmcp as RmcpServer};
    use Transport::{Http, Http2, Https2, Sse, Stdio};
    [
        ("2024-11-05", Stdio, Node, Py130),
        ("2024-11-05", Sse, Node, NodeSdk),
        ("2024-11-05", Http, Rmcp, Py130),
        ("2025-03-26", Stdio, Rmcp, NodeSdk),
        ("2025-03-26", Sse, Node, Everything),
        ("2025-03-26", Http, Node, NodeSdk),
        ("2025-06-18", Stdio, Node, RmcpServer),
        ("2025-06-18", Sse, Node, Py130),
        ("2025-06-18", Http, Rmcp, NodeV2),
        ("2026-07-28", Sse, Py23, PyServer),
        ("2025-11-25", Http2, Rmcp, PyServer),
        ("2026-07-28", Http2, Py23, RmcpServer),
        ("2026-07-28", Https2, Py23, RmcpServer),
    ]
    .map(|(protocol, transport, client, server)| Golden {
        protocol,
        pair: Pair::new(client, server, transport),
    })
    .into()
}

/// Makes the captures that are missing.
pub(crate) fn make(args: &CaptureArgs) -> Result<ExitCode> {
    let folder = env::temp_dir().join(format!("mcp-observer-captures-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    for golden in plan() {
        let (name, place) = (golden.file(), args.into.join(golden.file()));
        if !name.contains(&args.only) || place.exists() {
            continue;
        }
        let calls = capture(args, &golden, &folder, &place).with_context(|| name.clone())?;
        println!("{name}: {calls} calls, {} bytes", place.metadata()?.len());
    }
    fs::remove_dir_all(&folder)?;
    Ok(ExitCode::SUCCESS)
}

fn capture(args: &CaptureArgs, golden: &Golden, folder: &Path, place: &Path) -> Result<usize> {
    let cgroup = Cgroup::create()?;
    let recorder = Recorder::start(&args.observer, &cgroup, folder, place)?;
    let peers = Peers::new(&args.peers, Some(&cgroup));
    let server = match golden.pair.transport {
        Transport::Stdio => None,
        _ => Some(peers.listen(golden.pair, folder.join("server.log"), LIMIT)?),
    };
    let truth = folder.join("truth.jsonl");
    let mut client = peers.client(
        &Task {
            pair: golden.pair,
            scenario: "basic",
            calls: 0,
            truth: &truth,
            protocol: matches!(golden.pair.client, Client::NodeV2Legacy | Client::RmcpLegacy)
                .then_some(golden.protocol),
            url: server.as_ref().map(|server| server.url.as_str()),
            trust: server.as_ref().and_then(|server| server.certificate.as_deref()),
        },
        folder.join("client.log"),
    )?;
    client.finish(LIMIT)?;
    drop(server);
    recorder.stop()?;
    let calls = Truth::read(&truth)?;
    ensure!(calls.answered() == calls.calls.len(), "not every call was answered");
    Ok(calls.calls.len())
}

/// `mcp-observer record` at work; killed when dropped without `stop`.
struct Recorder(Child);

impl Recorder {
    fn start(observer: &Path, cgroup: &Cgroup, folder: &Path, place: &Path) -> Result<Self> {
        let log = folder.join("recorder.log");
        let mut command = Command::new(observer);
        command.arg("record").arg(place).args(["--backend", "syscall"]);
        command.arg("--cgroup").arg(cgroup.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let recorder = Self(command.spawn()?);
        let recording = || fs::read_to_string(&log).ok()?.contains("recording to").then_some(());
        wait_until(LIMIT, recording).with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(recorder)
    }

    fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.0.id()).context("process ids fit")?;
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(pid, libc::SIGINT) };
        let status = wait_until(LIMIT, || self.0.try_wait().ok().flatten()).context("it does not stop")?;
        ensure!(status.success(), "the recorder ended with {status}");
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

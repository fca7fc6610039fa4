//! `cargo xtask demo`: a real client calls a real server, the observer tells of it.
//!
//! The observer sees this program and what it starts, nothing else of the machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::{build, node, peers, shell};

/// Folder of the Python SDK among the peers.
const PYTHON: &str = "py-2.3.0/bin/python";

/// Bound on any one wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time the observer gets to tell of the last call before the metrics are read.
const SETTLING: Duration = Duration::from_secs(1);

/// Scenario of the client that waits for its answer.
const SLOW: &str = "slow:1.5";

/// Metrics of which every line that is not zero is shown.
const SHOWN: [&str; 3] = ["mcp_calls_total", "mcp_capability_info", "mcp_observer_lost_total"];

/// Builds, observes a client and a server on both transports, and shows the metrics.
pub(crate) fn run() -> Result<()> {
    let cache = Cache::open()?;
    let program = build::daemon(&cache)?;
    let peers = peers::provide(&cache)?;
    node::prepare()?;
    let metrics = free_port()?;
    let mut observer = start_observer(&program, metrics)?;
    let shown = show(&peers, metrics, &mut observer);
    stop(&mut observer)?;
    shown
}

fn show(peers: &Path, metrics: u16, observer: &mut Child) -> Result<()> {
    wait_until("the observer is ready", || {
        if let Some(status) = observer.try_wait()? {
            bail!("the observer ended ({status})");
        }
        Ok(get(metrics, "/health/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))
    })?;
    say("a Python client calls a Python server that it starts itself (stdio)");
    let python = peers.join(PYTHON);
    let server = peers.join("python/server.py");
    let over_stdio = [
        "--transport",
        "stdio",
        "--",
        path(&python)?,
        path(&server)?,
        "--transport",
        "stdio",
    ];
    call(peers, "basic", &over_stdio)?;
    std::thread::sleep(SETTLING);
    say("a call that takes its time, over Streamable HTTP");
    let port = free_port()?;
    let mut listening = start_server(&python, &server, port)?;
    let url = format!("http://127.0.0.1:{port}/mcp");
    let called = call(peers, SLOW, &["--transport", "http", "--url", &url]);
    std::thread::sleep(SETTLING);
    say(&format!("http://127.0.0.1:{metrics}/metrics, some of it"));
    let answer = get(metrics, "/metrics")?;
    answer
        .lines()
        .filter(|line| SHOWN.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0"))
        .for_each(|line| println!("{line}"));
    listening.kill()?;
    listening.wait()?;
    called
}

fn start_observer(program: &Path, metrics: u16) -> Result<Child> {
    let scope = std::process::id().to_string();
    let listen = format!("127.0.0.1:{metrics}");
    let arguments = ["run", "--calls", "pretty", "--pid", &scope, "--listen", &listen];
    node::daemon(program, &arguments)
        .stdin(Stdio::null())
        .spawn()
        .context("could not start the observer")
}

/// Ends the observer in the way a service manager would.
fn stop(observer: &mut Child) -> Result<()> {
    if observer.try_wait()?.is_none() {
        let pid = observer.id().to_string();
        shell::output(&mut shell::as_root(
            "to end the observer",
            shell::command("kill", [pid]),
        ))?;
        observer.wait()?;
    }
    Ok(())
}

/// Starts a server over HTTP and waits for it to say `ready`.
fn start_server(python: &Path, server: &Path, port: u16) -> Result<Child> {
    let mut child = Command::new(python)
        .arg(server)
        .args(["--transport", "http", "--port", &port.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("could not start the server")?;
    let said = BufReader::new(child.stderr.take().expect("standard error is piped"));
    let mut lines = said.lines().map_while(Result::ok);
    if !lines.any(|line| line.contains("ready")) {
        bail!("the server ended ({})", child.wait()?);
    }
    std::thread::spawn(move || lines.for_each(drop));
    Ok(child)
}

fn call(peers: &Path, scenario: &str, transport: &[&str]) -> Result<()> {
    let truth = tempfile::NamedTempFile::new()?;
    let mut client = Command::new(peers.join(PYTHON));
    client
        .arg(peers.join("python/client.py"))
        .args(["--scenario", scenario, "--truth"])
        .arg(truth.path());
    client.args(transport).stderr(Stdio::null());
    shell::stream(&mut client)
}

fn say(what: &str) {
    println!("\n\x1b[1m# {what}\x1b[0m");
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not text")
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        if Instant::now() > deadline {
            bail!("waited {} s in vain until {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

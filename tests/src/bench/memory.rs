//! 10,000 connections, each of which made one MCP call and stays: what the observer keeps of them.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{sleep, spawn};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::report::{Figure, Report, Target};
use super::word;
use crate::clock::wait_until;
use crate::lab::Lab;
use crate::scenarios::Stage;
use crate::tiny::{echo, post, read_message};

const STREAMS: u32 = 10_000;

/// What the observer may hold in memory.
const LIMIT_MIB: f64 = 64.0;

/// Measures it.
#[allow(clippy::cast_precision_loss, reason = "sizes of processes")]
pub(super) fn measure(lab: &Arc<Lab>, report: &mut Report) -> Result<()> {
    let case = "memory, 10,000 streams";
    let stage = Stage::new(lab, "bench")?;
    let observer = stage.observe(&[])?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let before = mib(observer.resident()?);
    let done = stage.lab.file("held");
    let _holder = stage.tiny(&["hold", "--connections", &STREAMS.to_string(), "--done", &word(&done)])?;
    wait_until(stage.lab.limit(120), || done.exists().then_some(())).context("the connections were never all open")?;
    // The loop looks at itself once a second.
    sleep(Duration::from_millis(2500));
    report.add(Figure::alone(case, "resident before", "MiB", before));
    report.add(Figure::alone(
        case,
        "streams known as MCP",
        "streams",
        observer.metric("mcp_observer_streams", "state=\"mcp\"")?,
    ));
    report.add(Figure::alone(
        case,
        "calls seen",
        "calls",
        observer.metric("mcp_calls_total", "")?,
    ));
    report.add(Figure::alone(case, "resident", "MiB", mib(observer.resident()?)).to_reach(Target::AtMost(LIMIT_MIB)));
    observer.stop()?;
    Ok(())
}

/// Connections to itself that stay open.
#[derive(Args)]
pub(crate) struct HoldArgs {
    #[arg(long)]
    connections: usize,
    /// A file to make when all are open and each has made its call.
    #[arg(long)]
    done: PathBuf,
}

/// Makes one call on each connection, then waits to be killed.
pub(crate) fn hold(args: &HoldArgs) -> Result<()> {
    allow_descriptors()?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    spawn(move || serve(&listener));
    let mut held = Vec::new();
    for number in 0..args.connections {
        let mut stream = TcpStream::connect(address)?;
        let request = echo(&json!(number), "one of many").to_string();
        stream.write_all(post("/mcp", &request).as_bytes())?;
        read_message(&mut BufReader::new(&stream))?.context("the server closed")?;
        held.push(stream);
    }
    std::fs::write(&args.done, "")?;
    loop {
        sleep(Duration::from_secs(3600));
    }
}

fn serve(listener: &TcpListener) -> Result<()> {
    let mut held = Vec::new();
    for stream in listener.incoming() {
        let stream = stream?;
        let (_, body) = read_message(&mut BufReader::new(&stream))?.context("the client closed")?;
        let request: serde_json::Value = serde_json::from_slice(&body)?;
        let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": {"content": []}}).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        (&stream).write_all(format!("{head}{answer}").as_bytes())?;
        held.push(stream);
    }
    Ok(())
}

fn allow_descriptors() -> Result<()> {
    let enough = libc::rlimit {
        rlim_cur: 65_536,
        rlim_max: 65_536,
    };
    // SAFETY: the pointer is to a live rlimit.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const enough) };
    anyhow::ensure!(done == 0, "the limit on open files cannot be raised to 65,536");
    Ok(())
}

//! 10,000 connections, each of which made one MCP call and stays: what the observer keeps of them.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::report::{Figure, Report, Target};
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
    let server = stage.tiny(&["hold"])?;
    let port = wait_until(stage.lab.limit(10), || server.said().trim().parse::<u16>().ok());
    let port = port.context("the server does not listen")?.to_string();
    let client = stage.tiny(&["hold", "--port", &port, "--connections", &STREAMS.to_string()])?;
    let done = || client.said().contains("done").then_some(());
    wait_until(stage.lab.limit(120), done).with_context(|| {
        format!(
            "the connections were never all open: {}{}",
            client.said(),
            server.said()
        )
    })?;
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
    report
        .add(Figure::alone(case, "resident", "MiB", mib(observer.resident()?)).with_target(Target::AtMost(LIMIT_MIB)));
    observer.stop()?;
    Ok(())
}

/// One end of connections that stay open: the server's, which prints its port, or a client's.
#[derive(Args)]
pub(crate) struct HoldArgs {
    /// The server's port; without it this is the server.
    #[arg(long)]
    port: Option<u16>,
    /// Connections that the client makes.
    #[arg(long, default_value_t = 0)]
    connections: u32,
}

/// Makes one call on each connection and says so, or answers them, then waits to be killed.
pub(crate) fn hold(args: &HoldArgs) -> Result<()> {
    allow_descriptors();
    let Some(port) = args.port else {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        println!("{}", listener.local_addr()?.port());
        return serve(&listener);
    };
    let mut held = Vec::new();
    for number in 0..args.connections {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        let request = echo(&json!(number), "one of many").to_string();
        stream.write_all(post("/mcp", &request).as_bytes())?;
        read_message(&mut BufReader::new(&stream))?.context("the server closed")?;
        held.push(stream);
    }
    println!("done");
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

/// As many open files as the hard limit allows: enough for one end on ordinary machines.
fn allow_descriptors() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both pointers are to a live rlimit; a refusal shows when a connection cannot be made.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

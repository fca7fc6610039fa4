//! Every pair of peers without an observer: what they say of themselves must hold before anything is held against it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::peer::{Client, Pair, Peers, Server, Task, Transport};
use crate::truth::{Call, Truth};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs the pairs and prints a line for each.
pub(crate) fn run(peers: &Path, only: &str) -> Result<ExitCode> {
    let folder = env::temp_dir().join(format!("mcp-observer-self-check-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mut failed = 0;
    for (pair, scenario) in plan() {
        let name = format!("{} {} {scenario}", pair.name(), pair.transport.name());
        if !name.contains(only) {
            continue;
        }
        match check(peers, pair, scenario, &folder) {
            Ok(summary) => println!("ok      {name}: {summary}"),
            Err(error) => {
                failed += 1;
                println!("FAILED  {name}: {error:#}");
            }
        }
    }
    fs::remove_dir_all(&folder)?;
    println!("{failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn plan() -> Vec<(Pair, &'static str)> {
    let mut plan: Vec<(Pair, &str)> = Pair::all().into_iter().map(|pair| (pair, "basic")).collect();
    for transport in [Transport::Stdio, Transport::Http] {
        for (client, server) in [
            (Client::Py23, Server::Py23),
            (Client::Py130, Server::Py130),
            (Client::NodeSdk, Server::NodeSdk),
            (Client::NodeV2, Server::NodeV2),
            (Client::Rmcp, Server::Rmcp),
        ] {
            let pair = Pair::new(client, server, transport);
            plan.extend(["parallel", "large", "slow:1", "crash"].map(|scenario| (pair, scenario)));
        }
    }
    plan
}

fn check(peers: &Path, pair: Pair, scenario: &str, folder: &Path) -> Result<String> {
    let peers = Peers::new(peers, None);
    let truth = folder.join("truth.jsonl");
    let _ = fs::remove_file(&truth);
    let server = match pair.transport {
        Transport::Stdio => None,
        _ => Some(peers.listen(pair, folder.join("server.log"), LIMIT)?),
    };
    let task = Task {
        pair,
        scenario,
        calls: 20,
        truth: &truth,
        protocol: None,
        url: server.as_ref().map(|server| server.url.as_str()),
        trust: server.as_ref().and_then(|server| server.certificate.as_deref()),
    };
    let mut client = peers.client(&task, folder.join("client.log"))?;
    let pid = client.pid();
    let ended = client.finish(LIMIT);
    let truth = Truth::read(&truth)?;
    if scenario != "crash" {
        ended?;
    }
    ensure!(truth.pid == pid, "the truth is of process {} and not {pid}", truth.pid);
    judge(&truth.calls, pair.server, scenario)?;
    Ok(summary(&truth.calls))
}

fn judge(calls: &[Call], server: Server, scenario: &str) -> Result<()> {
    for call in calls {
        // A client whose HTTP server crashed may wait for it to come back until it is killed.
        if scenario == "crash" && call.end.is_none() {
            continue;
        }
        let end = call
            .end
            .as_ref()
            .with_context(|| format!("{} has no end", call.method))?;
        ensure!(end.end_ns > call.start_ns, "{} ends before it starts", call.method);
        ensure!(
            end.outcome != "unanswered" || scenario == "crash",
            "{} was not answered",
            call.method
        );
    }
    let good = calls
        .iter()
        .filter(|call| call.method == "tools/call" && outcome(call) == "ok")
        .count();
    let (expected, kind) = match scenario {
        "parallel" => (20, "good tool calls"),
        "large" => (4, "good tool calls"),
        // All that this server's tools can do without what they speak for is to fail.
        "basic" if server == Server::Grafana => (0, "good tool calls"),
        "basic" => (2, "good tool calls"),
        _ => (1, "good tool calls"),
    };
    ensure!(good >= expected, "{good} {kind} and not {expected}: {}", summary(calls));
    if scenario == "basic" && server != Server::Grafana {
        ensure!(
            calls.iter().any(|call| outcome(call) == "tool_error"),
            "no tool error: {}",
            summary(calls)
        );
    }
    Ok(())
}

fn outcome(call: &Call) -> &str {
    call.end.as_ref().map_or("none", |end| &end.outcome)
}

fn summary(calls: &[Call]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for call in calls {
        let name = outcome(call);
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    let words: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    format!("{} calls: {}", calls.len(), words.join(", "))
}

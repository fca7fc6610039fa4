//! One call is one call, whatever addresses its two ends know: IPv6, IPv4 in IPv6's clothes, two network namespaces, and
//! addresses that a translation changes on the way.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Account, Stage, Test};
use crate::clock::wait_until;
use crate::compare::Rules;
use crate::peer::free_port;

pub(super) const TESTS: &[Test] = &[
    ("addresses::IPv6", |stage| on_loopback(stage, "::1", "::1")),
    ("addresses::IPv4 to a server of both", |stage| {
        on_loopback(stage, "::", "127.0.0.1")
    }),
    ("addresses::IPv4 mapped to a server of IPv4", |stage| {
        on_loopback(stage, "127.0.0.1", "::ffff:127.0.0.1")
    }),
    ("addresses::two network namespaces", |stage| {
        between_namespaces(stage, Translation::None)
    }),
    (
        "addresses::two network namespaces and a translation of both addresses",
        |stage| between_namespaces(stage, Translation::Both),
    ),
];

fn on_loopback(stage: &Stage, listen: &str, connect: &str) -> Result<()> {
    let port = free_port()?.to_string();
    calls(
        stage,
        &Place {
            behind: &[],
            host: listen,
            port: &port,
        },
        &Place {
            behind: &[],
            host: connect,
            port: &port,
        },
    )
}

/// Where an end of the connection is and which address it uses.
struct Place<'a> {
    behind: &'a [&'a str],
    host: &'a str,
    port: &'a str,
}

/// Twenty calls, each of which must be one call with both ends' times.
fn calls(stage: &Stage, server: &Place, client: &Place) -> Result<()> {
    let words = ["tiny-server", "--host", server.host, "--port", server.port];
    let listening = stage.tiny_behind(server.behind, &words)?;
    let ready = || listening.said().contains("ready").then_some(());
    wait_until(stage.lab.limit(10), ready)
        .with_context(|| format!("no server on {}: {}", server.host, listening.said()))?;
    let observer = stage.observe(&[])?;
    let truth = stage.lab.file("truth.jsonl");
    let path = truth.to_string_lossy();
    let words = [
        "tiny-client",
        "--truth",
        &path,
        "--host",
        client.host,
        "--port",
        client.port,
    ];
    let words = [&words[..], &["--calls", "20", "--pause-ms", "10"]].concat();
    stage.tiny_behind(client.behind, &words)?.finish(stage.lab.limit(30))?;
    stage.settle(
        observer,
        &[Account {
            truth,
            rules: Rules::default(),
        }],
    )
}

/// What happens to addresses between the namespaces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Translation {
    None,
    /// The server's, as a service of a cluster has it, and the client's, as a gateway does.
    Both,
}

fn between_namespaces(stage: &Stage, translation: Translation) -> Result<()> {
    let link = Namespaces::join()?;
    let host = match translation {
        Translation::None => SERVER,
        Translation::Both => {
            if let Err(error) = link.translate() {
                eprintln!("skipped: this kernel translates no addresses: {error:#}");
                return Ok(());
            }
            SERVICE
        }
    };
    let (server, client) = (
        ["ip", "netns", "exec", &link.server],
        ["ip", "netns", "exec", &link.client],
    );
    calls(
        stage,
        &Place {
            behind: &server,
            host: SERVER,
            port: "8000",
        },
        &Place {
            behind: &client,
            host,
            port: "8000",
        },
    )
}

const CLIENT: &str = "10.123.45.1";
const SERVER: &str = "10.123.45.2";
/// The address that the client knows the server by, and the one that the server knows the client by.
const SERVICE: &str = "10.200.0.1";
const GATEWAY: &str = "10.123.45.9";

/// Two network namespaces with a cable between them, gone when dropped.
struct Namespaces {
    client: String,
    server: String,
}

impl Namespaces {
    fn join() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = |end: &str| {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            format!("mcp-observer-{}-{number}-{end}", std::process::id())
        };
        let link = Self {
            client: name("c"),
            server: name("s"),
        };
        ip(&["netns", "add", &link.client])?;
        ip(&["netns", "add", &link.server])?;
        // Made inside the namespaces, so that no name is taken outside.
        ip(&[
            "-n",
            &link.client,
            "link",
            "add",
            "near",
            "type",
            "veth",
            "peer",
            "name",
            "far",
            "netns",
            &link.server,
        ])?;
        for (namespace, end, address) in [(&link.client, "near", CLIENT), (&link.server, "far", SERVER)] {
            ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", end])?;
            ip(&["-n", namespace, "link", "set", end, "up"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        Ok(link)
    }

    fn translate(&self) -> Result<()> {
        ip(&["-n", &self.client, "route", "add", "default", "via", SERVER])?;
        ip(&[
            "-n",
            &self.client,
            "address",
            "add",
            &format!("{GATEWAY}/24"),
            "dev",
            "near",
        ])?;
        let rule = |words: &[&str]| {
            run(Command::new("ip")
                .args(["netns", "exec", &self.client, "iptables", "-t", "nat", "-A"])
                .args(words))
        };
        rule(&[
            "OUTPUT",
            "-p",
            "tcp",
            "-d",
            SERVICE,
            "-j",
            "DNAT",
            "--to-destination",
            SERVER,
        ])?;
        rule(&[
            "POSTROUTING",
            "-p",
            "tcp",
            "-d",
            SERVER,
            "-j",
            "SNAT",
            "--to-source",
            &format!("{GATEWAY}:20000-30000"),
        ])
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for namespace in [&self.client, &self.server] {
            let gone = || ip(&["netns", "delete", namespace]).ok();
            wait_until(Duration::from_secs(2), gone);
        }
    }
}

fn ip(words: &[&str]) -> Result<()> {
    run(Command::new("ip").args(words))
}

fn run(command: &mut Command) -> Result<()> {
    let done = command
        .output()
        .with_context(|| format!("{:?} cannot be started", command.get_program()))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?}: {}", said.trim());
    Ok(())
}

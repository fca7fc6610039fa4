//! Through TLS: crowds on one context, children, relays, sessions joined in the middle, and libraries that have no way in.
//!
//! The programs are scripts of Python's own `ssl`, and those of the machine's Debian, which take part natively alone.

mod programs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::http2::{ensure_enough_after, since};
use super::{Account, Running, Stage, Test};
use crate::certificate::Certificate;
use crate::clock::{monotonic_ns, wait_until};
use crate::compare::Rules;
use crate::lab::Place;
use crate::observer::Observer;
use crate::peer::{Client, Listening, Pair, Peers, Program, Server, Task, Transport, free_port};
use crate::truth::{Call, Truth};

/// Those that need no program besides the SDKs come first.
const TESTS: &[Test] = &[
    ("tls::64 threads on one context", threads),
    ("tls::a process that forks, executes and is killed", forks),
    ("tls::SDKs, the observer started in mid-session", |stage| {
        let pairs = [(Client::NodeSdk, Server::NodeSdk), (Client::Py23, Server::Py23)];
        joined(stage, Transport::Https, &pairs, &[("openssl", 4)])
    }),
    ("tls::a connection that was muted before it had TLS", late),
    ("tls::a library inside a wheel", wheel),
    ("tls::a newer Node", |stage| runtime(stage, "node", "openssl")),
    ("tls::Bun, which has no symbols", |stage| {
        runtime(stage, "bun", "boringssl")
    }),
    ("tls::Deno, which has no symbols", |stage| {
        runtime(stage, "deno-run", "rustls")
    }),
    (
        "tls::a server in Rust whose clients are out of scope",
        clients_out_of_scope,
    ),
    ("tls::a server whose library has no way in", unsupported),
    ("tls::a server in Java", java),
    ("tls::check says who has which library", checked),
    ("tls::curl and a server that is not MCP", programs::not_mcp),
    ("tls::a client on NSS", programs::nss),
    ("tls::a client on GnuTLS", programs::gnutls),
    ("tls::nginx before a server", programs::nginx_relays),
    ("tls::SDKs on HTTP/2, the observer started in mid-session", |stage| {
        let pairs = [(Client::Py23, Server::Py23), (Client::Go, Server::Go)];
        joined(stage, Transport::Https2, &pairs, &[("openssl", 2), ("go", 2)])
    }),
];

/// What this machine's kernel may not have, and those of the guests do.
const IN_GUESTS: &[Test] = &[("kernel TLS::a program without a library", kernel_tls)];

/// How many of them need the SDKs alone.
const OF_SDKS: usize = 11;

const CLIENT: &str = include_str!("client.py");
const SERVER: &str = include_str!("server.py");

/// What can be run there.
pub(super) fn tests(place: Place) -> Vec<Test> {
    match place {
        Place::Native => TESTS.to_vec(),
        Place::Vm => [&TESTS[..OF_SDKS], IN_GUESTS].concat(),
    }
}

/// A client of `client.py`, which waits for leave.
struct Script {
    program: Program,
    truth: PathBuf,
}

impl Script {
    fn start(stage: &Stage, manner: &str, server: &Listening) -> Result<Self> {
        let (file, truth) = (stage.lab.file("client.py"), stage.lab.file("truth.jsonl"));
        fs::write(&file, CLIENT)?;
        let port = server.url.split([':', '/']).find(|word| word.parse::<u16>().is_ok());
        let mut command = Command::new(stage.peers().path("py-2.3.0/bin/python"));
        command
            .arg(&file)
            .args([manner, port.context("a server without a port")?]);
        command.arg(server.certificate.as_ref().context("a server without a certificate")?);
        command.arg(&truth).env("PYTHONPATH", stage.peers().path("wheel"));
        let program = Program::start(command, Some(&stage.cgroup), stage.lab.file("client.log"))?;
        Ok(Self { program, truth })
    }

    /// Lets it go on.
    fn leave(&self, word: &str) -> Result<()> {
        Ok(fs::write(self.beside(word), "")?)
    }

    fn beside(&self, word: &str) -> PathBuf {
        let mut path = self.truth.clone().into_os_string();
        path.push(format!(".{word}"));
        path.into()
    }

    fn account(&self) -> Account {
        whole(&self.truth)
    }
}

fn whole(truth: &Path) -> Account {
    Account {
        truth: truth.to_owned(),
        rules: Rules::default(),
    }
}

/// The Python SDK on HTTPS.
fn serve(stage: &Stage) -> Result<Listening> {
    let pair = Pair::new(Client::Py23, Server::Py23, Transport::Https);
    stage.listen(pair)
}

/// Waits until so many processes have a library in that state.
pub(super) fn wait_for(stage: &Stage, observer: &Observer, library: &str, state: &str, processes: u32) -> Result<()> {
    let labels = format!("library=\"{library}\",state=\"{state}\"");
    let count = || observer.metric("mcp_observer_tls_processes", &labels).unwrap_or(-1.0);
    let all = || (count() >= f64::from(processes)).then_some(());
    wait_until(stage.lab.limit(20), all)
        .with_context(|| format!("{} processes and not {processes} have {labels}", count()))
}

/// A server of `server.py`.
fn serve_by_script(stage: &Stage, manner: &str) -> Result<Listening> {
    let (script, port, log) = (stage.lab.file("server.py"), free_port()?, stage.lab.file("server.log"));
    fs::write(&script, SERVER)?;
    let certificate = Certificate::create(&log)?;
    let mut command = Command::new(stage.peers().path("py-2.3.0/bin/python"));
    command.arg(&script).arg(manner).arg(port.to_string());
    command.arg(&certificate.file).arg(&certificate.key);
    let program = Program::start(command, Some(&stage.cgroup), log)?;
    wait_until(stage.lab.limit(30), || program.said().contains("ready").then_some(()))
        .with_context(|| format!("the server does not listen: {}", program.said()))?;
    Ok(Listening {
        program,
        url: format!("https://localhost:{port}/"),
        certificate: Some(certificate.file),
    })
}

fn threads(stage: &Stage) -> Result<()> {
    let server = serve(stage)?;
    let observer = stage.observe(&[])?;
    let mut client = Script::start(stage, "threads", &server)?;
    wait_for(stage, &observer, "openssl", "attached", 2)?;
    client.leave("go")?;
    client.program.finish(stage.lab.limit(60))?;
    let calls = Truth::read(&client.truth)?.answered();
    ensure!(calls == 64 * 5, "{calls} calls were answered");
    stage.settle(observer, &[client.account()])
}

fn forks(stage: &Stage) -> Result<()> {
    let server = serve(stage)?;
    let observer = stage.observe(&[])?;
    let mut client = Script::start(stage, "forks", &server)?;
    wait_for(stage, &observer, "openssl", "attached", 2)?;
    client.leave("go")?;
    wait_for(stage, &observer, "openssl", "attached", 3)?;
    client.leave("go-child")?;
    client.program.finish(stage.lab.limit(30))?;
    stage.settle(observer, &[client.account(), whole(&client.beside("child"))])
}

/// Connections are open, and libraries mapped, when it comes.
fn joined(stage: &Stage, transport: Transport, pairs: &[(Client, Server)], libraries: &[(&str, u32)]) -> Result<()> {
    let mut all = pairs
        .iter()
        .map(|(client, server)| {
            let pair = Pair::new(*client, *server, transport);
            stage.start(pair, "session", stage.lab.stretch(120))
        })
        .collect::<Result<Vec<Running>>>()?;
    for running in &all {
        let under_way = || (Truth::read(&running.truth).ok()?.answered() > 4).then_some(());
        wait_until(stage.lab.limit(30), under_way).context("a session did not get under way")?;
    }
    let observer = stage.observe(&[])?;
    for (library, processes) in libraries {
        wait_for(stage, &observer, library, "attached", *processes)?;
    }
    let attached_ns = monotonic_ns();
    for running in &mut all {
        running.client.finish(stage.lab.limit(60))?;
    }
    // The end that was attached first goes on being read.
    let rules = || Rules {
        from_server: true,
        ..since(attached_ns)
    };
    let accounts: Vec<Account> = all.iter().map(|running| running.account(rules())).collect();
    ensure_enough_after(&accounts, attached_ns)?;
    stage.settle(observer, &accounts)
}

/// What is at its ends is found in what the kernel side was told to leave out.
fn late(stage: &Stage) -> Result<()> {
    let server = serve_by_script(stage, "late")?;
    let observer = stage.observe(&[])?;
    let mut client = Script::start(stage, "late", &server)?;
    wait_for(stage, &observer, "openssl", "attached", 2)?;
    client.leave("go")?;
    client.program.finish(stage.lab.limit(30))?;
    let lost = observer.lost_bytes()?;
    ensure!(lost == 0, "{lost} bytes of it count as lost");
    stage.settle(observer, &[client.account()])
}

/// A program with two of them: Python's own, which it does not use, and the one that came with what it does use.
fn wheel(stage: &Stage) -> Result<()> {
    let server = serve(stage)?;
    let observer = stage.observe(&[])?;
    let mut client = Script::start(stage, "wheel", &server)?;
    let mapped = || {
        let maps = fs::read_to_string(format!("/proc/{}/maps", client.program.pid())).unwrap_or_default();
        maps.contains("pycurl.libs/libssl").then_some(())
    };
    wait_until(stage.lab.limit(20), mapped).context("the wheel's library is not in use")?;
    wait_for(stage, &observer, "openssl", "attached", 2)?;
    client.leave("go")?;
    client.program.finish(stage.lab.limit(30))?;
    stage.settle(observer, &[client.account()])
}

/// Both sides run by something else that runs JavaScript, with its library inside.
fn runtime(stage: &Stage, program: &str, library: &str) -> Result<()> {
    let peers = run_by(stage, program);
    let pair = Pair::new(Client::NodeSdk, Server::NodeSdk, Transport::Https);
    let server = peers.listen(pair, stage.lab.file("server.log"), stage.lab.limit(30))?;
    let observer = stage.observe(&[])?;
    wait_for(stage, &observer, library, "attached", 1)?;
    let truth = stage.lab.file("truth.jsonl");
    let mut client = peers.client(&basic(pair, &server, &truth), stage.lab.file("client.log"))?;
    client.finish(stage.lab.limit(30))?;
    stage.settle(observer, &[whole(&truth)])
}

/// The peers with their JavaScript run by another program.
fn run_by<'a>(stage: &'a Stage, program: &str) -> Peers<'a> {
    let peers = stage.peers();
    Peers {
        node: peers.path(&format!("runtimes/{program}")),
        ..peers
    }
}

/// A call of everything on a server.
fn basic<'a>(pair: Pair, server: &'a Listening, truth: &'a Path) -> Task<'a> {
    Task {
        pair,
        scenario: "basic",
        calls: 0,
        truth,
        protocol: None,
        url: Some(&server.url),
        trust: server.certificate.as_deref(),
    }
}

/// Only the server's end shows the calls, and of each connection the first request before its session has come to where it stays.
fn clients_out_of_scope(stage: &Stage) -> Result<()> {
    let served = Pair::new(Client::Rmcp, Server::Rmcp, Transport::Https);
    let server = stage.listen(served)?;
    let observer = stage.observe(&[])?;
    wait_for(stage, &observer, "rustls", "attached", 1)?;
    let elsewhere = Peers {
        cgroup: None,
        ..stage.peers()
    };
    let mut made = Vec::new();
    let clients = [
        Client::Rmcp,
        Client::RmcpNativeTls,
        Client::Go,
        Client::Rmcp,
        Client::Go,
    ];
    for client in clients {
        let truth = stage.lab.file("truth.jsonl");
        let transport = if client == Client::Go {
            Transport::Https2
        } else {
            Transport::Https
        };
        let pair = Pair::new(client, Server::Rmcp, transport);
        elsewhere
            .client(&basic(pair, &server, &truth), stage.lab.file("client.log"))?
            .finish(stage.lab.limit(30))?;
        let ended = |call: Call| Some((call.method, call.end?.outcome));
        made.extend(Truth::read(&truth)?.calls.into_iter().filter_map(ended));
    }
    let unseen = observer.unseen();
    let records = observer.stop()?;
    let mut seen: Vec<_> = records
        .into_iter()
        .map(|record| (record.mcp.method, record.outcome))
        .collect();
    made.sort();
    seen.sort();
    ensure!(made == seen, "made {made:?}\nseen {seen:?}\n{unseen}");
    Ok(())
}

/// What the server's side does not show the client's does.
fn unsupported(stage: &Stage) -> Result<()> {
    let observer = stage.observe(&[])?;
    let server = rustls_server(stage)?;
    wait_for(stage, &observer, "rustls", "unsupported", 1)?;
    let mut client = Script::start(stage, "plain", &server)?;
    wait_for(stage, &observer, "openssl", "attached", 1)?;
    client.leave("go")?;
    client.program.finish(stage.lab.limit(30))?;
    let calls = Truth::read(&client.truth)?.answered();
    ensure!(calls == 20, "{calls} calls were answered");
    stage.settle(observer, &[client.account()])
}

/// It has TLS of its own, and no way in whether it uses it or not.
fn java(stage: &Stage) -> Result<()> {
    let observer = stage.observe(&[])?;
    let mut command = Command::new(stage.peers().path("java/bin/jwebserver"));
    command.args(["-p", &free_port()?.to_string(), "-d", "/usr/share"]);
    let _server = Program::start(command, Some(&stage.cgroup), stage.lab.file("java.log"))?;
    wait_for(stage, &observer, "java", "unsupported", 1)?;
    stage.settle(observer, &[])
}

/// Python's own library lies in a module that this does not import.
fn kernel_tls(stage: &Stage) -> Result<()> {
    const PROGRAM: &str = "\
import socket, time
server = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(server.getsockname())
client.setsockopt(socket.IPPROTO_TCP, 31, b'tls')  # TCP_ULP
print('ready', flush=True)
time.sleep(600)
";
    let observer = stage.observe(&[])?;
    let mut command = Command::new(stage.peers().path("py-2.3.0/bin/python"));
    command.args(["-c", PROGRAM]);
    let mut program = Program::start(command, Some(&stage.cgroup), stage.lab.file("program.log"))?;
    wait_until(stage.lab.limit(30), || program.said().contains("ready").then_some(()))
        .with_context(|| format!("the kernel takes no keys: {}", program.said()))?;
    wait_for(stage, &observer, "ktls", "unsupported", 1)?;
    program.kill()?;
    let labels = "library=\"ktls\",state=\"unsupported\"";
    let gone = || (observer.metric("mcp_observer_tls_processes", labels).unwrap_or(0.0) == 0.0).then_some(());
    wait_until(stage.lab.limit(20), gone).context("it is still counted after its end")?;
    stage.settle(observer, &[])
}

/// This driver as an HTTPS server on rustls, without its symbols.
fn rustls_server(stage: &Stage) -> Result<Listening> {
    let (program, port, log) = (stage.lab.file("stripped"), free_port()?, stage.lab.file("server.log"));
    fs::copy(std::env::current_exe()?, &program)?;
    strip(&program)?;
    let certificate = Certificate::create(&log)?;
    let mut command = Command::new(&program);
    command.args(["tls-server", "--port", &port.to_string()]);
    command.arg("--cert").arg(&certificate.file);
    command.arg("--key").arg(&certificate.key);
    let program = Program::start(command, Some(&stage.cgroup), log)?;
    wait_until(stage.lab.limit(30), || program.said().contains("ready").then_some(()))
        .with_context(|| format!("the server on rustls does not listen: {}", program.said()))?;
    Ok(Listening {
        program,
        url: format!("https://127.0.0.1:{port}/mcp"),
        certificate: Some(certificate.file),
    })
}

/// Takes a program's table of sections away, and all symbols with it: where it is, how long, and where the names of sections are.
fn strip(program: &Path) -> Result<()> {
    let mut bytes = fs::read(program)?;
    ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "a program of another kind");
    bytes[40..48].fill(0);
    bytes[60..64].fill(0);
    Ok(fs::write(program, bytes)?)
}

/// `check` looks at every process of the machine: those of this test are among them.
fn checked(stage: &Stage) -> Result<()> {
    let before = check(stage)?;
    ensure!(before.safe, "uretprobes are not safe here: {}", before.text);
    let (server, hidden) = (serve(stage)?, rustls_server(stage)?);
    let after = check(stage)?;
    for (library, state) in [("openssl", "reachable"), ("rustls", "unsupported")] {
        let of = |check: &Check| check.processes(library, state);
        ensure!(of(&after) > 0, "{library} is not {state}: {}", after.text);
    }
    drop((server, hidden));
    ensure!(
        after.text.contains("TLS libraries") && after.text.contains("uretprobes    safe"),
        "people are not told: {}",
        after.text
    );
    Ok(())
}

/// What `check` says.
struct Check {
    safe: bool,
    libraries: Vec<serde_json::Value>,
    text: String,
}

impl Check {
    fn processes(&self, library: &str, state: &str) -> u64 {
        let of = |row: &&serde_json::Value| row["library"] == library && row["state"] == state;
        let counts = self
            .libraries
            .iter()
            .filter(of)
            .filter_map(|row| row["processes"].as_u64());
        counts.sum()
    }
}

fn check(stage: &Stage) -> Result<Check> {
    let said = |words: &[&str]| -> Result<String> {
        let told = Command::new(&stage.lab.observer).args(words).output()?;
        ensure!(
            told.status.success(),
            "check fails: {}",
            String::from_utf8_lossy(&told.stderr)
        );
        Ok(String::from_utf8(told.stdout)?)
    };
    let row: serde_json::Value = serde_json::from_str(&said(&["check", "--json"])?)?;
    Ok(Check {
        safe: row["tls"]["uretprobes"]["safe"] == true,
        libraries: row["tls"]["libraries"].as_array().cloned().unwrap_or_default(),
        text: said(&["check"])?,
    })
}

//! HTTP/2 in clear: SDKs over it, the programs that people test it with, and nginx as a server of it and before one.
//!
//! The programs are those of the machine's Debian, so that they take part natively alone.

use std::fs;
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::load::{large_results, together};
use super::{Account, Running, Stage, Test};
use crate::clock::{monotonic_ns, wait_until, wall_lead_ns};
use crate::compare::Rules;
use crate::lab::Place;
use crate::peer::{Client, Listening, Pair, Program, Server, Task, Transport, free_port};
use crate::truth::{Call, End, Truth};

/// Those that need no program besides the SDKs come first.
const TESTS: &[Test] = &[
    ("http2::calls at once on one connection", |stage| {
        together(stage, "parallel", 50, &pairs(), stage.lab.limit(60))
    }),
    ("http2::results of 300 KB and 10 MB", |stage| {
        large_results(stage, &pairs())
    }),
    ("http2::SDKs, the observer started in mid-session", sdks_joined),
    ("http2::curl with prior knowledge", curl_knows),
    ("http2::curl, which offers to upgrade", curl_offers),
    ("http2::curl, which upgrades", curl_upgrades),
    ("http2::nghttp, which upgrades", nghttp),
    ("http2::h2load, many at once", h2load_at_once),
    ("http2::h2load, the observer started in mid-connection", h2load_joined),
    ("http2::nginx as a server", nginx_serves),
    ("http2::nginx before a server", nginx_relays),
    (
        "http2::nginx before a server, the observer started in mid-connection",
        nginx_joined,
    ),
];

/// How many of them need the SDKs alone.
const OF_SDKS: usize = 3;

/// What can be run there.
pub(super) fn tests(place: Place) -> &'static [Test] {
    match place {
        Place::Native => TESTS,
        Place::Vm => &TESTS[..OF_SDKS],
    }
}

/// Each client and each server at least once, both eras.
fn pairs() -> Vec<Pair> {
    [
        (Client::Py23, Server::Py23),
        (Client::Py23Legacy, Server::NodeV2),
        (Client::Rmcp, Server::Rmcp),
        (Client::RmcpLegacy, Server::Py23),
        (Client::Py23, Server::Rmcp),
    ]
    .map(|(client, server)| Pair::new(client, server, Transport::Http2))
    .into()
}

fn sdks_joined(stage: &Stage) -> Result<()> {
    let mut all = pairs()
        .into_iter()
        .map(|pair| stage.start(pair, "session", stage.lab.stretch(150)))
        .collect::<Result<Vec<Running>>>()?;
    for running in &all {
        let under_way = || (Truth::read(&running.truth).ok()?.answered() > 4).then_some(());
        wait_until(stage.lab.limit(30), under_way).context("a session did not get under way")?;
    }
    let observer = stage.observe(&[])?;
    for running in &mut all {
        running.client.finish(stage.lab.limit(60))?;
    }
    let rules = since(observer.ready_ns);
    let accounts: Vec<Account> = all.iter().map(|running| running.account(rules)).collect();
    ensure_enough_after(&accounts, observer.ready_ns)?;
    stage.settle(observer, &accounts)
}

pub(super) fn since(ready_ns: u64) -> Rules {
    Rules {
        since_ns: Some(ready_ns),
        ..Rules::default()
    }
}

/// A test of what is seen from the middle on proves nothing of sessions that were over.
pub(super) fn ensure_enough_after(accounts: &[Account], ready_ns: u64) -> Result<()> {
    for account in accounts {
        let truth = Truth::read(&account.truth)?;
        let after = truth.calls.iter().filter(|call| call.start_ns >= ready_ns).count();
        ensure!(
            after >= 5,
            "it ended too early: {after} calls after the observer was ready"
        );
    }
    Ok(())
}

fn curl_knows(stage: &Stage) -> Result<()> {
    let server = serve(stage)?;
    let observer = stage.observe(&[])?;
    let accounts = curl_calls(stage, &server.url)?;
    stage.settle(observer, &accounts)
}

/// The server refuses to change the protocol of a request that has a body: HTTP/1.1 remains.
fn curl_offers(stage: &Stage) -> Result<()> {
    curl_on_one(stage, Vec::new())
}

/// A request without a body takes the connection over to HTTP/2, on which the calls follow.
fn curl_upgrades(stage: &Stage) -> Result<()> {
    let get = ["-sS", "--http2", "-H", "accept: text/event-stream", "{url}", "--next"];
    curl_on_one(stage, get.map(str::to_owned).into())
}

/// Calls of one curl on one connection, after other `words`.
fn curl_on_one(stage: &Stage, mut words: Vec<String>) -> Result<()> {
    let server = serve(stage)?;
    let observer = stage.observe(&[])?;
    for id in IDS {
        words.extend(curl_words("--http2", id, &server.url));
        words.push("--next".to_owned());
    }
    words.pop();
    let words: Vec<String> = words
        .into_iter()
        .map(|word| word.replace("{url}", &server.url))
        .collect();
    let told = run(stage, "curl", &words)?;
    let answers = told.said.matches("\"result\"").count();
    ensure!(answers == IDS.count(), "{answers} answers: {}", told.said);
    let account = told.account(stage, IDS)?;
    stage.settle(observer, &[account])
}

fn nghttp(stage: &Stage) -> Result<()> {
    let server = serve(stage)?;
    let observer = stage.observe(&[])?;
    let body = body_file(stage)?;
    let words = [&["-u".to_owned()][..], &fields(), &["-d".to_owned(), body, server.url]].concat();
    let told = run(stage, "nghttp", &words)?;
    ensure!(told.said.contains("\"result\""), "it was not answered: {}", told.said);
    let account = told.account(stage, ID..=ID)?;
    stage.settle(observer, &[account])
}

fn h2load_at_once(stage: &Stage) -> Result<()> {
    let server = serve(stage)?;
    let observer = stage.observe(&[])?;
    let account = h2load_calls(stage, &["-n200", "-c4", "-m10"], 200, &server.url)?;
    stage.settle(observer, &[account])
}

fn h2load_joined(stage: &Stage) -> Result<()> {
    let server = serve(stage)?;
    let (observer, account) = joined(stage, &server.url)?;
    stage.settle(observer, &[account])
}

/// nginx gives the answers itself, by its own encoder of fields.
fn nginx_serves(stage: &Stage) -> Result<()> {
    let nginx = Nginx::start(stage, "")?;
    let observer = stage.observe(&[])?;
    let account = h2load_calls(stage, &["-n400", "-c4", "-m20"], 400, &nginx.url("answer"))?;
    stage.settle(observer, &[account])
}

/// HTTP/2 to nginx, HTTP/1.1 from there on: every call is seen on both, each time by who makes it.
fn nginx_relays(stage: &Stage) -> Result<()> {
    let pair = Pair::new(Client::Py23, Server::Py23, Transport::Http);
    let upstream = stage.listen(pair)?;
    let nginx = Nginx::start(stage, &upstream.url)?;
    let observer = stage.observe(&[])?;
    let truth = stage.lab.file("truth.jsonl");
    let task = Task {
        pair: Pair::new(Client::Py23, Server::Py23, Transport::Http2),
        scenario: "basic",
        calls: 0,
        truth: &truth,
        protocol: None,
        url: Some(&nginx.url("mcp")),
        trust: None,
    };
    stage
        .peers()
        .client(&task, stage.lab.file("client.log"))?
        .finish(stage.lab.limit(30))?;
    let mut accounts = vec![Account {
        truth,
        rules: Rules::default(),
    }];
    accounts.extend(curl_calls(stage, &nginx.url("mcp"))?);
    accounts.push(nginx.second_leg(stage, &accounts)?);
    stage.settle(observer, &accounts)
}

fn nginx_joined(stage: &Stage) -> Result<()> {
    let pair = Pair::new(Client::Py23, Server::Py23, Transport::Http);
    let upstream = stage.listen(pair)?;
    let nginx = Nginx::start(stage, &upstream.url)?;
    let (observer, account) = joined(stage, &nginx.url("mcp"))?;
    let mut accounts = vec![account];
    accounts.push(nginx.second_leg(stage, &accounts)?);
    stage.settle(observer, &accounts)
}

/// The Python SDK behind hypercorn.
fn serve(stage: &Stage) -> Result<Listening> {
    let pair = Pair::new(Client::Py23, Server::Py23, Transport::Http2);
    stage.listen(pair)
}

/// Calls on one connection, one after another, and an observer that begins while they go on.
fn joined(stage: &Stage, url: &str) -> Result<(crate::observer::Observer, Account)> {
    let calls = stage.lab.stretch(160);
    let log = stage.lab.file("h2load.log");
    let words = load_words(
        stage,
        &[&format!("-n{calls}"), "-c1", "-m1", "--rps=20"],
        &[("--log-file", &log)],
        url,
    )?;
    let begun = monotonic_ns();
    let mut program = start(stage, "h2load", &words)?;
    sleep(stage.lab.limit(1));
    let observer = stage.observe(&[])?;
    program.finish(stage.lab.limit(60))?;
    ensure_all_good(&program, calls)?;
    let truth = Truth {
        pid: program.pid(),
        calls: logged(&log, begun)?,
        bytes: None,
    };
    ensure!(truth.calls.len() == calls, "{} calls are in its log", truth.calls.len());
    let account = write(stage, &truth, since(observer.ready_ns))?;
    ensure_enough_after(std::slice::from_ref(&account), observer.ready_ns)?;
    Ok((observer, account))
}

/// What h2load notes of each request: when it began on the wall clock, its status, how long it took; in microseconds.
fn logged(log: &Path, begun: u64) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    for line in fs::read_to_string(log)?.lines() {
        let numbers: Vec<u64> = line.split('\t').map_while(|field| field.parse().ok()).collect();
        let [start, 200, took] = numbers[..] else {
            anyhow::bail!("a request that was not answered well: {line}");
        };
        // What is cut off of a time is less than a microsecond at each end.
        let start_ns = (start * 1000).saturating_sub(wall_lead_ns()).max(begun);
        calls.push(told(ID, start_ns, start_ns + (took + 2) * 1000));
    }
    calls.sort_by_key(|call| call.start_ns);
    Ok(calls)
}

/// A curl for each call: with prior knowledge it cannot use a connection again (7.88).
fn curl_calls(stage: &Stage, url: &str) -> Result<Vec<Account>> {
    let call = |id| {
        let told = run(stage, "curl", &curl_words("--http2-prior-knowledge", id, url))?;
        ensure!(told.said.contains("\"result\""), "it was not answered: {}", told.said);
        told.account(stage, id..=id)
    };
    IDS.map(call).collect()
}

fn curl_words(how: &str, id: u64, url: &str) -> Vec<String> {
    let words = ["-sS", how, "-d", &call(id).to_string()].map(str::to_owned);
    [&words[..], &fields(), &[url.to_owned()]].concat()
}

fn h2load_calls(stage: &Stage, options: &[&str], calls: usize, url: &str) -> Result<Account> {
    let begun = monotonic_ns();
    let mut program = start(stage, "h2load", &load_words(stage, options, &[], url)?)?;
    program.finish(stage.lab.limit(60))?;
    ensure_all_good(&program, calls)?;
    // Many at once have no order of their own, so that each is given the time of all.
    let truth = Truth {
        pid: program.pid(),
        calls: vec![told(ID, begun, monotonic_ns()); calls],
        bytes: None,
    };
    write(stage, &truth, Rules::default())
}

fn load_words(stage: &Stage, options: &[&str], files: &[(&str, &Path)], url: &str) -> Result<Vec<String>> {
    let mut words: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    words.extend(
        files
            .iter()
            .map(|(option, file)| format!("{option}={}", file.display())),
    );
    words.extend(fields());
    words.extend(["-d".to_owned(), body_file(stage)?, url.to_owned()]);
    Ok(words)
}

fn ensure_all_good(h2load: &Program, calls: usize) -> Result<()> {
    let (said, all) = (h2load.said(), format!("status codes: {calls} 2xx"));
    ensure!(said.contains(&all), "not {all}: {said}");
    Ok(())
}

/// The id of calls that a program repeats.
const ID: u64 = 7;

/// Those of calls that each have their own.
pub(super) const IDS: RangeInclusive<u64> = 1..=6;

/// A call that needs no session.
pub(super) fn call(id: u64) -> Value {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "program", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({"name": "add", "arguments": {"a": id, "b": 2}, "_meta": meta});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

/// The fields that go with it.
pub(super) const FIELDS: [&str; 5] = [
    "content-type: application/json",
    "accept: application/json, text/event-stream",
    "mcp-protocol-version: 2026-07-28",
    "mcp-method: tools/call",
    "mcp-name: add",
];

/// The fields as words of a command.
fn fields() -> Vec<String> {
    let words = |field: &&str| ["-H".to_owned(), (*field).to_owned()];
    FIELDS.iter().flat_map(words).collect()
}

fn body_file(stage: &Stage) -> Result<String> {
    let file = stage.lab.file("body.json");
    fs::write(&file, call(ID).to_string())?;
    Ok(file.to_string_lossy().into_owned())
}

/// What a program that ended well did.
pub(super) struct Ran {
    pid: u32,
    start_ns: u64,
    end_ns: u64,
    pub(super) said: String,
}

impl Ran {
    /// The account of calls that it made somewhere in its life.
    pub(super) fn account(&self, stage: &Stage, ids: RangeInclusive<u64>) -> Result<Account> {
        let calls = ids.map(|id| told(id, self.start_ns, self.end_ns));
        let truth = Truth {
            pid: self.pid,
            calls: calls.collect(),
            bytes: None,
        };
        write(stage, &truth, Rules::default())
    }
}

pub(super) fn start(stage: &Stage, name: &str, words: &[String]) -> Result<Program> {
    let mut command = Command::new(stage.peers().path(&format!("bin/{name}")));
    command.args(words);
    Program::start(command, Some(&stage.cgroup), stage.lab.file(&format!("{name}.out")))
}

fn run(stage: &Stage, name: &str, words: &[String]) -> Result<Ran> {
    let start_ns = monotonic_ns();
    ran(stage, start(stage, name, words)?, start_ns)
}

/// Waits for the end of what was started at that time.
pub(super) fn ran(stage: &Stage, mut program: Program, start_ns: u64) -> Result<Ran> {
    program.finish(stage.lab.limit(30))?;
    Ok(Ran {
        pid: program.pid(),
        start_ns,
        end_ns: monotonic_ns(),
        said: program.said(),
    })
}

fn told(id: u64, start_ns: u64, end_ns: u64) -> Call {
    Call {
        method: "tools/call".to_owned(),
        name: Some("add".to_owned()),
        id: json!(id),
        optional: false,
        start_ns,
        end: Some(End {
            outcome: "ok".to_owned(),
            rpc_code: None,
            http_status: Some(200),
            end_ns,
        }),
    }
}

fn write(stage: &Stage, truth: &Truth, rules: Rules) -> Result<Account> {
    let file = stage.lab.file("truth.jsonl");
    truth.write(&file)?;
    Ok(Account { truth: file, rules })
}

/// nginx with one worker: `/answer` it answers itself, all else it hands on.
pub(super) struct Nginx {
    program: Program,
    port: u16,
}

impl Nginx {
    fn start(stage: &Stage, upstream: &str) -> Result<Self> {
        Self::listening(stage, "http2", upstream)
    }

    /// Starts it: `manner` is what follows the address that it listens on.
    pub(super) fn listening(stage: &Stage, manner: &str, upstream: &str) -> Result<Self> {
        let (port, folder) = (free_port()?, stage.lab.file("nginx"));
        fs::create_dir_all(&folder)?;
        let answer = json!({
            "jsonrpc": "2.0", "id": ID,
            "result": {"resultType": "complete", "content": [{"type": "text", "text": "9"}]},
        });
        let upstream = upstream.trim_end_matches("/mcp");
        let relay = if upstream.is_empty() {
            String::new()
        } else {
            format!("location / {{ proxy_pass {upstream}; proxy_http_version 1.1; proxy_buffering off; }}")
        };
        let parts = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let places: Vec<String> = parts.iter().map(|part| format!("{part}_temp_path {part};")).collect();
        let config = format!(
            "daemon off; user root; worker_processes 1; pid nginx.pid; error_log stderr;\n\
             events {{}}\n\
             http {{\n  access_log off; {}\n  server {{\n    listen 127.0.0.1:{port} {manner};\n    \
             location = /answer {{ default_type application/json; return 200 '{answer}'; }}\n    {relay}\n  }}\n}}\n",
            places.join(" ")
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, config)?;
        let words = [
            "-e",
            "stderr",
            "-p",
            &folder.to_string_lossy(),
            "-c",
            &file.to_string_lossy(),
        ]
        .map(str::to_owned);
        let program = start(stage, "nginx", &words)?;
        let listens = || TcpStream::connect(("127.0.0.1", port)).ok();
        wait_until(stage.lab.limit(10), listens)
            .with_context(|| format!("nginx does not listen: {}", program.said()))?;
        Ok(Self { program, port })
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// The same through TLS.
    pub(super) fn https_url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/{path}", self.port)
    }

    /// What it handed on, as an account of its own: the same calls, within the same times, made by its worker.
    pub(super) fn second_leg(&self, stage: &Stage, accounts: &[Account]) -> Result<Account> {
        let worker = stage
            .children(self.program.pid())
            .first()
            .copied()
            .context("nginx has no worker")?;
        let mut truth = Truth {
            pid: u32::try_from(worker)?,
            ..Truth::default()
        };
        for account in accounts {
            truth.calls.extend(Truth::read(&account.truth)?.calls);
        }
        write(stage, &truth, accounts[0].rules)
    }
}

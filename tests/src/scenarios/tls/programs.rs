//! Programs of the machine's Debian through TLS: curl, wget, NSS's own client, nginx.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::super::Stage;
use super::super::http2::{FIELDS, IDS, Nginx, call, ran, start};
use super::{serve_by_script, wait_for, whole};
use crate::certificate::Certificate;
use crate::clock::{monotonic_ns, wait_until};
use crate::peer::{Client, Listening, Pair, Program, Server, Task, Transport};

pub(super) fn not_mcp(stage: &Stage) -> Result<()> {
    let server = serve_by_script(stage, "json")?;
    let observer = stage.observe(&[])?;
    wait_for(stage, &observer, "openssl", "attached", 1)?;
    let url = &server.url;
    let trust = server.certificate.as_ref().context("a server without a certificate")?;
    let trust = trust.to_string_lossy();
    let post: &[&str] = &["-d", r#"{"id": 1, "method": "list"}"#];
    for what in [post, &[]] {
        let words = [&["-sS", "--cacert", &trust], what, &[url, url]].concat();
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let mut curl = start(stage, "curl", &words)?;
        curl.finish(stage.lab.limit(30))?;
        let said = curl.said();
        ensure!(said.contains("\"id\": 1"), "it was not answered: {said}");
    }
    let taken = || observer.metric("mcp_observer_records_total", "source=\"tls\"").ok();
    let some = || taken().filter(|records| *records > 0.0);
    wait_until(stage.lab.limit(5), some).context("nothing was seen through TLS")?;
    stage.settle(observer, &[])
}

/// wget, a process for each call.
pub(super) fn gnutls(stage: &Stage) -> Result<()> {
    let server = serve_by_script(stage, "late")?;
    let observer = stage.observe(&[])?;
    wait_for(stage, &observer, "openssl", "attached", 1)?;
    // The library is given its probes when a first process has it: one that waits for an answer.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let nobody = format!("http://{}/", silent.local_addr()?);
    let mut first = start(stage, "wget", &["-q".to_owned(), nobody])?;
    wait_for(stage, &observer, "gnutls", "attached", 1)?;
    let mut accounts = Vec::new();
    for id in IDS {
        let mut words = ["-q", "-O", "-", "--no-check-certificate", "--post-data"]
            .map(str::to_owned)
            .to_vec();
        words.push(call(id).to_string());
        words.extend(FIELDS.iter().map(|field| format!("--header={field}")));
        words.push(server.url.clone());
        let start_ns = monotonic_ns();
        let told = ran(stage, start(stage, "wget", &words)?, start_ns)?;
        ensure!(told.said.contains("\"result\""), "it was not answered: {}", told.said);
        accounts.push(told.account(stage, id..=id)?);
    }
    first.kill()?;
    stage.settle(observer, &accounts)
}

/// All calls on one connection without a wait for answers, and files that are no socket: what it sends it reads from one.
pub(super) fn nss(stage: &Stage) -> Result<()> {
    let server = serve_by_script(stage, "late")?;
    let observer = stage.observe(&[])?;
    wait_for(stage, &observer, "openssl", "attached", 1)?;
    // The library is given its probes when a first process has it.
    let waits = stage.lab.file("nothing");
    ensure!(
        Command::new("mkfifo").arg(&waits).status()?.success(),
        "no pipe can be made"
    );
    let mut first = tstclnt(stage, &server, &waits)?;
    wait_for(stage, &observer, "nss", "attached", 1)?;
    let requests: Vec<u8> = IDS.flat_map(|id| request(id, id == *IDS.end())).collect();
    let input = stage.lab.file("requests");
    fs::write(&input, requests)?;
    let start_ns = monotonic_ns();
    let second = ran(stage, tstclnt(stage, &server, &input)?, start_ns)?;
    first.kill()?;
    let answers = second.said.matches("\"result\"").count();
    ensure!(answers == IDS.count(), "{answers} answers: {}", second.said);
    stage.settle(observer, &[second.account(stage, IDS)?])
}

fn tstclnt(stage: &Stage, server: &Listening, input: &Path) -> Result<Program> {
    let port = server.url.split([':', '/']).find(|word| word.parse::<u16>().is_ok());
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" -D -o -h 127.0.0.1 -p \"$1\" <>\"$2\""]);
    command.arg(stage.peers().path("bin/tstclnt"));
    command.arg(port.context("a server without a port")?).arg(input);
    Program::start(command, Some(&stage.cgroup), stage.lab.file("tstclnt.out"))
}

fn request(id: u64, last: bool) -> Vec<u8> {
    let body = call(id).to_string();
    let end = if last { "close" } else { "keep-alive" };
    let fields = FIELDS.join("\r\n");
    let length = body.len();
    format!("POST /mcp HTTP/1.1\r\nhost: localhost\r\n{fields}\r\nconnection: {end}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// TLS to nginx, clear from there on: every call is seen on both, each time by who makes it.
pub(super) fn nginx_relays(stage: &Stage) -> Result<()> {
    let pair = Pair::new(Client::Py23, Server::Py23, Transport::Http);
    let upstream = stage.listen(pair)?;
    let certificate = Certificate::create(&stage.lab.file("nginx.pem"))?;
    let manner = format!(
        "ssl; ssl_certificate {}; ssl_certificate_key {}",
        certificate.file.display(),
        certificate.key.display()
    );
    let nginx = Nginx::listening(stage, &manner, &upstream.url)?;
    let observer = stage.observe(&[])?;
    // The master has the library too.
    wait_for(stage, &observer, "openssl", "attached", 2)?;
    let truth = stage.lab.file("truth.jsonl");
    let task = Task {
        pair: Pair::new(Client::Py23, Server::Py23, Transport::Https),
        scenario: "basic",
        calls: 0,
        truth: &truth,
        protocol: None,
        url: Some(&nginx.https_url("mcp")),
        trust: Some(&certificate.file),
    };
    let mut client = stage.peers().client(&task, stage.lab.file("client.log"))?;
    client.finish(stage.lab.limit(30))?;
    let mut accounts = vec![whole(&truth)];
    accounts.push(nginx.second_leg(stage, &accounts)?);
    stage.settle(observer, &accounts)
}

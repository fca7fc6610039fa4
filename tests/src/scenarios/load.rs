//! Many at once, much at once, and a call that takes its time.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Account, Running, Stage, Test};
use crate::compare::Rules;
use crate::peer::{Client, Pair, Program, Server, Transport, free_port};

pub(super) const TESTS: &[Test] = &[
    ("load::200 clients with equal ids on pipes", equal_ids_on_pipes),
    ("load::200 clients with equal ids on HTTP", equal_ids_on_http),
    ("load::50 calls at once on one session", parallel),
    ("load::results of 300 KB and 10 MB", large),
    ("load::a call of 40 s", slow),
];

/// The SDKs, each with itself.
pub(super) const SELVES: [(Client, Server); 5] = [
    (Client::Py23, Server::Py23),
    (Client::Py130, Server::Py130),
    (Client::NodeSdk, Server::NodeSdk),
    (Client::NodeV2, Server::NodeV2),
    (Client::Rmcp, Server::Rmcp),
];

fn equal_ids_on_pipes(stage: &Stage) -> Result<()> {
    equal_ids(stage, None)
}

fn equal_ids_on_http(stage: &Stage) -> Result<()> {
    let port = free_port()?.to_string();
    let _server = stage.tiny(&["tiny-server", "--port", &port])?;
    sleep(stage.lab.limit(1) / 4);
    equal_ids(stage, Some(&port))
}

/// Every client uses the ids 0 to 10, all at the same time.
fn equal_ids(stage: &Stage, port: Option<&str>) -> Result<()> {
    let observer = stage.observe(&[])?;
    let mut clients: Vec<(Program, Account)> = Vec::new();
    for _ in 0..200 {
        let truth = stage.lab.file("truth.jsonl");
        let path = truth.to_string_lossy().into_owned();
        let mut words = vec!["tiny-client", "--truth", &path, "--calls", "10", "--pause-ms", "100"];
        words.extend(port.iter().flat_map(|port| ["--port", port]));
        clients.push((
            stage.tiny(&words)?,
            Account {
                truth,
                rules: Rules::default(),
            },
        ));
    }
    for (client, _) in &mut clients {
        client.finish(stage.lab.limit(60))?;
    }
    let accounts: Vec<Account> = clients.into_iter().map(|(_, account)| account).collect();
    stage.settle(observer, &accounts)
}

pub(super) fn together(stage: &Stage, scenario: &str, calls: usize, pairs: &[Pair], limit: Duration) -> Result<()> {
    let observer = stage.observe(&[])?;
    let mut all = pairs
        .iter()
        .map(|pair| stage.start(*pair, scenario, calls))
        .collect::<Result<Vec<Running>>>()?;
    for running in &mut all {
        running.client.finish(limit)?;
    }
    let accounts: Vec<Account> = all.iter().map(|running| running.account(Rules::default())).collect();
    stage.settle(observer, &accounts)
}

fn selves(transports: &[Transport]) -> Vec<Pair> {
    let pair = |transport: &Transport| SELVES.map(|(client, server)| Pair::new(client, server, *transport));
    transports.iter().flat_map(pair).collect()
}

fn parallel(stage: &Stage) -> Result<()> {
    together(
        stage,
        "parallel",
        50,
        &selves(&[Transport::Stdio, Transport::Http]),
        stage.lab.limit(60),
    )
}

fn large(stage: &Stage) -> Result<()> {
    large_results(stage, &selves(&[Transport::Stdio, Transport::Http]))
}

/// One pair at a time, so that what is lost is lost to size and not to a crowd.
/// The ring holds two of the largest results, so that nothing depends on when the observer gets its turn.
pub(super) fn large_results(stage: &Stage, pairs: &[Pair]) -> Result<()> {
    let observer = stage.observe(&["--ring-bytes", "33554432"])?;
    let mut accounts = Vec::new();
    for pair in pairs {
        let mut running = stage.start(*pair, "large", 0)?;
        running.client.finish(stage.lab.limit(60))?;
        accounts.push(running.account(Rules::default()));
    }
    let resident = observer.resident()?;
    ensure!(resident < 512 << 20, "the observer holds {} MiB", resident >> 20);
    stage.settle(observer, &accounts)
}

fn slow(stage: &Stage) -> Result<()> {
    let pairs = [
        Pair::new(Client::Py23, Server::Py23, Transport::Stdio),
        Pair::new(Client::Py130, Server::Py130, Transport::Http),
        Pair::new(Client::NodeSdk, Server::NodeSdk, Transport::Sse),
        Pair::new(Client::NodeV2, Server::NodeV2, Transport::Http),
    ];
    together(stage, "slow:40", 0, &pairs, stage.lab.limit(90))
}

//! Ends and beginnings: clients, servers and the daemon itself, killed, stopped, late, or short-lived.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::load::SELVES;
use super::{Account, Running, Stage, Test};
use crate::clock::wait_until;
use crate::compare::Rules;
use crate::lab::Lab;
use crate::observer::{Observer, probes_of_the_kernel};
use crate::peer::{Client, Pair, Program, Server, Transport};
use crate::record::Record;
use crate::truth::Truth;

pub(super) const TESTS: &[Test] = &[
    ("lives::a client killed in mid-call (stdio)", |stage| {
        client_killed(stage, Transport::Stdio)
    }),
    ("lives::a client killed in mid-call (http)", |stage| {
        client_killed(stage, Transport::Http)
    }),
    ("lives::a server killed in mid-call (stdio)", |stage| {
        server_killed(stage, Transport::Stdio)
    }),
    ("lives::a server killed in mid-call (http)", |stage| {
        server_killed(stage, Transport::Http)
    }),
    ("lives::a server that ends in mid-call", server_crashes),
    ("lives::the observer started in mid-session", mid_session),
    ("lives::one end out of scope for a while", out_of_scope),
    (
        "lives::another program comes to a kernel function in mid-call",
        other_program,
    ),
    ("lives::a thousand stdio servers in a row", thousand_servers),
    ("lives::SIGTERM under load", stopped_under_load),
    ("lives::kill -9 of the observer", observer_killed),
];

fn start_selves(stage: &Stage, transport: Transport, scenario: &str, calls: usize) -> Result<Vec<Running>> {
    SELVES
        .into_iter()
        .map(|(client, server)| stage.start(Pair::new(client, server, transport), scenario, calls))
        .collect()
}

/// Waits until every client's newest call is on its way to a server that will not answer it.
fn all_in_mid_call(lab: &Lab, all: &[Running]) -> Result<()> {
    for running in all {
        let open = || {
            let truth = Truth::read(&running.truth).ok()?;
            let last = truth.calls.last()?;
            (last.method == "tools/call" && last.end.is_none()).then_some(())
        };
        wait_until(lab.limit(30), open).context("a client never made its call")?;
    }
    sleep(lab.limit(1) / 2);
    Ok(())
}

/// Before 2026 a closed HTTP stream ends no call: the server may close it and the client resume. Such a call is unanswered.
fn gone_or_unanswered(transport: Transport, gone: &'static [&'static str]) -> &'static [&'static str] {
    if transport == Transport::Stdio {
        &gone[..1]
    } else {
        gone
    }
}

fn client_killed(stage: &Stage, transport: Transport) -> Result<()> {
    // Long enough for all to be killed before it, short enough to be waited for where nothing else ends a call.
    let deadline = stage.lab.limit(12).as_secs().to_string();
    let observer = stage.observe(&["--call-deadline", &deadline])?;
    let mut all = start_selves(stage, transport, "hang", 0)?;
    all_in_mid_call(&stage.lab, &all)?;
    for running in &mut all {
        running.client.kill()?;
    }
    let unanswered_as = gone_or_unanswered(transport, &["client_gone", "unanswered"]);
    let rules = Rules {
        unanswered_as,
        ..Rules::default()
    };
    let accounts: Vec<Account> = all.iter().map(|running| running.account(rules)).collect();
    stage.settle(observer, &accounts)
}

fn server_killed(stage: &Stage, transport: Transport) -> Result<()> {
    let observer = stage.observe(&[])?;
    let mut all = start_selves(stage, transport, "hang", 0)?;
    all_in_mid_call(&stage.lab, &all)?;
    for running in &mut all {
        match &mut running.server {
            Some(server) => server.kill()?,
            None => {
                for server in stage.children(running.client.pid()) {
                    // SAFETY: a signal to a child of a process that this test started.
                    unsafe { libc::kill(server, libc::SIGKILL) };
                }
            }
        }
    }
    // Clients may wait for the server to come back; what they say is settled before they are killed.
    sleep(stage.lab.limit(1));
    let rules = Rules {
        unanswered_as: &["server_gone"],
        made_up: Some("rpc_error"),
        ..Rules::default()
    };
    let accounts: Vec<Account> = all.iter().map(|running| running.account(rules)).collect();
    stage.settle(observer, &accounts)
}

fn server_crashes(stage: &Stage) -> Result<()> {
    let observer = stage.observe(&[])?;
    let mut all = start_selves(stage, Transport::Stdio, "crash", 0)?;
    for running in &mut all {
        // A client may end badly after its server did.
        let _ = running.client.finish(stage.lab.limit(30));
    }
    let rules = Rules {
        unanswered_as: &["server_gone"],
        ..Rules::default()
    };
    let accounts: Vec<Account> = all.iter().map(|running| running.account(rules)).collect();
    stage.settle(observer, &accounts)
}

/// The client waits for its answer while another observer's programs come and go. Where the kernel then leaves out the programs at its
/// return (the function backend on 6.12, not on 7.3), that is counted.
fn other_program(stage: &Stage) -> Result<()> {
    let observer = stage.observe(&[])?;
    let truth = stage.lab.file("truth.jsonl");
    let path = truth.to_string_lossy().into_owned();
    let mut client = stage.tiny(&["tiny-client", "--truth", &path, "--calls", "10", "--pause-ms", "300"])?;
    let answered = || (Truth::read(&truth).ok()?.answered() > 2).then_some(());
    wait_until(stage.lab.limit(10), answered).context("the client got no answers")?;
    let servers = stage.children(client.pid());
    let signal = |signal| {
        for server in &servers {
            // SAFETY: a signal to a child of a process that this test started.
            unsafe { libc::kill(*server, signal) };
        }
    };
    signal(libc::SIGSTOP);
    sleep(stage.lab.limit(1));
    let came_and_went = stage.observe(&[]).and_then(Observer::stop);
    signal(libc::SIGCONT);
    came_and_went?;
    client.finish(stage.lab.limit(10))?;
    let rules = Rules::default();
    stage.settle(observer, &[Account { truth, rules }])
}

fn mid_session(stage: &Stage) -> Result<()> {
    // Those that take longest to begin come first, so that all end at about the same time.
    let pairs = [
        Pair::new(Client::Py130, Server::Py130, Transport::Http),
        Pair::new(Client::Py23Legacy, Server::NodeSdk, Transport::Sse),
        Pair::new(Client::NodeSdk, Server::NodeSdk, Transport::Http),
        Pair::new(Client::NodeSdk, Server::Everything, Transport::Stdio),
        Pair::new(Client::Py23, Server::Py23, Transport::Stdio),
        Pair::new(Client::Rmcp, Server::Rmcp, Transport::Stdio),
    ];
    let mut all = pairs
        .into_iter()
        .map(|pair| stage.start(pair, "session", stage.lab.stretch(100)))
        .collect::<Result<Vec<Running>>>()?;
    for running in &all {
        let under_way = || (Truth::read(&running.truth).ok()?.answered() > 4).then_some(());
        wait_until(stage.lab.limit(30), under_way).context("a session did not get under way")?;
    }
    let observer = stage.observe(&[])?;
    for running in &mut all {
        running.client.finish(stage.lab.limit(60))?;
    }
    let rules = Rules {
        since_ns: Some(observer.ready_ns),
        ..Rules::default()
    };
    let accounts: Vec<Account> = all.iter().map(|running| running.account(rules)).collect();
    for account in &accounts {
        let truth = Truth::read(&account.truth)?;
        let after = truth
            .calls
            .iter()
            .filter(|call| call.start_ns >= observer.ready_ns)
            .count();
        ensure!(
            after >= 5,
            "a session ended too early: {after} calls after the observer was ready"
        );
    }
    stage.settle(observer, &accounts)
}

/// What a server reads and writes meanwhile is seen at its client's end alone, and all at both ends when it is back, where it waits for
/// a request in a call that was not seen to begin.
fn out_of_scope(stage: &Stage) -> Result<()> {
    let observer = stage.observe(&[])?;
    let truth = stage.lab.file("truth.jsonl");
    let path = truth.to_string_lossy().into_owned();
    let words = ["tiny-client", "--truth", &path, "--calls", "15", "--pause-ms", "300"];
    let mut client = stage.tiny(&words)?;
    let answered = |calls: usize| {
        let enough = || (Truth::read(&truth).ok()?.answered() >= calls).then_some(());
        wait_until(stage.lab.limit(30), enough).context("the client does not go on")
    };
    answered(5)?;
    let server = *stage
        .children(client.pid())
        .first()
        .context("a client without a server")?;
    stage.cgroup.let_out(server)?;
    answered(10)?;
    stage.cgroup.take_in(server)?;
    let back = Truth::read(&truth)?.answered();
    client.finish(stage.lab.limit(60))?;
    let calls = Truth::read(&truth)?.calls.len();
    let records = observer
        .reader()
        .wait_for(&[(client.pid(), calls)], stage.lab.limit(10))?;
    // Its calls have the ids 0, 1, 2, … While one is read in the middle of the client's write, as the first may be and on a busy machine
    // the next, it is not known yet what was left out; from then on it is.
    let id = |record: &Record| record.mcp.request_id.as_ref()?.parse().ok();
    let at_both = records.iter().filter(|record| record.timing.queue_ms.is_some());
    let at_both: Vec<usize> = at_both.filter_map(id).filter(|id| *id >= back).collect();
    let first = at_both.iter().min();
    let first = *first.with_context(|| format!("none of the calls from {back} to {calls} was seen at both ends"))?;
    // Other tests' observers come to the same kernel functions meanwhile, whose calls in progress may then return unseen.
    let missing = calls - first - at_both.len();
    ensure!(
        observer.missed_returns(missing, stage.lab.limit(3))? >= missing,
        "call {first} was seen at both ends when it was back, and of {} from there on {}; {}",
        calls - first,
        at_both.len(),
        observer.unseen()
    );
    let account = Account {
        truth,
        rules: Rules::default(),
    };
    stage.settle(observer, &[account])
}

fn thousand_servers(stage: &Stage) -> Result<()> {
    let observer = stage.observe(&[])?;
    let (mut accounts, mut early) = (Vec::new(), 0);
    for number in 0..1000 {
        let truth = stage.lab.file("truth.jsonl");
        stage
            .tiny(&["tiny-client", "--truth", &truth.to_string_lossy()])?
            .finish(stage.lab.limit(30))?;
        accounts.push(Account {
            truth,
            rules: Rules::default(),
        });
        if number == 300 {
            early = observer.resident()?;
        }
    }
    let late = observer.resident()?;
    ensure!(
        late <= early + (4 << 20),
        "after 300 servers it held {} KiB, after 1,000 {} KiB",
        early >> 10,
        late >> 10
    );
    stage.settle(observer, &accounts)
}

fn stopped_under_load(stage: &Stage) -> Result<()> {
    let observer = stage.observe(&[])?;
    let mut busy = busy_clients(stage)?;
    sleep(stage.lab.limit(1));
    // `stop` asserts exit 0 within two seconds.
    let records = observer.stop()?;
    ensure!(!records.is_empty(), "it saw nothing");
    go_on(stage, &mut busy)
}

fn observer_killed(stage: &Stage) -> Result<()> {
    let observer = stage.observe(&[])?;
    let mut busy = busy_clients(stage)?;
    sleep(stage.lab.limit(1));
    let ours: HashSet<u32> = observer.probes()?;
    ensure!(!ours.is_empty(), "no probe of the observer was found");
    observer.kill()?;
    let gone = || ours.is_disjoint(&probes_of_the_kernel()).then_some(());
    wait_until(stage.lab.limit(10), gone).context("probes are left behind")?;
    go_on(stage, &mut busy)
}

fn busy_clients(stage: &Stage) -> Result<Vec<(Program, std::path::PathBuf)>> {
    let client = |_| {
        let truth = stage.lab.file("truth.jsonl");
        let words = [
            "tiny-client",
            "--truth",
            &truth.to_string_lossy(),
            "--calls",
            "1000000",
            "--bytes",
            "300",
            // Without a pause they starve the kernel's own threads on a small machine, whose work the end of a probe waits for.
            "--pause-ms",
            "1",
        ];
        Ok((stage.tiny(&words)?, truth.clone()))
    };
    (0..2).map(client).collect()
}

/// The programs make calls after the daemon is gone as they did before.
fn go_on(stage: &Stage, busy: &mut [(Program, std::path::PathBuf)]) -> Result<()> {
    for (client, truth) in busy {
        let before = Truth::read(truth)?.answered();
        sleep(Duration::from_millis(300).max(stage.lab.limit(1) / 4));
        ensure!(
            Truth::read(truth)?.answered() > before,
            "a client stands still since the observer is gone"
        );
        ensure!(client.ended().is_none(), "a client ended when the observer did");
        client.kill()?;
    }
    Ok(())
}

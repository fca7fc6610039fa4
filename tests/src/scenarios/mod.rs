//! The tests, and how one of them is set up: a control group, a daemon over it, programs in it, and the reckoning at the end.

mod addresses;
mod bad_input;
mod http2;
mod lives;
mod load;
mod overflow;
mod pairs;
mod refusals;
mod segments;
mod tls;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::RunArgs;
use crate::cgroup::Cgroup;
use crate::clock::wall_lead_ns;
use crate::compare::{Findings, Rules, compare, unclaimed};
use crate::lab::{Counts, Lab, Place};
use crate::observer::Observer;
use crate::peer::{Listening, Pair, Peers, Program, Task, Transport};
use crate::record::Record;
use crate::truth::Truth;

/// Runs the tests that the command line asks for.
pub(crate) fn run(args: RunArgs, place: Place) -> Result<ExitCode> {
    let (only, skip, list) = (args.only.clone(), args.skip.clone(), args.list);
    let lab = Arc::new(Lab::new(args, place)?);
    let wanted = |name: &str| {
        (only.is_empty() || only.iter().any(|part| name.contains(part)))
            && !skip.iter().any(|part| !part.is_empty() && name.contains(part))
    };
    let mut trials = pairs::trials(&lab, wanted);
    for (name, test) in [
        load::TESTS,
        lives::TESTS,
        overflow::TESTS,
        bad_input::TESTS,
        http2::tests(place),
        addresses::TESTS,
        segments::TESTS,
        refusals::TESTS,
        &tls::tests(place),
    ]
    .concat()
    {
        if wanted(name) {
            let lab = Arc::clone(&lab);
            trials.push(Trial::test(name, move || told(test(&Stage::new(&lab, name)?))));
        }
    }
    let arguments = Arguments {
        list,
        test_threads: Some(lab.jobs),
        ..Arguments::default()
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    lab.clear(!conclusion.has_failed());
    Ok(conclusion.exit_code())
}

/// A test: its name, and what it does on its stage.
type Test = (&'static str, fn(&Stage) -> Result<()>);

fn told(done: Result<()>) -> Result<(), Failed> {
    done.map_err(|error| Failed::from(format!("{error:#}")))
}

/// What one test has of its own.
pub(crate) struct Stage {
    pub(crate) lab: Arc<Lab>,
    name: String,
    pub(crate) cgroup: Cgroup,
}

/// A client's truth and what is expected of its records.
struct Account {
    truth: PathBuf,
    rules: Rules,
}

impl Account {
    /// Whether every call of the truth must be seen.
    fn is_whole(&self) -> bool {
        !self.rules.lossy && self.rules.since_ns.is_none()
    }
}

impl Stage {
    /// A stage with a control group of its own.
    pub(crate) fn new(lab: &Arc<Lab>, name: &str) -> Result<Self> {
        Ok(Self {
            lab: Arc::clone(lab),
            name: name.to_owned(),
            cgroup: Cgroup::create()?,
        })
    }

    /// Starts the observer over this stage.
    pub(crate) fn observe(&self, extra: &[&str]) -> Result<Observer> {
        Observer::start(&self.lab, &self.cgroup, extra)
    }

    fn peers(&self) -> Peers<'_> {
        Peers::new(&self.lab.peers, Some(&self.cgroup))
    }

    /// Processes on this stage that a process of it started. Not every kernel lists a process's children.
    fn children(&self, parent: u32) -> Vec<i32> {
        let is_child = |pid: &i32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let of = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            of.is_some_and(|of| of.trim() == parent.to_string())
        };
        self.cgroup.processes().into_iter().filter(is_child).collect()
    }

    /// Starts one of this program's own light peers.
    pub(crate) fn tiny(&self, words: &[&str]) -> Result<Program> {
        self.tiny_behind(&[], words)
    }

    /// The same behind a command that executes it.
    fn tiny_behind(&self, before: &[&str], words: &[&str]) -> Result<Program> {
        self.tiny_in(Some(&self.cgroup), before, words)
    }

    /// The same out of the observer's sight.
    fn tiny_elsewhere(&self, words: &[&str]) -> Result<Program> {
        self.tiny_in(None, &[], words)
    }

    fn tiny_in(&self, cgroup: Option<&Cgroup>, before: &[&str], words: &[&str]) -> Result<Program> {
        let this = std::env::current_exe()?.to_string_lossy().into_owned();
        let line = [before, &[&this], words].concat();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]);
        Program::start(command, cgroup, self.lab.file("tiny.log"))
    }

    /// Starts a client, over HTTP together with its server.
    pub(crate) fn start(&self, pair: Pair, scenario: &str, calls: usize) -> Result<Running> {
        let server = match pair.transport {
            Transport::Stdio => None,
            _ => Some(self.listen(pair)?),
        };
        let (client, truth) = self.client(pair, server.as_ref(), scenario, calls)?;
        Ok(Running {
            client,
            server: server.map(|server| server.program),
            truth,
        })
    }

    /// Starts a pair's server.
    fn listen(&self, pair: Pair) -> Result<Listening> {
        self.peers()
            .listen(pair, self.lab.file("server.log"), self.lab.limit(30))
    }

    /// Starts a pair's client, over HTTP at a server that listens; with it the file of its truth.
    fn client(
        &self,
        pair: Pair,
        server: Option<&Listening>,
        scenario: &str,
        calls: usize,
    ) -> Result<(Program, PathBuf)> {
        let truth = self.lab.file("truth.jsonl");
        let task = Task {
            pair,
            scenario,
            calls,
            truth: &truth,
            protocol: None,
            url: server.map(|server| server.url.as_str()),
            trust: server.and_then(|server| server.certificate.as_deref()),
        };
        let client = self.peers().client(&task, self.lab.file("client.log"))?;
        Ok((client, truth))
    }

    /// Waits until the daemon has told of all clients, stops it, and reckons.
    fn settle(&self, observer: Observer, accounts: &[Account]) -> Result<()> {
        let limit = self
            .lab
            .limit(if accounts.iter().all(Account::is_whole) { 10 } else { 3 });
        let mut expected = Vec::new();
        for account in accounts {
            let truth = Truth::read(&account.truth)?;
            expected.push((truth.pid, truth.calls.len()));
        }
        let records = observer.reader().wait_for(&expected, limit)?;
        let unknown = self.compare(&records, accounts)?.unknown.len();
        let missed = match unknown {
            0 => 0,
            _ => observer.missed_returns(unknown, self.lab.limit(3))?,
        };
        let unseen = observer.unseen();
        self.reckon(&observer.stop()?, accounts, missed).context(unseen)
    }

    /// Holds all records against all truths, adds the row to the matrix, and fails with a readable account of differences. Of as many
    /// calls as had `missed` returns the client's interval may be unknown.
    fn reckon(&self, records: &[Record], accounts: &[Account], missed: usize) -> Result<()> {
        let findings = self.compare(records, accounts)?;
        self.lab.note(
            &self.name,
            "-",
            findings.counts,
            findings.untruths(missed).next().is_none(),
        )?;
        agree(&findings, missed)
    }

    /// Holds all records against all truths.
    fn compare(&self, records: &[Record], accounts: &[Account]) -> Result<Findings> {
        let (mut all, mut clients) = (Findings::default(), Vec::new());
        for account in accounts {
            let truth = Truth::read(&account.truth)?;
            let rules = Rules {
                wall_lead_ns: wall_lead_ns(),
                ..account.rules
            };
            let findings = compare(&truth, records, &rules);
            let of_client = |line: String| format!("pid {}: {line}", truth.pid);
            all.counts += findings.counts;
            all.differences.extend(findings.differences.into_iter().map(of_client));
            all.unknown.extend(findings.unknown.into_iter().map(of_client));
            clients.push(truth.pid);
        }
        all.differences.extend(unclaimed(records, &clients));
        Ok(all)
    }
}

/// Fails with at most thirty differences.
fn agree(findings: &Findings, missed: usize) -> Result<()> {
    let Counts { made, seen } = findings.counts;
    let differences: Vec<&str> = findings.untruths(missed).collect();
    ensure!(
        differences.is_empty(),
        "{made} calls made, {seen} seen, {} differences:\n    {}",
        differences.len(),
        differences[..differences.len().min(30)].join("\n    ")
    );
    Ok(())
}

/// A client at work.
pub(crate) struct Running {
    pub(crate) client: Program,
    server: Option<Program>,
    pub(crate) truth: PathBuf,
}

impl Running {
    /// Its account, to be read when all is over.
    fn account(&self, rules: Rules) -> Account {
        Account {
            truth: self.truth.clone(),
            rules,
        }
    }
}

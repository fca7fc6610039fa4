//! Every client with every server over every transport, held against one daemon that watches them all.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use libtest_mimic::Trial;

use super::{Stage, agree, tls, told};
use crate::clock::{wait_until, wall_lead_ns};
use crate::compare::{Findings, Rules, compare, unclaimed};
use crate::lab::{Counts, Lab, Pairs};
use crate::observer::Observer;
use crate::peer::{Listening, Pair, Program, Transport};
use crate::truth::Truth;

const LAST: &str = "pairs::and no call besides";

/// The daemon that the pairs share, and how many pairs are still to come.
struct Shared {
    /// Programs of clients that call at once, and the TLS library in each.
    swift: BTreeSet<(&'static str, &'static str)>,
    /// The servers that listen, each for every pair that meets it: what takes longest of a pair is the start of its programs.
    servers: BTreeMap<Place, Mutex<Seat>>,
    state: Mutex<State>,
    done: Condvar,
}

/// A server's name and its transport's.
type Place = (&'static str, &'static str);

/// A server, while there are pairs to come that meet it.
#[derive(Default)]
struct Seat {
    pairs: usize,
    server: Option<Arc<Listening>>,
}

struct State {
    open: usize,
    clients: Vec<u32>,
    observer: Option<(Arc<Stage>, Observer)>,
    /// A process of each of those programs.
    idle: Vec<Program>,
    /// Processes that listen or are idle, by the TLS library in them.
    with_tls: BTreeMap<&'static str, u32>,
    /// Why it could not be started: the other pairs need not try again.
    refusal: Option<String>,
    /// Calls whose client's interval is unknown.
    unknown: usize,
}

/// A trial for each pair, and one that says that nothing else was seen.
pub(super) fn trials(lab: &Arc<Lab>, wanted: impl Fn(&str) -> bool) -> Vec<Trial> {
    let pairs = match lab.pairs {
        Pairs::Quick => Pair::quick(),
        Pairs::Each => Pair::each(),
        Pairs::All => Pair::all(),
    };
    let named = pairs
        .into_iter()
        .map(|pair| (format!("pairs::{} ({})", pair.name(), pair.transport.name()), pair));
    let chosen: Vec<(String, Pair)> = named.filter(|(name, _)| wanted(name)).collect();
    if chosen.is_empty() {
        return Vec::new();
    }
    let mut servers: BTreeMap<Place, Mutex<Seat>> = BTreeMap::new();
    for (_, pair) in chosen.iter().filter(|(_, pair)| pair.transport != Transport::Stdio) {
        locked(servers.entry(place(*pair)).or_default()).pairs += 1;
    }
    let state = State {
        open: chosen.len(),
        clients: Vec::new(),
        observer: None,
        idle: Vec::new(),
        with_tls: BTreeMap::new(),
        refusal: None,
        unknown: 0,
    };
    let shared = Arc::new(Shared {
        swift: chosen.iter().filter_map(|(_, pair)| pair.swift()).collect(),
        servers,
        state: Mutex::new(state),
        done: Condvar::new(),
    });
    let mut trials = Vec::new();
    for (name, pair) in chosen {
        let (lab, shared) = (Arc::clone(lab), Arc::clone(&shared));
        trials.push(Trial::test(name, move || {
            let result = run(&lab, &shared, pair);
            shared.leave(pair);
            shared.state().open -= 1;
            shared.done.notify_all();
            told(result)
        }));
    }
    trials.push(Trial::test(LAST, move || told(shared.nothing_else())));
    trials
}

fn place(pair: Pair) -> Place {
    (pair.server.name(), pair.transport.name())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// The server that a pair meets, if it listens anywhere; the first pair to come starts it.
    fn server(&self, stage: &Stage, pair: Pair) -> Result<Option<Arc<Listening>>> {
        let Some(seat) = self.servers.get(&place(pair)) else {
            return Ok(None);
        };
        let mut seat = locked(seat);
        if seat.server.is_none() {
            seat.server = Some(Arc::new(stage.listen(pair)?));
            if pair.transport.has_tls() {
                self.wait_for_probes(stage, pair.server.tls_library())?;
            }
        }
        Ok(seat.server.clone())
    }

    /// Waits until one more server has its probes; others may end meanwhile.
    fn wait_for_probes(&self, stage: &Stage, library: &'static str) -> Result<()> {
        *self.state().with_tls.entry(library).or_default() += 1;
        let labels = format!("library=\"{library}\",state=\"attached\"");
        let attached = || {
            let state = self.state();
            let (_, observer) = state.observer.as_ref()?;
            let processes = observer.metric("mcp_observer_tls_processes", &labels).ok()?;
            (processes >= f64::from(*state.with_tls.get(library)?)).then_some(())
        };
        wait_until(stage.lab.limit(20), attached).with_context(|| format!("a server has no probes on its {library}"))
    }

    /// A pair is done with its server, which ends with the last.
    fn leave(&self, pair: Pair) {
        if let Some(seat) = self.servers.get(&place(pair)) {
            let mut seat = locked(seat);
            seat.pairs -= 1;
            if seat.pairs == 0 && seat.server.take().is_some() && pair.transport.has_tls() {
                let mut state = self.state();
                *state.with_tls.entry(pair.server.tls_library()).or_default() -= 1;
            }
        }
    }

    /// The control group that the daemon watches; the first to ask starts it.
    fn stage(&self, lab: &Arc<Lab>) -> Result<Arc<Stage>> {
        let mut state = self.state();
        if let Some(refusal) = &state.refusal {
            bail!("the observer could not be started: {refusal}");
        }
        if let Some((stage, _)) = &state.observer {
            return Ok(Arc::clone(stage));
        }
        let stage = Arc::new(Stage::new(lab, "pairs")?);
        let observer = stage
            .observe(&[])
            .inspect_err(|error| state.refusal = Some(format!("{error:#}")))?;
        for (program, library) in &self.swift {
            let program = idle(&stage, &observer, program, library);
            let program = program.inspect_err(|error| state.refusal = Some(format!("{error:#}")))?;
            state.idle.push(program);
            *state.with_tls.entry(library).or_default() += 1;
        }
        state.observer = Some((Arc::clone(&stage), observer));
        Ok(stage)
    }

    /// How many of a pair's calls may have an unknown interval of their client, of those that have: as many of all pairs as the observer
    /// says that returns were left out.
    fn missed_returns(&self, lab: &Lab, unknown: usize) -> Result<usize> {
        let mut state = self.state();
        state.unknown += unknown;
        let (_, observer) = state.observer.as_ref().context("the observer is gone")?;
        if unknown == 0 || observer.missed_returns(state.unknown, lab.limit(3))? >= state.unknown {
            return Ok(unknown);
        }
        Ok(0)
    }

    fn nothing_else(&self) -> Result<()> {
        let state = self.done.wait_while(self.state(), |state| state.open > 0);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let (stage, observer) = state.observer.take().context("the observer never started")?;
        println!("{}", observer.unseen());
        let records = observer.stop()?;
        let differences = unclaimed(&records, &state.clients);
        let made = records.len() - differences.len().min(records.len());
        let findings = Findings {
            counts: Counts {
                made,
                seen: records.len(),
            },
            differences,
            unknown: Vec::new(),
        };
        stage
            .lab
            .note(LAST, "-", findings.counts, findings.differences.is_empty())?;
        agree(&findings, 0)
    }
}

/// Starts a process of a client's program and waits for its probes: a client in Go or Rust calls within a millisecond of its start,
/// when the probes of a program not met before are still being attached.
fn idle(stage: &Stage, observer: &Observer, program: &str, library: &str) -> Result<Program> {
    let mut command = Command::new(stage.peers().path(program));
    command.arg("idle");
    let log = stage.lab.file(&format!("idle-{library}.log"));
    let program = Program::start(command, Some(&stage.cgroup), log)?;
    tls::wait_for(stage, observer, library, "attached", 1)?;
    Ok(program)
}

fn run(lab: &Arc<Lab>, shared: &Shared, pair: Pair) -> Result<()> {
    let stage = shared.stage(lab)?;
    let server = shared.server(&stage, pair)?;
    let (mut client, truth) = stage.client(pair, server.as_deref(), "basic", 10)?;
    shared.state().clients.push(client.pid());
    client.finish(lab.limit(60))?;
    let truth = Truth::read(&truth)?;
    let records = {
        let state = shared.state();
        let (_, observer) = state.observer.as_ref().context("the observer is gone")?;
        observer.reader()
    };
    let records = records.wait_for(&[(truth.pid, truth.calls.len())], lab.limit(10))?;
    let rules = Rules {
        wall_lead_ns: wall_lead_ns(),
        ..Rules::default()
    };
    let findings = compare(&truth, &records, &rules);
    let missed = shared.missed_returns(lab, findings.unknown.len())?;
    lab.note(
        &pair.name(),
        pair.transport.name(),
        findings.counts,
        findings.untruths(missed).next().is_none(),
    )?;
    agree(&findings, missed).with_context(|| {
        let state = shared.state();
        match &state.observer {
            Some((_, observer)) => observer.unseen(),
            None => "the observer is gone".to_owned(),
        }
    })
}

//! Says who: turns the pids and addresses of observations into workloads, and servers into capabilities with a name.
//!
//! ```text
//! Observation -> [ hold until the server has a name ] -> Finding { who called, whom, under which labels }
//! ```

mod command;
mod container;
mod naming;
mod operation;
mod process;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use naming::{Naming, ServerKey};
use operation::{Operations, Proof};
use process::ProcessTable;

pub use operation::{OTHER, method_label};

use crate::protocol::event::{Event, Pid, Timestamp};
use crate::protocol::observation::{Observation, Parties, Party};

/// Namespace of everything on this node, and of servers elsewhere that have a name.
pub const HOST: &str = "host";

/// Namespace of a server on another machine without a name, and name of a caller on another machine.
pub const EXTERNAL: &str = "external";

/// The name of a process that was gone before anything could be learned of it.
pub const UNKNOWN: &str = "_unknown";

/// Bytes of a name that others chose.
const MAX_NAME: usize = 128;

/// One side of a conversation, as people know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Package, script or executable; never empty.
    pub name: String,
    /// `host` or `external`.
    pub namespace: String,
    /// Process id on this node.
    pub pid: Option<Pid>,
    /// Name of the process's first thread.
    pub comm: Option<String>,
    /// Path of the executable, as the process sees it.
    pub exe: Option<String>,
    /// Package or script that the command line names.
    pub package: Option<String>,
    /// `python`, `node`, … or `native`.
    pub runtime: Option<&'static str>,
    /// Clock ticks after boot at which the process began.
    pub start: Option<u64>,
    /// Effective user.
    pub uid: Option<u32>,
    /// Container id.
    pub container: Option<String>,
    /// Kubernetes pod.
    pub pod: Option<String>,
    /// Host name of this node, for its own processes.
    pub node: Option<Arc<str>>,
}

/// A server as people know it: the two labels that every family of metrics carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capability {
    /// Label `capability`.
    pub name: String,
    /// Label `namespace`.
    pub namespace: String,
}

/// What the sinks are told.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Something about a conversation.
    Report(Report),
    /// The end of a process that took part in conversations.
    Departure(Departure),
}

/// An observation and who took part in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What was seen; never a `PeerExit` or `PeerReplaced`.
    pub observation: Observation,
    /// The caller.
    pub client: Arc<Workload>,
    /// The one called.
    pub server: Arc<Workload>,
    /// Its name.
    pub capability: Arc<Capability>,
    /// The label `operation`; of observations that are no calls: the method's label, else empty.
    pub operation: Arc<str>,
}

/// See [`Finding::Departure`].
#[derive(Clone, Debug, PartialEq)]
pub struct Departure {
    /// Who ended.
    pub workload: Arc<Workload>,
    /// How.
    pub ending: Ending,
    /// When, where the kernel told.
    pub time: Option<Timestamp>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The kernel told; `code` as `wait(2)` has it.
    Exit {
        /// Status and signal.
        code: u32,
    },
    /// It became another program.
    Exec,
    /// It is gone; its end was not seen.
    Unseen,
}

/// Turns observations into findings.
///
/// Reads `/proc`, and nothing else of the world. Time comes in with each call.
#[derive(Debug)]
pub struct Enricher {
    processes: ProcessTable,
    naming: Naming,
    operations: Operations,
    findings: VecDeque<Finding>,
}

impl Enricher {
    /// An enricher that looks processes up in `proc` (`/proc`), or nowhere when they are those of another machine.
    #[must_use]
    pub fn new(proc: Option<PathBuf>) -> Self {
        Self {
            processes: ProcessTable::new(proc),
            naming: Naming::default(),
            operations: Operations::default(),
            findings: VecDeque::new(),
        }
    }

    /// Looks at an event on its way to the pipeline: who begins, ends, or moves bytes.
    pub fn glance(&mut self, event: &Event) {
        match event {
            Event::Process(process) => self.processes.handle_process(process),
            Event::Data(data) => self.processes.glimpse(data.pid),
            Event::Opened(opened) => self.processes.glimpse(opened.pid),
            Event::Closed(_) | Event::Holder(_) => {}
        }
    }

    /// Takes in an observation.
    pub fn handle_observation(&mut self, observation: Observation, now: Timestamp) {
        match observation {
            Observation::PeerExit { pid, code, time } => {
                let who = self.processes.get(pid);
                self.depart(who, Ending::Exit { code }, Some(time));
            }
            Observation::PeerReplaced { pid } => {
                if let Some(who) = self.processes.replaced(pid) {
                    self.depart(who, Ending::Exec, None);
                }
            }
            observation => self.handle_conversation(observation, now),
        }
    }

    /// Takes in that it is `now`: names the servers that have kept silent for long enough.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.processes.turn(now);
        for pid in self.processes.vanished(now) {
            let who = self.processes.get(pid);
            self.depart(who, Ending::Unseen, None);
        }
        for key in self.naming.overdue(now) {
            self.release(&key);
        }
    }

    /// Gives out everything that is held, as at the end.
    pub fn finish(&mut self) {
        for key in self.naming.overdue(Timestamp(u64::MAX)) {
            self.release(&key);
        }
    }

    /// What has been found, oldest first.
    pub fn poll_finding(&mut self) -> Option<Finding> {
        self.findings.pop_front()
    }

    /// Processes, names of servers and sets of operations that were forgotten because there were too many.
    #[must_use]
    pub fn evictions(&self) -> [(&'static str, u64); 3] {
        [
            ("processes", self.processes.evictions()),
            ("capabilities", self.naming.evictions()),
            ("operations", self.operations.evictions()),
        ]
    }

    fn handle_conversation(&mut self, observation: Observation, now: Timestamp) {
        let Some(parties) = observation.parties() else { return };
        let (server, key) = self.server(parties);
        let capability = match self.naming.learned(&key, parties) {
            Some(capability) => capability,
            None if naming::is_past_handshake(&observation) => self.naming.settle(&key, parties, &server),
            None => match self.naming.hold(&key, observation, now) {
                None => return,
                Some(observation) => {
                    self.release(&key);
                    return self.settle_and_report(observation);
                }
            },
        };
        self.release(&key);
        self.report(observation, server, capability);
    }

    /// Reports what was held for a server, under the name that it has or now gets.
    fn release(&mut self, key: &ServerKey) {
        for observation in self.naming.release(key) {
            self.settle_and_report(observation);
        }
    }

    fn settle_and_report(&mut self, observation: Observation) {
        let Some(parties) = observation.parties() else { return };
        let (server, key) = self.server(parties);
        let capability = self.naming.settle(&key, parties, &server);
        self.report(observation, server, capability);
    }

    fn report(&mut self, observation: Observation, server: Arc<Workload>, capability: Arc<Capability>) {
        let Some(parties) = observation.parties() else { return };
        let client = self.client(&parties.client);
        let operation = match &observation {
            Observation::Call(call) => {
                let proof = if call.target_known { Proof::Seen } else { Proof::Missing };
                self.operations
                    .label(&capability, &call.method, call.target.as_deref(), proof)
            }
            Observation::CallBegan(began) => {
                let proof = if began.target_known {
                    Proof::Seen
                } else {
                    Proof::Missing
                };
                self.operations
                    .label(&capability, &began.method, began.target.as_deref(), proof)
            }
            // What a task's call proved of its name, it proved when it was acknowledged.
            Observation::Task(task) => {
                self.operations
                    .label(&capability, &task.method, task.target.as_deref(), Proof::Missing)
            }
            Observation::Notification { method, .. } | Observation::ServerRequest { method, .. } => {
                method_label(method).into()
            }
            _ => "".into(),
        };
        self.findings.push_back(Finding::Report(Report {
            observation,
            client,
            server,
            capability,
            operation,
        }));
    }

    fn depart(&mut self, who: (Arc<Workload>, u64), ending: Ending, time: Option<Timestamp>) {
        let (workload, instance) = who;
        for key in self.naming.held_for(instance) {
            self.release(&key);
        }
        self.naming.forget(instance);
        self.findings
            .push_back(Finding::Departure(Departure { workload, ending, time }));
    }

    fn server(&mut self, parties: &Parties) -> (Arc<Workload>, ServerKey) {
        let address = parties.server.address;
        if let Some(pid) = parties.server.pid {
            let (workload, instance) = self.processes.get(pid);
            return (
                workload,
                ServerKey::Process {
                    instance,
                    port: address.map(|address| address.port()),
                },
            );
        }
        let Capability { name, namespace } = naming::remote_name(parties);
        let key = ServerKey::Remote {
            address,
            authority: parties.authority.as_deref().map(cut),
        };
        (
            Arc::new(Workload {
                name,
                namespace,
                ..Workload::default()
            }),
            key,
        )
    }

    fn client(&mut self, party: &Party) -> Arc<Workload> {
        if let Some(pid) = party.pid {
            return self.processes.get(pid).0;
        }
        let here = party.address.is_none_or(|address| address.ip().is_loopback());
        let (name, namespace) = if here { (UNKNOWN, HOST) } else { (EXTERNAL, EXTERNAL) };
        Arc::new(Workload {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            ..Workload::default()
        })
    }
}

/// A name that others chose, cut at a bound.
fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_NAME)].to_owned()
}

#[cfg(test)]
mod tests;

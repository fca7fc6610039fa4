//! Who is still there: series of a capability or caller whose last process is gone are removed after a while.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::series::Owner;
use crate::protocol::event::{Pid, Timestamp};

/// How long series outlive their workload: long enough for the last scrape, and for a restart.
const LINGER: u64 = 300 * 1_000_000_000;

/// How long series live of someone who was never seen as a process of this node.
const REMOTE_LINGER: u64 = 3600 * 1_000_000_000;

/// Capabilities and callers that own series.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// By a hash of role, name and namespace that outsiders cannot foresee.
    owners: HashMap<u64, Owner>,
    hasher: RandomState,
    states: HashMap<Owner, State>,
    by_process: HashMap<Pid, HashSet<Owner>>,
    last: Owner,
}

/// As what somebody owns series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Capability,
    Caller,
}

#[derive(Debug)]
struct State {
    identity: u64,
    processes: HashSet<Pid>,
    seen: Timestamp,
    patience: u64,
}

impl Presence {
    /// The owner of this name, seen now, in `process` where that is known.
    pub(super) fn seen(
        &mut self,
        role: Role,
        name: &str,
        namespace: &str,
        process: Option<Pid>,
        now: Timestamp,
    ) -> Owner {
        let identity = self.hasher.hash_one((role, name, namespace));
        let owner = *self.owners.entry(identity).or_insert_with(|| {
            self.last += 1;
            self.last
        });
        let state = self.states.entry(owner).or_insert_with(|| State {
            identity,
            processes: HashSet::new(),
            seen: now,
            patience: REMOTE_LINGER,
        });
        state.seen = now;
        if let Some(pid) = process
            && state.processes.insert(pid)
        {
            state.patience = LINGER;
            self.by_process.entry(pid).or_default().insert(owner);
        }
        owner
    }

    /// A process ended.
    pub(super) fn depart(&mut self, process: Pid, now: Timestamp) {
        for owner in self.by_process.remove(&process).unwrap_or_default() {
            if let Some(state) = self.states.get_mut(&owner) {
                state.processes.remove(&process);
                state.seen = now;
            }
        }
    }

    /// Owners whose processes have been gone for long enough; they are forgotten here.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Owner> {
        let over = |state: &State| state.processes.is_empty() && now.since(state.seen) >= state.patience;
        let gone: Vec<Owner> = self
            .states
            .iter()
            .filter(|(_, state)| over(state))
            .map(|(owner, _)| *owner)
            .collect();
        for owner in &gone {
            if let Some(state) = self.states.remove(owner) {
                self.owners.remove(&state.identity);
            }
        }
        gone
    }
}

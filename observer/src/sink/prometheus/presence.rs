//! Who is still there: series of a capability or caller whose last process is gone are removed after a while.

use ahash::RandomState;
use rustc_hash::{FxHashMap, FxHashSet};

use super::series::Owner;
use crate::protocol::event::{Pid, Timestamp};

/// How long series outlive their workload: long enough for the last scrape, and for a restart.
const LINGER: u64 = 300 * 1_000_000_000;

/// How long series live of someone who was never seen as a process of this node.
const REMOTE_LINGER: u64 = 3600 * 1_000_000_000;

/// Capabilities and callers that own series.
#[derive(Debug)]
pub(super) struct Presence {
    /// By a hash of role, name and namespace that outsiders cannot foresee.
    owners: FxHashMap<u64, Owner>,
    hasher: RandomState,
    states: FxHashMap<Owner, State>,
    by_process: FxHashMap<Pid, FxHashSet<Owner>>,
    last: Owner,
    limit: usize,
}

/// As what somebody owns series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Capability,
    Caller,
}

/// Where somebody was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// As this process of this node.
    Here(Pid),
    /// Elsewhere, through this process of this node.
    Through(Pid),
    /// Nobody knows.
    Unknown,
}

#[derive(Debug)]
struct State {
    identity: u64,
    processes: FxHashSet<Pid>,
    seen: Timestamp,
    /// Seen as a process of this node.
    here: bool,
    /// Some process of this node was or called it, so that its end tells something.
    tied: bool,
}

impl Presence {
    /// Nobody yet, and never more than `limit`.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            owners: FxHashMap::default(),
            hasher: RandomState::new(),
            states: FxHashMap::default(),
            by_process: FxHashMap::default(),
            last: 0,
            limit,
        }
    }

    /// The owner of this name, seen now; `None` where there are too many.
    pub(super) fn seen(
        &mut self,
        role: Role,
        (name, namespace): (&str, &str),
        place: Place,
        now: Timestamp,
    ) -> Option<Owner> {
        let identity = self.hasher.hash_one((role, name, namespace));
        let owner = match self.owners.get(&identity) {
            Some(owner) => *owner,
            None => self.insert(identity, now)?,
        };
        let state = self
            .states
            .get_mut(&owner)
            .expect("`insert` and `expire` keep owners and states alike");
        state.seen = now;
        state.here |= matches!(place, Place::Here(_));
        state.tied |= place != Place::Unknown;
        if let Place::Here(pid) | Place::Through(pid) = place
            && state.processes.insert(pid)
        {
            self.by_process.entry(pid).or_default().insert(owner);
        }
        Some(owner)
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

    /// Owners whose processes have been gone for long enough, or who have been silent elsewhere; they are forgotten here.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Owner> {
        let over = |state: &State| {
            let absent = now.since(state.seen);
            (state.tied && state.processes.is_empty() && absent >= LINGER) || (!state.here && absent >= REMOTE_LINGER)
        };
        let gone: Vec<Owner> = self
            .states
            .iter()
            .filter(|(_, state)| over(state))
            .map(|(owner, _)| *owner)
            .collect();
        for owner in &gone {
            let Some(state) = self.states.remove(owner) else {
                continue;
            };
            self.owners.remove(&state.identity);
            for process in state.processes {
                if let Some(owners) = self.by_process.get_mut(&process) {
                    owners.remove(owner);
                }
            }
        }
        self.by_process.retain(|_, owners| !owners.is_empty());
        gone
    }

    fn insert(&mut self, identity: u64, now: Timestamp) -> Option<Owner> {
        if self.states.len() >= self.limit {
            return None;
        }
        self.last += 1;
        self.owners.insert(identity, self.last);
        let state = State {
            identity,
            processes: FxHashSet::default(),
            seen: now,
            here: false,
            tied: false,
        };
        self.states.insert(self.last, state);
        Some(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn seen(presence: &mut Presence, name: &str, place: Place, seconds: u64) -> Option<Owner> {
        presence.seen(Role::Capability, (name, "host"), place, Timestamp(seconds * SECOND))
    }

    #[test]
    fn a_workload_goes_five_minutes_after_its_last_process() {
        let mut presence = Presence::new(10);
        let owner = seen(&mut presence, "a", Place::Here(Pid(1)), 0).unwrap();
        assert_eq!(seen(&mut presence, "a", Place::Here(Pid(2)), 0), Some(owner));
        presence.depart(Pid(1), Timestamp(0));
        assert_eq!(presence.expire(Timestamp(7200 * SECOND)), [0; 0]);
        presence.depart(Pid(2), Timestamp(7200 * SECOND));
        assert_eq!(presence.expire(Timestamp(7499 * SECOND)), [0; 0]);
        assert_eq!(presence.expire(Timestamp(7500 * SECOND)), [owner]);
        assert_ne!(seen(&mut presence, "a", Place::Unknown, 7501), Some(owner));
    }

    #[test]
    fn a_server_elsewhere_goes_with_its_last_caller_or_after_an_hour_of_silence() {
        let mut presence = Presence::new(10);
        let owner = seen(&mut presence, "remote", Place::Through(Pid(1)), 0).unwrap();
        assert_eq!(presence.expire(Timestamp(3599 * SECOND)), [0; 0]);
        assert_eq!(presence.expire(Timestamp(3600 * SECOND)), [owner]);
        assert!(presence.by_process.is_empty());
        let owner = seen(&mut presence, "remote", Place::Through(Pid(1)), 4000).unwrap();
        presence.depart(Pid(1), Timestamp(4000 * SECOND));
        assert_eq!(presence.expire(Timestamp(4300 * SECOND)), [owner]);
    }

    #[test]
    fn nobody_is_let_in_beyond_the_limit() {
        let mut presence = Presence::new(2);
        assert!(seen(&mut presence, "a", Place::Unknown, 0).is_some());
        assert!(seen(&mut presence, "b", Place::Unknown, 0).is_some());
        assert_eq!(seen(&mut presence, "c", Place::Unknown, 0), None);
        assert!(seen(&mut presence, "a", Place::Unknown, 0).is_some());
    }
}

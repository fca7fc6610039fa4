//! The processes at one side of a flow: who acts there, who merely holds a descriptor.

use smallvec::SmallVec;

use crate::protocol::event::Pid;

/// Processes remembered at one side of a flow: a server, its wrapper and a few that inherited the descriptor.
const MAX_CREW: usize = 8;

/// The processes at one side of a flow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crew {
    /// First those known to hold a descriptor, then those seen reading or writing, the last one last.
    pids: SmallVec<[Pid; 4]>,
    /// How many of them hold.
    holders: u8,
}

impl Crew {
    /// Notes that `pid` acted; whether it is new here.
    pub(crate) fn act(&mut self, pid: Pid) -> bool {
        if self.acting().last() == Some(&pid) {
            return false;
        }
        let first = usize::from(self.holders);
        let known = self.acting().iter().position(|other| *other == pid);
        if let Some(known) = known {
            self.pids.remove(first + known);
        } else if self.acting().len() == MAX_CREW {
            self.pids.remove(first);
        }
        self.pids.push(pid);
        known.is_none()
    }

    pub(super) fn hold(&mut self, pid: Pid) -> bool {
        if self.holding().contains(&pid) || self.holding().len() == MAX_CREW {
            return false;
        }
        self.pids.insert(usize::from(self.holders), pid);
        self.holders += 1;
        true
    }

    pub(super) fn leave(&mut self, pid: Pid) {
        self.holders -= u8::from(self.holding().contains(&pid));
        self.pids.retain(|other| *other != pid);
    }

    pub(super) fn join(&mut self, other: &Self) {
        for pid in other.acting() {
            self.act(*pid);
        }
        for pid in other.holding() {
            self.hold(*pid);
        }
    }

    pub(super) fn everyone(&self) -> impl Iterator<Item = Pid> {
        self.pids.iter().copied()
    }

    fn holding(&self) -> &[Pid] {
        &self.pids[..usize::from(self.holders)]
    }

    fn acting(&self) -> &[Pid] {
        &self.pids[usize::from(self.holders)..]
    }

    /// Who acted last.
    pub(crate) fn actor(&self) -> Option<Pid> {
        self.acting().last().copied()
    }

    /// Who acted last, else the only one who could.
    pub(crate) fn likely(&self) -> Option<Pid> {
        self.actor().or(match self.holding() {
            [only] => Some(*only),
            _ => None,
        })
    }

    /// How well two sides go together, from -4 (other processes) over 0 (not known) to 3 (the same process acted in both).
    pub(crate) fn affinity(&self, other: &Self) -> i8 {
        let meet = |left: &[Pid], right: &[Pid]| left.iter().any(|pid| right.contains(pid));
        if meet(self.acting(), other.acting()) {
            3
        } else if meet(self.acting(), other.holding()) || meet(self.holding(), other.acting()) {
            2
        } else if meet(self.holding(), other.holding()) {
            1
        } else if self.is_empty() || other.is_empty() {
            0
        } else {
            -4
        }
    }

    /// Whether nobody is known here.
    pub(crate) fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }
}

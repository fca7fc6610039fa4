//! The processes at one side of a flow: who acts there, who merely holds a descriptor.

use smallvec::SmallVec;

use crate::protocol::event::Pid;

/// Processes remembered at one side of a flow: a server, its wrapper and a few that inherited the descriptor.
const MAX_CREW: usize = 8;

/// The processes at one side of a flow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crew {
    /// Seen reading or writing, the last one last.
    acting: SmallVec<[Pid; 2]>,
    /// Known to hold a descriptor.
    holding: SmallVec<[Pid; 1]>,
}

impl Crew {
    /// Notes that `pid` acted; whether it is new here.
    pub(super) fn act(&mut self, pid: Pid) -> bool {
        if self.acting.last() == Some(&pid) {
            return false;
        }
        let known = self.acting.contains(&pid);
        self.acting.retain(|other| *other != pid);
        if self.acting.len() == MAX_CREW {
            self.acting.remove(0);
        }
        self.acting.push(pid);
        !known
    }

    pub(super) fn hold(&mut self, pid: Pid) -> bool {
        if self.holding.contains(&pid) || self.holding.len() == MAX_CREW {
            return false;
        }
        self.holding.push(pid);
        true
    }

    pub(super) fn leave(&mut self, pid: Pid) {
        self.acting.retain(|other| *other != pid);
        self.holding.retain(|other| *other != pid);
    }

    pub(super) fn join(&mut self, other: &Self) {
        for pid in &other.acting {
            self.act(*pid);
        }
        for pid in &other.holding {
            self.hold(*pid);
        }
    }

    pub(super) fn everyone(&self) -> impl Iterator<Item = Pid> {
        self.acting.iter().chain(&self.holding).copied()
    }

    /// Who acted last.
    pub(crate) fn actor(&self) -> Option<Pid> {
        self.acting.last().copied()
    }

    /// Who acted last, else the only one who could.
    pub(crate) fn likely(&self) -> Option<Pid> {
        self.actor().or(match self.holding.as_slice() {
            [only] => Some(*only),
            _ => None,
        })
    }

    /// How well two sides go together, from -4 (other processes) over 0 (not known) to 3 (the same process acted in both).
    pub(crate) fn affinity(&self, other: &Self) -> i8 {
        let meet = |left: &[Pid], right: &[Pid]| left.iter().any(|pid| right.contains(pid));
        let unknown = |crew: &Self| crew.acting.is_empty() && crew.holding.is_empty();
        if meet(&self.acting, &other.acting) {
            3
        } else if meet(&self.acting, &other.holding) || meet(&self.holding, &other.acting) {
            2
        } else if meet(&self.holding, &other.holding) {
            1
        } else if unknown(self) || unknown(other) {
            0
        } else {
            -4
        }
    }

    /// Whether nobody is known here.
    pub(crate) fn is_empty(&self) -> bool {
        self.acting.is_empty() && self.holding.is_empty()
    }
}

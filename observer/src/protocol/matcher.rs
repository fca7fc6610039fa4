//! Pairs requests with what ends them: by the place they were asked in and their typed id.
//!
//! Every request that is let in here comes out again exactly once: answered, given up, or evicted.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::event::{Pid, Timestamp};
use super::jsonrpc::RpcId;
use super::mcp::call::Pending;
use super::stream::{FlowId, LinkId};

/// Requests that may wait for an answer at once. One is about a kilobyte.
pub(crate) const MAX_PENDING: usize = 65_536;

/// When and by whom the bytes of a message were moved, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Position after the last byte in its flow.
    pub(crate) end: u64,
    /// When the write of the first byte was entered.
    pub(crate) first: Option<Timestamp>,
    /// When the write of the last byte was entered.
    pub(crate) entered: Option<Timestamp>,
    /// When the write of the last byte returned.
    pub(crate) written: Option<Timestamp>,
    /// When the read of the last byte returned.
    pub(crate) read: Option<Timestamp>,
    /// Who wrote the last byte.
    pub(crate) writer: Option<Pid>,
    /// Who read the last byte.
    pub(crate) reader: Option<Pid>,
}

impl Seen {
    /// The earliest sight of the end of the message.
    pub(crate) fn any(&self) -> Option<Timestamp> {
        self.written.or(self.read)
    }
}

/// Within what an id is unique.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Requests of one flow of lines.
    Line(FlowId),
    /// One HTTP request, by its number on its connection.
    Http(LinkId, u64),
    /// A session, or where there is none one client and one server.
    Session(Arc<str>),
}

/// Names a pending request; never one that came later into the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    index: u32,
    birth: u32,
}

/// What a request waits for in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// For who reads it, or for an answer still on its way when its peer went.
    Soon,
    /// For who reads its answer.
    Read,
    /// For a retry that makes its refusal a step of negotiation.
    Retry,
    /// For its answer.
    Deadline,
}

/// Waits of one length: what was put in first is due first.
#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<(Timestamp, Slot)>,
}

/// The requests that are not over.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    slots: Vec<(u32, Option<Box<Pending>>)>,
    free: Vec<u32>,
    index: FxHashMap<(Scope, RpcId), SmallVec<[Slot; 1]>>,
    /// By progress token.
    progress: FxHashMap<(Scope, RpcId), Slot>,
    /// Requests on flows of lines whose answers come on a stream not yet known, by id alone.
    unpaired: FxHashMap<RpcId, SmallVec<[Slot; 1]>>,
    lanes: [Lane; 4],
    live: usize,
}

impl Matcher {
    /// Lets a request in.
    pub(crate) fn insert(&mut self, pending: Box<Pending>) -> Slot {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).expect("MAX_PENDING is far below 2^32")
        });
        let entry = &mut self.slots[index as usize];
        entry.0 += 1;
        let slot = Slot { index, birth: entry.0 };
        for scope in &pending.scopes {
            self.index
                .entry((scope.clone(), pending.id.clone()))
                .or_default()
                .push(slot);
            if let Some(token) = &pending.progress_token {
                self.progress.insert((scope.clone(), token.clone()), slot);
            }
        }
        if pending.unpaired {
            self.unpaired.entry(pending.id.clone()).or_default().push(slot);
        }
        entry.1 = Some(pending);
        self.live += 1;
        slot
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Pending> {
        let (birth, pending) = self.slots.get(slot.index as usize)?;
        pending.as_deref().filter(|_| *birth == slot.birth)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Pending> {
        let (birth, pending) = self.slots.get_mut(slot.index as usize)?;
        pending.as_deref_mut().filter(|_| *birth == slot.birth)
    }

    /// The oldest request of that id in that scope.
    pub(crate) fn find(&self, scope: Scope, id: &RpcId) -> Option<Slot> {
        self.index.get(&(scope, id.clone()))?.first().copied()
    }

    /// The request that a progress token belongs to.
    pub(crate) fn find_progress(&self, scope: Scope, token: &RpcId) -> Option<Slot> {
        self.progress.get(&(scope, token.clone())).copied()
    }

    /// Requests of that id whose answers come on a stream not yet known.
    pub(crate) fn unpaired(&self, id: &RpcId) -> &[Slot] {
        self.unpaired.get(id).map_or(&[], |slots| slots)
    }

    /// Nothing can answer this request any more: it stays until [`Self::remove`].
    pub(crate) fn unlist(&mut self, slot: Slot) {
        let Some((birth, Some(pending))) = self.slots.get(slot.index as usize) else {
            return;
        };
        if *birth != slot.birth {
            return;
        }
        for scope in &pending.scopes {
            let mut key = (scope.clone(), pending.id.clone());
            forget(&mut self.index, &key, slot);
            if let Some(token) = &pending.progress_token {
                key.1 = token.clone();
                if self.progress.get(&key) == Some(&slot) {
                    self.progress.remove(&key);
                }
            }
        }
        if pending.unpaired {
            forget(&mut self.unpaired, &pending.id, slot);
        }
    }

    /// Lets a request out.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Box<Pending>> {
        // What is over was unlisted when it ended.
        if self.get(slot)?.over.is_none() {
            self.unlist(slot);
        }
        let pending = self.slots[slot.index as usize].1.take()?;
        self.free.push(slot.index);
        self.live -= 1;
        Some(pending)
    }

    /// Calls back about `slot` at `at`; the waits of one kind have one length, so that `at` never goes back.
    pub(crate) fn schedule(&mut self, due: Due, at: Timestamp, slot: Slot) {
        let live = self.live;
        let lane = &mut self.lanes[due as usize];
        lane.queue.push_back((at, slot));
        if lane.queue.len() > 2 * live + 1024 {
            let mut queue = std::mem::take(&mut lane.queue);
            queue.retain(|(_, slot)| self.get(*slot).is_some());
            self.lanes[due as usize].queue = queue;
        }
    }

    /// The next request that is due.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<(Due, Slot)> {
        for due in [Due::Soon, Due::Read, Due::Retry, Due::Deadline] {
            let lane = &mut self.lanes[due as usize];
            if lane.queue.front().is_some_and(|(at, _)| *at <= now) {
                return lane.queue.pop_front().map(|(_, slot)| (due, slot));
            }
        }
        None
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.lanes
            .iter()
            .filter_map(|lane| lane.queue.front().map(|(at, _)| *at))
            .min()
    }

    /// A request that has waited longer than nearly all others.
    pub(crate) fn oldest(&self) -> Option<Slot> {
        let lane = &self.lanes[Due::Deadline as usize];
        let waiting = lane
            .queue
            .iter()
            .map(|(_, slot)| *slot)
            .find(|slot| self.get(*slot).is_some());
        waiting.or_else(|| self.iter().next().map(|(slot, _)| slot))
    }

    pub(crate) const fn len(&self) -> usize {
        self.live
    }

    /// Every request, oldest place first.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        self.iter().map(|(slot, _)| slot).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Pending)> {
        self.slots.iter().enumerate().filter_map(|(index, (birth, pending))| {
            let index = u32::try_from(index).ok()?;
            Some((Slot { index, birth: *birth }, pending.as_deref()?))
        })
    }
}

/// Takes `slot` out of those that are listed under `key`.
fn forget<K: Hash + Eq>(index: &mut FxHashMap<K, SmallVec<[Slot; 1]>>, key: &K, slot: Slot) {
    if let Some(slots) = index.get_mut(key) {
        slots.retain(|other| *other != slot);
        if slots.is_empty() {
            index.remove(key);
        }
    }
}

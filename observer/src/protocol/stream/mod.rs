//! The streams of the node: which kernel objects are two ends of one, who is at each end, which way bytes flow.
//!
//! ```text
//! pipe:    writers ──flow 0──► readers                       one object, one key
//! socket:  end 0 ──flow 0──► end 1,  end 0 ◄──flow 1── end 1   two objects, a key each, one [`Link`]
//! ```

mod crew;
mod link;

use rustc_hash::FxHashMap;

pub(crate) use self::crew::Crew;
pub(crate) use self::link::{Flow, Link};
use super::event::{Data, Direction, Opened, Pid, Source, StreamKey, Timestamp};

/// Names a [`Link`] for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LinkId {
    slot: u32,
    birth: u32,
}

/// Names one direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowId {
    pub(crate) link: LinkId,
    /// 0 or 1.
    pub(crate) side: usize,
}

impl FlowId {
    /// The other direction.
    pub(crate) const fn reverse(self) -> Self {
        Self {
            link: self.link,
            side: 1 - self.side,
        }
    }
}

/// At which side of a flow something was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Writer,
    Reader,
}

/// Every stream that is remembered.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    links: Vec<(u32, Option<Box<Link>>)>,
    free: Vec<u32>,
    keys: FxHashMap<StreamKey, (LinkId, usize)>,
    /// Streams at which a process is or was known.
    processes: FxHashMap<Pid, Vec<LinkId>>,
    live: usize,
    /// Bytes of memory that messages in the making take: never less than they do, exact when [`Self::holders`] is asked.
    pub(crate) held: usize,
}

impl Streams {
    pub(crate) fn link(&self, id: LinkId) -> Option<&Link> {
        let (birth, link) = self.links.get(id.slot as usize)?;
        link.as_deref().filter(|_| *birth == id.birth)
    }

    pub(crate) fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        let (birth, link) = self.links.get_mut(id.slot as usize)?;
        link.as_deref_mut().filter(|_| *birth == id.birth)
    }

    /// The flow, where something is known of it.
    pub(crate) fn flow(&self, id: FlowId) -> Option<&Flow> {
        self.link(id.link)?.flow(id.side)
    }

    /// The flow, made where there is none; `None` where the link is gone or nothing of it is wanted.
    pub(crate) fn flow_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.link_mut(id.link)?.flow_mut(id.side)
    }

    pub(crate) fn find(&self, key: StreamKey) -> Option<(LinkId, usize)> {
        self.keys.get(&key).copied()
    }

    /// The link of `key`, made where there is none; and which of its ends it is.
    pub(crate) fn find_or_make(&mut self, key: StreamKey) -> (LinkId, usize) {
        if let Some(place) = self.find(key) {
            return place;
        }
        let link = Box::new(Link::new(key));
        let slot = self.free.pop().unwrap_or_else(|| {
            self.links.push((0, None));
            u32::try_from(self.links.len() - 1).expect("Limits::streams is far below 2^32")
        });
        let entry = &mut self.links[slot as usize];
        entry.0 += 1;
        entry.1 = Some(link);
        self.live += 1;
        let id = LinkId { slot, birth: entry.0 };
        self.keys.insert(key, (id, 0));
        (id, 0)
    }

    /// Takes in what a stream is. Returns its link, and another one that turned out to be its other half and is now gone.
    pub(crate) fn open(&mut self, opened: &Opened) -> (LinkId, Option<LinkId>) {
        let (id, end) = self.find_or_make(opened.key);
        if let Some(link) = self.link_mut(id) {
            link.learn(opened, end);
        }
        match opened.peer {
            Some(peer) => self.join(id, end, peer),
            None => (id, None),
        }
    }

    /// Makes `peer` the other end of a link.
    ///
    /// Where `peer` has a link of its own, the half that has seen bytes goes on and takes in the other, which has at most told
    /// who and when. Where both have, bytes were told twice: the half that is joined to goes on.
    fn join(&mut self, id: LinkId, end: usize, peer: StreamKey) -> (LinkId, Option<LinkId>) {
        // An end has one other end in its life: whoever says otherwise speaks of a socket whose place was used again.
        let taken = |id, end: usize, key: StreamKey| {
            let known = self.link(id).map(|link| &link.ends[1 - end]);
            known.is_some_and(|end| end.seen && end.key != Some(key))
        };
        let found = self.find(peer);
        let key = self.link(id).and_then(|link| link.ends[end].key);
        if taken(id, end, peer) || found.zip(key).is_some_and(|((id, end), key)| taken(id, end, key)) {
            return (id, None);
        }
        let Some((other, other_end)) = found.filter(|(other, _)| *other != id) else {
            self.name_end(id, 1 - end, peer);
            return (id, None);
        };
        let seen = |id| self.link(id).is_some_and(Link::has_spoken);
        let (kept, kept_end, gone, gone_end) = if seen(other) {
            (other, other_end, id, end)
        } else {
            (id, end, other, other_end)
        };
        let Some(mut half) = self.take(gone) else {
            return (id, None);
        };
        let Some(link) = self.link_mut(kept) else {
            return (id, None);
        };
        let key = half.ends[gone_end].key;
        link.absorb(kept_end, &mut half, gone_end);
        if let Some(key) = key {
            self.name_end(kept, 1 - kept_end, key);
        }
        for pid in half
            .flows()
            .flat_map(|flow| flow.writers.everyone().chain(flow.readers.everyone()))
        {
            self.remember(pid, kept);
        }
        (kept, Some(gone))
    }

    fn name_end(&mut self, id: LinkId, end: usize, key: StreamKey) {
        let Some(link) = self.link_mut(id) else {
            return;
        };
        if let Some(old) = link.ends[end].key.replace(key)
            && old != key
            && self.keys.get(&old) == Some(&(id, end))
        {
            self.keys.remove(&old);
        }
        self.keys.insert(key, (id, end));
    }

    /// Which flow a record speaks of, and from which side.
    pub(crate) fn locate(&mut self, data: &Data) -> (FlowId, At) {
        let (link_id, end) = self.find_or_make(data.key);
        let link = self.link_mut(link_id).expect("it was found or made in the line before");
        link.active = data.returned;
        link.ends[end].seen = true;
        if link.source.is_none() && link.is_pipe_after_all(data) {
            link.source = Some(Source::Pipe);
        }
        let pipe = link.source == Some(Source::Pipe);
        let (side, at) = match data.direction {
            Direction::Sent => (if pipe { 0 } else { end }, At::Writer),
            Direction::Received => (if pipe { 0 } else { 1 - end }, At::Reader),
        };
        (FlowId { link: link_id, side }, at)
    }

    /// Notes that `pid` moved bytes of a flow that are told elsewhere.
    pub(crate) fn act(&mut self, id: FlowId, at: At, pid: Pid) {
        if self.flow_mut(id).is_some_and(|flow| flow.crew_mut(at).act(pid)) {
            self.remember(pid, id.link);
        }
    }

    /// Takes in who is at the other end of `key`: who is at an end of the stream below it.
    pub(crate) fn take_crew(&mut self, key: StreamKey, (below, end): (LinkId, usize)) {
        let flow = |side| self.flow(FlowId { link: below, side });
        let writers = flow(end).map(|flow| flow.writers.clone());
        let readers = flow(1 - end).map(|flow| flow.readers.clone());
        let Some((id, own)) = self.find(key) else { return };
        let Some(link) = self.link_mut(id) else { return };
        if let (Some(writers), Some(flow)) = (&writers, link.flow_mut(1 - own)) {
            flow.writers.join(writers);
        }
        if let (Some(readers), Some(flow)) = (&readers, link.flow_mut(own)) {
            flow.readers.join(readers);
        }
        for pid in [writers, readers].iter().flatten().flat_map(Crew::everyone) {
            self.remember(pid, id);
        }
    }

    /// Notes that `pid` holds an end; of a socket both directions at once.
    pub(crate) fn hold(&mut self, key: StreamKey, direction: Direction, pid: Pid) {
        let (id, end) = self.find_or_make(key);
        let Some(link) = self.link_mut(id) else {
            return;
        };
        let pipe = link.source == Some(Source::Pipe);
        let mut note = |side, at| link.flow_mut(side).is_some_and(|flow| flow.crew_mut(at).hold(pid));
        let new = match (pipe, direction) {
            (true, Direction::Sent) => note(0, At::Writer),
            (true, Direction::Received) => note(0, At::Reader),
            (false, _) => note(end, At::Writer) | note(1 - end, At::Reader),
        };
        if new {
            self.remember(pid, id);
        }
    }

    /// Takes in that a process is at a stream.
    pub(crate) fn remember(&mut self, pid: Pid, link: LinkId) {
        let links = self.processes.entry(pid).or_default();
        if links.last() != Some(&link) {
            links.push(link);
        }
        // A long-lived client opens connection after connection.
        if links.len().is_power_of_two() && links.len() >= 64 {
            let mut links = std::mem::take(links);
            links.sort_unstable();
            links.dedup();
            links.retain(|link| self.link(*link).is_some());
            self.processes.insert(pid, links);
        }
    }

    /// Streams at which a process is or was known.
    pub(crate) fn of_process(&self, pid: Pid) -> &[LinkId] {
        self.processes.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// A process is gone, or is another one now: nobody knows it any more.
    pub(crate) fn forget_process(&mut self, pid: Pid) -> Vec<LinkId> {
        let links = self.processes.remove(&pid).unwrap_or_default();
        for link in &links {
            for flow in self.link_mut(*link).into_iter().flat_map(Link::flows_mut) {
                flow.writers.leave(pid);
                flow.readers.leave(pid);
            }
        }
        links
    }

    pub(crate) fn remove(&mut self, id: LinkId) {
        self.held = self.held.saturating_sub(self.room_of(id));
        drop(self.take(id));
    }

    fn take(&mut self, id: LinkId) -> Option<Box<Link>> {
        self.link(id)?;
        let link = self.links[id.slot as usize].1.take()?;
        for key in link.ends.iter().filter_map(|end| end.key) {
            if self.keys.get(&key).is_some_and(|(owner, _)| *owner == id) {
                self.keys.remove(&key);
            }
        }
        self.free.push(id.slot);
        self.live -= 1;
        Some(link)
    }

    /// Bytes of memory that messages in the making take on a stream.
    pub(crate) fn room_of(&self, id: LinkId) -> usize {
        self.link(id).map_or(0, Link::room)
    }

    /// Takes in that they took `before` and may take something else now.
    pub(crate) fn holds(&mut self, id: LinkId, before: usize) {
        self.held = (self.held + self.room_of(id)).saturating_sub(before);
    }

    /// The streams that hold bytes, those that were active longest ago first.
    pub(crate) fn holders(&mut self) -> Vec<LinkId> {
        let held = |(id, link): (LinkId, &Link)| (link.active, id, link.room());
        let mut holders: Vec<_> = self.iter().map(held).filter(|(.., held)| *held > 0).collect();
        self.held = holders.iter().map(|(.., held)| held).sum();
        holders.sort_unstable();
        holders.into_iter().map(|(_, id, _)| id).collect()
    }

    /// Lets streams rest that were last active in `from .. to`.
    pub(crate) fn rest(&mut self, from: Timestamp, to: Timestamp) {
        let links = self.links.iter_mut().filter_map(|(_, link)| link.as_deref_mut());
        links
            .filter(|link| from <= link.active && link.active < to)
            .for_each(Link::rest);
    }

    pub(crate) const fn len(&self) -> usize {
        self.live
    }

    /// A sixteenth of the streams: those that were active longest ago.
    pub(crate) fn stalest(&self) -> Vec<LinkId> {
        let mut ages: Vec<(Timestamp, LinkId)> = self.iter().map(|(id, link)| (link.active, id)).collect();
        let count = (ages.len() / 16).max(1).min(ages.len());
        if count < ages.len() {
            ages.select_nth_unstable(count);
        }
        ages.truncate(count);
        ages.into_iter().map(|(_, id)| id).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.links.iter().enumerate().filter_map(|(slot, (birth, link))| {
            let slot = u32::try_from(slot).ok()?;
            Some((LinkId { slot, birth: *birth }, link.as_deref()?))
        })
    }
}

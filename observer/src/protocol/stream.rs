//! The streams of the node: which kernel objects are two ends of one, who is at each end, which way bytes flow.
//!
//! ```text
//! pipe:    writers ──flow 0──► readers                       one object, one key
//! socket:  end 0 ──flow 0──► end 1,  end 0 ◄──flow 1── end 1   two objects, a key each, one [`Link`]
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::conversation::http::HttpTalk;
use super::conversation::line::LineTalk;
use super::event::{Data, Direction, Opened, Pid, Position, Source, StreamKey, Timestamp, Verdict};
use super::framing::Framer;
use super::marks::Marks;
use super::matcher::{Seen, Slot};
use super::reassembly::Assembler;

/// Processes remembered at one side of a flow: a server, its wrapper and a few that inherited the descriptor.
const MAX_CREW: usize = 8;

/// Calls of one flow that wait to be read; a peer that far behind is not timed.
const MAX_AWAITING: usize = 4096;

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
    fn act(&mut self, pid: Pid) -> bool {
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

    fn hold(&mut self, pid: Pid) -> bool {
        if self.holding.contains(&pid) || self.holding.len() == MAX_CREW {
            return false;
        }
        self.holding.push(pid);
        true
    }

    fn leave(&mut self, pid: Pid) {
        self.acting.retain(|other| *other != pid);
        self.holding.retain(|other| *other != pid);
    }

    fn join(&mut self, other: &Self) {
        for pid in &other.acting {
            self.act(*pid);
        }
        for pid in &other.holding {
            self.hold(*pid);
        }
    }

    fn everyone(&self) -> impl Iterator<Item = Pid> {
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

/// Where the bytes of a flow went: given == used + lost + held + what came twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Came in.
    pub(crate) given: u64,
    /// Went into messages, or was skipped as not MCP.
    pub(crate) used: u64,
    /// Was dropped for a reason.
    pub(crate) lost: u64,
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) assembler: Assembler,
    pub(crate) framer: Framer,
    pub(crate) writers: Crew,
    pub(crate) readers: Crew,
    pub(crate) written: Marks,
    pub(crate) read: Marks,
    /// Calls that wait until the byte before this position is read, in order of position.
    pub(crate) awaiting: VecDeque<(u64, Slot)>,
    pub(crate) line: LineTalk,
    /// When the last hole was told, muted ones aside.
    pub(crate) last_gap: Option<Timestamp>,
    /// No more bytes will come.
    pub(crate) ended: bool,
    pub(crate) ledger: Ledger,
}

impl Flow {
    /// When and by whom the bytes `start .. end` were moved, as far as it is known.
    pub(crate) fn seen(&self, start: u64, end: u64) -> Seen {
        let last = end.saturating_sub(1);
        let (first_write, last_write) = (self.written.covering(start), self.written.covering(last));
        let last_read = self.read.covering(last);
        Seen {
            end,
            first: first_write.or(self.read.covering(start)).map(|mark| mark.entered),
            entered: last_write.map(|mark| mark.entered),
            written: last_write.map(|mark| mark.returned),
            read: last_read.map(|mark| mark.returned),
            writer: last_write.map(|mark| mark.pid),
            reader: last_read.map(|mark| mark.pid),
        }
    }

    /// Puts another framing in place; what the old one holds is skipped.
    pub(crate) fn reframe(&mut self, framer: Framer) {
        self.ledger.used += self.framer.take_used() + self.framer.held_bytes() as u64;
        self.framer = framer;
    }

    /// Whether every byte that came in is accounted for.
    #[cfg(test)]
    pub(crate) fn is_balanced(&self) -> bool {
        let held = (self.assembler.held_bytes() + self.framer.held_bytes()) as u64;
        let Ledger { given, used, lost } = self.ledger;
        given == used + lost + held + self.assembler.duplicate
    }

    /// `slot` wants to know when the byte before `end` is read.
    pub(crate) fn await_read(&mut self, end: u64, slot: Slot) {
        if self.awaiting.len() == MAX_AWAITING {
            self.awaiting.pop_front();
        }
        let at = self.awaiting.partition_point(|(other, _)| *other <= end);
        self.awaiting.insert(at, (end, slot));
    }

    /// Bytes held of this flow.
    pub(crate) fn held_bytes(&self) -> usize {
        self.assembler.held_bytes() + self.framer.held_bytes() + self.line.held_bytes
    }
}

/// One end of a link.
#[derive(Clone, Debug, Default)]
pub(crate) struct End {
    pub(crate) key: Option<StreamKey>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) netns: u32,
    pub(crate) closed: bool,
}

/// One stream: a pipe, or both ends of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// `None` until it is told; taken for a socket until then.
    pub(crate) source: Option<Source>,
    /// A pipe has only the first.
    pub(crate) ends: [End; 2],
    pub(crate) flows: [Flow; 2],
    /// What HTTP there is.
    pub(crate) http: Option<Box<HttpTalk>>,
    /// Since when an HTTP response waits for the request it answers.
    pub(crate) waiting: Option<Timestamp>,
    /// It carries MCP.
    pub(crate) mcp: bool,
    /// What the kernel side goes by.
    pub(crate) told: Verdict,
    active: Timestamp,
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

    pub(crate) fn flow(&self, id: FlowId) -> Option<&Flow> {
        self.link(id.link).map(|link| &link.flows[id.side])
    }

    pub(crate) fn flow_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.link_mut(id.link).map(|link| &mut link.flows[id.side])
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
        let Some((other, other_end)) = self.find(peer).filter(|(other, _)| *other != id) else {
            if let Some(link) = self.link_mut(id) {
                link.ends[1 - end].key = Some(peer);
                self.keys.insert(peer, (id, 1 - end));
            }
            return (id, None);
        };
        let seen = |id| {
            self.link(id)
                .is_some_and(|link| link.flows.iter().any(|flow| flow.assembler.next().is_some()))
        };
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
        self.keys.extend(key.map(|key| (key, (kept, 1 - kept_end))));
        for pid in half
            .flows
            .iter()
            .flat_map(|flow| flow.writers.everyone().chain(flow.readers.everyone()))
        {
            self.remember(pid, kept);
        }
        (kept, Some(gone))
    }

    /// Which flow a record speaks of, and from which side.
    pub(crate) fn locate(&mut self, data: &Data) -> (FlowId, At) {
        let (link_id, end) = self.find_or_make(data.key);
        let link = self.link_mut(link_id).expect("it was found or made in the line before");
        link.active = data.returned;
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

    /// Notes that `pid` moved bytes of a flow.
    pub(crate) fn act(&mut self, id: FlowId, at: At, pid: Pid) {
        let Some(flow) = self.flow_mut(id) else {
            return;
        };
        let crew = match at {
            At::Writer => &mut flow.writers,
            At::Reader => &mut flow.readers,
        };
        if crew.act(pid) {
            self.remember(pid, id.link);
        }
    }

    /// Notes that `pid` holds an end; of a socket both directions at once.
    pub(crate) fn hold(&mut self, key: StreamKey, direction: Direction, pid: Pid) {
        let (id, end) = self.find_or_make(key);
        let Some(link) = self.link_mut(id) else {
            return;
        };
        let new = match (link.source, direction) {
            (Some(Source::Pipe), Direction::Sent) => link.flows[0].writers.hold(pid),
            (Some(Source::Pipe), Direction::Received) => link.flows[0].readers.hold(pid),
            _ => link.flows[end].writers.hold(pid) | link.flows[1 - end].readers.hold(pid),
        };
        if new {
            self.remember(pid, id);
        }
    }

    fn remember(&mut self, pid: Pid, link: LinkId) {
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
            for side in 0..2 {
                if let Some(flow) = self.flow_mut(FlowId { link: *link, side }) {
                    flow.writers.leave(pid);
                    flow.readers.leave(pid);
                }
            }
        }
        links
    }

    pub(crate) fn remove(&mut self, id: LinkId) {
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

impl Link {
    fn new(key: StreamKey) -> Self {
        let mut ends = [End::default(), End::default()];
        ends[0].key = Some(key);
        Self {
            source: None,
            ends,
            flows: [Flow::default(), Flow::default()],
            http: None,
            waiting: None,
            mcp: false,
            told: Verdict::Undecided,
            active: Timestamp(0),
        }
    }

    /// Takes in another half, whose end `their_end` is the other end of this link's `end`.
    fn absorb(&mut self, end: usize, half: &mut Self, their_end: usize) {
        let theirs = std::mem::take(&mut half.ends[their_end]);
        let known = &mut self.ends[1 - end];
        known.key = theirs.key;
        known.address = known.address.or(theirs.address);
        known.netns = known.netns.max(theirs.netns);
        known.closed = theirs.closed;
        for side in 0..2 {
            let their_side = if 1 - end == their_end { side } else { 1 - side };
            let (flow, other) = (&mut self.flows[side], &mut half.flows[their_side]);
            flow.writers.join(&other.writers);
            flow.readers.join(&other.readers);
            if flow.assembler.next().is_none() && other.assembler.next().is_some() {
                std::mem::swap(flow, other);
                flow.writers.join(&other.writers);
                flow.readers.join(&other.readers);
            }
        }
    }

    fn learn(&mut self, opened: &Opened, end: usize) {
        self.source = Some(opened.source);
        self.active = self.active.max(opened.time);
        let (here, there) = (end, 1 - end);
        self.ends[here].address = opened.local.or(self.ends[here].address);
        self.ends[here].netns = opened.netns;
        self.ends[there].address = self.ends[there].address.or(opened.remote);
    }

    /// Whether a stream of unknown kind must be a pipe: what is read from the object is what was written into it.
    fn is_pipe_after_all(&self, data: &Data) -> bool {
        let Position::Total(position) = data.position else {
            return false;
        };
        data.direction == Direction::Received
            && data.bytes.is_empty()
            && self.ends[1].key.is_none()
            && self.flows[0]
                .assembler
                .next()
                .is_some_and(|next| position + u64::from(data.span) <= next)
    }

    /// Both ends, or the pipe, are over.
    pub(crate) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.closed || end.key.is_none())
    }
}

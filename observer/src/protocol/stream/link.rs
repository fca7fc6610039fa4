//! One stream with its ends and its directions, and what is known of each.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::At;
use super::crew::Crew;
use crate::protocol::conversation::http::HttpTalk;
use crate::protocol::conversation::line::LineTalk;
use crate::protocol::event::{Data, Direction, Opened, Position, Source, StreamKey, Timestamp, Verdict};
use crate::protocol::framing::Framer;
use crate::protocol::marks::{Mark, Marks};
use crate::protocol::matcher::{Seen, Slot};
use crate::protocol::reassembly::Assembler;

/// Calls of one flow that wait to be read; a peer that far behind is not timed.
const MAX_AWAITING: usize = 4096;

/// One direction of a stream.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) assembler: Assembler,
    pub(crate) framer: Framer,
    pub(crate) writers: Crew,
    pub(crate) readers: Crew,
    pub(crate) line: LineTalk,
    times: Option<Box<Times>>,
    /// When the last hole was told, muted ones aside.
    pub(crate) last_gap: Option<Timestamp>,
    /// No more bytes will come.
    pub(crate) ended: bool,
    /// Bytes that came in less those that went into messages, were skipped as not MCP, or were dropped for a reason: as many as
    /// are held, or came twice.
    pub(crate) owed: u64,
}

/// Who moved bytes that messages in the making have, and who waits for what was not read yet.
#[derive(Debug, Default)]
struct Times {
    written: Marks,
    read: Marks,
    /// Calls that wait until the byte before this position is read, in order of position.
    awaiting: VecDeque<(u64, Slot)>,
}

impl Flow {
    /// The processes at one side.
    pub(crate) fn crew_mut(&mut self, at: At) -> &mut Crew {
        match at {
            At::Writer => &mut self.writers,
            At::Reader => &mut self.readers,
        }
    }

    /// Notes a call that moved bytes.
    pub(crate) fn note(&mut self, at: At, mark: Mark) {
        let times = self.times.get_or_insert_default();
        match at {
            At::Writer => times.written.note(mark),
            At::Reader => times.read.note(mark),
        }
    }

    /// When and by whom the bytes `start .. end` were moved, as far as it is known.
    pub(crate) fn seen(&self, start: u64, end: u64) -> Seen {
        let Some(Times { written, read, .. }) = self.times.as_deref() else {
            return Seen { end, ..Seen::default() };
        };
        let last = end.saturating_sub(1);
        let (first_write, last_write) = (written.covering(start), written.covering(last));
        let last_read = read.covering(last);
        Seen {
            end,
            // A reader may have waited since long before there was anything to read.
            first: first_write
                .map(|mark| mark.entered)
                .or_else(|| Some(read.covering(start)?.returned)),
            entered: last_write.map(|mark| mark.entered),
            written: last_write.map(|mark| mark.returned),
            read: last_read.map(|mark| mark.returned),
            writer: last_write.map(|mark| mark.pid),
            reader: last_read.map(|mark| mark.pid),
        }
    }

    /// Whether a hole was found since `since`.
    pub(crate) fn torn_since(&self, since: Option<Timestamp>) -> bool {
        self.last_gap.is_some_and(|gap| Some(gap) >= since)
    }

    /// Puts another framing in place; what the old one holds is skipped.
    pub(crate) fn reframe(&mut self, framer: Framer) {
        self.owed -= self.framer.take_used() + self.framer.held_bytes() as u64;
        self.framer = framer;
    }

    /// Whether every byte that came in is accounted for.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn is_balanced(&self) -> bool {
        let held = (self.assembler.held_bytes() + self.framer.held_bytes()) as u64;
        self.owed == held + self.assembler.duplicate()
    }

    /// `slot` wants to know when the byte before `end` is read.
    pub(crate) fn await_read(&mut self, end: u64, slot: Slot) {
        let awaiting = &mut self.times.get_or_insert_default().awaiting;
        if awaiting.len() == MAX_AWAITING {
            awaiting.pop_front();
        }
        let at = awaiting.partition_point(|(other, _)| *other <= end);
        awaiting.insert(at, (end, slot));
    }

    /// A request or an answer that ends at or before `end`, where that is, and who waits for it to be read.
    pub(crate) fn pop_awaiting(&mut self, end: u64) -> Option<(u64, Slot)> {
        self.times.as_mut()?.awaiting.pop_front_if(|(at, _)| *at <= end)
    }

    /// Forgets calls that moved nothing of what is still to be told.
    pub(crate) fn prune(&mut self) {
        let Some(times) = &mut self.times else {
            return;
        };
        let given = self.assembler.next().unwrap_or(0);
        let start = self.framer.message_start().min(given);
        times.written.prune(start);
        times.read.prune(start);
    }

    /// Gives back the room of what has gone through.
    fn rest(&mut self) {
        self.owed -= self.assembler.rest();
        self.framer.rest();
        self.line.rest();
        self.times = self.times.take().filter(|times| !times.is_empty());
    }

    /// Bytes held of this flow.
    pub(crate) fn held_bytes(&self) -> usize {
        self.assembler.held_bytes() + self.framer.held_bytes() + self.line.held_bytes()
    }
}

impl Times {
    fn is_empty(&self) -> bool {
        self.written.is_empty() && self.read.is_empty() && self.awaiting.is_empty()
    }
}

/// One end of a link.
#[derive(Clone, Debug, Default)]
pub(crate) struct End {
    pub(crate) key: Option<StreamKey>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) netns: u32,
    pub(crate) closed: bool,
    /// It has been seen itself, not only named as the other end of one that was.
    pub(crate) seen: bool,
}

/// One stream: a pipe, or both ends of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// `None` until it is told; taken for a socket until then.
    pub(crate) source: Option<Source>,
    /// A pipe has only the first.
    pub(crate) ends: [End; 2],
    /// Each is made when there is first something to know of it: most streams of a node never speak while they are watched.
    pub(crate) flows: [Option<Box<Flow>>; 2],
    /// What HTTP there is.
    pub(crate) http: Option<Box<HttpTalk>>,
    /// Since when an HTTP response waits for the request it answers.
    pub(crate) waiting: Option<Timestamp>,
    /// It carries MCP.
    pub(crate) mcp: bool,
    /// It carries something else for good: nothing is kept of what goes through it.
    foreign: bool,
    /// What the kernel side goes by.
    pub(crate) told: Verdict,
    pub(super) active: Timestamp,
}

impl Link {
    pub(super) fn new(key: StreamKey) -> Self {
        let mut ends = [End::default(), End::default()];
        ends[0].key = Some(key);
        Self {
            source: None,
            ends,
            flows: [None, None],
            http: None,
            waiting: None,
            mcp: false,
            foreign: false,
            told: Verdict::Undecided,
            active: Timestamp(0),
        }
    }

    /// The flow of a side, where something is known of it.
    pub(crate) fn flow(&self, side: usize) -> Option<&Flow> {
        self.flows[side].as_deref()
    }

    /// The flow of a side, made where there is none; `None` where nothing of it is wanted.
    pub(crate) fn flow_mut(&mut self, side: usize) -> Option<&mut Flow> {
        let flow = &mut self.flows[side];
        if flow.is_none() && !self.foreign {
            *flow = Some(Box::default());
        }
        flow.as_deref_mut()
    }

    /// Takes in that this is no MCP and never will be: what it has told is let go.
    pub(crate) fn ignore(&mut self) {
        self.foreign = true;
        self.http = None;
        self.flows = [None, None];
    }

    /// Whether bytes were seen on it.
    pub(super) fn has_spoken(&self) -> bool {
        self.foreign || self.flows().any(|flow| flow.assembler.next().is_some())
    }

    /// What is known of either direction.
    pub(crate) fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter().flatten().map(Box::as_ref)
    }

    /// The same, to be changed.
    pub(crate) fn flows_mut(&mut self) -> impl Iterator<Item = &mut Flow> {
        self.flows.iter_mut().flatten().map(Box::as_mut)
    }

    /// Takes in another half, whose end `their_end` is the other end of this link's `end`.
    pub(super) fn absorb(&mut self, end: usize, half: &mut Self, their_end: usize) {
        let theirs = std::mem::take(&mut half.ends[their_end]);
        let known = &mut self.ends[1 - end];
        known.seen |= theirs.seen;
        known.address = known.address.or(theirs.address);
        known.netns = known.netns.max(theirs.netns);
        known.closed = theirs.closed;
        // Ends of a TLS session count each from when it came into sight: one's positions mean nothing to the other.
        let alike = self.source != Some(Source::Tls);
        for side in 0..2 {
            let their_side = if 1 - end == their_end { side } else { 1 - side };
            let Some(other) = half.flows[their_side].as_deref_mut() else {
                continue;
            };
            let Some(flow) = self.flow_mut(side) else {
                return;
            };
            flow.writers.join(&other.writers);
            flow.readers.join(&other.readers);
            if alike && flow.assembler.next().is_none() && other.assembler.next().is_some() {
                std::mem::swap(flow, other);
                flow.writers.join(&other.writers);
                flow.readers.join(&other.readers);
            }
        }
    }

    pub(super) fn learn(&mut self, opened: &Opened, end: usize) {
        self.source = Some(opened.source);
        self.active = self.active.max(opened.time);
        let (here, there) = (end, 1 - end);
        self.ends[here].address = opened.local.or(self.ends[here].address);
        self.ends[here].netns = opened.netns;
        self.ends[here].seen = true;
        self.ends[there].address = self.ends[there].address.or(opened.remote);
    }

    /// Whether a stream of unknown kind must be a pipe: what is read from the object is what was written into it.
    pub(super) fn is_pipe_after_all(&self, data: &Data) -> bool {
        let Position::Total(position) = data.position else {
            return false;
        };
        data.direction == Direction::Received
            && data.bytes.is_empty()
            && self.ends[1].key.is_none()
            && self
                .flow(0)
                .and_then(|flow| flow.assembler.next())
                .is_some_and(|next| position + u64::from(data.span) <= next)
    }

    /// Gives back room that is not in use: most streams are idle most of the time.
    pub(super) fn rest(&mut self) {
        self.flows_mut().for_each(Flow::rest);
        if let Some(http) = &mut self.http {
            http.rest();
        }
    }

    /// Bytes held of both directions.
    pub(crate) fn held_bytes(&self) -> usize {
        self.flows().map(Flow::held_bytes).sum()
    }

    /// Bytes of memory that messages in the making take.
    pub(crate) fn room(&self) -> usize {
        let room = |flow: &Flow| flow.assembler.held_bytes() + flow.framer.room() + flow.line.held_bytes();
        self.flows().map(room).sum()
    }

    /// Both ends, or the pipe, are over.
    pub(crate) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.closed || end.key.is_none())
    }
}

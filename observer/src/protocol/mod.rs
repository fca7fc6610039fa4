//! Turns kernel events into MCP observations: pure, no I/O, no clock, no thread.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods)]

mod conversation;
mod digest;
pub mod event;
mod flow;
mod framing;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod json;
mod jsonrpc;
mod lifecycle;
mod marks;
mod matcher;
mod mcp;
pub mod observation;
mod queue;
mod reassembly;
mod recent;
mod stream;
mod underlay;

use std::collections::VecDeque;
use std::sync::Arc;

use conversation::{Early, Settled};
use event::{Event, Timestamp};
use matcher::{Matcher, Scope, Slot};
use mcp::again::Again;
use mcp::peer::Peers;
use mcp::session::Sessions;
use mcp::task::Tasks;
use observation::{Outcome, Output, Parties};
use queue::Queue;
use recent::Recent;
use stream::{LinkId, Streams};
use underlay::Underlay;

/// Bounds of the pipeline.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Streams (both ends of one counted once) remembered at once; the least recently active is evicted.
    pub streams: usize,
    /// Bytes held of one direction of a stream while a message is incomplete.
    pub stream_bytes: usize,
    /// Bytes held of all streams together; beyond it the least recently active that holds any is evicted.
    pub held_bytes: usize,
    /// Nanoseconds after which a request without an answer is `unanswered`.
    pub call_deadline: u64,
    /// By which a number of characters is divided for an estimate of tokens.
    pub characters_per_token: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 16_384,
            stream_bytes: 16 << 20,
            // Sixteen of the longest messages at the same time, and what a node can spare; streams that carry whole messages
            // hold nothing between them.
            held_bytes: 256 << 20,
            call_deadline: 300_000_000_000,
            // English text and JSON in the vocabularies of today's models.
            characters_per_token: 4,
        }
    }
}

impl Limits {
    /// Tokens by estimate; a begun one counts whole.
    pub(crate) const fn tokens(&self, characters: u64) -> u64 {
        characters.div_ceil(self.characters_per_token)
    }
}

/// What the pipeline holds at the moment, for the observer's metrics of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Streams known to carry MCP.
    pub streams_mcp: usize,
    /// Streams not yet decided.
    pub streams_undecided: usize,
    /// Streams decided not to carry MCP.
    pub streams_other: usize,
    /// Bytes of messages that are not whole yet, or not known to be MCP.
    pub held_bytes: usize,
    /// Requests waiting for an answer.
    pub pending: usize,
    /// Entries forgotten so far because there were too many, by table.
    pub evictions: [(&'static str, u64); 7],
    /// Structured results so far that were not checked against their tool's schema: too large, too many, or a schema that
    /// is refused.
    pub unchecked_results: u64,
}

/// Turns kernel events into MCP observations.
///
/// Does no I/O, reads no clock and spawns nothing. What it knows comes in through `handle_*`, what it concludes comes out
/// through `poll_*`. After each `handle_*`, call `poll_output` until it returns `None`, then `poll_timeout`.
///
/// ```text
/// handle_event ─► queue ─► order by time ─► reassembly ─► framing ─► conversation ─► matcher ─► poll_output
///                               ▲
/// handle_timeout ───────────────┘ also: holes given up, calls given up
/// ```
#[derive(Debug)]
pub struct Pipeline {
    limits: Limits,
    queue: Queue,
    /// What time it is, until all is worked through that is due by then.
    turn: Option<Timestamp>,
    /// The latest time worked through: event time never goes back.
    now: Timestamp,
    streams: Streams,
    underlay: Underlay,
    matcher: Matcher,
    peers: Peers,
    /// Calls that ended without an answer, for the answer that comes late.
    given_up: Recent<(Scope, jsonrpc::RpcId), (Parties, Outcome)>,
    settled: Settled,
    again: Again,
    tasks: Tasks,
    sessions: Sessions,
    /// Sessions of HTTP+SSE whose endpoint was seen.
    sse_sessions: Recent<Arc<str>, ()>,
    /// Refusals that a retry with another version makes steps of negotiation.
    refused: Vec<Slot>,
    /// Answers that came before their request.
    early: VecDeque<Early>,
    /// Streams that something waits on which only time brings: a hole, a response before its request.
    restless: Vec<LinkId>,
    /// When idle streams were last made to give back room.
    rested: Timestamp,
    evictions: Evictions,
    /// Requests let in so far: each is named by its number.
    requests: u64,
    outputs: VecDeque<Output>,
}

/// What had to make room so far.
#[derive(Clone, Copy, Debug, Default)]
struct Evictions {
    streams: u64,
    requests: u64,
    /// Streams that held bytes when all held too many.
    held: u64,
}

/// Calls given up and sessions that are remembered; each is a few hundred bytes.
const MAX_REMEMBERED: usize = 16_384;

impl Pipeline {
    /// A pipeline that knows nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            queue: Queue::default(),
            turn: None,
            now: Timestamp(0),
            streams: Streams::default(),
            underlay: Underlay::default(),
            matcher: Matcher::default(),
            peers: Peers::default(),
            given_up: Recent::new(MAX_REMEMBERED),
            settled: Settled::default(),
            again: Again::default(),
            tasks: Tasks::default(),
            sessions: Sessions::default(),
            sse_sessions: Recent::new(MAX_REMEMBERED),
            refused: Vec::new(),
            early: VecDeque::new(),
            restless: Vec::new(),
            rested: Timestamp(0),
            evictions: Evictions::default(),
            requests: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Takes in one event. It is worked through when its time has come; see [`Self::handle_timeout`].
    ///
    /// What a stream is holds from its beginning, whenever it is told: that waits for nothing.
    pub fn handle_event(&mut self, event: Event) {
        match event {
            Event::Opened(opened) => return self.opened(&opened),
            event => self.queue.push(event),
        }
        if self.queue.is_full() {
            for _ in 0..self.queue.len().div_ceil(2) {
                self.work_next();
            }
        }
    }

    /// Takes in the end of a stream that nobody told of. What it holds is lost, unless it is known to be MCP, which is ended as ever.
    pub fn handle_missed_end(&mut self, closed: event::Closed) {
        let found = self.streams.find(closed.key).map(|(id, _)| id);
        match found.filter(|id| self.streams.link(*id).is_some_and(|link| !link.mcp)) {
            Some(unknown) => self.evict(unknown, event::DropReason::CutShort),
            None => self.handle_event(Event::Closed(closed)),
        }
    }

    /// Takes in that it is now `now`: what came before is ordered and worked through, and what is due given up, as
    /// [`Self::poll_output`] is called.
    ///
    /// Events of the last [`queue::ORDER_WAIT`] nanoseconds wait for others that may belong before them.
    pub const fn handle_timeout(&mut self, now: Timestamp) {
        self.turn = Some(now);
    }

    /// What has been concluded, oldest first. Works on until there is something: of what comes out little is in memory at once.
    pub fn poll_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            let now = self.turn?;
            match self.queue.pop_until(now) {
                Some(event) => self.work(event),
                None => {
                    self.turn = None;
                    self.advance(now);
                }
            }
        }
    }

    /// When `handle_timeout` is wanted next; `None` when nothing is pending.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let restless = (!self.restless.is_empty() || !self.early.is_empty()).then(|| self.now.plus(queue::ORDER_WAIT));
        [
            self.queue.next_due(),
            self.matcher.next_due(),
            self.tasks.next_due(),
            self.sessions_due(),
            restless,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Gives up everything that is pending, as at the end of a recording or of the daemon.
    pub fn finish(&mut self, now: Timestamp) {
        while self.queue.len() > 0 {
            self.work_next();
        }
        self.turn = None;
        self.advance(now);
        self.give_up_all();
    }

    /// The ends of streams that were seen to move bytes and not to end.
    pub fn open_ends(&self) -> impl Iterator<Item = event::StreamKey> {
        let ends = self.streams.iter().flat_map(|(_, link)| &link.ends);
        ends.filter(|end| end.seen && !end.closed).filter_map(|end| end.key)
    }

    /// What is held at the moment.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut census = Census {
            pending: self.matcher.len(),
            evictions: [
                ("streams", self.evictions.streams),
                ("requests", self.evictions.requests),
                ("questions", self.again.evictions()),
                ("tasks", self.tasks.evictions()),
                ("sessions", self.sessions.evictions()),
                ("catalogs", self.peers.catalogs.evictions()),
                ("held_bytes", self.evictions.held),
            ],
            unchecked_results: self.peers.schemas.skipped,
            ..Census::default()
        };
        for (_, link) in self.streams.iter() {
            census.held_bytes += link.held_bytes();
            *match (link.mcp, link.told) {
                (true, _) => &mut census.streams_mcp,
                (false, event::Verdict::Undecided | event::Verdict::Mcp) => &mut census.streams_undecided,
                (false, event::Verdict::HeadsOnly | event::Verdict::NotMcp) => &mut census.streams_other,
            } += 1;
        }
        census
    }

    fn work_next(&mut self) {
        if let Some(event) = self.queue.pop() {
            self.work(event);
        }
    }

    fn work(&mut self, event: Event) {
        self.now = self.now.max(event.time());
        match event {
            Event::Data(data) => self.data(data),
            Event::Opened(opened) => self.opened(&opened),
            Event::Closed(closed) => self.closed(&closed),
            Event::Process(process) => self.process(&process),
            Event::Holder(holder) => self.holder(&holder),
        }
    }
}

#[cfg(test)]
mod tests;

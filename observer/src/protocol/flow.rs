//! From a record to frames: places its bytes in their flow, cuts messages, hands them to their conversation.

use super::Pipeline;
use super::event::{Data, DropReason, Missing, Source, Timestamp, Verdict};
use super::framing::{Framer, Step};
use super::marks::Mark;
use super::observation::Output;
use super::reassembly::{Chunk, GapKind};
use super::stream::{At, FlowId, LinkId};

/// How long a response waits for the request that it answers, and an answer for its request.
pub(crate) const CAUSE_WAIT: u64 = 1_000_000_000;

/// How long a stream is idle before it gives back room, and how often such streams are looked for.
const REST: u64 = 1_000_000_000;

/// Bytes of responses that wait for their request on one connection.
const MAX_WAITING_BYTES: usize = 1 << 20;

impl Pipeline {
    /// Bytes went through a stream.
    pub(crate) fn data(&mut self, data: Data) {
        if self.streams.find(data.key).is_none() {
            self.make_room();
        }
        let (flow_id, at) = self.streams.locate(&data);
        match self.streams.link(flow_id.link).and_then(|link| link.source) {
            Some(Source::Tls) => {
                for data in self.plain_text(data) {
                    self.read_on(data);
                }
                return;
            }
            Some(Source::Tcp | Source::Unix) => {
                let end = if at == At::Writer {
                    flow_id.side
                } else {
                    1 - flow_id.side
                };
                self.cipher_text((flow_id.link, end), &data);
            }
            Some(Source::Pipe) | None => {}
        }
        self.bytes(flow_id, at, data);
    }

    /// Works through bytes that have waited.
    pub(crate) fn read_on(&mut self, data: Data) {
        let (flow_id, at) = self.streams.locate(&data);
        self.bytes(flow_id, at, data);
    }

    /// Places bytes in their flow and works them through.
    fn bytes(&mut self, flow_id: FlowId, at: At, data: Data) {
        let (now, muted) = (self.now, data.missing == Missing::Muted);
        let Some(link) = self.streams.link_mut(flow_id.link) else {
            return;
        };
        let (before, waiting) = (link.room(), link.waiting.is_some());
        let Some(flow) = link.flow_mut(flow_id.side) else {
            return;
        };
        let start = flow.assembler.extend(data.position);
        let mark = Mark::new(start, data.span, data.entered, data.returned, data.pid);
        flow.note(at, mark);
        let newcomer = flow.crew_mut(at).act(data.pid);
        if !matches!(flow.framer, Framer::Ignore) {
            flow.owed += data.bytes.len() as u64;
            if at == At::Writer && data.missing == Missing::AtOtherEnd {
                flow.assembler.announce(start, data.span, data.bytes.len());
            }
            flow.assembler.insert(start, data.span, data.bytes, data.missing, now);
            if at == At::Reader {
                flow.assembler.read(start + u64::from(data.span), now);
            }
        }
        // Most reads are of what went through when it was written: they add who and when, and nothing to work through.
        let brings = at == At::Writer || !flow.assembler.is_through();
        if newcomer {
            self.streams.remember(data.pid, flow_id.link);
        }
        if muted {
            self.http_muted(flow_id.link);
        }
        if brings || muted || waiting {
            self.drive(flow_id);
            self.streams.holds(flow_id.link, before);
        }
        if let Some(flow) = self.streams.flow_mut(flow_id) {
            flow.prune();
        }
        if at == At::Reader {
            self.resolve_reads(flow_id, &mark);
        }
        if self.streams.held > self.limits.held_bytes {
            self.make_room_for_bytes();
        }
    }

    /// Whether a response waits for its request.
    fn is_waiting(&self, link: LinkId) -> bool {
        self.streams.link(link).is_some_and(|link| link.waiting.is_some())
    }

    /// Works through what a flow has in order; a request may free a response that waited for it.
    pub(crate) fn drive(&mut self, flow_id: FlowId) {
        self.drive_one(flow_id);
        if self.is_waiting(flow_id.link) {
            self.drive_one(flow_id.reverse());
        }
        let restless = self.streams.link(flow_id.link).is_some_and(|link| {
            link.waiting.is_some() || link.flows().any(|flow| flow.assembler.patience_ends().is_some())
        });
        if restless && !self.restless.contains(&flow_id.link) {
            self.restless.push(flow_id.link);
        }
    }

    fn drive_one(&mut self, flow_id: FlowId) {
        while self.step(flow_id) && self.feed(flow_id) {}
    }

    /// Hands the framer the next chunk, if there is one.
    fn feed(&mut self, flow_id: FlowId) -> bool {
        let (now, max_bytes) = (self.now, self.limits.stream_bytes);
        let Some(flow) = self.streams.flow_mut(flow_id) else {
            return false;
        };
        let Some(chunk) = flow.assembler.pop(now, max_bytes) else {
            return false;
        };
        let ignored = matches!(flow.framer, Framer::Ignore);
        let gap = match &chunk {
            Chunk::Gap { length, kind, .. } => Some((*length, *kind)),
            Chunk::Bytes { bytes, .. } => {
                flow.owed -= if ignored { bytes.len() as u64 } else { 0 };
                None
            }
        };
        flow.framer.feed(chunk);
        if let Some((length, kind)) = gap {
            if kind != GapKind::Muted {
                flow.last_gap = Some(now);
                self.http_torn(flow_id);
            }
            if kind == GapKind::Undelivered && !ignored {
                self.lose(DropReason::Missing, length);
            }
        }
        true
    }

    /// Frames of what was fed; whether more is wanted now.
    fn step(&mut self, flow_id: FlowId) -> bool {
        let max_bytes = self.limits.stream_bytes;
        loop {
            let Some(flow) = self.streams.flow_mut(flow_id) else {
                return false;
            };
            let flow = match flow.framer.next_response() {
                None => flow,
                Some(stream) if self.must_wait_for_request(flow_id, stream) => return false,
                Some(_) => match self.streams.flow_mut(flow_id) {
                    Some(flow) => flow,
                    None => return false,
                },
            };
            let step = flow.framer.step(max_bytes);
            flow.owed -= flow.framer.take_used();
            if let Step::Lost { bytes, .. } = step {
                flow.owed -= bytes;
            }
            let http = matches!(flow.framer, Framer::Http(_) | Framer::Http2(_));
            if http && self.reject(flow_id) {
                continue;
            }
            match step {
                Step::NeedMore => return true,
                Step::Response => {}
                Step::Frame(frame) if http => self.http_frame(flow_id, frame),
                Step::Frame(frame) => self.line_frame(flow_id, frame),
                Step::Lost { reason, bytes, broken } => self.dropped(flow_id, reason, bytes, broken),
            }
        }
    }

    /// What began like HTTP and is not goes on as lines.
    fn reject(&mut self, flow_id: FlowId) -> bool {
        let Some(flow) = self.streams.flow_mut(flow_id) else {
            return false;
        };
        let Framer::Http(http) = &mut flow.framer else {
            return false;
        };
        let Some((start, bytes)) = http.take_rejected() else {
            return false;
        };
        flow.owed -= flow.framer.take_used();
        flow.framer = Framer::default();
        flow.framer.feed(Chunk::Bytes {
            start,
            bytes,
            fresh: false,
        });
        true
    }

    /// Whether a response waits for the request it answers.
    fn must_wait_for_request(&mut self, flow_id: FlowId, stream: u32) -> bool {
        let now = self.now;
        let Some(link) = self.streams.link_mut(flow_id.link) else {
            return false;
        };
        let (held, ended) = link
            .flow(flow_id.side)
            .map_or((0, true), |flow| (flow.held_bytes(), flow.ended));
        if link.http.as_ref().is_some_and(|talk| talk.expects_response(stream)) {
            link.waiting = None;
            return false;
        }
        let since = *link.waiting.get_or_insert(now);
        if now.since(since) < CAUSE_WAIT && held < MAX_WAITING_BYTES && !ended {
            return true;
        }
        link.waiting = None;
        self.http_unasked(flow_id.link, stream);
        false
    }

    /// Bytes that a framer could not use: a loss where the stream is MCP, else nothing that was wanted.
    fn dropped(
        &mut self,
        flow_id: FlowId,
        reason: DropReason,
        bytes: u64,
        broken: Option<super::observation::MalformedReason>,
    ) {
        let Some(link) = self.streams.link(flow_id.link).filter(|link| link.mcp) else {
            return;
        };
        if bytes > 0 {
            self.outputs.push_back(Output::Lost { reason, bytes });
        }
        if let Some(reason) = broken {
            let client = link.http.as_ref().is_some_and(|talk| talk.requests == flow_id);
            let sender = if client {
                super::observation::Side::Client
            } else {
                super::observation::Side::Server
            };
            let parties = self.parties(flow_id, sender);
            self.malformed(parties, sender, reason);
        }
    }

    /// Everything up to here was read; what an earlier call read that was not seen stays without that time.
    fn resolve_reads(&mut self, flow_id: FlowId, mark: &Mark) {
        let end = mark.end();
        if let Some(flow) = self.streams.flow_mut(flow_id) {
            flow.line.read_seen(mark);
        }
        loop {
            let Some(flow) = self.streams.flow_mut(flow_id) else {
                return;
            };
            let Some((at, slot)) = flow.pop_awaiting(end) else {
                return;
            };
            let seen = mark.completes(at).then_some((mark.returned, mark.pid));
            self.read_seen(slot, flow_id, at, seen);
        }
    }

    /// Looks again at streams on which only time brings something.
    pub(crate) fn wake(&mut self) {
        for link in std::mem::take(&mut self.restless) {
            for side in 0..2 {
                self.drive(FlowId { link, side });
            }
        }
    }

    /// Tells the kernel side, at both ends, unless it goes by that already.
    pub(crate) fn tell_verdict(&mut self, link_id: LinkId, verdict: Verdict) {
        let verdict = if verdict == Verdict::NotMcp && self.may_carry_tls(link_id) {
            Verdict::HeadsOnly
        } else {
            verdict
        };
        let Some(link) = self.streams.link_mut(link_id) else {
            return;
        };
        link.mcp |= verdict == Verdict::Mcp;
        if link.told == verdict {
            return;
        }
        link.told = verdict;
        let keys = link.ends.each_ref().map(|end| end.key);
        self.outputs
            .extend(keys.into_iter().flatten().map(|key| Output::Verdict(key, verdict)));
    }

    /// Works off what is due at `now`.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        // Events up to ORDER_WAIT before `now` are through; time stands where they ended.
        let reached = Timestamp(now.0.saturating_sub(super::queue::ORDER_WAIT));
        self.now = self.now.max(reached);
        if self.now >= self.rested.plus(REST) {
            // Those active in the last round may be active in this one: they rest in the next.
            let before = |time: Timestamp| Timestamp(time.0.saturating_sub(REST));
            self.streams.rest(before(self.rested), before(self.now));
            self.rested = self.now;
        }
        self.wake();
        self.give_up_early();
        self.settle_tasks();
        self.settle_sessions();
        let silent = self.sessions.silent(self.now);
        self.tell_sessions(silent);
        while let Some((due, slot)) = self.matcher.pop_due(self.now) {
            self.due(due, slot);
        }
    }
}

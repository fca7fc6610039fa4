//! Conversations of newline-delimited JSON: stdio servers, and anything that talks like one.
//!
//! A stdio session is often two objects: a pipe or socketpair for each way. Which two belong together is told by the
//! processes at their ends:
//!
//! ```text
//! client ──writes──► A ──reads──► server
//! client ◄──reads─── B ◄──writes── server       an answer on B belongs to a request on A
//! ```

use std::collections::VecDeque;

use smallvec::smallvec;

use super::{Answered, Asked, Context, Held, Source, as_answer};
use crate::protocol::Pipeline;
use crate::protocol::event::{DropReason, Verdict};
use crate::protocol::framing::{Frame, FrameKind, Framer};
use crate::protocol::jsonrpc::{Kind, Message, Parsed, RpcId, parse};
use crate::protocol::marks::Mark;
use crate::protocol::matcher::{Scope, Seen};
use crate::protocol::mcp::method::Sender;
use crate::protocol::mcp::outcome::End;
use crate::protocol::mcp::pressure::Hints;
use crate::protocol::observation::{MalformedReason, Observation, Side};
use crate::protocol::stream::FlowId;

/// Bytes of messages held of a flow that is not known to be MCP.
const MAX_HELD_BYTES: usize = 256 << 10;

/// Messages held of a flow that is not known to be MCP.
const MAX_HELD: usize = 64;

/// Bytes of text without a JSON-RPC message after which a flow is no MCP. A server may print a banner first.
const MAX_PROSE: u64 = 64 << 10;

/// Requests of a server that wait for their client's answer.
const MAX_ASKED: usize = 256;

/// What is known of a flow of lines.
#[derive(Debug, Default)]
pub(crate) struct LineTalk {
    /// It carries MCP.
    pub(crate) evident: bool,
    /// Its session began on it: no request was before.
    pub(crate) greeted: bool,
    /// Which side writes it.
    pub(crate) sender: Option<Side>,
    /// The flow that goes the other way, where that is another object.
    pub(crate) partner: Option<FlowId>,
    waiting: Option<Box<Waiting>>,
}

/// What waits on a flow of lines: for evidence, or for an answer.
#[derive(Debug, Default)]
struct Waiting {
    held: Vec<Held>,
    /// Bytes of `held`.
    held_bytes: usize,
    /// Bytes that were no JSON-RPC message.
    prose: u64,
    /// Ids of the server's requests on this flow.
    asked: VecDeque<RpcId>,
}

impl LineTalk {
    /// Whether so many messages are held that it is time to look again for where they belong.
    pub(crate) fn is_time_to_look(&self) -> bool {
        let held = self.waiting.as_ref().map_or(0, |waiting| waiting.held.len());
        (held + 1).is_power_of_two()
    }

    /// Bytes of messages that wait for evidence.
    pub(crate) fn held_bytes(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.held_bytes)
    }

    /// Gives back room where nothing waits; what was no message counts until there is evidence.
    pub(crate) fn rest(&mut self) {
        let waits = |waiting: &Waiting| !waiting.held.is_empty() || !waiting.asked.is_empty();
        if self.evident {
            self.waiting = self.waiting.take().filter(|waiting| waits(waiting));
        }
    }

    /// Notes when a held message was read.
    pub(crate) fn read_seen(&mut self, mark: &Mark) {
        let held = self.waiting.iter_mut().flat_map(|waiting| &mut waiting.held);
        for held in held.filter(|held| mark.completes(held.seen.end)) {
            held.seen.read.get_or_insert(mark.returned);
            held.seen.reader.get_or_insert(mark.pid);
        }
    }
}

impl Pipeline {
    /// One line of a flow.
    pub(crate) fn line_frame(&mut self, flow_id: FlowId, frame: Frame) {
        let Some(flow) = self.streams.flow_mut(flow_id) else {
            return;
        };
        match frame.kind {
            FrameKind::Line(payload) => {
                let seen = flow.seen(frame.start, frame.end);
                let length = payload.length;
                for parsed in parse(&payload) {
                    self.line_message(flow_id, parsed, seen, length);
                }
            }
            FrameKind::Noise => self.not_mcp(flow_id),
            _ if flow.framer.is_event_stream() => {}
            _ => self.prose(flow_id, MalformedReason::StrayOutput, frame.end - frame.start),
        }
    }

    fn line_message(&mut self, flow_id: FlowId, parsed: Parsed, seen: Seen, length: u64) {
        if self.is_evident(flow_id, &parsed) {
            return self.line_evident(flow_id, parsed, seen);
        }
        match &parsed {
            Parsed::Broken(reason, _) => self.prose(flow_id, *reason, length),
            Parsed::Unreadable(_) => {}
            Parsed::Message(_) => self.hold(flow_id, parsed, seen, length),
        }
    }

    /// Whether a flow is known to be MCP, be it by this message.
    fn is_evident(&mut self, flow_id: FlowId, parsed: &Parsed) -> bool {
        if self.streams.flow(flow_id).is_none_or(|flow| flow.line.evident) {
            return true;
        }
        let proves = match parsed {
            Parsed::Message(message) => {
                message.proves_mcp()
                    || match &message.kind {
                        Kind::Result(id, _) | Kind::Error(Some(id), _) => {
                            self.find_line_request(flow_id, id).is_some() || self.find_kin(flow_id)
                        }
                        _ => false,
                    }
            }
            // An answer that breaks the rules to a request that was seen.
            Parsed::Broken(_, Some(id)) => self.find_line_request(flow_id, id).is_some(),
            Parsed::Broken(_, None) | Parsed::Unreadable(_) => false,
        };
        if proves {
            self.find_requests(flow_id, parsed);
            self.become_evident(flow_id);
        }
        proves
    }

    /// What a server says of itself before it answers anything belongs to what its client said before.
    fn find_requests(&mut self, flow_id: FlowId, parsed: &Parsed) {
        let by_server = match parsed {
            Parsed::Message(message) => match &message.kind {
                Kind::Request(_, method, _) | Kind::Notification(method, _) => method.sender() != Sender::Client,
                _ => false,
            },
            _ => false,
        };
        if by_server && self.counterpart(flow_id).is_none() {
            self.find_kin(flow_id);
        }
    }

    /// A flow turns out to be MCP: so is its conversation, and what was held goes on its way.
    fn become_evident(&mut self, flow_id: FlowId) {
        let Some(flow) = self.streams.flow_mut(flow_id).filter(|flow| !flow.line.evident) else {
            return;
        };
        flow.line.evident = true;
        flow.framer.settle();
        let alone = flow.framer.is_event_stream();
        let held = flow.line.waiting.take().map(|waiting| waiting.held).unwrap_or_default();
        self.tell_verdict(flow_id.link, Verdict::Mcp);
        for Held { parsed, seen } in held {
            self.line_evident(flow_id, parsed, seen);
        }
        if let Some(other) = self.counterpart(flow_id).filter(|_| !alone) {
            self.become_evident(other);
        }
    }

    /// A message of a flow that is MCP.
    fn line_evident(&mut self, flow_id: FlowId, parsed: Parsed, seen: Seen) {
        let source = Source {
            flow: flow_id,
            status: None,
            hints: Hints::default(),
            first_byte: None,
        };
        match parsed {
            Parsed::Message(message) => self.line_routed(&source, message, seen),
            Parsed::Unreadable(bytes) => self.lose(DropReason::Resync, bytes),
            Parsed::Broken(reason, id) => {
                let sender = self.sender(flow_id, Sender::Either);
                let parties = self.parties(flow_id, sender);
                self.malformed(parties, sender, reason);
                if let Some(slot) = id.and_then(|id| self.find_line_request(flow_id, &id)) {
                    let ended = super::Ended {
                        answer: Some((flow_id, seen)),
                        ..super::Ended::without_answer(End::Malformed, None)
                    };
                    self.end(slot, &ended, None);
                }
            }
        }
    }

    fn line_routed(&mut self, source: &Source, message: Message, seen: Seen) {
        let flow_id = source.flow;
        let Message { kind, length, cut } = message;
        match kind {
            Kind::Request(id, method, params) => {
                let sender = self.sender(flow_id, method.sender());
                let parties = self.parties(flow_id, sender);
                if sender == Side::Server {
                    self.remember_asked(flow_id, id);
                    let method = method.shown();
                    return self.observe(Observation::ServerRequest { parties, method });
                }
                let context = Context {
                    scopes: smallvec![Scope::Line(flow_id)],
                    unpaired: self
                        .streams
                        .flow(flow_id)
                        .is_some_and(|flow| flow.line.partner.is_none()),
                    ..Context::default()
                };
                if method.is("initialize")
                    && let Some(flow) = self.streams.flow_mut(flow_id)
                {
                    flow.line.greeted = true;
                }
                let early = id.clone();
                let asked = Asked {
                    id,
                    method,
                    params,
                    length,
                    cut,
                };
                let slot = self.begin(source, context, asked, seen, parties);
                self.retry_early(&early, slot);
            }
            Kind::Notification(method, params) => {
                let sender = self.sender(flow_id, method.sender());
                let parties = self.parties(flow_id, sender);
                let requests = match sender {
                    Side::Client => Some(flow_id),
                    Side::Server => self.counterpart(flow_id),
                };
                let scopes: Vec<Scope> = requests.map(Scope::Line).into_iter().collect();
                self.notify(&scopes, &method, &params, sender, parties);
            }
            kind @ (Kind::Result(..) | Kind::Error(..)) => {
                let Ok((id, body)) = as_answer(kind) else {
                    return;
                };
                self.line_answer(source, id, Answered { body, length, cut }, seen);
            }
        }
    }

    fn line_answer(&mut self, source: &Source, id: Option<RpcId>, answered: Answered, seen: Seen) {
        let flow_id = source.flow;
        let Some(id) = id else {
            let sender = self.sender(flow_id, Sender::Either);
            let parties = self.parties(flow_id, sender);
            return self.malformed(parties, sender, MalformedReason::BadId);
        };
        if self.was_asked(flow_id, &id) {
            return;
        }
        let Some(slot) = self.find_line_request(flow_id, &id) else {
            return self.hold_early(source.clone(), id, answered, seen);
        };
        self.sender(flow_id, Sender::Server);
        self.answer(source, slot, answered, seen);
    }

    /// Which side writes a flow; a method that only one side sends settles it.
    fn sender(&mut self, flow_id: FlowId, method: Sender) -> Side {
        let other = self
            .counterpart(flow_id)
            .and_then(|other| self.streams.flow(other)?.line.sender);
        let Some(flow) = self.streams.flow_mut(flow_id) else {
            return Side::Client;
        };
        match method {
            Sender::Client => *flow.line.sender.get_or_insert(Side::Client),
            Sender::Server => *flow.line.sender.get_or_insert(Side::Server),
            Sender::Either => flow.line.sender.unwrap_or(match other {
                Some(Side::Client) => Side::Server,
                Some(Side::Server) | None => Side::Client,
            }),
        }
    }

    fn remember_asked(&mut self, flow_id: FlowId, id: RpcId) {
        if let Some(flow) = self.streams.flow_mut(flow_id) {
            let asked = &mut flow.line.waiting.get_or_insert_default().asked;
            if asked.len() == MAX_ASKED {
                asked.pop_front();
            }
            asked.push_back(id);
        }
    }

    /// Whether an answer on `flow` is a client's answer to its server.
    pub(super) fn was_asked(&mut self, flow_id: FlowId, id: &RpcId) -> bool {
        let flow = self.counterpart(flow_id).and_then(|other| self.streams.flow_mut(other));
        let Some(waiting) = flow.and_then(|flow| flow.line.waiting.as_mut()) else {
            return false;
        };
        let before = waiting.asked.len();
        waiting.asked.retain(|asked| asked != id);
        waiting.asked.len() < before
    }

    /// Keeps a message of a flow that may turn out to be MCP.
    fn hold(&mut self, flow_id: FlowId, parsed: Parsed, seen: Seen, length: u64) {
        let Some(flow) = self.streams.flow_mut(flow_id) else {
            return;
        };
        let talk = flow.line.waiting.get_or_insert_default();
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if talk.held.len() < MAX_HELD && talk.held_bytes.saturating_add(bytes) <= MAX_HELD_BYTES {
            talk.held_bytes += bytes;
            talk.held.push(Held { parsed, seen });
            return;
        }
        // JSON-RPC, but so much of it without a word of MCP is another protocol.
        let lost = talk.held_bytes as u64 + length;
        talk.held = Vec::new();
        talk.held_bytes = 0;
        self.lose(DropReason::HeldTooLong, lost);
        self.not_mcp(flow_id);
    }

    /// Bytes that are no message: a rule broken on an MCP stream, on another a sign that it is none.
    fn prose(&mut self, flow_id: FlowId, reason: MalformedReason, bytes: u64) {
        let Some(flow) = self.streams.flow_mut(flow_id) else {
            return;
        };
        if flow.line.evident {
            let sender = self.sender(flow_id, Sender::Either);
            let parties = self.parties(flow_id, sender);
            return self.malformed(parties, sender, reason);
        }
        let waiting = flow.line.waiting.get_or_insert_default();
        waiting.prose += bytes;
        if waiting.prose > MAX_PROSE && waiting.held.is_empty() {
            self.not_mcp(flow_id);
        }
    }

    /// A flow of lines is not MCP; its stream is not when the other direction does not say otherwise.
    pub(super) fn not_mcp(&mut self, flow_id: FlowId) {
        let under_tls = self.underlay.knows(flow_id.link);
        let Some(link) = self.streams.link_mut(flow_id.link) else {
            return;
        };
        if link.http.is_some() || link.mcp {
            if let Some(flow) = link.flow_mut(flow_id.side) {
                flow.reframe(Framer::Ignore);
            }
        } else {
            if under_tls {
                // Who is at its ends is still wanted.
                link.flows_mut().for_each(|flow| flow.reframe(Framer::Ignore));
            } else {
                link.ignore();
            }
            self.tell_verdict(flow_id.link, Verdict::NotMcp);
        }
    }
}

//! Follows conversations: which messages are MCP, which request an answer belongs to, when a call is over.
//!
//! ```text
//! frame ─► line.rs or http.rs ─► evidence? ─ no ─► held, bounded
//!                                    │ yes
//!                                    ▼
//!              begin · answer · notify · malformed ─► matcher ─► observations
//! ```

mod early;
mod ending;
pub(crate) mod http;
pub(crate) mod line;
mod notices;
mod pairing;
mod parties;
mod peers;
mod strays;

pub(crate) use early::Early;
pub(crate) use ending::{Answered, Ended, as_answer};
use std::sync::Arc;

use ending::{SOON, end_of};
use smallvec::SmallVec;
pub(crate) use strays::{Settled, Sight, Stray};

use super::Pipeline;
use super::digest::Digest;
use super::event::{DropReason, Pid, Timestamp};
use super::jsonrpc::{Parsed, RpcId};
use super::matcher::{Due, MAX_PENDING, Scope, Seen, Slot};
use super::mcp::again::{Answers, Turn};
use super::mcp::call::Pending;
use super::mcp::method::{Method, Nature};
use super::mcp::outcome::End;
use super::mcp::params::Params;
use super::mcp::peer::PeerKey;
use super::mcp::pressure::Hints;
use super::observation::{MalformedReason, Observation, Output, Parties, Side, Vantage};
use super::stream::FlowId;

/// Where a message came from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Its flow.
    pub(crate) flow: FlowId,
    /// Of HTTP: status of the answer it is part of.
    pub(crate) status: Option<u16>,
    /// Of HTTP: what its fields say of load.
    pub(crate) hints: Hints,
    /// Of an HTTP answer: when its first byte was written.
    pub(crate) first_byte: Option<Timestamp>,
}

/// What an HTTP request, or nothing, says beside the message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    pub(crate) scopes: SmallVec<[Scope; 2]>,
    pub(crate) session: Option<Arc<str>>,
    pub(crate) version: Option<Arc<str>>,
    pub(crate) traceparent: Option<Arc<str>>,
    pub(crate) conversation: Option<PeerKey>,
    pub(crate) user_agent: Option<Arc<str>>,
    pub(crate) principal: Digest,
    pub(crate) unpaired: bool,
}

/// A request as it is let in.
pub(crate) struct Asked {
    pub(crate) id: RpcId,
    pub(crate) method: Method,
    pub(crate) params: Box<Params>,
    pub(crate) length: u64,
    pub(crate) cut: bool,
}

impl Pipeline {
    /// A client's request.
    pub(crate) fn begin(
        &mut self,
        source: &Source,
        context: Context,
        asked: Asked,
        seen: Seen,
        parties: Parties,
    ) -> Slot {
        if self.matcher.len() >= MAX_PENDING {
            self.evict_pending();
        }
        let conversation = context.conversation.unwrap_or(PeerKey::Flow(source.flow));
        self.settle_refusals(source, &conversation, &asked);
        let Asked {
            id,
            method,
            params,
            length,
            cut,
        } = asked;
        let handshake = method.nature() == Nature::Handshake;
        self.requests += 1;
        let answers = if params.answers_input {
            Answers::Given
        } else {
            Answers::None
        };
        let mut pending = Pending {
            number: self.requests,
            id,
            target: params.name.filter(|_| method.spec().is_some_and(|spec| spec.named)),
            progress_token: params.progress_token,
            scopes: context.scopes,
            unpaired: context.unpaired,
            flow: source.flow,
            parties,
            conversation,
            seen,
            bytes: length,
            cut,
            version: params.meta_version.or(context.version),
            session: context.session,
            traceparent: params.traceparent.or(context.traceparent),
            fingerprint: params.fingerprint,
            turn: Turn::first(self.requests),
            task: params.task.and_then(|task| task.id),
            cursor: params.cursor,
            principal: context.principal,
            tokens: params.characters.map(|characters| self.limits.tokens(characters)),
            before_handshake: true,
            told: false,
            first_progress: None,
            doomed: None,
            over: None,
            method,
        };
        self.introduce_client(
            &mut pending,
            params.client,
            params.version.filter(|_| handshake),
            context.user_agent,
        );
        pending.turn = self.again.turn(&pending, params.request_state, answers, self.now);
        if let Some(session) = &pending.session {
            self.session_heard(session, &pending.parties);
        }
        let tell_now = pending.parties.vantage == Vantage::Server || !self.has_reader(pending.flow);
        let deadline = match pending.method.nature() {
            Nature::Subscription | Nature::Blocking => None,
            _ => Some(self.now.plus(self.limits.call_deadline)),
        };
        let (end, unread) = (seen.end, seen.read.is_none());
        let slot = self.matcher.insert(Box::new(pending));
        if unread && let Some(flow) = self.streams.flow_mut(source.flow) {
            flow.await_read(end, slot);
        }
        if tell_now {
            self.tell(slot);
        } else {
            self.matcher.schedule(Due::Soon, self.now.plus(SOON), slot);
        }
        if let Some(deadline) = deadline {
            self.matcher.schedule(Due::Deadline, deadline, slot);
        }
        slot
    }

    /// `CallBegan`, once, as soon as the server is known or will not be.
    pub(crate) fn tell(&mut self, slot: Slot) {
        if self.matcher.get(slot).is_none_or(|pending| pending.told) {
            return;
        }
        self.refresh_parties(slot);
        let Some(pending) = self.matcher.get_mut(slot).filter(|pending| !pending.told) else {
            return;
        };
        pending.told = true;
        let observation = if pending.method.nature() == Nature::Subscription {
            Observation::Subscription {
                parties: pending.parties.clone(),
                change: 1,
            }
        } else {
            Observation::CallBegan(pending.began(self.peers.is_target_known(pending)))
        };
        self.observe(observation);
    }

    /// The byte before `end` of a flow was read: a request has reached its server, or an answer its client.
    ///
    /// `read`: when and by whom; `None` when that was not seen.
    pub(crate) fn read_seen(&mut self, slot: Slot, flow: FlowId, end: u64, read: Option<(Timestamp, Pid)>) {
        let (read, reader) = read.unzip();
        let Some(pending) = self.matcher.get_mut(slot) else {
            return;
        };
        if let Some((_, seen)) = pending
            .over
            .as_mut()
            .and_then(|over| over.answer.as_mut())
            .filter(|(answer_flow, seen)| *answer_flow == flow && seen.end == end)
        {
            seen.read = read;
            seen.reader = reader;
            if !self.refused.contains(&slot) {
                self.emit(slot);
            }
        } else if pending.flow == flow && pending.seen.end == end {
            pending.seen.read = read;
            pending.seen.reader = reader;
            // Who reads it late, after the call was told, is its server all the same.
            self.refresh_parties(slot);
            self.tell(slot);
        }
    }

    /// A wait of a request is over.
    pub(crate) fn due(&mut self, due: Due, slot: Slot) {
        let Some(pending) = self.matcher.get(slot) else {
            return;
        };
        let (over, doomed) = (pending.over.is_some(), pending.doomed);
        match due {
            Due::Read if over && !self.refused.contains(&slot) => self.emit(slot),
            Due::Retry => {
                self.refused.retain(|other| *other != slot);
                self.emit(slot);
            }
            Due::Soon if !over => {
                let Some((doom, since)) = doomed else {
                    return self.tell(slot);
                };
                if self.now.since(since) >= SOON {
                    self.end(slot, &Ended::without_answer(end_of(doom), None), None);
                }
            }
            Due::Deadline if !over => self.end(slot, &Ended::without_answer(End::Deadline, None), None),
            Due::Soon | Due::Read | Due::Deadline => {}
        }
    }

    pub(crate) fn malformed(&mut self, parties: Parties, from: Side, reason: MalformedReason) {
        self.observe(Observation::Malformed { parties, from, reason });
    }

    pub(crate) fn observe(&mut self, observation: Observation) {
        self.outputs.push_back(Output::Observation(observation));
    }

    pub(crate) fn lose(&mut self, reason: DropReason, bytes: u64) {
        self.outputs.push_back(Output::Lost { reason, bytes });
    }
}

/// A message that is held until it is known whether its stream carries MCP.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) parsed: Parsed,
    pub(crate) seen: Seen,
}

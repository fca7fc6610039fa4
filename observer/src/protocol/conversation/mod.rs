//! Follows conversations: which messages are MCP, which request an answer belongs to, when a call is over.
//!
//! ```text
//! frame ─► line.rs or http.rs ─► evidence? ─ no ─► held, bounded
//!                                    │ yes
//!                                    ▼
//!              begin · answer · notify · malformed ─► matcher ─► observations
//! ```

mod early;
pub(crate) mod http;
pub(crate) mod line;
mod pairing;
mod parties;
mod peers;

pub(crate) use early::Early;
use smallvec::SmallVec;

use super::Pipeline;
use super::event::{DropReason, Pid, Timestamp};
use super::jsonrpc::{Kind, Params, Parsed, Reply, RpcId};
use super::matcher::{Due, MAX_PENDING, Scope, Seen, Slot};
use super::mcp::call::{Doom, Over, Pending};
use super::mcp::method::{Method, Nature, cut};
use super::mcp::outcome::{End, Facts, UNSUPPORTED_VERSION, classify, speaks_of_time};
use super::mcp::peer::PeerKey;
use super::observation::{MalformedReason, Observation, Output, Parties, Side, Vantage};
use super::stream::FlowId;

/// How long a call waits for who reads it before it is told, and a call whose peer is gone for an answer still on its way.
/// Readers are milliseconds behind.
const SOON: u64 = 250_000_000;

/// How long an answer that is seen waits for being read. Readers are milliseconds behind, on a machine with more programs
/// than processors parts of a second; one that is stopped for longer costs a time stamp.
const READ: u64 = 2_000_000_000;

/// How long a refusal for its protocol version waits for the retry that makes it a step of negotiation.
const RETRY: u64 = 1_000_000_000;

/// Methods and names of others are cut to this.
const MAX_METHOD: usize = 256;

/// Where a message came from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Its flow.
    pub(crate) flow: FlowId,
    /// Of HTTP: status of the answer it is part of.
    pub(crate) status: Option<u16>,
    /// Of an HTTP answer: when its first byte was written.
    pub(crate) first_byte: Option<Timestamp>,
}

/// What an HTTP request, or nothing, says beside the message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    pub(crate) scopes: SmallVec<[Scope; 2]>,
    pub(crate) session: Option<Box<str>>,
    pub(crate) version: Option<Box<str>>,
    pub(crate) traceparent: Option<Box<str>>,
    pub(crate) conversation: Option<PeerKey>,
    pub(crate) user_agent: Option<Box<str>>,
    pub(crate) unpaired: bool,
}

/// How a call was answered.
pub(crate) struct Ended<'a> {
    pub(crate) end: End<'a>,
    pub(crate) http: Option<u16>,
    pub(crate) answer: Option<(FlowId, Seen)>,
    pub(crate) first_byte: Option<Timestamp>,
    pub(crate) bytes: u64,
    pub(crate) cut: bool,
    pub(crate) inferred: bool,
}

impl Ended<'_> {
    pub(crate) const fn without_answer(end: End<'_>, http: Option<u16>) -> Ended<'_> {
        Ended {
            end,
            http,
            answer: None,
            first_byte: None,
            bytes: 0,
            cut: false,
            inferred: false,
        }
    }
}

/// A request as it is let in.
pub(crate) struct Asked {
    pub(crate) id: RpcId,
    pub(crate) method: Method,
    pub(crate) params: Params,
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
        let before_handshake = self
            .peers
            .get(&conversation)
            .is_none_or(|known| known.version.is_none());
        self.requests += 1;
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
            before_handshake,
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

    /// A result or an error for a pending request.
    pub(crate) fn answer(&mut self, source: &Source, slot: Slot, message: Answered, seen: Seen) {
        let Answered { body, length, cut } = message;
        if let Ok(reply) = &body {
            self.introduce_server(slot, reply);
        }
        let end = match &body {
            Ok(reply) => End::Result {
                is_error: reply.is_error,
                result_type: reply.result_type.as_deref(),
                task: reply.task_id.is_some(),
            },
            Err(code) => End::Error(*code),
        };
        let ended = Ended {
            end,
            http: source.status,
            answer: Some((source.flow, seen)),
            first_byte: source.first_byte.or(seen.first),
            bytes: length,
            cut,
            inferred: false,
        };
        self.end(slot, &ended, body.as_ref().ok());
    }

    /// A call is over; it comes out now, or when its last time stamp is there.
    pub(crate) fn end(&mut self, slot: Slot, ended: &Ended<'_>, reply: Option<&Reply>) {
        self.matcher.unlist(slot);
        let now = self.now;
        let lossy = self.is_lossy(slot, ended.answer);
        let Some(pending) = self.matcher.get_mut(slot).filter(|pending| pending.over.is_none()) else {
            return;
        };
        let discover = pending.method.is("server/discover") && pending.before_handshake;
        let facts = Facts {
            end: ended.end,
            http: ended.http,
            negotiation: discover,
        };
        let (outcome, status) = classify(&facts);
        let rpc_code = match ended.end {
            End::Error(code) => Some(code),
            _ => None,
        };
        pending.over = Some(Box::new(Over {
            outcome,
            status,
            rpc_code,
            http_status: ended.http,
            result_type: reply.and_then(|reply| reply.result_type.clone()),
            task_id: reply.and_then(|reply| reply.task_id.clone()),
            answer: ended.answer,
            first_byte: ended.first_byte,
            bytes: ended.bytes,
            cut: ended.cut,
            at: pending.doomed.map_or(now, |(_, since)| since),
            lossy,
            inferred: ended.inferred,
        }));
        let may_retry = rpc_code == Some(UNSUPPORTED_VERSION) && !discover;
        self.tell(slot);
        let awaits_reader = self.awaits_reader(slot, ended.answer);
        if may_retry {
            self.refused.push(slot);
            self.matcher.schedule(Due::Retry, now.plus(RETRY), slot);
        } else if !awaits_reader {
            self.emit(slot);
        }
    }

    /// Whether the answer's reader is on this node and has not read it yet; it is waited for then.
    fn awaits_reader(&mut self, slot: Slot, answer: Option<(FlowId, Seen)>) -> bool {
        let Some((flow_id, seen)) = answer.filter(|(_, seen)| seen.read.is_none()) else {
            return false;
        };
        if !self.has_reader(flow_id) {
            return false;
        }
        if let Some(flow) = self.streams.flow_mut(flow_id) {
            flow.await_read(seen.end, slot);
        }
        self.matcher.schedule(Due::Read, self.now.plus(READ), slot);
        true
    }

    /// Hands a finished call out.
    pub(crate) fn emit(&mut self, slot: Slot) {
        self.refresh_parties(slot);
        let Some(mut pending) = self.matcher.remove(slot) else {
            return;
        };
        let Some(over) = pending.over.take() else {
            return;
        };
        if pending.method.nature() == Nature::Subscription {
            let parties = pending.parties;
            return self.observe(Observation::Subscription { parties, change: -1 });
        }
        let target_known = self.peers.learn_target(&pending, &over);
        if over.answer.is_none() {
            for scope in pending.scopes.drain(..) {
                self.given_up
                    .entry((scope, pending.id.clone()), || pending.parties.clone());
            }
        }
        self.observe(Observation::Call(Box::new(pending.into_call(*over, target_known))));
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

    /// A peer of this call is gone: unless an answer is still on its way, that ends it.
    pub(crate) fn doom(&mut self, slot: Slot, doom: Doom, time: Timestamp) {
        let now = self.now.max(time);
        let Some(pending) = self.matcher.get_mut(slot).filter(|pending| pending.over.is_none()) else {
            return;
        };
        match &mut pending.doomed {
            Some((known, _)) if *known == Doom::Cancelled => *known = doom,
            Some(_) => return,
            None => pending.doomed = Some((doom, time)),
        }
        self.matcher.schedule(Due::Soon, now.plus(SOON), slot);
    }

    /// A notification from `from` within these scopes.
    pub(crate) fn notify(&mut self, scopes: &[Scope], method: &Method, params: &Params, from: Side, parties: Parties) {
        let find =
            |pipeline: &Self, id: &RpcId| scopes.iter().find_map(|scope| pipeline.matcher.find(scope.clone(), id));
        if method.is("notifications/cancelled")
            && let Some(slot) = params.request_id.as_ref().and_then(|id| find(self, id))
        {
            let timeout = params.reason.as_deref().is_some_and(speaks_of_time);
            self.end(slot, &Ended::without_answer(End::Cancelled { timeout }, None), None);
        }
        if method.is("notifications/progress")
            && let Some(token) = &params.progress_token
            && let Some(slot) = scopes
                .iter()
                .find_map(|scope| self.matcher.find_progress(scope.clone(), token))
            && let Some(pending) = self.matcher.get_mut(slot)
        {
            let now = self.now;
            pending.first_progress.get_or_insert(now);
        }
        self.observe(Observation::Notification {
            parties,
            method: cut(method.name(), MAX_METHOD).to_owned(),
            from,
        });
    }

    /// An answer whose request is not pending.
    pub(crate) fn unmatched(&mut self, scopes: &[Scope], id: Option<&RpcId>, length: u64) {
        let late = id.and_then(|id| {
            scopes
                .iter()
                .find_map(|scope| self.given_up.remove(&(scope.clone(), id.clone())))
        });
        match late {
            Some(parties) => self.observe(Observation::LateResponse(parties)),
            None => self.lose(DropReason::OrphanResponse, length),
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

    /// Too many requests are pending: the oldest place makes room.
    fn evict_pending(&mut self) {
        let Some(slot) = self.matcher.oldest() else {
            return;
        };
        self.evictions.requests += 1;
        self.lose(DropReason::RequestEvicted, 0);
        self.end(slot, &Ended::without_answer(End::Deadline, None), None);
        self.emit(slot);
    }

    /// Whether either flow of a call had a hole since its request.
    fn is_lossy(&self, slot: Slot, answer: Option<(FlowId, Seen)>) -> bool {
        let Some(pending) = self.matcher.get(slot) else {
            return false;
        };
        let began = pending.seen.first.or(pending.seen.any());
        let torn = |flow| self.streams.flow(flow).is_some_and(|flow| flow.torn_since(began));
        // Where no answer came, it may have been in a hole.
        let answers = answer.map(|(flow, _)| flow).or_else(|| self.counterpart(pending.flow));
        torn(pending.flow) || answers.is_some_and(torn)
    }
}

/// The body of an answer: a result, or the code of an error.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) body: Result<Reply, i64>,
    pub(crate) length: u64,
    pub(crate) cut: bool,
}

/// What kind of answer a message is, if any: its id and its body.
#[expect(
    clippy::result_large_err,
    reason = "the rest of the message is handed on, not an error"
)]
pub(crate) fn as_answer(kind: Kind) -> Result<(Option<RpcId>, Result<Reply, i64>), Kind> {
    match kind {
        Kind::Result(id, reply) => Ok((Some(id), Ok(reply))),
        Kind::Error(id, code) => Ok((id, Err(code))),
        other => Err(other),
    }
}

const fn end_of(doom: Doom) -> End<'static> {
    match doom {
        Doom::ServerGone => End::ServerGone,
        Doom::ClientGone => End::ClientGone,
        Doom::Cancelled => End::Cancelled { timeout: false },
    }
}

/// A message that is held until it is known whether its stream carries MCP.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) parsed: Parsed,
    pub(crate) seen: Seen,
}

//! How calls end: answered, given up, or without one of their peers.

use super::Source;
use crate::protocol::Pipeline;
use crate::protocol::event::{DropReason, Timestamp};
use crate::protocol::jsonrpc::{Failure, Kind, RpcId};
use crate::protocol::matcher::{Due, Seen, Slot};
use crate::protocol::mcp::again::InputKind;
use crate::protocol::mcp::call::{Doom, Over};
use crate::protocol::mcp::conformance;
use crate::protocol::mcp::method::Nature;
use crate::protocol::mcp::outcome::{End, Facts, UNSUPPORTED_VERSION, classify};
use crate::protocol::mcp::pressure::{Hints, Pressure, Refusal, recognise};
use crate::protocol::mcp::reply::Reply;
use crate::protocol::observation::{MalformedReason, Observation, Outcome, Side};
use crate::protocol::stream::FlowId;

/// How long a call whose peer is gone waits for an answer still on its way, and one that was not read for who reads it.
/// Readers are milliseconds behind.
pub(super) const SOON: u64 = 250_000_000;

/// How long an answer that is seen waits for being read. Readers are milliseconds behind, on a machine with more programs
/// than processors parts of a second; one that is stopped for longer costs a time stamp.
const READ: u64 = 2_000_000_000;

/// How long a refusal for its protocol version waits for the retry that makes it a step of negotiation.
const RETRY: u64 = 1_000_000_000;

/// How a call was answered.
pub(crate) struct Ended<'a> {
    pub(crate) end: End<'a>,
    pub(crate) http: Option<u16>,
    pub(crate) hints: Hints,
    /// The words of a JSON-RPC error.
    pub(crate) message: Option<&'a str>,
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
            hints: Hints {
                retry_after: false,
                exhausted: false,
            },
            message: None,
            answer: None,
            first_byte: None,
            bytes: 0,
            cut: false,
            inferred: false,
        }
    }
}

impl Ended<'_> {
    /// Whether this is a refusal that is about load.
    fn pressure(&self, code: Option<i64>, reply: Option<&Reply>) -> Option<Pressure> {
        match self.end {
            End::Error(_) | End::Http { .. } | End::Result { is_error: true, .. } => recognise(&Refusal {
                http: self.http,
                hints: self.hints,
                code,
                message: self.message,
                complaint: reply.and_then(|reply| reply.complaint.as_deref()),
            }),
            _ => None,
        }
    }
}

impl Pipeline {
    /// A result or an error for a pending request.
    pub(crate) fn answer(&mut self, source: &Source, slot: Slot, message: Answered, seen: Seen) {
        let Answered { body, length, cut } = message;
        if let Ok(reply) = &body {
            self.introduce_server(slot, reply);
        }
        self.follow_task(slot, &body);
        let breach = body
            .as_ref()
            .ok()
            .filter(|_| !cut)
            .and_then(|reply| self.breach(slot, reply));
        let end = match &body {
            Ok(_) if breach == Some(MalformedReason::MissingContent) => End::Malformed,
            Ok(reply) => End::Result {
                is_error: reply.is_error,
                result_type: reply.result_type.as_deref(),
                task: reply.task.as_ref().is_some_and(|task| task.acknowledged),
            },
            Err(failure) => End::Error(failure.code),
        };
        let ended = Ended {
            end,
            http: source.status,
            hints: source.hints,
            message: body.as_ref().err().and_then(|failure| failure.message.as_deref()),
            answer: Some((source.flow, seen)),
            first_byte: source.first_byte.or(seen.first),
            bytes: length,
            cut,
            inferred: false,
        };
        self.end(slot, &ended, body.as_deref().ok());
    }

    /// The rule that a result breaks; it is told.
    fn breach(&mut self, slot: Slot, reply: &Reply) -> Option<MalformedReason> {
        self.check_structured(slot, reply);
        let pending = self.matcher.get(slot)?;
        let reason = conformance::breach(&pending.method, pending.version.as_deref(), reply)?;
        let parties = pending.parties.clone();
        self.malformed(parties, Side::Server, reason);
        Some(reason)
    }

    /// A call is over; it comes out now, or when its last time stamp is there.
    pub(crate) fn end(&mut self, slot: Slot, ended: &Ended<'_>, reply: Option<&Reply>) {
        self.matcher.unlist(slot);
        let now = self.now;
        let lossy = self.is_lossy(slot, ended.answer);
        let Some(pending) = self.matcher.get_mut(slot).filter(|pending| pending.over.is_none()) else {
            return;
        };
        pending.parties.lossy |= lossy;
        let discover = pending.method.is("server/discover") && pending.before_handshake;
        let rpc_code = match ended.end {
            End::Error(code) => Some(code),
            _ => None,
        };
        let pressure = ended.pressure(rpc_code, reply);
        let facts = Facts {
            end: ended.end,
            http: ended.http,
            pressure,
            negotiation: discover,
        };
        let (outcome, status) = classify(&facts);
        let wanted = reply.and_then(|reply| reply.wanted.as_deref());
        let task = reply.and_then(|reply| reply.task.as_deref());
        pending.over = Some(Over {
            outcome,
            status,
            rpc_code,
            http_status: ended.http,
            result_type: reply.and_then(|reply| reply.result_type.clone()),
            task_id: task.and_then(|task| task.id.clone()),
            wants: (outcome == Outcome::InputRequired).then(|| InputKind::of(wanted)),
            pressure,
            tokens: reply
                .filter(|_| !ended.cut)
                .map(|reply| self.limits.tokens(reply.characters())),
            answer: ended.answer,
            first_byte: ended.first_byte,
            bytes: ended.bytes,
            cut: ended.cut,
            at: pending.doomed.map_or(now, |(_, since)| since),
            lossy,
            inferred: ended.inferred,
        });
        let may_retry = rpc_code == Some(UNSUPPORTED_VERSION) && !discover;
        if !may_retry {
            self.again.over(pending, outcome, status, wanted, now);
        }
        if ended.answer.is_some() {
            self.settled.note(pending);
        }
        if ended.http == Some(404)
            && let Some(session) = pending.session.clone()
        {
            self.session_expired(&session, rpc_code);
        }
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
                    .entry((scope, pending.id.clone()), || (pending.parties.clone(), over.outcome));
            }
        }
        self.observe(Observation::Call(Box::new(pending.into_call(over, target_known))));
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

    /// Too many requests are pending: the oldest place makes room.
    pub(super) fn evict_pending(&mut self) {
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

/// The body of an answer: a result, or an error.
pub(crate) type Body = Result<Box<Reply>, Failure>;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) body: Body,
    pub(crate) length: u64,
    pub(crate) cut: bool,
}

/// What kind of answer a message is, if any: its id and its body.
pub(crate) fn as_answer(kind: Kind) -> Result<(Option<RpcId>, Body), Kind> {
    match kind {
        Kind::Result(id, reply) => Ok((Some(id), Ok(reply))),
        Kind::Error(id, failure) => Ok((id, Err(failure))),
        other => Err(other),
    }
}

pub(super) const fn end_of(doom: Doom) -> End<'static> {
    match doom {
        Doom::ServerGone => End::ServerGone,
        Doom::ClientGone => End::ClientGone,
        Doom::Cancelled => End::Cancelled { timeout: false },
    }
}

//! A call from its request to its end, and the times of it.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::again::{InputKind, Turn};
use super::method::{Method, cut};
use super::peer::PeerKey;
use super::pressure::Pressure;
use crate::protocol::digest::Digest;
use crate::protocol::event::Timestamp;
use crate::protocol::jsonrpc::RpcId;
use crate::protocol::matcher::{Scope, Seen};
use crate::protocol::observation::{Call, CallBegan, EstimatedTokens, Outcome, Parties, Timing, Vantage};
use crate::protocol::stream::FlowId;

/// Bytes of an id in an observation.
const SHOWN_ID: usize = 64;

/// A JSON-RPC id as JSON text (`7`, `"a"`), cut at 64 bytes; most are numbers, which need no text of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallId {
    /// A whole number.
    Integer(i64),
    /// Anything else.
    Text(Arc<str>),
}

impl From<&RpcId> for CallId {
    fn from(id: &RpcId) -> Self {
        match id {
            RpcId::Integer(number) => Self::Integer(*number),
            other => Self::Text(cut(&other.to_string(), SHOWN_ID).into()),
        }
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(out, "{number}"),
            Self::Text(text) => out.write_str(text),
        }
    }
}

/// A request that is not over, or whose end waits for a last time stamp.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) number: u64,
    pub(crate) id: RpcId,
    pub(crate) method: Method,
    pub(crate) target: Option<Arc<str>>,
    pub(crate) progress_token: Option<RpcId>,
    /// Within what its id is looked up.
    pub(crate) scopes: SmallVec<[Scope; 2]>,
    /// The flow of its answer is not known.
    pub(crate) unpaired: bool,
    /// The flow it came on.
    pub(crate) flow: FlowId,
    pub(crate) parties: Parties,
    /// What its conversation is remembered by.
    pub(crate) conversation: PeerKey,
    pub(crate) seen: Seen,
    pub(crate) bytes: u64,
    pub(crate) cut: bool,
    pub(crate) version: Option<Arc<str>>,
    pub(crate) session: Option<Arc<str>>,
    pub(crate) traceparent: Option<Arc<str>>,
    /// Of what it asks for.
    pub(crate) fingerprint: Digest,
    pub(crate) turn: Turn,
    /// `params.taskId`.
    pub(crate) task: Option<Arc<str>>,
    /// Of a listing: its page.
    pub(crate) cursor: Option<Digest>,
    /// Who asks, as far as the transport says so.
    pub(crate) principal: Digest,
    /// Tokens of its arguments.
    pub(crate) tokens: Option<u64>,
    /// The conversation had no handshake before it.
    pub(crate) before_handshake: bool,
    /// `CallBegan` is out.
    pub(crate) told: bool,
    pub(crate) first_progress: Option<Timestamp>,
    /// Its peer is gone since; it ends so unless an answer is still on its way.
    pub(crate) doomed: Option<(Doom, Timestamp)>,
    pub(crate) over: Option<Over>,
}

/// How a call ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doom {
    ServerGone,
    ClientGone,
    /// The client of a 2026-07-28 call closed its answer.
    Cancelled,
}

/// The end of a call.
#[derive(Clone, Debug)]
pub(crate) struct Over {
    pub(crate) outcome: Outcome,
    pub(crate) status: u16,
    pub(crate) rpc_code: Option<i64>,
    pub(crate) http_status: Option<u16>,
    pub(crate) result_type: Option<Arc<str>>,
    pub(crate) task_id: Option<Arc<str>>,
    pub(crate) wants: Option<InputKind>,
    pub(crate) pressure: Option<Pressure>,
    /// Tokens of its result.
    pub(crate) tokens: Option<u64>,
    /// The answer's message and the flow it came on.
    pub(crate) answer: Option<(FlowId, Seen)>,
    /// When the first byte of the answer was written; of an HTTP answer, of its head.
    pub(crate) first_byte: Option<Timestamp>,
    pub(crate) bytes: u64,
    pub(crate) cut: bool,
    /// When it was concluded.
    pub(crate) at: Timestamp,
    /// Holes in either flow since the request.
    pub(crate) lossy: bool,
    /// The outcome was concluded, not read.
    pub(crate) inferred: bool,
}

impl Pending {
    pub(crate) fn began(&self, target_known: bool) -> CallBegan {
        CallBegan {
            number: self.number,
            parties: self.parties.clone(),
            method: self.method.shown(),
            target: self.target.clone(),
            target_known,
        }
    }

    /// The call as it is told.
    pub(crate) fn into_call(self: Box<Self>, over: Over, target_known: bool) -> Call {
        let mut inferred = Vec::new();
        let timing = self.timing(&over, &mut inferred);
        if over.inferred {
            inferred.push("outcome");
        }
        Call {
            number: self.number,
            parties: self.parties,
            method: self.method.shown(),
            target: self.target,
            target_known,
            id: CallId::from(&self.id),
            outcome: over.outcome,
            status: over.status,
            rpc_code: over.rpc_code,
            http_status: over.http_status,
            protocol_version: self.version,
            session: self.session,
            result_type: over.result_type,
            round: self.turn.round,
            first_round: self.turn.first,
            attempt: self.turn.attempt,
            wants: over.wants,
            pressure: over.pressure,
            tokens: EstimatedTokens {
                arguments: self.tokens,
                result: over.tokens,
            },
            task_id: over.task_id,
            traceparent: self.traceparent,
            timing,
            request_bytes: self.bytes,
            response_bytes: over.bytes,
            lossy: over.lossy,
            truncated: self.cut || over.cut,
            inferred,
        }
    }

    /// The contract's section 3, `durationMs`.
    fn timing(&self, over: &Over, inferred: &mut Vec<&'static str>) -> Timing {
        let asked = &self.seen;
        let answer = over.answer.map(|(_, seen)| seen);
        let began = asked.first.or(asked.any()).unwrap_or(over.at);
        let client_start = asked.written.or(asked.read);
        let server_start = asked.read.or_else(|| {
            if self.parties.vantage == Vantage::Server {
                inferred.push("serverStart");
            }
            asked.written
        });
        let answered = |seen: Option<Timestamp>, other: Option<Timestamp>| {
            if answer.is_some() {
                seen.or(other).unwrap_or(over.at)
            } else {
                over.at
            }
        };
        let (written, read) = (answer.and_then(|seen| seen.written), answer.and_then(|seen| seen.read));
        let (start, ended) = match self.parties.vantage {
            Vantage::Server => (server_start, answered(written, read)),
            Vantage::Client | Vantage::Hop => (client_start, answered(read, written)),
        };
        let start = start.unwrap_or(began);
        let both_ends = self.parties.vantage == Vantage::Server && asked.written.is_some();
        Timing {
            began,
            ended,
            duration: ended.since(start),
            client_duration: read
                .filter(|_| both_ends)
                .map(|read| read.since(client_start.unwrap_or(began))),
            queue: asked.read.and_then(|read| Some(read.since(asked.written?))),
            first_byte: over.first_byte.map(|first| first.since(start)),
            first_progress: self.first_progress.map(|first| first.since(start)),
        }
    }
}

//! Answers that no pending request waits for: late ones, ones against the rules, and those of requests that were not seen.
//!
//! Only a stream that was seen whole can convict its server; on any other such an answer is a counted loss.

use crate::protocol::Pipeline;
use crate::protocol::digest::Digest;
use crate::protocol::event::DropReason;
use crate::protocol::jsonrpc::RpcId;
use crate::protocol::matcher::Scope;
use crate::protocol::mcp::call::Pending;
use crate::protocol::observation::{MalformedReason, Observation, Outcome, Parties, Side};
use crate::protocol::stream::FlowId;

/// Answered requests remembered; the place of one is taken by a later one. A second answer after that is `unknown_id`.
const MAX_SETTLED: usize = 1024;

/// An answer without its request.
pub(crate) struct Stray<'a> {
    pub(crate) scopes: &'a [Scope],
    pub(crate) id: Option<&'a RpcId>,
    pub(crate) length: u64,
    pub(crate) parties: Parties,
    pub(crate) sight: Sight,
}

/// How much was seen of where a stray answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Every request it could answer.
    Whole,
    /// It answers a POST that asked nothing.
    Unasked,
    /// There may be requests that were not seen.
    Partial,
}

/// The requests that were answered last.
#[derive(Debug)]
pub(crate) struct Settled(Box<[Digest]>);

impl Default for Settled {
    fn default() -> Self {
        Self(vec![Digest::default(); MAX_SETTLED].into())
    }
}

impl Settled {
    pub(crate) fn note(&mut self, pending: &Pending) {
        for scope in &pending.scopes {
            let digest = Digest::of((scope, &pending.id));
            self.0[digest.place(MAX_SETTLED)] = digest;
        }
    }

    fn has(&self, scope: &Scope, id: &RpcId) -> bool {
        let digest = Digest::of((scope, id));
        self.0[digest.place(MAX_SETTLED)] == digest
    }
}

impl Pipeline {
    /// An answer whose request is not pending.
    pub(crate) fn unmatched(&mut self, stray: Stray<'_>) {
        let Stray {
            scopes,
            id,
            length,
            parties,
            sight,
        } = stray;
        let given_up = id.and_then(|id| {
            let mut keys = scopes.iter().map(|scope| (scope.clone(), id.clone()));
            keys.find_map(|key| self.given_up.remove(&key))
        });
        let gone = match given_up {
            Some((parties, outcome)) if !matches!(outcome, Outcome::ClientGone | Outcome::ServerGone) => {
                return self.observe(Observation::LateResponse(parties));
            }
            found => found.is_some(),
        };
        let answered = id.is_some_and(|id| scopes.iter().any(|scope| self.settled.has(scope, id)));
        let reason = match (sight, id) {
            (Sight::Partial, _) => return self.lose(DropReason::OrphanResponse, length),
            _ if gone => MalformedReason::AnswerAfterClose,
            _ if answered => MalformedReason::DuplicateAnswer,
            (Sight::Unasked, _) | (_, Some(RpcId::Null)) => MalformedReason::AnswerToNotification,
            (Sight::Whole, _) => MalformedReason::UnknownId,
        };
        self.malformed(parties, Side::Server, reason);
    }

    /// How much was seen of a conversation of lines: all, where it began with a handshake and has no hole since.
    pub(crate) fn line_sight(&self, answers: FlowId) -> Sight {
        let requests = self.counterpart(answers);
        let flows = [Some(answers), requests].map(|flow| self.streams.flow(flow?));
        match flows {
            [Some(answers), Some(requests)]
                if requests.line.greeted
                    && answers.line.sender == Some(Side::Server)
                    && answers.last_gap.is_none()
                    && requests.last_gap.is_none() =>
            {
                Sight::Whole
            }
            _ => Sight::Partial,
        }
    }
}

//! Answers that came before the request they answer: ring order is not causal order.

use super::{Answered, Source, Stray};
use crate::protocol::Pipeline;
use crate::protocol::event::Timestamp;
use crate::protocol::flow::CAUSE_WAIT;
use crate::protocol::jsonrpc::RpcId;
use crate::protocol::matcher::{Scope, Seen, Slot};
use crate::protocol::observation::Side;

/// Answers that may wait for their request.
const MAX_EARLY: usize = 1024;

/// An answer that waits for its request.
#[derive(Debug)]
pub(crate) struct Early {
    since: Timestamp,
    source: Source,
    id: RpcId,
    answered: Answered,
    seen: Seen,
}

impl Pipeline {
    pub(crate) fn hold_early(&mut self, source: Source, id: RpcId, answered: Answered, seen: Seen) {
        if self.early.len() == MAX_EARLY {
            self.give_up_first();
        }
        self.early.push_back(Early {
            since: self.now,
            source,
            id,
            answered,
            seen,
        });
    }

    /// A request came: an answer that waits may be its.
    pub(crate) fn retry_early(&mut self, id: &RpcId, slot: Slot) {
        let candidates: Vec<usize> = (0..self.early.len())
            .filter(|index| self.early[*index].id == *id)
            .collect();
        for index in candidates {
            let flow = self.early[index].source.flow;
            if self.find_line_request(flow, id) == Some(slot)
                && let Some(early) = self.early.remove(index)
            {
                return self.answer(&early.source, slot, early.answered, early.seen);
            }
        }
    }

    /// Answers that have waited long enough have no request.
    pub(crate) fn give_up_early(&mut self) {
        while self
            .early
            .front()
            .is_some_and(|early| self.now.since(early.since) >= CAUSE_WAIT)
        {
            self.give_up_first();
        }
    }

    /// The end: no request will come.
    pub(crate) fn give_up_all_early(&mut self) {
        while !self.early.is_empty() {
            self.give_up_first();
        }
    }

    fn give_up_first(&mut self) {
        let Some(early) = self.early.pop_front() else {
            return;
        };
        let flow = early.source.flow;
        // Since then it may have turned out whose client said it.
        if self.was_asked(flow, &early.id) {
            return;
        }
        let requests = [Some(flow.reverse()), self.counterpart(flow)];
        let scopes: Vec<Scope> = requests.into_iter().flatten().map(Scope::Line).collect();
        let (parties, sight) = (self.parties(flow, Side::Server), self.line_sight(flow));
        self.unmatched(Stray {
            scopes: &scopes,
            id: Some(&early.id),
            length: early.answered.length,
            parties,
            sight,
        });
    }
}

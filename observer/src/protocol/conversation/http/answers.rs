//! Answers over HTTP: which call a response ends, and how.

use super::exchange::Exchange;
use crate::protocol::Pipeline;
use crate::protocol::conversation::{Answered, Ended, Source, Stray, as_answer};
use crate::protocol::event::DropReason;
use crate::protocol::framing::Ending;
use crate::protocol::jsonrpc::{Kind, Message, Parsed, RpcId};
use crate::protocol::matcher::{Scope, Seen, Slot};
use crate::protocol::mcp::method::Sender;
use crate::protocol::mcp::outcome::End;
use crate::protocol::observation::{MalformedReason, Observation, Parties, Side, Transport};
use crate::protocol::stream::{FlowId, LinkId};

impl Pipeline {
    /// A message that a server sent in a response.
    pub(super) fn http_answered(&mut self, flow_id: FlowId, number: u64, parsed: Parsed, seen: Seen) {
        let link = flow_id.link;
        let Some(mcp) = self.talk(link).and_then(|talk| Some(talk.exchange(number)?.mcp)) else {
            return;
        };
        if !mcp {
            // The answer may prove what the question did not.
            if !matches!(&parsed, Parsed::Message(message) if message.proves_mcp()) {
                return;
            }
            self.exchange_is_mcp(link, number);
        }
        let Some((context, parties)) = self.http_context(link, number) else {
            return;
        };
        let Some(exchange) = self.talk(link).and_then(|talk| talk.exchange(number)) else {
            return;
        };
        let source = Source {
            flow: flow_id,
            status: exchange.response.as_ref().and_then(|head| head.status),
            hints: exchange.response.as_ref().map(|head| head.hints).unwrap_or_default(),
            first_byte: exchange.first_byte,
        };
        let slots = exchange.slots.clone();
        match parsed {
            Parsed::Broken(reason, id) => {
                let parties = self.at_answer(flow_id, parties);
                self.malformed(parties, Side::Server, reason);
                let slot = id
                    .and_then(|id| self.find_http_request(&context.scopes, &id))
                    .or(only(&slots));
                let status = source.status.unwrap_or(200);
                if let Some(slot) = slot.filter(|_| status / 100 == 2) {
                    let ended = Ended {
                        answer: Some((flow_id, seen)),
                        ..Ended::without_answer(End::Malformed, Some(status))
                    };
                    self.end(slot, &ended, None);
                }
            }
            Parsed::Unreadable(bytes) => self.lose(DropReason::Resync, bytes),
            Parsed::Message(message) => {
                self.http_answer(&source, (number, &context.scopes, &slots), message, seen, parties);
            }
        }
    }

    /// The parties of an exchange as its answer shows them.
    fn at_answer(&self, flow_id: FlowId, parties: Parties) -> Parties {
        Parties {
            vantage: self.parties(flow_id, Side::Server).vantage,
            ..parties
        }
    }

    fn http_answer(
        &mut self,
        source: &Source,
        (number, scopes, slots): (u64, &[Scope], &[Slot]),
        message: Message,
        seen: Seen,
        parties: Parties,
    ) {
        let Message { kind, length, cut } = message;
        match as_answer(kind) {
            Ok((id, body)) => {
                // A refusal answers its exchange, whatever id it bears: the server may not have read the request's.
                let refusal = body.is_err() && source.status.is_some_and(|status| status / 100 != 2);
                let found = match &id {
                    Some(id) => {
                        let named = self.find_http_request(scopes, id);
                        named.or_else(|| only(slots).filter(|_| refusal))
                    }
                    None => only(slots),
                };
                if let Some(slot) = found {
                    self.realign(source.flow.link, number, slot);
                    if let Some(talk) = self.talk(source.flow.link) {
                        talk.aligned |= slots.contains(&slot);
                    }
                }
                match found {
                    Some(slot) => self.answer(source, slot, Answered { body, length, cut }, seen),
                    None => {
                        let sight = self.http_sight(source.flow, number, cut);
                        let (id, parties) = (id.as_ref(), self.at_answer(source.flow, parties));
                        self.unmatched(Stray {
                            scopes,
                            id,
                            length,
                            parties,
                            sight,
                        });
                    }
                }
            }
            Err(Kind::Request(_, method, _)) if method.sender() != Sender::Client => {
                let (method, parties) = (method.shown(), self.at_answer(source.flow, parties));
                self.observe(Observation::ServerRequest { parties, method });
            }
            Err(Kind::Notification(method, params)) => {
                let parties = self.at_answer(source.flow, parties);
                self.notify(scopes, &method, &params, Side::Server, parties);
            }
            Err(_) => {
                let parties = self.at_answer(source.flow, parties);
                self.malformed(parties, Side::Server, MalformedReason::NotJsonRpc);
            }
        }
    }

    /// An answer that belongs to a later exchange of its connection shows that the responses before it were not seen.
    fn realign(&mut self, link: LinkId, number: u64, slot: Slot) {
        if self.talk(link).is_none_or(|talk| talk.is_http2()) {
            return;
        }
        let later = self.matcher.get(slot).and_then(|pending| {
            pending.scopes.iter().find_map(|scope| match scope {
                Scope::Http(other, later) if *other == link && *later > number => Some(*later),
                _ => None,
            })
        });
        let (Some(later), Some(talk)) = (later, self.talk(link)) else {
            return;
        };
        let Some(passed) = talk.exchange(number) else {
            return;
        };
        let (response, first_byte) = (passed.response.take(), passed.first_byte);
        talk.exchanges.retain(|exchange| exchange.number >= later);
        talk.answering = Some(later);
        if let Some(exchange) = talk.exchange(later) {
            exchange.response = response;
            exchange.first_byte = first_byte;
        }
    }

    /// Exchange first, then session.
    fn find_http_request(&self, scopes: &[Scope], id: &RpcId) -> Option<Slot> {
        scopes.iter().find_map(|scope| self.matcher.find(scope.clone(), id))
    }

    /// The response of an MCP exchange is over: calls that it did not answer end by its status, or wait on.
    pub(super) fn exchange_over(&mut self, flow_id: FlowId, exchange: &Exchange, ending: Ending) {
        let Some(head) = &exchange.response else {
            return;
        };
        let torn = self
            .streams
            .flow(flow_id)
            .is_some_and(|flow| flow.torn_since(exchange.since));
        self.check_response(flow_id, exchange, ending);
        if head.offers_http3 {
            self.gap(flow_id.link, DropReason::Http3);
        }
        self.check_session(flow_id, exchange);
        for slot in exchange.slots.iter().copied() {
            if self.matcher.get(slot).is_none_or(|pending| pending.over.is_some()) {
                continue;
            }
            let at = self
                .streams
                .flow(flow_id)
                .map_or(0, |flow| flow.assembler.next().unwrap_or(0));
            let seen = self
                .streams
                .flow(flow_id)
                .map(|flow| flow.seen(at.saturating_sub(1), at))
                .unwrap_or_default();
            let end = match (head.status, ending) {
                (Some(200..=299), Ending::Unread) => Some((answer_unread(), true)),
                // HTTP+SSE: the answer comes on another connection.
                (Some(202), _) => None,
                // Before 2026-07-28 a server may end its event stream and the client resume it.
                (Some(200..=299) | None, _)
                    if head.media.may_be_events() || ending == Ending::Gap || torn || exchange.unclear =>
                {
                    None
                }
                (Some(200..=299) | None, _) => Some((End::Malformed, false)),
                _ => Some((
                    End::Http {
                        challenges: head.challenges,
                    },
                    false,
                )),
            };
            let Some((end, inferred)) = end else {
                if head.status == Some(202) {
                    self.answers_elsewhere(slot);
                }
                continue;
            };
            let ended = Ended {
                answer: Some((flow_id, seen)),
                first_byte: exchange.first_byte,
                hints: head.hints,
                inferred,
                ..Ended::without_answer(end, head.status)
            };
            self.end(slot, &ended, None);
        }
    }

    /// A request accepted with 202 is one of HTTP+SSE.
    fn answers_elsewhere(&mut self, slot: Slot) {
        if let Some(pending) = self.matcher.get_mut(slot) {
            pending.parties.transport = Transport::HttpSse;
        }
    }
}

fn only(slots: &[Slot]) -> Option<Slot> {
    match slots {
        [slot] => Some(*slot),
        _ => None,
    }
}

/// An answer whose content is not read: its status says that it is one.
const fn answer_unread() -> End<'static> {
    End::Result {
        is_error: false,
        result_type: None,
        task: false,
    }
}

//! Rules of HTTP transports that requests and responses keep or break, and what they tell of sessions.

use super::exchange::Exchange;
use crate::protocol::Pipeline;
use crate::protocol::conversation::Sight;
use crate::protocol::event::DropReason;
use crate::protocol::framing::Ending;
use crate::protocol::framing::coding::Codings;
use crate::protocol::framing::head::{Media, Verb};
use crate::protocol::jsonrpc::Kind;
use crate::protocol::mcp::conformance::{Mirror, disagrees};
use crate::protocol::observation::{MalformedReason, Parties, SessionEnd, Side, Transport};
use crate::protocol::stream::{FlowId, LinkId};

impl Pipeline {
    /// Header fields that say otherwise than the body of a request (2026-07-28, transports). HTTP+SSE, which SDKs carry that
    /// revision on too, is none of its transports and has no such fields.
    pub(super) fn check_mirror(&mut self, link: LinkId, number: u64, kind: &Kind, parties: &Parties) {
        let (Kind::Request(_, method, params) | Kind::Notification(method, params)) = kind else {
            return;
        };
        if parties.transport == Transport::HttpSse {
            return;
        }
        let Some(exchange) = self.talk(link).and_then(|talk| talk.exchange(number)) else {
            return;
        };
        let request = &exchange.request;
        let mirror = Mirror {
            version: request.version.as_deref(),
            method: request.mcp_method.as_deref(),
            name: request.mcp_name.as_deref(),
        };
        if disagrees(&mirror, method, params) {
            self.malformed(parties.clone(), Side::Client, MalformedReason::HeaderMismatch);
        }
    }

    /// An exchange carries what wants no answer.
    pub(super) fn notified(&mut self, link: LinkId, number: u64) {
        if let Some(exchange) = self.talk(link).and_then(|talk| talk.exchange(number)) {
            exchange.notified = true;
        }
    }

    /// What an exchange asks is not known.
    pub(super) fn unclear(&mut self, link: LinkId, number: u64) {
        if let Some(exchange) = self.talk(link).and_then(|talk| talk.exchange(number)) {
            exchange.unclear = true;
        }
    }

    /// The request of an exchange has come to its end.
    pub(super) fn check_request(&mut self, flow_id: FlowId, number: u64, ending: Ending) {
        let exchange = self.talk(flow_id.link).and_then(|talk| talk.exchange(number));
        let Some(exchange) = exchange.filter(|exchange| exchange.mcp && exchange.request.verb == Verb::Post) else {
            return;
        };
        if !exchange.request.media.may_be_json() {
            self.breaks(flow_id, number, Side::Client, MalformedReason::WrongContentType);
        }
        if self.is_short(flow_id, ending) {
            self.breaks(flow_id, number, Side::Client, MalformedReason::ShortBody);
        }
    }

    /// The response of an MCP exchange is over.
    pub(super) fn check_response(&mut self, flow_id: FlowId, exchange: &Exchange, ending: Ending) {
        let torn = self.is_torn(flow_id);
        let Some(head) = exchange
            .response
            .as_ref()
            .filter(|head| !torn && head.class() == Some(2))
        else {
            return;
        };
        let accepted = head.status == Some(202);
        let mistyped = !exchange.slots.is_empty() && !accepted && head.media.is_other();
        let answers = !exchange.slots.is_empty() && !accepted && !exchange.sse;
        // What could not be decoded was told as that.
        let read = ending == Ending::Whole && head.coding == Codings::default();
        let silent = answers && read && !exchange.spoke && head.media == Media::Json;
        let refused = exchange.notified && exchange.slots.is_empty() && !accepted && !exchange.sse;
        let broken = [
            (mistyped, MalformedReason::WrongContentType),
            (silent, MalformedReason::BadJson),
            (refused, MalformedReason::NotAccepted),
            // A server may end its event stream at any time.
            (
                !head.media.may_be_events() && self.is_short(flow_id, ending),
                MalformedReason::ShortBody,
            ),
        ];
        for (_, reason) in broken.into_iter().filter(|(broken, _)| *broken) {
            let transport = if exchange.sse {
                Transport::HttpSse
            } else {
                Transport::StreamableHttp
            };
            let authority = exchange.request.authority.as_ref();
            let parties = self.http_parties(flow_id, Side::Server, transport, authority);
            self.malformed(parties, Side::Server, reason);
        }
    }

    /// Whether a message stopped before the length it announced because its sender closed; no byte of it is missing.
    fn is_short(&self, flow_id: FlowId, ending: Ending) -> bool {
        let flow = self.streams.flow(flow_id);
        ending == Ending::Short && flow.is_some_and(|flow| flow.ended && flow.last_gap.is_none())
    }

    fn breaks(&mut self, flow_id: FlowId, number: u64, side: Side, reason: MalformedReason) {
        if let Some((_, parties)) = self.http_context(flow_id.link, number) {
            self.malformed(parties, side, reason);
        }
    }

    /// A connection leaves HTTP for web sockets: where it was MCP, for a transport that is not read.
    pub(super) fn left_for_websocket(&mut self, link: LinkId, number: u64) {
        let exchange = self.talk(link).and_then(|talk| talk.exchange(number));
        if exchange.is_some_and(|exchange| exchange.mcp) {
            self.lose(DropReason::WebSocket, 0);
        }
    }

    /// gRPC is not read: a gap where its connection carries MCP too, or where its service is named after MCP.
    pub(super) fn speaks_grpc(&mut self, link: LinkId, number: u64) {
        let mcp = self.streams.link(link).is_some_and(|link| link.mcp);
        let exchange = self.talk(link).and_then(|talk| talk.exchange(number));
        let path = exchange.map(|exchange| exchange.request.path.to_ascii_lowercase());
        let named = |path: String| path.contains("mcp") || path.contains("model_context_protocol");
        if mcp || path.is_some_and(named) {
            self.gap(link, DropReason::Grpc);
        }
    }

    /// Something of a connection is not read; told once.
    pub(super) fn gap(&mut self, link: LinkId, reason: DropReason) {
        let told = self.talk(link).and_then(|talk| talk.gap.replace(reason));
        if told != Some(reason) {
            self.lose(reason, 0);
        }
    }

    /// What the end of an exchange tells of its session.
    pub(super) fn check_session(&mut self, flow_id: FlowId, exchange: &Exchange) {
        let (Some(session), Some(head)) = (&exchange.request.session, &exchange.response) else {
            return;
        };
        let torn = self
            .streams
            .flow(flow_id)
            .is_some_and(|flow| flow.torn_since(exchange.since));
        match (exchange.request.verb, head.status) {
            (Verb::Delete, Some(200..=299)) => self.session_over(session, SessionEnd::Deleted),
            (Verb::Get, _) if exchange.sse && !torn => self.session_over(session, SessionEnd::Closed),
            (Verb::Get | Verb::Delete, Some(404)) => self.session_expired(session, None),
            _ => {}
        }
    }

    /// A session of HTTP+SSE begins with the event that names its endpoint.
    pub(super) fn sse_session(&mut self, link: LinkId, number: u64, session: &str) {
        let since = self.talk(link).and_then(|talk| talk.exchange(number)?.since);
        if let Some((_, parties)) = self.http_context(link, number) {
            let told = self.sessions.heard(session, &parties, since, self.now);
            self.tell_sessions(told);
        }
    }

    /// How much was seen of what an answer on this response could belong to; the exchange remembers that it had one astray.
    ///
    /// The answers of a POST belong to what it asked; those of a GET to anything of its session.
    pub(super) fn http_sight(&mut self, flow_id: FlowId, number: u64, cut: bool) -> Sight {
        let torn = cut || self.is_torn(flow_id);
        let Some(talk) = self.talk(flow_id.link) else {
            return Sight::Partial;
        };
        let aligned = talk.aligned || talk.is_http2();
        let Some(exchange) = talk.exchange(number) else {
            return Sight::Partial;
        };
        let partial = torn || !aligned || !exchange.asked || exchange.unclear;
        exchange.unclear = partial;
        let asked_nothing = exchange.slots.is_empty() && exchange.notified;
        let (verb, sse, session) = (exchange.request.verb, exchange.sse, exchange.request.session.clone());
        match verb {
            Verb::Post if partial || sse => Sight::Partial,
            Verb::Post if asked_nothing => Sight::Unasked,
            Verb::Post => Sight::Whole,
            Verb::Get if !torn && !sse && session.is_some_and(|session| self.sessions.is_whole(&session)) => {
                Sight::Whole
            }
            _ => Sight::Partial,
        }
    }

    /// Whether a hole in either direction may have put requests and responses out of step.
    fn is_torn(&self, flow_id: FlowId) -> bool {
        let link = self.streams.link(flow_id.link);
        link.is_none_or(|link| link.flows().any(|flow| flow.last_gap.is_some()))
    }
}

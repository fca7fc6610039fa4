//! Conversations over HTTP: Streamable HTTP, and HTTP+SSE whose answers come on another connection.
//!
//! A connection is a row of exchanges, each a request and its response, whichever version of HTTP carries them. Whether an
//! exchange is MCP is judged by itself: 200 REST requests and then one to `/mcp` on one connection are ordinary.

use std::sync::Arc;

use smallvec::SmallVec;

mod answers;
mod ends;
mod exchange;
mod rules;
mod sse;
mod version;

pub(crate) use self::exchange::HttpTalk;
use self::sse::session_of;
use super::{Asked, Context, Held, Source};
use crate::protocol::Pipeline;
use crate::protocol::event::{DropReason, Verdict};
use crate::protocol::framing::head::{Media, RequestHead, ResponseHead, Verb};
use crate::protocol::framing::{Ending, Frame, FrameKind, SseEvent};
use crate::protocol::jsonrpc::{Kind, Message, Parsed, Payload, parse};
use crate::protocol::matcher::{Scope, Seen};
use crate::protocol::mcp::peer::PeerKey;
use crate::protocol::mcp::pressure::Hints;
use crate::protocol::observation::{Parties, Side, Transport};
use crate::protocol::stream::{FlowId, Link, LinkId};

/// Messages held of one exchange that is not known to be MCP: one, or a batch.
const MAX_HELD: usize = 64;

/// Exchanges of a connection with HTTP/2 that may be something else before its bytes are left out: what is left out costs the
/// names of fields of later requests.
const PATIENCE: u64 = 64;

impl Pipeline {
    /// One frame of an HTTP connection.
    pub(crate) fn http_frame(&mut self, flow_id: FlowId, frame: Frame) {
        let Frame {
            start,
            end,
            stream,
            kind,
        } = frame;
        let seen = self
            .streams
            .flow(flow_id)
            .map(|flow| flow.seen(start, end))
            .unwrap_or_default();
        match kind {
            FrameKind::Request(head) => self.http_request(flow_id, stream, head, seen),
            FrameKind::Response(head) => self.http_response(flow_id, stream, head, seen),
            FrameKind::Body(payload) => self.http_body(flow_id, stream, &payload, seen),
            FrameKind::Event(event) if self.is_alone(flow_id, stream) => {
                let kind = FrameKind::Line(event.data);
                self.line_frame(flow_id, Frame::of(start..end, kind));
            }
            FrameKind::Event(event) => self.http_event(flow_id, stream, &event, seen),
            FrameKind::End(ending) => self.http_end(flow_id, stream, ending),
            FrameKind::Preface => self.http2_begun(flow_id),
            FrameKind::Reset => self.http2_reset(flow_id, stream),
            FrameKind::GoAway(last) => self.http2_goes_away(flow_id, last),
            FrameKind::Noise => self.not_mcp(flow_id),
            FrameKind::Line(_) | FrameKind::Stray => {}
        }
    }

    /// Whether an event stream is older than the observer, on a stream of HTTP/2: its events speak for themselves.
    fn is_alone(&mut self, flow_id: FlowId, stream: u32) -> bool {
        let talk = self.talk(flow_id.link);
        stream > 0 && talk.is_none_or(|talk| talk.requests != flow_id && talk.of_stream(stream).is_none())
    }

    fn talk(&mut self, link: LinkId) -> Option<&mut HttpTalk> {
        self.streams.link_mut(link)?.http.as_deref_mut()
    }

    fn http_request(&mut self, flow_id: FlowId, stream: u32, head: Arc<RequestHead>, seen: Seen) {
        let Some(link) = self.streams.link_mut(flow_id.link) else {
            return;
        };
        let talk = link.http.get_or_insert_with(|| Box::new(HttpTalk::new(flow_id)));
        let known = talk.is_known(&head.path);
        let may_be_mcp = match head.verb {
            Verb::Post => head.media.may_be_json(),
            Verb::Get => head.accepts_events || head.media == Media::Untold,
            Verb::Delete => true,
            Verb::Head | Verb::Connect => false,
            Verb::Other => head.media == Media::Untold,
        };
        let proves = head.proves_mcp || known;
        let (rearmed, grpc) = (head.verb == Verb::Post, head.media == Media::Grpc);
        let number = talk.ask(stream, head, seen.first);
        if rearmed && link.told == Verdict::HeadsOnly {
            if stream == 0 {
                link.told = Verdict::Undecided;
            } else if may_be_mcp {
                // Only of HTTP/1.1 the kernel side sees by itself that something is posted.
                self.tell_verdict(flow_id.link, Verdict::Undecided);
            }
        }
        if proves {
            self.exchange_is_mcp(flow_id.link, number);
        } else if !may_be_mcp {
            self.skip_body(flow_id, stream);
            if grpc {
                self.speaks_grpc(flow_id.link, number);
                self.is_foreign(flow_id.link);
            } else {
                self.heads_only(flow_id.link);
            }
        }
    }

    fn skip_body(&mut self, flow_id: FlowId, stream: u32) {
        if let Some(flow) = self.streams.flow_mut(flow_id) {
            flow.framer.skip_body(stream);
        }
    }

    /// An exchange turns out to be MCP: so is its path, and what was held goes on its way.
    fn exchange_is_mcp(&mut self, link: LinkId, number: u64) {
        let Some(talk) = self.talk(link) else {
            return;
        };
        let Some(exchange) = talk.exchange(number).filter(|exchange| !exchange.mcp) else {
            return;
        };
        exchange.mcp = true;
        let held = std::mem::take(&mut exchange.held);
        let path = exchange.request.path.clone();
        talk.learn(path);
        let flow = talk.requests;
        self.tell_verdict(link, Verdict::Mcp);
        for Held { parsed, seen } in held {
            self.http_asked(flow, number, parsed, seen);
        }
    }

    fn heads_only(&mut self, link: LinkId) {
        let patient = |talk: &HttpTalk| talk.is_http2() && talk.asked() < PATIENCE;
        let known = |link: &Link| link.mcp || link.http.as_deref().is_some_and(patient);
        if self.streams.link(link).is_some_and(|link| !known(link)) {
            self.tell_verdict(link, Verdict::HeadsOnly);
        }
    }

    fn http_response(&mut self, flow_id: FlowId, stream: u32, head: ResponseHead, seen: Seen) {
        let Some(link) = self.streams.link_mut(flow_id.link) else {
            return;
        };
        let framer = &mut link.flows[flow_id.side].get_or_insert_default().framer;
        let talk = link
            .http
            .get_or_insert_with(|| Box::new(HttpTalk::new(flow_id.reverse())));
        let Some(exchange) = talk.answered_by(stream, &head, seen) else {
            // Its request was never seen: an event stream may still speak for itself.
            if !head.media.may_be_events() {
                framer.skip_body(stream);
            }
            return;
        };
        let verb = exchange.request.verb;
        let tunnel = head.ends_http(verb);
        if verb == Verb::Head || tunnel {
            framer.expect_no_body(stream);
        }
        if !exchange.mcp && exchange.held.is_empty() && !head.media.may_be_events() && !head.proves_mcp {
            framer.skip_body(stream);
        }
        if head.is_interim() {
            return;
        }
        let number = exchange.number;
        let proves = head.proves_mcp && (!exchange.held.is_empty() || head.session.is_some());
        let (session, upgrade) = (head.session.clone(), head.upgrade);
        exchange.first_byte = seen.first;
        exchange.response = Some(head);
        if tunnel {
            return self.http_left(flow_id, (stream, number), upgrade);
        }
        if proves {
            self.exchange_is_mcp(flow_id.link, number);
        }
        if let Some(session) = session {
            let exchange = self.talk(flow_id.link).and_then(|talk| talk.exchange(number));
            let slots = exchange.map(|exchange| exchange.slots.clone()).unwrap_or_default();
            for slot in slots {
                self.begin_session(slot, &session);
            }
        }
    }

    fn http_body(&mut self, flow_id: FlowId, stream: u32, payload: &Payload, seen: Seen) {
        let Some(talk) = self.talk(flow_id.link) else {
            return;
        };
        let asks = talk.requests == flow_id;
        let Some(exchange) = talk.part(flow_id, stream) else {
            return;
        };
        let (number, mcp) = (exchange.number, exchange.mcp);
        exchange.spoke |= !asks && matches!(payload.bytes.first(), Some(b'{' | b'['));
        if asks {
            let first = exchange.since.or(seen.first);
            for parsed in parse(payload) {
                self.http_asked_or_held(flow_id, number, mcp, parsed, Seen { first, ..seen });
            }
        } else if matches!(payload.bytes.first(), Some(b'{' | b'[')) {
            // An error page or the word `Accepted` is no answer that breaks the rules, it is none.
            for parsed in parse(payload) {
                self.http_answered(flow_id, number, parsed, seen);
            }
        }
    }

    fn http_asked_or_held(&mut self, flow_id: FlowId, number: u64, mcp: bool, parsed: Parsed, seen: Seen) {
        let proves = matches!(&parsed, Parsed::Message(message) if message.proves_mcp());
        let proves = self.is_sse_endpoint(flow_id.link, number) || proves;
        if proves {
            self.exchange_is_mcp(flow_id.link, number);
        }
        if proves
            || mcp
            || self
                .talk(flow_id.link)
                .and_then(|talk| talk.exchange(number))
                .is_some_and(|exchange| exchange.mcp)
        {
            return self.http_asked(flow_id, number, parsed, seen);
        }
        let is_message = matches!(parsed, Parsed::Message(_));
        if let Some(exchange) = self.talk(flow_id.link).and_then(|talk| talk.exchange(number))
            && is_message
            && exchange.held.len() < MAX_HELD
        {
            exchange.held.push(Held { parsed, seen });
        }
    }

    /// A message that a client posted.
    fn http_asked(&mut self, flow_id: FlowId, number: u64, parsed: Parsed, seen: Seen) {
        let Some((context, parties)) = self.http_context(flow_id.link, number) else {
            return;
        };
        let message = match parsed {
            Parsed::Message(message) => message,
            Parsed::Broken(reason, _) => {
                self.unclear(flow_id.link, number);
                return self.malformed(parties, Side::Client, reason);
            }
            Parsed::Unreadable(bytes) => {
                self.unclear(flow_id.link, number);
                return self.lose(DropReason::Resync, bytes);
            }
        };
        let Message { kind, length, cut } = message;
        self.check_mirror(flow_id.link, number, &kind, &parties);
        match kind {
            Kind::Request(id, method, params) => {
                let source = Source {
                    flow: flow_id,
                    status: None,
                    hints: Hints::default(),
                    first_byte: None,
                };
                let asked = Asked {
                    id,
                    method,
                    params,
                    length,
                    cut,
                };
                let slot = self.begin(&source, context, asked, seen, parties);
                if let Some(exchange) = self.talk(flow_id.link).and_then(|talk| talk.exchange(number)) {
                    exchange.slots.push(slot);
                }
            }
            Kind::Notification(method, params) => {
                self.notified(flow_id.link, number);
                self.notify(&context.scopes, &method, &params, Side::Client, parties);
            }
            // A client's answer to a request of its server.
            Kind::Result(..) | Kind::Error(..) => self.notified(flow_id.link, number),
        }
    }

    /// What an exchange says of the messages in it.
    fn http_context(&mut self, link: LinkId, number: u64) -> Option<(Context, Parties)> {
        let talk = self.talk(link)?;
        let requests = talk.requests;
        let exchange = talk.exchange(number)?;
        let (request, sse) = (exchange.request.clone(), exchange.sse);
        let transport = if sse {
            Transport::HttpSse
        } else {
            Transport::StreamableHttp
        };
        let parties = self.http_parties(requests, Side::Client, transport, request.authority.as_ref());
        let session = request
            .session
            .clone()
            .or_else(|| session_of(request.query.as_deref()).filter(|_| sse));
        let name = match &session {
            Some(session) => session.clone(),
            None => format!(
                "{}>{}",
                parties.client.pid.map_or(0, |pid| pid.0),
                parties.server.pid.map_or_else(
                    || request.authority.as_deref().unwrap_or("").to_owned(),
                    |pid| pid.0.to_string()
                )
            )
            .into(),
        };
        let context = Context {
            scopes: SmallVec::from_iter([Scope::Http(link, number), Scope::Session(name)]),
            conversation: Some(session.clone().map_or(PeerKey::Link(link), PeerKey::Session)),
            session,
            version: request.version.clone(),
            traceparent: request.traceparent.clone(),
            user_agent: request.user_agent.clone(),
            principal: request.principal,
            // HTTP+SSE, whose answers come on a connection that is older than the observer.
            unpaired: !sse && session_of(request.query.as_deref()).is_some(),
        };
        Some((context, parties))
    }

    fn http_event(&mut self, flow_id: FlowId, stream: u32, event: &SseEvent, seen: Seen) {
        let exchange = self.talk(flow_id.link).and_then(|talk| talk.part(flow_id, stream));
        let Some(number) = exchange.map(|exchange| exchange.number) else {
            return;
        };
        if event.endpoint {
            return self.sse_endpoint(flow_id.link, number, &event.data.bytes);
        }
        for parsed in parse(&event.data) {
            self.http_answered(flow_id, number, parsed, seen);
        }
    }

    fn http_end(&mut self, flow_id: FlowId, stream: u32, ending: Ending) {
        let Some(talk) = self.talk(flow_id.link) else {
            return;
        };
        if talk.requests == flow_id {
            let Some(exchange) = talk.part(flow_id, stream) else {
                return;
            };
            exchange.asked = true;
            let number = exchange.number;
            // JSON-RPC without evidence waits for what the response says.
            if !exchange.mcp && exchange.held.is_empty() && exchange.request.verb == Verb::Post {
                self.heads_only(flow_id.link);
            }
            return self.check_request(flow_id, number, ending);
        }
        let Some(exchange) = talk.answered(flow_id, stream) else {
            return;
        };
        if !exchange.mcp {
            return self.heads_only(flow_id.link);
        }
        self.exchange_over(flow_id, &exchange, ending);
    }
}

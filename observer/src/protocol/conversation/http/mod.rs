//! Conversations over HTTP: Streamable HTTP, and HTTP+SSE whose answers come on another connection.
//!
//! A connection is a row of exchanges, each a request and its response. Whether an exchange is MCP is judged by itself: 200
//! REST requests and then one to `/mcp` on one connection are ordinary.

use std::collections::VecDeque;

use smallvec::SmallVec;

mod answers;
mod ends;
mod sse;

use self::sse::session_of;
use super::{Asked, Context, Held, Source};
use crate::protocol::Pipeline;
use crate::protocol::event::{DropReason, Timestamp, Verdict};
use crate::protocol::framing::head::{RequestHead, ResponseHead, Verb};
use crate::protocol::framing::{Ending, Frame, FrameKind, Framer, SseEvent};
use crate::protocol::jsonrpc::{Kind, Message, Parsed, Payload, parse};
use crate::protocol::matcher::{Scope, Seen, Slot};
use crate::protocol::mcp::peer::PeerKey;
use crate::protocol::observation::{Parties, Side, Transport};
use crate::protocol::stream::{FlowId, LinkId};

/// Requests of one connection that wait for their response; clients pipeline a few at most.
const MAX_EXCHANGES: usize = 64;

/// Paths of one connection that are remembered to be MCP.
const MAX_PATHS: usize = 16;

/// Messages held of one exchange that is not known to be MCP: one, or a batch.
const MAX_HELD: usize = 64;

/// The HTTP side of a connection.
#[derive(Debug)]
pub(crate) struct HttpTalk {
    /// The direction of requests.
    pub(crate) requests: FlowId,
    exchanges: VecDeque<Exchange>,
    /// The exchange whose response is being read.
    answering: Option<u64>,
    /// Responses may have been lost since the last one.
    torn: bool,
    /// Exchanges so far; each is named by its number.
    count: u64,
    /// Paths that proved to be MCP.
    paths: SmallVec<[Box<str>; 2]>,
    /// Bytes were left out by a verdict since the last request.
    muted: bool,
}

/// One request and its response.
#[derive(Debug)]
struct Exchange {
    number: u64,
    request: RequestHead,
    /// When its first byte was written, or else read.
    since: Option<Timestamp>,
    /// The request has come to its end.
    asked: bool,
    response: Option<ResponseHead>,
    /// When the response's first byte was written.
    first_byte: Option<Timestamp>,
    mcp: bool,
    /// The answers to this exchange's messages come on another connection.
    sse: bool,
    held: Vec<Held>,
    slots: SmallVec<[Slot; 1]>,
}

impl HttpTalk {
    fn new(requests: FlowId) -> Self {
        Self {
            requests,
            exchanges: VecDeque::new(),
            answering: None,
            torn: false,
            count: 0,
            paths: SmallVec::new(),
            muted: false,
        }
    }

    /// Gives back the room of exchanges that are over.
    pub(crate) fn rest(&mut self) {
        self.exchanges.shrink_to_fit();
    }

    /// Whether a response may be read: the request that it answers is known.
    pub(crate) fn expects_response(&self) -> bool {
        !self.exchanges.is_empty()
    }

    /// The exchange that a response belongs to; `None` where its request was not seen.
    ///
    /// Responses come in the order of their requests (RFC 9112, 9.3.2). Where some may have been lost, the last request
    /// before the response is the one, since clients of MCP do not pipeline.
    fn answered_by(&mut self, head: &ResponseHead, seen: Seen) -> Option<&mut Exchange> {
        let before = |exchange: &Exchange| match (exchange.since, seen.first) {
            (Some(asked), Some(answered)) => asked <= answered,
            _ => true,
        };
        if std::mem::take(&mut self.torn) {
            let last = self.exchanges.iter().rposition(before).unwrap_or(0);
            self.exchanges.drain(..last);
        }
        let exchange = self.exchanges.front_mut().filter(|exchange| before(exchange))?;
        self.answering = (!head.is_interim()).then_some(exchange.number);
        Some(exchange)
    }

    fn exchange(&mut self, number: u64) -> Option<&mut Exchange> {
        self.exchanges.iter_mut().find(|exchange| exchange.number == number)
    }
}

impl Pipeline {
    /// One frame of an HTTP connection.
    pub(crate) fn http_frame(&mut self, flow_id: FlowId, frame: Frame) {
        let Frame { start, end, kind } = frame;
        let seen = self
            .streams
            .flow(flow_id)
            .map(|flow| flow.seen(start, end))
            .unwrap_or_default();
        match kind {
            FrameKind::Request(head) => self.http_request(flow_id, *head, seen),
            FrameKind::Response(head) => self.http_response(flow_id, *head, seen),
            FrameKind::Body(payload) => self.http_body(flow_id, &payload, seen),
            FrameKind::Event(event) => self.http_event(flow_id, &event, seen),
            FrameKind::End(ending) => self.http_end(flow_id, ending),
            FrameKind::Line(_) | FrameKind::Stray | FrameKind::Noise => {}
        }
    }

    fn talk(&mut self, link: LinkId) -> Option<&mut HttpTalk> {
        self.streams.link_mut(link)?.http.as_deref_mut()
    }

    fn http_request(&mut self, flow_id: FlowId, head: RequestHead, seen: Seen) {
        let Some(link) = self.streams.link_mut(flow_id.link) else {
            return;
        };
        let talk = link.http.get_or_insert_with(|| Box::new(HttpTalk::new(flow_id)));
        if std::mem::take(&mut talk.muted) {
            // A client that does not pipeline has had its answers: what muted bytes hid is over.
            talk.exchanges.retain(|exchange| exchange.mcp);
        }
        if talk.exchanges.len() == MAX_EXCHANGES {
            talk.exchanges.pop_front();
        }
        talk.count += 1;
        let number = talk.count;
        let known = talk.paths.contains(&head.path);
        let may_be_mcp = match head.verb {
            Verb::Post => head.media.may_be_json(),
            Verb::Get => head.accepts_events,
            Verb::Delete => true,
            Verb::Head | Verb::Connect | Verb::Other => false,
        };
        let proves = head.proves_mcp || known;
        let rearmed = head.verb == Verb::Post;
        // One at a time is the rule: room for four would be most of what an idle connection holds.
        talk.exchanges.reserve_exact(1);
        talk.exchanges.push_back(Exchange {
            number,
            request: head,
            since: seen.first,
            asked: false,
            response: None,
            first_byte: None,
            mcp: false,
            sse: false,
            held: Vec::new(),
            slots: SmallVec::new(),
        });
        if rearmed && link.told == Verdict::HeadsOnly {
            link.told = Verdict::Undecided;
        }
        if proves {
            self.exchange_is_mcp(flow_id.link, number);
        } else if !may_be_mcp {
            if let Framer::Http(framer) = &mut link.flows[flow_id.side].framer {
                framer.skip_body();
            }
            self.heads_only(flow_id.link);
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
        if !talk.paths.contains(&path) && talk.paths.len() < MAX_PATHS {
            talk.paths.push(path);
        }
        let flow = talk.requests;
        self.tell_verdict(link, Verdict::Mcp);
        for Held { parsed, seen } in held {
            self.http_asked(flow, number, parsed, seen);
        }
    }

    fn heads_only(&mut self, link: LinkId) {
        if self.streams.link(link).is_some_and(|link| !link.mcp) {
            self.tell_verdict(link, Verdict::HeadsOnly);
        }
    }

    fn http_response(&mut self, flow_id: FlowId, head: ResponseHead, seen: Seen) {
        let Some(link) = self.streams.link_mut(flow_id.link) else {
            return;
        };
        let Framer::Http(framer) = &mut link.flows[flow_id.side].framer else {
            return;
        };
        let talk = link
            .http
            .get_or_insert_with(|| Box::new(HttpTalk::new(flow_id.reverse())));
        let Some(exchange) = talk.answered_by(&head, seen) else {
            // Its request was never seen: an event stream may still speak for itself.
            if !head.media.may_be_events() {
                framer.skip_body();
            }
            return;
        };
        let verb = exchange.request.verb;
        let tunnel = head.ends_http(verb);
        if verb == Verb::Head || tunnel {
            framer.expect_no_body();
        }
        if !exchange.mcp && exchange.held.is_empty() && !head.media.may_be_events() && !head.proves_mcp {
            framer.skip_body();
        }
        if head.is_interim() {
            return;
        }
        let number = exchange.number;
        let proves = head.proves_mcp && (!exchange.held.is_empty() || head.session.is_some());
        let session = head.session.clone();
        exchange.first_byte = seen.first;
        exchange.response = Some(head);
        if tunnel {
            return self.http_over(flow_id.link);
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

    fn http_body(&mut self, flow_id: FlowId, payload: &Payload, seen: Seen) {
        let Some(talk) = self.talk(flow_id.link) else {
            return;
        };
        if talk.requests == flow_id {
            let Some((number, mcp)) = talk.exchanges.back().map(|exchange| (exchange.number, exchange.mcp)) else {
                return;
            };
            for parsed in parse(payload) {
                self.http_asked_or_held(flow_id, number, mcp, parsed, seen);
            }
        } else if let Some(number) = talk.answering {
            // An error page or the word `Accepted` is no answer that breaks the rules, it is none.
            if matches!(payload.bytes.first(), Some(b'{' | b'[')) {
                for parsed in parse(payload) {
                    self.http_answered(flow_id, Some(number), parsed, seen);
                }
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
            Parsed::Message(message) => *message,
            Parsed::Broken(reason, _) => return self.malformed(parties, Side::Client, reason),
            Parsed::Unreadable(bytes) => return self.lose(DropReason::Resync, bytes),
        };
        let Message { kind, length, cut } = message;
        match kind {
            Kind::Request(id, method, params) => {
                let source = Source {
                    flow: flow_id,
                    status: None,
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
                self.notify(&context.scopes, &method, &params, Side::Client, parties);
            }
            // A client's answer to a request of its server.
            Kind::Result(..) | Kind::Error(..) => {}
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
        let parties = self.http_parties(requests, Side::Client, transport, request.authority.as_deref());
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
            version: request.version,
            traceparent: request.traceparent,
            user_agent: request.user_agent,
            // HTTP+SSE, whose answers come on a connection that is older than the observer.
            unpaired: !sse && session_of(request.query.as_deref()).is_some(),
        };
        Some((context, parties))
    }

    fn http_event(&mut self, flow_id: FlowId, event: &SseEvent, seen: Seen) {
        let Some(talk) = self.talk(flow_id.link) else {
            return;
        };
        let Some(number) = talk.answering else {
            return;
        };
        if event.endpoint {
            return self.sse_endpoint(flow_id.link, number, &event.data.bytes);
        }
        for parsed in parse(&event.data) {
            self.http_answered(flow_id, Some(number), parsed, seen);
        }
    }

    fn http_end(&mut self, flow_id: FlowId, ending: Ending) {
        let Some(talk) = self.talk(flow_id.link) else {
            return;
        };
        if talk.requests == flow_id {
            let Some(exchange) = talk.exchanges.back_mut() else {
                return;
            };
            exchange.asked = true;
            // JSON-RPC without evidence waits for what the response says.
            let other = !exchange.mcp && exchange.held.is_empty() && exchange.request.verb == Verb::Post;
            if other {
                self.heads_only(flow_id.link);
            }
            return;
        }
        // An interim response ends without an answer to the request.
        let Some(number) = talk.answering.take() else {
            return;
        };
        let Some(exchange) = talk.exchanges.pop_front_if(|exchange| exchange.number == number) else {
            return;
        };
        if !exchange.mcp {
            return self.heads_only(flow_id.link);
        }
        self.exchange_over(flow_id, &exchange, ending);
    }
}

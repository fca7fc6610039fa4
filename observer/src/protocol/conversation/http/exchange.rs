//! The exchanges of an HTTP connection: each a request and its response, in a row or each on a stream of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::protocol::conversation::Held;
use crate::protocol::event::{DropReason, Timestamp};
use crate::protocol::framing::head::{RequestHead, ResponseHead};
use crate::protocol::matcher::{Seen, Slot};
use crate::protocol::stream::FlowId;

/// Requests of one connection that wait for their response: clients of HTTP/1.1 pipeline a few at most, servers of HTTP/2 take
/// 100 to 250 at once.
const MAX_EXCHANGES: usize = 256;

/// Paths of one connection that are remembered to be MCP.
const MAX_PATHS: usize = 16;

/// The HTTP side of a connection.
#[derive(Debug)]
pub(crate) struct HttpTalk {
    /// The direction of requests.
    pub(crate) requests: FlowId,
    pub(super) exchanges: VecDeque<Exchange>,
    /// HTTP/1.1: the exchange whose response is being read.
    pub(super) answering: Option<u64>,
    /// Responses may have been lost since the last one.
    pub(super) torn: bool,
    /// HTTP/1.1: a response answered its own request, so that the two rows are in step.
    pub(super) aligned: bool,
    /// Exchanges so far; each is named by its number.
    count: u64,
    /// The latest stream of a request; 0 in HTTP/1.1.
    last_stream: u32,
    /// Paths that proved to be MCP.
    paths: SmallVec<[Arc<str>; 2]>,
    /// Bytes were left out by a verdict since the last request.
    pub(super) muted: bool,
    /// What of it is not read, as it was last told.
    pub(super) gap: Option<DropReason>,
}

/// One request and its response.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) number: u64,
    /// Its stream; 0 in HTTP/1.1.
    pub(super) stream: u32,
    pub(super) request: Arc<RequestHead>,
    /// The request has come to its end.
    pub(super) asked: bool,
    /// When its first byte was written, or else read.
    pub(super) since: Option<Timestamp>,
    pub(super) response: Option<ResponseHead>,
    /// When the response's first byte was written.
    pub(super) first_byte: Option<Timestamp>,
    pub(super) mcp: bool,
    /// The answers to this exchange's messages come on another connection.
    pub(super) sse: bool,
    pub(super) held: Vec<Held>,
    pub(super) slots: SmallVec<[Slot; 1]>,
    /// It carried a notification, or the answer to a request of the server.
    pub(super) notified: bool,
    /// There was JSON in its response.
    pub(super) spoke: bool,
    /// Not all that it asks is known, or an answer in it belongs to what is not known.
    pub(super) unclear: bool,
}

impl HttpTalk {
    pub(super) fn new(requests: FlowId) -> Self {
        Self {
            requests,
            exchanges: VecDeque::new(),
            answering: None,
            torn: false,
            aligned: false,
            count: 0,
            last_stream: 0,
            paths: SmallVec::new(),
            muted: false,
            gap: None,
        }
    }

    /// Gives back the room of exchanges that are over.
    pub(crate) fn rest(&mut self) {
        self.exchanges.shrink_to_fit();
    }

    /// Whether a response may be read: the request that it answers is known, in HTTP/2 to its end, or will not be any more.
    pub(crate) fn expects_response(&self, stream: u32) -> bool {
        if stream == 0 {
            return !self.exchanges.is_empty();
        }
        let known = self.exchanges.iter().find(|exchange| exchange.stream == stream);
        // Streams are opened in the order of their numbers (RFC 9113, 5.1.1).
        known.map_or(stream < self.last_stream, |exchange| exchange.asked)
    }

    /// Whether the request on a stream was seen.
    pub(super) fn knows(&self, stream: u32) -> bool {
        stream > 0 && self.exchanges.iter().any(|exchange| exchange.stream == stream)
    }

    /// A stream is in use.
    pub(super) fn opened(&mut self, stream: u32) {
        self.last_stream = self.last_stream.max(stream);
    }

    pub(super) const fn is_http2(&self) -> bool {
        self.last_stream > 0
    }

    /// Requests so far.
    pub(super) const fn asked(&self) -> u64 {
        self.count
    }

    pub(super) fn is_known(&self, path: &str) -> bool {
        self.paths.iter().any(|known| **known == *path)
    }

    /// A path proves to be MCP; of one that is not known nothing can be said.
    pub(super) fn learn(&mut self, path: Arc<str>) {
        if !path.is_empty() && !self.is_known(&path) && self.paths.len() < MAX_PATHS {
            self.paths.push(path);
        }
    }

    /// A request begins; returns the number of its exchange.
    pub(super) fn ask(&mut self, stream: u32, request: Arc<RequestHead>, since: Option<Timestamp>) -> u64 {
        if std::mem::take(&mut self.muted) {
            // A client that does not pipeline has had its answers: what muted bytes hid is over.
            self.exchanges.retain(|exchange| exchange.mcp);
        }
        if self.exchanges.len() == MAX_EXCHANGES {
            self.exchanges.pop_front();
        }
        self.count += 1;
        self.opened(stream);
        // One at a time is the rule: room for four would be most of what an idle connection holds.
        if self.exchanges.capacity() == 0 {
            self.exchanges.reserve_exact(1);
        }
        self.exchanges.push_back(Exchange {
            number: self.count,
            stream,
            request,
            asked: false,
            since,
            response: None,
            first_byte: None,
            mcp: false,
            sse: false,
            held: Vec::new(),
            slots: SmallVec::new(),
            notified: false,
            spoke: false,
            unclear: false,
        });
        self.count
    }

    /// The exchange that a response belongs to; `None` where its request was not seen.
    ///
    /// In HTTP/2 it is that of its stream. In HTTP/1.1 responses come in the order of their requests (RFC 9112, 9.3.2); where
    /// some may have been lost, the last request before the response is the one, since clients of MCP do not pipeline.
    pub(super) fn answered_by(&mut self, stream: u32, head: &ResponseHead, seen: Seen) -> Option<&mut Exchange> {
        if stream > 0 {
            return self.of_stream(stream);
        }
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

    pub(super) fn exchange(&mut self, number: u64) -> Option<&mut Exchange> {
        self.exchanges.iter_mut().find(|exchange| exchange.number == number)
    }

    pub(super) fn of_stream(&mut self, stream: u32) -> Option<&mut Exchange> {
        self.exchanges.iter_mut().find(|exchange| exchange.stream == stream)
    }

    /// The exchange that a part of a message belongs to: in HTTP/2 that of its stream, in HTTP/1.1 the last one that was asked
    /// or the one that is being answered.
    pub(super) fn part(&mut self, flow: FlowId, stream: u32) -> Option<&mut Exchange> {
        if stream > 0 {
            self.of_stream(stream)
        } else if self.requests == flow {
            self.exchanges.back_mut()
        } else {
            self.exchange(self.answering?)
        }
    }

    /// Takes out the exchange whose response is over. An interim response ends without an answer to the request.
    pub(super) fn answered(&mut self, flow: FlowId, stream: u32) -> Option<Exchange> {
        let number = self.part(flow, stream)?.number;
        self.answering = None;
        self.take(number)
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Exchange> {
        let at = self.exchanges.iter().position(|exchange| exchange.number == number)?;
        self.exchanges.remove(at)
    }
}

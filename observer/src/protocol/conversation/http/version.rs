//! Where a connection changes its version of HTTP, and what HTTP/2 has that HTTP/1.1 has not: streams that end by themselves.

use std::collections::VecDeque;

use super::HttpTalk;
use crate::protocol::Pipeline;
use crate::protocol::event::Verdict;
use crate::protocol::framing::Framer;
use crate::protocol::framing::head::Upgrade;
use crate::protocol::observation::Side;
use crate::protocol::reassembly::Chunk;
use crate::protocol::stream::{FlowId, LinkId};

impl Pipeline {
    /// A client begins HTTP/2 (RFC 9113, section 3.4): so does its server.
    pub(super) fn http2_begun(&mut self, flow_id: FlowId) {
        let Some(link) = self.streams.link_mut(flow_id.link) else {
            return;
        };
        link.http.get_or_insert_with(|| Box::new(HttpTalk::new(flow_id)));
        if let Some(answers) = link.flow_mut(1 - flow_id.side)
            && answers.framer.is_lines()
        {
            let at = answers.assembler.next().unwrap_or(0);
            answers.reframe(Framer::http2(at, Side::Server));
        }
    }

    /// What follows a response is another protocol: on the connection, or on a stream of HTTP/2.
    pub(super) fn http_left(&mut self, flow_id: FlowId, (stream, number): (u32, u64), upgrade: Option<Upgrade>) {
        match upgrade {
            _ if stream > 0 => {
                self.skip_body(flow_id.reverse(), stream);
                self.heads_only(flow_id.link);
            }
            Some(Upgrade::H2c) => self.http2_agreed(flow_id),
            Some(Upgrade::WebSocket) => {
                self.left_for_websocket(flow_id.link, number);
                self.is_foreign(flow_id.link);
            }
            Some(Upgrade::Other) | None => self.http_over(flow_id.link),
        }
    }

    /// The server goes on with HTTP/2 (RFC 7540, section 3.2): its response is that of stream 1. The client's preface is still
    /// to come, on a flow that is HTTP/1.1 until then.
    fn http2_agreed(&mut self, flow_id: FlowId) {
        let Some(link) = self.streams.link_mut(flow_id.link) else {
            return;
        };
        if let Some(talk) = link.http.as_deref_mut()
            && let Some(number) = talk.answering.take()
            && let Some(exchange) = talk.exchange(number)
        {
            (exchange.stream, exchange.asked) = (1, true);
            talk.opened(1);
        }
        if let Some(flow) = link.flow_mut(flow_id.side)
            && let Framer::Http(http) = &mut flow.framer
        {
            let (start, bytes) = http.take_rest();
            flow.reframe(Framer::http2(start, Side::Server));
            let fresh = true;
            flow.framer.feed(Chunk::Bytes { start, bytes, fresh });
        }
    }

    /// What a connection carries is known, and no MCP: nothing of it is wanted any more.
    pub(super) fn is_foreign(&mut self, link_id: LinkId) {
        let Some(link) = self.streams.link_mut(link_id) else {
            return;
        };
        if link.mcp {
            // One of several things that it carries.
            return;
        }
        link.ignore();
        self.tell_verdict(link_id, Verdict::NotMcp);
    }

    /// One side gives a stream up (RFC 9113, section 6.4): to the exchange that is what closing its connection is in HTTP/1.1.
    pub(super) fn http2_reset(&mut self, flow_id: FlowId, stream: u32) {
        let Some(link) = self.streams.link_mut(flow_id.link) else {
            return;
        };
        if let Some(flow) = link.flow_mut(1 - flow_id.side)
            && let Framer::Http2(http) = &mut flow.framer
        {
            http.close(stream);
        }
        let Some(talk) = link.http.as_deref_mut() else {
            return;
        };
        let by = if talk.requests == flow_id {
            Side::Client
        } else {
            Side::Server
        };
        let number = talk.of_stream(stream).map(|exchange| exchange.number);
        if let Some(exchange) = number.and_then(|number| talk.take(number)) {
            self.exchange_closed(&exchange, by, self.now);
        }
    }

    /// The server ends the connection (RFC 9113, section 6.8): what was asked on later streams than `last` it will not answer.
    pub(super) fn http2_goes_away(&mut self, flow_id: FlowId, last: u32) {
        let Some(talk) = self.talk(flow_id.link).filter(|talk| talk.requests != flow_id) else {
            return;
        };
        let all = std::mem::take(&mut talk.exchanges);
        let (refused, rest): (VecDeque<_>, _) = all.into_iter().partition(|exchange| exchange.stream > last);
        talk.exchanges = rest;
        for exchange in refused {
            self.exchange_closed(&exchange, Side::Server, self.now);
        }
    }
}

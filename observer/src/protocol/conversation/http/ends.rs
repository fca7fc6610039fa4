//! How HTTP on a connection ends or is torn: closed, left for another protocol, muted, with holes.

use super::exchange::Exchange;
use crate::protocol::Pipeline;
use crate::protocol::event::{DropReason, Timestamp};
use crate::protocol::framing::Framer;
use crate::protocol::matcher::Slot;
use crate::protocol::mcp::call::Doom;
use crate::protocol::observation::Side;
use crate::protocol::reassembly::Chunk;
use crate::protocol::stream::{FlowId, Link, LinkId};

impl Pipeline {
    /// An end of the connection closed. `by`: which side closed.
    pub(crate) fn http_closed(&mut self, link: LinkId, by: Side, time: Timestamp) {
        let Some(talk) = self.talk(link) else {
            return;
        };
        let ends = |exchange: &Exchange| (exchange.slots.clone(), exchange.response.is_none());
        let waiting: Vec<_> = talk.exchanges.iter().map(ends).collect();
        for (slots, unanswered) in waiting {
            self.slots_closed(&slots, unanswered, by, time);
        }
    }

    /// One side has closed what carries an exchange.
    pub(super) fn exchange_closed(&mut self, exchange: &Exchange, by: Side, time: Timestamp) {
        self.slots_closed(&exchange.slots, exchange.response.is_none(), by, time);
    }

    fn slots_closed(&mut self, slots: &[Slot], unanswered: bool, by: Side, time: Timestamp) {
        for slot in slots {
            let stateless = self.matcher.get(*slot).is_some_and(|pending| {
                pending
                    .version
                    .as_deref()
                    .is_some_and(|version| version >= "2026-07-28")
            });
            match by {
                Side::Server if unanswered => self.doom(*slot, Doom::ServerGone, time),
                Side::Client if stateless => self.doom(*slot, Doom::Cancelled, time),
                Side::Client | Side::Server => {}
            }
        }
    }

    /// HTTP ended on this connection (101, CONNECT): whatever follows is a new stream.
    pub(super) fn http_over(&mut self, link_id: LinkId) {
        let Some(link) = self.streams.link_mut(link_id) else {
            return;
        };
        link.http = None;
        for flow in link.flows_mut() {
            let rest = match &mut flow.framer {
                Framer::Http(framer) => Some(framer.take_rest()),
                Framer::Between(_) | Framer::Line(..) | Framer::Http2(_) | Framer::Ignore => None,
            };
            flow.reframe(Framer::default());
            if let Some((start, bytes)) = rest.filter(|(_, bytes)| !bytes.is_empty()) {
                let fresh = true;
                flow.framer.feed(Chunk::Bytes { start, bytes, fresh });
            }
        }
    }

    /// Bytes of a connection were left out by a verdict.
    pub(crate) fn http_muted(&mut self, link: LinkId) {
        if let Some(talk) = self.talk(link) {
            talk.muted = true;
        }
    }

    /// Bytes of a flow are missing: responses may be.
    pub(crate) fn http_torn(&mut self, flow_id: FlowId) {
        if let Some(talk) = self.talk(flow_id.link) {
            talk.torn |= talk.requests != flow_id;
        }
    }

    /// A response came, but not the request it answers: that is lost.
    pub(crate) fn http_unasked(&mut self, link: LinkId, stream: u32) {
        let asked = |link: &Link| link.http.as_deref().is_some_and(|talk| talk.knows(stream));
        if self.streams.link(link).is_some_and(|link| link.mcp && !asked(link)) {
            self.lose(DropReason::OrphanResponse, 0);
        }
    }
}

//! Who talks with whom on a stream.

use std::sync::Arc;

use crate::protocol::Pipeline;
use crate::protocol::event::{Pid, Source};
use crate::protocol::matcher::Slot;
use crate::protocol::observation::{NetworkTransport, Parties, Party, Side, Transport, Vantage};
use crate::protocol::stream::{Crew, Flow, FlowId, Link};

impl Pipeline {
    /// The parties of the conversation that `flow` belongs to, as far as they are known now.
    ///
    /// `sender`: which side writes that flow.
    pub(crate) fn parties(&self, flow: FlowId, sender: Side) -> Parties {
        let reply = self.counterpart(flow);
        let (requests, replies) = match sender {
            Side::Client => (Some(flow), reply),
            Side::Server => (reply, Some(flow)),
        };
        let crew = |flow: Option<FlowId>, pick: fn(&Flow) -> &Crew| flow.and_then(|id| self.streams.flow(id)).map(pick);
        let (client_writes, client_reads) = (
            crew(requests, |flow| &flow.writers),
            crew(replies, |flow| &flow.readers),
        );
        let (server_reads, server_writes) = (
            crew(requests, |flow| &flow.readers),
            crew(replies, |flow| &flow.writers),
        );
        let server_acted = actor(server_reads).or(actor(server_writes));
        let link = self.streams.link(flow.link);
        let client_end = match sender {
            Side::Client => flow.side,
            Side::Server => 1 - flow.side,
        };
        let end = |side: usize, pid| party(link, side, pid);
        let torn = |flow| self.streams.flow(flow).is_some_and(|flow| flow.last_gap.is_some());
        Parties {
            client: end(
                client_end,
                actor(client_writes)
                    .or(actor(client_reads))
                    .or(likely(client_writes))
                    .or(likely(client_reads)),
            ),
            server: end(
                1 - client_end,
                server_acted.or(likely(server_reads)).or(likely(server_writes)),
            ),
            transport: Transport::Stdio,
            network: match link.and_then(|link| link.source) {
                Some(Source::Tcp | Source::Tls) => NetworkTransport::Tcp,
                _ => NetworkTransport::Pipe,
            },
            tls: link.and_then(|link| link.source) == Some(Source::Tls),
            vantage: if server_acted.is_some() {
                Vantage::Server
            } else {
                Vantage::Client
            },
            authority: None,
            lossy: torn(flow) || reply.is_some_and(torn),
        }
    }

    /// The same for an HTTP connection.
    pub(crate) fn http_parties(
        &self,
        flow: FlowId,
        sender: Side,
        transport: Transport,
        authority: Option<&Arc<str>>,
    ) -> Parties {
        let mut parties = self.parties(flow, sender);
        parties.transport = transport;
        parties.authority = authority.cloned();
        if parties.network == NetworkTransport::Pipe {
            parties.network = NetworkTransport::Unix;
        }
        parties
    }

    /// Brings the parties of a pending call up to date; what is known stays.
    pub(crate) fn refresh_parties(&mut self, slot: Slot) {
        let Some(pending) = self.matcher.get(slot) else {
            return;
        };
        let answer = pending.over.as_ref().and_then(|over| over.answer);
        let asked = pending.seen;
        let known = &pending.parties;
        if known.vantage == Vantage::Server && known.server.pid.is_some() && known.client.pid.is_some() {
            return;
        }
        let fresh = self.parties(pending.flow, Side::Client);
        let told = answer.map(|(_, seen)| seen);
        let Some(pending) = self.matcher.get_mut(slot) else {
            return;
        };
        let parties = &mut pending.parties;
        let server = asked.reader.or(told.and_then(|seen| seen.writer));
        let client = asked.writer.or(told.and_then(|seen| seen.reader));
        if (server.is_some() || fresh.vantage == Vantage::Server) && parties.vantage != Vantage::Hop {
            parties.vantage = Vantage::Server;
        }
        parties.server.pid = server.or(parties.server.pid).or(fresh.server.pid);
        parties.client.pid = client.or(parties.client.pid).or(fresh.client.pid);
        for (known, fresh) in [(&mut parties.server, fresh.server), (&mut parties.client, fresh.client)] {
            known.address = known.address.or(fresh.address);
            known.netns = if known.netns == 0 { fresh.netns } else { known.netns };
        }
    }

    /// The flow that goes the other way in the same conversation of lines or on the same connection.
    pub(crate) fn counterpart(&self, flow: FlowId) -> Option<FlowId> {
        let link = self.streams.link(flow.link)?;
        let partner = link.flow(flow.side).and_then(|flow| flow.line.partner);
        partner.or_else(|| (link.source != Some(Source::Pipe)).then(|| flow.reverse()))
    }

    /// Whether someone on this node may be seen reading a flow.
    pub(crate) fn has_reader(&self, flow: FlowId) -> bool {
        self.streams.link(flow.link).is_some_and(|link| {
            // What is not told to be a socket may be a pipe, whose readers are on this node.
            matches!(link.source, Some(Source::Pipe) | None)
                || link.ends[1 - flow.side].key.is_some()
                || link.flow(flow.side).is_some_and(|flow| !flow.readers.is_empty())
        })
    }
}

fn actor(crew: Option<&Crew>) -> Option<Pid> {
    crew.and_then(Crew::actor)
}

fn likely(crew: Option<&Crew>) -> Option<Pid> {
    crew.and_then(Crew::likely)
}

fn party(link: Option<&Link>, side: usize, pid: Option<Pid>) -> Party {
    let end = link.map(|link| &link.ends[side]);
    Party {
        pid,
        address: end.and_then(|end| end.address),
        netns: end.map_or(0, |end| end.netns),
        implementation: None,
    }
}

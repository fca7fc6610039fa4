//! What messages tell of the peers themselves: names, versions, tools; and refusals that turn out to be negotiation.

use std::sync::Arc;

use super::{Asked, PeerKey, Pipeline, Source};
use crate::protocol::matcher::Slot;
use crate::protocol::mcp::call::Pending;
use crate::protocol::mcp::catalog::{CatalogKind, Page, Shelf, entries};
use crate::protocol::mcp::peer::{server_keys, server_of};
use crate::protocol::mcp::reply::{Part, Reply};
use crate::protocol::mcp::schema::Check;
use crate::protocol::observation::{Implementation, MalformedReason, Observation, Outcome, Parties, Side};

impl Pipeline {
    /// Fills in what is known of both sides, and remembers what an `initialize` says of the client.
    pub(crate) fn introduce_client(
        &mut self,
        pending: &mut Pending,
        client: Option<Arc<Implementation>>,
        offered: Option<Arc<str>>,
        user_agent: Option<Arc<str>>,
    ) {
        let client = client.map(|client| self.peers.share(client));
        if pending.method.is("initialize") {
            self.peers
                .entry(pending.conversation.clone())
                .client
                .clone_from(&client);
        }
        let known = self.peers.get(&pending.conversation);
        pending.before_handshake = known.is_none_or(|known| known.version.is_none());
        pending.version = pending.version.take().or(offered).or_else(|| known?.version.clone());
        pending.parties.client.implementation = client.or_else(|| known?.client.clone()).or_else(|| {
            let agent = user_agent?;
            let (name, version) = agent.split_once('/').unwrap_or((&agent, ""));
            let version = version.split(' ').next().unwrap_or("");
            Some(Arc::new(Implementation {
                name: name.to_owned(),
                version: version.to_owned(),
            }))
        });
        let server = known.and_then(|known| known.server.clone());
        pending.parties.server.implementation = server.or_else(|| self.server_implementation(&pending.parties));
    }

    /// What is remembered of a server's process or address.
    fn server_implementation(&self, parties: &Parties) -> Option<Arc<Implementation>> {
        server_keys(parties).find_map(|key| self.peers.get(&key)?.server.clone())
    }

    /// Remembers what a result tells of the server and of the revision agreed on.
    pub(crate) fn introduce_server(&mut self, slot: Slot, reply: &Reply) {
        self.refresh_parties(slot);
        let Some(pending) = self.matcher.get_mut(slot) else {
            return;
        };
        let version = reply.version.clone().filter(|_| pending.method.is("initialize"));
        if reply.kept.is_none() && version.is_none() && reply.server.is_none() {
            return;
        }
        let server = reply.server.clone().map(|server| self.peers.share(server));
        if let Some(version) = &version {
            pending.version = Some(version.clone());
        }
        if server.is_some() {
            pending.parties.server.implementation.clone_from(&server);
        }
        let (parties, conversation) = (pending.parties.clone(), pending.conversation.clone());
        let named = pending.version.clone();
        self.listed(slot, reply);
        let known = self.peers.entry(conversation);
        let grown = (version.is_some() && known.version != version) || (server.is_some() && known.server != server);
        known.version = version.or(known.version.take());
        known.server = server.clone().or(known.server.take());
        // Where no handshake agrees on a revision, each request names its own.
        let protocol_version = known.version.clone().or(named);
        if server.is_some() {
            for key in server_keys(&parties) {
                self.peers.entry(key).server.clone_from(&server);
            }
        }
        if grown {
            self.observe(Observation::Server {
                parties,
                protocol_version,
            });
        }
    }

    /// A page of a catalog: its names exist, and what is new at its end is told.
    fn listed(&mut self, slot: Slot, reply: &Reply) {
        let (Some(pending), Some(kept)) = (self.matcher.get(slot), &reply.kept) else {
            return;
        };
        let Some(kind) = CatalogKind::of(kept.part).filter(|_| pending.method.name().ends_with("/list")) else {
            return;
        };
        let shelf = Shelf {
            server: server_of(pending),
            principal: pending.principal,
            kind,
        };
        let page = Page {
            cursor: pending.cursor,
            next: reply.next_cursor,
            text: &kept.text,
        };
        if self.peers.catalogs.is_known(&shelf, &page) {
            return;
        }
        let parties = pending.parties.clone();
        let entries = entries(kind, &kept.text);
        if matches!(kind, CatalogKind::Tools | CatalogKind::Prompts) {
            for entry in &entries {
                self.peers.list(&shelf.server, &entry.name);
            }
        }
        if kind == CatalogKind::Tools {
            for entry in &entries {
                let schema = entry.schema.as_deref();
                self.peers.schemas.learn(&shelf.server, &entry.name, schema);
            }
        }
        if let Some(catalog) = self.peers.catalogs.turn(&shelf, &page, &entries, &parties) {
            self.observe(Observation::Catalog(Box::new(catalog)));
        }
    }

    /// A structured result that its tool's own schema does not allow is told; the call keeps its outcome, since not every
    /// result is checked.
    pub(crate) fn check_structured(&mut self, slot: Slot, reply: &Reply) {
        let (Some(pending), Some(kept)) = (self.matcher.get(slot), &reply.kept) else {
            return;
        };
        let Some(tool) = pending.target.as_deref().filter(|_| pending.method.is("tools/call")) else {
            return;
        };
        if kept.part != Part::Structured || reply.is_error {
            return;
        }
        let check = self
            .peers
            .schemas
            .check(&server_of(pending), tool, &kept.text, self.now);
        if check == Check::Violated {
            let parties = pending.parties.clone();
            self.malformed(parties, Side::Server, MalformedReason::SchemaViolation);
        }
    }

    /// What a new session knows is what its handshake told.
    pub(crate) fn begin_session(&mut self, slot: Slot, session: &Arc<str>) {
        let Some(pending) = self.matcher.get_mut(slot) else {
            return;
        };
        let began = pending.seen.first.or(pending.seen.any());
        let told = self.sessions.heard(session, &pending.parties, began, self.now);
        let key = PeerKey::Session(session.clone());
        // Most servers repeat the session's id in every response.
        if pending.conversation != key {
            pending.session = Some(session.clone());
            let old = std::mem::replace(&mut pending.conversation, key.clone());
            let known = self.peers.get(&old).cloned().unwrap_or_default();
            *self.peers.entry(key) = known;
        }
        self.tell_sessions(told);
    }

    /// A new request with another version makes a refusal in the same conversation, or between the same two, negotiation.
    pub(crate) fn settle_refusals(&mut self, source: &Source, conversation: &PeerKey, asked: &Asked) {
        if self.refused.is_empty() {
            return;
        }
        let offered = asked.params.meta_version.as_ref().or(asked.params.version.as_ref());
        let client = self.streams.flow(source.flow).and_then(|flow| flow.writers.actor());
        let answers = |pending: &Pending| {
            let same =
                pending.conversation == *conversation || (client.is_some() && pending.parties.client.pid == client);
            same && (asked.method.is("initialize") || (offered.is_some() && offered != pending.version.as_ref()))
        };
        let matcher = &self.matcher;
        let settled = self
            .refused
            .iter()
            .copied()
            .find(|slot| matcher.get(*slot).is_some_and(answers));
        if let Some(slot) = settled {
            self.refused.retain(|other| *other != slot);
            if let Some(over) = self.matcher.get_mut(slot).and_then(|pending| pending.over.as_mut()) {
                over.outcome = Outcome::Negotiation;
            }
            self.emit(slot);
        }
    }
}

//! What is known of each peer: names, versions, what a server has listed.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::protocol::digest::Digest;
use crate::protocol::event::Pid;
use crate::protocol::mcp::call::{Over, Pending};
use crate::protocol::mcp::catalog::Catalogs;
use crate::protocol::mcp::schema::Schemas;
use crate::protocol::observation::{Implementation, Outcome, Parties};
use crate::protocol::recent::Recent;
use crate::protocol::stream::{FlowId, LinkId};

/// Conversations, sessions and servers remembered; each is a few hundred bytes.
const MAX_KNOWN: usize = 16_384;

/// Names and versions that peers gave themselves and that are shared; what is forgotten here is kept by whom it is known of.
const MAX_IMPLEMENTATIONS: usize = 256;

/// Names of tools and prompts remembered, of all servers together.
const MAX_NAMES: usize = 65_536;

/// About whom something is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerKey {
    /// A conversation of lines, by the flow of its requests.
    Flow(FlowId),
    /// An HTTP connection.
    Link(LinkId),
    /// A session.
    Session(Arc<str>),
    /// A server's process.
    Process(Pid),
    /// A server's address.
    Address(SocketAddr),
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    pub(crate) version: Option<Arc<str>>,
    pub(crate) client: Option<Arc<Implementation>>,
    pub(crate) server: Option<Arc<Implementation>>,
}

/// The memory of peers.
#[derive(Debug)]
pub(crate) struct Peers {
    known: Recent<PeerKey, Known>,
    /// What peers call themselves, each kept once: hundreds of sessions are of the same client and server.
    implementations: Recent<Arc<Implementation>, Arc<Implementation>>,
    /// Digests of server and name: a call looks here more than once.
    names: Recent<Digest, ()>,
    pub(crate) catalogs: Catalogs,
    pub(crate) schemas: Schemas,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            known: Recent::new(MAX_KNOWN),
            implementations: Recent::new(MAX_IMPLEMENTATIONS),
            names: Recent::new(MAX_NAMES),
            catalogs: Catalogs::default(),
            schemas: Schemas::default(),
        }
    }
}

impl Peers {
    pub(crate) fn get(&self, key: &PeerKey) -> Option<&Known> {
        self.known.get(key)
    }

    pub(crate) fn entry(&mut self, key: PeerKey) -> &mut Known {
        self.known.entry(key, Known::default)
    }

    /// The same as is known of other peers.
    pub(crate) fn share(&mut self, implementation: Arc<Implementation>) -> Arc<Implementation> {
        let shared = self.implementations.entry(implementation.clone(), || implementation);
        shared.clone()
    }

    pub(crate) fn forget(&mut self, key: &PeerKey) {
        self.known.remove(key);
    }

    /// Notes that a server has a tool or prompt of this name.
    pub(crate) fn list(&mut self, server: &PeerKey, name: &str) {
        let key = Digest::of((server, name));
        if !self.names.contains(&key) {
            self.names.entry(key, || ());
        }
    }

    /// Whether the tool or prompt that a request names exists, as far as it is known.
    pub(crate) fn is_target_known(&self, pending: &Pending) -> bool {
        let target = pending.target.as_deref();
        target.is_some_and(|target| self.names.contains(&Digest::of((server_of(pending), target))))
    }

    /// Whether the tool or prompt exists: a list named it, or this end of a call shows it, which is remembered.
    pub(crate) fn learn_target(&mut self, pending: &Pending, over: &Over) -> bool {
        let Some(target) = pending.target.as_deref() else {
            return false;
        };
        let works = matches!(
            over.outcome,
            Outcome::Ok | Outcome::InputRequired | Outcome::TaskAccepted
        );
        if works {
            self.list(&server_of(pending), target);
        }
        works || self.is_target_known(pending)
    }
}

/// What a server is remembered by, across its conversations.
pub(crate) fn server_keys(parties: &Parties) -> impl Iterator<Item = PeerKey> {
    let process = parties.server.pid.map(PeerKey::Process);
    let address = parties.server.address.map(PeerKey::Address);
    process.into_iter().chain(address)
}

/// By what the names of a server's tools are remembered: its process, else its address, else the conversation.
pub(crate) fn server_of(pending: &Pending) -> PeerKey {
    let known = server_keys(&pending.parties).next();
    known.unwrap_or_else(|| pending.conversation.clone())
}

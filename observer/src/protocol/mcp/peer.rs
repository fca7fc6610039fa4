//! What is known of each peer: names, versions, what a server has listed.

use std::net::SocketAddr;

use crate::protocol::event::Pid;
use crate::protocol::observation::Implementation;
use crate::protocol::recent::Recent;
use crate::protocol::stream::{FlowId, LinkId};

/// Conversations, sessions and servers remembered; each is a few hundred bytes.
const MAX_KNOWN: usize = 16_384;

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
    Session(Box<str>),
    /// A server's process.
    Process(Pid),
    /// A server's address.
    Address(SocketAddr),
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    pub(crate) version: Option<Box<str>>,
    pub(crate) client: Option<Implementation>,
    pub(crate) server: Option<Implementation>,
}

/// The memory of peers.
#[derive(Debug)]
pub(crate) struct Peers {
    known: Recent<PeerKey, Known>,
    names: Recent<(PeerKey, Box<str>), ()>,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            known: Recent::new(MAX_KNOWN),
            names: Recent::new(MAX_NAMES),
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

    pub(crate) fn forget(&mut self, key: &PeerKey) {
        self.known.remove(key);
    }

    /// Notes that a server has a tool or prompt of this name.
    pub(crate) fn list(&mut self, server: PeerKey, name: Box<str>) {
        self.names.entry((server, name), || ());
    }

    pub(crate) fn is_listed(&self, server: PeerKey, name: &str) -> bool {
        self.names.contains(&(server, name.into()))
    }
}

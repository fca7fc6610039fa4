//! The name of a capability: learned once for a process or address, then kept for its life.
//!
//! The best name is what the server calls itself, and that comes with the answer to the client's first request. Until then
//! what is seen of a new server is held, for a bounded time, so that its first seconds do not make a capability of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use ahash::AHashMap;

use super::{Capability, EXTERNAL, HOST, UNKNOWN, Workload, cut};
use crate::protocol::event::Timestamp;
use crate::protocol::observation::{Observation, Parties};

/// Servers whose names are remembered.
const MAX_SERVERS: usize = 16_384;

/// Servers of one process and port that are told apart by the names they give themselves (mounted under several paths).
const MAX_NAMES_A_SERVER: usize = 16;

/// Servers whose first observations are held at once.
const MAX_HELD_SERVERS: usize = 1024;

/// Observations of one server that are held.
const MAX_HELD: usize = 64;

/// How long a handshake may take before the server is named by what is known: `npx` may download a package first.
const HANDSHAKE_PATIENCE: u64 = 30_000_000_000;

/// How long anything else waits for a name.
const PATIENCE: u64 = 2_000_000_000;

/// What a name is learned for: a process and the port it serves, or an address off this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ServerKey {
    Process {
        instance: u64,
        port: Option<u16>,
    },
    Remote {
        address: Option<SocketAddr>,
        authority: Option<String>,
    },
}

/// Names learned and observations held until there is one.
#[derive(Debug, Default)]
pub(super) struct Naming {
    names: AHashMap<ServerKey, Names>,
    held: AHashMap<ServerKey, Held>,
    births: u64,
    evictions: u64,
}

#[derive(Debug)]
struct Names {
    first: Arc<Capability>,
    /// By what each server behind this key calls itself; empty where the first name came from elsewhere.
    by_server_info: Vec<Arc<Capability>>,
    /// Order of learning, for eviction.
    born: u64,
}

#[derive(Debug)]
struct Held {
    until: Timestamp,
    observations: Vec<Observation>,
}

impl Naming {
    /// The name of the server in `parties`, if it has been learned or its own word for itself is there.
    pub(super) fn learned(&mut self, key: &ServerKey, parties: &Parties) -> Option<Arc<Capability>> {
        let info = server_info(parties);
        let Some(names) = self.names.get_mut(key) else {
            let capability = Arc::new(Capability {
                name: info?,
                namespace: HOST.to_owned(),
            });
            self.insert(key.clone(), Arc::clone(&capability), vec![Arc::clone(&capability)]);
            return Some(capability);
        };
        let Some(info) = info.filter(|_| !names.by_server_info.is_empty()) else {
            return Some(Arc::clone(&names.first));
        };
        if let Some(known) = names.by_server_info.iter().find(|known| known.name == info) {
            return Some(Arc::clone(known));
        }
        if names.by_server_info.len() >= MAX_NAMES_A_SERVER {
            return Some(Arc::clone(&names.first));
        }
        let capability = Arc::new(Capability {
            name: info,
            namespace: names.first.namespace.clone(),
        });
        names.by_server_info.push(Arc::clone(&capability));
        Some(capability)
    }

    /// Names a server by what there is, for good.
    pub(super) fn settle(&mut self, key: &ServerKey, parties: &Parties, server: &Workload) -> Arc<Capability> {
        if let Some(known) = self.learned(key, parties) {
            return known;
        }
        let capability = Arc::new(match server.pid {
            Some(_) => Capability {
                name: server.name.clone(),
                namespace: server.namespace.clone(),
            },
            None => remote_name(parties),
        });
        self.insert(key.clone(), Arc::clone(&capability), Vec::new());
        capability
    }

    /// Keeps an observation until its server has a name; gives it back where it cannot be kept.
    pub(super) fn hold(&mut self, key: &ServerKey, observation: Observation, now: Timestamp) -> Option<Observation> {
        let handshake = is_handshake(&observation);
        let until = now.plus(if handshake { HANDSHAKE_PATIENCE } else { PATIENCE });
        let room = self.held.len() < MAX_HELD_SERVERS;
        match self.held.get_mut(key) {
            Some(held) if held.observations.len() < MAX_HELD => {
                held.until = if handshake { held.until } else { held.until.min(until) };
                held.observations.push(observation);
                None
            }
            None if room => {
                let observations = vec![observation];
                self.held.insert(key.clone(), Held { until, observations });
                None
            }
            _ => Some(observation),
        }
    }

    /// What was held for a server, oldest first.
    pub(super) fn release(&mut self, key: &ServerKey) -> Vec<Observation> {
        self.held.remove(key).map(|held| held.observations).unwrap_or_default()
    }

    /// Servers whose observations have waited long enough by `now`, in no order.
    pub(super) fn overdue(&self, now: Timestamp) -> Vec<ServerKey> {
        self.held
            .iter()
            .filter(|(_, held)| held.until <= now)
            .map(|(key, _)| key.clone())
            .collect()
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Forgets the names of a process that is gone or became another program.
    pub(super) fn forget(&mut self, gone: u64) {
        self.names
            .retain(|key, _| !matches!(key, ServerKey::Process { instance, .. } if *instance == gone));
    }

    /// The servers of a process that have observations held.
    pub(super) fn held_for(&self, process: u64) -> Vec<ServerKey> {
        let of = |key: &&ServerKey| matches!(key, ServerKey::Process { instance, .. } if *instance == process);
        self.held.keys().filter(of).cloned().collect()
    }

    fn insert(&mut self, key: ServerKey, first: Arc<Capability>, by_server_info: Vec<Arc<Capability>>) {
        if self.names.len() >= MAX_SERVERS {
            let keep = self.names.len() / 64;
            let mut ages: Vec<u64> = self.names.values().map(|names| names.born).collect();
            let (_, limit, _) = ages.select_nth_unstable(keep);
            let limit = *limit;
            self.names.retain(|_, names| names.born > limit);
            self.evictions += keep as u64 + 1;
        }
        self.births += 1;
        self.names.insert(
            key,
            Names {
                first,
                by_server_info,
                born: self.births,
            },
        );
    }
}

/// Whether the observation shows that the handshake is over or was before our time, so that no better name is to be expected.
pub(super) fn is_past_handshake(observation: &Observation) -> bool {
    matches!(observation, Observation::Call(call) if !is_handshake_method(&call.method))
}

fn is_handshake(observation: &Observation) -> bool {
    matches!(observation, Observation::CallBegan(began) if is_handshake_method(&began.method))
}

fn is_handshake_method(method: &str) -> bool {
    matches!(method, "initialize" | "server/discover")
}

fn server_info(parties: &Parties) -> Option<String> {
    let name = parties.server.implementation.as_ref()?.name.trim();
    (!name.is_empty()).then(|| cut(name))
}

/// HTTP authority, else address. An authority that is only an address is no name.
pub(super) fn remote_name(parties: &Parties) -> Capability {
    let capability = |name: &str, namespace: &str| Capability {
        name: cut(name),
        namespace: namespace.to_owned(),
    };
    match (&parties.authority, parties.server.address) {
        (Some(authority), _) if !is_address(authority) => capability(authority, HOST),
        (_, Some(address)) if address.ip().is_loopback() => capability(&address.to_string(), HOST),
        (_, Some(address)) => capability(&address.to_string(), EXTERNAL),
        (Some(authority), None) => capability(authority, EXTERNAL),
        (None, None) => capability(UNKNOWN, EXTERNAL),
    }
}

fn is_address(authority: &str) -> bool {
    let host = authority.trim_start_matches('[').trim_end_matches(']');
    authority.parse::<SocketAddr>().is_ok() || host.parse::<std::net::IpAddr>().is_ok()
}

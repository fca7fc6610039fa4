//! The real SDKs and what they talk over: who can talk to whom.

/// Programs of clients.
pub(crate) const GO_CLIENT: &str = "go/peer-stripped";
pub(crate) const RMCP_CLIENT: &str = "rmcp/rmcp-client";

/// An SDK in a client's role, in one of its ways to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Py23,
    Py23Legacy,
    Py130,
    NodeSdk,
    NodeV2,
    NodeV2Legacy,
    Rmcp,
    RmcpLegacy,
    /// With the machine's own TLS library instead of rustls.
    RmcpNativeTls,
    /// The official SDK for Go, stripped of its symbols.
    Go,
    GoLegacy,
}

/// An SDK in a server's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Py23,
    Py130,
    NodeSdk,
    NodeV2,
    Everything,
    Rmcp,
    /// The official SDK for Go, with its symbols.
    Go,
    /// A server of others on the SDK for Go, which answers calls of its tools with errors, since what it speaks for is not there.
    Grafana,
}

/// What they talk over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Stdio,
    Http,
    Sse,
    /// Streamable HTTP over cleartext HTTP/2, with prior knowledge.
    Http2,
    /// Streamable HTTP over TLS.
    Https,
    /// The same with HTTP/2.
    Https2,
}

impl Client {
    pub(crate) const ALL: [Self; 11] = [
        Self::Py23,
        Self::Py23Legacy,
        Self::Py130,
        Self::NodeSdk,
        Self::NodeV2,
        Self::NodeV2Legacy,
        Self::Rmcp,
        Self::RmcpLegacy,
        Self::RmcpNativeTls,
        Self::Go,
        Self::GoLegacy,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Py23 => "py-2.3",
            Self::Py23Legacy => "py-2.3-legacy",
            Self::Py130 => "py-1.30",
            Self::NodeSdk => "node-sdk-1.32",
            Self::NodeV2 => "node-client-2.4",
            Self::NodeV2Legacy => "node-client-2.4-legacy",
            Self::Rmcp => "rmcp-3.11",
            Self::RmcpLegacy => "rmcp-3.11-legacy",
            Self::RmcpNativeTls => "rmcp-3.11-native-tls",
            Self::Go => "go-sdk-1.8",
            Self::GoLegacy => "go-sdk-1.8-legacy",
        }
    }

    pub(crate) fn is_go(self) -> bool {
        matches!(self, Self::Go | Self::GoLegacy)
    }

    pub(crate) fn mode(self) -> &'static str {
        match self {
            Self::Py23Legacy | Self::NodeV2Legacy | Self::RmcpLegacy | Self::GoLegacy => "legacy",
            Self::Py23 | Self::Py130 | Self::NodeSdk | Self::NodeV2 | Self::Rmcp | Self::RmcpNativeTls | Self::Go => {
                "auto"
            }
        }
    }
}

impl Server {
    pub(crate) const ALL: [Self; 8] = [
        Self::Py23,
        Self::Py130,
        Self::NodeSdk,
        Self::NodeV2,
        Self::Everything,
        Self::Rmcp,
        Self::Go,
        Self::Grafana,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Py23 => "py-2.3",
            Self::Py130 => "py-1.30",
            Self::NodeSdk => "node-sdk-1.32",
            Self::NodeV2 => "node-server-2.4",
            Self::Everything => "server-everything",
            Self::Rmcp => "rmcp-3.11",
            Self::Go => "go-sdk-1.8",
            Self::Grafana => "mcp-grafana-2.1",
        }
    }

    /// The TLS library in it.
    pub(crate) fn tls_library(self) -> &'static str {
        match self {
            Self::Py23 | Self::Py130 | Self::NodeSdk | Self::NodeV2 | Self::Everything => "openssl",
            Self::Rmcp => "rustls",
            Self::Go | Self::Grafana => "go",
        }
    }

    /// Tells whether it is of the same SDK as `client`.
    fn is_likeness(self, client: Client) -> bool {
        match client {
            Client::Py23 | Client::Py23Legacy => self == Self::Py23,
            Client::Py130 => self == Self::Py130,
            Client::NodeSdk => self == Self::NodeSdk,
            Client::NodeV2 | Client::NodeV2Legacy => self == Self::NodeV2,
            Client::Rmcp | Client::RmcpLegacy | Client::RmcpNativeTls => self == Self::Rmcp,
            Client::Go | Client::GoLegacy => self == Self::Go,
        }
    }
}

impl Transport {
    pub(crate) const ALL: [Self; 6] = [
        Self::Stdio,
        Self::Http,
        Self::Sse,
        Self::Http2,
        Self::Https,
        Self::Https2,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdio => "stdio",
            Self::Http => "http",
            Self::Sse => "sse",
            Self::Http2 => "http2",
            Self::Https => "https",
            Self::Https2 => "https2",
        }
    }

    pub(crate) fn has_tls(self) -> bool {
        matches!(self, Self::Https | Self::Https2)
    }

    /// Its name on the command lines of the peers.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Https => "http",
            Self::Https2 => "http2",
            other => other.name(),
        }
    }
}

/// A client and a server over a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) client: Client,
    pub(crate) server: Server,
    pub(crate) transport: Transport,
}

impl Pair {
    /// Shorthand for tests that name their pair.
    pub(crate) fn new(client: Client, server: Server, transport: Transport) -> Self {
        Self {
            client,
            server,
            transport,
        }
    }

    /// Every pair whose two sides both have the transport.
    pub(crate) fn all() -> Vec<Self> {
        let mut pairs = Vec::new();
        for server in Server::ALL {
            for transport in Transport::ALL {
                for client in Client::ALL {
                    let pair = Self {
                        client,
                        server,
                        transport,
                    };
                    if pair.has_transport() {
                        pairs.push(pair);
                    }
                }
            }
        }
        pairs
    }

    /// One Python pair of the new era and one Node pair of the old, on stdio, on HTTP and through TLS; and one in Go through TLS, whose
    /// probes are of another kind and more in number.
    pub(crate) fn quick() -> Vec<Self> {
        let sides = [(Client::Py23, Server::Py23), (Client::NodeSdk, Server::NodeSdk)];
        let over = |transport| sides.map(|(client, server)| Self::new(client, server, transport));
        let in_go = [Transport::Https, Transport::Https2].map(|transport| Self::new(Client::Go, Server::Go, transport));
        let mut pairs = [over(Transport::Stdio), over(Transport::Http), over(Transport::Https)].concat();
        pairs.extend(in_go);
        pairs
    }

    /// As few pairs as let every client and every server take part on every transport that it has.
    pub(crate) fn each() -> Vec<Self> {
        let mut pairs: Vec<Self> = Vec::new();
        for transport in Transport::ALL {
            let on = || Self::all().into_iter().filter(move |pair| pair.transport == transport);
            // Each client with its likeness, or with the first server that has the transport.
            for client in Client::ALL {
                let servers = || on().filter(move |pair| pair.client == client);
                let likeness = servers().find(|pair| pair.server.is_likeness(client));
                pairs.extend(likeness.or_else(|| servers().next()));
            }
            for server in Server::ALL {
                let met = |pairs: &[Self]| {
                    pairs
                        .iter()
                        .any(|pair| (pair.server, pair.transport) == (server, transport))
                };
                if !met(&pairs) {
                    let with = |client| on().find(|pair| pair.server == server && pair.client == client);
                    pairs.extend(with(Client::NodeSdk).or_else(|| with(Client::Py23)));
                }
            }
        }
        pairs
    }

    /// `client -> server`.
    pub(crate) fn name(&self) -> String {
        format!("{} -> {}", self.client.name(), self.server.name())
    }

    /// The client's program and the TLS library in it, where it calls through TLS as soon as it is started.
    pub(crate) fn swift(&self) -> Option<(&'static str, &'static str)> {
        let swift = match self.client {
            Client::Go | Client::GoLegacy => (GO_CLIENT, "go"),
            Client::Rmcp | Client::RmcpLegacy => (RMCP_CLIENT, "rustls"),
            _ => return None,
        };
        self.transport.has_tls().then_some(swift)
    }

    /// Servers of 2.x for Node and rmcp have no HTTP+SSE, nor has rmcp's client; the clients of Node have no HTTP/2 without TLS;
    /// server-everything has no TLS. What is in Go, or has another TLS library, is there for that.
    fn has_transport(&self) -> bool {
        let is_go = self.client.is_go() || matches!(self.server, Server::Go | Server::Grafana);
        let is_for_tls = is_go || self.client == Client::RmcpNativeTls;
        // The SDK for Go refuses what rmcp asks before it would begin in the old way.
        let refused = self.server == Server::Go && matches!(self.client, Client::Rmcp | Client::RmcpNativeTls);
        if is_for_tls && !self.transport.has_tls() || refused {
            return false;
        }
        match self.transport {
            Transport::Stdio | Transport::Http => true,
            Transport::Sse => {
                !matches!(self.client, Client::Rmcp | Client::RmcpLegacy)
                    && !matches!(self.server, Server::NodeV2 | Server::Rmcp)
            }
            Transport::Http2 => {
                use Client::{Py23, Py23Legacy, Rmcp, RmcpLegacy};
                matches!(self.client, Py23 | Py23Legacy | Rmcp | RmcpLegacy)
                    && matches!(self.server, Server::Py23 | Server::NodeV2 | Server::Rmcp)
            }
            Transport::Https2 => {
                use Client::{Go, GoLegacy, Py23, Py23Legacy, Rmcp, RmcpLegacy};
                matches!(self.client, Py23 | Py23Legacy | Rmcp | RmcpLegacy | Go | GoLegacy)
                    && matches!(
                        self.server,
                        Server::Py23 | Server::NodeV2 | Server::Rmcp | Server::Go | Server::Grafana
                    )
            }
            Transport::Https => self.server != Server::Everything,
        }
    }
}

//! The real SDK programs: how each is started.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::certificate::Certificate;
use crate::cgroup::Cgroup;
use crate::clock::wait_until;
use crate::pair;
pub(crate) use crate::pair::{Client, Pair, Server, Transport};

/// Where `setup.sh` put the programs.
pub(crate) struct Peers<'a> {
    pub(crate) dir: &'a Path,
    /// The control group they live in.
    pub(crate) cgroup: Option<&'a Cgroup>,
    /// What runs the programs of Node.
    pub(crate) node: String,
}

/// A process of the test's own; killed when dropped.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

/// A server that listens.
pub(crate) struct Listening {
    pub(crate) program: Program,
    pub(crate) url: String,
    /// What its clients must trust.
    pub(crate) certificate: Option<PathBuf>,
}

/// What a client is to do.
pub(crate) struct Task<'a> {
    pub(crate) pair: Pair,
    pub(crate) scenario: &'a str,
    pub(crate) calls: usize,
    pub(crate) truth: &'a Path,
    /// The revision that the client offers, if it is not its newest.
    pub(crate) protocol: Option<&'a str>,
    /// Where the server listens, if it is not the client that starts it.
    pub(crate) url: Option<&'a str>,
    /// The certificate that it must trust.
    pub(crate) trust: Option<&'a Path>,
}

impl<'a> Peers<'a> {
    pub(crate) fn new(dir: &'a Path, cgroup: Option<&'a Cgroup>) -> Self {
        Self {
            dir,
            cgroup,
            node: "node".to_owned(),
        }
    }

    /// A file of the peers' folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    fn server_command(&self, server: Server, transport: Transport, port: u16) -> Vec<String> {
        let (name, port) = (transport.word().to_owned(), port.to_string());
        let program = match server {
            Server::Py23 => vec![self.path("py-2.3.0/bin/python"), self.path("python/server.py")],
            Server::Py130 => vec![self.path("py-1.30.0/bin/python"), self.path("python/server.py")],
            Server::NodeSdk => vec![self.node.clone(), self.path("node/sdk-server.mjs")],
            Server::NodeV2 => vec![self.node.clone(), self.path("node/v2-server.mjs")],
            Server::Rmcp => vec![self.path("rmcp/rmcp-server")],
            Server::Go => vec![self.path("go/peer"), "server".to_owned()],
            Server::Grafana => {
                let address = format!("127.0.0.1:{port}");
                let words = [
                    "-t",
                    "streamable-http",
                    "-usage-stats",
                    "disabled",
                    "-address",
                    &address,
                ];
                let program = self.path("grafana/mcp-grafana");
                return [&[program.as_str()], &words[..]]
                    .concat()
                    .into_iter()
                    .map(str::to_owned)
                    .collect();
            }
            Server::Everything => {
                let script = "node/node_modules/@modelcontextprotocol/server-everything/dist/index.js";
                let word = if transport == Transport::Http {
                    "streamableHttp".to_owned()
                } else {
                    name
                };
                return vec![self.node.clone(), self.path(script), word];
            }
        };
        let arguments = match transport {
            Transport::Stdio => vec!["--transport".to_owned(), name],
            _ => {
                vec!["--transport".to_owned(), name, "--port".to_owned(), port]
            }
        };
        [program, arguments].concat()
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn listen(&self, pair: Pair, log: PathBuf, limit: Duration) -> Result<Listening> {
        let port = free_port()?;
        let words = self.server_command(pair.server, pair.transport, port);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("PORT", port.to_string());
        let certificate = pair
            .transport
            .has_tls()
            .then(|| Certificate::create(&log))
            .transpose()?;
        if let Some(certificate) = &certificate {
            let (file, key) = match pair.server {
                Server::Grafana => ("-server.tls-cert-file", "-server.tls-key-file"),
                _ => ("--cert", "--key"),
            };
            command.arg(file).arg(&certificate.file).arg(key).arg(&certificate.key);
        }
        let mut program = Program::start(command, self.cgroup, log)?;
        let said = |text: String| text.contains("ready") || text.contains("on port");
        let listening = || match pair.server {
            // It says so before it does.
            Server::Grafana => TcpStream::connect(("127.0.0.1", port)).is_ok(),
            _ => fs::read_to_string(&program.log).is_ok_and(said),
        };
        wait_until(limit, || listening().then_some(()))
            .with_context(|| format!("{} does not listen: {}", pair.server.name(), program.last_words()))?;
        let path = if pair.transport == Transport::Sse { "sse" } else { "mcp" };
        if let Some(status) = program.ended() {
            bail!("{} ended with {status}: {}", pair.server.name(), program.last_words());
        }
        let scheme = if certificate.is_some() { "https" } else { "http" };
        Ok(Listening {
            program,
            url: format!("{scheme}://127.0.0.1:{port}/{path}"),
            certificate: certificate.map(|certificate| certificate.file),
        })
    }

    /// Starts a client on its task.
    pub(crate) fn client(&self, task: &Task, log: PathBuf) -> Result<Program> {
        let pair = task.pair;
        let words = match pair.client {
            Client::Py23 | Client::Py23Legacy => vec![self.path("py-2.3.0/bin/python"), self.path("python/client.py")],
            Client::Py130 => vec![self.path("py-1.30.0/bin/python"), self.path("python/client.py")],
            Client::NodeSdk => vec![self.node.clone(), self.path("node/sdk-client.mjs")],
            Client::NodeV2 | Client::NodeV2Legacy => vec![self.node.clone(), self.path("node/v2-client.mjs")],
            Client::Rmcp | Client::RmcpLegacy | Client::RmcpNativeTls => vec![self.path(pair::RMCP_CLIENT)],
            Client::Go | Client::GoLegacy => vec![self.path(pair::GO_CLIENT), "client".to_owned()],
        };
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["--transport", pair.transport.word(), "--scenario", task.scenario]);
        command.args(["--mode", pair.client.mode(), "--calls", &task.calls.to_string()]);
        command.arg("--truth").arg(task.truth);
        if pair.client == Client::RmcpNativeTls {
            command.args(["--tls", "native"]);
        }
        if pair.server == Server::Everything {
            command.args(["--dialect", "everything"]);
        }
        if let Some(protocol) = task.protocol {
            command.args(["--protocol", protocol]);
        }
        if let Some(certificate) = task.trust {
            command
                .env("SSL_CERT_FILE", certificate)
                .env("NODE_EXTRA_CA_CERTS", certificate);
        }
        match task.url {
            Some(url) => command.args(["--url", url]),
            None => command
                .arg("--")
                .args(self.server_command(pair.server, pair.transport, 0)),
        };
        Program::start(command, self.cgroup, log)
    }
}

impl Program {
    /// Starts a program in a control group, its output in a file.
    pub(crate) fn start(mut command: Command, cgroup: Option<&Cgroup>, log: PathBuf) -> Result<Self> {
        if let Some(cgroup) = cgroup {
            cgroup.adopt(&mut command)?;
        }
        let file = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("{:?} does not start", command.get_program()))?;
        Ok(Self { child, log })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn finish(&mut self, limit: Duration) -> Result<()> {
        match wait_until(limit, || self.child.try_wait().ok().flatten()) {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("ended with {status}: {}", self.last_words()),
            None => bail!("did not end within {limit:?}: {}", self.last_words()),
        }
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// All it wrote.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(6)..].join("\n    ")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::{Client, Pair, Server, Transport};

    #[test]
    fn each_peer_takes_part_on_each_transport_it_has() {
        let each = Pair::each();
        for pair in Pair::all() {
            let has = |same: &dyn Fn(&Pair) -> bool| {
                each.iter()
                    .any(|other| other.transport == pair.transport && same(other))
            };
            assert!(has(&|other| other.client == pair.client), "{pair:?}");
            assert!(has(&|other| other.server == pair.server), "{pair:?}");
        }
        assert!(
            each.len() <= Transport::ALL.len() * Client::ALL.len().max(Server::ALL.len()) + 3,
            "{}",
            each.len()
        );
        assert!(Pair::quick().iter().all(|pair| each.contains(pair)));
    }
}

//! What a client says it did: the lines that every peer writes, see `peers/README.md`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::monotonic_ns;

/// The account of one client process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    /// The client's process.
    pub(crate) pid: u32,
    /// Its requests, in the order in which they were sent.
    pub(crate) calls: Vec<Call>,
    /// Bytes written to and read from the server, where the client counts them.
    pub(crate) bytes: Option<u64>,
}

/// One request as its client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) name: Option<String>,
    pub(crate) id: Value,
    /// Whether the observer may leave it out: bad input, where the contract leaves the choice.
    pub(crate) optional: bool,
    pub(crate) start_ns: u64,
    pub(crate) end: Option<End>,
}

/// How a request ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) outcome: String,
    pub(crate) rpc_code: Option<i64>,
    pub(crate) http_status: Option<u16>,
    pub(crate) end_ns: u64,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    Client {
        pid: u32,
    },
    Begin {
        seq: u64,
        method: String,
        name: Option<String>,
        id: Value,
        start_ns: u64,
        #[serde(default)]
        optional: bool,
    },
    End {
        seq: u64,
        outcome: String,
        rpc_code: Option<i64>,
        http_status: Option<u16>,
        end_ns: u64,
    },
    Bytes {
        total: u64,
    },
}

impl Truth {
    /// Reads a truth, also that of a client killed while it wrote its last line.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("no truth at {}", path.display()))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut truth = Self::default();
        let mut places = HashMap::new();
        for line in whole.lines() {
            match serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))? {
                Line::Client { pid } => truth.pid = pid,
                Line::Begin {
                    seq,
                    method,
                    name,
                    id,
                    start_ns,
                    optional,
                } => {
                    places.insert(seq, truth.calls.len());
                    truth.calls.push(Call {
                        method,
                        name,
                        id,
                        optional,
                        start_ns,
                        end: None,
                    });
                }
                Line::End {
                    seq,
                    outcome,
                    rpc_code,
                    http_status,
                    end_ns,
                } => {
                    let place = places
                        .get(&seq)
                        .with_context(|| format!("{}: end without begin", path.display()))?;
                    truth.calls[*place].end = Some(End {
                        outcome,
                        rpc_code,
                        http_status,
                        end_ns,
                    });
                }
                Line::Bytes { total } => truth.bytes = Some(total),
            }
        }
        Ok(truth)
    }

    /// Writes the account of a program that writes none of its own.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut lines = vec![json!({"event": "client", "pid": self.pid, "sdk": "none", "transport": "raw"})];
        for (seq, call) in self.calls.iter().enumerate() {
            lines.push(json!({
                "event": "begin", "seq": seq, "method": call.method, "name": call.name, "id": call.id,
                "start_ns": call.start_ns, "optional": call.optional,
            }));
            lines.extend(call.end.as_ref().map(|end| {
                json!({
                    "event": "end", "seq": seq, "outcome": end.outcome, "rpc_code": end.rpc_code,
                    "http_status": end.http_status, "end_ns": end.end_ns,
                })
            }));
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Ok(fs::write(path, text)?)
    }

    /// Requests that were answered.
    pub(crate) fn answered(&self) -> usize {
        self.calls.iter().filter(|call| call.end.is_some()).count()
    }
}

/// Writes a truth: what the light peers of this driver use.
pub(crate) struct Teller {
    file: File,
    seq: u64,
}

impl Teller {
    /// Begins the account of this process.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let mut teller = Self {
            file: File::create(path)?,
            seq: 0,
        };
        teller.write(&json!({"event": "client", "pid": std::process::id(), "sdk": "tiny", "transport": "raw"}))?;
        Ok(teller)
    }

    fn write(&mut self, line: &Value) -> Result<()> {
        Ok(writeln!(self.file, "{line}")?)
    }

    /// Notes a request about to be sent and returns its number.
    pub(crate) fn begin(&mut self, request: &Value, optional: Optional) -> Result<u64> {
        let seq = self.seq;
        self.seq += 1;
        self.write(&json!({
            "event": "begin", "seq": seq, "method": request["method"], "name": request["params"]["name"],
            "id": request["id"], "start_ns": monotonic_ns(), "optional": optional == Optional::Yes,
        }))?;
        Ok(seq)
    }

    /// Notes the answer that just came.
    pub(crate) fn end(&mut self, seq: u64, outcome: &str) -> Result<()> {
        self.write(&json!({
            "event": "end", "seq": seq, "outcome": outcome, "rpc_code": null, "http_status": null, "end_ns": monotonic_ns(),
        }))
    }

    /// Notes how many bytes passed in both directions.
    pub(crate) fn bytes(&mut self, total: u64) -> Result<()> {
        self.write(&json!({"event": "bytes", "total": total}))
    }
}

/// Whether the observer may leave a request out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Optional {
    Yes,
    No,
}

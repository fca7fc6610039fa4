//! Calls as JSON lines: schema `mcp-call/1`, and small records of its own kind for malformed messages, changed
//! catalogs and process ends.
//!
//! The rows are in [`rows`]; `deploy/mcp-call-1.schema.json` describes them.

mod rows;

use serde::Serialize;

use rows::{
    BytesRow, CallRow, CallerRow, CatalogRow, FlagsRow, ItemRow, MalformedRow, McpRow, ProcessEndRow, ServerRow,
    TimingRow, TokensRow, TraceRow, UserRow,
};

use super::clock::Anchor;
use super::outcome::{error_type, level};
use super::salt::Salt;
use crate::enrich::{Departure, Ending, Finding, Report, Workload};
use crate::protocol::event::Timestamp;
use crate::protocol::observation::{
    Call, Catalog, CatalogChange, CatalogItem, Observation, Parties, Party, Side, Transport, Vantage,
};

/// Bytes of a name or id that others chose, as far as a record holds it.
const MAX_TEXT: usize = 256;

/// Makes the lines. Numbers them without a hole, so that a line that was lost on its way shows.
#[derive(Debug)]
pub struct JsonLines {
    salt: Salt,
    seq: u64,
}

impl JsonLines {
    /// Lines whose hashes use `salt`, numbered from 1.
    #[must_use]
    pub const fn new(salt: Salt) -> Self {
        Self { salt, seq: 0 }
    }

    /// Appends the record of a finding to `lines`, if it has one. Returns the number of lines appended: 0 or 1.
    pub fn append(&mut self, finding: &Finding, anchor: &Anchor, now: Timestamp, lines: &mut Vec<u8>) -> u64 {
        let seq = self.seq + 1;
        let written = match finding {
            Finding::Report(report) => match &report.observation {
                Observation::Call(call) => write(lines, &self.call(report, call, anchor, seq)),
                Observation::Malformed { parties, from, reason } => write(
                    lines,
                    &malformed(report, parties, *from, reason.name(), anchor.rfc3339(now), seq),
                ),
                Observation::Catalog(catalog) => match &catalog.change {
                    Some(change) => write(lines, &altered(report, catalog, change, anchor.rfc3339(now), seq)),
                    None => return 0,
                },
                _ => return 0,
            },
            Finding::Departure(departure) => {
                let time = anchor.rfc3339(departure.time.unwrap_or(now));
                write(lines, &process_end(departure, time, seq))
            }
        };
        self.seq += written;
        written
    }

    fn call<'a>(&self, report: &'a Report, call: &'a Call, anchor: &Anchor, seq: u64) -> CallRow<'a> {
        let parties = &call.parties;
        let side = if parties.vantage == Vantage::Client {
            Side::Client
        } else {
            Side::Server
        };
        CallRow {
            capability: &report.capability.name,
            namespace: &report.capability.namespace,
            operation: cut(call.target.as_deref().unwrap_or(&call.method)),
            status_code: call.status,
            duration_ms: milliseconds(call.timing.duration),
            timestamp: anchor.rfc3339(call.timing.began),
            level: level(call),
            schema: "mcp-call/1",
            seq,
            outcome: call.outcome.name(),
            error_type: error_type(call, side).map(std::borrow::Cow::into_owned),
            mcp: self.mcp(call),
            rpc_status_code: call.rpc_code,
            http_status_code: call.http_status,
            caller: caller(&report.client, &parties.client, self.user(parties, &report.client)),
            server: server(&report.server, &parties.server),
            timing: TimingRow {
                vantage: parties.vantage.name(),
                hops: [],
                queue_ms: call.timing.queue.map(milliseconds),
                first_byte_ms: call.timing.first_byte.map(milliseconds),
                client_ms: client_milliseconds(call),
                upstream_ms: None,
            },
            bytes: BytesRow {
                request: call.request_bytes,
                response: call.response_bytes,
            },
            estimated_tokens: TokensRow {
                arguments: call.tokens.arguments,
                result: call.tokens.result,
            },
            upstreams: [],
            trace: trace(call.traceparent.as_deref()),
            flags: FlagsRow {
                tls: parties.tls,
                truncated: call.truncated,
                lossy: call.lossy,
                inferred: &call.inferred,
            },
        }
    }

    fn mcp<'a>(&self, call: &'a Call) -> McpRow<'a> {
        let server = call.parties.server.implementation.as_ref();
        let client = call.parties.client.implementation.as_ref();
        McpRow {
            method: cut(&call.method),
            protocol_version: call.protocol_version.as_deref().map(cut),
            transport: call.parties.transport.name(),
            request_id: unquoted(&call.id.to_string()),
            session_hash: call
                .session
                .as_deref()
                .map(|session| self.salt.hash("session", session)),
            result_type: call.result_type.as_deref().map(cut),
            round: call.round,
            task_id: call.task_id.as_deref().map(cut),
            server_name: server.map(|server| cut(&server.name)),
            server_version: server
                .map(|server| cut(&server.version))
                .filter(|version| !version.is_empty()),
            client_name: client.map(|client| cut(&client.name)),
            client_version: client
                .map(|client| cut(&client.version))
                .filter(|version| !version.is_empty()),
        }
    }

    /// On stdio the caller is whoever started the server: the user of the client's process.
    fn user(&self, parties: &Parties, client: &Workload) -> Option<UserRow> {
        let uid = client.uid.filter(|_| parties.transport == Transport::Stdio)?;
        Some(UserRow {
            kind: "os_user",
            hash: self.salt.hash("os_user", &uid.to_string()),
        })
    }
}

fn write(lines: &mut Vec<u8>, row: &impl Serialize) -> u64 {
    serde_json::to_writer(&mut *lines, row)
        .expect("rows hold only text, numbers and lists, and a Vec takes every byte");
    lines.push(b'\n');
    1
}

fn caller<'a>(workload: &'a Workload, party: &Party, user: Option<UserRow>) -> CallerRow<'a> {
    CallerRow {
        workload: &workload.name,
        namespace: &workload.namespace,
        pod: workload.pod.as_deref(),
        container: workload.container.as_deref(),
        pid: workload.pid.map(|pid| pid.0),
        comm: workload.comm.as_deref(),
        address: party.address.map(|address| address.to_string()),
        user,
    }
}

fn server<'a>(workload: &'a Workload, party: &Party) -> ServerRow<'a> {
    ServerRow {
        workload: &workload.name,
        pod: workload.pod.as_deref(),
        container: workload.container.as_deref(),
        node: workload.node.as_deref(),
        pid: workload.pid.map(|pid| pid.0),
        comm: workload.comm.as_deref(),
        address: party.address.map(|address| address.to_string()),
    }
}

fn client_milliseconds(call: &Call) -> Option<f64> {
    let own = (call.parties.vantage == Vantage::Client).then_some(call.timing.duration);
    call.timing.client_duration.or(own).map(milliseconds)
}

/// `00-TRACE-PARENT-FLAGS` of W3C Trace Context; the span is nobody's until spans are exported.
fn trace(traceparent: Option<&str>) -> TraceRow<'_> {
    let mut parts = traceparent.unwrap_or_default().split('-').skip(1);
    let mut hexadecimal = |digits: usize| {
        let valid = |id: &&str| id.len() == digits && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        parts.next().filter(valid)
    };
    TraceRow {
        trace_id: hexadecimal(32),
        span_id: None,
        parent_span_id: hexadecimal(16),
    }
}

/// An id as people write it: the text of a string without its quotes.
fn unquoted(id: &str) -> String {
    serde_json::from_str::<String>(id).unwrap_or_else(|_| id.to_owned())
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

/// Milliseconds with three digits behind the point.
fn milliseconds(nanoseconds: u64) -> f64 {
    (nanoseconds.saturating_add(500) / 1000) as f64 / 1000.0
}

fn malformed<'a>(
    report: &'a Report,
    parties: &Parties,
    from: Side,
    reason: &'static str,
    timestamp: String,
    seq: u64,
) -> MalformedRow<'a> {
    MalformedRow {
        capability: &report.capability.name,
        namespace: &report.capability.namespace,
        timestamp,
        level: "warn",
        schema: "mcp-malformed/1",
        seq,
        reason,
        from: side_name(from),
        transport: parties.transport.name(),
        caller: caller(&report.client, &parties.client, None),
        server: server(&report.server, &parties.server),
    }
}

fn altered<'a>(
    report: &'a Report,
    catalog: &Catalog,
    change: &'a CatalogChange,
    timestamp: String,
    seq: u64,
) -> CatalogRow<'a> {
    let rows = |items: &'a [CatalogItem]| -> Vec<ItemRow<'a>> {
        let row = |item: &'a CatalogItem| ItemRow {
            name: cut(&item.name),
            fingerprint: item.fingerprint.to_string(),
        };
        items.iter().map(row).collect()
    };
    CatalogRow {
        capability: &report.capability.name,
        namespace: &report.capability.namespace,
        timestamp,
        level: "info",
        schema: "mcp-catalog/1",
        seq,
        kind: catalog.kind.name(),
        items: catalog.items,
        bytes: catalog.bytes,
        fingerprint: catalog.fingerprint.to_string(),
        added: rows(&change.added),
        removed: rows(&change.removed),
        altered: rows(&change.altered),
        caller: caller(&report.client, &catalog.parties.client, None),
        server: server(&report.server, &catalog.parties.server),
    }
}

fn process_end(departure: &Departure, timestamp: String, seq: u64) -> ProcessEndRow<'_> {
    let (event, code) = match departure.ending {
        Ending::Exit { code } => ("exit", Some(code)),
        Ending::Unseen => ("exit", None),
        Ending::Exec => ("exec", None),
    };
    ProcessEndRow {
        timestamp,
        level: "info",
        schema: "mcp-process/1",
        seq,
        event,
        // As wait(2) packs them: the status in the second byte, the signal in the low seven bits.
        exit_status: code.filter(|code| code & 0x7f == 0).map(|code| code >> 8 & 0xff),
        signal: code.map(|code| code & 0x7f).filter(|signal| *signal != 0),
        process: server(&departure.workload, &Party::default()),
    }
}

/// Label and field value of a side.
pub(super) const fn side_name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

#[cfg(test)]
mod tests;

//! Rows of the lines: fields in the order in which they are printed. Changing one is a new schema version.

use serde::Serialize;

/// Schema `mcp-call/1`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallRow<'a> {
    pub(super) capability: &'a str,
    pub(super) namespace: &'a str,
    pub(super) operation: &'a str,
    pub(super) status_code: u16,
    pub(super) duration_ms: f64,
    pub(super) timestamp: String,
    pub(super) level: &'static str,
    pub(super) schema: &'static str,
    pub(super) seq: u64,
    pub(super) outcome: &'static str,
    pub(super) error_type: Option<String>,
    pub(super) mcp: McpRow<'a>,
    pub(super) rpc_status_code: Option<i64>,
    pub(super) http_status_code: Option<u16>,
    pub(super) caller: CallerRow<'a>,
    pub(super) server: ServerRow<'a>,
    pub(super) timing: TimingRow,
    pub(super) bytes: BytesRow,
    pub(super) estimated_tokens: TokensRow,
    pub(super) upstreams: [(); 0],
    pub(super) trace: TraceRow<'a>,
    pub(super) flags: FlagsRow<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct McpRow<'a> {
    pub(super) method: &'a str,
    pub(super) protocol_version: Option<&'a str>,
    pub(super) transport: &'static str,
    pub(super) request_id: String,
    pub(super) session_hash: Option<String>,
    pub(super) result_type: Option<&'a str>,
    pub(super) round: u32,
    pub(super) task_id: Option<&'a str>,
    pub(super) server_name: Option<&'a str>,
    pub(super) server_version: Option<&'a str>,
    pub(super) client_name: Option<&'a str>,
    pub(super) client_version: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct CallerRow<'a> {
    pub(super) workload: &'a str,
    pub(super) namespace: &'a str,
    pub(super) pod: Option<&'a str>,
    pub(super) container: Option<&'a str>,
    pub(super) pid: Option<u32>,
    pub(super) comm: Option<&'a str>,
    pub(super) address: Option<String>,
    pub(super) user: Option<UserRow>,
}

#[derive(Serialize)]
pub(super) struct UserRow {
    pub(super) kind: &'static str,
    pub(super) hash: String,
}

#[derive(Serialize)]
pub(super) struct ServerRow<'a> {
    pub(super) workload: &'a str,
    pub(super) pod: Option<&'a str>,
    pub(super) container: Option<&'a str>,
    pub(super) node: Option<&'a str>,
    pub(super) pid: Option<u32>,
    pub(super) comm: Option<&'a str>,
    pub(super) address: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TimingRow {
    pub(super) vantage: &'static str,
    pub(super) hops: [(); 0],
    pub(super) queue_ms: Option<f64>,
    pub(super) first_byte_ms: Option<f64>,
    pub(super) client_ms: Option<f64>,
    pub(super) upstream_ms: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct BytesRow {
    pub(super) request: u64,
    pub(super) response: u64,
}

#[derive(Serialize)]
pub(super) struct TokensRow {
    pub(super) arguments: Option<u64>,
    pub(super) result: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TraceRow<'a> {
    pub(super) trace_id: Option<&'a str>,
    pub(super) span_id: Option<&'a str>,
    pub(super) parent_span_id: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct FlagsRow<'a> {
    pub(super) tls: bool,
    pub(super) truncated: bool,
    pub(super) lossy: bool,
    pub(super) inferred: &'a [&'static str],
}

/// Schema `mcp-malformed/1`.
#[derive(Serialize)]
pub(super) struct MalformedRow<'a> {
    pub(super) capability: &'a str,
    pub(super) namespace: &'a str,
    pub(super) timestamp: String,
    pub(super) level: &'static str,
    pub(super) schema: &'static str,
    pub(super) seq: u64,
    pub(super) reason: &'static str,
    pub(super) from: &'static str,
    pub(super) transport: &'static str,
    pub(super) caller: CallerRow<'a>,
    pub(super) server: ServerRow<'a>,
}

/// Schema `mcp-catalog/1`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CatalogRow<'a> {
    pub(super) capability: &'a str,
    pub(super) namespace: &'a str,
    pub(super) timestamp: String,
    pub(super) level: &'static str,
    pub(super) schema: &'static str,
    pub(super) seq: u64,
    pub(super) kind: &'static str,
    pub(super) items: u64,
    pub(super) bytes: u64,
    pub(super) fingerprint: String,
    pub(super) added: Vec<ItemRow<'a>>,
    pub(super) removed: Vec<ItemRow<'a>>,
    pub(super) altered: Vec<ItemRow<'a>>,
    pub(super) caller: CallerRow<'a>,
    pub(super) server: ServerRow<'a>,
}

#[derive(Serialize)]
pub(super) struct ItemRow<'a> {
    pub(super) name: &'a str,
    pub(super) fingerprint: String,
}

/// Schema `mcp-process/1`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProcessEndRow<'a> {
    pub(super) timestamp: String,
    pub(super) level: &'static str,
    pub(super) schema: &'static str,
    pub(super) seq: u64,
    pub(super) event: &'static str,
    pub(super) exit_status: Option<u32>,
    pub(super) signal: Option<u32>,
    pub(super) process: ServerRow<'a>,
}

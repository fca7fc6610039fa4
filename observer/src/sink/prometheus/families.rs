//! Every family of metrics: name, type, labels, help. The reference in the README is made from this table.

/// What kind of metric a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, but for a restart.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Counts by bucket, count and sum.
    Histogram,
}

/// One family.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Name, with its unit.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Label names, in the order in which the code gives values.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

macro_rules! families {
    ($( $constant:ident = $kind:ident $name:literal [ $($label:literal),* ] $help:literal; )+) => {
        $( pub(super) const $constant: Spec = Spec {
            name: $name,
            kind: Kind::$kind,
            labels: &[ $($label),* ],
            help: $help,
        }; )+
        /// Every family, in the order of the reference.
        pub const FAMILIES: &[Spec] = &[ $( $constant ),+ ];
    };
}

/// Upper bounds in seconds: 5 ms is ours, the others are those of OpenTelemetry's MCP conventions.
pub(super) const DURATION_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

families! {
    SERVER_DURATION = Histogram "mcp_server_operation_duration_seconds"
        ["capability", "namespace", "operation", "mcp_method_name", "error_type", "network_transport"]
        "From the last byte of the request read by the server to the last byte of its answer written.";
    CLIENT_DURATION = Histogram "mcp_client_operation_duration_seconds"
        ["capability", "namespace", "operation", "mcp_method_name", "error_type", "network_transport"]
        "From the last byte of the request written by the client to the last byte of the answer it read.";
    CALLS = Counter "mcp_calls_total"
        ["capability", "namespace", "operation", "status_code", "outcome", "caller", "caller_namespace", "vantage"]
        "Finished calls.";
    IN_FLIGHT = Gauge "mcp_calls_in_flight" ["capability", "namespace"]
        "Calls that have begun and are not finished.";
    REQUEST_BYTES = Counter "mcp_request_bytes_total"
        ["capability", "namespace", "operation", "caller", "caller_namespace", "vantage"]
        "Bytes of JSON-RPC requests of finished calls.";
    RESPONSE_BYTES = Counter "mcp_response_bytes_total"
        ["capability", "namespace", "operation", "caller", "caller_namespace", "vantage"]
        "Bytes of JSON-RPC answers of finished calls.";
    QUEUE = Histogram "mcp_queue_seconds" ["capability", "namespace"]
        "How long requests lay ready before the server read them.";
    FIRST_PROGRESS = Histogram "mcp_first_progress_seconds" ["capability", "namespace", "operation"]
        "From the request to its first progress notification.";
    TOKENS = Counter "mcp_estimated_tokens_total" ["capability", "namespace", "operation", "caller", "kind"]
        "Characters of text divided by --characters-per-token; kind is arguments, result or catalog. An estimate, not a bill.";
    CANCELLATIONS = Counter "mcp_cancellations_total" ["capability", "namespace", "operation", "reason"]
        "Calls that the client gave up: cancelled, timeout (it said so), client_gone.";
    RETRIES = Counter "mcp_retries_total" ["capability", "namespace", "operation", "caller"]
        "Calls that repeat a failed one of the last 60 s: same client, method, name and arguments.";
    INPUT_REQUIRED = Counter "mcp_input_required_total" ["capability", "namespace", "operation", "kind"]
        "Answers that want something first; kind is elicitation, sampling, roots, state_only or other.";
    RATE_LIMITED = Counter "mcp_rate_limited_total" ["capability", "namespace", "operation", "signal", "origin"]
        "Calls refused because the caller was too fast; signal is http_status, http_header, rpc_code or text, origin is server or upstream.";
    LOAD_SHED = Counter "mcp_load_shed_total" ["capability", "namespace"]
        "Calls refused because the server had too much to do.";
    TASKS = Counter "mcp_tasks_total" ["capability", "namespace", "operation", "status"]
        "Tasks that are over; status is completed, tool_error, failed or cancelled.";
    TASK_DURATION = Histogram "mcp_task_duration_seconds" ["capability", "namespace", "operation", "status"]
        "From the request of a task to the first sight of its end.";
    SESSIONS = Gauge "mcp_sessions_active" ["capability", "namespace"]
        "Sessions with an id; gone after 30 idle minutes.";
    SESSION_DURATION = Histogram "mcp_server_session_duration_seconds" ["capability", "namespace"]
        "From the begin of a session to its end, where both were seen.";
    CATALOG_ITEMS = Gauge "mcp_catalog_items" ["capability", "namespace", "kind"]
        "Items of the last listing; kind is tools, prompts, resources or resource_templates.";
    CATALOG_BYTES = Gauge "mcp_catalog_bytes" ["capability", "namespace", "kind"]
        "Bytes of the definitions in the last listing.";
    CATALOG_CHANGES = Counter "mcp_catalog_changes_total" ["capability", "namespace", "kind"]
        "Listings that differ from the one before that the same principal asked for.";
    NOTIFICATIONS = Counter "mcp_notifications_total" ["capability", "namespace", "mcp_method_name", "direction"]
        "Notifications; direction is client_to_server or server_to_client.";
    SERVER_REQUESTS = Counter "mcp_server_requests_total" ["capability", "namespace", "mcp_method_name"]
        "Requests of servers to their clients, which are not calls.";
    LATE_RESPONSES = Counter "mcp_late_responses_total" ["capability", "namespace"]
        "Answers that came after their call had been given up.";
    SUBSCRIPTIONS = Gauge "mcp_subscriptions_active" ["capability", "namespace"]
        "Subscriptions that are open.";
    MALFORMED = Counter "mcp_malformed_messages_total" ["capability", "namespace", "direction", "reason"]
        "Messages that break a rule of JSON-RPC, HTTP or MCP.";
    INFO = Gauge "mcp_capability_info"
        ["capability", "namespace", "server_name", "server_version", "protocol_version", "transport", "runtime", "tls"]
        "Always 1; what is known of a capability.";
    LAST_CALL = Gauge "mcp_capability_last_call_timestamp_seconds" ["capability", "namespace"]
        "When the last call ended, in seconds since 1970.";
    LOSSY = Gauge "mcp_capability_lossy" ["capability", "namespace"]
        "1 where bytes of its streams were lost since its series exist, so that its counts are lower bounds; else 0.";
    BUILD_INFO = Gauge "mcp_observer_build_info" ["version"]
        "Always 1; the version of this observer.";
    RECORDS = Counter "mcp_observer_records_total" ["source"]
        "Kernel records taken in.";
    LOST = Counter "mcp_observer_lost_total" ["reason"]
        "Times that bytes or messages could not be used. Where this grows, counts of calls are lower bounds.";
    LOST_BYTES = Counter "mcp_observer_lost_bytes_total" ["reason"]
        "Bytes that could not be used, where their number is known.";
    STREAMS = Gauge "mcp_observer_streams" ["state"]
        "Streams followed: mcp, undecided, other.";
    HELD_BYTES = Gauge "mcp_observer_held_bytes" []
        "Bytes of messages that are not whole yet, or not known to be MCP: neither calls so far nor lost.";
    PENDING = Gauge "mcp_observer_pending_requests" []
        "Requests that wait for an answer.";
    EVICTIONS = Counter "mcp_observer_evictions_total" ["table"]
        "Entries forgotten because a table was full.";
    UNCHECKED = Counter "mcp_observer_unchecked_results_total" []
        "Structured results not checked against their tool's schema: too large, too many, or a schema that is refused.";
    PROBE_ATTACHED = Gauge "mcp_observer_probe_attached" ["probe"]
        "1 where a probe is in place, 0 where it could not be attached.";
    RUN_SECONDS = Counter "mcp_observer_bpf_run_seconds_total" ["program"]
        "Time spent in a kernel program, where the node keeps that (`sysctl kernel.bpf_stats_enabled`).";
    SKIPPED_RUNS = Counter "mcp_observer_skipped_runs_total" ["program"]
        "Runs of a kernel program that the kernel left out because it was running already on that CPU; `*_return`: calls in progress whose return it left out while a program was attached or detached.";
    TLS_PROCESSES = Gauge "mcp_observer_tls_processes" ["library", "state"]
        "Processes that have a TLS library; state is attached, unsupported (no way in is known: its calls are not seen) or failed.";
    MUTED_BYTES = Counter "mcp_observer_muted_bytes_total" []
        "Bytes not copied because their stream is not MCP; nothing is lost with them.";
    SERIES_DROPPED = Counter "mcp_observer_series_dropped_total" ["metric"]
        "Values not exported because there were --max-series series already.";
    EXPORT_FAILURES = Counter "mcp_observer_export_failures_total" ["exporter"]
        "Writes that failed.";
    LOOP_LAG = Gauge "mcp_observer_loop_lag_seconds" []
        "How much later than planned the loop turned, the worst of the last second.";
}

/// The reference as a Markdown table; the README holds it between markers.
#[must_use]
pub fn reference() -> String {
    let rows = FAMILIES.iter().map(|family| {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels = if family.labels.is_empty() {
            "–".to_owned()
        } else {
            family.labels.join(", ")
        };
        format!("| `{}` | {kind} | {labels} | {} |\n", family.name, family.help)
    });
    let head = "| name | type | labels | what it says |\n|---|---|---|---|\n".to_owned();
    std::iter::once(head).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- metrics: made from sink/prometheus/families.rs, checked by a test -->\n";
    const END: &str = "<!-- /metrics -->";

    /// With `UPDATE_README=1` in the environment the table is written instead of checked.
    #[test]
    fn the_readme_holds_the_reference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = std::fs::read_to_string(path).unwrap();
        let (before, rest) = readme
            .split_once(BEGIN)
            .expect("README.md has the marker where the reference begins");
        let (table, after) = rest
            .split_once(END)
            .expect("README.md has the marker where the reference ends");
        if std::env::var_os("UPDATE_README").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", reference())).unwrap();
        } else {
            assert_eq!(table, reference(), "run the tests once with UPDATE_README=1");
        }
    }

    #[test]
    fn names_follow_the_conventions() {
        for family in FAMILIES {
            assert_eq!(
                family.kind == Kind::Counter,
                family.name.ends_with("_total"),
                "{}",
                family.name
            );
            assert!(
                family.help.ends_with('.') && family.name.starts_with("mcp_"),
                "{}",
                family.name
            );
        }
    }
}

//! The text that a scrape reads, from hand-made findings.

use super::*;
use crate::enrich::{Capability, Ending, Workload};
use crate::protocol::event::{DropReason, Pid};
use crate::protocol::observation::{
    CatalogChange, InputKind, MalformedReason, Origin, Pressure, SessionChange, SessionEnd, Signal, TaskEnd, TaskStatus,
};
use crate::sink::samples;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

const SECOND: u64 = 1_000_000_000;

struct Bench {
    metrics: Metrics,
    now: Timestamp,
}

impl Bench {
    fn new(max_series: usize) -> Self {
        Self {
            metrics: Metrics::new(max_series),
            now: Timestamp(2 * SECOND),
        }
    }

    fn take(&mut self, finding: &Finding) -> &mut Self {
        self.metrics
            .take(finding, &Anchor::new(Timestamp(0), UNIX_EPOCH), self.now);
        self
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.now = self.now.plus(seconds * SECOND);
        self.metrics.observe_self(&Vitals::default(), self.now);
        self
    }

    fn text(&self) -> String {
        self.metrics.exposition().render(&Filter::default())
    }

    /// The lines that begin with `prefix`, without comments.
    fn lines(&self, prefix: &str) -> Vec<String> {
        self.text()
            .lines()
            .filter(|line| line.starts_with(prefix))
            .map(str::to_owned)
            .collect()
    }
}

fn gone(pid: u32) -> Finding {
    let workload = Arc::new(Workload {
        pid: Some(Pid(pid)),
        ..Workload::default()
    });
    Finding::Departure(Departure {
        workload,
        ending: Ending::Unseen,
        time: None,
    })
}

#[test]
fn a_call_is_counted_once_with_all_its_labels() {
    let mut bench = Bench::new(10_000);
    bench.take(&samples::began()).take(&samples::call(|call| {
        call.timing.queue = Some(300_000);
        call.timing.client_duration = Some(30_000_000);
    }));
    let labels =
        r#"caller="agent",caller_namespace="host",capability="weather",namespace="host",operation="get_forecast""#;
    assert_eq!(
        bench.lines("mcp_calls_total"),
        [
            format!(r#"mcp_calls_total{{{labels},outcome="ok",status_code="200",vantage="server"}} 1"#),
            format!(r#"mcp_calls_total{{{labels},outcome="tool_error",status_code="500",vantage="server"}} 0"#),
        ]
    );
    assert_eq!(
        bench.lines("mcp_request_bytes_total"),
        [format!(r#"mcp_request_bytes_total{{{labels},vantage="server"}} 310"#)]
    );
    assert_eq!(
        bench.lines("mcp_response_bytes_total"),
        [format!(r#"mcp_response_bytes_total{{{labels},vantage="server"}} 2210"#)]
    );
    let durations = r#"{capability="weather",error_type="",mcp_method_name="tools/call",namespace="host",network_transport="pipe",operation="get_forecast""#;
    let text = bench.text();
    assert!(
        text.contains(&format!(
            "mcp_server_operation_duration_seconds_bucket{durations},le=\"0.01\"}} 0\n"
        )),
        "{text}"
    );
    assert!(text.contains(&format!(
        "mcp_server_operation_duration_seconds_bucket{durations},le=\"0.02\"}} 1\n"
    )));
    assert!(text.contains(&format!(
        "mcp_client_operation_duration_seconds_sum{durations}}} 0.03\n"
    )));
    assert_eq!(
        bench.lines("mcp_queue_seconds_count"),
        [r#"mcp_queue_seconds_count{capability="weather",namespace="host"} 1"#]
    );
    assert_eq!(
        bench.lines("mcp_capability_last_call"),
        [r#"mcp_capability_last_call_timestamp_seconds{capability="weather",namespace="host"} 1.0125"#]
    );
    assert_eq!(
        bench.lines("mcp_calls_in_flight"),
        [r#"mcp_calls_in_flight{capability="weather",namespace="host"} 0"#]
    );
}

#[test]
fn series_exist_at_zero_from_the_begin_of_the_first_call() {
    let mut bench = Bench::new(10_000);
    bench.take(&samples::began());
    assert_eq!(bench.lines("mcp_calls_in_flight{")[0].rsplit(' ').next(), Some("1"));
    assert!(bench.lines("mcp_calls_total{").iter().all(|line| line.ends_with(" 0")));
    assert_eq!(bench.lines("mcp_calls_total{").len(), 2);
}

#[test]
fn a_hop_is_not_counted() {
    let mut bench = Bench::new(10_000);
    bench.take(&samples::call(|call| call.parties.vantage = Vantage::Hop));
    assert_eq!(bench.lines("mcp_calls_total{"), [""; 0]);
}

#[test]
fn the_callers_mistakes_have_an_error_type_on_the_callers_side_only() {
    let mut bench = Bench::new(10_000);
    bench.take(&samples::call(|call| {
        (call.outcome, call.status, call.rpc_code) = (Outcome::RpcError, 400, Some(-32602));
        call.timing.client_duration = Some(1);
    }));
    assert!(bench.lines("mcp_server_operation_duration_seconds_count")[0].contains(r#"error_type="","#));
    assert!(bench.lines("mcp_client_operation_duration_seconds_count")[0].contains(r#"error_type="-32602","#));
}

#[test]
fn what_is_no_call_has_families_of_its_own() {
    let mut bench = Bench::new(10_000);
    let parties = samples::parties;
    let (method, from) = ("notifications/progress".into(), Side::Server);
    bench
        .take(&samples::report(
            Observation::Notification {
                parties: parties(),
                method,
                from,
            },
            "notifications/progress",
        ))
        .take(&samples::report(
            Observation::ServerRequest {
                parties: parties(),
                method: "ping".into(),
            },
            "ping",
        ))
        .take(&samples::report(Observation::LateResponse(parties()), ""))
        .take(&samples::report(
            Observation::Subscription {
                parties: parties(),
                change: 1,
            },
            "",
        ))
        .take(&samples::report(
            Observation::Subscription {
                parties: parties(),
                change: 1,
            },
            "",
        ))
        .take(&samples::report(
            Observation::Subscription {
                parties: parties(),
                change: -1,
            },
            "",
        ))
        .take(&samples::report(
            Observation::Malformed {
                parties: parties(),
                from: Side::Client,
                reason: MalformedReason::BadJson,
            },
            "",
        ))
        .take(&samples::call(|call| {
            (call.outcome, call.status) = (Outcome::Timeout, 504);
        }));
    for line in [
        r#"mcp_notifications_total{capability="weather",direction="server_to_client",mcp_method_name="notifications/progress",namespace="host"} 1"#,
        r#"mcp_server_requests_total{capability="weather",mcp_method_name="ping",namespace="host"} 1"#,
        r#"mcp_late_responses_total{capability="weather",namespace="host"} 1"#,
        r#"mcp_subscriptions_active{capability="weather",namespace="host"} 1"#,
        r#"mcp_malformed_messages_total{capability="weather",direction="client_to_server",namespace="host",reason="bad_json"} 1"#,
        r#"mcp_cancellations_total{capability="weather",namespace="host",operation="get_forecast",reason="timeout"} 1"#,
    ] {
        assert!(
            bench.text().lines().any(|shown| shown == line),
            "{line} in {}",
            bench.text()
        );
    }
}

#[test]
fn what_is_known_of_a_capability_replaces_what_was_known_less_well() {
    let mut bench = Bench::new(10_000);
    let server = |change: fn(&mut Parties), version: Option<&str>| {
        let mut parties = samples::parties();
        change(&mut parties);
        samples::report(
            Observation::Server {
                parties,
                protocol_version: version.map(Into::into),
            },
            "",
        )
    };
    bench.take(&server(|parties| parties.server.implementation = None, None));
    bench.take(&server(|_| (), Some("2025-11-25")));
    assert_eq!(
        bench.lines("mcp_capability_info"),
        [
            r#"mcp_capability_info{capability="weather",namespace="host",protocol_version="2025-11-25",runtime="python",server_name="weather",server_version="1.4.0",tls="false",transport="stdio"} 1"#
        ]
    );
    for number in 0..50 {
        let version = format!("v{number}");
        bench.take(&server(|_| (), Some(&version)));
    }
    assert_eq!(bench.lines("mcp_capability_info").len(), MAX_INFOS);
}

#[test]
fn a_capability_whose_counts_are_lower_bounds_says_so() {
    let mut bench = Bench::new(1000);
    let lines = |bench: &Bench, value| {
        let line = format!(r#"mcp_capability_lossy{{capability="weather",namespace="host"}} {value}"#);
        assert_eq!(bench.lines("mcp_capability_lossy"), [line]);
    };
    bench.take(&samples::began()).take(&samples::call(|_| ()));
    lines(&bench, 0);
    bench.take(&samples::call(|call| call.parties.lossy = true));
    lines(&bench, 1);
    bench.take(&samples::began()).take(&samples::call(|_| ()));
    lines(&bench, 1);
}

#[test]
fn series_are_bounded_and_what_found_no_room_is_counted() {
    let mut bench = Bench::new(100);
    for number in 0..200 {
        bench.take(&samples::call(|call| {
            call.target = Some(format!("tool{number}").into());
        }));
    }
    bench.after(1);
    let shown = bench
        .text()
        .lines()
        .filter(|line| line.starts_with("mcp_") && !line.starts_with("mcp_observer_"))
        .count();
    assert!(shown <= 100, "{shown}");
    let dropped = bench.lines(r#"mcp_observer_series_dropped_total{metric="mcp_calls_total"}"#);
    assert!(!dropped[0].ends_with(" 0"), "{dropped:?}");
}

#[test]
fn series_of_a_workload_that_is_gone_are_removed_after_five_minutes() {
    let mut bench = Bench::new(10_000);
    bench.take(&samples::call(|_| ())).take(&gone(977)).after(290);
    assert_eq!(bench.lines("mcp_calls_total{").len(), 1);
    bench.after(20);
    assert_eq!(bench.lines("mcp_calls_total{").len(), 0);
    assert_eq!(bench.lines("mcp_server_operation_duration_seconds_count{").len(), 0);

    bench.take(&samples::call(|_| ())).take(&gone(4123)).after(310);
    assert_eq!(bench.lines("mcp_calls_total{").len(), 0, "the caller is gone");
    assert_eq!(
        bench.lines("mcp_server_operation_duration_seconds_count{").len(),
        1,
        "the server is not"
    );
}

#[test]
fn a_workload_that_comes_back_in_time_keeps_its_series() {
    let mut bench = Bench::new(10_000);
    bench
        .take(&samples::call(|_| ()))
        .take(&gone(977))
        .after(200)
        .take(&samples::call(|_| ()))
        .after(200);
    assert!(bench.lines("mcp_calls_total{")[0].ends_with(" 2"));
}

#[test]
fn a_scrape_of_one_capability_sees_that_alone() {
    let mut bench = Bench::new(10_000);
    let mut other = samples::call(|_| ());
    if let Finding::Report(report) = &mut other {
        report.capability = Arc::new(Capability {
            name: "clock".into(),
            namespace: "host".into(),
        });
    }
    bench.take(&samples::call(|_| ())).take(&other);
    let filter = |capability: &str, namespace: Option<&str>| Filter {
        capability: Some(capability.to_owned()),
        namespace: namespace.map(str::to_owned),
    };
    let exposition = bench.metrics.exposition();
    let clock = exposition.render(&filter("clock", Some("host")));
    assert!(clock.contains(r#"capability="clock""#) && !clock.contains("weather") && !clock.contains("mcp_observer"));
    assert_eq!(exposition.render(&filter("clock", Some("tools"))), "");
}

#[test]
fn the_observer_tells_of_itself_every_reason_from_the_start() {
    let mut bench = Bench::new(10_000);
    for reason in DropReason::ALL {
        assert!(
            bench
                .text()
                .contains(&format!("mcp_observer_lost_total{{reason=\"{}\"}} 0\n", reason.label()))
        );
    }
    bench.metrics.probe("tcp_sendmsg entry", None);
    bench.metrics.probe("pipe_read exit", Some("no such function"));
    let vitals = Vitals {
        losses: vec![(DropReason::RingFull, 2, 100), (DropReason::RingFull, 1, 10)],
        records: vec![("pipe", 7)],
        run_seconds: vec![("syscall_entry".to_owned(), 0.5)],
        streams: [("mcp", 1), ("undecided", 2), ("other", 3)],
        muted_bytes: 5,
        unchecked_results: 4,
        held_bytes: 6,
        loop_lag: 0.25,
        ..Vitals::default()
    };
    bench.metrics.observe_self(&vitals, Timestamp(1));
    bench.metrics.observe_self(&vitals, Timestamp(2));
    for line in [
        r#"mcp_observer_lost_total{reason="ring_full"} 3"#,
        r#"mcp_observer_lost_bytes_total{reason="ring_full"} 110"#,
        r#"mcp_observer_records_total{source="pipe"} 7"#,
        r#"mcp_observer_bpf_run_seconds_total{program="syscall_entry"} 0.5"#,
        r#"mcp_observer_streams{state="undecided"} 2"#,
        r#"mcp_observer_probe_attached{probe="tcp_sendmsg entry"} 1"#,
        r#"mcp_observer_probe_attached{probe="pipe_read exit"} 0"#,
        "mcp_observer_muted_bytes_total 5",
        "mcp_observer_unchecked_results_total 4",
        "mcp_observer_held_bytes 6",
        "mcp_observer_loop_lag_seconds 0.25",
        concat!(
            r#"mcp_observer_build_info{version=""#,
            env!("CARGO_PKG_VERSION"),
            r#""} 1"#
        ),
    ] {
        assert!(bench.text().lines().any(|shown| shown == line), "{line}");
    }
    assert!(bench.text().contains("process_cpu_seconds_total"));
    assert!(bench.text().contains("process_resident_memory_bytes"));
}

#[test]
fn what_marks_a_capability_beyond_its_calls() {
    let mut bench = Bench::new(10_000);
    bench.take(&samples::call(|call| {
        call.attempt = 2;
        call.wants = Some(InputKind::Elicitation);
        call.pressure = Some(Pressure::RateLimited(Signal::Text, Origin::Upstream));
        call.tokens.arguments = Some(18);
        call.tokens.result = Some(540);
        call.timing.first_progress = Some(1_500_000_000);
    }));
    bench.take(&samples::call(|call| {
        call.method = "tools/list".into();
        call.target = None;
        call.pressure = Some(Pressure::Shed(Signal::Status));
        call.tokens.result = Some(90);
    }));
    let task = TaskEnd {
        call: 1,
        parties: samples::parties(),
        method: "tools/call".into(),
        target: Some("get_forecast".into()),
        status: TaskStatus::ToolError,
        ended: Timestamp(4 * SECOND),
        duration: 3 * SECOND,
    };
    bench.take(&samples::report(Observation::Task(Box::new(task)), "get_forecast"));
    let session = |change| {
        let parties = samples::parties();
        samples::report(Observation::Session { parties, change }, "")
    };
    bench
        .take(&session(SessionChange::Began))
        .take(&session(SessionChange::Began));
    bench.take(&session(SessionChange::Ended {
        how: SessionEnd::Deleted,
        duration: Some(60 * SECOND),
    }));
    bench
        .take(&samples::catalog(None))
        .take(&samples::catalog(Some(CatalogChange::default())));
    let text = bench.text();
    let of = r#"capability="weather""#;
    for expected in [
        format!(r#"mcp_retries_total{{caller="agent",{of},namespace="host",operation="get_forecast"}} 1"#),
        format!(r#"mcp_input_required_total{{{of},kind="elicitation",namespace="host",operation="get_forecast"}} 1"#),
        format!(
            r#"mcp_rate_limited_total{{{of},namespace="host",operation="get_forecast",origin="upstream",signal="text"}} 1"#
        ),
        format!(r#"mcp_load_shed_total{{{of},namespace="host"}} 1"#),
        format!(
            r#"mcp_estimated_tokens_total{{caller="agent",{of},kind="arguments",namespace="host",operation="get_forecast"}} 18"#
        ),
        format!(
            r#"mcp_estimated_tokens_total{{caller="agent",{of},kind="result",namespace="host",operation="get_forecast"}} 540"#
        ),
        format!(
            r#"mcp_estimated_tokens_total{{caller="agent",{of},kind="catalog",namespace="host",operation="tools/list"}} 90"#
        ),
        format!(r#"mcp_first_progress_seconds_sum{{{of},namespace="host",operation="get_forecast"}} 1.5"#),
        format!(r#"mcp_tasks_total{{{of},namespace="host",operation="get_forecast",status="tool_error"}} 1"#),
        format!(
            r#"mcp_task_duration_seconds_sum{{{of},namespace="host",operation="get_forecast",status="tool_error"}} 3"#
        ),
        format!(r#"mcp_sessions_active{{{of},namespace="host"}} 1"#),
        format!(r#"mcp_server_session_duration_seconds_sum{{{of},namespace="host"}} 60"#),
        format!(r#"mcp_catalog_items{{{of},kind="tools",namespace="host"}} 2"#),
        format!(r#"mcp_catalog_bytes{{{of},kind="tools",namespace="host"}} 420"#),
        format!(r#"mcp_catalog_changes_total{{{of},kind="tools",namespace="host"}} 1"#),
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected}\n{text}");
    }
}

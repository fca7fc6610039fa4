//! Real SDK clients calling real SDK servers: calls a second, how long a call takes, and how close the observer comes to that.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};

use super::attached::{Attached, alternate};
use super::report::{Figure, Report, Target, median, quantile};
use crate::compare::id_text;
use crate::lab::Lab;
use crate::observer::Observer;
use crate::peer::{Client, Pair, Server, Transport};
use crate::record::Record;
use crate::scenarios::Stage;
use crate::truth::Truth;

/// Client, server, transport, and calls of one run: a second or two of work.
pub(super) type Case = (Client, Server, Transport, usize);

const CASES: &[Case] = &[
    (Client::Py23, Server::Py23, Transport::Stdio, 1500),
    (Client::Py23, Server::Py23, Transport::Http, 500),
    (Client::Rmcp, Server::Rmcp, Transport::Stdio, 20_000),
    (Client::Rmcp, Server::Rmcp, Transport::Http, 8000),
];

/// The share of calls a second that must be left.
const THROUGHPUT: f64 = 0.98;

/// How far the observer's interval of a call may be from the client's own: the larger of the two.
const NEAR_MS: f64 = 2.0;
const NEAR_SHARE: f64 = 0.05;

/// What one run showed.
struct Run {
    rate: f64,
    p50: f64,
    p99: f64,
    /// Microseconds of CPU that client and server took for each call: less disturbed than time is.
    cpu: f64,
    closeness: Option<Closeness>,
}

/// How close the observer's intervals are to the client's.
struct Closeness {
    near: f64,
    behind: Vec<f64>,
}

/// Which cases are measured, how often, and with one call of how many.
#[derive(Clone, Copy)]
pub(super) struct Runs<'a> {
    pub(super) rounds: u32,
    pub(super) fewer: u32,
    pub(super) only: &'a str,
}

/// Measures pairs on stdio and HTTP.
pub(super) fn measure(lab: &Arc<Lab>, object: &Path, runs: Runs<'_>, report: &mut Report) -> Result<()> {
    measure_cases(lab, object, CASES, runs, THROUGHPUT, report)
}

/// Measures these cases, of whose calls a second this share must be left.
pub(super) fn measure_cases(
    lab: &Arc<Lab>,
    object: &Path,
    cases: &[Case],
    runs: Runs<'_>,
    throughput: f64,
    report: &mut Report,
) -> Result<()> {
    for &(client, server, transport, calls) in cases {
        let calls = calls / runs.fewer as usize;
        let pair = Pair::new(client, server, transport);
        let case = format!("sdk {} {}", pair.client.name(), transport.name());
        if !case.contains(runs.only) {
            continue;
        }
        // A first run fills the caches of files and is not counted.
        run(lab, object, pair, calls, Attached::Nothing)?;
        let runs = alternate(runs.rounds, |attached| run(lab, object, pair, calls, attached))?;
        tell(&case, &runs, throughput, report);
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "a number of calls")]
fn run(lab: &Arc<Lab>, object: &Path, pair: Pair, calls: usize, attached: Attached) -> Result<Run> {
    let stage = Stage::new(lab, "bench")?;
    let (empty, observer) = attached.attach(&stage, object)?;
    // Of a short run nearly all is starting and ending, of which a call of the long one has no share.
    let few = (calls / 10).max(1);
    let made = |calls| {
        let before = stage.cgroup.cpu_us()?;
        let mut running = stage.start(pair, "calls", calls)?;
        running.client.finish(lab.limit(180))?;
        let truth = Truth::read(&running.truth)?;
        let taken = durations(&truth);
        ensure!(taken.len() >= calls, "{} of {calls} calls were answered", taken.len());
        drop(running);
        Ok((stage.cgroup.cpu_us()? - before, truth, taken))
    };
    let (start, ..) = made(few)?;
    let (all, truth, taken) = made(calls)?;
    drop(empty);
    let closeness = observer.map(|observer| closeness(&truth, observer)).transpose()?;
    Ok(Run {
        rate: rate(&truth),
        p50: quantile(&taken, 0.5),
        p99: quantile(&taken, 0.99),
        cpu: (all - start) / (calls - few) as f64,
        closeness,
    })
}

fn tell(case: &str, [without, empty, with]: &[Vec<Run>; 3], throughput: f64, report: &mut Report) {
    let all = |runs: &[Run], of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<f64>>();
    let pair = |what, unit, of| Figure {
        empty: Some(median(&all(empty, of))),
        ..Figure::pair(case, what, unit, &all(without, of), &all(with, of))
    };
    report.add(pair("throughput", "calls/s", |run| run.rate).with_target(Target::AtLeast(throughput)));
    report.add(pair("p50", "ms", |run| run.p50));
    report.add(pair("p99", "ms", |run| run.p99));
    report.add(pair("CPU of both for a call", "us", |run| run.cpu));
    let close: Vec<&Closeness> = with.iter().filter_map(|run| run.closeness.as_ref()).collect();
    let behind: Vec<f64> = close.iter().flat_map(|close| close.behind.iter().copied()).collect();
    let near: Vec<f64> = close.iter().map(|close| close.near).collect();
    report.add(Figure::alone(case, "shorter than truth, median", "ms", median(&behind)));
    report.add(Figure::alone(
        case,
        "shorter than truth, p99",
        "ms",
        quantile(&behind, 0.99),
    ));
    report.add(Figure::alone(case, "within 2 ms or 5 %", "of calls", median(&near)));
}

/// Milliseconds that each answered tool call took, as the client says.
fn durations(truth: &Truth) -> Vec<f64> {
    intervals(truth).into_values().collect()
}

fn intervals(truth: &Truth) -> HashMap<String, f64> {
    let calls = truth.calls.iter().filter(|call| call.method == "tools/call");
    calls
        .filter_map(|call| {
            let end = call.end.as_ref()?;
            Some((
                id_text(&call.id).into_owned(),
                milliseconds(end.end_ns.saturating_sub(call.start_ns)),
            ))
        })
        .collect()
}

/// Tool calls a second from the first one's begin to the last one's end.
#[allow(clippy::cast_precision_loss, reason = "a number of calls")]
fn rate(truth: &Truth) -> f64 {
    let calls = || truth.calls.iter().filter(|call| call.method == "tools/call");
    let begin = calls().map(|call| call.start_ns).min().unwrap_or(0);
    let end = calls()
        .filter_map(|call| Some(call.end.as_ref()?.end_ns))
        .max()
        .unwrap_or(begin);
    calls().count() as f64 / (milliseconds(end - begin) / 1000.0)
}

/// Holds the client intervals of the records against those of the truth.
#[allow(clippy::cast_precision_loss, reason = "a number of calls")]
fn closeness(truth: &Truth, observer: Observer) -> Result<Closeness> {
    observer
        .reader()
        .wait_for(&[(truth.pid, truth.calls.len())], std::time::Duration::from_secs(10))?;
    let records = observer.stop()?;
    let intervals = intervals(truth);
    let (mut behind, mut near) = (Vec::new(), 0);
    for record in records.iter().filter(|record| record.caller.pid == Some(truth.pid)) {
        let Some((told, seen)) = both(record, &intervals) else {
            continue;
        };
        behind.push(told - seen);
        near += usize::from(told - seen <= NEAR_MS.max(told * NEAR_SHARE));
    }
    ensure!(
        !behind.is_empty(),
        "the observer saw no call with the client's interval"
    );
    Ok(Closeness {
        // A call that was not seen is not near.
        near: near as f64 / intervals.len() as f64,
        behind,
    })
}

fn both(record: &Record, intervals: &HashMap<String, f64>) -> Option<(f64, f64)> {
    (record.mcp.method == "tools/call").then_some(())?;
    let told = intervals.get(record.mcp.request_id.as_deref()?)?;
    Some((*told, record.timing.client_ms?))
}

#[allow(
    clippy::cast_precision_loss,
    reason = "durations of benchmarks are far below 2^53 ns"
)]
fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

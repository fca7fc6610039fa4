//! Holds the observer's calls against a client's truth, one for one.
//!
//! Nothing is matched by guess: a record belongs to a client by its process id, and to a call by method and id, in the
//! order of time. What is left over on either side is a difference.

use std::borrow::Cow;

use serde_json::Value;

use crate::lab::Counts;
use crate::record::Record;
use crate::truth::{Call, End, Truth};

/// How far two readings of the wall clock by two processes may differ: the anchor is renewed every 10 s, and clocks are slewed.
const CLOCK_SLACK_NS: u64 = 10_000_000;

/// Rounding of a duration in a record.
const ROUNDING_MS: f64 = 0.002;

/// What a test expects beyond the plain truth.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// The observer was ready at this time: calls begun before may be missing, and of those seen the times are not judged.
    /// Monotonic nanoseconds.
    pub(crate) since_ns: Option<u64>,
    /// Outcomes that are right for calls whose client got no answer; empty: such calls may not be.
    pub(crate) unanswered_as: &'static [&'static str],
    /// What a client makes of a dead server by itself, as if it had been answered: such a call was not.
    pub(crate) made_up: Option<&'static str>,
    /// The ring was too small on purpose: calls may be missing, none may be wrong.
    pub(crate) lossy: bool,
    /// The server's end may be what is read: the client's own interval may be unknown.
    pub(crate) from_server: bool,
    /// What the wall clock is ahead of the monotonic clock, in nanoseconds.
    pub(crate) wall_lead_ns: u64,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) counts: Counts,
    /// One line each, meant to be read; empty when the observer told the truth.
    pub(crate) differences: Vec<String>,
    /// Calls whose client's own interval is unknown, a line each: no untruth where as many returns of calls were left out by the kernel.
    pub(crate) unknown: Vec<String>,
}

impl Findings {
    /// What is untrue where the kernel left out `missed` returns of calls.
    pub(crate) fn untruths(&self, missed: usize) -> impl Iterator<Item = &str> {
        let unknown = self.unknown.iter().filter(move |_| self.unknown.len() > missed);
        self.differences.iter().chain(unknown).map(String::as_str)
    }
}

/// Compares the records of one client with its truth.
pub(crate) fn compare(truth: &Truth, records: &[Record], rules: &Rules) -> Findings {
    let mut left: Vec<&Record> = records
        .iter()
        .filter(|record| record.caller.pid == Some(truth.pid))
        .collect();
    left.sort_by_key(|record| record.seq);
    let mut findings = Findings::default();
    for call in &truth.calls {
        let id = id_text(&call.id);
        let half_seen = rules.since_ns.is_some_and(|ready| call.start_ns < ready);
        let found = left.iter().position(|record| {
            record.mcp.method == call.method
                && record.mcp.request_id.as_deref().unwrap_or("null") == id
                // An id may come again: what was not seen is not to be taken for what came after.
                && !(half_seen && begins_after(call, record, rules))
        });
        let may_be_missing = call.optional || rules.lossy || half_seen;
        if found.is_some() || !may_be_missing {
            findings.counts.made += 1;
        }
        match found {
            Some(place) => {
                findings.counts.seen += 1;
                let record = left.remove(place);
                // Where answers get lost, a call may rightly be told as one that had none.
                let without_answer = matches!(record.outcome.as_str(), "unanswered" | "client_gone" | "server_gone");
                if call.optional || (rules.lossy && without_answer) {
                    continue;
                }
                let different = |what: String| format!("different: {} — {what}", describe(call));
                findings
                    .differences
                    .extend(differences(call, record, rules).into_iter().map(different));
                if !knows_client(call, record, rules) {
                    let what = "the client's own interval is unknown".to_owned();
                    findings.unknown.push(different(what));
                }
            }
            None if may_be_missing => {}
            None => findings.differences.push(format!("missing:   {}", describe(call))),
        }
    }
    findings.differences.extend(
        left.into_iter()
            .map(|record| format!("invented:  {}", describe_record(record))),
    );
    findings
}

/// A request's id as records print it: a number's digits, a string without its quotes.
pub(crate) fn id_text(id: &Value) -> Cow<'_, str> {
    match id {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// Records that belong to none of these clients.
pub(crate) fn unclaimed(records: &[Record], clients: &[u32]) -> Vec<String> {
    let stranger = |record: &&Record| !record.caller.pid.is_some_and(|pid| clients.contains(&pid));
    records
        .iter()
        .filter(stranger)
        .map(|record| format!("invented:  {}", describe_record(record)))
        .collect()
}

/// How a call was answered, if it was.
fn answered<'a>(call: &'a Call, rules: &Rules) -> Option<&'a End> {
    call.end
        .as_ref()
        .filter(|end| !matches!(end.outcome.as_str(), "unanswered" | "server_gone"))
        .filter(|end| rules.made_up != Some(&end.outcome))
}

/// The client's own interval, in milliseconds.
fn client_ms(record: &Record) -> Option<f64> {
    let own = record.duration_ms.filter(|_| record.timing.vantage == "client");
    record.timing.client_ms.or(own)
}

/// Whether a call's times are to be judged.
fn is_timed(call: &Call, record: &Record, rules: &Rules) -> bool {
    let half_seen = rules.since_ns.is_some_and(|ready| call.start_ns < ready);
    !(half_seen || (rules.lossy && record.flags.lossy))
}

/// Whether the client's interval is known of a call of which it must be.
fn knows_client(call: &Call, record: &Record, rules: &Rules) -> bool {
    // What is lost may be the client's reading alone.
    let may_be_unknown = rules.lossy || rules.from_server || !is_timed(call, record, rules);
    may_be_unknown || answered(call, rules).is_none() || client_ms(record).is_some()
}

fn differences(call: &Call, record: &Record, rules: &Rules) -> Vec<String> {
    let mut found = Vec::new();
    let answered = answered(call, rules);
    let operation = call.name.as_ref().unwrap_or(&call.method);
    // A name that no list and no success has vouched for may be hidden, and one may be among the bytes that are lost.
    let may_be_lost = rules.lossy && record.flags.lossy && record.operation == call.method;
    let may_hide = answered.is_none_or(|end| end.outcome != "ok");
    if record.operation != *operation && !may_be_lost && !(may_hide && record.operation == "_unknown") {
        found.push(format!("operation {:?} and not {operation:?}", record.operation));
    }
    match answered {
        Some(end) => found.extend(end_differences(end, record)),
        None if rules.unanswered_as.contains(&record.outcome.as_str()) => {}
        None => found.push(format!(
            "outcome {} and not one of {:?}",
            record.outcome, rules.unanswered_as
        )),
    }
    if is_timed(call, record, rules) {
        found.extend(time_differences(call, answered, record, rules));
    }
    found
}

fn end_differences(end: &End, record: &Record) -> Vec<String> {
    let mut found = Vec::new();
    if record.outcome != end.outcome {
        found.push(format!("outcome {} and not {}", record.outcome, end.outcome));
    }
    if end.rpc_code.is_some() && record.rpc_status_code != end.rpc_code {
        found.push(format!(
            "rpcStatusCode {:?} and not {:?}",
            record.rpc_status_code, end.rpc_code
        ));
    }
    if end.http_status.is_some() && record.http_status_code != end.http_status {
        found.push(format!(
            "httpStatusCode {:?} and not {:?}",
            record.http_status_code, end.http_status
        ));
    }
    found
}

/// Whether a record is of a time when the client had its answer.
fn begins_after(call: &Call, record: &Record, rules: &Rules) -> bool {
    let Some((end, begin)) = call.end.as_ref().zip(record.begin_wall_ns().ok()) else {
        return false;
    };
    begin.saturating_sub(rules.wall_lead_ns) > end.end_ns + CLOCK_SLACK_NS
}

fn time_differences(call: &Call, answered: Option<&End>, record: &Record, rules: &Rules) -> Vec<String> {
    let mut found = Vec::new();
    match record.begin_wall_ns() {
        Err(error) => found.push(format!("{error:#}")),
        Ok(begin) => {
            let begin = begin.saturating_sub(rules.wall_lead_ns);
            if begin + CLOCK_SLACK_NS < call.start_ns {
                found.push(format!(
                    "begins {} µs before the client sent it",
                    (call.start_ns - begin) / 1000
                ));
            }
            if let Some(end) = answered.filter(|_| begins_after(call, record, rules)) {
                found.push(format!(
                    "begins {} µs after the client had its answer",
                    (begin - end.end_ns) / 1000
                ));
            }
        }
    }
    let Some(end) = answered else { return found };
    let truth_ms = milliseconds(end.end_ns.saturating_sub(call.start_ns));
    if let Some(seen) = client_ms(record).filter(|seen| *seen > truth_ms + ROUNDING_MS || *seen < 0.0) {
        found.push(format!(
            "the client's interval took {seen} ms and the client says {truth_ms:.3} ms"
        ));
    }
    found
}

#[allow(clippy::cast_precision_loss, reason = "durations of tests are far below 2^53 ns")]
fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn describe(call: &Call) -> String {
    let name = call.name.as_deref().unwrap_or("-");
    let outcome = call.end.as_ref().map_or("no answer", |end| end.outcome.as_str());
    format!(
        "{} {name} id {} ({outcome}, sent at {:.3} ms)",
        call.method,
        call.id,
        milliseconds(call.start_ns)
    )
}

fn describe_record(record: &Record) -> String {
    format!(
        "{} {} id {} ({}, {} ms, at {}, caller {:?}, server {:?})",
        record.mcp.method,
        record.operation,
        record.mcp.request_id.as_deref().unwrap_or("null"),
        record.outcome,
        record.duration_ms.unwrap_or(f64::NAN),
        record.timestamp,
        record.caller.pid,
        record.server.pid,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Rules, compare, unclaimed};
    use crate::record::{Record, parse};
    use crate::truth::{Call, End, Truth};

    const START: u64 = 1_000_000_000;

    fn call(id: Value, name: &str, outcome: &str) -> Call {
        let end = (outcome != "none").then(|| End {
            outcome: outcome.to_owned(),
            rpc_code: None,
            http_status: None,
            end_ns: START + 5_000_000,
        });
        Call {
            method: "tools/call".to_owned(),
            name: Some(name.to_owned()),
            id,
            optional: false,
            start_ns: START,
            end,
        }
    }

    fn record(seq: u64, id: &str, name: &str, outcome: &str) -> Value {
        json!({
            "schema": "mcp-call/1", "operation": name, "durationMs": 4.0, "timestamp": "1970-01-01T00:00:01.001Z", "seq": seq,
            "outcome": outcome, "mcp": {"method": "tools/call", "requestId": id}, "rpcStatusCode": null,
            "httpStatusCode": null, "caller": {"pid": 7}, "server": {"pid": 8},
            "timing": {"vantage": "server", "clientMs": 4.5}, "bytes": {"request": 1, "response": 2},
            "flags": {"lossy": false},
        })
    }

    fn records(values: &[Value]) -> Vec<Record> {
        let text: Vec<String> = values.iter().map(Value::to_string).collect();
        parse(&text.join("\n")).expect("hand-made records are well formed")
    }

    fn check(calls: Vec<Call>, seen: &[Value], rules: Rules, expected: &[&str]) {
        let truth = Truth {
            pid: 7,
            calls,
            bytes: None,
        };
        let found = compare(&truth, &records(seen), &rules).differences;
        let kinds: Vec<&str> = found.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(kinds, expected, "{found:#?}");
    }

    #[test]
    fn the_truth_has_no_differences() {
        check(
            vec![call(json!(1), "echo", "ok")],
            &[record(0, "1", "echo", "ok")],
            Rules::default(),
            &[],
        );
        check(
            vec![call(json!("1"), "echo", "ok")],
            &[record(0, "1", "echo", "ok")],
            Rules::default(),
            &[],
        );
        check(
            vec![call(json!(1), "no", "tool_error")],
            &[record(0, "1", "_unknown", "tool_error")],
            Rules::default(),
            &[],
        );
    }

    #[test]
    fn repeated_ids_are_matched_one_for_one() {
        let calls = || vec![call(json!(1), "echo", "ok"), call(json!(1), "echo", "ok")];
        let seen = [
            record(0, "1", "echo", "ok"),
            record(1, "1", "echo", "ok"),
            record(2, "1", "echo", "ok"),
        ];
        check(calls(), &seen[..2], Rules::default(), &[]);
        check(calls(), &seen[..1], Rules::default(), &["missing"]);
        check(calls(), &seen, Rules::default(), &["invented"]);
    }

    #[test]
    fn outcome_name_and_times_are_compared() {
        let calls = || vec![call(json!(1), "echo", "ok")];
        check(
            calls(),
            &[record(0, "1", "echo", "tool_error")],
            Rules::default(),
            &["different"],
        );
        check(
            calls(),
            &[record(0, "1", "_unknown", "ok")],
            Rules::default(),
            &["different"],
        );
        let mut long = record(0, "1", "echo", "ok");
        long["timing"]["clientMs"] = json!(5.1);
        check(calls(), &[long], Rules::default(), &["different"]);
        let mut unknown = record(0, "1", "echo", "ok");
        unknown["timing"]["clientMs"] = Value::Null;
        let truth = Truth {
            pid: 7,
            calls: calls(),
            bytes: None,
        };
        let found = compare(&truth, &records(&[unknown]), &Rules::default());
        assert_eq!((found.differences.len(), found.unknown.len()), (0, 1));
        let mut early = record(0, "1", "echo", "ok");
        early["timestamp"] = json!("1970-01-01T00:00:00.900Z");
        check(calls(), &[early], Rules::default(), &["different"]);
    }

    #[test]
    fn calls_without_an_answer_need_an_outcome_that_the_test_allows() {
        let calls = || vec![call(json!(1), "slow", "none")];
        let seen = [record(0, "1", "_unknown", "client_gone")];
        check(
            calls(),
            &seen,
            Rules {
                unanswered_as: &["client_gone"],
                ..Rules::default()
            },
            &[],
        );
        check(
            calls(),
            &seen,
            Rules {
                unanswered_as: &["server_gone"],
                ..Rules::default()
            },
            &["different"],
        );
        check(
            calls(),
            &[],
            Rules {
                unanswered_as: &["client_gone"],
                ..Rules::default()
            },
            &["missing"],
        );
    }

    #[test]
    fn calls_before_the_observer_may_be_missing() {
        let calls = || vec![call(json!(1), "echo", "ok")];
        check(
            calls(),
            &[],
            Rules {
                since_ns: Some(START + 1),
                ..Rules::default()
            },
            &[],
        );
        check(
            calls(),
            &[],
            Rules {
                since_ns: Some(START),
                ..Rules::default()
            },
            &["missing"],
        );
    }

    #[test]
    fn strangers_are_told() {
        let seen = records(&[record(4, "1", "echo", "ok"), record(6, "1", "echo", "ok")]);
        assert_eq!(unclaimed(&seen, &[7]).len(), 0);
        assert_eq!(unclaimed(&seen, &[8]).len(), 2);
    }
}

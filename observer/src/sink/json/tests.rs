//! Every line against the shipped schema, and the order of its keys against the contract.

use super::*;
use crate::enrich::Finding;
use crate::protocol::event::Pid;
use crate::protocol::observation::{CallId, MalformedReason, NetworkTransport, Outcome};
use crate::sink::samples;
use serde_json::Value;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

const SCHEMA: &str = include_str!("../../../../deploy/mcp-call-1.schema.json");

fn line(json: &mut JsonLines, finding: &Finding) -> String {
    let mut lines = Vec::new();
    let count = json.append(
        finding,
        &Anchor::new(Timestamp(0), UNIX_EPOCH),
        Timestamp(2_000_000_000),
        &mut lines,
    );
    let text = String::from_utf8(lines).unwrap();
    assert_eq!(text.lines().count() as u64, count);
    assert_eq!(text.ends_with('\n'), count == 1);
    text
}

fn lines() -> JsonLines {
    JsonLines::new(Salt::random().unwrap())
}

fn record(change: impl FnOnce(&mut Call)) -> Value {
    serde_json::from_str(&line(&mut lines(), &samples::call(change))).unwrap()
}

/// Paths of all keys in the order in which they are printed.
fn keys(text: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('"') {
        let (word, after) = behind.split_once('"').unwrap();
        if after.starts_with(':') {
            keys.push(word.to_owned());
        }
        rest = after;
    }
    keys
}

#[test]
fn every_outcome_makes_a_line_that_the_schema_allows() {
    let validator = jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
    for outcome in Outcome::ALL {
        let full = record(|call| {
            call.outcome = *outcome;
            call.session = Some("secret-session".into());
            call.rpc_code = Some(-32601);
            call.http_status = Some(200);
            call.task_id = Some("t".into());
            call.timing.queue = Some(300_000);
            call.timing.client_duration = Some(13_000_000);
            call.inferred = vec!["protocolVersion"];
        });
        let bare = record(|call| {
            call.outcome = *outcome;
            call.parties.server = Party {
                address: Some("[2001:db8::1]:80".parse().unwrap()),
                ..Party::default()
            };
            call.parties.client = Party::default();
            call.parties.network = NetworkTransport::Tcp;
            call.parties.vantage = Vantage::Client;
            call.protocol_version = None;
            call.target = None;
        });
        for record in [full, bare] {
            let errors: Vec<String> = validator
                .iter_errors(&record)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert_eq!(errors, [""; 0], "{record}");
        }
    }
    assert!(!validator.is_valid(&serde_json::json!({ "schema": "mcp-call/1" })));
}

#[test]
fn keys_come_in_the_order_of_the_contract() {
    let text = line(&mut lines(), &samples::call(|_| ()));
    let expected = "capability namespace operation statusCode durationMs timestamp level schema seq outcome errorType \
        mcp method protocolVersion transport requestId sessionHash resultType round taskId serverName serverVersion \
        clientName clientVersion rpcStatusCode httpStatusCode caller workload namespace pod container pid comm address \
        user kind hash server workload pod container node pid comm address timing vantage hops queueMs firstByteMs \
        clientMs upstreamMs bytes request response estimatedTokens arguments result upstreams trace traceId spanId \
        parentSpanId flags tls truncated lossy inferred";
    assert_eq!(keys(&text), expected.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn values_say_what_was_seen() {
    let record = record(|call| {
        (call.outcome, call.status) = (Outcome::ToolError, 500);
        call.timing.duration = 812_400_499;
        call.id = CallId::Text("\"a\\\"b\"".into());
        call.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01".into());
    });
    assert_eq!(record["operation"], "get_forecast");
    assert_eq!(record["durationMs"], 812.4);
    assert_eq!(record["timestamp"], "1970-01-01T00:00:01.000000Z");
    assert_eq!(
        (&record["level"], &record["errorType"]),
        (&"error".into(), &"tool_error".into())
    );
    assert_eq!(record["mcp"]["requestId"], "a\"b");
    assert_eq!(record["trace"]["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(record["trace"]["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(record["caller"]["workload"], "agent");
    assert_eq!(record["server"]["node"], "n1");
}

#[test]
fn the_callers_mistakes_are_no_errors_of_the_server() {
    let as_seen_by = |vantage| {
        record(|call| {
            (call.outcome, call.status, call.rpc_code) = (Outcome::RpcError, 404, Some(-32601));
            call.parties.vantage = vantage;
        })
    };
    assert_eq!(as_seen_by(Vantage::Server)["errorType"], Value::Null);
    assert_eq!(as_seen_by(Vantage::Client)["errorType"], "-32601");
    assert_eq!(as_seen_by(Vantage::Server)["rpcStatusCode"], -32601);
}

#[test]
fn sessions_and_users_leave_only_as_hashes() {
    let mut json = lines();
    let call = samples::call(|call| call.session = Some("secret-session".into()));
    let (first, second) = (line(&mut json, &call), line(&mut json, &call));
    assert!(!first.contains("secret-session"));
    let hash = |text: &str, path: &str| {
        serde_json::from_str::<Value>(text)
            .unwrap()
            .pointer(path)
            .unwrap()
            .clone()
    };
    for path in ["/mcp/sessionHash", "/caller/user/hash"] {
        assert_eq!(hash(&first, path), hash(&second, path));
        assert_ne!(hash(&first, path), hash(&line(&mut lines(), &call), path));
    }
}

#[test]
fn records_of_every_schema_are_numbered_together() {
    let mut json = lines();
    let malformed = samples::report(
        Observation::Malformed {
            parties: samples::parties(),
            from: Side::Server,
            reason: MalformedReason::BadJson,
        },
        "",
    );
    let workload = Workload {
        name: "weather-mcp".into(),
        pid: Some(Pid(977)),
        ..Workload::default()
    };
    let end = |ending| {
        let (workload, time) = (Arc::new(workload.clone()), Some(Timestamp(3_000_000_000)));
        Finding::Departure(Departure { workload, ending, time })
    };
    assert_eq!(line(&mut json, &samples::began()), "");
    assert_eq!(line(&mut json, &samples::catalog(None)), "");
    let item = CatalogItem {
        name: "get_forecast".into(),
        fingerprint: samples::fingerprint(),
    };
    let change = CatalogChange {
        altered: vec![item],
        ..CatalogChange::default()
    };
    let found = [
        samples::call(|_| ()),
        malformed,
        end(Ending::Exit { code: 9 }),
        end(Ending::Exit { code: 3 << 8 }),
        end(Ending::Exec),
        samples::catalog(Some(change)),
    ];
    let records: Vec<Value> = found
        .iter()
        .map(|finding| serde_json::from_str(&line(&mut json, finding)).unwrap())
        .collect();
    for (number, record) in (1..).zip(&records) {
        assert_eq!(record["seq"], number);
    }
    assert_eq!(
        (&records[1]["schema"], &records[1]["reason"]),
        (&"mcp-malformed/1".into(), &"bad_json".into())
    );
    assert_eq!(
        (&records[2]["schema"], &records[2]["signal"]),
        (&"mcp-process/1".into(), &9.into())
    );
    assert_eq!(
        (&records[3]["exitStatus"], &records[3]["timestamp"]),
        (&3.into(), &"1970-01-01T00:00:03.000000Z".into())
    );
    assert_eq!(records[4]["event"], "exec");
    assert_eq!(
        (&records[5]["schema"], &records[5]["altered"][0]["name"]),
        (&"mcp-catalog/1".into(), &"get_forecast".into())
    );
}

//! Names and labels of hand-made observations.

use std::sync::Arc;

use super::*;
use crate::protocol::event::{Process, ProcessChange};
use crate::protocol::observation::{
    Call, CallBegan, CallId, EstimatedTokens, Implementation, NetworkTransport, Outcome, Timing, Transport, Vantage,
};

fn stdio(server: u32) -> Parties {
    Parties {
        client: Party {
            pid: Some(Pid(1)),
            ..Party::default()
        },
        server: Party {
            pid: Some(Pid(server)),
            ..Party::default()
        },
        transport: Transport::Stdio,
        network: NetworkTransport::Pipe,
        tls: false,
        vantage: Vantage::Server,
        authority: None,
        lossy: false,
    }
}

fn remote(address: &str, authority: Option<&str>) -> Parties {
    let mut parties = stdio(0);
    parties.server = Party {
        address: Some(address.parse().unwrap()),
        ..Party::default()
    };
    parties.vantage = Vantage::Client;
    parties.authority = authority.map(Into::into);
    parties
}

fn named(mut parties: Parties, name: &str) -> Parties {
    parties.server.implementation = Some(Arc::new(Implementation {
        name: name.into(),
        version: "1".into(),
    }));
    parties
}

fn began(parties: Parties, method: &'static str) -> Observation {
    Observation::CallBegan(CallBegan {
        number: 1,
        parties,
        method: method.into(),
        target: None,
        target_known: false,
    })
}

fn call(parties: Parties, method: &'static str) -> Observation {
    Observation::Call(Box::new(Call {
        number: 1,
        parties,
        method: method.into(),
        target: None,
        target_known: false,
        id: CallId::Integer(1),
        outcome: Outcome::Ok,
        status: 200,
        rpc_code: None,
        http_status: None,
        protocol_version: None,
        session: None,
        result_type: None,
        round: 1,
        first_round: 1,
        attempt: 1,
        wants: None,
        pressure: None,
        tokens: EstimatedTokens::default(),
        task_id: None,
        traceparent: None,
        timing: Timing::default(),
        request_bytes: 0,
        response_bytes: 0,
        lossy: false,
        truncated: false,
        inferred: Vec::new(),
    }))
}

/// An enricher of a machine where pids 7 and 8 run `mcp-server-time`.
fn enricher() -> Enricher {
    let mut enricher = Enricher::new(None);
    for pid in [7, 8] {
        enricher.glance(&exec(pid));
    }
    enricher
}

fn exec(pid: u32) -> Event {
    Event::Process(Process {
        pid: Pid(pid),
        change: ProcessChange::Exec,
        comm: "mcp-server-time".into(),
        time: Timestamp(1),
    })
}

/// Feeds the observations; what comes out, one readable line each.
fn lines(enricher: &mut Enricher, observations: Vec<Observation>, now: u64) -> Vec<String> {
    for observation in observations {
        enricher.handle_observation(observation, Timestamp(now));
    }
    enricher.handle_timeout(Timestamp(now));
    std::iter::from_fn(|| enricher.poll_finding())
        .map(|finding| match finding {
            Finding::Report(report) => {
                let kind = if matches!(report.observation, Observation::CallBegan(_)) {
                    "began"
                } else {
                    "call"
                };
                format!(
                    "{}/{} {kind} {}",
                    report.capability.namespace, report.capability.name, report.operation
                )
            }
            Finding::Departure(departure) => format!("gone {:?}", departure.workload.pid.unwrap()),
        })
        .collect()
}

#[test]
fn the_first_request_waits_for_the_name_that_its_answer_tells() {
    let mut enricher = enricher();
    assert_eq!(lines(&mut enricher, vec![began(stdio(7), "initialize")], 0), [""; 0]);
    let answer = call(named(stdio(7), "clock"), "initialize");
    assert_eq!(
        lines(&mut enricher, vec![answer], 1),
        ["host/clock began initialize", "host/clock call initialize"]
    );
    assert_eq!(
        lines(&mut enricher, vec![began(stdio(7), "tools/list")], 2),
        ["host/clock began tools/list"]
    );
}

#[test]
fn a_refused_probe_does_not_name_the_server() {
    let mut enricher = enricher();
    let probe = vec![
        began(stdio(7), "server/discover"),
        call(stdio(7), "server/discover"),
        began(stdio(7), "initialize"),
    ];
    assert_eq!(lines(&mut enricher, probe, 0), [""; 0]);
    assert_eq!(
        lines(&mut enricher, vec![call(named(stdio(7), "clock"), "initialize")], 1).len(),
        4
    );
}

#[test]
fn a_server_joined_late_is_named_by_its_process_and_keeps_that_name() {
    let mut enricher = enricher();
    let late = vec![
        began(stdio(7), "tools/list"),
        call(stdio(7), "tools/list"),
        call(named(stdio(7), "clock"), "ping"),
    ];
    let expected =
        ["began tools/list", "call tools/list", "call ping"].map(|line| format!("host/mcp-server-time {line}"));
    assert_eq!(lines(&mut enricher, late, 0), expected);
}

#[test]
fn patience_ends() {
    let mut enricher = enricher();
    assert_eq!(
        lines(
            &mut enricher,
            vec![began(stdio(7), "initialize"), began(stdio(8), "tools/list")],
            0
        ),
        [""; 0]
    );
    assert_eq!(
        lines(&mut enricher, vec![], 2_000_000_000),
        ["host/mcp-server-time began tools/list"]
    );
    assert_eq!(
        lines(&mut enricher, vec![], 30_000_000_000),
        ["host/mcp-server-time began initialize"]
    );
}

#[test]
fn what_is_held_is_bounded_and_comes_out_at_the_end() {
    let mut enricher = enricher();
    let many = (0..70).map(|_| began(stdio(7), "initialize")).collect();
    assert_eq!(lines(&mut enricher, many, 0).len(), 70);
    lines(&mut enricher, vec![began(stdio(8), "initialize")], 0);
    enricher.finish();
    assert!(enricher.poll_finding().is_some());
}

#[test]
fn servers_elsewhere_are_named_by_authority_else_address() {
    let mut enricher = Enricher::new(None);
    let calls = vec![
        call(remote("10.1.2.3:443", Some("mcp.example.com")), "tools/list"),
        call(remote("10.1.2.4:80", Some("10.1.2.4:80")), "tools/list"),
        call(remote("[::1]:80", None), "tools/list"),
        call(named(remote("10.1.2.5:80", None), "clock"), "tools/list"),
    ];
    let expected = [
        "host/mcp.example.com",
        "external/10.1.2.4:80",
        "host/[::1]:80",
        "host/clock",
    ];
    assert_eq!(
        lines(&mut enricher, calls, 0),
        expected.map(|name| format!("{name} call tools/list"))
    );
}

#[test]
fn several_servers_in_one_process_are_told_apart_by_their_own_names() {
    let mut enricher = enricher();
    let mounted = ["a", "b", "a"]
        .map(|name| call(named(stdio(7), name), "tools/list"))
        .to_vec();
    assert_eq!(
        lines(&mut enricher, mounted, 0),
        ["a", "b", "a"].map(|name| format!("host/{name} call tools/list"))
    );
    let hostile = (0..100)
        .map(|number| call(named(stdio(7), &format!("n{number}")), "tools/list"))
        .collect();
    let mut names = lines(&mut enricher, hostile, 0);
    names.sort();
    names.dedup();
    assert!(names.len() <= 16);
}

#[test]
fn another_program_under_the_same_number_is_another_server() {
    let mut enricher = enricher();
    lines(&mut enricher, vec![call(named(stdio(7), "old"), "tools/list")], 0);
    enricher.glance(&exec(7));
    let after = vec![
        Observation::PeerReplaced { pid: Pid(7) },
        call(named(stdio(7), "new"), "tools/list"),
    ];
    assert_eq!(
        lines(&mut enricher, after, 1),
        ["gone Pid(7)", "host/new call tools/list"]
    );
    let end = Observation::PeerExit {
        pid: Pid(7),
        code: 0,
        time: Timestamp(2),
    };
    assert_eq!(lines(&mut enricher, vec![end], 2), ["gone Pid(7)"]);
}

#[test]
fn names_that_others_chose_are_cut() {
    let mut enricher = enricher();
    let line = &lines(
        &mut enricher,
        vec![call(named(stdio(7), &"é".repeat(500)), "tools/list")],
        0,
    )[0];
    assert!(line.len() < 200);
}

//! Hand-made findings for the tests of the sinks.

use std::sync::Arc;

use crate::enrich::{Capability, Finding, Report, Workload};
use crate::protocol::event::{Pid, Timestamp};
use crate::protocol::observation::{
    Call, CallBegan, CallId, Catalog, CatalogChange, CatalogKind, EstimatedTokens, Fingerprint, Implementation,
    NetworkTransport, Observation, Outcome, Parties, Party, Timing, Transport, Vantage,
};

pub(super) fn parties() -> Parties {
    let implementation = |name: &str| {
        Some(Arc::new(Implementation {
            name: name.into(),
            version: "1.4.0".into(),
        }))
    };
    Parties {
        client: Party {
            pid: Some(Pid(4123)),
            implementation: implementation("agent"),
            ..Party::default()
        },
        server: Party {
            pid: Some(Pid(977)),
            implementation: implementation("weather"),
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

fn workload(name: &str, pid: u32) -> Arc<Workload> {
    Arc::new(Workload {
        name: name.into(),
        namespace: "host".into(),
        pid: Some(Pid(pid)),
        comm: Some("python3".into()),
        runtime: Some("python"),
        uid: Some(1000),
        node: Some("n1".into()),
        ..Workload::default()
    })
}

pub(super) fn report(observation: Observation, operation: &str) -> Finding {
    Finding::Report(Report {
        observation,
        client: workload("agent", 4123),
        server: workload("weather-mcp", 977),
        capability: Arc::new(Capability {
            name: "weather".into(),
            namespace: "host".into(),
        }),
        operation: operation.into(),
    })
}

/// A good call of a tool that took 12.5 ms, one second after the kernel's clock began.
pub(super) fn call(change: impl FnOnce(&mut Call)) -> Finding {
    let mut call = Call {
        number: 1,
        parties: parties(),
        method: "tools/call".into(),
        target: Some("get_forecast".into()),
        target_known: true,
        id: CallId::Integer(7),
        outcome: Outcome::Ok,
        status: 200,
        rpc_code: None,
        http_status: None,
        protocol_version: Some("2025-11-25".into()),
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
        timing: Timing {
            began: Timestamp(1_000_000_000),
            ended: Timestamp(1_012_500_000),
            duration: 12_500_000,
            ..Timing::default()
        },
        request_bytes: 310,
        response_bytes: 2210,
        lossy: false,
        truncated: false,
        inferred: Vec::new(),
    };
    change(&mut call);
    let operation = call.target.as_deref().unwrap_or(&call.method).to_owned();
    report(Observation::Call(Box::new(call)), &operation)
}

pub(super) fn began() -> Finding {
    let began = CallBegan {
        number: 1,
        parties: parties(),
        method: "tools/call".into(),
        target: Some("get_forecast".into()),
        target_known: true,
    };
    report(Observation::CallBegan(began), "get_forecast")
}

/// A catalog of two tools one of which is another than before.
pub(super) fn catalog(change: Option<CatalogChange>) -> Finding {
    let catalog = Catalog {
        parties: parties(),
        kind: CatalogKind::Tools,
        items: 2,
        bytes: 420,
        fingerprint: fingerprint(),
        change,
    };
    report(Observation::Catalog(Box::new(catalog)), "")
}

pub(super) fn fingerprint() -> Fingerprint {
    Fingerprint::of_all(std::iter::empty())
}

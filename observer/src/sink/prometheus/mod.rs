//! Metrics of calls and capabilities, and of the observer itself, for Prometheus to scrape.

mod exposition;
mod families;
mod own;
mod presence;
mod series;
mod traits;

use std::sync::Arc;

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, Registry};
use rustc_hash::FxHashMap;

pub use exposition::{Exposition, Filter};
pub use families::{FAMILIES, Kind, Spec, reference};
pub use own::Vitals;

use families as f;
use own::Own;
use presence::{Place, Presence, Role};
use series::{Budget, Family, Owner};
use traits::Traits;

use super::clock::Anchor;
use super::outcome::error_type;
use crate::enrich::{Capability, Departure, Finding, Report, method_label};
use crate::protocol::event::Timestamp;
use crate::protocol::observation::{Call, Observation, Outcome, Parties, Side, Vantage};

/// Nanoseconds between two looks for workloads that are gone.
const SWEEP_INTERVAL: u64 = 10_000_000_000;

/// Label values of `mcp_capability_info` that one capability may have at once: versions and revisions side by side.
const MAX_INFOS: usize = 8;

/// Turns findings into metrics.
pub struct Metrics {
    registry: Registry,
    budget: Budget,
    presence: Presence,
    swept: Timestamp,
    own: Own,
    server_duration: Family<HistogramVec>,
    client_duration: Family<HistogramVec>,
    calls: Family<IntCounterVec>,
    in_flight: Family<GaugeVec>,
    /// Under whose name each call that is not over was counted; as many as the pipeline has requests pending.
    open: FxHashMap<u64, (Owner, Arc<Capability>)>,
    request_bytes: Family<IntCounterVec>,
    response_bytes: Family<IntCounterVec>,
    queue: Family<HistogramVec>,
    cancellations: Family<IntCounterVec>,
    notifications: Family<IntCounterVec>,
    server_requests: Family<IntCounterVec>,
    late_responses: Family<IntCounterVec>,
    subscriptions: Family<GaugeVec>,
    malformed: Family<IntCounterVec>,
    info: Family<GaugeVec>,
    last_call: Family<GaugeVec>,
    lossy: Family<GaugeVec>,
    traits: Traits,
}

impl Metrics {
    /// Metrics of at most `max_series` series.
    #[must_use]
    pub fn new(max_series: usize) -> Self {
        let registry = Registry::new();
        Self {
            budget: Budget::new(max_series),
            // Everybody has a series at least.
            presence: Presence::new(max_series),
            swept: Timestamp::default(),
            own: Own::new(&registry),
            server_duration: Family::new(&f::SERVER_DURATION, &registry),
            client_duration: Family::new(&f::CLIENT_DURATION, &registry),
            calls: Family::new(&f::CALLS, &registry),
            in_flight: Family::new(&f::IN_FLIGHT, &registry),
            open: FxHashMap::default(),
            request_bytes: Family::new(&f::REQUEST_BYTES, &registry),
            response_bytes: Family::new(&f::RESPONSE_BYTES, &registry),
            queue: Family::new(&f::QUEUE, &registry),
            cancellations: Family::new(&f::CANCELLATIONS, &registry),
            notifications: Family::new(&f::NOTIFICATIONS, &registry),
            server_requests: Family::new(&f::SERVER_REQUESTS, &registry),
            late_responses: Family::new(&f::LATE_RESPONSES, &registry),
            subscriptions: Family::new(&f::SUBSCRIPTIONS, &registry),
            malformed: Family::new(&f::MALFORMED, &registry),
            info: Family::new(&f::INFO, &registry),
            last_call: Family::new(&f::LAST_CALL, &registry),
            lossy: Family::new(&f::LOSSY, &registry),
            traits: Traits::new(&registry),
            registry,
        }
    }

    /// What scrapes read.
    #[must_use]
    pub fn exposition(&self) -> Exposition {
        Exposition(self.registry.clone())
    }

    /// Takes in a finding.
    pub fn take(&mut self, finding: &Finding, anchor: &Anchor, now: Timestamp) {
        match finding {
            Finding::Report(report) => self.report(report, anchor, now),
            Finding::Departure(Departure { workload, .. }) => {
                if let Some(pid) = workload.pid {
                    self.presence.depart(pid, now);
                }
            }
        }
    }

    /// Takes in what the daemon knows of itself, and removes the series of those who are gone.
    pub fn observe_self(&mut self, vitals: &Vitals, now: Timestamp) {
        self.own.set(vitals);
        if now.since(self.swept) >= SWEEP_INTERVAL {
            self.swept = now;
            for owner in self.presence.expire(now) {
                self.retire(owner);
            }
        }
        for (family, total) in self.dropped() {
            self.own.series_dropped(family, total);
        }
    }

    /// Tells whether a probe is in place.
    pub fn probe(&self, name: &str, failure: Option<&str>) {
        self.own.probe(name, if failure.is_none() { 1.0 } else { 0.0 });
    }

    fn report(&mut self, report: &Report, anchor: &Anchor, now: Timestamp) {
        let capability = &report.capability;
        let labels = [capability.name.as_str(), capability.namespace.as_str()];
        let place = match (report.server.pid, report.client.pid) {
            (Some(pid), _) => Place::Here(pid),
            (None, Some(caller)) => Place::Through(caller),
            (None, None) => Place::Unknown,
        };
        let Some(owner) = self.presence.seen(Role::Capability, labels.into(), place, now) else {
            return self.calls.refuse();
        };
        let owners = [owner, 0];
        let budget = &mut self.budget;
        if report.observation.parties().is_some_and(|parties| parties.lossy) {
            let lossy = self.lossy.get(&labels, owners, budget);
            lossy.inspect(|lossy| lossy.set(1.0));
        }
        match &report.observation {
            Observation::CallBegan(_) => self.began(report, labels, owner, now),
            Observation::Call(call) => self.call(report, call, labels, owner, anchor, now),
            Observation::LateResponse(_) => {
                self.late_responses
                    .get(&labels, owners, budget)
                    .inspect(|total| total.inc());
            }
            Observation::Notification { from, .. } => {
                let labels = [labels[0], labels[1], &report.operation, direction(*from)];
                self.notifications
                    .get(&labels, owners, budget)
                    .inspect(|total| total.inc());
            }
            Observation::ServerRequest { .. } => {
                let labels = [labels[0], labels[1], &report.operation];
                self.server_requests
                    .get(&labels, owners, budget)
                    .inspect(|total| total.inc());
            }
            Observation::Malformed { from, reason, .. } => {
                let labels = [labels[0], labels[1], direction(*from), reason.name()];
                self.malformed.get(&labels, owners, budget).inspect(|total| total.inc());
            }
            Observation::Server {
                parties,
                protocol_version,
            } => {
                self.server(report, parties, protocol_version.as_deref(), labels, owner);
            }
            Observation::Subscription { change, .. } => {
                self.subscriptions
                    .get(&labels, owners, budget)
                    .inspect(|open| open.add(f64::from(*change)));
            }
            Observation::Session { change, .. } => self.traits.session(*change, labels, owner, budget),
            Observation::Task(task) => self.traits.task(task, &report.operation, labels, owner, budget),
            Observation::Catalog(catalog) => self.traits.catalog(catalog, labels, owner, budget),
            Observation::PeerExit { .. } | Observation::PeerReplaced { .. } => {}
        }
    }

    /// Series exist from the begin of the first call, so that the first failure is an increase and not a beginning.
    fn began(&mut self, report: &Report, labels: [&str; 2], owner: Owner, now: Timestamp) {
        let Observation::CallBegan(began) = &report.observation else {
            return;
        };
        self.in_flight
            .get(&labels, [owner, 0], &mut self.budget)
            .inspect(|calls| calls.inc());
        self.lossy.get(&labels, [owner, 0], &mut self.budget);
        self.open.insert(began.number, (owner, Arc::clone(&report.capability)));
        // A tool that is not known to exist yet would leave a series of `_unknown` at 0.
        let unproven = began
            .target
            .as_deref()
            .is_some_and(|target| !began.target_known && *target != *report.operation);
        if began.parties.vantage == Vantage::Hop || unproven {
            return;
        }
        self.counters(report, &began.parties, "200", Outcome::Ok, labels, owner, now);
        if began.method == "tools/call" {
            self.counters(report, &began.parties, "500", Outcome::ToolError, labels, owner, now);
        }
    }

    fn call(&mut self, report: &Report, call: &Call, labels: [&str; 2], owner: Owner, anchor: &Anchor, now: Timestamp) {
        self.no_longer_open(call.number);
        if call.parties.vantage == Vantage::Hop {
            return;
        }
        let status = call.status.to_string();
        let [calls, request, response] =
            self.counters(report, &call.parties, &status, call.outcome, labels, owner, now);
        calls.inspect(prometheus::IntCounter::inc);
        request.inspect(|total| total.inc_by(call.request_bytes));
        response.inspect(|total| total.inc_by(call.response_bytes));
        self.durations(report, call, labels, owner);
        self.traits.call(report, call, labels, owner, &mut self.budget);
        let reason = match call.outcome {
            Outcome::Cancelled | Outcome::Timeout | Outcome::ClientGone => Some(call.outcome.name()),
            _ => None,
        };
        if let Some(reason) = reason {
            let labels = [labels[0], labels[1], &report.operation, reason];
            self.cancellations
                .get(&labels, [owner, 0], &mut self.budget)
                .inspect(|total| total.inc());
        }
        let last = self.last_call.get(&labels, [owner, 0], &mut self.budget);
        last.inspect(|last| last.set(anchor.unix_seconds(call.timing.ended)));
    }

    /// A call is over: it leaves the gauge under the name it came in by, whatever its server is called by now.
    fn no_longer_open(&mut self, number: u64) {
        let Some((owner, capability)) = self.open.remove(&number) else {
            return;
        };
        let labels = [capability.name.as_str(), capability.namespace.as_str()];
        self.in_flight
            .get(&labels, [owner, 0], &mut self.budget)
            .filter(|calls| calls.get() >= 1.0)
            .inspect(|calls| calls.dec());
    }

    /// The counters of a call with this end; made at 0 where they are new.
    #[expect(clippy::too_many_arguments, reason = "each is one label or the owner of the series")]
    fn counters(
        &mut self,
        report: &Report,
        parties: &Parties,
        status: &str,
        outcome: Outcome,
        [capability, namespace]: [&str; 2],
        owner: Owner,
        now: Timestamp,
    ) -> [Option<prometheus::IntCounter>; 3] {
        let client = &report.client;
        let (caller, caller_namespace) = (client.name.as_str(), client.namespace.as_str());
        let place = client.pid.map_or(Place::Unknown, Place::Here);
        let Some(presence) = self.presence.seen(Role::Caller, (caller, caller_namespace), place, now) else {
            self.calls.refuse();
            return [None, None, None];
        };
        let owners = [owner, presence];
        let vantage = parties.vantage.name();
        let operation = &report.operation;
        let full = [
            capability,
            namespace,
            operation,
            status,
            outcome.name(),
            caller,
            caller_namespace,
            vantage,
        ];
        let short = [capability, namespace, operation, caller, caller_namespace, vantage];
        [
            self.calls.get(&full, owners, &mut self.budget).cloned(),
            self.request_bytes.get(&short, owners, &mut self.budget).cloned(),
            self.response_bytes.get(&short, owners, &mut self.budget).cloned(),
        ]
    }

    fn durations(&mut self, report: &Report, call: &Call, [capability, namespace]: [&str; 2], owner: Owner) {
        let (method, network) = (method_label(&call.method), call.parties.network.name());
        let (server, client) = match call.parties.vantage {
            Vantage::Server => (Some(call.timing.duration), call.timing.client_duration),
            Vantage::Client => (None, Some(call.timing.duration)),
            Vantage::Hop => (None, None),
        };
        let sides = [
            (&mut self.server_duration, server, Side::Server),
            (&mut self.client_duration, client, Side::Client),
        ];
        for (family, duration, side) in sides {
            let Some(duration) = duration else { continue };
            let error = error_type(call, side).unwrap_or_default();
            let labels = [capability, namespace, &report.operation, method, &error, network];
            family
                .get(&labels, [owner, 0], &mut self.budget)
                .inspect(|times| times.observe(seconds(duration)));
        }
        if let Some(queue) = call.timing.queue {
            let times = self.queue.get(&[capability, namespace], [owner, 0], &mut self.budget);
            times.inspect(|times| times.observe(seconds(queue)));
        }
    }

    fn server(&mut self, report: &Report, parties: &Parties, revision: Option<&str>, labels: [&str; 2], owner: Owner) {
        let implementation = parties.server.implementation.as_ref();
        let labels = [
            labels[0],
            labels[1],
            implementation.map_or("", |known| &known.name),
            implementation.map_or("", |known| &known.version),
            revision.unwrap_or_default(),
            parties.transport.name(),
            report.server.runtime.unwrap_or_default(),
            if parties.tls { "true" } else { "false" },
        ];
        // What says less than this about the same server gives way to it.
        let weaker =
            |old: &[String]| old != labels && old.iter().zip(labels).all(|(old, new)| old.is_empty() || old == new);
        self.info.prune(owner, &mut self.budget, weaker);
        if self.info.count(owner) < MAX_INFOS {
            self.info
                .get(&labels, [owner, 0], &mut self.budget)
                .inspect(|info| info.set(1.0));
        }
    }
}

macro_rules! each_family {
    ($metrics:ident, $do:ident) => {
        $do!($metrics.server_duration);
        $do!($metrics.client_duration);
        $do!($metrics.calls);
        $do!($metrics.in_flight);
        $do!($metrics.request_bytes);
        $do!($metrics.response_bytes);
        $do!($metrics.queue);
        $do!($metrics.cancellations);
        $do!($metrics.notifications);
        $do!($metrics.server_requests);
        $do!($metrics.late_responses);
        $do!($metrics.subscriptions);
        $do!($metrics.malformed);
        $do!($metrics.info);
        $do!($metrics.last_call);
        $do!($metrics.lossy);
        $do!($metrics.traits.first_progress);
        $do!($metrics.traits.tokens);
        $do!($metrics.traits.retries);
        $do!($metrics.traits.input_required);
        $do!($metrics.traits.rate_limited);
        $do!($metrics.traits.load_shed);
        $do!($metrics.traits.tasks);
        $do!($metrics.traits.task_duration);
        $do!($metrics.traits.sessions);
        $do!($metrics.traits.session_duration);
        $do!($metrics.traits.catalog_items);
        $do!($metrics.traits.catalog_bytes);
        $do!($metrics.traits.catalog_changes);
    };
}

impl Metrics {
    fn retire(&mut self, owner: Owner) {
        macro_rules! retire {
            ($family:expr) => {
                $family.retire(owner, &mut self.budget)
            };
        }
        each_family!(self, retire);
    }

    fn dropped(&self) -> Vec<(&'static str, u64)> {
        let mut totals = Vec::new();
        macro_rules! dropped {
            ($family:expr) => {
                totals.push($family.dropped())
            };
        }
        each_family!(self, dropped);
        totals
    }
}

const fn direction(from: Side) -> &'static str {
    match from {
        Side::Client => "client_to_server",
        Side::Server => "server_to_client",
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests;

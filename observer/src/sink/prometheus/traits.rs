//! What marks a capability beyond its calls: how long sessions and tasks last, what it offers, when it refuses, what is
//! asked again, what it costs to read.

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, Registry};

use super::families as f;
use super::seconds;
use super::series::{Budget, Family, Owner};
use crate::enrich::Report;
use crate::protocol::observation::{Call, Catalog, Pressure, SessionChange, TaskEnd};

/// The families.
pub(super) struct Traits {
    pub(super) first_progress: Family<HistogramVec>,
    pub(super) tokens: Family<IntCounterVec>,
    pub(super) retries: Family<IntCounterVec>,
    pub(super) input_required: Family<IntCounterVec>,
    pub(super) rate_limited: Family<IntCounterVec>,
    pub(super) load_shed: Family<IntCounterVec>,
    pub(super) tasks: Family<IntCounterVec>,
    pub(super) task_duration: Family<HistogramVec>,
    pub(super) sessions: Family<GaugeVec>,
    pub(super) session_duration: Family<HistogramVec>,
    pub(super) catalog_items: Family<GaugeVec>,
    pub(super) catalog_bytes: Family<GaugeVec>,
    pub(super) catalog_changes: Family<IntCounterVec>,
}

impl Traits {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            first_progress: Family::new(&f::FIRST_PROGRESS, registry),
            tokens: Family::new(&f::TOKENS, registry),
            retries: Family::new(&f::RETRIES, registry),
            input_required: Family::new(&f::INPUT_REQUIRED, registry),
            rate_limited: Family::new(&f::RATE_LIMITED, registry),
            load_shed: Family::new(&f::LOAD_SHED, registry),
            tasks: Family::new(&f::TASKS, registry),
            task_duration: Family::new(&f::TASK_DURATION, registry),
            sessions: Family::new(&f::SESSIONS, registry),
            session_duration: Family::new(&f::SESSION_DURATION, registry),
            catalog_items: Family::new(&f::CATALOG_ITEMS, registry),
            catalog_bytes: Family::new(&f::CATALOG_BYTES, registry),
            catalog_changes: Family::new(&f::CATALOG_CHANGES, registry),
        }
    }

    pub(super) fn call(
        &mut self,
        report: &Report,
        call: &Call,
        [capability, namespace]: [&str; 2],
        owner: Owner,
        budget: &mut Budget,
    ) {
        let (operation, caller) = (&*report.operation, report.client.name.as_str());
        let owners = [owner, 0];
        if let Some(time) = call.timing.first_progress {
            let times = self
                .first_progress
                .get(&[capability, namespace, operation], owners, budget);
            times.inspect(|times| times.observe(seconds(time)));
        }
        let read = if call.method.ends_with("/list") {
            "catalog"
        } else {
            "result"
        };
        for (kind, tokens) in [("arguments", call.tokens.arguments), (read, call.tokens.result)] {
            if let Some(tokens) = tokens.filter(|tokens| *tokens > 0) {
                let labels = [capability, namespace, operation, caller, kind];
                let total = self.tokens.get(&labels, owners, budget);
                total.inspect(|total| total.inc_by(tokens));
            }
        }
        if call.attempt > 1 {
            let labels = [capability, namespace, operation, caller];
            self.retries.get(&labels, owners, budget).inspect(|total| total.inc());
        }
        if let Some(kind) = call.wants {
            let labels = [capability, namespace, operation, kind.name()];
            self.input_required
                .get(&labels, owners, budget)
                .inspect(|total| total.inc());
        }
        match call.pressure {
            Some(Pressure::RateLimited(signal, origin)) => {
                let labels = [capability, namespace, operation, signal.name(), origin.name()];
                self.rate_limited
                    .get(&labels, owners, budget)
                    .inspect(|total| total.inc());
            }
            Some(Pressure::Shed(_)) => {
                let total = self.load_shed.get(&[capability, namespace], owners, budget);
                total.inspect(|total| total.inc());
            }
            None => {}
        }
    }

    pub(super) fn task(
        &mut self,
        task: &TaskEnd,
        operation: &str,
        [capability, namespace]: [&str; 2],
        owner: Owner,
        budget: &mut Budget,
    ) {
        let labels = [capability, namespace, operation, task.status.name()];
        self.tasks.get(&labels, [owner, 0], budget).inspect(|total| total.inc());
        let times = self.task_duration.get(&labels, [owner, 0], budget);
        times.inspect(|times| times.observe(seconds(task.duration)));
    }

    pub(super) fn session(&mut self, change: SessionChange, labels: [&str; 2], owner: Owner, budget: &mut Budget) {
        let active = self.sessions.get(&labels, [owner, 0], budget);
        match change {
            SessionChange::Began => {
                active.inspect(|active| active.inc());
            }
            SessionChange::Ended { duration, .. } => {
                active
                    .filter(|active| active.get() >= 1.0)
                    .inspect(|active| active.dec());
                if let Some(duration) = duration {
                    let times = self.session_duration.get(&labels, [owner, 0], budget);
                    times.inspect(|times| times.observe(seconds(duration)));
                }
            }
        }
    }

    pub(super) fn catalog(
        &mut self,
        catalog: &Catalog,
        [capability, namespace]: [&str; 2],
        owner: Owner,
        budget: &mut Budget,
    ) {
        let labels = [capability, namespace, catalog.kind.name()];
        let owners = [owner, 0];
        let items = self.catalog_items.get(&labels, owners, budget);
        items.inspect(|items| items.set(catalog.items as f64));
        let bytes = self.catalog_bytes.get(&labels, owners, budget);
        bytes.inspect(|bytes| bytes.set(catalog.bytes as f64));
        let changes = self.catalog_changes.get(&labels, owners, budget);
        if catalog.change.is_some() {
            changes.inspect(|changes| changes.inc());
        }
    }
}

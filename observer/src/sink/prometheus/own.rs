//! The observer of itself: what it took in, what it lost, what it holds.

use prometheus::{CounterVec, Gauge, GaugeVec, IntCounter, IntCounterVec, Opts, Registry};

use super::families::{self, FAMILIES, Spec};
use super::series::Vector;
use crate::protocol::event::DropReason;

/// What the daemon knows of itself at a moment. Counts are totals since start.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    /// Kernel records taken in, by source.
    pub records: Vec<(&'static str, u64)>,
    /// Times and bytes lost, by reason; a reason may come more than once and is then added up.
    pub losses: Vec<(DropReason, u64, u64)>,
    /// Streams held, by state.
    pub streams: [(&'static str, usize); 3],
    /// Bytes of messages that are not whole yet, or not known to be MCP.
    pub held_bytes: usize,
    /// Requests that wait for an answer.
    pub pending: usize,
    /// Entries forgotten, by table.
    pub evictions: Vec<(&'static str, u64)>,
    /// Structured results that were not checked against their tool's schema.
    pub unchecked_results: u64,
    /// Runs that the kernel left out, by program.
    pub skipped_runs: Vec<(String, u64)>,
    /// Seconds in each program, where the kernel keeps them.
    pub run_seconds: Vec<(String, f64)>,
    /// Processes that have a TLS library, by library and how far the way into it is open.
    pub tls_processes: Vec<(&'static str, &'static str, u64)>,
    /// Bytes not copied because a verdict said so.
    pub muted_bytes: u64,
    /// Failed writes, by exporter.
    pub export_failures: Vec<(&'static str, u64)>,
    /// Seconds that the loop was late.
    pub loop_lag: f64,
}

/// The families that carry them.
pub(super) struct Own {
    records: IntCounterVec,
    lost: IntCounterVec,
    lost_bytes: IntCounterVec,
    streams: GaugeVec,
    held: Gauge,
    pending: Gauge,
    evictions: IntCounterVec,
    unchecked: IntCounter,
    probes: GaugeVec,
    skipped: IntCounterVec,
    run_seconds: CounterVec,
    tls_processes: GaugeVec,
    muted: IntCounter,
    series_dropped: IntCounterVec,
    export_failures: IntCounterVec,
    lag: Gauge,
}

impl Own {
    pub(super) fn new(registry: &Registry) -> Self {
        let build: GaugeVec = vector(&families::BUILD_INFO, registry);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let own = Self {
            records: vector(&families::RECORDS, registry),
            lost: vector(&families::LOST, registry),
            lost_bytes: vector(&families::LOST_BYTES, registry),
            streams: vector(&families::STREAMS, registry),
            held: single(&families::HELD_BYTES, registry, Gauge::with_opts),
            pending: single(&families::PENDING, registry, Gauge::with_opts),
            evictions: vector(&families::EVICTIONS, registry),
            unchecked: single(&families::UNCHECKED, registry, IntCounter::with_opts),
            probes: vector(&families::PROBE_ATTACHED, registry),
            run_seconds: vector(&families::RUN_SECONDS, registry),
            skipped: vector(&families::SKIPPED_RUNS, registry),
            tls_processes: vector(&families::TLS_PROCESSES, registry),
            muted: single(&families::MUTED_BYTES, registry, IntCounter::with_opts),
            series_dropped: vector(&families::SERIES_DROPPED, registry),
            export_failures: vector(&families::EXPORT_FAILURES, registry),
            lag: single(&families::LOOP_LAG, registry, Gauge::with_opts),
        };
        for reason in DropReason::ALL {
            own.lost.with_label_values(&[reason.label()]);
            own.lost_bytes.with_label_values(&[reason.label()]);
        }
        for family in FAMILIES.iter().filter(|family| family.labels.contains(&"capability")) {
            own.series_dropped.with_label_values(&[family.name]);
        }
        registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("its names begin with process_");
        own
    }

    pub(super) fn probe(&self, name: &str, attached: f64) {
        self.probes.with_label_values(&[name]).set(attached);
    }

    pub(super) fn series_dropped(&self, family: &str, total: u64) {
        raise(&self.series_dropped.with_label_values(&[family]), total);
    }

    pub(super) fn set(&self, vitals: &Vitals) {
        for (source, total) in &vitals.records {
            raise(&self.records.with_label_values(&[source]), *total);
        }
        for reason in DropReason::ALL {
            let of_reason = vitals.losses.iter().filter(|(lost, _, _)| lost == reason);
            let (times, bytes) = of_reason.fold((0, 0), |sum, (_, times, bytes)| (sum.0 + times, sum.1 + bytes));
            raise(&self.lost.with_label_values(&[reason.label()]), times);
            raise(&self.lost_bytes.with_label_values(&[reason.label()]), bytes);
        }
        for (state, count) in vitals.streams {
            self.streams.with_label_values(&[state]).set(count as f64);
        }
        self.held.set(vitals.held_bytes as f64);
        self.pending.set(vitals.pending as f64);
        for (table, total) in &vitals.evictions {
            raise(&self.evictions.with_label_values(&[table]), *total);
        }
        raise(&self.unchecked, vitals.unchecked_results);
        for (program, total) in &vitals.skipped_runs {
            raise(&self.skipped.with_label_values(&[program]), *total);
        }
        for (program, total) in &vitals.run_seconds {
            let counter = self.run_seconds.with_label_values(&[program]);
            counter.inc_by((total - counter.get()).max(0.0));
        }
        // What nobody has any more is gone.
        self.tls_processes.reset();
        for (library, state, count) in &vitals.tls_processes {
            self.tls_processes
                .with_label_values(&[library, state])
                .set(*count as f64);
        }
        raise(&self.muted, vitals.muted_bytes);
        for (exporter, total) in &vitals.export_failures {
            raise(&self.export_failures.with_label_values(&[exporter]), *total);
        }
        self.lag.set(vitals.loop_lag);
    }
}

fn vector<V: Vector>(spec: &Spec, registry: &Registry) -> V {
    let vector = V::create(spec).expect("names and labels of the table are valid");
    registry
        .register(Box::new(vector.clone()))
        .expect("names of the table are unique");
    vector
}

fn single<M>(spec: &Spec, registry: &Registry, create: impl Fn(Opts) -> prometheus::Result<M>) -> M
where
    M: prometheus::core::Collector + Clone + 'static,
{
    let metric = create(Opts::new(spec.name, spec.help)).expect("names of the table are valid");
    registry
        .register(Box::new(metric.clone()))
        .expect("names of the table are unique");
    metric
}

/// Brings a counter up to a total that is counted elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

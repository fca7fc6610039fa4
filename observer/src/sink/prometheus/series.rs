//! Families with bounded series: each series belongs to a capability and perhaps a caller, and goes when they go.

use ahash::RandomState;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use rustc_hash::FxHashMap;

use super::families::{DURATION_BUCKETS, Spec};

/// Identifies who a series belongs to; 0 is nobody.
pub(super) type Owner = u32;

/// How many series there may be, in all families together.
#[derive(Debug)]
pub(super) struct Budget {
    used: usize,
    limit: usize,
}

impl Budget {
    pub(super) const fn new(limit: usize) -> Self {
        Self { used: 0, limit }
    }

    fn take(&mut self, count: usize) -> bool {
        let fits = self.used + count <= self.limit;
        self.used += if fits { count } else { 0 };
        fits
    }
}

/// The client library's family types, as far as they are alike.
pub(super) trait Vector: Collector + Clone + 'static {
    /// One series.
    type One: Clone;
    /// Lines of the exposition that one series takes.
    const LINES: usize;

    fn create(spec: &Spec) -> prometheus::Result<Self>;
    fn one(&self, labels: &[&str]) -> prometheus::Result<Self::One>;
    fn remove(&self, labels: &[String]) -> prometheus::Result<()>;
}

macro_rules! vector {
    ($type:ty, $lines:expr, $spec:ident => $create:expr) => {
        impl Vector for $type {
            type One = <Self as Unpack>::One;
            const LINES: usize = $lines;

            fn create($spec: &Spec) -> prometheus::Result<Self> {
                $create
            }

            fn one(&self, labels: &[&str]) -> prometheus::Result<Self::One> {
                self.get_metric_with_label_values(labels)
            }

            fn remove(&self, labels: &[String]) -> prometheus::Result<()> {
                self.remove_label_values(labels)
            }
        }
    };
}

/// Names the series type of a family type.
pub(super) trait Unpack {
    /// One series.
    type One: Clone;
}

impl<B: MetricVecBuilder> Unpack for MetricVec<B>
where
    B::M: Clone,
{
    type One = B::M;
}

vector!(IntCounterVec, 1, spec => Self::new(Opts::new(spec.name, spec.help), spec.labels));
vector!(CounterVec, 1, spec => Self::new(Opts::new(spec.name, spec.help), spec.labels));
vector!(GaugeVec, 1, spec => Self::new(Opts::new(spec.name, spec.help), spec.labels));
// The buckets, the one of infinity, sum and count.
vector!(HistogramVec, DURATION_BUCKETS.len() + 3, spec =>
    Self::new(HistogramOpts::new(spec.name, spec.help).buckets(DURATION_BUCKETS.to_vec()), spec.labels));

/// One family whose label values come from observed traffic.
pub(super) struct Family<V: Vector> {
    vector: V,
    /// By a hash of the label values that outsiders cannot foresee.
    live: FxHashMap<u64, Live<V::One>>,
    hasher: RandomState,
    dropped: u64,
    name: &'static str,
}

struct Live<M> {
    metric: M,
    labels: Box<[String]>,
    owners: [Owner; 2],
}

impl<V: Vector> Family<V> {
    /// An empty family, known to `registry`.
    pub(super) fn new(spec: &Spec, registry: &Registry) -> Self {
        let vector = V::create(spec).expect("names and labels of the table are valid");
        registry
            .register(Box::new(vector.clone()))
            .expect("names of the table are unique");
        Self {
            vector,
            live: FxHashMap::default(),
            hasher: RandomState::new(),
            dropped: 0,
            name: spec.name,
        }
    }

    /// The series with these label values, made at 0 if it is new; `None` and counted where the budget is used up.
    pub(super) fn get(&mut self, labels: &[&str], owners: [Owner; 2], budget: &mut Budget) -> Option<&V::One> {
        let hash = self.hasher.hash_one(labels);
        if !self.live.contains_key(&hash) {
            if !budget.take(V::LINES) {
                self.dropped += 1;
                return None;
            }
            let metric = self.vector.one(labels).expect("as many values as the table has labels");
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            self.live.insert(hash, Live { metric, labels, owners });
        }
        self.live.get(&hash).map(|live| &live.metric)
    }

    /// Counts a value that found no room because its owner found none.
    pub(super) fn refuse(&mut self) {
        self.dropped += 1;
    }

    /// Removes the series of an owner.
    pub(super) fn retire(&mut self, owner: Owner, budget: &mut Budget) {
        let vector = &self.vector;
        self.live.retain(|_, live| {
            let gone = live.owners.contains(&owner);
            if gone {
                // It can only fail where two label sets share a hash within the library; then the series is gone already.
                let _ = vector.remove(&live.labels);
                budget.used -= V::LINES;
            }
            !gone
        });
    }

    /// Removes one owner's series that `obsolete` says so of, by their label values.
    pub(super) fn prune(&mut self, owner: Owner, budget: &mut Budget, obsolete: impl Fn(&[String]) -> bool) {
        let vector = &self.vector;
        self.live.retain(|_, live| {
            let gone = live.owners.contains(&owner) && obsolete(&live.labels);
            if gone {
                let _ = vector.remove(&live.labels);
                budget.used -= V::LINES;
            }
            !gone
        });
    }

    /// How many series an owner has.
    pub(super) fn count(&self, owner: Owner) -> usize {
        self.live.values().filter(|live| live.owners.contains(&owner)).count()
    }

    /// Name, and values that found no room.
    pub(super) fn dropped(&self) -> (&'static str, u64) {
        (self.name, self.dropped)
    }
}

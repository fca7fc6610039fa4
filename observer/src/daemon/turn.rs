//! The loop: the only clock and the only select.
//!
//! ```text
//! every 10 ms, at once while the ring is filling:
//!   ring -> Pipeline -> verdicts -> kernel
//!                    -> observations -> Enricher -> Sinks
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Stop, anchor, last_moment};
use crate::capture::recording::{Entry, Reader};
use crate::capture::{self, Capture, ProgramFigures};
use crate::enrich::Enricher;
use crate::protocol::Pipeline;
use crate::protocol::event::{Closed, Direction, DropReason, Event, Pid, StreamKey, Timestamp, Verdict};
use crate::protocol::observation::Output;
use crate::sink::Sinks;
use crate::sink::clock::Anchor;
use crate::sink::health::Health;
use crate::sink::prometheus::Vitals;

/// Time between two turns: short against a call, long against the cost of waking up.
const INTERVAL: Duration = Duration::from_millis(10);

/// Bytes left in the ring after a turn that make the next one begin at once.
const BUSY: usize = 256 << 10;

/// Time between two looks at the daemon itself, which cost system calls.
const SELF_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two looks for streams whose end was lost, which cost system calls for every stream.
const ENDS_INTERVAL: Duration = Duration::from_secs(5);

/// How long the end may go on draining a ring that is being filled, and then waiting for slow readers of our output.
pub(super) const GRACE: Duration = Duration::from_millis(700);

/// Everything between the kernel and the sinks.
pub(super) struct Loop {
    capture: Capture,
    flow: Flow,
    health: Arc<Health>,
    looked: Instant,
    lag: Duration,
    ends: Ends,
}

/// What is known of the ends of streams that found no room in the ring.
struct Ends {
    /// Records that had found no room when they were looked for.
    lost: u64,
    looked: Instant,
}

/// What a recording goes through as well as live records do.
struct Flow {
    pipeline: Pipeline,
    enricher: Enricher,
    sinks: Sinks,
    anchor: Anchor,
    verdicts: Vec<(StreamKey, Verdict)>,
    tally: Tally,
}

/// What the loop itself counts.
#[derive(Debug, Default)]
struct Tally {
    /// Times and bytes by the place of their reason in [`DropReason::ALL`].
    lost: [(u64, u64); DropReason::ALL.len()],
}

impl Loop {
    pub(super) fn new(
        capture: Capture,
        pipeline: Pipeline,
        enricher: Enricher,
        sinks: Sinks,
        health: Arc<Health>,
    ) -> Self {
        let flow = Flow::new(pipeline, enricher, sinks);
        Self {
            capture,
            flow,
            health,
            looked: Instant::now(),
            lag: Duration::ZERO,
            ends: Ends {
                lost: 0,
                looked: Instant::now(),
            },
        }
    }

    /// Turns until `stop` is done, then drains, gives up what is pending and waits for the writers.
    ///
    /// # Errors
    /// When a recording could not be written whole.
    pub(super) fn run(mut self, stop: &Stop) -> anyhow::Result<()> {
        let mut begun = Instant::now();
        loop {
            let due = begun + INTERVAL;
            if stop.is_requested_within(due.saturating_duration_since(Instant::now())) {
                break;
            }
            begun = Instant::now();
            self.lag = self.lag.max(begun.saturating_duration_since(due));
            self.turn();
            while self.capture.backlog() > BUSY {
                // The loop counts as alive and can be stopped, however full the ring is.
                if stop.is_requested_within(Duration::ZERO) {
                    return self.finish();
                }
                self.turn();
            }
            if self.looked.elapsed() >= SELF_INTERVAL {
                self.look_at_self();
            }
            if self.ends.looked.elapsed() >= ENDS_INTERVAL {
                self.make_up_for_ends();
            }
        }
        self.finish()
    }

    /// Where records found no room: ends the streams that the kernel side no longer knows, since some of their ends are lost.
    fn make_up_for_ends(&mut self) {
        self.ends.looked = Instant::now();
        let lost = self.capture.losses().into_iter();
        let lost = lost
            .filter(|(reason, _)| *reason == DropReason::RingFull)
            .map(|(_, count)| count.events)
            .sum();
        if std::mem::replace(&mut self.ends.lost, lost) == lost {
            return;
        }
        let open: Vec<StreamKey> = self.flow.pipeline.open_ends().collect();
        let known = self.capture.streams();
        // What they moved before is in the ring.
        self.turn();
        let now = capture::now();
        for key in open.into_iter().filter(|key| !known.contains(key)) {
            let end = Closed {
                key,
                direction: Direction::Sent,
                readers_left: false,
                writers_left: false,
                pid: Pid(0),
                time: now,
            };
            self.flow.pipeline.handle_missed_end(end);
        }
        self.flow.outputs(now);
    }

    fn turn(&mut self) {
        // Read before draining: what is stamped earlier has been drained when the pipeline is told this time.
        let now = capture::now();
        let flow = &mut self.flow;
        flow.anchor.renew(now, SystemTime::now());
        self.capture.drain(|event| flow.event(event, now));
        flow.timeout(now);
        for (key, verdict) in flow.verdicts.drain(..) {
            self.capture.set_verdict(key, verdict);
        }
        self.health.turn();
    }

    fn finish(mut self) -> anyhow::Result<()> {
        tracing::info!("stopping");
        self.health.set_obstacle(Some("the daemon is stopping".to_owned()));
        let deadline = last_moment();
        self.turn();
        while self.capture.backlog() > 0 && Instant::now() < deadline {
            self.turn();
        }
        self.look_at_self();
        self.flow.finish(capture::now());
        self.capture.end_recording()
    }

    fn look_at_self(&mut self) {
        let lag = std::mem::take(&mut self.lag).as_secs_f64();
        self.looked = Instant::now();
        let flow = &mut self.flow;
        let census = flow.pipeline.census();
        let kernel = self
            .capture
            .losses()
            .into_iter()
            .map(|(reason, count)| (reason, count.events, count.bytes));
        let programs = self.capture.programs();
        let figures = |figure: fn(&ProgramFigures) -> Option<u64>| -> Vec<(String, u64)> {
            let figure_of = |program: &ProgramFigures| Some((program.program.clone(), figure(program)?));
            programs.iter().filter_map(figure_of).collect()
        };
        let dropped = (DropReason::SinkQueue, flow.sinks.dropped_lines(), 0);
        let [processes, capabilities, operations] = flow.enricher.evictions();
        let vitals = Vitals {
            records: self.capture.records().collect(),
            losses: flow.tally.losses().chain(kernel).chain([dropped]).collect(),
            streams: [
                ("mcp", census.streams_mcp),
                ("undecided", census.streams_undecided),
                ("other", census.streams_other),
            ],
            held_bytes: census.held_bytes,
            pending: census.pending,
            evictions: census
                .evictions
                .into_iter()
                .chain([processes, capabilities, operations])
                .collect(),
            unchecked_results: census.unchecked_results,
            skipped_runs: figures(|program| program.skipped_runs),
            run_seconds: figures(|program| program.nanoseconds)
                .into_iter()
                .map(|(program, time)| (program, time as f64 / 1e9))
                .collect(),
            tls_processes: self
                .capture
                .tls_processes()
                .into_iter()
                .map(|(library, state, count)| (library, state.label(), count))
                .collect(),
            muted_bytes: self.capture.muted_bytes(),
            export_failures: flow.sinks.export_failures(),
            loop_lag: lag,
        };
        flow.sinks.metrics().observe_self(&vitals, capture::now());
    }
}

/// Runs a recording through the same flow.
pub(super) fn replay(reader: Reader, pipeline: Pipeline, enricher: Enricher, sinks: Sinks) -> anyhow::Result<()> {
    let mut flow = Flow::new(pipeline, enricher, sinks);
    let mut now = Timestamp::default();
    for entry in reader {
        match entry? {
            Entry::Event(event) => {
                now = now.max(event.time());
                flow.event(event, now);
            }
            Entry::Turn(turned) => {
                now = now.max(turned);
                flow.timeout(turned);
            }
            Entry::Anchor(kernel, wall) => flow.anchor = Anchor::new(kernel, wall),
        }
        flow.verdicts.clear();
    }
    flow.finish(now);
    Ok(())
}

impl Flow {
    fn new(pipeline: Pipeline, enricher: Enricher, sinks: Sinks) -> Self {
        Self {
            pipeline,
            enricher,
            sinks,
            anchor: anchor(),
            verdicts: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn event(&mut self, event: Event, now: Timestamp) {
        self.enricher.glance(&event);
        self.pipeline.handle_event(event);
        self.outputs(now);
    }

    fn timeout(&mut self, now: Timestamp) {
        self.pipeline.handle_timeout(now);
        self.enricher.handle_timeout(now);
        self.outputs(now);
        self.sinks.flush();
    }

    fn finish(mut self, now: Timestamp) {
        self.pipeline.finish(now);
        self.outputs(now);
        self.enricher.finish();
        self.findings(now);
        self.sinks.finish(last_moment());
    }

    fn outputs(&mut self, now: Timestamp) {
        while let Some(output) = self.pipeline.poll_output() {
            match output {
                Output::Observation(observation) => self.enricher.handle_observation(observation, now),
                Output::Verdict(key, verdict) => self.verdicts.push((key, verdict)),
                Output::Lost { reason, bytes } => self.tally.lose(reason, bytes),
            }
        }
        self.findings(now);
    }

    fn findings(&mut self, now: Timestamp) {
        while let Some(finding) = self.enricher.poll_finding() {
            self.sinks.take(&finding, &self.anchor, now);
        }
    }
}

impl Tally {
    fn lose(&mut self, reason: DropReason, bytes: u64) {
        if let Some(place) = DropReason::ALL.iter().position(|known| *known == reason) {
            self.lost[place].0 += 1;
            self.lost[place].1 += bytes;
        }
    }

    fn losses(&self) -> impl Iterator<Item = (DropReason, u64, u64)> {
        DropReason::ALL
            .iter()
            .zip(self.lost)
            .map(|(reason, (times, bytes))| (*reason, times, bytes))
    }
}

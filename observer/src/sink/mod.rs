//! Tells others: metrics, lines, health.

pub mod clock;
pub mod health;
pub mod http;
pub mod json;
mod outcome;
pub mod output;
pub mod pretty;
pub mod prometheus;
pub mod salt;
#[cfg(test)]
mod samples;

use std::time::Instant;

use clock::Anchor;
use json::JsonLines;
use output::Output;
use pretty::PrettyLines;
use prometheus::Metrics;

use crate::enrich::Finding;
use crate::protocol::event::Timestamp;

/// Bytes of lines that are handed over at once when a turn makes many.
const BATCH: usize = 64 << 10;

/// Where lines of one format go.
#[derive(Debug)]
struct Lines {
    outputs: Vec<Output>,
    pending: Vec<u8>,
    count: u64,
}

/// Every sink of the daemon.
pub struct Sinks {
    metrics: Metrics,
    json: JsonLines,
    json_lines: Lines,
    pretty: Option<(PrettyLines, Lines)>,
}

impl Sinks {
    /// Metrics alone; outputs are added.
    #[must_use]
    pub fn new(metrics: Metrics, json: JsonLines) -> Self {
        Self {
            metrics,
            json,
            json_lines: Lines::new(Vec::new()),
            pretty: None,
        }
    }

    /// Sends JSON lines to `output` too.
    pub fn add_json(&mut self, output: Output) {
        self.json_lines.outputs.push(output);
    }

    /// Sends lines for people to `output`.
    pub fn set_pretty(&mut self, lines: PrettyLines, output: Output) {
        self.pretty = Some((lines, Lines::new(vec![output])));
    }

    /// The metrics.
    pub const fn metrics(&mut self) -> &mut Metrics {
        &mut self.metrics
    }

    /// Tells every sink.
    pub fn take(&mut self, finding: &Finding, anchor: &Anchor, now: Timestamp) {
        self.metrics.take(finding, anchor, now);
        if !self.json_lines.outputs.is_empty() {
            self.json_lines.count += self.json.append(finding, anchor, now, &mut self.json_lines.pending);
            self.json_lines.flush_above(BATCH);
        }
        if let Some((format, lines)) = &mut self.pretty {
            lines.count += format.append(finding, anchor, &mut lines.pending);
            lines.flush_above(BATCH);
        }
    }

    /// Hands over what is pending; once a turn.
    pub fn flush(&mut self) {
        for lines in self.lines() {
            lines.flush_above(0);
        }
    }

    /// Lines that slow readers have cost so far.
    pub fn dropped_lines(&mut self) -> u64 {
        self.outputs().map(|output| output.dropped()).sum()
    }

    /// Failed writes so far, by exporter.
    pub fn export_failures(&mut self) -> Vec<(&'static str, u64)> {
        self.outputs()
            .map(|output| (output.name(), output.failures()))
            .collect()
    }

    /// Hands over everything and waits for the writers, at most until `deadline`.
    pub fn finish(mut self, deadline: Instant) {
        self.flush();
        let pretty = self.pretty.map(|(_, lines)| lines.outputs).unwrap_or_default();
        for output in self.json_lines.outputs.into_iter().chain(pretty) {
            output.finish(deadline);
        }
    }

    fn lines(&mut self) -> impl Iterator<Item = &mut Lines> {
        std::iter::once(&mut self.json_lines).chain(self.pretty.as_mut().map(|(_, lines)| lines))
    }

    fn outputs(&mut self) -> impl Iterator<Item = &mut Output> {
        self.lines().flat_map(|lines| &mut lines.outputs)
    }
}

impl Lines {
    const fn new(outputs: Vec<Output>) -> Self {
        Self {
            outputs,
            pending: Vec::new(),
            count: 0,
        }
    }

    fn flush_above(&mut self, bytes: usize) {
        if self.pending.len() > bytes {
            for output in &mut self.outputs {
                output.send(&self.pending, self.count);
            }
            self.pending.clear();
            self.count = 0;
        }
    }
}

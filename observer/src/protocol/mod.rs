//! Turns kernel events into MCP observations: pure, no I/O, no clock, no thread.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods)]

pub mod event;
mod framing;
mod json;
mod jsonrpc;
mod mcp;
mod reassembly;
pub mod observation;

use std::collections::VecDeque;

use event::{Event, Timestamp};
use observation::Output;

/// Bounds of the pipeline.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Streams (both ends of one counted once) remembered at once; the least recently active is evicted.
    pub streams: usize,
    /// Bytes held of one direction of a stream while a message is incomplete.
    pub stream_bytes: usize,
    /// Nanoseconds after which a request without an answer is `unanswered`.
    pub call_deadline: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 16_384,
            stream_bytes: 16 << 20,
            call_deadline: 300_000_000_000,
        }
    }
}

/// What the pipeline holds at the moment, for the observer's metrics of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Streams known to carry MCP.
    pub streams_mcp: usize,
    /// Streams not yet decided.
    pub streams_undecided: usize,
    /// Streams decided not to carry MCP.
    pub streams_other: usize,
    /// Requests waiting for an answer.
    pub pending: usize,
    /// Streams evicted so far.
    pub stream_evictions: u64,
    /// Requests evicted so far.
    pub request_evictions: u64,
}

/// Turns kernel events into MCP observations.
///
/// Does no I/O, reads no clock and spawns nothing. What it knows comes in through `handle_*`, what it concludes comes out
/// through `poll_*`. After each `handle_*`, call `poll_output` until it returns `None`, then `poll_timeout`.
#[derive(Debug)]
pub struct Pipeline {
    outputs: VecDeque<Output>,
}

impl Pipeline {
    /// A pipeline that knows nothing yet.
    #[must_use]
    pub fn new(_limits: Limits) -> Self {
        Self {
            outputs: VecDeque::new(),
        }
    }

    /// Takes in one event.
    pub fn handle_event(&mut self, _event: Event) {}

    /// Takes in that it is now `now`: orders and works through what came before, gives up what is due.
    pub fn handle_timeout(&mut self, _now: Timestamp) {}

    /// What has been concluded, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `handle_timeout` is wanted next; `None` when nothing is pending.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }

    /// Gives up everything that is pending, as at the end of a recording or of the daemon.
    pub fn finish(&mut self, _now: Timestamp) {}

    /// What is held at the moment.
    #[must_use]
    pub fn census(&self) -> Census {
        Census::default()
    }
}

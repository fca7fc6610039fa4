//! What is done with the body of an HTTP message.

use crate::protocol::framing::body::Collector;
use crate::protocol::framing::sse::SseParser;

/// What is done with a body.
#[derive(Debug)]
pub(super) enum Body {
    Skip,
    Whole(Collector),
    Events(Box<SseParser>),
}

impl Body {
    pub(super) fn gap(&mut self, length: u64) {
        match self {
            Self::Skip => {}
            Self::Whole(collector) => collector.gap(length),
            Self::Events(events) => events.gap(length),
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Skip => 0,
            Self::Whole(collector) => collector.held_bytes(),
            Self::Events(events) => events.held_bytes(),
        }
    }
}

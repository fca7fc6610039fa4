//! Puts events in causal order: they wait a moment for others that belong before them.
//!
//! The ring hands records over in the order in which they were written, per CPU and per drain; that is not the order in which
//! things happened. Events are sorted by [`Event::time`] once they are [`ORDER_WAIT`] old. What comes later still is worked
//! through all the same, out of order.

use std::collections::VecDeque;

use super::event::{Event, Timestamp};

/// Nanoseconds that an event waits for earlier ones: far more than a record needs from the kernel to the daemon's next drain.
pub(crate) const ORDER_WAIT: u64 = 20_000_000;

/// Events that may wait; a flood is worked through early, half at a time.
const MAX_EVENTS: usize = 65_536;

/// Bytes that may wait.
const MAX_BYTES: usize = 32 << 20;

/// Events that are not worked through yet.
///
/// ```text
/// events:  1 3 4 7 9 │ 8 2 …
///          in order  │ as they came: most come in order, and are counted so at once
/// ```
#[derive(Debug, Default)]
pub(crate) struct Queue {
    events: VecDeque<Event>,
    bytes: usize,
    /// How many of the first are in order.
    ordered: usize,
    earliest: Option<Timestamp>,
}

impl Queue {
    pub(crate) fn push(&mut self, event: Event) {
        if let Event::Data(data) = &event {
            self.bytes += data.bytes.len();
        }
        let time = event.time();
        if self.ordered == self.events.len() && self.events.back().is_none_or(|last| last.time() <= time) {
            self.ordered += 1;
        }
        self.earliest = Some(self.earliest.map_or(time, |earliest| earliest.min(time)));
        self.events.push_back(event);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.events.len() >= MAX_EVENTS || self.bytes >= MAX_BYTES
    }

    /// Events older than [`ORDER_WAIT`], in order.
    pub(crate) fn take_until(&mut self, now: Timestamp) -> Vec<Event> {
        self.sort();
        let count = self
            .events
            .partition_point(|event| event.time().plus(ORDER_WAIT) <= now);
        self.take(count)
    }

    /// The older half, in order.
    pub(crate) fn take_older_half(&mut self) -> Vec<Event> {
        self.sort();
        self.take(self.events.len().div_ceil(2))
    }

    /// Everything, in order.
    pub(crate) fn take_all(&mut self) -> Vec<Event> {
        self.sort();
        self.take(self.events.len())
    }

    /// When the oldest is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.earliest.map(|time| time.plus(ORDER_WAIT))
    }

    fn sort(&mut self) {
        let newcomers = self.events.range(self.ordered..);
        if let Some(first) = newcomers.map(Event::time).min() {
            // What is no later than any of them stays where it is.
            let late = self
                .events
                .range(..self.ordered)
                .rev()
                .take_while(|event| event.time() > first);
            let from = self.ordered - late.count();
            let mut late: Vec<Event> = self.events.drain(from..).collect();
            late.sort_by_key(Event::time);
            self.events.extend(late);
            self.ordered = self.events.len();
        }
    }

    fn take(&mut self, count: usize) -> Vec<Event> {
        let taken: Vec<Event> = self.events.drain(..count).collect();
        let bytes_of = |event: &Event| match event {
            Event::Data(data) => data.bytes.len(),
            _ => 0,
        };
        self.bytes -= taken.iter().map(bytes_of).sum::<usize>();
        self.ordered -= count;
        self.earliest = self.events.front().map(Event::time);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::event::{Holder, Pid};

    fn at(time: u64) -> Event {
        Event::Holder(Holder {
            pid: Pid(1),
            ends: Vec::new(),
            time: Timestamp(time),
        })
    }

    #[test]
    fn orders_what_is_old_enough() {
        let mut queue = Queue::default();
        for time in [5, 3, ORDER_WAIT + 9, 4] {
            queue.push(at(time));
        }
        assert_eq!(queue.next_due(), Some(Timestamp(3 + ORDER_WAIT)));
        assert_eq!(queue.take_until(Timestamp(ORDER_WAIT + 4)), [at(3), at(4)]);
        assert_eq!(queue.take_all(), [at(5), at(ORDER_WAIT + 9)]);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn is_full_at_its_bound() {
        let mut queue = Queue::default();
        for time in 0..MAX_EVENTS as u64 {
            assert!(!queue.is_full());
            queue.push(at(time));
        }
        assert!(queue.is_full());
        assert_eq!(queue.take_older_half().len(), MAX_EVENTS / 2);
    }
}

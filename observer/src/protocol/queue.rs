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

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// The earliest, if it is older than [`ORDER_WAIT`].
    pub(crate) fn pop_until(&mut self, now: Timestamp) -> Option<Event> {
        self.next_due().filter(|due| *due <= now)?;
        self.pop()
    }

    /// The earliest.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.sort();
        let event = self.events.pop_front()?;
        if let Event::Data(data) = &event {
            self.bytes -= data.bytes.len();
        }
        self.ordered -= 1;
        self.earliest = self.events.front().map(Event::time);
        Some(event)
    }

    /// When the oldest is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.earliest.map(|time| time.plus(ORDER_WAIT))
    }

    fn sort(&mut self) {
        if self.ordered == self.events.len() {
            return;
        }
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
        let due: Vec<Event> = std::iter::from_fn(|| queue.pop_until(Timestamp(ORDER_WAIT + 4))).collect();
        assert_eq!(due, [at(3), at(4)]);
        let rest: Vec<Event> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, [at(5), at(ORDER_WAIT + 9)]);
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
        assert_eq!(queue.len(), MAX_EVENTS);
        assert!(queue.pop().is_some() && !queue.is_full());
    }
}

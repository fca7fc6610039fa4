//! Who moved which bytes of a flow, and when: what turns positions into times.

use std::collections::VecDeque;

use super::event::{Pid, Timestamp};

/// Calls remembered on one side of a flow while a message is incomplete; of more, the middle ones melt together.
const MAX_MARKS: usize = 64;

/// One call that moved bytes `start .. end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    start: u64,
    end: u64,
    /// When it was entered; when it returned where that was not seen.
    pub(crate) entered: Timestamp,
    /// When it returned.
    pub(crate) returned: Timestamp,
    /// By whom.
    pub(crate) pid: Pid,
}

impl Mark {
    pub(crate) fn new(start: u64, span: u32, entered: Option<Timestamp>, returned: Timestamp, pid: Pid) -> Self {
        Self {
            start,
            end: start + u64::from(span),
            entered: entered.unwrap_or(returned).min(returned),
            returned,
            pid,
        }
    }

    /// Position after the last byte.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Whether the call moved the byte before `position`.
    pub(crate) const fn completes(&self, position: u64) -> bool {
        self.start < position && position <= self.end
    }
}

/// The calls on one side (all writes, or all reads) of a flow, in order of position.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    marks: VecDeque<Mark>,
}

impl Marks {
    /// Notes a call; one that only repeats earlier positions is left out.
    pub(crate) fn note(&mut self, mark: Mark) {
        if self.marks.back().is_some_and(|last| mark.end <= last.end) {
            return;
        }
        // One call a message is the rule.
        if self.marks.capacity() == 0 {
            self.marks.reserve_exact(1);
        }
        self.marks.push_back(mark);
        if self.marks.len() > MAX_MARKS
            && let Some(melted) = self.marks.remove(1)
        {
            self.marks[1].start = melted.start;
        }
    }

    /// The call that moved the byte at `position`.
    pub(crate) fn covering(&self, position: u64) -> Option<&Mark> {
        let mark = self.marks.iter().find(|mark| mark.end > position)?;
        (mark.start <= position).then_some(mark)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Forgets calls that moved nothing at or after `position`.
    pub(crate) fn prune(&mut self, position: u64) {
        while self.marks.front().is_some_and(|mark| mark.end <= position) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(start: u64, span: u32) -> Mark {
        Mark::new(start, span, None, Timestamp(start), Pid(1))
    }

    #[test]
    fn finds_the_call_of_a_byte() {
        let mut marks = Marks::default();
        marks.note(mark(0, 10));
        marks.note(mark(10, 5));
        marks.note(mark(10, 5));
        marks.note(mark(20, 5));
        let at = |marks: &Marks, position| marks.covering(position).map(|mark| mark.returned.0);
        assert_eq!(
            [9, 10, 14, 16, 20, 25].map(|position| at(&marks, position)),
            [Some(0), Some(10), Some(10), None, Some(20), None]
        );
        marks.prune(15);
        assert_eq!(at(&marks, 9), None);
    }

    #[test]
    fn keeps_first_and_last_of_many() {
        let mut marks = Marks::default();
        for start in 0..1000 {
            marks.note(mark(start, 1));
        }
        assert_eq!(marks.marks.len(), MAX_MARKS);
        assert_eq!(marks.covering(0).unwrap().returned.0, 0);
        assert_eq!(marks.covering(999).unwrap().returned.0, 999);
    }
}

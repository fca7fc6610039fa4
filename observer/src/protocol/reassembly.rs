//! Puts the bytes of one direction of a stream in order: duplicates trimmed, what came early held, what is missing told.
//!
//! ```text
//! pieces in:    [0..5) [8..12) [3..8)            [20..24)                  … time passes
//! pieces out:   [0..5)         [5..8) [8..12)                              Gap 12..20   [20..24)
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use super::event::{Missing, Position, Timestamp};

/// How long a hole may stay before it is a gap: records of two CPUs differ by microseconds, drains of the ring by
/// milliseconds.
pub(crate) const HOLE_PATIENCE: u64 = 200_000_000;

/// Pieces held of one flow; each is a record's payload, so that this is far more than any reordering needs.
const MAX_HELD_PIECES: usize = 1024;

/// Calls of one flow whose bytes are left to the reader and are still to come.
const MAX_ANNOUNCED: usize = 64;

/// Why bytes are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GapKind {
    /// The kernel side said so and counted it; they lie inside one call.
    Told,
    /// A verdict asked for it.
    Muted,
    /// Nobody said so: a record is missing, which the kernel side counted when it could not write it.
    Missing,
    /// Their sender said that their reader would tell them, and the reader did not.
    Undelivered,
}

/// What comes out, in order and without overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Bytes.
    Bytes {
        /// Position of the first.
        start: u64,
        /// They.
        bytes: Bytes,
        /// Whether they begin where a call's bytes begin.
        fresh: bool,
    },
    /// A hole.
    Gap {
        /// Position of the first missing byte.
        start: u64,
        /// How many.
        length: u64,
        /// Why.
        kind: GapKind,
    },
}

impl Chunk {
    const fn start(&self) -> u64 {
        match self {
            Self::Bytes { start, .. } | Self::Gap { start, .. } => *start,
        }
    }

    const fn end(&self) -> u64 {
        match self {
            Self::Bytes { start, bytes, .. } => *start + bytes.len() as u64,
            Self::Gap { start, length, .. } => *start + *length,
        }
    }
}

/// Reassembles one direction of a stream.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    /// Position of the next byte to give out; `None` before the first.
    next: Option<u64>,
    /// The last position seen, extended to 64 bits.
    reference: Option<u64>,
    /// Nothing will fill a hole any more.
    closed: bool,
    open: Option<Box<Open>>,
}

/// What has not been given out yet.
#[derive(Debug, Default)]
struct Open {
    /// Sorted by start, each with when it came; none begins at or before `next` between calls.
    held: VecDeque<(Timestamp, Chunk)>,
    held_bytes: usize,
    /// Since when `proof` stands.
    proven: Option<Timestamp>,
    /// A reader was seen at this position, so bytes up to here exist.
    proof: u64,
    /// What the sender said that the reader would tell: where each begins and ends, in order.
    announced: VecDeque<(u64, u64)>,
    /// Bytes that came twice.
    duplicate: u64,
}

impl Assembler {
    /// Extends a position to 64 bits: sequence numbers wrap at 2^32 and are taken to be near the last one.
    pub(crate) fn extend(&mut self, position: Position) -> u64 {
        let extended = match position {
            Position::Total(total) => total,
            Position::Sequence(sequence) => {
                // Begins in the second lap, so that a first look back does not go below zero.
                let reference = self.reference.unwrap_or((1 << 32) | u64::from(sequence));
                #[expect(clippy::cast_possible_truncation, reason = "the low half is what is compared")]
                let step = sequence.wrapping_sub(reference as u32).cast_signed();
                reference.saturating_add_signed(i64::from(step))
            }
        };
        self.reference = Some(extended);
        extended
    }

    /// Takes a record in: its bytes and what it says of the rest of its span. `start` comes from [`Self::extend`].
    pub(crate) fn insert(&mut self, start: u64, span: u32, bytes: Bytes, missing: Missing, now: Timestamp) {
        let captured = bytes.len() as u64;
        let rest = u64::from(span).saturating_sub(captured);
        let end = start + captured;
        if captured > 0 {
            let fresh = true;
            self.hold(Chunk::Bytes { start, bytes, fresh }, now);
        }
        let gap = |kind| Chunk::Gap {
            start: end,
            length: rest,
            kind,
        };
        match missing {
            Missing::Lost(_) if rest > 0 => self.hold(gap(GapKind::Told), now),
            Missing::Muted if rest > 0 => self.hold(gap(GapKind::Muted), now),
            Missing::Nothing | Missing::Lost(_) | Missing::Muted | Missing::AtOtherEnd => {}
        }
    }

    /// Takes in that the sender left all but the first `captured` bytes of a span to the reader.
    pub(crate) fn announce(&mut self, start: u64, span: u32, captured: usize) {
        let announced = &mut self.open.get_or_insert_default().announced;
        if announced.len() == MAX_ANNOUNCED {
            announced.pop_front();
        }
        announced.push_back((start + captured as u64, start + u64::from(span)));
    }

    /// Takes in that everything up to `end` has been read: bytes up to here exist, whoever tells them.
    pub(crate) fn read(&mut self, end: u64, now: Timestamp) {
        if self.next.is_none_or(|next| end <= next) {
            return;
        }
        let open = self.open.get_or_insert_default();
        if end > open.proof {
            open.proof = end;
            open.proven.get_or_insert(now);
        }
    }

    fn hold(&mut self, chunk: Chunk, now: Timestamp) {
        let next = *self.next.get_or_insert(chunk.start());
        let open = self.open.get_or_insert_default();
        if chunk.end() <= next {
            open.count_duplicate(&chunk);
        } else {
            open.hold(chunk, now);
        }
    }

    /// The next chunk that can be given out; a hole once it is older than [`HOLE_PATIENCE`] or too much waits behind it.
    pub(crate) fn pop(&mut self, now: Timestamp, max_bytes: usize) -> Option<Chunk> {
        let next = self.next?;
        let open = self.open.as_mut()?;
        let chunk = match open.pop_held(next) {
            Some(chunk) => chunk,
            None => open.pop_hole(next, now, max_bytes, self.closed)?,
        };
        self.next = Some(chunk.end());
        open.given_out(chunk.end());
        Some(chunk)
    }

    /// Takes in that nothing comes any more: holes are gaps at once.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        if let Some(open) = &mut self.open
            && let Some((_, end)) = open.announced.back()
        {
            open.proof = open.proof.max(*end);
        }
    }

    /// Whether the reader is still to tell bytes that the sender left to it.
    pub(crate) fn awaits_reader(&self) -> bool {
        let last = self.open.as_ref().and_then(|open| open.announced.back());
        last.is_some_and(|(_, end)| self.next.is_some_and(|next| *end > next))
    }

    /// Gives back room where everything has gone through. Returns how many bytes came twice since the last time.
    pub(crate) fn rest(&mut self) -> u64 {
        let open = self
            .open
            .take_if(|open| open.announced.is_empty() && open.is_through(self.next));
        open.map_or(0, |open| open.duplicate)
    }

    /// Whether everything that is known to exist has been given out.
    pub(crate) fn is_through(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.is_through(self.next))
    }

    /// Bytes held behind a hole.
    pub(crate) fn held_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.held_bytes)
    }

    /// Bytes that came twice since the last rest.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn duplicate(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.duplicate)
    }

    /// When the hole at the front becomes a gap; `None` while there is none, or while its reader is still to come to it.
    pub(crate) fn patience_ends(&self) -> Option<Timestamp> {
        self.open.as_ref()?.patience_ends(self.next)
    }

    /// Position of the next byte to give out.
    pub(crate) fn next(&self) -> Option<u64> {
        self.next
    }
}

impl Open {
    fn hold(&mut self, chunk: Chunk, now: Timestamp) {
        if let Chunk::Bytes { bytes, .. } = &chunk {
            self.held_bytes += bytes.len();
        }
        // One piece at a time is the rule.
        if self.held.capacity() == 0 {
            self.held.reserve_exact(1);
        }
        let at = self.held.partition_point(|(_, other)| other.start() <= chunk.start());
        self.held.insert(at, (now, chunk));
    }

    fn count_duplicate(&mut self, chunk: &Chunk) {
        if let Chunk::Bytes { bytes, .. } = chunk {
            self.duplicate += bytes.len() as u64;
        }
    }

    /// What is held of the bytes from `next` on.
    fn pop_held(&mut self, next: u64) -> Option<Chunk> {
        while let Some((_, chunk)) = self.held.pop_front_if(|(_, first)| first.start() <= next) {
            if let Chunk::Bytes { bytes, .. } = &chunk {
                self.held_bytes -= bytes.len();
            }
            if chunk.end() > next {
                return Some(trim(chunk, next, &mut self.duplicate));
            }
            self.count_duplicate(&chunk);
        }
        None
    }

    /// The hole at `next`, where there is one and the wait is over.
    fn pop_hole(&self, next: u64, now: Timestamp, max_bytes: usize, closed: bool) -> Option<Chunk> {
        let target = self.held.front().map_or(self.proof, |(_, first)| first.start());
        if target <= next {
            return None;
        }
        let waits_for_reader = self.is_announced(next) && self.proven.is_none();
        let patient = waits_for_reader || self.patience_ends(Some(next)).is_some_and(|end| now < end);
        if patient && !closed && self.held_bytes <= max_bytes && self.held.len() <= MAX_HELD_PIECES {
            return None;
        }
        let (end, kind) = self.explain(next, target);
        Some(Chunk::Gap {
            start: next,
            length: end - next,
            kind,
        })
    }

    /// Everything up to `next` has been given out.
    fn given_out(&mut self, next: u64) {
        if self.proof <= next {
            self.proven = None;
        }
        while self.announced.pop_front_if(|(_, end)| *end <= next).is_some() {}
    }

    /// Where the first part begins and ends, from `next` on, that the reader is to tell.
    fn announced_after(&self, next: u64) -> Option<(u64, u64)> {
        self.announced.iter().copied().find(|(_, end)| *end > next)
    }

    /// Whether the byte at `next` is one that its reader is to tell.
    fn is_announced(&self, next: u64) -> bool {
        self.announced_after(next).is_some_and(|(start, _)| start <= next)
    }

    /// Why the bytes from `next` on are missing, and up to where that is the reason.
    fn explain(&self, next: u64, target: u64) -> (u64, GapKind) {
        match self.announced_after(next) {
            Some((start, end)) if start <= next => (target.min(end), GapKind::Undelivered),
            Some((start, _)) => (target.min(start), GapKind::Missing),
            None => (target, GapKind::Missing),
        }
    }

    fn is_through(&self, next: Option<u64>) -> bool {
        self.held.is_empty() && next.is_none_or(|next| self.proof <= next)
    }

    fn patience_ends(&self, next: Option<u64>) -> Option<Timestamp> {
        let held = self.held.front().map(|(since, _)| *since);
        held.or(self.proven)?;
        let since = if next.is_some_and(|next| self.is_announced(next)) {
            self.proven
        } else {
            held.or(self.proven)
        };
        since.map(|since| since.plus(HOLE_PATIENCE))
    }
}

/// `chunk` from position `next` on.
fn trim(chunk: Chunk, next: u64, duplicate: &mut u64) -> Chunk {
    let start = chunk.start();
    if start >= next {
        return chunk;
    }
    let skip = next - start;
    match chunk {
        Chunk::Bytes { bytes, .. } => {
            *duplicate += skip;
            Chunk::Bytes {
                start: next,
                bytes: bytes.slice(usize::try_from(skip).unwrap_or(bytes.len())..),
                fresh: false,
            }
        }
        Chunk::Gap { length, kind, .. } => Chunk::Gap {
            start: next,
            length: length - skip,
            kind,
        },
    }
}

#[cfg(test)]
mod tests {
    use observer_common::drops::DropReason;
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"abcdefghijklmnopqrstuvwxyz";

    /// Pieces in, then out as text: bytes as they are, a gap as `<kind length>`, at last what is still held.
    fn run(pieces: &[(u64, u64, u32, Missing)], wait: u64) -> String {
        let mut assembler = Assembler::default();
        let mut out = String::new();
        let mut take = |assembler: &mut Assembler, now| {
            while let Some(chunk) = assembler.pop(now, 1 << 20) {
                match chunk {
                    Chunk::Bytes { bytes, .. } => out.push_str(std::str::from_utf8(&bytes).unwrap()),
                    Chunk::Gap { length, kind, .. } => out.push_str(&format!("<{kind:?} {length}>")),
                }
            }
        };
        for &(start, captured, span, missing) in pieces {
            let range = usize::try_from(start).unwrap()..usize::try_from(start + captured).unwrap();
            assembler.insert(start, span, Bytes::copy_from_slice(&TEXT[range]), missing, Timestamp(0));
            if missing == Missing::AtOtherEnd {
                assembler.read(start + u64::from(span), Timestamp(0));
            }
            take(&mut assembler, Timestamp(0));
        }
        take(&mut assembler, Timestamp(wait));
        if assembler.held_bytes() > 0 {
            out.push_str(&format!("({} held)", assembler.held_bytes()));
        }
        out
    }

    #[test]
    fn puts_in_order() {
        let lost = Missing::Lost(DropReason::Fault);
        let here = Missing::Nothing;
        let check = |pieces: &[(u64, u64, u32, Missing)], wait, expected: &str| {
            assert_eq!(run(pieces, wait), expected, "{pieces:?}");
        };
        check(&[(0, 5, 5, here), (5, 3, 3, here)], 0, "abcdefgh");
        check(&[(0, 5, 5, here), (8, 4, 4, here), (3, 5, 5, here)], 0, "abcdefghijkl");
        check(&[(0, 5, 5, here), (0, 5, 5, here)], 0, "abcde");
        check(&[(0, 5, 5, here), (8, 2, 2, here)], 0, "abcde(2 held)");
        check(&[(0, 5, 5, here), (8, 2, 2, here)], HOLE_PATIENCE, "abcde<Missing 3>ij");
        check(&[(0, 2, 6, lost), (6, 2, 2, here)], 0, "ab<Told 4>gh");
        check(&[(0, 2, 6, Missing::Muted), (6, 2, 2, here)], 0, "ab<Muted 4>gh");
        check(&[(0, 2, 6, Missing::AtOtherEnd), (2, 4, 4, here)], 0, "abcdef");
        check(&[(0, 2, 6, Missing::AtOtherEnd)], HOLE_PATIENCE, "ab<Missing 4>");
        check(&[(4, 0, 6, Missing::AtOtherEnd), (10, 2, 2, here)], HOLE_PATIENCE, "kl");
    }

    #[test]
    fn a_slow_reader_is_waited_for() {
        let mut assembler = Assembler::default();
        let piece = |assembler: &mut Assembler, start, bytes: &'static [u8], now| {
            let span = u32::try_from(bytes.len()).unwrap();
            assembler.insert(start, span, Bytes::from_static(bytes), Missing::Nothing, Timestamp(now));
        };
        piece(&mut assembler, 0, b"a", 0);
        assert!(assembler.pop(Timestamp(0), 100).is_some());
        // Ten bytes are left to the reader; what was written behind them is here.
        assembler.announce(1, 10, 0);
        piece(&mut assembler, 11, b"z", 0);
        let late = Timestamp(100 * HOLE_PATIENCE);
        assert_eq!((assembler.pop(late, 100), assembler.patience_ends()), (None, None));
        // It reads half of them, and later more than was told.
        piece(&mut assembler, 1, b"bcdef", late.0);
        assembler.read(6, late);
        assert!(matches!(assembler.pop(late, 100), Some(Chunk::Bytes { start: 1, .. })));
        assembler.read(12, late);
        assert_eq!(assembler.pop(late, 100), None);
        let lost = Chunk::Gap {
            start: 6,
            length: 5,
            kind: GapKind::Undelivered,
        };
        assert_eq!(assembler.pop(late.plus(HOLE_PATIENCE), 100), Some(lost));
    }

    #[test]
    fn a_reader_that_told_before_its_writer_is_not_waited_for() {
        let mut assembler = Assembler::default();
        assembler.insert(0, 5, Bytes::from_static(b"abcde"), Missing::Nothing, Timestamp(0));
        assert!(assembler.pop(Timestamp(0), 100).is_some());
        assembler.announce(0, 5, 0);
        assembler.insert(7, 1, Bytes::from_static(b"h"), Missing::Nothing, Timestamp(0));
        let hole = Chunk::Gap {
            start: 5,
            length: 2,
            kind: GapKind::Missing,
        };
        assert_eq!(assembler.pop(Timestamp(HOLE_PATIENCE), 100), Some(hole));
    }

    #[test]
    fn what_a_reader_never_told_is_lost_at_the_end() {
        let mut assembler = Assembler::default();
        assembler.insert(0, 1, Bytes::from_static(b"a"), Missing::Nothing, Timestamp(0));
        assembler.announce(1, 10, 0);
        assert!(assembler.pop(Timestamp(0), 100).is_some());
        assert_eq!(assembler.pop(Timestamp(HOLE_PATIENCE), 100), None);
        assembler.close();
        assert!(matches!(
            assembler.pop(Timestamp(HOLE_PATIENCE), 100),
            Some(Chunk::Gap { length: 10, .. })
        ));
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut assembler = Assembler::default();
        let first = assembler.extend(Position::Sequence(u32::MAX - 1));
        assert_eq!(assembler.extend(Position::Sequence(3)), first + 5);
        assert_eq!(assembler.extend(Position::Sequence(u32::MAX)), first + 1);
    }

    #[test]
    fn too_many_pieces_end_the_wait() {
        let mut assembler = Assembler::default();
        assembler.insert(0, 1, Bytes::from_static(b"x"), Missing::Nothing, Timestamp(0));
        for piece in 0..=MAX_HELD_PIECES as u64 {
            assembler.insert(2 + piece, 1, Bytes::from_static(b"x"), Missing::Nothing, Timestamp(0));
        }
        let given = std::iter::from_fn(|| assembler.pop(Timestamp(0), 1 << 20)).count();
        assert_eq!(given, MAX_HELD_PIECES + 3);
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same_text(cuts in proptest::collection::vec((0_u64..26, 1_u64..8), 0..20)) {
            let mut pieces: Vec<_> = cuts
                .into_iter()
                .map(|(start, length)| (start, length.min(26 - start)))
                .map(|(start, length)| (start, length, u32::try_from(length).unwrap(), Missing::Nothing))
                .collect();
            pieces.insert(0, (0, 1, 1, Missing::Nothing));
            pieces.push((0, 26, 26, Missing::Nothing));
            let given = run(&pieces, 0);
            prop_assert_eq!(given.as_bytes(), TEXT);
        }
    }
}

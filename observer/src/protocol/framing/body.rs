//! Collects the pieces of one message body within a bound.
//!
//! A body that came in one piece is handed on without a copy. One that is longer than the bound, or has a hole, keeps its
//! head and its tail: some senders write the id first, some last.

use bytes::{Bytes, BytesMut};

use crate::protocol::jsonrpc::Payload;

/// Bytes kept of each end of a body that cannot be kept whole.
pub(crate) const KEPT_END: usize = 64 << 10;

/// A body in the making.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    head: Head,
    /// The last bytes, once the body is cut.
    tail: BytesMut,
    length: u64,
    cut: bool,
    /// Bytes that were let go because the body is too long.
    dropped: u64,
}

#[derive(Debug, Default)]
enum Head {
    #[default]
    Empty,
    One(Bytes),
    Many(BytesMut),
}

impl Collector {
    pub(crate) fn push(&mut self, piece: Bytes, max_bytes: usize) {
        if piece.is_empty() {
            return;
        }
        self.length += piece.len() as u64;
        if self.cut {
            return self.push_tail(&piece);
        }
        if self.held_bytes() + piece.len() > max_bytes {
            self.shorten();
            return self.push_tail(&piece);
        }
        self.head = match std::mem::take(&mut self.head) {
            Head::Empty => Head::One(piece),
            Head::One(first) => {
                let mut many = BytesMut::with_capacity((first.len() + piece.len()).max(4096));
                many.extend_from_slice(&first);
                many.extend_from_slice(&piece);
                Head::Many(many)
            }
            Head::Many(mut many) => {
                many.extend_from_slice(&piece);
                Head::Many(many)
            }
        };
    }

    /// A hole of `length` bytes.
    pub(crate) fn gap(&mut self, length: u64) {
        self.length += length;
        self.cut = true;
        self.dropped += self.tail.len() as u64;
        self.tail.clear();
    }

    /// Keeps only both ends of what is there.
    fn shorten(&mut self) {
        self.cut = true;
        let all = self.take_head();
        if all.len() > 2 * KEPT_END {
            self.tail = BytesMut::from(&all[all.len() - KEPT_END..]);
            self.dropped += (all.len() - 2 * KEPT_END) as u64;
            self.head = Head::One(Bytes::copy_from_slice(&all[..KEPT_END]));
        } else {
            self.head = Head::One(all);
        }
    }

    fn push_tail(&mut self, piece: &[u8]) {
        let piece_end = &piece[piece.len().saturating_sub(KEPT_END)..];
        self.dropped += (piece.len() - piece_end.len()) as u64;
        // Twice the room, so that shifting costs one move a byte.
        if self.tail.len() + piece_end.len() > 2 * KEPT_END {
            let old = self.tail.len().min(KEPT_END);
            self.dropped += (self.tail.len() - old) as u64;
            self.tail = BytesMut::from(&self.tail[self.tail.len() - old..]);
        }
        self.tail.extend_from_slice(piece_end);
    }

    /// Its last byte so far.
    pub(crate) fn last(&self) -> Option<u8> {
        let head: &[u8] = match &self.head {
            Head::Empty => &[],
            Head::One(piece) => piece,
            Head::Many(many) => many,
        };
        self.tail.last().or_else(|| head.last()).copied()
    }

    fn take_head(&mut self) -> Bytes {
        match std::mem::take(&mut self.head) {
            Head::Empty => Bytes::new(),
            Head::One(piece) => piece,
            Head::Many(many) => many.freeze(),
        }
    }

    /// Bytes let go since the last time.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// The body.
    pub(crate) fn take(&mut self) -> Payload {
        Payload {
            bytes: self.take_head(),
            tail: std::mem::take(&mut self.tail).freeze(),
            length: std::mem::take(&mut self.length),
            cut: std::mem::take(&mut self.cut),
            guessed: false,
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn held_bytes(&self) -> usize {
        let head = match &self.head {
            Head::Empty => 0,
            Head::One(piece) => piece.len(),
            Head::Many(many) => many.len(),
        };
        head + self.tail.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_both_ends_of_what_is_too_long() {
        let mut collector = Collector::default();
        for piece in 0..1000_u32 {
            collector.push(Bytes::from(format!("{piece:01000}")), 100_000);
            assert!(collector.held_bytes() <= 200_000 + 2 * KEPT_END);
        }
        let dropped = collector.take_dropped();
        let payload = collector.take();
        assert!(payload.cut && payload.length == 1_000_000);
        assert!(payload.bytes.starts_with(b"000") && payload.tail.ends_with(b"0999"));
        assert_eq!(
            payload.bytes.len() as u64 + payload.tail.len() as u64 + dropped,
            1_000_000
        );
    }

    #[test]
    fn one_piece_is_not_copied() {
        let piece = Bytes::from_static(b"abc");
        let mut collector = Collector::default();
        collector.push(piece.clone(), 10);
        assert_eq!(collector.take().bytes.as_ptr(), piece.as_ptr());
    }
}

//! The content of one HTTP message: decoded, then kept whole, cut into events, or let go; and where its bytes went.

use bytes::Bytes;

use super::SseEvent;
use super::body::Collector;
use super::coding::{Coding, Codings, Decoder, Fault};
use super::head::Media;
use super::sse::SseParser;
use crate::protocol::jsonrpc::Payload;
use crate::protocol::observation::MalformedReason;

/// Where a framer's bytes went since that was last told.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Into frames, or they are no part of any.
    pub(crate) used: u64,
    /// They are of no use any more.
    pub(crate) lost: u64,
    /// The same, because a message was too long.
    pub(crate) too_long: u64,
    /// The rule that the peer broke.
    pub(crate) broken: Option<MalformedReason>,
}

impl Tally {
    pub(crate) const fn is_empty(&self) -> bool {
        self.used == 0 && self.lost == 0 && self.too_long == 0 && self.broken.is_none()
    }
}

/// The content of one message.
#[derive(Debug, Default)]
pub(crate) struct Content {
    shape: Shape,
    code: Code,
    /// Bytes of the stream that were taken in and are not tallied yet.
    held: u64,
    /// It came and was not read: its coding is not known, or it would not end.
    unread: bool,
}

/// What is made of a content.
#[derive(Debug, Default)]
enum Shape {
    #[default]
    Skip,
    Whole(Collector),
    Events(Box<SseParser>),
    /// Its type is not known: the first byte tells.
    Untold,
}

/// How the bytes of the stream become those of the content.
#[derive(Debug, Default)]
enum Code {
    #[default]
    Plain,
    Coded(Box<Decoder>),
    /// The first byte tells.
    Untold,
    /// A hole came: what follows cannot be decoded.
    Torn,
}

impl Content {
    pub(crate) fn new(media: Media, coding: Codings) -> Self {
        let unread = !coding.are_known();
        let shape = match media {
            _ if unread => Shape::Skip,
            Media::Events => Shape::Events(Box::default()),
            Media::Untold => Shape::Untold,
            Media::Json | Media::Grpc | Media::Other => Shape::Whole(Collector::default()),
        };
        let code = match coding.decoder() {
            Some(decoder) => Code::Coded(Box::new(decoder)),
            None if coding == Codings::UNTOLD => Code::Untold,
            None => Code::Plain,
        };
        Self {
            shape,
            code,
            held: 0,
            unread,
        }
    }

    /// Takes in a piece that begins at `at`. Events must have been taken out before.
    pub(crate) fn take_in(&mut self, at: u64, piece: Bytes, max_bytes: usize, tally: &mut Tally) {
        let (length, end) = (piece.len() as u64, at + piece.len() as u64);
        if matches!(self.shape, Shape::Skip) {
            tally.used += length;
            return;
        }
        self.held += length;
        let Some(piece) = self.decode(piece, tally) else {
            return;
        };
        if let (Shape::Untold, Some(first)) = (&self.shape, piece.first()) {
            // `data`, `event`, `id`, `retry`, a comment or a byte order mark.
            self.shape = if matches!(first, b'd' | b'e' | b'i' | b'r' | b':' | 0xef) {
                Shape::Events(Box::default())
            } else {
                Shape::Whole(Collector::default())
            };
        }
        match &mut self.shape {
            Shape::Whole(collector) => {
                collector.push(piece, max_bytes);
                let dropped = collector.take_dropped();
                // Of coded bytes it cannot be said which ones were dropped: this piece stands for them.
                let dropped = if self.is_coded() { dropped.min(length) } else { dropped };
                tally.too_long += dropped;
                self.held -= dropped;
            }
            Shape::Events(events) => events.feed(at, end, piece),
            Shape::Skip | Shape::Untold => {}
        }
    }

    fn decode(&mut self, piece: Bytes, tally: &mut Tally) -> Option<Bytes> {
        if let (Code::Untold, Some(first)) = (&self.code, piece.first()) {
            self.code = match Decoder::new(Coding::of(*first)) {
                Some(decoder) => Code::Coded(Box::new(decoder)),
                None => Code::Plain,
            };
        }
        let fault = match &mut self.code {
            Code::Plain | Code::Untold => return Some(piece),
            Code::Torn => {
                self.held -= piece.len() as u64;
                tally.lost += piece.len() as u64;
                return None;
            }
            Code::Coded(decoder) => match decoder.decode(&piece) {
                Ok(piece) => return Some(piece),
                Err(fault) => fault,
            },
        };
        let held = std::mem::take(&mut self.held);
        match fault {
            Fault::Corrupt => {
                tally.lost += held;
                tally.broken = Some(MalformedReason::BadHttp);
            }
            Fault::TooMuch => {
                tally.too_long += held;
                self.unread = true;
            }
        }
        (self.shape, self.code) = (Shape::Skip, Code::Plain);
        None
    }

    /// The next event as `(start, end, event)`, where the content is a stream of them.
    pub(crate) fn event(&mut self, max_bytes: usize, tally: &mut Tally) -> Option<(u64, u64, SseEvent)> {
        let Shape::Events(events) = &mut self.shape else {
            return None;
        };
        let event = events.step(max_bytes);
        let dropped = std::mem::take(&mut events.dropped);
        let left = match events.held_bytes() as u64 {
            0 => 0,
            // How many of the coded bytes that is cannot be said: all, until none is left.
            _ if self.is_coded() && event.is_none() && dropped == 0 => self.held,
            _ if self.is_coded() => 0,
            left => left.min(self.held),
        };
        let gone = self.held - left;
        self.held = left;
        let dropped = dropped.min(gone);
        tally.too_long += dropped;
        tally.used += gone - dropped;
        if let (Some(_), Code::Coded(decoder)) = (&event, &mut self.code) {
            decoder.settle();
        }
        event
    }

    /// A hole of `length` bytes.
    pub(crate) fn gap(&mut self, length: u64) {
        if self.is_coded() {
            self.code = Code::Torn;
        }
        match &mut self.shape {
            Shape::Skip | Shape::Untold => {}
            Shape::Whole(collector) => collector.gap(length),
            Shape::Events(events) => events.gap(length),
        }
    }

    /// The content is over; what was kept of it, if anything. Where it is no `good`, that is lost.
    pub(crate) fn finish(&mut self, good: bool, tally: &mut Tally) -> Option<Payload> {
        let held = std::mem::take(&mut self.held);
        *(if good { &mut tally.used } else { &mut tally.lost }) += held;
        match std::mem::take(&mut self.shape) {
            Shape::Whole(mut collector) if good && !collector.is_empty() => Some(collector.take()),
            _ => None,
        }
    }

    /// It is of no interest.
    pub(crate) fn skip(&mut self, tally: &mut Tally) {
        tally.used += std::mem::take(&mut self.held);
        (self.shape, self.code) = (Shape::Skip, Code::Plain);
    }

    /// There is no room for it.
    pub(crate) fn refuse(&mut self, tally: &mut Tally) {
        if !matches!(self.shape, Shape::Skip) {
            tally.too_long += std::mem::take(&mut self.held);
            (self.shape, self.code, self.unread) = (Shape::Skip, Code::Plain, true);
        }
    }

    /// Bytes of memory that it takes, its decoder's aside.
    pub(crate) fn room(&self) -> usize {
        match &self.shape {
            Shape::Skip | Shape::Untold => 0,
            Shape::Whole(collector) => collector.held_bytes(),
            Shape::Events(events) => events.held_bytes(),
        }
    }

    const fn is_coded(&self) -> bool {
        matches!(self.code, Code::Coded(_) | Code::Torn)
    }

    /// Whether it came and was not read.
    pub(crate) const fn is_unread(&self) -> bool {
        self.unread
    }

    /// Position of the first byte of the event in the making, `None` between events; of other contents `whole`.
    pub(crate) fn start(&self, whole: u64) -> Option<u64> {
        match &self.shape {
            Shape::Events(events) => events.event_start(),
            Shape::Skip | Shape::Whole(_) | Shape::Untold => Some(whole),
        }
    }

    /// Bytes of the stream that are held.
    pub(crate) const fn held_bytes(&self) -> u64 {
        self.held
    }
}

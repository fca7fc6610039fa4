//! HTTP/1.1 messages (RFC 9112): heads, and bodies by length, by chunks or until close.
//!
//! ```text
//!          head complete                 body complete
//! Head ───────────────────► body state ────────────────► Done ──► Head
//!  ▲  a hole, or not HTTP        │ a hole longer than the rest
//!  └────── Seek ◄────────────────┘      (leaves at the next call that begins like a message)
//! ```

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use observer_common::drops::DropReason;

use super::content::{Content, Tally};
use super::head::{Media, Words};
use super::{Ending, Frame, FrameKind, Next, Step};
use crate::protocol::observation::{MalformedReason, Side};
use crate::protocol::reassembly::Chunk;

mod chunked;
mod head;

use head::{END_OF_HEAD, Framing, Head, PREFACE, end_of_head};
pub(crate) use head::{begins_message, begins_with_start_line, sender_of};

/// Bytes of a head; servers refuse more than 8 to 64 KiB.
const MAX_HEAD: usize = 64 << 10;

/// Cuts one direction of a connection into messages.
#[derive(Debug)]
pub(crate) struct HttpFramer {
    input: Bytes,
    /// Position of the first byte of `input`.
    at: u64,
    /// Position of the first byte of the message.
    start: u64,
    state: State,
    /// The head or the chunk line so far, when it began in an earlier chunk.
    partial: BytesMut,
    content: Content,
    words: Words,
    /// Messages whose head was read.
    heads: u64,
    is_response: bool,
    tally: Tally,
    rejected: bool,
    /// After a hole: a message is taken to begin here, which its head has yet to show.
    guessed: bool,
    /// The input begins the message after the one that is torn.
    next_begins: bool,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// A hole came in the middle of a head: it is read as far as it goes.
    TornHead,
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    /// The message is over; its body and end are to be handed out.
    Done(Ending),
    /// Lost: looks for the beginning of a message, or of a chunk where `chunked`.
    Seek {
        chunked: bool,
    },
}

impl HttpFramer {
    /// A framer for a stream whose next byte is at `at`.
    pub(crate) fn new(at: u64) -> Self {
        Self {
            input: Bytes::new(),
            at,
            start: at,
            state: State::Head,
            partial: BytesMut::new(),
            content: Content::default(),
            words: Words::default(),
            heads: 0,
            is_response: false,
            tally: Tally::default(),
            rejected: false,
            guessed: false,
            next_begins: false,
            ended: false,
        }
    }

    /// A framer for what `sender` writes after its messages so far.
    pub(super) fn after(sender: Side) -> Self {
        Self {
            heads: 1,
            is_response: sender == Side::Server,
            ..Self::new(0)
        }
    }

    /// What follows, where it holds nothing and has nothing to tell.
    pub(super) fn next_message(&self) -> Option<Next> {
        let nothing = self.held_bytes() == 0 && self.tally.is_empty();
        let between = self.state == State::Head && self.heads > 0 && !self.guessed && !self.ended && !self.rejected;
        let next = if self.is_response {
            Next::Response
        } else {
            Next::Request
        };
        (nothing && between).then_some(next)
    }

    /// A framer for a stream of which so many bytes before `at` are `lost`.
    pub(super) fn after_loss(at: u64, lost: u64) -> Self {
        let mut framer = Self::new(at);
        framer.tally.lost = lost;
        framer
    }

    pub(crate) fn feed(&mut self, chunk: Chunk) {
        match chunk {
            Chunk::Bytes { start, bytes, fresh } => {
                debug_assert!(self.input.is_empty(), "who waits is not fed");
                self.input = bytes;
                self.at = start;
                if let (State::Seek { chunked }, true) = (self.state, fresh) {
                    self.seek(chunked);
                }
            }
            Chunk::Gap { start, length, .. } => self.gap(start, length),
        }
    }

    /// Leaves [`State::Seek`] when the input begins like a message or a chunk.
    fn seek(&mut self, chunked: bool) {
        if begins_message(&self.input) {
            self.guessed = true;
            self.start = if chunked { self.start } else { self.at };
            // What is there of a message that was torn comes out before the next one.
            self.next_begins = chunked;
            self.state = if chunked { State::Done(Ending::Gap) } else { State::Head };
        } else if chunked && head::begins_chunk(&self.input) {
            self.state = State::ChunkSize;
        }
    }

    fn gap(&mut self, start: u64, length: u64) {
        self.tally.lost += self.input.len() as u64;
        self.input.clear();
        self.at = start + length;
        self.state = match self.state {
            State::Length(left) if length <= left => {
                self.content.gap(length);
                State::Length(left - length)
            }
            State::ChunkData(left) if length <= left => {
                self.content.gap(length);
                State::ChunkData(left - length)
            }
            State::UntilClose => {
                self.content.gap(length);
                State::UntilClose
            }
            State::Length(left) => {
                self.content.gap(left);
                State::Done(Ending::Gap)
            }
            State::ChunkData(_) | State::ChunkSize | State::ChunkEnd | State::Trailers => {
                self.content.gap(length);
                State::Seek { chunked: true }
            }
            State::Head if !self.partial.is_empty() => {
                self.state = State::TornHead;
                return;
            }
            state @ (State::Done(_) | State::TornHead | State::Seek { chunked: true }) => state,
            State::Head | State::Seek { .. } => State::Seek { chunked: false },
        };
        self.lose_partial();
    }

    fn lose_partial(&mut self) {
        self.tally.lost += self.partial.len() as u64;
        self.partial.clear();
    }

    pub(crate) fn step(&mut self, max_bytes: usize) -> Step {
        loop {
            if let Some(step) = self.report() {
                return step;
            }
            let step = match self.state {
                State::Head => self.head(),
                State::TornHead => self.read_partial(true),
                State::Length(0) => self.done(Ending::Whole),
                State::Length(left) => self.data(left, max_bytes),
                State::ChunkSize => self.chunk_size(),
                State::ChunkData(0) => self.chunk_over(),
                State::ChunkData(left) => self.data(left, max_bytes),
                State::ChunkEnd => self.chunk_end(),
                State::Trailers => self.trailers(),
                State::UntilClose => self.data(u64::MAX, max_bytes),
                State::Done(ending) => return self.hand_out(ending),
                State::Seek { .. } => {
                    self.drop_input();
                    Some(Step::NeedMore)
                }
            };
            match step {
                Some(Step::NeedMore) => return self.idle(),
                Some(step) => return step,
                None => {}
            }
        }
    }

    /// The input is used up: at the stream's end, what is incomplete is over too.
    fn idle(&mut self) -> Step {
        if !self.ended {
            return self.report().unwrap_or(Step::NeedMore);
        }
        self.ended = false;
        self.lose_partial();
        match self.state {
            State::UntilClose => self.state = State::Done(Ending::Whole),
            State::Length(_) | State::ChunkSize | State::ChunkData(_) | State::ChunkEnd | State::Trailers => {
                self.state = State::Done(Ending::Short);
            }
            State::Seek { chunked: true } => self.state = State::Done(Ending::Gap),
            State::Head | State::TornHead | State::Seek { .. } | State::Done(_) => {
                return self.report().unwrap_or(Step::NeedMore);
            }
        }
        self.step(0)
    }

    /// One piece of body.
    fn data(&mut self, left: u64, max_bytes: usize) -> Option<Step> {
        if let Some(step) = self.event(max_bytes) {
            return Some(step);
        }
        if self.input.is_empty() {
            return Some(Step::NeedMore);
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
        let piece = self.input.split_to(length);
        self.content.take_in(self.at, piece, max_bytes, &mut self.tally);
        self.at += length as u64;
        match &mut self.state {
            State::Length(left) | State::ChunkData(left) => *left -= length as u64,
            _ => {}
        }
        None
    }

    /// Events left in the parser come first.
    fn done(&mut self, ending: Ending) -> Option<Step> {
        if let Some(step) = self.event(usize::MAX) {
            return Some(step);
        }
        self.state = State::Done(ending);
        None
    }

    fn chunk_over(&mut self) -> Option<Step> {
        if let Some(step) = self.event(usize::MAX) {
            return Some(step);
        }
        self.state = State::ChunkEnd;
        None
    }

    fn event(&mut self, max_bytes: usize) -> Option<Step> {
        let (start, end, event) = self.content.event(max_bytes, &mut self.tally)?;
        let kind = FrameKind::Event(event);
        Some(Step::Frame(Frame::of(start..end, kind)))
    }

    /// This is no HTTP, or no longer: the message is over and the next one is looked for.
    fn give_up(&mut self, bytes: usize) {
        self.tally.broken = (!std::mem::take(&mut self.guessed)).then_some(MalformedReason::BadHttp);
        self.tally.lost += bytes as u64 + self.partial.len() as u64;
        self.partial.clear();
        self.drop_input();
        self.state = State::Done(Ending::Short);
    }

    fn give_up_line(&mut self, line: &[u8]) {
        self.tally.used -= line.len() as u64;
        self.give_up(line.len());
    }

    fn drop_input(&mut self) {
        self.tally.lost += self.input.len() as u64;
        self.at += self.input.len() as u64;
        self.input.clear();
    }

    fn report(&mut self) -> Option<Step> {
        let broken = self.tally.broken.take();
        let (reason, lost) = if self.tally.too_long > 0 {
            (DropReason::StreamTooLong, &mut self.tally.too_long)
        } else if self.ended || matches!(self.state, State::Done(Ending::Short)) {
            (DropReason::CutShort, &mut self.tally.lost)
        } else {
            (DropReason::Resync, &mut self.tally.lost)
        };
        let bytes = std::mem::take(lost);
        (bytes > 0 || broken.is_some()).then_some(Step::Lost { reason, bytes, broken })
    }

    fn head(&mut self) -> Option<Step> {
        if self.partial.is_empty() {
            let blank = self
                .input
                .iter()
                .take_while(|byte| matches!(byte, b'\r' | b'\n'))
                .count();
            self.input.advance(blank);
            self.at += blank as u64;
            self.tally.used += blank as u64;
            self.start = self.at;
        }
        if self.input.is_empty() {
            return Some(Step::NeedMore);
        }
        let known = self.partial.len();
        if known == 0
            && begins_message(&self.input)
            && let Some(length) = end_of_head(&self.input)
        {
            // The head is in one piece, as nearly all are: it is read where it is.
            let text = &self.input[..length];
            let read = Head::parse(text, false, &mut self.words);
            let preface = text == PREFACE;
            self.input.advance(length);
            self.at += length as u64;
            return self.head_over(read, preface, length);
        }
        self.partial.extend_from_slice(&self.input);
        let searched = known.saturating_sub(END_OF_HEAD.len() - 1);
        let found = end_of_head(&self.partial[searched..]).map(|end| searched + end - known);
        let part = found.unwrap_or(self.input.len());
        self.input.advance(part);
        self.at += part as u64;
        self.partial.truncate(known + part);
        if !begins_message(&self.partial) {
            self.reject();
            return None;
        }
        if found.is_some() {
            return self.read_partial(false);
        }
        if self.partial.len() > MAX_HEAD {
            self.give_up(0);
            self.state = State::Seek { chunked: false };
            return None;
        }
        Some(Step::NeedMore)
    }

    /// Reads `partial`, which ends where the head ends.
    fn read_partial(&mut self, torn: bool) -> Option<Step> {
        let text = self.partial.split();
        let read = Head::parse(&text, torn, &mut self.words);
        let step = self.head_over(read, text == PREFACE, text.len());
        if torn && self.state != (State::Seek { chunked: false }) {
            self.state = State::Done(Ending::Gap);
        }
        step
    }

    /// A head of `length` bytes came to its end; `read` is `None` where it is none.
    fn head_over(&mut self, read: Option<(Head, Framing)>, preface: bool, length: usize) -> Option<Step> {
        if preface {
            self.tally.used += length as u64;
            return Some(Step::Frame(Frame::of(self.start..self.at, FrameKind::Preface)));
        }
        let Some((head, framing)) = read else {
            self.give_up(length);
            self.state = State::Seek { chunked: false };
            return None;
        };
        self.heads += 1;
        self.guessed = false;
        self.tally.used += length as u64;
        self.is_response = matches!(head, Head::Response(_));
        self.state = match framing {
            Framing::None => State::Length(0),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        let (kind, media, coding) = match head {
            Head::Request(head) => {
                let coding = head.coding;
                (FrameKind::Request(Arc::new(head)), Media::Json, coding)
            }
            Head::Response(head) => {
                let (media, coding) = (head.media, head.coding);
                (FrameKind::Response(head), media, coding)
            }
        };
        self.content = Content::new(media, coding);
        let (start, end) = (self.start, self.at);
        Some(Step::Frame(Frame::of(start..end, kind)))
    }

    /// What began like a message is none. Before the first message that means another framing.
    fn reject(&mut self) {
        if self.heads == 0 {
            self.rejected = true;
            let begun = self.partial.split();
            self.input = [begun.as_ref(), self.input.as_ref()].concat().into();
            self.at = self.start;
            self.state = State::Seek { chunked: false };
            return;
        }
        self.give_up(0);
        self.state = State::Seek { chunked: false };
    }

    fn hand_out(&mut self, ending: Ending) -> Step {
        let (start, end) = (self.start, self.at);
        if let Some(payload) = self.content.finish(ending != Ending::Short, &mut self.tally) {
            let kind = FrameKind::Body(payload);
            return Step::Frame(Frame::of(start..end, kind));
        }
        if let Some(step) = self.report() {
            return step;
        }
        self.state = match ending {
            Ending::Whole | Ending::Unread => State::Head,
            Ending::Gap if std::mem::take(&mut self.next_begins) => State::Head,
            Ending::Gap | Ending::Short => State::Seek { chunked: false },
        };
        self.start = end;
        let unread = ending == Ending::Whole && self.content.is_unread();
        self.content = Content::default();
        let ending = if unread { Ending::Unread } else { ending };
        let kind = FrameKind::End(ending);
        Step::Frame(Frame::of(start..end, kind))
    }

    /// The message whose head came last has no body whatever its fields say: it answers a HEAD request.
    pub(crate) fn expect_no_body(&mut self) {
        self.state = State::Length(0);
    }

    /// The body of the message whose head came last is of no interest.
    pub(crate) fn skip_body(&mut self) {
        self.content.skip(&mut self.tally);
    }

    /// The bytes that turned out not to be HTTP, with their position.
    pub(crate) fn take_rejected(&mut self) -> Option<(u64, Bytes)> {
        std::mem::take(&mut self.rejected).then(|| (self.at, std::mem::take(&mut self.input)))
    }

    /// The bytes after a head that ended HTTP on this connection, with their position.
    pub(crate) fn take_rest(&mut self) -> (u64, Bytes) {
        (self.at, std::mem::take(&mut self.input))
    }

    /// Whether the next step begins a response.
    pub(crate) fn at_response(&self) -> bool {
        let begins = self.state == State::Head && self.partial.is_empty() && !self.input.is_empty();
        begins && (self.is_response || self.input[0] == b'H')
    }

    pub(super) fn take_used(&mut self) -> u64 {
        std::mem::take(&mut self.tally.used)
    }

    pub(crate) fn finish(&mut self) {
        self.ended = true;
    }

    pub(crate) fn message_start(&self) -> u64 {
        self.content.start(self.start).unwrap_or(self.at)
    }

    /// Bytes of memory that the message takes.
    pub(crate) fn room(&self) -> usize {
        self.input.len() + self.partial.len() + self.content.room()
    }

    /// Bytes that are neither used nor told as lost.
    pub(crate) fn held_bytes(&self) -> usize {
        let rest = self.content.held_bytes() + self.tally.lost;
        self.input.len() + self.partial.len() + usize::try_from(rest).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests;

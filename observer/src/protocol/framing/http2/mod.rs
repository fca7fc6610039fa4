//! HTTP/2 messages (RFC 9113): many streams in one flow of frames, each with its head and its content.
//!
//! ```text
//!           ┌────────────── next frame ───────────────┐
//! Preface ► Header ─► Data      content of its stream ─┤
//!             ▲   └─► Payload   header block, GOAWAY  ─┤
//!             │   └─► Skip      what does not matter  ─┘
//!             └── Seek ◄── a hole longer than the frame, or no frame
//! ```
//!
//! What peers agree on in SETTINGS need not be known: the encoder itself says in its blocks how large its table is, and longer
//! frames say so in their headers.

mod data;
mod frame;
mod message;
mod sync;

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use observer_common::drops::DropReason;

pub(crate) use self::frame::sender_of;
use self::frame::{CONTINUATION, DATA, FrameHeader, GOAWAY, HEADER, HEADERS, PUSH_PROMISE, RST_STREAM};
use self::message::{Block, Message};
use super::content::Tally;
use super::head::Words;
use super::hpack;
use super::{Ending, Frame, FrameKind, NOISE_BYTES, Step};
use crate::protocol::observation::{MalformedReason, Side};
use crate::protocol::reassembly::Chunk;

/// What follows the head-like part of a client's preface (section 3.4).
pub(super) const PREFACE_BODY: usize = b"SM\r\n\r\n".len();

/// Bytes of a header block, and of another frame that is read whole; servers refuse more than 8 to 64 KiB.
const MAX_BLOCK: usize = 64 << 10;

/// Messages in the making in one direction; servers allow 100 to 250 streams at once.
const MAX_MESSAGES: usize = 256;

/// Cuts one direction of a connection into messages.
#[derive(Debug)]
pub(crate) struct Http2Framer {
    input: Bytes,
    /// Position of the first byte of `input`.
    at: u64,
    /// Position of the first byte of the frame.
    start: u64,
    state: State,
    /// The frame's header, or the payload that is read whole, when it began in an earlier chunk.
    partial: BytesMut,
    /// The header block in the making.
    block: Option<Block>,
    hpack: hpack::Decoder,
    words: Words,
    /// Which side sends, once that is known.
    sender: Option<Side>,
    messages: BTreeMap<u32, Message>,
    /// Bytes of memory that they take.
    room: usize,
    /// The message whose events are to be handed out, and how it ended if it did.
    current: Option<(u32, Option<Ending>)>,
    ready: VecDeque<Frame>,
    tally: Tally,
    /// A response begins; whether its request is known has not been asked yet.
    asks: bool,
    /// Heads may have gone by unseen.
    late: bool,
    /// Bytes let go since the last frame.
    sought: u64,
    heads: u64,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of the preface are left.
    Preface(usize),
    Header,
    Payload(FrameHeader),
    Data {
        stream: u32,
        /// Bytes of the payload.
        left: u32,
        /// How many of them are padding; not known yet where the payload says so itself.
        padding: Option<u32>,
        last: bool,
    },
    Skip(u32),
    Seek,
}

/// Whether bytes that begin a call's begin with frames.
pub(crate) fn begins_frames(bytes: &[u8]) -> bool {
    frame::begins(bytes, 1)
}

impl Http2Framer {
    /// A framer for a connection from its beginning, be it a client's, whose next byte is at `at`.
    pub(super) fn new(at: u64, sender: Side, preface: usize) -> Self {
        Self {
            input: Bytes::new(),
            at,
            start: at,
            state: State::Preface(preface),
            partial: BytesMut::new(),
            block: None,
            hpack: hpack::Decoder::new(),
            words: Words::default(),
            sender: Some(sender),
            messages: BTreeMap::new(),
            room: 0,
            current: None,
            ready: VecDeque::new(),
            tally: Tally::default(),
            asks: false,
            late: false,
            sought: 0,
            heads: 0,
            ended: false,
        }
    }

    /// A framer for a connection that is joined in the middle, with so many bytes `lost` before.
    pub(super) fn late(at: u64, lost: u64) -> Self {
        let mut framer = Self::new(at, Side::Client, 0);
        framer.sender = None;
        framer.tally.lost = lost;
        framer.lose_place();
        framer
    }

    pub(super) fn feed(&mut self, chunk: Chunk) {
        match chunk {
            Chunk::Bytes { start, bytes, fresh } => {
                debug_assert!(self.input.is_empty(), "who waits is not fed");
                self.at = start;
                self.input = bytes;
                if self.state == State::Seek {
                    self.seek(fresh);
                }
            }
            Chunk::Gap { start, length, .. } => self.gap(start, length),
        }
    }

    pub(super) fn step(&mut self, max_bytes: usize) -> Step {
        self.asks = false;
        loop {
            if let Some(step) = self.report() {
                return step;
            }
            if let Some(frame) = self.ready.pop_front().or_else(|| self.hand_out(max_bytes)) {
                return Step::Frame(frame);
            }
            if !self.ready.is_empty() {
                continue;
            }
            let goes_on = match self.state {
                State::Preface(0) => self.next_frame(),
                State::Preface(left) => self.skip(left, State::Preface),
                State::Header => self.header(),
                State::Payload(header) => self.payload(header),
                State::Data { left: 0, .. } => self.next_frame(),
                State::Data { padding: None, .. } => self.pad_length(),
                State::Data { .. } => self.data(max_bytes),
                State::Skip(0) => self.next_frame(),
                State::Skip(left) => self.skip(left as usize, |left| State::Skip(u32::try_from(left).unwrap_or(0))),
                State::Seek => {
                    self.seek(false);
                    self.state != State::Seek
                }
            };
            if self.asks {
                return Step::Response;
            }
            if !goes_on && self.ready.is_empty() && !self.is_over() {
                return self.report().unwrap_or(Step::NeedMore);
            }
        }
    }

    /// At the stream's end, what is incomplete is over too: one message at a time.
    fn is_over(&mut self) -> bool {
        if !self.ended || self.current.is_some() {
            return self.current.is_some();
        }
        if let Some(stream) = self.messages.keys().next() {
            self.current = Some((*stream, Some(Ending::Short)));
            return true;
        }
        self.lose_block();
        false
    }

    fn next_frame(&mut self) -> bool {
        self.state = State::Header;
        true
    }

    fn skip(&mut self, left: usize, state: fn(usize) -> State) -> bool {
        let length = left.min(self.input.len());
        self.take(length);
        self.tally.used += length as u64;
        self.state = state(left - length);
        length > 0
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.at += length as u64;
        self.input.split_to(length)
    }

    /// `length` bytes in a row; `None` while they are not all here.
    fn whole(&mut self, length: usize) -> Option<Bytes> {
        if self.partial.is_empty() && self.input.len() >= length {
            return Some(self.take(length));
        }
        let more = (length - self.partial.len()).min(self.input.len());
        let part = self.take(more);
        self.partial.extend_from_slice(&part);
        (self.partial.len() == length).then(|| self.partial.split().freeze())
    }

    fn header(&mut self) -> bool {
        if self.partial.is_empty() {
            self.start = self.at;
        }
        let bytes = self.whole(HEADER);
        let Some(header) = bytes.as_deref().and_then(<[u8]>::first_chunk) else {
            return false;
        };
        let header = FrameHeader::read(*header);
        let expected = match &self.block {
            Some(block) => header.kind == CONTINUATION && header.stream == block.stream,
            None => header.kind != CONTINUATION || self.late,
        };
        if !header.is_lawful() || !expected {
            self.tally.lost += HEADER as u64;
            self.tally.broken = (self.heads > 0).then_some(MalformedReason::BadHttp);
            self.lose_place();
            return true;
        }
        self.sought = 0;
        self.tally.used += HEADER as u64;
        self.begin(header);
        true
    }

    fn begin(&mut self, header: FrameHeader) {
        let FrameHeader {
            length, kind, stream, ..
        } = header;
        self.state = match kind {
            DATA => {
                self.expect(stream);
                State::Data {
                    stream,
                    left: length,
                    padding: (!header.is_padded()).then_some(0),
                    last: header.ends_stream(),
                }
            }
            HEADERS | PUSH_PROMISE | CONTINUATION if length as usize > MAX_BLOCK => {
                self.lose_block();
                State::Skip(length)
            }
            CONTINUATION if self.block.is_none() => State::Skip(length),
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                let answers = kind == HEADERS && self.sender == Some(Side::Server);
                self.asks = answers && !self.messages.contains_key(&stream);
                State::Payload(header)
            }
            GOAWAY if length as usize <= MAX_BLOCK => State::Payload(header),
            RST_STREAM => {
                self.close(stream);
                self.push(stream, FrameKind::Reset);
                State::Skip(length)
            }
            _ => State::Skip(length),
        };
        if let State::Data {
            left: 0, last: true, ..
        } = self.state
        {
            self.end_stream(stream);
        }
    }

    fn payload(&mut self, header: FrameHeader) -> bool {
        let Some(payload) = self.whole(header.length as usize) else {
            return false;
        };
        self.state = State::Header;
        if header.kind == GOAWAY {
            self.tally.used += payload.len() as u64;
            let last = payload
                .first_chunk()
                .map_or(0, |last| u32::from_be_bytes(*last) & 0x7fff_ffff);
            self.push(0, FrameKind::GoAway(last));
        } else {
            self.fragment(header, &payload);
        }
        true
    }

    fn push(&mut self, stream: u32, kind: FrameKind) {
        let (start, end) = (self.start, self.at);
        self.ready.push_back(Frame {
            start,
            end,
            stream,
            kind,
        });
    }

    fn report(&mut self) -> Option<Step> {
        let broken = self.tally.broken.take();
        let (reason, lost) = if self.tally.too_long > 0 {
            (DropReason::StreamTooLong, &mut self.tally.too_long)
        } else if self.ended {
            (DropReason::CutShort, &mut self.tally.lost)
        } else {
            (DropReason::Resync, &mut self.tally.lost)
        };
        let bytes = std::mem::take(lost);
        (bytes > 0 || broken.is_some()).then_some(Step::Lost { reason, bytes, broken })
    }

    /// The stream of the response that the next step begins.
    pub(super) const fn next_response(&self) -> Option<u32> {
        match self.state {
            State::Payload(header) if self.asks => Some(header.stream),
            _ => None,
        }
    }

    /// Whether frames are looked for, so that something else may have begun.
    pub(super) fn is_lost(&self) -> bool {
        self.state == State::Seek
    }

    pub(super) fn take_used(&mut self) -> u64 {
        std::mem::take(&mut self.tally.used)
    }

    /// Bytes that went into frames of another framing before this one.
    pub(super) fn add_used(&mut self, bytes: u64) {
        self.tally.used += bytes;
    }

    pub(super) fn finish(&mut self) {
        self.ended = true;
    }

    /// Position of the first byte of the frame, or of the header block that it continues.
    pub(super) const fn message_start(&self) -> u64 {
        match &self.block {
            Some(block) => block.start,
            None => self.start,
        }
    }

    pub(super) fn rest(&mut self) {
        if self.input.is_empty() {
            self.input = Bytes::new();
        }
        if self.partial.is_empty() {
            self.partial = BytesMut::new();
        }
        self.ready.shrink_to_fit();
        self.words = Words::default();
        self.hpack.rest();
    }

    /// Bytes of memory that messages take.
    pub(super) fn room(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |block| block.bytes.len());
        self.input.len() + self.partial.len() + block + self.room
    }

    /// Bytes that are neither used nor told as lost.
    pub(super) fn held_bytes(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |block| block.bytes.len());
        let contents: u64 = self.messages.values().map(|message| message.content.held_bytes()).sum();
        let rest = contents + self.tally.lost;
        self.input.len() + self.partial.len() + block + usize::try_from(rest).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests;

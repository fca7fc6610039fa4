//! Cuts a stream's bytes into message bodies and what the transport says of them.
//!
//! The framing is found from the bytes, never from the kind of object: newline-delimited JSON and HTTP can each ride on any
//! byte stream. Whatever comes in, a step is a frame, a wish for more, or a counted loss.

pub(crate) mod body;
pub(crate) mod coding;
pub(crate) mod content;
pub(crate) mod head;
pub(crate) mod hpack;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod line;
pub(crate) mod sse;

use std::ops::Range;
use std::sync::Arc;

use observer_common::drops::DropReason;

use self::head::{RequestHead, ResponseHead};
use self::http1::HttpFramer;
use self::http2::Http2Framer;
use self::line::LineFramer;
use super::jsonrpc::Payload;
use super::observation::{MalformedReason, Side};
use super::reassembly::Chunk;

/// Bytes of something that is no text after which a stream is given up. A stream joined in the middle of a binary body
/// deserves some patience; more than 64 KiB may not be copied in vain.
const NOISE_BYTES: u64 = 32 << 10;

/// Of bytes given up as noise, one in so many is at least no text. Random bytes have one in eight.
const NOISE_SHARE: u64 = 32;

/// Who writes bytes that begin a message, where it can be seen.
pub(crate) fn sender_of(bytes: &[u8]) -> Option<Side> {
    http1::sender_of(bytes).or_else(|| http2::sender_of(bytes))
}

/// What a framer did with its input.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// One unit is complete.
    Frame(Frame),
    /// All input is used up.
    NeedMore,
    /// A response begins: see [`Framer::next_response`].
    Response,
    /// Bytes had to be dropped.
    Lost {
        /// Why.
        reason: DropReason,
        /// How many.
        bytes: u64,
        /// The rule that the peer broke, where it did.
        broken: Option<MalformedReason>,
    },
}

/// One unit of a stream.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame {
    /// Position of the first byte.
    pub(crate) start: u64,
    /// Position after the last byte.
    pub(crate) end: u64,
    /// Of HTTP/2: the stream it is part of; else 0, which in HTTP/2 is the connection itself.
    pub(crate) stream: u32,
    /// What it is.
    pub(crate) kind: FrameKind,
}

impl Frame {
    /// A frame that is no part of a stream of HTTP/2.
    pub(crate) const fn of(place: Range<u64>, kind: FrameKind) -> Self {
        Self {
            start: place.start,
            end: place.end,
            stream: 0,
            kind,
        }
    }
}

/// Kinds of frame.
#[derive(Debug, PartialEq)]
pub(crate) enum FrameKind {
    /// A line that begins like a JSON object or array.
    Line(Payload),
    /// A line that does not.
    Stray,
    /// Head of an HTTP request.
    Request(Arc<RequestHead>),
    /// Head of an HTTP response.
    Response(ResponseHead),
    /// A client begins HTTP/2; what follows are its frames.
    Preface,
    /// The body of an HTTP message whose head came before.
    Body(Payload),
    /// One event of a `text/event-stream` body.
    Event(SseEvent),
    /// The HTTP message is over; the flag says whether all of it came.
    End(Ending),
    /// The sender gives the stream up.
    Reset,
    /// The sender ends the connection, and will not answer what was asked on later streams than this.
    GoAway(u32),
    /// Enough was seen: the stream is no text.
    Noise,
}

/// How an HTTP message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As announced.
    Whole,
    /// Bytes of it are missing, by no fault of the peer's.
    Gap,
    /// The connection ended before.
    Short,
    /// All of it came, but its content was not read: its coding is not known, or it decodes to more than is allowed.
    Unread,
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Whether `event` was `endpoint`.
    pub(crate) endpoint: bool,
    /// `data`, lines joined by newline.
    pub(crate) data: Payload,
}

/// The framing of one direction of a stream.
#[derive(Debug)]
pub(crate) enum Framer {
    /// Between messages, of which nothing is held.
    Between(Next),
    /// Lines; until the first JSON-RPC message it watches for HTTP and for noise.
    Line(Box<LineFramer>, Suspicion),
    /// HTTP/1.1.
    Http(Box<HttpFramer>),
    /// HTTP/2.
    Http2(Box<Http2Framer>),
    /// Nothing of interest: bytes are let go.
    Ignore,
}

impl Default for Framer {
    fn default() -> Self {
        Self::Between(Next::Line(Suspicion::Open(Noise::default())))
    }
}

/// What follows between messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A line.
    Line(Suspicion),
    /// A request of HTTP/1.1.
    Request,
    /// A response of HTTP/1.1.
    Response,
}

/// Whether a stream of lines may still turn out to be something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// It may.
    Open(Noise),
    /// It carries JSON-RPC.
    Settled,
}

/// Bytes seen and those among them that no text has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noise {
    seen: u64,
    binary: u64,
}

impl Noise {
    fn add(&mut self, bytes: &[u8]) {
        let is_binary = |byte: &&u8| matches!(**byte, 0..=8 | 11 | 12 | 14..=26 | 28..=31 | 127 | 0xc0 | 0xc1 | 0xf5..);
        self.seen += bytes.len() as u64;
        self.binary += bytes.iter().filter(is_binary).count() as u64;
    }

    const fn is_noise(self) -> bool {
        self.seen >= NOISE_BYTES && self.binary * NOISE_SHARE >= self.seen
    }
}

impl Framer {
    /// A framer for HTTP/2 from its beginning, written by `sender`, whose next byte is at `at`.
    pub(crate) fn http2(at: u64, sender: Side) -> Self {
        Self::Http2(Box::new(Http2Framer::new(at, sender, 0)))
    }

    /// Takes in the next chunk; call [`Self::step`] until it wants more.
    pub(crate) fn feed(&mut self, chunk: Chunk) {
        if let Self::Between(next) = self {
            *self = match next {
                Next::Line(suspicion) => Self::Line(Box::new(LineFramer::new(*suspicion)), *suspicion),
                Next::Request => Self::Http(Box::new(HttpFramer::after(Side::Client))),
                Next::Response => Self::Http(Box::new(HttpFramer::after(Side::Server))),
            };
        }
        if let Chunk::Bytes { start, bytes, fresh } = &chunk {
            self.recognise(*start, bytes, *fresh);
        }
        match self {
            Self::Line(line, _) => line.feed(chunk),
            Self::Http(http) => http.feed(chunk),
            Self::Http2(http) => http.feed(chunk),
            Self::Between(_) | Self::Ignore => {}
        }
    }

    /// Looks whether another framing begins here.
    fn recognise(&mut self, at: u64, bytes: &[u8], fresh: bool) {
        match self {
            Self::Line(line, Suspicion::Open(noise)) => {
                if fresh && line.may_be_other() && http1::begins_message(bytes) {
                    let lost = line.held_bytes() as u64;
                    *self = Self::Http(Box::new(HttpFramer::after_loss(at, lost)));
                } else if fresh && http2::begins_frames(bytes) {
                    // No JSON has such bytes: the line in the making was part of a content.
                    let lost = line.held_bytes() as u64;
                    *self = Self::Http2(Box::new(Http2Framer::late(at, lost)));
                } else {
                    noise.add(bytes);
                }
            }
            // What was taken for a line of its own was the content of a message whose head went by unseen.
            Self::Line(line, Suspicion::Settled)
                if fresh && line.may_be_other() && http1::begins_with_start_line(bytes) =>
            {
                let lost = line.held_bytes() as u64;
                *self = Self::Http(Box::new(HttpFramer::after_loss(at, lost)));
            }
            Self::Http2(http) if fresh && http.is_lost() && http1::begins_message(bytes) => {
                *self = Self::Http(Box::new(HttpFramer::new(at)));
            }
            Self::Between(_) | Self::Line(..) | Self::Http(_) | Self::Http2(_) | Self::Ignore => {}
        }
    }

    /// Goes on by one step.
    pub(crate) fn step(&mut self, max_bytes: usize) -> Step {
        match self {
            Self::Line(line, suspicion) => match line.step(max_bytes) {
                Step::NeedMore if matches!(suspicion, Suspicion::Open(noise) if noise.is_noise()) => {
                    Step::Frame(Frame::of(line.position()..line.position(), FrameKind::Noise))
                }
                step => step,
            },
            Self::Http(http) => {
                let step = http.step(max_bytes);
                if matches!(&step, Step::Frame(frame) if frame.kind == FrameKind::Preface) {
                    let used = http.take_used();
                    let (start, bytes) = http.take_rest();
                    let mut http = Http2Framer::new(start, Side::Client, http2::PREFACE_BODY);
                    http.add_used(used);
                    let fresh = false;
                    http.feed(Chunk::Bytes { start, bytes, fresh });
                    *self = Self::Http2(Box::new(http));
                }
                step
            }
            Self::Http2(http) => http.step(max_bytes),
            Self::Between(_) | Self::Ignore => Step::NeedMore,
        }
    }

    /// The response that the next step begins, by its stream.
    pub(crate) fn next_response(&self) -> Option<u32> {
        match self {
            Self::Http(http) => http.at_response().then_some(0),
            Self::Http2(http) => http.next_response(),
            Self::Between(_) | Self::Line(..) | Self::Ignore => None,
        }
    }

    /// The content of the message whose head came last, on that stream, is of no interest.
    pub(crate) fn skip_body(&mut self, stream: u32) {
        match self {
            Self::Http(http) => http.skip_body(),
            Self::Http2(http) => http.skip_body(stream),
            Self::Between(_) | Self::Line(..) | Self::Ignore => {}
        }
    }

    /// The message whose head came last has no content whatever its fields say.
    pub(crate) fn expect_no_body(&mut self, stream: u32) {
        match self {
            Self::Http(http) => http.expect_no_body(),
            Self::Http2(http) => http.skip_body(stream),
            Self::Between(_) | Self::Line(..) | Self::Ignore => {}
        }
    }

    /// Takes in that this carries JSON-RPC. After an event stream joined in the middle another HTTP message may come.
    pub(crate) fn settle(&mut self) {
        match self {
            Self::Line(line, suspicion) => {
                if line.settle() {
                    *suspicion = Suspicion::Settled;
                }
            }
            Self::Between(Next::Line(suspicion)) => *suspicion = Suspicion::Settled,
            Self::Between(_) | Self::Http(_) | Self::Http2(_) | Self::Ignore => {}
        }
    }

    /// Whether nothing but lines was seen.
    pub(crate) const fn is_lines(&self) -> bool {
        matches!(self, Self::Line(..) | Self::Between(Next::Line(_)))
    }

    /// Whether lines are those of an event stream, among other things.
    pub(crate) const fn is_event_stream(&self) -> bool {
        match self {
            Self::Line(line, _) => line.is_event_stream(),
            Self::Http2(_) => true,
            Self::Between(_) | Self::Http(_) | Self::Ignore => false,
        }
    }

    /// The stream ended: what is incomplete comes out as it can.
    pub(crate) fn finish(&mut self) {
        match self {
            Self::Line(line, _) => line.finish(),
            Self::Http(http) => http.finish(),
            Self::Http2(http) => http.finish(),
            Self::Between(_) | Self::Ignore => {}
        }
    }

    /// Position of the first byte of the message that is not complete yet.
    pub(crate) fn message_start(&self) -> u64 {
        match self {
            Self::Line(line, _) => line.message_start(),
            Self::Http(http) => http.message_start(),
            Self::Http2(http) => http.message_start(),
            Self::Between(_) | Self::Ignore => u64::MAX,
        }
    }

    /// Bytes that went into frames since the last time, or are no part of any.
    pub(crate) fn take_used(&mut self) -> u64 {
        match self {
            Self::Line(line, _) => line.take_used(),
            Self::Http(http) => http.take_used(),
            Self::Http2(http) => http.take_used(),
            Self::Between(_) | Self::Ignore => 0,
        }
    }

    /// Gives back room where no message is begun.
    pub(crate) fn rest(&mut self) {
        match self {
            Self::Line(line, suspicion) if line.is_between() => *self = Self::Between(Next::Line(*suspicion)),
            Self::Http(http) => {
                if let Some(next) = http.next_message() {
                    *self = Self::Between(next);
                }
            }
            Self::Http2(http) => http.rest(),
            Self::Between(_) | Self::Line(..) | Self::Ignore => {}
        }
    }

    /// Bytes of memory that messages take which are not complete: of a coded one, what it is decoded to.
    pub(crate) fn room(&self) -> usize {
        match self {
            Self::Line(line, _) => line.held_bytes(),
            Self::Http(http) => http.room(),
            Self::Http2(http) => http.room(),
            Self::Between(_) | Self::Ignore => 0,
        }
    }

    /// Bytes held of messages that are not complete.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Line(line, _) => line.held_bytes(),
            Self::Http(http) => http.held_bytes(),
            Self::Http2(http) => http.held_bytes(),
            Self::Between(_) | Self::Ignore => 0,
        }
    }
}

#[cfg(test)]
mod tests;

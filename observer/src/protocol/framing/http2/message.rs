//! Messages of HTTP/2 (RFC 9113, section 8): heads from header blocks, and the streams whose messages are in the making.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::frame::{CONTINUATION, FrameHeader, HEADERS};
use super::{FrameKind, Http2Framer, MAX_BLOCK, MAX_MESSAGES};
use crate::protocol::framing::body::KEPT_END;
use crate::protocol::framing::coding::Codings;
use crate::protocol::framing::content::{Content, Tally};
use crate::protocol::framing::head::{Facts, Media, Verb, Words};
use crate::protocol::framing::hpack::{Broken, Field};
use crate::protocol::observation::{MalformedReason, Side};

/// Room that a content needs at least: both its ends, and what shifting them takes.
const LEAST_ROOM: usize = 4 * KEPT_END;

/// A header block that is not complete.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    /// Position of the first byte of its first frame.
    pub(super) start: u64,
    pub(super) bytes: BytesMut,
    /// It is that of a HEADERS frame; else of a PUSH_PROMISE, which matters only for the table.
    headers: bool,
    last: bool,
}

/// A message in the making.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) content: Content,
    /// Its head has come: what comes as another one are trailers.
    pub(super) headed: bool,
    /// Of a response: bytes of content that are still to come, where its head says how many there are and no hole came since.
    pub(super) left: Option<u64>,
    /// Its sender has ended the stream.
    pub(super) ended: bool,
    /// It was handed out.
    pub(super) over: bool,
}

impl Message {
    /// A message whose content is all there, although the stream goes on.
    pub(super) fn over() -> Self {
        Self {
            headed: true,
            over: true,
            ..Self::default()
        }
    }

    pub(super) fn take_in(&mut self, at: u64, piece: Bytes, max_bytes: usize, tally: &mut Tally) {
        if self.over {
            tally.lost += piece.len() as u64;
            tally.broken = Some(MalformedReason::BadHttp);
            return;
        }
        self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
        if max_bytes < LEAST_ROOM {
            self.content.refuse(tally);
        }
        self.content.take_in(at, piece, max_bytes, tally);
    }
}

/// What a header block says.
#[derive(Default)]
struct Head {
    facts: Facts,
    verb: Option<Verb>,
    path: Option<Arc<str>>,
    status: Option<u16>,
    length: Option<u64>,
    /// Some of it is not known.
    partial: bool,
}

impl Head {
    fn take(&mut self, field: Field<'_>, words: &mut Words) {
        let Some((name, value)) = field.name.zip(field.value) else {
            self.partial = true;
            return;
        };
        let text = || std::str::from_utf8(value).unwrap_or("");
        match name {
            b":method" => self.verb = Some(Verb::named(text())),
            b":path" => self.path = Some(words.keep(text())),
            b":authority" => self.facts.authority = Some(words.keep(text())),
            b":status" => self.status = text().parse().ok(),
            b"content-length" => self.length = text().parse().ok(),
            _ => self.facts.read(std::str::from_utf8(name).unwrap_or(""), value, words),
        }
    }

    /// Which side says such a thing.
    fn sender(&self) -> Option<Side> {
        if self.verb.is_some() || self.path.is_some() {
            Some(Side::Client)
        } else {
            self.status.map(|_| Side::Server)
        }
    }

    /// The frame it makes, and the content that follows.
    fn frame(mut self, sender: Side, words: &mut Words) -> (FrameKind, Content) {
        if self.partial {
            self.facts.media.get_or_insert(Media::Untold);
            self.facts.coding.get_or_insert(Codings::UNTOLD);
        }
        match sender {
            Side::Client => {
                let path = self.path.unwrap_or_default();
                let head = self.facts.request(self.verb.unwrap_or_default(), &path, words);
                let content = Content::new(Media::Json, head.coding);
                (FrameKind::Request(Arc::new(head)), content)
            }
            Side::Server => {
                let head = self.facts.response(self.status);
                let content = Content::new(head.media, head.coding);
                (FrameKind::Response(head), content)
            }
        }
    }
}

impl Http2Framer {
    /// Takes in a HEADERS, PUSH_PROMISE or CONTINUATION frame.
    pub(super) fn fragment(&mut self, header: FrameHeader, payload: &Bytes) {
        if header.kind != CONTINUATION {
            self.block = Some(Block {
                stream: header.stream,
                start: self.start,
                bytes: BytesMut::new(),
                headers: header.kind == HEADERS,
                last: header.ends_stream(),
            });
        }
        let Some(fragment) = strip(header, payload) else {
            self.tally.lost += payload.len() as u64;
            self.tally.broken = Some(MalformedReason::BadHttp);
            return self.lose_block();
        };
        self.tally.used += (payload.len() - fragment.len()) as u64;
        let Some(mut block) = self.block.take() else {
            return;
        };
        if header.ends_headers() && block.bytes.is_empty() {
            return self.block_over(&block, fragment);
        }
        block.bytes.extend_from_slice(fragment);
        if header.ends_headers() {
            let bytes = block.bytes.split();
            self.block_over(&block, &bytes);
        } else if block.bytes.len() > MAX_BLOCK {
            self.block = Some(block);
            self.lose_block();
        } else {
            self.block = Some(block);
        }
    }

    /// A header block is complete.
    fn block_over(&mut self, block: &Block, bytes: &[u8]) {
        let mut head = Head::default();
        match self.hpack.decode(bytes, |field| head.take(field, &mut self.words)) {
            Ok(()) => self.tally.used += bytes.len() as u64,
            Err(Broken) => {
                self.tally.lost += bytes.len() as u64;
                self.tally.broken = Some(MalformedReason::BadHttp);
                self.hpack.forget();
                self.late = true;
                head.partial = true;
            }
        }
        if block.headers {
            self.head(block, head);
        }
        if block.headers && block.last {
            self.end_stream(block.stream);
        }
    }

    fn head(&mut self, block: &Block, head: Head) {
        let stream = block.stream;
        if self.messages.get(&stream).is_some_and(|message| message.headed) {
            return;
        }
        // Where neither is known, what ends a stream are the trailers of a message whose head was not seen.
        let sender = match (head.sender(), self.sender) {
            (Some(sender), None) => *self.sender.insert(sender),
            (Some(sender), Some(known)) if sender == known => sender,
            (None, Some(known)) if !block.last || !self.late => known,
            (None, _) => return self.expect(stream),
            (Some(_), Some(_)) => {
                self.tally.broken = Some(MalformedReason::BadHttp);
                return;
            }
        };
        self.heads += 1;
        // Who serves waits for the end of a request; who asked for an answer may go when it has come.
        let left = head.length.filter(|_| sender == Side::Server);
        let (kind, content) = head.frame(sender, &mut self.words);
        let interim = matches!(&kind, FrameKind::Response(head) if head.is_interim());
        self.start = block.start;
        self.push(stream, kind);
        if !interim {
            let message = Message {
                content,
                headed: true,
                left,
                ..Message::default()
            };
            self.insert(stream, message);
            self.look_for_end(stream);
        }
    }

    /// Content comes on a stream whose head was not seen: what it is, it tells itself.
    pub(super) fn expect(&mut self, stream: u32) {
        if self.late && !self.messages.contains_key(&stream) {
            let message = Message {
                content: Content::new(Media::Untold, Codings::UNTOLD),
                ..Message::default()
            };
            self.insert(stream, message);
        }
    }

    fn insert(&mut self, stream: u32, message: Message) {
        if let Some(mut torn) = self.messages.insert(stream, message) {
            self.drop_content(&mut torn);
        }
        if self.messages.len() > MAX_MESSAGES
            && let Some((_, mut oldest)) = self.messages.pop_first()
        {
            self.drop_content(&mut oldest);
        }
    }

    fn drop_content(&mut self, message: &mut Message) {
        self.room -= message.content.room();
        message.content.finish(false, &mut self.tally);
    }

    /// A stream is closed, by either side: its message is not completed.
    pub(crate) fn close(&mut self, stream: u32) {
        if let Some(mut message) = self.messages.remove(&stream) {
            self.room -= message.content.room();
            message.content.skip(&mut self.tally);
        }
    }

    /// The content of a stream is of no interest.
    pub(crate) fn skip_body(&mut self, stream: u32) {
        if let Some(message) = self.messages.get_mut(&stream) {
            self.room -= message.content.room();
            message.content.skip(&mut self.tally);
        }
    }
}

/// The part of a header block in a payload: without padding, priority and promised stream.
fn strip(header: FrameHeader, mut payload: &[u8]) -> Option<&[u8]> {
    let padding = if header.is_padded() {
        usize::from(*payload.split_off_first()?)
    } else {
        0
    };
    let before = match header.kind {
        HEADERS if header.has_priority() => 5,
        HEADERS | CONTINUATION => 0,
        _ => 4,
    };
    let payload = payload.get(before..)?;
    payload.get(..payload.len().checked_sub(padding)?)
}

//! The chunked transfer coding (RFC 9112 section 7.1): size lines with extensions, trailers let go.

use bytes::Bytes;

use super::{Ending, HttpFramer, State, Step};

/// Bytes of a chunk's size line with its extensions, and of one trailer line.
const MAX_CHUNK_LINE: usize = 4096;

/// Bytes of one chunk: what is longer is nonsense, or means to overflow a counter.
const MAX_CHUNK: u64 = 1 << 40;

impl HttpFramer {
    pub(super) fn chunk_size(&mut self) -> Option<Step> {
        let line = match self.line() {
            Ok(line) => line,
            Err(step) => return step,
        };
        match httparse::parse_chunk_size(&line) {
            Ok(httparse::Status::Complete((_, 0))) => self.state = State::Trailers,
            Ok(httparse::Status::Complete((_, size))) if size <= MAX_CHUNK => self.state = State::ChunkData(size),
            Ok(_) | Err(_) => self.give_up_line(&line),
        }
        None
    }

    pub(super) fn chunk_end(&mut self) -> Option<Step> {
        match self.line() {
            Ok(line) if line.as_ref() == b"\r\n" || line.as_ref() == b"\n" => self.state = State::ChunkSize,
            Ok(line) => self.give_up_line(&line),
            Err(step) => return step,
        }
        None
    }

    pub(super) fn trailers(&mut self) -> Option<Step> {
        match self.line() {
            Ok(line) if line.as_ref() == b"\r\n" || line.as_ref() == b"\n" => return self.done(Ending::Whole),
            Ok(_) => {}
            Err(step) => return step,
        }
        None
    }

    /// A line with its end; `Err` when there is none yet or it is too long.
    fn line(&mut self) -> Result<Bytes, Option<Step>> {
        let found = memchr::memchr(b'\n', &self.input);
        let length = found.map_or(self.input.len(), |at| at + 1);
        if self.partial.len() + length > MAX_CHUNK_LINE {
            self.give_up(0);
            return Err(None);
        }
        let part = self.input.split_to(length);
        self.at += length as u64;
        if self.partial.is_empty() && found.is_some() {
            self.tally.used += length as u64;
            return Ok(part);
        }
        self.partial.extend_from_slice(&part);
        if found.is_none() {
            return Err(Some(Step::NeedMore));
        }
        self.tally.used += self.partial.len() as u64;
        Ok(self.partial.split().freeze())
    }
}

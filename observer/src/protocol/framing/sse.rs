//! Server-sent events (WHATWG HTML, section 9.2.6), cut anywhere.

use bytes::{Buf, Bytes};

use super::SseEvent;
use super::body::Collector;

/// Bytes of a field name and of the fields other than `data` that are kept.
const MAX_FIELD: usize = 256;

/// Parses a `text/event-stream`.
#[derive(Debug, Default)]
pub(crate) struct SseParser {
    input: Bytes,
    /// Position of the first byte of `input`.
    at: u64,
    /// Position after the bytes of the stream that `input` came of: fewer than it has, where they are coded.
    end: u64,
    /// Position of the first byte of the event.
    start: u64,
    begun: bool,
    state: State,
    /// What came last was a CR, so that an LF now belongs to it.
    after_cr: bool,
    /// Bytes of the byte order mark seen at the beginning.
    mark: usize,
    past_mark: bool,
    field: Vec<u8>,
    endpoint: bool,
    /// Lines of data so far.
    data_lines: u64,
    data: Collector,
    /// Bytes let go because an event was too long.
    pub(crate) dropped: u64,
}

#[derive(Debug, Default, PartialEq)]
enum State {
    #[default]
    LineStart,
    /// Reading a field's name.
    Name,
    /// After the colon: one space may follow.
    Colon,
    Data,
    Other,
    /// After a hole: until the event that it tore is over.
    Lost,
    /// The same, at the beginning of a line.
    LostLineStart,
}

impl SseParser {
    pub(crate) fn feed(&mut self, at: u64, end: u64, bytes: Bytes) {
        self.input = bytes;
        self.at = at;
        self.end = end;
    }

    /// The next event as `(start, end, event)`; `None` when the input is used up.
    pub(crate) fn step(&mut self, max_bytes: usize) -> Option<(u64, u64, SseEvent)> {
        while let Some(&byte) = self.input.first() {
            if !self.past_mark && self.skip_mark(byte) {
                continue;
            }
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                self.skip(1);
                continue;
            }
            if !self.begun {
                self.begun = true;
                self.start = self.at.min(self.end.saturating_sub(1));
            }
            let length = self.input.iter().position(|byte| matches!(byte, b'\n' | b'\r' | b':'));
            let event = match self.state {
                State::Data | State::Other | State::Lost => self.rest_of_line(max_bytes),
                State::LineStart | State::Name | State::LostLineStart => self.name(length),
                State::Colon => {
                    self.state = if self.field == b"data" {
                        State::Data
                    } else {
                        State::Other
                    };
                    if byte == b' ' {
                        self.skip(1);
                    }
                    if self.state == State::Data {
                        self.begin_data(max_bytes);
                    } else {
                        self.field.push(b':');
                    }
                    None
                }
            };
            if event.is_some() {
                return event;
            }
        }
        None
    }

    fn name(&mut self, length: Option<usize>) -> Option<(u64, u64, SseEvent)> {
        let lost = self.state == State::LostLineStart;
        let part = self.input.split_to(length.unwrap_or(self.input.len()));
        self.at += part.len() as u64;
        if lost && !part.is_empty() {
            self.state = State::Lost;
            return None;
        }
        let room = MAX_FIELD.saturating_sub(self.field.len());
        self.field.extend_from_slice(&part[..part.len().min(room)]);
        match self.input.first() {
            None => {
                if !self.field.is_empty() {
                    self.state = State::Name;
                }
                None
            }
            Some(b':') if lost => {
                self.state = State::Lost;
                None
            }
            Some(b':') => {
                self.skip(1);
                self.state = State::Colon;
                None
            }
            Some(_) => {
                let blank = self.field.is_empty();
                // A line without a colon is a field without a value: `data` alone adds an empty line.
                if self.field == b"data" {
                    self.begin_data(usize::MAX);
                }
                self.end_line();
                if blank { self.dispatch() } else { None }
            }
        }
    }

    fn rest_of_line(&mut self, max_bytes: usize) -> Option<(u64, u64, SseEvent)> {
        let end = memchr::memchr2(b'\n', b'\r', &self.input);
        let part = self.input.split_to(end.unwrap_or(self.input.len()));
        self.at += part.len() as u64;
        match self.state {
            State::Data => {
                self.data.push(part, max_bytes);
                self.dropped += self.data.take_dropped();
            }
            State::Other => {
                let room = MAX_FIELD.saturating_sub(self.field.len());
                self.field.extend_from_slice(&part[..part.len().min(room)]);
            }
            _ => {}
        }
        if end.is_some() {
            if let Some(value) = self.field.strip_prefix(b"event:") {
                self.endpoint = value == b"endpoint";
            }
            let lost = self.state == State::Lost;
            self.end_line();
            if lost {
                self.state = State::LostLineStart;
            }
        }
        None
    }

    fn begin_data(&mut self, max_bytes: usize) {
        if self.data_lines > 0 {
            self.data.push(Bytes::from_static(b"\n"), max_bytes);
        }
        self.data_lines += 1;
    }

    fn end_line(&mut self) {
        self.after_cr = self.input.first() == Some(&b'\r');
        self.skip(1);
        self.field.clear();
        self.state = State::LineStart;
    }

    fn dispatch(&mut self) -> Option<(u64, u64, SseEvent)> {
        self.begun = false;
        self.data_lines = 0;
        let endpoint = std::mem::take(&mut self.endpoint);
        self.dropped += self.data.take_dropped();
        let data = self.data.take();
        let event = SseEvent { endpoint, data };
        // An event without data is none: the priming event of SSE polling, a lone `retry`.
        (event.data.length > 0).then_some((self.start, self.at.min(self.end), event))
    }

    fn skip_mark(&mut self, byte: u8) -> bool {
        const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
        if self.mark < MARK.len() && byte == MARK[self.mark] {
            self.mark += 1;
            self.skip(1);
            return true;
        }
        self.past_mark = true;
        false
    }

    fn skip(&mut self, bytes: usize) {
        self.input.advance(bytes);
        self.at += bytes as u64;
    }

    /// A hole of `length` bytes: inside a data line it makes the event cut, elsewhere the event is given up.
    pub(crate) fn gap(&mut self, length: u64) {
        self.begun = true;
        self.past_mark = true;
        if self.state == State::Data {
            self.data.gap(length);
            return;
        }
        self.dropped += self.data.take_dropped() + self.data.held_bytes() as u64;
        self.data.take();
        self.data_lines = 0;
        self.field.clear();
        self.state = State::Lost;
    }

    /// Position of the first byte of the event in the making, `None` between events.
    pub(crate) fn event_start(&self) -> Option<u64> {
        self.begun.then_some(self.start)
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.data.held_bytes() + self.input.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data of the events in `text`, `@` before that of `endpoint` events.
    fn events(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<String> {
        let mut parser = SseParser::default();
        let mut out = Vec::new();
        let mut at = 0;
        for piece in pieces {
            let length = piece.len() as u64;
            parser.feed(at, at + length, piece.into());
            at += length;
            while let Some((_, _, event)) = parser.step(1 << 20) {
                let mark = if event.endpoint { "@" } else { "" };
                out.push(format!("{mark}{}", String::from_utf8_lossy(&event.data.bytes)));
            }
        }
        out
    }

    #[test]
    fn reads_events() {
        fn check(text: &str, expected: &[&str]) {
            assert_eq!(events(std::iter::once(text.as_bytes().to_vec())), expected, "{text:?}");
            let bytewise = text.bytes().map(|byte| vec![byte]);
            assert_eq!(events(bytewise), expected, "{text:?} byte by byte");
        }
        check("data: a\n\n", &["a"]);
        check("data:a\r\n\r\ndata: b\r\rdata: c\n\n", &["a", "b", "c"]);
        check("\u{feff}data: a\n\n", &["a"]);
        check("event: endpoint\ndata: /m?session_id=1\n\n", &["@/m?session_id=1"]);
        check("event: message\ndata: {\ndata: }\n\n", &["{\n}"]);
        check(": ping\n\n", &[]);
        check("id: 1\nretry: 10\ndata:\n\ndata: x\n\n", &["x"]);
        check("data\n\ndata: y: z\n\n", &["y: z"]);
        check("data:  two\n\n", &[" two"]);
        check("data: unfinished\n", &[]);
        check("datax: no\ndata: a\nid\n\n", &["a"]);
    }

    #[test]
    fn a_hole_tears_one_event() {
        let mut parser = SseParser::default();
        parser.feed(0, 10, Bytes::from_static(b"data: a\nda"));
        assert!(parser.step(100).is_none());
        parser.gap(5);
        parser.feed(15, 27, Bytes::from_static(b"b\n\ndata: c\n\n"));
        assert_eq!(parser.step(100).unwrap().2.data.bytes, "c");
    }
}

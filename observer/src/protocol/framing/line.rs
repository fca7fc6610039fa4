//! Newline-delimited JSON: one message a line (MCP specification, transports, stdio).

use bytes::{Buf, Bytes};
use memchr::memchr;
use observer_common::drops::DropReason;

use super::body::Collector;
use super::{Frame, FrameKind, Step, Suspicion};
use crate::protocol::jsonrpc::Payload;
use crate::protocol::reassembly::{Chunk, GapKind};

/// What a message begins with in an event stream that was joined in the middle, as every SDK writes it.
const EVENT_DATA: &[u8] = b"data: ";

/// Cuts a stream at newlines.
#[derive(Debug, Default)]
pub(crate) struct LineFramer {
    input: Bytes,
    /// Position of the first byte of `input`.
    at: u64,
    /// Position of the first byte of the line.
    start: u64,
    /// The line so far, when it began in an earlier chunk.
    line: Collector,
    state: State,
    /// The line is the first after a hole: it is one if it reads like one.
    guessed: bool,
    /// Lines are JSON and nothing else from here on.
    settled: bool,
    /// It is the middle of an event stream (server-sent events): a message is a field `data` in one line.
    events: bool,
    /// Bytes let go and not reported yet.
    lost: u64,
    /// The same, because a line was too long.
    too_long: u64,
    /// Bytes that went into frames, or are no part of any.
    used: u64,
    ended: bool,
}

#[derive(Debug, Default, PartialEq)]
enum State {
    /// At the beginning of a line, white space aside.
    #[default]
    Start,
    /// In a line that begins like JSON.
    Json,
    /// In a line that does not.
    Other,
    /// After a hole: whatever comes before the next newline is of no use.
    Lost,
}

impl LineFramer {
    pub(super) fn new(suspicion: Suspicion) -> Self {
        Self {
            settled: suspicion == Suspicion::Settled,
            ..Self::default()
        }
    }

    /// Whether it holds nothing and has nothing to tell: as good as new.
    pub(super) fn is_between(&self) -> bool {
        let nothing = self.held_bytes() == 0 && self.lost + self.too_long + self.used == 0;
        nothing && self.state == State::Start && !self.guessed && !self.events && !self.ended
    }

    pub(crate) fn feed(&mut self, chunk: Chunk) {
        match chunk {
            Chunk::Bytes { start, bytes, fresh } => {
                // Who writes a message begins a call with it.
                if self.state == State::Lost && fresh && matches!(bytes.first(), Some(b'{' | b'[')) {
                    self.state = State::Start;
                    self.guessed = true;
                }
                if self.state == State::Start {
                    self.start = start;
                }
                self.at = start;
                self.input = bytes;
            }
            Chunk::Gap { start, length, kind } => {
                self.at = start + length;
                // A hole inside one call lies inside one message: who writes two messages in one call writes small ones.
                if kind == GapKind::Told && self.state == State::Json {
                    self.line.gap(length);
                    self.too_long += self.line.take_dropped();
                } else {
                    self.abandon();
                    self.state = State::Lost;
                    self.start = self.at;
                }
            }
        }
    }

    pub(crate) fn step(&mut self, max_bytes: usize) -> Step {
        if let Some(lost) = self.report() {
            return lost;
        }
        while !self.input.is_empty() {
            let Some(newline) = memchr(b'\n', &self.input) else {
                let rest = std::mem::take(&mut self.input);
                self.at += rest.len() as u64;
                self.push(rest, max_bytes);
                break;
            };
            if newline + 1 == self.input.len() && newline <= max_bytes && self.begins_json() {
                return self.whole_line(newline);
            }
            let line = self.input.split_to(newline);
            self.input.advance(1);
            self.at += newline as u64 + 1;
            self.used += 1;
            self.push(line, max_bytes);
            if let Some(step) = self.end_line() {
                return step;
            }
        }
        if self.ended && self.state != State::Start {
            // Without its newline the last line is a message all the same.
            return self.end_line().unwrap_or(Step::NeedMore);
        }
        self.report().unwrap_or(Step::NeedMore)
    }

    /// Whether the input is the begin of a message, and nothing is to be said of it.
    fn begins_json(&self) -> bool {
        self.state == State::Start && !self.guessed && matches!(self.input.first(), Some(b'{' | b'['))
    }

    /// All of the input is one message, as most often: it is handed on as it is, with its newline.
    fn whole_line(&mut self, length: usize) -> Step {
        let payload = Payload {
            bytes: std::mem::take(&mut self.input),
            length: length as u64,
            ..Payload::default()
        };
        self.at += length as u64 + 1;
        self.used += length as u64 + 1;
        let start = std::mem::replace(&mut self.start, self.at);
        Step::Frame(Frame::of(start..self.at, FrameKind::Line(payload)))
    }

    /// Takes a part of a line in.
    fn push(&mut self, mut part: Bytes, max_bytes: usize) {
        if self.state == State::Start {
            let blank = part.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            part.advance(blank);
            self.used += blank as u64;
            if !self.settled && part.starts_with(EVENT_DATA) {
                self.events = true;
                part.advance(EVENT_DATA.len());
                self.used += EVENT_DATA.len() as u64;
            }
            match part.first() {
                None => return,
                Some(b'{' | b'[') => self.state = State::Json,
                Some(_) => self.state = State::Other,
            }
        }
        match self.state {
            State::Json => {
                self.line.push(part, max_bytes);
                self.too_long += self.line.take_dropped();
            }
            State::Lost => self.lost += part.len() as u64,
            State::Start | State::Other => self.used += part.len() as u64,
        }
    }

    fn end_line(&mut self) -> Option<Step> {
        let start = std::mem::replace(&mut self.start, self.at);
        let guessed = std::mem::take(&mut self.guessed);
        let kind = match std::mem::take(&mut self.state) {
            State::Start => return None,
            State::Lost => return self.report(),
            State::Other => FrameKind::Stray,
            State::Json => {
                let mut payload = self.line.take();
                payload.guessed = guessed;
                self.used += (payload.bytes.len() + payload.tail.len()) as u64;
                FrameKind::Line(payload)
            }
        };
        let end = self.at;
        Some(Step::Frame(Frame::of(start..end, kind)))
    }

    fn report(&mut self) -> Option<Step> {
        let (reason, lost) = if self.too_long > 0 {
            (DropReason::StreamTooLong, &mut self.too_long)
        } else {
            (DropReason::Resync, &mut self.lost)
        };
        let bytes = std::mem::take(lost);
        (bytes > 0).then_some(Step::Lost {
            reason,
            bytes,
            broken: None,
        })
    }

    /// Whether what follows may be of another framing: no JSON line is in the making, or one that may be a whole content.
    pub(crate) fn may_be_other(&self) -> bool {
        self.state != State::Json || matches!(self.line.last(), Some(b'}' | b']'))
    }

    /// Lets the line in the making go; its loss is reported by the next step.
    fn abandon(&mut self) {
        let held = self.line.held_bytes() as u64;
        self.line.take();
        self.lost += held;
        self.state = State::Start;
    }

    /// Takes in that the lines carry JSON-RPC; whether they do so for good.
    pub(super) fn settle(&mut self) -> bool {
        self.settled = !self.events;
        self.settled
    }

    /// Whether it is the middle of an event stream.
    pub(super) const fn is_event_stream(&self) -> bool {
        self.events
    }

    pub(crate) fn finish(&mut self) {
        self.ended = true;
    }

    pub(super) fn take_used(&mut self) -> u64 {
        std::mem::take(&mut self.used)
    }

    pub(crate) const fn position(&self) -> u64 {
        self.at
    }

    pub(crate) const fn message_start(&self) -> u64 {
        self.start
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.line.held_bytes() + self.input.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::framing::tests::run;
    use crate::protocol::framing::{Framer, Suspicion};

    /// Lines that come out of `pieces` (`None`: a hole of 3 bytes), after their positions.
    fn check(pieces: &[Option<&str>], kind: GapKind, expected: &str) {
        let framer = Framer::Line(Box::default(), Suspicion::Settled);
        let pieces: Vec<_> = pieces.iter().map(|piece| piece.map(str::as_bytes).ok_or(3)).collect();
        assert_eq!(run(framer, &pieces, 0, kind), expected, "{pieces:?}");
    }

    #[test]
    fn cuts_lines() {
        let check = |pieces: &[Option<&str>], expected: &str| check(pieces, GapKind::Told, expected);
        check(&[Some("{1}\n{2}\n")], "0..4={1} 4..8={2}");
        check(
            &[Some("{"), Some("1"), Some("}\r\n"), Some("\n\r\n[2]\n")],
            "0..5={1}\r 8..12=[2]",
        );
        check(&[Some("log line\n{1}\n")], "0..9:stray 9..13={1}");
        check(&[Some("{1}")], "0..3={1}");
        check(&[Some("{1"), None, Some("9}\n{2}\n")], "0..8={1…9} 8..12={2}");
        check(&[Some("{1}\n"), None, Some("9}\n{2}\n")], "0..4={1} lost:2 10..14={2}");
    }

    #[test]
    fn a_hole_between_calls_ends_the_line() {
        check(
            &[Some("{1"), None, Some("9}\n{2}\n")],
            GapKind::Missing,
            "lost:2 lost:2 8..12={2}",
        );
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut framer = LineFramer::default();
        let piece = Bytes::from(vec![b'{'; 1 << 16]);
        for index in 0..1600_u64 {
            framer.feed(Chunk::Bytes {
                start: index << 16,
                bytes: piece.clone(),
                fresh: true,
            });
            while framer.step(1 << 20) != Step::NeedMore {}
            assert!(framer.held_bytes() < 2 << 20);
        }
    }
}

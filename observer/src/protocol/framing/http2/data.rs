//! Content of HTTP/2 messages (RFC 9113, section 6.1): pieces of many at once, handed out one message at a time.

use super::message::Message;
use super::{Ending, Frame, FrameKind, Http2Framer, State};

impl Http2Framer {
    pub(super) fn pad_length(&mut self) -> bool {
        if self.input.is_empty() {
            return false;
        }
        let length = u32::from(self.take(1)[0]);
        self.tally.used += 1;
        if let State::Data { left, padding, .. } = &mut self.state {
            *left -= 1;
            *padding = Some(length.min(*left));
        }
        self.end_data();
        true
    }

    /// One piece of content, or of the padding behind it.
    pub(super) fn data(&mut self, max_bytes: usize) -> bool {
        let State::Data {
            stream, left, padding, ..
        } = self.state
        else {
            return false;
        };
        let content = left.saturating_sub(padding.unwrap_or(0)) as usize;
        let part = if content > 0 { content } else { left as usize };
        let length = part.min(self.input.len());
        if length == 0 {
            return false;
        }
        let at = self.at;
        let piece = self.take(length);
        match self.messages.get_mut(&stream) {
            Some(message) if content > 0 => {
                let before = message.content.room();
                let others = self.room - before;
                message.take_in(at, piece, max_bytes.saturating_sub(others), &mut self.tally);
                self.room = others + message.content.room();
                self.current = Some((stream, None));
                self.look_for_end(stream);
            }
            _ => self.tally.used += length as u64,
        }
        if let State::Data { left, .. } = &mut self.state {
            *left -= u32::try_from(length).unwrap_or(*left);
        }
        self.end_data();
        true
    }

    pub(super) fn end_data(&mut self) {
        if let State::Data {
            stream,
            left: 0,
            last: true,
            ..
        } = self.state
        {
            self.end_stream(stream);
        }
    }

    /// The sender has nothing more to say on a stream.
    pub(super) fn end_stream(&mut self, stream: u32) {
        if let Some(message) = self.messages.get_mut(&stream) {
            message.ended = true;
        }
        self.current = Some((stream, Some(Ending::Whole)));
    }

    /// Whether all of a content has come that its head announced: who counts need not wait for the end of the stream.
    pub(super) fn look_for_end(&mut self, stream: u32) {
        if self
            .messages
            .get(&stream)
            .is_some_and(|message| message.left == Some(0))
        {
            self.current = Some((stream, Some(Ending::Whole)));
        }
    }

    /// What is next of the current message: events, then at its end its content and that it ended.
    pub(super) fn hand_out(&mut self, max_bytes: usize) -> Option<Frame> {
        let (stream, ending) = self.current?;
        if let Some(message) = self.messages.get_mut(&stream) {
            let others = self.room - message.content.room();
            let event = message.content.event(max_bytes, &mut self.tally);
            self.room = others + message.content.room();
            if let Some((start, end, event)) = event {
                let kind = FrameKind::Event(event);
                return Some(Frame {
                    start,
                    end,
                    stream,
                    kind,
                });
            }
        }
        self.current = None;
        let ending = ending?;
        let mut message = self.messages.remove(&stream)?;
        self.room -= message.content.room();
        if message.over {
            return None;
        }
        if let Some(mut payload) = message.content.finish(ending != Ending::Short, &mut self.tally) {
            payload.guessed = !message.headed;
            self.push(stream, FrameKind::Body(payload));
        }
        let unread = ending == Ending::Whole && message.content.is_unread();
        self.push(stream, FrameKind::End(if unread { Ending::Unread } else { ending }));
        if ending == Ending::Whole && !message.ended {
            self.messages.insert(stream, Message::over());
        }
        None
    }
}

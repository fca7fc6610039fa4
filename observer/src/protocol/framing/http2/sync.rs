//! Where frames begin: lost by a hole or by bytes that are no frame, found again where frames can be told.

use bytes::Buf;

use super::{FrameKind, Http2Framer, NOISE_BYTES, State, frame};

impl Http2Framer {
    /// Leaves [`State::Seek`] where a frame begins; what comes before is lost.
    pub(super) fn seek(&mut self, fresh: bool) {
        let found = frame::find(&self.input, fresh);
        let lost = found.unwrap_or(self.input.len());
        self.input.advance(lost);
        self.at += lost as u64;
        self.tally.lost += lost as u64;
        self.sought += lost as u64;
        if found.is_some() {
            self.state = State::Header;
        } else if self.sought >= NOISE_BYTES && self.heads == 0 {
            self.push(0, FrameKind::Noise);
        }
    }

    pub(super) fn gap(&mut self, start: u64, length: u64) {
        self.tally.lost += self.input.len() as u64;
        self.input.clear();
        self.at = start + length;
        match &mut self.state {
            State::Data {
                stream, left, padding, ..
            } if length <= u64::from(*left) => {
                if let Some(message) = self.messages.get_mut(stream) {
                    message.content.gap(length);
                    message.left = None;
                }
                // Where its length was in the hole, padding is taken for content: of a torn one that is no harm.
                padding.get_or_insert(0);
                *left -= u32::try_from(length).unwrap_or(*left);
                *padding = padding.map(|padding| padding.min(*left));
                self.end_data();
            }
            State::Skip(left) if length <= u64::from(*left) => *left -= u32::try_from(length).unwrap_or(*left),
            State::Payload(header) if length <= u64::from(header.length) - self.partial.len() as u64 => {
                let rest = u64::from(header.length) - self.partial.len() as u64 - length;
                let rest = u32::try_from(rest).unwrap_or(u32::MAX);
                self.lose_block();
                self.state = State::Skip(rest);
            }
            _ => self.lose_place(),
        }
    }

    /// Part of a header block is missing: what it did to the table is not known.
    pub(super) fn lose_block(&mut self) {
        self.tally.lost += self.partial.len() as u64;
        self.partial.clear();
        if let Some(block) = self.block.take() {
            self.tally.lost += block.bytes.len() as u64;
        }
        self.hpack.forget();
        self.late = true;
    }

    /// Where the next frame begins is not known; anything may have gone by.
    pub(super) fn lose_place(&mut self) {
        self.lose_block();
        for message in self.messages.values_mut() {
            message.content.gap(0);
            message.left = None;
        }
        self.state = State::Seek;
        self.sought = 0;
    }
}

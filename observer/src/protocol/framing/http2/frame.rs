//! Frames of HTTP/2 (RFC 9113, section 4.1 and 6): their headers, and how to tell one from other bytes.

use crate::protocol::observation::Side;

/// Length of a frame's header.
pub(super) const HEADER: usize = 9;

/// Longest frame of peers that did not ask for longer ones (section 6.5.2); nobody who speaks MCP does.
const MAX_USUAL: u32 = 1 << 14;

/// Frames in a row that are looked at to tell frames from other bytes.
const MAX_CHAIN: usize = 4;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;

/// What stands before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) length: u32,
    pub(super) kind: u8,
    flags: u8,
    pub(super) stream: u32,
}

impl FrameHeader {
    pub(super) fn read(bytes: [u8; HEADER]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    pub(super) const fn ends_stream(self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    pub(super) const fn ends_headers(self) -> bool {
        self.flags & END_HEADERS != 0
    }

    pub(super) const fn is_padded(self) -> bool {
        matches!(self.kind, DATA | HEADERS | PUSH_PROMISE) && self.flags & PADDED != 0
    }

    pub(super) const fn has_priority(self) -> bool {
        self.kind == HEADERS && self.flags & WITH_PRIORITY != 0
    }

    /// Whether length and stream are as its kind demands; kinds that are not known may be anything.
    pub(super) const fn is_lawful(self) -> bool {
        let length = match self.kind {
            PRIORITY => self.length == 5,
            RST_STREAM | WINDOW_UPDATE => self.length == 4,
            SETTINGS => self.length.is_multiple_of(6),
            PING => self.length == 8,
            GOAWAY => self.length >= 8,
            PUSH_PROMISE => self.length >= 4,
            DATA | HEADERS => !self.is_padded() || self.length > 0,
            _ => true,
        };
        let stream = match self.kind {
            SETTINGS | PING | GOAWAY => self.stream == 0,
            DATA | HEADERS | PRIORITY | RST_STREAM | PUSH_PROMISE | CONTINUATION => self.stream != 0,
            _ => true,
        };
        length && stream
    }

    /// Whether it looks like what peers write: of bytes that are no frame, one in a million does.
    const fn is_usual(self) -> bool {
        let flags = match self.kind {
            DATA => END_STREAM | PADDED,
            HEADERS => END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY,
            SETTINGS | PING => 1,
            PUSH_PROMISE => END_HEADERS | PADDED,
            CONTINUATION => END_HEADERS,
            _ => 0,
        };
        // Servers open streams of even numbers only to push what was not asked for.
        let pushed = matches!(self.kind, DATA | HEADERS | CONTINUATION) && self.stream.is_multiple_of(2);
        // Content of no bytes is written to end a stream; zeros in a row are none.
        let idle = self.kind == DATA && self.length == 0 && self.flags & END_STREAM == 0;
        self.kind <= CONTINUATION
            && self.flags & !flags == 0
            && self.length <= MAX_USUAL
            && self.is_lawful()
            && !idle
            && !pushed
    }
}

/// Whether bytes begin with the headers of `least` frames, and of more if there are.
pub(super) fn begins(bytes: &[u8], least: usize) -> bool {
    let (mut at, mut seen) = (0, 0);
    while seen < MAX_CHAIN
        && let Some(header) = bytes.get(at..).and_then(<[u8]>::first_chunk)
    {
        // The bit before the stream's number is reserved.
        let frame = FrameHeader::read(*header);
        if !frame.is_usual() || header[5] >= 0x80 {
            return false;
        }
        seen += 1;
        at += HEADER + frame.length as usize;
    }
    seen >= least
}

/// Who writes bytes that begin with a frame, where its first shows it: a head's first field is one of a request's or a response's own
/// (RFC 9113 section 8.3), of the static table (RFC 7541 appendix A). Settings that no preface precedes show nothing: servers in Go
/// read the preface by itself, and whoever comes later sees settings first.
pub(crate) fn sender_of(bytes: &[u8]) -> Option<Side> {
    let header = FrameHeader::read(*bytes.first_chunk()?);
    match header.kind {
        HEADERS if begins(bytes, 1) => {
            let before = usize::from(header.is_padded()) + if header.has_priority() { 5 } else { 0 };
            let first = *bytes.get(HEADER + before)?;
            let index = match first {
                0x80.. => first & 0x7f,
                0x40.. => first & 0x3f,
                _ => first & 0x0f,
            };
            match index {
                1..=7 => Some(Side::Client),
                8..=14 => Some(Side::Server),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Where the first frame begins in bytes that are joined in the middle.
///
/// `fresh`: they begin where a call's bytes begin, as frames mostly do; then one frame is enough, elsewhere it takes two.
pub(super) fn find(bytes: &[u8], fresh: bool) -> Option<usize> {
    if fresh && begins(bytes, 1) {
        return Some(0);
    }
    // The first byte of a usual length is 0.
    memchr::memchr_iter(0, bytes).find(|at| begins(&bytes[*at..], 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    #[test]
    fn tells_who_writes() {
        let head = |flags, payload: &[u8]| sender_of(&frame(HEADERS, flags, 3, payload));
        assert_eq!(head(4, &[0x83, 0x86]), Some(Side::Client), ":method POST");
        assert_eq!(head(4, &[0x44, 0x84]), Some(Side::Client), "a :path");
        assert_eq!(
            head(0x24, &[0, 0, 0, 0, 1, 0x83]),
            Some(Side::Client),
            "after a priority"
        );
        assert_eq!(head(0x0c, &[1, 0x88, 0]), Some(Side::Server), ":status 200, padded");
        assert_eq!(head(4, &[0x48, 0x82]), Some(Side::Server), ":status 202");
        assert_eq!(
            head(4, &[0x08, 0x82]),
            Some(Side::Server),
            ":status that is not indexed"
        );
        assert_eq!(head(4, &[0xbe]), None, "a field of the dynamic table");
        assert_eq!(head(4, &[]), None);
        assert_eq!(sender_of(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])), None);
        assert_eq!(sender_of(&frame(DATA, 1, 3, b"{}")), None);
        assert_eq!(sender_of(b"\0"), None);
    }

    #[test]
    fn tells_frames_from_other_bytes() {
        let two = [frame(HEADERS, 4, 3, b"abc"), frame(DATA, 1, 3, b"{}")].concat();
        assert_eq!(find(&two, true), Some(0));
        assert_eq!(find(&two[..12], true), Some(0));
        assert_eq!(find(&two[..12], false), None);
        let late = [b"rest of {\"a\":1}\0\0", &two[..]].concat();
        assert_eq!(find(&late, false), Some(17));
        assert_eq!(find(&late, true), Some(17));
        for other in [
            frame(SETTINGS, 0, 1, b""),
            frame(SETTINGS, 0, 0, b"12345"),
            frame(DATA, 0, 0, b""),
            frame(PING, 0, 0, b"1234"),
            frame(DATA, 0x40, 1, b""),
            frame(0x2a, 0, 1, b""),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            b"{\"jsonrpc\":\"2.0\"}\n".to_vec(),
        ] {
            assert_eq!(find(&other, true), None, "{other:?}");
        }
    }
}

//! Content codings (RFC 9110, section 8.4.1): gzip, deflate, br and zstd, decoded piece by piece and within bounds.

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use bytes::{Buf, Bytes, BytesMut};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Bytes that a body may decode to whatever its length, so that short bodies of white space are no bombs.
const FREE_BYTES: u64 = 1 << 20;

/// Bytes that one byte of a body may decode to beyond that. Lists of tools reach 20; what reaches 1000 is made to.
const MAX_RATIO: u64 = 256;

/// Bytes that a body may decode to before a message comes of it: far more than a message may have.
const MAX_DECODED: u64 = 256 << 20;

/// Memory of the brotli decoder's output step.
const BROTLI_STEP: usize = 4096;

/// Largest window of a zstd frame in HTTP (RFC 9659).
const MAX_WINDOW: u64 = 8 << 20;

/// What a zstd frame begins with (RFC 8878, section 3.1.1).
const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// What a frame begins with that holds nothing of the content (section 3.1.2), but for its lowest four bits; its length follows.
const SKIPPABLE: u32 = 0x184d_2a50;

/// Largest block of zstd (section 3.1.1.2.4).
const MAX_BLOCK: usize = 128 << 10;

/// How a body is coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Not at all.
    #[default]
    Identity,
    Gzip,
    /// With the zlib format around it, or without: peers do either.
    Deflate,
    Brotli,
    Zstd,
    /// In a way that is not read here.
    Other,
    /// Not told: known by what the body begins with.
    Untold,
}

impl Coding {
    /// Reads a `Content-Encoding`.
    pub(crate) fn named(value: &str) -> Self {
        let is = |name: &str| value.eq_ignore_ascii_case(name);
        match value.len() {
            0 => Self::Identity,
            8 if is("identity") => Self::Identity,
            4 if is("gzip") => Self::Gzip,
            6 if is("x-gzip") => Self::Gzip,
            7 if is("deflate") => Self::Deflate,
            2 if is("br") => Self::Brotli,
            4 if is("zstd") => Self::Zstd,
            _ => Self::Other,
        }
    }

    /// What a body that begins with `byte` is coded as; JSON and event streams begin with none of these.
    pub(crate) const fn of(byte: u8) -> Self {
        match byte {
            0x1f => Self::Gzip,
            0x78 => Self::Deflate,
            0x28 => Self::Zstd,
            _ => Self::Identity,
        }
    }
}

/// How a body is coded, and coded again: more than that nobody does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Codings {
    first: Coding,
    then: Coding,
}

impl Codings {
    /// Nothing is told of them.
    pub(crate) const UNTOLD: Self = Self {
        first: Coding::Untold,
        then: Coding::Identity,
    };

    /// Takes in a list of codings, in the order in which they were applied.
    pub(crate) fn add(&mut self, list: &str) {
        for coding in list.split(',').map(|name| Coding::named(name.trim())) {
            match self {
                _ if coding == Coding::Identity => {}
                Self {
                    first: Coding::Identity,
                    ..
                } => self.first = coding,
                Self {
                    then: Coding::Identity, ..
                } => self.then = coding,
                Self { .. } => self.then = Coding::Other,
            }
        }
    }

    /// Whether they are read here.
    pub(crate) fn are_known(self) -> bool {
        self.first != Coding::Other && self.then != Coding::Other
    }

    /// What undoes them, where there is anything to undo that is known.
    pub(crate) fn decoder(self) -> Option<Decoder> {
        match Decoder::new(self.then) {
            Some(outer) => Some(Decoder {
                under: Decoder::new(self.first).map(Box::new),
                ..outer
            }),
            None => Decoder::new(self.first),
        }
    }
}

/// Why decoding ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The bytes are not what the coding allows.
    Corrupt,
    /// They decode to more than is allowed: a bomb.
    TooMuch,
}

/// Decodes one body.
pub(crate) struct Decoder {
    inner: Inner,
    given: u64,
    made: u64,
    /// `made` when the last message was complete.
    before: u64,
    /// What decodes again what this makes.
    under: Option<Box<Decoder>>,
}

enum Inner {
    Gzip(MultiGzDecoder<Room>),
    /// The first byte tells which format it is.
    Deflate,
    Zlib(ZlibDecoder<Room>),
    Raw(DeflateDecoder<Room>),
    Brotli(Box<DecompressorWriter<Room>>),
    Zstd(Box<Zstd>),
}

impl Decoder {
    /// A decoder of what is coded and known.
    pub(crate) fn new(coding: Coding) -> Option<Self> {
        let inner = match coding {
            Coding::Identity | Coding::Other | Coding::Untold => return None,
            Coding::Gzip => Inner::Gzip(MultiGzDecoder::new(Room::default())),
            Coding::Deflate => Inner::Deflate,
            Coding::Brotli => Inner::Brotli(Box::new(DecompressorWriter::new(Room::default(), BROTLI_STEP))),
            Coding::Zstd => Inner::Zstd(Box::default()),
        };
        Some(Self {
            inner,
            given: 0,
            made: 0,
            before: 0,
            under: None,
        })
    }

    /// What `piece` adds to the body. A zstd frame gives its last bytes, up to its window, only at its end.
    pub(crate) fn decode(&mut self, piece: &[u8]) -> Result<Bytes, Fault> {
        self.given += piece.len() as u64;
        self.undo(piece)
    }

    fn undo(&mut self, piece: &[u8]) -> Result<Bytes, Fault> {
        let Some(first) = piece.first() else {
            return Ok(Bytes::new());
        };
        if matches!(self.inner, Inner::Deflate) {
            // Where raw deflate begins like zlib, it begins with a stored block whose padding is not zero: nobody writes that.
            self.inner = if first & 0x8f == 8 {
                Inner::Zlib(ZlibDecoder::new(Room::default()))
            } else {
                Inner::Raw(DeflateDecoder::new(Room::default()))
            };
        }
        let by_ratio = (FREE_BYTES + self.given.saturating_mul(MAX_RATIO)).saturating_sub(self.made);
        let room = by_ratio.min((MAX_DECODED + self.before).saturating_sub(self.made));
        let bytes = match &mut self.inner {
            Inner::Gzip(decoder) => write(decoder, MultiGzDecoder::get_mut, piece, room),
            Inner::Zlib(decoder) => write(decoder, ZlibDecoder::get_mut, piece, room),
            Inner::Raw(decoder) => write(decoder, DeflateDecoder::get_mut, piece, room),
            Inner::Brotli(decoder) => write(&mut **decoder, DecompressorWriter::get_mut, piece, room),
            Inner::Zstd(decoder) => decoder.decode(piece, room),
            Inner::Deflate => unreachable!("it was replaced above"),
        }?;
        self.made += bytes.len() as u64;
        match &mut self.under {
            // What came on the wire counts, so that bombs in bombs are none.
            Some(under) => {
                under.given = self.given;
                under.undo(&bytes)
            }
            None => Ok(bytes),
        }
    }

    /// A message came of what was decoded.
    pub(crate) fn settle(&mut self) {
        self.before = self.made;
        if let Some(under) = &mut self.under {
            under.settle();
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Decoder")
            .field("given", &self.given)
            .field("made", &self.made)
            .finish_non_exhaustive()
    }
}

/// Where decoders write to: as much as there is room for.
#[derive(Default)]
struct Room {
    bytes: Vec<u8>,
    left: u64,
    full: bool,
}

impl Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        if length > self.left {
            self.full = true;
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.left -= length;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write<D: Write>(decoder: &mut D, room: fn(&mut D) -> &mut Room, piece: &[u8], left: u64) -> Result<Bytes, Fault> {
    room(decoder).left = left;
    let written = decoder.write_all(piece).and_then(|()| decoder.flush());
    let room = room(decoder);
    match written {
        Ok(()) => Ok(std::mem::take(&mut room.bytes).into()),
        Err(_) if room.full => Err(Fault::TooMuch),
        Err(_) => Err(Fault::Corrupt),
    }
}

/// Decodes zstd (RFC 8878) a whole block at a time.
#[derive(Default)]
struct Zstd {
    /// The header or block in the making: at most 128 KiB and a little.
    input: BytesMut,
    decoder: FrameDecoder,
    begun: bool,
    checksum: bool,
    /// Bytes of a frame to be skipped that are still to come.
    skip: usize,
}

impl Zstd {
    fn decode(&mut self, piece: &[u8], room: u64) -> Result<Bytes, Fault> {
        self.input.extend_from_slice(piece);
        let mut out = Room {
            left: room,
            ..Room::default()
        };
        while if self.begun {
            self.block(&mut out)?
        } else {
            self.header()?
        } {}
        Ok(out.bytes.into())
    }

    /// Skips what holds nothing of the content; whether there was anything.
    fn skipped(&mut self) -> bool {
        if self.skip == 0
            && self.begins_skippable()
            && let Some(&[.., a, b, c, d]) = self.input.first_chunk::<8>()
        {
            self.skip = 8 + u32::from_le_bytes([a, b, c, d]) as usize;
        }
        let here = self.skip.min(self.input.len());
        self.input.advance(here);
        self.skip -= here;
        here > 0
    }

    fn begins_skippable(&self) -> bool {
        let magic = self.input.first_chunk().map(|magic| u32::from_le_bytes(*magic));
        magic.is_some_and(|magic| magic & !15 == SKIPPABLE)
    }

    /// Begins a frame (section 3.1.1.1); whether its header was complete.
    fn header(&mut self) -> Result<bool, Fault> {
        if self.skipped() {
            return Ok(true);
        }
        if self.begins_skippable() {
            return Ok(false);
        }
        let Some(&descriptor) = self.input.get(MAGIC.len()) else {
            return Ok(false);
        };
        let single = descriptor & 0x20 != 0;
        let window = MAGIC.len() + 1;
        let dictionary = window + usize::from(!single);
        let size = dictionary + [0, 1, 2, 4][usize::from(descriptor & 3)];
        let end = size + [usize::from(single), 2, 4, 8][usize::from(descriptor >> 6)];
        if !self.input.starts_with(&MAGIC) {
            return Err(Fault::Corrupt);
        }
        if self.input.len() < end {
            return Ok(false);
        }
        let window = if single {
            let mut content = [0; 8];
            content[..end - size].copy_from_slice(&self.input[size..end]);
            u64::from_le_bytes(content)
        } else {
            let base = 1 << (10 + u64::from(self.input[window] >> 3));
            base + base / 8 * u64::from(self.input[window] & 7)
        };
        if window > MAX_WINDOW {
            return Err(Fault::TooMuch);
        }
        self.checksum = descriptor & 4 != 0;
        self.decoder.reset(&self.input[..end]).map_err(|_| Fault::Corrupt)?;
        self.input.advance(end);
        self.begun = true;
        Ok(true)
    }

    /// Decodes a block; whether it was complete.
    fn block(&mut self, out: &mut Room) -> Result<bool, Fault> {
        let Some(&[a, b, c]) = self.input.first_chunk() else {
            return Ok(false);
        };
        let word = u32::from_le_bytes([a, b, c, 0]);
        let (last, repeated) = (word & 1 == 1, (word >> 1) & 3 == 1);
        let content = if repeated { 1 } else { (word >> 3) as usize };
        let length = 3 + content + if last && self.checksum { 4 } else { 0 };
        if self.input.len() < length {
            return if content > MAX_BLOCK {
                Err(Fault::Corrupt)
            } else {
                Ok(false)
            };
        }
        let block = self.input.split_to(length);
        let one = BlockDecodingStrategy::UptoBlocks(1);
        let decoded = self.decoder.decode_blocks(&block[..], one);
        decoded.map_err(|_| Fault::Corrupt)?;
        if self.decoder.collect_to_writer(&mut *out).is_err() || out.full {
            return Err(Fault::TooMuch);
        }
        self.begun = !last;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    /// What the reference encoders of brotli and zstd (one frame in one block; one in three, with a checksum) make of
    /// [`answer`], and brotli of 600 MiB of white space.
    const BROTLI: &str = "1b8404008cd315f3a28475cfffb995facb22ff385336ea824d644159ebb074f5653038dd219c69dc37db70c261636c4b3b57540b\
        dffabccf09909d10ee0b72833eb0203fe05898ff3300737c137102845723a3a0a2a163606261af79922d4745554d5d43530b3b2b\
        a4aca2aaa6aea1a9859d555256515553d7d0d48aeefd";
    const ZSTD: &str = "28b52ffd608503350500e2c61519806b3a6484977632df819b85c0ac8cc834b229191d751253236b191693ffffffdfb66ddb6edb\
        b66d42400682c05db478d0108f918ec6c4348e4fc1782a9d5a143ec6532c9cd41021c603828807c0342a4ca31627c12728207093\
        141fa1082f6443096fc842195ec88612de908532bc900d25bc212b940dc2d3206419858251781785cca2502a0a8fa290270a4d82\
        616cb18fcdd8621f9bd9d2be60338f15b230bd07";
    const ZSTD_BLOCKS: &str = "28b52ffd0458f40200a204111a80b71a03c4884338dd21b18b1f64e2049edefeb92d668a2661040a4a90c338051e3627be05dd73\
        6586fd2df92a5db5d22fdf01c1691b510e088c1be29c27d6d472825f0a00a013601fb019b005d8076c066c01f6f5590b0b2b5075\
        030054027439313131313131313131323232323232323232323333333333333333333339227d5d7d7d1f002014101e0819080584\
        0742064201e181908150407820642014101e0819080584074206a16c6c781a1bb28c0d0563c3bbd890596c28151b1ec5863cb1a1\
        492c86012b30b80271b9b9a3";
    const BROTLI_BOMB: &str = "cbffff3ff82540e2b14020f7fe8fffff7ff04b00c4611180eefd1fffffffe0970088c30200ddfb3ffeffffc12f0110870500baf7\
        7ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffe3ffff1ffc1200715800a07b\
        ffc7ffff3ff82500e2b00040f7fe8fffff7ff04b00c4610180eefd1fffffffe0970088c30200ddfb3ffeffffc12f0110870500ba\
        f77ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffe3ffff1ffc1200715800a0\
        7bffc7ffff3ff82500e2b00040f7fe8fffff7ff04b00c4610180eefd1fffffffe0970088c30200ddfb3ffeffffc12f0110870500\
        baf77ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffe3ffff1ffc1200715800\
        a07bffc7ffff3ff82500e2b00040f7fe8fffff7ff04b00c4610180eefd1fffffffe0970088c30200ddfb3ffeffffc12f01108705\
        00baf77ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffe3ffff1ffc12007158\
        00a07bffc7ffff3ff82500e2b00040f7fe8fffff7ff04b00c4610180eefd1fffffffe0970088c30200ddfb3ffeffffc12f011087\
        0500baf77ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffe3ffff1ffc120071\
        5800a07bffc7ffff3ff82500e2b00040f7fe8fffff7ff04b00c4610180eefd1fffffffe0970088c30200ddfb3ffeffffc12f0110\
        870500baf77ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffe3ffff1ffc1200\
        715800a07bffc7ffff3ff82500e2b00040f7fe8fffff7ff04b00c4610180eefd1fffffffe0970088c30200ddfb3ffeffffc12f01\
        10870500baf77ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffe3ffff1ffc12\
        00715800a07bffc7ffff3ff82500e2b00040f7fe8fffff7ff04b00c4610180eefd1fffffffe0970088c30200ddfb3ffeffffc12f\
        0110870500baf77ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffe3ffff1ffc\
        1200715800a07bffc7ffff3ff82500e2b00040f7fe8fffff7ff04b00c4610180eefd1fffffffe0970088c30200ddfb3ffeffffc1\
        2f0110870500baf77ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffe3ffff1f\
        fc1200715800a07bffc7ffff3ff82500e2b00040f7fe8fffff7ff04b00c4610180eefd1fffffffe0970088c30200ddfbbf01";

    fn answer() -> Vec<u8> {
        let text = |number| format!("{{\"type\":\"text\",\"text\":\"{number}\"}}");
        let texts: Vec<String> = (0..40).map(text).collect();
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{{\"content\":[{}]}}}}",
            texts.join(",")
        )
        .into_bytes()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    /// `plain` as every coding codes it.
    fn coded(plain: &[u8]) -> Vec<(Coding, Vec<u8>)> {
        let level = Compression::best();
        let mut gzip = GzEncoder::new(Vec::new(), level);
        let mut zlib = ZlibEncoder::new(Vec::new(), level);
        let mut raw = DeflateEncoder::new(Vec::new(), level);
        gzip.write_all(plain).unwrap();
        zlib.write_all(plain).unwrap();
        raw.write_all(plain).unwrap();
        vec![
            (Coding::Gzip, gzip.finish().unwrap()),
            (Coding::Deflate, zlib.finish().unwrap()),
            (Coding::Deflate, raw.finish().unwrap()),
        ]
    }

    fn decode(coding: Coding, pieces: &[&[u8]]) -> Result<Vec<u8>, Fault> {
        let mut decoder = Decoder::new(coding).unwrap();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&decoder.decode(piece)?);
        }
        Ok(out)
    }

    #[test]
    fn every_coding_in_any_pieces() {
        let mut all = coded(&answer());
        all.push((Coding::Brotli, bytes(BROTLI)));
        all.push((Coding::Zstd, bytes(ZSTD)));
        all.push((Coding::Zstd, bytes(ZSTD_BLOCKS)));
        // A frame that is to be skipped, before and after, and one of no length.
        let skip = bytes("5f2a4d1803000000aabbcc");
        let empty = bytes("502a4d1800000000");
        all.push((Coding::Zstd, [&skip, &empty, &bytes(ZSTD)[..], &skip].concat()));
        for (coding, body) in all {
            for size in [1, 2, 7, 100, body.len()] {
                let pieces: Vec<&[u8]> = body.chunks(size).collect();
                assert_eq!(decode(coding, &pieces), Ok(answer()), "{coding:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_was_flushed_comes_out_at_once() {
        for (coding, body) in [
            (Coding::Gzip, {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(b"data: {}\n\n").unwrap();
                encoder.flush().unwrap();
                encoder.get_ref().clone()
            }),
            // One metablock that is not the last.
            (Coding::Brotli, bytes("8b0480646174613a207b7d0a0a")),
        ] {
            assert_eq!(decode(coding, &[&body]), Ok(b"data: {}\n\n".to_vec()), "{coding:?}");
        }
    }

    #[test]
    fn bombs_are_left() {
        let spaces = vec![b' '; 16 << 20];
        for (coding, body) in coded(&spaces) {
            let many: Vec<&[u8]> = body.chunks(1000).collect();
            assert_eq!(decode(coding, &many), Err(Fault::TooMuch), "{coding:?}");
        }
        assert_eq!(decode(Coding::Brotli, &[&bytes(BROTLI_BOMB)]), Err(Fault::TooMuch));
        // A window of 128 GiB, and of a single segment of as much.
        for header in ["28b52ffd00d8", "28b52ffde00000000020000000"] {
            assert_eq!(decode(Coding::Zstd, &[&bytes(header)]), Err(Fault::TooMuch));
        }
        // A block of 128 KiB of one byte, again and again.
        let blocks = [bytes("28b52ffd0058"), bytes("02001020").repeat(1000)].concat();
        assert_eq!(decode(Coding::Zstd, &[&blocks]), Err(Fault::TooMuch));
    }

    proptest! {
        #[test]
        fn any_bytes_at_all(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..5),
            flip in any::<usize>(),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd] {
                let _ = decode(coding, &pieces);
            }
            for (coding, hex) in [(Coding::Brotli, BROTLI), (Coding::Zstd, ZSTD), (Coding::Zstd, ZSTD_BLOCKS)] {
                let mut body = bytes(hex);
                let at = flip % (body.len() * 8);
                body[at / 8] ^= 1 << (at % 8);
                let _ = decode(coding, &[&body]);
            }
        }
    }
}

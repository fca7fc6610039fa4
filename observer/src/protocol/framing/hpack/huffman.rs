//! The Huffman code of header strings (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and begin where those of the
//! length before end. So the lengths are the whole table, and a symbol is found by the first length whose codes reach that far:
//!
//! ```text
//! bits   0b11100…        length 5: codes below 0b01010   no
//!                        length 6: codes below 0b101110  no
//!                        length 7: codes below 0b1111011 yes: the symbol is so far from the first code of length 7
//! ```

/// Length in bits of the code of every byte, and last of the end of the string.
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

const SYMBOLS: usize = 257;

/// Longest code in bits.
const LONGEST: u32 = 30;

/// Lengths that codes have.
const RANKS: usize = 21;

/// The codes of one length.
#[derive(Clone, Copy)]
struct Rank {
    length: u32,
    /// The first code, and what comes after the last one, both moved to the left end of 32 bits.
    first: u64,
    end: u64,
    /// Place of its first symbol in [`Code::symbols`].
    place: usize,
}

struct Code {
    ranks: [Rank; RANKS],
    /// Symbols in the order of their codes.
    symbols: [u16; SYMBOLS],
}

static CODE: Code = code();

const fn code() -> Code {
    let none = Rank {
        length: 0,
        first: 0,
        end: 0,
        place: 0,
    };
    let mut code = Code {
        ranks: [none; RANKS],
        symbols: [0; SYMBOLS],
    };
    let (mut length, mut rank, mut place, mut next) = (1, 0, 0, 0_u64);
    while length <= LONGEST {
        let (first, from) = (next, place);
        let mut symbol = 0_u16;
        while (symbol as usize) < SYMBOLS {
            if LENGTHS[symbol as usize] as u32 == length {
                code.symbols[place] = symbol;
                place += 1;
                next += 1 << (32 - length);
            }
            symbol += 1;
        }
        if place > from {
            code.ranks[rank] = Rank {
                length,
                first,
                end: next,
                place: from,
            };
            rank += 1;
        }
        length += 1;
    }
    code
}

/// Appends what `input` stands for to `out`; false where it is no string of this code.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> bool {
    // The bits not decoded yet, from the left.
    let (mut bits, mut count) = (0_u64, 0_u32);
    let mut rest = input.iter();
    loop {
        while count <= 56
            && let Some(byte) = rest.next()
        {
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        let window = bits >> 32;
        let Some(rank) = CODE.ranks.iter().find(|rank| window < rank.end) else {
            return is_padding(bits, count);
        };
        if rank.length > count {
            return is_padding(bits, count);
        }
        let place = usize::try_from((window - rank.first) >> (32 - rank.length));
        let symbol = place.ok().and_then(|place| CODE.symbols.get(rank.place + place));
        let Some(byte) = symbol.and_then(|symbol| u8::try_from(*symbol).ok()) else {
            // It is the end of the string.
            return false;
        };
        out.push(byte);
        bits <<= rank.length;
        count -= rank.length;
    }
}

/// Whether what is left is shorter than a byte and all ones.
const fn is_padding(bits: u64, count: u32) -> bool {
    count < 8 && bits.leading_ones() >= count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_complete() {
        assert_eq!(CODE.ranks[RANKS - 1].end, 1 << 32);
        assert_eq!(CODE.symbols[SYMBOLS - 1], 256);
    }

    #[test]
    fn decodes() {
        fn check(hex: &str, expected: Option<&str>) {
            let bytes: Vec<u8> = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect();
            let mut out = Vec::new();
            let good = decode(&bytes, &mut out);
            assert_eq!(
                good.then(|| String::from_utf8(out).unwrap()).as_deref(),
                expected,
                "{hex}"
            );
        }
        // RFC 7541, appendix C.4 and C.6.
        check("f1e3c2e5f23a6ba0ab90f4ff", Some("www.example.com"));
        check("a8eb10649cbf", Some("no-cache"));
        check("25a849e95ba97d7f", Some("custom-key"));
        check(
            "d07abe941054d444a8200595040b8166e082a62d1bff",
            Some("Mon, 21 Oct 2013 20:13:21 GMT"),
        );
        check("", Some(""));
        // Padding of a whole byte, padding with zeros, the end itself.
        check("a8eb10649cbfff", None);
        check("a8eb10649cbe", None);
        check("ffffffff", None);
    }
}

//! Walks JSON text without building a tree.
//!
//! A passive observer needs a dozen fields of a message and nothing of its megabytes of content, and it needs them too when
//! the end of the message is missing. So values are stepped over in place: no allocation, cost linear in bytes, nesting
//! bounded by [`MAX_DEPTH`], any key order, duplicate keys allowed (the last one counts, as in most parsers).
//! RFC 8259; raw control characters inside strings are tolerated.

use std::borrow::Cow;

use memchr::memchr2;

use super::digest::characters;

/// Nesting that is followed. Real messages stay below 30; each level costs stack.
pub(crate) const MAX_DEPTH: u16 = 256;

/// Why a walk stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The text is no JSON.
    Syntax,
    /// It nests deeper than [`MAX_DEPTH`].
    TooDeep,
    /// The text ended before the value did.
    Cut,
}

type Walk<T> = Result<T, Fault>;

/// A position in JSON text.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: u16,
}

impl<'a> Scanner<'a> {
    pub(crate) const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// The next byte that is no white space, not consumed.
    pub(crate) fn peek(&mut self) -> Walk<u8> {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(Fault::Cut)
    }

    /// Whether only white space is left.
    pub(crate) fn at_end(&mut self) -> bool {
        self.peek().is_err()
    }

    /// Steps through the members of an object; `visit` gets each key and must step over its value.
    ///
    /// Anything but an object is stepped over without a visit.
    ///
    /// Keys are bytes: what they are compared with is known to be text.
    pub(crate) fn members(&mut self, visit: &mut dyn FnMut(&mut Self, &[u8]) -> Walk<()>) -> Walk<()> {
        if self.peek()? != b'{' {
            return self.skip();
        }
        self.enter()?;
        if self.peek()? == b'}' {
            return self.leave();
        }
        loop {
            if self.peek()? != b'"' {
                return Err(Fault::Syntax);
            }
            let (inner, escapes) = self.skip_string()?;
            self.expect(b':')?;
            visit(self, &plain(inner, escapes))?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => return self.leave(),
                _ => return Err(Fault::Syntax),
            }
        }
    }

    /// Steps through the elements of an array; `visit` gets the text of each.
    pub(crate) fn elements(&mut self, visit: &mut dyn FnMut(&'a [u8])) -> Walk<()> {
        self.items(&mut |scanner| {
            visit(scanner.raw()?);
            Ok(())
        })
    }

    /// Steps through the elements of an array; `visit` must step over each.
    ///
    /// Anything but an array is stepped over without a visit.
    pub(crate) fn items(&mut self, visit: &mut dyn FnMut(&mut Self) -> Walk<()>) -> Walk<()> {
        if self.peek()? != b'[' {
            return self.skip();
        }
        self.enter()?;
        if self.peek()? == b']' {
            return self.leave();
        }
        loop {
            visit(self)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => return self.leave(),
                _ => return Err(Fault::Syntax),
            }
        }
    }

    /// Steps over a value and returns its text.
    pub(crate) fn raw(&mut self) -> Walk<&'a [u8]> {
        self.peek()?;
        let start = self.at;
        self.skip()?;
        Ok(&self.text[start..self.at])
    }

    /// Steps over a value; its content when it is a string.
    pub(crate) fn string_value(&mut self) -> Walk<Option<Cow<'a, str>>> {
        if self.peek()? == b'"' {
            return self.string().map(Some);
        }
        self.skip().map(|()| None)
    }

    /// Steps over a value; the bytes of its content when it is a string.
    pub(crate) fn text(&mut self) -> Walk<Option<Cow<'a, [u8]>>> {
        if self.peek()? != b'"' {
            return self.skip().map(|()| None);
        }
        let (inner, escapes) = self.skip_string()?;
        Ok(Some(plain(inner, escapes)))
    }

    /// The text not consumed yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    /// The text consumed since `start`, which is an earlier state of this scanner.
    pub(crate) fn since(&self, start: &Self) -> &'a [u8] {
        &self.text[start.at..self.at]
    }

    /// Steps over a value; adds its characters when it is a string, an escape counting as one.
    pub(crate) fn characters(&mut self, total: &mut u64) -> Walk<()> {
        if self.peek()? != b'"' {
            return self.skip();
        }
        let (inner, escapes) = self.skip_string()?;
        *total += characters(inner).saturating_sub(escapes);
        Ok(())
    }

    /// Steps over a value; itself when it is a whole number that fits.
    pub(crate) fn integer_value(&mut self) -> Walk<Option<i64>> {
        let raw = self.raw()?;
        Ok(std::str::from_utf8(raw).ok().and_then(|text| text.parse().ok()))
    }

    /// Steps over any value.
    pub(crate) fn skip(&mut self) -> Walk<()> {
        match self.peek()? {
            b'{' => self.skip_object(),
            b'[' => self.skip_array(),
            b'"' => self.skip_string().map(|_| ()),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(Fault::Syntax),
        }
    }

    fn skip_object(&mut self) -> Walk<()> {
        self.enter()?;
        if self.peek()? == b'}' {
            return self.leave();
        }
        loop {
            if self.peek()? != b'"' {
                return Err(Fault::Syntax);
            }
            self.skip_string()?;
            self.expect(b':')?;
            self.skip()?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => return self.leave(),
                _ => return Err(Fault::Syntax),
            }
        }
    }

    fn skip_array(&mut self) -> Walk<()> {
        self.enter()?;
        if self.peek()? == b']' {
            return self.leave();
        }
        loop {
            self.skip()?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => return self.leave(),
                _ => return Err(Fault::Syntax),
            }
        }
    }

    fn enter(&mut self) -> Walk<()> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            Err(Fault::TooDeep)
        } else {
            Ok(())
        }
    }

    fn leave(&mut self) -> Walk<()> {
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    fn expect(&mut self, wanted: u8) -> Walk<()> {
        if self.peek()? != wanted {
            return Err(Fault::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Walk<Cow<'a, str>> {
        let (inner, escapes) = self.skip_string()?;
        if escapes > 0 {
            return Ok(Cow::Owned(unescape(inner)));
        }
        // Whole messages were checked before; what is left of a cut one may end within a character.
        Ok(std::str::from_utf8(inner).map_or_else(|_| String::from_utf8_lossy(inner), Cow::Borrowed))
    }

    /// Steps over a string; its inside, and how many characters its escapes take more than what they stand for.
    fn skip_string(&mut self) -> Walk<(&'a [u8], u64)> {
        let inner = self.text.get(self.at + 1..).ok_or(Fault::Cut)?;
        let (mut end, mut escapes) = (0, 0);
        loop {
            let rest = inner.get(end..).ok_or(Fault::Cut)?;
            end += find_special(rest).ok_or(Fault::Cut)?;
            if inner[end] == b'"' {
                self.at += end + 2;
                return Ok((&inner[..end], escapes));
            }
            escapes += if inner.get(end + 1) == Some(&b'u') { 5 } else { 1 };
            end += 2;
        }
    }

    fn literal(&mut self, word: &[u8]) -> Walk<()> {
        let rest = &self.text[self.at..];
        if rest.len() < word.len() && word.starts_with(rest) {
            return Err(Fault::Cut);
        }
        if !rest.starts_with(word) {
            return Err(Fault::Syntax);
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Walk<()> {
        let rest = &self.text[self.at..];
        let length = rest
            .iter()
            .take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .count();
        self.at += length;
        if is_number(&rest[..length]) {
            Ok(())
        } else {
            Err(Fault::Syntax)
        }
    }
}

/// Where a string ends or has an escape.
///
/// Keys are short: to call the search that takes many bytes at once costs more than they do, eight bytes in one word do not.
fn find_special(text: &[u8]) -> Option<usize> {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    let zeros = |word: u64| word.wrapping_sub(EACH) & !word & (EACH << 7);
    let mut at = 0;
    while let Some(bytes) = text[at..].first_chunk::<8>()
        && at < 24
    {
        let word = u64::from_le_bytes(*bytes);
        // The lowest mark is of a byte that is one; those above it may be of its borrow.
        let found = zeros(word ^ (EACH * b'"' as u64)) | zeros(word ^ (EACH * b'\\' as u64));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += bytes.len();
    }
    Some(at + memchr2(b'"', b'\\', &text[at..])?)
}

/// The bytes that the inside of a string stands for.
fn plain(inner: &[u8], escapes: u64) -> Cow<'_, [u8]> {
    if escapes > 0 {
        return Cow::Owned(unescape(inner).into_bytes());
    }
    Cow::Borrowed(inner)
}

/// The grammar of RFC 8259 section 6.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent
            .strip_prefix(b"+")
            .or(exponent.strip_prefix(b"-"))
            .unwrap_or(exponent);
        let length = digits(exponent);
        return length > 0 && length == exponent.len();
    }
    rest.is_empty()
}

/// Resolves escapes; one that is no escape stands for itself, a lone surrogate for U+FFFD.
fn unescape(inner: &[u8]) -> String {
    let text = String::from_utf8_lossy(inner);
    let mut plain = String::with_capacity(text.len());
    let mut units: Vec<u16> = Vec::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            flush(&mut units, &mut plain);
            plain.push(character);
            continue;
        }
        let escape = rest.next().unwrap_or('\\');
        if escape == 'u' {
            let digits: String = rest.clone().take(4).collect();
            if let (4, Ok(unit)) = (digits.len(), u16::from_str_radix(&digits, 16)) {
                units.push(unit);
                rest.nth(3);
                continue;
            }
        }
        flush(&mut units, &mut plain);
        plain.push(match escape {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            other => other,
        });
    }
    flush(&mut units, &mut plain);
    plain
}

fn flush(units: &mut Vec<u16>, plain: &mut String) {
    plain.extend(char::decode_utf16(units.drain(..)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(text: &[u8]) -> Walk<()> {
        let mut scanner = Scanner::new(text);
        scanner.skip()?;
        if scanner.at_end() { Ok(()) } else { Err(Fault::Syntax) }
    }

    #[test]
    fn judges_text() {
        fn check(text: &str, expected: Walk<()>) {
            assert_eq!(walk(text.as_bytes()), expected, "{text}");
        }
        check(r#"{"a":[1,-2.5e+3,true,null,"x\"y"],"b":{}}"#, Ok(()));
        check(" [ ] ", Ok(()));
        check("01", Err(Fault::Syntax));
        check("1.", Err(Fault::Syntax));
        check("[1,]", Err(Fault::Syntax));
        check("[1}", Err(Fault::Syntax));
        check("{\"a\" 1}", Err(Fault::Syntax));
        check("\"abc", Err(Fault::Cut));
        check("\"abc\\", Err(Fault::Cut));
        check("tru", Err(Fault::Cut));
        check("[1,", Err(Fault::Cut));
        check("", Err(Fault::Cut));
        check(&"[".repeat(10_000), Err(Fault::TooDeep));
        check(&format!("{}{}", "[".repeat(256), "]".repeat(256)), Ok(()));
    }

    #[test]
    fn resolves_escapes() {
        assert_eq!(unescape(br#"a\n\u00e9\ud83d\ude00\ud800x\/"#), "a\né😀\u{fffd}x/");
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}:,"a0-9.eE+\- tnl]{0,24}"#) {
            let reference = serde_json::from_str::<serde_json::Value>(&text);
            // A number that it finds too large ends its reading: it says nothing of what comes after.
            prop_assume!(!reference.as_ref().is_err_and(|error| error.to_string().contains("out of range")));
            prop_assert_eq!(walk(text.as_bytes()).is_ok(), reference.is_ok(), "{}", text);
        }
    }
}

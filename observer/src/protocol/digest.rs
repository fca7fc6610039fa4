//! Tells whether two JSON texts are equal without keeping them, and how many characters they have.

use std::fmt;
use std::hash::{BuildHasher, Hash};

use rustc_hash::FxBuildHasher;
use sha2::{Digest as _, Sha256};

use super::json::{Fault, Scanner};

/// Stands for a text within this run: fast, and only as good as nobody gains by two that are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn of(value: impl Hash) -> Self {
        Self(FxBuildHasher.hash_one(value))
    }

    /// A place in a table of `size` places.
    pub(crate) fn place(self, size: usize) -> usize {
        usize::try_from(self.0 % size as u64).expect("it is less than a usize")
    }

    /// Of what this stands for and then `value`.
    pub(crate) fn then(self, value: impl Hash) -> Self {
        Self::of((self, value))
    }

    /// Adds a member of an object; members may come in any order.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_add(Self::of((key, value)).0);
    }
}

/// Stands for a JSON value for ever and everywhere: the same for any order of keys and any white space.
///
/// The first 16 bytes of SHA-256 over the values' own hashes, so that no server makes two definitions look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl fmt::Display for Fingerprint {
    /// 32 hexadecimal digits.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl Fingerprint {
    /// Of the value at which the scanner stands, and steps over it.
    pub(crate) fn read(scanner: &mut Scanner<'_>) -> Result<Self, Fault> {
        let mut hash = Sha256::new();
        match scanner.peek()? {
            b'{' => {
                let mut members = Vec::new();
                scanner.members(&mut |scanner, key| {
                    let value = Self::read(scanner)?;
                    let member = Sha256::new().chain_update(value.0).chain_update(key);
                    members.push(Self::cut(member));
                    Ok(())
                })?;
                hash.update(b"{");
                return Ok(Self::of_set(hash, members));
            }
            b'[' => {
                hash.update(b"[");
                scanner.items(&mut |scanner| {
                    hash.update(Self::read(scanner)?.0);
                    Ok(())
                })?;
            }
            b'"' => {
                hash.update(b"\"");
                hash.update(scanner.string_value()?.unwrap_or_default().as_bytes());
            }
            _ => hash.update(scanner.raw()?),
        }
        Ok(Self::cut(hash))
    }

    /// Of several together, in any order.
    pub(crate) fn of_all(all: impl Iterator<Item = Self>) -> Self {
        Self::of_set(Sha256::new(), all.collect())
    }

    fn of_set(mut hash: Sha256, mut all: Vec<Self>) -> Self {
        all.sort_unstable();
        for one in all {
            hash.update(one.0);
        }
        Self::cut(hash)
    }

    fn cut(hash: Sha256) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&hash.finalize()[..16]);
        Self(short)
    }
}

/// Characters of UTF-8 text: every byte that does not go on with the one before.
pub(crate) fn characters(text: &[u8]) -> u64 {
    let begins = |byte: &u8| u8::from(byte & 0xc0 != 0x80);
    // Sums of a byte each let the compiler count many bytes at once.
    text.chunks(255)
        .map(|chunk| u64::from(chunk.iter().map(begins).sum::<u8>()))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(text: &str) -> String {
        let mut scanner = Scanner::new(text.as_bytes());
        Fingerprint::read(&mut scanner).unwrap().to_string()
    }

    #[test]
    fn order_and_space_make_no_difference_and_anything_else_does() {
        let same = fingerprint(r#"{"name":"a","schema":{"x":[1,2],"y":"é"}}"#);
        assert_eq!(
            same,
            fingerprint(r#" {"schema": {"y":"\u00e9", "x":[ 1,2 ]}, "name" : "a"}"#)
        );
        assert_eq!(same, "dfa38dfe2a2dbe12491dd93927e78deb", "stable across versions");
        for other in [
            r#"{"name":"a","schema":{"x":[2,1],"y":"é"}}"#,
            r#"{"name":"a","schema":{"x":["1",2],"y":"é"}}"#,
            r#"{"name":"a","schema":{"y":[1,2],"x":"é"}}"#,
        ] {
            assert_ne!(same, fingerprint(other), "{other}");
        }
    }

    #[test]
    fn characters_not_bytes() {
        assert_eq!(characters("aé😀\u{301}".as_bytes()), 4);
        assert_eq!(characters("é".repeat(1000).as_bytes()), 1000);
    }
}

//! Hashes of what may identify a person: equal values stay comparable within one observer, and nothing more.

use std::fs::File;
use std::io::Read;

use sha2::{Digest, Sha256};

/// Hexadecimal digits of a hash: enough that two sessions never share one.
const DIGITS: usize = 32;

/// Random bytes of this process; never written anywhere.
#[derive(Clone, Debug)]
pub struct Salt([u8; 32]);

impl Salt {
    /// A new salt from the kernel's random numbers.
    ///
    /// # Errors
    /// When `/dev/urandom` cannot be read.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The hash of `value`; `kind` keeps equal values of different meaning apart.
    #[must_use]
    pub fn hash(&self, kind: &str, value: &str) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(kind.as_bytes());
        hasher.update([0]);
        hasher.update(value.as_bytes());
        let mut text = format!("{:x}", hasher.finalize());
        text.truncate(DIGITS);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_stable_within_and_differ_between_processes() {
        let (one, other) = (Salt::random().unwrap(), Salt::random().unwrap());
        assert_eq!(one.hash("session", "a"), one.hash("session", "a"));
        assert_ne!(one.hash("session", "a"), one.hash("user", "a"));
        assert_ne!(one.hash("session", "a"), other.hash("session", "a"));
        assert_eq!(one.hash("session", "a").len(), DIGITS);
    }
}

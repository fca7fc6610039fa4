//! Functions of TLS libraries in programs without symbols, found by what their code looks like.
//!
//! `signatures.toml` has the first bytes of each, with those left open that differ from version to version, and the versions they
//! were made from. A probe at a wrong place breaks a program: hence what is found more than once is not used at all, unless compilers make
//! copies of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use object::elf::{EM_AARCH64, EM_X86_64};
use regex::bytes::Regex;
use serde::Deserialize;

use super::elf::{self, Elf, Findings, Point, Refusal};
use super::families::{FAMILIES, Function};

/// Bytes of the longest signature.
const LONGEST: usize = 256;

/// Bytes of code searched in one file.
const MAX_SEARCHED: u64 = 256 << 20;

/// Every signature that could be read; a unit test reads them all.
static SIGNATURES: LazyLock<Vec<Signature>> =
    LazyLock::new(|| read(include_str!("signatures.toml")).unwrap_or_default());

/// The code of one function, as one compiler made it.
#[derive(Debug)]
struct Signature {
    library: String,
    machine: u16,
    function: &'static Function,
    copies: bool,
    code: Regex,
}

/// `signatures.toml`.
#[derive(Deserialize)]
struct Document {
    function: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    library: String,
    symbol: String,
    machine: String,
    /// For people.
    #[allow(dead_code, reason = "it must be there")]
    made_from: Vec<String>,
    /// Whether every unit of a program may have one of its own.
    #[serde(default)]
    copies: bool,
    code: String,
}

/// Looks in a file for the functions of a library that is known to be linked into it.
pub(super) fn find(elf: &Elf, library: &'static str) -> Result<Findings, Refusal> {
    let known: Vec<&Signature> = SIGNATURES
        .iter()
        .filter(|signature| signature.library == library && signature.machine == elf.machine())
        .collect();
    let mut places: BTreeMap<&str, (&Signature, BTreeSet<u64>)> = BTreeMap::new();
    let mut left = if known.is_empty() { 0 } else { MAX_SEARCHED };
    for (start, size) in elf.code() {
        let size = size.min(left);
        left -= size;
        let mut look = |at: u64, piece: &[u8]| {
            for signature in &known {
                let found = signature.code.find_iter(piece);
                let (_, places) = places
                    .entry(signature.function.symbol)
                    .or_insert((signature, BTreeSet::new()));
                places.extend(found.map(|found| start + at + found.start() as u64));
            }
            None::<()>
        };
        elf.pieces(start, size, LONGEST, &mut look)?;
    }
    let points = places
        .into_values()
        .filter(|(signature, places)| places.len() == 1 || signature.copies)
        .flat_map(|(signature, places)| places.into_iter().map(|offset| (signature.function, offset)))
        .map(|(function, offset)| Point {
            program: function.program,
            offset,
            returns: function.returns,
        })
        .collect();
    Ok(elf::reachable_if_whole(library, points))
}

/// Reads signatures; `None` where one of them makes no sense.
fn read(text: &str) -> Option<Vec<Signature>> {
    let document: Document = toml::from_str(text).ok()?;
    document.function.into_iter().map(Entry::signature).collect()
}

impl Entry {
    fn signature(self) -> Option<Signature> {
        let functions = || FAMILIES.iter().flat_map(|family| family.functions);
        let bytes: Vec<&str> = self.code.split_whitespace().collect();
        if bytes.len() > LONGEST {
            return None;
        }
        let expressions: Option<Vec<String>> = bytes.into_iter().map(expression).collect();
        Some(Signature {
            library: self.library,
            machine: match self.machine.as_str() {
                "x86_64" => EM_X86_64,
                "aarch64" => EM_AARCH64,
                _ => return None,
            },
            function: functions().find(|function| function.symbol == self.symbol)?,
            copies: self.copies,
            code: Regex::new(&format!("(?s-u){}", expressions?.concat())).ok()?,
        })
    }
}

/// The regular expression of a byte: two hexadecimal digits, or `??` for any.
fn expression(byte: &str) -> Option<String> {
    match byte {
        "??" => Some(".".to_owned()),
        _ if byte.len() == 2 => Some(format!("\\x{:02x}", u8::from_str_radix(byte, 16).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Code that the first signature of a function matches.
    pub(in super::super) fn example(symbol: &str) -> Vec<u8> {
        let document: Document = toml::from_str(include_str!("signatures.toml")).unwrap();
        let entry = document
            .function
            .into_iter()
            .find(|entry| entry.symbol == symbol)
            .unwrap();
        let byte = |byte| u8::from_str_radix(byte, 16).unwrap_or(0x0a);
        entry.code.split_whitespace().map(byte).collect()
    }

    #[test]
    fn every_signature_can_be_read() {
        let signatures = read(include_str!("signatures.toml")).expect("a signature makes no sense");
        assert!(
            signatures
                .iter()
                .all(|signature| !signature.code.is_match(&[0x90; LONGEST]))
        );
        assert!(
            read(r#"function = [{library = "x", symbol = "none", machine = "x86_64", made_from = [], code = "55"}]"#)
                .is_none()
        );
    }
}

//! What the names in symbol tables mean: functions of TLS libraries, by their symbols and, in Rust, by their demangled paths.

use std::fmt::{self, Write};

use memchr::{memchr, memrchr};

use super::families::{FAMILIES, Family, Function};

/// Bytes of a mangled name, and of a name of Rust's written out, at most: longer than any that is looked for.
pub(super) const LONGEST: usize = 256;

/// What a symbol tells: the family it is of, and its function, if it is one to attach to.
pub(super) type Meaning = (&'static Family, Option<&'static Function>);

/// Every symbol that tells something.
pub(super) fn meanings() -> impl Iterator<Item = (&'static str, Meaning)> {
    FAMILIES.iter().flat_map(|family| {
        let functions = family
            .functions
            .iter()
            .map(move |function| (function.symbol, (family, Some(function))));
        let marks = family.marks.iter().map(move |mark| (*mark, (family, None)));
        functions.chain(marks)
    })
}

/// Whether a function is known by its path in Rust and not by its symbol.
pub(super) fn is_path(name: &str) -> bool {
    name.contains("::")
}

/// Where the mangled name begins that has something at `at`, and what it means.
pub(super) fn rust_name_around(bytes: &[u8], at: usize) -> Option<(usize, Meaning)> {
    let earliest = at.saturating_sub(LONGEST);
    let begin = earliest + memrchr(0, &bytes[earliest..at])? + 1;
    let end = at + memchr(0, &bytes[at..])?;
    if end - begin > LONGEST {
        return None;
    }
    let name = rustc_demangle::try_demangle(std::str::from_utf8(&bytes[begin..end]).ok()?).ok()?;
    let mut path = Path(String::new());
    // Without its hash.
    write!(path, "{name:#}").ok()?;
    let (_, meaning) = meanings().find(|(name, _)| *name == path.0)?;
    Some((begin, meaning))
}

/// A demangled name that is refused when it gets long: some mangled ones are of any length when written out.
struct Path(String);

impl Write for Path {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.0.len() + more.len() > LONGEST {
            return Err(fmt::Error);
        }
        self.0.push_str(more);
        Ok(())
    }
}

/// Whether a name and the zero at its end lie there.
pub(super) fn is_name_at(bytes: &[u8], at: usize, name: &str) -> bool {
    bytes
        .get(at..)
        .and_then(|rest| rest.strip_prefix(name.as_bytes()))
        .is_some_and(|rest| rest.first() == Some(&0))
}

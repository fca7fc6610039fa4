//! Go's table of functions, which every Go program has in memory and so no stripping takes away.
//!
//! ```text
//! header:     magic, 0, 0, quantum, size of a pointer, then words:
//!     1.16    functions  files              names  cu  files  pc  table
//!     1.18 on functions  files  text start  names  cu  files  pc  table
//! names:      text, each ended by 0
//! table:      (entry, place of its description) for each function, then the end of the last one; the descriptions, each with
//!             entry and place of the name first
//! ```
//!
//! Up to 1.17 entries are addresses in words of 8 bytes, from 1.18 on offsets from the start of the text in words of 4. As with ELF
//! files nothing is believed: the table is read once from its begin to its end, in pieces.
//!
//! Source: `src/debug/gosym/pclntab.go` and `src/runtime/symtab.go` of Go.

use memchr::memmem;

use super::elf::{Elf, Refusal, Section};

/// Bytes of the largest table that is read.
const MAX_TABLE: u64 = 512 << 20;

/// Bytes of the names; a program of 60 MB has 6 MB.
const MAX_NAMES: u64 = 48 << 20;

/// Functions looked at.
const MAX_FUNCTIONS: u64 = 4 << 20;

/// Bytes of the table that are read at once.
const AT_ONCE: u64 = 1 << 20;

/// The header up to the last word that is looked at.
const HEADER: usize = 72;

/// How functions are described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Go 1.16 and 1.17.
    Go116,
    /// Go 1.18 and later.
    Go118,
}

/// The header of a table.
#[derive(Debug)]
pub(super) struct FunctionTable {
    pub(super) version: Version,
    /// Address that entries are counted from; 0 where the file does not have it.
    pub(super) text_start: u64,
    section: Section,
    functions: u64,
    /// Where names begin and end, and where the table begins, from the begin of the section.
    names: (u64, u64),
    table: u64,
}

/// Where the code of a function is: an address, or an offset from the text start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl FunctionTable {
    /// Reads a header; `None` for a table of a kind that is not known.
    pub(super) fn open(elf: &Elf, section: Section) -> Result<Option<Self>, Refusal> {
        if section.size > MAX_TABLE {
            return Err(Refusal::TooLarge);
        }
        if section.size < HEADER as u64 {
            return Ok(None);
        }
        let bytes = elf.bytes(section.offset, HEADER as u64)?;
        let version = match u32_at(&bytes, 0) {
            0xffff_fffa => Version::Go116,
            0xffff_fff0 | 0xffff_fff1 => Version::Go118,
            _ => return Ok(None),
        };
        // Pointers of 8 bytes.
        if bytes[4] != 0 || bytes[5] != 0 || bytes[7] != 8 {
            return Ok(None);
        }
        let word = |number: usize| u64_at(&bytes, 8 + 8 * number);
        let first = match version {
            Version::Go116 => 2,
            Version::Go118 => 3,
        };
        let table = Self {
            version,
            text_start: if version == Version::Go118 { word(2) } else { 0 },
            section,
            functions: word(0),
            names: (word(first), word(first + 1)),
            table: word(first + 4),
        };
        if table.functions > MAX_FUNCTIONS {
            return Err(Refusal::TooLarge);
        }
        let ascends = table.names.0 <= table.names.1 && table.names.1 <= section.size && table.table <= section.size;
        if ascends {
            Ok(Some(table))
        } else {
            Err(Refusal::Damaged)
        }
    }

    /// Finds functions by name, each where `wanted` has it; `None` for those that the program does not have.
    pub(super) fn find(&self, elf: &Elf, wanted: &[&str]) -> Result<Vec<Option<Extent>>, Refusal> {
        let mut found = vec![None; wanted.len()];
        let names = self.names_of(elf, wanted)?;
        let mut missing = names.iter().flatten().count();
        let mut descriptions = Ascending::new(elf, self.section, self.table);
        let mut rows = Ascending::new(elf, self.section, self.table);
        let mut row = 0;
        while row < self.functions && missing > 0 {
            let place = row * 2 * self.word();
            let (start, description) = (
                self.value(&mut rows, place)?,
                self.value(&mut rows, place + self.word())?,
            );
            // The entry comes first in its description, a word as in the table or 4 bytes.
            let name_at = description.checked_add(self.word()).ok_or(Refusal::Damaged)?;
            let name = u32_at(descriptions.bytes(name_at, 4)?, 0);
            if let Some(number) = names.iter().position(|wanted| *wanted == Some(name))
                && found[number].is_none()
            {
                let end = self.value(&mut rows, place + 2 * self.word())?;
                found[number] = Some(Extent { start, end });
                missing -= 1;
            }
            row += 1;
        }
        Ok(found)
    }

    /// Where the names are, from the begin of all names.
    fn names_of(&self, elf: &Elf, wanted: &[&str]) -> Result<Vec<Option<u32>>, Refusal> {
        let (start, end) = self.names;
        if end - start > MAX_NAMES {
            return Err(Refusal::TooLarge);
        }
        let offset = self.section.offset.checked_add(start).ok_or(Refusal::Damaged)?;
        let names = elf.bytes(offset, end - start)?;
        let place = |name: &&str| {
            let whole = [b"\0", name.as_bytes(), b"\0"].concat();
            memmem::find(&names, &whole).and_then(|at| u32::try_from(at + 1).ok())
        };
        Ok(wanted.iter().map(place).collect())
    }

    /// Bytes of a value in the table.
    fn word(&self) -> u64 {
        match self.version {
            Version::Go116 => 8,
            Version::Go118 => 4,
        }
    }

    fn value(&self, rows: &mut Ascending, place: u64) -> Result<u64, Refusal> {
        let bytes = rows.bytes(place, self.word())?;
        Ok(match self.version {
            Version::Go116 => u64_at(bytes, 0),
            Version::Go118 => u32_at(bytes, 0).into(),
        })
    }
}

/// Reads at places that ascend, and refuses others: a table is read once, whatever it says.
struct Ascending<'a> {
    elf: &'a Elf<'a>,
    /// Offset in the file and size of what is read.
    start: u64,
    size: u64,
    piece: Vec<u8>,
    piece_at: u64,
}

impl<'a> Ascending<'a> {
    /// Reads from `skipped` on in a section that has at least that many bytes.
    fn new(elf: &'a Elf, section: Section, skipped: u64) -> Self {
        Self {
            elf,
            start: section.offset.saturating_add(skipped),
            size: section.size - skipped,
            piece: Vec::new(),
            piece_at: 0,
        }
    }

    fn bytes(&mut self, at: u64, count: u64) -> Result<&[u8], Refusal> {
        let end = at
            .checked_add(count)
            .filter(|end| *end <= self.size)
            .ok_or(Refusal::Damaged)?;
        if at < self.piece_at {
            return Err(Refusal::Damaged);
        }
        if end > self.piece_at + self.piece.len() as u64 {
            let offset = self.start.checked_add(at).ok_or(Refusal::Damaged)?;
            self.piece = self.elf.bytes(offset, AT_ONCE.min(self.size - at))?;
            self.piece_at = at;
        }
        let place = usize::try_from(at - self.piece_at).map_err(|_| Refusal::Damaged)?;
        let count = usize::try_from(count).map_err(|_| Refusal::Damaged)?;
        self.piece.get(place..place + count).ok_or(Refusal::Damaged)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..].first_chunk().copied();
    u32::from_le_bytes(word.unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes[at..].first_chunk().copied();
    u64::from_le_bytes(word.unwrap_or_default())
}

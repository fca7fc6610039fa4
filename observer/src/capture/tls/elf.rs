//! What an ELF file offers to probes: the functions of TLS libraries in it, and where in the file they lie.
//!
//! Files come from strangers' images: nothing of a file is believed. Tables are read in pieces, at offsets that the file itself
//! bounds, and never followed from one to another more than once; all that is read of one file is bounded too.
//!
//! Symbol tables are long and the names looked for are few: those are searched for in the string table, and symbols are compared by
//! where their names begin. A name may begin within another's, since linkers fold equal ends.
//!
//! Source: System V ABI, chapters 4 and 5 (ELF-64).

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;

use memchr::memmem::Finder;
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64, Sym64};
use object::pod::{self, Pod};

use super::families::{FAMILIES, Family, IN_RUST, TELLTALES};
use super::names::{LONGEST, Meaning, is_name_at, is_path, meanings, rust_name_around};
use super::{emulated, go, rustls, signatures};

/// Bytes read of one file in all: its tables of symbols, and what is searched of its data.
const MAX_READ: u64 = 512 << 20;

/// Bytes read at once, at most. Everything that may be large is read in pieces of [`PIECE`].
const MAX_AT_ONCE: u64 = 32 << 20;

/// Bytes searched at once.
const PIECE: u64 = 1 << 20;

/// Bytes at the beginning of a name that many share; no name is shorter.
const ALIKE: usize = 4;

/// Places of names looked for in one string table: real ones have each once or twice.
const MAX_PLACES: usize = 4096;

/// Symbols looked at in one table.
const MAX_SYMBOLS: u64 = 8 << 20;

/// Symbols read at once.
const SYMBOLS_AT_ONCE: u64 = 32 << 10;

/// Headers of sections or segments looked at.
const MAX_HEADERS: u16 = 256;

/// Bytes of the names of sections.
const MAX_SECTION_NAMES: u64 = 64 << 10;

/// Bytes of read-only data searched for the name of a library that is linked in without symbols.
const MAX_SEARCHED: u64 = 64 << 20;

/// What a file offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Findings {
    /// No TLS library.
    Nothing,
    /// A TLS library whose functions are known.
    Reachable {
        /// Its name.
        library: &'static str,
        /// Programs of the kernel object and the offsets in the file where each belongs.
        points: Vec<Point>,
    },
    /// A TLS library with no way in.
    Unsupported {
        /// Its name.
        library: &'static str,
    },
}

impl Findings {
    /// The same after a look at the code of what is reachable: whether it is as the kernel side takes it to be, and where best to probe.
    fn checked(self, elf: &Elf) -> Self {
        match self {
            Self::Reachable { library, points } if !rustls::has_encrypters(elf, &points) => {
                Self::Unsupported { library }
            }
            Self::Reachable { library, points } => Self::Reachable {
                library,
                points: emulated::moved(elf, points),
            },
            other => other,
        }
    }
}

/// Where a program belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Point {
    pub(super) program: &'static str,
    /// Offset in the file.
    pub(super) offset: u64,
    /// Whether the function's return is to be seen too, by a probe of its own kind.
    pub(super) returns: bool,
}

/// Where a section is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Why a file cannot be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not an ELF file of this machine's kind: nothing that could be executed here.
    NotElf,
    /// Its headers contradict themselves or its size.
    Damaged,
    /// It has tables larger than the bounds.
    TooLarge,
}

/// Looks for TLS libraries in a file. `executable`: a process runs it, so that a library may be linked into it unseen.
pub(super) fn analyse(file: &File, executable: bool) -> Result<Findings, Refusal> {
    let elf = Elf::open(file)?;
    if let Some(findings) = go::find(&elf)? {
        return Ok(findings);
    }
    for kind in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
        if let Some(table) = elf.section(kind)
            && let Some(findings) = elf.functions(table)?
        {
            return Ok(findings.checked(&elf));
        }
    }
    if executable && let Some(library) = elf.telltale() {
        return Ok(signatures::find(&elf, library)?.checked(&elf));
    }
    Ok(Findings::Nothing)
}

/// A file's headers, and the way to the rest.
pub(super) struct Elf<'a> {
    file: &'a File,
    length: u64,
    /// Bytes that may still be read.
    left: Cell<u64>,
    /// Value of `e_machine`.
    machine: u16,
    /// Number of the section that has the names of sections.
    names: u16,
    sections: Vec<SectionHeader64<LE>>,
    segments: Vec<ProgramHeader64<LE>>,
}

impl<'a> Elf<'a> {
    pub(super) fn open(file: &'a File) -> Result<Self, Refusal> {
        let length = file.metadata().map_err(|_| Refusal::NotElf)?.len();
        let mut bytes = [0; size_of::<FileHeader64<LE>>()];
        file.read_exact_at(&mut bytes, 0).map_err(|_| Refusal::NotElf)?;
        let (header, _) = pod::from_bytes::<FileHeader64<LE>>(&bytes).map_err(|()| Refusal::NotElf)?;
        let ident = &header.e_ident;
        if ident.magic != elf::ELFMAG || ident.class != elf::ELFCLASS64 || ident.data != elf::ELFDATA2LSB {
            return Err(Refusal::NotElf);
        }
        let (sections, segments) = (header.e_shnum.get(LE), header.e_phnum.get(LE));
        if sections > MAX_HEADERS || segments > MAX_HEADERS {
            return Err(Refusal::TooLarge);
        }
        let elf = Self {
            file,
            length,
            left: Cell::new(MAX_READ),
            machine: header.e_machine.get(LE),
            names: header.e_shstrndx.get(LE),
            sections: Vec::new(),
            segments: Vec::new(),
        };
        // A file without sections has nothing to find but may well run.
        let wanted = |count: u16, size: u16, expected: usize| if usize::from(size) == expected { count } else { 0 };
        let sections = wanted(sections, header.e_shentsize.get(LE), size_of::<SectionHeader64<LE>>());
        let segments = wanted(segments, header.e_phentsize.get(LE), size_of::<ProgramHeader64<LE>>());
        Ok(Self {
            sections: elf.table(header.e_shoff.get(LE), sections.into())?,
            segments: elf.table(header.e_phoff.get(LE), segments.into())?,
            ..elf
        })
    }

    /// Value of `e_machine`.
    pub(super) fn machine(&self) -> u16 {
        self.machine
    }

    /// The first section of one of these names: its address, offset in the file and size.
    pub(super) fn named(&self, wanted: &[&str]) -> Result<Option<Section>, Refusal> {
        let Some(names) = self.sections.get(usize::from(self.names)) else {
            return Ok(None);
        };
        // No real file has so many: what its sections are called means nothing then.
        if names.sh_size.get(LE) > MAX_SECTION_NAMES {
            return Ok(None);
        }
        let names = self.bytes(names.sh_offset.get(LE), names.sh_size.get(LE))?;
        let section = self.sections.iter().find(|section| {
            let at = section.sh_name.get(LE) as usize;
            wanted.iter().any(|name| is_name_at(&names, at, name))
        });
        Ok(section.map(|section| Section {
            address: section.sh_addr.get(LE),
            offset: section.sh_offset.get(LE),
            size: section.sh_size.get(LE),
        }))
    }

    fn section(&self, kind: u32) -> Option<&SectionHeader64<LE>> {
        self.sections.iter().find(|section| section.sh_type.get(LE) == kind)
    }

    /// Reads `count` values at `offset`.
    fn table<T: Pod + Clone>(&self, offset: u64, count: u64) -> Result<Vec<T>, Refusal> {
        let bytes = self.bytes(offset, count * size_of::<T>() as u64)?;
        let (values, _) = pod::slice_from_bytes::<T>(&bytes, usize::try_from(count).map_err(|_| Refusal::Damaged)?)
            .map_err(|()| Refusal::Damaged)?;
        Ok(values.to_vec())
    }

    pub(super) fn bytes(&self, offset: u64, size: u64) -> Result<Vec<u8>, Refusal> {
        let end = offset.checked_add(size).ok_or(Refusal::Damaged)?;
        if end > self.length {
            return Err(Refusal::Damaged);
        }
        let left = self.left.get().checked_sub(size).ok_or(Refusal::TooLarge)?;
        if size > MAX_AT_ONCE {
            return Err(Refusal::TooLarge);
        }
        self.left.set(left);
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| Refusal::Damaged)?];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|_| Refusal::Damaged)?;
        Ok(bytes)
    }

    /// The functions of the first family that a symbol table defines; `None` where it defines none.
    fn functions(&self, table: &SectionHeader64<LE>) -> Result<Option<Findings>, Refusal> {
        let Some(strings) = self.sections.get(table.sh_link.get(LE) as usize) else {
            return Err(Refusal::Damaged);
        };
        let count = table.sh_size.get(LE) / size_of::<Sym64<LE>>() as u64;
        if count > MAX_SYMBOLS {
            return Err(Refusal::TooLarge);
        }
        let names = self.names(strings)?;
        if names.is_empty() {
            return Ok(None);
        }
        let mut found: Vec<(&'static Family, Point)> = Vec::new();
        let mut unreachable = None;
        let mut done = 0;
        while done < count {
            let some = SYMBOLS_AT_ONCE.min(count - done);
            let offset = table
                .sh_offset
                .get(LE)
                .checked_add(done * size_of::<Sym64<LE>>() as u64);
            for symbol in self.table::<Sym64<LE>>(offset.ok_or(Refusal::Damaged)?, some)? {
                // Of the undefined ones some other file has the code.
                if symbol.st_shndx.get(LE) == elf::SHN_UNDEF || symbol.st_value.get(LE) == 0 {
                    continue;
                }
                let Some((family, function)) = names.get(&symbol.st_name.get(LE)) else {
                    continue;
                };
                let Some(function) = function else {
                    unreachable.get_or_insert(*family);
                    continue;
                };
                let Some(offset) = self.file_offset(symbol.st_value.get(LE)) else {
                    continue;
                };
                let point = Point {
                    program: function.program,
                    offset,
                    returns: function.returns,
                };
                // Versions and aliases of a function are symbols of their own.
                if !found.iter().any(|(_, other)| *other == point) {
                    found.push((family, point));
                }
            }
            done += some;
        }
        Ok(conclude(&found, unreachable))
    }

    /// Where in a string table each name lies that means something, and what it means.
    fn names(&self, strings: &SectionHeader64<LE>) -> Result<HashMap<u32, Meaning>, Refusal> {
        // Names begin alike: a search for each beginning takes a third of the time that one for each name takes.
        let mut words: BTreeMap<&[u8], Vec<(&str, Meaning)>> = BTreeMap::new();
        for (name, meaning) in meanings().filter(|(name, _)| !is_path(name)) {
            words
                .entry(&name.as_bytes()[..ALIKE])
                .or_default()
                .push((name, meaning));
        }
        let words: Vec<(Finder, _)> = words
            .into_iter()
            .map(|(beginning, names)| (Finder::new(beginning), names))
            .collect();
        let in_rust = Finder::new(IN_RUST);
        let mut places = HashMap::new();
        let mut looked_at = 0;
        let mut look = |start: u64, piece: &[u8]| {
            for (finder, names) in &words {
                for at in finder.find_iter(piece) {
                    let means = names.iter().find(|(name, _)| is_name_at(piece, at, name));
                    // Beyond that no symbol can name it.
                    if let (Some((_, meaning)), Ok(place)) = (means, u32::try_from(start + at as u64)) {
                        places.insert(place, *meaning);
                    }
                    if places.len() > MAX_PLACES {
                        return Some(());
                    }
                }
            }
            for at in in_rust.find_iter(piece) {
                looked_at += 1;
                if looked_at > MAX_PLACES {
                    return Some(());
                }
                if let Some((begin, meaning)) = rust_name_around(piece, at)
                    && let Ok(place) = u32::try_from(start + begin as u64)
                {
                    places.insert(place, meaning);
                }
            }
            None
        };
        let crowded = self.pieces(strings.sh_offset.get(LE), strings.sh_size.get(LE), LONGEST, &mut look)?;
        match crowded {
            Some(()) => Err(Refusal::TooLarge),
            None => Ok(places),
        }
    }

    /// Shows `look` a part of the file piece by piece, with the place of each in that part, until it has an answer. Two pieces have
    /// `overlap` bytes in common, for words that would be cut.
    pub(super) fn pieces<T>(
        &self,
        start: u64,
        length: u64,
        overlap: usize,
        look: &mut impl FnMut(u64, &[u8]) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let mut at = 0;
        while at < length {
            let size = PIECE.min(length - at);
            let offset = start.checked_add(at).ok_or(Refusal::Damaged)?;
            if let Some(answer) = look(at, &self.bytes(offset, size)?) {
                return Ok(Some(answer));
            }
            at += if at + size == length {
                size
            } else {
                size - overlap as u64
            };
        }
        Ok(None)
    }

    /// Where in the file code lies: offset and size of each part.
    pub(super) fn code(&self) -> impl Iterator<Item = (u64, u64)> {
        let executed = |segment: &&ProgramHeader64<LE>| {
            segment.p_type.get(LE) == elf::PT_LOAD && segment.p_flags.get(LE) & elf::PF_X != 0
        };
        let part = |segment: &ProgramHeader64<LE>| (segment.p_offset.get(LE), segment.p_filesz.get(LE));
        self.segments.iter().filter(executed).map(part)
    }

    /// Where the code at an address lies in the file.
    pub(super) fn file_offset(&self, address: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| {
            let start = segment.p_vaddr.get(LE);
            segment.p_type.get(LE) == elf::PT_LOAD
                && segment.p_flags.get(LE) & elf::PF_X != 0
                && start <= address
                && address - start < segment.p_filesz.get(LE)
        })?;
        (address - segment.p_vaddr.get(LE)).checked_add(segment.p_offset.get(LE))
    }

    /// The library whose words are in the read-only data of a file without its symbols.
    fn telltale(&self) -> Option<&'static str> {
        let finders: Vec<_> = TELLTALES
            .iter()
            .map(|(words, library)| (Finder::new(words), *library))
            .collect();
        let longest = TELLTALES.iter().map(|(words, _)| words.len()).max().unwrap_or(0);
        let mut left = MAX_SEARCHED;
        // Read-only data may lie in any segment that is not written to.
        for segment in &self.segments {
            if segment.p_type.get(LE) != elf::PT_LOAD || segment.p_flags.get(LE) & (elf::PF_W | elf::PF_X) != 0 {
                continue;
            }
            let start = segment.p_offset.get(LE);
            let length = segment
                .p_filesz
                .get(LE)
                .min(self.length.saturating_sub(start))
                .min(left);
            left -= length;
            let found = self.pieces(start, length, longest, &mut |_: u64, piece: &[u8]| {
                let found = finders.iter().find(|(finder, _)| finder.find(piece).is_some());
                found.map(|(_, library)| *library)
            });
            if let Some(library) = found.ok()? {
                return Some(library);
            }
        }
        None
    }
}

/// The functions of the family that has most of them.
fn conclude(found: &[(&'static Family, Point)], unreachable: Option<&'static Family>) -> Option<Findings> {
    let family = FAMILIES
        .iter()
        .filter(|family| found.iter().any(|(other, _)| other.library == family.library))
        .max_by_key(|family| {
            found
                .iter()
                .filter(|(other, _)| other.library == family.library)
                .count()
        });
    let Some(family) = family else {
        return unreachable.map(|family| Findings::Unsupported {
            library: family.library,
        });
    };
    let points: Vec<Point> = found
        .iter()
        .filter(|(other, _)| other.library == family.library)
        .map(|(_, point)| *point)
        .collect();
    Some(reachable_if_whole(family.library, points))
}

/// A library whose sessions can be read and written by these functions and are seen to end, as another session may have the same
/// address; else one that has no way in.
pub(super) fn reachable_if_whole(library: &'static str, points: Vec<Point>) -> Findings {
    let whole = ["tls_send", "tls_receive", "tls_end"]
        .iter()
        .all(|part| points.iter().any(|point| point.program.starts_with(part)));
    if whole {
        Findings::Reachable { library, points }
    } else {
        Findings::Unsupported { library }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use object::{U16, U32, U64};
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) const CODE: u64 = 0x1000;
    const ADDRESS: u64 = 0x40_0000;

    /// A file with code at `ADDRESS`, and these functions in its dynamic symbols, 16 bytes apart.
    fn elf(functions: &[&str], words: &[u8]) -> Vec<u8> {
        let (mut names, mut symbols) = (vec![0], vec![symbol(0, 0, 0)]);
        for (number, function) in functions.iter().enumerate() {
            symbols.push(symbol(names.len(), ADDRESS + 16 * number as u64, 1));
            names.extend_from_slice(function.as_bytes());
            names.push(0);
        }
        let symbols: Vec<u8> = symbols
            .iter()
            .flat_map(|symbol| pod::bytes_of(symbol).to_vec())
            .collect();
        let words_at = CODE + 0x1000;
        let names_at = words_at + words.len() as u64;
        let symbols_at = names_at + names.len() as u64;
        let sections = [
            section(elf::SHT_NULL, 0, 0, 0),
            section(elf::SHT_STRTAB, names_at, names.len(), 0),
            section(elf::SHT_DYNSYM, symbols_at, symbols.len(), 1),
        ];
        let segments = [
            segment(elf::PF_R | elf::PF_X, CODE, ADDRESS, 0x1000),
            segment(elf::PF_R, words_at, ADDRESS + 0x1000, words.len() as u64),
        ];
        let header = FileHeader64::<LE> {
            e_ident: elf::Ident {
                magic: elf::ELFMAG,
                class: elf::ELFCLASS64,
                data: elf::ELFDATA2LSB,
                version: 1,
                os_abi: elf::ELFOSABI_NONE,
                abi_version: 0,
                padding: [0; 7],
            },
            e_type: U16::new(LE, elf::ET_DYN),
            e_machine: U16::new(LE, elf::EM_X86_64),
            e_version: U32::new(LE, 1),
            e_entry: U64::new(LE, 0),
            e_phoff: U64::new(LE, 64),
            e_shoff: U64::new(LE, 64 + 2 * 56),
            e_flags: U32::new(LE, 0),
            e_ehsize: U16::new(LE, 64),
            e_phentsize: U16::new(LE, 56),
            e_phnum: U16::new(LE, 2),
            e_shentsize: U16::new(LE, 64),
            e_shnum: U16::new(LE, 3),
            e_shstrndx: U16::new(LE, 1),
        };
        let mut file = pod::bytes_of(&header).to_vec();
        file.extend_from_slice(pod::bytes_of_slice(&segments));
        file.extend_from_slice(pod::bytes_of_slice(&sections));
        file.resize(usize::try_from(words_at).unwrap(), 0x90);
        file.extend_from_slice(words);
        file.extend_from_slice(&names);
        file.extend_from_slice(&symbols);
        file
    }

    fn symbol(name: usize, address: u64, section: u16) -> Sym64<LE> {
        Sym64 {
            st_name: U32::new(LE, u32::try_from(name).unwrap()),
            st_info: 0x12,
            st_other: 0,
            st_shndx: U16::new(LE, section),
            st_value: U64::new(LE, address),
            st_size: U64::new(LE, 16),
        }
    }

    fn section(kind: u32, offset: u64, size: usize, link: u32) -> SectionHeader64<LE> {
        SectionHeader64 {
            sh_name: U32::new(LE, 0),
            sh_type: U32::new(LE, kind),
            sh_flags: U64::new(LE, 0),
            sh_addr: U64::new(LE, 0),
            sh_offset: U64::new(LE, offset),
            sh_size: U64::new(LE, size as u64),
            sh_link: U32::new(LE, link),
            sh_info: U32::new(LE, 0),
            sh_addralign: U64::new(LE, 1),
            sh_entsize: U64::new(LE, 0),
        }
    }

    fn segment(flags: u32, offset: u64, address: u64, size: u64) -> ProgramHeader64<LE> {
        ProgramHeader64 {
            p_type: U32::new(LE, elf::PT_LOAD),
            p_flags: U32::new(LE, flags),
            p_offset: U64::new(LE, offset),
            p_vaddr: U64::new(LE, address),
            p_paddr: U64::new(LE, address),
            p_filesz: U64::new(LE, size),
            p_memsz: U64::new(LE, size),
            p_align: U64::new(LE, 1),
        }
    }

    pub(in super::super) fn findings(bytes: &[u8]) -> Result<Findings, Refusal> {
        analyse(&file(bytes), true)
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("it takes bytes");
        file
    }

    /// A file of these instructions, at offsets from [`CODE`] on, and `nop`.
    pub(in super::super) fn code(pieces: &[(usize, &[u8])]) -> File {
        let mut bytes = elf(&[], &[]);
        for (place, code) in pieces {
            let at = usize::try_from(CODE).unwrap() + place;
            bytes[at..at + code.len()].copy_from_slice(code);
        }
        file(&bytes)
    }

    fn point(program: &'static str, number: u64, returns: bool) -> Point {
        Point {
            program,
            offset: CODE + 16 * number,
            returns,
        }
    }

    #[test]
    fn functions_lie_where_the_file_has_their_code() {
        let file = elf(&["SSL_read", "SSL_new", "SSL_write_ex", "SSL_free"], b"");
        let expected = Findings::Reachable {
            library: "openssl",
            points: vec![
                point("tls_receive", 0, true),
                point("tls_send_length4", 2, true),
                point("tls_end", 3, false),
            ],
        };
        assert_eq!(findings(&file), Ok(expected));
    }

    #[test]
    fn a_library_of_one_direction_or_without_ends_or_with_marks_alone_is_no_way_in() {
        let unsupported = |library| Ok(Findings::Unsupported { library });
        assert_eq!(findings(&elf(&["SSL_read", "SSL_free"], b"")), unsupported("openssl"));
        assert_eq!(findings(&elf(&["SSL_read", "SSL_write"], b"")), unsupported("openssl"));
        assert_eq!(findings(&elf(&["JNI_CreateJavaVM"], b"")), unsupported("java"));
        assert_eq!(findings(&elf(&["main"], b"")), Ok(Findings::Nothing));
    }

    #[test]
    fn a_library_without_symbols_is_told_by_its_words() {
        let words = [&[b'x'; 3 << 20][..], b"/rustls-0.23.4/src/lib.rs"].concat();
        let rustls = Ok(Findings::Unsupported { library: "rustls" });
        assert_eq!(findings(&elf(&["main"], &words)), rustls);
    }

    /// What signatures find where this code follows on so many bytes of other code.
    fn signed(before: usize, code: &[&[u8]]) -> Findings {
        let code = [&[0x90].repeat(before), &code.concat()].map(Vec::as_slice).concat();
        let mut bytes = elf(&["main"], &code);
        let flags = 64 + 56 + 4;
        bytes[flags..flags + 4].copy_from_slice(&(elf::PF_R | elf::PF_X).to_le_bytes());
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).expect("it takes bytes");
        signatures::find(&Elf::open(&file).unwrap(), "boringssl").unwrap()
    }

    #[test]
    fn functions_without_symbols_are_known_by_their_code() {
        let [read, write, free] = ["SSL_read", "SSL_write", "SSL_free"].map(signatures::tests::example);
        let start = usize::try_from(CODE).unwrap() + 0x1000;
        // Where two pieces meet, too.
        let piece = usize::try_from(PIECE).unwrap();
        for before in [0, 100, piece - 10, piece - LONGEST] {
            let Findings::Reachable { library, points } = signed(before, &[&read, &write, &free]) else {
                panic!("not found after {before} bytes");
            };
            let places = [0, read.len(), read.len() + write.len()].map(|at| (start + before + at) as u64);
            let programs = ["tls_receive", "tls_send", "tls_end"];
            for (program, offset) in programs.into_iter().zip(places) {
                assert!(
                    points
                        .iter()
                        .any(|point| point.program == program && point.offset == offset)
                );
            }
            assert_eq!((library, points.len()), ("boringssl", 3));
        }
        let unsupported = Findings::Unsupported { library: "boringssl" };
        assert_eq!(
            signed(7, &[&read, &write, &free, &write]),
            unsupported,
            "which of the two it is"
        );
        assert_eq!(signed(7, &[&read, &write]), unsupported, "no end");
        assert_eq!(signed(7, &[&read, &write, &free[1..]]), unsupported, "another function");
    }

    #[test]
    fn functions_in_rust_are_known_by_their_paths() {
        let legacy = [
            "_ZN6rustls12common_state11CommonState16buffer_plaintext17hfd90352bb5fe2947E",
            "_ZN6rustls12common_state11CommonState23take_received_plaintext17h60991d19dd45c583E.llvm.13896383360967219997",
            "_ZN4core3ptr54drop_in_place$LT$rustls..common_state..CommonState$GT$17h5708582d30852c5fE",
            "_ZN6rustls12common_state11CommonState8send_msg17he0c737fb361dccdeE",
        ];
        let v0 = [
            "_RNvMs0_NtCs4fqI2P2rA04_6rustls12common_stateNtB5_11CommonState16buffer_plaintext",
            "_RNvMs0_NtCs4fqI2P2rA04_6rustls12common_stateNtB5_11CommonState23take_received_plaintext",
            "_RINvNtCs4fqI2P2rA04_4core3ptr13drop_in_placeNtNtCs4fqI2P2rA04_6rustls12common_state11CommonStateE",
        ];
        for names in [&legacy[..], &v0] {
            let expected = Findings::Reachable {
                library: "rustls",
                points: vec![
                    point("tls_send_chunks", 0, true),
                    point("tls_receive_payload", 1, true),
                    point("tls_end_state", 2, false),
                ],
            };
            let unsupported = Findings::Unsupported { library: "rustls" };
            // mov 16(%rdi), %rax, or 24(%rdi)
            let with = |field| {
                let mut file = elf(names, b"rustls-0.23.1");
                let drop = usize::try_from(CODE).unwrap() + 32;
                file[drop..drop + 4].copy_from_slice(&[0x48, 0x8b, 0x47, field]);
                findings(&file)
            };
            assert_eq!(with(16), Ok(expected));
            assert_eq!(with(24), Ok(unsupported.clone()));
            assert_eq!(findings(&elf(&names[..2], b"rustls-0.23.1")), Ok(unsupported));
        }
    }

    #[test]
    fn what_a_file_says_beyond_its_end_is_refused() {
        let file = elf(&["SSL_read", "SSL_write"], b"");
        let with = |at: usize, value: u64| {
            let mut file = file.clone();
            file[at..at + 8].copy_from_slice(&value.to_le_bytes());
            findings(&file)
        };
        let names = 64 + 2 * 56 + 64;
        assert_eq!(with(40, u64::MAX - 8), Err(Refusal::Damaged), "the table of sections");
        assert_eq!(with(names + 24, 1 << 40), Err(Refusal::Damaged), "where the names are");
        assert_eq!(
            with(names + 32, 1 << 40),
            Err(Refusal::Damaged),
            "how many the names are"
        );
        assert_eq!(
            with(names + 64 + 32, 1 << 40),
            Err(Refusal::TooLarge),
            "how many the symbols are"
        );
        assert_eq!(findings(b"\x7fELF"), Err(Refusal::NotElf));
        assert_eq!(findings(&file[..100]), Err(Refusal::Damaged));
    }

    #[test]
    fn a_name_at_the_end_of_another_and_one_across_two_pieces_are_found() {
        // The linker let `SSL_write` begin within `my_SSL_write`.
        let mut file = elf(&["my_SSL_write", "SSL_read", "SSL_free"], b"");
        let symbols = file.len() - 4 * size_of::<Sym64<LE>>();
        let name = symbols + size_of::<Sym64<LE>>();
        file[name..name + 4].copy_from_slice(&4u32.to_le_bytes());
        let expected = Findings::Reachable {
            library: "openssl",
            points: vec![
                point("tls_send", 0, true),
                point("tls_receive", 1, true),
                point("tls_end", 2, false),
            ],
        };
        assert_eq!(findings(&file), Ok(expected.clone()));
        // The terminating zero, the cut name and the next one's beginning.
        let filler = "x".repeat(usize::try_from(PIECE).unwrap() - 6);
        let cut = elf(&[&filler, "SSL_write", "SSL_read", "SSL_free"], b"");
        let moved = Findings::Reachable {
            library: "openssl",
            points: vec![
                point("tls_send", 1, true),
                point("tls_receive", 2, true),
                point("tls_end", 3, false),
            ],
        };
        assert_eq!(findings(&cut), Ok(moved));
    }

    #[test]
    fn a_string_table_full_of_names_is_refused() {
        let crowd = vec!["SSL_read"; MAX_PLACES + 1];
        assert_eq!(findings(&elf(&crowd, b"")), Err(Refusal::TooLarge));
    }

    /// A file with tables of these sizes, mostly holes; what it offers lies at their ends.
    fn huge(names: u64, symbols: u64) -> File {
        let small = elf(&["SSL_read", "SSL_write", "SSL_free"], b"");
        let size = size_of::<Sym64<LE>>() as u64;
        let own = [("SSL_read", 0), ("SSL_write", 1), ("SSL_free", 2)];
        let (names_at, symbols_at) = (1 << 20, (1 << 20) + names);
        let file = tempfile::tempfile().expect("a file");
        file.set_len(symbols_at + symbols * size)
            .expect("a file may have holes");
        let header = 64 + 2 * 56 + 64;
        file.write_all_at(&small, 0).expect("it takes bytes");
        for (at, value) in [
            (24, names_at),
            (32, names),
            (64 + 24, symbols_at),
            (64 + 32, symbols * size),
        ] {
            file.write_all_at(&u64::to_le_bytes(value), header + at)
                .expect("it takes bytes");
        }
        for (name, number) in own {
            let at = names - 48 + 16 * number;
            file.write_all_at(name.as_bytes(), names_at + at)
                .expect("it takes bytes");
            let symbol = symbol(usize::try_from(at).unwrap(), ADDRESS + 16 * number, 1);
            let place = symbols_at + (symbols - 3 + number) * size;
            file.write_all_at(pod::bytes_of(&symbol), place)
                .expect("it takes bytes");
        }
        file
    }

    #[test]
    fn a_huge_executable_is_read_once_and_in_pieces() {
        let (names, symbols) = (150 << 20, 3 << 20);
        let file = huge(names, symbols);
        let length = file.metadata().expect("it is open").len();
        assert!(length > 200 << 20);
        let elf = Elf::open(&file).expect("headers");
        let table = elf.section(elf::SHT_DYNSYM).expect("a table");
        let expected = Findings::Reachable {
            library: "openssl",
            points: vec![
                point("tls_receive", 0, true),
                point("tls_send", 1, true),
                point("tls_end", 2, false),
            ],
        };
        assert_eq!(elf.functions(table), Ok(Some(expected)));
        // Pieces overlap by the longest name.
        let read = MAX_READ - elf.left.get();
        assert!(read < length + (1 << 20), "{read} of {length}");
    }

    #[test]
    fn what_is_read_of_a_file_is_bounded() {
        let file = huge(2 << 20, 3);
        let elf = Elf::open(&file).expect("headers");
        let table = elf.section(elf::SHT_DYNSYM).expect("a table");
        elf.left.set(2 << 20);
        assert_eq!(elf.functions(table), Err(Refusal::TooLarge), "all together");
        assert_eq!(analyse(&huge(64, MAX_SYMBOLS + 1), true), Err(Refusal::TooLarge));
        let file = huge(64, 3);
        file.set_len(MAX_AT_ONCE + 1).expect("a file may have holes");
        let elf = Elf::open(&file).expect("headers");
        assert_eq!(elf.bytes(0, MAX_AT_ONCE + 1), Err(Refusal::TooLarge), "all at once");
        assert!(elf.bytes(0, MAX_AT_ONCE).is_ok());
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic_or_wait(
            changes in prop::collection::vec((0usize..600, any::<u8>()), 1..12),
            cut in 0usize..9000,
        ) {
            let mut file = elf(&["SSL_read", "gnutls_record_send", "_ZN1a11CommonState1bE"], b"rustls-0.1");
            for (at, value) in changes {
                file[at] = value;
            }
            file.truncate(cut);
            let _ = findings(&file);
        }
    }
}

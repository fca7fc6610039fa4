//! Go's `crypto/tls`: where its functions begin and where they return.
//!
//! A Go program takes no probe on a function's return, so that each return instruction is found and gets a probe of its own. A probe
//! that is not on an instruction's begin breaks the program; hence all is done only where the functions begin as Go's do
//! and can be decoded from begin to end. What they begin with also tells that arguments are in registers.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, Register};
use object::elf::{EM_AARCH64, EM_X86_64};

use super::elf::{Elf, Findings, Point, Refusal};
use super::emulated;
use super::families::{
    GO, GO_COPIES, GO_RECEIVE, GO_RECEIVE_COPY, GO_RETURN, GO_SEND, GO_SEND_RECORD, GO_WRITES_RECORD,
};
use super::pclntab::{Extent, FunctionTable, Version};

/// Sections that have the table of functions: of programs that may lie anywhere in memory the second, up to Go 1.25.
const TABLES: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];

/// The section with what the runtime knows of the program, from Go 1.26 on, and where in it the address of the text start is: after
/// the header's address, six slices, and three words (`moduledata` in `src/runtime/symtab.go`).
const MODULE: &str = ".go.module";
const MODULE_TEXT: u64 = 8 + 6 * 24 + 3 * 8;

/// Bytes of the longest function; those looked for have some 2,000.
const MAX_CODE: u64 = 64 << 10;

/// Return instructions of one function.
const MAX_RETURNS: usize = 64;

/// Looks for `crypto/tls`; `None` for what is no Go program or has none, or is of a Go that is not known.
pub(super) fn find(elf: &Elf) -> Result<Option<Findings>, Refusal> {
    let Some(section) = elf.named(&TABLES)? else {
        return Ok(None);
    };
    let Some(table) = FunctionTable::open(elf, section)? else {
        return Ok(None);
    };
    let names = GO.functions.iter().map(|function| function.symbol);
    let names: Vec<&str> = names.chain([GO_WRITES_RECORD, GO_COPIES]).collect();
    let found = table.find(elf, &names)?;
    let Some((functions, called)) = found.split_last_chunk() else {
        return Ok(None);
    };
    if functions.iter().all(Option::is_none) {
        return Ok(None);
    }
    for text in text_starts(elf, &table)? {
        if let Some(points) = points(elf, (functions, *called), text, table.version)? {
            let library = GO.library;
            return Ok(Some(Findings::Reachable { library, points }));
        }
    }
    Ok(Some(Findings::Unsupported { library: GO.library }))
}

/// Where the text may start: as the runtime knows it, as the table has it, and where the section begins. Some of these are 0 in a
/// file that may lie anywhere in memory, and with C linked in the section begins with that.
fn text_starts(elf: &Elf, table: &FunctionTable) -> Result<Vec<u64>, Refusal> {
    if table.version == Version::Go116 {
        return Ok(vec![0]);
    }
    let mut starts = Vec::new();
    if let Some(module) = elf.named(&[MODULE])?
        && module.size >= MODULE_TEXT + 8
    {
        let offset = module.offset.checked_add(MODULE_TEXT).ok_or(Refusal::Damaged)?;
        let address = elf.bytes(offset, 8)?;
        starts.extend(address.first_chunk().copied().map(u64::from_le_bytes));
    }
    starts.push(table.text_start);
    starts.extend(elf.named(&[".text"])?.map(|text| text.address));
    starts.retain(|start| *start != 0);
    starts.dedup();
    Ok(starts)
}

/// Where probes belong: returns before entries, since an entry without its return would be taken for that of the next. `None`
/// where one of the functions that move plain text is not there, or is not what it should be.
fn points(
    elf: &Elf,
    (functions, called): (&[Option<Extent>], [Option<Extent>; 2]),
    text: u64,
    version: Version,
) -> Result<Option<Vec<Point>>, Refusal> {
    let (mut returns, mut entries) = (Vec::new(), Vec::new());
    for (function, extent) in GO.functions.iter().zip(functions) {
        let Some(extent) = extent else {
            if function.returns {
                return Ok(None);
            }
            continue;
        };
        let Some((offset, code)) = code(elf, *extent, text)? else {
            return Ok(None);
        };
        let callees = called.map(|callee| callee.map(|callee| callee.start.wrapping_sub(extent.start)));
        let Some(places) = places(elf.machine(), version, function.program, callees, &code) else {
            return Ok(None);
        };
        let point = |(program, place)| Point {
            program,
            offset: offset + place,
            returns: false,
        };
        entries.extend(places.entries.into_iter().map(point));
        if function.returns {
            returns.extend(places.returns.into_iter().map(point));
        }
    }
    returns.extend(entries);
    Ok(Some(returns))
}

/// The code of a function, and its offset in the file; `None` where there is none.
fn code(elf: &Elf, extent: Extent, text: u64) -> Result<Option<(u64, Vec<u8>)>, Refusal> {
    let size = extent.end.saturating_sub(extent.start);
    let Some(offset) = text
        .checked_add(extent.start)
        .and_then(|address| elf.file_offset(address))
    else {
        return Ok(None);
    };
    if size == 0 || size > MAX_CODE {
        return Ok(None);
    }
    Ok(Some((offset, elf.bytes(offset, size)?)))
}

/// The instructions of a function that are probed, by their offsets in it, and the program for each.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    entries: Vec<(&'static str, u64)>,
    returns: Vec<(&'static str, u64)>,
}

impl Places {
    fn new(program: &'static str, entry: u64, returns: impl IntoIterator<Item = u64>) -> Self {
        Self {
            entries: vec![(program, entry)],
            returns: returns.into_iter().map(|place| (GO_RETURN, place)).collect(),
        }
    }
}

/// Those of a function that takes its arguments in registers; `None` for all else. `callees` is where [`GO_WRITES_RECORD`] and
/// [`GO_COPIES`] are, counted from the function.
fn places(
    machine: u16,
    version: Version,
    program: &'static str,
    callees: [Option<u64>; 2],
    code: &[u8],
) -> Option<Places> {
    let places = match machine {
        EM_X86_64 => places_on_amd64(program, callees, code)?,
        // What a function begins with does not tell where its arguments are: that is so from Go 1.18 on.
        EM_AARCH64 if version == Version::Go118 => Places::new(program, 0, returns_of_arm64(code)?),
        _ => return None,
    };
    (1..=MAX_RETURNS).contains(&places.returns.len()).then_some(places)
}

fn places_on_amd64(program: &'static str, callees: [Option<u64>; 2], code: &[u8]) -> Option<Places> {
    let code: Vec<Instruction> = Decoder::with_ip(64, code, 0, DecoderOptions::NONE).iter().collect();
    if code.iter().any(Instruction::is_invalid) {
        return None;
    }
    // `CMPQ SP, 16(R14)`, or with a larger frame `LEAQ -n(SP), R12` and `CMPQ R12, 16(R14)`: R14 is the goroutine, as it is where
    // arguments are in registers.
    let looks_at_bound = |instruction: &Instruction| {
        instruction.mnemonic() == Mnemonic::Cmp
            && instruction.memory_base() == Register::R14
            && instruction.memory_displacement64() == 16
    };
    let bound = code.iter().take(2).position(looks_at_bound)?;
    // The branch behind it the kernel emulates, and no argument has changed.
    let entry = code[bound + 1..].first().filter(|next| emulated::is_emulated(next));
    let entry = entry.map_or(0, Instruction::ip);
    let returns = code.iter().filter(|instruction| instruction.code() == Code::Retnq);
    let mut places = Places::new(program, entry, returns.map(Instruction::ip));
    // Returns the kernel does not emulate. What is written and read passes through calls, which it does.
    let [writes_record, copies] = callees;
    let calls = |callee: Option<u64>| {
        let is_call = move |instruction: &Instruction| {
            instruction.is_call_near()
                && emulated::is_emulated(instruction)
                && Some(instruction.near_branch_target()) == callee
        };
        code.iter()
            .enumerate()
            .filter(move |(_, instruction)| is_call(instruction))
    };
    match program {
        GO_SEND => {
            let with_branch = |(number, call): (usize, &Instruction)| {
                let branch = emulated::branch_behind(&code[number + 1..], Register::RAX)?;
                Some(((GO_SEND_RECORD, call.ip()), (GO_RETURN, branch)))
            };
            let pairs: Option<(Vec<_>, Vec<_>)> = calls(writes_record).map(with_branch).collect();
            if let Some((entries, returns)) = pairs.filter(|(entries, _)| !entries.is_empty()) {
                places = Places { entries, returns };
            }
        }
        GO_RECEIVE => {
            if let [(_, call)] = Vec::from_iter(calls(copies))[..] {
                places.returns = vec![(GO_RECEIVE_COPY, call.ip())];
            }
        }
        _ => {}
    }
    Some(places)
}

fn returns_of_arm64(code: &[u8]) -> Option<Vec<u64>> {
    /// `MOVD 16(R28), R16`: R28 is the goroutine.
    const LOADS_BOUND: u32 = 0xf940_0b90;
    const RETURN: u32 = 0xd65f_03c0;
    let (words, rest) = code.as_chunks::<4>();
    let words = || words.iter().map(|word| u32::from_le_bytes(*word));
    if !rest.is_empty() || words().next() != Some(LOADS_BOUND) {
        return None;
    }
    let returns = words().zip((0..).step_by(4)).filter(|(word, _)| *word == RETURN);
    Some(returns.map(|(_, place)| place).collect())
}

#[cfg(test)]
mod tests {
    use object::elf::EM_RISCV;
    use proptest::prelude::*;

    use super::super::elf::tests::findings;
    use super::*;

    /// Code of a function that grows its stack where it must, returns in two places and has a return's byte in a constant.
    const AMD64: &[u8] = &[
        0x49, 0x3b, 0x66, 0x10, // CMPQ SP, 16(R14)
        0x76, 0x0b, // JBE
        0xb8, 0xc3, 0xc3, 0xc3, 0xc3, // MOVL $0xc3c3c3c3, AX
        0xc3, // RET
        0x48, 0x8b, 0x5c, 0x24, 0xc3, // MOVQ -61(SP), BX
        0xc3, // RET
        0xe8, 0xc3, 0x00, 0x00, 0x00, // CALL
        0xeb, 0xe7, // JMP
        0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
    ];

    const TEXT: u64 = 0x40_0040;
    const FUNCTIONS: [&str; 4] = [
        "main.main",
        "crypto/tls.(*Conn).Read",
        "crypto/tls.(*Conn).Close",
        "crypto/tls.(*Conn).Write",
    ];

    /// A program of these functions, each of [`AMD64`]'s code, and the table of their names.
    fn program(functions: &[&str], version: Version, text_start: u64) -> Vec<u8> {
        let table = table(functions, version, text_start);
        let code: Vec<u8> = functions.iter().flat_map(|_| AMD64).copied().collect();
        let names = b"\0.gopclntab\0.text\0";
        let code_at = 0x1040;
        let table_at = code_at + code.len();
        let names_at = table_at + table.len();
        let mut file = vec![0; code_at];
        file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        put(&mut file, 16, &[2, 0, 62, 0, 1, 0, 0, 0]);
        words(&mut file, 32, &[64, 0x200]);
        put(&mut file, 52, &[64, 0, 56, 0, 1, 0, 64, 0, 4, 0, 3, 0]);
        // A segment with all, and the sections of table, text and names.
        put(&mut file, 64, &[1, 0, 0, 0, 5, 0, 0, 0]);
        words(&mut file, 72, &[0x1000, 0x40_0000, 0x40_0000, 0x4000, 0x4000]);
        let sections = [
            (1, 0x50_0000, table_at, table.len()),
            (12, TEXT, code_at, code.len()),
            (0, 0, names_at, names.len()),
        ];
        for (number, (name, address, offset, size)) in sections.into_iter().enumerate() {
            let at = 0x240 + 64 * number;
            put(&mut file, at, &[name, 0, 0, 0, 1]);
            words(&mut file, at + 16, &[address, offset as u64, size as u64]);
        }
        [&file[..], &code, &table, names].concat()
    }

    fn table(functions: &[&str], version: Version, text_start: u64) -> Vec<u8> {
        let (magic, wide) = match version {
            Version::Go116 => (0xfa, true),
            Version::Go118 => (0xf1, false),
        };
        let (mut names, mut rows, mut descriptions) = (vec![0], Vec::new(), Vec::new());
        let word = |value: u64| value.to_le_bytes()[..if wide { 8 } else { 4 }].to_vec();
        let rows_size = (2 * functions.len() as u64 + 1) * if wide { 8 } else { 4 };
        let entry = |number: usize| (number * AMD64.len()) as u64 + if wide { TEXT } else { 0 };
        for (number, function) in functions.iter().enumerate() {
            rows.extend([word(entry(number)), word(rows_size + descriptions.len() as u64)].concat());
            let name = u32::try_from(names.len()).expect("few names").to_le_bytes();
            descriptions.extend([word(entry(number)), name.to_vec()].concat());
            names.extend([function.as_bytes(), b"\0"].concat());
        }
        rows.extend(word(entry(functions.len())));
        let mut header = vec![magic, 0xff, 0xff, 0xff, 0, 0, 1, 8];
        let names_end = 72 + names.len() as u64;
        header.resize(72, 0);
        match version {
            Version::Go116 => words(
                &mut header,
                8,
                &[functions.len() as u64, 0, 72, names_end, 0, 0, names_end],
            ),
            Version::Go118 => words(
                &mut header,
                8,
                &[functions.len() as u64, 0, text_start, 72, names_end, 0, 0, names_end],
            ),
        }
        [header, names, rows, descriptions].concat()
    }

    fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn words(file: &mut [u8], at: usize, values: &[u64]) {
        for (number, value) in values.iter().enumerate() {
            put(file, at + 8 * number, &value.to_le_bytes());
        }
    }

    fn reachable() -> Findings {
        let at = |program, function: u64, place: u64| Point {
            program,
            offset: 0x1040 + function * AMD64.len() as u64 + place,
            returns: false,
        };
        Findings::Reachable {
            library: "go",
            points: vec![
                at("go_tls_return", 3, 11),
                at("go_tls_return", 3, 17),
                at("go_tls_return", 1, 11),
                at("go_tls_return", 1, 17),
                at("go_tls_send", 3, 4),
                at("go_tls_receive", 1, 4),
                at("go_tls_end", 2, 4),
            ],
        }
    }

    #[test]
    fn functions_and_their_returns_are_found_by_go_s_own_table() {
        for version in [Version::Go116, Version::Go118] {
            assert_eq!(
                findings(&program(&FUNCTIONS, version, TEXT)),
                Ok(reachable()),
                "{version:?}"
            );
        }
    }

    #[test]
    fn a_text_start_that_is_missing_or_wrong_is_the_sections() {
        for text_start in [0, 0x40_0000, u64::MAX] {
            let program = program(&FUNCTIONS, Version::Go118, text_start);
            assert_eq!(findings(&program), Ok(reachable()), "{text_start:#x}");
        }
    }

    #[test]
    fn what_cannot_be_attached_to_is_unsupported() {
        let unsupported = Ok(Findings::Unsupported { library: "go" });
        assert_eq!(findings(&program(&FUNCTIONS[..3], Version::Go118, TEXT)), unsupported);
        let mut old = program(&FUNCTIONS, Version::Go116, 0);
        // MOVQ FS:-8, CX, as where arguments are on the stack.
        put(
            &mut old,
            0x1040 + AMD64.len(),
            &[0x64, 0x48, 0x8b, 0x0c, 0x25, 0xf8, 0xff, 0xff, 0xff],
        );
        assert_eq!(findings(&old), unsupported);
        let mut unknown = program(&FUNCTIONS, Version::Go118, TEXT);
        put(&mut unknown, 0x1040 + 4 * AMD64.len(), &[0xf2]);
        // No segment that is read only has the words here, and nothing else is known of the table.
        assert_eq!(findings(&unknown), Ok(Findings::Nothing));
    }

    #[test]
    fn a_program_without_tls_has_nothing() {
        assert_eq!(
            findings(&program(&["main.main"], Version::Go118, TEXT)),
            Ok(Findings::Nothing)
        );
        assert_eq!(findings(&program(&[], Version::Go118, TEXT)), Ok(Findings::Nothing));
    }

    #[test]
    fn code_must_begin_as_go_s_and_be_decodable_to_its_end() {
        let places = |machine, version, code: &[u8]| places(machine, version, GO_SEND, [None; 2], code);
        let on_amd64 = |code: &[u8]| places(EM_X86_64, Version::Go118, code);
        let at = |entry, returns: &[u64]| Some(Places::new(GO_SEND, entry, returns.iter().copied()));
        assert_eq!(on_amd64(AMD64), at(4, &[11, 17]));
        let larger = [&[0x4c, 0x8d, 0x64, 0x24, 0xb8, 0x4d, 0x3b, 0x66, 0x10][..], &AMD64[4..]].concat();
        assert_eq!(on_amd64(&larger), at(9, &[16, 22]), "with a larger frame");
        let unbranched = [&AMD64[..4], &AMD64[6..]].concat();
        assert_eq!(on_amd64(&unbranched), at(0, &[9, 15]), "without a branch behind it");
        assert_eq!(on_amd64(&AMD64[..21]), None, "cut within an instruction");
        assert_eq!(on_amd64(&AMD64[6..]), None, "without a look at the stack");
        assert_eq!(on_amd64(&AMD64[..11]), None, "without a return");
        assert_eq!(places(EM_RISCV, Version::Go118, AMD64), None);
        let arm64: Vec<u8> = [0xf940_0b90_u32, 0xeb30_63ff, 0xd65f_03c0, 0x0000_0000, 0xd65f_03c0]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let on_arm64 = |version, code: &[u8]| places(EM_AARCH64, version, code);
        assert_eq!(on_arm64(Version::Go118, &arm64), at(0, &[8, 16]));
        assert_eq!(on_arm64(Version::Go118, &arm64[4..]), None);
        assert_eq!(on_arm64(Version::Go118, &arm64[..18]), None);
        assert_eq!(on_arm64(Version::Go116, &arm64), None, "arguments are on the stack");
    }

    #[test]
    fn calls_that_move_plain_text_are_probed_instead_of_returns() {
        let code = [
            0x49, 0x3b, 0x66, 0x10, // CMPQ SP, 16(R14)
            0x76, 0x13, // JBE
            0xe8, 0x10, 0x00, 0x00, 0x00, // CALL
            0x48, 0x89, 0x44, 0x24, 0x38, // MOVQ AX, 56(SP)
            0x48, 0x85, 0xdb, // TESTQ BX, BX
            0x74, 0x01, // JE
            0x90, // NOP
            0xc3, // RET
        ];
        let callee = Some(6 + 5 + 0x10);
        let places = |program, callees, code: &[u8]| places(EM_X86_64, Version::Go118, program, callees, code);
        let written = Places {
            entries: vec![(GO_SEND_RECORD, 6)],
            returns: vec![(GO_RETURN, 19)],
        };
        assert_eq!(places(GO_SEND, [callee, None], &code), Some(written));
        let read = Places {
            entries: vec![(GO_RECEIVE, 4)],
            returns: vec![(GO_RECEIVE_COPY, 6)],
        };
        assert_eq!(places(GO_RECEIVE, [None, callee], &code), Some(read));
        let returns = |program| Some(Places::new(program, 4, [22]));
        assert_eq!(places(GO_SEND, [None, callee], &code), returns(GO_SEND));
        assert_eq!(places(GO_RECEIVE, [callee, None], &code), returns(GO_RECEIVE));
        // XORL AX, AX, in place of what is moved to memory.
        let lost = [&code[..11], &[0x31, 0xc0, 0x90, 0x90, 0x90], &code[16..]].concat();
        assert_eq!(places(GO_SEND, [callee, None], &lost), returns(GO_SEND), "the result");
        let branchless = [&code[..19], &[0x90, 0x90], &code[21..]].concat();
        assert_eq!(
            places(GO_SEND, [callee, None], &branchless),
            returns(GO_SEND),
            "the branch"
        );
        let twice = [&code[..11], &[0xe8, 0x0b, 0x00, 0x00, 0x00], &code[16..]].concat();
        assert_eq!(
            places(GO_RECEIVE, [None, callee], &twice),
            returns(GO_RECEIVE),
            "two copies"
        );
        assert_eq!(
            places(GO_SEND, [callee, None], &twice),
            returns(GO_SEND),
            "a call behind a call"
        );
    }

    #[test]
    fn tables_that_lie_are_refused() {
        let table_at = 0x1040 + 4 * AMD64.len();
        let with = |word: usize, value: u64| {
            let mut program = program(&FUNCTIONS, Version::Go118, TEXT);
            words(&mut program, table_at + 8 + 8 * word, &[value]);
            findings(&program)
        };
        assert_eq!(with(0, 1 << 40), Err(Refusal::TooLarge), "how many functions");
        assert_eq!(
            with(0, 1 << 20),
            Ok(reachable()),
            "who is found is found before the end of the table"
        );
        assert_eq!(with(3, u64::MAX), Err(Refusal::Damaged), "where names begin");
        assert_eq!(with(4, 1 << 40), Err(Refusal::Damaged), "where names end");
        assert_eq!(with(7, u64::MAX), Err(Refusal::Damaged), "where the table begins");
        // The first row leads to the last one's description, from where there is no way back.
        let rows = table_at + table(&FUNCTIONS, Version::Go118, TEXT).len() - 4 * 8 - 9 * 4;
        let mut circle = program(&FUNCTIONS, Version::Go118, TEXT);
        put(&mut circle, rows + 4, &(9 * 4 + 3 * 8_u32).to_le_bytes());
        assert_eq!(findings(&circle), Err(Refusal::Damaged));
    }

    proptest! {
        #[test]
        fn no_table_makes_it_panic_or_wait(
            changes in prop::collection::vec((0usize..2000, any::<u8>()), 1..12),
            cut in 0usize..6000,
            old in any::<bool>(),
        ) {
            let version = if old { Version::Go116 } else { Version::Go118 };
            let mut program = program(&FUNCTIONS, version, TEXT);
            let end = program.len();
            // The headers, the sections, and all from the code on.
            for (at, value) in changes {
                let at = if at < 0x340 { at } else { 0x1040 + at - 0x340 };
                program[at % end] = value;
            }
            program.truncate(cut);
            let _ = findings(&program);
        }
    }
}

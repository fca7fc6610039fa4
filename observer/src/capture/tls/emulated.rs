//! Where the kernel need not step: instructions that it emulates instead of having the program run a copy of them.
//!
//! After most instructions with a probe the kernel runs a copy of the instruction by a single step. That raises one more exception, which
//! a hypervisor takes: a probe took 9.7 us with it and 0.7 without. `push` of a register it emulates
//! (`push_setup_ops` in `arch/x86/kernel/uprobes.c`, from Linux 4.16 on), and with that most functions begin. Others do not:
//!
//! - Those that may be called indirectly begin with `endbr64`, behind which nothing has changed yet.
//! - Those that look at an argument first branch then, and a branch is emulated too.
//! - `SSL_read` and its like pass their arguments on to a function of their own, together with the address of the number of bytes
//!   moved, and return what that returns unless it succeeds. The probes then belong there.
//!
//! That function has no symbol. It is taken to be what it is where two functions of the library lead to it, with nothing but its
//! arguments made between their first instruction and the call. On arm64 the kernel emulates little, and all stays where it is.

use std::collections::{HashMap, HashSet};

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register, UsedRegister,
};
use object::elf::EM_X86_64;

use super::elf::{Elf, Point};

/// Instructions looked at from a function's first on, calls followed.
const MAX_INSTRUCTIONS: usize = 32;

/// Bytes of the longest instruction.
const LONGEST: u64 = 15;

/// Registers of the first six arguments (System V ABI for x86-64, 3.2.3).
const ARGUMENTS: [Register; 6] = [
    Register::RDI,
    Register::RSI,
    Register::RDX,
    Register::RCX,
    Register::R8,
    Register::R9,
];

/// Moves points to where the kernel emulates, each that can be moved.
pub(super) fn moved(elf: &Elf, points: Vec<Point>) -> Vec<Point> {
    if elf.machine() != EM_X86_64 {
        return points;
    }
    let ways: Vec<(Point, Option<Way>)> = points.into_iter().map(|point| (point, way(elf, point))).collect();
    let mut leading: HashMap<Way, usize> = HashMap::new();
    for way in ways.iter().filter_map(|(_, way)| *way) {
        *leading.entry(way).or_default() += 1;
    }
    let place = |(point, way): (Point, Option<Way>)| match way {
        Some(Way { offset, program: None }) => Point { offset, ..point },
        Some(
            way @ Way {
                offset,
                program: Some(program),
            },
        ) if leading[&way] > 1 => Point {
            program,
            offset,
            ..point
        },
        _ => point,
    };
    let mut points: Vec<Point> = ways.into_iter().map(place).collect();
    let mut known = HashSet::new();
    points.retain(|point| known.insert(*point));
    points
}

/// To an instruction that the kernel emulates, before a function has changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Way {
    /// Of the instruction in the file.
    offset: u64,
    /// What belongs there where it is another function's; `None` where it is the same one's.
    program: Option<&'static str>,
}

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// The argument of this number.
    Argument(usize),
    /// An address on the function's own stack.
    OwnStack,
    Other,
}

/// Follows a function to its first instruction that the kernel emulates.
fn way(elf: &Elf, point: Point) -> Option<Way> {
    // Where the number of bytes moved is to be written: an argument, or what the function has for it itself. The arguments of others are
    // not passed on.
    let length = match point.program {
        "tls_send" | "tls_receive" => Some(Value::OwnStack),
        "tls_send_length4" | "tls_receive_length4" => Some(Value::Argument(3)),
        "tls_send_length5" => Some(Value::Argument(4)),
        _ => None,
    };
    let mut factory = InstructionInfoFactory::new();
    let mut values = [0, 1, 2, 3, 4, 5].map(Value::Argument);
    // As they are where the function begins.
    let mut arrived = values;
    let mut offset = point.offset;
    let mut program = None;
    // Whether the stack is as the function's caller left it, so that its return can be probed.
    let mut untouched = true;
    for _ in 0..MAX_INSTRUCTIONS {
        let instruction = instruction(elf, offset)?;
        match instruction.flow_control() {
            FlowControl::Next | FlowControl::ConditionalBranch
                if untouched && values == arrived && is_emulated(&instruction) =>
            {
                return Some(Way { offset, program });
            }
            FlowControl::Next => {
                untouched &= !changes_stack(&instruction);
                make(&mut values, &instruction, &mut factory)?;
            }
            // Whether the size is negative: nothing is moved then.
            FlowControl::ConditionalBranch if instruction.mnemonic() == Mnemonic::Js => {}
            flow @ (FlowControl::UnconditionalBranch | FlowControl::Call) => {
                let called = flow == FlowControl::Call;
                program = Some(passed_on(&values, point.program, length?, called)?);
                (untouched, arrived) = (untouched || called, values);
                offset = instruction.near_branch_target();
                continue;
            }
            _ => return None,
        }
        offset = instruction.next_ip();
    }
    None
}

/// The first instruction that the kernel emulates among those that follow another, if none before it changes a register.
pub(super) fn branch_behind(code: &[Instruction], register: Register) -> Option<u64> {
    let mut factory = InstructionInfoFactory::new();
    for instruction in code.iter().take(MAX_INSTRUCTIONS) {
        match instruction.flow_control() {
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                return is_emulated(instruction).then_some(instruction.ip());
            }
            FlowControl::Next if written(instruction, &mut factory).all(|other| other != register) => {}
            _ => return None,
        }
    }
    None
}

/// Whether the kernel emulates an instruction: with prefixes it does not (`branch_setup_ops`), or takes no probe at all.
pub(super) fn is_emulated(instruction: &Instruction) -> bool {
    match instruction.code() {
        Code::Push_r64 => instruction.len() <= 2,
        Code::Call_rel32_64 => instruction.len() == 5,
        _ if instruction.is_jcc_short() || instruction.is_jmp_short() => instruction.len() == 2,
        _ if instruction.is_jcc_near() => instruction.len() == 6,
        _ if instruction.is_jmp_near() => instruction.len() == 5,
        _ => false,
    }
}

/// The whole registers that an instruction changes, or some part of them.
fn written(instruction: &Instruction, factory: &mut InstructionInfoFactory) -> impl Iterator<Item = Register> {
    let used = factory.info(instruction).used_registers();
    let written = |used: &&UsedRegister| {
        !matches!(
            used.access(),
            OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess
        )
    };
    used.iter().filter(written).map(|used| used.register().full_register())
}

/// The program for a function that is given the arguments of one for which `program` is; `None` where it is given others.
fn passed_on(values: &[Value; 6], program: &'static str, length: Value, called: bool) -> Option<&'static str> {
    if values[..3] != [0, 1, 2].map(Value::Argument) {
        return None;
    }
    let sends = program.starts_with("tls_send");
    match (3..values.len()).find(|place| values[*place] == length) {
        Some(3) if sends => Some("tls_send_length4"),
        Some(4) if sends => Some("tls_send_length5"),
        Some(3) => Some("tls_receive_length4"),
        // It returns the number itself, and so do we what it returns.
        None if length == Value::OwnStack && !called => Some(program),
        _ => None,
    }
}

/// The instruction at an offset of the file, with that as its address.
pub(super) fn instruction(elf: &Elf, offset: u64) -> Option<Instruction> {
    let (start, size) = elf
        .code()
        .find(|(start, size)| (*start..start.saturating_add(*size)).contains(&offset))?;
    let bytes = elf
        .bytes(offset, LONGEST.min(start.saturating_add(size) - offset))
        .ok()?;
    let instruction = Decoder::with_ip(64, &bytes, offset, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

fn changes_stack(instruction: &Instruction) -> bool {
    instruction.stack_pointer_increment() != 0 || instruction.op0_register() == Register::RSP
}

/// Does to the arguments' registers what an instruction does; `None` where it looks into what an argument leads to, and so does more
/// than to pass it on.
fn make(values: &mut [Value; 6], instruction: &Instruction, factory: &mut InstructionInfoFactory) -> Option<()> {
    let held = |register: Register| {
        ARGUMENTS
            .iter()
            .position(|argument| *argument == register.full_register())
    };
    let reads = instruction.op_kinds().any(|kind| kind == OpKind::Memory) && instruction.mnemonic() != Mnemonic::Lea;
    if reads && (held(instruction.memory_base()).is_some() || held(instruction.memory_index()).is_some()) {
        return None;
    }
    let taken = match (instruction.mnemonic(), instruction.op1_kind()) {
        (Mnemonic::Mov | Mnemonic::Movsxd, OpKind::Register) if instruction.op1_register() == Register::RSP => {
            Value::OwnStack
        }
        (Mnemonic::Mov | Mnemonic::Movsxd, OpKind::Register) => {
            held(instruction.op1_register()).map_or(Value::Other, |source| values[source])
        }
        (Mnemonic::Lea, _) if instruction.memory_base() == Register::RSP => Value::OwnStack,
        _ => Value::Other,
    };
    for register in written(instruction, factory) {
        if let Some(place) = held(register) {
            values[place] = taken;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::elf::tests::{CODE, code};
    use super::*;

    /// Function that reads, the one it has for that, and the same of those that write.
    const READ: usize = 0x00;
    const READ_EX: usize = 0x40;
    const READS: usize = 0x80;
    const WRITE: usize = 0xc0;
    const WRITE_EX: usize = 0x100;
    const WRITE_EX2: usize = 0x140;
    const WRITES: usize = 0x180;

    /// `SSL_read` and its like as GCC makes them of OpenSSL 3.5.
    const OPENSSL: &[(usize, &[u8])] = &[
        (READ, &[0x48, 0x83, 0xec, 0x18]),                // sub $0x18, %rsp
        (READ + 4, &[0x85, 0xd2, 0x78, 0x40]),            // test %edx, %edx; js
        (READ + 8, &[0x48, 0x8d, 0x4c, 0x24, 0x08]),      // lea 8(%rsp), %rcx
        (READ + 13, &[0x48, 0x63, 0xd2]),                 // movslq %edx, %rdx
        (READ + 16, &[0xe8, 0x6b, 0x00, 0x00, 0x00]),     // call READS
        (READ_EX, &[0x48, 0x83, 0xec, 0x08]),             // sub $8, %rsp
        (READ_EX + 4, &[0xe8, 0x37, 0x00, 0x00, 0x00]),   // call READS
        (READS, &[0xf3, 0x0f, 0x1e, 0xfa]),               // endbr64
        (READS + 4, &[0x41, 0x55]),                       // push %r13
        (WRITE, &[0x48, 0x83, 0xec, 0x18]),               // sub $0x18, %rsp
        (WRITE + 4, &[0x85, 0xd2, 0x78, 0x40]),           // test %edx, %edx; js
        (WRITE + 8, &[0x31, 0xc9]),                       // xor %ecx, %ecx
        (WRITE + 10, &[0x48, 0x63, 0xd2]),                // movslq %edx, %rdx
        (WRITE + 13, &[0x4c, 0x8d, 0x44, 0x24, 0x08]),    // lea 8(%rsp), %r8
        (WRITE + 18, &[0xe8, 0xa9, 0x00, 0x00, 0x00]),    // call WRITES
        (WRITE_EX, &[0x49, 0x89, 0xc8]),                  // mov %rcx, %r8
        (WRITE_EX + 3, &[0x31, 0xc9]),                    // xor %ecx, %ecx
        (WRITE_EX + 5, &[0xe9, 0x36, 0x00, 0x00, 0x00]),  // jmp WRITE_EX2
        (WRITE_EX2, &[0x48, 0x83, 0xec, 0x08]),           // sub $8, %rsp
        (WRITE_EX2 + 4, &[0xe8, 0x37, 0x00, 0x00, 0x00]), // call WRITES
        (WRITES, &[0x55]),                                // push %rbp
    ];

    const POINTS: &[(&str, usize)] = &[
        ("tls_receive", READ),
        ("tls_receive_length4", READ_EX),
        ("tls_send", WRITE),
        ("tls_send_length4", WRITE_EX),
        ("tls_send_length5", WRITE_EX2),
    ];

    fn point((program, place): (&'static str, usize)) -> Point {
        Point {
            program,
            offset: CODE + place as u64,
            returns: true,
        }
    }

    /// Where the points are after they have been moved in a library with these changes.
    fn moved(changes: &[(usize, &[u8])]) -> Vec<Point> {
        let file = code(&[OPENSSL, changes].concat());
        super::moved(&Elf::open(&file).unwrap(), POINTS.iter().copied().map(point).collect())
    }

    /// The same of which only those at `READ` and `READ_EX` are.
    fn reads(changes: &[(usize, &[u8])]) -> Vec<Point> {
        let mut points = moved(changes);
        points.retain(|point| point.program.starts_with("tls_receive"));
        points
    }

    #[test]
    fn functions_that_pass_their_arguments_on_are_probed_where_those_arrive() {
        let places = [("tls_receive_length4", READS + 4), ("tls_send_length5", WRITES)];
        assert_eq!(moved(&[]), places.map(point));
    }

    #[test]
    fn what_is_not_like_two_functions_of_openssl_stays_where_it_is() {
        let unmoved: Vec<Point> = POINTS[..2].iter().copied().map(point).collect();
        let cases: [(&str, usize, &[u8]); 8] = [
            (
                "one of them leads elsewhere",
                READ_EX + 4,
                &[0xe8, 0x39, 0x00, 0x00, 0x00],
            ),
            ("one of them gives another buffer", READ_EX, &[0x31, 0xf6, 0x90, 0x90]),
            (
                "one of them gives no address for the length",
                READ + 8,
                &[0x31, 0xc9, 0x90, 0x90, 0x90],
            ),
            (
                "one of them changes its buffer and begins",
                READ_EX,
                &[0x31, 0xf6, 0x55, 0x90],
            ),
            ("one of them looks into the session", READ_EX, &[0x48, 0x8b, 0x47, 0x30]),
            ("one of them branches later", READ + 6, &[0x74, 0x40]),
            ("the kernel steps there too", READS + 4, &[0x31, 0xc0]),
            ("no instruction", READS + 4, &[0x06, 0x06]),
        ];
        for (case, place, code) in cases {
            assert_eq!(reads(&[(place, code)]), unmoved, "{case}");
        }
    }

    #[test]
    fn a_function_of_its_own_is_probed_behind_its_landing_pad_or_where_it_branches_first() {
        // test %rdi, %rdi; je
        let branching = [0x48, 0x85, 0xff, 0x74, 0x40];
        for (begin, further) in [(&[0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x57][..], 4), (&branching[..], 3)] {
            let expected = [("tls_receive", READ + further), ("tls_receive_length4", READ_EX)];
            assert_eq!(reads(&[(READ, begin)]), expected.map(point));
        }
    }
}

//! rustls: whether a session is named where the kernel side looks for its name.
//!
//! Rust promises nobody where the fields of a value are. The code that drops one tells: it drops the record layer's encrypter, which is
//! the first field that has anything to drop, before all others.

use iced_x86::{FlowControl, Mnemonic, OpKind, Register};
use object::elf::EM_X86_64;
use observer_common::limits::RUSTLS_ENCRYPTER;

use super::elf::{Elf, Point};
use super::emulated::instruction;
use super::families::END_STATE;

/// Instructions of a drop until the first that uses a field; real ones have 10.
const MAX_INSTRUCTIONS: usize = 24;

/// Whether all that these points drop has its encrypter where it is expected. On arm64 nothing is looked at.
pub(super) fn has_encrypters(elf: &Elf, points: &[Point]) -> bool {
    let mut drops = points.iter().filter(|point| point.program == END_STATE);
    elf.machine() != EM_X86_64 || drops.all(|point| first_field(elf, point.offset) == Some(RUSTLS_ENCRYPTER))
}

/// Where the field is that a function uses first of its first argument.
fn first_field(elf: &Elf, mut offset: u64) -> Option<u64> {
    let mut state = vec![Register::RDI];
    for _ in 0..MAX_INSTRUCTIONS {
        let instruction = instruction(elf, offset)?;
        if instruction.flow_control() != FlowControl::Next {
            return None;
        }
        if state.contains(&instruction.memory_base()) {
            return Some(instruction.memory_displacement64());
        }
        let (to, from) = (instruction.op0_register(), instruction.op1_register());
        match (instruction.mnemonic(), instruction.op1_kind()) {
            (Mnemonic::Mov, OpKind::Register) if state.contains(&from) => state.push(to),
            (Mnemonic::Add, OpKind::Immediate8to64 | OpKind::Immediate32to64) if state.contains(&to) => {
                return Some(instruction.immediate(1));
            }
            _ => {}
        }
        offset = instruction.next_ip();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::elf::tests::{CODE, code};
    use super::*;

    fn first_field_of(instructions: &[u8]) -> Option<u64> {
        first_field(&Elf::open(&code(&[(0, instructions)])).unwrap(), CODE)
    }

    #[test]
    fn the_field_that_is_dropped_first_is_found() {
        // push %rbx; mov %rdi, %rbx; mov 16(%rbx), %r14
        assert_eq!(
            first_field_of(&[0x53, 0x48, 0x89, 0xfb, 0x4c, 0x8b, 0x73, 0x10]),
            Some(16)
        );
        // sub $8, %rsp; mov 32(%rdi), %rax
        assert_eq!(
            first_field_of(&[0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x47, 0x20]),
            Some(32)
        );
        // add $16, %rdi
        assert_eq!(first_field_of(&[0x48, 0x83, 0xc7, 0x10]), Some(16));
        // ret; and nothing but nop
        assert_eq!(first_field_of(&[0xc3]), None);
        assert_eq!(first_field_of(&[]), None);
    }
}

//! What differs between processors: numbers of system calls, and the registers that hold their arguments.

use observer_common::stream::Direction;

use crate::kernel::Access;

pub use this::*;

/// How a system call names its buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Address and length.
    Buffer,
    /// Address of an `iovec` array and its length.
    Vector,
    /// Address of a `msghdr`.
    Message,
    /// Address of an `mmsghdr` array and its length.
    Messages,
}

/// Which argument of a receiving system call holds its flags.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flags {
    None,
    Third,
    Fourth,
}

#[cfg(not(bpf_target_arch = "aarch64"))]
mod this {
    //! x86-64: `arch/x86/include/uapi/asm/ptrace.h`, `arch/x86/entry/syscalls/syscall_64.tbl`.
    use super::{Access, Direction, Flags, Shape};

    pub const CLOSE: u64 = 3;
    pub const MMAP: u64 = 9;
    pub const SETSOCKOPT: u64 = 54;

    /// The first three arguments.
    #[inline(always)]
    pub fn arguments<A: Access>(regs: u64) -> [u64; 3] {
        // di si dx
        [A::load(regs + 112), A::load(regs + 104), A::load(regs + 96)]
    }

    #[inline(always)]
    pub fn fourth_argument<A: Access>(regs: u64) -> u64 {
        // r10
        A::load(regs + 56)
    }

    #[inline(always)]
    pub fn fifth_argument<A: Access>(regs: u64) -> u64 {
        // r8
        A::load(regs + 72)
    }

    #[inline(always)]
    pub fn number<A: Access>(regs: u64) -> u64 {
        A::load(regs + 120)
    }

    /// What a system call does with bytes, and where its flags are if they may make it move none.
    #[inline(always)]
    pub fn classify(number: u64) -> Option<(Shape, Direction, Flags)> {
        Some(match number {
            0 => (Shape::Buffer, Direction::Received, Flags::None),
            1 => (Shape::Buffer, Direction::Sent, Flags::None),
            19 | 327 => (Shape::Vector, Direction::Received, Flags::None),
            20 | 328 => (Shape::Vector, Direction::Sent, Flags::None),
            44 => (Shape::Buffer, Direction::Sent, Flags::None),
            45 => (Shape::Buffer, Direction::Received, Flags::Fourth),
            46 => (Shape::Message, Direction::Sent, Flags::None),
            47 => (Shape::Message, Direction::Received, Flags::Third),
            299 => (Shape::Messages, Direction::Received, Flags::Fourth),
            307 => (Shape::Messages, Direction::Sent, Flags::None),
            _ => return None,
        })
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod this {
    //! arm64: `arch/arm64/include/asm/ptrace.h`, `include/uapi/asm-generic/unistd.h`.
    use super::{Access, Direction, Flags, Shape};

    pub const CLOSE: u64 = 57;
    pub const MMAP: u64 = 222;
    pub const SETSOCKOPT: u64 = 208;

    /// The first three arguments.
    #[inline(always)]
    pub fn arguments<A: Access>(regs: u64) -> [u64; 3] {
        // The result takes the first one's register; `orig_x0` keeps it.
        [A::load(regs + 272), A::load(regs + 8), A::load(regs + 16)]
    }

    #[inline(always)]
    pub fn fourth_argument<A: Access>(regs: u64) -> u64 {
        A::load(regs + 24)
    }

    #[inline(always)]
    pub fn fifth_argument<A: Access>(regs: u64) -> u64 {
        A::load(regs + 32)
    }

    #[inline(always)]
    pub fn number<A: Access>(regs: u64) -> u64 {
        u64::from(A::load::<u32>(regs + 280))
    }

    /// What a system call does with bytes, and where its flags are if they may make it move none.
    #[inline(always)]
    pub fn classify(number: u64) -> Option<(Shape, Direction, Flags)> {
        Some(match number {
            63 => (Shape::Buffer, Direction::Received, Flags::None),
            64 => (Shape::Buffer, Direction::Sent, Flags::None),
            65 | 286 => (Shape::Vector, Direction::Received, Flags::None),
            66 | 287 => (Shape::Vector, Direction::Sent, Flags::None),
            206 => (Shape::Buffer, Direction::Sent, Flags::None),
            207 => (Shape::Buffer, Direction::Received, Flags::Fourth),
            211 => (Shape::Message, Direction::Sent, Flags::None),
            212 => (Shape::Message, Direction::Received, Flags::Third),
            243 => (Shape::Messages, Direction::Received, Flags::Fourth),
            269 => (Shape::Messages, Direction::Sent, Flags::None),
            _ => return None,
        })
    }
}

//! Values that the daemon writes into the kernel object before it is loaded.

/// Offsets of kernel fields in bytes, read from the running kernel's BTF; none is known at compile time.
///
/// A field that the kernel does not have is [`ABSENT`]. Names are `struct_field`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `file.f_inode`.
    pub file_inode: u32,
}

/// A field that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

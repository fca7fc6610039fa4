//! All reads of kernel and user memory, and the values that the daemon sets before loading.

use core::{
    arch::asm,
    ffi::c_void,
    mem::{MaybeUninit, size_of},
    ptr::read_volatile,
};

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user,
};
use observer_common::config::{Layout, Settings};

/// Offsets of kernel fields. Read through [`offset!`] only: the compiler must not take the zeros for granted.
#[unsafe(no_mangle)]
pub static LAYOUT: Layout = zeroed_layout();

/// See [`LAYOUT`].
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings {
    observer: 0,
    scope: 0,
    cgroups: 0,
    processes: 0,
    cookies: 0,
    returns: 0,
};

const fn zeroed_layout() -> Layout {
    // SAFETY: `Layout` holds integers only.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// A value that the daemon has set, at a static's address.
#[inline(always)]
pub fn constant(place: *const u32) -> u64 {
    // SAFETY: callers name a live static.
    unsafe { read_volatile(place) }.into()
}

/// Reads a value that the daemon has set.
macro_rules! offset {
    ($field:ident) => {
        $crate::kernel::constant(&raw const $crate::kernel::LAYOUT.$field)
    };
}
pub(crate) use offset;

/// Reads a setting.
macro_rules! setting {
    ($field:ident) => {
        // SAFETY: a live static.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::SETTINGS.$field) }
    };
}
pub(crate) use setting;

/// Reads a `T` at a kernel address; zeros where there is nothing to read.
#[inline(always)]
pub fn read<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the destination is `T`'s size; the helper writes zeros when it fails; callers ask for integers and arrays of them.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        );
        value.assume_init()
    }
}

/// Reads a `T` at a user address of the current process; `None` where it is not mapped or not in memory.
#[inline(always)]
pub fn read_user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: as in `read`.
    unsafe {
        let failed = bpf_probe_read_user(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        );
        if failed == 0 { Some(value.assume_init()) } else { None }
    }
}

/// The low half of an address. What is an argument is a pointer to the verifier, which lets nothing be computed from it, but lets half
/// of it be moved; the compiler would move all of it first.
#[inline(always)]
pub fn low_half(address: u64) -> u32 {
    let half: u64;
    // SAFETY: a move from register to register.
    unsafe { asm!("w0 = w1", in("r1") address, lateout("r0") half, options(pure, nomem, nostack, preserves_flags)) };
    half as u32
}

/// How a program gets at fields of what it was given: the arguments of a function, the registers and the task of a system call.
pub trait Access {
    /// Address of the current `struct task_struct`.
    fn task() -> u64;
    /// Reads an integer at an address that was come to from a typed pointer by this access alone; 0 where there is nothing.
    fn load<T: Copy>(address: u64) -> T;
}

/// By a helper call for each value, which every program may make.
pub struct Probed;

impl Access for Probed {
    #[inline(always)]
    fn task() -> u64 {
        // SAFETY: the helper has no arguments and always succeeds.
        unsafe { bpf_get_current_task() }
    }

    #[inline(always)]
    fn load<T: Copy>(address: u64) -> T {
        read(address)
    }
}

/// By plain loads, which the verifier checks against the kernel's types: programs on functions, and from 5.11 on typed tracepoints.
/// Each is of one field and no larger than that.
pub struct Typed;

impl Access for Typed {
    #[inline(always)]
    fn task() -> u64 {
        // SAFETY: the helper has no arguments and always succeeds.
        unsafe { bpf_get_current_task_btf() as u64 }
    }

    #[inline(always)]
    fn load<T: Copy>(address: u64) -> T {
        // SAFETY: the verifier takes only loads of a field; one that faults gives 0.
        unsafe { read_volatile(address as *const T) }
    }
}

/// Number of the inode of a `struct file`; 0 where there is none.
#[inline(always)]
pub fn inode_number<A: Access>(file: u64) -> u64 {
    let inode: u64 = A::load(file + offset!(file_inode));
    A::load(inode + offset!(inode_number))
}

//! Kernel programs of mcp-observer: they copy the bytes that go through pipes and sockets and decide nothing about them.
//!
//! Two backends tell the same records with the same keys: fentry and fexit on the kernel's own functions (`pipe`, `unix`,
//! `tcp`), or raw tracepoints on system calls (`syscall`). Both only find out which object a call moves bytes through and
//! where the user's buffers are; everything after that is shared (`call`, `copy`, `stream`, `emit`). Beside either, `tls` takes
//! plain text from TLS libraries.
//!
//! ```text
//! hook entered ── scope ── stream ── call::begin        hook returned ── call::finish ── emit ── ring
//! ```
#![no_std]
#![no_main]
#![allow(
    internal_features,
    reason = "BPF has no AtomicU64; relaxed adds come from the intrinsics"
)]
#![allow(
    unreachable_pub,
    reason = "nothing links to this crate; `pub` says what a file offers to the others"
)]
#![feature(asm_experimental_arch, core_intrinsics)]

mod arch;
mod baseline;
mod call;
mod copy;
mod emit;
mod function;
mod iterator;
mod kernel;
mod maps;
mod pipe;
mod process;
mod scope;
mod stream;
mod syscall;
mod tcp;
mod tls;
mod totals;
mod trial;
mod unix;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier refuses programs that can get here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

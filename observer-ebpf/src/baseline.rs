//! Programs that do nothing, on the hooks of both backends: what tracing itself costs.
//!
//! The daemon never loads them; benchmarks compare with them.

use aya_ebpf::{
    macros::{fentry, fexit, raw_tracepoint},
    programs::{FEntryContext, FExitContext, RawTracePointContext},
};

#[raw_tracepoint]
pub fn baseline_tracepoint(_ctx: RawTracePointContext) -> i32 {
    0
}

#[fentry]
pub fn baseline_entry(_ctx: FEntryContext) -> i32 {
    0
}

#[fexit]
pub fn baseline_return(_ctx: FExitContext) -> i32 {
    0
}

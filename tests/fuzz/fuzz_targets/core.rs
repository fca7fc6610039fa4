//! The fuzz targets of `observer::protocol::fuzz`; `MCP_OBSERVER_FUZZ_TARGET` names the one to run.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use observer::protocol::fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("MCP_OBSERVER_FUZZ_TARGET").expect("MCP_OBSERVER_FUZZ_TARGET names a target");
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    found.unwrap_or_else(|| panic!("there is no fuzz target {name}")).1
});

fuzz_target!(|input: &[u8]| TARGET(input));

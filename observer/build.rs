//! Puts the kernel object into the daemon, so that it is one file to ship.
//!
//! The object comes from `MCP_OBSERVER_EBPF` (an absolute path), else from where `cargo xtask build` leaves it. Without one
//! an empty file is embedded: checks, lints and unit tests need no kernel toolchain, and `capture` says at start that this
//! build has no kernel object.

use std::path::{Path, PathBuf};
use std::{env, fs};

const VARIABLE: &str = "MCP_OBSERVER_EBPF";
const DEFAULT: &str = "target/ebpf/mcp-observer.bpf.o";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    if env::var_os("CARGO_FEATURE_DAEMON").is_none() {
        return;
    }
    let object = env::var_os(VARIABLE).map_or_else(default_object, PathBuf::from);
    // A path that does not exist yet counts as changed, so that the object is picked up as soon as it is there.
    println!("cargo::rerun-if-changed={}", object.display());
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("mcp-observer.bpf.o");
    match fs::read(&object) {
        Ok(bytes) => fs::write(&output, bytes).expect("OUT_DIR is writable"),
        Err(error) => {
            println!(
                "cargo::warning=no kernel object at {} ({error}): this build cannot observe; `cargo xtask build` makes it",
                object.display()
            );
            fs::write(&output, []).expect("OUT_DIR is writable");
        }
    }
}

fn default_object() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    Path::new(&package)
        .parent()
        .expect("the package lies in the workspace")
        .join(DEFAULT)
}

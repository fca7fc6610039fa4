//! tmp
fn main() {
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR").unwrap()).join("mcp-observer.bpf.o");
    let o = std::env::var("MCP_OBSERVER_EBPF").unwrap_or("../target/ebpf/mcp-observer.bpf.o".into());
    println!("cargo::rerun-if-changed={o}");
    std::fs::copy(o, out).unwrap();
}

//! The real MCP clients and servers that the tests watch.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::cache::Cache;
use crate::shell;

/// Provides the peers and returns their folder; the files of `tests/peers` say what belongs in it.
pub(crate) fn provide(cache: &Cache) -> Result<PathBuf> {
    let source = shell::workspace().join("tests/peers");
    let script = source.join("setup.sh");
    if !script.is_file() {
        bail!("tests/peers/setup.sh is missing");
    }
    let advice = "check that PyPI, npm and crates.io can be reached by pip, npm and cargo";
    cache.provide_in_place(&format!("peers/{}", hash()?), advice, |folder| {
        shell::output(Command::new("sh").arg(&script).arg(folder).current_dir(&source)).map(drop)
    })
}

/// Hash of the files that say how peers are made: another one means other peers.
fn hash() -> Result<String> {
    let mut hasher = Sha256::new();
    let source = shell::workspace().join("tests/peers");
    let made = |name: &str| matches!(name, "target" | "node_modules" | "__pycache__" | "README.md");
    let entries = WalkDir::new(&source).sort_by_file_name().into_iter();
    for entry in entries.filter_entry(|entry| !made(&entry.file_name().to_string_lossy())) {
        let entry = entry?;
        if entry.file_type().is_file() {
            hasher.update(entry.path().strip_prefix(&source)?.to_string_lossy().as_bytes());
            hasher.update(std::fs::read(entry.path())?);
        }
    }
    Ok(hasher
        .finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

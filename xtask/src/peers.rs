//! The real MCP clients and servers that the tests watch.
//!
//! What is slow to install (the SDKs) decides the folder; what is quick to renew (the programs that use them) is renewed in
//! it, so that a changed script costs seconds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::cache::Cache;
use crate::shell;

/// Files that name the SDKs and their versions.
const SDKS: [&str; 4] = [
    "requirements-1.30.0.txt",
    "requirements-2.3.0.txt",
    "package.json",
    "package-lock.json",
];

/// File, beside a peers folder's own, that says of which inputs it was last made.
const MADE_OF: &str = ".made-of";

/// Provides the peers and returns their folder; the files of `tests/peers` say what belongs in it.
pub(crate) fn provide(cache: &Cache) -> Result<PathBuf> {
    let source = shell::workspace().join("tests/peers");
    let script = source.join("setup.sh");
    if !script.is_file() {
        bail!("tests/peers/setup.sh is missing");
    }
    let name = format!("peers/{}", hash(&source, |name| SDKS.contains(&name))?);
    let inputs = hash(&source, |_| true)?;
    let place = cache.path(&name);
    let whole = || made_of(&place).is_some_and(|made| made == inputs);
    let advice = "check that PyPI, npm, crates.io and the Go module proxy can be reached by pip, npm, cargo and go";
    cache.provide_in_place(&name, advice, whole, |folder| {
        let _ = fs::remove_file(folder.join(MADE_OF));
        shell::output(shell::command("sh", [&script]).arg(folder).current_dir(&source))?;
        fs::write(folder.join(MADE_OF), &inputs).context("could not mark it complete")
    })
}

/// Hash of the inputs that the peers in `folder` were made of.
pub(crate) fn made_of(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join(MADE_OF)).ok()
}

/// Hash of the files below `source` that are `wanted` by name; documents and what builds leave behind do not count.
fn hash(source: &Path, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let mut hasher = Sha256::new();
    let made = |name: &str| matches!(name, "target" | "node_modules" | "__pycache__" | "README.md");
    let entries = WalkDir::new(source).sort_by_file_name().into_iter();
    for entry in entries.filter_entry(|entry| !made(&entry.file_name().to_string_lossy())) {
        let entry = entry?;
        if entry.file_type().is_file() && wanted(&entry.file_name().to_string_lossy()) {
            hasher.update(entry.path().strip_prefix(source)?.to_string_lossy().as_bytes());
            hasher.update(Sha256::digest(fs::read(entry.path())?));
        }
    }
    Ok(hasher
        .finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_script_keeps_the_sdks() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path();
        let both = || {
            (
                hash(source, |name| SDKS.contains(&name)).unwrap(),
                hash(source, |_| true).unwrap(),
            )
        };
        fs::write(source.join("package.json"), "1").unwrap();
        fs::write(source.join("client.py"), "1").unwrap();
        let (sdks, all) = both();
        fs::write(source.join("client.py"), "2").unwrap();
        let (sdks_now, all_now) = both();
        assert!(sdks == sdks_now && all != all_now);
        fs::write(source.join("package.json"), "2").unwrap();
        assert_ne!(both().0, sdks);
    }

    #[test]
    fn documents_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let before = hash(folder.path(), |_| true).unwrap();
        fs::write(folder.path().join("README.md"), "x").unwrap();
        assert_eq!(hash(folder.path(), |_| true).unwrap(), before);
    }
}

//! Finds the shared libraries that programs load, so that they can move to where no package manager brings them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use walkdir::WalkDir;

/// Files that one `ldd` is asked about.
const PER_CALL: usize = 100;

/// Shared libraries, as `ldd` names them, of every program and library at or below `places`.
pub(crate) fn of(places: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut programs = Vec::new();
    for entry in places.iter().flat_map(WalkDir::new) {
        let entry = entry?;
        if entry.file_type().is_file() && is_elf(entry.path()) {
            programs.push(entry.into_path());
        }
    }
    let mut found = BTreeSet::new();
    for some in programs.chunks(PER_CALL) {
        // ldd fails when one of the files is static, and still names the libraries of the others.
        let output = Command::new("ldd").args(some).output().context("could not start ldd")?;
        found.extend(named_by_ldd(&String::from_utf8_lossy(&output.stdout)));
    }
    // A package's own libraries, found by their place beside it, come along with the place.
    found.retain(|library| !places.iter().any(|place| library.starts_with(place)));
    Ok(found)
}

fn is_elf(file: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(file)
        .and_then(|mut file| file.read_exact(&mut magic))
        .is_ok()
        && magic == *b"\x7fELF"
}

/// Reads `libz.so.1 => /lib/libz.so.1 (0x…)` and `/lib64/ld-linux.so.2 (0x…)`.
fn named_by_ldd(output: &str) -> impl Iterator<Item = PathBuf> {
    output
        .lines()
        .filter_map(|line| line.split_once(" (0x"))
        .map(|(line, _)| line.rsplit("=> ").next().unwrap_or(line).trim())
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let output = "a:\n\tlinux-vdso.so.1 (0x1)\n\tlibz.so.1 => /lib/libz.so.1 (0x2)\n\t/lib64/ld.so (0x3)\n\
            \tlibgone.so => not found\n\tstatically linked\n";
        let found: Vec<_> = named_by_ldd(output).collect();
        assert_eq!(found, [Path::new("/lib/libz.so.1"), Path::new("/lib64/ld.so")]);
    }

    #[test]
    fn a_real_program_names_its_c_library() {
        let found = of(&[std::env::current_exe().unwrap()]).unwrap();
        assert!(
            found.iter().any(|path| path.to_string_lossy().contains("libc.so")),
            "{found:?}"
        );
    }
}

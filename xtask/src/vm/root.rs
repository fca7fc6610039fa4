//! The root disk of guests: a small Debian of the host's own suite, so that what was built here runs there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::cache::Cache;
use crate::{debian, shell};

/// Packages beyond the smallest Debian that tests use inside a guest.
const PACKAGES: &str =
    "busybox-static,ca-certificates,curl,git,iproute2,kmod,nginx-light,openssl,procps,python3,runc,socat";

/// Why making the root disk needs root.
const WHY: &str = "the root disk's files belong to root";

const INIT: &str = include_str!("guest-init.sh");
const BASE: &str = include_str!("root-base.sh");
const DISK: &str = include_str!("root-disk.sh");

/// Root disks kept: clones of the project at different commits share the cache.
const KEPT: usize = 6;

/// Provides the root disk, with `peers` at their own path and the interpreters they need.
pub(super) fn provide(cache: &Cache, peers: Option<&Path>) -> Result<PathBuf> {
    let suite = debian::codename()?;
    let advice = "check that Debian's archive can be reached by apt-get, and that there are 4 GB of free disk";
    let base_name = format!("vm-base/{suite}-{}", hash(&[PACKAGES, BASE]));
    let base = cache.provide(&base_name, advice, |folder| {
        let script = script(BASE, folder).env("SUITE", &suite).env("PACKAGES", PACKAGES);
        script.env("ARCHIVE", debian::archive()?).output_as_root()
    })?;
    let inputs = peers
        .map(|peers| peers.to_string_lossy().into_owned())
        .unwrap_or_default();
    let name = format!("vm/{}", hash(&[&base.to_string_lossy(), INIT, DISK, &inputs]));
    let disk = cache.provide(&name, advice, |folder| {
        let work = tempfile::Builder::new().prefix(".work-").tempdir_in(cache.path("vm"))?;
        fs::write(work.path().join("guest-init"), INIT)?;
        let node = peers.map(|_| node()).transpose()?.unwrap_or_default();
        let copied = peers
            .map(|peers| paths_to_copy(peers, &node))
            .transpose()?
            .unwrap_or_default();
        fs::write(work.path().join("copied"), copied.join("\n"))?;
        let script = script(DISK, folder)
            .env("BASE", base.join("root.tar"))
            .env("WORK", work.path());
        script.env("NODE", node).output_as_root()
    })?;
    cache.prune("vm", KEPT)?;
    Ok(disk.join("root.ext4"))
}

/// A shell script of ours with its settings.
struct Script(Command);

fn script(text: &str, folder: &Path) -> Script {
    let user = format!(
        "{}:{}",
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    Script(shell::command("sh", ["-euc", text]))
        .env("FOLDER", folder)
        .env("OWNER", user)
}

impl Script {
    fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    fn output_as_root(self) -> Result<()> {
        shell::output(&mut shell::as_root(WHY, self.0)).map(drop)
    }
}

/// Everything outside of Debian's packages that peers need: themselves, Python, Node, and the libraries these load.
fn paths_to_copy(peers: &Path, node: &Path) -> Result<Vec<String>> {
    let mut places = pythons(peers)?;
    places.extend([peers.to_owned(), node.to_owned()]);
    let mut paths = libraries(&places)?;
    paths.extend(places);
    Ok(paths.iter().map(|path| path.to_string_lossy().into_owned()).collect())
}

fn node() -> Result<PathBuf> {
    let path = shell::output(&mut shell::command("node", ["-p", "process.execPath"]));
    Ok(path.context("Node is needed for the peers")?.into())
}

/// Where the Pythons of the peers' virtual environments are installed; the system's own is on every root disk.
fn pythons(peers: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in fs::read_dir(peers)? {
        let Ok(settings) = fs::read_to_string(folder?.path().join("pyvenv.cfg")) else {
            continue;
        };
        let bin = settings
            .lines()
            .find_map(|line| line.strip_prefix("home = "))
            .map(Path::new);
        let root = bin
            .and_then(Path::parent)
            .context("a virtual environment that names no Python")?;
        if root != Path::new("/usr") && !found.contains(&root.to_owned()) {
            found.push(root.to_owned());
        }
    }
    Ok(found)
}

/// Shared libraries, as `ldd` names them, of every program and library below `places`.
fn libraries(places: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut programs = Vec::new();
    for entry in places.iter().flat_map(WalkDir::new) {
        let entry = entry?;
        if entry.file_type().is_file() && is_elf(entry.path()) {
            programs.push(entry.into_path());
        }
    }
    let mut found = BTreeSet::new();
    for some in programs.chunks(100) {
        // ldd fails when one of the files is static, and still names the libraries of the others.
        let output = Command::new("ldd").args(some).output().context("could not start ldd")?;
        found.extend(named_by_ldd(&String::from_utf8_lossy(&output.stdout)));
    }
    Ok(found)
}

fn is_elf(file: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    fs::File::open(file)
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

fn hash(inputs: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for input in inputs {
        hasher.update(input.len().to_le_bytes());
        hasher.update(input);
    }
    hasher
        .finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
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
    fn hashes_tell_inputs_apart() {
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_eq!(hash(&["ab"]).len(), 12);
    }
}

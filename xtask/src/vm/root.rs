//! The root disk of guests: a small Debian of the host's own suite, so that what was built here runs there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::{debian, libraries, peers, shell};

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
    let inputs = match peers {
        Some(peers) => format!("{} {}", peers.display(), peers::made_of(peers).unwrap_or_default()),
        None => String::new(),
    };
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
    let mut paths = libraries::of(&places)?;
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
    fn hashes_tell_inputs_apart() {
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_eq!(hash(&["ab"]).len(), 12);
    }
}

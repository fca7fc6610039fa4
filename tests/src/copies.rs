//! Copies of the machine's TLS libraries and of Node for this driver and all it starts: whoever has a file runs into the probes on it,
//! and the rest of the machine is not ours to watch.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Libraries that more than one program has.
const LIBRARIES: &[&str] = &["libgnutls.so", "libssl.so"];

/// Programs that have TLS in them.
const PROGRAMS: &[&str] = &["node"];

/// Puts copies in place of the files, in a mount namespace of our own that goes with us. To be called while there is one thread.
pub(crate) fn take() -> Result<()> {
    let files = files()?;
    unshare(CloneFlags::CLONE_NEWNS).context("no mount namespace of our own; root is needed")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    // In memory, so that nothing is left of them whichever way we end.
    let folder = env::temp_dir().join(format!("mcp-observer-copies-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), none)?;
    for (number, file) in files.iter().enumerate() {
        let copy = folder.join(number.to_string());
        fs::copy(file, &copy)?;
        mount(Some(&copy), file, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("no copy of {}", file.display()))?;
    }
    Ok(())
}

/// Those that are there, by their real names.
fn files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in entries(Path::new("/usr/lib"))? {
        if folder.to_string_lossy().ends_with("-linux-gnu") {
            let of_tls = |file: &PathBuf| {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                LIBRARIES.iter().any(|library| name.starts_with(library))
            };
            files.extend(entries(&folder)?.into_iter().filter(of_tls));
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = PROGRAMS
        .iter()
        .flat_map(|program| env::split_paths(&path).map(move |folder| folder.join(program)));
    files.extend(programs);
    let mut files: Vec<_> = files.iter().filter_map(|file| fs::canonicalize(file).ok()).collect();
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    Ok(entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
}

//! Builds the kernel programs into one object, then the daemon that carries it.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::{shell, toolchain};

/// Target of the kernel's virtual machine.
const TARGET: &str = "bpfel-unknown-none";

/// What to build.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Builds the kernel object alone.
    #[arg(long)]
    ebpf_only: bool,
}

/// Builds what `options` ask for and prints where it is.
pub(crate) fn run(options: &Options) -> Result<()> {
    let cache = Cache::open()?;
    let built = if options.ebpf_only {
        kernel_object(&cache)?
    } else {
        daemon(&cache)?
    };
    println!("{}", built.display());
    Ok(())
}

/// Builds the kernel object, then `mcp-observer` with that object inside, and returns the program's path.
pub(crate) fn daemon(cache: &Cache) -> Result<PathBuf> {
    daemon_as("release", cache)
}

/// The same as it is handed out.
pub(crate) fn shipped(cache: &Cache) -> Result<PathBuf> {
    daemon_as("shipped", cache)
}

fn daemon_as(profile: &str, cache: &Cache) -> Result<PathBuf> {
    let object = kernel_object(cache)?;
    let words = ["build", "--profile", profile, "--package", "observer"];
    shell::stream(shell::cargo(words).env("MCP_OBSERVER_EBPF", object)).context("the daemon does not build")?;
    Ok(target_folder().join(profile).join("mcp-observer"))
}

/// Builds the driver of the end-to-end tests and returns its path.
pub(crate) fn driver() -> Result<PathBuf> {
    shell::stream(&mut shell::cargo(["build", "--release", "--package", "e2e"]))
        .context("the driver of the end-to-end tests does not build")?;
    Ok(target_folder().join("release/e2e"))
}

/// Builds the kernel programs and returns the object's path, which is the same every time.
///
/// The file is written only when its content changed, so that the daemon is not rebuilt for nothing.
pub(crate) fn kernel_object(cache: &Cache) -> Result<PathBuf> {
    let linker = toolchain::provide(cache)?;
    let folder = target_folder().join("ebpf");
    // The flags go in encoded form, which wins over a RUSTFLAGS of the user's that means the host.
    let flags = [
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        &format!("--cfg=bpf_target_arch=\"{ARCH}\""),
        "--check-cfg=cfg(bpf_target_arch,values(\"x86_64\",\"aarch64\"))",
    ]
    .join("\x1f");
    shell::stream(
        shell::cargo([
            "build",
            "--release",
            "--package",
            "observer-ebpf",
            "--target",
            TARGET,
            "-Zbuild-std=core",
        ])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", &folder)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_INCREMENTAL", "false"),
    )
    .context("the kernel programs do not build")?;
    let object = folder.join("mcp-observer.bpf.o");
    copy_if_changed(&folder.join(TARGET).join("release/observer-ebpf"), &object)?;
    Ok(object)
}

/// Folder cargo builds into.
pub(crate) fn target_folder() -> PathBuf {
    let set = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    shell::workspace().join(set.unwrap_or_else(|| "target".into()))
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("the linker left no {}", from.display()))?;
    if fs::read(to).ok().as_ref() != Some(&new) {
        fs::write(to, new).with_context(|| format!("could not write {}", to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "one").unwrap();
        copy_if_changed(&from, &to).unwrap();
        let written = fs::metadata(&to).unwrap().modified().unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), written);
        fs::write(&from, "two").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
    }
}

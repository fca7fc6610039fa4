//! What the kernel programs need beyond the pinned compiler: the sources of `core` and bpf-linker.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::debian::Suite;
use crate::shell;

/// Version of bpf-linker that is built where none fits.
const BPF_LINKER: &str = "0.13.0";

/// Suite whose package `rust-src` is of the pinned compiler's version.
const RUST_SRC_SUITE: &str = "trixie-backports";

/// The compiler that builds everything.
#[derive(Debug)]
struct Compiler {
    sysroot: PathBuf,
    /// Such as `1.95.0`.
    release: String,
    /// Major version of its LLVM, such as `22`.
    llvm: String,
}

impl Compiler {
    fn ask() -> Result<Self> {
        let rustc = |arguments: &[&str]| {
            shell::output(Command::new("rustc").args(arguments).current_dir(shell::workspace()))
                .context("rustc is needed: install Rust by rustup")
        };
        let version = rustc(&["-vV"])?;
        let field = |name: &str| {
            let value = version.lines().find_map(|line| line.strip_prefix(name));
            value
                .map(|value| value.trim().to_owned())
                .with_context(|| format!("rustc -vV says no {name}"))
        };
        Ok(Self {
            sysroot: rustc(&["--print", "sysroot"])?.into(),
            release: field("release:")?,
            llvm: field("LLVM version:")?.split('.').next().unwrap_or_default().to_owned(),
        })
    }
}

/// Provides the toolchain of the kernel programs and returns the path of bpf-linker.
pub(crate) fn provide(cache: &Cache) -> Result<PathBuf> {
    let compiler = Compiler::ask()?;
    provide_core_sources(cache, &compiler)?;
    provide_bpf_linker(cache, &compiler)
}

/// Puts the sources of `core` where `-Z build-std` looks for them: already there, from rustup, or from Debian.
fn provide_core_sources(cache: &Cache, compiler: &Compiler) -> Result<()> {
    let place = compiler.sysroot.join("lib/rustlib/src/rust");
    let there = || place.join("library/core/Cargo.toml").is_file();
    if there() {
        return Ok(());
    }
    // A link into a cache that is gone would make rustup and us fail alike.
    if place.is_symlink() {
        fs::remove_file(&place).with_context(|| format!("could not remove the dangling link {}", place.display()))?;
    }
    let name = format!("rust-src/{}", compiler.release);
    if !cache.path(&name).is_dir() {
        let _ = shell::output(
            Command::new("rustup")
                .args(["component", "add", "rust-src"])
                .current_dir(shell::workspace()),
        );
        if there() {
            eprintln!("setup: rust-src {} from rustup", compiler.release);
            return Ok(());
        }
    }
    let advice = "run `rustup component add rust-src` in this folder where its server can be reached";
    let unpacked = cache.provide(&name, advice, |folder| {
        let lists = tempfile::tempdir()?;
        let suite = Suite::open(RUST_SRC_SUITE, lists.path())?;
        suite.unpack(&format!("rust-src={}*", compiler.release), folder)
    })?;
    let sources = unpacked.join(format!("usr/src/rustc-{}", compiler.release));
    link_sources(&sources, &place)
}

fn link_sources(sources: &Path, place: &Path) -> Result<()> {
    fs::create_dir_all(place.parent().expect("the sysroot has folders"))?;
    match symlink(sources, place) {
        // Another run may have been quicker.
        Err(_) if place.exists() => Ok(()),
        result => result.with_context(|| format!("could not link {} to {}", place.display(), sources.display())),
    }
}

/// Returns a bpf-linker that reads this compiler's bitcode: the one on `PATH` where it fits, else one of our own.
fn provide_bpf_linker(cache: &Cache, compiler: &Compiler) -> Result<PathBuf> {
    if let Some(found) = shell::find("bpf-linker").filter(|found| fits(found)) {
        return Ok(found);
    }
    let name = format!("bpf-linker/{BPF_LINKER}-llvm{}-rust{}", compiler.llvm, compiler.release);
    let advice = "install bpf-linker yourself, with an LLVM at least as new as the one `rustc -vV` names";
    let root = cache.provide(&name, advice, |folder| build_bpf_linker(folder, compiler))?;
    Ok(root.join("bin/bpf-linker"))
}

/// Tells whether `linker` reads what this compiler writes: its version number does not say with which LLVM it was built.
fn fits(linker: &Path) -> bool {
    let links = || -> Result<()> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("probe.rs"), PROBE)?;
        let arguments = [
            "--target=bpfel-unknown-none",
            "--crate-type=lib",
            "--emit=llvm-bc",
            "-O",
            "--out-dir",
        ];
        shell::output(
            shell::command("rustc", arguments)
                .arg(folder.path())
                .arg(folder.path().join("probe.rs"))
                .env("RUSTC_BOOTSTRAP", "1")
                .current_dir(shell::workspace()),
        )?;
        let arguments = ["--target=bpfel", "--export=probe", "--output=probe.o", "probe.bc"];
        shell::output(shell::command(linker, arguments).current_dir(&folder)).map(drop)
    };
    links().is_ok()
}

/// A function whose bitcode carries attributes that older LLVMs refuse; it needs no `core`.
const PROBE: &str = r#"
#![feature(no_core, lang_items)]
#![no_core]
#[lang = "pointee_sized"] pub trait PointeeSized {}
#[lang = "meta_sized"] pub trait MetaSized: PointeeSized {}
#[lang = "sized"] pub trait Sized: MetaSized {}
#[lang = "copy"] pub trait Copy {}
impl Copy for u64 {}
#[unsafe(no_mangle)] pub extern "C" fn probe(value: &u64) -> u64 { *value }
"#;

/// Builds bpf-linker against the LLVM that the compiler itself ships, so that the machine needs none.
fn build_bpf_linker(folder: &Path, compiler: &Compiler) -> Result<()> {
    let lib = compiler.sysroot.join("lib");
    let llvm = shipped_llvm(&lib)?;
    let lib = lib.display();
    shell::output(
        shell::cargo([
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER,
            "--locked",
            "--no-default-features",
        ])
        .arg(format!("--features=llvm-{},no-llvm-linking", compiler.llvm))
        .arg("--root")
        .arg(folder)
        .env(
            "RUSTFLAGS",
            format!("-L {lib} -C link-arg=-l{llvm} -C link-arg=-Wl,-rpath,{lib}"),
        )
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(shell::workspace()),
    )?;
    Ok(())
}

/// Name, as a linker wants it, of the LLVM library in the compiler's `lib` folder.
fn shipped_llvm(lib: &Path) -> Result<String> {
    let names = fs::read_dir(lib)?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter_map(|name| Some(name.strip_prefix("lib")?.strip_suffix(".so")?.to_owned()))
        .find(|name| name.starts_with("LLVM-"))
        .with_context(|| format!("the compiler ships no LLVM library in {}", lib.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_made_by_another_run_meanwhile_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let (sources, place) = (folder.path().join("sources"), folder.path().join("a/b"));
        fs::create_dir(&sources).unwrap();
        link_sources(&sources, &place).unwrap();
        link_sources(&sources, &place).unwrap();
        assert_eq!(fs::read_link(place).unwrap(), sources);
    }
}

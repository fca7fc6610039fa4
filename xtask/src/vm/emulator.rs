//! The emulator that guests run in: Debian 13's QEMU with all it needs, beside whatever the machine has.
//!
//! Debian 12's 7.2 translates a guest's code for two processors without a lock on its pages: a kernel that patches its own code, as it
//! does for each probe that comes and goes, sometimes runs a byte that is no longer there and dies of `Oops: int3`. From 8.1 on pages
//! are locked first.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::cache::Cache;
use crate::debian::Suite;

/// The release, and the suite that carries it.
const QEMU: (&str, &str) = ("10.0", "trixie");

/// One unpacked emulator.
#[derive(Debug)]
pub(super) struct Emulator {
    root: PathBuf,
}

/// Provides the emulator.
pub(super) fn provide(cache: &Cache) -> Result<Emulator> {
    let (version, suite) = QEMU;
    let advice = "check that Debian's archive can be reached by apt-get";
    let root = cache.provide(&format!("qemu/{version}"), advice, |folder| {
        let lists = tempfile::tempdir()?;
        Suite::open(suite, lists.path())?.unpack_whole("qemu-system-x86", folder)
    })?;
    Ok(Emulator { root })
}

impl Emulator {
    /// The program, to be given a machine to emulate: run by the loader it came with, since it needs a newer libc.
    pub(super) fn command(&self) -> Command {
        let usr = self.root.join("usr");
        let libraries = usr.join("lib/x86_64-linux-gnu");
        let mut qemu = Command::new(usr.join("lib64/ld-linux-x86-64.so.2"));
        qemu.arg("--library-path")
            .arg(&libraries)
            .arg(usr.join("bin/qemu-system-x86_64"))
            .env("QEMU_MODULE_DIR", libraries.join("qemu"));
        for firmware in ["qemu", "seabios"] {
            qemu.arg("-L").arg(usr.join("share").join(firmware));
        }
        qemu
    }
}

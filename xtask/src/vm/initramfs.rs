//! The first file system of a guest: loads the modules of its disks and hands over to the root disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};

use super::kernel::Kernel;
use crate::shell;

/// Modules without which a guest sees no disk.
const DISKS: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];

/// First program of the initramfs.
const INIT: &str = include_str!("initramfs.sh");

/// Writes to `file` an initramfs for `kernel` that also loads `modules`.
pub(super) fn write(file: &Path, kernel: &Kernel, modules: &[String]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    for name in ["bin", "modules", "proc", "sys", "dev", "root"] {
        fs::create_dir(folder.join(name))?;
    }
    fs::copy(
        shell::find("busybox").context("busybox is missing")?,
        folder.join("bin/busybox"),
    )?;
    symlink("busybox", folder.join("bin/sh"))?;
    fs::write(folder.join("init"), INIT)?;
    fs::set_permissions(folder.join("init"), fs::Permissions::from_mode(0o755))?;
    let names: Vec<_> = DISKS.into_iter().chain(modules.iter().map(String::as_str)).collect();
    for (number, module) in kernel.module_files(&names)?.iter().enumerate() {
        copy_plain(module, &folder.join("modules").join(format!("{number:03}.ko")))?;
    }
    let pack = r#"cd "$0" && find . | busybox cpio -o -H newc > "$1""#;
    shell::output(shell::command("sh", ["-c", pack]).arg(folder).arg(file)).map(drop)
}

/// Copies a module, decompressed: the kernel's own decompression is not in all of them.
fn copy_plain(from: &Path, to: &Path) -> Result<()> {
    let tool = match from.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::copy(from, to).map(drop).context("could not copy a module"),
    };
    let unpack = r#""$0" -dc "$1" > "$2""#;
    shell::output(shell::command("sh", ["-c", unpack, tool]).arg(from).arg(to)).map(drop)
}

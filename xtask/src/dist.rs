//! `cargo xtask dist`: a release to hand out, with its checksum.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Cache;
use crate::{build, shell};

/// What goes along with the program, from the workspace's root.
const BESIDE: [&str; 4] = ["LICENSE", "README.md", "CHANGELOG.md", "deploy"];

/// Builds the release and prints where it is.
pub(crate) fn run() -> Result<()> {
    let program = build::shipped(&Cache::open()?)?;
    let name = format!(
        "mcp-observer-{}-{}-linux",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH
    );
    let dist = build::target_folder().join("dist");
    let folder = dist.join(&name);
    if dist.exists() {
        fs::remove_dir_all(&dist)?;
    }
    fs::create_dir_all(&folder)?;
    let beside = BESIDE
        .iter()
        .map(|name| shell::workspace().join(name))
        .filter(|path| path.exists());
    let mut copy = shell::command("cp", ["-r"]);
    copy.args(beside.chain([program])).arg(&folder);
    shell::output(&mut copy)?;
    let archive = format!("{name}.tar.gz");
    // Sorted, owned by root, and without times: equal content gives an equal archive.
    let tar = r#"tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf - "$0" | gzip -9n > "$1"
        sha256sum "$1" > "$1.sha256""#;
    shell::output(shell::command("sh", ["-euc", tar, &name, &archive]).current_dir(&dist))?;
    let made: PathBuf = dist.join(archive);
    println!("{}", made.display());
    Ok(())
}

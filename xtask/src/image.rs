//! `cargo xtask image`: the container image, from the binary just built and without a network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::{build, debian, libraries, shell};

/// Bundle of certificate authorities, for exporters that speak TLS.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A built image.
#[derive(Debug)]
pub(crate) struct Image {
    /// OCI layout folder.
    pub(crate) layout: PathBuf,
    /// The same as one file, as `ctr images import` and `podman load` take it.
    pub(crate) archive: PathBuf,
}

/// Builds the image and prints where it is.
pub(crate) fn run() -> Result<()> {
    let program = build::shipped(&Cache::open()?)?;
    println!("{}", build(&program)?.archive.display());
    Ok(())
}

/// Builds the image that carries the daemon at `program`.
pub(crate) fn build(program: &Path) -> Result<Image> {
    if shell::find("buildah").is_none() {
        debian::install(&["buildah"], "buildah builds the container image")?;
    }
    let folder = build::target_folder().join("image");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    lay_out(program, &folder.join("context").join(architecture()))?;
    let name = format!("mcp-observer:{}", env!("CARGO_PKG_VERSION"));
    let file = shell::workspace().join("deploy/Dockerfile");
    // A fixed time makes equal content an equal image.
    let options = ["build", "--isolation", "chroot", "--timestamp", "0", "--build-arg"];
    shell::output(
        buildah(&folder)
            .args(options)
            .arg(format!("TARGETARCH={}", architecture()))
            .args(["--tag", &name, "--file"])
            .args([&file, &folder.join("context")]),
    )?;
    let image = Image {
        layout: folder.join("oci"),
        archive: folder.join("mcp-observer.oci.tar"),
    };
    for (kind, place) in [("oci", &image.layout), ("oci-archive", &image.archive)] {
        shell::output(
            buildah(&folder)
                .args(["push", &name])
                .arg(format!("{kind}:{}:{name}", place.display())),
        )?;
    }
    fs::remove_dir_all(folder.join("storage"))?;
    Ok(image)
}

/// buildah with a storage of its own: the user's images stay as they are.
fn buildah(folder: &Path) -> Command {
    let storage = folder.join("storage");
    let mut command = Command::new("buildah");
    command.args(["--storage-driver", "vfs", "--root"]).arg(&storage);
    command.arg("--runroot").arg(storage.join("run"));
    command
}

/// Fills the image's root: the program, its libraries and loader at the paths they have here, certificates.
fn lay_out(program: &Path, root: &Path) -> Result<()> {
    copy(program, &root.join("usr/bin/mcp-observer"))?;
    for library in libraries::of(&[program.to_owned()])? {
        copy(&library, &root.join(library.strip_prefix("/")?))?;
    }
    if Path::new(AUTHORITIES).exists() {
        copy(Path::new(AUTHORITIES), &root.join(AUTHORITIES.trim_start_matches('/')))?;
    }
    for name in ["proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().expect("a copied file lies in a folder"))?;
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("could not copy {}", from.display()))
}

/// This machine's architecture, by the name images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

//! The container image at work: runc starts it in a guest, and it sees calls between processes outside of its container,
//! those inside of another container among them.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::summary::Tally;
use crate::cache::Cache;
use crate::vm::{Guest, Job};
use crate::{build, image, libraries, peers};

/// Kernel of the guest.
const KERNEL: &str = "6.12";

/// Memory of the guest, in MiB.
const MEMORY: u32 = 2048;

/// What the guest runs; it prints a `test result:` line.
const SCRIPT: &str = include_str!("image.sh");

/// Where the light peers' server listens, in a network namespace of its own.
const PORT: &str = "8000";

/// Builds the image, runs it in a guest, and calls servers there.
pub(super) fn run(cache: &Cache) -> Result<Tally> {
    let bundles = build::target_folder().join("image-bundles");
    if bundles.exists() {
        fs::remove_dir_all(&bundles)?;
    }
    unpack(&image::build(&build::daemon(cache)?)?.layout, &bundles.join("observer"))?;
    fill_neighbour(&build::driver()?, &bundles.join("neighbour"))?;
    fs::create_dir_all(bundles.join("layered"))?;
    write_settings(&bundles.join("layered"), &layered_settings())?;
    let peers = peers::provide(cache)?;
    let guest = Guest {
        memory: MEMORY,
        modules: vec!["overlay".to_owned()],
        peers: Some(peers.clone()),
        ..Guest::new(KERNEL)
    };
    let job = Job {
        name: "test-image".to_owned(),
        files: vec![(bundles, "/job/bundles".to_owned())],
        command: format!("PEERS='{}' PORT={PORT}\n{SCRIPT}", peers.display()),
        timeout: Duration::from_secs(300),
    };
    let result = guest.run(cache, &job)?;
    let output = fs::read_to_string(result.folder.join("output.log"))?;
    Ok(Tally::of_code(result.code, &output))
}

/// Makes a runc bundle of an OCI layout: its layers unpacked, and what `deploy/daemonset.yaml` asks for as settings.
fn unpack(layout: &Path, bundle: &Path) -> Result<()> {
    fs::create_dir_all(bundle.join("rootfs"))?;
    let index: Value = serde_json::from_reader(File::open(layout.join("index.json"))?)?;
    let manifest = read_blob(layout, &index["manifests"][0])?;
    for layer in manifest["layers"].as_array().context("an image without layers")? {
        let file = File::open(blob(layout, layer)?)?;
        let mut tar = tar::Archive::new(GzDecoder::new(file));
        tar.unpack(bundle.join("rootfs"))?;
    }
    let image = read_blob(layout, &manifest["config"])?;
    write_settings(bundle, &observer_settings(&image["config"]))
}

/// Makes a runc bundle of the driver's light peers and the libraries they load, apart from everything else of the node.
fn fill_neighbour(driver: &Path, bundle: &Path) -> Result<()> {
    let root = bundle.join("rootfs");
    for name in ["proc", "dev", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    // runc gives a mounted folder the permissions of the one below it.
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(driver, root.join("e2e"))?;
    for library in libraries::of(&[driver.to_owned()])? {
        let place = root.join(library.strip_prefix("/")?);
        fs::create_dir_all(place.parent().expect("a library lies in a folder"))?;
        fs::copy(&library, place)?;
    }
    write_settings(bundle, &neighbour_settings())
}

fn write_settings(bundle: &Path, settings: &Value) -> Result<()> {
    fs::write(bundle.join("config.json"), settings.to_string()).context("could not write the bundle")
}

fn read_blob(layout: &Path, descriptor: &Value) -> Result<Value> {
    Ok(serde_json::from_reader(File::open(blob(layout, descriptor)?)?)?)
}

fn blob(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest = descriptor["digest"].as_str().context("a descriptor without a digest")?;
    Ok(layout.join("blobs").join(digest.replace(':', "/")))
}

/// A privileged container in the node's process and network namespaces, with the node's `/sys`.
fn observer_settings(image: &Value) -> Value {
    let words = |key: &str| image[key].as_array().cloned().unwrap_or_default();
    let arguments = [words("Entrypoint"), words("Cmd")].concat();
    let capabilities = [
        "CAP_SYS_ADMIN",
        "CAP_BPF",
        "CAP_PERFMON",
        "CAP_SYS_PTRACE",
        "CAP_SYS_RESOURCE",
        "CAP_NET_ADMIN",
        "CAP_DAC_READ_SEARCH",
        "CAP_DAC_OVERRIDE",
        "CAP_SYSLOG",
    ];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": arguments,
            "env": words("Env"),
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind"]},
        ],
        "linux": {"namespaces": namespaces(&["mount", "uts", "ipc"])},
    })
}

/// A container without privileges that shares nothing with the node: a server over HTTP, and room for clients.
fn neighbour_settings() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 1000, "gid": 1000},
            "args": ["/e2e", "tiny-server", "--port", PORT],
            "cwd": "/",
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": namespaces(&["pid", "network", "mount", "uts", "ipc", "cgroup"])},
    })
}

/// A container that runs the shell commands of its file `/command`, on the node's network.
fn layered_settings() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "/command"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": namespaces(&["pid", "mount", "uts", "ipc", "cgroup"])},
    })
}

fn namespaces(kinds: &[&str]) -> Value {
    kinds.iter().map(|kind| json!({"type": kind})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_runs_what_the_image_says() {
        let settings = observer_settings(&json!({"Entrypoint": ["/a"], "Cmd": ["b", "c"], "Env": ["X=1"]}));
        assert_eq!(settings["process"]["args"], json!(["/a", "b", "c"]));
        assert_eq!(settings["process"]["env"], json!(["X=1"]));
    }
}

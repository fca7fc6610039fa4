//! The container image at work: runc starts it in a guest, and it sees calls between processes outside of its container.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::summary::Tally;
use crate::cache::Cache;
use crate::vm::{Guest, Job};
use crate::{build, image, peers};

/// Kernel of the guest.
const KERNEL: &str = "6.12";

/// Memory of the guest, in MiB.
const MEMORY: u32 = 2048;

/// What the guest runs; it prints a `test result:` line.
const SCRIPT: &str = include_str!("image.sh");

/// Builds the image, runs it in a guest, and calls a server there.
pub(super) fn run(cache: &Cache) -> Result<Tally> {
    let bundle = build::target_folder().join("image-bundle");
    unpack(&image::build(cache)?.layout, &bundle)?;
    let peers = peers::provide(cache)?;
    let guest = Guest {
        memory: MEMORY,
        peers: Some(peers.clone()),
        ..Guest::new(KERNEL)
    };
    let job = Job {
        name: "test-image".to_owned(),
        files: vec![(bundle, "/job/bundle".to_owned())],
        command: format!("PEERS='{}'\n{SCRIPT}", peers.display()),
        timeout: Duration::from_secs(300),
    };
    let result = guest.run(cache, &job)?;
    let output = fs::read_to_string(result.folder.join("output.log"))?;
    Ok(Tally::of_code(result.code, &output))
}

/// Makes a runc bundle of an OCI layout: its layers unpacked, and what `deploy/daemonset.yaml` asks for as settings.
fn unpack(layout: &Path, bundle: &Path) -> Result<()> {
    if bundle.exists() {
        fs::remove_dir_all(bundle)?;
    }
    fs::create_dir_all(bundle.join("rootfs"))?;
    let index: Value = serde_json::from_reader(File::open(layout.join("index.json"))?)?;
    let manifest = read_blob(layout, &index["manifests"][0])?;
    for layer in manifest["layers"].as_array().context("an image without layers")? {
        let file = File::open(blob(layout, layer)?)?;
        let mut tar = tar::Archive::new(GzDecoder::new(file));
        tar.unpack(bundle.join("rootfs"))?;
    }
    let image = read_blob(layout, &manifest["config"])?;
    let settings = settings(&image["config"]);
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
fn settings(image: &Value) -> Value {
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
        "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_runs_what_the_image_says() {
        let settings = settings(&json!({"Entrypoint": ["/a"], "Cmd": ["b", "c"], "Env": ["X=1"]}));
        assert_eq!(settings["process"]["args"], json!(["/a", "b", "c"]));
        assert_eq!(settings["process"]["env"], json!(["X=1"]));
    }
}

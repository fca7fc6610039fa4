//! Debian's cloud kernels: small, with BTF, one per line of long support and the newest.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::debian::Suite;
use crate::shell;

/// Kernels the tests run on, each with the suite that carries its newest point release.
const KERNELS: [(&str, &str); 5] = [
    ("5.10", "bullseye-security"),
    ("6.1", "bookworm-security"),
    ("6.12", "trixie"),
    ("6.18", "trixie-backports"),
    ("7.3", "trixie-backports"),
];

/// Versions the tests run on, oldest first.
pub(crate) const VERSIONS: [&str; 5] = [KERNELS[0].0, KERNELS[1].0, KERNELS[2].0, KERNELS[3].0, KERNELS[4].0];

/// One unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// What the emulator boots.
    pub(super) image: PathBuf,
    /// Folder with `modules.dep` and the modules it names.
    modules: PathBuf,
}

/// Provides the kernel of line `version`, such as `6.12`.
pub(super) fn provide(cache: &Cache, version: &str) -> Result<Kernel> {
    let Some((_, suite)) = KERNELS.iter().find(|(known, _)| *known == version) else {
        bail!("no kernel {version} here: choose one of {}", VERSIONS.join(", "));
    };
    let advice = "check that Debian's archive can be reached by apt-get";
    let folder = cache.provide(&format!("kernels/{version}"), advice, |folder| {
        fetch(version, suite, folder)
    })?;
    let modules = only_entry(&folder.join("lib/modules"))?;
    Ok(Kernel {
        image: folder.join("vmlinuz"),
        modules,
    })
}

impl Kernel {
    /// Files of `names` and of what they depend on, in the order to load them; those built into the kernel need none.
    pub(super) fn module_files(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let dependencies = fs::read_to_string(self.modules.join("modules.dep"))?;
        let built_in = fs::read_to_string(self.modules.join("modules.builtin"))?;
        let mut files = Vec::new();
        for name in names {
            let Some(wanted) = load_order(&dependencies, name) else {
                if built_in.lines().any(|line| module_name(line) == module_name(name)) {
                    continue;
                }
                bail!("this kernel has no module {name}");
            };
            for file in wanted {
                let file = self.modules.join(file);
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

/// Reads from `modules.dep` (`a.ko: b.ko c.ko`, each needing those after it) what to load for `name`, in order.
fn load_order<'a>(dependencies: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let (file, needs) = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(file, _)| module_name(file) == module_name(name))?;
    Some(needs.split_whitespace().rev().chain([file]).collect())
}

/// `kernel/fs/overlayfs/overlay.ko.xz` is module `overlay`; dashes and underscores are the same to the kernel.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn fetch(version: &str, suite: &str, folder: &Path) -> Result<()> {
    let lists = tempfile::tempdir()?;
    let suite = Suite::open(suite, lists.path())?;
    let unpacked = lists.path().join("unpacked");
    fs::create_dir(&unpacked)?;
    for package in packages(&suite, version)? {
        suite.unpack(&package, &unpacked)?;
    }
    // Kernels of later Debians have everything below usr.
    let modules = ["lib/modules", "usr/lib/modules"]
        .iter()
        .find_map(|place| only_entry(&unpacked.join(place)).ok())
        .context("the package holds no modules")?;
    let release = modules.file_name().expect("a folder has a name").to_owned();
    let image = unpacked.join("boot").join(format!("vmlinuz-{}", release.display()));
    let image = if image.exists() { image } else { modules.join("vmlinuz") };
    fs::copy(&image, folder.join("vmlinuz")).context("the package holds no kernel")?;
    fs::create_dir_all(folder.join("lib/modules"))?;
    shell::output(&mut shell::command(
        "cp",
        [Path::new("-a"), &modules, &folder.join("lib/modules")],
    ))?;
    let depmod = shell::find("depmod").context("depmod is missing")?;
    shell::output(shell::command(depmod, ["-b"]).arg(folder).arg(&release))?;
    Ok(())
}

/// Names the newest point release: one package of old, three in newer kernels.
fn packages(suite: &Suite, version: &str) -> Result<Vec<String>> {
    let newest = |kind: &str| -> Result<Option<String>> {
        let prefix = format!("{kind}-{version}.");
        let mut names = suite.names(&prefix)?;
        names.retain(|name| name.ends_with("-cloud-amd64") && !name.contains("~"));
        names.sort_by_key(|name| Reverse(numbers(name)));
        Ok(names.into_iter().next())
    };
    if let Some(binary) = newest("linux-binary")? {
        let part = |kind: &str| binary.replacen("linux-binary", kind, 1);
        return Ok(vec![part("linux-modules"), part("linux-base"), binary]);
    }
    Ok(vec![newest("linux-image")?.with_context(|| {
        format!("the suite holds no cloud kernel {version}")
    })?])
}

/// All numbers in a name, to compare versions by.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn only_entry(folder: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))?;
    Ok(entries
        .next()
        .with_context(|| format!("{} is empty", folder.display()))??
        .path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_point_release_is_the_greatest_by_number() {
        let mut names = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"];
        names.sort_by_key(|name| Reverse(numbers(name)));
        assert_eq!(names[0], "linux-image-6.1.0-56-cloud-amd64");
    }

    #[test]
    fn a_module_comes_after_what_it_needs() {
        let dependencies =
            "kernel/a/virtio-blk.ko.xz: kernel/b/virtio_ring.ko.xz kernel/b/virtio.ko.xz\nkernel/x.ko:\n";
        let order = load_order(dependencies, "virtio_blk").unwrap();
        assert_eq!(
            order,
            [
                "kernel/b/virtio.ko.xz",
                "kernel/b/virtio_ring.ko.xz",
                "kernel/a/virtio-blk.ko.xz"
            ]
        );
        assert_eq!(load_order(dependencies, "nothing"), None);
    }
}

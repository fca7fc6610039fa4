//! The cache folder: everything set-up fetches or builds, each thing under its version, made once per user.
//!
//! A thing is made in a temporary sibling and renamed into place when it is whole, under a lock of its own, so that an
//! interrupted or a second concurrent run never sees half of it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The cache folder.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens `$MCP_OBSERVER_CACHE`, else `$XDG_CACHE_HOME/mcp-observer`, else `~/.cache/mcp-observer`.
    pub(crate) fn open() -> Result<Self> {
        let variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = variable("MCP_OBSERVER_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("mcp-observer")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/mcp-observer")))
            .context("no cache folder: set MCP_OBSERVER_CACHE")?;
        Self::at(&root)
    }

    /// Opens the cache at `root`, which is made where missing.
    pub(crate) fn at(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("could not make the cache folder {}", root.display()))?;
        Ok(Self {
            root: root.canonicalize()?,
        })
    }

    /// Path of the thing `name`, there or not.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns the folder of the thing `name`; on first use `make` fills it.
    ///
    /// `make` gets an empty folder that moves afterwards, so it must not write that folder's path into files. On failure
    /// the error says what is missing and, in the words of `advice`, what to do.
    pub(crate) fn provide(&self, name: &str, advice: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let place = self.path(name);
        if place.is_dir() {
            return Ok(place);
        }
        let _lock = self.lock(name)?;
        if place.is_dir() {
            return Ok(place);
        }
        announce(name, advice, || {
            let parent = place.parent().expect("a thing lies below the cache's root");
            let half = tempfile::Builder::new().prefix(".half-").tempdir_in(parent)?;
            make(half.path())?;
            let half = half.keep();
            open_to_all(&half)?;
            fs::rename(&half, &place).with_context(|| format!("could not rename {}", half.display()))
        })?;
        Ok(place)
    }

    /// Returns the folder of the thing `name`, filled where it stands because its files hold its path.
    ///
    /// `whole` tells whether it is complete; `make` makes it so, and must be able to go on from what an interrupted run left.
    pub(crate) fn provide_in_place(
        &self,
        name: &str,
        advice: &str,
        whole: impl Fn() -> bool,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let place = self.path(name);
        if whole() {
            return Ok(place);
        }
        let _lock = self.lock(name)?;
        if !whole() {
            announce(name, advice, || {
                fs::create_dir_all(&place)?;
                make(&place)
            })?;
        }
        Ok(place)
    }

    /// Removes the oldest things below `folder` until at most `keep` are left; what is still being made stays.
    pub(crate) fn prune(&self, folder: &str, keep: usize) -> Result<()> {
        let whole = |entry: &fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
        let mut found: Vec<_> = fs::read_dir(self.path(folder))?
            .filter_map(Result::ok)
            .filter(whole)
            .collect();
        found.sort_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok());
        for old in found.iter().rev().skip(keep) {
            // Another run may remove it at the same time.
            let _ = fs::remove_dir_all(old.path());
        }
        Ok(())
    }

    /// Waits for the lock of `name`; the lock ends with the returned file.
    fn lock(&self, name: &str) -> Result<File> {
        let path = self.root.join("locks").join(name.replace('/', "-"));
        fs::create_dir_all(path.parent().expect("a lock lies in a folder"))?;
        fs::create_dir_all(self.path(name).parent().expect("a thing lies below the cache's root"))?;
        let file = File::create(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("setup: {name}: waiting for another run that makes it");
                file.lock()?;
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        Ok(file)
    }
}

/// Lets every user read a folder that `tempfile` made for its owner alone: the daemon's tests drop privileges.
fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?)
}

/// Runs one step of set-up with a line on standard error: `setup: bpf-linker 0.13.0 … 82 s`.
fn announce(name: &str, advice: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
    let title = name.replace('/', " ");
    eprint!("setup: {title} …");
    let start = Instant::now();
    match step() {
        Ok(()) => {
            eprintln!(" {} s", start.elapsed().as_secs());
            Ok(())
        }
        Err(error) => {
            eprintln!(" failed");
            bail!("{title} could not be had: {error:#}\nwhat to do: {advice}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        (folder, cache)
    }

    #[test]
    fn a_thing_is_made_once() {
        let (_folder, cache) = cache();
        let place = cache
            .provide("tool/1", "", |half| Ok(fs::write(half.join("file"), "x")?))
            .unwrap();
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "x");
        assert_eq!(cache.provide("tool/1", "", |_| panic!("made twice")).unwrap(), place);
    }

    #[test]
    fn a_half_made_thing_is_not_there_and_the_error_says_what_to_do() {
        let (_folder, cache) = cache();
        let failed = cache.provide("tool/1", "install it yourself", |half| {
            fs::write(half.join("file"), "half")?;
            bail!("network is down")
        });
        let error = failed.unwrap_err().to_string();
        assert!(error.contains("tool 1") && error.contains("network is down") && error.contains("install it yourself"));
        assert!(!cache.path("tool/1").exists());
        assert_eq!(fs::read_dir(cache.path("tool")).unwrap().count(), 0);
        cache.provide("tool/1", "", |_| Ok(())).unwrap();
    }

    #[test]
    fn a_thing_made_in_place_counts_only_when_it_says_so() {
        let (_folder, cache) = cache();
        let mark = cache.path("peers/1").join("mark");
        let whole = || mark.exists();
        cache
            .provide_in_place("peers/1", "", whole, |_| bail!("interrupted"))
            .unwrap_err();
        cache
            .provide_in_place("peers/1", "", whole, |_| Ok(fs::write(&mark, "")?))
            .unwrap();
        cache
            .provide_in_place("peers/1", "", whole, |_| panic!("made twice"))
            .unwrap();
    }

    #[test]
    fn only_one_of_two_concurrent_runs_makes_a_thing() {
        let (_folder, cache) = cache();
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let make = |_: &Path| {
                        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        Ok(())
                    };
                    cache.provide("tool/1", "", make).unwrap();
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn pruning_keeps_the_newest() {
        let (_folder, cache) = cache();
        for name in ["vm/a", "vm/b", "vm/c"] {
            cache.provide(name, "", |_| Ok(())).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        cache.prune("vm", 2).unwrap();
        assert!(!cache.path("vm/a").exists() && cache.path("vm/b").exists() && cache.path("vm/c").exists());
    }
}

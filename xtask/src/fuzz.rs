//! `cargo xtask fuzz`: looks for inputs that break the protocol core.
//!
//! What it finds lies in the target folder, an input that breaks something apart from the others. Those that `--keep` adds to
//! `tests/fuzz/corpus` are run again by the tests; an input that broke something is added by hand, once that is mended.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::{build, shell};

/// Version of cargo-fuzz that is built where the cache has none.
const CARGO_FUZZ: &str = "0.13.1";

/// What to fuzz and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Target: a folder of `tests/fuzz/corpus`.
    target: String,
    /// Seconds.
    seconds: u32,
    /// Afterwards adds to the corpus what reaches code that nothing in it reaches.
    #[arg(long)]
    keep: bool,
}

/// Fuzzes one target.
pub(crate) fn run(options: &Options) -> Result<()> {
    let project = shell::workspace().join("tests/fuzz");
    let kept = project.join("corpus").join(&options.target);
    if !kept.is_dir() {
        let all = fs::read_dir(project.join("corpus"))?;
        let names: Vec<_> = all.flatten().map(|entry| entry.file_name()).collect();
        bail!("there is no fuzz target {}; there are {names:?}", options.target);
    }
    let found = build::target_folder().join("fuzz-corpus").join(&options.target);
    let broken = build::target_folder().join("fuzz-broken").join(&options.target);
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&broken)?;
    let fuzz = Fuzz {
        tool: provide(&Cache::open()?)?,
        project,
        target: &options.target,
    };
    fuzz.run(&[
        found.clone().into(),
        kept.clone().into(),
        "--".into(),
        format!("-max_total_time={}", options.seconds).into(),
        format!("-artifact_prefix={}/", broken.display()).into(),
        "-max_len=4096".into(),
        "-timeout=10".into(),
        "-rss_limit_mb=2048".into(),
        "-print_final_stats=1".into(),
    ])
    .with_context(|| format!("an input broke {}: it is in {}", options.target, broken.display()))?;
    if options.keep {
        let merged = ["--", "-merge=1", "-max_len=4096"].map(OsString::from);
        fuzz.run(&[&[kept.into(), found.into()], &merged[..]].concat())?;
    }
    Ok(())
}

struct Fuzz<'a> {
    tool: PathBuf,
    project: PathBuf,
    target: &'a str,
}

impl Fuzz<'_> {
    fn run(&self, arguments: &[OsString]) -> Result<()> {
        // Without a sanitizer: the core has no unsafe code, and the pinned compiler offers none.
        let mut fuzz = shell::command(&self.tool, ["fuzz", "run", "--sanitizer", "none", "--fuzz-dir"]);
        fuzz.arg(&self.project)
            .arg("--target-dir")
            .arg(build::target_folder().join("fuzz"))
            .arg("core")
            .args(arguments)
            .env("MCP_OBSERVER_FUZZ_TARGET", self.target);
        shell::stream(&mut fuzz)
    }
}

/// Provides cargo-fuzz and returns its path.
fn provide(cache: &Cache) -> Result<PathBuf> {
    let advice = "install cargo-fuzz yourself, and a C++ compiler";
    let name = format!("cargo-fuzz/{CARGO_FUZZ}");
    let root = cache.provide(&name, advice, |folder| {
        let install = ["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked", "--root"];
        shell::output(
            shell::cargo(install)
                .arg(folder)
                .env_remove("CARGO_TARGET_DIR")
                .current_dir(shell::workspace()),
        )
        .map(drop)
    })?;
    Ok(root.join("bin/cargo-fuzz"))
}

//! Packages of Debian suites other than the one installed, fetched and unpacked without touching the system.
//!
//! A suite is added by an apt set-up of its own: the machine's configured sources with another suite's name, its own
//! lists and its own cache. Nothing is installed and no host is named here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// One suite, its package lists fetched into a folder of its own.
#[derive(Debug)]
pub(crate) struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// Fetches the package lists of `suite` into `folder`.
    pub(crate) fn open(suite: &str, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("archives/partial"))?;
        fs::write(folder.join("suite.sources"), stanza_for(&configured_sources()?, suite)?)?;
        let opened = Self {
            folder: folder.to_owned(),
        };
        shell::output(opened.apt("apt-get").arg("update"))
            .with_context(|| format!("could not fetch the package lists of {suite}"))?;
        Ok(opened)
    }

    /// Names of all packages that begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = shell::output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Fetches `package` (a name, or `name=version`) and unpacks it into `place`.
    pub(crate) fn unpack(&self, package: &str, place: &Path) -> Result<()> {
        let debs = tempfile::tempdir_in(&self.folder)?;
        shell::output(self.apt("apt-get").args(["download", package]).current_dir(&debs))
            .with_context(|| format!("could not download {package}"))?;
        unpack_all(debs.path(), place)
    }

    /// Fetches `package` with everything it depends on, whatever of that the machine has, and unpacks it all into `place`.
    pub(crate) fn unpack_whole(&self, package: &str, place: &Path) -> Result<()> {
        let nothing = self.folder.join("nothing-installed");
        fs::write(&nothing, "")?;
        shell::output(
            self.apt("apt-get")
                .arg(format!("-oDir::State::status={}", nothing.display()))
                .args([
                    "install",
                    "--yes",
                    "--download-only",
                    "--no-install-recommends",
                    package,
                ]),
        )
        .with_context(|| format!("could not download {package} and what it depends on"))?;
        unpack_all(&self.folder.join("archives"), place)
    }

    fn apt(&self, program: &str) -> Command {
        let folder = self.folder.display();
        shell::command(
            program,
            [
                format!("-oDir::Etc::sourcelist={folder}/suite.sources"),
                "-oDir::Etc::sourceparts=-".to_owned(),
                format!("-oDir::State::Lists={folder}/lists"),
                format!("-oDir::Cache={folder}"),
                "-oAPT::Sandbox::User=".to_owned(),
                "-oAcquire::Languages=none".to_owned(),
                "-oAcquire::Retries=3".to_owned(),
            ],
        )
    }
}

/// Unpacks the packages of a folder into `place`.
fn unpack_all(folder: &Path, place: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            shell::output(Command::new("dpkg-deb").arg("-x").arg(file).arg(place))?;
        }
    }
    Ok(())
}

/// Installs packages of the system's own suite where one of `programs` is missing; needs root, and says so.
pub(crate) fn install(packages: &[&str], why: &str) -> Result<()> {
    let env = ["DEBIAN_FRONTEND=noninteractive", "apt-get"];
    let update = shell::command("env", env.iter().chain(&["update"]));
    let install = shell::command(
        "env",
        env.iter()
            .chain(&["install", "--yes", "--no-install-recommends"])
            .chain(packages),
    );
    if shell::find("apt-get").is_none() {
        bail!("missing: {}", packages.join(" "));
    }
    shell::output(&mut shell::as_root(why, update))?;
    shell::output(&mut shell::as_root(why, install))?;
    Ok(())
}

/// Codename of the installed Debian, such as `bookworm`.
pub(crate) fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("could not read /etc/os-release")?;
    let value = |key: &str| {
        release
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(|value| value.trim_matches('"').to_owned())
    };
    if value("ID=").as_deref() != Some("debian") {
        bail!("this needs a Debian system (or a Debian container)");
    }
    value("VERSION_CODENAME=").context("/etc/os-release names no codename")
}

/// Address of the first configured archive, for `debootstrap`.
pub(crate) fn archive() -> Result<String> {
    let stanza = stanza_for(&configured_sources()?, &codename()?)?;
    let uris = stanza
        .lines()
        .find_map(|line| line.strip_prefix("URIs:"))
        .context("a source without an address")?;
    Ok(uris
        .split_whitespace()
        .next()
        .context("a source without an address")?
        .to_owned())
}

fn configured_sources() -> Result<String> {
    ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .map(|text| if text.contains("URIs:") { text } else { deb822(&text) })
        .find(|text| text.contains("URIs:"))
        .context("no Debian package source is configured in /etc/apt")
}

/// The configured stanza that serves `suite` (the archive's, or the security archive's), asking for that suite alone.
fn stanza_for(sources: &str, suite: &str) -> Result<String> {
    let security = suite.ends_with("-security");
    let serves = |stanza: &&str| {
        let mut suites = stanza.lines().filter_map(|line| line.strip_prefix("Suites:"));
        suites.any(|names| names.contains("-security") == security)
    };
    let stanza = sources
        .split("\n\n")
        .find(serves)
        .with_context(|| format!("no configured source serves {suite}"))?;
    let line = |line: &str| {
        if line.starts_with("Suites:") {
            format!("Suites: {suite}")
        } else {
            line.to_owned()
        }
    };
    Ok(stanza
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
        + "\n")
}

/// Rewrites one-line sources (`deb [signed-by=KEY] URI SUITE COMPONENTS…`) as stanzas.
fn deb822(list: &str) -> String {
    let stanza = |line: &str| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let components: Vec<_> = words.collect();
        let key = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="));
        let key = key.map(|key| format!("Signed-By: {key}\n")).unwrap_or_default();
        Some(format!(
            "Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: {}\n{key}",
            components.join(" ")
        ))
    };
    list.lines().filter_map(stanza).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &str = "Types: deb\n# a comment\nURIs: http://archive.example/debian\nSuites: one one-updates\n\
        Components: main\nSigned-By: /key\n\nTypes: deb\nURIs: http://archive.example/security\nSuites: one-security\n\
        Components: main\n";

    #[test]
    fn another_suite_comes_from_the_same_archive() {
        let stanza = stanza_for(SOURCES, "two-backports").unwrap();
        assert_eq!(
            stanza,
            "Types: deb\nURIs: http://archive.example/debian\nSuites: two-backports\nComponents: main\nSigned-By: /key\n"
        );
    }

    #[test]
    fn a_security_suite_comes_from_the_security_archive() {
        let stanza = stanza_for(SOURCES, "two-security").unwrap();
        assert!(stanza.contains("archive.example/security") && stanza.contains("Suites: two-security"));
    }

    #[test]
    fn one_line_sources_are_understood() {
        let list = "# x\ndeb-src http://a/b one main\ndeb [arch=amd64 signed-by=/key] http://a/b one main contrib\n";
        let stanza = stanza_for(&deb822(list), "two").unwrap();
        assert_eq!(
            stanza,
            "Types: deb\nURIs: http://a/b\nSuites: two\nComponents: main contrib\nSigned-By: /key\n"
        );
    }
}

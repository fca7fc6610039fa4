//! Runs other programs, so that what went wrong is said in their own words.
//!
//! Every command of set-up runs silently; when it fails, the end of its output becomes part of the error.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Lines of a failed command's output that its error repeats.
const TAIL_LINES: usize = 15;

/// Makes a command from a program and its arguments.
pub(crate) fn command<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Makes a `cargo` command for the workspace, free of what `cargo run` put into the environment for this program.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = command("cargo", args);
    command.current_dir(workspace());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}

/// Runs a command silently and returns its standard output, trimmed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| could_not_start(command))?;
    if !out.status.success() {
        let text = [out.stdout, out.stderr].concat();
        bail!(
            "{} ({})\n{}",
            printable(command),
            out.status,
            tail(&String::from_utf8_lossy(&text))
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Runs a command on this terminal and fails when it fails.
pub(crate) fn stream(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| could_not_start(command))?;
    if !status.success() {
        bail!("{} ({status})", printable(command));
    }
    Ok(())
}

/// Runs a command on this terminal and returns how it ended and what it wrote to standard output.
pub(crate) fn tee(command: &mut Command) -> Result<(ExitStatus, String)> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| could_not_start(command))?;
    let mut output = child.stdout.take().expect("standard output is piped");
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = output.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..length]);
        let mut terminal = std::io::stdout().lock();
        terminal.write_all(&buffer[..length])?;
        terminal.flush()?;
    }
    Ok((child.wait()?, String::from_utf8_lossy(&text).into_owned()))
}

/// Returns the command itself for root and `sudo COMMAND` for others, after a line that says why.
pub(crate) fn as_root(why: &str, command: Command) -> Command {
    if rustix::process::geteuid().is_root() {
        return command;
    }
    eprintln!("\nsudo: {} ({why})", printable(&command));
    let mut sudo = Command::new("sudo");
    sudo.arg("--preserve-env")
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        sudo.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => sudo.env(name, value),
            None => sudo.env_remove(name),
        };
    }
    sudo
}

/// Finds a program on `PATH`, and in the folders of system programs that a user's `PATH` may lack.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Folder that holds the workspace's `Cargo.toml`.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies inside the workspace")
}

fn could_not_start(command: &Command) -> String {
    format!("could not start {}", printable(command))
}

fn printable(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_quoted_with_the_end_of_its_output() {
        let error = output(&mut command("sh", ["-c", "seq 100; echo broken >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.ends_with("100\nbroken"), "{error}");
        assert!(!error.contains("\n50\n"), "{error}");
    }
}

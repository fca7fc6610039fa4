//! What keeps the daemon from observing is told in one line that says what and what to do, and in the exit code.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::{fs, io};

use anyhow::{Context, Result, ensure};

use super::{Stage, Test};
use crate::clock::wait_until;

pub(super) const TESTS: &[Test] = &[
    ("refusals::a port in use", port_in_use),
    ("refusals::an unreadable config", unreadable_config),
    ("refusals::an unknown key in a config", unknown_key),
    ("refusals::a bad value", bad_value),
    ("refusals::a group that does not exist", no_group),
    ("refusals::no privilege", no_privilege),
];

/// The exit code for what keeps it from observing, and for what the user got wrong.
const FAILURE: i32 = 1;
const USAGE: i32 = 2;

fn port_in_use(stage: &Stage) -> Result<()> {
    let taken = TcpListener::bind(("127.0.0.1", 0))?;
    let address = taken.local_addr()?.to_string();
    refused(stage, &["--listen", &address], FAILURE, &[&address, "--listen"])
}

fn unreadable_config(stage: &Stage) -> Result<()> {
    let file = stage.lab.file("no-such.toml").to_string_lossy().into_owned();
    refused(stage, &["--config", &file], FAILURE, &[&file])
}

fn unknown_key(stage: &Stage) -> Result<()> {
    let file = stage.lab.file("config.toml");
    fs::write(&file, "colour = \"red\"\n")?;
    refused(
        stage,
        &["--config", &file.to_string_lossy()],
        USAGE,
        &["colour", "listen"],
    )
}

fn bad_value(stage: &Stage) -> Result<()> {
    refused(
        stage,
        &["--backend", "magic"],
        USAGE,
        &["backend", "magic", "function", "syscall"],
    )
}

fn no_group(stage: &Stage) -> Result<()> {
    let group = stage.cgroup.path().join("none").to_string_lossy().into_owned();
    refused(stage, &["--cgroup", &group], FAILURE, &[&group])
}

/// As root of a container without capabilities.
fn no_privilege(stage: &Stage) -> Result<()> {
    let mut command = command(stage, &[]);
    let powerless = || {
        for capability in 0..64 {
            // SAFETY: a system call without pointers; capabilities that this kernel does not know are refused.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
        io::Result::Ok(())
    };
    // SAFETY: `powerless` makes system calls and allocates nothing, as is asked between fork and exec.
    unsafe { command.pre_exec(powerless) };
    told(stage, command, FAILURE, &["root", "CAP_BPF"])
}

fn refused(stage: &Stage, words: &[&str], code: i32, mentions: &[&str]) -> Result<()> {
    told(stage, command(stage, words), code, mentions)
}

fn command(stage: &Stage, words: &[&str]) -> Command {
    let mut command = Command::new(&stage.lab.observer);
    command.arg("run").args(words);
    if !words.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    if !words.contains(&"--backend") {
        command.args(["--backend", &stage.lab.backend]);
    }
    if !words.contains(&"--cgroup") {
        command.arg("--cgroup").arg(stage.cgroup.path());
    }
    command
}

/// It ends with this code, and what it says besides its log is one line that mentions these things.
fn told(stage: &Stage, mut command: Command, code: i32, mentions: &[&str]) -> Result<()> {
    let log = stage.lab.file("observer.log");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?);
    let mut child = command.spawn()?;
    let status = wait_until(stage.lab.limit(10), || child.try_wait().ok().flatten());
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    let said = fs::read_to_string(&log)?;
    let status = status.with_context(|| format!("it runs: {said}"))?;
    ensure!(
        status.code() == Some(code),
        "it ended with {status} and not {code}: {said}"
    );
    let lines: Vec<&str> = said.lines().filter(|line| !line.contains(" INFO ")).collect();
    ensure!(lines.len() == 1, "{} lines and not one: {said}", lines.len());
    let missing = mentions.iter().find(|word| !lines[0].contains(**word));
    ensure!(
        missing.is_none(),
        "{:?} does not mention {:?}",
        lines[0],
        missing.unwrap_or(&"")
    );
    Ok(())
}

//! `cargo xtask vm`: one command in a guest, for people.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Clock, Guest, Job};
use crate::cache::Cache;
use crate::peers;

/// How to run one command.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Kernel to boot: 5.10, 6.1, 6.12, 6.18 or 7.3.
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Processors.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Memory in MiB.
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// Further words for the kernel's command line, such as `preempt=full`.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    cmdline: String,
    /// What the guest's time is made of.
    #[arg(long, value_enum, default_value_t = Clock::Real)]
    clock: Clock,
    /// Kernel module to load.
    #[arg(long = "module")]
    modules: Vec<String>,
    /// File or folder to bring along, and its absolute path in the guest.
    #[arg(long = "file", value_name = "HOST:GUEST")]
    files: Vec<String>,
    /// Brings the real clients and servers along, with Python and Node.
    #[arg(long)]
    peers: bool,
    /// Folder for what the command leaves in `/results`.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Seconds until the guest is stopped.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Shell text when it is one word, else a program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let guest = Guest {
        cpus: options.cpus,
        memory: options.memory,
        cmdline_extra: options.cmdline.clone(),
        clock: options.clock,
        modules: options.modules.clone(),
        peers: if options.peers {
            Some(peers::provide(&cache)?)
        } else {
            None
        },
        ..Guest::new(&options.kernel)
    };
    let job = Job {
        name: format!("{}-{}", options.kernel, std::process::id()),
        files: options
            .files
            .iter()
            .map(|pair| parse_file(pair))
            .collect::<Result<_>>()?,
        command: shell_text(&options.command),
        timeout: Duration::from_secs(options.timeout),
    };
    let result = guest.run(&cache, &job)?;
    if let Some(folder) = &options.results {
        crate::shell::output(&mut crate::shell::command(
            "cp",
            ["-a".as_ref(), result.results.as_path(), folder],
        ))?;
    }
    if result.code == 0 {
        std::fs::remove_dir_all(&result.folder)?;
    }
    Ok(u8::try_from(result.code).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn parse_file(pair: &str) -> Result<(PathBuf, String)> {
    let (host, guest) = pair
        .split_once(':')
        .with_context(|| format!("--file {pair}: expected HOST:GUEST"))?;
    Ok((PathBuf::from(host), guest.to_owned()))
}

fn shell_text(words: &[String]) -> String {
    match words {
        [text] => text.clone(),
        words => words
            .iter()
            .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_shell_text_and_several_are_quoted() {
        assert_eq!(shell_text(&["uname -a; id".to_owned()]), "uname -a; id");
        assert_eq!(shell_text(&["echo".to_owned(), "it's".to_owned()]), r"'echo' 'it'\''s'");
    }
}

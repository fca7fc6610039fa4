//! Command line entry: which command, and what its end means to the shell.

use std::process::ExitCode;

use clap::Parser;
use observer::capture::release;
use observer::cli::{Cli, Command};
use observer::config::{Config, UsageError, environment};
use observer::daemon;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The good end.
const SUCCESS: u8 = 0;
/// The observer could not observe.
const FAILURE: u8 = 1;
/// The user asked for something that does not exist; clap ends with the same code.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_standard_error();
    let code = match command(cli.command) {
        Ok(true) => SUCCESS,
        Ok(false) => FAILURE,
        Err(error) => {
            eprintln!("mcp-observer: {}", format!("{error:#}").replace('\n', " "));
            if error.is::<UsageError>() { USAGE } else { FAILURE }
        }
    };
    ExitCode::from(code)
}

fn command(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Run(args) => daemon::run(&Config::for_run(&args, &environment())?).map(|()| true),
        Command::Check(args) => daemon::check(args.json),
        Command::Record(args) => daemon::record(&Config::for_record(&args, &environment())?, &args.file).map(|()| true),
        Command::Replay(args) => daemon::replay(&Config::for_replay(&args, &environment())?, &args.file).map(|()| true),
        Command::HoldProbes => {
            release::hold();
            Ok(true)
        }
    }
}

/// Standard output carries only calls. `RUST_LOG` sets the level as `debug` or `observer::capture=debug`.
fn log_to_standard_error() {
    let targets = std::env::var("RUST_LOG")
        .ok()
        .and_then(|text| text.parse::<Targets>().ok());
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::registry()
        .with(
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(ansi),
        )
        .with(targets.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO)))
        .init();
}

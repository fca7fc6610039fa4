//! The command line: commands and the options that each takes.
//!
//! Options are plain text here; [`crate::config`] lays them over the environment and the file and checks their values, so that
//! an error reads the same wherever the value came from.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const LAYERS: &str = "Every option but --config and --json is also an environment variable (--max-series is \
    MCP_OBSERVER_MAX_SERIES; lists are separated by commas) and a key of the TOML file given by --config or \
    MCP_OBSERVER_CONFIG. A flag goes over the environment, the environment over the file.\n\n\
    Exit codes: 0 good, 1 could not observe (one line says why and what to do), 2 usage.";

/// Shows the MCP calls of every process on a Linux node without touching one of them.
#[derive(Debug, Parser)]
#[command(name = "mcp-observer", version, after_help = LAYERS)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Observe until SIGINT or SIGTERM, then drain and exit.
    #[command(after_help = LAYERS)]
    Run(RunArgs),
    /// Say what this node lets the observer see; exit 0 when `run` would work.
    Check(CheckArgs),
    /// Save raw kernel records to a file (mode 0600: it holds payloads) until SIGINT or SIGTERM.
    #[command(after_help = LAYERS)]
    Record(RecordArgs),
    /// Run a saved file through the same pipeline and print what `run` would have printed.
    #[command(after_help = LAYERS)]
    Replay(ReplayArgs),
    /// Holds probes for the observer that started it, and takes them away when that has let go of them or has ended.
    #[command(hide = true)]
    HoldProbes,
}

/// Options of `run`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Address of /metrics and /health; port 0 takes a free one [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Print calls to standard output [default: pretty on a terminal, json otherwise]
    #[arg(long, value_name = "json|pretty|none")]
    pub calls: Option<String>,
    /// Append calls to this file too, one JSON line each
    #[arg(long, value_name = "PATH")]
    pub calls_file: Option<String>,
    /// Payloads to keep; this version can only keep none [default: none]
    #[arg(long, value_name = "none")]
    pub capture_payloads: Option<String>,
    /// Time series exported at most [default: 10000]
    #[arg(long, value_name = "N")]
    pub max_series: Option<String>,
    /// How to look.
    #[command(flatten)]
    pub probes: ProbeArgs,
    /// Bounds of the pipeline.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// File of options (TOML, keys as the long names of the options)
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
}

/// Whose calls to see and by which probes.
#[derive(Clone, Debug, Default, Args)]
pub struct ProbeArgs {
    /// Probes to use [default: auto]
    #[arg(long, value_name = "auto|function|syscall")]
    pub backend: Option<String>,
    /// Only this process and its descendants (repeatable)
    #[arg(long, value_name = "N")]
    pub pid: Vec<String>,
    /// Only processes in this cgroup v2 folder and below it (repeatable)
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,
    /// Size of the ring between kernel and daemon, rounded up to a power of two [default: 8388608]
    #[arg(long, value_name = "N")]
    pub ring_bytes: Option<String>,
}

/// Bounds of the pipeline.
#[derive(Clone, Debug, Default, Args)]
pub struct LimitArgs {
    /// Streams remembered at once [default: 16384]
    #[arg(long, value_name = "N")]
    pub max_streams: Option<String>,
    /// Bytes held of one direction of a stream while a message is incomplete [default: 16777216]
    #[arg(long, value_name = "N")]
    pub max_stream_bytes: Option<String>,
    /// Bytes held of all streams together while messages are incomplete [default: 268435456]
    #[arg(long, value_name = "N")]
    pub max_held_bytes: Option<String>,
    /// Seconds after which a request without an answer is `unanswered` [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub call_deadline: Option<String>,
    /// Characters of text that make a token, for the estimates of tokens [default: 4]
    #[arg(long, value_name = "N")]
    pub characters_per_token: Option<String>,
}

/// Options of `check`.
#[derive(Clone, Copy, Debug, Args)]
pub struct CheckArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Options of `record`.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// File to make; it must not exist
    pub file: PathBuf,
    /// How to look.
    #[command(flatten)]
    pub probes: ProbeArgs,
    /// Bounds of the pipeline.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// File of options (TOML, keys as the long names of the options)
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
}

/// Options of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// File made by `record`
    pub file: PathBuf,
    /// How to print calls [default: pretty on a terminal, json otherwise]
    #[arg(long, value_name = "json|pretty|none")]
    pub calls: Option<String>,
    /// Bounds of the pipeline.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// File of options (TOML, keys as the long names of the options)
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
}

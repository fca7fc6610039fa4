//! Options: flags over environment over file over defaults, each value checked once, wherever it came from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::capture::{BackendChoice, Options, Scope};
use crate::cli::{LimitArgs, ProbeArgs, RecordArgs, ReplayArgs, RunArgs};
use crate::protocol::Limits;

const PREFIX: &str = "MCP_OBSERVER_";

/// Every option that the environment and the file may set, by its long name.
const KEYS: &[&str] = &[
    "backend",
    "call-deadline",
    "calls",
    "calls-file",
    "capture-payloads",
    "cgroup",
    "characters-per-token",
    "listen",
    "max-held-bytes",
    "max-series",
    "max-stream-bytes",
    "max-streams",
    "pid",
    "ring-bytes",
];

/// Variables with our prefix that are not options of the daemon: they belong to its build and its tests.
const OTHER_VARIABLES: &[&str] = &["CONFIG", "CACHE", "EBPF"];

/// Everything `run`, `record` and `replay` can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the endpoints.
    pub listen: SocketAddr,
    /// How calls are printed to standard output; `None` when the option is not set.
    pub calls: Option<CallsFormat>,
    /// A file that calls are appended to.
    pub calls_file: Option<PathBuf>,
    /// Time series exported at most.
    pub max_series: usize,
    /// Whose calls to see and how.
    pub capture: Options,
    /// Bounds of the pipeline.
    pub limits: Limits,
}

/// `--calls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallsFormat {
    /// Lines of schema `mcp-call/1`.
    Json,
    /// Lines for people.
    Pretty,
    /// Nothing.
    None,
}

/// The environment, as name and value.
pub type Environment = BTreeMap<String, String>;

/// A bad option: one line that names it and what is allowed. Exit code 2.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The variables of this process that are ours.
#[must_use]
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
        .collect()
}

impl Config {
    /// The options of `run`.
    ///
    /// # Errors
    /// [`UsageError`] for an unknown key or a bad value; any other error when the file cannot be read.
    pub fn for_run(args: &RunArgs, environment: &Environment) -> anyhow::Result<Self> {
        let mut flags = Flags::default();
        flags.one("listen", args.listen.as_ref());
        flags.one("calls", args.calls.as_ref());
        flags.one("calls-file", args.calls_file.as_ref());
        flags.one("capture-payloads", args.capture_payloads.as_ref());
        flags.one("max-series", args.max_series.as_ref());
        flags.probes(&args.probes);
        flags.limits(&args.limits);
        Layers::new(flags, environment, args.config.as_deref())?.config()
    }

    /// The options of `record`.
    ///
    /// # Errors
    /// As [`Config::for_run`].
    pub fn for_record(args: &RecordArgs, environment: &Environment) -> anyhow::Result<Self> {
        let mut flags = Flags::default();
        flags.probes(&args.probes);
        flags.limits(&args.limits);
        Layers::new(flags, environment, args.config.as_deref())?.config()
    }

    /// The options of `replay`.
    ///
    /// # Errors
    /// As [`Config::for_run`].
    pub fn for_replay(args: &ReplayArgs, environment: &Environment) -> anyhow::Result<Self> {
        let mut flags = Flags::default();
        flags.one("calls", args.calls.as_ref());
        flags.limits(&args.limits);
        Layers::new(flags, environment, args.config.as_deref())?.config()
    }
}

/// Values of flags by option name.
#[derive(Debug, Default)]
struct Flags(BTreeMap<&'static str, Vec<String>>);

impl Flags {
    fn one(&mut self, key: &'static str, value: Option<&String>) {
        self.many(key, value.map(std::slice::from_ref).unwrap_or_default());
    }

    fn many(&mut self, key: &'static str, values: &[String]) {
        if !values.is_empty() {
            self.0.insert(key, values.to_vec());
        }
    }

    fn probes(&mut self, args: &ProbeArgs) {
        self.one("backend", args.backend.as_ref());
        self.many("pid", &args.pid);
        self.many("cgroup", &args.cgroup);
        self.one("ring-bytes", args.ring_bytes.as_ref());
    }

    fn limits(&mut self, args: &LimitArgs) {
        self.one("max-streams", args.max_streams.as_ref());
        self.one("max-stream-bytes", args.max_stream_bytes.as_ref());
        self.one("max-held-bytes", args.max_held_bytes.as_ref());
        self.one("call-deadline", args.call_deadline.as_ref());
        self.one("characters-per-token", args.characters_per_token.as_ref());
    }
}

/// What is set for an option, and where.
#[derive(Debug)]
struct Setting {
    /// How the user wrote the key: `--pid`, `MCP_OBSERVER_PID`, `FILE.toml: pid`.
    origin: String,
    values: Vec<String>,
}

impl Setting {
    fn error(&self, value: &str, allowed: &str) -> UsageError {
        UsageError(format!("{}: {value:?} is not allowed; allowed: {allowed}", self.origin))
    }
}

/// Flags, environment and file laid over each other.
#[derive(Debug)]
struct Layers(BTreeMap<&'static str, Setting>);

impl Layers {
    fn new(flags: Flags, environment: &Environment, file: Option<&Path>) -> anyhow::Result<Self> {
        let mut settings = BTreeMap::new();
        let named = environment.get("MCP_OBSERVER_CONFIG").map(Path::new);
        if let Some(path) = file.or(named) {
            read_file(path, &mut settings)?;
        }
        read_environment(environment, &mut settings)?;
        for (key, values) in flags.0 {
            let origin = format!("--{key}");
            settings.insert(key, Setting { origin, values });
        }
        Ok(Self(settings))
    }

    fn config(&self) -> anyhow::Result<Config> {
        self.choice(
            "capture-payloads",
            &[("none", ())],
            "none (this version keeps no payloads)",
        )?;
        let formats = [
            ("json", CallsFormat::Json),
            ("pretty", CallsFormat::Pretty),
            ("none", CallsFormat::None),
        ];
        let backends = [
            ("auto", BackendChoice::Auto),
            ("function", BackendChoice::Function),
            ("syscall", BackendChoice::Syscall),
        ];
        let defaults = Limits::default();
        let seconds = self.number("call-deadline", defaults.call_deadline / 1_000_000_000, 1, 86_400 * 7)?;
        Ok(Config {
            listen: self
                .parse("listen", "an address with a port, such as 127.0.0.1:9464")?
                .unwrap_or(DEFAULT_LISTEN),
            calls: self.choice("calls", &formats, "json, pretty, none")?,
            calls_file: self.parse("calls-file", "a path")?,
            max_series: self.number("max-series", 10_000, 100, 10_000_000)?,
            capture: Options {
                backend: self
                    .choice("backend", &backends, "auto, function, syscall")?
                    .unwrap_or_default(),
                scope: Scope {
                    pids: self.list("pid", "process ids of 1 and up", |pid: &u32| *pid > 0)?,
                    cgroups: self.list("cgroup", "paths of cgroup v2 folders", |_| true)?,
                },
                ring_bytes: self.number("ring-bytes", DEFAULT_RING_BYTES, 4096, 1 << 30)?,
            },
            limits: Limits {
                streams: self.number("max-streams", defaults.streams, 16, 1 << 24)?,
                stream_bytes: self.number("max-stream-bytes", defaults.stream_bytes, 4096, 1 << 32)?,
                held_bytes: self.number("max-held-bytes", defaults.held_bytes, 1 << 16, 1 << 40)?,
                call_deadline: seconds * 1_000_000_000,
                characters_per_token: self.number("characters-per-token", defaults.characters_per_token, 1, 100)?,
            },
        })
    }

    fn single(&self, key: &str) -> Result<Option<(&Setting, &str)>, UsageError> {
        let Some(setting) = self.0.get(key) else {
            return Ok(None);
        };
        match setting.values.as_slice() {
            [value] => Ok(Some((setting, value))),
            values => Err(setting.error(&values.join(","), "one value")),
        }
    }

    fn parse<T: FromStr>(&self, key: &str, allowed: &str) -> Result<Option<T>, UsageError> {
        let Some((setting, value)) = self.single(key)? else {
            return Ok(None);
        };
        if value.is_empty() {
            return Err(setting.error(value, allowed));
        }
        value.parse().map(Some).map_err(|_| setting.error(value, allowed))
    }

    fn number<T>(&self, key: &str, default: T, least: T, most: T) -> Result<T, UsageError>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let allowed = format!("a whole number from {least} to {most}");
        let Some(number) = self.parse::<T>(key, &allowed)? else {
            return Ok(default);
        };
        if number < least || number > most {
            let (setting, value) = self.single(key)?.expect("it was parsed a line above");
            return Err(setting.error(value, &allowed));
        }
        Ok(number)
    }

    fn list<T: FromStr>(&self, key: &str, allowed: &str, valid: impl Fn(&T) -> bool) -> Result<Vec<T>, UsageError> {
        let Some(setting) = self.0.get(key) else {
            return Ok(Vec::new());
        };
        let parse = |value: &String| match value.parse() {
            Ok(parsed) if !value.is_empty() && valid(&parsed) => Ok(parsed),
            _ => Err(setting.error(value, allowed)),
        };
        setting.values.iter().map(parse).collect()
    }

    fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)], allowed: &str) -> Result<Option<T>, UsageError> {
        let Some((setting, value)) = self.single(key)? else {
            return Ok(None);
        };
        let found = choices.iter().find(|(name, _)| *name == value);
        found
            .map(|(_, choice)| Some(*choice))
            .ok_or_else(|| setting.error(value, allowed))
    }
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);

/// Holds about 100 ms of 50,000 calls a second.
const DEFAULT_RING_BYTES: u32 = 8 << 20;

fn read_environment(
    environment: &Environment,
    settings: &mut BTreeMap<&'static str, Setting>,
) -> Result<(), UsageError> {
    for (name, value) in environment {
        let Some(suffix) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if OTHER_VARIABLES.contains(&suffix) || is_service_link(suffix) {
            continue;
        }
        let option = suffix.to_ascii_lowercase().replace('_', "-");
        let Some(key) = KEYS.iter().find(|key| **key == option) else {
            let known: Vec<String> = KEYS.iter().map(|key| variable(key)).collect();
            return Err(UsageError(format!(
                "{name}: no such option; allowed: {}",
                known.join(", ")
            )));
        };
        let values = match *key {
            "pid" | "cgroup" => value.split(',').map(|value| value.trim().to_owned()).collect(),
            _ => vec![value.clone()],
        };
        settings.insert(
            key,
            Setting {
                origin: name.clone(),
                values,
            },
        );
    }
    Ok(())
}

/// Kubernetes gives every container variables like these for a service called `mcp-observer`; they are not meant for us.
fn is_service_link(suffix: &str) -> bool {
    suffix == "PORT" || suffix.starts_with("PORT_") || suffix.starts_with("SERVICE_")
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('-', "_"))
}

fn read_file(path: &Path, settings: &mut BTreeMap<&'static str, Setting>) -> anyhow::Result<()> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        anyhow::anyhow!("cannot read the configuration {shown}: {error}; name a readable file with --config")
    })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        UsageError(format!("{shown}: line {line}: {}", error.message().replace('\n', " ")))
    })?;
    for (name, value) in table {
        let Some(key) = KEYS.iter().find(|key| **key == name) else {
            return Err(UsageError(format!("{shown}: {name}: no such key; allowed: {}", KEYS.join(", "))).into());
        };
        let origin = format!("{shown}: {name}");
        settings.insert(
            key,
            Setting {
                values: file_values(&origin, value)?,
                origin,
            },
        );
    }
    Ok(())
}

fn file_values(origin: &str, value: toml::Value) -> Result<Vec<String>, UsageError> {
    match value {
        toml::Value::String(text) => Ok(vec![text]),
        toml::Value::Integer(number) => Ok(vec![number.to_string()]),
        toml::Value::Array(items) => {
            let nested = items.into_iter().map(|item| file_values(origin, item));
            Ok(nested.collect::<Result<Vec<_>, _>>()?.concat())
        }
        other => {
            let kind = other.type_str();
            Err(UsageError(format!(
                "{origin}: a {kind} is not allowed; allowed: a string, a number or a list of them"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use std::io::Write;

    fn run(flags: &[&str], environment: &[(&str, &str)], file: Option<&str>) -> Result<Config, String> {
        let mut toml = tempfile::NamedTempFile::new().unwrap();
        let mut line = vec!["mcp-observer", "run"];
        line.extend(flags);
        let path = toml.path().to_str().unwrap().to_owned();
        if let Some(text) = file {
            toml.write_all(text.as_bytes()).unwrap();
            line.extend(["--config", &path]);
        }
        let Command::Run(args) = Cli::try_parse_from(line).unwrap().command else {
            unreachable!()
        };
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        Config::for_run(&args, &environment).map_err(|error| format!("{error:#}").replace(&path, "FILE"))
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let config = run(&[], &[], None).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:9464");
        assert_eq!(config.max_series, 10_000);
        assert_eq!(config.limits.call_deadline, 300_000_000_000);
        assert_eq!(config.calls, None);
        assert_eq!(config.capture.scope, Scope::default());
    }

    #[test]
    fn a_flag_goes_over_the_environment_and_the_environment_over_the_file() {
        let file = "max-series = 300\nmax-streams = 300\nlisten = '127.0.0.1:3'\npid = [7, '8']\n";
        let environment = [
            ("MCP_OBSERVER_MAX_SERIES", "200"),
            ("MCP_OBSERVER_LISTEN", "127.0.0.1:2"),
        ];
        let config = run(&["--listen", "127.0.0.1:1"], &environment, Some(file)).unwrap();
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.max_series, 200);
        assert_eq!(config.limits.streams, 300);
        assert_eq!(config.capture.scope.pids, [7, 8]);
        let config = run(
            &["--pid", "1", "--pid", "2"],
            &[("MCP_OBSERVER_PID", "3,4")],
            Some(file),
        )
        .unwrap();
        assert_eq!(config.capture.scope.pids, [1, 2]);
        let config = run(&[], &[("MCP_OBSERVER_PID", "3, 4")], Some(file)).unwrap();
        assert_eq!(config.capture.scope.pids, [3, 4]);
    }

    #[test]
    fn an_error_names_the_key_and_what_is_allowed() {
        let error = |flags: &[&str], environment: &[(&str, &str)], file| run(flags, environment, file).unwrap_err();
        assert_eq!(
            error(&["--calls", "yaml"], &[], None),
            "--calls: \"yaml\" is not allowed; allowed: json, pretty, none"
        );
        assert_eq!(
            error(&[], &[("MCP_OBSERVER_BACKEND", "kprobe")], None),
            "MCP_OBSERVER_BACKEND: \"kprobe\" is not allowed; allowed: auto, function, syscall"
        );
        assert_eq!(
            error(&[], &[], Some("max-series = -1")),
            "FILE: max-series: \"-1\" is not allowed; allowed: a whole number from 100 to 10000000"
        );
        assert_eq!(
            error(&[], &[], Some("tls = true")),
            format!("FILE: tls: no such key; allowed: {}", KEYS.join(", "))
        );
        assert!(error(&[], &[("MCP_OBSERVER_LISTENN", "x")], None).starts_with("MCP_OBSERVER_LISTENN: no such option"));
        assert!(error(&["--pid", "0"], &[], None).starts_with("--pid: \"0\" is not allowed"));
        assert!(error(&["--listen", "localhost"], &[], None).starts_with("--listen: \"localhost\" is not allowed"));
        assert!(error(&["--capture-payloads", "all"], &[], None).contains("this version keeps no payloads"));
        assert!(error(&[], &[], Some("a = 1\nb = = 2")).starts_with("FILE: line 2: "));
        assert!(error(&["--config", "/nonexistent"], &[], None).contains("cannot read the configuration"));
    }

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_are_not_options() {
        let environment = [
            ("MCP_OBSERVER_PORT", "tcp://10.0.0.1:9464"),
            ("MCP_OBSERVER_SERVICE_HOST", "10.0.0.1"),
        ];
        assert!(run(&[], &environment, None).is_ok());
    }
}

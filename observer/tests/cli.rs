//! The command as a shell sees it: one line on standard error, exit codes, nothing on standard output but calls.

use std::net::TcpListener;
use std::process::{Command, Output};

fn observer(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-observer"));
    for name in std::env::vars_os().map(|(name, _)| name) {
        if name.to_string_lossy().starts_with("MCP_OBSERVER_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(environment.iter().copied());
    command.output().expect("the daemon was built with this test")
}

/// Checks the exit code and that standard error is one line that begins with `expected`.
fn refuses(output: &Output, code: i32, expected: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(output.stdout.is_empty());
}

#[test]
fn bad_options_are_named_and_end_with_2() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("options.toml");
    std::fs::write(&file, "calls = 'xml'\n").expect("a temporary file can be written");
    let file = file.to_str().expect("temporary paths are UTF-8");

    let from_flag = observer(
        &["run", "--calls", "yaml", "--config", file],
        &[("MCP_OBSERVER_CALLS", "csv")],
    );
    refuses(
        &from_flag,
        2,
        "mcp-observer: --calls: \"yaml\" is not allowed; allowed: json, pretty, none",
    );
    let from_environment = observer(&["run", "--config", file], &[("MCP_OBSERVER_CALLS", "csv")]);
    refuses(
        &from_environment,
        2,
        "mcp-observer: MCP_OBSERVER_CALLS: \"csv\" is not allowed; allowed: json",
    );
    let from_file = observer(&["run"], &[("MCP_OBSERVER_CONFIG", file)]);
    refuses(
        &from_file,
        2,
        &format!("mcp-observer: {file}: calls: \"xml\" is not allowed; allowed: json"),
    );
    refuses(
        &observer(&["run"], &[("MCP_OBSERVER_CALS", "json")]),
        2,
        "mcp-observer: MCP_OBSERVER_CALS: no such option",
    );
    assert_eq!(observer(&["run", "--no-such-flag"], &[]).status.code(), Some(2));
    assert_eq!(observer(&[], &[]).status.code(), Some(2));
}

#[test]
fn what_stops_the_daemon_from_observing_is_one_line_and_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("a listener has an address").to_string();
    let line = format!("mcp-observer: {address} is in use by another program; choose another with --listen");
    refuses(&observer(&["run", "--listen", &address], &[]), 1, &line);
    let unreadable = observer(&["run", "--config", "/nonexistent/options.toml"], &[]);
    refuses(
        &unreadable,
        1,
        "mcp-observer: cannot read the configuration /nonexistent/options.toml: ",
    );
    let calls_file = observer(&["run", "--calls-file", "/nonexistent/calls.jsonl"], &[]);
    refuses(
        &calls_file,
        1,
        "mcp-observer: cannot write calls to /nonexistent/calls.jsonl",
    );
    assert_eq!(
        observer(&["replay", "/nonexistent/recording"], &[]).status.code(),
        Some(1)
    );
}

#[test]
fn help_says_every_option_and_the_exit_codes() {
    let output = observer(&["run", "--help"], &[]);
    let help = String::from_utf8_lossy(&output.stdout);
    for option in [
        "--listen",
        "--calls",
        "--calls-file",
        "--backend",
        "--pid",
        "--cgroup",
        "--ring-bytes",
        "--max-streams",
        "--max-stream-bytes",
        "--max-held-bytes",
        "--max-series",
        "--call-deadline",
        "--capture-payloads",
        "--config",
        "Exit codes",
    ] {
        assert!(help.contains(option), "{option}");
    }
}

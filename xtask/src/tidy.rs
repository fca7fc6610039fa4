//! The rules of `ARCHITECTURE.md` that a compiler does not check: who may name whom, how a file begins, how long it is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use walkdir::WalkDir;

use crate::shell;

/// Longest file, in lines; tests at its foot are not counted.
const MAX_LINES: usize = 500;

/// Names that say nothing about what a file holds.
const EMPTY_NAMES: [&str; 5] = ["utils", "helpers", "common", "manager", "types"];

/// Folders whose Rust files are checked.
const CRATES: [&str; 5] = ["observer", "observer-common", "observer-ebpf", "tests", "xtask"];

/// What the files below one folder, or one file, must not name.
struct Layer {
    place: &'static str,
    never: &'static [&'static str],
    /// Exceptions from `never`: longer names that begin like a forbidden one.
    but: &'static [&'static str],
}

const LAYERS: [Layer; 6] = [
    Layer {
        place: "observer/src/protocol",
        never: &[
            "crate::capture",
            "crate::enrich",
            "crate::sink",
            "crate::daemon",
            "crate::cli",
            "crate::config",
            "aya",
            "tokio",
            "prometheus",
            "std::fs",
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::net::UdpSocket",
            "std::os::unix::net",
            "std::process",
            "std::thread",
            "Instant::now",
            "SystemTime::now",
        ],
        but: &[],
    },
    Layer {
        place: "observer/src/capture",
        never: &[
            "crate::protocol",
            "crate::enrich",
            "crate::sink",
            "crate::daemon",
            "crate::cli",
        ],
        but: &["crate::protocol::event"],
    },
    Layer {
        place: "observer/src/enrich",
        never: &["crate::capture", "crate::sink", "crate::daemon", "crate::cli"],
        but: &[],
    },
    Layer {
        place: "observer/src/sink",
        never: &["crate::capture", "crate::protocol", "crate::daemon", "crate::cli"],
        // What is observed, and the plain values it is made of.
        but: &[
            "crate::protocol::observation",
            "crate::protocol::event::DropReason",
            "crate::protocol::event::Pid",
            "crate::protocol::event::Timestamp",
        ],
    },
    Layer {
        place: "observer-common/src",
        never: &["std", "alloc", "tokio"],
        but: &[],
    },
    Layer {
        place: "observer-ebpf/src",
        never: &["std", "alloc", "aya", "observer"],
        but: &[],
    },
];

/// Checks the workspace and fails with one line per violation.
pub(crate) fn run() -> Result<()> {
    let found = check(shell::workspace())?;
    for violation in &found {
        eprintln!("{violation}");
    }
    if found.is_empty() {
        Ok(())
    } else {
        bail!("tidy: {} violations", found.len())
    }
}

/// Checks the workspace at `root` and returns its violations, each as `file:line: what`.
fn check(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for krate in CRATES.iter().filter(|krate| root.join(krate).is_dir()) {
        let made = |name: &str| name == "target" || name == "node_modules";
        let entries = WalkDir::new(root.join(krate)).sort_by_file_name().into_iter();
        for entry in entries.filter_entry(|entry| !made(&entry.file_name().to_string_lossy())) {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(entry.path())
                    .with_context(|| format!("could not read {}", entry.path().display()))?;
                let name = entry.path().strip_prefix(root)?.to_string_lossy().into_owned();
                found.extend(check_file(&name, &text));
            }
        }
    }
    Ok(found)
}

fn check_file(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push(format!("{name}:1: a file begins with `//!`"));
    }
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    let folder = Path::new(name)
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default()
        .to_string_lossy();
    if EMPTY_NAMES
        .iter()
        .any(|empty| stem == *empty || (stem == "mod" && folder == *empty))
    {
        found.push(format!("{name}:1: a file's name says what it holds"));
    }
    let (body, _tests) = split_tests(text);
    if body.len() > MAX_LINES {
        found.push(format!(
            "{name}:{}: {} lines, at most {MAX_LINES}",
            body.len(),
            body.len()
        ));
    }
    for layer in LAYERS.iter().filter(|layer| Path::new(name).starts_with(layer.place)) {
        found.extend(check_layer(layer, name, &body));
    }
    found
}

fn check_layer(layer: &Layer, name: &str, body: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (number, code) in paths(body) {
        for never in layer.never {
            let named = names(&code, never) && !layer.but.iter().any(|but| names(&code, but));
            if named {
                found.push(format!("{name}:{number}: {} must not name `{never}`", layer.place));
            }
        }
    }
    found
}

/// Splits off the tests at a file's foot.
fn split_tests(text: &str) -> (Vec<&str>, Vec<&str>) {
    let lines: Vec<_> = text.lines().collect();
    let is_module = |line: &str| line.starts_with("mod ") || line.starts_with("pub(super) mod ");
    let foot = lines
        .windows(2)
        .rposition(|pair| pair[0] == "#[cfg(test)]" && is_module(pair[1]));
    let (body, tests) = lines.split_at(foot.unwrap_or(lines.len()));
    (body.to_vec(), tests.to_vec())
}

/// Every path the code names, with its line's number; `use a::{b, c::{d}};` names `a::b` and `a::c::d`.
fn paths(body: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut group: Option<(usize, String)> = None;
    for (index, line) in body.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default().trim();
        let (number, statement) = match group.take() {
            Some((number, begun)) => (number, begun + code),
            None => (index + 1, code.to_owned()),
        };
        if let Some(tree) = use_tree(&statement) {
            match tree.strip_suffix(';') {
                Some(tree) => found.extend(expand("", tree).into_iter().map(|path| (number, path))),
                None => group = Some((number, statement)),
            }
        } else {
            found.extend(words(&statement).map(|word| (number, word.to_owned())));
        }
    }
    found
}

/// The tree of a `use` statement, whatever its visibility.
fn use_tree(statement: &str) -> Option<&str> {
    let rest = match statement.strip_prefix("pub") {
        Some(rest) => rest
            .trim_start()
            .strip_prefix('(')
            .map_or(rest, |rest| rest.split_once(')').map_or("", |x| x.1)),
        None => statement,
    };
    rest.trim_start().strip_prefix("use ").map(str::trim)
}

fn expand(prefix: &str, tree: &str) -> Vec<String> {
    let tree = tree.trim().trim_start_matches("::");
    let Some((head, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        return vec![format!("{prefix}{path}")];
    };
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let prefix = format!("{prefix}{}", head.trim());
    split_at_commas(group)
        .into_iter()
        .flat_map(|part| expand(&prefix, part))
        .collect()
}

/// Splits at the commas that stand outside of inner braces.
fn split_at_commas(group: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (index, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

/// Runs of letters that may be a path, such as `std::fs::read`.
fn words(code: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    code.split(move |c| !is_word(c))
        .map(|word| word.trim_matches(':'))
        .filter(|word| word.contains("::"))
}

/// Tells whether `path` is, or lies below, or (for `Type::function`) ends in what `name` names.
fn names(path: &str, name: &str) -> bool {
    let below = |path: &str| {
        path.strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let is_function = name.starts_with(char::is_uppercase);
    below(path) || (is_function && path.split_once(name).is_some_and(|(head, _)| head.ends_with("::")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(name: &str, code: &str) -> Vec<String> {
        check_file(name, &format!("//! Doc.\n{code}\n"))
    }

    #[track_caller]
    fn refused(name: &str, code: &str, what: &str) {
        let found = violations(name, code);
        assert!(
            found
                .iter()
                .any(|line| line.ends_with(&format!("must not name `{what}`"))),
            "{code}: {found:?}"
        );
    }

    #[track_caller]
    fn allowed(name: &str, code: &str) {
        assert_eq!(violations(name, code), Vec::<String>::new(), "{code}");
    }

    const PROTOCOL: &str = "observer/src/protocol/framing/line.rs";

    #[test]
    fn protocol_touches_no_world() {
        refused(PROTOCOL, "use crate::capture::attach;", "crate::capture");
        refused(PROTOCOL, "use crate::{enrich, protocol::event};", "crate::enrich");
        refused(
            PROTOCOL,
            "use crate::{\n    protocol::event,\n    sink::{self, json},\n};",
            "crate::sink",
        );
        refused(PROTOCOL, "pub(crate) use aya::Pod;", "aya");
        refused(PROTOCOL, "use std::{collections::HashMap, fs};", "std::fs");
        refused(PROTOCOL, "fn x() { std::thread::spawn(y); }", "std::thread");
        refused(PROTOCOL, "    let now = Instant::now();", "Instant::now");
        refused(
            PROTOCOL,
            "    let now = std::time::SystemTime::now();",
            "SystemTime::now",
        );
        refused(PROTOCOL, "use std::net::{IpAddr, TcpStream};", "std::net::TcpStream");
    }

    #[test]
    fn plain_values_and_comments_are_fine() {
        allowed(
            PROTOCOL,
            "use std::net::{IpAddr, SocketAddr};\nuse crate::protocol::event::Event;",
        );
        allowed(
            PROTOCOL,
            "// std::fs is named in a comment only\nuse std::collections::HashMap;",
        );
        allowed(PROTOCOL, "use tokio_free::x;\nuse crate::captured;");
        allowed(PROTOCOL, "fn x() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}");
    }

    #[test]
    fn capture_knows_events_and_nothing_else_of_protocol() {
        allowed(
            "observer/src/capture/decode.rs",
            "use crate::protocol::event::{Event, Payload};",
        );
        refused(
            "observer/src/capture/decode.rs",
            "use crate::protocol::Pipeline;",
            "crate::protocol",
        );
        refused(
            "observer/src/capture/decode.rs",
            "use crate::protocol::{event, jsonrpc};",
            "crate::protocol",
        );
    }

    #[test]
    fn sinks_know_observations_and_workloads() {
        allowed(
            "observer/src/sink/json.rs",
            "use crate::{enrich::Workload, protocol::observation::Outcome};",
        );
        refused(
            "observer/src/sink/json.rs",
            "use crate::protocol::matcher::X;",
            "crate::protocol",
        );
        refused("observer/src/enrich/mod.rs", "use crate::sink::X;", "crate::sink");
    }

    #[test]
    fn kernel_crates_have_no_std() {
        refused("observer-ebpf/src/main.rs", "use std::mem;", "std");
        refused("observer-common/src/record.rs", "use alloc::vec::Vec;", "alloc");
        allowed(
            "observer-ebpf/src/main.rs",
            "use aya_ebpf::maps::Array;\nuse observer_common::record::Record;",
        );
    }

    #[test]
    fn a_file_begins_with_its_purpose() {
        assert_eq!(
            check_file("xtask/src/x.rs", "use std::fs;\n"),
            ["xtask/src/x.rs:1: a file begins with `//!`"]
        );
    }

    #[test]
    fn a_file_has_a_bounded_length_without_its_tests() {
        let long = "fn x() {}\n".repeat(MAX_LINES);
        assert!(violations("xtask/src/x.rs", &long)[0].contains("at most 500"));
        for module in ["mod", "pub(super) mod"] {
            let tests = format!("fn x() {{}}\n#[cfg(test)]\n{module} tests {{\n{long}}}");
            allowed("xtask/src/x.rs", &tests);
        }
    }

    #[test]
    fn names_say_what_a_file_holds() {
        for name in [
            "observer/src/utils.rs",
            "observer/src/sink/helpers.rs",
            "observer/src/common/mod.rs",
        ] {
            assert!(violations(name, "")[0].contains("says what it holds"));
        }
        allowed("observer-common/src/lib.rs", "");
    }

    #[test]
    fn a_whole_workspace_is_walked() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("observer/src/protocol");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("mod.rs"), "//! Doc.\nuse std::fs;\n").unwrap();
        let found = check(root.path()).unwrap();
        assert_eq!(
            found,
            ["observer/src/protocol/mod.rs:2: observer/src/protocol must not name `std::fs`"]
        );
    }
}

//! `mcp-observer check`: what this node lets the observer see, for people and as JSON.

use std::fmt::Write as _;
use std::io::Write;

use serde::Serialize;

use crate::capture::{self, Backend, Survey, TlsState};

/// Prints the survey of this node; whether `run` would work.
///
/// # Errors
/// When standard output cannot be written.
pub fn check(json: bool) -> anyhow::Result<bool> {
    let survey = capture::survey();
    let text = if json { to_json(&survey) } else { to_text(&survey) };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(survey.backend.is_ok())
}

/// The name of a backend, as `--backend` takes it.
pub(super) const fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Function => "function",
        Backend::Syscall => "syscall",
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SurveyRow<'a> {
    works: bool,
    kernel: &'a str,
    btf: bool,
    backend: Option<&'static str>,
    reason: &'a str,
    missing_capabilities: &'a [&'static str],
    tls: TlsRow<'a>,
    blind_spots: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TlsRow<'a> {
    uretprobes: UretprobesRow<'a>,
    libraries: Vec<LibraryRow>,
    processes_left_out: usize,
}

#[derive(Serialize)]
struct UretprobesRow<'a> {
    safe: bool,
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct LibraryRow {
    library: &'static str,
    state: &'static str,
    processes: u64,
}

/// What `run` would come to with a library: here nothing is attached.
const fn way_in(state: TlsState) -> &'static str {
    match state {
        TlsState::Attached => "reachable",
        TlsState::Unsupported => "unsupported",
        TlsState::Failed => "failed",
    }
}

fn tls_row(survey: &Survey) -> TlsRow<'_> {
    let libraries = survey.tls.libraries.iter().map(|of| LibraryRow {
        library: of.library,
        state: way_in(of.state),
        processes: of.processes,
    });
    TlsRow {
        uretprobes: UretprobesRow {
            safe: survey.uretprobes.is_ok(),
            reason: survey.uretprobes.as_ref().err().map(String::as_str),
        },
        libraries: libraries.collect(),
        processes_left_out: survey.tls.left_out,
    }
}

fn to_json(survey: &Survey) -> String {
    let (backend, reason) = match &survey.backend {
        Ok((backend, reason)) => (Some(backend_name(*backend)), reason),
        Err(reason) => (None, reason),
    };
    let row = SurveyRow {
        works: survey.backend.is_ok(),
        kernel: &survey.kernel,
        btf: survey.btf,
        backend,
        reason,
        missing_capabilities: &survey.missing_capabilities,
        tls: tls_row(survey),
        blind_spots: &survey.blind_spots,
    };
    let mut text = serde_json::to_string(&row).expect("the row holds only text and lists");
    text.push('\n');
    text
}

fn to_text(survey: &Survey) -> String {
    let mut text = String::new();
    let mut line =
        |name: &str, value: &str| writeln!(text, "{name:<14}{value}").expect("writing to a String cannot fail");
    line("kernel", &survey.kernel);
    line(
        "BTF",
        if survey.btf {
            "yes"
        } else {
            "no: /sys/kernel/btf/vmlinux cannot be read"
        },
    );
    match &survey.backend {
        Ok((backend, reason)) => line("backend", &format!("{}: {reason}", backend_name(*backend))),
        Err(reason) => line("backend", &format!("none: {reason}")),
    }
    match survey.missing_capabilities.as_slice() {
        [] => line("capabilities", "all that are needed"),
        missing => line("capabilities", &format!("missing: {}", missing.join(", "))),
    }
    match &survey.uretprobes {
        Ok(()) => line("uretprobes", "safe: a confined process lives with one"),
        Err(reason) => line("uretprobes", &format!("none: {reason}")),
    }
    for (number, of) in tls_lines(survey).iter().enumerate() {
        line(if number == 0 { "TLS libraries" } else { "" }, of);
    }
    for (number, spot) in survey.blind_spots.iter().enumerate() {
        line(if number == 0 { "not seen" } else { "" }, spot);
    }
    line(
        "`run`",
        if survey.backend.is_ok() {
            "works here"
        } else {
            "does not work here"
        },
    );
    text
}

fn tls_lines(survey: &Survey) -> Vec<String> {
    let mut lines: Vec<_> = survey
        .tls
        .libraries
        .iter()
        .map(|of| {
            let processes = if of.processes == 1 { "process" } else { "processes" };
            format!("{}: {} {processes}, {}", of.library, of.processes, way_in(of.state))
        })
        .collect();
    if lines.is_empty() {
        lines.push("none in use".to_owned());
    }
    if survey.tls.left_out > 0 {
        lines.push(format!(
            "and {} processes that there was no time to look at",
            survey.tls.left_out
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{TlsCensus, TlsLibraryUse};

    fn survey(backend: Result<(Backend, String), String>) -> Survey {
        Survey {
            kernel: "6.12.0".into(),
            btf: true,
            backend,
            missing_capabilities: vec!["CAP_BPF"],
            uretprobes: Err("seccomp kills".into()),
            tls: TlsCensus {
                libraries: vec![
                    TlsLibraryUse {
                        library: "openssl",
                        state: TlsState::Failed,
                        processes: 12,
                    },
                    TlsLibraryUse {
                        library: "java",
                        state: TlsState::Unsupported,
                        processes: 1,
                    },
                ],
                left_out: 3,
            },
            blind_spots: vec!["ptys".into(), "vsock".into()],
        }
    }

    #[test]
    fn people_read_one_fact_a_line() {
        let text = to_text(&survey(Ok((Backend::Syscall, "no trampolines".into()))));
        let expected = "kernel        6.12.0\nBTF           yes\nbackend       syscall: no trampolines\n\
            capabilities  missing: CAP_BPF\nuretprobes    none: seccomp kills\n\
            TLS libraries openssl: 12 processes, failed\n              java: 1 process, unsupported\n\
            \x20             and 3 processes that there was no time to look at\nnot seen      ptys\n              vsock\n`run`         works here\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn programs_read_json() {
        let json: serde_json::Value = serde_json::from_str(&to_json(&survey(Err("no BTF".into())))).unwrap();
        assert_eq!(json["works"], false);
        assert_eq!(json["reason"], "no BTF");
        assert_eq!(json["backend"], serde_json::Value::Null);
        assert_eq!(json["blindSpots"][1], "vsock");
        assert_eq!(json["tls"]["uretprobes"]["safe"], false);
        assert_eq!(json["tls"]["uretprobes"]["reason"], "seccomp kills");
        let java = serde_json::json!({"library": "java", "state": "unsupported", "processes": 1});
        assert_eq!(json["tls"]["libraries"][1], java);
        assert_eq!(json["tls"]["processesLeftOut"], 3);
    }
}

//! Golden captures: records of real SDK programs, taken on a real kernel, through the pipeline; one readable line a call.
//!
//! No root, no kernel. A capture is a file that `mcp-observer record` wrote; `tests/captures/README.md` says what is in each.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use observer::capture::recording::{Entry, Reader};
use observer::protocol::event::{Event, Timestamp};
use observer::protocol::observation::{Call, Catalog, Observation, Output, Party, SessionChange, Side, Transport};
use observer::protocol::{Limits, Pipeline};

/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

#[test]
fn golden_captures() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for capture in captures() {
        let name = capture.file_stem().expect("it ends in .rec").to_string_lossy();
        let told = replay(&capture).text;
        settings.bind(|| insta::assert_snapshot!(name.as_ref(), told));
    }
}

/// The revisions of MCP, which are the rows of the table.
const REVISIONS: [&str; 5] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

/// The transports, which are its columns.
const TRANSPORTS: [Transport; 3] = [Transport::Stdio, Transport::HttpSse, Transport::StreamableHttp];

/// Calls of a capture that must be of the revision and on the transport that the table says.
const ENOUGH: usize = 8;

/// The table of the captures' document names a capture for each revision on each transport, and each is what it is said to be.
#[test]
fn every_revision_on_every_transport() {
    let document = std::fs::read_to_string(folder().join("README.md")).expect("the captures have a document");
    for revision in REVISIONS {
        let row = document
            .lines()
            .find_map(|line| line.strip_prefix(&format!("| {revision} |")))
            .unwrap_or_else(|| panic!("{revision} has no row"));
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').collect();
        assert_eq!(cells.len(), TRANSPORTS.len(), "{row}");
        for (cell, transport) in cells.iter().zip(TRANSPORTS) {
            covers(cell.trim().trim_matches('`'), revision, transport, false);
        }
    }
    // HTTP/2 in both eras.
    for (revision, peers) in [
        ("2025-11-25", "rmcp-3.11-to-py-2.3"),
        ("2026-07-28", "py-2.3-to-rmcp-3.11"),
    ] {
        let name = format!("{revision}-http2-{peers}");
        assert!(document.contains(&format!("`{name}`")), "{name} is not in the document");
        covers(&name, revision, Transport::StreamableHttp, true);
    }
}

fn covers(name: &str, revision: &str, transport: Transport, http2: bool) {
    let told = replay(&folder().join(format!("{name}.rec")));
    let fitting = told.spoken.iter().filter(|(of, on)| of == revision && *on == transport);
    let count = fitting.count();
    assert!(
        count >= ENOUGH,
        "{name}: {count} calls are of {revision} over {transport:?}: {:?}",
        told.spoken
    );
    assert_eq!(told.http2, http2, "{name}");
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures")
}

/// Every capture, in order of name.
fn captures() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the captures are part of the source")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rec"))
        .collect();
    found.sort();
    found
}

/// What the pipeline says of a capture.
fn replay(path: &Path) -> Told {
    let mut pipeline = Pipeline::new(Limits::default());
    let mut told = Told::default();
    let mut last = Timestamp(0);
    for entry in Reader::open(path).expect("a capture can be opened") {
        match entry.expect("a capture is whole") {
            Entry::Event(event) => {
                last = last.max(event.time());
                told.http2 |= matches!(&event, Event::Data(data) if data.bytes.starts_with(PREFACE));
                pipeline.handle_event(event);
            }
            Entry::Anchor(..) => {}
            Entry::Turn(now) => {
                last = last.max(now);
                pipeline.handle_timeout(now);
            }
        }
        told.take(&mut pipeline);
    }
    pipeline.handle_timeout(last.plus(2_000_000_000));
    told.take(&mut pipeline);
    pipeline.finish(last.plus(2_000_000_000));
    told.take(&mut pipeline);
    assert_eq!(told.begun, told.over, "every begin has its end: {}", path.display());
    assert_eq!(pipeline.census().pending, 0, "nothing is left: {}", path.display());
    told
}

/// What came out so far.
#[derive(Default)]
struct Told {
    text: String,
    begun: Vec<u64>,
    over: Vec<u64>,
    /// The revision and the transport of each call.
    spoken: Vec<(String, Transport)>,
    /// Whether a connection began HTTP/2.
    http2: bool,
}

impl Told {
    fn take(&mut self, pipeline: &mut Pipeline) {
        while let Some(output) = pipeline.poll_output() {
            match &output {
                Output::Observation(Observation::CallBegan(began)) => self.begun.push(began.number),
                Output::Observation(Observation::Call(call)) => {
                    self.over.push(call.number);
                    let revision = call.protocol_version.as_deref().unwrap_or("none").to_owned();
                    self.spoken.push((revision, call.parties.transport));
                }
                _ => {}
            }
            if let Some(line) = line(&output) {
                writeln!(self.text, "{line}").expect("a string takes everything");
            }
        }
        self.begun.sort_unstable();
        self.over.sort_unstable();
    }
}

fn line(output: &Output) -> Option<String> {
    Some(match output {
        Output::Verdict(key, verdict) => format!("  verdict {verdict:?} on {}", key.0 >> 32),
        Output::Lost { reason, bytes } => format!("  lost {} {bytes}", reason.label()),
        Output::Observation(observation) => match observation {
            Observation::CallBegan(_) => return None,
            Observation::Call(call) => call_line(call),
            Observation::LateResponse(_) => "late response".to_owned(),
            Observation::Notification { method, from, .. } => format!("  {} notifies {method}", side(*from)),
            Observation::ServerRequest { method, .. } => format!("  server asks {method}"),
            Observation::Malformed { from, reason, .. } => format!("malformed {} from {}", reason.name(), side(*from)),
            Observation::Server {
                parties,
                protocol_version,
            } => format!(
                "  server is {} and speaks {}",
                name(&parties.server),
                protocol_version.as_deref().unwrap_or("?")
            ),
            Observation::Subscription { change, .. } => format!("  subscription {change:+}"),
            Observation::Session { change, .. } => session_line(change),
            Observation::Task(task) => format!("  task of {} is {}", task.call, task.status.name()),
            Observation::Catalog(catalog) => catalog_line(catalog),
            Observation::PeerExit { pid, code, .. } => format!("  {} exits with {code}", pid.0),
            Observation::PeerReplaced { pid } => format!("  {} is another program now", pid.0),
        },
    })
}

fn session_line(change: &SessionChange) -> String {
    match change {
        SessionChange::Began => "  session begins".to_owned(),
        SessionChange::Ended { how, .. } => format!("  session is {}", how.name()),
    }
}

fn catalog_line(catalog: &Catalog) -> String {
    let mut line = format!(
        "  offers {} {}, {} B",
        catalog.items,
        catalog.kind.name(),
        catalog.bytes
    );
    if let Some(change) = &catalog.change {
        let counts = [&change.added, &change.removed, &change.altered].map(Vec::len);
        write!(line, ": {counts:?} added, removed, altered").expect("a string takes everything");
    }
    line
}

fn call_line(call: &Call) -> String {
    let timing = &call.timing;
    let parties = &call.parties;
    let mut line = format!("{} ", call.method);
    if let Some(target) = &call.target {
        let mark = if call.target_known { "" } else { "?" };
        write!(line, "{target}{mark} ").expect("a string takes everything");
    }
    let micros = |ns: Option<u64>| ns.map_or("?".to_owned(), |ns| (ns / 1000).to_string());
    write!(
        line,
        "id {} {} {} · {}→{} {} {} · {} µs client {} queue {} · {}+{} B",
        call.id,
        call.outcome.name(),
        call.status,
        pid(&parties.client),
        pid(&parties.server),
        parties.transport.name(),
        parties.vantage.name(),
        timing.duration / 1000,
        micros(timing.client_duration),
        micros(timing.queue),
        call.request_bytes,
        call.response_bytes,
    )
    .expect("a string takes everything");
    for (flag, word) in [(call.lossy, " lossy"), (call.truncated, " truncated")] {
        if flag {
            line.push_str(word);
        }
    }
    for field in &call.inferred {
        write!(line, " inferred:{field}").expect("a string takes everything");
    }
    line
}

fn pid(party: &Party) -> String {
    party.pid.map_or("?".to_owned(), |pid| pid.0.to_string())
}

fn name(party: &Party) -> String {
    party.implementation.as_ref().map_or("?".to_owned(), |implementation| {
        format!("{} {}", implementation.name, implementation.version)
    })
}

const fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

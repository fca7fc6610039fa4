//! A small stage: processes write and read streams, the pipeline watches, what it says becomes one readable line each.

use std::collections::HashMap;

use bytes::Bytes;

use crate::protocol::event::{
    Closed, Data, Direction, Event, Holder, Missing, Opened, Pid, Position, Process, ProcessChange, Source, StreamKey,
    Timestamp,
};
use crate::protocol::observation::{
    Call, Catalog, CatalogChange, CatalogItem, Observation, Output, Party, Pressure, SessionChange, Side, TaskEnd,
};
use crate::protocol::{Limits, Pipeline};

pub(super) const MICRO: u64 = 1_000;
pub(super) const MILLI: u64 = 1_000_000;

/// A stream of the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Line {
    /// One object.
    Pipe(u64),
    /// What the first end writes and the second reads.
    Socket(u64, u64),
}

pub(super) struct Scene {
    pub(super) pipeline: Pipeline,
    pub(super) now: u64,
    /// Which of its threads a process uses.
    pub(super) thread: u32,
    positions: HashMap<Line, u64>,
    outputs: Vec<Output>,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Self {
        Self {
            pipeline: Pipeline::new(limits),
            now: 1_000 * MILLI,
            thread: 0,
            positions: HashMap::new(),
            outputs: Vec::new(),
        }
    }

    pub(super) fn pipe(&mut self, key: u64) -> Line {
        self.open(key, None, Source::Pipe);
        Line::Pipe(key)
    }

    /// Both directions of a connection whose ends are both in sight.
    pub(super) fn socket(&mut self, a: u64, b: u64, source: Source) -> (Line, Line) {
        self.open(a, Some(b), source);
        self.open(b, Some(a), source);
        (Line::Socket(a, b), Line::Socket(b, a))
    }

    pub(super) fn open(&mut self, key: u64, peer: Option<u64>, source: Source) {
        let address = |key: u64| {
            let port = u16::try_from(key % 60_000).unwrap();
            (source == Source::Tcp).then(|| ([127, 0, 0, 1], port).into())
        };
        self.now += 10 * MICRO;
        self.pipeline.handle_event(Event::Opened(Opened {
            key: StreamKey(key),
            source,
            peer: peer.map(StreamKey),
            inode: key,
            local: address(key),
            remote: peer.and_then(address),
            netns: 0,
            pid: Pid(0),
            time: Timestamp(self.now),
        }));
    }

    pub(super) fn write(&mut self, pid: u32, line: Line, bytes: &[u8]) {
        self.write_span(pid, line, bytes, bytes.len(), Missing::Nothing);
    }

    pub(super) fn write_span(&mut self, pid: u32, line: Line, bytes: &[u8], span: usize, missing: Missing) {
        let key = match line {
            Line::Pipe(key) | Line::Socket(key, _) => key,
        };
        self.data(pid, line, key, Direction::Sent, bytes, span, missing);
    }

    /// The other end reads the `span` bytes written last.
    pub(super) fn read(&mut self, pid: u32, line: Line, span: usize) {
        let key = match line {
            Line::Pipe(key) | Line::Socket(_, key) => key,
        };
        self.data(pid, line, key, Direction::Received, b"", span, Missing::AtOtherEnd);
    }

    /// A call that moved bytes, whatever it says of them.
    #[expect(clippy::too_many_arguments, reason = "one record has that many sides")]
    pub(super) fn data(
        &mut self,
        pid: u32,
        line: Line,
        key: u64,
        direction: Direction,
        bytes: &[u8],
        span: usize,
        missing: Missing,
    ) {
        let at = self.positions.entry(line).or_default();
        let span = span as u64;
        let position = if direction == Direction::Sent {
            *at += span;
            *at - span
        } else {
            *at - span
        };
        self.now += 100 * MICRO;
        self.pipeline.handle_event(Event::Data(Data {
            key: StreamKey(key),
            direction,
            position: Position::Total(position),
            span: u32::try_from(span).unwrap(),
            bytes: Bytes::copy_from_slice(bytes),
            missing,
            pid: Pid(pid),
            tid: pid + self.thread,
            entered: Some(Timestamp(self.now - 20 * MICRO)),
            returned: Timestamp(self.now),
        }));
    }

    /// Bytes go by that nobody tells of.
    pub(super) fn skip(&mut self, line: Line, span: usize) {
        *self.positions.entry(line).or_default() += span as u64;
    }

    /// One process says it, the other hears it 100 µs later.
    pub(super) fn say(&mut self, from: u32, line: Line, to: u32, text: &str) {
        self.write(from, line, text.as_bytes());
        self.read(to, line, text.len());
    }

    /// A read by the only end in sight, so that it carries the bytes.
    pub(super) fn now_data(scene: &Self, pid: u32, line: Line, text: &str) -> Event {
        let key = match line {
            Line::Pipe(key) | Line::Socket(_, key) => key,
        };
        Event::Data(Data {
            key: StreamKey(key),
            direction: Direction::Received,
            position: Position::Total(0),
            span: u32::try_from(text.len()).unwrap(),
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            missing: Missing::Nothing,
            pid: Pid(pid),
            tid: pid,
            entered: None,
            returned: Timestamp(scene.now),
        })
    }

    pub(super) fn exit(&mut self, pid: u32) {
        self.now += 10 * MICRO;
        self.pipeline.handle_event(Event::Process(Process {
            pid: Pid(pid),
            change: ProcessChange::Exit { code: 9 },
            comm: String::new(),
            time: Timestamp(self.now),
        }));
    }

    pub(super) fn close(&mut self, pid: u32, key: u64) {
        self.now += 10 * MICRO;
        self.pipeline.handle_event(Event::Closed(Closed {
            key: StreamKey(key),
            direction: Direction::Sent,
            readers_left: false,
            writers_left: false,
            pid: Pid(pid),
            time: Timestamp(self.now),
        }));
    }

    pub(super) fn hold(&mut self, pid: u32, ends: &[(u64, Direction)]) {
        self.pipeline.handle_event(Event::Holder(Holder {
            pid: Pid(pid),
            ends: ends
                .iter()
                .map(|(key, direction)| (StreamKey(*key), *direction))
                .collect(),
            time: Timestamp(self.now),
        }));
    }

    pub(super) fn wait(&mut self, nanoseconds: u64) {
        self.now += nanoseconds;
        self.pipeline.handle_timeout(Timestamp(self.now));
        self.outputs.extend(std::iter::from_fn(|| self.pipeline.poll_output()));
        self.audit();
    }

    /// given == used + lost + held, for every flow.
    pub(super) fn audit(&self) {
        for (_, link) in self.pipeline.streams.iter() {
            for flow in link.flows() {
                assert!(flow.is_balanced(), "{flow:?}");
            }
        }
    }

    pub(super) fn outputs(&mut self) -> Vec<Output> {
        self.outputs.extend(std::iter::from_fn(|| self.pipeline.poll_output()));
        std::mem::take(&mut self.outputs)
    }

    /// What came out so far, a line each, without verdicts and beginnings of calls; every beginning must have its end.
    pub(super) fn told(&mut self) -> String {
        self.wait(2_000 * MILLI);
        lines(&self.outputs())
    }

    pub(super) fn calls(&mut self) -> Vec<Call> {
        self.wait(2_000 * MILLI);
        let call = |output| match output {
            Output::Observation(Observation::Call(call)) => Some(*call),
            _ => None,
        };
        self.outputs().into_iter().filter_map(call).collect()
    }
}

/// A stdio session on two pipes between client 10 and server 20: what they say is a line each.
pub(super) struct Stdio {
    pub(super) scene: Scene,
    up: Line,
    down: Line,
}

impl Stdio {
    pub(super) fn new() -> Self {
        let mut scene = Scene::new();
        let (up, down) = (scene.pipe(1), scene.pipe(2));
        Self { scene, up, down }
    }

    /// One whose handshake was seen.
    pub(super) fn greeted(version: &str) -> Self {
        let mut talk = Self::new();
        talk.client(&format!(
            r#""id":"hello","method":"initialize","params":{{"protocolVersion":"{version}"}}"#
        ));
        talk.server(&format!(r#""id":"hello","result":{{"protocolVersion":"{version}"}}"#));
        talk.told();
        talk
    }

    /// The client says a message, given without braces and version.
    pub(super) fn client(&mut self, members: &str) -> &mut Self {
        self.scene
            .say(10, self.up, 20, &format!("{{\"jsonrpc\":\"2.0\",{members}}}\n"));
        self
    }

    pub(super) fn server(&mut self, members: &str) -> &mut Self {
        self.scene
            .say(20, self.down, 10, &format!("{{\"jsonrpc\":\"2.0\",{members}}}\n"));
        self
    }

    /// A call of a tool.
    pub(super) fn call(&mut self, id: u32, tool: &str, more: &str) -> &mut Self {
        self.client(&format!(
            r#""id":{id},"method":"tools/call","params":{{"name":"{tool}"{more}}}"#
        ))
    }

    /// Bytes from the server that are no message.
    pub(super) fn server_says(&mut self, bytes: &[u8]) -> &mut Self {
        self.scene.write(20, self.down, bytes);
        self.scene.read(10, self.down, bytes.len());
        self
    }

    /// Bytes from the server that nobody told of.
    pub(super) fn hole(&mut self) -> &mut Self {
        self.scene.skip(self.down, 100);
        self
    }

    pub(super) fn told(&mut self) -> String {
        self.scene.told()
    }

    pub(super) fn told_after(&mut self, nanoseconds: u64) -> Vec<Output> {
        self.scene.wait(nanoseconds);
        self.scene.outputs()
    }
}

pub(super) fn lines(outputs: &[Output]) -> String {
    let lines: Vec<String> = outputs.iter().filter_map(line).collect();
    lines.join("\n")
}

pub(super) fn line(output: &Output) -> Option<String> {
    let side = |side: Side| if side == Side::Client { "client" } else { "server" };
    Some(match output {
        Output::Verdict(..) => return None,
        Output::Lost { reason, bytes } => format!("lost {} {bytes}", reason.label()),
        Output::Observation(observation) => match observation {
            Observation::CallBegan(_) => return None,
            Observation::Call(call) => call_line(call),
            Observation::LateResponse(_) => "late response".to_owned(),
            Observation::Notification { method, from, .. } => format!("notification {method} from {}", side(*from)),
            Observation::ServerRequest { method, .. } => format!("server request {method}"),
            Observation::Malformed { from, reason, .. } => format!("malformed {} from {}", reason.name(), side(*from)),
            Observation::Server {
                parties,
                protocol_version,
            } => {
                format!(
                    "server {} {}",
                    name(&parties.server),
                    protocol_version.as_deref().unwrap_or("-")
                )
            }
            Observation::Subscription { change, .. } => format!("subscription {change}"),
            Observation::Session { change, .. } => session_line(change),
            Observation::Task(task) => task_line(task),
            Observation::Catalog(catalog) => catalog_line(catalog),
            Observation::PeerExit { pid, code, .. } => format!("exit {} {code}", pid.0),
            Observation::PeerReplaced { pid } => format!("replaced {}", pid.0),
        },
    })
}

fn name(party: &Party) -> &str {
    party
        .implementation
        .as_ref()
        .map_or("-", |implementation| &implementation.name)
}

fn session_line(change: &SessionChange) -> String {
    match change {
        SessionChange::Began => "session began".to_owned(),
        SessionChange::Ended { how, duration } => {
            let milliseconds = duration.map_or("?".to_owned(), |duration| (duration / MILLI).to_string());
            format!("session {} after {milliseconds} ms", how.name())
        }
    }
}

fn task_line(task: &TaskEnd) -> String {
    let target = task.target.as_deref().unwrap_or("-");
    let milliseconds = task.duration / MILLI;
    format!(
        "task {} {target} {} after {milliseconds} ms",
        task.method,
        task.status.name()
    )
}

fn catalog_line(catalog: &Catalog) -> String {
    let names = |items: &[CatalogItem]| {
        items
            .iter()
            .map(|item| item.name.as_str())
            .collect::<Vec<_>>()
            .join(",")
    };
    let change = catalog.change.as_ref().map_or(String::new(), |change| {
        let CatalogChange {
            added,
            removed,
            altered,
        } = change;
        format!(" +{} -{} ~{}", names(added), names(removed), names(altered))
    });
    format!("catalog {} {}{change}", catalog.kind.name(), catalog.items)
}

fn call_line(call: &Call) -> String {
    let pid = |party: &Party| party.pid.map_or("?".to_owned(), |pid| pid.0.to_string());
    let mut line = format!(
        "call {}{} id={} {} {} {}→{} {} {}",
        call.method,
        call.target
            .as_ref()
            .map_or(String::new(), |target| format!(" {target}")),
        call.id,
        call.outcome.name(),
        call.status,
        pid(&call.parties.client),
        pid(&call.parties.server),
        call.parties.transport.name(),
        call.parties.vantage.name(),
    );
    for (flag, word) in [(call.lossy, " lossy"), (call.truncated, " truncated")] {
        if flag {
            line.push_str(word);
        }
    }
    if call.round > 1 {
        line.push_str(&format!(" round:{}", call.round));
    }
    if call.attempt > 1 {
        line.push_str(&format!(" attempt:{}", call.attempt));
    }
    if let Some(kind) = call.wants {
        line.push_str(&format!(" wants:{}", kind.name()));
    }
    match call.pressure {
        Some(Pressure::RateLimited(signal, origin)) => {
            line.push_str(&format!(" limited:{}:{}", signal.name(), origin.name()));
        }
        Some(Pressure::Shed(signal)) => line.push_str(&format!(" shed:{}", signal.name())),
        None => {}
    }
    for field in &call.inferred {
        line.push_str(&format!(" inferred:{field}"));
    }
    line
}

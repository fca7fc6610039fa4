//! What MCP is on the wire, row by row: every row of the tables of the specification's revisions, and of what the outside
//! relies on, is a case here in its own words.
//!
//! A case is a script, a line a turn: `>` the client says, `<` the server says; a message may leave out its braces and its
//! `jsonrpc`. `_ 50` is a wait of 50 ms, `x` and `X` are the client and the server closing, `k` and `K` their being killed.

mod contract;
mod evidence;
mod meaning;
mod revisions;

use super::scene::{Line, MILLI, Scene};
use crate::protocol::event::Source;

/// The row in its words, what came of its script, what must come of it: lines joined by `; `.
type Case = (&'static str, String, &'static str);

fn check(cases: &[Case]) {
    let mut wrong = String::new();
    for (words, told, expected) in cases.iter().filter(|(_, told, expected)| told != expected) {
        wrong += &format!("\n{words}\n     is: {told}\n must be: {expected}\n");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The turns of a script: what it begins with, and its rest.
fn turns(script: &str) -> impl Iterator<Item = (char, &str)> {
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| (line.chars().next().expect("it is not empty"), line[1..].trim()))
}

/// A message whose braces and version may be left out; `ÿ` stands for a byte that no UTF-8 has.
fn message(text: &str) -> Vec<u8> {
    let whole = if text.starts_with('"') {
        format!("{{\"jsonrpc\":\"2.0\",{text}}}")
    } else {
        text.to_owned()
    };
    let mut bytes = Vec::new();
    for (index, part) in whole.split('ÿ').enumerate() {
        bytes.extend((index > 0).then_some(0xff));
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// What comes of a script on a stream of lines.
fn lines(source: Source, script: &str) -> String {
    told(&mut play_lines(source, script))
}

fn play_lines(source: Source, script: &str) -> Scene {
    let mut scene = Scene::new();
    let (up, down) = match source {
        Source::Pipe => (scene.pipe(1), scene.pipe(2)),
        source => scene.socket(1, 2, source),
    };
    for (turn, text) in turns(script) {
        let said = [message(text), b"\n".to_vec()].concat();
        match turn {
            '>' => say(&mut scene, 10, up, 20, &said),
            '<' => say(&mut scene, 20, down, 10, &said),
            other => happen(&mut scene, other, text),
        }
    }
    scene
}

fn stdio(script: &str) -> String {
    lines(Source::Pipe, script)
}

/// What comes of a script of HTTP, whose messages are `POST /mcp [Field: a; Field: b] content` and `200 [] content`.
///
/// A digit after the sign of a turn is the connection. The content of a stream of events begins with `~`, and goes on with
/// turns of that sign; `.` ends it.
fn web(script: &str) -> String {
    told(&mut play_web(script))
}

fn play_web(script: &str) -> Scene {
    let mut scene = Scene::new();
    let connections: Vec<(Line, Line)> = (0..4)
        .map(|index| scene.socket(2 * index + 1, 2 * index + 2, Source::Tcp))
        .collect();
    for (turn, text) in turns(script) {
        let digit = text.chars().next().and_then(|first| first.to_digit(10));
        let numbered = digit.filter(|_| text[1..].starts_with(' ') && turn != '_');
        let (up, down) = connections[numbered.unwrap_or(1) as usize - 1];
        let text = if numbered.is_some() { text[1..].trim() } else { text };
        match turn {
            '>' => say(&mut scene, 10, up, 20, &http(text, "", " HTTP/1.1")),
            '<' => say(&mut scene, 20, down, 10, &http(text, "HTTP/1.1 ", " X")),
            '~' => say(&mut scene, 20, down, 10, &chunk(text)),
            '.' => say(&mut scene, 20, down, 10, b"0\r\n\r\n"),
            other => happen(&mut scene, other, text),
        }
    }
    scene
}

fn http(text: &str, before: &str, after: &str) -> Vec<u8> {
    let (start, rest) = text.split_once('[').expect("fields are in brackets");
    let (fields, content) = rest.split_once(']').expect("fields are in brackets");
    let mut head = format!("{before}{}{after}\r\n", start.trim());
    for field in fields.split("; ").filter(|field| !field.is_empty()) {
        head += &format!("{field}\r\n");
    }
    if let Some(events) = content.trim().strip_prefix('~') {
        head += "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        return [head.as_bytes(), &chunk(events)].concat();
    }
    let content = message(content.trim());
    if !head.contains("Content-Type") && !content.is_empty() {
        head += "Content-Type: application/json\r\n";
    }
    if !head.contains("Content-Length") {
        head += &format!("Content-Length: {}\r\n", content.len());
    }
    [head.as_bytes(), b"\r\n", &content].concat()
}

/// `\n` and `\r` stand for the ends of lines; an event needs an empty one.
fn chunk(text: &str) -> Vec<u8> {
    let text = text.trim().replace("\\n", "\n").replace("\\r", "\r");
    if text.is_empty() {
        return Vec::new();
    }
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

fn say(scene: &mut Scene, from: u32, line: Line, to: u32, bytes: &[u8]) {
    scene.write(from, line, bytes);
    scene.read(to, line, bytes.len());
}

fn happen(scene: &mut Scene, turn: char, text: &str) {
    match turn {
        '_' => scene.wait(text.parse::<u64>().expect("milliseconds") * MILLI),
        'x' => scene.close(10, 1),
        'X' => scene.close(20, 2),
        'k' => scene.exit(10),
        'K' => scene.exit(20),
        other => panic!("no such turn: {other}"),
    }
}

/// The lines without what is the same in all.
fn told(scene: &mut Scene) -> String {
    let told = scene.told().replace(" 10→20", "");
    let short = |line: &str| {
        line.replace("stdio server", "stdio")
            .replace(" streamable_http server", "")
            .replace("http_sse server", "http_sse")
    };
    told.lines().map(short).collect::<Vec<_>>().join("; ")
}

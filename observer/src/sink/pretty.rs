//! Calls as lines for people.
//!
//! ```text
//! 13:20:38.123  ✗ weather                  get_forecast              812.4 ms  tool_error      agent → python3  310 B → 2.2 kB
//! ```

use std::fmt::Write;

use super::clock::Anchor;
use crate::enrich::{Finding, Report};
use crate::protocol::observation::{Call, Observation};

/// Makes the lines.
#[derive(Clone, Copy, Debug)]
pub struct PrettyLines {
    colour: Colour,
}

/// Whether lines carry terminal colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// On a terminal, where `NO_COLOR` is not set.
    Ansi,
    /// Anywhere else.
    Plain,
}

/// How a call's outcome looks.
enum Mood {
    Good,
    Odd,
    Bad,
}

impl PrettyLines {
    /// Lines with or without colours.
    #[must_use]
    pub const fn new(colour: Colour) -> Self {
        Self { colour }
    }

    /// Appends the line of a finding to `lines`, if it is a call. Returns the number of lines appended: 0 or 1.
    pub fn append(self, finding: &Finding, anchor: &Anchor, lines: &mut Vec<u8>) -> u64 {
        let Finding::Report(report) = finding else { return 0 };
        let Observation::Call(call) = &report.observation else {
            return 0;
        };
        lines.extend_from_slice(self.line(report, call, anchor).as_bytes());
        1
    }

    fn line(self, report: &Report, call: &Call, anchor: &Anchor) -> String {
        let time = anchor.rfc3339(call.timing.began);
        let clock = time.get(11..23).unwrap_or_default();
        let mood = mood(call);
        let (mark, code) = match mood {
            Mood::Good => ("✓", "32"),
            Mood::Odd => ("•", "33"),
            Mood::Bad => ("✗", "31"),
        };
        let mut line = String::with_capacity(160);
        let outcome = match (&mood, call.rpc_code) {
            (Mood::Good, _) | (_, None) => call.outcome.name().to_owned(),
            (_, Some(code)) => format!("{} {code}", call.outcome.name()),
        };
        let operation = match &call.target {
            Some(target) => readable(target),
            None => readable(&call.method),
        };
        let written = writeln!(
            line,
            "{}  {} {} {} {:>10}  {} {} → {}  {} → {}{}",
            self.paint(clock, "2"),
            self.paint(mark, code),
            pad(&readable(&report.capability.name), 24),
            pad(&operation, 28),
            duration(call.timing.duration),
            self.paint(&pad(&outcome, 16), code),
            readable(&report.client.name),
            readable(&report.server.name),
            bytes(call.request_bytes),
            bytes(call.response_bytes),
            if call.lossy { "  (lossy)" } else { "" },
        );
        written.expect("writing to a String cannot fail");
        line
    }

    fn paint(self, text: &str, code: &str) -> String {
        match self.colour {
            Colour::Ansi => format!("\x1b[{code}m{text}\x1b[0m"),
            Colour::Plain => text.to_owned(),
        }
    }
}

fn mood(call: &Call) -> Mood {
    match call.status {
        ..400 => Mood::Good,
        400..500 => Mood::Odd,
        _ => Mood::Bad,
    }
}

/// Names come from strangers: nothing of them may move the cursor or turn the line around.
fn readable(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars().take(64) {
        if hidden(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

fn duration(nanoseconds: u64) -> String {
    let milliseconds = nanoseconds as f64 / 1e6;
    match nanoseconds {
        ..10_000_000 => format!("{milliseconds:.2} ms"),
        10_000_000..10_000_000_000 => format!("{milliseconds:.1} ms"),
        _ => format!("{:.1} s", milliseconds / 1e3),
    }
}

fn bytes(count: u64) -> String {
    match count {
        ..1000 => format!("{count} B"),
        1000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::event::Timestamp;
    use crate::protocol::observation::Outcome;
    use crate::sink::samples;
    use std::time::UNIX_EPOCH;

    fn line(colour: Colour, change: impl FnOnce(&mut Call)) -> String {
        let finding = samples::call(change);
        let mut lines = Vec::new();
        PrettyLines::new(colour).append(&finding, &Anchor::new(Timestamp(0), UNIX_EPOCH), &mut lines);
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn a_line_reads_from_left_to_right() {
        assert_eq!(
            line(Colour::Plain, |_| ()),
            "00:00:01.000  ✓ weather                  get_forecast                    12.5 ms  ok               agent → weather-mcp  310 B → 2.2 kB\n"
        );
        assert!(line(Colour::Ansi, |call| call.status = 500).contains("\x1b[31m✗\x1b[0m"));
        let error =
            |call: &mut Call| (call.outcome, call.status, call.rpc_code) = (Outcome::RpcError, 404, Some(-32601));
        assert!(
            line(Colour::Plain, error).contains("• weather") && line(Colour::Plain, error).contains("rpc_error -32601")
        );
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        let line = line(Colour::Plain, |call| {
            call.target = Some("a\x1b[2Jb\r\nc\u{202e}".into());
        });
        assert!(line.contains("a\\u{1b}[2Jb\\u{d}\\u{a}c\\u{202e}"));
    }
}

//! The observer's lines, schema `mcp-call/1`: the part of them that the tests hold against the truth.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

const SCHEMA: &str = include_str!("../../deploy/mcp-call-1.schema.json");

/// One finished call as the observer reports it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) operation: String,
    pub(crate) duration_ms: Option<f64>,
    pub(crate) timestamp: String,
    pub(crate) seq: u64,
    pub(crate) outcome: String,
    pub(crate) mcp: Mcp,
    pub(crate) rpc_status_code: Option<i64>,
    pub(crate) http_status_code: Option<u16>,
    pub(crate) caller: Process,
    pub(crate) server: Process,
    pub(crate) timing: Timing,
    pub(crate) bytes: Bytes,
    pub(crate) flags: Flags,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Flags {
    /// Bytes around the call are lost, so that its times may be those of a neighbour.
    pub(crate) lossy: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mcp {
    pub(crate) method: String,
    pub(crate) request_id: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Timing {
    pub(crate) vantage: String,
    pub(crate) client_ms: Option<f64>,
    /// From the request's writing to its reading: known where both were seen.
    pub(crate) queue_ms: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Bytes {
    pub(crate) request: Option<u64>,
    pub(crate) response: Option<u64>,
}

impl Record {
    /// When the call began, in nanoseconds of the wall clock.
    pub(crate) fn begin_wall_ns(&self) -> Result<u64> {
        wall_ns(&self.timestamp).with_context(|| format!("timestamp {:?}", self.timestamp))
    }

    /// Bytes of both directions.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.bytes.request.unwrap_or(0) + self.bytes.response.unwrap_or(0)
    }
}

/// Reads the calls of a file; records of other schemas are left out, a line that is cut short is not read yet.
pub(crate) fn read(path: &Path) -> Result<Vec<Record>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    parse(whole)
}

/// Reads the calls of some lines.
pub(crate) fn parse(text: &str) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        if value["schema"] == "mcp-call/1" {
            records.push(serde_json::from_value(value).with_context(|| format!("not as the contract says: {line}"))?);
        }
    }
    Ok(records)
}

/// Says which line is not as the shipped schema of its name has it.
pub(crate) fn misfit(text: &str) -> Option<String> {
    static CALL: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
        let schema: Value = serde_json::from_str(SCHEMA).expect("the shipped schema is JSON");
        jsonschema::validator_for(&schema).expect("the shipped schema is one")
    });
    text.lines().find_map(|line| {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            return Some(format!("not JSON: {line}"));
        };
        let wrong = CALL
            .iter_errors(&value)
            .next()
            .filter(|_| value["schema"] == "mcp-call/1")?;
        Some(format!("{wrong} at {}: {line}", wrong.instance_path()))
    })
}

/// Says where the numbering of a file's records, of whatever schema, has a hole.
pub(crate) fn hole(text: &str) -> Option<String> {
    let seq = |line: &str| serde_json::from_str::<Value>(line).ok()?["seq"].as_u64();
    let mut numbers: Vec<u64> = text.lines().filter_map(seq).collect();
    numbers.sort_unstable();
    let pair = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1)?;
    Some(format!("record numbers jump from {} to {}", pair[0], pair[1]))
}

/// Reads `2026-11-22T13:20:38.123456Z`.
fn wall_ns(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let fraction = text.get(19..)?.strip_suffix('Z')?.strip_prefix('.').unwrap_or("0");
    let nanos = format!("{fraction:0<9}").get(..9)?.parse::<u64>().ok()?;
    // Days from the civil date, with the year beginning in March so that the leap day comes last.
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let since_epoch = days.checked_sub(719_468)?;
    Some((((since_epoch * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000 + nanos)
}

#[cfg(test)]
mod tests {
    use super::{hole, misfit, wall_ns};

    #[test]
    fn holes() {
        assert_eq!(hole("{\"seq\":4}\n{\"seq\":6}\n{\"seq\":5}\n"), None);
        assert_eq!(
            hole("{\"seq\":4}\n{\"seq\":6}\n").as_deref(),
            Some("record numbers jump from 4 to 6")
        );
    }

    #[test]
    fn misfits() {
        assert_eq!(misfit("{\"schema\":\"mcp-catalog/1\"}\n"), None);
        assert!(misfit("{\"schema\":\"mcp-call/1\"}\n").is_some_and(|line| line.contains("required")));
        assert!(misfit("{\"schema\":\n").is_some());
    }

    #[test]
    fn timestamps() {
        assert_eq!(wall_ns("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(wall_ns("2026-11-22T13:20:38.123456Z"), Some(1_795_353_638_123_456_000));
        assert_eq!(wall_ns("2024-02-29T23:59:59.5Z"), Some(1_709_251_199_500_000_000));
        assert_eq!(wall_ns("yesterday"), None);
    }
}

//! Bad input: no call invented, the daemon alive and no larger, the stream going on where it can.

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::{Account, Stage, Test};
use crate::clock::wait_until;
use crate::compare::Rules;
use crate::noise::Kind;

/// How much larger the daemon may be afterwards: its bounds, and what an allocator keeps.
const GROWTH: u64 = 96 << 20;

/// Bytes of binary noise that must be muted: a megabyte each way, counted at both ends of each, less the 64 KiB that a verdict
/// may take, the two pieces of 16 KiB that pass while it is on its way, and the heads of calls on what may carry TLS.
const MUTED: f64 = (4 * ((1 << 20) - (160 << 10))) as f64;

macro_rules! tests {
    ($( $name:literal: $kind:ident, )+) => {
        pub(super) const TESTS: &[Test] = &[$( (concat!("bad input::", $name), |stage| noise(stage, Kind::$kind)), )+];
    };
}

tests! {
    "binary on pipes": Binary,
    "TLS on TCP": Tls,
    "noise and MCP by turns in one thread": BinaryThenMcp,
    "a language server": Lsp,
    "the agent client protocol": Acp,
    "Ethereum on pipes": EthereumPipe,
    "Ethereum over HTTP": EthereumHttp,
    "agent to agent over HTTP": A2a,
    "HTTP that is not MCP": Rest,
    "200 REST requests then MCP on the same connection": RestThenMcp,
    "half a message and silence": HalfMessage,
    "a line of 100 MB": LongLine,
    "odd ids": Ids,
    "empty objects": EmptyObject,
    "invalid UTF-8": InvalidUtf8,
    "ten thousand levels of nesting": Nesting,
    "1 MB of header fields": BigHead,
    "a chunk of 2^63": ChunkSize,
    "a chunk of 2^63 in an answer": AnswerChunkSize,
    "an answer shorter than announced": AnswerTooShort,
}

fn noise(stage: &Stage, kind: Kind) -> Result<()> {
    // The ring holds a whole line, so that nothing depends on when the observer gets its turn.
    let ring = ["--ring-bytes", "134217728"];
    let observer = stage.observe(if kind == Kind::LongLine { &ring } else { &[] })?;
    let before = observer.resident()?;
    let truth = stage.lab.file("truth.jsonl");
    let word = kind
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default();
    let mut program = stage.tiny(&["noise", "--truth", &truth.to_string_lossy(), &word])?;
    program.finish(stage.lab.limit(60))?;
    let (status, _) = observer.get("/health")?;
    ensure!(status == 200, "/health answers {status}");
    let after = observer.resident()?;
    ensure!(
        after < before + GROWTH,
        "it grew from {} to {} MiB",
        before >> 20,
        after >> 20
    );
    if matches!(kind, Kind::Binary | Kind::Tls) {
        let mut muted = 0.0;
        let enough = || {
            muted = observer.metric("mcp_observer_muted_bytes_total", "").ok()?;
            (muted >= MUTED).then_some(())
        };
        let done = wait_until(stage.lab.limit(3), enough);
        ensure!(done.is_some(), "{muted} bytes were muted and not {MUTED}");
    }
    stage.settle(
        observer,
        &[Account {
            truth,
            rules: Rules {
                // The answers that never become whole.
                unanswered_as: &["malformed", "server_gone"],
                ..Rules::default()
            },
        }],
    )
}

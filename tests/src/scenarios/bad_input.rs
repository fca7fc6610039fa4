//! Bad input: no call invented, the daemon alive and no larger, the stream going on where it can.

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::{Account, Stage, Test};
use crate::compare::Rules;
use crate::noise::Kind;

/// How much larger the daemon may be afterwards: its bounds, and what an allocator keeps.
const GROWTH: u64 = 96 << 20;

macro_rules! tests {
    ($( $name:literal: $kind:ident, )+) => {
        pub(super) const TESTS: &[Test] = &[$( (concat!("bad input::", $name), |stage| noise(stage, Kind::$kind)), )+];
    };
}

tests! {
    "binary on pipes": Binary,
    "TLS on TCP": Tls,
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
    let observer = stage.observe(&[])?;
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
        let muted = observer.metric("mcp_observer_muted_bytes_total", "")?;
        // Two megabytes passed; the verdict is due within 64 KiB a direction, and takes one turn of the loop to reach the kernel.
        ensure!(muted > f64::from(1 << 20), "only {muted} bytes were muted");
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

//! Messages handed to the kernel in many pieces of memory: as many as the probes follow, and more.

use anyhow::{Context, Result, ensure};

use super::{Account, Stage, Test};
use crate::clock::wait_until;
use crate::compare::Rules;
use crate::peer::free_port;

pub(super) const TESTS: &[Test] = &[
    ("segments::30 by writev on pipes", |stage| {
        gathered(stage, Link::Pipe, "writev", FOLLOWED)
    }),
    ("segments::30 by writev on TCP", |stage| {
        gathered(stage, Link::Tcp, "writev", FOLLOWED)
    }),
    ("segments::30 by sendmsg on TCP", |stage| {
        gathered(stage, Link::Tcp, "sendmsg", FOLLOWED)
    }),
    ("segments::200 by writev on pipes", |stage| {
        gathered(stage, Link::Pipe, "writev", TOO_MANY)
    }),
    ("segments::200 by sendmsg on TCP", |stage| {
        gathered(stage, Link::Tcp, "sendmsg", TOO_MANY)
    }),
    ("segments::200 by sendmsg on TCP, to a server out of scope", |stage| {
        gathered(stage, Link::TcpOutOfScope, "sendmsg", TOO_MANY)
    }),
];

/// Pieces of a call that the probes follow; the limit is 32.
const FOLLOWED: &str = "30";

/// Pieces of a call that the probes do not follow: the reader's bytes stand in, where that is in scope.
const TOO_MANY: &str = "200";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Pipe,
    Tcp,
    TcpOutOfScope,
}

/// Calls in pieces: seen whole, or where nobody in scope reads the pieces that are too many nothing invented and the rest counted.
fn gathered(stage: &Stage, link: Link, gather: &str, segments: &str) -> Result<()> {
    let port = free_port()?.to_string();
    let lossy = link == Link::TcpOutOfScope;
    let words = ["tiny-server", "--port", &port];
    let server = if lossy {
        stage.tiny_elsewhere(&words)?
    } else {
        stage.tiny(&words)?
    };
    let ready = || server.said().contains("ready").then_some(());
    wait_until(stage.lab.limit(10), ready).context("the tiny server does not listen")?;
    let observer = stage.observe(&[])?;
    let truth = stage.lab.file("truth.jsonl");
    let path = truth.to_string_lossy().into_owned();
    let mut words = vec!["tiny-client", "--truth", &path, "--calls", "20", "--bytes", "2000"];
    words.extend(["--segments", segments, "--gather", gather]);
    if link != Link::Pipe {
        words.extend(["--port", &port]);
    }
    stage.tiny(&words)?.finish(stage.lab.limit(30))?;
    let count = || observer.lost_bytes();
    if lossy {
        let counted = || (count().ok()? > 0).then_some(());
        wait_until(stage.lab.limit(3), counted).context("no byte is counted as lost")?;
    } else {
        ensure!(count()? == 0, "{} bytes are counted as lost", count()?);
    }
    let rules = Rules {
        lossy,
        ..Rules::default()
    };
    stage.settle(observer, &[Account { truth, rules }])
}

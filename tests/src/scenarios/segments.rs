//! Messages handed to the kernel in many pieces of memory: as many as the probes follow, and more than that.

use std::thread::sleep;

use anyhow::Result;

use super::{Account, Stage, Test};
use crate::compare::Rules;
use crate::peer::free_port;

pub(super) const TESTS: &[Test] = &[
    ("segments::30 by writev on pipes", |stage| {
        gathered(stage, Link::Pipe, "writev", "30")
    }),
    ("segments::30 by writev on TCP", |stage| {
        gathered(stage, Link::Tcp, "writev", "30")
    }),
    ("segments::30 by sendmsg on TCP", |stage| {
        gathered(stage, Link::Tcp, "sendmsg", "30")
    }),
    ("segments::200 by writev on pipes", |stage| {
        gathered(stage, Link::Pipe, "writev", "200")
    }),
    ("segments::200 by sendmsg on TCP", |stage| {
        gathered(stage, Link::Tcp, "sendmsg", "200")
    }),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Pipe,
    Tcp,
}

/// Where the writer's pieces are too many, the reader's bytes stand in: no call may be missing.
fn gathered(stage: &Stage, link: Link, gather: &str, segments: &str) -> Result<()> {
    let port = free_port()?.to_string();
    let _server = stage.tiny(&["tiny-server", "--port", &port])?;
    sleep(stage.lab.limit(1) / 4);
    let observer = stage.observe(&[])?;
    let truth = stage.lab.file("truth.jsonl");
    let path = truth.to_string_lossy().into_owned();
    let mut words = vec!["tiny-client", "--truth", &path, "--calls", "20", "--bytes", "2000"];
    words.extend(["--segments", segments, "--gather", gather]);
    if link == Link::Tcp {
        words.extend(["--port", &port]);
    }
    stage.tiny(&words)?.finish(stage.lab.limit(30))?;
    stage.settle(
        observer,
        &[Account {
            truth,
            rules: Rules::default(),
        }],
    )
}

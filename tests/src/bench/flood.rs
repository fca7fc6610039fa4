//! 50,000 calls a second, 100,000 messages of 300 bytes: nothing may be lost, and the observer may not need a core.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::bystander::cpu_of;
use super::report::{Figure, Report, Target};
use crate::clock::wait_until;
use crate::lab::Lab;
use crate::observer::Observer;
use crate::scenarios::Stage;

/// Calls a second.
const RATE: u32 = 50_000;

/// Two runs: metrics alone, and a line for each call besides.
pub(super) fn measure(lab: &Arc<Lab>, seconds: u64, report: &mut Report) -> Result<()> {
    run(lab, "flood, metrics", &["--calls", "none"], seconds, report)?;
    let lines = ["--calls", "none", "--calls-file", "/dev/null"];
    run(lab, "flood, metrics and lines", &lines, seconds, report)
}

#[allow(clippy::cast_precision_loss, reason = "numbers of calls")]
fn run(lab: &Arc<Lab>, case: &str, output: &[&str], seconds: u64, report: &mut Report) -> Result<()> {
    let stage = Stage::new(lab, "bench")?;
    let observer = Observer::start_writing(lab, &stage.cgroup, Path::new("/dev/null"), output)?;
    let idle = cpu_of(observer.pid())?;
    let (rate, seconds_word) = (RATE.to_string(), seconds.to_string());
    let mut client = stage.tiny(&["flood-client", "--rate", &rate, "--seconds", &seconds_word])?;
    client.finish(stage.lab.limit(seconds * 4 + 30))?;
    // What is still in the ring belongs to the account.
    let mut last = 0.0;
    wait_until(stage.lab.limit(5), || {
        let seen = observer.metric("mcp_calls_total", "").ok()?;
        let stands = seen > 0.0 && seen.total_cmp(&last).is_eq();
        last = seen;
        std::thread::sleep(std::time::Duration::from_millis(1100));
        stands.then_some(())
    });
    let used = cpu_of(observer.pid())? - idle;
    let said = client.said();
    let (made, took) = said.trim().split_once(' ').context("the generator said nothing")?;
    let (made, took) = (made.parse::<f64>()?, took.parse::<f64>()?);
    let seen = observer.metric("mcp_calls_total", "outcome=\"ok\"")?;
    // The handshakes of the generator's links are calls too.
    let handshakes = observer.metric("mcp_calls_total", "operation=\"initialize\"")?;
    let lost = observer.metric("mcp_observer_lost_total", "")?;
    for line in observer.series("mcp_observer_lost_total")? {
        eprintln!("{case}: {line}");
    }
    let bound = |what, unit, value, target| Figure::alone(case, what, unit, value).with_target(target);
    report.add(bound(
        "rate",
        "calls/s",
        made / took,
        Target::AtLeast(f64::from(RATE) * 0.99),
    ));
    report.add(bound(
        "calls not seen",
        "calls",
        made - (seen - handshakes),
        Target::AtMost(0.0),
    ));
    report.add(bound("lost", "events", lost, Target::AtMost(0.0)));
    report.add(bound("CPU of the observer", "cores", used / took, Target::AtMost(1.0)));
    report.add(Figure::alone(
        case,
        "resident",
        "MiB",
        observer.resident()? as f64 / f64::from(1 << 20),
    ));
    observer.stop()?;
    Ok(())
}

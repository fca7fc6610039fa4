//! Traffic that is not MCP: what it costs to be looked at and found to be nothing, next to what empty programs cost on the
//! same hooks.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::attached::{Attached, alternate};
use super::report::{Figure, Report, Target, median};
use crate::clock::{process_cpu_ns, wait_until};
use crate::lab::Lab;
use crate::peer::{Program, free_port};
use crate::scenarios::Stage;

/// How long one run takes.
const SECONDS: u64 = 2;

/// What the observer's programs may cost, in costs of empty ones.
const COST: f64 = 1.3;

/// What a client of Redis sends: text, and nothing of JSON.
const MESSAGE: &[u8] = b"*3\r\n$3\r\nSET\r\n$8\r\nkey:0001\r\n$24\r\nabcdefghijklmnopqrstuvwx\r\n";

/// What one run showed.
struct Run {
    rate: f64,
    /// Microseconds of CPU for each round trip.
    cpu: f64,
}

type Traffic = fn(&Stage) -> Result<Run>;

/// Measures the echo pair, and Redis where it is installed.
pub(super) fn measure(lab: &Arc<Lab>, object: &Path, rounds: u32, report: &mut Report) -> Result<()> {
    let mut kinds: Vec<(&str, Traffic)> = vec![("bystander echo", echo_pair)];
    if Command::new("redis-benchmark").arg("--version").output().is_ok() {
        kinds.push(("bystander redis", redis));
    }
    for (case, traffic) in kinds {
        let runs = alternate(rounds, |attached| run(lab, object, attached, traffic))?;
        tell(case, &runs, report);
    }
    Ok(())
}

fn run(lab: &Arc<Lab>, object: &Path, attached: Attached, traffic: Traffic) -> Result<Run> {
    let stage = Stage::new(lab, "bench")?;
    let (empty, observer) = attached.attach(&stage, object)?;
    let done = traffic(&stage)?;
    drop(empty);
    if let Some(observer) = observer {
        let muted = observer.metric("mcp_observer_muted_bytes_total", "")?;
        ensure!(muted > 0.0, "the observer never came to a verdict on the traffic");
        observer.stop()?;
    }
    Ok(done)
}

fn tell(case: &str, runs: &[Vec<Run>; 3], report: &mut Report) {
    let mut add = |what, unit, of: fn(&Run) -> f64| {
        let [without, empty, with] = [0, 1, 2].map(|kind| median(&runs[kind].iter().map(of).collect::<Vec<f64>>()));
        let figure = Figure {
            without: Some(without),
            empty: Some(empty),
            ratio: Some(with / without),
            ..Figure::alone(case, what, unit, with)
        };
        report.add(figure);
        let over_nothing = |kind: usize| {
            let pairs = runs[kind].iter().zip(&runs[0]);
            median(&pairs.map(|(run, nothing)| of(run) - of(nothing)).collect::<Vec<f64>>())
        };
        over_nothing(2) / over_nothing(1)
    };
    add("throughput", "1/s", |run| run.rate);
    let cost = add("CPU of a round trip", "us", |run| run.cpu);
    report.add(
        Figure {
            ratio: Some(cost),
            with: None,
            ..Figure::alone(case, "cost over cost of empty", "ratio", cost)
        }
        .with_target(Target::AtMost(COST)),
    );
}

fn echo_pair(stage: &Stage) -> Result<Run> {
    let mut program = stage.tiny(&["echo", "--seconds", &SECONDS.to_string()])?;
    program.finish(stage.lab.limit(30))?;
    let said = program.said();
    let mut numbers = said.split_whitespace().map(str::parse::<f64>);
    let mut next = || anyhow::Ok(numbers.next().context("the echo pair said nothing")??);
    Ok(Run {
        rate: next()?,
        cpu: next()?,
    })
}

fn redis(stage: &Stage) -> Result<Run> {
    let port = free_port()?.to_string();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port, "--save", "", "--appendonly", "no"]);
    let server = Program::start(command, Some(&stage.cgroup), stage.lab.file("redis.log"))?;
    let up = || TcpStream::connect(format!("127.0.0.1:{port}")).ok();
    wait_until(Duration::from_secs(10), up).context("redis-server does not listen")?;
    let before = cpu_of(server.pid())?;
    let mut command = Command::new("redis-benchmark");
    let requests = 100_000;
    command.args([
        "-p",
        &port,
        "-n",
        &requests.to_string(),
        "-c",
        "20",
        "-t",
        "get",
        "--csv",
    ]);
    let mut client = Program::start(command, Some(&stage.cgroup), stage.lab.file("redis.log"))?;
    client.finish(stage.lab.limit(60))?;
    let said = client.said();
    let row = said
        .lines()
        .rfind(|line| line.starts_with("\"GET\""))
        .context("redis-benchmark said nothing")?;
    let rate = row.split(',').nth(1).context("no rate")?.trim_matches('"').parse()?;
    Ok(Run {
        rate,
        // The server's share alone: the client is gone when it could be asked.
        cpu: (cpu_of(server.pid())? - before) * 1e6 / f64::from(requests),
    })
}

/// Seconds of CPU that a process has used.
pub(super) fn cpu_of(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after) = stat.rsplit_once(')').context("no command in stat")?;
    let ticks = |place| {
        anyhow::Ok(
            after
                .split_whitespace()
                .nth(place)
                .context("stat is short")?
                .parse::<u32>()?,
        )
    };
    // SAFETY: the call has no memory effects.
    let second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(f64::from(ticks(11)? + ticks(12)?) / f64::from(i32::try_from(second)?))
}

/// An echo pair in one process and one thread: no wake-ups, so that what is timed are the system calls.
#[derive(Args)]
pub(crate) struct EchoArgs {
    #[arg(long)]
    seconds: u64,
}

/// Sends to and fro, and prints round trips a second and microseconds of CPU for each.
pub(crate) fn echo(args: &EchoArgs) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let mut bytes = [0; MESSAGE.len()];
    let mut trip = || -> Result<()> {
        near.write_all(MESSAGE)?;
        far.read_exact(&mut bytes)?;
        far.write_all(&bytes)?;
        Ok(near.read_exact(&mut bytes)?)
    };
    // Until a verdict has come, which is not what is measured here.
    let warm = Instant::now();
    while warm.elapsed() < Duration::from_millis(500) {
        trip()?;
    }
    let (begin, before, mut trips) = (Instant::now(), process_cpu_ns(), 0_u32);
    while begin.elapsed() < Duration::from_secs(args.seconds) {
        for _ in 0..100 {
            trip()?;
        }
        trips += 100;
    }
    let trips = f64::from(trips);
    let cpu = Duration::from_nanos(process_cpu_ns() - before).as_secs_f64();
    println!("{} {}", trips / begin.elapsed().as_secs_f64(), cpu * 1e6 / trips);
    Ok(())
}

//! Turns the crank: kernel records through the pipeline to the sinks, until told to stop.

mod check;
mod turn;

use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

pub use check::check;
use turn::{GRACE, Loop};

use crate::capture::{self, Capture, recording};
use crate::config::{CallsFormat, Config};
use crate::enrich::Enricher;
use crate::protocol::Pipeline;
use crate::sink::Sinks;
use crate::sink::clock::Anchor;
use crate::sink::health::Health;
use crate::sink::http::Endpoints;
use crate::sink::json::JsonLines;
use crate::sink::output::Output;
use crate::sink::pretty::{Colour, PrettyLines};
use crate::sink::prometheus::Metrics;
use crate::sink::salt::Salt;

/// Where the processes of this node are listed.
const PROC: &str = "/proc";

/// Observes until SIGINT or SIGTERM, then drains.
///
/// # Errors
/// When an address, a file or the kernel refuses: one line that says what and what to do.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let mut sinks = sinks(config.max_series)?;
    add_outputs(&mut sinks, config)?;
    let health = Arc::new(Health::new());
    let endpoints = Endpoints {
        exposition: sinks.metrics().exposition(),
        health: Arc::clone(&health),
    };
    until_the_end(async {
        let mut stop = Stop::new()?;
        serve(endpoints, bind(config.listen)?)?;
        let Some(capture) = start(&config.capture, &mut stop).await? else {
            return Ok(());
        };
        health.set_obstacle(None);
        observe(config, capture, sinks, health, &mut stop).await
    })
}

/// Saves raw records until SIGINT or SIGTERM, as `run` would see them: what is not MCP is muted.
///
/// # Errors
/// As [`run`], and when the file exists or cannot be made.
pub fn record(config: &Config, file: &Path) -> anyhow::Result<()> {
    let sinks = sinks(config.max_series)?;
    until_the_end(async {
        let mut stop = Stop::new()?;
        let writer = recording::Writer::create(file)?;
        let Some(mut capture) = start(&config.capture, &mut stop).await? else {
            return Ok(());
        };
        capture.record_to(writer);
        tracing::info!("recording to {}", file.display());
        observe(config, capture, sinks, Arc::new(Health::new()), &mut stop).await
    })
}

/// Attaches, unless told to stop first: the kernel may let it wait for seconds while others take their probes away.
async fn start(options: &capture::Options, stop: &mut Stop) -> anyhow::Result<Option<Capture>> {
    let options = options.clone();
    let starting = tokio::task::spawn_blocking(move || Capture::start(&options));
    tokio::select! {
        biased;
        () = stop.requested() => Ok(None),
        started = starting => Ok(Some(started.context("the thread that attaches has died")??)),
    }
}

/// Says what is observed and turns the loop until `stop`.
async fn observe(
    config: &Config,
    capture: Capture,
    mut sinks: Sinks,
    health: Arc<Health>,
    stop: &mut Stop,
) -> anyhow::Result<()> {
    report_probes(&capture, &mut sinks)?;
    let pipeline = Pipeline::new(config.limits.clone());
    let enricher = Enricher::new(Some(PROC.into()));
    Loop::new(capture, pipeline, enricher, sinks, health)
        .run(stop.requested())
        .await
}

/// Runs a recording through the pipeline and prints what `run` would have printed. Processes are not looked up: they are
/// those of another time, perhaps of another machine.
///
/// # Errors
/// When the file is no recording.
pub fn replay(config: &Config, file: &Path) -> anyhow::Result<()> {
    let mut sinks = sinks(config.max_series)?;
    add_outputs(&mut sinks, config)?;
    turn::replay(
        recording::Reader::open(file)?,
        Pipeline::new(config.limits.clone()),
        Enricher::new(None),
        sinks,
    )
}

/// The anchor of this moment.
fn anchor() -> Anchor {
    Anchor::new(capture::now(), SystemTime::now())
}

fn sinks(max_series: usize) -> anyhow::Result<Sinks> {
    let salt = Salt::random().context("cannot read /dev/urandom; it must be there and readable")?;
    Ok(Sinks::new(Metrics::new(max_series), JsonLines::new(salt)))
}

fn add_outputs(sinks: &mut Sinks, config: &Config) -> anyhow::Result<()> {
    let terminal = std::io::stdout().is_terminal();
    let format = config.calls.unwrap_or(if terminal {
        CallsFormat::Pretty
    } else {
        CallsFormat::Json
    });
    let stdout =
        || Output::start("stdout", std::io::stdout()).context("cannot start a thread; raise the limit on processes");
    match format {
        CallsFormat::Json => sinks.add_json(stdout()?),
        CallsFormat::Pretty => {
            let colour = if terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()) {
                Colour::Ansi
            } else {
                Colour::Plain
            };
            sinks.set_pretty(PrettyLines::new(colour), stdout()?);
        }
        CallsFormat::None => {}
    }
    if let Some(path) = &config.calls_file {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)
            .with_context(|| {
                format!(
                    "cannot write calls to {}; name a file that can be written with --calls-file",
                    path.display()
                )
            })?;
        sinks.add_json(Output::start("file", file).context("cannot start a thread; raise the limit on processes")?);
    }
    Ok(())
}

/// Runs the daemon; what still waits for the kernel at its end is left behind.
fn until_the_end(daemon: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let result = runtime.block_on(daemon);
    runtime.shutdown_background();
    result
}

/// Everything that one thread waits for: nothing that it does wakes another.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder
        .enable_all()
        .build()
        .context("cannot make the loop's descriptors; raise the limit on open files")
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("{address} is in use by another program; choose another with --listen, or port 0 for any")
        }
        Err(error) => bail!("cannot listen on {address}: {error}; choose another address with --listen"),
    }
}

/// Serves the endpoints on a thread of their own, so that they can say it when the loop is stuck.
fn serve(endpoints: Endpoints, listener: TcpListener) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the listening socket has no address")?;
    let runtime = runtime()?;
    let listener = {
        let _within = runtime.enter();
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)?
    };
    std::thread::Builder::new()
        .name("endpoints".to_owned())
        .spawn(move || runtime.block_on(endpoints.serve(listener)))
        .context("cannot start a thread; raise the limit on processes")?;
    tracing::info!("listening on {address}");
    Ok(())
}

fn report_probes(capture: &Capture, sinks: &mut Sinks) -> anyhow::Result<()> {
    for probe in capture.probes() {
        sinks.metrics().probe(&probe.name, probe.failure.as_deref());
        if let Some(failure) = &probe.failure {
            tracing::warn!("not attached: {}: {failure}", probe.name);
        }
    }
    let attached = capture.probes().iter().filter(|probe| probe.failure.is_none()).count();
    if attached == 0 {
        bail!("no probe could be attached; `mcp-observer check` says why");
    }
    tracing::info!(
        "observing with the {} backend ({}), {attached} probes",
        check::backend_name(capture.backend()),
        capture.backend_reason()
    );
    Ok(())
}

/// The signals that end the daemon.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let handler = |kind| signal(kind).context("cannot handle signals");
        Ok(Self {
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
        })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// When the writers of a daemon that ends now must be done.
fn last_moment() -> Instant {
    Instant::now() + GRACE
}

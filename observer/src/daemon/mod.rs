//! Turns the crank: kernel records through the pipeline to the sinks, until told to stop.

mod check;
mod turn;

use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

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

/// Time between two looks whether attaching is done.
const LOOK: Duration = Duration::from_millis(5);

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
    let stop = Stop::new()?;
    serve(endpoints, bind(config.listen)?)?;
    let Some(capture) = start(&config.capture, &stop)? else {
        return Ok(());
    };
    health.set_obstacle(None);
    observe(config, capture, sinks, health, &stop)
}

/// Saves raw records until SIGINT or SIGTERM, as `run` would see them: what is not MCP is muted.
///
/// # Errors
/// As [`run`], and when the file exists or cannot be made.
pub fn record(config: &Config, file: &Path) -> anyhow::Result<()> {
    let sinks = sinks(config.max_series)?;
    let stop = Stop::new()?;
    let writer = recording::Writer::create(file)?;
    let Some(mut capture) = start(&config.capture, &stop)? else {
        return Ok(());
    };
    capture.record_to(writer);
    tracing::info!("recording to {}", file.display());
    observe(config, capture, sinks, Arc::new(Health::new()), &stop)
}

/// Attaches, unless told to stop first: the kernel may let it wait for seconds while others take their probes away. What still waits
/// then is left behind.
fn start(options: &capture::Options, stop: &Stop) -> anyhow::Result<Option<Capture>> {
    let options = options.clone();
    let starting = thread("attach", move || Capture::start(&options))?;
    while !starting.is_finished() {
        if stop.is_requested_within(LOOK) {
            return Ok(None);
        }
    }
    let started = starting.join().ok().context("the thread that attaches has died")?;
    started.map(Some)
}

/// Says what is observed and turns the loop until `stop`.
fn observe(
    config: &Config,
    capture: Capture,
    mut sinks: Sinks,
    health: Arc<Health>,
    stop: &Stop,
) -> anyhow::Result<()> {
    report_probes(&capture, &mut sinks)?;
    let pipeline = Pipeline::new(config.limits.clone());
    let enricher = Enricher::new(Some(PROC.into()));
    Loop::new(capture, pipeline, enricher, sinks, health).run(stop)
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

/// Starts a thread.
fn thread<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<JoinHandle<T>> {
    let named = std::thread::Builder::new().name(name.to_owned());
    named
        .spawn(run)
        .context("cannot start a thread; raise the limit on processes")
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
    thread("endpoints", move || runtime.block_on(endpoints.serve(listener)))?;
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

/// The signals that end the daemon, as a thread that waits for them tells of them.
struct Stop(Receiver<()>);

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let handler = |kind| {
            let _within = runtime.enter();
            signal(kind).context("cannot handle signals")
        };
        let (mut interrupt, mut terminate) = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
        let (sender, receiver) = std::sync::mpsc::channel();
        thread("signals", move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            // Dropping the sender tells, once and for all.
            drop(sender);
        })?;
        Ok(Self(receiver))
    }

    /// Waits so long at most, in one system call: the loop does nothing else between two turns.
    fn is_requested_within(&self, time: Duration) -> bool {
        !matches!(self.0.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }
}

/// When the writers of a daemon that ends now must be done.
fn last_moment() -> Instant {
    Instant::now() + GRACE
}

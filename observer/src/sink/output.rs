//! Standard output and files: a bounded queue and a thread each, so that a slow reader never stops the loop.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes that may wait for a reader: a few seconds of 5,000 calls a second.
const MAX_QUEUED: usize = 16 << 20;

/// How often the end looks whether everything is written.
const FLUSH_POLL: Duration = Duration::from_millis(5);

/// Lines on their way to a writer.
#[derive(Debug)]
pub struct Output {
    name: &'static str,
    queue: Option<Sender<Batch>>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
    dropped: u64,
}

#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    queued: AtomicUsize,
    failures: AtomicU64,
    complained: AtomicBool,
}

impl Output {
    /// Starts the thread that writes to `writer`; `name` is the label `exporter`.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(name: &'static str, writer: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, batches) = channel();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn(move || write_all(name, writer, &batches, &shared))?;
        Ok(Self {
            name,
            queue: Some(queue),
            state,
            thread: Some(thread),
            dropped: 0,
        })
    }

    /// The label `exporter`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Hands over whole lines, `count` of them; drops and counts them when too much is waiting already.
    pub fn send(&mut self, lines: &[u8], count: u64) {
        let waiting = self.state.queued.load(Ordering::Acquire);
        let Some(queue) = self.queue.as_ref().filter(|_| waiting + lines.len() <= MAX_QUEUED) else {
            self.dropped += count;
            return;
        };
        self.state.queued.fetch_add(lines.len(), Ordering::AcqRel);
        if queue.send(Batch { bytes: lines.to_vec() }).is_err() {
            self.dropped += count;
        }
    }

    /// Lines dropped so far because the reader was too slow.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Writes that failed so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.state.failures.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, at most until `deadline`; a reader that does not read is left alone.
    pub fn finish(mut self, deadline: Instant) {
        self.queue = None;
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(FLUSH_POLL);
        }
    }
}

fn write_all(name: &str, mut writer: impl Write, batches: &Receiver<Batch>, state: &State) {
    for batch in batches {
        let result = writer.write_all(&batch.bytes).and_then(|()| writer.flush());
        state.queued.fetch_sub(batch.bytes.len(), Ordering::AcqRel);
        if let Err(error) = result {
            state.failures.fetch_add(1, Ordering::Relaxed);
            if !state.complained.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "cannot write calls to {name}; they are missing there, observing goes on");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::sync_channel;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Blocks until told to go on, as a pipe that nobody reads.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn lines_arrive_in_order() {
        let page = Page::default();
        let mut output = Output::start("test", page.clone()).unwrap();
        output.send(b"a\nb\n", 2);
        output.send(b"c\n", 1);
        output.finish(soon());
        assert_eq!(*page.0.lock().unwrap(), b"a\nb\nc\n");
    }

    #[test]
    fn a_reader_that_does_not_read_costs_its_own_lines_and_nothing_else() {
        let (go_on, stuck) = sync_channel(0);
        let mut output = Output::start("test", Stuck(stuck)).unwrap();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            output.send(&line, 1);
        }
        assert_eq!(output.dropped(), 4);
        let before = Instant::now();
        output.finish(before + Duration::from_millis(20));
        assert!(before.elapsed() < Duration::from_secs(2));
        drop(go_on);
    }
}

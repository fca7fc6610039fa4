//! Files of raw kernel records: the seam for golden captures and for `record` and `replay`.
//!
//! ```text
//! | "mcp-observer recording\n" | format version u32 | entry | entry | …
//! entry:  | tag u8 | length u32 | bytes |       all little-endian
//! tags:   1 a record; 2 a turn: its time, u64; 3 an anchor: a time, u64, and that of the wall in ns since 1970, u64
//! ```
//!
//! A recording holds payloads: the file's mode is 0600.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use observer_common::limits::MAX_RECORD_BYTES;
use observer_common::record::FORMAT_VERSION;

use super::decode;
use crate::protocol::event::{Event, Timestamp};

const MAGIC: &[u8] = b"mcp-observer recording\n";
const RECORD: u8 = 1;
const TURN: u8 = 2;
const ANCHOR: u8 = 3;

/// Writes raw records to a file of mode 0600.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    failed: bool,
}

impl Writer {
    /// Makes the file.
    ///
    /// # Errors
    /// When it exists already or cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot make the recording {}", path.display()))?;
        let mut file = BufWriter::new(file);
        file.write_all(MAGIC)?;
        file.write_all(&FORMAT_VERSION.to_le_bytes())?;
        Ok(Self { file, failed: false })
    }

    /// Adds a record as it lay in the ring.
    pub fn record(&mut self, record: &[u8]) {
        self.entry(RECORD, decode::trimmed(record));
    }

    /// Adds that the daemon's loop turned.
    pub fn turn(&mut self, now: Timestamp) {
        self.entry(TURN, &now.0.to_le_bytes());
    }

    /// Adds what the clock on the wall says at `now`.
    pub fn anchor(&mut self, now: Timestamp, wall: SystemTime) {
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let wall = u64::try_from(wall).unwrap_or(u64::MAX);
        self.entry(ANCHOR, &[now.0.to_le_bytes(), wall.to_le_bytes()].concat());
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// When this or an earlier write failed; the recording is then incomplete.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().context("cannot write the recording")?;
        if self.failed {
            bail!("a part of the recording could not be written")
        } else {
            Ok(())
        }
    }

    fn entry(&mut self, tag: u8, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes();
        let result = self
            .file
            .write_all(&[tag])
            .and_then(|()| self.file.write_all(&length))
            .and_then(|()| self.file.write_all(bytes));
        self.failed |= result.is_err();
    }
}

/// What a recording holds, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A record.
    Event(Event),
    /// The daemon's loop turned at this moment: what `Pipeline::handle_timeout` was called with.
    Turn(Timestamp),
    /// A moment on the kernel's clock and on the wall's.
    Anchor(Timestamp, SystemTime),
}

/// Reads a recording. A file cut short ends with an error.
#[derive(Debug)]
pub struct Reader {
    file: BufReader<File>,
}

impl Reader {
    /// Opens the file and checks its head.
    ///
    /// # Errors
    /// When it is no recording or one of another format version.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open the recording {}", path.display()))?;
        let mut file = BufReader::new(file);
        let mut head = [0; MAGIC.len() + 4];
        let read = file.read_exact(&mut head);
        if read.is_err() || !head.starts_with(MAGIC) {
            bail!("{} is no recording of mcp-observer", path.display());
        }
        if head[MAGIC.len()..] != FORMAT_VERSION.to_le_bytes() {
            bail!(
                "{} was recorded by another version: its format is not {FORMAT_VERSION}",
                path.display()
            );
        }
        Ok(Self { file })
    }

    fn entry(&mut self) -> Result<Option<Entry>> {
        let mut head = [0; 5];
        match self.file.read_exact(&mut head[..1]) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            result => result.context("cannot read the recording")?,
        }
        self.file
            .read_exact(&mut head[1..])
            .context("the recording is cut short")?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > MAX_RECORD_BYTES {
            bail!("the recording is damaged: an entry of {length} bytes");
        }
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes).context("the recording is cut short")?;
        match head[0] {
            RECORD => {
                let event = decode::event(&bytes).context("the recording is damaged: a record that is none")?;
                Ok(Some(Entry::Event(event)))
            }
            TURN => {
                let [turned] = times(&bytes)?;
                Ok(Some(Entry::Turn(Timestamp(turned))))
            }
            ANCHOR => {
                let [kernel, wall] = times(&bytes)?;
                let wall = UNIX_EPOCH + Duration::from_nanos(wall);
                Ok(Some(Entry::Anchor(Timestamp(kernel), wall)))
            }
            tag => bail!("the recording is damaged: an entry of kind {tag}"),
        }
    }
}

/// The times that an entry consists of.
fn times<const N: usize>(bytes: &[u8]) -> Result<[u64; N]> {
    let (times, rest) = bytes.as_chunks::<8>();
    let times: Option<[[u8; 8]; N]> = times.try_into().ok().filter(|_| rest.is_empty());
    let times = times.context("the recording is damaged: a turn or an anchor without its times")?;
    Ok(times.map(u64::from_le_bytes))
}

impl Iterator for Reader {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entry().transpose()
    }
}

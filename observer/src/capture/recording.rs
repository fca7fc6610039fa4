//! Files of raw kernel records: the seam for golden captures and for `record` and `replay`.

use std::path::Path;

use crate::protocol::event::{Event, Timestamp};

/// Writes raw records to a file of mode 0600.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Makes the file.
    ///
    /// # Errors
    /// When it exists already or cannot be made.
    pub fn create(_path: &Path) -> anyhow::Result<Self> {
        anyhow::bail!("not yet")
    }
}

/// What a recording holds, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A record.
    Event(Event),
    /// The daemon's loop turned at this moment: what `Pipeline::handle_timeout` was called with.
    Turn(Timestamp),
}

/// Reads a recording.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// Opens the file and checks its head.
    ///
    /// # Errors
    /// When it is no recording or one of another format version.
    pub fn open(_path: &Path) -> anyhow::Result<Self> {
        anyhow::bail!("not yet")
    }
}

impl Iterator for Reader {
    type Item = anyhow::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}

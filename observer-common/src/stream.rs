//! Identity of the byte streams that the kernel carries.

/// Names one kernel object that carries bytes (a pipe, a unix socket, a TCP socket) for as long as it lives.
///
/// A birth number: given by the kernel side at first sight, never used again while the observer runs, never 0. Inode numbers
/// and pointers come back after an object is freed; birth numbers do not. The object behind it is told once, in
/// [`crate::record::Opened`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(pub u64);

/// What kind of kernel object a stream is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A pipe or FIFO: one object, bytes flow from its writers to its readers.
    Pipe = 1,
    /// One end of a connected `AF_UNIX` stream socket.
    Unix = 2,
    /// One end of a TCP connection over IPv4 or IPv6.
    Tcp = 3,
    /// A TLS session, seen as plain text at the library.
    Tls = 4,
}

impl Source {
    /// Reads the byte of a record; `None` for a value that this version does not know.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Pipe),
            2 => Some(Self::Unix),
            3 => Some(Self::Tcp),
            4 => Some(Self::Tls),
            _ => None,
        }
    }
}

/// Which way bytes go, as the process at this end of the stream sees it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Written into the stream by this end.
    Sent = 1,
    /// Read out of the stream by this end.
    Received = 2,
}

impl Direction {
    /// Reads the byte of a record; `None` for a value that this version does not know.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Sent),
            2 => Some(Self::Received),
            _ => None,
        }
    }
}

/// What the daemon has decided about a stream; written into the kernel's table, the only thing that flows back.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing is known yet: everything is copied. The value of a table entry never written.
    Undecided = 0,
    /// The stream carries MCP: everything is copied.
    Mcp = 1,
    /// An HTTP connection whose requests so far were not MCP: the first [`crate::limits::HEAD_BYTES`] of each call are copied,
    /// and a call that begins like a POST is copied whole and ends this verdict until it is given again.
    HeadsOnly = 2,
    /// Not MCP: one look-up and out. Final, but for a TCP socket: what it carries under TLS may come to be wanted, which
    /// [`Verdict::HeadsOnly`] says.
    NotMcp = 3,
}

/// Words of what the kernel side remembers of a stream, the first of which is its [`StreamKey`].
pub const STREAM_WORDS: usize = 11;

/// Slots of the kernel's verdict table. A slot taken over by a younger stream gives its stream back to
/// [`Verdict::Undecided`], which is safe.
pub const VERDICT_SLOTS: u32 = 1 << 17;

impl StreamKey {
    /// Largest birth number.
    pub const MAX: u64 = (1 << 62) - 1;

    /// Composes a birth number that no other call of the kernel side can compose at the same time: two programs that
    /// interrupt each other on one CPU may read the same count, but run in different threads.
    #[must_use]
    pub const fn compose(count: u64, cpu: u32, tid: u32) -> Self {
        Self((count << 32 | ((cpu & 0x3ff) as u64) << 22 | (tid & 0x3f_ffff) as u64) & Self::MAX)
    }

    /// The stream's slot in the verdict table.
    #[must_use]
    pub const fn verdict_slot(self) -> u32 {
        let (count, cpu) = ((self.0 >> 32) as u32, ((self.0 >> 22) & 0x3ff) as u32);
        (count ^ cpu << 7) & (VERDICT_SLOTS - 1)
    }

    /// What stands in that slot when `verdict` holds: stream and verdict in one word, so that no reader sees half of it.
    #[must_use]
    pub const fn verdict_word(self, verdict: Verdict) -> u64 {
        self.0 << 2 | verdict as u64
    }
}

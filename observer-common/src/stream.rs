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
    /// Not MCP: one look-up and out.
    NotMcp = 3,
}

//! What the pipeline is told: kernel records, checked and owned.

use std::net::SocketAddr;

use bytes::Bytes;
pub use observer_common::drops::DropReason;
pub use observer_common::stream::{Direction, Source, StreamKey, Verdict};

/// Nanoseconds of the kernel's `CLOCK_MONOTONIC`, the only time the core knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Nanoseconds from `earlier` to this moment; 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `nanoseconds` later.
    #[must_use]
    pub const fn plus(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }
}

/// Process id (thread group) in the initial pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(pub u32);

/// One thing the kernel told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A stream's object was seen for the first time, or its other end became known.
    Opened(Opened),
    /// Bytes went through a stream.
    Data(Data),
    /// An end of a stream is gone.
    Closed(Closed),
    /// A process began, became another program, or ended.
    Process(Process),
    /// A process is known to hold ends of these pipes and sockets (from `/proc`, not from a call).
    Holder(Holder),
}

impl Event {
    /// The moment that orders events causally: a send counts from its entry, anything else from when it was over.
    ///
    /// An answer's send is always entered after its request's send was entered, whichever of the two returned first.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Opened(opened) => opened.time,
            Self::Data(data) => data.time(),
            Self::Closed(closed) => closed.time,
            Self::Process(process) => process.time,
            Self::Holder(holder) => holder.time,
        }
    }
}

/// What kind of object a stream is and what it connects. May be told again when `peer` becomes known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The stream.
    pub key: StreamKey,
    /// Kind of object.
    pub source: Source,
    /// The object at the other end, where that is on this node and in sight. Never set for a pipe, which is one object.
    pub peer: Option<StreamKey>,
    /// Inode number of the pipe or socket.
    pub inode: u64,
    /// Address of this end; sockets only.
    pub local: Option<SocketAddr>,
    /// Address of the other end; sockets only.
    pub remote: Option<SocketAddr>,
    /// Inode number of the network namespace; 0 for pipes.
    pub netns: u32,
    /// The process in whose call it was seen.
    pub pid: Pid,
    /// When.
    pub time: Timestamp,
}

/// Bytes `offset .. offset + span` of one direction of a stream, as seen at one end.
///
/// Both ends of a stream may tell of the same bytes: positions are equal at both ends, so that the second telling adds only
/// who and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The stream object at the end where this was seen.
    pub key: StreamKey,
    /// `Sent`: written into the stream at this end; `Received`: read from it.
    pub direction: Direction,
    /// Position of the first byte; see [`Position`].
    pub position: Position,
    /// How many bytes of the stream this stands for; at least `bytes.len()`.
    pub span: u32,
    /// The captured head of the span.
    pub bytes: Bytes,
    /// Why the rest of the span is missing. [`Missing::Nothing`] when it is all here.
    pub missing: Missing,
    /// The process that wrote or read.
    pub pid: Pid,
    /// Its thread.
    pub tid: u32,
    /// When the call was entered; `None` when that was not seen.
    pub entered: Option<Timestamp>,
    /// When the call returned.
    pub returned: Timestamp,
}

impl Data {
    /// The moment that orders this among other events; see [`Event::time`].
    #[must_use]
    pub fn time(&self) -> Timestamp {
        match (self.direction, self.entered) {
            (Direction::Sent, Some(entered)) => entered,
            _ => self.returned,
        }
    }
}

/// Position of a byte in one direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// Bytes since the stream was first seen.
    Total(u64),
    /// TCP sequence number; wraps at 2^32.
    Sequence(u32),
}

/// Why bytes of a [`Data`] are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Missing {
    /// All bytes are here.
    Nothing,
    /// They are told by the stream's other end; nothing is lost.
    AtOtherEnd,
    /// The verdict on the stream asked not to see them; nothing is lost.
    Muted,
    /// They are lost.
    Lost(DropReason),
}

/// An end of a stream is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The stream.
    pub key: StreamKey,
    /// Sockets: `Sent` this end closed, `Received` the end of the other's bytes was read. Pipes: which of its ends was released.
    pub direction: Direction,
    /// Pipes: whether anyone can still read or write; sockets: both false.
    pub readers_left: bool,
    /// See `readers_left`.
    pub writers_left: bool,
    /// The process that closed or read.
    pub pid: Pid,
    /// When.
    pub time: Timestamp,
}

/// What happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Of a fork: the child.
    pub pid: Pid,
    /// What happened.
    pub change: ProcessChange,
    /// Name of the thread that did it.
    pub comm: String,
    /// When.
    pub time: Timestamp,
}

/// See [`Process`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessChange {
    /// It was made by `parent`.
    Fork {
        /// The process that called `fork` or `clone`.
        parent: Pid,
    },
    /// It became another program; pid and open streams stay.
    Exec,
    /// Its last thread ended.
    Exit {
        /// As `wait(2)` tells it.
        code: u32,
    },
}

/// A process holds ends of streams, as `/proc/PID/fd` shows.
///
/// Tells who is at an end that has not moved a byte yet: a server that was already blocked in `read` when the observer came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: Pid,
    /// Stream and what the process may do there (`Sent`: it holds a writing end).
    pub ends: Vec<(StreamKey, Direction)>,
    /// When it was looked up.
    pub time: Timestamp,
}

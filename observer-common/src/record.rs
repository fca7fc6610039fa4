//! Records of the ring buffer: what the kernel side tells the daemon.
//!
//! ```text
//! ring:  | Data head 56 B | captured bytes … | unused up to the size class |  | Opened |  | Closed |  | Process |
//! ```

use crate::stream::StreamKey;
use core::mem::{offset_of, size_of};

/// Version of the layouts in this file, stored at the head of recordings.
pub const FORMAT_VERSION: u32 = 1;

/// What a record is; the first byte of each.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// [`Data`].
    Data = 1,
    /// [`Opened`].
    Opened = 2,
    /// [`Closed`].
    Closed = 3,
    /// [`Process`]: a program was executed.
    Exec = 4,
    /// [`Process`]: a process was made.
    Fork = 5,
    /// [`Process`]: the last thread of a process ended.
    Exit = 6,
    /// [`Process`]: code of one more file was mapped into a process. For the daemon's search for TLS libraries; not recorded.
    Mapped = 7,
    /// [`Process`]: a process has the kernel do the TLS of a connection. As above.
    KernelTls = 8,
}

/// The first 8 bytes of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// A [`RecordKind`].
    pub kind: u8,
    /// A [`crate::stream::Source`], 0 in process records.
    pub source: u8,
    /// A [`crate::stream::Direction`], 0 where it means nothing.
    pub direction: u8,
    /// Bits by kind of record: [`CLOSED_READERS_LEFT`], [`CLOSED_WRITERS_LEFT`].
    pub flags: u8,
    /// Process id (thread group) in the initial pid namespace; 0 in [`Opened`] of a socket that was seen from its other end.
    pub pid: u32,
}

/// Bytes `offset .. offset + span` of one direction of a stream; the first `captured` of them follow the record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// Kind [`RecordKind::Data`].
    pub head: Head,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Bytes that follow this head; at most `span`.
    pub captured: u32,
    /// Bytes of the stream that this record stands for.
    pub span: u32,
    /// Why `captured < span`: a [`crate::drops::DropReason`], or [`AT_OTHER_END`], or [`MUTED`]; 0 when nothing is missing.
    pub missing: u8,
    /// The source of `offset`: 0 totals since first sight (64 bits), 1 TCP sequence numbers (low 32 bits).
    pub sequence: u8,
    /// Padding, 0.
    pub reserved: [u8; 2],
    /// Birth number of the stream's object at this end.
    pub stream: u64,
    /// Position of the first byte in its direction.
    pub offset: u64,
    /// `CLOCK_MONOTONIC` nanoseconds when the call was entered; 0 when that was not seen.
    pub entered: u64,
    /// `CLOCK_MONOTONIC` nanoseconds when the call returned.
    pub returned: u64,
}

/// [`Data::missing`]: the bytes are copied at the stream's other end; this record tells when and by whom they were read.
pub const AT_OTHER_END: u8 = 254;

/// [`Data::missing`]: the daemon asked not to see these bytes.
pub const MUTED: u8 = 255;

/// [`Data::sequence`]: `offset` holds a TCP sequence number, equal at both ends of the connection and on both nodes.
pub const SEQUENCE_TCP: u8 = 1;

/// A stream's object is seen for the first time, or its other end has become known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Kind [`RecordKind::Opened`].
    pub head: Head,
    /// Birth number.
    pub stream: u64,
    /// Birth number of the other end on this node; 0 when unknown. Always 0 for pipes.
    pub peer: u64,
    /// Inode number of the pipe or socket, as `/proc/PID/fd` shows it; of a TLS session its address.
    pub inode: u64,
    /// Inode number of the connected unix socket; 0 otherwise.
    pub peer_inode: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Inode number of the socket's network namespace; 0 for pipes.
    pub netns: u32,
    /// `AF_INET` (2) or `AF_INET6` (10); 0 where there is no address.
    pub family: u16,
    /// Padding, 0.
    pub reserved: u16,
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// Low 32 bits of the position where sight of the sending direction begins.
    pub send_base: u32,
    /// Low 32 bits of the position where sight of the receiving direction begins.
    pub receive_base: u32,
    /// Padding, 0.
    pub reserved2: u32,
    /// Local address in network byte order; IPv4 in the first 4 bytes.
    pub local: [u8; 16],
    /// Remote address, the same way.
    pub remote: [u8; 16],
}

/// An end of a stream is gone: closed by its last holder, or its reader has seen the end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Kind [`RecordKind::Closed`]. Direction: for sockets `Sent` when this end closed, `Received` when it read the end of
    /// the other's bytes; for pipes which of the pipe's ends was released.
    pub head: Head,
    /// Birth number.
    pub stream: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
}

/// [`Head::flags`] of [`Closed`]: the pipe has readers left.
pub const CLOSED_READERS_LEFT: u8 = 1;

/// [`Head::flags`] of [`Closed`]: the pipe has writers left.
pub const CLOSED_WRITERS_LEFT: u8 = 2;

/// A process began, became another program or ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Kind [`RecordKind::Exec`], [`RecordKind::Fork`] or [`RecordKind::Exit`]; `pid` is the process concerned (of a fork: the child).
    pub head: Head,
    /// Process id of the parent; of a fork only.
    pub parent: u32,
    /// Exit code as `wait(2)` tells it; of an exit only.
    pub exit_code: u32,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Name of the thread, cut at 15 bytes, NUL-terminated.
    pub comm: [u8; 16],
}

macro_rules! layout {
    ($($type:ty = $size:literal: no padding after $last:ident of $bytes:literal),+ $(,)?) => { $(
        const _: () = assert!(size_of::<$type>() == $size && size_of::<$type>() % 8 == 0);
        const _: () = assert!(offset_of!($type, $last) + $bytes == $size);
    )+ };
}

layout! {
    Head = 8: no padding after pid of 4,
    Data = 56: no padding after returned of 8,
    Opened = 104: no padding after remote of 16,
    Closed = 24: no padding after time of 8,
    Process = 40: no padding after comm of 16,
}

impl Data {
    /// The stream's identity.
    #[must_use]
    pub const fn key(&self) -> StreamKey {
        StreamKey(self.stream)
    }
}

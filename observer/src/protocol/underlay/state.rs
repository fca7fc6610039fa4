//! What is remembered of sessions, of the sockets under them, and of the threads that use both.

use super::super::event::{Data, Pid, StreamKey, Timestamp};
use super::Place;

/// A TLS session, as one process has it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) pid: Pid,
    pub(super) role: Role,
    /// It has sent what only a client sends, or received what only a server does.
    pub(super) client: bool,
    pub(super) socket: Option<Place>,
    pub(super) candidate: Option<(Place, u8)>,
    pub(super) held: Vec<Data>,
}

/// What becomes of a session's plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It waits: it may be the other view of a connection that is read at its client's end.
    Unknown,
    /// It is read.
    Told,
    /// The other end of the connection tells it.
    Shadow,
}

/// A socket that moves ciphertext.
#[derive(Debug, Default)]
pub(super) struct Socket {
    pub(super) looks: u32,
    /// What it carries, as its ends have it.
    pub(super) sessions: [Option<StreamKey>; 2],
    /// What it may carry.
    pub(super) candidates: [Option<StreamKey>; 2],
}

/// What a thread has just done.
#[derive(Debug, Default)]
pub(super) struct Thread {
    pub(super) sent: Option<Sent>,
    /// End, bytes, when it returned.
    pub(super) received: Option<(Place, u64, Timestamp)>,
}

/// Plain text on its way out.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) session: StreamKey,
    pub(super) bytes: u64,
    pub(super) calls: u64,
    pub(super) entered: Timestamp,
    pub(super) returned: Timestamp,
}

//! Where neighbours cannot be seen, since the socket has been muted when the plain text of its second end appears, the text itself tells:
//! what one end wrote is what the other reads. It chooses between sockets; what is one call is told by the socket alone.

use std::hash::Hasher;

use rustc_hash::FxHasher;

use super::{Data, Direction, Place, StreamKey, Underlay};

/// Bytes that a call must move to be known again at the other end, and bytes of it that are compared.
const LEAST_KNOWN_AGAIN: usize = 24;
const MOST_COMPARED: usize = 4 << 10;

impl Underlay {
    /// Remembers what was written at one end of a connection, where it is not known which session is `there` at the other.
    pub(super) fn remember(&mut self, data: &Data, there: Place) {
        let wanted = data.direction == Direction::Sent && self.is_free(there);
        if wanted && data.bytes.len() >= LEAST_KNOWN_AGAIN {
            *self.passed.entry(digest(data), || there) = there;
        }
    }

    /// The end of a connection at which a session reads what was written at the other.
    pub(super) fn known_again(&self, key: StreamKey) -> Option<Place> {
        let held = &self.sessions.get(&key)?.held;
        let told = held
            .iter()
            .filter(|data| data.direction == Direction::Received && data.bytes.len() >= LEAST_KNOWN_AGAIN);
        let mut places = told.filter_map(|data| self.passed.get(&digest(data)));
        places.find(|place| self.is_free(**place)).copied()
    }

    /// Whether it is not known which session is at an end of a socket.
    pub(super) fn is_free(&self, (link, end): Place) -> bool {
        let socket = self.sockets.get(&link);
        socket.is_some_and(|socket| socket.sessions[end].is_none())
    }
}

/// What a call that moved plain text is known by at either end.
fn digest(data: &Data) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write_u32(data.span);
    hasher.write(&data.bytes[..data.bytes.len().min(MOST_COMPARED)]);
    hasher.finish()
}

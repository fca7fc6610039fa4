//! Sessions that are moved. rustls has them by value, and programs move them: once their handshake is done, when what came together
//! with its end has been read, and later. At another address a session looks like one of its own; that both are on one socket tells.

use super::{Data, LinkId, Pipeline, Place, Position, Role, StreamKey, Underlay, way};

/// A session that was moved.
#[derive(Debug)]
pub(super) struct Moved {
    /// What it was known by first.
    first: StreamKey,
    /// Bytes written and read until then.
    before: [u64; 2],
}

impl Underlay {
    /// What a session was known by before it was moved.
    pub(super) fn first(&self, key: StreamKey) -> Option<StreamKey> {
        self.moved.get(&key).map(|moved| moved.first)
    }

    /// Whether a session may still be moved: where it stays it both reads and writes.
    pub(super) fn is_on_its_way(&self, key: StreamKey) -> bool {
        self.moved_here(key).is_some_and(|moved| moved.contains(&0))
    }

    /// The socket of a session that with these bytes turns out to stay where it is.
    pub(super) fn settles(&self, data: &Data) -> Option<LinkId> {
        let moved = self.moved_here(data.key)?;
        let is_first = moved[way(data.direction)] == u64::from(data.span);
        let (link, _) = self.sessions.get(&data.key)?.socket?;
        (is_first && !moved.contains(&0)).then_some(link)
    }

    /// Bytes that a movable session has written and read at the place where it is.
    fn moved_here(&self, key: StreamKey) -> Option<[u64; 2]> {
        let session = self.sessions.get(&key).filter(|_| self.movable.contains(&key))?;
        let before = self.moved.get(&session.at).map_or([0; 2], |moved| moved.before);
        Some([0, 1].map(|way| session.moved[way].saturating_sub(before[way])))
    }

    /// Makes what was seen after a session was moved a part of what it was before.
    pub(super) fn rename(&self, data: &mut Data) {
        if let Some(moved) = self.moved.get(&data.key) {
            data.key = moved.first;
            if let Position::Total(at) = &mut data.position {
                *at += moved.before[way(data.direction)];
            }
        }
    }

    /// The session at an end of a socket, which has one in its life: `key`, or what that was before it was moved.
    pub(super) fn session_at(&mut self, key: StreamKey, (link, end): Place) -> StreamKey {
        let socket = self.sockets.get(&link);
        let first = socket.and_then(|socket| socket.sessions[end].or(socket.candidates[end]));
        let both = |first: &StreamKey| *first != key && [*first, key].iter().all(|key| self.movable.contains(key));
        let Some(first) = first.filter(both) else {
            return key;
        };
        let (Some(before), Some(after)) = (self.sessions.get(&first), self.sessions.get(&key)) else {
            return key;
        };
        if before.pid != after.pid || before.until > after.since || after.socket.is_some() {
            return key;
        }
        let before = before.moved;
        self.moved.entry(key, || Moved { first, before });
        self.joined.push(key);
        self.waiting.retain(|(_, waiting)| *waiting != key);
        let Some(mut after) = self.sessions.remove(&key) else {
            return first;
        };
        after.held.iter_mut().for_each(|data| self.rename(data));
        let Some(session) = self.sessions.get_mut(&first) else {
            return first;
        };
        session.at = key;
        session.until = after.until;
        for (all, more) in session.moved.iter_mut().zip(after.moved) {
            *all += more;
        }
        match session.role {
            Role::Unknown => session.held.append(&mut after.held),
            Role::Told => self.renamed.append(&mut after.held),
            Role::Shadow => {}
        }
        first
    }
}

impl Pipeline {
    /// A session may be moved.
    pub(crate) fn movable(&mut self, key: StreamKey) {
        self.underlay.movable.entry(key, || ());
    }

    /// What a session was known by before it was moved.
    pub(crate) fn first_of(&self, key: StreamKey) -> Option<StreamKey> {
        self.underlay.first(key)
    }

    /// What the kernel side knows a stream by: of a session that was moved the last of its keys.
    pub(crate) fn last_of(&self, key: StreamKey) -> StreamKey {
        self.underlay.sessions.get(&key).map_or(key, |session| session.at)
    }

    /// Makes plain text of a session that was moved a part of what it was before.
    pub(crate) fn rename(&self, data: &mut Data) {
        self.underlay.rename(data);
    }

    /// Sessions that turned out to be others, moved, are streams of their own no longer.
    pub(super) fn follow_moves(&mut self) {
        for key in std::mem::take(&mut self.underlay.joined) {
            if let Some((link, _)) = self.streams.find(key) {
                self.remove_link(link);
            }
        }
        for data in std::mem::take(&mut self.underlay.renamed) {
            self.read_on(data);
        }
    }
}

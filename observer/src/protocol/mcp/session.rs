//! Sessions of HTTP (2024-11-05 to 2025-11-25): begun with an id, ended by the client, by the server or by silence.

use std::sync::Arc;

use crate::protocol::event::Timestamp;
use crate::protocol::observation::Parties;
use crate::protocol::recent::Recent;

/// Sessions remembered; each is a few hundred bytes.
const MAX_SESSIONS: usize = 16_384;

/// How long a session may be silent before it is taken to be gone.
const IDLE: u64 = 30 * 60 * 1_000_000_000;

/// How often silent sessions are looked for.
const SWEEP: u64 = 60_000_000_000;

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// It was seen for the first time.
    Began,
    /// It is over.
    Ended {
        /// How.
        how: SessionEnd,
        /// Nanoseconds since its begin, where that was seen.
        duration: Option<u64>,
    },
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SessionEnd {
    /// The client sent DELETE.
    Deleted,
    /// The server did not know it any more (404).
    Expired,
    /// Its event stream ended (HTTP+SSE).
    Closed,
    /// Nothing was heard of it for half an hour.
    Idle,
    /// Too many others were remembered.
    Evicted,
}

impl SessionEnd {
    /// How it is called in lines and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::Evicted => "evicted",
        }
    }
}

/// The sessions that are known.
#[derive(Debug)]
pub(crate) struct Sessions {
    known: Recent<Arc<str>, Session>,
    swept: Timestamp,
}

#[derive(Debug)]
struct Session {
    parties: Parties,
    began: Option<Timestamp>,
    heard: Timestamp,
    /// An id that is used after its end makes no new session.
    over: bool,
}

/// A session's change and who took part in it.
pub(crate) type Told = (Parties, SessionChange);

impl Default for Sessions {
    fn default() -> Self {
        Self {
            known: Recent::new(MAX_SESSIONS),
            swept: Timestamp(0),
        }
    }
}

impl Sessions {
    /// A session is heard of; `began`: when it began, where that was seen.
    pub(crate) fn heard(&mut self, id: &str, parties: &Parties, began: Option<Timestamp>, now: Timestamp) -> Vec<Told> {
        if let Some(session) = self.known.get_mut(id) {
            session.heard = now;
            return Vec::new();
        }
        let mut told = Vec::new();
        if self.known.is_full()
            && let Some((_, mut oldest)) = self.known.pop_oldest()
        {
            told.extend(oldest.end(SessionEnd::Evicted, now));
        }
        self.known.entry(id.into(), || Session {
            parties: parties.clone(),
            began,
            heard: now,
            over: false,
        });
        told.push((parties.clone(), SessionChange::Began));
        told
    }

    /// A session is over.
    pub(crate) fn end(&mut self, id: &str, how: SessionEnd, now: Timestamp) -> Option<Told> {
        self.known.get_mut(id)?.end(how, now)
    }

    /// Whether a session was seen from its begin.
    pub(crate) fn is_whole(&self, id: &str) -> bool {
        self.known.get(id).is_some_and(|session| session.began.is_some())
    }

    /// Sessions that have been silent for too long; looked for once a minute.
    pub(crate) fn silent(&mut self, now: Timestamp) -> Vec<Told> {
        if now.since(self.swept) < SWEEP {
            return Vec::new();
        }
        self.swept = now;
        let mut told = Vec::new();
        self.known.retain(|session| {
            let silent = now.since(session.heard) >= IDLE;
            if silent {
                told.extend(session.end(SessionEnd::Idle, session.heard));
            }
            !silent
        });
        told
    }

    /// Sessions forgotten so far because there were too many.
    pub(crate) const fn evictions(&self) -> u64 {
        self.known.evictions
    }
}

impl Session {
    fn end(&mut self, how: SessionEnd, at: Timestamp) -> Option<Told> {
        if std::mem::replace(&mut self.over, true) {
            return None;
        }
        let duration = self.began.map(|began| at.since(began));
        Some((self.parties.clone(), SessionChange::Ended { how, duration }))
    }
}

//! What lies under TLS: which socket carries a session, so that its ends are known and both ends of one connection are one call.
//!
//! A library may move ciphertext by itself or leave that to its program, and tells neither. What tells is the neighbourhood: plain
//! text and ciphertext of one connection are moved by the same thread, one right after the other, and their lengths go together.
//!
//! ```text
//! thread:  SSL_write 310 ── send 332 ──►      plain text first when sending: 310 bytes, and a record around them
//!          recv 1045 ── SSL_read 1023 ──►     ciphertext first when receiving
//!          SSL_write ( send ) ──►             or one within the other: certain at once
//! ```
//!
//! Where that cannot be seen, since the socket has been muted when the plain text of its second end appears, the text itself tells:
//! what one end wrote is what the other reads.
//!
//! Of a connection whose two ends are both seen as plain text one is read, the client's where nothing was read before, and the other
//! adds who. What a server reads waits a moment to learn which it is: alone it is a call, else the other view of one.

mod ciphertext;
mod passed;
mod state;

use self::ciphertext::{go_together, is_record};
use self::state::{Role, Sent, Session, Socket, Thread};
use super::Pipeline;
use super::event::{Closed, Data, Direction, Opened, Pid, Source, StreamKey, Timestamp, Verdict};
use super::framing;
use super::observation::Side;
use super::recent::Recent;
use super::stream::LinkId;

/// Sessions, sockets and threads remembered; each takes some 100 bytes.
const MAX_REMEMBERED: usize = 16_384;

/// Calls that move ciphertext on one connection that are looked at.
const MAX_LOOKS: u32 = 64;

/// Neighbourhoods that prove that a socket carries a session: of one session, or one at each end of the connection.
const PROOF: u8 = 2;

/// Nanoseconds that what a server reads waits for the proof.
const MAX_WAIT: u64 = 300_000_000;

/// Bytes that wait of one session, and sessions of which any do.
const MAX_WAITING_BYTES: usize = 256 << 10;
const MAX_WAITING: usize = 1024;

/// An end of a socket's stream.
type Place = (LinkId, usize);

/// What is known of sessions and the sockets under them.
#[derive(Debug)]
pub(crate) struct Underlay {
    sessions: Recent<StreamKey, Session>,
    sockets: Recent<LinkId, Socket>,
    threads: Recent<u32, Thread>,
    /// Processes whose plain text is seen.
    processes: Recent<Pid, ()>,
    /// What was last written into connections whose other end is not known, and that end.
    passed: Recent<u64, Place>,
    /// Sessions of which something waits, the oldest first.
    waiting: Vec<(Timestamp, StreamKey)>,
}

impl Default for Underlay {
    fn default() -> Self {
        Self {
            sessions: Recent::new(MAX_REMEMBERED),
            sockets: Recent::new(MAX_REMEMBERED),
            threads: Recent::new(MAX_REMEMBERED),
            processes: Recent::new(MAX_REMEMBERED),
            passed: Recent::new(MAX_REMEMBERED),
            waiting: Vec::new(),
        }
    }
}

impl Underlay {
    /// Whether a socket moves ciphertext.
    pub(crate) fn knows(&self, link: LinkId) -> bool {
        self.sockets.contains(&link)
    }

    /// Takes in that plain text was moved; returns what this proves.
    fn plain(&mut self, data: &Data) -> Vec<(StreamKey, Place)> {
        let session = self.sessions.entry(data.key, || Session {
            pid: data.pid,
            role: Role::Unknown,
            client: false,
            socket: None,
            candidate: None,
            held: Vec::new(),
        });
        if session.role == Role::Unknown {
            let sender = framing::sender_of(&data.bytes);
            session.client |= sender.is_some_and(|side| (side == Side::Client) == (data.direction == Direction::Sent));
        }
        if let Some((link, end)) = session.socket {
            self.remember(data, (link, 1 - end));
            return Vec::new();
        }
        let thread = self.threads.entry(data.tid, Thread::default);
        let bytes = u64::from(data.span);
        let entered = data.entered.unwrap_or(data.returned);
        if data.direction == Direction::Sent {
            match &mut thread.sent {
                Some(sent) if sent.session == data.key => {
                    sent.bytes += bytes;
                    sent.calls += 1;
                    sent.returned = data.returned;
                }
                sent => {
                    *sent = Some(Sent {
                        session: data.key,
                        bytes,
                        calls: 1,
                        entered,
                        returned: data.returned,
                    });
                }
            }
            return Vec::new();
        }
        let Some((place, received, returned)) = thread.received.take() else {
            return Vec::new();
        };
        if entered <= returned && returned <= data.returned {
            self.prove(data.key, place, PROOF)
        } else if go_together(bytes, 1, received) {
            self.prove(data.key, place, 1)
        } else {
            Vec::new()
        }
    }

    /// Takes in that ciphertext was moved at an end of a socket; returns what this proves.
    fn cipher(&mut self, place: Place, data: &Data) -> Vec<(StreamKey, Place)> {
        let bytes = u64::from(data.span);
        let thread = self.threads.entry(data.tid, Thread::default);
        if data.direction == Direction::Received {
            thread.received = Some((place, bytes, data.returned));
            return Vec::new();
        }
        let Some(sent) = thread.sent.take() else {
            return Vec::new();
        };
        let entered = data.entered.unwrap_or(data.returned);
        if sent.entered <= entered && data.returned <= sent.returned {
            self.prove(sent.session, place, PROOF)
        } else if go_together(sent.bytes, sent.calls, bytes) {
            self.prove(sent.session, place, 1)
        } else {
            Vec::new()
        }
    }

    /// Takes in a neighbourhood of a session and a socket; returns the sessions whose socket is proved by it. A session that may be
    /// at the other end of the same connection proves it as well, and is proved.
    fn prove(&mut self, key: StreamKey, place: Place, proof: u8) -> Vec<(StreamKey, Place)> {
        let (link, end) = place;
        let socket = self.sockets.entry(link, Socket::default);
        socket.candidates[end] = Some(key);
        let other = socket.sessions[1 - end].or(socket.candidates[1 - end]);
        let Some(session) = self.sessions.get_mut(&key).filter(|session| session.socket.is_none()) else {
            return Vec::new();
        };
        let before = session.candidate.filter(|(other, _)| *other == place);
        let proof = before.map_or(0, |(_, proof)| proof) + proof;
        session.candidate = Some((place, proof));
        if other.is_none() && proof < PROOF {
            return Vec::new();
        }
        let other_place = (link, 1 - end);
        let unproved = |key: &StreamKey| {
            let session = self.sessions.get(key);
            session.is_some_and(|session| {
                session.socket.is_none() && session.candidate.is_some_and(|(place, _)| place == other_place)
            })
        };
        let other = other.filter(unproved).map(|other| (other, other_place));
        other.into_iter().chain([(key, place)]).collect()
    }

    /// Keeps what a session has read until it is known whose it is; gives it back where too much waits.
    fn hold(&mut self, data: Data, now: Timestamp) -> Vec<Data> {
        let key = data.key;
        let Some(session) = self.sessions.get_mut(&key) else {
            return vec![data];
        };
        if session.held.is_empty() {
            self.waiting.push((now, key));
        }
        session.held.push(data);
        let bytes: usize = session.held.iter().map(|data| data.bytes.len()).sum();
        if bytes > MAX_WAITING_BYTES || self.waiting.len() > MAX_WAITING {
            return self.release(key);
        }
        Vec::new()
    }

    /// A session is its own call: what it has read comes out.
    fn release(&mut self, key: StreamKey) -> Vec<Data> {
        self.waiting.retain(|(_, other)| *other != key);
        let Some(session) = self.sessions.get_mut(&key) else {
            return Vec::new();
        };
        session.role = Role::Told;
        std::mem::take(&mut session.held)
    }

    fn is_client(&self, key: StreamKey) -> bool {
        self.sessions.get(&key).is_some_and(|session| session.client)
    }

    fn role(&self, key: StreamKey) -> Role {
        self.sessions.get(&key).map_or(Role::Told, |session| session.role)
    }
}

impl Pipeline {
    /// Looks at a call on a socket that may move the ciphertext of a session.
    pub(crate) fn cipher_text(&mut self, place: Place, data: &Data) {
        if !is_record(&data.bytes) && !self.underlay.knows(place.0) {
            return;
        }
        let socket = self.underlay.sockets.entry(place.0, Socket::default);
        socket.looks += 1;
        if socket.looks > MAX_LOOKS {
            self.tell_verdict(place.0, Verdict::NotMcp);
        } else {
            for (session, place) in self.underlay.cipher(place, data) {
                self.bind(session, place);
            }
        }
    }

    /// Whether what is under TLS, perhaps, is still to be looked at when it is found to be no MCP itself.
    pub(crate) fn may_carry_tls(&self, link: LinkId) -> bool {
        let socket = self.underlay.sockets.get(&link);
        socket.is_some_and(|socket| socket.looks <= MAX_LOOKS && socket.sessions.contains(&None))
    }

    /// Takes plain text; returns what of it is to be worked through now.
    pub(crate) fn plain_text(&mut self, data: Data) -> Vec<Data> {
        if !self.underlay.processes.contains(&data.pid) {
            self.underlay.processes.entry(data.pid, || ());
            self.look_again(data.pid);
        }
        for (session, place) in self.underlay.plain(&data) {
            self.bind(session, place);
        }
        match self.underlay.role(data.key) {
            Role::Told => vec![data],
            Role::Shadow => {
                let (flow, at) = self.streams.locate(&data);
                self.streams.act(flow, at, data.pid);
                Vec::new()
            }
            Role::Unknown if self.underlay.is_client(data.key) => {
                let mut read = self.underlay.release(data.key);
                read.push(data);
                read
            }
            Role::Unknown => self.underlay.hold(data, self.now),
        }
    }

    /// Looks at the sockets of a process again that were muted while its library had no probes.
    fn look_again(&mut self, pid: Pid) {
        for link in self.streams.of_process(pid).to_vec() {
            if let Some(socket) = self.underlay.sockets.get_mut(&link) {
                socket.looks = 0;
                self.tell_verdict(link, Verdict::NotMcp);
            }
        }
    }

    /// It is known which end of a socket carries a session.
    fn bind(&mut self, key: StreamKey, (link, end): Place) {
        let socket = self.underlay.sockets.entry(link, Socket::default);
        socket.sessions[end] = Some(key);
        let other = socket.sessions[1 - end];
        let Some(session) = self.underlay.sessions.get_mut(&key) else {
            return;
        };
        session.socket = Some((link, end));
        let client = session.client;
        let Some(below) = self.streams.link(link) else { return };
        let ends = below.ends.clone();
        let other_in_sight = ends[1 - end].key.is_some();
        let opened = |key, end: usize, peer| Opened {
            key,
            source: Source::Tls,
            peer,
            inode: 0,
            local: ends[end].address,
            remote: ends[1 - end].address,
            netns: ends[end].netns,
            pid: Pid(0),
            time: Timestamp(0),
        };
        let Some(other) = other else {
            self.opened(&opened(key, end, None));
            self.streams.take_crew(key, (link, 1 - end));
            if !client && !other_in_sight {
                self.work_off(key);
            }
            return;
        };
        // What is being read goes on being read, since the other would have missed how it began: unless it is the server's end, read
        // for want of the client's.
        let instead = client && !self.underlay.is_client(other);
        let (shadow, shadow_end, told) = if instead || self.underlay.role(other) == Role::Unknown {
            (other, 1 - end, key)
        } else {
            (key, end, other)
        };
        if let Some(session) = self.underlay.sessions.get_mut(&shadow) {
            session.role = Role::Shadow;
            session.held.clear();
        }
        self.underlay.waiting.retain(|(_, other)| *other != shadow);
        self.work_off(told);
        self.opened(&opened(shadow, shadow_end, Some(told)));
        self.tell_verdict(link, Verdict::NotMcp);
    }

    /// What a session has read has waited long enough for its socket: it is the other view of a call, or read without.
    fn settle(&mut self, key: StreamKey) {
        if let Some(place) = self.underlay.known_again(key) {
            self.bind(key, place);
        }
        if self.underlay.role(key) == Role::Unknown {
            self.work_off(key);
        }
    }

    fn work_off(&mut self, key: StreamKey) {
        for data in self.underlay.release(key) {
            self.read_on(data);
        }
    }

    /// What has waited long enough for its socket is read without it.
    pub(crate) fn settle_sessions(&mut self) {
        while let Some((since, key)) = self.underlay.waiting.first().copied()
            && self.now.since(since) >= MAX_WAIT
        {
            self.settle(key);
        }
    }

    /// When [`Self::settle_sessions`] is wanted next.
    pub(crate) fn sessions_due(&self) -> Option<Timestamp> {
        self.underlay.waiting.first().map(|(since, _)| since.plus(MAX_WAIT))
    }

    /// A process has ended, and its sessions with it: no library tells.
    pub(crate) fn end_sessions(&mut self, pid: Pid, time: Timestamp) {
        self.underlay.processes.remove(&pid);
        let links = self.streams.of_process(pid).to_vec();
        let keys: Vec<StreamKey> = links
            .into_iter()
            .filter_map(|link| self.streams.link(link))
            .filter(|link| link.source == Some(Source::Tls))
            .flat_map(|link| link.ends.iter().filter_map(|end| end.key))
            .filter(|key| {
                self.underlay
                    .sessions
                    .get(key)
                    .is_some_and(|session| session.pid == pid)
            })
            .collect();
        for key in keys {
            self.closed(&Closed {
                key,
                direction: Direction::Sent,
                readers_left: false,
                writers_left: false,
                pid,
                time,
            });
        }
    }

    /// Whether the other end of a session's connection tells what goes through it.
    pub(crate) fn is_shadow(&self, key: StreamKey) -> bool {
        self.underlay
            .sessions
            .get(&key)
            .is_some_and(|session| session.role == Role::Shadow)
    }

    /// A session is over.
    pub(crate) fn forget_session(&mut self, key: StreamKey) {
        if self.underlay.sessions.contains(&key) {
            self.settle(key);
            self.underlay.sessions.remove(&key);
        }
    }

    /// A socket is over.
    pub(crate) fn forget_socket(&mut self, link: LinkId) {
        self.underlay.sockets.remove(&link);
    }
}

//! Sessions of TLS that begin and end above two connections, with whatever neighbours and texts.

use bytes::Bytes;

use super::super::Pipeline;
use super::super::event::{
    Data, Direction, Event, Missing, Opened, Pid, Position, Process, ProcessChange, Source, StreamKey, Timestamp,
};
use super::{check, closed, limits};

/// Connections of the stage; each has two sockets, and a session above each.
const CONNECTIONS: usize = 2;

/// What happens to the sessions of two connections, in the order of the input.
///
/// ```text
/// | what: 1 bit connection, 1 bit end, 1 bit read or written, 1 bit thread, 4 bits what happens | length | bytes …
/// ```
pub(super) fn tls(input: &[u8]) {
    let mut stage = Stage::new();
    let mut rest = input;
    while let [what, length, after @ ..] = rest {
        rest = after;
        let end = usize::from(what & 3);
        let direction = if what & 4 == 0 {
            Direction::Sent
        } else {
            Direction::Received
        };
        let thread = u32::from(what >> 3 & 1);
        stage.now += 50_000;
        match what >> 4 {
            0 => stage.now += u64::from(*length) * 10_000_000,
            1 => stage.close(Stage::socket(end)),
            2 => stage.close(stage.sessions[end]),
            3 | 4 => stage.begin(end),
            5 => stage.exit(end),
            6..=9 => {
                let record = [&[23, 3, 3][..], &vec![0xaa; 16 + usize::from(*length)]].concat();
                stage.data(Stage::socket(end), (end, direction, thread), &record);
            }
            _ => {
                let (bytes, after) = rest.split_at(rest.len().min(1 + usize::from(*length)));
                rest = after;
                stage.data(stage.sessions[end], (end, direction, thread), bytes);
            }
        }
        stage.pipeline.handle_timeout(Timestamp(stage.now));
        check(&mut stage.pipeline);
    }
    stage.pipeline.finish(Timestamp(stage.now + 1));
    check(&mut stage.pipeline);
}

struct Stage {
    pipeline: Pipeline,
    now: u64,
    /// The session that is at each end of a connection.
    sessions: [StreamKey; 2 * CONNECTIONS],
    /// Sessions so far.
    count: u64,
    /// Bytes written and read at each socket, and then at each session that is there.
    moved: [[u64; 2]; 4 * CONNECTIONS],
}

impl Stage {
    fn new() -> Self {
        let mut stage = Self {
            pipeline: Pipeline::new(limits()),
            now: 1_000_000_000,
            sessions: [StreamKey(0); 2 * CONNECTIONS],
            count: 0,
            moved: [[0; 2]; 4 * CONNECTIONS],
        };
        for end in 0..2 * CONNECTIONS {
            stage.open(Opened {
                peer: Some(Self::socket(end ^ 1)),
                ..stage.opened(Self::socket(end), Source::Tcp)
            });
        }
        for end in 0..2 * CONNECTIONS {
            stage.begin(end);
        }
        stage
    }

    /// The socket at an end.
    const fn socket(end: usize) -> StreamKey {
        StreamKey(end as u64 + 1)
    }

    const fn opened(&self, key: StreamKey, source: Source) -> Opened {
        Opened {
            key,
            source,
            peer: None,
            inode: key.0,
            local: None,
            remote: None,
            netns: 0,
            pid: Pid(1),
            time: Timestamp(self.now),
        }
    }

    fn open(&mut self, opened: Opened) {
        self.pipeline.handle_event(Event::Opened(opened));
    }

    /// A session begins at an end.
    fn begin(&mut self, end: usize) {
        self.count += 1;
        let key = StreamKey(100 + self.count);
        self.sessions[end] = key;
        self.moved[2 * CONNECTIONS + end] = [0; 2];
        self.open(self.opened(key, Source::Tls));
    }

    fn close(&mut self, key: StreamKey) {
        self.pipeline.handle_event(closed(key, self.now));
    }

    fn exit(&mut self, end: usize) {
        self.pipeline.handle_event(Event::Process(Process {
            pid: pid(end),
            change: ProcessChange::Exit { code: 0 },
            comm: String::new(),
            time: Timestamp(self.now),
        }));
    }

    /// Bytes are moved at an end of a connection: ciphertext through its socket, or plain text by its session.
    fn data(&mut self, key: StreamKey, (end, direction, thread): (usize, Direction, u32), bytes: &[u8]) {
        let Ok(span) = u32::try_from(bytes.len()) else { return };
        let cipher = key == Self::socket(end);
        let place = if cipher { end } else { 2 * CONNECTIONS + end };
        let position = &mut self.moved[place][usize::from(direction == Direction::Received)];
        let start = *position;
        *position += u64::from(span);
        let told = !cipher || direction == Direction::Sent;
        self.pipeline.handle_event(Event::Data(Data {
            key,
            direction,
            position: Position::Total(start),
            span,
            bytes: if told {
                Bytes::copy_from_slice(bytes)
            } else {
                Bytes::new()
            },
            missing: if told { Missing::Nothing } else { Missing::AtOtherEnd },
            pid: pid(end),
            tid: 10 * pid(end).0 + thread,
            entered: Some(Timestamp(self.now)),
            returned: Timestamp(self.now + 10_000),
        }));
    }
}

/// A process for the clients and one for the servers.
const fn pid(end: usize) -> Pid {
    Pid(if end.is_multiple_of(2) { 10 } else { 20 })
}

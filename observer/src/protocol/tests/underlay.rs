//! Sessions of TLS and the sockets under them.

use super::scene::{Line, Scene};
use crate::protocol::event::{Direction, Missing, Pid, Source, StreamKey, Verdict};
use crate::protocol::observation::{Call, Observation, Outcome, Output};

/// Client and server, each a process with one thread.
const CLIENT: u32 = 10;
const SERVER: u32 = 20;
const PIDS: [u32; 2] = [CLIENT, SERVER];

/// A connection: the sockets of both ends, and the sessions above them.
struct Connection {
    sockets: [u64; 2],
    sessions: [u64; 2],
}

impl Connection {
    fn open(scene: &mut Scene, first: u64) -> Self {
        let connection = Self::encrypted(scene, first);
        connection.open_sessions(scene);
        connection
    }

    /// Of which nobody sees more than ciphertext.
    fn encrypted(scene: &mut Scene, first: u64) -> Self {
        scene.socket(first, first + 1, Source::Tcp);
        Self {
            sockets: [first, first + 1],
            sessions: [first + 2, first + 3],
        }
    }

    fn open_sessions(&self, scene: &mut Scene) {
        for session in self.sessions {
            scene.open(session, None, Source::Tls);
        }
    }

    /// `from` writes plain text and then a record of it; the other end reads the record, and what `reads` says of the plain text.
    fn say(&self, scene: &mut Scene, from: usize, text: &str, reads: bool) {
        self.plain(scene, PIDS[from], from, Direction::Sent, text);
        self.cipher(scene, from, text.len());
        if reads {
            self.plain(scene, PIDS[1 - from], 1 - from, Direction::Received, text);
        }
    }

    /// `from` writes a record, and the other end reads it.
    fn cipher(&self, scene: &mut Scene, from: usize, plain: usize) {
        let (to, record) = (1 - from, [&[23, 3, 3][..], &vec![0xaa; plain + 19]].concat());
        let cipher = Line::Socket(self.sockets[from], self.sockets[to]);
        scene.write(PIDS[from], cipher, &record);
        scene.read(PIDS[to], cipher, record.len());
    }

    fn plain(&self, scene: &mut Scene, pid: u32, end: usize, direction: Direction, text: &str) {
        let key = self.sessions[end];
        // Each end counts by itself.
        let line = Line::Socket(key, if direction == Direction::Sent { 1000 } else { 2000 });
        if direction == Direction::Received {
            scene.skip(line, text.len());
        }
        scene.data(pid, line, key, direction, text.as_bytes(), text.len(), Missing::Nothing);
    }

    fn messages(id: u32) -> [String; 2] {
        let request = format!(
            "POST /mcp HTTP/1.1\r\nHost: h:1\r\nContent-Type: application/json\r\nContent-Length: 74\r\n\r\n\
             {{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"add\"}}}}         "
        );
        let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        [request, answer]
    }

    fn call(&self, scene: &mut Scene, id: u32, reads: [bool; 2]) {
        let [request, answer] = Self::messages(id);
        self.say(scene, 0, &request, reads[1]);
        self.say(scene, 1, &answer, reads[0]);
    }
}

fn parties(call: &Call) -> (Option<Pid>, Option<Pid>, bool) {
    (call.parties.client.pid, call.parties.server.pid, call.parties.tls)
}

#[test]
fn both_ends_of_a_connection_are_one_call() {
    let mut scene = Scene::new();
    let connection = Connection::open(&mut scene, 1);
    for id in 1..=3 {
        connection.call(&mut scene, id, [true, true]);
    }
    let calls = scene.calls();
    let expected = (Some(Pid(CLIENT)), Some(Pid(SERVER)), true);
    assert_eq!(calls.iter().map(parties).collect::<Vec<_>>(), [expected; 3]);
    assert!(calls.iter().all(|call| call.parties.server.address.is_some()));
}

#[test]
fn a_server_alone_knows_its_caller_by_the_socket() {
    let mut scene = Scene::new();
    let connection = Connection {
        sockets: [1, 2],
        sessions: [9, 4],
    };
    scene.socket(1, 2, Source::Tcp);
    scene.open(4, None, Source::Tls);
    for id in 1..=2 {
        connection.call(&mut scene, id, [false, true]);
    }
    // What the client's library does is not seen: its plain text is of a process nobody knows.
    let calls: Vec<_> = scene.calls().iter().map(parties).collect();
    assert!(
        calls.contains(&(Some(Pid(CLIENT)), Some(Pid(SERVER)), true)),
        "{calls:?}"
    );
}

#[test]
fn a_caller_is_known_by_a_socket_that_much_went_through() {
    let mut scene = Scene::new();
    let connection = Connection {
        sockets: [1, 2],
        sessions: [9, 4],
    };
    scene.socket(1, 2, Source::Tcp);
    let (up, record) = (
        Line::Socket(1, 2),
        [&[23, 3, 3][..], "ciphers\n".repeat(2 << 10).as_bytes()].concat(),
    );
    for _ in 0..8 {
        scene.write(CLIENT, up, &record);
        scene.read(SERVER, up, record.len());
    }
    scene.open(4, None, Source::Tls);
    for id in 1..=2 {
        connection.call(&mut scene, id, [false, true]);
    }
    let calls: Vec<_> = scene.calls().iter().map(parties).collect();
    assert!(
        calls.contains(&(Some(Pid(CLIENT)), Some(Pid(SERVER)), true)),
        "{calls:?}"
    );
}

#[test]
fn an_answer_is_read_after_the_server_has_closed() {
    let mut scene = Scene::new();
    let connection = Connection::open(&mut scene, 1);
    connection.call(&mut scene, 1, [true, true]);
    let [request, answer] = Connection::messages(2);
    connection.say(&mut scene, 0, &request, true);
    connection.say(&mut scene, 1, &answer, false);
    scene.close(SERVER, connection.sessions[1]);
    connection.plain(&mut scene, CLIENT, 0, Direction::Received, &answer);
    scene.close(CLIENT, connection.sessions[0]);
    let told: Vec<_> = scene.calls().iter().map(|call| call.outcome).collect();
    assert_eq!(told, [Outcome::Ok; 2]);
}

#[test]
fn connections_of_one_thread_are_told_apart() {
    let mut scene = Scene::new();
    let (one, other) = (Connection::open(&mut scene, 1), Connection::open(&mut scene, 11));
    for id in 1..=3 {
        one.call(&mut scene, id, [true, true]);
        other.call(&mut scene, id + 10, [true, true]);
    }
    assert_eq!(scene.calls().len(), 6);
}

#[test]
fn a_server_that_speaks_first_is_none_the_less_a_server() {
    let mut scene = Scene::new();
    let connection = Connection::open(&mut scene, 1);
    // The answer to a request that nobody saw.
    let answer = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
    connection.say(&mut scene, 1, answer, true);
    for id in 1..=3 {
        connection.call(&mut scene, id, [true, true]);
    }
    let calls = scene.calls();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| call.timing.client_duration.is_some()));
}

#[test]
fn a_server_joined_in_the_middle_of_its_answer_is_no_client() {
    let mut scene = Scene::new();
    let connection = Connection::open(&mut scene, 1);
    let [request, answer] = Connection::messages(1);
    connection.say(&mut scene, 0, &request, false);
    // Its library gets its probes when half of the answer is out.
    connection.plain(&mut scene, SERVER, 1, Direction::Sent, &answer[answer.len() / 2..]);
    connection.cipher(&mut scene, 1, answer.len());
    connection.plain(&mut scene, CLIENT, 0, Direction::Received, &answer);
    for id in 2..=4 {
        connection.call(&mut scene, id, [true, true]);
    }
    let calls = scene.calls();
    let calls: Vec<_> = calls.iter().map(|call| call.parties.client.pid).collect();
    assert_eq!(calls, [Some(Pid(CLIENT)); 4]);
}

#[test]
fn a_server_whose_socket_is_muted_is_known_by_what_it_reads() {
    let mut scene = Scene::new();
    let connection = Connection::open(&mut scene, 1);
    for id in 1..=5 {
        let [request, answer] = Connection::messages(id);
        // The server's library gets its probes when nobody looks at the ciphertext any more.
        let late = id > 3;
        connection.plain(&mut scene, CLIENT, 0, Direction::Sent, &request);
        if late {
            connection.plain(&mut scene, SERVER, 1, Direction::Received, &request);
            connection.plain(&mut scene, SERVER, 1, Direction::Sent, &answer);
        } else {
            connection.cipher(&mut scene, 0, request.len());
            connection.cipher(&mut scene, 1, answer.len());
            // No neighbour of anything.
            connection.cipher(&mut scene, 0, 5000);
        }
        connection.plain(&mut scene, CLIENT, 0, Direction::Received, &answer);
    }
    scene.wait(1_000_000_000);
    let calls: Vec<_> = scene.calls().iter().map(|call| call.parties.client.pid).collect();
    assert_eq!(calls, [Some(Pid(CLIENT)); 5]);
}

#[test]
fn a_server_read_for_want_of_its_client_gives_way_to_it() {
    let mut scene = Scene::new();
    let connection = Connection::open(&mut scene, 1);
    let [request, _] = Connection::messages(1);
    // Where the threads of the server tell nothing, it is read by itself in the end.
    connection.plain(&mut scene, SERVER, 1, Direction::Received, &request);
    scene.wait(1_000_000_000);
    for id in 2..=5 {
        connection.call(&mut scene, id, [true, true]);
    }
    let calls = scene.calls();
    let last = calls.iter().rev().take(3).map(parties).collect::<Vec<_>>();
    assert_eq!(last, [(Some(Pid(CLIENT)), Some(Pid(SERVER)), true); 3]);
    assert!(
        calls
            .iter()
            .rev()
            .take(3)
            .all(|call| call.timing.client_duration.is_some())
    );
}

#[test]
fn a_server_joined_after_the_preface_is_no_client() {
    let mut scene = Scene::new();
    let connection = Connection::open(&mut scene, 1);
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = "\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";
    // The server reads the preface by itself, before its library has its probes.
    connection.plain(&mut scene, CLIENT, 0, Direction::Sent, &[preface, settings].concat());
    // What the client's thread does tells nothing at first.
    connection.cipher(&mut scene, 0, 5000);
    connection.plain(&mut scene, SERVER, 1, Direction::Received, settings);
    let acknowledged = "\0\0\0\x04\x01\0\0\0\0";
    for said in [settings, acknowledged] {
        connection.plain(&mut scene, SERVER, 1, Direction::Sent, said);
        connection.cipher(&mut scene, 1, said.len());
    }
    let request = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"add\"}}";
    let frame = |kind: u8, flags: u8, payload: &[u8]| -> String {
        let length = u8::try_from(payload.len()).unwrap();
        let bytes = [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat();
        String::from_utf8(bytes).unwrap()
    };
    // POST /mcp by https, literally, with the type of its content.
    let fields = b"\x04\x04/mcp\x0f\x10\x10application/json\0\x07:method\x04POST\0\x07:scheme\x05https";
    let asked = [frame(1, 4, fields), frame(0, 1, request.as_bytes())].concat();
    connection.say(&mut scene, 0, &asked, true);
    let result = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[]}}";
    let fields = b"\x08\x03200\x0f\x10\x10application/json";
    let answered = [frame(1, 4, fields), frame(0, 1, result.as_bytes())].concat();
    connection.say(&mut scene, 1, &answered, true);
    scene.wait(1_000_000_000);
    let calls = scene.calls();
    assert_eq!(calls.len(), 1);
    assert!(calls.iter().all(|call| call.timing.client_duration.is_some()));
}

#[test]
fn a_muted_socket_is_looked_at_again_when_plain_text_is_seen() {
    let mut scene = Scene::new();
    let connection = Connection::encrypted(&mut scene, 1);
    for _ in 0..100 {
        connection.cipher(&mut scene, 0, 300);
        connection.cipher(&mut scene, 1, 300);
    }
    // Its library gets its probes only now.
    connection.open_sessions(&mut scene);
    for id in 1..=3 {
        connection.call(&mut scene, id, [true, true]);
    }
    scene.wait(2_000_000_000);
    let (mut verdicts, mut calls) = (Vec::new(), Vec::new());
    for output in scene.outputs() {
        match output {
            Output::Verdict(StreamKey(1), verdict) => verdicts.push(verdict),
            Output::Observation(Observation::Call(call)) => calls.push(parties(&call)),
            _ => {}
        }
    }
    assert_eq!(verdicts, [Verdict::NotMcp, Verdict::HeadsOnly, Verdict::NotMcp]);
    assert_eq!(calls, [(Some(Pid(CLIENT)), Some(Pid(SERVER)), true); 3]);
}

#[test]
fn a_socket_is_muted_once_both_ends_are_known() {
    let mut scene = Scene::new();
    let connection = Connection::open(&mut scene, 1);
    for id in 1..=3 {
        connection.call(&mut scene, id, [true, true]);
    }
    scene.wait(2_000_000_000);
    let muted = Output::Verdict(StreamKey(1), Verdict::NotMcp);
    assert!(scene.outputs().contains(&muted));
}

//! Whatever is cut, dropped or mixed: the same observations or a counted loss, and every byte accounted for.

use fluke_hpack::Encoder;
use proptest::prelude::*;

use super::scene::{MILLI, Scene, lines};
use crate::protocol::observation::{MalformedReason as Reason, Observation, Output};

/// Who writes (`true`: the client) what.
type Steps = Vec<(bool, Vec<u8>)>;

/// What carries a session.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Carrier {
    Lines,
    Http1,
    /// HTTP/1.1 whose answers are event streams in chunks.
    Http1Events,
    Http2,
    Http2Events,
}

fn any_carrier() -> impl Strategy<Value = Carrier> {
    use Carrier::{Http1, Http1Events, Http2, Http2Events, Lines};
    proptest::sample::select(vec![Lines, Http1, Http1Events, Http2, Http2Events])
}

/// A session of five calls.
fn session(name: &str, carrier: Carrier) -> Steps {
    let mut steps = Vec::new();
    for id in 0..5 {
        steps.push((
            true,
            format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"{name}{id}\"}}}}\n"
            ),
        ));
        steps.push((
            false,
            format!("{{\"result\":{{\"content\":[]}},\"jsonrpc\":\"2.0\",\"id\":{id}}}\n"),
        ));
    }
    match carrier {
        Carrier::Lines => steps.into_iter().map(|(client, body)| (client, body.into())).collect(),
        Carrier::Http1 => steps.iter().map(http1).collect(),
        Carrier::Http1Events => steps.iter().map(http1_events).collect(),
        Carrier::Http2 => http2(&steps, "application/json"),
        Carrier::Http2Events => {
            let steps: Vec<_> = steps
                .into_iter()
                .map(|(client, body)| (client, if client { body } else { event(&body) }))
                .collect();
            http2(&steps, "text/event-stream")
        }
    }
}

/// A priming event without data, a comment and the message, its line in two.
fn event(body: &str) -> String {
    format!(
        "id: 1\ndata:\n\n: ping\nevent: message\ndata: {}\ndata: \n\n",
        body.trim_end()
    )
}

fn http1_events((client, body): &(bool, String)) -> (bool, Vec<u8>) {
    if *client {
        return http1(&(true, body.clone()));
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let events = event(body);
    let (one, two) = events.split_at(events.len() / 2);
    let text = format!(
        "{head}{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
        one.len(),
        two.len()
    );
    (false, text.into())
}

fn http1((client, body): &(bool, String)) -> (bool, Vec<u8>) {
    let head = if *client {
        "POST /mcp HTTP/1.1"
    } else {
        "HTTP/1.1 200 OK"
    };
    let length = body.len();
    let text = format!("{head}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    (*client, text.into())
}

/// `media` is that of the answers.
fn http2(steps: &[(bool, String)], media: &str) -> Steps {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let mut encoders = [Encoder::new(), Encoder::new()];
    let mut all = vec![
        (
            true,
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..]].concat(),
        ),
        (false, frame(4, 0, 0, &[])),
    ];
    for (index, (client, body)) in steps.iter().enumerate() {
        let stream = u32::try_from(index / 2).unwrap() * 2 + 1;
        let start: &[(&str, &str)] = if *client {
            &[(":method", "POST"), (":path", "/mcp"), ("user-agent", "a/1")]
        } else {
            &[(":status", "200"), ("server", "b/1")]
        };
        let media = if *client { "application/json" } else { media };
        let rest = [("content-type", media), ("x-id", "7")];
        let fields = start.iter().chain(&rest);
        let fields = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let head = frame(1, 4, stream, &encoders[usize::from(*client)].encode(fields));
        all.push((*client, [head, frame(0, 1, stream, body.as_bytes())].concat()));
    }
    all
}

/// Plays steps cut at `cuts` on keys from `key` on, leaving out the pieces numbered in `dropped`.
fn play(scene: &mut Scene, key: u64, steps: &[(bool, Vec<u8>)], cuts: &[usize], dropped: &[usize]) {
    let source = crate::protocol::event::Source::Tcp;
    let (up, down) = scene.socket(key, key + 1, source);
    let mut pieces = 0;
    for (client, bytes) in steps {
        let (line, from, to) = if *client { (up, 10, 20) } else { (down, 20, 10) };
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle().take(cuts.len() * 4) {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            rest = after;
            pieces += 1;
            if dropped.contains(&pieces) {
                scene.skip(line, piece.len());
            } else if !piece.is_empty() {
                scene.write(from, line, piece);
                scene.read(to, line, piece.len());
            }
            scene.audit();
        }
        if !rest.is_empty() {
            scene.write(from, line, rest);
            scene.read(to, line, rest.len());
        }
    }
}

fn calls(outputs: &[Output]) -> Vec<String> {
    let is_call = |output: &&Output| matches!(output, Output::Observation(Observation::Call(_)));
    let calls: Vec<Output> = outputs.iter().filter(is_call).cloned().collect();
    let mut calls: Vec<String> = lines(&calls).lines().map(str::to_owned).collect();
    calls.sort();
    calls
}

fn finish(scene: &mut Scene) -> Vec<Output> {
    // Holes are given up first, then the calls that end nowhere.
    for seconds in [1, 1, 400, 1] {
        scene.wait(seconds * 1_000 * MILLI);
    }
    scene.outputs()
}

/// What a stream lets go while it rests, in the middle of a message or between two, is not missed.
#[test]
fn rest_changes_nothing() {
    for carrier in [Carrier::Lines, Carrier::Http1, Carrier::Http2] {
        for length in [37, 10_000] {
            let told = [0, 3_000].map(|pause| {
                let mut scene = Scene::new();
                let (up, down) = scene.socket(1, 2, crate::protocol::event::Source::Tcp);
                for (client, bytes) in session("t", carrier) {
                    let (line, from, to) = if client { (up, 10, 20) } else { (down, 20, 10) };
                    for piece in bytes.chunks(length) {
                        scene.write(from, line, piece);
                        scene.read(to, line, piece.len());
                        scene.wait(pause * MILLI);
                    }
                }
                calls(&finish(&mut scene))
            });
            assert_eq!(
                (told[0].len(), &told[0]),
                (5, &told[1]),
                "{carrier:?} in pieces of {length}"
            );
        }
    }
}

/// The first response begins with a hole that nobody knows of, the second request is lost: what comes next answers neither.
#[test]
fn responses_out_of_step_with_their_requests() {
    let mut scene = Scene::new();
    play(&mut scene, 1, &session("t", Carrier::Http1), &[1, 1, 1, 37], &[17, 33]);
    let told = calls(&finish(&mut scene));
    assert!(
        told.iter()
            .all(|call| call.contains(" ok 200") || call.contains("unanswered")),
        "{told:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cutting_anywhere_changes_nothing(cuts in proptest::collection::vec(1_usize..60, 1..8), carrier in any_carrier()) {
        let steps = session("t", carrier);
        let mut whole = Scene::new();
        play(&mut whole, 1, &steps, &[100_000], &[]);
        let expected = calls(&finish(&mut whole));
        prop_assert_eq!(expected.len(), 5);
        let mut cut = Scene::new();
        play(&mut cut, 1, &steps, &cuts, &[]);
        prop_assert_eq!(calls(&finish(&mut cut)), expected);
    }

    #[test]
    fn dropping_anything_is_told(
        cuts in proptest::collection::vec(1_usize..60, 1..8),
        dropped in proptest::collection::vec(0_usize..100, 1..4),
        carrier in any_carrier(),
    ) {
        let steps = session("t", carrier);
        let mut scene = Scene::new();
        play(&mut scene, 1, &steps, &cuts, &dropped);
        let outputs = finish(&mut scene);
        let begun = outputs.iter().filter(|output| matches!(output, Output::Observation(Observation::CallBegan(_)))).count();
        let ended = calls(&outputs).len();
        prop_assert_eq!(begun, ended);
        prop_assert!(ended <= 5);
        // Nobody broke a rule that only a stream seen whole can show.
        for output in &outputs {
            if let Output::Observation(Observation::Malformed { reason, .. }) = output {
                let seen = matches!(reason, Reason::BadJson | Reason::BadHttp | Reason::StrayOutput | Reason::NotJsonRpc);
                prop_assert!(seen, "{}", lines(&outputs));
            }
        }
        // Every call was good: of what was lost no other outcome may be made.
        for call in calls(&outputs) {
            prop_assert!(call.contains(" ok 200") || call.contains("unanswered"), "{}", lines(&outputs));
        }
    }

    #[test]
    fn mixing_streams_changes_nothing(seed in any::<u64>(), carriers in [any_carrier(), any_carrier()]) {
        let mut scene = Scene::new();
        let (a, b) = (session("a", carriers[0]), session("b", carriers[1]));
        let lines_a = scene.socket(1, 2, crate::protocol::event::Source::Unix);
        let lines_b = scene.socket(3, 4, crate::protocol::event::Source::Tcp);
        let (mut at_a, mut at_b, mut bits) = (0, 0, seed);
        while at_a < a.len() || at_b < b.len() {
            bits = bits.rotate_left(1);
            let pick_a = at_b == b.len() || (at_a < a.len() && bits & 1 == 0);
            let (step, lines) = if pick_a { (&a[at_a], lines_a) } else { (&b[at_b], lines_b) };
            if pick_a { at_a += 1 } else { at_b += 1 }
            let (line, from, to) = if step.0 { (lines.0, 10, 20) } else { (lines.1, 20, 10) };
            scene.write(from, line, &step.1);
            scene.read(to, line, step.1.len());
            scene.audit();
        }
        let told = calls(&finish(&mut scene));
        prop_assert_eq!(told.len(), 10);
        prop_assert!(told.iter().all(|call| call.contains(" ok 200")));
    }

    #[test]
    fn joining_at_any_point_makes_nothing_up(step in 0_usize..12, offset in 0_usize..300, carrier in any_carrier()) {
        let steps = session("t", carrier);
        let step = step.min(steps.len() - 1);
        let offset = offset.min(steps[step].1.len() - 1);
        let mut scene = Scene::new();
        let (up, down) = scene.socket(1, 2, crate::protocol::event::Source::Tcp);
        for (number, (client, bytes)) in steps.iter().enumerate() {
            let (line, from, to) = if *client { (up, 10, 20) } else { (down, 20, 10) };
            let unseen = if number < step { bytes.len() } else if number == step { offset } else { 0 };
            scene.skip(line, unseen);
            if unseen < bytes.len() {
                scene.write(from, line, &bytes[unseen..]);
                scene.read(to, line, bytes.len() - unseen);
                scene.audit();
            }
        }
        let outputs = finish(&mut scene);
        let told = calls(&outputs);
        let good = |call: &String| call.contains(" ok 200") || call.contains("unanswered");
        prop_assert!(told.len() <= 5 && told.iter().all(good), "{}", lines(&outputs));
        // Requests that begin after are told with their answers. HTTP/2 begins with two writes of settings, and the middle of a
        // write may look like a frame that is longer than all of this.
        let http2 = matches!(carrier, Carrier::Http2 | Carrier::Http2Events);
        let first = if http2 { 2 } else { 0 };
        for id in (0..5).filter(|id| (first + 2 * id > step && !(http2 && offset > 0)) || (first + 2 * id == step && offset == 0)) {
            let call = format!("tools/call t{id} id={id} ok 200");
            prop_assert!(told.iter().any(|line| line.contains(&call)), "{id} is missing: {}", lines(&outputs));
        }
    }

    #[test]
    fn any_frames_of_http2_at_all(
        frames in proptest::collection::vec(
            (any::<bool>(), 0_u8..11, any::<u8>(), 0_u32..8, proptest::collection::vec(any::<u8>(), 0..40), 0_usize..100),
            0..40,
        ),
    ) {
        let mut scene = Scene::new();
        let (up, down) = scene.socket(1, 2, crate::protocol::event::Source::Tcp);
        // A call that is good shows that the connection is MCP, so that every loss counts.
        for (client, bytes) in session("t", Carrier::Http2).into_iter().take(4) {
            let (line, from, to) = if client { (up, 10, 20) } else { (down, 20, 10) };
            scene.write(from, line, &bytes);
            scene.read(to, line, bytes.len());
        }
        for (client, kind, flags, stream, payload, hole) in frames {
            let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
            let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), &payload].concat();
            let (line, from) = if client { (up, 10) } else { (down, 20) };
            scene.write(from, line, &frame);
            if hole < 10 {
                scene.skip(line, hole + 1);
            }
            scene.wait(30 * MILLI);
        }
        let outputs = finish(&mut scene);
        let ended = calls(&outputs);
        prop_assert!(ended.iter().any(|call| call.contains("t0 id=0 ok 200")), "{}", lines(&outputs));
    }

    #[test]
    fn any_bytes_at_all(pieces in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200)), 0..20)) {
        let mut scene = Scene::new();
        let (up, down) = scene.socket(1, 2, crate::protocol::event::Source::Tcp);
        for (client, piece) in &pieces {
            if !piece.is_empty() {
                scene.write(10, if *client { up } else { down }, piece);
                scene.wait(30 * MILLI);
            }
        }
        finish(&mut scene);
    }
}

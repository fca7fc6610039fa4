//! Whatever is cut, dropped or mixed: the same observations or a counted loss, and every byte accounted for.

use proptest::prelude::*;

use super::scene::{MILLI, Scene, lines};
use crate::protocol::observation::{MalformedReason as Reason, Observation, Output};

/// A session: who writes (`true`: the client) what.
fn session(name: &str) -> Vec<(bool, String)> {
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
    steps
}

fn http(steps: &[(bool, String)]) -> Vec<(bool, String)> {
    let dress = |(client, body): &(bool, String)| {
        let head = if *client {
            "POST /mcp HTTP/1.1"
        } else {
            "HTTP/1.1 200 OK"
        };
        (
            *client,
            format!(
                "{head}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
    };
    steps.iter().map(dress).collect()
}

/// Plays steps cut at `cuts` on keys from `key` on, leaving out the pieces numbered in `dropped`.
fn play(scene: &mut Scene, key: u64, steps: &[(bool, String)], cuts: &[usize], dropped: &[usize]) {
    let source = crate::protocol::event::Source::Tcp;
    let (up, down) = scene.socket(key, key + 1, source);
    let mut pieces = 0;
    for (client, text) in steps {
        let (line, from, to) = if *client { (up, 10, 20) } else { (down, 20, 10) };
        let mut rest = text.as_bytes();
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

/// The first response begins with a hole that nobody knows of, the second request is lost: what comes next answers neither.
#[test]
fn responses_out_of_step_with_their_requests() {
    let mut scene = Scene::new();
    play(&mut scene, 1, &http(&session("t")), &[1, 1, 1, 37], &[17, 33]);
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
    fn cutting_anywhere_changes_nothing(cuts in proptest::collection::vec(1_usize..60, 1..8), web in any::<bool>()) {
        let steps = if web { http(&session("t")) } else { session("t") };
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
        web in any::<bool>(),
    ) {
        let steps = if web { http(&session("t")) } else { session("t") };
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
    fn mixing_streams_changes_nothing(seed in any::<u64>(), web in any::<bool>()) {
        let mut scene = Scene::new();
        let (a, b) = (session("a"), if web { http(&session("b")) } else { session("b") });
        let lines_a = scene.socket(1, 2, crate::protocol::event::Source::Unix);
        let lines_b = scene.socket(3, 4, crate::protocol::event::Source::Tcp);
        let (mut at_a, mut at_b, mut bits) = (0, 0, seed);
        while at_a < a.len() || at_b < b.len() {
            bits = bits.rotate_left(1);
            let pick_a = at_b == b.len() || (at_a < a.len() && bits & 1 == 0);
            let (step, lines) = if pick_a { (&a[at_a], lines_a) } else { (&b[at_b], lines_b) };
            if pick_a { at_a += 1 } else { at_b += 1 }
            let (line, from, to) = if step.0 { (lines.0, 10, 20) } else { (lines.1, 20, 10) };
            scene.say(from, line, to, &step.1);
        }
        let told = calls(&finish(&mut scene));
        prop_assert_eq!(told.len(), 10);
        prop_assert!(told.iter().all(|call| call.contains(" ok 200")));
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

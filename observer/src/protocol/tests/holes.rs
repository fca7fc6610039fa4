//! What was lost on the way to us, or told late: nothing is claimed that is not known.

use insta::assert_snapshot;

use super::scene::{MILLI, Scene};
use crate::protocol::event::{Missing, Source};

fn call(id: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"add\"}}}}")
}

fn result(id: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}")
}

fn post(body: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn what_a_stream_is_holds_from_its_first_byte() {
    // The kernel tells it within the first call, which was entered before.
    let mut scene = Scene::new();
    let up = scene.pipe(1);
    scene.say(10, up, 20, &(call(1) + "\n"));
    let down = super::scene::Line::Pipe(2);
    scene.write(20, down, (result(1) + "\n").as_bytes());
    scene.open(2, None, Source::Pipe);
    scene.read(10, down, result(1).len() + 1);
    let calls = scene.calls();
    assert_eq!(calls[0].timing.client_duration.map(|time| time / 1000), Some(310));
}

#[test]
fn a_read_that_was_not_seen_is_not_made_up() {
    let mut scene = Scene::new();
    let (up, down) = (scene.pipe(1), scene.pipe(2));
    for id in 1..=2 {
        scene.say(10, up, 20, &(call(id) + "\n"));
        scene.write(20, down, (result(id) + "\n").as_bytes());
        if id == 2 {
            scene.read(10, down, result(id).len() + 1);
        }
    }
    let known: Vec<bool> = scene
        .calls()
        .iter()
        .map(|call| call.timing.client_duration.is_some())
        .collect();
    assert_eq!(known, [false, true]);
}

#[test]
fn a_reader_that_takes_its_time_still_counts() {
    let mut scene = Scene::new();
    let (up, down) = (scene.pipe(1), scene.pipe(2));
    scene.say(10, up, 20, &(call(1) + "\n"));
    scene.write(20, down, (result(1) + "\n").as_bytes());
    scene.wait(900 * MILLI);
    scene.read(10, down, result(1).len() + 1);
    assert!(
        scene.calls()[0]
            .timing
            .client_duration
            .is_some_and(|time| time > 900 * MILLI)
    );
}

#[test]
fn a_server_that_reads_late_and_is_killed() {
    let mut scene = Scene::new();
    let (up, _) = scene.socket(1, 2, Source::Unix);
    scene.write(10, up, (call(1) + "\n").as_bytes());
    scene.wait(600 * MILLI);
    scene.read(20, up, call(1).len() + 1);
    scene.exit(20);
    scene.close(10, 1);
    assert_snapshot!(scene.told(), @r"
    exit 20 9
    call tools/call add id=1 server_gone 502 10→20 stdio server
    ");
}

#[test]
fn a_socket_whose_place_was_used_again_has_no_second_peer() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Unix);
    scene.say(10, up, 20, &(call(1) + "\n"));
    // The kernel side found the old end where the new one's other end lies.
    scene.open(3, Some(2), Source::Unix);
    scene.open(4, Some(3), Source::Unix);
    let new = super::scene::Line::Socket(3, 4);
    scene.say(20, down, 10, &(result(1) + "\n"));
    scene.say(11, new, 21, &(call(7) + "\n"));
    scene.say(21, super::scene::Line::Socket(4, 3), 11, &(result(7) + "\n"));
    assert_snapshot!(scene.told(), @r"
    call tools/call add id=1 ok 200 10→20 stdio server
    call tools/call add id=7 ok 200 11→21 stdio server
    ");
}

#[test]
fn an_answer_whose_request_was_lost_is_not_the_next_ones() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    scene.say(10, up, 20, &post(&call(1)));
    scene.say(20, down, 10, &answer("200 OK", &result(1)));
    scene.skip(up, post(&call(2)).len());
    scene.say(20, down, 10, &answer("404 Not Found", "gone"));
    scene.say(10, up, 20, &post(&call(3)));
    scene.say(20, down, 10, &answer("200 OK", &result(3)));
    assert_snapshot!(scene.told(), @r"
    call tools/call add id=1 ok 200 10→20 streamable_http server
    call tools/call add id=3 ok 200 10→20 streamable_http server lossy
    ");
}

#[test]
fn a_request_whose_answer_was_lost_does_not_get_the_next_ones() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    scene.say(10, up, 20, &post(&call(1)));
    scene.say(20, down, 10, &answer("200 OK", &result(1)));
    scene.say(10, up, 20, &post(&call(2)));
    scene.skip(down, answer("200 OK", &result(2)).len());
    scene.say(10, up, 20, &post(&call(3)));
    scene.say(20, down, 10, &answer("503 Slow Down", "later"));
    scene.wait(1_000 * MILLI);
    scene.wait(1_000 * MILLI);
    scene.wait(400_000 * MILLI);
    assert_snapshot!(scene.told(), @r"
    call tools/call add id=1 ok 200 10→20 streamable_http server
    call tools/call add id=3 http_error 503 10→20 streamable_http server lossy
    call tools/call add id=2 unanswered 504 10→20 streamable_http server lossy
    ");
}

#[test]
fn an_answer_to_a_request_that_was_not_seen_breaks_no_rule() {
    let mut scene = Scene::new();
    let (up, down) = scene.socket(1, 2, Source::Tcp);
    scene.say(10, up, 20, &post(&call(1)));
    // Before anything was seen of its answers, and of the next request, they went by.
    scene.skip(down, answer("200 OK", &result(1)).len());
    scene.skip(up, post(&call(2)).len());
    scene.say(20, down, 10, &answer("200 OK", &result(2)));
    for seconds in [1, 1, 400] {
        scene.wait(seconds * 1_000 * MILLI);
    }
    let told = scene.told();
    assert!(
        told.contains("lost orphan_response") && told.contains("id=1 unanswered"),
        "{told}"
    );
    assert!(!told.contains("malformed"), "{told}");
}

#[test]
fn what_the_kernel_lost_is_not_counted_twice() {
    let mut scene = Scene::new();
    let up = scene.pipe(1);
    scene.say(10, up, 20, &(call(1) + "\n"));
    // No record of the next message; the reader's of it came.
    scene.skip(up, call(2).len() + 1);
    scene.read(20, up, call(2).len() + 1);
    scene.say(10, up, 20, &(call(3) + "\n"));
    // The sender leaves the rest to a reader that never comes.
    scene.write_span(10, up, b"{\"jsonrpc\"", 1_000, Missing::AtOtherEnd);
    scene.say(10, up, 20, &(call(4) + "\n"));
    scene.wait(1_000 * MILLI);
    scene.wait(1_000 * MILLI);
    scene.wait(400_000 * MILLI);
    assert_snapshot!(scene.told(), @r"
    lost missing 990
    lost resync 10
    call tools/call add id=1 unanswered 504 10→20 stdio server lossy
    call tools/call add id=3 unanswered 504 10→20 stdio server lossy
    call tools/call add id=4 unanswered 504 10→20 stdio server lossy
    ");
}

#[test]
fn many_holes_wait_at_the_same_time() {
    let mut scene = Scene::new();
    let up = scene.pipe(1);
    for id in 0..50 {
        scene.say(10, up, 20, &(call(id) + "\n"));
        scene.skip(up, 100);
    }
    scene.wait(300 * MILLI);
    assert_eq!(scene.pipeline.census().pending, 50);
}

#[test]
fn a_stream_that_ends_gives_out_what_waits_behind_holes() {
    let mut scene = Scene::new();
    let (up, down) = (scene.pipe(1), scene.pipe(2));
    scene.say(10, up, 20, &(call(1) + "\n"));
    scene.skip(up, 100);
    scene.say(10, up, 20, &(call(2) + "\n"));
    scene.say(20, down, 10, &(result(2) + "\n"));
    scene.close(10, 1);
    scene.wait(30 * MILLI);
    assert_eq!(scene.calls().len(), 2);
}

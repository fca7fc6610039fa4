//! What a client does, the same in every SDK; `../python/scenarios.py` and `../node/scenarios.mjs` say the same.

use std::time::Duration;

use futures::future::join_all;
use rmcp::ServiceError;
use rmcp::model::{
    CallToolRequestParams, ClientRequest, GetPromptRequestParams, PingRequest, ReadResourceRequestParams,
};
use serde_json::{Value, json};

use crate::{Arguments, Client};

/// Runs the scenario that the command line names; refusals are part of it, the truth notes them.
pub async fn run(args: &Arguments, client: &Client) {
    let (kind, value) = args.scenario.split_once(':').unwrap_or((&args.scenario, ""));
    let echo = |number: u64| call(client, "echo", echo_arguments(args, &format!("call {number}")));
    match kind {
        "basic" => basic(args, client).await,
        "calls" => {
            for number in 0..args.calls {
                echo(number).await;
            }
        }
        "parallel" => {
            join_all((0..args.calls).map(echo)).await;
        }
        "large" => {
            call(client, "big", json!({"bytes": 300 * 1024})).await;
            call(client, "big", json!({"bytes": 10 * 1024 * 1024})).await;
            call(client, "echo", echo_arguments(args, &"x".repeat(300 * 1024))).await;
            call(client, "echo", echo_arguments(args, "after")).await;
        }
        "slow" => call(client, "slow", json!({"seconds": value.parse::<f64>().unwrap_or(1.0)})).await,
        "hang" => call(client, "slow", json!({"seconds": 3600})).await,
        "session" => {
            for number in 0..args.calls {
                echo(number).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        "crash" => {
            echo(0).await;
            call(client, "crash", json!({})).await;
        }
        _ => panic!("unknown scenario {}", args.scenario),
    }
}

async fn basic(args: &Arguments, client: &Client) {
    let everything = args.dialect == "everything";
    attempt(client.list_tools(None).await);
    call(client, "echo", echo_arguments(args, "hello — grüß dich")).await;
    call(client, if everything { "get-sum" } else { "add" }, json!({"a": 2, "b": 3})).await;
    if everything {
        call(client, "get-sum", json!({"a": "two", "b": 3})).await;
    } else {
        call(client, "fail", json!({"reason": "asked to"})).await;
    }
    call(client, "no_such_tool", json!({})).await;
    let resources = attempt(client.list_resources(None).await);
    if let Some(first) = resources.as_ref().and_then(|list| list.resources.first()) {
        attempt(client.read_resource(ReadResourceRequestParams::new(first.uri.clone())).await);
    }
    attempt(client.list_prompts(None).await);
    let (name, arguments) = if everything { ("simple-prompt", json!({})) } else { ("greet", json!({"name": "Ada"})) };
    attempt(client.get_prompt(GetPromptRequestParams::new(name).with_arguments(object(arguments))).await);
    if client.peer_info().is_some_and(|info| info.protocol_version.as_str() < "2026") {
        attempt(client.send_request(ClientRequest::PingRequest(PingRequest::default())).await);
    }
}

fn echo_arguments(args: &Arguments, text: &str) -> Value {
    if args.dialect == "everything" { json!({"message": text}) } else { json!({"text": text}) }
}

async fn call(client: &Client, name: &'static str, arguments: Value) {
    attempt(client.call_tool(CallToolRequestParams::new(name).with_arguments(object(arguments))).await);
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn attempt<T>(answer: Result<T, ServiceError>) -> Option<T> {
    answer.inspect_err(|error| eprintln!("answered: {error}")).ok()
}

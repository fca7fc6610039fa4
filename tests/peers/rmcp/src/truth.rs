//! The client's own account of its requests, taken where the SDK hands messages to its transport: the same lines as
//! `../python/truth.py` writes, and for the same reasons.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};

use rmcp::RoleClient;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::{Value, json};

/// The account of one client process, shared by its transport and its end.
#[derive(Clone)]
pub struct Truth(Arc<Mutex<Account>>);

struct Account {
    file: File,
    seq: u64,
    pending: HashMap<String, (u64, String)>,
}

impl Truth {
    /// Begins the file with a line that says who writes it.
    pub fn create(path: &str, transport: &str) -> std::io::Result<Self> {
        let mut account = Account { file: File::create(path)?, seq: 0, pending: HashMap::new() };
        account.write(&json!({"event": "client", "pid": std::process::id(), "sdk": "rmcp 3.11.0", "transport": transport}));
        Ok(Self(Arc::new(Mutex::new(account))))
    }

    fn account(&self) -> std::sync::MutexGuard<'_, Account> {
        self.0.lock().expect("no thread panics while it holds the account")
    }

    /// Notes a request about to be sent and returns its key; anything else is no call.
    fn sent(&self, message: &ClientJsonRpcMessage) -> Option<String> {
        let ClientJsonRpcMessage::Request(request) = message else { return None };
        let fields = serde_json::to_value(request).expect("a request of the SDK is JSON");
        let key = fields["id"].to_string();
        let method = fields["method"].as_str().unwrap_or_default().to_owned();
        let mut account = self.account();
        let seq = account.seq;
        account.seq += 1;
        account.pending.insert(key.clone(), (seq, method.clone()));
        account.write(&json!({
            "event": "begin", "seq": seq, "method": method, "name": fields["params"]["name"], "id": fields["id"],
            "start_ns": now_ns(),
        }));
        Some(key)
    }

    fn received(&self, message: &ServerJsonRpcMessage) {
        let end = now_ns();
        let (id, code, result) = match message {
            ServerJsonRpcMessage::Response(response) => {
                (json!(response.id), None, serde_json::to_value(&response.result).unwrap_or_default())
            }
            ServerJsonRpcMessage::Error(error) => (json!(error.id), Some(error.error.code.0), Value::Null),
            _ => return,
        };
        let mut account = self.account();
        let key = id.to_string();
        let Some((_, method)) = account.pending.get(&key) else { return };
        let outcome = outcome(method, code, &result);
        account.end(&key, outcome, code, end);
    }

    /// The transport could not send (the HTTP backend calls that a client error), or was refused.
    fn failed(&self, key: &str, error: &str) {
        let mut account = self.account();
        let Some((_, method)) = account.pending.get(key) else { return };
        let outcome = match method.as_str() {
            _ if error.contains("Client error") => "server_gone",
            "server/discover" => "negotiation",
            _ => "http_error",
        };
        account.end(key, outcome, None, now_ns());
    }

    /// Closes every open request with this outcome.
    pub fn close(&self, outcome: &str) {
        let mut account = self.account();
        for key in account.pending.keys().cloned().collect::<Vec<_>>() {
            account.end(&key, outcome, None, now_ns());
        }
    }
}

impl Account {
    fn write(&mut self, line: &Value) {
        // One system call a line: what the client does besides its calls is measured with them.
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes()).expect("the truth can be written");
    }

    fn end(&mut self, key: &str, outcome: &str, code: Option<i32>, end_ns: u64) {
        let Some((seq, _)) = self.pending.remove(key) else { return };
        self.write(&json!({
            "event": "end", "seq": seq, "outcome": outcome, "rpc_code": code, "http_status": null, "end_ns": end_ns,
        }));
    }
}

/// The contract's name for what came back.
fn outcome(method: &str, code: Option<i32>, result: &Value) -> &'static str {
    match code {
        Some(_) if method == "server/discover" => return "negotiation",
        Some(-32022) => return "negotiation",
        Some(_) => return "rpc_error",
        None => {}
    }
    match result["resultType"].as_str() {
        Some("input_required") => "input_required",
        Some("task") => "task_accepted",
        _ if result["isError"] == true => "tool_error",
        _ => "ok",
    }
}

fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the kernel to write one timespec to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A transport that tells the truth of what passes.
pub struct Observed<T> {
    pub inner: T,
    pub truth: Truth,
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for Observed<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let key = self.truth.sent(&item);
        let truth = self.truth.clone();
        let sending = self.inner.send(item);
        async move {
            let sent = sending.await;
            if let (Err(error), Some(key)) = (&sent, key) {
                truth.failed(&key, &error.to_string());
            }
            sent
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        let message = self.inner.receive().await;
        match &message {
            Some(message) => self.truth.received(message),
            None => self.truth.close("server_gone"),
        }
        message
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.inner.close().await
    }
}

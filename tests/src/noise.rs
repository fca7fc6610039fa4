//! Bad input and traffic that is not MCP, one kind a process, with a good call after it wherever the stream can go on.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::clock::wait_until;
use crate::peer::free_port;
use crate::tiny::{Link, Manner, echo, initialize, post};
use crate::truth::{Optional, Teller};

/// What to send.
#[derive(Args)]
pub(crate) struct NoiseArgs {
    /// Where to write the good calls that were made.
    #[arg(long)]
    truth: PathBuf,
    #[arg(value_enum)]
    kind: Kind,
}

/// A kind of bad input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A megabyte of random bytes each way on pipes.
    Binary,
    /// The same on TCP, beginning as TLS records do.
    Tls,
    /// Random bytes on one connection and then MCP on the next, in the same thread, over and over.
    BinaryThenMcp,
    /// The language server protocol: JSON-RPC behind `Content-Length` lines, with an `initialize` of its own.
    Lsp,
    /// The agent client protocol: JSON-RPC by lines, `initialize` with an integer version.
    Acp,
    EthereumPipe,
    EthereumHttp,
    /// Agent to agent: JSON-RPC over HTTP with methods whose names MCP knows too.
    A2a,
    /// HTTP that is no JSON-RPC.
    Rest,
    /// 200 REST requests and then one to `/mcp` on one keep-alive connection.
    RestThenMcp,
    /// Half a message and silence.
    HalfMessage,
    /// A line of 100 MB before its newline.
    LongLine,
    /// Negative, huge, string, null and repeated ids.
    Ids,
    EmptyObject,
    InvalidUtf8,
    /// 10,000 levels of nesting.
    Nesting,
    /// 1 MB of header fields.
    BigHead,
    /// A chunk that says it is 2^63 bytes long.
    ChunkSize,
    /// The same from a server.
    AnswerChunkSize,
    /// A server that announces more than it sends.
    AnswerTooShort,
}

/// Makes the noise.
pub(crate) fn make(args: &NoiseArgs) -> Result<()> {
    let mut teller = Teller::create(&args.truth)?;
    match args.kind {
        Kind::Binary => flood(&mut Link::pipe(Manner::Garble)?, b"", PIECES),
        Kind::Tls => {
            let (_server, port) = listen(Manner::Garble)?;
            flood(
                &mut Link::http(port)?,
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                PIECES,
            )
        }
        Kind::BinaryThenMcp => by_turns(&mut teller),
        Kind::Lsp => language_server(),
        Kind::Acp => others_by_line(
            &["initialize", "session/new", "session/prompt"],
            &json!({"protocolVersion": 1}),
        ),
        Kind::EthereumPipe => others_by_line(&["eth_blockNumber", "eth_getBalance", "net_version"], &json!([])),
        Kind::EthereumHttp => others_by_http(&["eth_blockNumber", "eth_call", "web3_clientVersion"], &json!([])),
        Kind::A2a => others_by_http(&["message/send", "tasks/get", "tasks/cancel"], &json!({"id": "t1"})),
        Kind::Rest => rest(50).map(|_| ()),
        Kind::RestThenMcp => rest(200)?
            .call(&echo(&json!(1), "at last"), &mut teller, Optional::No)
            .map(|_| ()),
        Kind::BigHead | Kind::ChunkSize => bad_http(args.kind, &mut teller),
        Kind::AnswerChunkSize => bad_answer(Manner::HugeChunk, &mut teller),
        Kind::AnswerTooShort => bad_answer(Manner::HalfBody, &mut teller),
        Kind::HalfMessage | Kind::LongLine | Kind::Ids | Kind::EmptyObject | Kind::InvalidUtf8 | Kind::Nesting => {
            bad_lines(args.kind, &mut teller)
        }
    }
}

/// A listening tiny server, killed when dropped.
struct Listener(Child);

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listen(manner: Manner) -> Result<(Listener, u16)> {
    let port = free_port()?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["tiny-server", "--port", &port.to_string(), "--manner", manner.word()]);
    let server = Listener(command.spawn()?);
    let connected = wait_until(Duration::from_secs(30), || Link::http(port).ok());
    connected.context("the tiny server does not listen")?;
    Ok((server, port))
}

/// Pieces of 16 KiB that make a megabyte.
const PIECES: usize = 64;

/// Random bytes each way, in pieces of 16 KiB, slowly enough that a verdict on the first 64 KiB can take effect.
fn flood(link: &mut Link, head: &[u8], pieces: usize) -> Result<()> {
    link.send(head)?;
    link.skip(head.len())?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..pieces {
        link.send(&random.bytes(16 << 10))?;
        link.skip(16 << 10)?;
        sleep(Duration::from_millis(25));
    }
    Ok(())
}

/// The descriptor, and often the kernel's objects behind it, are the same for each connection.
fn by_turns(teller: &mut Teller) -> Result<()> {
    let (_garble, noise) = listen(Manner::Garble)?;
    let (_mcp, port) = listen(Manner::Mcp)?;
    for turn in 1..=10 {
        flood(&mut Link::http(noise)?, b"", 10)?;
        Link::http(port)?.call(&echo(&json!(turn), "after noise"), teller, Optional::No)?;
    }
    Ok(())
}

fn language_server() -> Result<()> {
    let mut link = Link::pipe(Manner::Lsp)?;
    for (id, method) in [
        "initialize",
        "textDocument/hover",
        "textDocument/definition",
        "shutdown",
    ]
    .iter()
    .enumerate()
    {
        let body =
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"processId": 1, "capabilities": {}}});
        let body = body.to_string();
        link.send(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
        link.receive_framed()?;
    }
    Ok(())
}

fn request(id: usize, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn others_by_line(methods: &[&str], params: &Value) -> Result<()> {
    let mut link = Link::pipe(Manner::Plain)?;
    for id in 0..50 {
        link.send_message(&request(id, methods[id % methods.len()], params))?;
        link.receive()?;
    }
    Ok(())
}

fn others_by_http(methods: &[&str], params: &Value) -> Result<()> {
    let (_server, port) = listen(Manner::Plain)?;
    let mut link = Link::http(port)?;
    for id in 0..50 {
        let body = request(id, methods[id % methods.len()], params).to_string();
        link.send(post("/", &body).as_bytes())?;
        link.receive()?;
    }
    Ok(())
}

/// Some REST requests on one connection, which is handed on together with its server.
fn rest(requests: usize) -> Result<Link> {
    let (server, port) = listen(Manner::Mcp)?;
    let mut link = Link::http(port)?;
    for number in 0..requests {
        link.send(
            format!("GET /api/items/{number} HTTP/1.1\r\nHost: tiny\r\nAccept: application/json\r\n\r\n").as_bytes(),
        )?;
        link.receive()?;
    }
    // The server ends with this process's control group; the connection is still needed.
    std::mem::forget(server);
    Ok(link)
}

fn bad_http(kind: Kind, teller: &mut Teller) -> Result<()> {
    let (_server, port) = listen(Manner::Mcp)?;
    let mut bad = Link::http(port)?;
    let call = echo(&json!(1), "behind a bad head");
    if kind == Kind::BigHead {
        let seq = teller.begin(&call, Optional::Yes)?;
        let field = format!("X-Long: {}\r\n", "x".repeat(8000));
        let (first, rest) = post("/mcp", &call.to_string())
            .split_once("\r\n")
            .map(own)
            .context("a head has lines")?;
        bad.send(format!("{first}\r\n{}{rest}", field.repeat(131)).as_bytes())?;
        bad.receive()?;
        teller.end(seq, "ok")?;
    } else {
        bad.send(
            b"POST /mcp HTTP/1.1\r\nHost: tiny\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000000\r\n{\"jsonrpc\"",
        )?;
    }
    drop(bad);
    let mut good = Link::http(port)?;
    good.call(&initialize(&json!(0)), teller, Optional::No)?;
    good.call(&echo(&json!(2), "after"), teller, Optional::No)?;
    Ok(())
}

/// A good call whose answer never becomes whole, and then one on a good server.
fn bad_answer(manner: Manner, teller: &mut Teller) -> Result<()> {
    let (_bad_server, port) = listen(manner)?;
    let mut bad = Link::http(port)?;
    let call = echo(&json!(1), "to a bad server");
    teller.begin(&call, Optional::No)?;
    bad.send_message(&call)?;
    let whole = bad
        .receive()
        .is_ok_and(|(_, body)| serde_json::from_slice::<Value>(&body).is_ok());
    ensure!(!whole, "a bad answer was taken for a good one");
    drop(bad);
    let (_server, port) = listen(Manner::Mcp)?;
    let mut good = Link::http(port)?;
    good.call(&initialize(&json!(0)), teller, Optional::No)?;
    good.call(&echo(&json!(2), "after"), teller, Optional::No)?;
    Ok(())
}

fn own((first, rest): (&str, &str)) -> (String, String) {
    (first.to_owned(), rest.to_owned())
}

fn bad_lines(kind: Kind, teller: &mut Teller) -> Result<()> {
    let mut link = Link::pipe(Manner::Mcp)?;
    link.call(&initialize(&json!(0)), teller, Optional::No)?;
    link.call(&echo(&json!(1), "before"), teller, Optional::No)?;
    match kind {
        Kind::HalfMessage => {
            link.send(br#"{"jsonrpc":"2.0","id":2,"method":"tools/ca"#)?;
            sleep(Duration::from_secs(2));
            return Ok(());
        }
        Kind::LongLine => {
            teller.begin(&echo(&json!(2), "too long"), Optional::Yes)?;
            link.send(
                br#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{"text":""#,
            )?;
            let megabyte = vec![b'x'; 1 << 20];
            for _ in 0..100 {
                link.send(&megabyte)?;
            }
            link.send(b"\n")?;
        }
        Kind::Ids => odd_ids(&mut link, teller)?,
        Kind::EmptyObject => link.send(b"{}\n[]\n\n{\"jsonrpc\":\"2.0\"}\n")?,
        Kind::InvalidUtf8 => {
            teller.begin(&echo(&json!(2), "not text"), Optional::Yes)?;
            link.send(
                b"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"\xff\xfe\x80\"}}\n",
            )?;
        }
        _ => {
            teller.begin(&echo(&json!(2), "deep"), Optional::Yes)?;
            let (open, close) = ("[".repeat(10_000), "]".repeat(10_000));
            let line = format!(
                r#"{{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{{"name":"echo","arguments":{open}{close}}}}}"#
            );
            link.send(format!("{line}\n").as_bytes())?;
        }
    }
    link.call(&echo(&json!(3), "after"), teller, Optional::No)?;
    Ok(())
}

fn odd_ids(link: &mut Link, teller: &mut Teller) -> Result<()> {
    let ids = [
        json!(-1),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e30),
        json!("seven"),
        json!("7"),
        json!(7),
        json!(""),
        json!("ü \"quoted\" \n"),
        json!(5),
        json!(5),
        json!(5),
    ];
    for id in ids {
        link.call(&echo(&id, "odd"), teller, Optional::No)?;
    }
    // The specification forbids it; whether it is a call is the observer's choice.
    link.call(&echo(&Value::Null, "null"), teller, Optional::Yes)?;
    Ok(())
}

/// Random enough to be no text and no ASCII by chance: xorshift.
struct Random(u64);

impl Random {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend(self.0.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

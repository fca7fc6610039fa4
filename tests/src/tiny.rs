//! Light peers that speak JSON-RPC by hand, for tests that need hundreds of them: a server and a client, on stdio and on HTTP.
//!
//! The server answers whatever it can read and skips the rest, so that a stream fed with bad input goes on.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::{sleep, spawn};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::truth::{Optional, Teller};

/// A server on standard input and output, or on a port.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// Listens on this port of 127.0.0.1 and speaks HTTP.
    #[arg(long)]
    port: Option<u16>,
    /// How it answers.
    #[arg(long, value_enum, default_value = "mcp")]
    manner: Manner,
}

/// How a tiny server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Manner {
    /// As an MCP server.
    Mcp,
    /// As some other JSON-RPC server.
    Plain,
    /// The same, with a language server's framing.
    Lsp,
    /// With as many bytes as it is sent, none of them text.
    Garble,
}

impl Manner {
    /// The word for the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::Plain => "plain",
            Self::Lsp => "lsp",
            Self::Garble => "garble",
        }
    }
}

/// A client that makes `--calls` calls with the ids 1, 2, 3, …
#[derive(Args)]
pub(crate) struct ClientArgs {
    /// Where to write what it did.
    #[arg(long)]
    truth: PathBuf,
    /// How many calls to make.
    #[arg(long, default_value_t = 1)]
    calls: u64,
    /// How long an argument each call carries.
    #[arg(long, default_value_t = 10)]
    bytes: usize,
    /// Pause between two calls.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Port of an HTTP server; otherwise it starts a server of its own on pipes.
    #[arg(long)]
    port: Option<u16>,
}

/// Serves until the input ends, or for ever.
pub(crate) fn serve(args: &ServerArgs) -> Result<()> {
    let Some(port) = args.port else {
        return match args.manner {
            Manner::Mcp | Manner::Plain => serve_lines(io::stdin().lock(), io::stdout().lock(), args.manner),
            Manner::Lsp => serve_framed(io::stdin().lock(), io::stdout().lock()),
            Manner::Garble => serve_garbled(io::stdin().lock(), io::stdout().lock()),
        };
    };
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    eprintln!("ready");
    for stream in listener.incoming() {
        let (stream, manner) = (stream?, args.manner);
        // A connection that breaks is the client's matter.
        spawn(move || match manner {
            Manner::Garble => serve_garbled(&stream, &stream).ok(),
            _ => serve_http(&stream, manner).ok(),
        });
    }
    Ok(())
}

fn serve_lines(mut input: impl BufRead, mut output: impl Write, manner: Manner) -> Result<()> {
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        if let Some(answer) = answer(&line, manner) {
            output.write_all(format!("{answer}\n").as_bytes())?;
            output.flush()?;
        }
        line.clear();
    }
    Ok(())
}

fn serve_framed(mut input: impl BufRead, mut output: impl Write) -> Result<()> {
    while let Some((_, body)) = read_message(&mut input)? {
        if let Some(answer) = answer(&body, Manner::Lsp) {
            let answer = answer.to_string();
            output.write_all(format!("Content-Length: {}\r\n\r\n{answer}", answer.len()).as_bytes())?;
            output.flush()?;
        }
    }
    Ok(())
}

fn serve_garbled(mut input: impl Read, mut output: impl Write) -> Result<()> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let length = input.read(&mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        bytes[..length].iter_mut().for_each(|byte| *byte ^= 0x5a);
        output.write_all(&bytes[..length])?;
        output.flush()?;
    }
}

/// The answer to a message, `None` where it needs none or cannot be read.
fn answer(message: &[u8], manner: Manner) -> Option<Value> {
    let request: Value = serde_json::from_slice(message).ok()?;
    let id = request.get("id")?;
    if manner != Manner::Mcp {
        return Some(json!({"jsonrpc": "2.0", "id": id, "result": {"protocolVersion": 1, "capabilities": {}}}));
    }
    let result = match request["method"].as_str()? {
        "initialize" => json!({
            "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "tiny", "version": "1"},
        }),
        "tools/list" => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
        "tools/call" => json!({"content": [{"type": "text", "text": request["params"]["arguments"]["text"]}]}),
        _ => json!({}),
    };
    Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn serve_http(stream: &TcpStream, manner: Manner) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream);
    while let Some((_, body)) = read_message(&mut input)? {
        let (status, answer) = match answer(&body, manner) {
            Some(answer) => ("200 OK", answer.to_string()),
            None if body.is_empty() => ("200 OK", json!({"items": [1, 2, 3]}).to_string()),
            None => ("202 Accepted", String::new()),
        };
        let mut output: &TcpStream = stream;
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        output.write_all(format!("{head}{answer}").as_bytes())?;
    }
    Ok(())
}

/// Reads one message with a head: the head's length and the body. HTTP and the language servers' framing alike.
pub(crate) fn read_message(input: &mut impl BufRead) -> Result<Option<(usize, Vec<u8>)>> {
    let (mut length, mut head) = (0, 0);
    loop {
        let mut line = String::new();
        match input.read_line(&mut line)? {
            0 if head == 0 => return Ok(None),
            0 => bail!("the head was cut short"),
            read => head += read,
        }
        let lower = line.trim_end().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some((head, body)))
}

/// The client's end of a connection to a tiny server.
pub(crate) enum Link {
    /// A server of its own on two pipes.
    Pipe {
        server: Child,
        input: BufReader<std::process::ChildStdout>,
        output: BufWriter<std::process::ChildStdin>,
    },
    /// A server that listens.
    Http {
        stream: TcpStream,
        input: BufReader<TcpStream>,
    },
}

impl Link {
    /// Starts this program again as the server.
    pub(crate) fn pipe(manner: Manner) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["tiny-server", "--manner", manner.word()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut server = command.spawn()?;
        let input = BufReader::new(server.stdout.take().context("its output is piped")?);
        let output = BufWriter::new(server.stdin.take().context("its input is piped")?);
        Ok(Self::Pipe { server, input, output })
    }

    /// Connects to a server that listens.
    pub(crate) fn http(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let input = BufReader::new(stream.try_clone()?);
        Ok(Self::Http { stream, input })
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Pipe { output, .. } => {
                output.write_all(bytes)?;
                Ok(output.flush()?)
            }
            Self::Http { stream, .. } => Ok(stream.write_all(bytes)?),
        }
    }

    /// Sends a message in this link's framing; returns its length on the wire.
    pub(crate) fn send_message(&mut self, message: &Value) -> Result<usize> {
        let bytes = match self {
            Self::Pipe { .. } => format!("{message}\n"),
            Self::Http { .. } => post("/mcp", &message.to_string()),
        };
        self.send(bytes.as_bytes())?;
        Ok(bytes.len())
    }

    /// Receives one message in this link's framing: the length of its head, and its body.
    pub(crate) fn receive(&mut self) -> Result<(usize, Vec<u8>)> {
        match self {
            Self::Pipe { input, .. } => {
                let mut line = Vec::new();
                input.read_until(b'\n', &mut line)?;
                Ok((0, line))
            }
            Self::Http { input, .. } => read_message(input)?.context("the server closed"),
        }
    }

    /// Receives this many bytes, whatever they are.
    pub(crate) fn skip(&mut self, length: usize) -> Result<()> {
        let mut bytes = vec![0; length];
        match self {
            Self::Pipe { input, .. } => Ok(input.read_exact(&mut bytes)?),
            Self::Http { input, .. } => Ok(input.read_exact(&mut bytes)?),
        }
    }

    /// Receives one message in a language server's framing.
    pub(crate) fn receive_framed(&mut self) -> Result<()> {
        match self {
            Self::Pipe { input, .. } => read_message(input)?,
            Self::Http { input, .. } => read_message(input)?,
        };
        Ok(())
    }

    /// Makes one call and tells the truth of it; returns the bytes that passed.
    pub(crate) fn call(&mut self, request: &Value, teller: &mut Teller, optional: Optional) -> Result<usize> {
        let seq = teller.begin(request, optional)?;
        let sent = self.send_message(request)?;
        let (head, answer) = self.receive()?;
        let parsed: Value = serde_json::from_slice(&answer).context("the answer is not JSON")?;
        teller.end(
            seq,
            if parsed.get("error").is_some() {
                "rpc_error"
            } else {
                "ok"
            },
        )?;
        Ok(sent + head + answer.len())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Self::Pipe { server, .. } = self {
            // The pipes close after this: a server that waits for its end would wait for ever.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A POST of a JSON body.
pub(crate) fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: tiny\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The handshake's request.
pub(crate) fn initialize(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "tiny", "version": "1"},
    }})
}

/// A call of the tool `echo`.
pub(crate) fn echo(id: &Value, text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": text}}})
}

/// Makes the calls.
pub(crate) fn call(args: &ClientArgs) -> Result<()> {
    let mut teller = Teller::create(&args.truth)?;
    let mut link = match args.port {
        Some(port) => Link::http(port)?,
        None => Link::pipe(Manner::Mcp)?,
    };
    let mut total = link.call(&initialize(&json!(0)), &mut teller, Optional::No)?;
    let text = "x".repeat(args.bytes);
    for id in 1..=args.calls {
        total += link.call(&echo(&json!(id), &text), &mut teller, Optional::No)?;
        sleep(Duration::from_millis(args.pause_ms));
    }
    teller.bytes(u64::try_from(total)?)
}

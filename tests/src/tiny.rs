//! Light peers that speak JSON-RPC by hand, for tests that need hundreds of them: a server and a client, on stdio and on HTTP.
//!
//! The server answers whatever it can read and skips the rest, so that a stream fed with bad input goes on.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
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
    /// Listens on this port and speaks HTTP.
    #[arg(long)]
    port: Option<u16>,
    /// The address it listens on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
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
    /// Over HTTP with a chunk that says it is 2^63 bytes long, and closes.
    HugeChunk,
    /// Over HTTP with half of the bytes that it announces, and closes.
    HalfBody,
}

impl Manner {
    /// The word for the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::Plain => "plain",
            Self::Lsp => "lsp",
            Self::Garble => "garble",
            Self::HugeChunk => "huge-chunk",
            Self::HalfBody => "half-body",
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
    /// That server's address.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Sends each message in this many pieces of memory.
    #[arg(long, default_value_t = 1)]
    segments: usize,
    /// The system call that takes the pieces.
    #[arg(long, value_enum, default_value = "writev")]
    gather: Gather,
}

/// How pieces of memory are handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Gather {
    Writev,
    /// Sockets alone have it.
    Sendmsg,
}

/// Serves until the input ends, or for ever.
pub(crate) fn serve(args: &ServerArgs) -> Result<()> {
    let Some(port) = args.port else {
        return match args.manner {
            Manner::Mcp | Manner::Plain | Manner::HugeChunk | Manner::HalfBody => {
                serve_lines(io::stdin().lock(), io::stdout().lock(), args.manner)
            }
            Manner::Lsp => serve_framed(io::stdin().lock(), io::stdout().lock()),
            Manner::Garble => serve_garbled(io::stdin().lock(), io::stdout().lock()),
        };
    };
    let listener = TcpListener::bind((args.host, port))?;
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
    if matches!(manner, Manner::Plain | Manner::Lsp) {
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
        if let Some(bad) = bad_answer(manner, &answer) {
            return Ok(output.write_all(bad.as_bytes())?);
        }
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        output.write_all(format!("{head}{answer}").as_bytes())?;
    }
    Ok(())
}

/// An answer that ends before it is whole.
fn bad_answer(manner: Manner, answer: &str) -> Option<String> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    match manner {
        Manner::HugeChunk => Some(format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n8000000000000000\r\n{answer}"
        )),
        Manner::HalfBody => {
            let half = &answer[..answer.len() / 2];
            Some(format!("{head}Content-Length: {}\r\n\r\n{half}", answer.len()))
        }
        _ => None,
    }
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

    /// Connects to a server that listens on this machine's own address.
    pub(crate) fn http(port: u16) -> Result<Self> {
        Self::http_to(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }

    /// Connects to a server that listens.
    pub(crate) fn http_to(host: IpAddr, port: u16) -> Result<Self> {
        let stream = TcpStream::connect((host, port))?;
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
        let bytes = self.framed(message);
        self.send(bytes.as_bytes())?;
        Ok(bytes.len())
    }

    fn framed(&self, message: &Value) -> String {
        match self {
            Self::Pipe { .. } => format!("{message}\n"),
            Self::Http { .. } => post("/mcp", &message.to_string()),
        }
    }

    /// Sends bytes in so many pieces, with one system call where it takes them all.
    fn send_pieces(&mut self, bytes: &[u8], segments: usize, gather: Gather) -> Result<()> {
        let descriptor = match self {
            Self::Pipe { output, .. } => output.get_ref().as_raw_fd(),
            Self::Http { stream, .. } => stream.as_raw_fd(),
        };
        let pieces: Vec<libc::iovec> = bytes
            .chunks(bytes.len().div_ceil(segments))
            .map(|piece| libc::iovec {
                iov_base: piece.as_ptr().cast_mut().cast(),
                iov_len: piece.len(),
            })
            .collect();
        // SAFETY: the descriptor is open, every piece lies in `bytes`, and the kernel only reads them; zero is a valid msghdr.
        let sent = unsafe {
            match gather {
                Gather::Writev => libc::writev(descriptor, pieces.as_ptr(), i32::try_from(pieces.len())?),
                Gather::Sendmsg => {
                    let mut message: libc::msghdr = std::mem::zeroed();
                    message.msg_iov = pieces.as_ptr().cast_mut();
                    message.msg_iovlen = pieces.len() as _;
                    libc::sendmsg(descriptor, &raw const message, 0)
                }
            }
        };
        match usize::try_from(sent) {
            Ok(sent) => self.send(&bytes[sent..]),
            Err(_) => Err(io::Error::last_os_error().into()),
        }
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
        self.call_by(request, teller, optional, Self::send)
    }

    fn call_by(
        &mut self,
        request: &Value,
        teller: &mut Teller,
        optional: Optional,
        send: impl Fn(&mut Self, &[u8]) -> Result<()>,
    ) -> Result<usize> {
        let seq = teller.begin(request, optional)?;
        let bytes = self.framed(request);
        send(self, bytes.as_bytes())?;
        let sent = bytes.len();
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
        Some(port) => Link::http_to(args.host, port)?,
        None => Link::pipe(Manner::Mcp)?,
    };
    let mut total = link.call(&initialize(&json!(0)), &mut teller, Optional::No)?;
    let text = "x".repeat(args.bytes);
    for id in 1..=args.calls {
        let send = |link: &mut Link, bytes: &[u8]| match args.segments {
            1 => link.send(bytes),
            segments => link.send_pieces(bytes, segments, args.gather),
        };
        total += link.call_by(&echo(&json!(id), &text), &mut teller, Optional::No, send)?;
        sleep(Duration::from_millis(args.pause_ms));
    }
    teller.bytes(u64::try_from(total)?)
}

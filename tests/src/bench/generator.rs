//! The generator of the flood: a client that writes requests of 300 bytes at a fixed pace over pipes, socketpairs and TCP, and
//! servers that answer each. Cheap enough that one core does both: messages are patched, never parsed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

/// Length of a request and of an answer on the wire, with the newline.
const LENGTH: usize = 300;

/// Where a message's id lies; all ids have ten digits.
const ID: std::ops::Range<usize> = 22..32;
const HEAD: &str = r#"{"jsonrpc":"2.0","id":"#;

/// Requests written to a link before its answers are read.
const BURST: u64 = 25;

/// Two links of each kind.
const LINKS: [Kind; 6] = [
    Kind::Pipe,
    Kind::Pipe,
    Kind::Socketpair,
    Kind::Socketpair,
    Kind::Tcp,
    Kind::Tcp,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Pipe,
    Socketpair,
    Tcp,
}

/// The client.
#[derive(Args)]
pub(crate) struct FloodClientArgs {
    /// Calls a second.
    #[arg(long)]
    rate: u64,
    #[arg(long)]
    seconds: u64,
}

/// A server on its standard input and output, or on the connection that it makes to this port.
#[derive(Args)]
pub(crate) struct FloodServerArgs {
    #[arg(long)]
    port: Option<u16>,
}

/// Makes the calls and prints how many, and how many seconds that took.
pub(crate) fn flood_client(args: &FloodClientArgs) -> Result<()> {
    let mut links = LINKS.into_iter().map(Link::open).collect::<Result<Vec<Link>>>()?;
    for link in &mut links {
        link.begin()?;
    }
    // The observer is given time to see what these streams are.
    sleep(Duration::from_millis(500));
    let (total, mut made) = (args.rate * args.seconds, 0);
    let begin = Instant::now();
    while made < total {
        for link in &mut links {
            link.ask()?;
        }
        for link in &mut links {
            link.hear()?;
        }
        made += BURST * LINKS.len() as u64;
        let due = begin + Duration::from_nanos(made * 1_000_000_000 / args.rate);
        sleep(due.saturating_duration_since(Instant::now()));
    }
    println!("{made} {}", begin.elapsed().as_secs_f64());
    Ok(())
}

struct Link {
    server: Child,
    input: Box<dyn Read>,
    output: Box<dyn Write>,
    next: u64,
    message: Vec<u8>,
    answers: Vec<u8>,
}

impl Link {
    fn open(kind: Kind) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("flood-server");
        let (server, input, output): (Child, Box<dyn Read>, Box<dyn Write>) = match kind {
            Kind::Pipe => {
                let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
                let input = server.stdout.take().context("its output is piped")?;
                let output = server.stdin.take().context("its input is piped")?;
                (server, Box::new(input), Box::new(output))
            }
            Kind::Socketpair => {
                let (output, stdin) = UnixStream::pair()?;
                let (input, stdout) = UnixStream::pair()?;
                command.stdin(OwnedFd::from(stdin)).stdout(OwnedFd::from(stdout));
                (command.spawn()?, Box::new(input), Box::new(output))
            }
            Kind::Tcp => {
                let listener = TcpListener::bind(("127.0.0.1", 0))?;
                let port = listener.local_addr()?.port().to_string();
                let server = command.args(["--port", &port]).spawn()?;
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                (server, Box::new(stream.try_clone()?), Box::new(stream))
            }
        };
        Ok(Self {
            server,
            input,
            output,
            next: 1_000_000_000,
            message: request(),
            answers: vec![0; LENGTH * usize::try_from(BURST)?],
        })
    }

    /// The handshake, by which the observer knows what this is.
    fn begin(&mut self) -> Result<()> {
        let text = format!(
            r#"{HEAD}{},"method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{{}},"clientInfo":{{"name":"flood","version":"1"}}}}}}"#,
            self.next
        );
        self.next += 1;
        self.output.write_all(&padded(&text))?;
        Ok(self.input.read_exact(&mut self.answers[..LENGTH])?)
    }

    fn ask(&mut self) -> Result<()> {
        for _ in 0..BURST {
            write!(&mut self.message[ID], "{}", self.next)?;
            self.next += 1;
            self.output.write_all(&self.message)?;
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<()> {
        Ok(self.input.read_exact(&mut self.answers)?)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Answers until the input ends.
pub(crate) fn flood_server(args: &FloodServerArgs) -> Result<()> {
    match args.port {
        Some(port) => {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            answer(&stream, &stream)
        }
        // Not the buffered standard output: each answer is one write.
        None => answer(file("/proc/self/fd/0")?, file("/proc/self/fd/1")?),
    }
}

/// A standard descriptor of this process, without the library's buffer.
fn file(path: &str) -> Result<std::fs::File> {
    use std::os::fd::FromRawFd;
    let number = path.rsplit('/').next().unwrap_or_default().parse()?;
    // SAFETY: standard input and output are open, and this process uses them nowhere else.
    Ok(unsafe { std::fs::File::from_raw_fd(number) })
}

fn answer(mut input: impl Read, mut output: impl Write) -> Result<()> {
    let (mut welcome, mut answer) = (welcome(), result());
    let mut bytes = vec![0; 64 << 10];
    let mut held = 0;
    loop {
        let read = input.read(&mut bytes[held..])?;
        if read == 0 {
            return Ok(());
        }
        held += read;
        let whole = held - held % LENGTH;
        for request in bytes[..whole].chunks_exact(LENGTH) {
            let begins = request[ID.end..].starts_with(br#","method":"initialize""#);
            let message = if begins { &mut welcome } else { &mut answer };
            message[ID].copy_from_slice(&request[ID]);
            output.write_all(message)?;
        }
        bytes.copy_within(whole..held, 0);
        held -= whole;
    }
}

fn request() -> Vec<u8> {
    filled(
        r#"{"jsonrpc":"2.0","id":0000000000,"method":"tools/call","params":{"name":"echo","arguments":{"text":""#,
        r#""}}}"#,
    )
}

fn result() -> Vec<u8> {
    filled(
        r#"{"jsonrpc":"2.0","id":0000000000,"result":{"content":[{"type":"text","text":""#,
        r#""}]}}"#,
    )
}

fn welcome() -> Vec<u8> {
    padded(
        r#"{"jsonrpc":"2.0","id":0000000000,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"flood","version":"1"}}}"#,
    )
}

/// A message made as long as all are by the text within it.
fn filled(before: &str, after: &str) -> Vec<u8> {
    let text = "x".repeat(LENGTH - 1 - before.len() - after.len());
    format!("{before}{text}{after}\n").into_bytes()
}

/// A message made as long as all are by blanks before its newline.
fn padded(text: &str) -> Vec<u8> {
    format!("{text:<width$}\n", width = LENGTH - 1).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::{HEAD, ID, LENGTH, request, result, welcome};

    #[test]
    fn messages_have_their_ids_in_one_place() {
        assert_eq!(HEAD.len(), ID.start);
        for message in [request(), result(), welcome()] {
            assert_eq!(message.len(), LENGTH);
            assert_eq!(&message[ID], b"0000000000");
            let value: serde_json::Value =
                serde_json::from_slice(&[&message[..ID.start], b"1234567890", &message[ID.end..]].concat())
                    .expect("JSON");
            assert_eq!(value["id"], 1_234_567_890);
        }
    }
}

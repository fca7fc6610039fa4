//! An HTTPS server on rustls, whose plain text no probe can reach once the symbols are gone: it answers every call alike.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::spawn;

use anyhow::Result;
use clap::Args;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::tiny::read_message;

/// Where it listens, and as whom.
#[derive(Args)]
pub(crate) struct ServerArgs {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    cert: PathBuf,
    #[arg(long)]
    key: PathBuf,
}

/// Serves for ever.
pub(crate) fn serve(args: &ServerArgs) -> Result<()> {
    let certificate = CertificateDer::from_pem_file(&args.cert)?;
    let key = PrivateKeyDer::from_pem_file(&args.key)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", args.port))?;
    eprintln!("ready");
    for stream in listener.incoming() {
        let (stream, config) = (stream?, Arc::clone(&config));
        // A connection that breaks is the client's matter.
        spawn(move || answer_all(stream, config).ok());
    }
    Ok(())
}

fn answer_all(stream: TcpStream, config: Arc<ServerConfig>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    while let Some((_, body)) = read_message(&mut input)? {
        let request: Value = serde_json::from_slice(&body)?;
        let result = json!({"resultType": "complete", "content": [{"type": "text", "text": "9"}]});
        let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        let output = input.get_mut();
        output.write_all(format!("{head}{answer}").as_bytes())?;
        output.flush()?;
    }
    Ok(())
}

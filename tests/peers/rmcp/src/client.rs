//! An MCP client on rmcp that writes its own truth: see ../README.md for the command line.

mod scenario;
mod truth;

use anyhow::Context;
use clap::Parser;
use rmcp::model::{ClientConfig, ProtocolVersion};
use rmcp::service::RunningService;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess, Transport};
use rmcp::{ClientLifecycleMode, ClientServiceExt, RoleClient};
use truth::{Observed, Truth};

#[derive(Parser)]
pub struct Arguments {
    #[arg(long, value_parser = ["stdio", "http", "http2"])]
    transport: String,
    #[arg(long)]
    truth: String,
    #[arg(long)]
    scenario: String,
    #[arg(long, default_value = "")]
    url: String,
    #[arg(long, default_value_t = 10)]
    calls: u64,
    #[arg(long, default_value = "auto", value_parser = ["auto", "legacy"])]
    mode: String,
    /// The revision that `initialize` offers.
    #[arg(long)]
    protocol: Option<String>,
    #[arg(long, default_value = "peers", value_parser = ["peers", "everything"])]
    dialect: String,
    /// Whose TLS is under `https`.
    #[arg(long, default_value = "rustls", value_parser = ["rustls", "native"])]
    tls: String,
    #[arg(last = true)]
    server: Vec<String>,
}

type Client = RunningService<RoleClient, ClientConfig>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Of a program that is running already, an observer knows what it needs when the next process comes.
    if std::env::args().nth(1).is_some_and(|role| role == "idle") {
        return std::future::pending().await;
    }
    let args = Arguments::parse();
    rustls::crypto::ring::default_provider().install_default().expect("nobody else chose");
    let truth = Truth::create(&args.truth, &args.transport)?;
    let done = run(&args, &truth).await;
    truth.close("unanswered");
    done
}

async fn run(args: &Arguments, truth: &Truth) -> anyhow::Result<()> {
    let client = if args.transport == "stdio" {
        let (program, rest) = args.server.split_first().context("a stdio client needs the server's command line")?;
        let mut command = tokio::process::Command::new(program);
        command.args(rest);
        connect(args, TokioChildProcess::new(command)?, truth).await?
    } else {
        let config = StreamableHttpClientTransportConfig::with_uri(args.url.clone());
        connect(args, StreamableHttpClientTransport::with_client(http(args)?, config), truth).await?
    };
    scenario::run(args, &client).await;
    client.cancel().await?;
    Ok(())
}

fn http(args: &Arguments) -> reqwest::Result<reqwest::Client> {
    let http = reqwest::Client::builder();
    let http = if args.transport == "http2" { http.http2_prior_knowledge() } else { http.http1_only() };
    let http = if args.tls == "native" { http.tls_backend_native() } else { http.tls_backend_rustls() };
    http.build()
}

async fn connect<T>(args: &Arguments, inner: T, truth: &Truth) -> anyhow::Result<Client>
where
    T: Transport<RoleClient> + 'static,
{
    let lifecycle = if args.mode == "legacy" {
        ClientLifecycleMode::Initialize
    } else {
        ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: Some(ProtocolVersion::V_2025_11_25),
        }
    };
    let transport = Observed { inner, truth: truth.clone() };
    let mut config = ClientConfig::default();
    if let Some(protocol) = &args.protocol {
        config = config.with_protocol_version(serde_json::from_value(protocol.as_str().into())?);
    }
    Ok(config.serve_with_lifecycle(transport, lifecycle).await?)
}

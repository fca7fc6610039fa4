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
    #[arg(last = true)]
    server: Vec<String>,
}

type Client = RunningService<RoleClient, ClientConfig>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Arguments::parse();
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
        let transport = if args.transport == "http2" {
            let http = reqwest::Client::builder().http2_prior_knowledge().build()?;
            let config = StreamableHttpClientTransportConfig::with_uri(args.url.clone());
            StreamableHttpClientTransport::with_client(http, config)
        } else {
            StreamableHttpClientTransport::from_uri(args.url.clone())
        };
        connect(args, transport, truth).await?
    };
    scenario::run(args, &client).await;
    client.cancel().await?;
    Ok(())
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
